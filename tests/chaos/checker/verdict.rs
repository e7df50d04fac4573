//! What came of a check: counts, violations, percentiles, and the table of the faults.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::faults::Row;
use super::latency::Percentile;
use super::violation::Violation;

/// Violations of one kind that are kept; all are counted.
const KEPT_OF_A_KIND_MAX: u64 = 50;
/// Violations of one kind that are printed.
const PRINTED_OF_A_KIND_MAX: usize = 10;

/// How many of each class. Deliveries are counted per device; a message of two devices counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) lines: u64,
    pub(crate) users: u64,
    pub(crate) devices: u64,
    pub(crate) epochs: u64,
    /// Messages by what their producers know.
    pub(crate) accepted: u64,
    /// Among them those of topics and the broadcast topic.
    pub(crate) accepted_to_topics: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    pub(crate) unknown_but_delivered: u64,
    /// Messages owed to a device, by what became of them.
    pub(crate) delivered: u64,
    pub(crate) delivered_of_topics: u64,
    /// Of a topic that may have been left before it came.
    pub(crate) waived: u64,
    pub(crate) pending: u64,
    /// Of an unfinished history: nobody looked into Redis at its end.
    pub(crate) undecided: u64,
    pub(crate) lost: u64,
    pub(crate) lost_in_declared_window: u64,
    /// Of a device that has not been there since.
    pub(crate) lost_to_absent: u64,
    /// Dropped by retention or as too big, and told by a gap.
    pub(crate) dropped_and_told: u64,
    /// Deliveries beyond the first.
    pub(crate) duplicated: u64,
    pub(crate) duplicated_against_the_promise: u64,
    /// Deliveries over superseded connections.
    pub(crate) superseded: u64,
    pub(crate) out_of_order: u64,
    pub(crate) never_sent: u64,
    pub(crate) foreign: u64,
    /// Acks that producers were told of; those that may have been lost with Redis's data.
    pub(crate) receipts: u64,
    pub(crate) receipts_lost: u64,
    /// Sessions that ended because another device of their user connected.
    pub(crate) replaced: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) seed: u64,
    pub(crate) counts: Counts,
    /// The first ones of each kind.
    pub(crate) violations: Vec<Violation>,
    pub(crate) violations_by_kind: BTreeMap<&'static str, u64>,
    pub(crate) percentiles: Vec<Percentile>,
    pub(crate) faults: Vec<Row>,
    pub(crate) processes_compared: usize,
    /// The history goes on to its `end`: losses and leaks could be judged.
    pub(crate) complete: bool,
    /// The last line was cut: the run was killed.
    pub(crate) truncated: bool,
}

impl Verdict {
    pub(super) fn violate(&mut self, violation: Violation) {
        let count = self.violations_by_kind.entry(violation.kind()).or_default();
        *count += 1;
        if *count <= KEPT_OF_A_KIND_MAX {
            self.violations.push(violation);
        }
    }

    /// Nothing is wrong, as far as the history goes. Whether it goes far enough says `complete`.
    pub(crate) fn is_clean(&self) -> bool {
        self.violations_by_kind.is_empty()
    }

    /// The rows for docs/GUARANTEES.md.
    pub(crate) fn markdown(&self) -> String {
        let mut table = String::from(
            "| fault | times injected | messages | lost in its window | duplicated | longest interruption | seed |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for Row { kind, times, messages, lost, duplicated, longest_us } in &self.faults {
            let longest = seconds(*longest_us);
            let kind = kind.replace('_', " ");
            let row =
                format!("| {kind} | {times} | {messages} | {lost} | {duplicated} | {longest} | {} |\n", self.seed);
            table.push_str(&row);
        }
        table
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            lines,
            users,
            devices,
            epochs,
            accepted,
            accepted_to_topics,
            refused,
            unknown,
            unknown_but_delivered,
            delivered,
            delivered_of_topics,
            waived,
            pending,
            undecided,
            lost,
            lost_in_declared_window,
            lost_to_absent,
            dropped_and_told,
            duplicated,
            duplicated_against_the_promise,
            superseded,
            out_of_order,
            never_sent,
            foreign,
            receipts,
            receipts_lost,
            replaced,
        } = self.counts;
        writeln!(out, "seed {}: {lines} lines, {users} users, {devices} devices, {epochs} epochs", self.seed)?;
        writeln!(
            out,
            "messages: {accepted} accepted ({accepted_to_topics} to topics), {refused} refused, {unknown} unknown ({unknown_but_delivered} delivered)"
        )?;
        writeln!(
            out,
            "owed to devices: {delivered} delivered ({delivered_of_topics} of topics), {pending} pending, {lost} lost, \
             {lost_in_declared_window} lost in a declared window ({lost_to_absent} more to devices that have not \
             been there since), {dropped_and_told} dropped and told, {undecided} undecided; {waived} of topics that were \
             left before they came"
        )?;
        writeln!(
            out,
            "deliveries: {duplicated} duplicates, {duplicated_against_the_promise} against the promise, {out_of_order} \
             out of order, {never_sent} never sent, {foreign} of another user, {superseded} on superseded connections"
        )?;
        writeln!(out, "receipts: {receipts} told of acks, {receipts_lost} lost in a declared window")?;
        writeln!(out, "sessions: {replaced} replaced by another device")?;
        for Percentile { when, deliveries, p99_us } in &self.percentiles {
            writeln!(out, "healthy p99 {when}: {p99_us} us over {deliveries} deliveries")?;
        }
        writeln!(out, "resources: {} processes compared", self.processes_compared)?;
        if self.truncated {
            writeln!(out, "the last line is cut: the run was killed")?;
        }
        if !self.complete {
            writeln!(out, "the history does not reach its end: losses and leaks were not judged")?;
        }
        for (kind, count) in &self.violations_by_kind {
            writeln!(out, "VIOLATION {kind}: {count}")?;
            let of_kind = self.violations.iter().filter(|violation| violation.kind() == *kind);
            for violation in of_kind.take(PRINTED_OF_A_KIND_MAX) {
                writeln!(out, "  {violation}")?;
            }
        }
        out.write_char('\n')?;
        out.write_str(&self.markdown())
    }
}

fn seconds(us: u64) -> String {
    format!("{}.{:03} s", us / 1_000_000, us % 1_000_000 / 1_000)
}
