//! Which path and method leads to which call, on which listener.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use homing_protocol::code::ErrorCode;

use super::budget::BodyBudget;
use super::calls::{self, Call, HEALTH};
use super::health::{self, AdminState, Health};
use super::host::{self, HostPolicy};
use super::problem::Problem;
use crate::auth::ApiKeys;
use crate::publish::{Publisher, Waits};
use crate::store::Store;

/// What the API needs to know.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Largest payload, in bytes.
    pub payload_bytes_max: usize,
    /// Topics that a user may follow.
    pub topics_per_user: u32,
    /// Longest time that a request's body may take.
    pub body_timeout: Duration,
    /// Age of a heartbeat from which on a node's sessions do not count as online.
    pub node_dead_after: Duration,
    /// Which `Host` headers are answered; any if `None`.
    pub hosts: Option<HostPolicy>,
}

/// What the API works with. Cloning is cheap.
#[derive(Clone)]
pub struct ApiState {
    /// Reads users.
    pub store: Store,
    /// Appends messages.
    pub publisher: Publisher,
    /// Who waits for acks at this node.
    pub waits: Waits,
    /// Who may call.
    pub keys: ApiKeys,
    /// Room for bodies, shared by all of a node's listeners and threads.
    pub bodies: BodyBudget,
    /// Whether this node delivers.
    pub health: Arc<dyn Health>,
    /// Limits.
    pub config: ApiConfig,
}

/// The producers' calls and health, for a listener of their own.
pub fn producer_router(state: ApiState) -> Router {
    let hosts = state.config.hosts.clone();
    finish(routes(calls::all(), state), hosts)
}

/// The public listener: the producers' calls, health, and `others` (clients' sessions, the first page).
pub fn public_router(state: ApiState, others: Router) -> Router {
    let hosts = state.config.hosts.clone();
    finish(routes(calls::all(), state).merge(others), hosts)
}

/// The public listener when the producers' calls have one of their own: health and `others`.
pub fn client_router(state: ApiState, others: Router) -> Router {
    let hosts = state.config.hosts.clone();
    finish(routes(HEALTH.iter(), state).merge(others), hosts)
}

/// The admin listener: health with details, and metrics.
pub fn admin_router(state: AdminState) -> Router {
    let routes = Router::new()
        .route("/healthz", get(async || health::alive()))
        .route("/readyz", get(async |State(state): State<AdminState>| health::ready_with_details(&*state.health)))
        .route("/metrics", get(async |State(state): State<AdminState>| health::metrics(&state)))
        .with_state(state);
    finish(routes, None)
}

/// Routes of calls, from the table.
fn routes(calls: impl Iterator<Item = &'static Call>, state: ApiState) -> Router {
    let routes = Router::new();
    let routes = calls.fold(routes, |routes, call| routes.route(call.path, (call.route)(&state.config)));
    routes.with_state(Arc::new(state))
}

fn finish(routes: Router, hosts: Option<HostPolicy>) -> Router {
    let routes = routes
        .method_not_allowed_fallback(async || {
            Problem::new(ErrorCode::MethodNotAllowed, "this path has other methods; see the header 'Allow'")
        })
        .fallback(async || Problem::new(ErrorCode::NotFound, "there is no such path"));
    match hosts {
        // Only in --dev: a layer costs every request an allocation.
        Some(policy) => routes.layer(axum::middleware::from_fn_with_state(policy, host::guard)),
        None => routes,
    }
}
