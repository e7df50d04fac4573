//! The document as a page: no script, and nothing from elsewhere.

use std::fmt::Write as _;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use serde_json::Value;

use super::{document, health};
use crate::api::router::ApiConfig;

const STYLE: &str = include_str!("page.css");
/// The page may not load or run anything; its style is its own.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// `GET /docs/api`. The text is made once.
pub(in crate::api) fn serve_page<S: Clone + Send + Sync + 'static>(config: &ApiConfig) -> MethodRouter<S> {
    let text = Bytes::from(render(&document(config)));
    get(async move || {
        let mut response = Response::new(Body::from(text));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    })
}

/// The page of a document.
pub(super) fn render(document: &Value) -> String {
    let mut page = String::from("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width\"><title>Homing: HTTP API</title><style>");
    page.push_str(STYLE);
    page.push_str("</style></head><body><h1>Homing: HTTP API</h1><p>");
    page.push_str("Calls need <code>Authorization: Bearer &lt;API key&gt;</code> with the scope that they name. ");
    page.push_str("For programs: <a href=\"/openapi.json\">openapi.json</a> (OpenAPI 3.1).</p>");
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for (path, methods) in members(&document["paths"]) {
        for (method, operation) in members(methods) {
            let group = text(&operation["tags"][0]);
            let call = call(document, method, path, operation);
            match groups.iter_mut().find(|(name, _)| *name == group) {
                Some((_, calls)) => calls.push(call),
                None => groups.push((group, vec![call])),
            }
        }
    }
    // What people come for stands before what only machines ask.
    groups.sort_by_key(|(name, _)| *name == health::GROUP);
    for (name, calls) in groups {
        page.push_str(&format!("<h2>{}</h2>{}", escape(name), calls.concat()));
    }
    page.push_str("<h2>Shapes</h2>");
    for (name, schema) in members(&document["components"]["schemas"]) {
        let name = escape(name);
        page.push_str(&format!("<h3 id=\"{name}\">{name}</h3>{}", shape(schema)));
    }
    page.push_str("</body></html>");
    page
}

fn call(document: &Value, method: &str, path: &str, operation: &Value) -> String {
    let scope = operation["security"][0]["apiKey"][0].as_str().map_or("no key", |scope| scope);
    let mut out = format!("<h3><code>{} {}</code></h3>", method.to_uppercase(), escape(path));
    let words = format!("{} {}", text(&operation["summary"]), text(&operation["description"]));
    out.push_str(&format!("<p>{} Scope: {}.</p><table>", escape(words.trim()), escape(scope)));
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let parameter = resolve(document, parameter);
        let words = format!(
            "{}, {}. {}",
            text(&parameter["in"]),
            if parameter["required"] == true { "required" } else { "optional" },
            text(&parameter["description"])
        );
        row(&mut out, text(&parameter["name"]), &format!("{} {}", escape(&words), kind(&parameter["schema"])));
    }
    let body = &operation["requestBody"]["content"]["application/json"];
    if !body.is_null() {
        let example = escape(&body["example"].to_string());
        row(&mut out, "body", &format!("{}<pre>{example}</pre>", kind(&body["schema"])));
    }
    for (status, answer) in members(&operation["responses"]) {
        for (media_type, content) in members(&answer["content"]) {
            let codes = content["schema"]["allOf"][1]["properties"]["code"]["enum"].as_array();
            let what = match codes {
                Some(codes) => codes
                    .iter()
                    .map(|code| format!("<code>{}</code>", escape(text(code))))
                    .collect::<Vec<_>>()
                    .join(", "),
                None if media_type == "text/html" => "HTML".to_owned(),
                None => kind(&content["schema"]),
            };
            row(&mut out, status, &format!("{} {what}", escape(text(&answer["description"]))));
        }
    }
    out.push_str("</table>");
    out
}

/// The members of an object as a table, anything else in a line.
fn shape(schema: &Value) -> String {
    let parts: Vec<&Value> = schema["oneOf"].as_array().map_or_else(|| vec![schema], |parts| parts.iter().collect());
    let tables = parts.into_iter().map(|part| {
        let required: Vec<&str> = part["required"].as_array().into_iter().flatten().map(text).collect();
        let mut out = String::from("<table>");
        if part["properties"].is_null() {
            row(&mut out, text(&part["type"]), &format!("{} {}", kind(part), escape(text(&part["description"]))));
        }
        for (name, member) in members(&part["properties"]) {
            let mark = if required.contains(&name) { "" } else { "optional: " };
            let words = escape(text(&member["description"]));
            row(&mut out, name, &format!("{mark}{} {words}", kind(member)));
        }
        out.push_str("</table>");
        out
    });
    tables.collect::<Vec<_>>().join("<p>or</p>")
}

/// What a schema allows, in a few words; a shared one as a link.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        let name = escape(name);
        return format!("<a href=\"#{name}\">{name}</a>");
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        return choices.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    if !schema["items"].is_null() {
        return format!("list of {}{}", kind(&schema["items"]), bounds(schema));
    }
    if !schema["properties"].is_null() {
        return shape(schema);
    }
    let words = match (&schema["enum"], &schema["const"], &schema["type"]) {
        (Value::Array(values), ..) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        (_, value, Value::Null) if !value.is_null() => plain(value),
        (_, _, Value::Array(kinds)) => kinds.iter().map(plain).collect::<Vec<_>>().join(" or "),
        (_, _, kind) => text(kind).to_owned(),
    };
    format!("<code>{}</code>{}", escape(&words), bounds(schema))
}

fn bounds(schema: &Value) -> String {
    let named = [
        ("minimum", "from"),
        ("maximum", "to"),
        ("minItems", "at least"),
        ("maxItems", "at most"),
        ("minLength", "length from"),
        ("maxLength", "length to"),
        ("pattern", "pattern"),
        ("default", "by default"),
    ];
    named.iter().filter(|(member, _)| !schema[*member].is_null()).fold(String::new(), |mut out, (member, words)| {
        // Writing to a text cannot fail.
        let _ = write!(out, " {words} <code>{}</code>", escape(&plain(&schema[*member])));
        out
    })
}

fn row(out: &mut String, name: &str, html: &str) {
    out.push_str(&format!("<tr><td><code>{}</code></td><td>{html}</td></tr>", escape(name)));
}

/// What a reference within the document stands for.
pub(super) fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let pointer = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
