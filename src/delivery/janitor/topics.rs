//! Visits to topics: retention of their logs, and cursors that say nothing more.

use homing_protocol::topic::Topic;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use tokio::time::Instant;

use super::pass::{Break, Passes, SCAN_KEYS};
use super::tending::{Found, rest_after};
use crate::store::{Function, Key, StoreError};
use crate::telemetry::names;

/// Entries that one call removes: Redis copies each to find where to cut.
const PAGE_ENTRIES: u32 = 256;
/// Cursors that one call removes: a topic may have a million that say nothing more, at a microsecond each.
pub(super) const PAGE_CURSORS: u32 = 1_000;
/// Calls for one topic in one visit; what is left then waits for the next visit.
const CALLS_MAX: usize = 200;

/// What one visit to a topic did.
pub(super) struct Tended {
    /// Entries that went.
    pub(super) removed: u64,
    /// There is more to do.
    pub(super) more: bool,
    /// Cursors that went.
    pub(super) forgotten: u64,
}

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
            rest_after(began, false).await;
            for key in keys {
                let topic = std::str::from_utf8(&key).ok().and_then(|key| self.tending.store().keys().log_key(key));
                let Some(topic) = topic.and_then(|topic| Topic::parse(topic).ok()) else { continue };
                self.tend_topic(connection, &topic, found).await?;
                self.keep().await?;
            }
            self.keep().await?;
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Visits a topic, as often as it needs. One whose keys are not what they should be is left alone.
    async fn tend_topic(
        &self,
        connection: &mut MultiplexedConnection,
        topic: &Topic,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        for _ in 0..CALLS_MAX {
            let began = Instant::now();
            let reply = self.tend_topic_once(connection, topic).await;
            rest_after(began, matches!(&reply, Ok(tended) if tended.removed + tended.forgotten > 0)).await;
            let tended = match reply {
                Err(error @ (StoreError::WrongType | StoreError::Unexpected(_))) => {
                    metrics::counter!(names::REDIS_ERRORS, "kind" => error.kind()).increment(1);
                    tracing::debug!(%topic, %error, "a topic's keys are not what they should be; left alone");
                    break;
                }
                reply => reply?,
            };
            found.removed += tended.removed;
            found.cursors += tended.forgotten;
            if !tended.more {
                break;
            }
        }
        Ok(())
    }

    /// Visits a topic for no longer than Redis may be kept busy at once.
    pub(super) async fn tend_topic_once(
        &self,
        connection: &mut (impl ConnectionLike + Send),
        topic: &Topic,
    ) -> Result<Tended, StoreError> {
        let keys = self.tending.store().keys();
        let names = [Key::Log(topic), Key::TopicMeta(topic), Key::Cursors(topic), Key::Followers(topic)];
        let names = names.map(|key| keys.name(key));
        let limits = self.tending.limits();
        let age_ms = u64::try_from(limits.topic_age_max.as_millis()).unwrap_or(u64::MAX);
        // A device that was there before is forgotten by then, however late the janitor comes.
        let known_ms = u64::try_from(limits.device_idle_max.as_millis()).unwrap_or(u64::MAX).saturating_mul(2);
        let mut call = Function::TendTopic.call(&names.each_ref().map(String::as_str));
        call.arg(limits.topic_length_max).arg(age_ms).arg(PAGE_ENTRIES).arg(PAGE_CURSORS).arg(known_ms);
        let (_, removed, more, forgotten): (u64, u64, u8, u64) = call.query_async(connection).await?;
        Ok(Tended { removed, more: more == 1, forgotten })
    }
}
