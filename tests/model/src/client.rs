//! One device's client, over all its connections: what it has seen, and what must not come.

use std::collections::BTreeSet;

use homing_protocol::id::EntryId;
use homing_protocol::simulation::connection::{confirmed_of, messages_of};
use homing_protocol::topic::Topic;
use serde_json::Value;

use crate::follower::Follower;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    pub(crate) connections: Vec<usize>,
    /// So many of them were of an earlier epoch or device: what they still say counts for nothing.
    over: usize,
    /// Whether the last connection is still thought to be open.
    pub(crate) open: bool,
    pub(crate) epoch: Option<String>,
    pub(crate) unacked: Vec<EntryId>,
    /// What it has of the topic, if there is one.
    pub(crate) follower: Follower,
    seen: BTreeSet<EntryId>,
    /// Delivered on the last connection.
    current: BTreeSet<EntryId>,
    confirmed: BTreeSet<EntryId>,
    /// The last message that came with attempt 1.
    last_first: EntryId,
    /// The epoch in which something was rewound or deleted: another one must be told.
    pub(crate) untold: Option<String>,
    /// It asked to be forgotten on its last connection.
    pub(crate) forgetting: bool,
    /// It asked so, ever: order is not promised across that.
    pub(crate) forgot: bool,
    /// A message came again that an earlier connection had been given.
    pub(crate) saw_stale: bool,
    /// It was told that retention took something of the topic.
    pub(crate) told_of_retention: bool,
    /// A message came again on the same connection.
    pub(crate) saw_redelivery: bool,
}

impl Client {
    pub(crate) fn begin(&mut self, connection: usize) {
        self.connections.push(connection);
        self.open = true;
        self.forgetting = false;
        self.current.clear();
        self.follower.begin();
    }

    /// Takes a frame of an older connection: only what it confirms is of interest.
    pub(crate) fn take_older(&mut self, connection: usize, frame: &Value, topic: Option<&Topic>) {
        if !self.connections[..self.over].contains(&connection) {
            self.confirmed.extend(confirmed_of(frame));
            if let Some(topic) = topic {
                self.follower.take_confirmed(frame, topic);
            }
        }
    }

    /// Whether there is something that it could acknowledge.
    pub(crate) fn owes_acks(&self) -> bool {
        self.open && !(self.unacked.is_empty() && self.follower.unacked.is_empty())
    }

    /// Takes a frame; what is wrong with it. The topic is one that the user follows since some time, Unix ms.
    pub(crate) fn take(&mut self, frame: &Value, gaps_expected: bool, topic: Option<(&Topic, u64)>) -> Vec<String> {
        let of_topic = topic.map(|(topic, since_ms)| self.follower.take(frame, topic, since_ms));
        let mut wrongs = of_topic.unwrap_or_default();
        for (id, attempt) in messages_of(frame) {
            if self.confirmed.contains(&id) {
                wrongs.push(format!("redelivered: {id} had been confirmed"));
            }
            if attempt == 1 && id <= self.last_first && !self.forgot {
                wrongs.push(format!("disordered: {id} came with attempt 1 after {}", self.last_first));
            }
            if attempt == 1 {
                self.last_first = self.last_first.max(id);
            }
            self.saw_redelivery |= attempt > 1 && self.current.contains(&id);
            self.saw_stale |= attempt > 1 && self.connections.len() > 1 && !self.current.contains(&id);
            self.current.insert(id);
            self.seen.insert(id);
            if !self.unacked.contains(&id) {
                self.unacked.push(id);
            }
        }
        self.confirmed.extend(confirmed_of(frame));
        if let Some(id) = self.confirmed.iter().find(|id| !self.seen.contains(id)) {
            wrongs.push(format!("confirmed: {id} was never seen"));
        }
        match frame["type"].as_str() {
            Some("ready") => self.enter(frame["epoch"].as_str()),
            Some("gap") => {
                self.enter(frame["epoch"].as_str());
                if self.untold.is_some() && self.untold != self.epoch {
                    self.untold = None;
                }
                if !gaps_expected {
                    wrongs.push(format!("a gap although nothing was lost: {frame}"));
                }
            }
            _ => {}
        }
        wrongs
    }

    /// Promises hold within an epoch.
    fn enter(&mut self, epoch: Option<&str>) {
        if self.epoch.as_deref() != epoch {
            if self.epoch.is_some() {
                self.confirmed.clear();
                self.follower.enter();
                self.over = self.connections.len() - 1;
                self.last_first = EntryId::MIN;
            }
            self.epoch = epoch.map(str::to_owned);
        }
    }

    /// The device was deleted: what follows is another device of the same name.
    pub(crate) fn forget(&mut self) {
        let connections = std::mem::take(&mut self.connections);
        let over = connections.len();
        *self = Self { connections, over, forgot: true, forgetting: self.forgetting, ..Self::default() };
    }
}
