//! Publishing to topics and to everybody, and what became of such messages.

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use homing_protocol::code::ErrorCode;
use homing_protocol::id::EntryId;
use homing_protocol::limits::{BATCH_BYTES_MAX, META_BYTES_MAX};
use homing_protocol::name::Name;
use homing_protocol::topic::Topic;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer;
use super::body::{self, BodyLimits};
use super::messages::{BODY_BYTES_BESIDE, Encoding, Text, entries_page, parse, payload};
use super::page::Page;
use super::problem::{BatchProblem, Problem};
use super::request::{authorize, path_name, path_text, traceparent};
use super::router::ApiState;
use crate::config::Scope;
use crate::publish::NewMessage;

/// Most topics of one request.
pub(super) const TOPICS_PER_REQUEST_MAX: usize = 1_000;

/// Appends a message to a topic.
pub(super) async fn publish(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Publish)?;
    let topic = Topic::Named(path_name(&mut parts, "topic").await?);
    publish_one(api, &parts, body, topic).await
}

/// Appends a message for every device.
pub(super) async fn broadcast(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Publish)?;
    publish_one(api, &parts, body, Topic::Broadcast).await
}

async fn publish_one(api: &ApiState, parts: &Parts, body: Body, topic: Topic) -> Result<Response, Problem> {
    // Base64 is a third longer than the bytes.
    let bytes_max = api.config.payload_bytes_max.div_ceil(3) * 4 + META_BYTES_MAX + BODY_BYTES_BESIDE;
    let limits = BodyLimits { bytes_max, timeout: api.config.body_timeout };
    let (body, _held) = body::read_json(&parts.headers, body, limits, &api.bodies).await?;
    let message = parse(&body, traceparent(&parts.headers))?;
    if message.receipt || message.device.is_some() {
        let detail = "messages to topics take no 'device' and no 'receipt'; who has acknowledged one is told by \
                      GET /v1/topics/{topic}/messages/{id}";
        return Err(Problem::new(ErrorCode::BadValue, detail));
    }
    let mut outcomes = api.publisher.publish_to_topics(std::slice::from_ref(&topic), &message).await?;
    let missing = || Problem::new(ErrorCode::Internal, "the message was left out");
    let published = outcomes.pop().ok_or_else(missing)??;
    let status = if published.created { StatusCode::CREATED } else { StatusCode::OK };
    // Neither a topic's name nor an id needs escaping.
    Ok(answer::json(status, Body::from(format!(r#"{{"id":"{topic}/{}"}}"#, published.id))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeveralRequest<'a> {
    #[serde(borrow)]
    topics: Vec<Text<'a>>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    key: Option<Text<'a>>,
    ttl_s: Option<u64>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
    encoding: Option<Encoding>,
}

#[derive(Serialize)]
struct SeveralAnswer<'a> {
    results: Vec<SeveralResult<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum SeveralResult<'a> {
    Published { status: u16, id: String },
    Problem(BatchProblem<'a>),
}

/// Appends one message to several topics: 200 with one result for each, in order.
pub(super) async fn publish_to_several(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Publish)?;
    let limits = BodyLimits { bytes_max: BATCH_BYTES_MAX, timeout: api.config.body_timeout };
    let (body, _held) = body::read_json(&parts.headers, body, limits, &api.bodies).await?;
    let request: SeveralRequest<'_> = body::parse_object(&body)?;
    check_count("topics", request.topics.len())?;
    let parsed: Vec<Result<Topic, Problem>> = request
        .topics
        .iter()
        .map(|topic| {
            let topic = Name::parse(&topic.0);
            topic.map(Topic::Named).map_err(|error| Problem::new(ErrorCode::BadName, format!("'topics': {error}")))
        })
        .collect();
    let topics: Vec<Topic> = parsed.iter().flatten().cloned().collect();
    let data = payload(request.data, request.encoding)?;
    let message = NewMessage {
        key: request.key.map(|key| key.0),
        ttl_s: request.ttl_s,
        meta: request.meta,
        traceparent: traceparent(&parts.headers),
        ..NewMessage::new(data)
    };
    let outcomes = api.publisher.publish_to_topics(&topics, &message).await?;
    let mut outcomes = topics.iter().zip(outcomes);
    let outcomes: Vec<Result<(u16, String), Problem>> = parsed
        .into_iter()
        .map(|parsed| {
            parsed?;
            match outcomes.next() {
                Some((topic, Ok(published))) => {
                    Ok((if published.created { 201 } else { 200 }, format!("{topic}/{}", published.id)))
                }
                Some((_, Err(error))) => Err(Problem::from(error)),
                None => Err(Problem::new(ErrorCode::Internal, "the message was left out")),
            }
        })
        .collect();
    let results = outcomes.iter().map(|outcome| match outcome {
        Ok((status, id)) => SeveralResult::Published { status: *status, id: id.clone() },
        Err(problem) => SeveralResult::Problem(problem.as_result()),
    });
    answer::encoded(StatusCode::OK, &SeveralAnswer { results: results.collect() })
}

/// Whether a list of a request keeps its limit.
pub(super) fn check_count(member: &str, count: usize) -> Result<(), Problem> {
    if count <= TOPICS_PER_REQUEST_MAX {
        return Ok(());
    }
    let detail = format!("'{member}' has {count} names; at most {TOPICS_PER_REQUEST_MAX} are allowed");
    Err(Problem::new(ErrorCode::TooMany, detail).with_limit("topics_per_request_max", TOPICS_PER_REQUEST_MAX as u64))
}

/// The topic in the path, `*` for everybody's among them.
async fn path_topic(parts: &mut Parts) -> Result<Topic, Problem> {
    let text = path_text(parts, "topic").await?;
    Topic::parse(&text).map_err(|error| Problem::new(ErrorCode::BadName, format!("'topic' in the path: {error}")))
}

async fn path_id(parts: &mut Parts) -> Result<EntryId, Problem> {
    let text = path_text(parts, "id").await?;
    let bad = |_| Problem::new(ErrorCode::BadId, "'id' in the path is <milliseconds>-<sequence>, without the topic");
    EntryId::parse(text.as_bytes()).map_err(bad)
}

/// Lists what a topic holds, oldest first.
pub(super) async fn browse(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Read)?;
    let topic = path_topic(&mut parts).await?;
    let page = Page::parse(&parts.uri)?;
    let after = page.entry()?;
    // One more than asked for, to know whether there is a next page.
    let entries = api.store.topic_page(&topic, after, page.limit + 1).await?;
    Ok(entries_page(entries, page.limit, Some(&topic), api.config.payload_bytes_max))
}

#[derive(Serialize)]
struct ReceiptAnswer {
    id: String,
    /// Whether the topic still holds it.
    exists: bool,
    /// Users who follow the topic; `null` for a broadcast, which all devices get.
    followers: Option<u64>,
    /// Users of whom a device is done with it and with everything before it, and users of whom none is; `null` if they
    /// are too many to be counted, or not enumerated.
    followers_acked: Option<u64>,
    followers_unacked: Option<u64>,
    /// Devices that are done with it and with everything before it.
    devices_acked: u64,
}

/// Counts who has acknowledged a message.
pub(super) async fn receipt(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Read)?;
    let topic = path_topic(&mut parts).await?;
    let id = path_id(&mut parts).await?;
    let receipt = api.store.topic_receipt(&topic, id).await?;
    answer::encoded(
        StatusCode::OK,
        &ReceiptAnswer {
            id: format!("{topic}/{id}"),
            exists: receipt.exists,
            followers: receipt.followers,
            followers_acked: receipt.users_acked,
            followers_unacked: receipt.followers.zip(receipt.users_acked).map(|(all, acked)| all.saturating_sub(acked)),
            devices_acked: receipt.devices_acked,
        },
    )
}

#[derive(Serialize)]
struct FollowerAnswer<'a> {
    user: &'a str,
    devices: Vec<FollowerDevice<'a>>,
}

#[derive(Serialize)]
struct FollowerDevice<'a> {
    device: &'a str,
    acked: bool,
}

/// Lists followers, and which of their devices have acknowledged a message.
pub(super) async fn receipt_followers(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Read)?;
    let topic = Topic::Named(path_name(&mut parts, "topic").await?);
    let id = path_id(&mut parts).await?;
    let page = Page::parse(&parts.uri)?;
    let (users, next) = api.store.followers(&topic, page.scan()?, page.limit).await?;
    let states = api.store.follower_states(&topic, id, users).await?;
    let items = states.iter().map(|state| FollowerAnswer {
        user: state.user.as_str(),
        devices: state
            .devices
            .iter()
            .map(|(device, acked)| FollowerDevice { device: device.as_str(), acked: *acked })
            .collect(),
    });
    let items: Result<Vec<String>, _> = items.map(|item| serde_json::to_string(&item)).collect();
    let items = items.map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
    Ok(answer::items(items.into_iter(), next.as_deref()))
}
