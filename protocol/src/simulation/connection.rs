//! A simulated client's end of one connection: it parses the frames and remembers them.

use std::collections::VecDeque;

use serde_json::Value;

use crate::close::CloseCode;
use crate::id::EntryId;
use crate::topic::{MessageId, Topic};

/// What a node has sent and the client has not received yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Out {
    Frame(String),
    Close(CloseCode),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    pub node: usize,
    pub key: usize,
    pub wire: VecDeque<Out>,
    /// Whether it answers pings.
    pub answers: bool,
    /// Everything that was received, in order.
    pub frames: Vec<Value>,
    /// Length of each frame, in bytes.
    pub sizes: Vec<usize>,
    pub closed: Option<u16>,
}

impl Connection {
    pub fn new(node: usize, key: usize) -> Self {
        let (wire, frames, sizes) = (VecDeque::new(), Vec::new(), Vec::new());
        Self { node, key, wire, answers: true, frames, sizes, closed: None }
    }

    /// Takes one thing off the wire; the frame, if it is one.
    pub fn receive(&mut self) -> Option<Value> {
        match self.wire.pop_front()? {
            Out::Frame(text) => {
                assert_eq!(self.closed, None, "a frame after the close: {text}");
                let frame: Value = serde_json::from_str(&text).expect("the server sends JSON");
                self.frames.push(frame.clone());
                self.sizes.push(text.len());
                Some(frame)
            }
            Out::Close(code) => {
                assert_eq!(self.closed.replace(code.number()), None, "closed twice");
                None
            }
        }
    }

    /// Frames of a type.
    pub fn all(&self, kind: &str) -> Vec<&Value> {
        self.frames.iter().filter(|frame| frame["type"] == kind).collect()
    }

    /// The last frame of a type.
    pub fn last(&self, kind: &str) -> &Value {
        self.all(kind).pop().unwrap_or_else(|| panic!("no {kind} frame among {:?}", self.frames))
    }

    /// Messages as id and attempt, in the order in which they came.
    pub fn messages(&self) -> Vec<(EntryId, u64)> {
        self.frames.iter().flat_map(messages_of).collect()
    }

    pub fn ids(&self) -> Vec<EntryId> {
        self.messages().into_iter().map(|(id, _)| id).collect()
    }

    /// Ids that were confirmed.
    pub fn confirmed(&self) -> Vec<EntryId> {
        self.frames.iter().flat_map(confirmed_of).collect()
    }

    /// The code of the last error frame.
    pub fn error(&self) -> &str {
        self.last("error")["code"].as_str().expect("a code is a text")
    }
}

/// The messages of a frame that come from the inbox, each with its attempt.
pub fn messages_of(frame: &Value) -> Vec<(EntryId, u64)> {
    let messages = frame["messages"].as_array().map_or(&[][..], Vec::as_slice);
    messages.iter().filter_map(|message| Some((of_inbox(&message["id"])?, attempt_of(message)))).collect()
}

/// The messages of a frame that come from a topic, each with its attempt.
pub fn messages_of_topic(frame: &Value, topic: &Topic) -> Vec<(EntryId, u64)> {
    let messages = frame["messages"].as_array().map_or(&[][..], Vec::as_slice);
    messages.iter().filter_map(|message| Some((of_topic(&message["id"], topic)?, attempt_of(message)))).collect()
}

fn attempt_of(message: &Value) -> u64 {
    message["attempt"].as_u64().expect("an attempt is a number")
}

/// The messages of the inbox in an `acked` frame.
pub fn confirmed_of(frame: &Value) -> Vec<EntryId> {
    acked_of(frame).filter_map(of_inbox).collect()
}

/// The messages of a topic in an `acked` frame.
pub fn confirmed_of_topic(frame: &Value, topic: &Topic) -> Vec<EntryId> {
    acked_of(frame).filter_map(|id| of_topic(id, topic)).collect()
}

fn acked_of(frame: &Value) -> impl Iterator<Item = &Value> {
    let ids = if frame["type"] == "acked" { frame["ids"].as_array() } else { None };
    ids.into_iter().flatten().filter(|id| !id.as_str().is_some_and(|id| id.starts_with("gap-") && !id.contains('/')))
}

fn of_inbox(id: &Value) -> Option<EntryId> {
    match id_of(id) {
        MessageId::Inbox(id) => Some(id),
        MessageId::Topic(..) => None,
    }
}

fn of_topic(id: &Value, topic: &Topic) -> Option<EntryId> {
    match id_of(id) {
        MessageId::Topic(of, id) if of == *topic => Some(id),
        _ => None,
    }
}

fn id_of(value: &Value) -> MessageId {
    value.as_str().and_then(|id| MessageId::parse(id).ok()).expect("an id is a text")
}
