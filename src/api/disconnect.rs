//! `POST /v1/users/{user}/disconnect`: ends sessions, and may refuse the tokens that they came with.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use homing_protocol::code::ErrorCode;
use homing_protocol::name::Name;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answer;
use super::body::{self, BodyLimits};
use super::problem::Problem;
use super::request::{authorize, path_name};
use super::router::ApiState;
use crate::config::Scope;
use crate::store::{Function, Key};

/// Longest reason, in bytes: it stands in the devices' records until they attach again.
pub(super) const REASON_BYTES_MAX: usize = 200;
/// Most devices that one request names: as many as a user can have.
pub(super) const DEVICES_MAX: usize = 1_000;
/// Room for the longest names of them, and the rest.
const BODY_BYTES_MAX: usize = 512 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DisconnectRequest {
    /// All, if they are not named.
    devices: Option<Vec<String>>,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    refuse_tokens: bool,
}

#[derive(Serialize)]
struct Disconnected {
    disconnected: u64,
}

/// Ends the sessions of a user's devices with 4011; devices and messages stay.
pub(super) async fn disconnect(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Manage)?;
    let user = path_name(&mut parts, "user").await?;
    let limits = BodyLimits { bytes_max: BODY_BYTES_MAX, timeout: api.config.body_timeout };
    let (body, _held) = body::read_json(&parts.headers, body, limits, &api.bodies).await?;
    let request: DisconnectRequest = body::parse_object(&body)?;
    check(&request)?;
    let keys = api.store.keys();
    let argument = json!({
        "user": user.as_str(),
        "channels": keys.control_prefix(),
        "devices": request.devices,
        "reason": request.reason,
        "refuse_tokens": request.refuse_tokens,
    });
    let mut command = Function::Disconnect.call(&[&keys.name(Key::Devices(&user))]);
    command.arg(argument.to_string());
    let disconnected = api.store.call(&command).await?;
    answer::encoded(StatusCode::OK, &Disconnected { disconnected })
}

fn check(request: &DisconnectRequest) -> Result<(), Problem> {
    if request.reason.len() > REASON_BYTES_MAX {
        let detail = format!("'reason' has {} bytes; at most {REASON_BYTES_MAX} are allowed", request.reason.len());
        return Err(Problem::new(ErrorCode::TooBig, detail).with_limit("reason_bytes_max", REASON_BYTES_MAX as u64));
    }
    let devices = request.devices.as_deref().unwrap_or_default();
    if devices.len() > DEVICES_MAX {
        let detail = format!("'devices' names {}; at most {DEVICES_MAX} are allowed", devices.len());
        return Err(Problem::new(ErrorCode::TooMany, detail).with_limit("devices_max", DEVICES_MAX as u64));
    }
    match devices.iter().find_map(|device| Name::parse(device).err()) {
        Some(error) => Err(Problem::new(ErrorCode::BadName, format!("'devices': {error}"))),
        None => Ok(()),
    }
}
