//! The calls of the API, each a row: method, path, scope, handler, description. The router and the document are made
//! of these rows and of nothing else.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, MethodRouter, get, on};
use metrics::Counter;

use super::openapi::{self, Description};
use super::problem::Problem;
use super::router::{ApiConfig, ApiState};
use super::{batch, disconnect, follows, health, messages, presence, receipt, topics, users};
use crate::config::Scope;
use crate::telemetry::names;

/// One call.
pub(super) struct Call {
    /// In capitals.
    pub(super) method: &'static str,
    /// With its parameters in braces.
    pub(super) path: &'static str,
    /// What a key needs; no key is needed if `None`.
    pub(super) scope: Option<Scope>,
    /// Makes what answers it.
    pub(super) route: fn(&ApiConfig) -> MethodRouter<Arc<ApiState>>,
    /// Makes its description, with the limits of this node.
    pub(super) describe: fn(&ApiConfig) -> Description,
}

/// A call with a key. Its handler answers problems, and the request is counted under its route's pattern.
macro_rules! call {
    ($scope:ident, $method:ident $path:literal, $handler:path, $describe:path) => {
        Call {
            method: stringify!($method),
            path: $path,
            scope: Some(Scope::$scope),
            route: |_| {
                let counters = Counters::new(concat!(stringify!($method), " ", $path));
                let answer = async move |State(state): State<Arc<ApiState>>, request: Request| {
                    let response = $handler(&state, request).await.unwrap_or_else(Problem::into_response);
                    counters.count(response.status());
                    response
                };
                on(MethodFilter::$method, answer)
            },
            describe: $describe,
        }
    };
}

/// What producers and operators call.
pub(super) static PRODUCERS: &[Call] = &[
    call!(Publish, POST "/v1/users/{user}/messages", messages::publish, openapi::messages::publish),
    call!(Read, GET "/v1/users/{user}/messages", messages::browse, openapi::messages::browse),
    call!(Read, GET "/v1/users/{user}/messages/{id}", receipt::show, openapi::messages::receipt),
    call!(Publish, POST "/v1/messages", batch::publish, openapi::messages::batch),
    call!(Publish, POST "/v1/broadcast", topics::broadcast, openapi::topics::broadcast),
    call!(Publish, POST "/v1/topics/messages", topics::publish_to_several, openapi::topics::several),
    call!(Publish, POST "/v1/topics/{topic}/messages", topics::publish, openapi::topics::publish),
    call!(Read, GET "/v1/topics/{topic}/messages", topics::browse, openapi::topics::browse),
    call!(Read, GET "/v1/topics/{topic}/messages/{id}", topics::receipt, openapi::topics::receipt),
    call!(
        Read,
        GET "/v1/topics/{topic}/messages/{id}/followers",
        topics::receipt_followers,
        openapi::topics::receipt_followers
    ),
    call!(Manage, POST "/v1/topics/{topic}/followers", follows::change_many, openapi::follows::change_many),
    call!(Read, GET "/v1/topics/{topic}/followers", follows::followers, openapi::follows::followers),
    call!(Manage, PUT "/v1/topics/{topic}/followers/{user}", follows::follow, openapi::follows::follow),
    call!(Manage, DELETE "/v1/topics/{topic}/followers/{user}", follows::unfollow, openapi::follows::unfollow),
    call!(Read, GET "/v1/users/{user}/topics", follows::show, openapi::follows::show),
    call!(Manage, PUT "/v1/users/{user}/topics", follows::replace, openapi::follows::replace),
    call!(Read, GET "/v1/users/{user}", users::show, openapi::users::show),
    call!(Read, GET "/v1/presence", presence::show, openapi::users::presence),
    call!(Manage, POST "/v1/users/{user}/disconnect", disconnect::disconnect, openapi::users::disconnect),
    call!(Manage, DELETE "/v1/users/{user}/devices/{device}", users::remove_device, openapi::users::remove_device),
    call!(Manage, DELETE "/v1/users/{user}", users::remove, openapi::users::remove),
    Call {
        method: "GET",
        path: "/openapi.json",
        scope: None,
        route: openapi::serve_document,
        describe: openapi::health::document,
    },
    Call { method: "GET", path: "/docs/api", scope: None, route: openapi::serve_page, describe: openapi::health::page },
];

/// What balancers ask, on every listener.
pub(super) static HEALTH: &[Call] = &[
    Call {
        method: "GET",
        path: "/healthz",
        scope: None,
        route: |_| get(async || health::alive()),
        describe: openapi::health::alive,
    },
    Call {
        method: "GET",
        path: "/readyz",
        scope: None,
        route: |_| get(async |State(api): State<Arc<ApiState>>| health::ready(&*api.health)),
        describe: openapi::health::ready,
    },
];

/// Every call that the document describes.
pub(super) fn all() -> impl Iterator<Item = &'static Call> {
    PRODUCERS.iter().chain(HEALTH)
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
