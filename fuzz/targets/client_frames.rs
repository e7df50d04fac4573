//! What a client may say, at [`Incoming::parse`].

use homing_protocol::code::ErrorCode;
use homing_protocol::frame::{AckId, ClientFrame, Incoming, StartFrom};
use homing_protocol::limits::{
    HEARTBEAT_MS_MAX, HEARTBEAT_MS_MIN, IDS_PER_FRAME_MAX, INSTANCE_BYTES_MAX, NACK_DELAY_MS_MAX, REF_BYTES_MAX,
    SERVER_FRAME_BYTES_MAX, SERVER_FRAME_BYTES_MIN, WINDOW_MAX,
};
use homing_protocol::name::Name;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// Longest words of an error; it goes into an `error` frame and must not carry a client's text back.
const ERROR_BYTES_MAX: usize = 300;

/// A text frame: parsed or refused, and if parsed, what it says.
pub fn client_frames(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Deep nesting in members that nobody reads is none of `Value`'s business.
    let members: Option<Map<String, Value>> = serde_json::from_str(text).ok();
    let outcome = Incoming::parse(text);
    assert_eq!(outcome, Incoming::parse(text));
    match outcome {
        Ok(incoming) => {
            let raw: &RawValue = serde_json::from_str(text).expect("an accepted frame is JSON");
            assert!(raw.get().starts_with('{'), "an accepted frame is an object");
            check_limits(&incoming);
            if let Some(members) = &members {
                check_against(&incoming, members);
            }
            let again = Incoming::parse(&written(&incoming)).expect("what was accepted is accepted again");
            assert_eq!(again, incoming);
        }
        Err(error) => {
            let expected =
                [ErrorCode::Malformed, ErrorCode::BadId, ErrorCode::BadName, ErrorCode::BadValue, ErrorCode::TooMany];
            assert!(expected.contains(&error.code), "{:?} is none of a frame's errors", error.code);
            assert!(
                !error.message.is_empty() && error.message.len() <= ERROR_BYTES_MAX,
                "{} bytes",
                error.message.len()
            );
            if let (Some(reference), Some(members)) = (&error.reference, &members) {
                assert_eq!(members.get("ref").and_then(Value::as_str), Some(&**reference));
            }
        }
    }
}

fn check_limits(incoming: &Incoming) {
    assert!(incoming.reference.as_ref().is_none_or(|reference| reference.len() <= REF_BYTES_MAX));
    match &incoming.frame {
        ClientFrame::Ack(ids) => {
            assert!(ids.len() <= IDS_PER_FRAME_MAX);
            for id in ids {
                let is_gap = |id: &str| id.starts_with("gap-") && !id.contains('/') && id.len() <= REF_BYTES_MAX;
                assert!(!matches!(id, AckId::Gap(id) if !is_gap(id)));
            }
        }
        ClientFrame::Nack { ids, delay_ms } => {
            assert!(ids.len() <= IDS_PER_FRAME_MAX && *delay_ms <= NACK_DELAY_MS_MAX);
        }
        ClientFrame::Connect(connect) => {
            let is_short = |text: &Option<Box<str>>| text.as_ref().is_none_or(|text| text.len() <= INSTANCE_BYTES_MAX);
            assert!(is_short(&connect.epoch) && is_short(&connect.instance));
            assert!(connect.window.is_none_or(|window| (1..=WINDOW_MAX).contains(&window)));
            assert!(connect.heartbeat_ms.is_none_or(|ms| (HEARTBEAT_MS_MIN..=HEARTBEAT_MS_MAX).contains(&ms)));
            let frame_bytes = SERVER_FRAME_BYTES_MIN..=SERVER_FRAME_BYTES_MAX;
            assert!(connect.max_frame_bytes.is_none_or(|bytes| frame_bytes.contains(&(bytes as usize))));
            assert!(connect.seq <= 1 << 53);
        }
        _ => {}
    }
}

/// Another parser's view of the same text.
fn check_against(incoming: &Incoming, members: &Map<String, Value>) {
    assert_eq!(incoming.reference.as_deref(), members.get("ref").and_then(Value::as_str));
    let kind = members["type"].as_str().expect("a type is a text");
    let ids =
        || members["ids"].as_array().expect("ids are a list").iter().map(|id| id.as_str().expect("an id is a text"));
    match &incoming.frame {
        ClientFrame::Ack(parsed) => {
            assert_eq!(kind, "ack");
            let written = parsed.iter().map(|id| match id {
                AckId::Message(id) => id.to_string(),
                AckId::Topic(topic, id) => format!("{topic}/{id}"),
                AckId::Gap(id) => id.to_string(),
            });
            assert!(written.eq(ids()), "an id was read as another one");
        }
        ClientFrame::Nack { ids: parsed, delay_ms } => {
            assert_eq!(kind, "nack");
            assert!(parsed.iter().map(ToString::to_string).eq(ids()), "an id was read as another one");
            assert_eq!(*delay_ms, members.get("delay_ms").and_then(Value::as_u64).unwrap_or(0));
        }
        ClientFrame::Connect(connect) => {
            assert_eq!(kind, "connect");
            let text = |name: &str| members.get(name).and_then(Value::as_str);
            assert_eq!(connect.token.as_deref(), text("token"));
            assert_eq!(connect.device.as_ref().map(|device| device.as_str()), text("device"));
            assert_eq!(connect.epoch.as_deref(), text("epoch"));
            assert_eq!(connect.instance.as_deref(), text("instance"));
        }
        ClientFrame::Auth(token) => {
            assert_eq!((kind, members["token"].as_str()), ("auth", Some(&**token)));
        }
        ClientFrame::Follow { topics, follow } => {
            assert_eq!(kind, if *follow { "follow" } else { "unfollow" });
            let written: std::collections::BTreeSet<&str> =
                members["topics"].as_array().expect("topics are a list").iter().filter_map(Value::as_str).collect();
            assert!(topics.iter().map(Name::as_str).eq(written), "a topic was read as another one");
        }
        ClientFrame::Forget => assert_eq!(kind, "forget"),
        ClientFrame::Ping => assert_eq!(kind, "ping"),
        ClientFrame::Pong => assert_eq!(kind, "pong"),
        ClientFrame::Unknown => {
            assert!(
                !["ack", "nack", "connect", "auth", "follow", "unfollow", "forget", "ping", "pong"].contains(&kind)
            );
        }
    }
}

/// The frame as a tidy client would write it.
fn written(incoming: &Incoming) -> String {
    let mut members = match &incoming.frame {
        ClientFrame::Ack(ids) => {
            let ids: Vec<String> = ids
                .iter()
                .map(|id| match id {
                    AckId::Message(id) => id.to_string(),
                    AckId::Topic(topic, id) => format!("{topic}/{id}"),
                    AckId::Gap(id) => id.to_string(),
                })
                .collect();
            json!({"type": "ack", "ids": ids})
        }
        ClientFrame::Nack { ids, delay_ms } => {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            json!({"type": "nack", "ids": ids, "delay_ms": delay_ms})
        }
        ClientFrame::Follow { topics, follow } => {
            let topics: Vec<&str> = topics.iter().map(Name::as_str).collect();
            json!({"type": if *follow { "follow" } else { "unfollow" }, "topics": topics})
        }
        ClientFrame::Connect(connect) => {
            let from = connect.from.map(|from| match from {
                StartFrom::Start => "start",
                StartFrom::End => "end",
            });
            json!({
                "type": "connect", "token": connect.token, "window": connect.window, "confirm": connect.confirm,
                "device": connect.device.as_ref().map(|device| device.as_str()), "from": from,
                "epoch": connect.epoch, "instance": connect.instance, "seq": connect.seq,
                "heartbeat_ms": connect.heartbeat_ms, "max_frame_bytes": connect.max_frame_bytes,
            })
        }
        ClientFrame::Auth(token) => json!({"type": "auth", "token": token}),
        ClientFrame::Forget => json!({"type": "forget"}),
        ClientFrame::Ping => json!({"type": "ping"}),
        ClientFrame::Pong => json!({"type": "pong"}),
        ClientFrame::Unknown => json!({"type": "of a later version"}),
    };
    members["ref"] = json!(incoming.reference);
    members.to_string()
}
