//! Mends the log of the private redis-server after a full disk, as the operator of any other Redis has to.
//!
//! It remembers nothing that must survive: with the node ends its redis-server, and the next one either reads the whole
//! log or does not start.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::damage::{Damage, Finding, Look};
use super::journal::Journal;

/// Time between two looks. An error that comes and goes between them is found in Redis's journal; unless the journal,
/// which is on the same disk, could not be written either. Redis has no counter of write errors that would tell then.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Time for Redis to answer; it may be busy reading its log.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a node's end waits for a rewrite: without it, the node might not start again.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// A handle to the task; dropping it ends the task.
pub(super) struct Mender {
    task: JoinSet<()>,
    stopping: oneshot::Sender<()>,
}

impl Mender {
    /// `journal` is redis-server's own log file, from where this redis-server begins.
    pub(super) fn start(url: &str, journal: Journal) -> Result<Self, RedisError> {
        let client = Client::open(url)?;
        let (stopping, stop) = oneshot::channel();
        let task = Task { client, connection: None, journal, damage: Damage::none() };
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run(stop));
        Ok(Self { task: tasks, stopping })
    }

    /// Waits for a rewrite that is under way or due, but not for long, and ends.
    pub(super) async fn settle(mut self) {
        // An error means that the task is gone already.
        let _ = self.stopping.send(());
        if tokio::time::timeout(SETTLE_MAX, self.task.join_next()).await.is_err() {
            tracing::warn!("the private Redis is stopped before its log is rewritten, so it may not be readable");
        }
    }
}

struct Task {
    client: Client,
    /// Kept from look to look.
    connection: Option<MultiplexedConnection>,
    journal: Journal,
    damage: Damage,
}

impl Task {
    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut ticks = interval(LOOK_PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Both arms only wait; a tick that is dropped comes again.
                _ = ticks.tick() => self.attend_or_forget().await,
                _ = &mut stop => break,
            }
        }
        // Redis may have recovered since the last look.
        self.attend_or_forget().await;
        while self.connection.is_some() && self.damage.is_being_mended() {
            ticks.tick().await;
            self.attend_or_forget().await;
        }
    }

    /// Leaves no connection if Redis does not answer.
    async fn attend_or_forget(&mut self) {
        if let Err(error) = self.attend().await {
            // Whether Redis runs is the supervisor's to say, and whether it answers, the store's.
            tracing::debug!(%error, "cannot see whether the private Redis writes its log");
            self.connection = None;
        }
    }

    async fn attend(&mut self) -> Result<(), RedisError> {
        let Some(look) = self.look().await? else { return Ok(()) };
        match self.damage.look(look, Instant::now()) {
            None => {}
            Some(Finding::Unwritable) => tracing::warn!(
                "the private Redis cannot write its log, so it refuses what is published; is the disk full? It goes \
                 on by itself once there is room"
            ),
            Some(Finding::MustRewrite) => self.rewrite().await?,
            Some(Finding::Failed(pause)) => tell_failure("it was not finished", pause),
            Some(Finding::OwnRewriteFailed) => tracing::warn!(
                "the private Redis could not rewrite its log to make it shorter; it tries again by itself"
            ),
            Some(Finding::Mended) => tracing::warn!("the private Redis's log was rewritten, and is sound again"),
        }
        Ok(())
    }

    async fn rewrite(&mut self) -> Result<(), RedisError> {
        tracing::warn!("the private Redis can write its log again; rewriting it, since it may not be readable");
        let connection = self.connection().await?;
        match redis::cmd("BGREWRITEAOF").query_async::<()>(connection).await {
            Ok(()) => {
                self.damage.begun();
                Ok(())
            }
            Err(error) => {
                tell_failure(&error.to_string(), self.damage.failed(Instant::now()));
                Err(error)
            }
        }
    }

    /// `None` if it keeps no log: somebody has told it so, and then nothing is to be mended.
    async fn look(&mut self) -> Result<Option<Look>, RedisError> {
        let connection = self.connection().await?;
        let mut sections = redis::pipe();
        sections.cmd("INFO").arg("server").cmd("INFO").arg("persistence");
        let sections: Vec<String> = sections.query_async(connection).await?;
        let Some(look) = parse(&sections.concat()) else { return Ok(None) };
        // After the answer: a recovery that the answer shows is in the journal by now, and so is not taken for another
        // one at the next look.
        let has_recovered = self.journal.tells_of_recovery(look.process).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the private Redis's own log file cannot be read");
            false
        });
        Ok(Some(Look { has_recovered, ..look }))
    }

    async fn connection(&mut self) -> Result<&mut MultiplexedConnection, RedisError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(ANSWER_MAX))
                    .set_response_timeout(Some(ANSWER_MAX));
                self.client.get_multiplexed_async_connection_with_config(&config).await?
            }
        };
        Ok(self.connection.insert(connection))
    }
}

fn tell_failure(reason: &str, pause: Duration) {
    tracing::warn!(
        reason,
        retry_s = pause.as_secs(),
        "the private Redis's log could not be rewritten, and may not be readable: do not stop this node; a rewrite \
         needs room for all data once more"
    );
}

/// What `INFO` says, all but the journal's part.
fn parse(info: &str) -> Option<Look> {
    let field = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).unwrap_or_default()
    };
    let is_loading = field("loading") == "1";
    (field("aof_enabled") == "1" && !is_loading).then_some(())?;
    Some(Look {
        process: field("process_id").parse().ok()?,
        is_writable: field("aof_last_write_status") == "ok",
        has_recovered: false,
        is_rewriting: field("aof_rewrite_in_progress") == "1" || field("aof_rewrite_scheduled") == "1",
        last_rewrite_ok: field("aof_last_bgrewrite_status") == "ok",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::test_server::TestServer;

    #[tokio::test]
    async fn a_server_says_how_its_log_is() {
        let server = TestServer::start(&["--appendonly", "yes"]);
        let mut connection = server.connect().await;
        let mut info = async || redis::cmd("INFO").query_async::<String>(&mut connection).await.unwrap();
        let text = info().await;
        let look = parse(&text).expect("it keeps a log");
        assert!(look.is_writable && look.last_rewrite_ok && !look.is_rewriting && look.process > 1, "{look:?}");
        assert_eq!(parse(&text.replace("aof_enabled:1", "aof_enabled:0")), None);
        let failing = text.replace("aof_last_write_status:ok", "aof_last_write_status:err");
        assert!(!parse(&failing).expect("it keeps a log").is_writable);
    }
}
