//! Whether memory, descriptors, threads and sessions of each process came back to what they were.
//!
//! Baseline samples are those before the first fault or calm period. A process that was started later is held to the
//! largest baseline of its kind: `node-2#3` to that of the `node`s.

use std::collections::BTreeMap;

use super::bounds::Bounds;
use super::violation::Violation;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) rss_bytes: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    pub(crate) sessions: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Resources {
    baseline: BTreeMap<String, Usage>,
    end: BTreeMap<String, Usage>,
    phase: Phase,
    connections_at_end: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Before,
    During,
    After,
}

impl Resources {
    /// The first fault or calm period begins.
    pub(crate) fn run_begins(&mut self) {
        if self.phase == Phase::Before {
            self.phase = Phase::During;
        }
    }

    pub(crate) fn drained(&mut self, connections: u64) {
        self.phase = Phase::After;
        self.connections_at_end = connections;
    }

    pub(crate) fn sample(&mut self, process: &str, usage: Usage, connections: u64) {
        match self.phase {
            Phase::Before => {
                let largest = self.baseline.entry(process.to_owned()).or_insert(usage);
                *largest = largest.each(usage, u64::max);
            }
            Phase::During => {}
            Phase::After => {
                // Something may be going on at any one moment: to come back once is to have come back.
                let smallest = self.end.entry(process.to_owned()).or_insert(usage);
                *smallest = smallest.each(usage, u64::min);
                self.connections_at_end = self.connections_at_end.max(connections);
            }
        }
    }

    fn baseline_of(&self, process: &str) -> Option<Usage> {
        let of_kind = || {
            let others = self.baseline.iter().filter(|(other, _)| kind(other) == kind(process));
            others.map(|(_, usage)| *usage).reduce(|left, right| left.each(right, u64::max))
        };
        self.baseline.get(process).copied().or_else(of_kind)
    }

    pub(crate) fn judge(&self, bounds: &Bounds) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (process, end) in &self.end {
            let Some(baseline) = self.baseline_of(process) else { continue };
            let sessions = end.sessions.saturating_sub(baseline.sessions);
            let rss_bytes = scaled(baseline.rss_bytes, bounds.rss_ratio)
                + bounds.rss_slack_bytes
                + sessions * bounds.rss_session_bytes;
            let measures = [
                ("bytes of memory", baseline.rss_bytes, end.rss_bytes, rss_bytes),
                (
                    "descriptors",
                    baseline.descriptors,
                    end.descriptors,
                    baseline.descriptors + sessions + bounds.descriptors_slack,
                ),
                ("threads", baseline.threads, end.threads, baseline.threads + bounds.threads_slack),
            ];
            let over = measures.into_iter().filter(|(_, _, end, allowed)| end > allowed);
            violations.extend(over.map(|(what, baseline, end, allowed)| {
                let process = process.clone();
                Violation::ResourceNotReturned { process, what, baseline, end, allowed }
            }));
        }
        let sessions: u64 = self.end.values().map(|usage| usage.sessions).sum();
        if sessions > self.connections_at_end + bounds.sessions_slack {
            let connections = self.connections_at_end;
            violations.push(Violation::SessionsLeaked { sessions, connections });
        }
        violations
    }

    /// Processes that could be compared.
    pub(crate) fn compared(&self) -> usize {
        self.end.keys().filter(|process| self.baseline_of(process).is_some()).count()
    }
}

impl Usage {
    fn each(self, other: Self, pick: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            rss_bytes: pick(self.rss_bytes, other.rss_bytes),
            descriptors: pick(self.descriptors, other.descriptors),
            threads: pick(self.threads, other.threads),
            sessions: pick(self.sessions, other.sessions),
        }
    }
}

/// `node` of `node-2#3`.
fn kind(process: &str) -> &str {
    process.split(|character: char| !character.is_alphabetic()).next().unwrap_or(process)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
fn scaled(bytes: u64, ratio: f64) -> u64 {
    (bytes as f64 * ratio) as u64
}
