//! Bodies of producers' requests: refused, or published and shown to clients just as they came.

use axum::http::Uri;
use axum::response::IntoResponse as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::FutureExt as _;
use homing_protocol::id::EntryId;
use homing_protocol::limits::{BATCH_MESSAGES_MAX, BATCH_USERS_MAX, JSON_DEPTH_MAX, KEY_BYTES_MAX, META_BYTES_MAX};
use homing_protocol::message::{Entry, Expiry};
use serde_json::Value;

use super::cursor::Cursor;
use super::entries::check_message;
use crate::api::{Batch, Page, Problem, parse_batch, parse_message};
use crate::publish::message::TTL_S_MAX;
use crate::publish::{NewMessage, Payload};

const PAYLOAD_BYTES_MAX: usize = 4_096;
const NOW_MS: u64 = 1_700_000_000_000;
/// Longest problem document: a detail of 300 bytes, all of which may need escaping, and the other members.
const DOCUMENT_BYTES_MAX: usize = 2_500;

/// A body as a message, as a batch, and as a query.
pub fn requests(data: &[u8]) {
    let mut cursor = Cursor::new(data);
    match cursor.below(3) {
        0 => match parse_message(cursor.rest(), None) {
            Ok(message) => check_published(&message, data),
            Err(problem) => check_problem(problem),
        },
        1 => match parse_batch(cursor.rest(), None) {
            Ok(Batch::ToUsers(users, message)) => {
                assert!(users.len() <= BATCH_USERS_MAX);
                users.into_iter().filter_map(Result::err).for_each(check_problem);
                check_published(&message, data);
            }
            Ok(Batch::Messages(messages)) => {
                assert!(messages.len() <= BATCH_MESSAGES_MAX);
                for message in messages {
                    match message {
                        Ok((_, message)) => check_published(&message, data),
                        Err(problem) => check_problem(problem),
                    }
                }
            }
            Err(problem) => check_problem(problem),
        },
        _ => {
            let Ok(uri) = format!("/?{}", String::from_utf8_lossy(cursor.rest())).parse::<Uri>() else { return };
            match Page::parse(&uri) {
                Ok(page) => assert!((1..=100).contains(&page.limit)),
                Err(problem) => check_problem(problem),
            }
        }
    }
}

/// From the body to the frame: nothing is changed on the way.
fn check_published(message: &NewMessage<'_>, body: &[u8]) {
    if let Err(error) = message.check(PAYLOAD_BYTES_MAX) {
        return check_problem(Problem::from(error));
    }
    let fields = message.fields(NOW_MS);
    assert_eq!(fields.argument_count(), 2 * fields.iter().count());
    let fields: Vec<(&[u8], &[u8])> = fields.iter().map(|(name, value)| (name.as_bytes(), value)).collect();
    let entry = Entry { id: EntryId { ms: NOW_MS, seq: 0 }, fields };
    let text = entry.encode(1);
    check_message(&entry, 1, &text);
    // `check_message` has compared the text with the entry; here the entry is compared with the body.
    let field = |name: &[u8]| entry.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| *value);
    match &message.data {
        Payload::Json(json) => {
            assert!(body.as_ptr_range().contains(&json.get().as_ptr()), "the payload is borrowed from the body");
            assert_eq!(field(b"data"), Some(json.get().as_bytes()));
            assert!(text.contains(&format!(r#","data":{},"ts":"#, json.get())), "{text:?} holds other data");
            assert!(depth(json.get()) <= JSON_DEPTH_MAX);
        }
        Payload::Bytes(bytes) => {
            let shown = format!(r#","data":"{}","encoding":"base64""#, BASE64.encode(bytes));
            assert!(text.contains(&shown), "{text:?} holds other bytes");
        }
    }
    assert_eq!(field(b"key"), message.key.as_ref().map(|key| key.as_bytes()));
    assert!(message.key.as_ref().is_none_or(|key| (1..=KEY_BYTES_MAX).contains(&key.len())));
    assert_eq!(field(b"meta"), message.meta.map(|meta| meta.get().as_bytes()));
    assert!(message.meta.is_none_or(|meta| meta.get().len() <= META_BYTES_MAX && text.contains(meta.get())));
    let expected = match message.ttl_s {
        None => Expiry::Never,
        Some(0) => Expiry::ConnectedOnly,
        Some(ttl_s) => {
            assert!(ttl_s <= TTL_S_MAX);
            Expiry::At(NOW_MS + ttl_s * 1_000)
        }
    };
    assert_eq!(entry.envelope().expiry, expected);
    assert_eq!(entry.envelope().aim, message.device.as_ref().map(|device| device.as_str().as_bytes()));
    assert_eq!(entry.envelope().receipt, message.receipt);
}

/// Levels of nesting of valid JSON.
fn depth(json: &str) -> usize {
    let (mut now, mut deepest, mut in_text, mut escaped) = (0usize, 0, false, false);
    for byte in json.bytes() {
        match (in_text, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_text = !in_text,
            (false, b'[' | b'{') => now += 1,
            (false, b']' | b'}') => now -= 1,
            _ => {}
        }
        deepest = deepest.max(now);
    }
    deepest
}

fn check_problem(problem: Problem) {
    let response = problem.into_response();
    let status = response.status().as_u16();
    assert!((400..500).contains(&status), "{status}: no body breaks the server");
    let bytes = axum::body::to_bytes(response.into_body(), DOCUMENT_BYTES_MAX);
    let bytes = bytes.now_or_never().expect("the document is there").expect("the document is short");
    let document: Value = serde_json::from_slice(&bytes).expect("a problem is JSON");
    assert_eq!(document["status"], status);
    let code = document["code"].as_str().expect("a code is a text");
    assert!(homing_protocol::code::ErrorCode::ALL.iter().any(|known| known.as_str() == code));
    assert!(document["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
}
