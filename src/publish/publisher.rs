//! Writes messages to Redis.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use homing_protocol::name::Name;
use metrics::Counter;
use tokio::sync::mpsc;

use super::error::PublishError;
use super::message::NewMessage;
use crate::store::keys::ONCE_SECONDS;
use crate::store::replies::{Value, check};
use crate::store::resp::Commands;
use crate::store::{Function, Key, Store, StoreError};
use crate::telemetry::names;

/// One in so many plain publishes asks for the inbox's length too. An inbox that only grows is noticed soon enough
/// (the janitor visits every user anyway), and the others are spared a command.
const LENGTH_SAMPLE: u32 = 64;

/// Messages in one pipeline of a message to many users or topics.
const PIPELINE_MESSAGES_MAX: usize = 1_000;
/// Bytes of payload in one pipeline of a message to many users or topics: each of them gets a copy.
const PIPELINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Why a user or topic got nothing when the connection failed for others.
pub(super) const NOT_SENT: &str = "Redis could not be reached for others before this one; nothing was sent to this one";

/// What a publisher needs to know.
#[derive(Clone, Debug)]
pub struct PublisherConfig {
    /// Largest payload, in bytes.
    pub payload_bytes_max: usize,
    /// Length from which on an inbox is reported as overfull.
    pub inbox_length_max: u64,
    /// Age at which a message is dropped.
    pub inbox_age_max: Duration,
}

/// A message that is in the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its entry id.
    pub id: String,
    /// Whether it was appended by this call; `false` if its key was seen before.
    pub created: bool,
}

/// What became of the messages of one pipeline.
struct Appended {
    outcomes: Vec<Result<Published, PublishError>>,
    /// The connection failed.
    is_cut_off: bool,
}

/// Publishes messages. Cloning is cheap.
///
/// All clones share one connection: what they write at the same time leaves in one system call. What a shard of this
/// process will read leaves with the read ([`crate::store::Piggyback`]).
#[derive(Clone)]
pub struct Publisher {
    store: Store,
    inner: Arc<Inner>,
}

struct Inner {
    config: PublisherConfig,
    /// Users whose inbox was seen over its length, for the janitor.
    overfull: mpsc::Sender<Name>,
    sample: AtomicU32,
    singles: Counter,
    batched: Counter,
    to_topics: Counter,
}

impl Publisher {
    /// A publisher. A user whose inbox is seen over its length goes to `overfull`; when that is full, the hint is
    /// dropped, because the janitor's pass finds the user too.
    #[must_use]
    pub fn new(store: Store, config: PublisherConfig, overfull: mpsc::Sender<Name>) -> Self {
        let inner = Inner {
            config,
            overfull,
            sample: AtomicU32::new(0),
            singles: metrics::counter!(names::MESSAGES_PUBLISHED, "source" => "single"),
            batched: metrics::counter!(names::MESSAGES_PUBLISHED, "source" => "batch"),
            to_topics: metrics::counter!(names::MESSAGES_PUBLISHED, "source" => "topic"),
        };
        Self { store, inner: Arc::new(inner) }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn config(&self) -> &PublisherConfig {
        &self.inner.config
    }

    pub(super) fn count_to_topics(&self, count: u64) {
        self.inner.to_topics.increment(count);
    }

    /// Publishes one message.
    ///
    /// # Errors
    /// [`PublishError`]. After `OutcomeUnknown` only a message with a key may safely be published again.
    pub async fn publish(&self, user: &Name, message: &NewMessage<'_>) -> Result<Published, PublishError> {
        message.check(self.inner.config.payload_bytes_max)?;
        let now_ms = now_ms();
        let is_call = message.is_call();
        let is_measured = !is_call && self.inner.sample.fetch_add(1, Ordering::Relaxed).is_multiple_of(LENGTH_SAMPLE);
        let write = |commands: &mut Commands| {
            self.append(commands, user, message, now_ms);
            if is_measured {
                self.length(commands, user);
            }
        };
        let send = || self.store.shared().send(write);
        let read = if is_call { read_once } else { read_appended };
        // Together with the read, if a shard here will read it.
        let mut replies = match self.store.send_along(user, message.bytes(), write).await {
            Some(outcome) => outcome?,
            None => send().await?,
        };
        let mut published = replies.reader().next().map_or_else(missing_reply, read);
        if is_call && matches!(published, Err(StoreError::FunctionMissing)) {
            self.store.load_functions().await?;
            replies = send().await?;
            published = replies.reader().next().map_or_else(missing_reply, read);
        }
        if is_measured && let Some(length) = replies.reader().nth(1) {
            self.report_overfull(user, &length);
        }
        let published = published?;
        self.inner.singles.increment(u64::from(published.created));
        Ok(published)
    }

    /// Publishes many messages in one pipeline; the outcomes are in the order of the messages. The first user's inbox
    /// is measured, which costs a batch next to nothing.
    pub async fn publish_batch(&self, messages: &[(Name, NewMessage<'_>)]) -> Vec<Result<Published, PublishError>> {
        let max = self.inner.config.payload_bytes_max;
        let checks: Vec<_> = messages.iter().map(|(_, message)| message.check(max)).collect();
        let good = messages.iter().zip(&checks).filter(|(_, check)| check.is_ok());
        let good: Vec<_> = good.map(|((user, message), _)| (user, message)).collect();
        let mut outcomes = self.append_all(&good, now_ms()).await.outcomes.into_iter();
        checks.into_iter().map(|check| check.and_then(|()| outcomes.next().unwrap_or_else(left_out))).collect()
    }

    /// Publishes one message to many users, in pipelines of bounded size; the outcomes are in the order of the users.
    ///
    /// # Errors
    /// [`PublishError::TooBig`] or [`PublishError::BadValue`] if nobody can be sent this message.
    pub async fn publish_to_users(
        &self,
        users: &[Name],
        message: &NewMessage<'_>,
    ) -> Result<Vec<Result<Published, PublishError>>, PublishError> {
        message.check(self.inner.config.payload_bytes_max)?;
        let now_ms = now_ms();
        let mut outcomes = Vec::with_capacity(users.len());
        for users in users.chunks(copies_max(message)) {
            let messages: Vec<_> = users.iter().map(|user| (user, message)).collect();
            let mut appended = self.append_all(&messages, now_ms).await;
            outcomes.append(&mut appended.outcomes);
            if appended.is_cut_off {
                break;
            }
        }
        // Each further pipeline could wait for a dead connection as long as the first one did.
        outcomes.resize_with(users.len(), || Err(PublishError::Unavailable(NOT_SENT.to_owned())));
        Ok(outcomes)
    }

    /// Appends messages in one pipeline, which the caller bounds and has checked.
    async fn append_all(&self, messages: &[(&Name, &NewMessage<'_>)], now_ms: u64) -> Appended {
        let mut outcomes: Vec<Option<Result<Published, PublishError>>> = vec![None; messages.len()];
        let mut waiting: Vec<usize> = (0..messages.len()).collect();
        let mut failed = None;
        // At most once more, for functions that were missing.
        for attempt in 0..2 {
            let Some((measured, _)) = waiting.first().map(|index| messages[*index]) else { break };
            let sent = self.store.shared().send(|commands| {
                for index in &waiting {
                    let (user, message) = messages[*index];
                    self.append(commands, user, message, now_ms);
                }
                self.length(commands, measured);
            });
            let replies = match sent.await {
                Ok(replies) => replies,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            let mut replies = replies.reader();
            let mut missing = Vec::new();
            for index in waiting {
                let read = if messages[index].1.is_call() { read_once } else { read_appended };
                match replies.next().map_or_else(missing_reply, read) {
                    Err(StoreError::FunctionMissing) if attempt == 0 => missing.push(index),
                    outcome => outcomes[index] = Some(outcome.map_err(PublishError::from)),
                }
            }
            if let Some(length) = replies.next() {
                self.report_overfull(measured, &length);
            }
            waiting = missing;
            if waiting.is_empty() {
                break;
            }
            if let Err(error) = self.store.load_functions().await {
                failed = Some(error);
                break;
            }
        }
        let created = outcomes.iter().flatten().flatten().filter(|published| published.created).count();
        self.inner.batched.increment(created as u64);
        let is_cut_off = failed.is_some();
        // A failure of the connection is everyone's who has no outcome.
        let failed = failed.map_or_else(left_out, |error| Err(error.into()));
        Appended {
            outcomes: outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| failed.clone())).collect(),
            is_cut_off,
        }
    }

    /// Writes the command that appends a message.
    fn append(&self, commands: &mut Commands, user: &Name, message: &NewMessage<'_>, now_ms: u64) {
        let keys = self.store.keys();
        let inbox = keys.parts(Key::Inbox(user));
        let fields = message.fields(now_ms);
        let mut command = match &message.key {
            _ if message.receipt => {
                let once = message.key.as_ref().map(|key| keys.name(Key::Once(user, key)));
                let mut command = commands.command(7 + usize::from(once.is_some()) + fields.argument_count());
                command.arg("FCALL").arg(Function::PublishAsking.name()).number(2 + u64::from(once.is_some()));
                command.parts(&inbox).parts(&keys.parts(Key::Asked(user)));
                if let Some(once) = once {
                    command.arg(once);
                }
                // Twice the age, so that it is still there when the last of its messages is dropped.
                command
                    .number(ONCE_SECONDS)
                    .number(self.inner.config.inbox_age_max.as_secs().saturating_mul(2).max(60));
                command
            }
            None => {
                let mut command = commands.command(3 + fields.argument_count());
                command.arg("XADD").parts(&inbox).arg("*");
                command
            }
            Some(key) => {
                let mut command = commands.command(6 + fields.argument_count());
                command.arg("FCALL").arg(Function::PublishOnce.name()).number(2);
                command.parts(&inbox).parts(&keys.parts(Key::Once(user, key))).number(ONCE_SECONDS);
                command
            }
        };
        for (name, value) in fields.iter() {
            command.arg(name).arg(value);
        }
    }

    fn length(&self, commands: &mut Commands, user: &Name) {
        commands.command(2).arg("XLEN").parts(&self.store.keys().parts(Key::Inbox(user)));
    }

    fn report_overfull(&self, user: &Name, length: &Value<'_>) {
        if let Value::Int(length) = length
            && u64::try_from(*length).is_ok_and(|length| length > self.inner.config.inbox_length_max)
        {
            let _ = self.inner.overfull.try_send(user.clone());
        }
    }
}

/// Copies of a message that go into one pipeline.
pub(super) fn copies_max(message: &NewMessage<'_>) -> usize {
    (PIPELINE_BYTES_MAX / message.bytes().max(1)).clamp(1, PIPELINE_MESSAGES_MAX)
}

pub(super) fn missing_reply() -> Result<Published, StoreError> {
    Err(StoreError::OutcomeUnknown("fewer replies than commands".to_owned()))
}

/// Every message that waits gets an outcome; if one did not, it is a fault of ours.
fn left_out() -> Result<Published, PublishError> {
    Err(PublishError::Internal("a message was left out".to_owned()))
}

pub(super) fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// The reply of `XADD`: the entry id.
pub(super) fn read_appended(reply: Value<'_>) -> Result<Published, StoreError> {
    Ok(Published { id: read_id(reply)?, created: true })
}

/// The reply of `publish_once`: the entry id, and 1 if it was appended now.
pub(super) fn read_once(reply: Value<'_>) -> Result<Published, StoreError> {
    let Value::Array(parts) = check(reply)? else { return Err(unexpected()) };
    match <[Value<'_>; 2]>::try_from(parts) {
        Ok([id, Value::Int(created)]) => Ok(Published { id: read_id(id)?, created: created == 1 }),
        _ => Err(unexpected()),
    }
}

fn read_id(reply: Value<'_>) -> Result<String, StoreError> {
    let reply = check(reply)?;
    match &reply {
        Value::Bulk(_) => reply.text().map(Cow::into_owned).ok_or_else(unexpected),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> StoreError {
    StoreError::Unexpected("another answer to an append than an entry id".to_owned())
}

#[cfg(test)]
#[path = "publisher_tests.rs"]
mod tests;
