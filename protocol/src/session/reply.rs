//! Which reply goes where.

use super::wire::{Action, Command, Failure, Now, Reply};
use super::{Phase, Session};
use crate::close::CloseCode;

impl Session {
    /// Takes a command back together with its reply.
    pub fn handle_reply<B: AsRef<[u8]>>(
        &mut self,
        now: Now,
        command: Command,
        reply: Reply<B>,
        actions: &mut Vec<Action>,
    ) {
        match (command, reply) {
            (Command::Attach(request), Reply::Attached(outcome)) => {
                self.handle_attached(now, &request, *outcome, actions)
            }
            (Command::Release { .. }, Reply::Done) => self.phase = Phase::Done,
            (Command::Forget { .. }, Reply::Forgotten(was_known)) => {
                self.forgotten = was_known;
                self.close(CloseCode::Normal, actions);
            }
            (Command::Touch { .. } | Command::Announce { .. }, Reply::Done) => {}
            (Command::Record { receipts }, Reply::Recorded(fresh)) => self.handle_recorded(receipts, &fresh),
            (Command::Ack(batch), Reply::Acked { own, removed, withheld, generation }) => {
                let count = own + removed.iter().filter(|removed| **removed).count() as u32;
                actions.push(Action::Acked { count, bytes: batch.own_bytes });
                self.handle_acked(&batch, &removed, withheld, generation, actions);
            }
            (Command::AckGap { id, reference }, Reply::Done) => {
                self.handle_gap_acked(id, reference.as_deref(), actions)
            }
            (Command::SetAside { .. }, Reply::SetAside(gap)) => self.handle_gap(gap, actions),
            (Command::Sweep { expected }, Reply::Swept { pending, generation, owned, dismissed }) => {
                self.handle_swept(now, expected, pending, generation, actions);
                match dismissed {
                    Some(dismissal) => self.handle_dismissed_unheard(dismissal, actions),
                    None if !owned => self.claim_record(now),
                    None => {}
                }
            }
            (Command::ReadPending { count, .. }, Reply::PendingRead(entries)) => {
                self.handle_pending_read(now, count, entries, actions);
            }
            (Command::ReadNew { count }, Reply::NewRead(entries)) => {
                self.handle_new_read(now, count, &entries, actions)
            }
            (Command::LoadFollows { .. }, Reply::FollowsLoaded(follows)) => {
                self.handle_follows_loaded(now, *follows, actions)
            }
            (Command::LoadCursor { topic, .. }, Reply::CursorLoaded { at, trimmed, end }) => {
                self.handle_cursor_loaded(now, &topic, (at, trimmed, end), actions);
            }
            (Command::WriteCursor { topic, id, rewind, confirm }, Reply::CursorWritten { generation }) => {
                self.handle_cursor_written(now, (&topic, id, rewind), confirm.then_some(generation), actions);
            }
            (Command::ReadTopic { topic, count, .. }, Reply::TopicRead { entries, trimmed }) => {
                self.handle_topic_read(now, (&topic, count), &entries, trimmed, actions);
            }
            (Command::RereadTopic { topic, ids }, Reply::TopicReread(entries)) => {
                self.handle_topic_reread(now, (&topic, &ids), &entries, actions);
            }
            (Command::Follow { topics, follow, reference }, Reply::Followed(outcome)) => {
                self.handle_followed(now, (topics, follow, reference), outcome, actions);
            }
            (Command::Claim { ids }, Reply::Claimed { pending, entries }) => {
                self.handle_claimed(now, &ids, &pending, &entries, actions);
            }
            (command, Reply::Failed(failure)) => self.handle_failed(now, command, failure, actions),
            // A reply of another shape than its command's: treated like a refusal, tried again later.
            (command, _) => self.handle_failed(now, command, Failure::Unexpected, actions),
        }
    }
}
