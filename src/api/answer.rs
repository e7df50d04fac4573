//! Answers in JSON: values, texts that are JSON already, and lists.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use homing_protocol::code::ErrorCode;
use serde::Serialize;

use super::problem::Problem;

/// A list's answer, from items that are JSON already.
pub(super) fn items(items: impl Iterator<Item = String>, next_cursor: Option<&str>) -> Response {
    let mut text = String::from(r#"{"items":["#);
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&item);
    }
    text.push_str(r#"],"next_cursor":"#);
    match next_cursor {
        // Cursors are ids: nothing in them needs escaping.
        Some(cursor) => {
            text.push('"');
            text.push_str(cursor);
            text.push('"');
        }
        None => text.push_str("null"),
    }
    text.push('}');
    json(StatusCode::OK, Body::from(text))
}

/// An answer in JSON, from a value.
pub(super) fn encoded(status: StatusCode, value: &impl Serialize) -> Result<Response, Problem> {
    match serde_json::to_vec(value) {
        Ok(text) => Ok(json(status, Body::from(text))),
        Err(error) => Err(Problem::new(ErrorCode::Internal, format!("the answer could not be encoded: {error}"))),
    }
}

/// An answer that is JSON already.
pub(super) fn json(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
