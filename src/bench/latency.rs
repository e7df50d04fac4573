//! Latencies: HdrHistograms, and the form in which workers send them.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Largest latency that is told apart, in microseconds: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Significant digits: a percentile is right to 0.1 %.
const DIGITS: u8 = 3;

/// Latencies in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

/// The filled buckets of a histogram as (value, count): what goes over a pipe is as long as what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Buckets(Vec<(u64, u64)>);

impl Default for Latencies {
    fn default() -> Self {
        Self(
            Histogram::new_with_max(LATENCY_US_MAX, DIGITS).expect("the bounds are constants that the library accepts"),
        )
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, us: u64) {
        self.0.saturating_record(us);
    }

    /// What was recorded since the last call.
    pub(crate) fn take(&mut self) -> Buckets {
        let buckets = self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect();
        self.0.reset();
        Buckets(buckets)
    }

    /// Adds what was recorded elsewhere.
    pub(crate) fn add(&mut self, buckets: &Buckets) {
        for (value, count) in &buckets.0 {
            self.0.saturating_record_n(*value, *count);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that this part of all, 0.0 to 1.0, does not exceed, in microseconds; 0 if there is none.
    pub(crate) fn quantile(&self, part: f64) -> u64 {
        self.0.value_at_quantile(part)
    }

    pub(crate) fn max(&self) -> u64 {
        self.0.max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_parts_are_as_good_as_one_histogram() {
        let (mut whole, mut merged, mut parts) =
            (Latencies::default(), Latencies::default(), [0; 3].map(|_| Latencies::default()));
        let mut value = 7_u64;
        for index in 0..30_000 {
            value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let us = (value >> 40) % 5_000_000;
            whole.record(us);
            parts[index % 3].record(us);
        }
        for part in &mut parts {
            let sent = serde_json::to_string(&part.take()).unwrap();
            merged.add(&serde_json::from_str(&sent).unwrap());
        }
        assert_eq!(merged.count(), 30_000);
        for quantile in [0.0, 0.5, 0.9, 0.99, 0.999, 1.0] {
            assert_eq!(merged.quantile(quantile), whole.quantile(quantile), "{quantile}");
        }
        assert_eq!(merged.max(), whole.max());
    }

    #[test]
    fn what_was_taken_is_not_taken_again() {
        let mut latencies = Latencies::default();
        latencies.record(5);
        assert_eq!(latencies.take(), Buckets(vec![(5, 1)]));
        assert_eq!(latencies.take(), Buckets::default());
        latencies.record(u64::MAX);
        assert!(latencies.max() >= LATENCY_US_MAX);
    }
}
