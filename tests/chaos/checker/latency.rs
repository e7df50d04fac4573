//! How late healthy clients got their messages, in calm and while others misbehaved.

use std::collections::BTreeMap;

use super::violation::Violation;

#[derive(Debug, Default)]
pub(crate) struct Latency {
    /// Begin and end of each calm period; the end of time until it ends.
    calm: Vec<(u32, u64, u64)>,
    late_us: BTreeMap<String, Vec<u32>>,
}

/// Healthy clients' p99 in one kind of situation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Percentile {
    pub(crate) when: String,
    pub(crate) deliveries: usize,
    pub(crate) p99_us: u64,
}

impl Latency {
    pub(crate) fn calm(&mut self, now_us: u64, number: u32) {
        self.calm.push((number, now_us, u64::MAX));
    }

    pub(crate) fn calm_ends(&mut self, now_us: u64, number: u32) -> bool {
        let found = self.calm.iter_mut().rev().find(|(calm, _, until_us)| *calm == number && *until_us == u64::MAX);
        found.map(|(_, _, until_us)| *until_us = now_us).is_some()
    }

    pub(crate) fn is_calm(&self, at_us: u64) -> bool {
        // Nearly always asked about the latest.
        self.calm.iter().rev().any(|(_, from_us, until_us)| *from_us <= at_us && at_us <= *until_us)
    }

    pub(crate) fn delivered(&mut self, when: &str, late_us: u64) {
        let late_us = u32::try_from(late_us).unwrap_or(u32::MAX);
        match self.late_us.get_mut(when) {
            Some(all) => all.push(late_us),
            None => {
                self.late_us.insert(when.to_owned(), vec![late_us]);
            }
        }
    }

    pub(crate) fn percentiles(&mut self) -> Vec<Percentile> {
        let percentile = |(when, late_us): (&String, &mut Vec<u32>)| {
            let rank = (late_us.len() * 99).div_ceil(100).saturating_sub(1);
            let (_, p99_us, _) = late_us.select_nth_unstable(rank);
            Percentile { when: when.clone(), p99_us: u64::from(*p99_us), deliveries: late_us.len() }
        };
        self.late_us.iter_mut().map(percentile).collect()
    }
}

impl Percentile {
    pub(crate) fn judge(&self, bound_us: u64) -> Option<Violation> {
        let Self { when, deliveries, p99_us } = self.clone();
        (p99_us > bound_us).then_some(Violation::TooLate { when, p99_us, bound_us, deliveries })
    }
}
