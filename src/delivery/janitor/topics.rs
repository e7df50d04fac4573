//! Visits to topics: retention of their logs, and cursors that say nothing more.

use homing_protocol::topic::Topic;
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use super::pass::{Break, Passes, SCAN_KEYS};
use super::tending::{Found, rest_after};
use crate::store::{Function, Key, StoreError};

/// Entries that one call removes: Redis copies each to find where to cut.
const PAGE_ENTRIES: u32 = 256;
/// Calls for one topic in one visit; what is left then waits for the next visit.
const CALLS_MAX: usize = 200;

impl Passes {
    /// Visits every topic once.
    pub(super) async fn pass_topics(
        &mut self,
        connection: &mut MultiplexedConnection,
        found: &mut Found,
    ) -> Result<(), Break> {
        let mut cursor = 0u64;
        loop {
            let began = Instant::now();
            let mut scan = redis::cmd("SCAN");
            let pattern = self.tending.store().keys().logs_pattern();
            scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_KEYS);
            let (next, keys): (u64, Vec<Vec<u8>>) = scan.query_async(connection).await.map_err(StoreError::from)?;
            rest_after(began).await;
            for key in keys {
                let topic = std::str::from_utf8(&key).ok().and_then(|key| self.tending.store().keys().log_key(key));
                let Some(topic) = topic.and_then(|topic| Topic::parse(topic).ok()) else { continue };
                found.removed += self.tend_topic(connection, &topic).await?;
                self.keep().await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Visits a topic, as often as it needs; how many entries went. One whose keys are not what they should be is left
    /// alone.
    async fn tend_topic(&self, connection: &mut MultiplexedConnection, topic: &Topic) -> Result<u64, StoreError> {
        let keys = self.tending.store().keys();
        let names = [Key::Log(topic), Key::TopicMeta(topic), Key::Cursors(topic), Key::Followers(topic)];
        let names = names.map(|key| keys.name(key));
        let limits = self.tending.limits();
        let age_ms = u64::try_from(limits.topic_age_max.as_millis()).unwrap_or(u64::MAX);
        // A device that was there before is forgotten by then, however late the janitor comes.
        let known_ms = u64::try_from(limits.device_idle_max.as_millis()).unwrap_or(u64::MAX).saturating_mul(2);
        let mut removed = 0;
        for _ in 0..CALLS_MAX {
            let began = Instant::now();
            let mut call = Function::TendTopic.call(&names.each_ref().map(String::as_str));
            call.arg(limits.topic_length_max).arg(age_ms).arg(PAGE_ENTRIES).arg(known_ms);
            let reply = call.query_async(connection).await.map_err(StoreError::from);
            rest_after(began).await;
            let (_, gone, more, _): (u64, u64, u8, u64) = match reply {
                Err(StoreError::WrongType) => return Ok(removed),
                Err(error @ StoreError::Unexpected(_)) => {
                    tracing::warn!(%error, "a topic cannot be tended");
                    return Ok(removed);
                }
                reply => reply?,
            };
            removed += gone;
            if more == 0 {
                break;
            }
        }
        Ok(removed)
    }
}
