//! `POST /v1/messages`: many messages, or one message to many users, in one request.

use std::fmt;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use homing_protocol::code::ErrorCode;
use homing_protocol::limits::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, BATCH_USERS_MAX};
use homing_protocol::name::Name;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer;
use super::body::{self, BodyLimits};
use super::messages::{Encoding, Members, Text, name};
use super::problem::{BatchProblem, Problem};
use super::request::{authorize, traceparent};
use super::router::ApiState;
use crate::config::Scope;
use crate::publish::{NewMessage, PublishError, Published};

/// Exactly one of `messages` and `users`; what stands beside `users` is the message that they all get.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchRequest<'a> {
    #[serde(borrow)]
    messages: Option<Texts<'a, BATCH_MESSAGES_MAX>>,
    #[serde(borrow)]
    users: Option<Texts<'a, BATCH_USERS_MAX>>,
    // Not an `Option` by itself, which would take a `null` for nothing.
    #[serde(borrow, default, deserialize_with = "some")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<Text<'a>>,
    ttl_s: Option<u64>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
    encoding: Option<Encoding>,
    #[serde(borrow)]
    device: Option<Text<'a>>,
    receipt: Option<bool>,
}

fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchMessage<'a> {
    #[serde(borrow)]
    user: Text<'a>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    key: Option<Text<'a>>,
    ttl_s: Option<u64>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
    encoding: Option<Encoding>,
    #[serde(borrow)]
    device: Option<Text<'a>>,
    receipt: Option<bool>,
}

/// The texts of messages or users: each is parsed by itself, so that a bad one spoils no other. Those over the limit are
/// counted, not kept.
struct Texts<'a, const MAX: usize> {
    texts: Vec<&'a RawValue>,
    count: usize,
}

impl<'de: 'a, 'a, const MAX: usize> Deserialize<'de> for Texts<'a, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<const MAX: usize>;

        impl<'de, const MAX: usize> Visitor<'de> for Collect<MAX> {
            type Value = Texts<'de, MAX>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Texts<'de, MAX>, A::Error> {
                let mut texts = Vec::new();
                while texts.len() < MAX
                    && let Some(text) = sequence.next_element::<&RawValue>()?
                {
                    texts.push(text);
                }
                let mut count = texts.len();
                while sequence.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Texts { texts, count })
            }
        }

        deserializer.deserialize_seq(Collect::<MAX>)
    }
}

/// Appends many messages, or one to many users: 200 with one result for each, in order.
pub(super) async fn publish(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Publish)?;
    let limits = BodyLimits { bytes_max: BATCH_BYTES_MAX, timeout: api.config.body_timeout };
    let (body, _held) = body::read_json(&parts.headers, body, limits, &api.bodies).await?;
    match parse_batch(&body, traceparent(&parts.headers))? {
        Batch::Messages(messages) => publish_messages(api, messages).await,
        Batch::ToUsers(users, message) => publish_to_users(api, users, &message).await,
    }
}

async fn publish_messages(api: &ApiState, messages: Vec<BatchOutcome<'_>>) -> Result<Response, Problem> {
    let (accepted, problems) = sort(messages);
    answer(problems, api.publisher.publish_batch(&accepted).await)
}

async fn publish_to_users(
    api: &ApiState,
    users: Vec<Result<Name, Problem>>,
    message: &NewMessage<'_>,
) -> Result<Response, Problem> {
    let (accepted, problems) = sort(users);
    answer(problems, api.publisher.publish_to_users(&accepted, message).await?)
}

/// What can be published, and for each of all why it cannot.
fn sort<T>(parsed: Vec<Result<T, Problem>>) -> (Vec<T>, Vec<Option<Problem>>) {
    let mut accepted = Vec::with_capacity(parsed.len());
    let problems = parsed.into_iter().map(|parsed| parsed.map(|good| accepted.push(good)).err()).collect();
    (accepted, problems)
}

/// One message of a batch, with its user, or why it is none.
type BatchOutcome<'a> = Result<(Name, NewMessage<'a>), Problem>;

/// What a body asks for.
pub(crate) enum Batch<'a> {
    /// Messages, each to its own user.
    Messages(Vec<BatchOutcome<'a>>),
    /// One message to many users.
    ToUsers(Vec<Result<Name, Problem>>, NewMessage<'a>),
}

/// What a body asks for.
pub(crate) fn parse_batch<'a>(body: &'a [u8], traceparent: Option<&'a str>) -> Result<Batch<'a>, Problem> {
    let request: BatchRequest<'a> = body::parse_object(body)?;
    let BatchRequest { messages, users, data, key, ttl_s, meta, encoding, device, receipt } = request;
    let bad = |detail: &'static str| Problem::new(ErrorCode::BadValue, detail);
    match (messages, users) {
        (Some(messages), None) => {
            let is_alone = data.is_none() && key.is_none() && ttl_s.is_none() && meta.is_none();
            if !(is_alone && encoding.is_none() && device.is_none() && receipt.is_none()) {
                return Err(bad("beside 'messages' stands no other member: each message has its own"));
            }
            let texts = messages.within("messages", "batch_messages_max")?;
            Ok(Batch::Messages(texts.into_iter().map(|text| parse(text, traceparent)).collect()))
        }
        (None, Some(users)) => {
            let data = data.ok_or_else(|| bad("missing field `data`"))?;
            let texts = users.within("users", "batch_users_max")?;
            let message = Members { data, key, ttl_s, meta, encoding, device, receipt }.message(traceparent)?;
            Ok(Batch::ToUsers(texts.into_iter().map(parse_user).collect(), message))
        }
        _ => Err(bad("exactly one of 'messages' and 'users' is needed")),
    }
}

impl<'a, const MAX: usize> Texts<'a, MAX> {
    fn within(self, member: &'static str, limit: &'static str) -> Result<Vec<&'a RawValue>, Problem> {
        if self.count <= MAX {
            return Ok(self.texts);
        }
        let detail = format!("'{member}' has {} elements; at most {MAX} are allowed", self.count);
        Err(Problem::new(ErrorCode::TooMany, detail).with_limit(limit, MAX as u64))
    }
}

fn parse<'a>(text: &'a RawValue, traceparent: Option<&'a str>) -> BatchOutcome<'a> {
    let message: BatchMessage<'a> = body::parse_object(text.get().as_bytes())?;
    let user = name("user", &message.user.0)?;
    let BatchMessage { data, key, ttl_s, meta, encoding, device, receipt, .. } = message;
    Ok((user, Members { data, key, ttl_s, meta, encoding, device, receipt }.message(traceparent)?))
}

fn parse_user(text: &RawValue) -> Result<Name, Problem> {
    match serde_json::from_str::<Text<'_>>(text.get()) {
        Ok(user) => name("user", &user.0),
        Err(_) => Err(Problem::new(ErrorCode::BadName, "'user': a name is a text")),
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    results: Vec<ResultMember<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ResultMember<'a> {
    Published { status: u16, id: &'a str },
    Problem(BatchProblem<'a>),
}

/// One result for each element of the request: its own problem, or the next outcome.
fn answer(problems: Vec<Option<Problem>>, outcomes: Vec<Result<Published, PublishError>>) -> Result<Response, Problem> {
    let mut outcomes = outcomes.into_iter();
    let results: Vec<Result<Published, Problem>> = problems
        .into_iter()
        .map(|problem| match problem {
            Some(problem) => Err(problem),
            // The publisher answers every message that it was given.
            None => match outcomes.next() {
                Some(outcome) => outcome.map_err(Problem::from),
                None => Err(Problem::new(ErrorCode::Internal, "the message was left out")),
            },
        })
        .collect();
    let results = results
        .iter()
        .map(|result| match result {
            Ok(published) => {
                ResultMember::Published { status: if published.created { 201 } else { 200 }, id: &published.id }
            }
            Err(problem) => ResultMember::Problem(problem.as_result()),
        })
        .collect();
    answer::encoded(StatusCode::OK, &Answer { results })
}
