//! From a stream entry's fields to the message that a client gets.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::frame::server::{push_number, push_string};
use crate::id::EntryId;
use crate::json;
use crate::limits::{KEY_BYTES_MAX, META_BYTES_MAX};
use crate::topic::Topic;

/// When a message ceases to be deliverable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expiry {
    /// Never (until retention).
    Never,
    /// At this Unix time in milliseconds.
    At(u64),
    /// It is for devices that are connected when it is appended, only (`ttl_s` 0, field `exp` "0").
    ConnectedOnly,
}

impl Expiry {
    /// Whether a message with it, that was deliverable once, is not any more.
    #[must_use]
    pub fn is_over(self, unix_ms: u64) -> bool {
        matches!(self, Self::At(at_ms) if at_ms <= unix_ms)
    }
}

/// What can be said of a message before it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Bytes of payload: `data`, or all fields and values of an entry without it.
    pub payload_bytes: usize,
    /// When it expires.
    pub expiry: Expiry,
    /// The only device that it is for (field `device`); all of them if `None`.
    pub aim: Option<&'a [u8]>,
    /// Whether what becomes of it is to be written down (field `receipt`, neither empty nor "0").
    pub receipt: bool,
}

impl Envelope<'_> {
    /// Whether it may be given to any device at any time.
    #[must_use]
    pub fn is_for_everybody(&self) -> bool {
        self.expiry == Expiry::Never && self.aim.is_none()
    }

    /// Whether this device is to get it.
    #[must_use]
    pub fn is_for(&self, device: &str) -> bool {
        self.aim.is_none_or(|aim| aim == device.as_bytes())
    }
}

/// What a message's JSON needs beside its payload, usually: id, time, attempt and punctuation.
const MESSAGE_BYTES_BESIDE_PAYLOAD: usize = 96;

/// A stream entry: its id and its fields, in order, duplicates included. Names and values are any bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry<B> {
    /// The entry's id.
    pub id: EntryId,
    /// Field, value pairs.
    pub fields: Vec<(B, B)>,
}

impl<B: AsRef<[u8]>> Entry<B> {
    fn field(&self, name: &[u8]) -> Option<&[u8]> {
        self.fields.iter().rev().find(|(field, _)| field.as_ref() == name).map(|(_, value)| value.as_ref())
    }

    /// Payload size, expiry, and what else decides what becomes of the message.
    #[must_use]
    pub fn envelope(&self) -> Envelope<'_> {
        let (mut data, mut exp, mut aim, mut receipt) = (None, None, None, None);
        // One pass, since every message goes through here; of a field that stands twice the last counts.
        for (field, value) in &self.fields {
            let slot = match field.as_ref() {
                b"data" => &mut data,
                b"exp" => &mut exp,
                b"device" => &mut aim,
                b"receipt" => &mut receipt,
                _ => continue,
            };
            *slot = Some(value.as_ref());
        }
        let payload_bytes = match data {
            Some(data) => data.len(),
            None => {
                // These are a producer's own fields, by whatever names: they are shown, not obeyed.
                (aim, receipt) = (None, None);
                self.fields.iter().map(|(field, value)| field.as_ref().len() + value.as_ref().len()).sum()
            }
        };
        let expiry = match exp.and_then(|exp: &[u8]| std::str::from_utf8(exp).ok()?.parse().ok()) {
            None => Expiry::Never,
            Some(0) => Expiry::ConnectedOnly,
            Some(at) => Expiry::At(at),
        };
        let receipt = receipt.is_some_and(|receipt: &[u8]| !receipt.is_empty() && receipt != b"0");
        Envelope { payload_bytes, expiry, aim, receipt }
    }

    /// The producer's own id, if it is one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        let key = self.field(b"key").filter(|key| key.len() <= KEY_BYTES_MAX)?;
        std::str::from_utf8(key).ok()
    }

    /// Appends the message as JSON text. JSON payloads are spliced in exactly as they were published.
    pub fn encode_into(&self, attempt: u32, text: &mut String) {
        self.encode_of(None, attempt, text);
    }

    /// Appends a topic's message as JSON text.
    pub fn encode_topic_into(&self, topic: &Topic, attempt: u32, text: &mut String) {
        self.encode_of(Some(topic), attempt, text);
    }

    fn encode_of(&self, topic: Option<&Topic>, attempt: u32, text: &mut String) {
        let size: usize = self.fields.iter().map(|(_, value)| value.as_ref().len()).sum();
        text.reserve(size + MESSAGE_BYTES_BESIDE_PAYLOAD);
        text.push_str(r#"{"id":""#);
        if let Some(topic) = topic {
            // Neither names nor the broadcast topic's need escaping.
            text.push_str(topic.as_str());
            text.push('/');
        }
        self.id.push_to(text);
        if let Some(topic) = topic {
            text.push_str(r#"","topic":""#);
            text.push_str(topic.as_str());
        }
        text.push_str(r#"","data":"#);
        let data = self.field(b"data");
        match data {
            Some(data) => push_data(text, data, self.field(b"type")),
            None => self.push_fields(text),
        }
        text.push_str(r#","ts":"#);
        push_number(text, self.id.ms);
        text.push_str(r#","attempt":"#);
        push_number(text, u64::from(attempt));
        if data.is_some() {
            self.push_options(text);
        }
        text.push('}');
    }

    /// The message as JSON text.
    #[must_use]
    pub fn encode(&self, attempt: u32) -> String {
        let mut text = String::new();
        self.encode_into(attempt, &mut text);
        text
    }

    fn push_options(&self, text: &mut String) {
        if let Some(key) = self.key() {
            text.push_str(r#","key":"#);
            push_string(text, key);
        }
        // A `meta` that is no JSON object, or too big, is a producer's mistake; the message is worth more than it.
        if let Some(meta) = self.field(b"meta").filter(|meta| meta.len() <= META_BYTES_MAX)
            && let Some(meta) = json::value(meta).filter(|meta| meta.starts_with('{'))
        {
            text.push_str(r#","meta":"#);
            text.push_str(meta);
        }
        if let Expiry::At(at) = self.envelope().expiry {
            text.push_str(r#","exp":"#);
            push_number(text, at);
        }
    }

    /// An entry without `data`: an object of all its fields as texts, the last duplicate winning.
    fn push_fields(&self, text: &mut String) {
        // A map, because comparing each with each takes a second for an entry of 15,000 fields, and nobody else is
        // served meanwhile.
        let positions = self.fields.iter().enumerate().map(|(index, (field, _))| (field.as_ref(), index));
        let last: HashMap<&[u8], usize> = positions.collect();
        text.push('{');
        let mut first = true;
        for (index, (field, value)) in self.fields.iter().enumerate() {
            if last.get(field.as_ref()) != Some(&index) {
                continue;
            }
            if !first {
                text.push(',');
            }
            first = false;
            push_string(text, &String::from_utf8_lossy(field.as_ref()));
            text.push(':');
            push_string(text, &String::from_utf8_lossy(value.as_ref()));
        }
        text.push('}');
    }
}

/// How `data` is shown to clients.
fn push_data(text: &mut String, data: &[u8], kind: Option<&[u8]>) {
    let as_json = match kind {
        Some(b"json") => json::value(data),
        None => json::value(data).filter(|json| json.starts_with(['{', '['])),
        Some(_) => None,
    };
    if let Some(json) = as_json {
        text.push_str(json);
        return;
    }
    match std::str::from_utf8(data) {
        Ok(data) if kind != Some(b"bytes") => push_string(text, data),
        _ => {
            text.push('"');
            BASE64.encode_string(data, text);
            text.push_str(r#"","encoding":"base64"#);
            text.push('"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::JSON_DEPTH_MAX;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn encoded(fields: &[(&[u8], &[u8])]) -> Value {
        let entry = Entry { id: EntryId { ms: 7, seq: 1 }, fields: fields.to_vec() };
        serde_json::from_str(&entry.encode(1)).unwrap()
    }

    #[test]
    fn the_kind_of_data_is_found_out_unless_it_is_said() {
        assert_eq!(encoded(&[(b"data", br#"{"a": 1}"#)])["data"], json!({"a": 1}));
        assert_eq!(encoded(&[(b"data", b"7")])["data"], "7");
        assert_eq!(encoded(&[(b"data", b"7"), (b"type", b"json")])["data"], 7);
        assert_eq!(encoded(&[(b"data", b"[1"), (b"type", b"json")])["data"], "[1");
        assert_eq!(encoded(&[(b"data", b"[1]"), (b"type", b"text")])["data"], "[1]");
        let bytes = encoded(&[(b"data", b"\xff\x00")]);
        assert_eq!((&bytes["data"], &bytes["encoding"]), (&json!("/wA="), &json!("base64")));
        assert_eq!(encoded(&[(b"data", b"hi"), (b"type", b"bytes")])["encoding"], "base64");
    }

    #[test]
    fn json_is_spliced_as_it_was_published() {
        let entry = Entry { id: EntryId { ms: 7, seq: 0 }, fields: vec![("data", r#"{"n": 1.0e2, "n":2}"#)] };
        assert_eq!(entry.encode(3), r#"{"id":"7-0","data":{"n": 1.0e2, "n":2},"ts":7,"attempt":3}"#);
    }

    #[test]
    fn a_topics_message_names_it_and_has_it_in_its_id() {
        let entry = Entry { id: EntryId { ms: 7, seq: 0 }, fields: vec![("data", "[1]")] };
        let mut text = String::new();
        entry.encode_topic_into(&Topic::Broadcast, 1, &mut text);
        assert_eq!(text, r#"{"id":"*/7-0","topic":"*","data":[1],"ts":7,"attempt":1}"#);
    }

    #[test]
    fn an_entry_without_data_is_an_object_of_its_fields() {
        let value = encoded(&[(b"a", b"1"), (b"\xff", b"x"), (b"a", b"2"), (b"exp", b"9")]);
        assert_eq!(value["data"], json!({"a": "2", "\u{fffd}": "x", "exp": "9"}));
        assert!(value.get("exp").is_none());
    }

    #[test]
    fn options_that_are_not_what_they_should_be_are_left_out() {
        let value = encoded(&[(b"data", b"x"), (b"key", b"k"), (b"meta", b"{\"m\":1}"), (b"exp", b"99")]);
        assert_eq!((&value["key"], &value["meta"], &value["exp"]), (&json!("k"), &json!({"m": 1}), &json!(99)));
        let value = encoded(&[(b"data", b"x"), (b"key", b"\xff"), (b"meta", b"[]"), (b"exp", b"soon")]);
        assert!(value.get("key").is_none() && value.get("meta").is_none() && value.get("exp").is_none());
    }

    #[test]
    fn a_device_and_a_wish_for_receipts_are_heard_beside_data_only() {
        let entry = |fields: &[(&'static str, &'static str)]| Entry { id: EntryId::MIN, fields: fields.to_vec() };
        let aimed = entry(&[("device", "old"), ("data", "x"), ("device", "web-1"), ("receipt", "1")]);
        assert!(aimed.envelope().is_for("web-1") && !aimed.envelope().is_for("old") && aimed.envelope().receipt);
        // A thermometer's own field must not hide its reading from everybody.
        let reading = entry(&[("device", "kitchen"), ("receipt", "1"), ("celsius", "20")]);
        assert!(reading.envelope().is_for("web-1") && !reading.envelope().receipt);
        for text in ["", "0"] {
            assert!(!entry(&[("data", "x"), ("receipt", text)]).envelope().receipt, "{text:?}");
        }
        assert!(!entry(&[("data", "x"), ("device", "no name")]).envelope().is_for("web-1"));
    }

    #[test]
    fn json_beyond_the_depth_limit_is_text() {
        let shown_as = |levels: usize| {
            let data = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            let entry = Entry { id: EntryId::MIN, fields: vec![("data", data.as_str())] };
            entry.encode(1).as_bytes()[r#"{"id":"0-0","data":"#.len()]
        };
        assert_eq!(shown_as(JSON_DEPTH_MAX), b'[');
        assert_eq!(shown_as(JSON_DEPTH_MAX + 1), b'"');
        assert_eq!(shown_as(100_000), b'"');
    }

    proptest! {
        #[test]
        fn any_entry_becomes_valid_json(fields in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..6), proptest::collection::vec(any::<u8>(), 0..40)), 0..6)) {
            let entry = Entry { id: EntryId::MIN, fields };
            prop_assert!(serde_json::from_str::<Value>(&entry.encode(1)).is_ok());
        }

        #[test]
        fn any_data_becomes_valid_json(data in proptest::collection::vec(any::<u8>(), 0..60), kind in "json|text|bytes|other") {
            let fields = vec![(b"data".to_vec(), data), (b"type".to_vec(), kind.into_bytes())];
            let entry = Entry { id: EntryId::MIN, fields };
            prop_assert!(serde_json::from_str::<Value>(&entry.encode(1)).is_ok());
        }
    }
}
