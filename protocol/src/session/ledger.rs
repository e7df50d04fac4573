//! The ledger: ids in flight, with time and attempt; never payloads.

use super::queue::Queue;
use super::wire::Pending;
use crate::id::EntryId;

/// One delivered, unacknowledged message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct InFlight {
    pub(super) id: EntryId,
    /// Monotonic ms of the last delivery.
    pub(super) sent_ms: u64,
    /// When it is delivered again; `u64::MAX` while a claim is in flight.
    pub(super) due_ms: u64,
    pub(super) attempt: u32,
    pub(super) bytes: u32,
    /// The walk through the pending list that saw it last.
    pub(super) walk: u16,
    /// Deliveries by this session, less one: each doubles the time-out.
    pub(super) doublings: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ledger {
    entries: Queue<InFlight>,
    bytes: usize,
    /// No entry is due earlier; recomputed when it has passed. `u64::MAX` if there is none.
    earliest_due_ms: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { entries: Queue::default(), bytes: 0, earliest_due_ms: u64::MAX }
    }
}

impl Ledger {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn contains(&self, id: EntryId) -> bool {
        self.position(id).is_some()
    }

    pub(super) fn insert(&mut self, entry: InFlight) {
        self.bytes += entry.bytes as usize;
        self.note_due(entry.due_ms);
        self.entries.push_back(entry);
    }

    pub(super) fn remove(&mut self, id: EntryId) -> Option<InFlight> {
        let entry = self.entries.remove(self.position(id)?)?;
        self.bytes -= entry.bytes as usize;
        if self.entries.is_empty() {
            self.earliest_due_ms = u64::MAX;
        }
        Some(entry)
    }

    /// Changes an entry; its due time may only be changed through here.
    pub(super) fn update(&mut self, id: EntryId, change: impl FnOnce(&mut InFlight)) -> bool {
        let Some(position) = self.position(id) else { return false };
        let Some(entry) = self.entries.get_mut(position) else { return false };
        change(entry);
        let due_ms = entry.due_ms;
        self.note_due(due_ms);
        true
    }

    /// Ids that are due, oldest delivery first; each is set aside until its claim returned.
    pub(super) fn take_due(&mut self, now_ms: u64, count_max: usize) -> Vec<EntryId> {
        let mut due = Vec::new();
        for entry in self.entries.iter_mut() {
            if entry.due_ms <= now_ms && due.len() < count_max {
                entry.due_ms = u64::MAX;
                due.push(entry.id);
            }
        }
        self.earliest_due_ms = self.entries.iter().map(|entry| entry.due_ms).min().unwrap_or(u64::MAX);
        due
    }

    /// Monotonic ms of the next redelivery; `u64::MAX` if there is none.
    pub(super) fn earliest_due_ms(&self) -> u64 {
        self.earliest_due_ms
    }

    /// Removes entries that the walk with this number did not see: somebody else acknowledged or dropped them.
    pub(super) fn keep_seen(&mut self, walk: u16) -> usize {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.walk == walk);
        self.bytes = self.entries.iter().map(|entry| entry.bytes as usize).sum();
        before - self.entries.len()
    }

    /// Calls the current walk 1 and every earlier one 0, or all of them 1 if nobody asks; attempts are first or later.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn renumber(&mut self, current: u16, matters: bool) {
        for entry in self.entries.iter_mut() {
            entry.walk = u16::from(!matters || entry.walk == current);
            entry.attempt = entry.attempt.min(2);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What the pending list should look like.
    pub(super) fn summary(&self) -> Pending {
        let ids = || self.entries.iter().map(|entry| entry.id);
        Pending {
            count: self.entries.len() as u64,
            first: ids().min().unwrap_or_default(),
            last: ids().max().unwrap_or_default(),
        }
    }

    /// Acks mostly come in the order of delivery, so the search begins at the oldest.
    fn position(&self, id: EntryId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.id == id)
    }

    fn note_due(&mut self, due_ms: u64) {
        self.earliest_due_ms = self.earliest_due_ms.min(due_ms);
    }
}
