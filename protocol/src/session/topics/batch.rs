//! New entries of a topic, encoded once for everybody who follows it.

use std::ops::Range;

use crate::frame::MessagesFrame;
use crate::id::EntryId;
use crate::message::{Entry, Envelope};
use crate::topic::Topic;

/// Entries that a node has read from a topic's log, in order and without a hole after `prev`.
#[derive(Clone, Debug)]
pub struct TopicBatch<'a> {
    topic: Topic,
    /// The node had seen the log up to here before, or retention has taken what it had not seen.
    prev: EntryId,
    messages: Vec<TopicMessage<'a>>,
    /// The messages' JSON, one after the other.
    texts: String,
    /// One frame with all of them, for whom it fits.
    frame: Option<String>,
    /// Whether every message is for everybody.
    is_plain: bool,
}

#[derive(Clone, Debug)]
pub(super) struct TopicMessage<'a> {
    pub(super) id: EntryId,
    pub(super) envelope: Envelope<'a>,
    text: Range<usize>,
}

impl<'a> TopicBatch<'a> {
    /// Encodes entries that were read after `seen`; `trimmed` is the last entry that retention had taken by then. Who
    /// was not given everything up to `trimmed` must find out what it missed, by a read of its own. Payloads over
    /// `payload_bytes_max` are not encoded: nobody is given them.
    #[must_use]
    pub fn new<B: AsRef<[u8]>>(
        topic: Topic,
        (seen, trimmed): (EntryId, EntryId),
        entries: &'a [Entry<B>],
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
            messages.push(TopicMessage { id: entry.id, envelope, text: begin..texts.len() });
        }
        let is_plain = messages.iter().all(|message| !message.text.is_empty() && message.envelope.is_for_everybody());
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

    /// The frame of [`Action::SendBatch`](crate::session::Action::SendBatch).
    #[must_use]
    pub fn frame(&self) -> Option<&str> {
        self.frame.as_deref()
    }

    pub(super) fn prev(&self) -> EntryId {
        self.prev
    }

    pub(super) fn messages(&self) -> &[TopicMessage<'a>] {
        &self.messages
    }

    pub(super) fn text(&self, message: &TopicMessage<'_>) -> &str {
        &self.texts[message.text.clone()]
    }

    /// Whether the whole batch may go to a client that takes frames of this size, as it is.
    pub(super) fn is_shareable(&self, frame_bytes_max: u32) -> bool {
        let fits = |frame: &String| self.messages.len() == 1 || frame.len() <= frame_bytes_max as usize;
        self.frame.as_ref().is_some_and(fits)
    }
}
