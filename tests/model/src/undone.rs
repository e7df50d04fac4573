//! What is wrong with a state in which nothing more can happen.

use homing_protocol::simulation::node::Node;

use crate::world::{DEVICES, World};

impl World {
    /// What should have been done by the end.
    pub(crate) fn undone(&self) -> Vec<String> {
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
