//! The probe: an `XADD` to the shard's own stream, seen through its keyspace event. It proves flags, subscription
//! and connection at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::readiness::Readiness;
use crate::store::resp::Commands;

/// Time between probes.
const PROBE_EVERY_MS: u64 = 1_000;
/// Time after which the stream of a node that is gone goes, too.
const PROBE_EXPIRY_S: u64 = 60 * 60;
/// Time after which a probe that was sent and not seen means that wake-ups are lost.
const PROBE_LOST_MS: u64 = 3_000;

/// One shard's probe.
pub(super) struct Probe {
    key: String,
    channel: String,
    readiness: Arc<Readiness>,
    shard: usize,
    next_ms: u64,
    /// When the probe that is under way was put into a pipeline.
    begun: Option<Instant>,
    /// When Redis confirmed the `XADD` whose event is awaited, in monotonic ms.
    awaited_since_ms: Option<u64>,
    /// The last probe did not work.
    is_failing: bool,
}

impl Probe {
    pub(super) fn new(key: String, channel: String, readiness: Arc<Readiness>, shard: usize) -> Self {
        Self { key, channel, readiness, shard, next_ms: 0, begun: None, awaited_since_ms: None, is_failing: false }
    }

    pub(super) fn channel(&self) -> &str {
        &self.channel
    }

    pub(super) fn is_channel(&self, channel: &str) -> bool {
        self.channel == channel
    }

    /// Whether a probe shall be sent now; if so, it counts as under way.
    pub(super) fn is_due(&mut self, now_ms: u64) -> bool {
        if now_ms < self.next_ms || self.begun.is_some() {
            return false;
        }
        self.next_ms = now_ms + PROBE_EVERY_MS;
        self.begun = Some(Instant::now());
        true
    }

    pub(super) fn encode(&self, pipeline: &mut Commands) {
        pipeline.command(7).arg("XADD").arg(&self.key).arg("MAXLEN").number(1).arg("*").arg("p").arg("");
        // A node's name may be made up at each start: what it leaves behind goes by itself.
        pipeline.command(3).arg("EXPIRE").arg(&self.key).number(PROBE_EXPIRY_S);
    }

    /// Redis has executed the `XADD`. Its event may have come before its reply.
    pub(super) fn sent(&mut self, now_ms: u64) {
        if self.begun.is_some() {
            self.awaited_since_ms = Some(now_ms);
        }
    }

    /// The event came; answers how long the probe took.
    pub(super) fn seen(&mut self, now_ms: u64) -> Option<Duration> {
        self.awaited_since_ms = None;
        let begun = self.begun.take()?;
        self.is_failing = false;
        self.readiness.probe_ok(self.shard, now_ms);
        Some(begun.elapsed())
    }

    /// The `XADD` did not work.
    pub(super) fn failed(&mut self, now_ms: u64) {
        self.reset();
        self.is_failing = true;
        self.readiness.probe_failed(self.shard, now_ms);
    }

    /// Whether Redis may refuse what needs memory, as far as the last probe says.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing
    }

    /// Whether an event has not come: true once for each probe.
    pub(super) fn is_lost(&mut self, now_ms: u64) -> bool {
        let lost = self.awaited_since_ms.is_some_and(|since_ms| now_ms >= since_ms + PROBE_LOST_MS);
        if lost {
            self.failed(now_ms);
        }
        lost
    }

    /// Forgets a probe that is under way: its connection is gone.
    pub(super) fn reset(&mut self) {
        self.begun = None;
        self.awaited_since_ms = None;
    }
}
