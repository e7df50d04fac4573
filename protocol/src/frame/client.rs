//! Frames that a client sends.

use std::borrow::Cow;

use serde::Deserialize;
use thiserror::Error;

use super::ack;
use crate::code::ErrorCode;
use crate::id::EntryId;
use crate::limits::{
    HEARTBEAT_MS_MAX, HEARTBEAT_MS_MIN, IDS_PER_FRAME_MAX, INSTANCE_BYTES_MAX, NACK_DELAY_MS_MAX, REF_BYTES_MAX,
    SERVER_FRAME_BYTES_MAX, SERVER_FRAME_BYTES_MIN, TOPICS_PER_FRAME_MAX, WINDOW_MAX,
};
use crate::name::Name;
use crate::topic::{MessageId, Topic};

/// A parsed client frame with its optional `ref`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Echoed in the reply or error.
    pub reference: Option<Box<str>>,
    /// What the client wants.
    pub frame: ClientFrame,
}

/// What a client can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFrame {
    /// The first frame of a connection.
    Connect(Box<Connect>),
    /// These messages (or gaps) are done with.
    Ack(Vec<AckId>),
    /// Deliver these again after a delay.
    Nack {
        /// Message ids.
        ids: Vec<MessageId>,
        /// Milliseconds, at most [`NACK_DELAY_MS_MAX`].
        delay_ms: u64,
    },
    /// A fresh token.
    Auth(Box<str>),
    /// Follow topics, or follow them no more.
    Follow {
        /// Topics, each once.
        topics: Vec<Name>,
        /// `follow`, or `unfollow`.
        follow: bool,
    },
    /// Delete this device.
    Forget,
    /// Answer with `pong`.
    Ping,
    /// The answer to a `ping`.
    Pong,
    /// A type that this version does not know.
    Unknown,
}

/// An id in an `ack`: a message or a gap. Gap ids begin with `gap-` and hold no slash, as those of a topic's messages do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AckId {
    /// A message of the inbox.
    Message(EntryId),
    /// A message of a topic.
    Topic(Topic, EntryId),
    /// A gap.
    Gap(Box<str>),
}

/// Where a new device begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartFrom {
    /// With everything that the inbox still holds.
    Start,
    /// With the next message.
    End,
}

/// The `connect` frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connect {
    /// JWT, unless it came as a header.
    pub token: Option<Box<str>>,
    /// The device; `default` if the client names none.
    pub device: Option<Name>,
    /// Messages in flight, 1 to [`WINDOW_MAX`].
    pub window: Option<u16>,
    /// Whether acks are confirmed.
    pub confirm: bool,
    /// Where a new device begins.
    pub from: Option<StartFrom>,
    /// Epoch of the client's last `ready`.
    pub epoch: Option<Box<str>>,
    /// Random id of the client object.
    pub instance: Option<Box<str>>,
    /// Number of this connection of the client object.
    pub seq: u64,
    /// Heartbeat that the client asks for, in milliseconds.
    pub heartbeat_ms: Option<u32>,
    /// Largest frame that the client wants, in bytes.
    pub max_frame_bytes: Option<u32>,
}

/// Why a client frame was refused. `reference` is the frame's `ref`, where it could be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct FrameError {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// The frame's `ref`.
    pub reference: Option<Box<str>>,
}

/// Every member of every frame. One flat shape parses without buffering, whatever the order of the members.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, rename = "ref")]
    reference: Option<Cow<'a, str>>,
    #[serde(borrow)]
    ids: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow)]
    topics: Option<Vec<Cow<'a, str>>>,
    delay_ms: Option<u64>,
    #[serde(borrow)]
    token: Option<Cow<'a, str>>,
    #[serde(borrow)]
    device: Option<Cow<'a, str>>,
    window: Option<u64>,
    confirm: Option<bool>,
    #[serde(borrow)]
    from: Option<Cow<'a, str>>,
    #[serde(borrow)]
    epoch: Option<Cow<'a, str>>,
    #[serde(borrow)]
    instance: Option<Cow<'a, str>>,
    seq: Option<u64>,
    heartbeat_ms: Option<u64>,
    max_frame_bytes: Option<u64>,
}

/// Longest message of a malformed frame, in bytes: the parser quotes a text of the wrong type, however long.
const ERROR_BYTES_MAX: usize = 200;

/// Beyond 2^53 numbers lose digits on their way through Redis's JSON.
const SEQ_MAX: u64 = 1 << 53;

impl Incoming {
    /// Parses one text frame.
    ///
    /// # Errors
    /// [`FrameError`] with code `malformed`, `bad_id`, `bad_name`, `bad_value` or `too_many`.
    pub fn parse(text: &str) -> Result<Self, FrameError> {
        match ack::parse(text) {
            Some(frame) => Ok(frame),
            None => Self::parse_generally(text),
        }
    }

    /// Parses a frame of any type, however it is written.
    pub(super) fn parse_generally(text: &str) -> Result<Self, FrameError> {
        let malformed = |message| FrameError { code: ErrorCode::Malformed, message, reference: None };
        // serde would take an array, too, as members by their position.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(malformed("a frame is a JSON object".to_owned()));
        }
        let raw: Raw<'_> =
            serde_json::from_str(text).map_err(|error| malformed(shortened(format!("not a frame: {error}"))))?;
        let reference: Option<Box<str>> = match &raw.reference {
            Some(reference) if reference.len() > REF_BYTES_MAX => {
                let message = format!("ref has at most {REF_BYTES_MAX} bytes");
                return Err(FrameError { code: ErrorCode::BadValue, message, reference: None });
            }
            reference => reference.as_deref().map(Box::from),
        };
        match parse_kind(&raw) {
            Ok(frame) => Ok(Self { reference, frame }),
            Err((code, message)) => Err(FrameError { code, message, reference }),
        }
    }
}

/// A message that may quote what the client sent, cut to what an error needs of it.
fn shortened(mut message: String) -> String {
    if message.len() > ERROR_BYTES_MAX {
        let end = (0..=ERROR_BYTES_MAX).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

type Refusal = (ErrorCode, String);

fn parse_kind(raw: &Raw<'_>) -> Result<ClientFrame, Refusal> {
    Ok(match raw.kind.as_ref() {
        "ack" => ClientFrame::Ack(ids(raw)?.iter().map(|id| parse_ack_id(id)).collect::<Result<_, _>>()?),
        "nack" => {
            let delay_ms = raw.delay_ms.unwrap_or(0);
            if delay_ms > NACK_DELAY_MS_MAX {
                return Err(bad_value(format!("delay_ms is at most {NACK_DELAY_MS_MAX}")));
            }
            let ids = ids(raw)?.iter().map(|id| parse_message_id(id)).collect::<Result<_, _>>()?;
            ClientFrame::Nack { ids, delay_ms }
        }
        "ping" => ClientFrame::Ping,
        "pong" => ClientFrame::Pong,
        "auth" => match &raw.token {
            Some(token) => ClientFrame::Auth(Box::from(token.as_ref())),
            None => return Err(bad_value("auth needs a token".to_owned())),
        },
        "follow" | "unfollow" => ClientFrame::Follow { topics: topics(raw)?, follow: raw.kind == "follow" },
        "forget" => ClientFrame::Forget,
        "connect" => ClientFrame::Connect(Box::new(parse_connect(raw)?)),
        _ => ClientFrame::Unknown,
    })
}

fn ids<'a, 'b>(raw: &'a Raw<'b>) -> Result<&'a [Cow<'b, str>], Refusal> {
    let ids = raw.ids.as_deref().ok_or_else(|| bad_value("ids is missing".to_owned()))?;
    if ids.len() > IDS_PER_FRAME_MAX {
        return Err((ErrorCode::TooMany, format!("a frame holds at most {IDS_PER_FRAME_MAX} ids")));
    }
    Ok(ids)
}

fn parse_ack_id(id: &str) -> Result<AckId, Refusal> {
    if id.starts_with("gap-") && !id.contains('/') && id.len() <= REF_BYTES_MAX {
        return Ok(AckId::Gap(Box::from(id)));
    }
    Ok(match parse_message_id(id)? {
        MessageId::Inbox(id) => AckId::Message(id),
        MessageId::Topic(topic, id) => AckId::Topic(topic, id),
    })
}

fn parse_message_id(id: &str) -> Result<MessageId, Refusal> {
    MessageId::parse(id).map_err(|error| (ErrorCode::BadId, format!("{error}; the frame was ignored")))
}

fn topics(raw: &Raw<'_>) -> Result<Vec<Name>, Refusal> {
    let topics = raw.topics.as_deref().ok_or_else(|| bad_value("topics is missing".to_owned()))?;
    if topics.len() > TOPICS_PER_FRAME_MAX {
        return Err((ErrorCode::TooMany, format!("a frame holds at most {TOPICS_PER_FRAME_MAX} topics")));
    }
    let parse = |topic: &Cow<'_, str>| {
        Name::parse(topic).map_err(|error| (ErrorCode::BadName, format!("topics: {error}; the frame was ignored")))
    };
    let mut topics = topics.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    topics.sort();
    topics.dedup();
    Ok(topics)
}

fn parse_connect(raw: &Raw<'_>) -> Result<Connect, Refusal> {
    let device = match &raw.device {
        Some(device) => Some(Name::parse(device).map_err(|error| (ErrorCode::BadName, format!("device: {error}")))?),
        None => None,
    };
    let from = match raw.from.as_deref() {
        None => None,
        Some("start") => Some(StartFrom::Start),
        Some("end") => Some(StartFrom::End),
        Some(_) => return Err(bad_value("from is \"start\" or \"end\"".to_owned())),
    };
    let window = bounded("window", raw.window, 1, u64::from(WINDOW_MAX))?;
    let heartbeat =
        bounded("heartbeat_ms", raw.heartbeat_ms, u64::from(HEARTBEAT_MS_MIN), u64::from(HEARTBEAT_MS_MAX))?;
    // A client that can take more than the server ever sends is right as well.
    let frame_bytes = raw.max_frame_bytes.map(|bytes| bytes.min(SERVER_FRAME_BYTES_MAX as u64));
    let frame_bytes =
        bounded("max_frame_bytes", frame_bytes, SERVER_FRAME_BYTES_MIN as u64, SERVER_FRAME_BYTES_MAX as u64)?;
    let instance = short("instance", raw.instance.as_deref())?;
    let seq = bounded("seq", raw.seq, 0, SEQ_MAX)?.unwrap_or(0);
    Ok(Connect {
        token: raw.token.as_deref().map(Box::from),
        device,
        window: window.map(|window| window as u16),
        confirm: raw.confirm.unwrap_or(false),
        from,
        epoch: short("epoch", raw.epoch.as_deref())?,
        instance,
        seq,
        heartbeat_ms: heartbeat.map(|heartbeat| heartbeat as u32),
        max_frame_bytes: frame_bytes.map(|bytes| bytes as u32),
    })
}

fn bounded(name: &str, value: Option<u64>, min: u64, max: u64) -> Result<Option<u64>, Refusal> {
    match value {
        Some(value) if value < min || value > max => Err(bad_value(format!("{name} is {min} to {max}"))),
        value => Ok(value),
    }
}

fn short(name: &str, value: Option<&str>) -> Result<Option<Box<str>>, Refusal> {
    match value {
        Some(value) if value.len() > INSTANCE_BYTES_MAX => {
            Err(bad_value(format!("{name} has at most {INSTANCE_BYTES_MAX} bytes")))
        }
        value => Ok(value.map(Box::from)),
    }
}

fn bad_value(message: String) -> Refusal {
    (ErrorCode::BadValue, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(text: &str) -> ClientFrame {
        Incoming::parse(text).unwrap().frame
    }

    fn code(text: &str) -> ErrorCode {
        Incoming::parse(text).unwrap_err().code
    }

    #[test]
    fn frames_are_parsed_whatever_the_order_of_their_members() {
        let id = EntryId { ms: 1, seq: 2 };
        assert_eq!(
            frame(r#"{"ids":["1-2","gap-7"],"type":"ack"}"#),
            ClientFrame::Ack(vec![AckId::Message(id), AckId::Gap(Box::from("gap-7")),])
        );
        assert_eq!(
            frame(r#"{"type":"nack","ids":["1-2"],"delay_ms":5}"#),
            ClientFrame::Nack { ids: vec![MessageId::Inbox(id)], delay_ms: 5 }
        );
        let news = Name::parse("news").unwrap();
        assert_eq!(
            frame(r#"{"type":"ack","ids":["news/1-2"]}"#),
            ClientFrame::Ack(vec![AckId::Topic(Topic::Named(news.clone()), id)])
        );
        let gaps = Name::parse("gap-news").unwrap();
        for written in [r#"{"type":"ack","ids":["gap-news/1-2"]}"#, r#"{"ids":["gap-news/1-2"],"type":"ack"}"#] {
            assert_eq!(frame(written), ClientFrame::Ack(vec![AckId::Topic(Topic::Named(gaps.clone()), id)]));
        }
        assert_eq!(
            frame(r#"{"topics":["news","a","news"],"type":"unfollow"}"#),
            ClientFrame::Follow { topics: vec![Name::parse("a").unwrap(), news], follow: false }
        );
        assert_eq!(frame(r#"{"type":"later","new":[{}]}"#), ClientFrame::Unknown);
        assert_eq!(Incoming::parse(r#"{"type":"ping","ref":"a\"b"}"#).unwrap().reference.as_deref(), Some("a\"b"));
    }

    #[test]
    fn a_malformed_id_refuses_its_frame_with_its_ref() {
        let error = Incoming::parse(r#"{"type":"ack","ids":["1-2","x"],"ref":"r"}"#).unwrap_err();
        assert_eq!((error.code, error.reference.as_deref()), (ErrorCode::BadId, Some("r")));
    }

    #[test]
    fn an_error_does_not_carry_a_long_text_back() {
        let long = "ä".repeat(30_000);
        let error = Incoming::parse(&format!(r#"{{"type":"nack","delay_ms":"{long}"}}"#)).unwrap_err();
        assert!(error.message.starts_with("not a frame: invalid type: string \"ää"), "{}", error.message);
        assert!(error.message.len() <= ERROR_BYTES_MAX + "…".len());
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        assert_eq!(code("[]"), ErrorCode::Malformed);
        assert_eq!(code(r#"["ack",null,["1-2"]]"#), ErrorCode::Malformed);
        assert_eq!(code(r#"{"type":7}"#), ErrorCode::Malformed);
        assert_eq!(code(r#"{"type":"ack"}"#), ErrorCode::BadValue);
        assert_eq!(code(r#"{"type":"nack","ids":[],"delay_ms":60001}"#), ErrorCode::BadValue);
        assert_eq!(code(r#"{"type":"connect","device":"a b"}"#), ErrorCode::BadName);
        assert_eq!(code(r#"{"type":"follow"}"#), ErrorCode::BadValue);
        assert_eq!(code(r#"{"type":"follow","topics":["*"]}"#), ErrorCode::BadName);
        assert_eq!(code(&format!(r#"{{"type":"follow","topics":{:?}}}"#, vec!["a"; 101])), ErrorCode::TooMany);
        assert_eq!(code(r#"{"type":"connect","window":0}"#), ErrorCode::BadValue);
        assert_eq!(code(r#"{"type":"connect","window":1025}"#), ErrorCode::BadValue);
        assert_eq!(code(r#"{"type":"connect","from":"middle"}"#), ErrorCode::BadValue);
        assert_eq!(code(r#"{"type":"connect","max_frame_bytes":10}"#), ErrorCode::BadValue);
    }

    proptest! {
        #[test]
        fn no_text_panics_the_parser(text in ".{0,300}") {
            let _ = Incoming::parse(&text);
        }
    }
}
