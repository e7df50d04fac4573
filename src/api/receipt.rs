//! `GET /v1/users/{user}/messages/{id}`, and the wait of `POST /v1/users/{user}/messages?wait=…`.

use std::collections::HashSet;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use homing_protocol::code::ErrorCode;
use homing_protocol::id::EntryId;
use homing_protocol::name::Name;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::answer;
use super::problem::Problem;
use super::request::{authorize, path_id, path_name};
use super::router::ApiState;
use crate::config::Scope;
use crate::publish::Published;
use crate::publish::waits::{Told, WAITS_MAX, Wait};
use crate::store::message_view::{DeviceState, MessageView};

/// How long a producer waits that does not say.
pub(super) const TIMEOUT_S: u64 = 10;
/// How long a producer may wait.
pub(super) const TIMEOUT_S_MAX: u64 = 60;

#[derive(Serialize)]
struct MessageAnswer<'a> {
    id: &'a str,
    state: &'static str,
    /// Whether the message asked for receipts: states are exact then.
    receipt: bool,
    devices: Vec<DeviceAnswer<'a>>,
}

#[derive(Serialize)]
struct DeviceAnswer<'a> {
    device: &'a str,
    state: &'static str,
    delivered_at_ms: Option<u64>,
    acked_at_ms: Option<u64>,
}

/// Shows what has become of a message.
pub(super) async fn show(api: &ApiState, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    authorize(&api.keys, &parts.headers, Scope::Read)?;
    let user = path_name(&mut parts, "user").await?;
    let id = path_id(&mut parts, "id").await?;
    let view = api.store.message_view(&user, id, api.config.payload_bytes_max).await?;
    message_answer(StatusCode::OK, &id.to_string(), &view)
}

fn message_answer(status: StatusCode, id: &str, view: &MessageView) -> Result<Response, Problem> {
    let devices = view.devices.iter().map(|receipt| DeviceAnswer {
        device: &receipt.device,
        state: receipt.state.as_str(),
        delivered_at_ms: receipt.delivered_at_ms,
        acked_at_ms: receipt.acked_at_ms,
    });
    let devices = devices.collect();
    answer::encoded(status, &MessageAnswer { id, state: view.state.as_str(), receipt: view.receipt, devices })
}

/// What a producer waits for, and how long at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    until: Until,
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// One device has acked.
    Acked,
    /// No device is left that could ack.
    AckedAll,
}

impl Patience {
    /// From the query; `None` if the producer does not wait.
    pub(super) fn parse(uri: &Uri) -> Result<Option<Self>, Problem> {
        let bad = |detail: String| Problem::new(ErrorCode::BadValue, detail);
        let (mut until, mut timeout_s) = (None, None);
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("wait", "acked") => until = Some(Until::Acked),
                ("wait", "acked_all") => until = Some(Until::AckedAll),
                ("wait", _) => return Err(bad("'wait' is acked or acked_all".to_owned())),
                ("timeout_s", text) => match text.parse::<u64>() {
                    Ok(seconds @ 1..=TIMEOUT_S_MAX) => timeout_s = Some(seconds),
                    _ => {
                        let detail = format!("'timeout_s' is a number from 1 to {TIMEOUT_S_MAX}");
                        return Err(bad(detail).with_limit("wait_timeout_s_max", TIMEOUT_S_MAX));
                    }
                },
                (name, _) => return Err(bad(format!("'{name}' means nothing here"))),
            }
        }
        match (until, timeout_s) {
            (None, Some(_)) => Err(bad("'timeout_s' needs a 'wait'".to_owned())),
            (None, None) => Ok(None),
            (Some(until), timeout_s) => {
                let timeout = Duration::from_secs(timeout_s.unwrap_or(TIMEOUT_S));
                Ok(Some(Self { until, timeout }))
            }
        }
    }
}

/// A producer that waits.
pub(super) struct Waiting {
    wait: Wait,
    until: Until,
    deadline: Instant,
}

/// Begins to wait, for a message that is still to be appended.
pub(super) fn begin(api: &ApiState, patience: Patience) -> Result<Waiting, Problem> {
    let deadline = Instant::now() + patience.timeout;
    match api.waits.begin() {
        Some(wait) => Ok(Waiting { wait, until: patience.until, deadline }),
        None => {
            let detail = format!("{WAITS_MAX} producers wait at this node; publish without 'wait', or try again");
            Err(Problem::new(ErrorCode::Overloaded, detail).with_limit("waits_max", WAITS_MAX as u64))
        }
    }
}

/// The answer to a message that is in the inbox: whatever fails from now on, it has its id.
pub(super) async fn answer_when_acked(
    api: &ApiState,
    user: &Name,
    published: Published,
    waiting: Waiting,
) -> Result<Response, Problem> {
    let status = if published.created { StatusCode::CREATED } else { StatusCode::OK };
    let view = match published.id.parse() {
        Ok(id) => await_acks(api, user, id, waiting).await,
        Err(_) => MessageView::default(),
    };
    message_answer(status, &published.id, &view)
}

/// What has become of the message when nothing more needs to be waited for.
async fn await_acks(api: &ApiState, user: &Name, id: EntryId, waiting: Waiting) -> MessageView {
    let Waiting { mut wait, until, deadline } = waiting;
    let look = || api.store.message_view(user, id, api.config.payload_bytes_max);
    let mut open = Open::default();
    if wait.follow(&api.store, user, id).await.is_ok()
        && let Ok(view) = look().await
    {
        open = Open::of(&view);
        if open.is_over(until) {
            return view;
        }
    }
    // Ends early when the node drains.
    while let Ok(Some(told)) = timeout_at(deadline, wait.next()).await {
        open.note(&told);
        if open.is_over(until) {
            break;
        }
    }
    look().await.unwrap_or_default()
}

/// Who may still ack, as far as is known.
#[derive(Default)]
struct Open {
    devices: HashSet<String>,
    /// Of at least one device it is known how it ended.
    ended: bool,
    acked: bool,
}

impl Open {
    fn of(view: &MessageView) -> Self {
        let open = view.devices.iter().filter(|receipt| receipt.state.is_open());
        Self {
            devices: open.map(|receipt| receipt.device.clone()).collect(),
            ended: view.devices.iter().any(|receipt| !receipt.state.is_open()),
            acked: view.devices.iter().any(|receipt| receipt.state == DeviceState::Acked),
        }
    }

    fn note(&mut self, told: &Told) {
        self.devices.remove(&told.device);
        self.ended = true;
        self.acked |= told.event == "acked";
    }

    fn is_over(&self, until: Until) -> bool {
        (until == Until::Acked && self.acked) || (self.ended && self.devices.is_empty())
    }
}
