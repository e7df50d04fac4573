//! What has become of one message, for every device: from its receipt, or else as far as the groups tell.

use std::collections::{HashMap, HashSet};

use homing_protocol::id::EntryId;
use homing_protocol::message::{Entry, Envelope, Expiry};
use homing_protocol::name::Name;
use redis::Pipeline;

use super::replies::{self, Value};
use super::view::{DeviceRecord, Group, read_groups, read_pairs, read_records, read_time_ms};
use super::{Key, Store, StoreError};

/// What has become of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageView {
    /// For all devices together.
    pub state: MessageState,
    /// Whether it asked for receipts: then states are exact, and have times.
    pub receipt: bool,
    /// Every device that it was for, by name.
    pub devices: Vec<DeviceReceipt>,
}

/// What has become of a message for all devices together: the most that can be said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MessageState {
    /// In the inbox; no device has been given it.
    Accepted,
    /// At least one device has been given it, none has acked it.
    Delivered,
    /// At least one device has acked it.
    Acked,
    /// No device can get it any more: it expired for at least one, and was dropped for none.
    Expired,
    /// No device can get it any more: it was dropped for at least one.
    Dropped,
    /// It was for another device than the user has.
    Skipped,
    /// Nothing is known of this id.
    #[default]
    Unknown,
}

/// What has become of a message for one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceReceipt {
    /// Its name.
    pub device: String,
    /// What has become of it.
    pub state: DeviceState,
    /// When it was put into a frame first, Unix ms by Redis's clock, if it asked for receipts.
    pub delivered_at_ms: Option<u64>,
    /// When it was acknowledged, likewise.
    pub acked_at_ms: Option<u64>,
}

/// What has become of a message for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Not given to it yet.
    Waiting,
    /// Given to it and not acknowledged.
    Delivered,
    /// Acknowledged.
    Acked,
    /// Expired before it was acknowledged.
    Expired,
    /// Dropped before it was acknowledged.
    Dropped,
    /// For another device.
    Skipped,
    /// Over, in a way that nothing tells any more.
    Unknown,
}

impl MessageState {
    /// Every state, for documentation.
    pub const ALL: [Self; 7] =
        [Self::Accepted, Self::Delivered, Self::Acked, Self::Expired, Self::Dropped, Self::Skipped, Self::Unknown];

    /// The state as answers name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Delivered => "delivered",
            Self::Acked => "acked",
            Self::Expired => "expired",
            Self::Dropped => "dropped",
            Self::Skipped => "skipped",
            Self::Unknown => "unknown",
        }
    }
}

impl DeviceState {
    /// Every state, for documentation.
    pub const ALL: [Self; 7] =
        [Self::Waiting, Self::Delivered, Self::Acked, Self::Expired, Self::Dropped, Self::Skipped, Self::Unknown];

    /// The state as answers name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Acked => "acked",
            Self::Expired => "expired",
            Self::Dropped => "dropped",
            Self::Skipped => "skipped",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the device may still ack it.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Waiting | Self::Delivered)
    }
}

impl Store {
    /// Looks at a message. `payload_bytes_max`: from which size on entries are set aside.
    ///
    /// # Errors
    /// Any [`StoreError`]; `WrongType` if a key of the user is not what it should be.
    pub async fn message_view(
        &self,
        user: &Name,
        id: EntryId,
        payload_bytes_max: usize,
    ) -> Result<MessageView, StoreError> {
        let (inbox, id_text) = (self.keys().name(Key::Inbox(user)), id.to_string());
        let mut connection = self.shared().clone();
        let mut first = Pipeline::with_capacity(4);
        first.ignore_errors().cmd("TIME").cmd("XRANGE").arg(&inbox).arg(&id_text).arg(&id_text);
        first.cmd("HGETALL").arg(self.keys().name(Key::Devices(user))).cmd("XINFO").arg("GROUPS").arg(&inbox);
        let first: Vec<redis::Value> = first.query_async(&mut connection).await?;
        let mut first = first.iter().map(Value::from);
        let mut next = || first.next().unwrap_or(Value::Nil);
        let now_ms = read_time_ms(next())?;
        let entry = replies::entries(next())?.into_iter().next();
        let records = read_records(next())?;
        let groups = next();
        // Nothing is wrong with a user without inbox.
        let groups = if matches!(groups, Value::Error("ERR", _)) { Value::Nil } else { groups };
        let groups: HashMap<String, (Group, EntryId)> = read_groups(groups)?
            .into_iter()
            .map(|(device, group)| {
                let last = group.last_delivered.parse().unwrap_or_default();
                (device, (group, last))
            })
            .collect();

        let given: Vec<&String> = groups.iter().filter(|(_, (_, last))| id <= *last).map(|(name, _)| name).collect();
        let mut second = Pipeline::new();
        second.ignore_errors();
        for device in &given {
            second.cmd("XPENDING").arg(&inbox).arg(device).arg(&id_text).arg(&id_text).arg(1);
        }
        // After the pending lists: what has left one is in the receipt by then.
        second.cmd("HGETALL").arg(self.keys().name(Key::Receipt(user, id)));
        second.cmd("XINFO").arg("STREAM").arg(&inbox);
        let second: Vec<redis::Value> = second.query_async(&mut connection).await?;
        let mut second = second.iter().map(Value::from);
        let mut pending = HashSet::new();
        for device in given {
            // A device that was removed in between has nothing pending.
            if replies::pending_entries(second.next().unwrap_or(Value::Nil)).is_ok_and(|rows| !rows.is_empty()) {
                pending.insert(device.clone());
            }
        }
        let receipt = read_receipt(second.next().unwrap_or(Value::Nil))?;
        let last_generated = second.next().and_then(read_last_generated).unwrap_or_default();

        let envelope = entry.as_ref().map(Entry::envelope);
        let facts = Facts { id, now_ms, envelope, last_generated, groups, pending, receipt, payload_bytes_max };
        Ok(facts.judge(records))
    }
}

/// The pairs of a receipt.
fn read_receipt(reply: Value<'_>) -> Result<HashMap<String, String>, StoreError> {
    let pairs = read_pairs(reply)?.into_iter();
    pairs.map(|(name, value)| Ok((name.into_owned(), replies::text(value)?.unwrap_or_default().into_owned()))).collect()
}

fn read_last_generated(reply: Value<'_>) -> Option<EntryId> {
    let (_, id) = read_pairs(reply).ok()?.into_iter().find(|(name, _)| name == "last-generated-id")?;
    replies::entry_id(&id).ok()
}

/// What Redis says of a message.
struct Facts<'a> {
    id: EntryId,
    now_ms: u64,
    /// Of the entry, if it is still in the inbox.
    envelope: Option<Envelope<'a>>,
    last_generated: EntryId,
    /// Each with its last delivered id.
    groups: HashMap<String, (Group, EntryId)>,
    /// Devices in whose pending list it is.
    pending: HashSet<String>,
    receipt: HashMap<String, String>,
    payload_bytes_max: usize,
}

impl Facts<'_> {
    fn judge(&self, records: Vec<(String, DeviceRecord)>) -> MessageView {
        let mut devices = Vec::with_capacity(records.len());
        let names: HashSet<&str> = records.iter().map(|(device, _)| device.as_str()).collect();
        // Devices that ended it and were removed since.
        let removed = self.receipt.keys().filter_map(|field| {
            let (event, device) = field.split_once(' ')?;
            (event != "delivered" && !names.contains(device)).then(|| device.to_owned())
        });
        for device in removed.collect::<HashSet<_>>() {
            if let Some(state) = self.ended(&device) {
                devices.push(self.receipt_of(device, state));
            }
        }
        for (device, record) in records {
            if let Some(state) = self.state(&device, &record) {
                devices.push(self.receipt_of(device, state));
            }
        }
        devices.sort_by(|a, b| a.device.cmp(&b.device));
        MessageView { state: self.summary(&devices), receipt: self.asked(), devices }
    }

    fn time(&self, event: &str, device: &str) -> Option<u64> {
        self.receipt.get(&format!("{event} {device}"))?.parse().ok()
    }

    /// Whether the message asked for receipts, as far as is known.
    fn asked(&self) -> bool {
        self.envelope.is_some_and(|envelope| envelope.receipt) || self.receipt.keys().any(|field| field.contains(' '))
    }

    fn receipt_of(&self, device: String, state: DeviceState) -> DeviceReceipt {
        let delivered_at_ms = self.time("delivered", &device);
        let acked_at_ms = self.time("acked", &device);
        DeviceReceipt { device, state, delivered_at_ms, acked_at_ms }
    }

    /// How it ended, by the receipt. An ack counts for more than what was written before it.
    fn ended(&self, device: &str) -> Option<DeviceState> {
        let ends =
            [("acked", DeviceState::Acked), ("expired", DeviceState::Expired), ("dropped", DeviceState::Dropped)];
        ends.into_iter().find(|(event, _)| self.time(event, device).is_some()).map(|(_, state)| state)
    }

    /// `None` if the message was appended before the device.
    fn state(&self, device: &str, record: &DeviceRecord) -> Option<DeviceState> {
        if let Some(state) = self.ended(device) {
            return Some(state);
        }
        let start: EntryId = record.start.parse().unwrap_or_default();
        if self.id <= start {
            return None;
        }
        let aimed_elsewhere = match self.envelope {
            Some(envelope) => !envelope.is_for(device),
            None => self.receipt.get("aim").is_some_and(|aim| aim != device),
        };
        if aimed_elsewhere {
            return Some(DeviceState::Skipped);
        }
        let is_given = self.groups.get(device).is_some_and(|(_, last)| self.id <= *last);
        Some(match self.envelope {
            _ if !is_given => self.state_before_delivery(record),
            // It is set aside when the device's session finds it.
            None if self.pending.contains(device) => DeviceState::Dropped,
            // A read by a node that died showed nobody anything.
            Some(_) if self.pending.contains(device) && self.asked() && self.time("delivered", device).is_none() => {
                DeviceState::Waiting
            }
            Some(_) if self.pending.contains(device) => DeviceState::Delivered,
            Some(envelope) => self.state_of_kept(envelope),
            None => self.state_of_gone(record),
        })
    }

    fn state_before_delivery(&self, record: &DeviceRecord) -> DeviceState {
        // A generation is the time of an attach in microseconds.
        let attached_ms = record.generation.parse::<u64>().map_or(0, |generation| generation / 1_000);
        match self.envelope.map(|envelope| envelope.expiry) {
            Some(Expiry::At(at_ms)) if at_ms <= self.now_ms => DeviceState::Expired,
            // Whoever is not connected now, or was not then, is not given it any more.
            Some(Expiry::ConnectedOnly) if record.owner.is_empty() || self.id.ms < attached_ms => DeviceState::Expired,
            Some(_) => DeviceState::Waiting,
            // A trim takes only what every device was given.
            None if self.id <= self.last_generated => DeviceState::Dropped,
            None => DeviceState::Unknown,
        }
    }

    /// In the inbox, and not pending any more for a device that was given it.
    fn state_of_kept(&self, envelope: Envelope<'_>) -> DeviceState {
        if envelope.payload_bytes > self.payload_bytes_max {
            return DeviceState::Dropped;
        }
        match envelope.expiry {
            // Its receipt would say so: somebody has deleted it, or acked by another way.
            _ if envelope.receipt => DeviceState::Unknown,
            Expiry::Never => DeviceState::Acked,
            Expiry::At(at_ms) if at_ms > self.now_ms => DeviceState::Acked,
            // Acked in time, or expired.
            Expiry::At(_) | Expiry::ConnectedOnly => DeviceState::Unknown,
        }
    }

    /// Gone from the inbox, and not pending any more for a device that was given it.
    fn state_of_gone(&self, record: &DeviceRecord) -> DeviceState {
        if self.asked() {
            // An ack would be in the receipt.
            return DeviceState::Dropped;
        }
        if self.id > self.last_generated || record.dropped > 0.0 {
            return DeviceState::Unknown;
        }
        // Nothing was ever dropped for this device: it was acked, and so by all the others.
        DeviceState::Acked
    }

    fn summary(&self, devices: &[DeviceReceipt]) -> MessageState {
        let any = |state| devices.iter().any(|device| device.state == state);
        if any(DeviceState::Acked) {
            MessageState::Acked
        } else if any(DeviceState::Delivered) {
            MessageState::Delivered
        } else if any(DeviceState::Waiting) || (devices.is_empty() && self.envelope.is_some()) {
            MessageState::Accepted
        } else if any(DeviceState::Unknown) {
            MessageState::Unknown
        } else if any(DeviceState::Dropped) {
            MessageState::Dropped
        } else if any(DeviceState::Expired) {
            MessageState::Expired
        } else if any(DeviceState::Skipped) {
            MessageState::Skipped
        } else {
            MessageState::Unknown
        }
    }
}

#[cfg(test)]
#[path = "message_view_tests.rs"]
mod tests;
