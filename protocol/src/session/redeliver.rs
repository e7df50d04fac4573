//! Redelivery: after the ack time-out, and after a `nack`.

use super::receipts::ReceiptEvent;
use super::wire::{Action, Command, Now};
use super::{Attach, Session};
use crate::frame::MessagesFrame;
use crate::id::EntryId;
use crate::message::{Entry, Expiry};
use crate::topic::MessageId;

/// Entries that are claimed at once, at most.
const CLAIM_COUNT_MAX: usize = 64;

impl Session {
    pub(super) fn handle_nack(&mut self, now: Now, ids: &[MessageId], delay_ms: u64) {
        for id in ids {
            let id = match id {
                MessageId::Inbox(id) => id,
                MessageId::Topic(topic, id) => {
                    self.nack_topic(now, topic, *id, delay_ms);
                    continue;
                }
            };
            // Keeps its window slot; an id that is not in flight needs no second delivery.
            self.ledger.update(*id, |in_flight| {
                if in_flight.due_ms != u64::MAX {
                    in_flight.due_ms = now.mono_ms + delay_ms;
                }
            });
        }
    }

    pub(super) fn wants_claim(&self, now: Now, blocked: bool) -> bool {
        self.attach == Attach::Done
            && self.subscribed
            && !self.is_ended()
            && !self.claiming
            && !blocked
            && self.ledger.earliest_due_ms() <= now.mono_ms
    }

    pub(super) fn poll_claim(&mut self, now: Now, blocked: bool, commands: &mut Vec<Command>) {
        if !self.wants_claim(now, blocked) {
            return;
        }
        let fitting = (self.config.in_flight_bytes_max / self.entry_bytes.max(1) as usize).max(1);
        let ids = self.ledger.take_due(now.mono_ms, fitting.min(CLAIM_COUNT_MAX));
        if !ids.is_empty() {
            self.claiming = true;
            commands.push(Command::Claim { ids });
        }
    }

    pub(super) fn handle_claimed<B: AsRef<[u8]>>(
        &mut self,
        now: Now,
        ids: &[EntryId],
        pending: &[EntryId],
        entries: &[Entry<B>],
        actions: &mut Vec<Action>,
    ) {
        self.claiming = false;
        if self.is_ended() || self.attach != Attach::Done {
            return self.postpone(now, ids);
        }
        let mut frame = MessagesFrame::new(self.options.frame_bytes_max as usize);
        for id in ids {
            if !self.ledger.contains(*id) {
                continue;
            }
            match entries.iter().find(|entry| entry.id == *id) {
                Some(entry) => self.redeliver(now, entry, &mut frame, actions),
                None => {
                    self.ledger.remove(*id);
                    self.end_receipt(*id, pending.contains(id).then_some(ReceiptEvent::Dropped));
                    // Pending before the claim, and not claimed: the entry was deleted. Not pending: acknowledged
                    // or counted as dropped by somebody else.
                    if pending.contains(id) {
                        actions.push(Action::Dropped { reason: crate::frame::GapReason::Retention, count: 1 });
                        self.gone += 1;
                    }
                }
            }
        }
        self.finish_frame(now, &mut frame, actions);
    }

    fn redeliver<B: AsRef<[u8]>>(
        &mut self,
        now: Now,
        entry: &Entry<B>,
        frame: &mut MessagesFrame,
        actions: &mut Vec<Action>,
    ) {
        if let Expiry::At(at_ms) = entry.envelope().expiry
            && at_ms <= now.unix_ms
        {
            self.ledger.remove(entry.id);
            self.end_receipt(entry.id, Some(ReceiptEvent::Expired));
            actions.push(Action::Expired);
            return self.ack_silently(entry.id);
        }
        let (first_ms, longest_ms) = (self.config.ack_timeout_ms, self.config.ack_timeout_max_ms);
        let mut attempt = 2;
        self.ledger.update(entry.id, |in_flight| {
            in_flight.doublings = in_flight.doublings.saturating_add(1);
            in_flight.attempt = in_flight.attempt.saturating_add(1);
            in_flight.sent_ms = now.mono_ms;
            let factor = 1u64.checked_shl(u32::from(in_flight.doublings)).unwrap_or(u64::MAX);
            in_flight.due_ms = now.mono_ms.saturating_add(first_ms.saturating_mul(factor).min(longest_ms));
            attempt = in_flight.attempt;
        });
        self.show(entry, attempt, frame, actions);
    }

    /// The claim did not happen: try again a little later.
    pub(super) fn postpone(&mut self, now: Now, ids: &[EntryId]) {
        self.claiming = false;
        for id in ids {
            self.ledger.update(*id, |in_flight| in_flight.due_ms = now.mono_ms + CLAIM_RETRY_MS);
        }
    }
}

/// Time until a failed claim is tried again.
const CLAIM_RETRY_MS: u64 = 1_000;
