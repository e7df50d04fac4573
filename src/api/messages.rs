//! `POST /v1/users/{user}/messages` and `GET /v1/users/{user}/messages`.

use std::borrow::Cow;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use homing_protocol::code::ErrorCode;
use homing_protocol::limits::META_BYTES_MAX;
use homing_protocol::message::Entry;
use homing_protocol::name::Name;
use homing_protocol::topic::{MessageId, Topic};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer;
use super::body::{self, BodyLimits};
use super::page::Page;
use super::problem::Problem;
use super::receipt::{self, Patience};
use super::request::{authorize, path_name, traceparent};
use super::router::ApiState;
use crate::config::Scope;
use crate::publish::{NewMessage, Payload};

/// Room in a body beside payload and `meta`: the other members, and white space.
pub(super) const BODY_BYTES_BESIDE: usize = 8 * 1024;

/// A text that is borrowed from the body unless it holds escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// How `data` is to be read.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    Base64,
}

/// The members of a message, beside its user.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Members<'a> {
    #[serde(borrow)]
    pub(super) data: &'a RawValue,
    #[serde(borrow)]
    pub(super) key: Option<Text<'a>>,
    pub(super) ttl_s: Option<u64>,
    #[serde(borrow)]
    pub(super) meta: Option<&'a RawValue>,
    pub(super) encoding: Option<Encoding>,
    #[serde(borrow)]
    pub(super) device: Option<Text<'a>>,
    pub(super) receipt: Option<bool>,
}

impl<'a> Members<'a> {
    /// The message that they stand for.
    pub(super) fn message(self, traceparent: Option<&'a str>) -> Result<NewMessage<'a>, Problem> {
        let device = self.device.map(|device| name("device", &device.0)).transpose()?;
        Ok(NewMessage {
            data: payload(self.data, self.encoding)?,
            key: self.key.map(|key| key.0),
            ttl_s: self.ttl_s,
            meta: self.meta,
            device,
            receipt: self.receipt.unwrap_or(false),
            traceparent,
        })
    }
}

/// The name that a member holds.
pub(super) fn name(member: &str, text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|error| Problem::new(ErrorCode::BadName, format!("'{member}': {error}")))
}

/// Appends one message: 201 with its id, 200 if its key was seen. With `wait` in the query, after it was acked.
pub(super) async fn publish(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Publish)?;
    let user = path_name(&mut parts, "user").await?;
    let patience = Patience::parse(&parts.uri)?;
    // Base64 is a third longer than the bytes.
    let bytes_max = api.config.payload_bytes_max.div_ceil(3) * 4 + META_BYTES_MAX + BODY_BYTES_BESIDE;
    let limits = BodyLimits { bytes_max, timeout: api.config.body_timeout };
    let (body, held) = body::read_json(&parts.headers, body, limits, &api.bodies).await?;
    let message = parse(&body, traceparent(&parts.headers))?;
    // Before the message is appended: a refusal must leave nothing behind.
    let waiting = patience.map(|patience| receipt::begin(api, patience)).transpose()?;
    let message = NewMessage { receipt: message.receipt || waiting.is_some(), ..message };
    let published = api.publisher.publish(&user, &message).await?;
    if let Some(waiting) = waiting {
        // While its producer waits, others need the room.
        drop((body, held));
        return receipt::answer_when_acked(api, &user, published, waiting).await;
    }
    let status = if published.created { StatusCode::CREATED } else { StatusCode::OK };
    // An id is digits and a dash: no escaping is needed.
    Ok(answer::json(status, Body::from([r#"{"id":""#, &published.id, r#""}"#].concat())))
}

/// The message that a body stands for.
pub(crate) fn parse<'a>(body: &'a [u8], traceparent: Option<&'a str>) -> Result<NewMessage<'a>, Problem> {
    body::parse_object::<Members<'a>>(body)?.message(traceparent)
}

/// The payload that `data` and `encoding` stand for.
pub(super) fn payload<'a>(data: &'a RawValue, encoding: Option<Encoding>) -> Result<Payload<'a>, Problem> {
    let Some(Encoding::Base64) = encoding else { return Ok(Payload::Json(data)) };
    let bad = |detail: &str| Problem::new(ErrorCode::BadValue, format!("'data' must be a text in base64: {detail}"));
    let text: Text<'_> = serde_json::from_str(data.get()).map_err(|_| bad("this is no text"))?;
    let bytes = BASE64.decode(text.0.as_bytes()).map_err(|error| bad(&error.to_string()))?;
    Ok(Payload::Bytes(bytes.into()))
}

/// Lists what is in an inbox, oldest first.
pub(super) async fn browse(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Read)?;
    let user = path_name(&mut parts, "user").await?;
    let page = Page::parse(&parts.uri)?;
    let after = page.entry()?;
    // One more than asked for, to know whether there is a next page.
    let entries = api.store.inbox_page(&user, after, page.limit + 1).await?;
    Ok(entries_page(entries, page.limit, None, api.config.payload_bytes_max))
}

/// A page of entries, of which one more than it holds was asked for.
pub(super) fn entries_page(
    mut entries: Vec<Entry<Vec<u8>>>,
    limit: usize,
    topic: Option<&Topic>,
    payload_bytes_max: usize,
) -> Response {
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| more).map(|entry| entry.id.to_string());
    answer::items(entries.iter().map(|entry| item(entry, topic, payload_bytes_max)), next.as_deref())
}

/// An entry as a client would get it. One over the limit, which no client gets, shows its size only.
fn item(entry: &Entry<Vec<u8>>, topic: Option<&Topic>, payload_bytes_max: usize) -> String {
    let bytes = entry.envelope().payload_bytes;
    if bytes <= payload_bytes_max {
        let mut text = String::new();
        match topic {
            None => entry.encode_into(1, &mut text),
            Some(topic) => entry.encode_topic_into(topic, 1, &mut text),
        }
        return text;
    }
    let id = match topic {
        None => MessageId::Inbox(entry.id),
        Some(topic) => MessageId::Topic(topic.clone(), entry.id),
    };
    format!(r#"{{"id":"{id}","ts":{},"too_big":true,"payload_bytes":{bytes}}}"#, entry.id.ms)
}
