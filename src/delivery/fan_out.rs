//! Topics of a shard: from wake-ups over one read to all their followers, and followers' cursors back in few commands.

use std::collections::HashMap;

use bytes::Bytes;
use homing_protocol::id::EntryId;
use homing_protocol::name::Name;
use homing_protocol::session::{Command, Failure, Now, Reply, TopicBatch};
use homing_protocol::topic::{Topic, cursor_score};

use super::feeds::Wish;
use super::pipeline::Target;
use super::sessions::SessionKey;
use super::shard::{Shard, TICK_MS, millis};
use super::{pipeline, topic_pipeline};
use crate::store::replies::{self, Value};
use crate::store::resp::Commands;
use crate::store::{Function, Key, KeySpace, StoreError, topics};

/// Cursors in one command: each costs Redis about a microsecond, and ten in a set of a million that is being saved.
const CURSORS_MAX: usize = 256;

/// Time between two tries of feeds that Redis refused.
const RETRY_MS: u64 = 500;

/// Cursors of many sessions in one topic.
#[derive(Debug)]
pub(super) struct CursorGroup {
    topic: Topic,
    parts: Vec<CursorPart>,
}

/// A session's cursor.
#[derive(Debug)]
struct CursorPart {
    key: SessionKey,
    id: EntryId,
    rewind: Option<EntryId>,
    /// The recorded generation is asked for, too: an ack that waits for this is confirmed only if it is the session's.
    confirm: bool,
}

/// What sessions want to be written, gathered while a pipeline is put together.
#[derive(Debug, Default)]
pub(super) struct CursorWrites {
    /// By topic, and whether they must go back.
    groups: HashMap<(Topic, bool), Vec<CursorWrite>>,
}

/// A session's cursor, what stands for its device there, and where its device's record is, if that is asked for.
#[derive(Debug)]
struct CursorWrite {
    key: SessionKey,
    id: EntryId,
    rewind: Option<EntryId>,
    member: String,
    record: Option<(String, Name)>,
}

/// Where a session's cursor goes.
#[derive(Debug)]
pub(super) struct CursorMove {
    pub(super) topic: Topic,
    pub(super) id: EntryId,
    pub(super) rewind: Option<EntryId>,
    pub(super) confirm: bool,
}

impl CursorWrites {
    /// Adds a session's cursor.
    pub(super) fn add(&mut self, keys: &KeySpace, key: SessionKey, target: Target<'_>, write: CursorMove) {
        let Target { user, device } = target;
        let CursorMove { topic, id, rewind, confirm } = write;
        let member = KeySpace::cursor_member(user, device);
        let record = confirm.then(|| (keys.name(Key::Devices(user)), device.clone()));
        let write = CursorWrite { key, id, rewind, member, record };
        self.groups.entry((topic, rewind.is_some())).or_default().push(write);
    }

    /// Writes the commands: one for each group, and then one for each of its parts that is to be confirmed.
    pub(super) fn encode(&mut self, keys: &KeySpace, pipeline: &mut Commands) -> Vec<CursorGroup> {
        let mut groups = Vec::new();
        for ((topic, rewinds), writes) in self.groups.drain() {
            let key = keys.name(Key::Cursors(&topic));
            for writes in writes.chunks(CURSORS_MAX) {
                if rewinds {
                    pipeline.add(&rewind(&key, writes));
                } else {
                    let mut command = pipeline.command(3 + 2 * writes.len());
                    // Whoever is late, another connection of the device, cannot take a cursor back.
                    command.arg("ZADD").arg(&key).arg("GT");
                    for CursorWrite { id, member, .. } in writes {
                        command.number(cursor_score(*id)).arg(member);
                    }
                }
                for (devices, device) in writes.iter().filter_map(|write| write.record.as_ref()) {
                    pipeline.command(3).arg("HGET").arg(devices).arg(device.as_str());
                }
                let part = |write: &CursorWrite| CursorPart {
                    key: write.key,
                    id: write.id,
                    rewind: write.rewind,
                    confirm: write.record.is_some(),
                };
                groups.push(CursorGroup { topic: topic.clone(), parts: writes.iter().map(part).collect() });
            }
        }
        groups
    }
}

/// Takes cursors back that still lie where they were found.
fn rewind(key: &str, writes: &[CursorWrite]) -> redis::Cmd {
    let mut call = Function::RewindCursors.call(&[key]);
    for CursorWrite { id, rewind, member, .. } in writes {
        let from = rewind.unwrap_or(*id);
        call.arg(member).arg(cursor_score(from)).arg(cursor_score(*id));
    }
    call
}

impl CursorGroup {
    /// Commands of the pipeline.
    pub(super) fn replies(&self) -> usize {
        1 + self.parts.iter().filter(|part| part.confirm).count()
    }
}

impl Shard {
    /// A session follows what it says it follows.
    pub(super) fn register_topics(&mut self, key: SessionKey) {
        let Some(held) = self.sessions.get_mut(key) else { return };
        let topics: Vec<Topic> = held.session.topics().cloned().collect();
        topics.iter().for_each(|topic| self.follow_topic(key, topic));
    }

    pub(super) fn follow_topic(&mut self, key: SessionKey, topic: &Topic) {
        if let Some(head) = self.feeds.follow(topic, key)
            && let Some(held) = self.sessions.get_mut(key)
        {
            held.session.handle_topic_ready(topic, head);
        }
    }

    pub(super) fn unregister_topics(&mut self, key: SessionKey) {
        let Some(held) = self.sessions.get_mut(key) else { return };
        let topics: Vec<Topic> = held.session.topics().cloned().collect();
        topics.iter().for_each(|topic| self.feeds.unfollow(topic, key));
    }

    /// Adds what feeds want to the pipeline.
    pub(super) fn encode_wish(keys: &KeySpace, pipeline: &mut Commands, wish: &Wish) {
        match wish {
            Wish::Head(topic) => {
                pipeline.command(3).arg("XINFO").arg("STREAM").arg(keys.name(Key::Log(topic)));
            }
            Wish::Read { topic, after, count } => {
                let mut read = pipeline.command(6);
                read.arg("XRANGE").arg(keys.name(Key::Log(topic))).arg(pipeline::after(*after)).arg("+");
                read.arg("COUNT").number(*count);
                drop(read);
                topic_pipeline::encode_trimmed(pipeline, &keys.name(Key::TopicMeta(topic)));
            }
        }
    }

    pub(super) fn complete_wish<'a>(&mut self, wish: Wish, values: &mut impl Iterator<Item = Value<'a>>, now: Now) {
        let topic = match &wish {
            Wish::Head(topic) | Wish::Read { topic, .. } => topic.clone(),
        };
        if !self.feeds.is_asking(&topic) {
            // All who had followed are gone; whoever follows since begins with a question of its own.
            return;
        }
        let outcome = match wish {
            Wish::Head(_) => self.complete_head(&topic, pipeline::next(values), now),
            Wish::Read { after, count, .. } => self.complete_feed(&topic, (after, count), values, now),
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
                held.session.handle_topic_ready(topic, head);
                self.attend(key, now);
            }
        }
        Ok(())
    }

    fn complete_feed<'a>(
        &mut self,
        topic: &Topic,
        (after, count): (EntryId, u64),
        values: &mut impl Iterator<Item = Value<'a>>,
        now: Now,
    ) -> Result<(), StoreError> {
        let entries = replies::entries(pipeline::next(values))?;
        let trimmed = topics::optional_id(pipeline::next(values))?;
        if entries.is_empty() && trimmed <= after {
            self.feeds.answered(topic, Some(after), false);
            return Ok(());
        }
        self.observer.topic_entries.increment(entries.len() as u64);
        let config = self.session_config.clone();
        let batch = TopicBatch::new(
            topic.clone(),
            (after, trimmed),
            &entries,
            config.payload_bytes_max,
            config.frame_bytes_max,
        );
        self.feeds.answered(topic, Some(batch.last()), entries.len() as u64 >= count);
        if !entries.is_empty() {
            let bytes: usize = entries.iter().flat_map(|entry| &entry.fields).map(|(_, value)| value.len()).sum();
            self.feeds.saw(topic, (bytes / entries.len()) as u64);
        }
        self.shared_frame = batch.frame().map(|frame| Bytes::copy_from_slice(frame.as_bytes()));
        for key in self.feeds.followers(topic) {
            let Some(held) = self.sessions.get_mut(key) else { continue };
            held.session.handle_topic_batch(now, &batch, held.outlet.is_blocked(), &mut self.actions);
            self.attend(key, now);
        }
        self.shared_frame = None;
        Ok(())
    }

    /// The replies of a group came back.
    pub(super) fn complete_cursors<'a>(
        &mut self,
        group: CursorGroup,
        values: &mut impl Iterator<Item = Value<'a>>,
        now: Now,
    ) {
        let written = replies::check(pipeline::next(values)).map(drop);
        let written = written.map_err(|error| self.note_failure(&error));
        self.hand_out_cursors(group, now, |shard, confirm| {
            let generation = if confirm { pipeline::recorded_generation(pipeline::next(values)) } else { Ok(None) };
            let generation = generation.map_err(|error| shard.note_failure(&error));
            written.and(generation).map_or_else(Reply::Failed, |generation| Reply::CursorWritten { generation })
        });
    }

    /// Whether a group was written is unknown.
    pub(super) fn lose_cursors(&mut self, group: CursorGroup, now: Now) {
        self.hand_out_cursors(group, now, |_, _| Reply::Failed(Failure::Disconnected));
    }

    /// Gives each session's command back as it gave it, with a reply that depends on whether it is to be confirmed.
    fn hand_out_cursors(
        &mut self,
        group: CursorGroup,
        now: Now,
        mut reply: impl FnMut(&mut Self, bool) -> Reply<&'static [u8]>,
    ) {
        let CursorGroup { topic, parts } = group;
        self.observer.cursor_writes.increment(parts.len() as u64);
        for CursorPart { key, id, rewind, confirm } in parts {
            let reply = reply(self, confirm);
            let command = Command::WriteCursor { topic: topic.clone(), id, rewind, confirm };
            if command.awaits_success() || matches!(reply, Reply::Failed(_)) {
                self.reply(key, command, reply, now);
            }
        }
    }

    fn note_failure(&mut self, error: &StoreError) -> Failure {
        self.note_error(error);
        pipeline::failure(error)
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
