//! The clients' side: devices, their connections, and what came over which.
//!
//! A device lives from its first `ready` until it is forgotten; one that comes back then is another incarnation.

use std::collections::{HashMap, HashSet};

use super::entry_id::EntryId;

/// One life of a device.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) user: u32,
    pub(crate) name: u32,
    /// Lines: of its first `connect`, of its first `ready`, and of `forgotten`.
    connect_line: u64,
    ready_line: Option<u64>,
    forgotten_line: Option<u64>,
    pub(crate) ready_us: u64,
    created: bool,
    created_generation: u64,
    /// The highest generation that a `ready` named: connections below it are superseded.
    generation: u64,
    last_ready_us: u64,
    open: u32,
    /// Connected when everything was drained.
    stayed: bool,
    /// How its latest connection behaves.
    pub(crate) group: u32,
    /// When a gap last told it of a new epoch.
    told_us: Vec<u64>,
    /// Drops that gaps told of, by the gap's id: a gap is repeated until it is acked.
    dropped: HashMap<String, u64>,
    /// Epoch and id of the latest entry that came as new.
    newest: Option<(u32, EntryId)>,
    got: HashMap<u32, Got>,
    /// Messages whose ack is not confirmed, by id.
    unacked: HashMap<EntryId, u32>,
    left: HashSet<EntryId>,
}

/// What a device got of one message.
#[derive(Clone, Copy, Debug)]
struct Got {
    id: EntryId,
    /// The epoch in which it came as new.
    new_in: Option<u32>,
    acked_in: Option<u32>,
}

#[derive(Debug)]
struct Connection {
    user: u32,
    device: usize,
    group: u32,
    ready: Option<Ready>,
    open: bool,
    closed: bool,
    /// What had come to the device as new when this connection was begun: all of it was read before.
    floor: Option<(u32, EntryId)>,
    newest: Option<EntryId>,
}

#[derive(Clone, Copy, Debug)]
struct Ready {
    epoch: u32,
    generation: u64,
    at_us: u64,
}

/// A message frame's message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) connection: u64,
    pub(crate) message: u32,
    pub(crate) id: EntryId,
    pub(crate) is_new: bool,
}

/// How a delivery stands to what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    First,
    /// Again, as at-least-once allows.
    Again,
    /// On a connection that was superseded or whose device was forgotten: it may still get what was read for it.
    Superseded {
        first: bool,
    },
    RepeatedAsNew,
    RepeatedAfterAck,
    OutOfOrder {
        first: bool,
        after: EntryId,
    },
}

impl Judged {
    pub(crate) fn is_first(self) -> bool {
        match self {
            Self::First => true,
            Self::Superseded { first } | Self::OutOfOrder { first, .. } => first,
            Self::Again | Self::RepeatedAsNew | Self::RepeatedAfterAck => false,
        }
    }
}

/// Where a delivery arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) user: u32,
    pub(crate) device: u32,
    pub(crate) epoch: u32,
    pub(crate) group: u32,
    /// Since when the device exists, and since when this connection does.
    pub(crate) device_ready_us: u64,
    pub(crate) ready_us: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Devices {
    all: Vec<Device>,
    /// The present life of a user's device.
    present: HashMap<(u32, u32), usize>,
    connections: HashMap<u64, Connection>,
    begun: u64,
}

impl Devices {
    pub(crate) fn connect(&mut self, line: u64, connection: u64, user: u32, name: u32, group: u32) -> bool {
        let device = self.present_or_new(line, user, name, group);
        self.all[device].group = group;
        let floor = self.all[device].newest;
        let begun = Connection { user, device, group, ready: None, open: false, closed: false, floor, newest: None };
        self.begun += 1;
        self.connections.insert(connection, begun).is_none()
    }

    fn present_or_new(&mut self, line: u64, user: u32, name: u32, group: u32) -> usize {
        *self.present.entry((user, name)).or_insert_with(|| {
            self.all.push(Device::new(line, user, name, group));
            self.all.len() - 1
        })
    }

    pub(crate) fn ready(
        &mut self,
        line: u64,
        now_us: u64,
        connection: u64,
        epoch: u32,
        generation: u64,
        created: bool,
    ) -> bool {
        let Some(begun) = self.connections.get(&connection) else { return false };
        let (mut index, group) = (begun.device, begun.group);
        if self.all[index].forgotten_line.is_some() {
            // Forgotten while this one was connecting: it made the device anew.
            let (user, name) = (self.all[index].user, self.all[index].name);
            index = self.present_or_new(line, user, name, group);
        }
        let device = &mut self.all[index];
        if device.ready_line.is_none() {
            device.ready_line = Some(line);
            device.ready_us = now_us;
            device.created = created;
            device.created_generation = generation;
        }
        device.generation = device.generation.max(generation);
        device.last_ready_us = now_us;
        let Some(begun) = self.connections.get_mut(&connection) else { return false };
        begun.device = index;
        begun.ready = Some(Ready { epoch, generation, at_us: now_us });
        if !begun.open {
            begun.open = true;
            device.open += 1;
        }
        true
    }

    pub(crate) fn closed(&mut self, connection: u64) -> bool {
        let Some(connection) = self.connections.get_mut(&connection) else { return false };
        if std::mem::take(&mut connection.open) {
            self.all[connection.device].open -= 1;
        }
        if !std::mem::replace(&mut connection.closed, true) {
            self.begun -= 1;
        }
        true
    }

    pub(crate) fn forgotten(&mut self, line: u64, user: u32, name: u32) {
        if let Some(index) = self.present.remove(&(user, name)) {
            let device = &mut self.all[index];
            device.forgotten_line = Some(line);
            device.got = HashMap::new();
            device.unacked = HashMap::new();
        }
    }

    pub(crate) fn gap(&mut self, now_us: u64, connection: u64, id: &str, epoch: u32, reason: &str, count: u64) -> bool {
        let Some(connection) = self.connections.get_mut(&connection) else { return false };
        let Some(ready) = &mut connection.ready else { return false };
        if ready.epoch != epoch {
            ready.epoch = epoch;
            connection.newest = None;
        }
        let device = &mut self.all[connection.device];
        if reason == "epoch" {
            device.told_us.push(now_us);
        } else {
            let told = device.dropped.entry(id.to_owned()).or_default();
            *told = (*told).max(count);
        }
        true
    }

    /// `None` if no such connection is ready.
    pub(crate) fn place(&self, connection: u64) -> Option<Place> {
        let connection = self.connections.get(&connection)?;
        let (ready, device) = (connection.ready?, &self.all[connection.device]);
        Some(Place {
            user: connection.user,
            device: device.name,
            epoch: ready.epoch,
            group: connection.group,
            device_ready_us: device.ready_us,
            ready_us: ready.at_us,
        })
    }

    pub(crate) fn delivered(&mut self, delivery: Delivery) -> Option<Judged> {
        let Delivery { connection, message, id, is_new } = delivery;
        let connection = self.connections.get_mut(&connection)?;
        let ready = connection.ready?;
        let device = &mut self.all[connection.device];
        let before = device.got.get(&message).copied();
        let first = before.is_none();
        if device.forgotten_line.is_some() {
            return Some(Judged::Superseded { first: false });
        }
        // An unkeyed message that was sent twice has two ids, each of which may come.
        let same = before.filter(|got| got.id == id);
        let new_before = same.and_then(|got| got.new_in);
        let acked_in = same.and_then(|got| got.acked_in);
        let new_in = if is_new { Some(ready.epoch) } else { new_before };
        device.got.insert(message, Got { id, new_in, acked_in });
        device.unacked.insert(id, message);
        if ready.generation < device.generation {
            return Some(Judged::Superseded { first });
        }
        if acked_in == Some(ready.epoch) {
            return Some(Judged::RepeatedAfterAck);
        }
        if is_new && new_before == Some(ready.epoch) {
            return Some(Judged::RepeatedAsNew);
        }
        if is_new {
            let floor = connection.floor.filter(|(epoch, _)| *epoch == ready.epoch).map(|(_, id)| id);
            let after = connection.newest.max(floor);
            connection.newest = after.max(Some(id));
            device.newest = connection.newest.map(|id| (ready.epoch, id));
            if let Some(after) = after.filter(|after| id <= *after) {
                return Some(Judged::OutOfOrder { first, after });
            }
        }
        Some(if first { Judged::First } else { Judged::Again })
    }

    pub(crate) fn acked(&mut self, connection: u64, ids: impl Iterator<Item = EntryId>) -> bool {
        let Some(connection) = self.connections.get(&connection) else { return false };
        let Some(ready) = connection.ready else { return false };
        let device = &mut self.all[connection.device];
        for id in ids {
            let message = device.unacked.remove(&id);
            if let Some(got) = message.and_then(|message| device.got.get_mut(&message)).filter(|got| got.id == id) {
                got.acked_in = Some(ready.epoch);
            }
        }
        true
    }

    pub(crate) fn left(&mut self, user: u32, name: u32, ids: impl Iterator<Item = EntryId>) -> bool {
        let Some(index) = self.present.get(&(user, name)) else { return false };
        self.all[*index].left.extend(ids);
        true
    }

    /// Connections that were begun and have not ended: at least as many as have a session.
    pub(crate) fn begun(&self) -> u64 {
        self.begun
    }

    /// Whoever is connected now stays until what is left was looked at.
    pub(crate) fn drained(&mut self) {
        self.all.iter_mut().for_each(|device| device.stayed = device.open > 0);
    }

    pub(crate) fn all(&self) -> &[Device] {
        &self.all
    }
}

impl Device {
    fn new(line: u64, user: u32, name: u32, group: u32) -> Self {
        Self {
            user,
            name,
            connect_line: line,
            ready_line: None,
            forgotten_line: None,
            ready_us: 0,
            created: false,
            created_generation: 0,
            generation: 0,
            last_ready_us: 0,
            open: 0,
            stayed: false,
            group,
            told_us: Vec::new(),
            dropped: HashMap::new(),
            newest: None,
            got: HashMap::new(),
            unacked: HashMap::new(),
            left: HashSet::new(),
        }
    }

    pub(crate) fn got(&self, message: u32) -> bool {
        self.got.contains_key(&message)
    }

    pub(crate) fn holds(&self, mut ids: impl Iterator<Item = EntryId>) -> bool {
        ids.any(|id| self.left.contains(&id))
    }

    pub(crate) fn stayed(&self) -> bool {
        self.stayed
    }

    /// Messages that gaps said were dropped: by retention, or as too big.
    pub(crate) fn told_of_drops(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Whether it was told of a new epoch since a fault began, or has not been there to be told since it was healed.
    pub(crate) fn was_told(&self, from_us: u64, healed_us: u64) -> bool {
        let was_there = self.stayed || self.last_ready_us > healed_us;
        self.told_since(from_us).is_some() || !was_there
    }

    /// When it was first told of a new epoch since a fault began.
    pub(crate) fn told_since(&self, from_us: u64) -> Option<u64> {
        self.told_us.iter().copied().find(|told_us| *told_us >= from_us)
    }

    /// Whether a message first sent on this line is owed: the device certainly existed, or certainly was the first to
    /// appear after it. `others` are all lives of the user's devices.
    pub(crate) fn is_owed<'a>(&self, line: u64, mut others: impl Iterator<Item = &'a Self>) -> bool {
        let Some(ready_line) = self.ready_line.filter(|_| self.forgotten_line.is_none()) else { return false };
        ready_line < line
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
