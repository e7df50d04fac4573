//! A private redis-server, for a node that is given no other.
//!
//! Owns the child processes and the lock on the data directory. It must not know what is stored. Invariants: no two
//! redis-servers ever run on one data directory, since two on one append-only log destroy it; and redis-server never
//! outlives its node.
//!
//! ```text
//! homing serve ── pipe ──> homing embedded-redis guard ──> homing embedded-redis exec = redis-server
//!   supervisor thread        locks the directory,            its stdin is the locked file; asks the kernel for
//!   restarts the guard       ends redis-server at EOF        SIGTERM when the guard dies, then execs
//! ```
//!
//! However one of the three is killed, the others follow: the death of `serve` closes the pipe, the death of the guard
//! brings the kernel's signal, the death of redis-server ends the guard. The lock is held by the open file that
//! redis-server inherits, so it is free exactly when redis-server is gone.
//!
//! A task of the node mends redis-server's log after a full disk.

mod address;
mod damage;
mod error;
mod guard;
mod journal;
mod mender;
mod settings;
mod supervisor;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use address::running_url;
pub use error::EmbeddedError;
pub use guard::{exec, guard};

use address::Address;
use journal::Journal;
use mender::Mender;
use supervisor::{Phase, Supervisor};

/// What the private redis-server needs to know.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// Its folder; made if it is missing.
    pub data_dir: PathBuf,
    /// The `homing` program, which runs again as guard; [`this_program`] outside of tests.
    pub program: PathBuf,
}

/// A running private redis-server. Dropping it begins a stop without waiting for the end of it.
pub struct Embedded {
    url: String,
    mender: Mender,
    supervisor: Supervisor,
}

/// Time between two looks whether the server answers yet.
const READY_PAUSE: Duration = Duration::from_millis(20);

impl Embedded {
    /// Starts it, and waits until it has read its log and answers.
    ///
    /// # Errors
    /// [`EmbeddedError`]: not installed, the directory is in use or unusable, or it ended before it answered.
    pub async fn start(config: &EmbeddedConfig) -> Result<Self, EmbeddedError> {
        let server = find_server().ok_or(EmbeddedError::NotInstalled)?;
        let data_dir = settings::make_folder(&config.data_dir)?;
        let address = Address::choose(&data_dir)?;
        let url = address.url();
        let journal = Journal::at_end(data_dir.join(settings::LOG_FILE));
        let mut supervisor = Supervisor::start(config.program.clone(), guard::Order { data_dir, server, address })?;
        let failure = supervisor.first_failure();
        let ready = async {
            // Not before the lock is taken: until then a dying redis-server of a killed node may answer.
            supervisor.reaches(|phase| matches!(phase, Phase::Running)).await;
            answers(&url).await;
        };
        let failed = tokio::select! {
            // Dropping either arm loses nothing: one only asks, the other only watches.
            () = ready => None,
            error = failure => Some(error),
        };
        match failed {
            Some(error) => Err(error),
            None => {
                supervisor.keep_up()?;
                let mender = Mender::start(&url, journal);
                let mender = mender.map_err(|error| EmbeddedError::Unusable(error.to_string()))?;
                Ok(Self { url, mender, supervisor })
            }
        }
    }

    /// Its address, the same for as long as this value lives.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends it by SIGTERM, so that its log is complete, and waits for its end. If its log is just being mended, that
    /// comes first.
    pub async fn stop(mut self) {
        self.mender.settle().await;
        self.supervisor.begin_stop();
        self.supervisor.reaches(|phase| matches!(phase, Phase::Stopped)).await;
    }
}

async fn answers(url: &str) {
    loop {
        if let Ok(client) = redis::Client::open(url)
            && let Ok(mut connection) = client.get_multiplexed_async_connection().await
            // An error while it reads its log: LOADING.
            && redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
        {
            return;
        }
        tokio::time::sleep(READY_PAUSE).await;
    }
}

/// The program that is running, even if its file was replaced since.
#[must_use]
pub fn this_program() -> PathBuf {
    let linux = PathBuf::from("/proc/self/exe");
    if linux.exists() { linux } else { std::env::current_exe().unwrap_or_else(|_| PathBuf::from("homing")) }
}

fn find_server() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    let programs = ["redis-server", "valkey-server"];
    programs.iter().find_map(|program| {
        std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path: &PathBuf| is_file(path))
    })
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}
