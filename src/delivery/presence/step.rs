//! One step towards an announcement, as a part of a shard's pipeline.

use homing_protocol::name::Name;

use super::entry::{Entry, field};
use crate::config::Limits;
use crate::delivery::pipeline::Identity;
use crate::delivery::shard::millis;
use crate::store::resp::Commands;
use crate::store::{Function, Key, KeySpace};

/// A device that attached, and may have to be announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::delivery) struct Arrival {
    pub(super) entry: Entry,
    /// Generation with which the device came online.
    pub(super) period: u64,
}

/// A device whose session has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::delivery) struct Departure {
    pub(super) user: Name,
    pub(super) device: Name,
    pub(super) period: u64,
}

/// What is asked of Redis next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::delivery) enum Step {
    /// Names this shard as one that has an index.
    Register,
    /// Asks whether the announcer until now wrote that the device came online.
    Ask { arrival: Arrival, announcer: Box<str> },
    /// Writes that it came online, then notes so in the index.
    Welcome(Arrival),
    /// Notes in the index that another one wrote it.
    Keep(Arrival),
    /// Asks whether a device is gone.
    Look(Departure),
    /// Writes that it is gone.
    Farewell(Entry),
    /// Strikes devices from the index.
    Forget(Vec<String>),
}

impl Step {
    /// The number of the entry that it writes, if it writes one: those of one shard keep their order.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Welcome(Arrival { entry, .. }) | Self::Farewell(entry) => Some(entry.number),
            _ => None,
        }
    }

    /// Appends its commands.
    pub(in crate::delivery) fn encode(
        &self,
        pipeline: &mut Commands,
        keys: &KeySpace,
        identity: &Identity,
        limits: &Limits,
    ) {
        let owner = identity.owner.as_str();
        match self {
            Self::Register => {
                pipeline.command(3).arg("SADD").arg(keys.name(Key::Announcers)).arg(owner);
            }
            Self::Ask { arrival: Arrival { entry, .. }, announcer } => {
                let field = field(&entry.user, &entry.device);
                pipeline.command(3).arg("HGET").arg(keys.name(Key::Online(announcer))).arg(&field);
            }
            Self::Welcome(arrival) => {
                arrival.entry.encode(pipeline, keys, limits.presence_length);
                arrival.keep(pipeline, keys, owner);
            }
            Self::Keep(arrival) => arrival.keep(pipeline, keys, owner),
            Self::Look(Departure { user, device, period }) => {
                let mut look = pipeline.command(9);
                look.arg("FCALL").arg(Function::Look.name()).number(1).arg(keys.name(Key::Devices(user)));
                look.arg(device.as_str()).arg(owner).number(*period).number(millis(limits.presence_grace)).arg("0");
            }
            Self::Farewell(entry) => entry.encode(pipeline, keys, limits.presence_length),
            Self::Forget(fields) => {
                let mut forget = pipeline.command(2 + fields.len());
                forget.arg("HDEL").arg(keys.name(Key::Online(owner)));
                for field in fields {
                    forget.arg(field);
                }
            }
        }
    }
}

impl Arrival {
    fn keep(&self, pipeline: &mut Commands, keys: &KeySpace, owner: &str) {
        let field = field(&self.entry.user, &self.entry.device);
        pipeline.command(4).arg("HSET").arg(keys.name(Key::Online(owner))).arg(&field).number(self.period);
    }
}
