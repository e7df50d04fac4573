//! `GET /v1/presence`: who of many users is online.

use axum::extract::{Query, Request};
use axum::http::StatusCode;
use axum::response::Response;
use homing_protocol::code::ErrorCode;
use homing_protocol::name::Name;
use serde::{Deserialize, Serialize};

use super::answer;
use super::problem::Problem;
use super::request::authorize;
use super::router::ApiState;
use crate::config::Scope;
use crate::store::presence::UserPresence;

/// Most users of one request: each is a look at a hash of Redis.
pub(super) const USERS_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PresenceRequest {
    users: String,
}

#[derive(Serialize)]
struct PresenceAnswer<'a> {
    items: Vec<UserAnswer<'a>>,
}

#[derive(Serialize)]
struct UserAnswer<'a> {
    user: &'a str,
    devices: Vec<DeviceAnswer<'a>>,
}

#[derive(Serialize)]
struct DeviceAnswer<'a> {
    device: &'a str,
    online: bool,
    /// The node that holds the session, or held the last one.
    node: &'a str,
    /// When the session attached; `null` when offline.
    since_ms: Option<u64>,
}

/// Shows the devices of up to [`USERS_MAX`] users, in the order in which they are named.
pub(super) async fn show(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Read)?;
    let Query(request) = Query::<PresenceRequest>::try_from_uri(&parts.uri)
        .map_err(|rejection| Problem::new(ErrorCode::BadValue, rejection.body_text()))?;
    let users = parse_users(&request.users)?;
    let dead_after_ms = u64::try_from(api.config.node_dead_after.as_millis()).unwrap_or(u64::MAX);
    let found = api.store.presence(&users, dead_after_ms).await?;
    let items = users.iter().zip(&found).map(|(user, presence)| user_answer(user, presence)).collect();
    answer::encoded(StatusCode::OK, &PresenceAnswer { items })
}

fn parse_users(list: &str) -> Result<Vec<Name>, Problem> {
    // A name has no space, so one can only be a `+` that was not encoded.
    let users = list.split(',').map(|user| Name::parse(&user.replace(' ', "+")));
    let users: Vec<Name> = users
        .collect::<Result<_, _>>()
        .map_err(|error| Problem::new(ErrorCode::BadName, format!("'users': {error}")))?;
    if users.len() > USERS_MAX {
        let detail = format!("'users' names {}; at most {USERS_MAX} are allowed", users.len());
        return Err(Problem::new(ErrorCode::TooMany, detail).with_limit("users_max", USERS_MAX as u64));
    }
    Ok(users)
}

fn user_answer<'a>(user: &'a Name, presence: &'a UserPresence) -> UserAnswer<'a> {
    let devices = presence.devices.iter().map(|device| DeviceAnswer {
        device: &device.device,
        online: device.online,
        node: &device.node,
        since_ms: device.since_ms,
    });
    UserAnswer { user: user.as_str(), devices: devices.collect() }
}
