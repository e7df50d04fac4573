//! Passes over all users: thorough ones visit everybody, others whose inbox holds something.

use std::time::Duration;

use homing_protocol::name::Name;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisResult};
use tokio::time::{Instant, sleep};

use super::holding::{Holding, RENEWAL};
use super::tending::{Found, GROUP_USERS, Tending, rest_after};
use crate::config::Limits;
use crate::delivery::nodes::Judgement;
use crate::store::{Key, StoreError, keys::UserKey};
use crate::telemetry::names;

/// Keys that one `SCAN` looks at: some 100 µs.
pub(super) const SCAN_KEYS: usize = 500;
/// Time for one reply. Removing large entries takes long, and giving up would only repeat it.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after a pass that failed, unless passes follow each other more closely anyway.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The longest time between two thorough passes. What only these find is nothing that anybody waits for: devices that
/// were not used for weeks, and keys that nobody needs.
const THOROUGH_AFTER: Duration = Duration::from_secs(10 * 60);
/// The part of a time limit by which a user with an empty inbox may be late for it.
const LATE_PART: u32 = 10;

/// Gauges that only the janitor's node knows.
const CLUSTER_GAUGES: [&str; 5] = [
    names::USERS,
    names::INBOX_MESSAGES,
    names::PENDING_MESSAGES,
    names::OLDEST_UNACKED_AGE,
    names::JANITOR_PASS_DURATION,
];

/// The passes of this node, while it holds the lock.
pub(super) struct Passes {
    pub(super) tending: Tending,
    holding: Holding,
    pause: Duration,
    next: Instant,
    last_end: Instant,
    renewed: Instant,
    /// The last thorough pass of this janitor.
    thorough: Option<Thorough>,
    is_janitor: bool,
    failing: bool,
}

/// A pass that visited everybody.
struct Thorough {
    began: Instant,
    /// What was known of who lives when it began. It judged by that throughout if the next one begins with the same.
    judgement: Option<Judgement>,
}

/// Why a pass broke off.
pub(super) enum Break {
    /// The lock went to another node.
    LostLock,
    Store(StoreError),
}

impl From<StoreError> for Break {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Passes {
    pub(super) fn new(tending: Tending, pause: Duration) -> Self {
        let now = Instant::now();
        let holding = Holding::new(tending.store().clone());
        Self {
            tending,
            holding,
            pause,
            next: now,
            last_end: now,
            renewed: now,
            thorough: None,
            is_janitor: false,
            failing: false,
        }
    }

    /// Passes over all users from time to time. Never ends.
    pub(super) async fn run(&mut self) {
        loop {
            match self.turn().await {
                Ok(()) => self.failing = false,
                Err(error) => self.note_failure(&error),
            }
            let until_next = self.next.saturating_duration_since(Instant::now());
            sleep(if self.is_janitor { until_next.min(RENEWAL) } else { RENEWAL }).await;
        }
    }

    /// Gives the lock back, so that another node need not wait for its expiry.
    ///
    /// Always asked for: a request for the lock may have been dropped before its reply said that it succeeded.
    pub(super) async fn hand_over(&mut self) {
        self.is_janitor = false;
        if let Err(error) = self.holding.give_back().await {
            tracing::debug!(%error, "the janitor's lock could not be given back; it expires");
        }
    }

    /// Asks for the lock, and passes if a pass is due.
    pub(super) async fn turn(&mut self) -> Result<(), StoreError> {
        self.renew().await?;
        if !self.is_janitor || Instant::now() < self.next {
            return Ok(());
        }
        let next = self.thorough_if_due();
        let began = Instant::now();
        match self.pass(next.is_some()).await {
            Ok(found) => {
                self.publish(found, began, next.is_some());
                self.thorough = next.or(self.thorough.take());
                self.next = Instant::now() + self.pause;
                Ok(())
            }
            Err(Break::LostLock) => Ok(()),
            Err(Break::Store(error)) => Err(error),
        }
    }

    /// Whether the next pass is to be a thorough one: from time to time, and whenever nodes came, died or could not be
    /// judged since the last one began, because it strikes the devices of those that died.
    fn thorough_if_due(&self) -> Option<Thorough> {
        let next = Thorough { began: Instant::now(), judgement: self.tending.nodes().judgement() };
        let after = thorough_after(self.tending.limits());
        let is_recent =
            |last: &Thorough| next.began.duration_since(last.began) < after && last.judgement == next.judgement;
        (!self.thorough.as_ref().is_some_and(is_recent)).then_some(next)
    }

    /// Takes or renews the lock.
    pub(super) async fn renew(&mut self) -> Result<(), StoreError> {
        metrics::gauge!(names::JANITOR_PASS_AGE).set(self.last_end.elapsed().as_secs_f64());
        let was = std::mem::replace(&mut self.is_janitor, self.holding.hold().await?);
        if was && !self.is_janitor {
            tracing::info!("another node is the janitor now");
            for gauge in CLUSTER_GAUGES {
                metrics::gauge!(gauge).set(f64::NAN);
            }
        }
        if !was && self.is_janitor {
            self.thorough = None;
            tracing::info!("this node is the janitor now");
        }
        Ok(())
    }

    /// Visits every user once, or every one whose inbox holds something. `SCAN` may show a key twice, and one that comes
    /// or goes meanwhile or not at all.
    pub(super) async fn pass(&mut self, thorough: bool) -> Result<Found, Break> {
        let mut connection = self.connect().await?;
        let mut found = Found::default();
        self.renewed = Instant::now();
        let mut cursor = 0;
        loop {
            let began = Instant::now();
            let (next, users) = self.scan(&mut connection, cursor, thorough).await?;
            rest_after(began, false).await;
            for group in users.chunks(GROUP_USERS) {
                found.add(self.tending.tend(&mut connection, group).await?);
                self.keep().await?;
            }
            // There may be nobody to visit for many stretches.
            self.keep().await?;
            if next == 0 {
                break;
            }
            cursor = next;
        }
        self.pass_topics(&mut connection, &mut found).await?;
        Ok(found)
    }

    /// Keeps the lock, if it is time to.
    pub(super) async fn keep(&mut self) -> Result<(), Break> {
        if self.renewed.elapsed() >= RENEWAL {
            self.renew().await?;
            self.renewed = Instant::now();
        }
        if self.is_janitor { Ok(()) } else { Err(Break::LostLock) }
    }

    /// A connection for one pass: its replies may take longer than those that others wait for.
    async fn connect(&self) -> Result<MultiplexedConnection, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(REPLY_TIMEOUT));
        Ok(self.tending.store().client().get_multiplexed_async_connection_with_config(&config).await?)
    }

    /// The users that a stretch of the keys shows: by their inboxes, or by their devices if they have no inbox. Unless
    /// the pass is a thorough one, only those of whom there is something in the inbox.
    async fn scan(
        &self,
        connection: &mut MultiplexedConnection,
        cursor: u64,
        thorough: bool,
    ) -> Result<(u64, Vec<Name>), StoreError> {
        let keys = self.tending.store().keys();
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(keys.users_pattern()).arg("COUNT").arg(SCAN_KEYS);
        // As bytes: a foreign key need not be UTF-8.
        let (next, found): (u64, Vec<Vec<u8>>) = command.query_async(connection).await?;
        let (mut users, mut by_devices) = (Vec::new(), Vec::new());
        for key in found {
            let Some((user, kind)) = std::str::from_utf8(&key).ok().and_then(|key| keys.user_key(key)) else {
                continue;
            };
            // An inbox of somebody who cannot be a user is not Homing's.
            let Ok(user) = Name::parse(user) else { continue };
            match kind {
                UserKey::Inbox => users.push(user),
                UserKey::Devices => by_devices.push(user),
            }
        }
        if !thorough {
            let lengths = self.ask(connection, "XLEN", &users).await?;
            // What is no stream is told of by the visit.
            let may_hold = |(user, length)| (length != Ok(0)).then_some(user);
            return Ok((next, users.into_iter().zip(lengths).filter_map(may_hold).collect()));
        }
        let exists = self.ask(connection, "EXISTS", &by_devices).await?;
        for (user, exists) in by_devices.into_iter().zip(exists) {
            if exists? == 0 {
                users.push(user);
            }
        }
        Ok((next, users))
    }

    /// What a command says of each user's inbox.
    async fn ask(
        &self,
        connection: &mut MultiplexedConnection,
        command: &str,
        users: &[Name],
    ) -> Result<Vec<RedisResult<u64>>, StoreError> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for user in users {
            pipeline.cmd(command).arg(self.tending.store().keys().name(Key::Inbox(user)));
        }
        Ok(pipeline.query_async(connection).await?)
    }

    fn publish(&mut self, found: Found, began: Instant, thorough: bool) {
        self.last_end = Instant::now();
        if thorough {
            metrics::gauge!(names::USERS).set(found.users as f64);
        }
        metrics::gauge!(names::INBOX_MESSAGES).set(found.messages as f64);
        metrics::gauge!(names::PENDING_MESSAGES).set(found.pending as f64);
        metrics::gauge!(names::OLDEST_UNACKED_AGE).set(found.oldest_unacked_ms as f64 / 1_000.0);
        metrics::gauge!(names::JANITOR_PASS_DURATION).set(began.elapsed().as_secs_f64());
        metrics::gauge!(names::JANITOR_PASS_AGE).set(0.0);
        metrics::counter!(names::JANITOR_PASSES).increment(1);
        let Found { users, messages, pending, removed, dropped, expired, cursors, .. } = found;
        let took_ms = began.elapsed().as_millis() as u64;
        tracing::debug!(
            thorough,
            users,
            messages,
            pending,
            removed,
            dropped,
            expired,
            cursors,
            took_ms,
            "the janitor finished a pass"
        );
    }

    fn note_failure(&mut self, error: &StoreError) {
        metrics::counter!(names::REDIS_ERRORS, "kind" => error.kind()).increment(1);
        if !self.failing {
            tracing::warn!(%error, "the janitor cannot work now; it tries again from time to time");
        }
        self.failing = true;
        self.next = Instant::now() + self.pause.min(RETRY_AFTER);
    }
}

/// Time between two thorough passes: little against the limits that only they look after.
fn thorough_after(limits: &Limits) -> Duration {
    THOROUGH_AFTER.min(limits.device_idle_max / LATE_PART).min(limits.inbox_age_max / LATE_PART)
}
