//! What of one topic was handed out and lies after its cursor.

use super::super::queue::Queue;
use crate::id::EntryId;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sent {
    pub(super) id: EntryId,
    pub(super) bytes: u32,
    /// Monotonic ms of the last delivery.
    pub(super) sent_ms: u64,
    /// When it is delivered again; `u64::MAX` while it is read again.
    pub(super) due_ms: u64,
    pub(super) attempt: u32,
    /// Acknowledged, or passed over; it stands here because one before it is not.
    done: bool,
}

impl Sent {
    pub(super) fn new(id: EntryId, bytes: u32, sent_ms: u64, due_ms: u64) -> Self {
        Self { id, bytes, sent_ms, due_ms, attempt: 1, done: false }
    }
}

/// Entries after a cursor, in the order of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Outstanding(Queue<Sent>);

impl Outstanding {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, sent: Sent) {
        self.0.push_back(sent);
    }

    /// Notes that everything up to here is done with; only worth a place if something before it is not.
    pub(super) fn pass(&mut self, id: EntryId) {
        match self.0.back_mut() {
            None => {}
            Some(last) if last.done => last.id = id,
            Some(_) => self.0.push_back(Sent { id, bytes: 0, sent_ms: 0, due_ms: u64::MAX, attempt: 0, done: true }),
        }
    }

    fn find(&mut self, id: EntryId) -> Option<&mut Sent> {
        let index = self.0.binary_search_by_key(&id, |sent| sent.id)?;
        self.0.get_mut(index).filter(|sent| !sent.done)
    }

    /// Takes an entry out of flight; what is left of it is its place in the order.
    pub(super) fn finish(&mut self, id: EntryId) -> Option<Sent> {
        let sent = self.find(id)?;
        sent.done = true;
        Some(*sent)
    }

    pub(super) fn update(&mut self, id: EntryId, change: impl FnOnce(&mut Sent)) -> bool {
        self.find(id).map(change).is_some()
    }

    /// Drops what is done with from the front; the last id of it.
    pub(super) fn settle(&mut self) -> Option<EntryId> {
        let mut last = None;
        while self.0.front().is_some_and(|sent| sent.done) {
            last = self.0.pop_front().map(|sent| sent.id);
        }
        last
    }

    /// Those in flight that are due, each set aside until it was read again.
    pub(super) fn take_due(&mut self, now_ms: u64, count_max: usize) -> Vec<EntryId> {
        let due = self.0.iter_mut().filter(|sent| !sent.done && sent.due_ms <= now_ms).take(count_max);
        due.map(|sent| {
            sent.due_ms = u64::MAX;
            sent.id
        })
        .collect()
    }

    /// When things were sent is of interest for measurements only.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn forget_times(&mut self) {
        self.0.iter_mut().for_each(|sent| sent.sent_ms = 0);
    }

    pub(super) fn earliest_due_ms(&self) -> u64 {
        self.0.iter().filter(|sent| !sent.done).map(|sent| sent.due_ms).min().unwrap_or(u64::MAX)
    }

    pub(super) fn in_flight(&self) -> impl Iterator<Item = &Sent> {
        self.0.iter().filter(|sent| !sent.done)
    }
}
