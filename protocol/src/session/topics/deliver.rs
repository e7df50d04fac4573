//! Handing out what topics hold: what is new, from memory; what was missed, from the log.

use super::super::deliver::{Fate, charged_bytes};
use super::super::wire::{Action, Command, Now};
use super::super::{Attach, Session};
use super::list::Edit;
use super::outstanding::Sent;
use super::{Followed, TopicBatch};
use crate::frame::{GapReason, MessagesFrame};
use crate::id::EntryId;
use crate::message::Entry;
use crate::topic::Topic;

/// Entries that are read again at once, at most.
const REREAD_COUNT_MAX: usize = 64;
/// Time until entries are read again that could not be.
const REREAD_RETRY_MS: u64 = 1_000;

impl Session {
    /// The node has read new entries.
    pub fn handle_topic_batch(&mut self, now: Now, batch: &TopicBatch, blocked: bool, actions: &mut Vec<Action>) {
        if self.attach != Attach::Done || !self.is_live() {
            return self.note_head(batch);
        }
        let mut room = self.topic_room();
        let shareable = batch.is_shareable(self.options.frame_bytes_max);
        let Some(index) = self.find_topic(batch.topic()) else { return };
        let Some(topics) = &mut self.topics else { return };
        let Some(mut followed) = topics.followed.edit(index) else { return };
        followed.head = Some(batch.last());
        if !followed.is_open() || followed.reading || followed.position < batch.prev() || blocked {
            // There may be a hole before the batch, or no way out: read from the log, in its order.
            followed.dirty |= followed.position < batch.last();
            return;
        }
        let is_all_new = batch.messages().first().is_some_and(|first| first.id > followed.position);
        drop(followed);
        if shareable && is_all_new && batch.messages().len() <= room {
            for message in batch.messages() {
                let (id, bytes) = (message.id, message.payload_bytes);
                self.hand_out(now, index, id, bytes, actions);
            }
            self.heartbeat.sent(now);
            actions.push(Action::SendBatch);
            return self.note_turn();
        }
        let mut frame = MessagesFrame::new(self.options.frame_bytes_max as usize);
        for message in batch.messages() {
            let Some(followed) = self.followed(index) else { break };
            if message.id <= followed.position {
                continue;
            }
            match self.fate(now, message.id, 1, &message.envelope()) {
                Fate::Deliver if room == 0 => {
                    if let Some(mut followed) = self.followed_mut(index) {
                        followed.dirty = true;
                    }
                    break;
                }
                Fate::Deliver => {
                    room -= 1;
                    self.hand_out(now, index, message.id, message.payload_bytes, actions);
                    if let Some(full) = frame.push(|text| text.push_str(batch.text(message))) {
                        actions.push(Action::Send(full));
                    }
                }
                fate => self.pass_over(index, message.id, &fate, actions),
            }
        }
        self.finish_frame(now, &mut frame, actions);
        self.note_turn();
    }

    fn note_head(&mut self, batch: &TopicBatch) {
        if let Some(mut followed) = self.topics.as_mut().and_then(|topics| topics.followed.find(batch.topic())) {
            followed.head = Some(batch.last());
            followed.dirty |= followed.position < batch.last();
        }
    }

    fn find_topic(&self, topic: &Topic) -> Option<usize> {
        self.topics.as_ref()?.followed.position(topic).ok()
    }

    fn followed(&self, index: usize) -> Option<&Followed> {
        self.topics.as_ref()?.followed.get(index)
    }

    fn followed_mut(&mut self, index: usize) -> Option<Edit<'_>> {
        self.topics.as_mut()?.followed.edit(index)
    }

    /// With room for one message only, the inbox is next.
    fn note_turn(&mut self) {
        if let Some(topics) = &mut self.topics {
            topics.next = false;
        }
    }

    /// Notes that a message goes out.
    fn hand_out(&mut self, now: Now, index: usize, id: EntryId, payload_bytes: usize, actions: &mut Vec<Action>) {
        let due_ms = now.mono_ms + self.config.ack_timeout_ms;
        let bytes = charged_bytes(payload_bytes);
        let Some(topics) = &mut self.topics else { return };
        topics.in_flight += 1;
        topics.bytes += bytes as usize;
        topics.redeliver_at_ms = topics.redeliver_at_ms.min(due_ms);
        let Some(mut followed) = topics.followed.edit(index) else { return };
        followed.position = id;
        followed.outstanding.insert(Sent::new(id, bytes, now.mono_ms, due_ms));
        actions.push(Action::Delivered { ms: id.ms, attempt: 1 });
    }

    /// Notes that a message is not for this client.
    fn pass_over(&mut self, index: usize, id: EntryId, fate: &Fate, actions: &mut Vec<Action>) {
        match fate {
            Fate::Expired => actions.push(Action::Expired),
            Fate::TooBig => {
                actions.push(Action::Dropped { reason: GapReason::TooBig, count: 1 });
                self.too_big += 1;
            }
            _ => {}
        }
        if let Some(mut followed) = self.followed_mut(index) {
            followed.pass(id);
        }
    }

    /// Reads of topics that this session has to catch up with.
    pub(super) fn poll_topic_reads(&mut self, commands: &mut Vec<Command>) {
        let mut room = self.topic_room();
        let entry_bytes = self.entry_bytes.max(1) as usize;
        let bytes_max = self.config.in_flight_bytes_max;
        let bytes_taken = self.ledger.bytes();
        let Some(topics) = &mut self.topics else { return };
        let mut waiting = topics.followed.wants().reads;
        if room == 0 || waiting == 0 {
            return;
        }
        let fitting = (bytes_max.saturating_sub(bytes_taken + topics.bytes) / entry_bytes).max(1);
        room = room.min(fitting);
        let share = room.div_ceil(waiting);
        let count = topics.followed.len();
        let first = topics.turn;
        for index in (0..count).map(|offset| (first + offset) % count) {
            if room == 0 || waiting == 0 {
                break;
            }
            if !topics.followed.get(index).is_some_and(Followed::wants_read) {
                continue;
            }
            let Some(mut followed) = topics.followed.edit(index) else { return };
            waiting -= 1;
            let count = share.min(room);
            room -= count;
            // Cleared when the read is sent: an entry that is appended after it comes as a batch.
            followed.dirty = false;
            followed.reading = true;
            followed.head_before = followed.head.unwrap_or_default();
            topics.turn = index + 1;
            let (topic, after) = (followed.topic.clone(), followed.position);
            commands.push(Command::ReadTopic { topic, after, count: count as u16 });
        }
    }

    /// `trimmed` is the last entry that retention took from the log.
    pub(in super::super) fn handle_topic_read<B: AsRef<[u8]>>(
        &mut self,
        now: Now,
        (topic, count): (&Topic, u16),
        entries: &[Entry<B>],
        trimmed: EntryId,
        actions: &mut Vec<Action>,
    ) {
        let Some(index) = self.find_topic(topic) else { return };
        let Some(mut followed) = self.followed_mut(index) else { return };
        let was_reading = std::mem::take(&mut followed.reading) && followed.is_open();
        drop(followed);
        if !was_reading {
            return;
        }
        if !self.is_live() || self.attach != Attach::Done {
            if let Some(mut followed) = self.followed_mut(index) {
                followed.dirty = true;
            }
            return;
        }
        let mut frame = MessagesFrame::new(self.options.frame_bytes_max as usize);
        if self.followed(index).is_some_and(|followed| followed.position < trimmed) {
            actions.push(Action::Dropped { reason: GapReason::Retention, count: 1 });
            self.gone += 1;
            if let Some(mut followed) = self.followed_mut(index) {
                followed.pass(trimmed);
            }
        }
        let mut room = self.topic_room();
        let mut complete = entries.len() < usize::from(count);
        for entry in entries {
            if self.followed(index).is_none_or(|followed| entry.id <= followed.position) {
                continue;
            }
            let envelope = entry.envelope();
            self.expect_bytes(envelope.payload_bytes);
            match self.fate(now, entry.id, 1, &envelope) {
                Fate::Deliver if room == 0 => {
                    complete = false;
                    break;
                }
                Fate::Deliver => {
                    room -= 1;
                    self.hand_out(now, index, entry.id, envelope.payload_bytes, actions);
                    if let Some(full) = frame.push(|text| entry.encode_topic_into(topic, 1, text)) {
                        actions.push(Action::Send(full));
                    }
                }
                fate => self.pass_over(index, entry.id, &fate, actions),
            }
        }
        self.finish_frame(now, &mut frame, actions);
        if let Some(mut followed) = self.followed_mut(index) {
            if complete {
                // There was nothing more when Redis executed the read, and the node had seen this much before.
                let seen = followed.head_before;
                followed.pass(seen);
            } else {
                followed.dirty = true;
            }
        }
        self.note_turn();
    }

    pub(in super::super) fn handle_topic_not_read(&mut self, topic: &Topic) {
        if let Some(mut followed) = self.topics.as_mut().and_then(|topics| topics.followed.find(topic)) {
            followed.reading = false;
            followed.dirty = true;
        }
    }

    /// Redeliveries.
    pub(super) fn poll_topic_rereads(&mut self, now: Now, commands: &mut Vec<Command>) {
        let Some(topics) = &mut self.topics else { return };
        if topics.redeliver_at_ms > now.mono_ms {
            return;
        }
        for index in 0..topics.followed.len() {
            let Some(mut followed) = topics.followed.edit(index).filter(|followed| !followed.rereading) else {
                continue;
            };
            let ids = followed.outstanding.take_due(now.mono_ms, REREAD_COUNT_MAX);
            if !ids.is_empty() {
                followed.rereading = true;
                commands.push(Command::RereadTopic { topic: followed.topic.clone(), ids });
            }
        }
        self.note_redeliveries();
    }

    fn note_redeliveries(&mut self) {
        let Some(topics) = &mut self.topics else { return };
        let open = topics.followed.iter().filter(|followed| !followed.rereading);
        topics.redeliver_at_ms = open.map(|followed| followed.outstanding.earliest_due_ms()).min().unwrap_or(u64::MAX);
    }

    pub(in super::super) fn handle_topic_reread<B: AsRef<[u8]>>(
        &mut self,
        now: Now,
        (topic, ids): (&Topic, &[EntryId]),
        entries: &[Entry<B>],
        actions: &mut Vec<Action>,
    ) {
        let Some(index) = self.find_topic(topic) else { return };
        if !self.is_live() {
            return;
        }
        let (first_ms, longest_ms) = (self.config.ack_timeout_ms, self.config.ack_timeout_max_ms);
        let write_by_ms = self.write_by_ms(now);
        let mut frame = MessagesFrame::new(self.options.frame_bytes_max as usize);
        for id in ids {
            let entry = entries.iter().find(|entry| entry.id == *id);
            let expired = entry.is_some_and(|entry| entry.envelope().expiry.is_over(now.unix_ms));
            let Some(topics) = &mut self.topics else { return };
            let Some(mut followed) = topics.followed.edit(index) else { return };
            let Some(entry) = entry.filter(|_| !expired) else {
                // Trimmed, deleted or expired: it is done with.
                let Some(sent) = followed.outstanding.finish(*id) else { continue };
                followed.advance();
                // What was acknowledged behind it may be waited for.
                let moved = followed.is_unwritten();
                drop(followed);
                if moved {
                    topics.write_at_ms = topics.write_at_ms.min(write_by_ms);
                }
                topics.in_flight -= 1;
                topics.bytes -= sent.bytes as usize;
                if expired {
                    actions.push(Action::Expired);
                } else {
                    self.gone += 1;
                    actions.push(Action::Dropped { reason: GapReason::Retention, count: 1 });
                }
                continue;
            };
            let mut attempt = 2;
            let known = followed.outstanding.update(*id, |sent| {
                sent.attempt = sent.attempt.saturating_add(1);
                sent.sent_ms = now.mono_ms;
                let factor = 1u64.checked_shl(sent.attempt - 1).unwrap_or(u64::MAX);
                sent.due_ms = now.mono_ms.saturating_add(first_ms.saturating_mul(factor).min(longest_ms));
                attempt = sent.attempt;
            });
            if !known {
                continue;
            }
            if let Some(full) = frame.push(|text| entry.encode_topic_into(topic, attempt, text)) {
                actions.push(Action::Send(full));
            }
            actions.push(Action::Delivered { ms: id.ms, attempt });
        }
        self.finish_frame(now, &mut frame, actions);
        if let Some(mut followed) = self.followed_mut(index) {
            followed.rereading = false;
        }
        self.note_redeliveries();
    }

    pub(in super::super) fn handle_topic_not_reread(&mut self, now: Now, topic: &Topic, ids: &[EntryId]) {
        let Some(mut followed) = self.topics.as_mut().and_then(|topics| topics.followed.find(topic)) else { return };
        followed.rereading = false;
        for id in ids {
            followed.outstanding.update(*id, |sent| sent.due_ms = now.mono_ms + REREAD_RETRY_MS);
        }
        drop(followed);
        self.note_redeliveries();
    }

    pub(in super::super) fn nack_topic(&mut self, now: Now, topic: &Topic, id: EntryId, delay_ms: u64) {
        let Some(topics) = &mut self.topics else { return };
        let Some(mut followed) = topics.followed.find(topic) else { return };
        let due_ms = now.mono_ms + delay_ms;
        followed.outstanding.update(id, |sent| {
            if sent.due_ms != u64::MAX {
                sent.due_ms = due_ms;
            }
        });
        topics.redeliver_at_ms = topics.redeliver_at_ms.min(due_ms);
    }
}
