//! What a client follows and leaves by itself, over its own connection.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::history::{Event, Outcome};
use super::recorder::Recorder;

/// Time between two changes of mind.
const SECONDS: std::ops::Range<f64> = 1.0..25.0;

/// The whims of one connection.
#[derive(Debug)]
pub(crate) struct Whims {
    /// What it likes sometimes; nothing if it has no whims.
    topics: Vec<String>,
    due: Instant,
    /// Requests that were not answered, by their `ref`.
    waiting: HashMap<String, u64>,
    rng: fastrand::Rng,
}

impl Whims {
    pub(crate) fn new(topics: Vec<String>, rng: fastrand::Rng) -> Self {
        let mut whims = Self { topics, due: Instant::now(), waiting: HashMap::new(), rng };
        whims.postpone();
        whims
    }

    fn postpone(&mut self) {
        let pause = SECONDS.start + (SECONDS.end - SECONDS.start) * self.rng.f64();
        self.due = Instant::now() + Duration::from_secs_f64(pause);
    }

    /// When it changes its mind next.
    pub(crate) fn due(&self) -> Option<Instant> {
        (!self.topics.is_empty()).then_some(self.due)
    }

    /// Records a change of mind, and gives the frame that asks for it.
    pub(crate) fn ask(&mut self, recorder: &Recorder, connection: u64, user: &str) -> String {
        self.postpone();
        let topic = self.topics[self.rng.usize(..self.topics.len())].clone();
        let (request, follow) = (recorder.request(), self.rng.bool());
        let kind = if follow { "follow" } else { "unfollow" };
        let reference = request.to_string();
        let frame = json!({ "type": kind, "topics": [&topic], "ref": &reference });
        self.waiting.insert(reference, request);
        recorder.record(Event::Follow { request, user: user.to_owned(), topic, follow, connection: Some(connection) });
        frame.to_string()
    }

    /// An answer with this `ref` came; false if it answers nothing of this.
    pub(crate) fn answered(&mut self, recorder: &Recorder, reference: Option<&str>, outcome: Outcome) -> bool {
        let Some(request) = reference.and_then(|reference| self.waiting.remove(reference)) else { return false };
        recorder.record(Event::Followed { request, outcome });
        true
    }

    /// The connection has ended: what was not answered is unknown.
    pub(crate) fn end(&mut self, recorder: &Recorder) {
        for (_, request) in self.waiting.drain() {
            recorder.record(Event::Followed { request, outcome: Outcome::Unknown });
        }
    }
}
