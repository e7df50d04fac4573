//! An entry of the stream of presence events.

use homing_protocol::name::Name;

use crate::store::resp::Commands;
use crate::store::{Key, KeySpace};

/// Whether a device came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::delivery) enum Event {
    Online,
    Offline,
}

impl Event {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }
}

/// What happened to a device. A consumer that has seen a higher generation of it takes no notice: entries of different
/// nodes may come in any order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::delivery) struct Entry {
    pub(super) event: Event,
    pub(super) user: Name,
    pub(super) device: Name,
    /// The node's name.
    pub(super) node: String,
    pub(super) generation: u64,
    /// Unix ms by Redis's clock.
    pub(super) at_ms: u64,
    /// Entries of one shard are written in this order.
    pub(super) number: u64,
}

impl Entry {
    /// The `XADD` that writes it; the stream keeps about `length_max` entries.
    pub(super) fn arguments(&self, keys: &KeySpace, length_max: u64) -> [String; 18] {
        let text = str::to_owned;
        [
            text("XADD"),
            keys.name(Key::Presence),
            text("MAXLEN"),
            text("~"),
            length_max.to_string(),
            text("*"),
            text("event"),
            text(self.event.as_str()),
            text("user"),
            text(self.user.as_str()),
            text("device"),
            text(self.device.as_str()),
            text("node"),
            self.node.clone(),
            text("generation"),
            self.generation.to_string(),
            text("at_ms"),
            self.at_ms.to_string(),
        ]
    }

    pub(super) fn encode(&self, pipeline: &mut Commands, keys: &KeySpace, length_max: u64) {
        let arguments = self.arguments(keys, length_max);
        let mut command = pipeline.command(arguments.len());
        for argument in &arguments {
            command.arg(argument);
        }
    }
}

/// The field of a device in an owner's index. No name has a space in it.
pub(super) fn field(user: &Name, device: &Name) -> String {
    format!("{user} {device}")
}

/// The user and device of a field; `None` if somebody else wrote it.
pub(super) fn parse_field(field: &str) -> Option<(Name, Name)> {
    let (user, device) = field.split_once(' ')?;
    Some((Name::parse(user).ok()?, Name::parse(device).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_again_in_its_field() {
        let (user, device) = (Name::parse("a|b=c").unwrap(), Name::parse("web-1").unwrap());
        assert_eq!(parse_field(&field(&user, &device)), Some((user, device)));
        assert_eq!(parse_field("alice"), None);
        assert_eq!(parse_field("alice web 1"), None);
    }
}
