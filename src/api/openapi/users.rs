//! The calls about users, their devices and sessions.

use homing_protocol::code::ErrorCode;
use serde_json::{Value, json};

use super::Description;
use super::describe::{KEY, NAMES, REDIS};
use super::schema::{answer, count, or_null, reference, request, time};
use crate::api::disconnect::{DEVICES_MAX, REASON_BYTES_MAX};
use crate::api::router::ApiConfig;

const GROUP: &str = "Users and devices";

pub(in crate::api) fn show(_: &ApiConfig) -> Description {
    about_user("showUser", "Shows a user's devices.").answer(200, "An unknown user has none.", "User")
}

pub(in crate::api) fn remove(_: &ApiConfig) -> Description {
    about_user("deleteUser", "Forgets everything of a user; all sessions are closed.").answer(
        200,
        "It is forgotten.",
        "UserRemoved",
    )
}

pub(in crate::api) fn remove_device(_: &ApiConfig) -> Description {
    about_user("deleteDevice", "Forgets a device; its session is closed.").answer(
        200,
        "It is forgotten.",
        "DeviceRemoved",
    )
}

fn about_user(id: &'static str, summary: &'static str) -> Description {
    Description::new(GROUP, id, summary).problem(KEY).problem(NAMES).problem(REDIS)
}

pub(in crate::api) fn disconnect(_: &ApiConfig) -> Description {
    about_user("disconnectUser", "Ends sessions; devices and messages stay.")
        .body("Disconnect", json!({ "devices": ["phone"], "reason": "signed out by an operator" }))
        .answer(200, "The sessions end.", "Disconnected")
        .problem(&[ErrorCode::TooMany])
}

pub(in crate::api) fn presence(_: &ApiConfig) -> Description {
    about_user("showPresence", "Shows which devices of many users are connected.")
        .parameter("users")
        .answer(200, "The users, in the order in which they were named.", "Presence")
        .problem(&[ErrorCode::BadValue, ErrorCode::TooMany])
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let gap = answer(
        &["id", "reason", "count"],
        json!({ "id": { "type": "string" }, "reason": { "type": "string" }, "count": count("messages lost") }),
    );
    let device = answer(
        &["device", "online", "node", "connected_since_ms", "generation", "first_seen_ms", "last_seen_ms", "dropped"],
        json!({
            "device": reference("Name"),
            "online": { "type": "boolean" },
            "node": { "type": "string", "description": "holds the session, or held the last one" },
            "connected_since_ms": or_null(time("since when it is connected")),
            "generation": count("of its session"),
            "first_seen_ms": time("when it attached first"),
            "last_seen_ms": time("when it was seen last"),
            "pending": or_null(count("not acknowledged, delivered or not; `null` if Redis does not know cheaply")),
            "unacked": or_null(count("delivered and not acknowledged")),
            "oldest_pending_age_ms": or_null(count("how long the oldest of them waits, in milliseconds")),
            "dropped": count("what the device lost, ever"),
            "gap": gap,
        }),
    );
    let present = answer(
        &["device", "online", "node", "since_ms"],
        json!({
            "device": reference("Name"),
            "online": { "type": "boolean" },
            "node": { "type": "string" },
            "since_ms": or_null(time("since when it is connected")),
        }),
    );
    let user = answer(
        &["user", "devices"],
        json!({ "user": reference("Name"), "devices": { "type": "array", "items": present } }),
    );
    vec![
        (
            "User",
            answer(
                &["user", "inbox_length", "devices"],
                json!({
                    "user": reference("Name"),
                    "inbox_length": count("messages in the inbox"),
                    "devices": { "type": "array", "items": device },
                }),
            ),
        ),
        ("UserRemoved", answer(&["devices_removed"], json!({ "devices_removed": count("devices that it had") }))),
        (
            "DeviceRemoved",
            answer(&["removed"], json!({ "removed": { "type": "boolean", "description": "whether it was known" } })),
        ),
        (
            "Disconnect",
            request(
                &[],
                json!({
                    "devices": {
                        "type": ["array", "null"],
                        "items": reference("Name"),
                        "maxItems": DEVICES_MAX,
                        "description": "only the sessions of these",
                    },
                    "reason": {
                        "type": "string",
                        "maxLength": REASON_BYTES_MAX,
                        "description": format!("what the client is told, at most {REASON_BYTES_MAX} bytes"),
                    },
                    "refuse_tokens": { "type": "boolean", "description": "refuse the tokens that were issued until now" },
                }),
            ),
        ),
        ("Disconnected", answer(&["disconnected"], json!({ "disconnected": count("devices that were connected") }))),
        ("Presence", answer(&["items"], json!({ "items": { "type": "array", "items": user } }))),
    ]
}
