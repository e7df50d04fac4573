//! What Redis holds of one user, for people: support calls and `inspect`. Not for delivery.

use std::borrow::Cow;
use std::collections::HashMap;

use homing_protocol::id::EntryId;
use homing_protocol::message::Entry;
use homing_protocol::name::Name;
use redis::Pipeline;
use serde::Deserialize;

use super::keys::NO_DEVICE;
use super::replies::{self, Value};
use super::{Key, Store, StoreError};

/// A user's devices and inbox at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserView {
    /// Unix milliseconds by Redis's clock.
    pub now_ms: u64,
    /// Entries in the inbox.
    pub inbox_length: u64,
    /// Every device that Homing knows, by name.
    pub devices: Vec<DeviceView>,
}

/// One device of a user.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceView {
    /// Its name.
    pub device: String,
    /// Its record, as the functions keep it.
    pub record: DeviceRecord,
    /// Whether a session holds it whose node has a recent heartbeat.
    pub online: bool,
    /// Messages delivered and not acknowledged; `None` if the device lacks its group.
    pub unacked: Option<u64>,
    /// The same and those not delivered yet; `None` when Redis does not know cheaply.
    pub pending: Option<u64>,
    /// The first message that is not acknowledged, delivered or not.
    pub oldest_pending: Option<EntryId>,
}

/// A device's record; `migrations/0001_functions/00_prelude.lua` describes it. Its numbers are Lua's.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct DeviceRecord {
    /// Grows with every attach.
    pub generation: String,
    /// `<node>:<random per start>.<shard>` that holds the session; empty when offline.
    pub owner: String,
    /// The node's name.
    pub node: String,
    /// Unix milliseconds.
    pub first_seen_ms: f64,
    /// Unix milliseconds.
    pub last_seen_ms: f64,
    /// When its present or last session attached, Unix milliseconds.
    pub since_ms: f64,
    /// The entry id that its group began after.
    pub start: String,
    /// Messages dropped before this device acknowledged them, ever.
    pub dropped: f64,
    /// A loss that the client has not taken note of yet.
    pub gap: Option<GapRecord>,
}

/// An open gap.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct GapRecord {
    /// What the client acks.
    pub id: String,
    /// Why messages may be missing.
    pub reason: String,
    /// How many, as far as is known.
    pub count: f64,
}

pub(crate) struct Group {
    unacked: u64,
    undelivered: Option<u64>,
    pub(super) last_delivered: String,
}

impl Store {
    /// Looks at a user; an unknown one has no devices and an empty inbox. A node whose last heartbeat is older than
    /// `node_dead_after_ms` holds no sessions.
    ///
    /// # Errors
    /// Any [`StoreError`]; `WrongType` if a key of the user is not what it should be.
    pub async fn user_view(&self, user: &Name, node_dead_after_ms: u64) -> Result<UserView, StoreError> {
        let inbox = self.keys().name(Key::Inbox(user));
        let mut connection = self.rare().await?;
        let mut first = Pipeline::with_capacity(4);
        first.ignore_errors().cmd("TIME").cmd("XLEN").arg(&inbox);
        first.cmd("HGETALL").arg(self.keys().name(Key::Devices(user))).cmd("XINFO").arg("GROUPS").arg(&inbox);
        let first: Vec<redis::Value> = connection.pipeline(&first).await?;
        let [time, length, devices, groups] = exactly(first.iter().map(Value::from).collect())?;
        let now_ms = read_time_ms(time)?;
        let inbox_length = replies::integer(length)?.max(0) as u64;
        let records = read_records(devices)?;
        // Nothing is wrong with a user without inbox.
        let groups = if inbox_length == 0 && matches!(groups, Value::Error(..)) { Value::Nil } else { groups };
        let mut groups = read_groups(groups)?;
        // A key of another slot in a Redis Cluster, hence not in the pipeline.
        let mut nodes = redis::cmd("HGETALL");
        nodes.arg(self.keys().name(Key::Nodes));
        let nodes: redis::Value = connection.query(&nodes).await?;
        let nodes = read_heartbeats(Value::from(&nodes))?;

        let mut second = Pipeline::new();
        second.ignore_errors();
        let mut devices: Vec<DeviceView> = Vec::with_capacity(records.len());
        for (device, record) in records {
            let online = is_online(&record, &nodes, now_ms, node_dead_after_ms);
            let group = groups.remove(&device);
            let unacked = group.as_ref().map(|group| group.unacked);
            let pending = group.as_ref().and_then(|group| Some(group.unacked + group.undelivered?));
            if let Some(group) = group {
                second.cmd("XPENDING").arg(&inbox).arg(&device);
                let after = format!("({}", group.last_delivered);
                second.cmd("XRANGE").arg(&inbox).arg(after).arg("+").arg("COUNT").arg(1);
            }
            devices.push(DeviceView { device, record, online, unacked, pending, oldest_pending: None });
        }
        let replies: Vec<redis::Value> =
            if second.is_empty() { Vec::new() } else { connection.pipeline(&second).await? };
        let mut replies = replies.iter().map(Value::from);
        for device in devices.iter_mut().filter(|device| device.unacked.is_some()) {
            if let (Some(pending), Some(undelivered)) = (replies.next(), replies.next()) {
                device.oldest_pending = oldest(pending, undelivered);
            }
        }
        devices.sort_by(|a, b| a.device.cmp(&b.device));
        Ok(UserView { now_ms, inbox_length, devices })
    }

    /// At most `count` entries of an inbox after `after`, oldest first.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn inbox_page(
        &self,
        user: &Name,
        after: EntryId,
        count: usize,
    ) -> Result<Vec<Entry<Vec<u8>>>, StoreError> {
        self.stream_page(&self.keys().name(Key::Inbox(user)), after, count).await
    }

    /// The same of any stream.
    pub(super) async fn stream_page(
        &self,
        stream: &str,
        after: EntryId,
        count: usize,
    ) -> Result<Vec<Entry<Vec<u8>>>, StoreError> {
        let mut range = redis::cmd("XRANGE");
        range.arg(stream).arg(format!("({after}")).arg("+").arg("COUNT").arg(count);
        let reply: redis::Value = self.rare().await?.query(&range).await?;
        let owned = |(field, value): (&[u8], &[u8])| (field.to_vec(), value.to_vec());
        let entries = replies::entries(Value::from(&reply))?.into_iter();
        let entries = entries.map(|Entry { id, fields }| Entry { id, fields: fields.into_iter().map(owned).collect() });
        Ok(entries.collect())
    }
}

/// Whether a session holds a device whose node has a recent heartbeat.
pub(super) fn is_online(
    record: &DeviceRecord,
    nodes: &HashMap<String, f64>,
    now_ms: u64,
    node_dead_after_ms: u64,
) -> bool {
    let seen_ms = record.owner.rsplit_once('.').and_then(|(node, _)| nodes.get(node));
    seen_ms.is_some_and(|seen_ms| seen_ms + node_dead_after_ms as f64 >= now_ms as f64)
}

fn exactly<const N: usize>(replies: Vec<Value<'_>>) -> Result<[Value<'_>; N], StoreError> {
    replies
        .try_into()
        .map_err(|replies: Vec<Value<'_>>| StoreError::Unexpected(format!("{} replies to {N} commands", replies.len())))
}

/// The device may have been removed between the two pipelines: then it has nothing pending.
pub(crate) fn oldest(pending: Value<'_>, undelivered: Value<'_>) -> Option<EntryId> {
    match replies::pending_summary(pending) {
        Ok((count, first, _)) if count > 0 => Some(first),
        _ => replies::entries(undelivered).ok()?.first().map(|entry| entry.id),
    }
}

pub(crate) fn read_time_ms(reply: Value<'_>) -> Result<u64, StoreError> {
    let [seconds, micros] = exactly(replies::array(reply)?)?;
    let (seconds, micros) = (replies::integer(seconds)?, replies::integer(micros)?);
    Ok(seconds.saturating_mul(1_000).saturating_add(micros / 1_000).max(0) as u64)
}

/// The pairs of a hash or of a map.
pub(super) fn read_pairs(reply: Value<'_>) -> Result<Vec<(Cow<'_, str>, Value<'_>)>, StoreError> {
    let flat = replies::array(reply)?;
    let mut pairs = Vec::with_capacity(flat.len() / 2);
    let mut flat = flat.into_iter();
    while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
        if let Some(name) = replies::text(name)? {
            pairs.push((name, value));
        }
    }
    Ok(pairs)
}

fn read_json<T: for<'a> Deserialize<'a>>(reply: Value<'_>) -> Result<T, StoreError> {
    let text = replies::text(reply)?.unwrap_or_default();
    serde_json::from_str(&text).map_err(|error| StoreError::Unexpected(format!("a record in Redis: {error}")))
}

pub(crate) fn read_records(reply: Value<'_>) -> Result<Vec<(String, DeviceRecord)>, StoreError> {
    let pairs = read_pairs(reply)?.into_iter().filter(|(device, _)| !device.starts_with(NO_DEVICE));
    pairs.map(|(device, record)| Ok((device.into_owned(), read_json(record)?))).collect()
}

pub(crate) fn read_heartbeats(reply: Value<'_>) -> Result<HashMap<String, f64>, StoreError> {
    #[derive(Deserialize)]
    struct Heartbeat {
        seen_ms: f64,
    }
    let pairs = read_pairs(reply)?.into_iter();
    pairs.map(|(node, about)| Ok((node.into_owned(), read_json::<Heartbeat>(about)?.seen_ms))).collect()
}

pub(crate) fn read_groups(reply: Value<'_>) -> Result<HashMap<String, Group>, StoreError> {
    let mut groups = HashMap::new();
    for group in replies::array(reply)? {
        let mut members: HashMap<Cow<'_, str>, Value<'_>> = read_pairs(group)?.into_iter().collect();
        let mut take = |name| members.remove(name).unwrap_or(Value::Nil);
        let unacked = replies::integer(take("pending"))?.max(0) as u64;
        // `lag` is nil when Redis would have to count.
        let undelivered = match take("lag") {
            Value::Int(lag) => u64::try_from(lag).ok(),
            _ => None,
        };
        let last_delivered = replies::text(take("last-delivered-id"))?.unwrap_or_default().into_owned();
        if let Some(name) = replies::text(take("name"))? {
            groups.insert(name.into_owned(), Group { unacked, undelivered, last_delivered });
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_beyond_all_times_does_not_overflow() {
        let time = |seconds, micros| read_time_ms(Value::Array(vec![Value::Int(seconds), Value::Int(micros)])).unwrap();
        assert_eq!(time(1_700_000_000, 5_000), 1_700_000_000_005);
        assert_eq!(time(i64::MAX, i64::MAX), i64::MAX as u64);
        assert_eq!(time(i64::MIN, i64::MIN), 0);
    }
}
