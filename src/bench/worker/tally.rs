//! What a worker has counted so far.

use crate::bench::latency::Latencies;

use super::orders::{Fatal, Report};

/// Different troubles that are told apart; further ones are "other".
const TROUBLES_MAX: usize = 20;
/// Longest text of one.
const TROUBLE_BYTES_MAX: usize = 200;

/// Counts and latencies of a worker.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) counts: Report,
    pub(crate) latencies: Latencies,
    pub(crate) connecting: Latencies,
    pub(crate) catching_up: Latencies,
}

impl Tally {
    /// Counts a trouble by its text.
    pub(crate) fn trouble(&mut self, what: &str) {
        let what: String = what.chars().take(TROUBLE_BYTES_MAX).collect();
        let troubles = &mut self.counts.troubles;
        let key = if troubles.len() < TROUBLES_MAX || troubles.contains_key(&what) { what } else { "other".to_owned() };
        *troubles.entry(key).or_default() += 1;
    }

    /// Counts a connection that failed and is made again.
    pub(crate) fn retry(&mut self, why: &str) {
        self.counts.retries += 1;
        self.trouble(why);
    }

    /// Keeps the first error that ends all.
    pub(crate) fn fatal(&mut self, fatal: Fatal) {
        self.counts.fatal.get_or_insert(fatal);
    }

    /// Counts so far, and latencies since the last report.
    pub(crate) fn report(&mut self) -> Report {
        Report {
            latencies: self.latencies.take(),
            connecting: self.connecting.take(),
            catching_up: self.catching_up.take(),
            ..self.counts.clone()
        }
    }
}
