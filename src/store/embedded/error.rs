//! Why the private redis-server does not run.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why the private redis-server does not run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EmbeddedError {
    /// No redis-server to be found.
    #[error(
        "redis-server is not installed (nor is valkey-server): `sudo apt-get install redis-server`, `sudo dnf install \
         redis`, or `brew install redis`; or use another machine's Redis with --redis URL"
    )]
    NotInstalled,
    /// Another node has it.
    #[error(
        "the data directory {} is in use by another homing serve{}: stop it, or choose another --data-dir",
        data_dir.display(), pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The directory.
        data_dir: PathBuf,
        /// The other node's process, as far as known.
        pid: Option<u32>,
    },
    /// A file or process could not be made.
    #[error("the private Redis cannot be started: {0}")]
    Unusable(String),
    /// It ended before it answered.
    #[error("redis-server ended before it answered ({status}); the end of its log, {}:\n{tail}", log.display())]
    Ended {
        /// How it ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
}

impl EmbeddedError {
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        |error| Self::Unusable(format!("{}: {error}", path.display()))
    }
}
