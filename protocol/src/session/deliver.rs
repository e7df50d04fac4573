//! Reading: what is asked for, and what becomes of the entries.

use std::collections::HashSet;

use super::ledger::InFlight;
use super::receipts::{ReceiptEvent, Wish};
use super::wire::{Action, AttachMode, Command, Now};
use super::{Attach, Session, Walk};
use crate::frame::{GapReason, MessagesFrame};
use crate::id::EntryId;
use crate::message::{Entry, Envelope, Expiry};

/// Beside its payload, an entry in flight is charged so many bytes.
const ENTRY_BYTES_OVERHEAD: usize = 128;
/// Entries of a pending list that are read at once at most.
const WALK_COUNT_MAX: u16 = 256;

/// What an entry in flight is charged.
pub(super) fn charged_bytes(payload_bytes: usize) -> u32 {
    (payload_bytes + ENTRY_BYTES_OVERHEAD).min(u32::MAX as usize) as u32
}

/// What shall be done with an entry that was read.
pub(super) enum Fate {
    Deliver,
    Expired,
    TooBig,
    /// It is for another device.
    Skipped,
}

impl Session {
    /// The read that may be sent now.
    pub(super) fn wants_read(&self, blocked: bool) -> Option<Command> {
        if self.attach != Attach::Done || !self.subscribed || self.reading || blocked || self.is_ended() {
            return None;
        }
        let free = self.inbox_window().saturating_sub(self.ledger.len());
        if free == 0 {
            return None;
        }
        let (of_topics, bytes_of_topics) =
            self.topics.as_ref().map_or((0, 0), |topics| (topics.in_flight(), topics.bytes()));
        let bytes_free = self.config.in_flight_bytes_max.saturating_sub(self.ledger.bytes() + bytes_of_topics);
        if bytes_free == 0 && self.ledger.len() + of_topics > 0 {
            return None;
        }
        let fitting = (bytes_free / self.entry_bytes.max(1) as usize).max(1);
        if let Some(walk) = self.walk {
            // What is in the ledger comes back, too, and is passed over.
            let count = fitting.min(free + self.ledger.len()).min(usize::from(WALK_COUNT_MAX));
            return Some(Command::ReadPending { after: walk.after, count: count as u16 });
        }
        self.dirty.then(|| Command::ReadNew { count: fitting.min(free) as u16 })
    }

    pub(super) fn poll_read(&mut self, blocked: bool, commands: &mut Vec<Command>) {
        let Some(command) = self.wants_read(blocked) else { return };
        if matches!(command, Command::ReadNew { .. }) {
            // Cleared when the read is sent: an entry that is appended after it wakes us again.
            self.dirty = false;
        }
        self.reading = true;
        if let (Some(topics), Command::ReadNew { count } | Command::ReadPending { count, .. }) =
            (&mut self.topics, &command)
        {
            self.reading_count = *count;
            topics.took_turn();
        }
        commands.push(command);
    }

    /// Walks through the pending list from its beginning (again).
    pub(super) fn restart_walk(&mut self) {
        if self.is_ended() {
            return;
        }
        match &mut self.walk {
            Some(walk) if self.reading => walk.again = true,
            _ => {
                self.walk_number = self.walk_number.wrapping_add(1);
                self.walk = Some(Walk { after: EntryId::MIN, again: false });
            }
        }
    }

    pub(super) fn handle_new_read<B: AsRef<[u8]>>(
        &mut self,
        now: Now,
        count: u16,
        entries: &[Entry<B>],
        actions: &mut Vec<Action>,
    ) {
        (self.reading, self.reading_count) = (false, 0);
        if entries.len() >= usize::from(count) {
            self.dirty = true;
        }
        if let Some(last) = entries.last() {
            self.given.1 = self.given.1.max(last.id);
        }
        // Entries of an ended session stay pending for its successor; the release that follows tells it.
        if self.is_ended() || self.attach != Attach::Done {
            return;
        }
        let mut frame = MessagesFrame::new(self.options.frame_bytes_max as usize);
        for entry in entries {
            self.deliver(now, entry, 1, &mut frame, actions);
        }
        self.finish_frame(now, &mut frame, actions);
    }

    pub(super) fn handle_pending_read<B: AsRef<[u8]>>(
        &mut self,
        now: Now,
        count: u16,
        entries: Vec<(Entry<B>, bool, u32)>,
        actions: &mut Vec<Action>,
    ) {
        (self.reading, self.reading_count) = (false, 0);
        let Some(walk) = self.walk else { return };
        if self.is_ended() || self.attach != Attach::Done {
            return;
        }
        if let Some((last, _, _)) = entries.last() {
            // A stale node may have read further than this session's attach and reads.
            self.given.1 = self.given.1.max(last.id);
        }
        let acked: HashSet<EntryId> = self.acks.iter().flat_map(|acks| acks.ids()).collect();
        let mut frame = MessagesFrame::new(self.options.frame_bytes_max as usize);
        let mut after = walk.after;
        let mut complete = entries.len() < usize::from(count);
        let number = self.walk_number;
        for (entry, exists, deliveries) in &entries {
            let known = self.ledger.update(entry.id, |in_flight| in_flight.walk = number);
            if !known && !acked.contains(&entry.id) {
                if !exists {
                    self.set_aside(GapReason::Retention, entry.id, actions);
                } else if self.ledger.len() >= self.inbox_window() {
                    complete = false;
                    break;
                } else {
                    self.deliver(now, entry, deliveries.saturating_add(1).max(2), &mut frame, actions);
                }
            }
            after = entry.id;
        }
        self.finish_frame(now, &mut frame, actions);
        self.walk = if walk.again {
            self.walk_number = self.walk_number.wrapping_add(1);
            Some(Walk { after: EntryId::MIN, again: false })
        } else if complete {
            if self.ledger.keep_seen(number) > 0 {
                self.forget_receipts();
                actions.push(Action::Stale);
            }
            None
        } else {
            Some(Walk { after, again: false })
        };
    }

    /// Puts one entry into the frame and the ledger, unless it has expired or is too big.
    pub(super) fn deliver<B: AsRef<[u8]>>(
        &mut self,
        now: Now,
        entry: &Entry<B>,
        attempt: u32,
        frame: &mut MessagesFrame,
        actions: &mut Vec<Action>,
    ) {
        let envelope = entry.envelope();
        let bytes = self.expect_bytes(envelope.payload_bytes);
        match self.fate(now, entry.id, attempt, &envelope) {
            Fate::Skipped => self.ack_silently(entry.id),
            Fate::Expired => {
                actions.push(Action::Expired);
                self.note_receipt(entry.id, Wish::of(entry, &envelope), ReceiptEvent::Expired);
                self.ack_silently(entry.id);
            }
            Fate::TooBig => {
                self.note_receipt(entry.id, Wish::of(entry, &envelope), ReceiptEvent::Dropped);
                self.set_aside(GapReason::TooBig, entry.id, actions);
            }
            Fate::Deliver => {
                self.follow_receipt(entry.id, Wish::of(entry, &envelope), attempt);
                self.ledger.insert(InFlight {
                    id: entry.id,
                    sent_ms: now.mono_ms,
                    due_ms: now.mono_ms + self.config.ack_timeout_ms,
                    attempt,
                    bytes,
                    walk: self.walk_number,
                    doublings: 0,
                });
                self.show(entry, attempt, frame, actions);
            }
        }
    }

    /// Takes the size of an entry into account for the next reads; what it is charged for.
    pub(super) fn expect_bytes(&mut self, payload_bytes: usize) -> u32 {
        let bytes = charged_bytes(payload_bytes);
        self.entry_bytes = bytes.max(self.entry_bytes - self.entry_bytes / 8);
        bytes
    }

    pub(super) fn fate(&self, now: Now, id: EntryId, attempt: u32, envelope: &Envelope<'_>) -> Fate {
        let expired = match envelope.expiry {
            Expiry::Never => false,
            Expiry::At(at_ms) => at_ms <= now.unix_ms,
            // Appended before this session attached: a generation is Redis's time of the attach in microseconds.
            Expiry::ConnectedOnly => attempt > 1 || id.ms < self.generation / 1_000,
        };
        if !envelope.is_for(self.device.as_str()) {
            // First: what is none of this device's is neither lost nor late for it.
            Fate::Skipped
        } else if expired {
            Fate::Expired
        } else if envelope.payload_bytes > self.config.payload_bytes_max {
            Fate::TooBig
        } else {
            Fate::Deliver
        }
    }

    /// Puts one entry into the frame.
    pub(super) fn show<B: AsRef<[u8]>>(
        &mut self,
        entry: &Entry<B>,
        attempt: u32,
        frame: &mut MessagesFrame,
        actions: &mut Vec<Action>,
    ) {
        if let Some(full) = frame.push(|text| entry.encode_into(attempt, text)) {
            actions.push(Action::Send(full));
        }
        actions.push(Action::Delivered { ms: entry.id.ms, attempt });
    }

    pub(super) fn finish_frame(&mut self, now: Now, frame: &mut MessagesFrame, actions: &mut Vec<Action>) {
        if let Some(text) = frame.finish() {
            self.heartbeat.sent(now);
            actions.push(Action::Send(text));
        }
    }

    pub(super) fn set_aside(&mut self, reason: GapReason, id: EntryId, actions: &mut Vec<Action>) {
        actions.push(Action::Dropped { reason, count: 1 });
        self.aside.push((reason, id));
    }

    pub(super) fn poll_aside(&mut self, commands: &mut Vec<Command>) {
        if self.aside.is_empty() && self.gone == 0 && self.too_big == 0 {
            return;
        }
        let aside = std::mem::take(&mut self.aside);
        let ids = |wanted| aside.iter().filter(|(reason, _)| *reason == wanted).map(|(_, id)| *id).collect::<Vec<_>>();
        let (dropped, too_big) = (ids(GapReason::Retention), ids(GapReason::TooBig));
        if !dropped.is_empty() || self.gone > 0 {
            let gone = std::mem::take(&mut self.gone);
            commands.push(Command::SetAside { reason: GapReason::Retention, ids: dropped, gone });
        }
        if !too_big.is_empty() || self.too_big > 0 {
            let gone = std::mem::take(&mut self.too_big);
            commands.push(Command::SetAside { reason: GapReason::TooBig, ids: too_big, gone });
        }
    }

    /// The group or the inbox is missing.
    pub(super) fn need_repair(&mut self) {
        self.need_attach(AttachMode::Repair);
    }

    pub(super) fn need_attach(&mut self, mode: AttachMode) {
        if !self.is_ended() && self.attach == Attach::Done {
            self.attach = Attach::Needed(mode);
        }
    }
}
