//! The producers' side: every message that was sent, what was answered, and under which ids it was seen.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use super::entry_id::EntryId;
use super::faults::Faults;
use super::violation::Violation;

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stream {
    /// Of this user.
    Inbox(u32),
    Topic(u32),
}

/// A message, whatever number of times it was sent.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) tag: Rc<str>,
    pub(crate) stream: Stream,
    keyed: bool,
    /// It asks for receipts.
    pub(crate) asks: bool,
    attempts: u16,
    published: u16,
    refused: u16,
    /// Line and time of the first attempt.
    pub(crate) line: u64,
    pub(crate) publish_us: u64,
    /// When the answer came that created it.
    pub(crate) accepted_us: u64,
    /// The first id that an answer gave, and that a delivery had. Others are rare and stand in `Messages::more`.
    said: Option<EntryId>,
    seen: Option<EntryId>,
    /// Faults when it was sent first.
    pub(crate) faults: Range<u32>,
}

impl Message {
    pub(crate) fn was_accepted(&self) -> bool {
        self.published > 0
    }

    pub(crate) fn was_delivered(&self) -> bool {
        self.seen.is_some()
    }

    pub(crate) fn was_refused(&self) -> bool {
        self.refused == self.attempts
    }

    pub(crate) fn was_sent_once(&self) -> bool {
        self.attempts == 1
    }

    fn unknown(&self) -> u16 {
        self.attempts.saturating_sub(self.published).saturating_sub(self.refused)
    }
}

/// Ids beyond the first, of a message that exists more than once.
#[derive(Debug, Default)]
struct More {
    said: Vec<EntryId>,
    seen: Vec<EntryId>,
    last_us: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Messages {
    numbers: HashMap<Rc<str>, u32>,
    all: Vec<Message>,
    more: HashMap<u32, More>,
    /// Numbers of each stream's messages, in order of their first attempts.
    of: HashMap<Stream, Vec<u32>>,
}

impl Messages {
    pub(crate) fn publish(
        &mut self,
        line: u64,
        now_us: u64,
        tag: &str,
        stream: Stream,
        (keyed, asks): (bool, bool),
        faults: Range<u32>,
    ) {
        if let Some(number) = self.numbers.get(tag) {
            self.all[*number as usize].attempts += 1;
            return;
        }
        let number = u32::try_from(self.all.len()).expect("a history has fewer than 2^32 messages");
        let tag: Rc<str> = tag.into();
        self.numbers.insert(Rc::clone(&tag), number);
        let message = Message {
            tag,
            stream,
            keyed,
            asks,
            attempts: 1,
            published: 0,
            refused: 0,
            line,
            publish_us: now_us,
            accepted_us: now_us,
            said: None,
            seen: None,
            faults,
        };
        self.all.push(message);
        self.of.entry(stream).or_default().push(number);
    }

    pub(crate) fn find(&self, tag: &str) -> Option<u32> {
        self.numbers.get(tag).copied()
    }

    pub(crate) fn message(&self, number: u32) -> &Message {
        &self.all[number as usize]
    }

    pub(crate) fn all(&self) -> &[Message] {
        &self.all
    }

    pub(crate) fn of(&self, stream: Stream) -> &[u32] {
        self.of.get(&stream).map_or(&[], Vec::as_slice)
    }

    /// Notes an answer; says whether it is the first that accepted the message.
    pub(crate) fn published(&mut self, number: u32, now_us: u64, id: EntryId, created: bool) -> bool {
        let message = &mut self.all[number as usize];
        message.published += 1;
        if created || message.published == 1 {
            message.accepted_us = now_us;
        }
        let said = *message.said.get_or_insert(id);
        if said != id {
            let more = self.more.entry(number).or_default();
            more.last_us = now_us;
            if !more.said.contains(&id) {
                more.said.push(id);
            }
        }
        self.all[number as usize].published == 1
    }

    pub(crate) fn refused(&mut self, number: u32) {
        self.all[number as usize].refused += 1;
    }

    pub(crate) fn seen(&mut self, number: u32, now_us: u64, id: EntryId) {
        let seen = *self.all[number as usize].seen.get_or_insert(id);
        if seen != id {
            let more = self.more.entry(number).or_default();
            more.last_us = now_us;
            if !more.seen.contains(&id) {
                more.seen.push(id);
            }
        }
    }

    pub(crate) fn ids_said(&self, number: u32) -> impl Iterator<Item = EntryId> {
        let more = self.more.get(&number).map_or(&[][..], |more| &more.said);
        self.all[number as usize].said.into_iter().chain(more.iter().copied())
    }

    fn ids_seen(&self, number: u32) -> impl Iterator<Item = EntryId> {
        let more = self.more.get(&number).map_or(&[][..], |more| &more.seen);
        self.all[number as usize].seen.into_iter().chain(more.iter().copied())
    }

    /// What is wrong with the ids of one message, when all is over.
    pub(crate) fn judge(&self, number: u32, faults: &Faults) -> Option<Violation> {
        let message = self.message(number);
        let tag = || message.tag.to_string();
        if message.was_refused() && message.was_delivered() {
            return Some(Violation::RefusedButDelivered { tag: tag() });
        }
        // Nearly every message: said and seen once, or not at all.
        if !self.more.contains_key(&number) && (message.said == message.seen || message.seen.is_none()) {
            return None;
        }
        let said: Vec<EntryId> = self.ids_said(number).collect();
        let mut strangers: Vec<EntryId> = self.ids_seen(number).filter(|id| !said.contains(id)).collect();
        let unknown = usize::from(message.unknown());
        if unknown == 0 && !strangers.is_empty() {
            return Some(Violation::WrongId { tag: tag(), published: list(&said), delivered: list(&strangers) });
        }
        let copies = said.len() + strangers.len();
        let allowed = if message.keyed {
            let last_us = self.more.get(&number).map_or(message.accepted_us, |more| more.last_us);
            1 + faults.losses_between(message.stream, message.publish_us, last_us.max(message.accepted_us))
        } else {
            usize::from(message.published) + unknown
        };
        if copies > allowed {
            strangers.splice(0..0, said);
            return Some(Violation::SeveralIds { tag: tag(), ids: list(&strangers) });
        }
        None
    }
}

fn list(ids: &[EntryId]) -> String {
    ids.iter().map(EntryId::to_string).collect::<Vec<_>>().join(", ")
}
