//! The topics that sessions of one shard follow: each is read once, whoever many follow it.

use std::collections::{BTreeSet, HashMap, VecDeque};

use homing_protocol::id::EntryId;
use homing_protocol::topic::Topic;

use super::sessions::SessionKey;

/// Entries that are read from a topic at once.
const READ_COUNT: u64 = 256;
/// Bytes that they have together, as far as can be foreseen.
const READ_BYTES_MAX: u64 = 1024 * 1024;
/// And all reads of one pipeline. Reads of large entries, or of many topics at once, as after the loss of a link, take
/// several pipelines, and those who want something else meanwhile do not wait for all of them.
const PIPELINE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What an entry is taken to have until one was seen.
const ENTRY_BYTES: u64 = 256;

/// One topic.
#[derive(Debug)]
struct Feed {
    topic: Topic,
    /// Wake-ups of its log arrive.
    subscribed: bool,
    /// Up to where the log was seen; `None` until that was asked.
    head: Option<EntryId>,
    /// The log may hold more.
    dirty: bool,
    /// A question or a read is on its way.
    asking: bool,
    /// The number of the fan-out of what was read; it is not read on meanwhile.
    fan_out: Option<u64>,
    /// Bytes of an entry, on the average of those that were read last.
    entry_bytes: u64,
    /// In the order of their sessions' places, so that memory is gone through in one direction.
    followers: BTreeSet<SessionKey>,
}

impl Feed {
    /// How many entries are read at once.
    fn count(&self) -> u64 {
        (READ_BYTES_MAX / self.entry_bytes.max(1)).clamp(1, READ_COUNT)
    }
}

/// What a feed wants of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// The last id that the log has given out.
    Head(Topic),
    /// What comes after an entry.
    Read {
        topic: Topic,
        after: EntryId,
        /// Entries at most.
        count: u64,
    },
}

/// All topics of a shard.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    feeds: HashMap<Box<str>, Feed>,
    /// To be subscribed to, and to be dropped.
    pub(super) added: Vec<Topic>,
    pub(super) dropped: Vec<Topic>,
    /// Fan-outs that were ever begun.
    fan_outs: u64,
    /// Feeds that may want something.
    waiting: VecDeque<Topic>,
    /// Feeds that the sweep has not come to, and how many it takes with each tick.
    sweeping: Vec<Topic>,
    sweep_share: usize,
    /// Feeds that Redis refused; they are asked for again after a while, and hold up no other.
    failed: Vec<Topic>,
    pub(super) retry_at_ms: u64,
    pub(super) sweep_at_ms: u64,
}

impl Feeds {
    /// Adds a follower; up to where the log was seen, if that is known.
    pub(super) fn follow(&mut self, topic: &Topic, key: SessionKey) -> Option<EntryId> {
        let feed = self.feeds.entry(topic.as_str().into()).or_insert_with(|| {
            self.added.push(topic.clone());
            Feed {
                topic: topic.clone(),
                subscribed: false,
                head: None,
                dirty: false,
                asking: false,
                fan_out: None,
                entry_bytes: ENTRY_BYTES,
                followers: BTreeSet::new(),
            }
        });
        feed.followers.insert(key);
        feed.head.filter(|_| feed.subscribed)
    }

    pub(super) fn unfollow(&mut self, topic: &Topic, key: SessionKey) {
        let Some(feed) = self.feeds.get_mut(topic.as_str()) else { return };
        feed.followers.remove(&key);
        if feed.followers.is_empty() {
            self.feeds.remove(topic.as_str());
            self.dropped.push(topic.clone());
        }
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.feeds.values().map(|feed| &feed.topic)
    }

    pub(super) fn is_followed(&self, topic: &Topic) -> bool {
        self.feeds.contains_key(topic.as_str())
    }

    pub(super) fn followers(&self, topic: &Topic) -> Vec<SessionKey> {
        self.feeds.get(topic.as_str()).map_or_else(Vec::new, |feed| feed.followers.iter().copied().collect())
    }

    /// What was read of a topic is handed out from now on, to whom follows it now; the fan-out's number.
    pub(super) fn begin_fan_out(&mut self, topic: &Topic) -> (u64, Vec<SessionKey>) {
        self.fan_outs += 1;
        if let Some(feed) = self.feeds.get_mut(topic.as_str()) {
            feed.fan_out = Some(self.fan_outs);
        }
        (self.fan_outs, self.followers(topic))
    }

    /// Whether the followers are still those whom the fan-out was begun for: all may be gone, and others have come.
    pub(super) fn is_fanning_out(&self, topic: &Topic, number: u64) -> bool {
        self.feeds.get(topic.as_str()).is_some_and(|feed| feed.fan_out == Some(number))
    }

    /// All followers have what was read.
    pub(super) fn end_fan_out(&mut self, topic: &Topic) {
        let Some(feed) = self.feeds.get_mut(topic.as_str()) else { return };
        feed.fan_out = None;
        if feed.dirty {
            self.waiting.push_back(feed.topic.clone());
        }
    }

    /// A topic's log has something new.
    pub(super) fn wake(&mut self, topic: &str) {
        let Some(feed) = self.feeds.get_mut(topic) else { return };
        if !std::mem::replace(&mut feed.dirty, true) {
            self.waiting.push_back(feed.topic.clone());
        }
    }

    /// Wake-ups of a topic arrive from now on.
    pub(super) fn subscribed(&mut self, topic: &Topic) {
        let Some(feed) = self.feeds.get_mut(topic.as_str()) else { return };
        feed.subscribed = true;
        feed.dirty = true;
        self.waiting.push_back(topic.clone());
    }

    /// Wake-ups may have been lost.
    pub(super) fn lose_hints(&mut self) {
        for feed in self.feeds.values_mut() {
            feed.dirty = true;
            self.waiting.push_back(feed.topic.clone());
        }
    }

    /// Begins to look at all topics, a share of them with each of so many ticks: no wake-up is relied upon for longer.
    pub(super) fn begin_sweep(&mut self, ticks: u64) {
        if self.sweeping.is_empty() {
            self.sweeping = self.topics().cloned().collect();
            let ticks = usize::try_from(ticks).unwrap_or(usize::MAX).max(1);
            self.sweep_share = self.sweeping.len().div_ceil(ticks);
        }
    }

    /// A tick of the sweep.
    pub(super) fn sweep(&mut self) {
        let begin = self.sweeping.len().saturating_sub(self.sweep_share);
        for topic in self.sweeping.split_off(begin) {
            self.wake(topic.as_str());
        }
    }

    /// The subscriptions are gone; `rewound`: Redis may have gone back in time, so that what was seen says nothing.
    pub(super) fn lose_link(&mut self, rewound: bool) {
        for feed in self.feeds.values_mut() {
            feed.subscribed = false;
            feed.asking = false;
            if rewound {
                feed.head = None;
            }
        }
        self.added.clear();
        self.dropped.clear();
        self.waiting.clear();
        self.failed.clear();
    }

    /// Asks again for what was refused.
    pub(super) fn retry(&mut self) {
        self.waiting.extend(self.failed.drain(..));
    }

    pub(super) fn has_wishes(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What feeds want in the next pipeline.
    pub(super) fn take_wishes(&mut self) -> Vec<Wish> {
        let (mut wishes, mut bytes) = (Vec::new(), 0);
        while bytes < PIPELINE_BYTES_MAX {
            let Some(topic) = self.waiting.pop_front() else { break };
            let Some(feed) = self.feeds.get_mut(topic.as_str()) else { continue };
            if !feed.subscribed || !feed.dirty || feed.asking || feed.fan_out.is_some() {
                continue;
            }
            feed.asking = true;
            // Cleared when the read is sent: what is appended after it wakes us again.
            feed.dirty = false;
            let count = feed.count();
            bytes += count * feed.entry_bytes;
            wishes.push(match feed.head {
                None => Wish::Head(topic),
                Some(after) => Wish::Read { topic, after, count },
            });
        }
        wishes
    }

    /// So large were the entries of a topic that were read, on the average.
    pub(super) fn saw(&mut self, topic: &Topic, entry_bytes: u64) {
        if let Some(feed) = self.feeds.get_mut(topic.as_str()) {
            feed.entry_bytes = entry_bytes.max(1);
        }
    }

    /// Whether a wish of this feed is on its way: one of the same name may have been dropped with its wish.
    pub(super) fn is_asking(&self, topic: &Topic) -> bool {
        self.feeds.get(topic.as_str()).is_some_and(|feed| feed.asking)
    }

    /// A wish came back. `seen`: up to where the log was seen now, `None` if that was refused; `more`: it may hold more;
    /// answers whether it was seen for the first time.
    pub(super) fn answered(&mut self, topic: &Topic, seen: Option<EntryId>, more: bool) -> bool {
        let Some(feed) = self.feeds.get_mut(topic.as_str()) else { return false };
        feed.asking = false;
        feed.dirty |= more || seen.is_none();
        if seen.is_none() {
            self.failed.push(topic.clone());
        } else if feed.dirty {
            self.waiting.push_back(topic.clone());
        }
        let is_first = feed.head.is_none() && seen.is_some();
        feed.head = seen.or(feed.head);
        is_first
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn read(topic: &Topic, after: EntryId) -> Wish {
        Wish::Read { topic: topic.clone(), after, count: READ_COUNT }
    }

    #[test]
    fn a_topic_is_read_once_however_many_follow_it() {
        let (mut feeds, topic) = (Feeds::default(), Topic::parse("news").unwrap());
        for index in 0..3 {
            assert_eq!(feeds.follow(&topic, SessionKey::of(index)), None);
        }
        assert_eq!(std::mem::take(&mut feeds.added), std::slice::from_ref(&topic));
        feeds.wake("news");
        assert_eq!(feeds.take_wishes(), []);
        feeds.subscribed(&topic);
        assert_eq!(feeds.take_wishes(), [Wish::Head(topic.clone())]);
        feeds.wake("news");
        assert_eq!(feeds.take_wishes(), [], "one at a time");
        let head = EntryId { ms: 5, seq: 0 };
        assert!(feeds.answered(&topic, Some(head), false));
        assert_eq!(feeds.take_wishes(), [read(&topic, head)], "the wake-up was not forgotten");
        assert!(!feeds.answered(&topic, Some(head), false));
        assert_eq!(feeds.take_wishes(), []);
        assert_eq!(feeds.follow(&topic, SessionKey::of(9)), Some(head));
    }

    #[test]
    fn a_topic_that_redis_refuses_holds_up_no_other() {
        let (mut feeds, bad, good) = (Feeds::default(), Topic::parse("bad").unwrap(), Topic::parse("good").unwrap());
        for topic in [&bad, &good] {
            feeds.follow(topic, SessionKey::of(1));
            feeds.subscribed(topic);
        }
        assert_eq!(feeds.take_wishes().len(), 2);
        feeds.answered(&bad, None, false);
        feeds.answered(&good, Some(EntryId::MIN), false);
        feeds.wake("good");
        assert_eq!(feeds.take_wishes(), [read(&good, EntryId::MIN)]);
        assert!(!feeds.has_wishes(), "not asked for again at once");
        feeds.retry();
        assert_eq!(feeds.take_wishes(), [Wish::Head(bad)]);
    }

    // Its first answer must be where its log ends: only that opens it for its followers.
    #[test]
    fn a_topic_that_is_followed_anew_waits_for_no_answer_to_those_who_left() {
        let (mut feeds, topic) = (Feeds::default(), Topic::parse("news").unwrap());
        feeds.follow(&topic, SessionKey::of(1));
        feeds.subscribed(&topic);
        assert_eq!(feeds.take_wishes(), [Wish::Head(topic.clone())]);
        assert!(feeds.is_asking(&topic));
        feeds.unfollow(&topic, SessionKey::of(1));
        feeds.follow(&topic, SessionKey::of(2));
        assert!(!feeds.is_asking(&topic));
        feeds.subscribed(&topic);
        assert_eq!(feeds.take_wishes(), [Wish::Head(topic.clone())]);
        assert!(feeds.is_asking(&topic));
    }

    // Else its followers' outlets would fill faster than they are written, and what is read wait in this process.
    #[test]
    fn a_topic_is_not_read_on_before_all_followers_have_what_was_read() {
        let (mut feeds, topics) = feeds_at_rest(1);
        let topic = &topics[0];
        feeds.wake(topic.as_str());
        assert_eq!(feeds.take_wishes(), [read(topic, EntryId { ms: 5, seq: 0 })]);
        let seen = EntryId { ms: 6, seq: 0 };
        feeds.answered(topic, Some(seen), false);
        let (number, followers) = feeds.begin_fan_out(topic);
        assert_eq!(followers, [SessionKey::of(1)]);
        assert_eq!(feeds.follow(topic, SessionKey::of(2)), Some(seen), "who comes now reads the log by itself");
        feeds.wake(topic.as_str());
        assert_eq!(feeds.take_wishes(), []);
        assert!(feeds.is_fanning_out(topic, number));
        feeds.end_fan_out(topic);
        assert!(!feeds.is_fanning_out(topic, number));
        assert_eq!(feeds.take_wishes(), [read(topic, seen)], "the wake-up was not forgotten");
    }

    #[test]
    fn what_is_handed_out_to_followers_who_left_ends_nothing_of_those_who_came() {
        let (mut feeds, topics) = feeds_at_rest(1);
        let topic = &topics[0];
        let (first, _) = feeds.begin_fan_out(topic);
        feeds.unfollow(topic, SessionKey::of(1));
        feeds.follow(topic, SessionKey::of(2));
        assert!(!feeds.is_fanning_out(topic, first));
        let (second, followers) = feeds.begin_fan_out(topic);
        assert_eq!(followers, [SessionKey::of(2)]);
        assert!(feeds.is_fanning_out(topic, second) && !feeds.is_fanning_out(topic, first));
    }

    #[test]
    fn a_topic_that_nobody_follows_any_more_is_dropped() {
        let (mut feeds, topic) = (Feeds::default(), Topic::Broadcast);
        feeds.follow(&topic, SessionKey::of(1));
        feeds.unfollow(&topic, SessionKey::of(2));
        assert!(feeds.dropped.is_empty());
        feeds.unfollow(&topic, SessionKey::of(1));
        assert_eq!(feeds.dropped, [topic]);
    }

    /// So many topics, all of them seen up to 5-0 and at rest.
    fn feeds_at_rest(count: u32) -> (Feeds, Vec<Topic>) {
        let mut feeds = Feeds::default();
        let topics: Vec<Topic> = (0..count).map(|number| Topic::parse(&format!("t{number}")).unwrap()).collect();
        for topic in &topics {
            feeds.follow(topic, SessionKey::of(1));
            feeds.subscribed(topic);
        }
        while feeds.has_wishes() {
            feeds.take_wishes();
        }
        for topic in &topics {
            feeds.answered(topic, Some(EntryId { ms: 5, seq: 0 }), false);
        }
        (feeds, topics)
    }

    #[test]
    fn the_sweep_comes_to_every_topic_once_and_to_few_at_a_time() {
        let (mut feeds, topics) = feeds_at_rest(10_000);
        feeds.begin_sweep(1_200);
        let mut seen = HashSet::new();
        for _ in 0..1_200 {
            feeds.sweep();
            let wishes = feeds.take_wishes();
            assert!(wishes.len() <= 9, "{}", wishes.len());
            for wish in wishes {
                let Wish::Read { topic, after, .. } = wish else { panic!("{wish:?}") };
                feeds.answered(&topic, Some(after), false);
                assert!(seen.insert(topic));
            }
        }
        assert_eq!(seen.len(), topics.len());
    }

    #[test]
    fn a_pipeline_reads_no_more_than_its_part_and_the_next_goes_on() {
        let (mut feeds, topics) = feeds_at_rest(10_000);
        feeds.lose_hints();
        let mut pipelines = 0;
        while feeds.has_wishes() {
            let wishes = feeds.take_wishes();
            assert!(wishes.len() <= 256, "{}", wishes.len());
            pipelines += 1;
        }
        assert!(pipelines >= topics.len() / 256, "{pipelines}");
        for topic in &topics[..100] {
            feeds.answered(topic, Some(EntryId::MIN), false);
            feeds.saw(topic, 64 * 1024);
            feeds.wake(topic.as_str());
        }
        let wishes = feeds.take_wishes();
        assert!(wishes.iter().all(|wish| matches!(wish, Wish::Read { count: 16, .. })), "{wishes:?}");
        assert_eq!(wishes.len(), 16);
    }
}
