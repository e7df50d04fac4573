//! Writes the history, one JSON object a line, in the order in which things happened.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::history::{Event, Line};

/// Shared by everybody who sees something. The time is taken under the lock, so lines stand in the order of their times;
/// what was recorded before a panic is written when the last user of the recorder is dropped.
#[derive(Debug)]
pub(crate) struct Recorder {
    begin: Instant,
    path: PathBuf,
    out: Mutex<BufWriter<File>>,
    connections: AtomicU64,
    requests: AtomicU64,
}

impl Recorder {
    /// Begins a history at `path`.
    pub(crate) fn create(path: PathBuf) -> Self {
        let out = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let out = Mutex::new(BufWriter::new(out));
        Self { begin: Instant::now(), path, out, connections: AtomicU64::new(0), requests: AtomicU64::new(0) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Microseconds since the run began.
    pub(crate) fn now_us(&self) -> u64 {
        micros(self.begin.elapsed())
    }

    /// A number for a new connection.
    pub(crate) fn connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a request to follow something.
    pub(crate) fn request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn record(&self, event: Event) {
        let mut out = self.lock();
        let line = Line { at_us: self.now_us(), event };
        serde_json::to_writer(&mut *out, &line).expect("the folder of the history can be written to");
        out.write_all(b"\n").expect("the folder of the history can be written to");
    }

    pub(crate) fn flush(&self) {
        self.lock().flush().expect("the folder of the history can be written to");
    }

    fn lock(&self) -> MutexGuard<'_, BufWriter<File>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("a run is shorter than 500,000 years")
}
