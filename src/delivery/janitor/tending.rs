//! Visits to users: a call of the function `tend` for each, a few in one pipeline, with rests in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use homing_protocol::id::EntryId;
use homing_protocol::name::Name;
use redis::aio::ConnectionLike;
use redis::{Cmd, RedisResult, pipe};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::receipts::{self, DroppedReceipt};
use crate::config::Limits;
use crate::delivery::nodes::Nodes;
use crate::delivery::presence::orphans::{self, Orphan};
use crate::store::{Function, Key, Store, StoreError};
use crate::telemetry::names;

/// Users in one pipeline. At some 20 to 40 µs each Redis is busy for about a millisecond at a time.
pub(super) const GROUP_USERS: usize = 32;
/// Entries over the length limit that one call removes: the function looks at them all to find where to cut, payloads
/// included.
const PAGE_ENTRIES: u32 = 256;
/// Calls for one user in one visit; what is left then waits for the next visit.
const CALLS_MAX: usize = 200;
/// A rest is this many times as long as the work before it: removing takes at most a quarter of Redis's time.
const REST_FACTOR_WORK: u32 = 3;
/// The same after a look that found nothing to do, which nobody waits for: at most a tenth of Redis's time.
const REST_FACTOR_LOOK: u32 = 9;
/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(1);

/// Tends users; cloning is cheap.
#[derive(Clone)]
pub(super) struct Tending {
    store: Store,
    nodes: Nodes,
    limits: Arc<Limits>,
}

/// What the visits to some users found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Users that were visited.
    pub(super) users: u64,
    /// Entries in their inboxes.
    pub(super) messages: u64,
    /// Messages delivered to a device and not acknowledged.
    pub(super) pending: u64,
    /// Age of the oldest message that some device has not acknowledged, in milliseconds.
    pub(super) oldest_unacked_ms: u64,
    /// Entries that went.
    pub(super) removed: u64,
    /// Messages that were dropped, counted for each device.
    pub(super) dropped: u64,
    /// Devices that were forgotten.
    pub(super) expired: u64,
    /// Cursors in topics that said nothing more.
    pub(super) cursors: u64,
}

impl Found {
    pub(super) fn add(&mut self, other: Self) {
        self.users += other.users;
        self.messages += other.messages;
        self.pending += other.pending;
        self.oldest_unacked_ms = self.oldest_unacked_ms.max(other.oldest_unacked_ms);
        self.removed += other.removed;
        self.dropped += other.dropped;
        self.expired += other.expired;
        self.cursors += other.cursors;
    }
}

/// What the function is asked to do for all users; see `16_tend.lua`.
#[derive(Serialize)]
struct Request<'a> {
    channels: &'a str,
    length_max: u64,
    age_max_ms: u64,
    device_idle_ms: u64,
    alive: Option<BTreeMap<String, bool>>,
    page: u32,
    presence: bool,
}

/// Its reply: inbox length, pending, oldest unacknowledged id, removed, dropped, expired, 1 to call again, now, devices
/// whose owner is dead, each with that owner, and the drops that asked for a receipt.
type Reply = (u64, u64, String, u64, u64, u64, u8, u64, Vec<(String, String)>, Vec<DroppedReceipt>);

impl Tending {
    pub(super) fn new(store: Store, nodes: Nodes, limits: &Limits) -> Self {
        Self { store, nodes, limits: Arc::new(limits.clone()) }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Visits a group of users, as often as each needs, and rests after each pipeline. A user whose keys are not what
    /// they should be is left alone.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and the like: nobody can be tended now.
    pub(super) async fn tend(
        &self,
        connection: &mut (impl ConnectionLike + Send),
        users: &[Name],
    ) -> Result<Found, StoreError> {
        let mut found = Found::default();
        let mut due: Vec<&Name> = users.iter().collect();
        for _ in 0..CALLS_MAX {
            if due.is_empty() {
                break;
            }
            let began = Instant::now();
            let before = found.work();
            due = self.call(connection, due, &mut found).await?;
            rest_after(began, found.work() > before).await;
        }
        metrics::counter!(names::MESSAGES_DROPPED, "reason" => "retention").increment(found.dropped);
        metrics::counter!(names::TRIMMED_ENTRIES).increment(found.removed);
        metrics::counter!(names::DEVICES_EXPIRED).increment(found.expired);
        Ok(found)
    }

    /// One call for each user; returns those who need another.
    async fn call<'a>(
        &self,
        connection: &mut (impl ConnectionLike + Send),
        users: Vec<&'a Name>,
        found: &mut Found,
    ) -> Result<Vec<&'a Name>, StoreError> {
        let request = self.request()?;
        let mut pipeline = pipe();
        pipeline.ignore_errors();
        for user in &users {
            pipeline.add_command(self.command(user, &request));
        }
        let replies: Vec<RedisResult<Reply>> = pipeline.query_async(connection).await?;

        let mut again = Vec::new();
        let mut functions_missing = false;
        let mut orphans = Vec::new();
        let mut receipts = pipe();
        receipts.ignore_errors();
        for (user, reply) in users.into_iter().zip(replies) {
            match reply.map_err(StoreError::from) {
                Ok(reply) => {
                    orphans.extend(reply.8.iter().map(|(device, owner)| Orphan::new(user, device, owner)));
                    receipts::write(&mut receipts, self.store.keys(), &self.limits, user, &reply.9);
                    if found.note(reply) {
                        again.push(user);
                    }
                }
                Err(StoreError::FunctionMissing) => {
                    functions_missing = true;
                    again.push(user);
                }
                Err(error @ (StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_))) => return Err(error),
                Err(error) => {
                    metrics::counter!(names::REDIS_ERRORS, "kind" => error.kind()).increment(1);
                    tracing::debug!(%user, %error, "a user's keys are not what they should be; left alone");
                }
            }
        }
        if !receipts.is_empty() {
            // Lost if this node dies now: the messages are gone. What they were can still be looked at.
            let _: Vec<RedisResult<redis::Value>> = receipts.query_async(connection).await?;
        }
        // After them: the next visit finds the same orphans, but not the same drops.
        if !orphans.is_empty() {
            orphans::announce(connection, self.store.keys(), &orphans).await?;
        }
        if functions_missing {
            self.store.load_functions().await?;
        }
        Ok(again)
    }

    fn request(&self) -> Result<String, StoreError> {
        let request = Request {
            channels: &self.store.keys().control_prefix(),
            length_max: self.limits.inbox_length_max,
            age_max_ms: millis(self.limits.inbox_age_max),
            device_idle_ms: millis(self.limits.device_idle_max),
            alive: self.nodes.alive().map(|alive| alive.into_iter().map(|node| (node, true)).collect()),
            page: PAGE_ENTRIES,
            presence: self.limits.presence_length > 0,
        };
        serde_json::to_string(&request).map_err(|error| StoreError::Unexpected(error.to_string()))
    }

    fn command(&self, user: &Name, request: &str) -> Cmd {
        let keys = self.store.keys();
        let mut command = Function::Tend.call(&[
            &keys.name(Key::Inbox(user)),
            &keys.name(Key::Devices(user)),
            &keys.name(Key::Asked(user)),
        ]);
        command.arg(user.as_str()).arg(request);
        command
    }
}

impl Found {
    /// What there was to do.
    fn work(&self) -> u64 {
        self.removed + self.dropped + self.expired
    }

    /// Notes a reply; true if the user needs another call.
    fn note(&mut self, (messages, pending, oldest, removed, dropped, expired, more, now_ms, _, _): Reply) -> bool {
        self.removed += removed;
        self.dropped += dropped;
        self.expired += expired;
        if more == 1 {
            return true;
        }
        let age_ms = oldest.parse::<EntryId>().map_or(0, |oldest| now_ms.saturating_sub(oldest.ms));
        self.users += 1;
        self.messages += messages;
        self.pending += pending;
        self.oldest_unacked_ms = self.oldest_unacked_ms.max(age_ms);
        false
    }
}

/// Leaves Redis to others for a while, for longer if there was nothing to do.
pub(super) async fn rest_after(began: Instant, worked: bool) {
    let factor = if worked { REST_FACTOR_WORK } else { REST_FACTOR_LOOK };
    sleep((began.elapsed() * factor).min(REST_MAX)).await;
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
