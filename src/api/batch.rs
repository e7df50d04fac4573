//! `POST /v1/messages`: many messages in one request.

use std::fmt;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use homing_protocol::code::ErrorCode;
use homing_protocol::limits::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX};
use homing_protocol::name::Name;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer;
use super::body::{self, BodyLimits};
use super::messages::{Encoding, Text, payload};
use super::problem::{BatchProblem, Problem};
use super::request::{authorize, traceparent};
use super::router::ApiState;
use crate::config::Scope;
use crate::publish::{NewMessage, Published};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchRequest<'a> {
    #[serde(borrow)]
    messages: Messages<'a>,
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
}

/// The texts of the messages: each is parsed by itself, so that a bad one spoils no other. Those over the limit are
/// counted, not kept.
struct Messages<'a> {
    texts: Vec<&'a RawValue>,
    count: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Messages<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Messages<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array of messages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Messages<'de>, A::Error> {
                let mut texts = Vec::new();
                while texts.len() < BATCH_MESSAGES_MAX
                    && let Some(text) = sequence.next_element::<&RawValue>()?
                {
                    texts.push(text);
                }
                let mut count = texts.len();
                while sequence.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Messages { texts, count })
            }
        }

        deserializer.deserialize_seq(Collect)
    }
}

/// Appends many messages: 200 with one result for each, in order.
pub(super) async fn publish(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Publish)?;
    let limits = BodyLimits { bytes_max: BATCH_BYTES_MAX, timeout: api.config.body_timeout };
    let (body, _held) = body::read_json(&parts.headers, body, limits, &api.bodies).await?;
    let messages = parse_batch(&body, traceparent(&parts.headers))?;
    let mut problems: Vec<Option<Problem>> = Vec::with_capacity(messages.len());
    let mut accepted = Vec::with_capacity(messages.len());
    for message in messages {
        problems.push(match message {
            Ok(message) => {
                accepted.push(message);
                None
            }
            Err(problem) => Some(problem),
        });
    }
    let mut outcomes = api.publisher.publish_batch(&accepted).await.into_iter();
    let outcomes: Vec<Result<Published, Problem>> = problems
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
    answer(&outcomes)
}

/// One message of a batch, with its user, or why it is none.
type BatchOutcome<'a> = Result<(Name, NewMessage<'a>), Problem>;

/// The messages of a body.
pub(crate) fn parse_batch<'a>(body: &'a [u8], traceparent: Option<&'a str>) -> Result<Vec<BatchOutcome<'a>>, Problem> {
    let BatchRequest { messages } = body::parse_object(body)?;
    if messages.count > BATCH_MESSAGES_MAX {
        let detail = format!("the batch has {} messages; at most {BATCH_MESSAGES_MAX} are allowed", messages.count);
        return Err(
            Problem::new(ErrorCode::TooMany, detail).with_limit("batch_messages_max", BATCH_MESSAGES_MAX as u64)
        );
    }
    Ok(messages.texts.into_iter().map(|text| parse(text, traceparent)).collect())
}

fn parse<'a>(text: &'a RawValue, traceparent: Option<&'a str>) -> BatchOutcome<'a> {
    let message: BatchMessage<'a> = body::parse_object(text.get().as_bytes())?;
    let user =
        Name::parse(&message.user.0).map_err(|error| Problem::new(ErrorCode::BadName, format!("'user': {error}")))?;
    let data = payload(message.data, message.encoding)?;
    let key = message.key.map(|key| key.0);
    Ok((user, NewMessage { data, key, ttl_s: message.ttl_s, meta: message.meta, traceparent }))
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

fn answer(outcomes: &[Result<Published, Problem>]) -> Result<Response, Problem> {
    let results = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(published) => {
                ResultMember::Published { status: if published.created { 201 } else { 200 }, id: &published.id }
            }
            Err(problem) => ResultMember::Problem(problem.as_result()),
        })
        .collect();
    answer::encoded(StatusCode::OK, &Answer { results })
}
