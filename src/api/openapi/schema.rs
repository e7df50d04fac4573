//! Schemas that calls share, from the constants that the handlers check.

use homing_protocol::code::ErrorCode;
use homing_protocol::limits::NAME_BYTES_MAX;
use homing_protocol::name::NAME_PUNCTUATION;
use homing_protocol::topic::BROADCAST;
use serde_json::{Map, Value, json};

use crate::api::page::{PAGE_ITEMS, PAGE_ITEMS_MAX};
use crate::api::presence::USERS_MAX;
use crate::api::receipt::{TIMEOUT_S, TIMEOUT_S_MAX};

/// An id that looks like those that are answered.
pub(super) const ID_EXAMPLE: &str = "1795424301455-0";
/// The canonical form of an entry's id; what is too large for 64 bits is refused beyond it.
const ID: &str = "(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})";

/// A reference to a shared schema.
pub(super) fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// An object of an answer. Clients must allow more members, so the schema does, too.
pub(super) fn answer(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

/// An object that is sent: what is not listed is refused.
pub(super) fn request(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false })
}

/// A list's answer.
pub(super) fn list(item: Value) -> Value {
    answer(
        &["items", "next_cursor"],
        json!({
            "items": { "type": "array", "items": item, "maxItems": PAGE_ITEMS_MAX },
            "next_cursor": { "type": ["string", "null"], "description": "`null` at the end of the list" },
        }),
    )
}

/// A whole number, never negative.
pub(super) fn count(text: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": text })
}

/// A time by Redis's clock.
pub(super) fn time(text: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": format!("{text}, in Unix milliseconds") })
}

/// The same schema, or `null`.
pub(super) fn or_null(mut schema: Value) -> Value {
    if let Some(kind) = schema.get_mut("type") {
        *kind = json!([kind.take(), "null"]);
    }
    schema
}

/// The pattern of names, without its ends.
pub(super) fn name_pattern() -> String {
    // Within brackets only a dash means something, unless it is the last.
    let (dashes, others): (String, String) = NAME_PUNCTUATION.chars().partition(|character| *character == '-');
    format!("[A-Za-z0-9{others}{dashes}]{{1,{NAME_BYTES_MAX}}}")
}

fn problem_members() -> Map<String, Value> {
    let codes: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    let members = json!({
        "status": { "type": "integer", "minimum": 400, "maximum": 599 },
        "code": { "type": "string", "enum": codes, "description": "for programs; the list is closed" },
        "detail": { "type": "string", "description": "for people" },
        "limit": answer(&["name", "value"], json!({ "name": { "type": "string" }, "value": count("its value") })),
        "retry_after_ms": count("when to try again, with 503 and 429"),
    });
    // It is an object, as is seen above.
    members.as_object().cloned().unwrap_or_default()
}

/// Schemas that belong to no group.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let mut document = problem_members();
    document.insert("type".to_owned(), json!({ "type": "string", "pattern": "^urn:homing:problem:[a-z_]+$" }));
    document.insert("title".to_owned(), json!({ "type": "string" }));
    let name = name_pattern();
    vec![
        (
            "Name",
            json!({
                "type": "string",
                "pattern": format!("^{name}$"),
                "not": { "enum": [".", ".."] },
                "description": "a user, device or topic; case-sensitive",
            }),
        ),
        ("Id", json!({ "type": "string", "pattern": format!("^{ID}$"), "description": "of a message in an inbox" })),
        (
            "TopicId",
            json!({
                "type": "string",
                "pattern": format!("^(\\{BROADCAST}|{name})/{ID}$"),
                "description": "of a message in a topic: the topic, a slash, and the id within it",
            }),
        ),
        ("Problem", answer(&["type", "title", "status", "code", "detail"], Value::Object(document))),
        ("FailedResult", answer(&["status", "code", "detail"], Value::Object(problem_members()))),
    ]
}

/// Parameters that calls share.
pub(super) fn parameters() -> Value {
    let path = |name: &str, schema: Value, example: &str| json!({ "name": name, "in": "path", "required": true, "schema": schema, "example": example });
    let query = |name: &str, schema: Value, text: &str| json!({ "name": name, "in": "query", "schema": schema, "description": text });
    json!({
        "user": path("user", reference("Name"), "alice"),
        "device": path("device", reference("Name"), "phone"),
        "topic": path("topic", reference("Name"), "news"),
        "topicOrBroadcast": path(
            "topic",
            json!({ "anyOf": [reference("Name"), { "const": BROADCAST }] }),
            "news",
        ),
        "id": path("id", reference("Id"), ID_EXAMPLE),
        "limit": query(
            "limit",
            json!({ "type": "integer", "minimum": 1, "maximum": PAGE_ITEMS_MAX, "default": PAGE_ITEMS }),
            "most items of the page",
        ),
        "entryCursor": query("cursor", reference("Id"), "`next_cursor` of the page before"),
        "scanCursor": query(
            "cursor",
            json!({ "type": "string", "pattern": "^[0-9]{1,19}$" }),
            "`next_cursor` of the page before",
        ),
        "wait": query(
            "wait",
            json!({ "type": "string", "enum": ["acked", "acked_all"] }),
            "answer as soon as one device acked it, or as soon as no device is left that could",
        ),
        "timeoutSeconds": query(
            "timeout_s",
            json!({ "type": "integer", "minimum": 1, "maximum": TIMEOUT_S_MAX, "default": TIMEOUT_S }),
            "longest wait, in seconds; only with `wait`",
        ),
        "users": {
            "name": "users",
            "in": "query",
            "required": true,
            "style": "form",
            "explode": false,
            "schema": { "type": "array", "items": reference("Name"), "minItems": 1, "maxItems": USERS_MAX },
            "example": ["alice", "bob"],
            "description": "names with commas between",
        },
        "traceparent": {
            "name": "traceparent",
            "in": "header",
            "schema": { "type": "string" },
            "description": "W3C trace context, kept in the entry if it is well-formed",
        },
    })
}
