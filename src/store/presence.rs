//! Which devices of some users are connected, as their records say.

use futures_util::future::try_join_all;
use homing_protocol::name::Name;

use super::replies::Value;
use super::view::{is_online, read_heartbeats, read_records, read_time_ms};
use super::{Key, Store, StoreError};

/// The devices of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserPresence {
    /// By name.
    pub devices: Vec<DevicePresence>,
}

/// Whether one device is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePresence {
    /// Its name.
    pub device: String,
    /// Whether a session holds it whose node has a recent heartbeat.
    pub online: bool,
    /// The name of the node that holds it, or held it last.
    pub node: String,
    /// When the session attached, Unix milliseconds; `None` when offline.
    pub since_ms: Option<u64>,
}

impl Store {
    /// Looks at users, in their order; one that is not known has no devices. A node whose last heartbeat is older than
    /// `node_dead_after_ms` holds no sessions.
    ///
    /// # Errors
    /// Any [`StoreError`]; `WrongType` if a key of a user is not what it should be.
    pub async fn presence(&self, users: &[Name], node_dead_after_ms: u64) -> Result<Vec<UserPresence>, StoreError> {
        let time: redis::Value = self.query(&redis::cmd("TIME")).await?;
        let now_ms = read_time_ms(Value::from(&time))?;
        let nodes: redis::Value = self.query(redis::cmd("HGETALL").arg(self.keys().name(Key::Nodes))).await?;
        let nodes = read_heartbeats(Value::from(&nodes))?;
        // Each by itself, since users are in different slots of a Redis Cluster; the connection sends them together.
        let asked = users.iter().map(async |user| {
            let reply: redis::Value =
                self.query(redis::cmd("HGETALL").arg(self.keys().name(Key::Devices(user)))).await?;
            read_records(Value::from(&reply))
        });
        let records = try_join_all(asked).await?;
        let users = records.into_iter().map(|records| {
            let devices = records.into_iter().map(|(device, record)| {
                let online = is_online(&record, &nodes, now_ms, node_dead_after_ms);
                let since_ms = online.then_some(record.since_ms as u64);
                DevicePresence { device, online, node: record.node, since_ms }
            });
            let mut devices: Vec<DevicePresence> = devices.collect();
            devices.sort_by(|a, b| a.device.cmp(&b.device));
            UserPresence { devices }
        });
        Ok(users.collect())
    }
}
