//! Which path and method leads to which call, on which listener.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{delete, get, post, put};
use homing_protocol::code::ErrorCode;
use metrics::Counter;

use super::budget::BodyBudget;
use super::health::{self, AdminState, Health};
use super::host::{self, HostPolicy};
use super::problem::Problem;
use super::{batch, disconnect, follows, messages, presence, receipt, topics, users};
use crate::auth::ApiKeys;
use crate::publish::{Publisher, Waits};
use crate::store::Store;
use crate::telemetry::names;

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
    finish(producer_routes(state.clone()).merge(health_routes(state.health)), state.config.hosts)
}

/// The public listener: the producers' calls, health, and `others` (clients' sessions, the first page).
pub fn public_router(state: ApiState, others: Router) -> Router {
    let routes = producer_routes(state.clone()).merge(health_routes(state.health)).merge(others);
    finish(routes, state.config.hosts)
}

/// The public listener when the producers' calls have one of their own: health and `others`.
pub fn client_router(state: ApiState, others: Router) -> Router {
    finish(health_routes(state.health).merge(others), state.config.hosts)
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

/// Makes a handler that answers problems and counts the request under its route's pattern.
macro_rules! counted {
    ($pattern:literal, $handler:path) => {{
        let counters = Counters::new($pattern);
        async move |State(state): State<Arc<ApiState>>, request: Request| {
            let response = $handler(&state, request).await.unwrap_or_else(Problem::into_response);
            counters.count(response.status());
            response
        }
    }};
}

fn producer_routes(state: ApiState) -> Router {
    topic_routes()
        .route(
            "/v1/users/{user}/messages",
            post(counted!("POST /v1/users/{user}/messages", messages::publish))
                .get(counted!("GET /v1/users/{user}/messages", messages::browse)),
        )
        .route("/v1/users/{user}/messages/{id}", get(counted!("GET /v1/users/{user}/messages/{id}", receipt::show)))
        .route("/v1/messages", post(counted!("POST /v1/messages", batch::publish)))
        .route(
            "/v1/users/{user}",
            get(counted!("GET /v1/users/{user}", users::show))
                .delete(counted!("DELETE /v1/users/{user}", users::remove)),
        )
        .route(
            "/v1/users/{user}/devices/{device}",
            delete(counted!("DELETE /v1/users/{user}/devices/{device}", users::remove_device)),
        )
        .route(
            "/v1/users/{user}/disconnect",
            post(counted!("POST /v1/users/{user}/disconnect", disconnect::disconnect)),
        )
        .route("/v1/presence", get(counted!("GET /v1/presence", presence::show)))
        .with_state(Arc::new(state))
}

fn topic_routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/v1/broadcast", post(counted!("POST /v1/broadcast", topics::broadcast)))
        .route("/v1/topics/messages", post(counted!("POST /v1/topics/messages", topics::publish_to_several)))
        .route(
            "/v1/topics/{topic}/messages",
            post(counted!("POST /v1/topics/{topic}/messages", topics::publish))
                .get(counted!("GET /v1/topics/{topic}/messages", topics::browse)),
        )
        .route(
            "/v1/topics/{topic}/messages/{id}",
            get(counted!("GET /v1/topics/{topic}/messages/{id}", topics::receipt)),
        )
        .route(
            "/v1/topics/{topic}/messages/{id}/followers",
            get(counted!("GET /v1/topics/{topic}/messages/{id}/followers", topics::receipt_followers)),
        )
        .route(
            "/v1/topics/{topic}/followers",
            post(counted!("POST /v1/topics/{topic}/followers", follows::change_many))
                .get(counted!("GET /v1/topics/{topic}/followers", follows::followers)),
        )
        .route(
            "/v1/topics/{topic}/followers/{user}",
            put(counted!("PUT /v1/topics/{topic}/followers/{user}", follows::follow))
                .delete(counted!("DELETE /v1/topics/{topic}/followers/{user}", follows::unfollow)),
        )
        .route(
            "/v1/users/{user}/topics",
            get(counted!("GET /v1/users/{user}/topics", follows::show))
                .put(counted!("PUT /v1/users/{user}/topics", follows::replace)),
        )
}

fn health_routes(health: Arc<dyn Health>) -> Router {
    Router::new()
        .route("/healthz", get(async || health::alive()))
        .route("/readyz", get(async |State(health): State<Arc<dyn Health>>| health::ready(&*health)))
        .with_state(health)
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

/// Handles of one route's metric, made once. Shared, because axum clones a handler for every request.
#[derive(Clone)]
struct Counters {
    by_class: Arc<[Counter; 4]>,
}

impl Counters {
    fn new(pattern: &'static str) -> Self {
        let by_class = ["2xx", "3xx", "4xx", "5xx"]
            .map(|class| metrics::counter!(names::HTTP_REQUESTS, "route" => pattern, "status" => class));
        Self { by_class: Arc::new(by_class) }
    }

    fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(2);
        if let Some(counter) = self.by_class.get(class) {
            counter.increment(1);
        }
    }
}
