//! A folder that is removed with its test.

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// A temporary folder, in memory where the machine has `/dev/shm`: an fsync to a slow disk would make the tests slow
/// and their times random.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

const PREFIX: &str = "homing-test-";
static NUMBER: AtomicU32 = AtomicU32::new(0);
static SWEPT: Once = Once::new();

impl Folder {
    pub(crate) fn new(what: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        SWEPT.call_once(|| remove_leftovers(&root));
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{PREFIX}{}-{number}-{what}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the folder for temporary files can be written to");
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Removes the folders of test processes that were killed: memory is too dear to leave them.
fn remove_leftovers(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((pid, _)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')) else { continue };
        if Path::new("/proc/self").exists() && !Path::new("/proc").join(pid).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Best effort: a process that was just killed may still hold the folder.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
