//! The document: every call of the table, and what calls share.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get};
use homing_protocol::code::ErrorCode;
use serde_json::{Map, Value, json};

use super::describe::Answered;
use super::{follows, health, messages, schema, topics, users};
use crate::api::answer;
use crate::api::calls::{self, Call};
use crate::api::problem::Problem;
use crate::api::router::ApiConfig;
use crate::config::Scope;

/// The document of a node with these limits.
pub(in crate::api) fn document(config: &ApiConfig) -> Value {
    let mut paths = Map::new();
    for call in calls::all() {
        let path = paths.entry(call.path).or_insert_with(|| json!({}));
        path[call.method.to_ascii_lowercase()] = operation(call, config);
    }
    let groups = [
        schema::schemas(),
        messages::schemas(config),
        topics::schemas(config),
        follows::schemas(config),
        users::schemas(),
        health::schemas(),
    ];
    let schemas: Map<String, Value> =
        groups.into_iter().flatten().map(|(name, schema)| (name.to_owned(), schema)).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Homing",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "The HTTP API of producers and operators.",
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": schema::parameters(),
            "securitySchemes": {
                "apiKey": { "type": "http", "scheme": "bearer", "description": "an API key; a call names its scope" },
            },
        },
    })
}

fn operation(call: &Call, config: &ApiConfig) -> Value {
    let description = (call.describe)(config);
    let security = match call.scope {
        Some(scope) => json!([{ "apiKey": [scope_name(scope)] }]),
        None => json!([]),
    };
    let mut parameters: Vec<Value> = Vec::new();
    for name in call.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let shared = if name == "topic" && description.takes_broadcast { "topicOrBroadcast" } else { name };
        parameters.push(json!({ "$ref": format!("#/components/parameters/{shared}") }));
    }
    let has_names = !parameters.is_empty();
    parameters.extend(description.parameters);

    let mut codes: Vec<ErrorCode> = description.problems.concat();
    // Only a node with --dev is particular about its name.
    codes.push(ErrorCode::BadHost);
    if has_names {
        // An empty name makes it another path.
        codes.push(ErrorCode::NotFound);
    }
    let mut answers = problem_answers(&codes);
    answers.extend(description.answers.iter().map(|answer| (answer.status.to_string(), good_answer(answer))));

    let mut operation = json!({
        "operationId": description.id,
        "tags": [description.group],
        "summary": description.summary,
        "security": security,
        "parameters": parameters,
        "responses": answers,
    });
    if !description.text.is_empty() {
        operation["description"] = json!(description.text);
    }
    if let Some(body) = description.body {
        let content = json!({ "application/json": { "schema": body.schema, "example": body.example } });
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}

fn good_answer(answer: &Answered) -> Value {
    let content = Map::from_iter([(answer.media_type.to_owned(), json!({ "schema": answer.schema }))]);
    json!({ "description": answer.text, "content": content })
}

/// One answer for each status, with the codes that it may carry.
fn problem_answers(codes: &[ErrorCode]) -> Map<String, Value> {
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    // In the order of the closed list, each once.
    for code in ErrorCode::ALL.into_iter().filter(|code| codes.contains(code)) {
        by_status.entry(Problem::new(code, "").status().as_u16()).or_default().push(code.as_str());
    }
    let answer = |(status, codes): (u16, Vec<&str>)| {
        let own = json!({ "properties": { "status": { "const": status }, "code": { "enum": codes } } });
        let schema = json!({ "allOf": [schema::reference("Problem"), own] });
        let text = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error");
        let mut answer =
            json!({ "description": text, "content": { "application/problem+json": { "schema": schema } } });
        if status == StatusCode::SERVICE_UNAVAILABLE {
            answer["headers"] = json!({ "Retry-After": { "schema": { "type": "integer", "minimum": 0 } } });
        }
        (status.to_string(), answer)
    };
    by_status.into_iter().map(answer).collect()
}

pub(super) fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Publish => "publish",
        Scope::Read => "read",
        Scope::Manage => "manage",
    }
}

/// `GET /openapi.json`. The text is made once.
pub(in crate::api) fn serve_document<S: Clone + Send + Sync + 'static>(config: &ApiConfig) -> MethodRouter<S> {
    let text = Bytes::from(document(config).to_string());
    get(async move || answer::json(StatusCode::OK, Body::from(text)))
}
