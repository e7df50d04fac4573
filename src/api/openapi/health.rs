//! The calls about the node, and about this document.

use serde_json::{Value, json};

use super::Description;
use super::schema::answer;
use crate::api::router::ApiConfig;

pub(super) const GROUP: &str = "This node";

pub(in crate::api) fn alive(_: &ApiConfig) -> Description {
    Description::new(GROUP, "healthz", "Tells that the process runs.").answer(200, "It runs.", "Alive")
}

pub(in crate::api) fn ready(_: &ApiConfig) -> Description {
    Description::new(GROUP, "readyz", "Tells whether this node delivers.").answer(200, "It delivers.", "Ready").answer(
        503,
        "It does not: send clients elsewhere.",
        "Ready",
    )
}

pub(in crate::api) fn document(_: &ApiConfig) -> Description {
    Description::new(GROUP, "openapi", "This document.").answer_of(200, "OpenAPI 3.1.", json!({ "type": "object" }))
}

pub(in crate::api) fn page(_: &ApiConfig) -> Description {
    let schema = json!({ "type": "string" });
    Description::new(GROUP, "docs", "This document as a page.").answer_as(200, "A page.", "text/html", schema)
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let boolean = || json!({ "type": "boolean" });
    vec![
        ("Alive", answer(&["alive"], json!({ "alive": { "const": true } }))),
        ("Ready", answer(&["ready"], json!({ "ready": boolean() }))),
    ]
}
