//! `GET /healthz`, `/readyz`, `/metrics`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Map, Value};

use super::answer;

/// Tells whether this node delivers.
pub trait Health: Send + Sync + 'static {
    /// Whether a probe message went through Redis and came back as a wake-up lately, and the node is not draining.
    fn ready(&self) -> bool;

    /// What is behind the answer, for operators: members of a JSON object. Shown on the admin listener only.
    fn details(&self) -> Map<String, Value>;
}

/// What the admin listener shows.
#[derive(Clone)]
pub struct AdminState {
    /// Whether this node delivers.
    pub health: Arc<dyn Health>,
    /// Renders the metrics in Prometheus's text format.
    pub render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// The process runs and answers.
pub(super) fn alive() -> Response {
    answer::json(StatusCode::OK, Body::from(r#"{"alive":true}"#))
}

/// Whether a balancer should send clients here, without details.
pub(super) fn ready(health: &dyn Health) -> Response {
    let ready = health.ready();
    answer::json(ready_status(ready), Body::from(format!(r#"{{"ready":{ready}}}"#)))
}

/// The same, with what is behind it.
pub(super) fn ready_with_details(health: &dyn Health) -> Response {
    let ready = health.ready();
    let mut answer = health.details();
    answer.insert("ready".to_owned(), Value::Bool(ready));
    answer::json(ready_status(ready), Body::from(Value::Object(answer).to_string()))
}

fn ready_status(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

pub(super) fn metrics(state: &AdminState) -> Response {
    let mut response = Response::new(Body::from((state.render_metrics)()));
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}
