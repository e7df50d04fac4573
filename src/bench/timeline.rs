//! What happened in each second of a measurement.

use std::time::Instant;

use super::latency::{Buckets, Latencies};
use super::worker::orders::Report;

/// One second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Second {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) readies: u64,
    /// Sockets at its end.
    pub(crate) connected: u64,
    pub(crate) latencies: Latencies,
}

/// Seconds since a beginning, by the time at which reports arrived.
#[derive(Debug)]
pub(crate) struct Timeline {
    begin: Instant,
    seconds: Vec<Second>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { begin: Instant::now(), seconds: Vec::new() }
    }
}

impl Timeline {
    fn now(&mut self) -> &mut Second {
        let index = usize::try_from(self.begin.elapsed().as_secs()).unwrap_or(usize::MAX);
        if self.seconds.len() <= index {
            let connected = self.seconds.last().map_or(0, |second| second.connected);
            self.seconds.resize_with(index + 1, || Second { connected, ..Second::default() });
        }
        &mut self.seconds[index]
    }

    pub(crate) fn latencies(&mut self, buckets: &Buckets) {
        self.now().latencies.add(buckets);
    }

    /// What changed between two sums.
    pub(crate) fn counts(&mut self, before: &Report, after: &Report) {
        let second = self.now();
        second.sent += after.sent - before.sent;
        second.received += after.unique - before.unique;
        second.readies += after.readies - before.readies;
        second.connected = after.connected;
    }

    pub(crate) fn seconds(&self) -> &[Second] {
        &self.seconds
    }
}
