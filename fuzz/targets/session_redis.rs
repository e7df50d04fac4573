//! What Redis does for one device of one user, as far as a session can tell: it keeps every promise.
//!
//! It only drives the pure machine. Tests of the server use a real Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use homing_protocol::frame::{Gap, GapReason};
use homing_protocol::id::EntryId;
use homing_protocol::message::Entry;
use homing_protocol::session::{Attachment, Command, Pending, ReceiptEvent, Reply};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// An inbox with one group.
#[derive(Default)]
pub(super) struct Inbox {
    entries: BTreeMap<EntryId, Fields>,
    /// Deleted ones, too.
    pub(super) published: BTreeSet<EntryId>,
    pending: BTreeMap<EntryId, u32>,
    last: EntryId,
    /// Messages whose end was announced.
    announced: BTreeSet<EntryId>,
    generation: u64,
    gap: Option<Gap>,
}

impl Inbox {
    pub(super) fn publish(&mut self, fields: Fields) {
        let ms = self.published.last().map_or(1_700_000_000_000, |id| id.ms + 1);
        let id = EntryId { ms, seq: 0 };
        self.published.insert(id);
        self.entries.insert(id, fields);
    }

    /// Somebody deletes the oldest entry.
    pub(super) fn delete_first(&mut self) {
        self.entries.pop_first();
    }

    pub(super) fn execute(&mut self, command: &Command) -> Reply<Vec<u8>> {
        match command {
            Command::Attach(_) => Reply::Attached(Box::new(Ok(self.attach()))),
            Command::SetAside { ids, gone, .. } => {
                for id in ids {
                    self.pending.remove(id);
                }
                let count = ids.len() as u64 + u64::from(*gone);
                let gap =
                    self.gap.get_or_insert(Gap { id: Box::from("gap-1"), reason: GapReason::Retention, count: 0 });
                gap.count += count;
                Reply::SetAside(self.gap.clone())
            }
            Command::Ack(batch) => {
                for id in &batch.own {
                    let asks = self.entry(*id).is_some_and(|entry| entry.envelope().receipt);
                    let is_pending = self.pending.contains_key(id);
                    // One for another device is nobody's ack.
                    let is_for_all = self.entry(*id).is_some_and(|entry| entry.envelope().aim.is_none());
                    assert!(!(asks && is_pending && is_for_all) || self.announced.contains(id), "{id} is acked untold");
                }
                let own = batch.own.iter().filter(|id| self.pending.remove(id).is_some()).count() as u32;
                let removed = batch.foreign.iter().map(|id| self.pending.remove(id).is_some()).collect();
                let generation = (!batch.confirmations.is_empty()).then_some(self.generation);
                Reply::Acked { own, removed, withheld: Vec::new(), generation }
            }
            Command::Announce { receipts } => {
                let ends = receipts.iter().filter(|receipt| receipt.event != ReceiptEvent::Delivered);
                self.announced.extend(ends.map(|receipt| receipt.id));
                Reply::Done
            }
            Command::Record { receipts } => Reply::Recorded(vec![true; receipts.len()]),
            Command::AckGap { id, .. } => {
                self.gap.take_if(|gap| gap.id == *id);
                Reply::Done
            }
            Command::Sweep { .. } => Reply::Swept {
                pending: self.summary(),
                owned: true,
                generation: Some(self.generation),
                dismissed: None,
            },
            Command::Claim { ids } => self.claim(ids),
            Command::ReadPending { after, count } => self.read_pending(*after, *count),
            Command::ReadNew { count } => self.read_new(*count),
            Command::Touch { .. } | Command::Forget { .. } | Command::Release { .. } => Reply::Done,
            other => panic!("no {other:?} without topics"),
        }
    }

    fn attach(&mut self) -> Attachment {
        // A generation is a time in microseconds: every message here is younger than every attach.
        self.generation += 1;
        Attachment {
            generation: self.generation,
            created: self.generation == 1,
            incarnation: 1,
            pending: Some(self.pending.len() as u64),
            last_delivered: self.last,
            start: EntryId::MIN,
            gap: self.gap.clone(),
            length: self.entries.len() as u64,
            ..Attachment::default()
        }
    }

    fn summary(&self) -> Pending {
        let id = |pair: Option<(&EntryId, &u32)>| pair.map_or(EntryId::MIN, |(id, _)| *id);
        let pending = &self.pending;
        Pending {
            count: pending.len() as u64,
            first: id(pending.first_key_value()),
            last: id(pending.last_key_value()),
        }
    }

    fn entry(&self, id: EntryId) -> Option<Entry<Vec<u8>>> {
        self.entries.get(&id).map(|fields| Entry { id, fields: fields.clone() })
    }

    fn claim(&mut self, ids: &[EntryId]) -> Reply<Vec<u8>> {
        let pending: Vec<EntryId> = ids.iter().copied().filter(|id| self.pending.contains_key(id)).collect();
        let entries = pending.iter().filter_map(|id| self.entry(*id)).collect();
        for id in &pending {
            // XCLAIM takes deleted entries off the list.
            if self.entries.contains_key(id) {
                self.pending.entry(*id).and_modify(|deliveries| *deliveries += 1);
            } else {
                self.pending.remove(id);
            }
        }
        Reply::Claimed { pending, entries }
    }

    fn read_pending(&mut self, after: EntryId, count: u16) -> Reply<Vec<u8>> {
        assert!(count > 0, "COUNT 0 means no limit");
        let range = (Bound::Excluded(after), Bound::Unbounded);
        let range = self.pending.range(range).take(usize::from(count));
        let ids: Vec<(EntryId, u32)> = range.map(|(id, deliveries)| (*id, *deliveries)).collect();
        let entries = ids.into_iter().map(|(id, deliveries)| {
            self.pending.entry(id).and_modify(|deliveries| *deliveries += 1);
            match self.entry(id) {
                Some(entry) => (entry, true, deliveries),
                None => (Entry { id, fields: Vec::new() }, false, deliveries),
            }
        });
        Reply::PendingRead(entries.collect())
    }

    fn read_new(&mut self, count: u16) -> Reply<Vec<u8>> {
        assert!(count > 0, "COUNT 0 means no limit");
        let range = (Bound::Excluded(self.last), Bound::Unbounded);
        let ids: Vec<EntryId> = self.entries.range(range).take(usize::from(count)).map(|(id, _)| *id).collect();
        for id in &ids {
            self.pending.insert(*id, 1);
            self.last = *id;
        }
        Reply::NewRead(ids.into_iter().filter_map(|id| self.entry(id)).collect())
    }
}
