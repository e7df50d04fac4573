//! Topics of a shard: from wake-ups over one read to all their followers, and followers' cursors back in few commands.

use std::collections::HashMap;

use bytes::Bytes;
use homing_protocol::id::EntryId;
use homing_protocol::name::Name;
use homing_protocol::session::{Command, Failure, Now, Reply, TopicBatch};
use homing_protocol::topic::Topic;

use super::feeds::Wish;
use super::pipeline;
use super::sessions::SessionKey;
use super::shard::{Shard, TICK_MS, millis};
use crate::store::keys::cursor_score;
use crate::store::replies::{self, Value};
use crate::store::resp::Commands;
use crate::store::{Key, KeySpace, StoreError, topics};

/// Cursors in one command: each costs Redis about a microsecond, and ten in a set of a million that is being saved.
const CURSORS_MAX: usize = 256;

/// Time between two tries of feeds that Redis refused.
const RETRY_MS: u64 = 500;

/// Cursors of many sessions in one topic.
#[derive(Debug)]
pub(super) struct CursorGroup {
    topic: Topic,
    /// Cursors that must go back, as only those of another epoch must.
    rewind: bool,
    parts: Vec<(SessionKey, EntryId)>,
}

/// What sessions want to be written, gathered while a pipeline is put together.
#[derive(Debug, Default)]
pub(super) struct CursorWrites {
    /// By topic, and whether they must go back.
    groups: HashMap<(Topic, bool), Vec<CursorWrite>>,
}

/// A session's cursor, and what stands for its device.
type CursorWrite = (SessionKey, EntryId, String);

impl CursorWrites {
    /// Adds a session's cursor.
    pub(super) fn add(&mut self, key: SessionKey, (user, device): (&Name, &Name), write: (Topic, EntryId, bool)) {
        let (topic, id, rewind) = write;
        let member = KeySpace::cursor_member(user, device);
        self.groups.entry((topic, rewind)).or_default().push((key, id, member));
    }

    /// Writes the commands, each of one reply.
    pub(super) fn encode(&mut self, keys: &KeySpace, pipeline: &mut Commands) -> Vec<CursorGroup> {
        let mut groups = Vec::new();
        for ((topic, rewind), writes) in self.groups.drain() {
            let key = keys.name(Key::Cursors(&topic));
            for writes in writes.chunks(CURSORS_MAX) {
                let mut command = pipeline.command(2 + usize::from(!rewind) + 2 * writes.len());
                command.arg("ZADD").arg(&key);
                if !rewind {
                    // Whoever is late, another connection of the device, cannot take a cursor back.
                    command.arg("GT");
                }
                for (_, id, member) in writes {
                    command.number(cursor_score(*id)).arg(member);
                }
                let parts = writes.iter().map(|(key, id, _)| (*key, *id)).collect();
                groups.push(CursorGroup { topic: topic.clone(), rewind, parts });
            }
        }
        groups
    }
}

impl CursorGroup {
    /// Each session's own command, as it gave it.
    fn commands(self) -> impl Iterator<Item = (SessionKey, Command)> {
        let Self { topic, rewind, parts } = self;
        parts.into_iter().map(move |(key, id)| (key, Command::WriteCursor { topic: topic.clone(), id, rewind }))
    }
}

impl Shard {
    /// A session follows what it says it follows.
    pub(super) fn register_topics(&mut self, key: SessionKey, now: Now) {
        let Some(held) = self.sessions.get_mut(key) else { return };
        let topics: Vec<Topic> = held.session.topics().cloned().collect();
        topics.iter().for_each(|topic| self.follow_topic(key, topic, now));
    }

    pub(super) fn follow_topic(&mut self, key: SessionKey, topic: &Topic, now: Now) {
        if let Some(head) = self.feeds.follow(topic, key)
            && let Some(held) = self.sessions.get_mut(key)
        {
            held.session.handle_topic_ready(now, topic, head);
        }
    }

    pub(super) fn unregister_topics(&mut self, key: SessionKey) {
        let Some(held) = self.sessions.get_mut(key) else { return };
        let topics: Vec<Topic> = held.session.topics().cloned().collect();
        topics.iter().for_each(|topic| self.feeds.unfollow(topic, key));
    }

    /// Adds what feeds want to the pipeline; each wish has one reply.
    pub(super) fn encode_wish(keys: &KeySpace, pipeline: &mut Commands, wish: &Wish) {
        match wish {
            Wish::Head(topic) => {
                pipeline.command(3).arg("XINFO").arg("STREAM").arg(keys.name(Key::Log(topic)));
            }
            Wish::Read { topic, after, count } => {
                let mut read = pipeline.command(6);
                read.arg("XRANGE").arg(keys.name(Key::Log(topic))).arg(pipeline::after(*after)).arg("+");
                read.arg("COUNT").number(*count);
            }
        }
    }

    pub(super) fn complete_wish(&mut self, wish: Wish, value: Value<'_>, now: Now) {
        let topic = match &wish {
            Wish::Head(topic) | Wish::Read { topic, .. } => topic.clone(),
        };
        let outcome = match wish {
            Wish::Head(_) => self.complete_head(&topic, value, now),
            Wish::Read { after, count, .. } => self.complete_feed(&topic, (after, count), value, now),
        };
        if let Err(error) = outcome {
            self.feeds.answered(&topic, None, false);
            self.note_error(&error);
        }
    }

    fn complete_head(&mut self, topic: &Topic, value: Value<'_>, now: Now) -> Result<(), StoreError> {
        let head = topics::head(value)?;
        if self.feeds.answered(topic, Some(head), false) {
            for key in self.feeds.followers(topic) {
                let Some(held) = self.sessions.get_mut(key) else { continue };
                held.session.handle_topic_ready(now, topic, head);
                self.attend(key, now);
            }
        }
        Ok(())
    }

    fn complete_feed(
        &mut self,
        topic: &Topic,
        (after, count): (EntryId, u64),
        value: Value<'_>,
        now: Now,
    ) -> Result<(), StoreError> {
        let entries = replies::entries(value)?;
        let Some(last) = entries.last().map(|entry| entry.id) else {
            self.feeds.answered(topic, Some(after), false);
            return Ok(());
        };
        self.observer.topic_entries.increment(entries.len() as u64);
        let config = self.session_config.clone();
        let batch = TopicBatch::new(topic.clone(), after, &entries, config.payload_bytes_max, config.frame_bytes_max);
        self.feeds.answered(topic, Some(last), entries.len() as u64 >= count);
        let bytes: usize = entries.iter().flat_map(|entry| &entry.fields).map(|(_, value)| value.len()).sum();
        self.feeds.saw(topic, (bytes / entries.len()) as u64);
        self.shared_frame = batch.frame().map(|frame| Bytes::copy_from_slice(frame.as_bytes()));
        for key in self.feeds.followers(topic) {
            let Some(held) = self.sessions.get_mut(key) else { continue };
            held.session.handle_topic_batch(now, &batch, held.outlet.is_blocked(), &mut self.actions);
            self.attend(key, now);
        }
        self.shared_frame = None;
        Ok(())
    }

    pub(super) fn complete_cursors(&mut self, group: CursorGroup, outcome: Result<(), Failure>, now: Now) {
        self.observer.cursor_writes.increment(group.parts.len() as u64);
        for (key, command) in group.commands() {
            self.reply(key, command, outcome.map_or_else(Reply::Failed, |()| Reply::Done), now);
        }
    }

    /// Lost wake-ups of topics are made good here, as the sweep does for inboxes, and what was refused is tried again.
    pub(super) fn tick_feeds(&mut self, now: Now) {
        if now.mono_ms >= self.feeds.retry_at_ms {
            self.feeds.retry_at_ms = now.mono_ms + RETRY_MS;
            self.feeds.retry();
        }
        if now.mono_ms >= self.feeds.sweep_at_ms {
            let sweep_ms = millis(self.limits.sweep);
            self.feeds.sweep_at_ms = now.mono_ms + sweep_ms;
            self.feeds.begin_sweep(sweep_ms / TICK_MS);
        }
        self.feeds.sweep();
    }
}
