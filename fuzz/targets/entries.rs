//! From a stream entry's fields, whoever wrote them, to the frames that a client gets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use homing_protocol::depth;
use homing_protocol::frame::MessagesFrame;
use homing_protocol::id::EntryId;
use homing_protocol::limits::{JSON_DEPTH_MAX, KEY_BYTES_MAX, META_BYTES_MAX};
use homing_protocol::message::{Entry, Expiry};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::cursor::Cursor;

/// A message as a client reads it. Unknown members are an error: there must be none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message<'a> {
    id: String,
    #[serde(borrow)]
    data: &'a RawValue,
    ts: u64,
    attempt: u32,
    encoding: Option<String>,
    key: Option<String>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
    exp: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

const FIELDS: [&[u8]; 6] = [b"data", b"type", b"key", b"meta", b"exp", b"traceparent"];

/// Some entries, each encoded, and all of them in frames.
pub fn entries(data: &[u8]) {
    let mut cursor = Cursor::new(data);
    let bytes_max = 1_024 + 64 * usize::from(cursor.byte());
    let mut frame = MessagesFrame::new(bytes_max);
    let (mut frames, mut texts) = (Vec::new(), Vec::new());
    while !cursor.is_empty() && texts.len() < 32 {
        let entry = read_entry(&mut cursor);
        let attempt = u32::from(cursor.byte());
        let text = entry.encode(attempt);
        check_message(&entry, attempt, &text);
        frames.extend(frame.push(|frame| entry.encode_into(attempt, frame)));
        texts.push(text);
    }
    frames.extend(frame.finish());
    assert_eq!(frame.finish(), None);
    check_frames(&frames, &texts, bytes_max);
}

fn read_entry<'a>(cursor: &mut Cursor<'a>) -> Entry<&'a [u8]> {
    let count = cursor.below(8);
    let fields = (0..count).map(|_| {
        let field = match cursor.below(8) {
            known @ 0..=5 => FIELDS[known],
            _ => cursor.counted(),
        };
        // Up to a byte that no text holds, so that values may be long.
        (field, cursor.until(0xff))
    });
    let fields = fields.collect();
    let id = match cursor.byte() {
        0 => EntryId { ms: cursor.number(), seq: cursor.number() },
        small => EntryId { ms: u64::from(small), seq: 0 },
    };
    Entry { id, fields }
}

fn last<'a>(entry: &Entry<&'a [u8]>, name: &[u8]) -> Option<&'a [u8]> {
    entry.fields.iter().rev().find(|(field, _)| *field == name).map(|(_, value)| *value)
}

/// The one JSON value that these bytes are, if they are one that may be spliced in.
fn spliceable(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    assert_eq!(raw.get(), text.trim_matches([' ', '\t', '\n', '\r']), "only white space is cut off");
    depth::is_within(raw.get(), JSON_DEPTH_MAX).then(|| raw.get())
}

pub(super) fn check_message(entry: &Entry<&[u8]>, attempt: u32, text: &str) {
    let message: Message<'_> = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}"));
    assert_eq!((message.id, message.ts, message.attempt), (entry.id.to_string(), entry.id.ms, attempt));
    let envelope = entry.envelope();
    let Some(data) = last(entry, b"data") else {
        let size: usize = entry.fields.iter().map(|(field, value)| field.len() + value.len()).sum();
        assert_eq!(envelope.payload_bytes, size);
        assert!(message.encoding.is_none() && message.key.is_none() && message.meta.is_none() && message.exp.is_none());
        return check_fields(entry, message.data.get());
    };
    assert_eq!(envelope.payload_bytes, data.len());
    let json = spliceable(data);
    let kind = last(entry, b"type");
    let expected_json = match kind {
        Some(b"json") => json,
        None => json.filter(|json| json.starts_with(['{', '['])),
        Some(_) => None,
    };
    match (expected_json, std::str::from_utf8(data)) {
        (Some(json), _) => {
            assert_eq!(message.data.get(), json, "JSON is spliced in byte by byte");
            assert_eq!(message.encoding, None);
        }
        (None, Ok(data)) if kind != Some(b"bytes") => {
            let shown: String = serde_json::from_str(message.data.get()).expect("a text is shown as a text");
            assert_eq!((shown.as_str(), message.encoding), (data, None));
        }
        (None, _) => {
            let shown: String = serde_json::from_str(message.data.get()).expect("bytes are shown as a text");
            assert_eq!(message.encoding.as_deref(), Some("base64"));
            assert_eq!(BASE64.decode(shown).as_deref(), Ok(data));
        }
    }
    let key = last(entry, b"key").filter(|key| key.len() <= KEY_BYTES_MAX);
    assert_eq!(message.key.as_deref(), key.and_then(|key| std::str::from_utf8(key).ok()));
    let meta = last(entry, b"meta").filter(|meta| meta.len() <= META_BYTES_MAX).and_then(spliceable);
    assert_eq!(message.meta.map(RawValue::get), meta.filter(|meta| meta.starts_with('{')));
    let exp = last(entry, b"exp").and_then(|exp| std::str::from_utf8(exp).ok()?.parse::<u64>().ok());
    assert_eq!(message.exp, exp.filter(|exp| *exp > 0));
    assert_eq!(envelope.expiry == Expiry::ConnectedOnly, exp == Some(0));
}

fn check_fields(entry: &Entry<&[u8]>, shown: &str) {
    let shown: serde_json::Map<String, serde_json::Value> = serde_json::from_str(shown).expect("fields are an object");
    for (name, value) in &shown {
        assert!(value.is_string());
        assert!(entry.fields.iter().any(|(field, _)| String::from_utf8_lossy(field) == *name), "{name:?} is no field");
    }
    for (field, _) in &entry.fields {
        if let Ok(name) = std::str::from_utf8(field)
            // Bytes that are no text may look the same and stand later.
            && !entry.fields.iter().any(|(other, _)| other != field && String::from_utf8_lossy(other) == name)
        {
            let value = last(entry, field).expect("the field stands there");
            assert_eq!(shown[name].as_str(), Some(&*String::from_utf8_lossy(value)));
        }
    }
}

fn check_frames(frames: &[String], texts: &[String], bytes_max: usize) {
    let mut shown = Vec::new();
    for text in frames {
        let frame: Frame<'_> = serde_json::from_str(text).expect("a frame is JSON");
        assert_eq!(frame.kind, "messages");
        assert!(!frame.messages.is_empty() && (frame.messages.len() == 1 || text.len() <= bytes_max));
        shown.extend(frame.messages.iter().map(|message| message.get()));
    }
    assert!(shown.iter().eq(texts), "the frames hold all messages, once, in order");
}
