//! New entries of a topic, encoded once for everybody who follows it.

use std::ops::Range;

use crate::frame::MessagesFrame;
use crate::id::EntryId;
use crate::message::{Entry, Envelope, Expiry};
use crate::topic::Topic;

/// Entries that a node has read from a topic's log, in order and without a hole after `prev`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicBatch {
    topic: Topic,
    /// The node had seen the log up to here before, or retention has taken what it had not seen.
    prev: EntryId,
    messages: Vec<TopicMessage>,
    /// The messages' JSON, one after the other.
    texts: String,
    /// One frame with all of them, for whom it fits.
    frame: Option<String>,
    /// Whether every message is for everybody.
    is_plain: bool,
}

/// One of them: what its envelope says, and where its JSON stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TopicMessage {
    pub(super) id: EntryId,
    pub(super) payload_bytes: usize,
    expiry: Expiry,
    aim: Option<Box<[u8]>>,
    receipt: bool,
    text: Range<usize>,
}

impl TopicMessage {
    pub(super) fn envelope(&self) -> Envelope<'_> {
        let Self { payload_bytes, expiry, ref aim, receipt, .. } = *self;
        Envelope { payload_bytes, expiry, aim: aim.as_deref(), receipt }
    }
}

impl TopicBatch {
    /// Encodes entries that were read after `seen`; `trimmed` is the last entry that retention had taken by then. Who
    /// was not given everything up to `trimmed` must find out what it missed, by a read of its own. Payloads over
    /// `payload_bytes_max` are not encoded: nobody is given them.
    #[must_use]
    pub fn new<B: AsRef<[u8]>>(
        topic: Topic,
        (seen, trimmed): (EntryId, EntryId),
        entries: &[Entry<B>],
        payload_bytes_max: usize,
        frame_bytes_max: u32,
    ) -> Self {
        let mut texts = String::new();
        let mut messages = Vec::with_capacity(entries.len());
        for entry in entries {
            let envelope = entry.envelope();
            let begin = texts.len();
            if envelope.payload_bytes <= payload_bytes_max {
                entry.encode_topic_into(&topic, 1, &mut texts);
            }
            let Envelope { payload_bytes, expiry, aim, receipt } = envelope;
            let (aim, text) = (aim.map(Into::into), begin..texts.len());
            messages.push(TopicMessage { id: entry.id, payload_bytes, expiry, aim, receipt, text });
        }
        let is_for_everybody =
            |message: &TopicMessage| !message.text.is_empty() && message.envelope().is_for_everybody();
        let is_plain = messages.iter().all(is_for_everybody);
        let mut batch = Self { topic, prev: seen.max(trimmed), messages, texts, frame: None, is_plain };
        if batch.is_plain {
            let mut frame = MessagesFrame::new(frame_bytes_max as usize);
            let fits =
                batch.messages.iter().all(|message| frame.push(|text| text.push_str(batch.text(message))).is_none());
            batch.frame = frame.finish().filter(|_| fits);
        }
        batch
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Up to where the node has seen the log with this batch.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.messages.last().map_or(self.prev, |message| message.id.max(self.prev))
    }

    /// About as many bytes of memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<TopicMessage>() * self.messages.len() + self.texts.len() + self.frame.as_ref().map_or(0, String::len)
    }

    /// The frame of [`Action::SendBatch`](crate::session::Action::SendBatch).
    #[must_use]
    pub fn frame(&self) -> Option<&str> {
        self.frame.as_deref()
    }

    pub(super) fn prev(&self) -> EntryId {
        self.prev
    }

    pub(super) fn messages(&self) -> &[TopicMessage] {
        &self.messages
    }

    pub(super) fn text(&self, message: &TopicMessage) -> &str {
        &self.texts[message.text.clone()]
    }

    /// Whether the whole batch may go to a client that takes frames of this size, as it is.
    pub(super) fn is_shareable(&self, frame_bytes_max: u32) -> bool {
        let fits = |frame: &String| self.messages.len() == 1 || frame.len() <= frame_bytes_max as usize;
        self.frame.as_ref().is_some_and(fits)
    }
}
