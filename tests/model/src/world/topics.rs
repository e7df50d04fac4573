//! What happens about the topic: messages, acks out of order, follows, retention.

use homing_protocol::id::EntryId;
use homing_protocol::name::Name;
use homing_protocol::topic::Topic;
use serde_json::json;

use super::{DEVICES, World};

/// How users' topics are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    /// By a frame of the phone's client.
    Frame,
    /// By a call over HTTP, whose second write, to the topic's list of followers, comes at any time later, or never.
    Call,
}

impl World {
    pub(super) fn publish_to_topic(&mut self) {
        if let Some(topic) = &self.topic {
            self.pair.publish_to(topic, "x");
        }
    }

    /// The name of the topic, if users follow it by name.
    fn topic_name(&self) -> Option<Name> {
        match &self.topic {
            Some(Topic::Named(name)) => Some(name.clone()),
            _ => None,
        }
    }

    pub(super) fn may_follow(&self, way: Way) -> bool {
        self.topic_name().is_some() && (way == Way::Call || self.clients[0].open)
    }

    pub(super) fn follow(&mut self, way: Way, follow: bool) {
        self.left_topic |= !follow;
        let Some(name) = self.topic_name() else { return };
        match (way, self.clients[0].connections.last()) {
            (Way::Frame, Some(connection)) => {
                let kind = if follow { "follow" } else { "unfollow" };
                self.pair.say(*connection, json!({"type": kind, "topics": [name.as_str()]}));
            }
            (Way::Frame, None) => {}
            (Way::Call, _) => {
                let change = self.pair.world.redis.follow("", std::slice::from_ref(&name), follow);
                self.reindexes.extend(change.ok());
            }
        }
    }

    /// The second write of a call.
    pub(super) fn reindex(&mut self) -> bool {
        if self.reindexes.is_empty() {
            return false;
        }
        let change = self.reindexes.remove(0);
        self.pair.world.redis.reindex(&change);
        true
    }

    pub(super) fn retain(&mut self) {
        if let Some(topic) = &self.topic {
            self.pair.world.redis.tend_topic(topic, self.kept);
        }
    }

    /// The device's client acknowledges what it has received of the inbox and of the topic, or only what came last of
    /// the topic.
    pub(super) fn ack(&mut self, device: usize, only_newest: bool) {
        let client = &mut self.clients[device];
        let Some(connection) = client.connections.last() else { return };
        let of_inbox: Vec<EntryId> = if only_newest { Vec::new() } else { std::mem::take(&mut client.unacked) };
        let mut ids: Vec<String> = of_inbox.iter().map(EntryId::to_string).collect();
        let of_topic = client.follower.ack(only_newest);
        if let Some(topic) = &self.topic {
            ids.extend(of_topic.iter().map(|id| format!("{topic}/{id}")));
            self.pair.world.redis.note_acked(DEVICES[device], topic, &of_topic);
        }
        self.pair.say(*connection, json!({"type": "ack", "ids": ids}));
    }

    /// What is wrong with the topic once everything works again.
    pub(super) fn undone_in_topic(&self) -> Vec<String> {
        let topics = &self.pair.world.redis.topics;
        let mut undone = Vec::new();
        undone.extend(topics.unpaid().map(|(device, ids)| format!("undelivered: {ids:?} never came to {device}")));
        undone.extend(topics.untold().map(|(device, ids)| format!("untold: {device} lost {ids:?} by retention")));
        undone.extend(topics.behind().map(|(device, id)| format!("unwritten: {device} has acknowledged {id}")));
        // What was given before is acknowledged to no effect once the topic is followed no more.
        let confirms = self.confirm && !self.left_topic;
        for (number, device) in DEVICES.into_iter().enumerate() {
            let client = &self.clients[number];
            if let Some(id) = client.follower.unconfirmed().next().filter(|_| client.open && confirms) {
                undone.push(format!("unconfirmed: {device} has acknowledged {id}"));
            }
        }
        undone
    }
}
