//! Writes messages to Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use homing_protocol::name::Name;
use metrics::Counter;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::mpsc;

use super::error::PublishError;
use super::message::NewMessage;
use crate::store::keys::ONCE_SECONDS;
use crate::store::{Function, Key, Store, StoreError};
use crate::telemetry::names;

/// One in so many plain publishes asks for the inbox's length too. An inbox that only grows is noticed soon enough
/// (the janitor visits every user anyway), and the others are spared a command.
const LENGTH_SAMPLE: u32 = 64;

/// What a publisher needs to know.
#[derive(Clone, Debug)]
pub struct PublisherConfig {
    /// Largest payload, in bytes.
    pub payload_bytes_max: usize,
    /// Length from which on an inbox is reported as overfull.
    pub inbox_length_max: u64,
}

/// A message that is in the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its entry id.
    pub id: String,
    /// Whether it was appended by this call; `false` if its key was seen before.
    pub created: bool,
}

/// Publishes messages. Cloning is cheap.
///
/// All clones share one connection: what they write at the same time leaves in one system call.
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
        };
        Self { store, inner: Arc::new(inner) }
    }

    /// Publishes one message.
    ///
    /// # Errors
    /// [`PublishError`]. After `OutcomeUnknown` only a message with a key may safely be published again.
    pub async fn publish(&self, user: &Name, message: &NewMessage<'_>) -> Result<Published, PublishError> {
        message.check(self.inner.config.payload_bytes_max)?;
        let command = self.append(user, message, now_ms());
        let published = if message.key.is_some() {
            read_once(self.store.call(&command).await?)?
        } else if self.inner.sample.fetch_add(1, Ordering::Relaxed).is_multiple_of(LENGTH_SAMPLE) {
            self.publish_measured(user, command).await?
        } else {
            read_appended(self.store.shared().send_packed_command(&command).await.map_err(StoreError::from)?)?
        };
        self.inner.singles.increment(u64::from(published.created));
        Ok(published)
    }

    /// Publishes many messages in one pipeline; the outcomes are in the order of the messages. The first user's inbox
    /// is measured, which costs a batch next to nothing.
    pub async fn publish_batch(&self, messages: &[(Name, NewMessage<'_>)]) -> Vec<Result<Published, PublishError>> {
        let now_ms = now_ms();
        let max = self.inner.config.payload_bytes_max;
        let mut outcomes: Vec<_> = messages.iter().map(|(_, message)| message.check(max).map(|()| None)).collect();
        let mut waiting: Vec<usize> = (0..messages.len()).filter(|index| outcomes[*index].is_ok()).collect();
        // At most once more, for functions that were missing.
        for attempt in 0..2 {
            let mut pipeline = Pipeline::with_capacity(waiting.len());
            for index in &waiting {
                let (user, message) = &messages[*index];
                pipeline.add_command(self.append(user, message, now_ms));
            }
            let measured = waiting.first().map(|index| &messages[*index].0);
            if let Some(user) = measured {
                pipeline.add_command(self.length(user));
            }
            let mut replies = self.replies(&pipeline).await;
            if let (Some(user), Some(length)) = (measured, replies.pop()) {
                self.report_overfull(user, length);
            }
            let mut missing = Vec::new();
            for (index, reply) in waiting.into_iter().zip(replies) {
                let read = if messages[index].1.key.is_some() { read_once } else { read_appended };
                match reply.and_then(read) {
                    Err(StoreError::FunctionMissing) if attempt == 0 => missing.push(index),
                    outcome => outcomes[index] = outcome.map(Some).map_err(PublishError::from),
                }
            }
            waiting = missing;
            if waiting.is_empty() {
                break;
            }
            if let Err(error) = self.store.load_functions().await {
                for index in waiting.drain(..) {
                    outcomes[index] = Err(error.clone().into());
                }
                break;
            }
        }
        let created = outcomes.iter().flatten().flatten().filter(|published| published.created).count();
        self.inner.batched.increment(created as u64);
        outcomes.into_iter().map(settled).collect()
    }

    /// The command that appends a message.
    fn append(&self, user: &Name, message: &NewMessage<'_>, now_ms: u64) -> Cmd {
        let keys = self.store.keys();
        let inbox = keys.name(Key::Inbox(user));
        // Room for names, numbers and the other fields; a wrong guess costs one more allocation.
        let mut command = Cmd::with_capacity(16, message.size() + inbox.len() + 128);
        match &message.key {
            None => command.arg("XADD").arg(inbox).arg("*"),
            Some(key) => {
                let once = keys.name(Key::Once(user, key));
                command.arg("FCALL").arg(Function::PublishOnce.name()).arg(2).arg(inbox).arg(once).arg(ONCE_SECONDS)
            }
        };
        message.add_fields(&mut command, now_ms);
        command
    }

    async fn publish_measured(&self, user: &Name, command: Cmd) -> Result<Published, PublishError> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(command).add_command(self.length(user));
        let mut replies = self.replies(&pipeline).await.into_iter();
        let published = replies.next().unwrap_or_else(missing_reply).and_then(read_appended)?;
        self.report_overfull(user, replies.next().unwrap_or_else(missing_reply));
        Ok(published)
    }

    fn length(&self, user: &Name) -> Cmd {
        let mut command = redis::cmd("XLEN");
        command.arg(self.store.keys().name(Key::Inbox(user)));
        command
    }

    fn report_overfull(&self, user: &Name, length: Result<Value, StoreError>) {
        if let Ok(Value::Int(length)) = length
            && u64::try_from(length).is_ok_and(|length| length > self.inner.config.inbox_length_max)
        {
            let _ = self.inner.overfull.try_send(user.clone());
        }
    }

    /// One reply for each command of a pipeline; a failure of the connection is everyone's.
    async fn replies(&self, pipeline: &Pipeline) -> Vec<Result<Value, StoreError>> {
        if pipeline.is_empty() {
            return Vec::new();
        }
        let count = pipeline.len();
        match self.store.shared().send_packed_commands(pipeline, 0, count).await {
            Ok(values) => {
                let mut replies: Vec<_> = values
                    .into_iter()
                    .map(|value| match value {
                        Value::ServerError(error) => Err(StoreError::from_server(&error)),
                        value => Ok(value),
                    })
                    .collect();
                replies.resize_with(count, missing_reply);
                replies
            }
            Err(error) => vec![Err(StoreError::from(error)); count],
        }
    }
}

fn missing_reply() -> Result<Value, StoreError> {
    Err(StoreError::OutcomeUnknown("fewer replies than commands".to_owned()))
}

fn settled(outcome: Result<Option<Published>, PublishError>) -> Result<Published, PublishError> {
    // Every message that passed its checks was waiting, and what waits gets an outcome.
    outcome.and_then(|published| published.ok_or_else(|| PublishError::Internal("a message was left out".to_owned())))
}

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// The reply of `XADD`: the entry id.
fn read_appended(reply: Value) -> Result<Published, StoreError> {
    Ok(Published { id: read_id(reply)?, created: true })
}

/// The reply of `publish_once`: the entry id, and 1 if it was appended now.
fn read_once(reply: Value) -> Result<Published, StoreError> {
    let Value::Array(parts) = reply else { return Err(unexpected(&reply)) };
    match <[Value; 2]>::try_from(parts) {
        Ok([id, Value::Int(created)]) => Ok(Published { id: read_id(id)?, created: created == 1 }),
        Ok([_, other]) => Err(unexpected(&other)),
        Err(parts) => Err(unexpected(&Value::Array(parts))),
    }
}

fn read_id(reply: Value) -> Result<String, StoreError> {
    match reply {
        Value::BulkString(id) => {
            String::from_utf8(id).map_err(|_| StoreError::Unexpected("an entry id that is no text".to_owned()))
        }
        Value::ServerError(error) => Err(StoreError::from_server(&error)),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(reply: &Value) -> StoreError {
    StoreError::Unexpected(format!("{reply:?} to an append"))
}

#[cfg(test)]
#[path = "publisher_tests.rs"]
mod tests;
