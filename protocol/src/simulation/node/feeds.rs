//! A node's topics: each is read once, however many of its sessions follow it.

use std::collections::{BTreeSet, VecDeque};

use super::{Follow, Item, Node, World};
use crate::id::EntryId;
use crate::message::Entry;
use crate::session::{Command, FollowChange, Reply, TopicBatch};
use crate::simulation::fault::Fault;
use crate::simulation::redis::Answer;
use crate::topic::Topic;

/// Entries that a feed reads at once.
const READ_COUNT: usize = 256;
/// Time between two looks at all logs, whether something was heard of them or not.
pub(super) const SWEEP_MS: u64 = 60_000;

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Feed {
    follow: Follow,
    /// Up to where the log was seen; `None` until that was asked.
    head: Option<EntryId>,
    /// The log may hold more.
    dirty: bool,
    /// A question or a read is on its way.
    asking: bool,
    /// What was read is being handed out; it is not read on meanwhile.
    fanning_out: bool,
    /// It could not be read; not before the next tick or link again.
    failed: bool,
    followers: BTreeSet<usize>,
}

/// What a topic brought, and who does not have it yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FanOut {
    batch: TopicBatch,
    followers: VecDeque<usize>,
}

/// What a feed wants of Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wish {
    /// The last id that the log has given out.
    Head(Topic),
    /// What comes after this entry.
    Read(Topic, EntryId),
}

impl Node {
    /// A session follows what it says it follows.
    pub(super) fn register_topics(&mut self, world: &mut World, key: usize) {
        let topics: Vec<Topic> = self.sessions[key].iter().flat_map(|held| held.session.topics()).cloned().collect();
        topics.iter().for_each(|topic| self.follow_topic(world, key, topic));
    }

    pub(super) fn follow_topic(&mut self, world: &mut World, key: usize, topic: &Topic) {
        let feed = self.feeds.entry(topic.clone()).or_insert_with(|| Feed {
            follow: Follow::No,
            head: None,
            dirty: false,
            asking: false,
            fanning_out: false,
            failed: false,
            followers: BTreeSet::new(),
        });
        feed.followers.insert(key);
        if let Some(head) = feed.head.filter(|_| feed.follow == Follow::Confirmed) {
            self.with(world, key, |session, _, _| session.handle_topic_ready(topic, head));
        }
    }

    pub(super) fn unfollow_topic(&mut self, key: usize, topic: &Topic) {
        let Some(feed) = self.feeds.get_mut(topic) else { return };
        feed.followers.remove(&key);
        if feed.followers.is_empty() {
            self.feeds.remove(topic);
            self.drop_fan_outs();
        }
    }

    /// A session is over.
    pub(super) fn unregister_topics(&mut self, key: usize) {
        self.feeds.retain(|_, feed| {
            feed.followers.remove(&key);
            !feed.followers.is_empty()
        });
        self.drop_fan_outs();
    }

    /// The user's topics have changed by a frame of this session.
    pub(super) fn note_follows(&mut self, world: &mut World, key: usize, change: FollowChange) {
        if !(change.added.is_empty() && change.removed.is_empty()) {
            self.orders.push(Item::Reindex(change));
        }
        for other in (0..self.sessions.len()).filter(|other| *other != key) {
            self.with(world, other, |session, _, _| session.handle_topics_changed());
        }
    }

    /// Whether an event of a topic's log reaches this node.
    pub fn is_following(&self, topic: &Topic) -> bool {
        self.linked && self.feeds.get(topic).is_some_and(|feed| feed.follow == Follow::Confirmed)
    }

    /// Sends subscriptions to the logs that sessions follow.
    pub(super) fn subscribe_to_topics(&mut self) -> bool {
        let unsent = self.feeds.values_mut().filter(|feed| feed.follow == Follow::No);
        unsent.map(|feed| feed.follow = Follow::Sent).count() > 0
    }

    /// Redis executes them; those that it confirms now.
    pub(super) fn confirm_topics(&mut self) -> Vec<Topic> {
        let sent = self.feeds.iter_mut().filter(|(_, feed)| feed.follow == Follow::Sent);
        sent.map(|(topic, feed)| {
            feed.follow = Follow::Confirmed;
            topic.clone()
        })
        .collect()
    }

    pub(super) fn is_subscribing_to_topics(&self) -> bool {
        self.feeds.values().any(|feed| feed.follow == Follow::Sent)
    }

    /// The log may hold something new, or events of it arrive from now on.
    pub(super) fn wake_feed(&mut self, topic: &Topic) {
        if let Some(feed) = self.feeds.get_mut(topic) {
            feed.dirty = true;
        }
    }

    /// Events of logs may have been lost.
    pub(super) fn lose_hints_of_feeds(&mut self) {
        self.feeds.values_mut().for_each(|feed| feed.dirty = true);
    }

    /// A new link: subscriptions died with the old one, and all are made with this one.
    pub(super) fn relink_feeds(&mut self, rewound: bool) {
        for feed in self.feeds.values_mut() {
            (feed.follow, feed.asking, feed.failed) = (Follow::Confirmed, false, false);
            if rewound {
                feed.head = None;
            }
        }
    }

    /// Subscriptions that were on their way are gone.
    pub(super) fn unlink_feeds(&mut self) {
        for feed in self.feeds.values_mut().filter(|feed| feed.follow == Follow::Sent) {
            feed.follow = Follow::No;
        }
    }

    /// What feeds want in the next pipeline.
    pub(super) fn take_wishes(&mut self, world: &World) -> Vec<Item> {
        let early = world.redis.fault == Some(Fault::ReadBeforeSubscribe);
        let mut wishes = Vec::new();
        for (topic, feed) in &mut self.feeds {
            let hears = feed.follow == Follow::Confirmed || early && feed.head.is_none();
            if !hears || !(feed.dirty || early && feed.head.is_none()) || feed.asking || feed.fanning_out || feed.failed
            {
                continue;
            }
            feed.asking = true;
            // Cleared when the read is sent: what is appended after it wakes us again.
            feed.dirty = false;
            let wish = feed.head.map_or(Wish::Head(topic.clone()), |head| Wish::Read(topic.clone(), head));
            wishes.push(Item::Feed(wish));
        }
        wishes
    }

    pub(super) fn execute_wish(world: &World, wish: &Wish) -> Answer {
        match wish {
            // Either is one id.
            Wish::Head(topic) => {
                Reply::CursorLoaded { at: Some(world.redis.topics.head(topic)), trimmed: EntryId::MIN, end: None }
            }
            Wish::Read(topic, after) => {
                let entries = world.redis.topics.read(topic, *after, READ_COUNT);
                let blind = world.redis.fault == Some(Fault::TrimUnseenByNode);
                let trimmed = world.redis.topics.trimmed(topic).filter(|_| !blind).unwrap_or_default();
                Reply::TopicRead { entries, trimmed }
            }
        }
    }

    pub(super) fn complete_wish(&mut self, world: &mut World, wish: &Wish, answer: Option<Answer>) {
        let (Wish::Head(topic) | Wish::Read(topic, _)) = wish;
        if !self.feeds.get(topic).is_some_and(|feed| feed.asking)
            && world.redis.fault != Some(Fault::AnswerOfAnotherFeed)
        {
            // All who had followed are gone; whoever follows since begins with a question of its own.
            return;
        }
        match (wish, answer) {
            (Wish::Head(topic), Some(Reply::CursorLoaded { at: Some(head), .. })) => {
                if self.answered(topic, Some(head), false) {
                    for key in self.followers(topic) {
                        self.with(world, key, |session, _, _| session.handle_topic_ready(topic, head));
                    }
                }
            }
            (Wish::Read(topic, after), Some(Reply::TopicRead { entries, trimmed })) => {
                self.complete_feed(world, topic, (*after, trimmed), &entries);
            }
            (Wish::Head(topic) | Wish::Read(topic, _), _) => drop(self.answered(topic, None, false)),
        }
    }

    fn complete_feed(
        &mut self,
        world: &mut World,
        topic: &Topic,
        (after, trimmed): (EntryId, EntryId),
        entries: &[Entry<Vec<u8>>],
    ) {
        if entries.is_empty() && trimmed <= after {
            self.answered(topic, Some(after), false);
            return;
        }
        let places =
            if world.redis.fault == Some(Fault::BatchWithoutPlace) { Default::default() } else { (after, trimmed) };
        let batch = TopicBatch::new(topic.clone(), places, entries, usize::MAX, 1 << 20);
        self.answered(topic, Some(batch.last().max(after)), entries.len() >= READ_COUNT);
        if let Some(feed) = self.feeds.get_mut(topic) {
            feed.fanning_out = true;
        }
        let followers = self.followers(topic).into();
        self.fan_outs.push_back(FanOut { batch, followers });
    }

    /// Whether somebody does not have yet what a topic brought.
    pub fn is_fanning_out(&self) -> bool {
        !self.fan_outs.is_empty()
    }

    /// Gives the next follower what its topic brought.
    pub fn fan_out(&mut self, world: &mut World) -> bool {
        let Some(FanOut { batch, mut followers }) = self.fan_outs.pop_front() else { return false };
        let topic = batch.topic().clone();
        if let Some(key) = followers.pop_front() {
            self.shared_frame = batch.frame().map(str::to_owned);
            let blocked = self.sessions[key].as_ref().is_some_and(|held| held.blocked);
            self.with(world, key, |session, now, actions| {
                session.handle_topic_batch(now, &batch, blocked, actions);
            });
            self.shared_frame = None;
        }
        if !followers.is_empty() {
            self.fan_outs.push_back(FanOut { batch, followers });
        } else if let Some(feed) = self.feeds.get_mut(&topic) {
            feed.fanning_out = false;
        }
        true
    }

    /// Forgets fan-outs whose followers are all gone.
    fn drop_fan_outs(&mut self) {
        let feeds = &self.feeds;
        self.fan_outs.retain(|fan_out| feeds.get(fan_out.batch.topic()).is_some_and(|feed| feed.fanning_out));
    }

    fn followers(&self, topic: &Topic) -> Vec<usize> {
        self.feeds.get(topic).into_iter().flat_map(|feed| &feed.followers).copied().collect()
    }

    /// A wish came back: up to where the log was seen now, `None` if it failed. Whether it was seen for the first time.
    fn answered(&mut self, topic: &Topic, seen: Option<EntryId>, more: bool) -> bool {
        let Some(feed) = self.feeds.get_mut(topic) else { return false };
        let is_first = feed.head.is_none() && seen.is_some();
        (feed.asking, feed.failed) = (false, seen.is_none());
        feed.dirty |= more || seen.is_none();
        feed.head = seen.or(feed.head);
        is_first
    }

    /// A planted bug: the reply of a session's read counts as all that the node has seen until now, not until it was
    /// sent.
    pub(super) fn pass_all_seen(&self, command: &mut Command, answer: &mut Answer) {
        let (Command::ReadTopic { topic, count, .. }, Reply::TopicRead { entries, .. }) = (command, answer) else {
            return;
        };
        let head = self.feeds.get(topic).and_then(|feed| feed.head);
        if let Some(id) = head.filter(|_| entries.len() < usize::from(*count))
            && entries.last().is_none_or(|last| last.id < id)
        {
            // What is over is passed without being given to anybody.
            let fields = [("data", "over"), ("exp", "1")];
            let fields = fields.map(|(field, value)| (field.as_bytes().to_vec(), value.as_bytes().to_vec()));
            entries.push(Entry { id, fields: fields.into() });
            *count += 1;
        }
    }

    /// Time has passed.
    pub(super) fn tick_feeds(&mut self, world: &World) {
        self.feeds.values_mut().for_each(|feed| feed.failed = false);
        if world.now.mono_ms >= self.feeds_sweep_at_ms {
            self.feeds_sweep_at_ms = world.now.mono_ms + SWEEP_MS;
            self.lose_hints_of_feeds();
        }
    }
}
