//! What Redis holds for a device: entries that are pending for it, and entries that it has not read.

use redis::Value;
use redis::aio::MultiplexedConnection;

use super::harness::redis_server::inbox;

/// Entries looked at per device; nobody in a run has more.
const ENTRIES_MAX: u32 = 100_000;
/// Devices asked about in one pipeline.
const DEVICES: usize = 100;

/// What is owed to one device.
#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) user: String,
    pub(crate) device: String,
    pub(crate) ids: Vec<String>,
}

/// Whatever is owed to `devices`; those that are owed nothing are left out. Without its group a device is owed all that
/// the inbox holds: it will be made again at 0.
pub(crate) async fn everything(redis: &mut MultiplexedConnection, devices: &[(String, String)]) -> Vec<Owed> {
    let mut owed = Vec::new();
    for devices in devices.chunks(DEVICES) {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for (user, device) in devices {
            let inbox = inbox(user);
            pipeline.cmd("XINFO").arg("GROUPS").arg(&inbox);
            pipeline.cmd("XPENDING").arg(&inbox).arg(device).arg("-").arg("+").arg(ENTRIES_MAX);
            pipeline.cmd("XRANGE").arg(&inbox).arg("-").arg("+");
        }
        let replies: Vec<redis::RedisResult<Value>> =
            pipeline.query_async(redis).await.expect("the test's Redis answers");
        for ((user, device), replies) in devices.iter().zip(replies.chunks(3)) {
            let cursor = replies[0].as_ref().ok().and_then(|groups| cursor(groups, device)).unwrap_or((0, 0));
            let mut ids = replies[1].as_ref().map(first_members).unwrap_or_default();
            let entries = replies[2].as_ref().map(first_members).unwrap_or_default();
            ids.extend(entries.into_iter().filter(|id| order(id) > cursor));
            if !ids.is_empty() {
                owed.push(Owed { user: user.clone(), device: device.clone(), ids });
            }
        }
    }
    owed
}

/// The last delivered id of a group in a reply of `XINFO GROUPS`.
fn cursor(groups: &Value, device: &str) -> Option<(u64, u64)> {
    let Value::Array(groups) = groups else { return None };
    groups.iter().find_map(|group| {
        let Value::Array(pairs) = group else { return None };
        let field = |name: &str| {
            let pair = pairs.chunks(2).find(|pair| text(&pair[0]).as_deref() == Some(name))?;
            text(pair.get(1)?)
        };
        (field("name")? == device).then(|| field("last-delivered-id").map(|id| order(&id)))?
    })
}

/// The first member of each row: the id of an entry, or of a pending one.
fn first_members(rows: &Value) -> Vec<String> {
    let Value::Array(rows) = rows else { return Vec::new() };
    let first = |row: &Value| match row {
        Value::Array(members) => members.first().and_then(text),
        _ => None,
    };
    rows.iter().filter_map(first).collect()
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

/// A stream id as a pair of numbers.
fn order(id: &str) -> (u64, u64) {
    let (ms, seq) = id.split_once('-').unwrap_or((id, "0"));
    (ms.parse().unwrap_or(u64::MAX), seq.parse().unwrap_or(u64::MAX))
}
