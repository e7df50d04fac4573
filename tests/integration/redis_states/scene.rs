//! A Redis that can be put into a state, and a node on it.

use crate::harness::{Node, NodeOptions, Redis, RedisOptions, eventually};

/// Commands that a server executes while it loads, between two looks at its connections (1,024 in Redis 7.0), times
/// some: loading lasts longer than any test needs, and ends when the test says so.
const BALLAST: usize = 60_000;

/// A state in which Redis refuses writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// `maxmemory` is reached, and nothing may be evicted.
    MemoryFull,
    /// The last snapshot failed, and writes stop until one succeeds.
    SnapshotFailed,
    /// The append-only log cannot be written.
    LogFull,
    /// Somebody made it a replica.
    ReadOnly,
    /// `min-replicas-to-write` is not met.
    NoReplicas,
    /// It was restarted and loads a large log.
    Loading,
}

impl State {
    /// The code of Redis's refusal.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::MemoryFull => "OOM",
            Self::SnapshotFailed | Self::LogFull => "MISCONF",
            Self::ReadOnly => "READONLY",
            Self::NoReplicas => "NOREPLICAS",
            Self::Loading => "LOADING",
        }
    }

    /// Whether Redis goes on to serve what needs no memory: reading for a group, and acks.
    pub(super) fn still_delivers(self) -> bool {
        self == Self::MemoryFull
    }

    /// Whether nobody can know afterwards that nothing was lost: sessions are told by a new epoch, and acks that
    /// waited are dropped.
    pub(super) fn changes_epoch(self) -> bool {
        matches!(self, Self::ReadOnly | Self::Loading)
    }

    /// Whether the connections of before are gone, so that a command that was under way may be of unknown outcome.
    pub(super) fn breaks_connections(self) -> bool {
        self == Self::Loading
    }
}

/// A Redis and a node.
pub(super) struct Scene {
    pub(super) state: State,
    pub(super) redis: Redis,
    pub(super) node: Node,
}

impl Scene {
    /// All is well at first.
    pub(super) async fn start(state: State, options: NodeOptions) -> Self {
        let args = match state {
            // Without effect until it loads something.
            State::Loading => vec!["--key-load-delay", "500"],
            _ => Vec::new(),
        };
        let redis = Redis::start(RedisOptions { args, ..RedisOptions::default() }).await;
        if state == State::Loading {
            let mut ballast = redis::pipe();
            for number in 0..BALLAST {
                ballast.cmd("SET").arg(format!("ballast:{number}")).arg("x").ignore();
            }
            ballast.query_async::<()>(&mut redis.connection().await).await.expect("Redis takes the ballast");
        }
        let node = Node::start(&redis, options).await;
        Self { state, redis, node }
    }

    /// Puts Redis into the state, and waits until it refuses for this reason.
    pub(super) async fn enter(&mut self) {
        match self.state {
            State::MemoryFull => self.redis.config_set("maxmemory", "1").await,
            State::SnapshotFailed => {
                self.redis.config_set("save", "3600 1").await;
                // A snapshot is renamed into place at its end, which a folder of that name prevents.
                std::fs::create_dir(self.redis.folder().join("dump.rdb")).expect("the folder is the test's own");
                self.snapshot("err").await;
            }
            State::LogFull => {
                let log = self.redis.folder().join("appendonlydir/appendonly.aof.1.incr.aof");
                let bytes = std::fs::metadata(log).expect("Redis writes its log there").len();
                self.redis.limit_files(Some(bytes));
            }
            State::ReadOnly => self.redis.query::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await,
            State::NoReplicas => self.redis.config_set("min-replicas-to-write", "1").await,
            State::Loading => self.redis.restart_unready(),
        }
        let code = self.state.code();
        let what = format!("Redis refuses with {code}");
        eventually(&what, async || {
            let refused = self.redis.try_query::<String>(&["XADD", "another", "*", "field", "value"]).await.err()?;
            (refused.code() == Some(code)).then_some(())
        })
        .await;
    }

    /// Takes away what caused the state.
    pub(super) async fn leave(&mut self) {
        match self.state {
            State::MemoryFull => self.redis.config_set("maxmemory", "0").await,
            State::SnapshotFailed => {
                std::fs::remove_dir(self.redis.folder().join("dump.rdb")).expect("it was made on entering");
                self.snapshot("ok").await;
            }
            State::LogFull => self.redis.limit_files(None),
            State::ReadOnly => self.redis.query::<()>(&["REPLICAOF", "NO", "ONE"]).await,
            State::NoReplicas => self.redis.config_set("min-replicas-to-write", "0").await,
            State::Loading => self.redis.config_set("key-load-delay", "0").await,
        }
        eventually("Redis takes writes again", async || {
            self.redis.try_query::<String>(&["XADD", "another", "*", "field", "value"]).await.ok()
        })
        .await;
    }

    /// Takes a snapshot that is expected to end so.
    async fn snapshot(&self, outcome: &str) {
        self.redis.query::<String>(&["BGSAVE"]).await;
        let what = format!("a snapshot ends with {outcome}");
        eventually(&what, async || {
            let info: String = self.redis.query(&["INFO", "persistence"]).await;
            let running = info.contains("rdb_bgsave_in_progress:1");
            (!running && info.contains(&format!("rdb_last_bgsave_status:{outcome}"))).then_some(())
        })
        .await;
    }
}
