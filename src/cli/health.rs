//! What `/readyz` says of this node.

use std::sync::Arc;
use std::time::Instant;

use metrics::Gauge;
use serde_json::{Map, Value};

use crate::api::Health;
use crate::delivery::readiness::Readiness;
use crate::telemetry::names;

/// The node's readiness, by the clock that its shards use.
pub(super) struct NodeHealth {
    readiness: Arc<Readiness>,
    clock: Instant,
    shards: usize,
    gauge: Gauge,
}

impl NodeHealth {
    pub(super) fn new(readiness: Arc<Readiness>, clock: Instant, shards: usize) -> Self {
        Self { readiness, clock, shards, gauge: metrics::gauge!(names::READY) }
    }

    fn now_ms(&self) -> u64 {
        self.clock.elapsed().as_millis() as u64 + 1
    }
}

impl Health for NodeHealth {
    fn ready(&self) -> bool {
        let ready = self.readiness.is_ready(self.now_ms());
        self.gauge.set(f64::from(u8::from(ready)));
        ready
    }

    fn details(&self) -> Map<String, Value> {
        let failing = self.readiness.failing_shard(self.now_ms());
        let mut details = Map::new();
        details.insert("draining".to_owned(), self.readiness.is_draining().into());
        details.insert("shards".to_owned(), self.shards.into());
        details.insert("failing_shard".to_owned(), failing.map_or(Value::Null, Value::from));
        details
    }
}
