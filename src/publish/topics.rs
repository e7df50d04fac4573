//! Publishing to topics: one entry each, whoever many follow.

use homing_protocol::topic::Topic;

use super::error::PublishError;
use super::message::NewMessage;
use super::publisher::{NOT_SENT, Published, Publisher, copies_max, missing_reply, now_ms, read_appended, read_once};
use crate::store::keys::ONCE_SECONDS;
use crate::store::resp::Commands;
use crate::store::{Function, Key, StoreError};

impl Publisher {
    /// Publishes one message to each of some topics, in pipelines of bounded size; the outcomes are in their order. With
    /// a key, each topic remembers it by itself.
    ///
    /// # Errors
    /// [`PublishError`] if the message is refused, or the first of it went wrong.
    pub async fn publish_to_topics(
        &self,
        topics: &[Topic],
        message: &NewMessage<'_>,
    ) -> Result<Vec<Result<Published, PublishError>>, PublishError> {
        message.check(self.config().payload_bytes_max)?;
        let now_ms = now_ms();
        let mut outcomes = Vec::with_capacity(topics.len());
        for part in topics.chunks(copies_max(message)) {
            match self.append_to_topics(part, message, now_ms).await {
                Ok(appended) => {
                    outcomes.extend(appended.into_iter().map(|outcome| outcome.map_err(PublishError::from)))
                }
                Err(error) if outcomes.is_empty() => return Err(error.into()),
                Err(error) => {
                    outcomes.extend(part.iter().map(|_| Err(error.clone().into())));
                    break;
                }
            }
        }
        outcomes.resize_with(topics.len(), || Err(PublishError::Unavailable(NOT_SENT.to_owned())));
        Ok(outcomes)
    }

    /// Appends a message to topics in one pipeline, which the caller bounds and has checked.
    async fn append_to_topics(
        &self,
        topics: &[Topic],
        message: &NewMessage<'_>,
        now_ms: u64,
    ) -> Result<Vec<Result<Published, StoreError>>, StoreError> {
        let read = if message.key.is_some() { read_once } else { read_appended };
        // At most once more, for functions that were missing: what was appended before is known by its key.
        for attempt in 0.. {
            let send = self.store().shared().send(|commands| {
                topics.iter().for_each(|topic| self.append_to_topic(commands, topic, message, now_ms));
            });
            let replies = send.await?;
            let mut replies = replies.reader();
            let outcomes: Vec<Result<Published, StoreError>> =
                topics.iter().map(|_| replies.next().map_or_else(missing_reply, read)).collect();
            if attempt == 0 && outcomes.iter().any(|outcome| matches!(outcome, Err(StoreError::FunctionMissing))) {
                self.store().load_functions().await?;
                continue;
            }
            let created = outcomes.iter().flatten().filter(|published| published.created).count();
            self.count_to_topics(created as u64);
            return Ok(outcomes);
        }
        Err(StoreError::Unexpected("a message was left out".to_owned()))
    }

    fn append_to_topic(&self, commands: &mut Commands, topic: &Topic, message: &NewMessage<'_>, now_ms: u64) {
        let keys = self.store().keys();
        let log = keys.name(Key::Log(topic));
        let fields = message.fields(now_ms);
        let mut command = match &message.key {
            None => {
                let mut command = commands.command(3 + fields.argument_count());
                command.arg("XADD").arg(log).arg("*");
                command
            }
            Some(key) => {
                let mut command = commands.command(6 + fields.argument_count());
                command.arg("FCALL").arg(Function::PublishOnce.name()).number(2);
                command.arg(log).arg(keys.name(Key::TopicOnce(topic, key))).number(ONCE_SECONDS);
                command
            }
        };
        for (name, value) in fields.iter() {
            command.arg(name).arg(value);
        }
    }
}
