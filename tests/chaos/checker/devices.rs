//! The clients' side: devices, their connections, and what came over which.

use std::collections::HashMap;

use super::device::{Confirmed, Device, Got};
use super::entry_id::{EntryId, MessageId};

#[derive(Debug)]
struct Connection {
    user: u32,
    device: usize,
    group: u32,
    connect_line: u64,
    connect_us: u64,
    /// Its client remembers that it was here before.
    returns: bool,
    ready: Option<Ready>,
    open: bool,
    closed: bool,
    /// What of the inbox had come to the device as new when this connection was begun: all of it was read before.
    floor: Option<(u32, EntryId)>,
    /// The latest that came as new, of the inbox (`None`) and of each topic.
    newest: HashMap<Option<u32>, EntryId>,
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
    pub(crate) id: MessageId,
    pub(crate) is_new: bool,
    /// It asks for receipts.
    pub(crate) asks: bool,
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
    /// When the device, and this connection, were begun, and since when they certainly exist.
    pub(crate) device_connect_us: u64,
    pub(crate) connect_us: u64,
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
    pub(crate) fn connect(
        &mut self,
        (line, now_us): (u64, u64),
        connection: u64,
        (user, name): (u32, u32),
        (group, returns): (u32, bool),
    ) -> bool {
        let device = self.present_or_new((line, now_us), user, name, group);
        self.all[device].group = group;
        let begun = Connection {
            user,
            device,
            group,
            connect_line: line,
            connect_us: now_us,
            returns,
            ready: None,
            open: false,
            closed: false,
            floor: self.all[device].newest,
            newest: HashMap::new(),
        };
        self.begun += 1;
        self.connections.insert(connection, begun).is_none()
    }

    fn present_or_new(&mut self, (line, now_us): (u64, u64), user: u32, name: u32, group: u32) -> usize {
        *self.present.entry((user, name)).or_insert_with(|| {
            self.all.push(Device::new(line, now_us, user, name, group));
            self.all.len() - 1
        })
    }

    pub(crate) fn ready(
        &mut self,
        (line, now_us): (u64, u64),
        connection: u64,
        epoch: u32,
        generation: u64,
        created: bool,
    ) -> bool {
        let Some(begun) = self.connections.get(&connection) else { return false };
        let (mut index, group, begin) = (begun.device, begun.group, (begun.connect_line, begun.connect_us));
        let (user, name) = (self.all[index].user, self.all[index].name);
        if created && !begun.returns && self.all[index].ready_line.is_some() {
            // To Redis it is new, and to its client as well.
            self.forgotten(line, user, name);
        }
        if self.all[index].forgotten_line.is_some() {
            // Forgotten while this one was connecting: it made the device anew.
            index = self.present_or_new(begin, user, name, group);
        }
        let device = &mut self.all[index];
        if created {
            device.created_us = now_us;
        }
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
            if let Some((_, until_us)) = device.away.last_mut().filter(|(_, until_us)| *until_us == u64::MAX) {
                *until_us = now_us;
            }
        }
        true
    }

    pub(crate) fn closed(&mut self, now_us: u64, connection: u64) -> bool {
        let Some(connection) = self.connections.get_mut(&connection) else { return false };
        if std::mem::take(&mut connection.open) {
            let device = &mut self.all[connection.device];
            device.open -= 1;
            if device.open == 0 {
                device.away.push((now_us, u64::MAX));
            }
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
            connection.newest.clear();
        }
        let device = &mut self.all[connection.device];
        if reason == "epoch" {
            device.told_us.push(now_us);
        } else {
            let (told, told_us) = device.dropped.entry(id.to_owned()).or_default();
            (*told, *told_us) = ((*told).max(count), now_us);
        }
        true
    }

    /// Since when Redis knows the device of a connection, if it does.
    pub(crate) fn known_since(&self, connection: u64) -> Option<u64> {
        let device = &self.all[self.connections.get(&connection)?.device];
        device.ready_line.filter(|_| device.forgotten_line.is_none()).map(|_| device.created_us)
    }

    /// User and device of a connection.
    pub(crate) fn of(&self, connection: u64) -> Option<(u32, u32)> {
        let connection = self.connections.get(&connection)?;
        Some((connection.user, self.all[connection.device].name))
    }

    /// `None` if no such connection is ready.
    pub(crate) fn place(&self, connection: u64) -> Option<Place> {
        let connection = self.connections.get(&connection)?;
        let (ready, device) = (connection.ready?, &self.all[connection.device]);
        Some(Place {
            user: connection.user,
            device: device.name,
            device_connect_us: device.connect_us,
            connect_us: connection.connect_us,
            epoch: ready.epoch,
            group: connection.group,
            device_ready_us: device.ready_us,
            ready_us: ready.at_us,
        })
    }

    pub(crate) fn delivered(&mut self, delivery: Delivery) -> Option<Judged> {
        let Delivery { connection: number, message, id, is_new, asks } = delivery;
        let connection = self.connections.get_mut(&number)?;
        let ready = connection.ready?;
        let device = &mut self.all[connection.device];
        let before = device.got.get(&message).copied();
        let first = before.is_none();
        if device.forgotten_line.is_some() {
            return Some(Judged::Superseded { first: false });
        }
        if asks {
            device.receipts.delivered(id.entry);
        }
        // An unkeyed message that was sent twice has two ids, each of which may come.
        let same = before.filter(|got| got.id == id);
        let new_before = same.and_then(|got| got.new_in);
        let confirmed = same.and_then(|got| got.confirmed);
        let new_in = if is_new { Some((ready.epoch, number)) } else { new_before };
        let acked = before.is_some_and(|got| got.acked);
        device.got.insert(message, Got { id, new_in, acked, confirmed });
        device.unacked.insert(id, message);
        if ready.generation < device.generation {
            return Some(Judged::Superseded { first });
        }
        let holds = |confirmed: Confirmed| {
            // Whoever writes a topic's cursor is not asked for its generation: an older connection may do so after this
            // one has read it, and what lies between is given to both.
            let counts = confirmed.connection == number || confirmed.at_us < connection.connect_us;
            confirmed.epoch == ready.epoch && (id.topic.is_none() || counts)
        };
        if confirmed.is_some_and(holds) {
            return Some(Judged::RepeatedAfterAck);
        }
        // What of a topic is not acked begins anew with each connection.
        let same_try = |(epoch, on): (u32, u64)| epoch == ready.epoch && (id.topic.is_none() || on == number);
        if is_new && new_before.is_some_and(same_try) {
            return Some(Judged::RepeatedAsNew);
        }
        if is_new {
            let floor = connection.floor.filter(|(epoch, _)| *epoch == ready.epoch && id.topic.is_none());
            let after = connection.newest.get(&id.topic).copied().max(floor.map(|(_, id)| id));
            let newest = after.map_or(id.entry, |after| after.max(id.entry));
            connection.newest.insert(id.topic, newest);
            if id.topic.is_none() {
                device.newest = Some((ready.epoch, newest));
            }
            if let Some(after) = after.filter(|after| id.entry <= *after) {
                return Some(Judged::OutOfOrder { first, after });
            }
        }
        Some(if first { Judged::First } else { Judged::Again })
    }

    /// A client is about to send acks.
    pub(crate) fn ack(&mut self, now_us: u64, connection: u64, ids: impl Iterator<Item = MessageId>) -> bool {
        let Some(connection) = self.connections.get(&connection).filter(|known| known.ready.is_some()) else {
            return false;
        };
        let device = &mut self.all[connection.device];
        for id in ids {
            if let Some(got) = device.unacked.get(&id).and_then(|message| device.got.get_mut(message)) {
                got.acked = true;
            }
            if id.topic.is_none() {
                device.receipts.acked(now_us, id.entry);
            }
        }
        true
    }

    pub(crate) fn acked(&mut self, now_us: u64, connection: u64, ids: impl Iterator<Item = MessageId>) -> bool {
        let Some(known) = self.connections.get(&connection) else { return false };
        let Some(ready) = known.ready else { return false };
        let device = &mut self.all[known.device];
        for id in ids {
            if id.topic.is_none() {
                device.receipts.confirmed(now_us, id.entry);
            }
            let message = device.unacked.remove(&id);
            if let Some(got) = message.and_then(|message| device.got.get_mut(&message)).filter(|got| got.id == id) {
                got.confirmed = Some(Confirmed { epoch: ready.epoch, connection, at_us: now_us });
            }
        }
        true
    }

    /// Somebody was told of an ack; false if the device has sent none that somebody asked about.
    pub(crate) fn told_of_ack(&mut self, user: u32, name: u32, id: EntryId, by_stream: bool) -> bool {
        let Some(index) = self.present.get(&(user, name)) else { return false };
        self.all[*index].receipts.told(id, by_stream)
    }

    pub(crate) fn left(&mut self, user: u32, name: u32, ids: impl Iterator<Item = EntryId>) -> bool {
        let Some(index) = self.present.get(&(user, name)) else { return false };
        self.all[*index].left.extend(ids);
        true
    }

    /// Where a device stands in a topic that holds something for it.
    pub(crate) fn behind(&mut self, user: u32, name: u32, topic: u32, after: EntryId) -> bool {
        let Some(index) = self.present.get(&(user, name)) else { return false };
        self.all[*index].behind.insert(topic, after).is_none()
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
