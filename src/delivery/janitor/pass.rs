//! Passes over all users.

use std::time::Duration;

use homing_protocol::name::Name;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep};

use super::holding::{Holding, RENEWAL};
use super::tending::{Found, GROUP_USERS, Tending, rest_after};
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
    is_janitor: bool,
    failing: bool,
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
        Self { tending, holding, pause, next: now, last_end: now, renewed: now, is_janitor: false, failing: false }
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
    async fn turn(&mut self) -> Result<(), StoreError> {
        self.renew().await?;
        if !self.is_janitor || Instant::now() < self.next {
            return Ok(());
        }
        let began = Instant::now();
        match self.pass().await {
            Ok(found) => {
                self.publish(found, began);
                self.next = Instant::now() + self.pause;
                Ok(())
            }
            Err(Break::LostLock) => Ok(()),
            Err(Break::Store(error)) => Err(error),
        }
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
            tracing::info!("this node is the janitor now");
        }
        Ok(())
    }

    /// Visits every user once. `SCAN` may show a key twice, and one that comes or goes meanwhile or not at all.
    pub(super) async fn pass(&mut self) -> Result<Found, Break> {
        let mut connection = self.connect().await?;
        let mut found = Found::default();
        self.renewed = Instant::now();
        let mut cursor = 0;
        loop {
            let began = Instant::now();
            let (next, users) = self.scan(&mut connection, cursor).await?;
            rest_after(began, false).await;
            for group in users.chunks(GROUP_USERS) {
                found.add(self.tending.tend(&mut connection, group).await?);
                self.keep().await?;
            }
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

    /// The users that a stretch of the keys shows: by their inboxes, or by their devices if they have no inbox.
    async fn scan(&self, connection: &mut MultiplexedConnection, cursor: u64) -> Result<(u64, Vec<Name>), StoreError> {
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
        users.extend(self.without_inbox(connection, by_devices).await?);
        Ok((next, users))
    }

    async fn without_inbox(
        &self,
        connection: &mut MultiplexedConnection,
        users: Vec<Name>,
    ) -> Result<Vec<Name>, StoreError> {
        if users.is_empty() {
            return Ok(users);
        }
        let mut pipeline = redis::pipe();
        for user in &users {
            pipeline.exists(self.tending.store().keys().name(Key::Inbox(user)));
        }
        let exists: Vec<bool> = pipeline.query_async(connection).await?;
        Ok(users.into_iter().zip(exists).filter_map(|(user, exists)| (!exists).then_some(user)).collect())
    }

    fn publish(&mut self, found: Found, began: Instant) {
        self.last_end = Instant::now();
        metrics::gauge!(names::USERS).set(found.users as f64);
        metrics::gauge!(names::INBOX_MESSAGES).set(found.messages as f64);
        metrics::gauge!(names::PENDING_MESSAGES).set(found.pending as f64);
        metrics::gauge!(names::OLDEST_UNACKED_AGE).set(found.oldest_unacked_ms as f64 / 1_000.0);
        metrics::gauge!(names::JANITOR_PASS_DURATION).set(began.elapsed().as_secs_f64());
        metrics::gauge!(names::JANITOR_PASS_AGE).set(0.0);
        metrics::counter!(names::JANITOR_PASSES).increment(1);
        let Found { users, messages, pending, removed, dropped, expired, cursors, .. } = found;
        let took_ms = began.elapsed().as_millis() as u64;
        tracing::debug!(
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
