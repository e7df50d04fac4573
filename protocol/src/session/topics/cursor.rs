//! Cursors: where they begin, how acks move them, and when they are written.

use super::super::wire::{Action, Command, Now};
use super::super::{Forget, Session};
use super::{Begin, Followed, Knowledge};
use crate::frame::server::AckedId;
use crate::frame::{GapReason, ServerFrame};
use crate::id::EntryId;
use crate::topic::Topic;

/// An ack frame that is to be confirmed: those of its ids that cursors have not passed yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Waiting {
    reference: Option<Box<str>>,
    ids: Vec<(Topic, EntryId)>,
}

/// Cursors that a session asks for at once: it may follow thousands of topics.
const LOADS_MAX: usize = 256;
/// Time until a cursor is written again that Redis refused.
const WRITE_RETRY_MS: u64 = 1_000;

/// The id before everything of this time on.
fn before(ms: u64) -> EntryId {
    ms.checked_sub(1).map_or(EntryId::MIN, |ms| EntryId { ms, seq: u64::MAX })
}

/// Where the device begins in a topic without a cursor.
fn begin_in(followed: &Followed, begin: Option<Begin>) -> EntryId {
    let Begin { from_ms, first_seen_ms } = begin.unwrap_or_default();
    match followed.topic {
        Topic::Broadcast => before(first_seen_ms),
        Topic::Named(_) => before(from_ms.max(followed.since_ms)),
    }
}

impl Session {
    pub(super) fn poll_cursors(&mut self, now: Now, commands: &mut Vec<Command>) {
        let (is_ended, confirm) = (self.is_ended(), self.options.confirm && self.is_live());
        if is_ended && (self.forgotten || self.forget != Forget::No) {
            return;
        }
        let Some(topics) = &mut self.topics else { return };
        if !is_ended {
            let mut left = topics.followed.wants().cursors.min(LOADS_MAX);
            for index in 0..topics.followed.len() {
                if left == 0 {
                    break;
                }
                if topics.followed.get(index).is_none_or(|followed| followed.knowledge != Knowledge::Unknown) {
                    continue;
                }
                let Some(mut followed) = topics.followed.edit(index) else { continue };
                followed.knowledge = Knowledge::Asked;
                commands.push(Command::LoadCursor { topic: followed.topic.clone(), rewound: topics.rewound });
                left -= 1;
            }
        }
        if topics.write_at_ms > now.mono_ms && !is_ended {
            return;
        }
        topics.write_at_ms = u64::MAX;
        let mut left = topics.followed.wants().writes;
        for index in 0..topics.followed.len() {
            if left == 0 {
                break;
            }
            if !topics.followed.get(index).is_some_and(Followed::is_unwritten) {
                continue;
            }
            let Some(mut followed) = topics.followed.edit(index) else { continue };
            left -= 1;
            let (topic, id, rewind) = (followed.topic.clone(), followed.cursor, followed.rewind);
            let command = Command::WriteCursor { topic, id, rewind, confirm };
            if command.awaits_success() {
                followed.writing = Some(id);
            } else {
                followed.written = id;
            }
            commands.push(command);
        }
    }

    /// `at` is the cursor in Redis, `trimmed` the last entry that retention took from the log, `end` where the log ends.
    pub(in super::super) fn handle_cursor_loaded(
        &mut self,
        now: Now,
        topic: &Topic,
        (at, trimmed, end): (Option<EntryId>, EntryId, Option<EntryId>),
        actions: &mut Vec<Action>,
    ) {
        if self.is_ended() {
            return;
        }
        let Some(topics) = &mut self.topics else { return };
        let Ok(index) = topics.followed.position(topic) else { return };
        let Some(mut followed) = topics.followed.edit(index) else { return };
        if followed.knowledge != Knowledge::Asked {
            return;
        }
        followed.knowledge = Knowledge::Known;
        let begin = begin_in(&followed, topics.begin);
        followed.cursor = at.unwrap_or(EntryId::MIN).max(begin);
        if let Some(end) = end.filter(|end| followed.cursor > *end) {
            // Of an older epoch: kept, it would hide what is appended next, and what was since. Ids ran backwards, so
            // nobody knows which of the log is new.
            followed.cursor = begin.min(end);
            followed.rewind = at.filter(|at| *at > end);
            if followed.rewind.is_some() {
                topics.write_at_ms = now.mono_ms;
            }
        }
        followed.written = followed.cursor;
        followed.position = followed.cursor;
        if followed.cursor < trimmed {
            followed.pass(trimmed);
            self.gone += 1;
            actions.push(Action::Dropped { reason: GapReason::Retention, count: 1 });
        }
        followed.open();
    }

    /// Wake-ups of the topic arrive from now on; `head` is the last id that its log has given out.
    pub fn handle_topic_ready(&mut self, topic: &Topic, head: EntryId) {
        let Some(mut followed) = self.topics.as_mut().and_then(|topics| topics.followed.find(topic)) else { return };
        followed.head = Some(head);
        followed.open();
    }

    /// Acknowledges a message of a topic; false if it is not in flight and never was.
    pub(in super::super) fn ack_topic(
        &mut self,
        now: Now,
        topic: &Topic,
        id: EntryId,
        actions: &mut Vec<Action>,
    ) -> bool {
        let write_by_ms = self.write_by_ms(now);
        let Some(topics) = &mut self.topics else { return false };
        let Some(mut followed) = topics.followed.find(topic) else { return false };
        let Some(sent) = followed.outstanding.finish(id) else {
            // Acknowledged before, over this connection or another one; or never delivered.
            let was_given = followed.knowledge == Knowledge::Known
                && id <= followed.position
                && id > begin_in(&followed, topics.begin);
            if was_given && followed.is_unwritten() {
                topics.write_at_ms = topics.write_at_ms.min(write_by_ms);
            }
            return was_given;
        };
        followed.advance();
        let moved = followed.is_unwritten();
        topics.in_flight -= 1;
        topics.bytes -= sent.bytes as usize;
        actions.push(Action::Acknowledged { after_ms: now.mono_ms.saturating_sub(sent.sent_ms) });
        actions.push(Action::TopicAcked);
        if moved {
            topics.write_at_ms = topics.write_at_ms.min(write_by_ms);
        }
        true
    }

    /// When a cursor that moves now is to be written.
    pub(super) fn write_by_ms(&self, now: Now) -> u64 {
        now.mono_ms + if self.options.confirm { 0 } else { self.config.cursor_flush_ms }
    }

    /// Confirms acks when their cursors are in Redis.
    pub(in super::super) fn confirm_topic_acks(
        &mut self,
        now: Now,
        reference: Option<Box<str>>,
        ids: Vec<(Topic, EntryId)>,
        actions: &mut Vec<Action>,
    ) {
        if ids.is_empty() {
            return self.send(now, &ServerFrame::Acked(Vec::new()), reference.as_deref(), actions);
        }
        let Some(topics) = &mut self.topics else { return };
        topics.waiting.push(Waiting { reference, ids });
        self.confirm_written(now, actions);
    }

    pub(in super::super) fn confirmations_waiting(&self) -> usize {
        self.topics.as_ref().map_or(0, |topics| topics.waiting.len())
    }

    pub(super) fn confirm_written(&mut self, now: Now, actions: &mut Vec<Action>) {
        let Some(topics) = &mut self.topics else { return };
        let mut waiting = std::mem::take(&mut topics.waiting);
        let mut frames = Vec::new();
        waiting.retain_mut(|Waiting { reference, ids }| {
            let mut confirmed = Vec::new();
            ids.retain(|(topic, id)| {
                // A topic that is followed no more has no cursor: there is nothing left to wait for.
                let written = topics.followed.find(topic).is_none_or(|followed| *id <= followed.written);
                if written {
                    confirmed.push(AckedId::Topic(topic.clone(), *id));
                }
                !written
            });
            if !confirmed.is_empty() {
                frames.push((reference.clone(), confirmed));
            }
            !ids.is_empty()
        });
        topics.waiting = waiting;
        if self.is_live() {
            for (reference, ids) in frames {
                self.send(now, &ServerFrame::Acked(ids), reference.as_deref(), actions);
            }
        }
    }

    /// `generation`: as it was recorded after that, if this was asked for.
    pub(in super::super) fn handle_cursor_written(
        &mut self,
        now: Now,
        (topic, id, rewind): (&Topic, EntryId, Option<EntryId>),
        generation: Option<Option<u64>>,
        actions: &mut Vec<Action>,
    ) {
        let Some(topics) = &mut self.topics else { return };
        let Some(mut followed) = topics.followed.find(topic) else { return };
        if followed.writing.take() != Some(id) {
            return;
        }
        drop(followed);
        // A successor may have begun from the cursor as it was before: it gives these messages out again.
        let checked = generation.filter(|_| self.is_live());
        if checked.is_some_and(|generation| !self.check_generation(generation, actions)) {
            return self.handle_cursor_failed(now, topic);
        }
        let Some(topics) = &mut self.topics else { return };
        let Some(mut followed) = topics.followed.find(topic) else { return };
        followed.written = id;
        followed.rewind = followed.rewind.filter(|_| rewind.is_none());
        if followed.is_unwritten() {
            // Moved on meanwhile.
            topics.write_at_ms = topics.write_at_ms.min(now.mono_ms);
        }
        drop(followed);
        self.confirm_written(now, actions);
    }

    pub(in super::super) fn handle_cursor_failed(&mut self, now: Now, topic: &Topic) {
        let Some(topics) = &mut self.topics else { return };
        let Some(mut followed) = topics.followed.find(topic) else { return };
        if followed.writing.take().is_none() {
            // It was taken for written.
            followed.written = EntryId::MIN;
        }
        topics.write_at_ms = topics.write_at_ms.min(now.mono_ms + WRITE_RETRY_MS);
    }

    pub(in super::super) fn handle_cursor_not_loaded(&mut self, topic: &Topic) {
        if let Some(mut followed) = self.topics.as_mut().and_then(|topics| topics.followed.find(topic))
            && followed.knowledge == Knowledge::Asked
        {
            followed.knowledge = Knowledge::Unknown;
        }
    }
}
