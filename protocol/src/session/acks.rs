//! Acks: gathered for a pipeline, confirmed when Redis has executed them.

use std::collections::{BTreeSet, HashMap};

use super::receipts::{ReceiptEvent, Wish};
use super::wire::{AckBatch, Action, AttachMode, Command, Confirmation, Now};
use super::{Phase, Session};
use crate::close::CloseCode;
use crate::code::ErrorCode;
use crate::frame::server::AckedId;
use crate::frame::{AckId, ServerFrame};
use crate::id::EntryId;

/// Acks that a session may hold while Redis refuses them. A client that sends more is told to wait.
const ACKS_BUFFERED_MAX: usize = 8_192;
/// Ack frames to be confirmed that a session may hold meanwhile, however few ids they have.
const CONFIRMATIONS_BUFFERED_MAX: usize = 8_192;
/// Acks that are sent without waiting for more.
const ACKS_PRESSING: usize = 256;

/// Acks that wait for the next pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct AckBuffer {
    batch: AckBatch,
    gaps: Vec<(Box<str>, Option<Box<str>>)>,
}

impl AckBuffer {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.batch.confirmations.is_empty()
    }

    /// Whether waiting for more acks would gain nothing.
    pub(super) fn is_pressing(&self) -> bool {
        self.len() >= ACKS_PRESSING || !self.gaps.is_empty()
    }

    fn len(&self) -> usize {
        self.batch.own.len() + self.batch.foreign.len() + self.gaps.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = EntryId> + '_ {
        self.batch.own.iter().chain(&self.batch.foreign).copied()
    }
}

impl Session {
    pub(super) fn handle_ack(
        &mut self,
        now: Now,
        ids: Vec<AckId>,
        reference: Option<Box<str>>,
        actions: &mut Vec<Action>,
    ) {
        let mut buffer = self.acks.take().unwrap_or_default();
        if buffer.len() + ids.len() > ACKS_BUFFERED_MAX
            || buffer.batch.confirmations.len() + self.confirmations_waiting() >= CONFIRMATIONS_BUFFERED_MAX
        {
            self.acks = Some(buffer);
            let message = format!("Redis takes no acks now and {ACKS_BUFFERED_MAX} are waiting; ack again later");
            let error = ServerFrame::Error { code: ErrorCode::Unavailable, message, retry_after_ms: Some(1_000) };
            return self.send(now, &error, reference.as_deref(), actions);
        }
        let (mut confirmed, mut of_topics) = (Vec::new(), Vec::new());
        let all_of_topics = !ids.is_empty() && ids.iter().all(|id| matches!(id, AckId::Topic(..)));
        for id in ids {
            let id = match id {
                AckId::Message(id) => id,
                AckId::Topic(topic, id) => {
                    if self.ack_topic(now, &topic, id, actions) && self.options.confirm {
                        of_topics.push((topic, id));
                    }
                    continue;
                }
                AckId::Gap(id) => {
                    buffer.gaps.push((id, reference.clone()));
                    continue;
                }
            };
            let delivered = self.ledger.remove(id);
            match delivered {
                Some(delivered) => {
                    actions.push(Action::Acknowledged { after_ms: now.mono_ms.saturating_sub(delivered.sent_ms) });
                    self.end_receipt(id, Some(ReceiptEvent::Acked));
                    buffer.batch.own.push(id);
                    buffer.batch.own_bytes += delivered.bytes as usize;
                }
                None if self.options.only_own_acks => continue,
                None => buffer.batch.foreign.push(id),
            }
            if self.options.confirm {
                confirmed.push(id);
            }
        }
        if self.options.confirm && !all_of_topics {
            buffer.batch.confirmations.push(Confirmation { reference: reference.clone(), ids: confirmed });
        }
        if !all_of_topics || !buffer.is_empty() {
            self.acks = Some(buffer);
        }
        if self.options.confirm && (all_of_topics || !of_topics.is_empty()) {
            self.confirm_topic_acks(now, reference, of_topics, actions);
        }
    }

    /// Acks that were not sent to Redis yet.
    #[must_use]
    pub fn acks_waiting(&self) -> usize {
        self.acks.as_ref().map_or(0, |acks| acks.len())
    }

    /// Acknowledges a message that is never shown to the client.
    pub(super) fn ack_silently(&mut self, id: EntryId) {
        self.acks.get_or_insert_default().batch.own.push(id);
    }

    pub(super) fn poll_acks(&mut self, commands: &mut Vec<Command>) {
        let Some(mut buffer) = self.acks.take() else { return };
        for (id, reference) in buffer.gaps.drain(..) {
            commands.push(Command::AckGap { id, reference });
        }
        if !(buffer.batch.own.is_empty() && buffer.batch.foreign.is_empty() && buffer.batch.confirmations.is_empty()) {
            commands.push(Command::Ack(Box::new(buffer.batch)));
        }
    }

    /// Puts acks back in front of those that came since.
    pub(super) fn restore_acks(&mut self, mut batch: AckBatch) {
        let buffer = self.acks.get_or_insert_default();
        batch.own.append(&mut buffer.batch.own);
        batch.own_bytes += buffer.batch.own_bytes;
        batch.foreign.append(&mut buffer.batch.foreign);
        batch.confirmations.append(&mut buffer.batch.confirmations);
        buffer.batch = batch;
    }

    pub(super) fn restore_gap_ack(&mut self, id: Box<str>, reference: Option<Box<str>>) {
        self.acks.get_or_insert_default().gaps.push((id, reference));
    }

    /// An older epoch's acks mean nothing in the new one.
    pub(super) fn drop_acks(&mut self) {
        self.acks = None;
        self.receipts = None;
    }

    pub(super) fn handle_acked(
        &mut self,
        batch: &AckBatch,
        removed: &[bool],
        withheld: Vec<(EntryId, Wish)>,
        generation: Option<u64>,
        actions: &mut Vec<Action>,
    ) {
        let later: BTreeSet<EntryId> = withheld.iter().map(|(id, _)| *id).collect();
        for (id, wish) in withheld {
            // Acknowledged by the next pipeline, behind its receipt.
            self.note_receipt(id, Some(wish), ReceiptEvent::Acked);
            self.ack_silently(id);
        }
        if batch.confirmations.is_empty() || self.phase != Phase::Live {
            return;
        }
        if !self.check_generation(generation, actions) {
            return;
        }
        let (start, last) = self.given;
        // A map, because thousands of ids that nobody knows fit into one ack. An id that stands twice is removed once.
        let mut foreign: HashMap<EntryId, bool> = HashMap::new();
        for (id, removed) in batch.foreign.iter().zip(removed) {
            *foreign.entry(*id).or_default() |= *removed;
        }
        // Not removed: not pending any more if it is within what this device was given; an earlier connection acked it.
        let is_done = |id: EntryId| foreign.get(&id).is_none_or(|removed| *removed || (id > start && id <= last));
        for Confirmation { reference, ids } in &batch.confirmations {
            if !later.is_empty() {
                let ids_later: Vec<EntryId> = ids.iter().copied().filter(|id| later.contains(id)).collect();
                let nothing_now = ids_later.len() == ids.len();
                if !ids_later.is_empty() {
                    let confirmation = Confirmation { reference: reference.clone(), ids: ids_later };
                    self.acks.get_or_insert_default().batch.confirmations.push(confirmation);
                    if nothing_now {
                        continue;
                    }
                }
            }
            let done = ids.iter().filter(|id| is_done(**id) && !later.contains(id));
            let ids = done.map(|id| AckedId::Message(*id)).collect();
            actions.push(Action::Send(ServerFrame::Acked(ids).encode(reference.as_deref())));
        }
    }

    pub(super) fn handle_gap_acked(&mut self, id: Box<str>, reference: Option<&str>, actions: &mut Vec<Action>) {
        if self.options.confirm && self.phase == Phase::Live {
            actions.push(Action::Send(ServerFrame::Acked(vec![AckedId::Gap(id)]).encode(reference)));
        }
    }

    /// Compares the recorded generation with ours; ends the session if another one owns the device.
    pub(super) fn check_generation(&mut self, generation: Option<u64>, actions: &mut Vec<Action>) -> bool {
        match generation {
            Some(generation) if generation == self.generation => true,
            // Generations only grow: Redis has gone back in time under us.
            Some(generation) if generation < self.generation => {
                actions.push(Action::SuspectEpoch);
                self.need_attach(AttachMode::Again);
                false
            }
            Some(_) => {
                actions.push(Action::Stale);
                let message = "another connection of this device took over";
                self.refuse(ErrorCode::Superseded, message, None, CloseCode::Superseded, actions);
                false
            }
            None => {
                self.need_repair();
                false
            }
        }
    }
}
