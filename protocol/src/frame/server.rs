//! Frames that the server sends.

use serde::Serialize;

use crate::code::ErrorCode;
use crate::id::EntryId;
use crate::name::Name;
use crate::topic::Topic;

/// Why messages may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// Retention dropped them, or somebody deleted them.
    Retention,
    /// Redis may have lost or rewound data.
    Epoch,
    /// The device had been forgotten.
    DeviceExpired,
    /// They were over the payload limit.
    TooBig,
}

impl GapReason {
    /// The reason as it stands in frames and in a device's record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Epoch => "epoch",
            Self::DeviceExpired => "device_expired",
            Self::TooBig => "too_big",
        }
    }

    /// The reverse of [`GapReason::as_str`]; what a later version may write reads as `retention`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "epoch" => Self::Epoch,
            "device_expired" => Self::DeviceExpired,
            "too_big" => Self::TooBig,
            _ => Self::Retention,
        }
    }
}

/// An open gap of a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gap {
    /// What the client acks to close it.
    pub id: Box<str>,
    /// Why.
    pub reason: GapReason,
    /// How many messages, as far as known.
    pub count: u64,
}

/// The members of `ready`.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    /// The user, from the token.
    pub user: String,
    /// The device.
    pub device: String,
    /// Generation of this session.
    pub generation: u64,
    /// Whether the device is new.
    pub created: bool,
    /// Current epoch.
    pub epoch: String,
    /// Unacknowledged plus undelivered messages; `null` when Redis does not know cheaply.
    pub pending: Option<u64>,
    /// Granted window.
    pub window: u16,
    /// Granted heartbeat.
    pub heartbeat_ms: u32,
    /// Ack time-out.
    pub ack_timeout_ms: u64,
    /// Server's clock, Unix ms.
    pub now_ms: u64,
    /// When the token expires, Unix ms.
    pub expires_at_ms: u64,
    /// What this server can do beyond the basics.
    pub features: &'static [&'static str],
}

/// Optional features of this version, as told in `ready`.
pub const FEATURES: [&str; 3] = ["nack", "auth", "topics"];

/// A frame to a client, except `messages` (see [`MessagesFrame`]).
#[derive(Clone, Debug)]
pub enum ServerFrame {
    /// The session begins.
    Ready(Box<Ready>),
    /// Redis executed these acks.
    Acked(Vec<AckedId>),
    /// A fresh token was accepted.
    Authed {
        /// When it expires, Unix ms.
        expires_at_ms: u64,
    },
    /// These topics are followed now, or are not any more.
    Followed {
        /// As the client named them.
        topics: Vec<Name>,
        /// Whether they are followed.
        follow: bool,
    },
    /// Messages may be missing.
    Gap {
        /// The gap.
        gap: Gap,
        /// Current epoch.
        epoch: String,
    },
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
    /// Something went wrong.
    Error {
        /// For programs.
        code: ErrorCode,
        /// For people.
        message: String,
        /// When to try again.
        retry_after_ms: Option<u64>,
    },
}

/// An id in an `acked` frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AckedId {
    /// A message of the inbox.
    Message(EntryId),
    /// A message of a topic.
    Topic(Topic, EntryId),
    /// A gap.
    Gap(Box<str>),
}

impl ServerFrame {
    /// The frame as JSON text, with the `ref` of the frame that it answers.
    #[must_use]
    pub fn encode(&self, reference: Option<&str>) -> String {
        let mut text = String::with_capacity(96);
        match self {
            Self::Ready(ready) => {
                // A struct of texts and numbers always serializes.
                let body = serde_json::to_string(ready).unwrap_or_default();
                text.push_str(r#"{"type":"ready","#);
                text.push_str(&body[1..body.len() - 1]);
            }
            Self::Acked(ids) => {
                text.push_str(r#"{"type":"acked","ids":["#);
                for (index, id) in ids.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    match id {
                        AckedId::Message(id) => {
                            text.push('"');
                            id.push_to(&mut text);
                            text.push('"');
                        }
                        AckedId::Topic(topic, id) => {
                            text.push('"');
                            text.push_str(topic.as_str());
                            text.push('/');
                            id.push_to(&mut text);
                            text.push('"');
                        }
                        // The client's own text, whatever stands behind its `gap-`.
                        AckedId::Gap(id) => push_string(&mut text, id),
                    }
                }
                text.push(']');
            }
            Self::Authed { expires_at_ms } => {
                text.push_str(r#"{"type":"authed","expires_at_ms":"#);
                push_number(&mut text, *expires_at_ms);
            }
            Self::Followed { topics, follow } => {
                text.push_str(if *follow {
                    r#"{"type":"followed","topics":["#
                } else {
                    r#"{"type":"unfollowed","topics":["#
                });
                for (index, topic) in topics.iter().enumerate() {
                    text.push_str(if index > 0 { ",\"" } else { "\"" });
                    text.push_str(topic.as_str());
                    text.push('"');
                }
                text.push(']');
            }
            Self::Gap { gap, epoch } => {
                text.push_str(r#"{"type":"gap","id":"#);
                push_string(&mut text, &gap.id);
                text.push_str(r#","epoch":"#);
                push_string(&mut text, epoch);
                text.push_str(r#","reason":""#);
                text.push_str(gap.reason.as_str());
                text.push_str(r#"","count":"#);
                push_number(&mut text, gap.count);
            }
            Self::Ping => text.push_str(r#"{"type":"ping""#),
            Self::Pong => text.push_str(r#"{"type":"pong""#),
            Self::Error { code, message, retry_after_ms } => {
                text.push_str(r#"{"type":"error","code":""#);
                text.push_str(code.as_str());
                text.push_str(r#"","message":"#);
                push_string(&mut text, message);
                if let Some(retry_after_ms) = retry_after_ms {
                    text.push_str(r#","retry_after_ms":"#);
                    push_number(&mut text, *retry_after_ms);
                }
            }
        }
        if let Some(reference) = reference {
            text.push_str(r#","ref":"#);
            push_string(&mut text, reference);
        }
        text.push('}');
        text
    }
}

/// Appends a JSON string.
pub(crate) fn push_string(text: &mut String, value: &str) {
    // A text always serializes.
    text.push_str(&serde_json::to_string(value).unwrap_or_default());
}

/// Appends a number.
pub(crate) fn push_number(text: &mut String, number: u64) {
    text.push_str(itoa::Buffer::new().format(number));
}

/// Builds `messages` frames from encoded messages, none over the limit unless it holds a single message.
#[derive(Debug)]
pub struct MessagesFrame {
    text: String,
    count: usize,
    bytes_max: usize,
}

const MESSAGES_HEAD: &str = r#"{"type":"messages","messages":["#;
const MESSAGES_TAIL: &str = "]}";
/// Room that a frame has at first: enough for one message of usual size.
const FIRST_BYTES: usize = 384;

impl MessagesFrame {
    /// An empty frame for a client that takes `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { text: String::new(), count: 0, bytes_max }
    }

    /// Adds the message that `encode` appends; gives back a full frame if it had to be closed first.
    #[must_use]
    pub fn push(&mut self, encode: impl FnOnce(&mut String)) -> Option<String> {
        if self.count == 0 {
            self.text.reserve(FIRST_BYTES);
        }
        self.text.push_str(if self.count == 0 { MESSAGES_HEAD } else { "," });
        let begin = self.text.len();
        encode(&mut self.text);
        self.count += 1;
        if self.count == 1 || self.text.len() + MESSAGES_TAIL.len() <= self.bytes_max {
            return None;
        }
        let mut next = String::with_capacity(MESSAGES_HEAD.len() + self.text.len() - begin + MESSAGES_TAIL.len());
        next.push_str(MESSAGES_HEAD);
        next.push_str(&self.text[begin..]);
        let mut full = std::mem::replace(&mut self.text, next);
        full.truncate(begin - 1);
        full.push_str(MESSAGES_TAIL);
        self.count = 1;
        Some(full)
    }

    /// The frame so far, if it holds any message; begins a new one.
    #[must_use]
    pub fn finish(&mut self) -> Option<String> {
        if self.count == 0 {
            return None;
        }
        self.count = 0;
        let mut text = std::mem::take(&mut self.text);
        text.push_str(MESSAGES_TAIL);
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(frame: &ServerFrame, reference: Option<&str>) -> serde_json::Value {
        serde_json::from_str(&frame.encode(reference)).unwrap()
    }

    #[test]
    fn every_frame_is_json_and_echoes_its_ref() {
        let gap = Gap { id: Box::from("gap-1"), reason: GapReason::TooBig, count: 3 };
        let frames = [
            ServerFrame::Acked(vec![AckedId::Message(EntryId { ms: 1, seq: 2 }), AckedId::Gap(Box::from("gap-1"))]),
            ServerFrame::Acked(vec![]),
            ServerFrame::Acked(vec![AckedId::Topic(Topic::Broadcast, EntryId { ms: 1, seq: 2 })]),
            ServerFrame::Followed { topics: vec![Name::parse("a").unwrap(), Name::parse("b").unwrap()], follow: true },
            ServerFrame::Followed { topics: vec![], follow: false },
            ServerFrame::Authed { expires_at_ms: 5 },
            ServerFrame::Gap { gap, epoch: "1.2".to_owned() },
            ServerFrame::Ping,
            ServerFrame::Pong,
            ServerFrame::Error { code: ErrorCode::BadId, message: "a \"b\"".to_owned(), retry_after_ms: Some(7) },
        ];
        for frame in frames {
            assert_eq!(parsed(&frame, Some("x\"y"))["ref"], "x\"y", "{frame:?}");
            assert!(parsed(&frame, None).get("ref").is_none());
        }
    }

    #[test]
    fn a_gap_id_that_a_client_made_up_comes_back_as_a_text() {
        let frame = ServerFrame::Acked(vec![AckedId::Gap(Box::from("gap-\"]\n"))]);
        assert_eq!(parsed(&frame, None)["ids"], serde_json::json!(["gap-\"]\n"]));
    }

    #[test]
    fn frames_stay_within_the_limit_unless_one_message_fills_them() {
        let mut frame = MessagesFrame::new(100);
        let small = r#"{"id":"1-0","data":"aaaaaaaaaaaa"}"#;
        assert_eq!(frame.push(|text| text.push_str(small)), None);
        let first = frame.push(|text| text.push_str(small)).expect("two do not fit");
        assert!(first.len() <= 100 && serde_json::from_str::<serde_json::Value>(&first).is_ok());
        let big = format!("\"{}\"", "x".repeat(200));
        assert!(frame.push(|text| text.push_str(&big)).is_some());
        let last = frame.finish().expect("the big one");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&last).unwrap()["messages"][0].as_str().unwrap().len(),
            200
        );
        assert_eq!(frame.finish(), None);
    }
}
