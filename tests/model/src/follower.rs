//! One device's client in a topic, over all its connections: what it has seen, and what must not come.

use std::collections::BTreeSet;

use homing_protocol::id::EntryId;
use homing_protocol::simulation::connection::{confirmed_of_topic, messages_of_topic};
use homing_protocol::topic::{Topic, cursor_of_score, cursor_score};
use serde_json::Value;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Follower {
    /// Received and not acknowledged, in the order in which it came.
    pub(crate) unacked: Vec<EntryId>,
    seen: BTreeSet<EntryId>,
    /// Delivered on the last connection.
    current: BTreeSet<EntryId>,
    confirmed: BTreeSet<EntryId>,
    /// Acknowledged where it was delivered, and not confirmed.
    waiting: BTreeSet<EntryId>,
    /// The last message of this connection that came with attempt 1.
    last_first: EntryId,
    /// A message came again that an earlier connection had been given.
    pub(crate) saw_again: bool,
}

impl Follower {
    /// Another connection.
    pub(crate) fn begin(&mut self) {
        self.current.clear();
        self.waiting.clear();
        self.last_first = EntryId::MIN;
    }

    /// Another epoch: promises hold within one.
    pub(crate) fn enter(&mut self) {
        self.confirmed.clear();
        self.unacked.clear();
        self.begin();
    }

    /// Takes what a frame confirms. A cursor cannot tell all messages of a millisecond: those may come again.
    pub(crate) fn take_confirmed(&mut self, frame: &Value, topic: &Topic) {
        for id in confirmed_of_topic(frame, topic) {
            self.waiting.remove(&id);
            if cursor_of_score(cursor_score(id)) == id {
                self.confirmed.insert(id);
            }
        }
    }

    /// Takes a frame of the current connection; what is wrong with it. The user follows the topic since that time.
    pub(crate) fn take(&mut self, frame: &Value, topic: &Topic, since_ms: u64) -> Vec<String> {
        let mut wrongs = Vec::new();
        for (id, attempt) in messages_of_topic(frame, topic) {
            if self.confirmed.contains(&id) && id.ms >= since_ms {
                wrongs.push(format!("redelivered: {id} of {topic} had been confirmed"));
            }
            if attempt == 1 && id <= self.last_first {
                wrongs.push(format!("disordered: {id} of {topic} came with attempt 1 after {}", self.last_first));
            }
            if attempt == 1 {
                self.last_first = id;
            }
            self.saw_again |= self.seen.contains(&id) && !self.current.contains(&id);
            self.seen.insert(id);
            self.current.insert(id);
            if !self.unacked.contains(&id) {
                self.unacked.push(id);
            }
        }
        self.take_confirmed(frame, topic);
        if let Some(id) = self.confirmed.iter().find(|id| !self.seen.contains(id)) {
            wrongs.push(format!("confirmed: {id} of {topic} was never seen"));
        }
        wrongs
    }

    /// What the client acknowledges now: all, or only what came last.
    pub(crate) fn ack(&mut self, only_newest: bool) -> Vec<EntryId> {
        let first = if only_newest { self.unacked.len().saturating_sub(1) } else { 0 };
        let ids = self.unacked.split_off(first);
        self.waiting.extend(ids.iter().filter(|id| self.current.contains(id)));
        ids
    }

    /// Acknowledged on this connection, to which it was given, and not confirmed.
    pub(crate) fn unconfirmed(&self) -> impl Iterator<Item = &EntryId> {
        self.waiting.iter()
    }
}
