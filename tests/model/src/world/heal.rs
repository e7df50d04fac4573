//! What is wrong with a state once everything works again.

use homing_protocol::simulation::fault::Fault;
use homing_protocol::simulation::node::Node;

use super::{DEVICES, World};

/// Within which every lost hint is made good, and the time between two looks.
const SWEPT_MS: u64 = 70_000;
const SWEPT_STEP_MS: u64 = 5_000;
/// Longer than cursors wait for more acks, or for another try.
const FLUSHED_MS: u64 = 1_000;
const ROUNDS_MAX: usize = 1_000;

impl World {
    /// Everything goes on until nothing is left to do. No time passes.
    pub(super) fn settle(&mut self, acks: bool) {
        for _ in 0..ROUNDS_MAX {
            let mut progress = false;
            for node in 0..self.pair.nodes.len() {
                progress |= self.pair.settle_node(node);
            }
            progress |= self.receive() | self.reindex();
            for device in 0..DEVICES.len() {
                if acks && self.clients[device].owes_acks() {
                    self.ack(device, false);
                    progress = true;
                }
            }
            if !progress {
                return;
            }
        }
        self.pair.world.wrongs.push("restless: something goes in a circle".to_owned());
    }

    /// Everything works again, every device that ever connected is connected, and clients ack all: what is wrong.
    pub(super) fn heal(mut self) -> Vec<String> {
        if !self.wrongs().is_empty() {
            return self.wrongs();
        }
        if let Some(device) = self.left_online() {
            return vec![format!("left online: {device} has an owner without a session")];
        }
        if !self.pair.world.redis.flags {
            // The first whose probe does not come back.
            self.pair.nodes[0].lose_link();
        }
        self.settle(true);
        self.revive();
        if self.pair.world.redis.fault == Some(Fault::OldConnectionLives) {
            self.pair.publish("x");
            for node in &mut self.pair.nodes {
                node.execute_orphans(&mut self.pair.world);
            }
            self.settle(true);
        }
        if self.topic.is_some() {
            // Cursors that acks have moved are written together, or again.
            self.pair.pass(FLUSHED_MS);
            self.settle(true);
        }
        if self.silent {
            for _ in 0..SWEPT_MS / SWEPT_STEP_MS {
                self.pair.pass(SWEPT_STEP_MS);
                self.settle(true);
                self.revive();
            }
        }
        self.wrongs().into_iter().chain(self.undone()).chain(self.undone_in_topic()).collect()
    }

    /// A device that is recorded as online although nothing is under way that would say otherwise.
    fn left_online(&self) -> Option<&'static str> {
        let nodes = &self.pair.nodes;
        let rests = |node: &Node| node.linked && node.flight() == (false, false) && node.hints.is_empty();
        if self.silent || !self.eager || !nodes.iter().all(rests) {
            return None;
        }
        DEVICES.into_iter().find(|device| {
            let owner = self.pair.world.redis.record(device).map_or("", |record| &record.owner);
            let held = nodes.iter().flat_map(|node| node.sessions.iter().flatten()).any(|held| held.device == *device);
            !owner.is_empty() && !held
        })
    }

    fn revive(&mut self) {
        for device in 0..DEVICES.len() {
            let client = &self.clients[device];
            if !client.open && !client.connections.is_empty() && !client.forgetting {
                self.connect(device, device % self.pair.nodes.len());
                self.settle(true);
            }
        }
    }

    /// What should have been done by the end.
    fn undone(&self) -> Vec<String> {
        let mut undone = Vec::new();
        for (device, owed) in &self.pair.world.redis.owed {
            let client = &self.clients[DEVICES.iter().position(|name| name == device).unwrap_or_default()];
            if !owed.is_empty() && !client.forgetting {
                undone.push(format!("undelivered: {owed:?} never came to {device}"));
            }
        }
        for (number, device) in DEVICES.into_iter().enumerate() {
            let sessions = self.pair.nodes.iter().flat_map(|node| node.sessions.iter().flatten());
            let owners = sessions.filter(|held| held.device == device && held.session.is_live()).count();
            if owners > 1 {
                undone.push(format!("owned twice: {device} has {owners} live sessions"));
            }
            if let Some(node) = self.unnamed_owner(device) {
                undone.push(format!("unnamed: {device} lives on {node}, and a take-over would not tell it"));
            }
            let client = &self.clients[number];
            if let Some(epoch) = client.untold.as_ref().filter(|_| !client.forgetting) {
                undone.push(format!("untold: {device} was not told that {epoch} is over"));
            }
        }
        undone
    }

    /// The node of a device's session whose record does not name it.
    fn unnamed_owner(&self, device: &str) -> Option<&str> {
        let owner = &self.pair.world.redis.record(device)?.owner;
        let lives = |node: &&Node| {
            let mut sessions = node.sessions.iter().flatten();
            sessions.any(|held| held.device == device && held.session.is_live()) && node.owner() != owner
        };
        self.pair.nodes.iter().find(lives).map(Node::owner)
    }
}
