//! One device: what it was told, what came to it, and what it acknowledged.
//!
//! It lives from its first `ready` until it is forgotten; one that comes back then is another incarnation.

use std::collections::{HashMap, HashSet};

use super::entry_id::{EntryId, MessageId};
use super::receipts::Receipts;

/// One life of a device.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) user: u32,
    pub(crate) name: u32,
    /// Lines: of its first `connect`, of its first `ready`, and of `forgotten`.
    pub(super) connect_line: u64,
    pub(super) ready_line: Option<u64>,
    pub(super) forgotten_line: Option<u64>,
    pub(super) connect_us: u64,
    pub(crate) ready_us: u64,
    pub(super) created: bool,
    /// When a `ready` last said that it is new.
    pub(super) created_us: u64,
    pub(super) created_generation: u64,
    /// The highest generation that a `ready` named: connections below it are superseded.
    pub(super) generation: u64,
    pub(super) last_ready_us: u64,
    pub(super) open: u32,
    /// From when until when it had no connection; the end of time if it has none now.
    pub(super) away: Vec<(u64, u64)>,
    /// Connected when everything was drained.
    pub(super) stayed: bool,
    /// How its latest connection behaves.
    pub(crate) group: u32,
    /// When a gap last told it of a new epoch.
    pub(super) told_us: Vec<u64>,
    /// Drops that gaps told of, by the gap's id, and when last: a gap is repeated until it is acked.
    pub(super) dropped: HashMap<String, (u64, u64)>,
    /// Epoch and id of the latest entry of the inbox that came as new.
    pub(super) newest: Option<(u32, EntryId)>,
    pub(super) got: HashMap<u32, Got>,
    /// Messages whose ack is not confirmed, by id.
    pub(super) unacked: HashMap<MessageId, u32>,
    pub(crate) receipts: Receipts,
    pub(super) left: HashSet<EntryId>,
    /// Where it stands in the topics that hold something for it.
    pub(super) behind: HashMap<u32, EntryId>,
}

/// What a device got of one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Got {
    pub(super) id: MessageId,
    /// The epoch in which it came as new, and over which connection.
    pub(super) new_in: Option<(u32, u64)>,
    /// The client sent an ack for it, whatever became of that.
    pub(super) acked: bool,
    pub(super) confirmed: Option<Confirmed>,
}

/// A confirmed ack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confirmed {
    pub(super) epoch: u32,
    pub(super) connection: u64,
    pub(super) at_us: u64,
}

impl Device {
    pub(super) fn new(line: u64, now_us: u64, user: u32, name: u32, group: u32) -> Self {
        Self {
            user,
            name,
            connect_line: line,
            ready_line: None,
            forgotten_line: None,
            connect_us: now_us,
            ready_us: 0,
            created: false,
            created_us: 0,
            created_generation: 0,
            generation: 0,
            last_ready_us: 0,
            open: 0,
            away: Vec::new(),
            stayed: false,
            group,
            told_us: Vec::new(),
            dropped: HashMap::new(),
            newest: None,
            got: HashMap::new(),
            unacked: HashMap::new(),
            receipts: Receipts::default(),
            left: HashSet::new(),
            behind: HashMap::new(),
        }
    }

    pub(crate) fn got(&self, message: u32) -> bool {
        self.got.contains_key(&message)
    }

    /// Whether its client sent an ack for the message.
    pub(crate) fn acked(&self, message: u32) -> bool {
        self.got.get(&message).is_some_and(|got| got.acked)
    }

    /// Whether its inbox holds one of these.
    pub(crate) fn holds(&self, mut ids: impl Iterator<Item = EntryId>) -> bool {
        ids.any(|id| self.left.contains(&id))
    }

    /// Whether it still stands before one of these.
    pub(crate) fn is_behind(&self, topic: u32, mut ids: impl Iterator<Item = EntryId>) -> bool {
        self.behind.get(&topic).is_some_and(|after| ids.any(|id| id > *after))
    }

    pub(crate) fn stayed(&self) -> bool {
        self.stayed
    }

    /// Messages that gaps said were dropped: by retention, or as too big.
    pub(crate) fn told_of_drops(&self) -> u64 {
        self.dropped.values().map(|(count, _)| count).sum()
    }

    /// Whether a gap told of a drop at this moment or later. Nobody counts what a topic's followers lose.
    pub(crate) fn was_told_of_a_drop(&self, from_us: u64) -> bool {
        self.dropped.values().any(|(_, told_us)| *told_us >= from_us)
    }

    /// Whether it was told of a new epoch since a fault began, or has not been there to be told since it was healed.
    pub(crate) fn was_told(&self, from_us: u64, healed_us: u64) -> bool {
        self.unknown_until(from_us, healed_us) > 0
    }

    /// Until when Redis does not know it after a fault that lost its record: until it attaches again.
    pub(crate) fn unknown_until(&self, from_us: u64, healed_us: u64) -> u64 {
        let was_there = self.stayed || self.last_ready_us > healed_us;
        self.told_since(from_us).unwrap_or(if was_there { 0 } else { u64::MAX })
    }

    /// Whether it had no connection then.
    pub(crate) fn was_away(&self, at_us: u64) -> bool {
        self.away.iter().any(|(from_us, until_us)| *from_us <= at_us && at_us <= *until_us)
    }

    /// Whether it was away then and has not come back.
    pub(crate) fn is_absent_since(&self, at_us: u64) -> bool {
        self.away.last().is_some_and(|(from_us, until_us)| *from_us <= at_us && *until_us == u64::MAX)
    }

    /// When it was first told of a new epoch since a fault began.
    fn told_since(&self, from_us: u64) -> Option<u64> {
        self.told_us.iter().copied().find(|told_us| *told_us >= from_us)
    }

    /// Whether it certainly existed when a message was first sent on this line.
    pub(crate) fn existed(&self, line: u64) -> bool {
        self.forgotten_line.is_none() && self.ready_line.is_some_and(|ready_line| ready_line < line)
    }

    /// Whether a message first sent on this line is owed: the device certainly existed, or certainly was the first to
    /// appear after it. `others` are all lives of the user's devices.
    pub(crate) fn is_owed<'a>(&self, line: u64, mut others: impl Iterator<Item = &'a Self>) -> bool {
        let Some(ready_line) = self.ready_line.filter(|_| self.forgotten_line.is_none()) else { return false };
        self.existed(line)
            || others.all(|other| {
                std::ptr::eq(self, other)
                    || other.forgotten_line.is_some_and(|forgotten| forgotten < line)
                    || other.appeared_after(self, ready_line)
            })
    }

    fn appeared_after(&self, first: &Self, first_ready_line: u64) -> bool {
        let both_created = self.created && first.created;
        self.connect_line > first_ready_line || both_created && self.created_generation > first.created_generation
    }
}
