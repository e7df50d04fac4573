//! Receipts: what became of a message for this device, told to the producer who asked.
//!
//! An event is announced on a stream and recorded beside the message, in the same pipeline as the ack that ends it and
//! before it: a crash in between repeats the event and cannot lose it. A message that asks for nothing costs nothing.

use std::collections::BTreeMap;

use super::wire::{Command, Failure, Now};
use super::{Phase, Session};
use crate::id::EntryId;
use crate::message::{Entry, Envelope};

/// Receipts that wait while Redis does not take them. Acks wait as well then, and their buffer is full first; only a
/// function that is missing for long lets receipts alone pile up.
const RECEIPTS_BUFFERED_MAX: usize = 16_384;

/// What can become of a message for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReceiptEvent {
    /// It was put into a frame for the first time.
    Delivered,
    /// The client acknowledged it.
    Acked,
    /// It expired before it was acknowledged.
    Expired,
    /// It was dropped before it was acknowledged.
    Dropped,
}

impl ReceiptEvent {
    /// The event as it is written in Redis.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Acked => "acked",
            Self::Expired => "expired",
            Self::Dropped => "dropped",
        }
    }
}

/// What a message that asks for receipts wants in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wish {
    /// The producer's own id of the message.
    pub key: Option<Box<str>>,
    /// It is for this device only.
    pub aimed: bool,
}

impl Wish {
    /// The wish of an entry; `None` if it asks for no receipts.
    pub(super) fn of<B: AsRef<[u8]>>(entry: &Entry<B>, envelope: &Envelope<'_>) -> Option<Self> {
        envelope.receipt.then(|| Self { key: entry.key().map(Box::from), aimed: envelope.aim.is_some() })
    }
}

/// One event of one message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt {
    /// The message.
    pub id: EntryId,
    /// What became of it.
    pub event: ReceiptEvent,
    /// What its producer wants to see.
    pub wish: Wish,
    /// An earlier session may have told it: it is announced only if nobody has recorded it.
    pub repeated: bool,
}

/// Receipts of one session. Only one with messages that ask for them has this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Receipts {
    /// Messages in flight that ask.
    asked: BTreeMap<EntryId, Wish>,
    announce: Vec<Receipt>,
    record: Vec<Receipt>,
}

impl Receipts {
    pub(super) fn is_waiting(&self) -> bool {
        !(self.announce.is_empty() && self.record.is_empty())
    }

    fn note(&mut self, id: EntryId, event: ReceiptEvent, wish: Wish, repeated: bool) {
        let receipt = Receipt { id, event, wish, repeated };
        if !repeated {
            self.announce.push(receipt.clone());
        }
        self.record.push(receipt);
    }
}

/// Puts receipts back in front of those that came since.
fn restore(waiting: &mut Vec<Receipt>, mut restored: Vec<Receipt>) {
    restored.append(waiting);
    let excess = restored.len().saturating_sub(RECEIPTS_BUFFERED_MAX);
    restored.drain(..excess);
    *waiting = restored;
}

impl Session {
    /// A message that asks goes into the ledger. Whether an earlier session has told of its delivery is not known of
    /// one that was pending.
    pub(super) fn follow_receipt(&mut self, id: EntryId, wish: Option<Wish>, attempt: u32) {
        let Some(wish) = wish else { return };
        let receipts = self.receipts.get_or_insert_default();
        receipts.note(id, ReceiptEvent::Delivered, wish.clone(), attempt > 1);
        receipts.asked.insert(id, wish);
    }

    /// A message ends that was never in the ledger.
    pub(super) fn note_receipt(&mut self, id: EntryId, wish: Option<Wish>, event: ReceiptEvent) {
        if let Some(wish) = wish {
            self.receipts.get_or_insert_default().note(id, event, wish, false);
        }
    }

    /// A message leaves the ledger; with `None` nobody is told, since whoever ended it has done so.
    pub(super) fn end_receipt(&mut self, id: EntryId, event: Option<ReceiptEvent>) {
        let Some(receipts) = &mut self.receipts else { return };
        if let Some(wish) = receipts.asked.remove(&id)
            && let Some(event) = event
        {
            receipts.note(id, event, wish, false);
        }
    }

    /// Messages have left the ledger by another way.
    pub(super) fn forget_receipts(&mut self) {
        if let Some(receipts) = &mut self.receipts {
            receipts.asked.retain(|id, _| self.ledger.contains(*id));
        }
    }

    /// Must come before the acks in a pipeline.
    pub(super) fn poll_receipts(&mut self, commands: &mut Vec<Command>) {
        let Some(receipts) = &mut self.receipts else { return };
        if self.phase == Phase::Ending {
            // Nobody is left to hear whether they were recorded.
            for receipt in receipts.record.iter_mut().filter(|receipt| receipt.repeated) {
                receipt.repeated = false;
                receipts.announce.push(receipt.clone());
            }
        }
        let (announce, record) = (std::mem::take(&mut receipts.announce), std::mem::take(&mut receipts.record));
        if receipts.asked.is_empty() {
            self.receipts = None;
        }
        if !announce.is_empty() {
            commands.push(Command::Announce { receipts: announce });
        }
        if !record.is_empty() {
            commands.push(Command::Record { receipts: record });
        }
    }

    /// `fresh`: for each receipt whether it was not recorded before.
    pub(super) fn handle_recorded(&mut self, receipts: Vec<Receipt>, fresh: &[bool]) {
        for (receipt, _) in receipts.into_iter().zip(fresh).filter(|(receipt, fresh)| receipt.repeated && **fresh) {
            self.receipts.get_or_insert_default().announce.push(receipt);
        }
    }

    pub(super) fn handle_receipts_failed(&mut self, now: Now, command: Command, failure: Failure) {
        self.pause_after(now, failure);
        match failure {
            Failure::Disconnected | Failure::Refused | Failure::NotLoaded => {}
            // A key that holds something else does not mend by waiting, and is no reason to stop delivering.
            Failure::NoGroup | Failure::WrongType | Failure::Unexpected => return,
        }
        let waiting = self.receipts.get_or_insert_default();
        match command {
            Command::Announce { receipts } => restore(&mut waiting.announce, receipts),
            Command::Record { receipts } => restore(&mut waiting.record, receipts),
            _ => {}
        }
    }
}
