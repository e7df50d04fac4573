//! `GET` and `DELETE` of a user, `DELETE` of a device.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::answer;
use super::problem::Problem;
use super::request::{authorize, path_name};
use super::router::ApiState;
use crate::config::Scope;
use crate::store::topics::FollowRequest;
use crate::store::view::{DeviceView, UserView};
use crate::store::{Function, Key};

#[derive(Serialize)]
struct UserAnswer<'a> {
    user: &'a str,
    inbox_length: u64,
    devices: Vec<DeviceAnswer<'a>>,
}

#[derive(Serialize)]
struct DeviceAnswer<'a> {
    device: &'a str,
    online: bool,
    /// The node that holds the session, or held the last one.
    node: &'a str,
    /// When the session attached; `null` when offline.
    connected_since_ms: Option<u64>,
    generation: u64,
    first_seen_ms: u64,
    last_seen_ms: u64,
    /// Unacknowledged and undelivered messages; `null` when Redis does not know cheaply.
    pending: Option<u64>,
    /// Delivered and not acknowledged.
    unacked: Option<u64>,
    oldest_pending_age_ms: Option<u64>,
    dropped: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<GapAnswer<'a>>,
}

#[derive(Serialize)]
struct GapAnswer<'a> {
    id: &'a str,
    reason: &'a str,
    count: u64,
}

/// Shows a user's devices. An unknown user has none.
pub(super) async fn show(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Read)?;
    let user = path_name(&mut parts, "user").await?;
    let dead_after_ms = u64::try_from(api.config.node_dead_after.as_millis()).unwrap_or(u64::MAX);
    let UserView { now_ms, inbox_length, devices } = api.store.user_view(&user, dead_after_ms).await?;
    let devices = devices.iter().map(|device| device_answer(device, now_ms)).collect();
    answer::encoded(StatusCode::OK, &UserAnswer { user: user.as_str(), inbox_length, devices })
}

fn device_answer(view: &DeviceView, now_ms: u64) -> DeviceAnswer<'_> {
    let record = &view.record;
    DeviceAnswer {
        device: &view.device,
        online: view.online,
        node: &record.node,
        connected_since_ms: view.online.then_some(record.since_ms as u64),
        generation: record.generation.parse().unwrap_or_default(),
        first_seen_ms: record.first_seen_ms as u64,
        last_seen_ms: record.last_seen_ms as u64,
        pending: view.pending,
        unacked: view.unacked,
        oldest_pending_age_ms: view.oldest_pending.map(|id| now_ms.saturating_sub(id.ms)),
        dropped: record.dropped as u64,
        gap: record.gap.as_ref().map(|gap| GapAnswer { id: &gap.id, reason: &gap.reason, count: gap.count as u64 }),
    }
}

#[derive(Serialize)]
struct DeviceRemoved {
    removed: bool,
}

#[derive(Serialize)]
struct UserRemoved {
    devices_removed: u64,
}

/// Forgets a device; its session is closed with 4011.
pub(super) async fn remove_device(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Manage)?;
    let user = path_name(&mut parts, "user").await?;
    let device = path_name(&mut parts, "device").await?;
    let keys = api.store.keys();
    let mut command = Function::Remove.call(&[&keys.name(Key::Inbox(&user)), &keys.name(Key::Devices(&user))]);
    // No generation: whatever session holds the device.
    command.arg(user.as_str()).arg(device.as_str()).arg(keys.control_prefix()).arg("");
    let followed = api.store.followed(&user).await?.into_iter().map(|(topic, _)| topic).collect();
    api.store.drop_cursors(&user, std::slice::from_ref(&device), followed).await?;
    let removed: u64 = api.store.call(&command).await?;
    answer::encoded(StatusCode::OK, &DeviceRemoved { removed: removed == 1 })
}

/// Forgets everything of a user; all sessions are closed with 4011.
pub(super) async fn remove(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Manage)?;
    let user = path_name(&mut parts, "user").await?;
    // First, while the devices are known whose cursors go with it.
    let nothing = FollowRequest { user: &user, follow: &[], unfollow: &[], replace: true, owner: "", limit: 0 };
    let devices = api.store.follow(nothing).await?.map_or_else(|_| Vec::new(), |change| change.devices);
    api.store.drop_cursors(&user, &devices, Vec::new()).await?;
    let keys = api.store.keys();
    let mut command = Function::Purge.call(&[&keys.name(Key::Inbox(&user)), &keys.name(Key::Devices(&user))]);
    command.arg(user.as_str()).arg(keys.control_prefix());
    let devices_removed: u64 = api.store.call(&command).await?;
    answer::encoded(StatusCode::OK, &UserRemoved { devices_removed })
}
