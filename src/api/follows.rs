//! Who follows which topics, as producers change it.

use std::borrow::Cow;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use homing_protocol::code::ErrorCode;
use homing_protocol::limits::BATCH_BYTES_MAX;
use homing_protocol::name::Name;
use homing_protocol::topic::Topic;
use serde::{Deserialize, Serialize};

use super::answer;
use super::body::{self, BodyLimits};
use super::messages::Text;
use super::page::Page;
use super::problem::{BatchProblem, Problem};
use super::request::{authorize, path_name};
use super::router::ApiState;
use super::topics::check_count;
use crate::config::Scope;
use crate::store::topics::FollowRequest;

/// Users of one request who are changed at once: Redis gets their commands together.
const CHANGES_AT_ONCE: usize = 64;

#[derive(Serialize)]
struct ChangeAnswer {
    /// Whether anything changed.
    changed: bool,
}

/// Makes a user follow a topic.
pub(super) async fn follow(api: &ApiState, request: Request) -> Result<Response, Problem> {
    change_one(api, request, true).await
}

/// Makes a user follow a topic no more.
pub(super) async fn unfollow(api: &ApiState, request: Request) -> Result<Response, Problem> {
    change_one(api, request, false).await
}

async fn change_one(api: &ApiState, request: Request, follow: bool) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Manage)?;
    let topic = path_name(&mut parts, "topic").await?;
    let user = path_name(&mut parts, "user").await?;
    let changed = change(api, &user, std::slice::from_ref(&topic), follow).await?;
    answer::encoded(StatusCode::OK, &ChangeAnswer { changed })
}

async fn change(api: &ApiState, user: &Name, topics: &[Name], follow: bool) -> Result<bool, Problem> {
    let (follow, unfollow) = if follow { (topics, &[][..]) } else { (&[][..], topics) };
    let limit = api.config.topics_per_user;
    let request = FollowRequest { user, follow, unfollow, replace: false, owner: "", limit };
    match api.store.follow(request).await? {
        Ok(change) => Ok(!(change.added.is_empty() && change.removed.is_empty())),
        Err(limit) => Err(too_many(limit)),
    }
}

fn too_many(limit: u64) -> Problem {
    let detail = format!("a user follows at most {limit} topics; nothing was changed");
    Problem::new(ErrorCode::TooMany, detail).with_limit("topics_per_user", limit)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BulkRequest<'a> {
    #[serde(borrow, default)]
    add: Vec<Text<'a>>,
    #[serde(borrow, default)]
    remove: Vec<Text<'a>>,
}

#[derive(Serialize)]
struct BulkAnswer<'a> {
    results: Vec<BulkResult<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum BulkResult<'a> {
    Done { status: u16, user: Cow<'a, str>, changed: bool },
    Problem(BatchProblem<'a>),
}

async fn change_named<'a>(
    api: &ApiState,
    user: Cow<'a, str>,
    topic: &Name,
    follow: bool,
) -> (Cow<'a, str>, Result<bool, Problem>) {
    let outcome = match Name::parse(&user) {
        Ok(name) => change(api, &name, std::slice::from_ref(topic), follow).await,
        Err(error) => Err(Problem::new(ErrorCode::BadName, error.to_string())),
    };
    (user, outcome)
}

/// Makes many users follow a topic, or follow it no more: 200 with one result for each, in order.
pub(super) async fn change_many(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Manage)?;
    let topic = path_name(&mut parts, "topic").await?;
    let limits = BodyLimits { bytes_max: BATCH_BYTES_MAX, timeout: api.config.body_timeout };
    let (body, _held) = body::read_json(&parts.headers, body, limits, &api.bodies).await?;
    let request: BulkRequest<'_> = body::parse_object(&body)?;
    check_count("add and remove", request.add.len() + request.remove.len())?;
    let mut outcomes = Vec::new();
    // One list after the other: somebody who is in both is left.
    for (users, follow) in [(request.add, true), (request.remove, false)] {
        let mut changes = Vec::with_capacity(users.len());
        for user in users {
            changes.push(change_named(api, user.0, &topic, follow));
        }
        outcomes.extend(stream::iter(changes).buffered(CHANGES_AT_ONCE).collect::<Vec<_>>().await);
    }
    let results = outcomes.iter().map(|(user, outcome)| match outcome {
        Ok(changed) => BulkResult::Done { status: 200, user: Cow::Borrowed(user.as_ref()), changed: *changed },
        Err(problem) => BulkResult::Problem(problem.as_result()),
    });
    answer::encoded(StatusCode::OK, &BulkAnswer { results: results.collect() })
}

/// Lists a topic's followers.
pub(super) async fn followers(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Read)?;
    let topic = Topic::Named(path_name(&mut parts, "topic").await?);
    let page = Page::parse(&parts.uri)?;
    let (users, next) = api.store.followers(&topic, page.scan()?, page.limit).await?;
    // A name needs no escaping.
    let items = users.iter().map(|user| format!(r#"{{"user":"{user}"}}"#));
    Ok(answer::items(items, next.as_deref()))
}

#[derive(Serialize)]
struct TopicsAnswer<'a> {
    user: &'a str,
    topics: Vec<TopicItem<'a>>,
}

#[derive(Serialize)]
struct TopicItem<'a> {
    topic: &'a str,
    since_ms: u64,
}

async fn show_topics(api: &ApiState, user: &Name) -> Result<Response, Problem> {
    let followed = api.store.followed(user).await?;
    let topics = followed.iter().map(|(topic, since_ms)| TopicItem { topic: topic.as_str(), since_ms: *since_ms });
    answer::encoded(StatusCode::OK, &TopicsAnswer { user: user.as_str(), topics: topics.collect() })
}

/// Shows what a user follows.
pub(super) async fn show(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Read)?;
    let user = path_name(&mut parts, "user").await?;
    show_topics(api, &user).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplaceRequest<'a> {
    #[serde(borrow)]
    topics: Vec<Text<'a>>,
}

/// Makes a user follow exactly these topics.
pub(super) async fn replace(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Manage)?;
    let user = path_name(&mut parts, "user").await?;
    let limits = BodyLimits { bytes_max: BATCH_BYTES_MAX, timeout: api.config.body_timeout };
    let (body, _held) = body::read_json(&parts.headers, body, limits, &api.bodies).await?;
    let request: ReplaceRequest<'_> = body::parse_object(&body)?;
    check_count("topics", request.topics.len())?;
    let parse = |topic: &Text<'_>| {
        Name::parse(&topic.0).map_err(|error| Problem::new(ErrorCode::BadName, format!("'topics': {error}")))
    };
    let mut topics = request.topics.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    topics.sort();
    topics.dedup();
    let limit = api.config.topics_per_user;
    let request = FollowRequest { user: &user, follow: &topics, unfollow: &[], replace: true, owner: "", limit };
    match api.store.follow(request).await? {
        Ok(_) => show_topics(api, &user).await,
        Err(limit) => Err(too_many(limit)),
    }
}
