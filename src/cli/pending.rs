//! A user's pending messages, read from Redis directly: only Redis knows which device has them and how often.

use homing_protocol::name::Name;
use redis::Value;

use super::exit::{Exit, Failure, OrExit as _};
use crate::store::{Key, Store};

/// A message that was delivered to a device and not acknowledged.
pub(super) struct Pending {
    pub(super) device: String,
    pub(super) id: String,
    pub(super) idle_ms: u64,
    pub(super) attempts: u64,
}

/// Pending messages of one device that are shown.
pub(super) const PENDING_MAX: usize = 100;

/// The oldest pending messages of each device.
pub(super) async fn pending(store: &Store, user: &Name) -> Result<Vec<Pending>, Failure> {
    let inbox = store.keys().name(Key::Inbox(user));
    let groups: Result<Vec<Value>, _> = store.query(redis::cmd("XINFO").arg("GROUPS").arg(&inbox)).await;
    let groups = match groups {
        // An unknown user has no inbox.
        Err(crate::store::StoreError::Unexpected(reason)) if reason.contains("no such key") => Vec::new(),
        groups => groups.or_exit(Exit::Unreachable)?,
    };
    let mut found = Vec::new();
    for group in groups {
        let Some(device) = field(&group, "name") else { continue };
        let mut command = redis::cmd("XPENDING");
        command.arg(&inbox).arg(&device).arg("-").arg("+").arg(PENDING_MAX);
        let entries: Vec<(String, String, u64, u64)> = store.query(&command).await.or_exit(Exit::Unreachable)?;
        let of_device = entries.into_iter().map(|(id, _, idle_ms, attempts)| Pending {
            device: device.clone(),
            id,
            idle_ms,
            attempts,
        });
        found.extend(of_device);
    }
    Ok(found)
}

/// An entry's fields in their order; `None` if there is no such entry.
pub(super) async fn entry(store: &Store, user: &Name, id: &str) -> Result<Option<Vec<(String, String)>>, Failure> {
    let mut command = redis::cmd("XRANGE");
    command.arg(store.keys().name(Key::Inbox(user))).arg(id).arg(id);
    let entries: Vec<(String, Vec<Value>)> = store.query(&command).await.or_exit(Exit::Unreachable)?;
    Ok(entries
        .into_iter()
        .next()
        .map(|(_, fields)| fields.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect()))
}

/// A raw producer may have written anything; what is not UTF-8 is shown as well as it can be.
fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn field(group: &Value, name: &str) -> Option<String> {
    let pairs: Vec<(String, Value)> = redis::FromRedisValue::from_redis_value(group.clone()).ok()?;
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| text(value))
}
