//! Topics of a shard: from wake-ups over one read to all their followers.
//!
//! A read is handed out to a part of its followers at a time, so that whoever waits for a message of its own does not
//! wait until all of them have it. Invariant: a topic is not read on before all of its followers have what was read.

use std::collections::VecDeque;
use std::vec::IntoIter;

use bytes::Bytes;
use homing_protocol::id::EntryId;
use homing_protocol::session::{Now, TopicBatch};
use homing_protocol::topic::Topic;

use super::feeds::Wish;
use super::sessions::SessionKey;
use super::shard::{Shard, TICK_MS, millis};
use super::{pipeline, topic_pipeline};
use crate::store::replies::{self, Value};
use crate::store::resp::Commands;
use crate::store::{Key, KeySpace, StoreError, topics};

/// Time between two tries of feeds that Redis refused.
const RETRY_MS: u64 = 500;

/// Followers that are given a batch before others get their turn. Each will acknowledge it, and the runtime runs 61 tasks
/// between two turns of the shard: with more followers than that, acks would queue up, and behind them whatever else
/// clients and producers want.
const FOLLOWERS_MAX: usize = 16;

/// Bytes of what was read and not all followers have, beyond which no topic is read on.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// What topics brought and not all of their followers have: one batch of each topic at most.
#[derive(Debug, Default)]
pub(super) struct FanOuts {
    waiting: VecDeque<FanOut>,
    bytes: usize,
    /// The frame of the one that is being handed out.
    frame: Option<Bytes>,
}

#[derive(Debug)]
struct FanOut {
    number: u64,
    batch: TopicBatch,
    frame: Option<Bytes>,
    followers: IntoIter<SessionKey>,
}

impl FanOut {
    fn bytes(&self) -> usize {
        self.batch.bytes() + self.frame.as_ref().map_or(0, Bytes::len)
    }
}

impl FanOuts {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether so much waits that topics should not be read on.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BYTES_MAX
    }

    /// The frame of the batch that a session is being given.
    pub(super) fn frame(&self) -> Option<Bytes> {
        self.frame.clone()
    }

    /// Behind all others, so that topics take turns: one that few follow does not wait for one that all do.
    fn push(&mut self, fan_out: FanOut) {
        self.bytes += fan_out.bytes();
        self.waiting.push_back(fan_out);
    }

    fn pop(&mut self) -> Option<FanOut> {
        let fan_out = self.waiting.pop_front()?;
        self.bytes -= fan_out.bytes();
        Some(fan_out)
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
            Wish::Read { after, count, .. } => self.complete_feed(&topic, (after, count), values),
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
        let frame = batch.frame().map(|frame| Bytes::copy_from_slice(frame.as_bytes()));
        let (number, followers) = self.feeds.begin_fan_out(topic);
        self.fan_outs.push(FanOut { number, batch, frame, followers: followers.into_iter() });
        Ok(())
    }

    /// Gives some followers what their topics brought.
    pub(super) fn fan_out(&mut self) {
        let mut left = FOLLOWERS_MAX;
        while left > 0
            && let Some(fan_out) = self.fan_outs.pop()
        {
            left -= self.fan_out_to(fan_out, left);
        }
    }

    /// Gives all of them all of it.
    pub(super) fn finish_fan_outs(&mut self) {
        while let Some(fan_out) = self.fan_outs.pop() {
            self.fan_out_to(fan_out, usize::MAX);
        }
    }

    /// Gives at most so many followers a batch; how many that were.
    fn fan_out_to(&mut self, mut fan_out: FanOut, count_max: usize) -> usize {
        let now = self.now();
        let FanOut { number, batch, frame, followers } = &mut fan_out;
        if !self.feeds.is_fanning_out(batch.topic(), *number) {
            // All who had followed are gone; whoever follows since was told where the log ended.
            return 0;
        }
        self.fan_outs.frame.clone_from(frame);
        let mut count = 0;
        for key in followers.take(count_max) {
            count += 1;
            let Some(held) = self.sessions.get_mut(key) else { continue };
            held.session.handle_topic_batch(now, batch, held.outlet.is_blocked(), &mut self.actions);
            self.attend(key, now);
        }
        self.fan_outs.frame = None;
        if fan_out.followers.len() > 0 {
            self.fan_outs.push(fan_out);
        } else {
            self.feeds.end_fan_out(fan_out.batch.topic());
        }
        count
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

#[cfg(test)]
mod tests {
    use homing_protocol::message::Entry;

    use super::*;

    fn fan_out(topic: &str, followers: u32, payload_bytes: usize) -> FanOut {
        let data = vec![b'1'; payload_bytes];
        let entry = Entry { id: EntryId { ms: 1, seq: 0 }, fields: vec![(b"data".to_vec(), data)] };
        let places = (EntryId::MIN, EntryId::MIN);
        let batch = TopicBatch::new(Topic::parse(topic).unwrap(), places, &[entry], BYTES_MAX, u32::MAX);
        let followers = (0..followers).map(SessionKey::of).collect::<Vec<_>>().into_iter();
        FanOut { number: 1, batch, frame: None, followers }
    }

    #[test]
    fn a_topic_that_few_follow_does_not_wait_for_one_that_all_do() {
        let mut fan_outs = FanOuts::default();
        fan_outs.push(fan_out("all", 10_000, 10));
        fan_outs.push(fan_out("few", 1, 10));
        let mut first = fan_outs.pop().unwrap();
        assert_eq!(first.followers.by_ref().take(FOLLOWERS_MAX).count(), FOLLOWERS_MAX);
        fan_outs.push(first);
        assert_eq!(fan_outs.pop().unwrap().batch.topic().as_str(), "few");
        assert_eq!(fan_outs.pop().unwrap().followers.len(), 10_000 - FOLLOWERS_MAX);
        assert!(fan_outs.is_empty());
    }

    // Thousands of topics with a backlog of large messages each would else be held at once.
    #[test]
    fn topics_are_not_read_on_while_much_waits_for_its_followers() {
        let mut fan_outs = FanOuts::default();
        fan_outs.push(fan_out("large", 1, BYTES_MAX / 4));
        assert!(!fan_outs.is_full());
        fan_outs.push(fan_out("larger", 1, BYTES_MAX / 2));
        assert!(fan_outs.is_full());
        fan_outs.pop().unwrap();
        fan_outs.pop().unwrap();
        assert_eq!(fan_outs.bytes, 0);
    }
}
