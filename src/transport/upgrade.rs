//! `/v1/ws` on a connection that was used for plain HTTP before: the upgrade goes through the HTTP server.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{Response, StatusCode, Version};
use axum::routing::any;
use homing_protocol::code::ErrorCode;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::gate::{self, Gate};
use super::handshake::{Accepted, Head, Refused};
use super::prefixed::Prefixed;
use super::slots::Slot;
use super::socket;

/// Adds the route.
pub(super) fn route(router: Router, gate: Arc<Gate>) -> Router {
    router.route("/v1/ws", any(move |request: Request| async move { respond(request, gate) }))
}

fn respond(mut request: Request, gate: Arc<Gate>) -> Response<Body> {
    let mut head = Head::new(request.method().as_str(), request.version() == Version::HTTP_11);
    for (name, value) in request.headers() {
        head.header(name.as_str(), value.as_bytes());
    }
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    if !gate.answers_to(host) {
        return refuse(Refused { status: 421, code: ErrorCode::BadHost, detail: Gate::BAD_HOST });
    }
    let (accepted, places) = match head.accept().and_then(|accepted| Ok((accepted, places(&gate)?))) {
        Ok(accepted) => accepted,
        Err(refused) => return refuse(refused),
    };
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        let detail = "this connection cannot be upgraded";
        return refuse(Refused { status: 426, code: ErrorCode::UpgradeRequired, detail });
    };
    let response = switch(&accepted);
    tokio::spawn(async move {
        // A client that goes away instead has nothing to lose yet.
        let Ok(upgraded) = upgrade.await else { return };
        run(upgraded, gate, accepted.token, places).await;
    });
    response
}

async fn run(upgraded: Upgraded, gate: Arc<Gate>, header_token: Option<Box<str>>, places: (Slot, Slot)) {
    // Every connection of this server is one.
    let Ok(parts) = upgraded.downcast::<TokioIo<Prefixed>>() else { return };
    let (unread, stream) = parts.io.into_inner().into_parts();
    let mut rest = parts.read_buf.to_vec();
    rest.extend_from_slice(&unread);
    socket::run(socket::Upgraded { stream, rest: rest.into(), gate, header_token, places }).await;
}

/// One for the session, one for its connection: the HTTP server gives its own back.
fn places(gate: &Gate) -> Result<(Slot, Slot), Refused> {
    let connection = gate.connections.take().ok_or(gate::FULL)?;
    Ok((connection, gate.slots.take().ok_or(gate::FULL)?))
}

fn switch(accepted: &Accepted) -> Response<Body> {
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Accept", &accepted.accept);
    if let Some(subprotocol) = accepted.subprotocol {
        response = response.header("Sec-WebSocket-Protocol", subprotocol);
    }
    finish(response, String::new())
}

fn refuse(refused: Refused) -> Response<Body> {
    let mut response = Response::builder().status(refused.status).header(CONTENT_TYPE, "application/problem+json");
    if let Some((name, value)) = refused.extra_header() {
        response = response.header(name, value);
    }
    finish(response, refused.body())
}

fn finish(response: axum::http::response::Builder, body: String) -> Response<Body> {
    // Fails only for invalid headers, and these are constants and base64.
    response.body(Body::from(body)).unwrap_or_else(|_| Response::new(Body::empty()))
}
