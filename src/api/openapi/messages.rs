//! The calls that publish to users, list inboxes and tell what became of a message.

use homing_protocol::code::ErrorCode;
use homing_protocol::limits::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, BATCH_USERS_MAX, KEY_BYTES_MAX, META_BYTES_MAX};
use serde_json::{Map, Value, json};

use super::Description;
use super::describe::{KEY, NAMES, REDIS};
use super::schema::{answer, count, list, or_null, reference, request, time};
use crate::api::router::ApiConfig;
use crate::publish::message::TTL_S_MAX;
use crate::publish::waits::WAITS_MAX;
use crate::store::message_view::{DeviceState, MessageState};

const GROUP: &str = "Messages";

pub(in crate::api) fn publish(config: &ApiConfig) -> Description {
    let either = || json!({ "anyOf": [reference("Published"), reference("MessageStates")] });
    Description::new(GROUP, "publishMessage", "Appends one message to a user's inbox.")
        .text(format!(
            "With `wait` it is answered with the message's states after it was acked; {WAITS_MAX} producers may wait at a \
             node. A payload has at most {} bytes. After 504, 500, or no answer, repeat it with the same `key`.",
            config.payload_bytes_max
        ))
        .parameter("wait")
        .parameter("timeoutSeconds")
        .parameter("traceparent")
        .body("Message", json!({ "data": { "text": "hi" }, "key": "order-7/shipped", "ttl_s": 3600 }))
        .answer_of(201, "It was appended.", either())
        .answer_of(200, "Its `key` was seen: nothing was appended, and the id is the first message's.", either())
        .problem(KEY)
        .problem(NAMES)
        .problem(REDIS)
}

pub(in crate::api) fn batch(_: &ApiConfig) -> Description {
    Description::new(GROUP, "publishBatch", "Appends many messages, or one message to many users.")
        .text(format!(
            "Exactly one of `messages` and `users` is sent; beside `users` stand the members of the message that they all \
             get. A body has at most {BATCH_BYTES_MAX} bytes. An element that is refused spoils no other.",
        ))
        .parameter("traceparent")
        .body("Batch", json!({ "messages": [{ "user": "alice", "data": "hello" }, { "user": "bob", "data": 1 }] }))
        .answer(200, "One result for each element, in order.", "BatchResults")
        .problem(&[ErrorCode::TooMany])
        .problem(KEY)
        .problem(NAMES)
        .problem(REDIS)
}

pub(in crate::api) fn browse(_: &ApiConfig) -> Description {
    Description::new(GROUP, "listMessages", "Lists what is in a user's inbox, oldest first.")
        .parameter("limit")
        .parameter("entryCursor")
        .answer(200, "A page of the list.", "MessageList")
        .problem(&[ErrorCode::BadValue])
        .problem(KEY)
        .problem(NAMES)
        .problem(REDIS)
}

pub(in crate::api) fn receipt(_: &ApiConfig) -> Description {
    Description::new(GROUP, "showMessage", "Shows what has become of a message, for every device.")
        .answer(200, "Its states. An id that no publish answered has some, too.", "MessageStates")
        .problem(&[ErrorCode::BadId])
        .problem(KEY)
        .problem(NAMES)
        .problem(REDIS)
}

/// The members of every message, as they are sent. Of those that may be missing, `null` says the same.
pub(super) fn members(config: &ApiConfig) -> Map<String, Value> {
    let members = json!({
        "data": { "description": format!("any JSON value of at most {} bytes as text", config.payload_bytes_max) },
        "encoding": { "enum": ["base64", null], "description": "`base64`: `data` is a text that stands for bytes" },
        "key": {
            "type": ["string", "null"],
            "minLength": 1,
            "maxLength": KEY_BYTES_MAX,
            "description": format!("the producer's own id, at most {KEY_BYTES_MAX} bytes; unique for 24 hours"),
        },
        "ttl_s": {
            "type": ["integer", "null"],
            "minimum": 0,
            "maximum": TTL_S_MAX,
            "description": "seconds until it expires; 0: for devices only that are connected now",
        },
        "meta": {
            "type": ["object", "null"],
            "description": format!("clients get it beside `data`; at most {META_BYTES_MAX} bytes as text"),
        },
    });
    // It is an object, as is seen above.
    members.as_object().cloned().unwrap_or_default()
}

fn members_to_users(config: &ApiConfig) -> Map<String, Value> {
    let mut members = members(config);
    let device = json!({
        "anyOf": [reference("Name"), { "type": "null" }],
        "description": "the only device that gets it",
    });
    members.insert("device".to_owned(), device);
    members.insert(
        "receipt".to_owned(),
        json!({ "type": ["boolean", "null"], "description": "whether what becomes of it is written down" }),
    );
    members
}

fn with(members: &Map<String, Value>, name: &str, schema: Value) -> Value {
    let mut members = members.clone();
    members.insert(name.to_owned(), schema);
    Value::Object(members)
}

/// A message as clients get it, with the members that a topic's has beside.
pub(super) fn delivered(required: &[&str], id: Value, beside: &[(&str, Value)]) -> Value {
    let members = json!({
        "id": id,
        "ts": time("when it was appended"),
        "data": { "description": "any JSON value" },
        "encoding": { "const": "base64" },
        "attempt": count("always 1 in lists"),
        "key": { "type": "string" },
        "meta": { "type": "object" },
        "exp": time("when it expires"),
    });
    let mut members = members.as_object().cloned().unwrap_or_default();
    members.extend(beside.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())));
    answer(required, Value::Object(members))
}

pub(super) fn schemas(config: &ApiConfig) -> Vec<(&'static str, Value)> {
    let members = members_to_users(config);
    let published = |id: &str| answer(&["id"], json!({ "id": reference(id) }));
    let texts = |states: &[&'static str]| json!({ "type": "string", "enum": states });
    let results = |id: &str| {
        let done = answer(&["status", "id"], json!({ "status": { "enum": [200, 201] }, "id": reference(id) }));
        let either = json!({ "anyOf": [done, reference("FailedResult")] });
        answer(&["results"], json!({ "results": { "type": "array", "items": either } }))
    };
    let device = answer(
        &["device", "state", "delivered_at_ms", "acked_at_ms"],
        json!({
            "device": reference("Name"),
            "state": texts(&DeviceState::ALL.map(DeviceState::as_str)),
            "delivered_at_ms": or_null(time("when it was delivered first")),
            "acked_at_ms": or_null(time("when it was acked")),
        }),
    );
    let too_big = json!({ "const": true, "description": "over the payload limit: it shows `payload_bytes` only" });
    let beside = [("too_big", too_big), ("payload_bytes", count("its size"))];
    vec![
        ("Message", request(&["data"], Value::Object(members.clone()))),
        ("BatchMessage", request(&["user", "data"], with(&members, "user", reference("Name")))),
        (
            "Batch",
            json!({ "oneOf": [
                request(&["messages"], json!({
                    "messages": { "type": "array", "items": reference("BatchMessage"), "maxItems": BATCH_MESSAGES_MAX },
                })),
                request(&["users", "data"], with(&members, "users", json!({
                    "type": "array", "items": reference("Name"), "maxItems": BATCH_USERS_MAX,
                }))),
            ] }),
        ),
        ("Published", published("Id")),
        ("TopicPublished", published("TopicId")),
        ("BatchResults", results("Id")),
        ("TopicResults", results("TopicId")),
        ("MessageList", list(delivered(&["id", "ts"], reference("Id"), &beside))),
        (
            "MessageStates",
            answer(
                &["id", "state", "receipt", "devices"],
                json!({
                    "id": reference("Id"),
                    "state": texts(&MessageState::ALL.map(MessageState::as_str)),
                    "receipt": { "type": "boolean", "description": "whether it asked for receipts" },
                    "devices": { "type": "array", "items": device },
                }),
            ),
        ),
    ]
}
