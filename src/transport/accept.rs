//! The accept loop of one shard.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use homing_protocol::code::ErrorCode;
use metrics::Counter;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use super::gate::{self, Gate};
use super::handshake::Refused;
use super::opening::{self, Opening, OpeningError};
use super::slots::{Slot, Slots};
use super::socket::{self, Upgraded};
use super::{http, upgrade};
use crate::telemetry::names;

/// Pause after `accept` failed for lack of descriptors or memory: connections wait in the backlog meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time to write a refusal.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What an accept loop needs.
#[derive(Clone)]
pub struct AcceptConfig {
    /// HTTP beside `/v1/ws`.
    pub router: Router,
    /// `/v1/ws`; `None` on a listener without it.
    pub gate: Option<Arc<Gate>>,
    /// Places for connections of every kind; a storm of reconnecting clients must fit in before it is sorted.
    pub connections: Slots,
    /// Places for connections that turn out to be plain HTTP.
    pub requests: Slots,
    /// Time for the head of a request.
    pub header_timeout: Duration,
}

/// Accepts connections of one listener on the current thread.
pub struct Acceptor {
    config: AcceptConfig,
    errors: Counter,
}

impl Acceptor {
    /// An accept loop.
    #[must_use]
    pub fn new(mut config: AcceptConfig) -> Self {
        if let Some(gate) = &config.gate {
            // A proxy may ask for the upgrade on a connection that it used for plain HTTP before.
            config.router = upgrade::route(config.router, gate.clone());
        }
        Self { config, errors: metrics::counter!(names::ACCEPT_ERRORS) }
    }

    /// Accepts until `stopping` turns true, then lets HTTP requests finish and returns. WebSocket connections are ended
    /// by their shard.
    pub async fn run(self, listener: TcpListener, mut stopping: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let seen = stopping.clone();
        loop {
            // Each arm is cancel-safe; finished connections are only reaped.
            tokio::select! {
                () = stopped(&mut stopping) => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.admit(stream, &seen, &mut connections),
                    Err(error) => self.handle_error(&error).await,
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    fn admit(&self, mut stream: TcpStream, stopping: &watch::Receiver<bool>, connections: &mut JoinSet<()>) {
        // Small frames must not wait for each other; a socket that is gone already fails later.
        let _ = stream.set_nodelay(true);
        let Some(slot) = self.config.connections.take() else {
            self.errors.increment(1);
            let refused = Refused {
                status: 503,
                code: ErrorCode::Overloaded,
                detail: "this node holds as many connections as it may (sessions_max, and some for requests)",
            };
            connections.spawn(async move { opening::answer(&mut stream, refused, ANSWER_TIMEOUT).await });
            return;
        };
        connections.spawn(open(self.config.clone(), stream, slot, stopping.clone()));
    }

    async fn handle_error(&self, error: &std::io::Error) {
        self.errors.increment(1);
        // A client that gave up in the backlog costs nothing; anything else is a shortage of ours.
        if !matches!(error.kind(), std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::ConnectionReset) {
            warn!(%error, "cannot accept connections; trying again");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Waits until the node stops; also when nobody is left to say so. Cancel-safe.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone.
    drop(stopping.wait_for(|stopping| *stopping).await);
}

/// Finds out what a connection is for, and serves it.
async fn open(config: AcceptConfig, mut stream: TcpStream, slot: Slot, stopping: watch::Receiver<bool>) {
    let AcceptConfig { router, gate, requests, header_timeout, .. } = config;
    match opening::read(&mut stream, header_timeout).await {
        Ok(Opening::WebSocket(head, rest)) if gate.is_some() => {
            // The arm's guard just looked.
            let Some(gate) = gate else { return };
            // The router is not needed any more; a session may last for days.
            drop((router, stopping));
            if !gate.answers_to(head.host()) {
                let refused = Refused { status: 421, code: ErrorCode::BadHost, detail: Gate::BAD_HOST };
                return opening::answer(&mut stream, refused, ANSWER_TIMEOUT).await;
            }
            match head.accept().and_then(|accepted| Ok((accepted, gate.slots.take().ok_or(gate::FULL)?))) {
                Ok((accepted, place)) => {
                    if stream.write_all(accepted.response().as_bytes()).await.is_ok() {
                        let header_token = accepted.token;
                        let places = (slot, place);
                        tokio::spawn(socket::run(Upgraded { stream, rest, gate, header_token, places }));
                    }
                }
                Err(refused) => opening::answer(&mut stream, refused, ANSWER_TIMEOUT).await,
            }
        }
        Ok(Opening::WebSocket(..)) => {
            let refused = Refused { status: 404, code: ErrorCode::NotFound, detail: "no WebSocket on this listener" };
            opening::answer(&mut stream, refused, ANSWER_TIMEOUT).await;
        }
        Ok(Opening::Http(prefix)) => match requests.take() {
            Some(place) => http::serve(stream, prefix, router, (slot, place), header_timeout, stopping).await,
            None => {
                let detail = "this node serves as many HTTP connections as it may; try again";
                let refused = Refused { status: 503, code: ErrorCode::Overloaded, detail };
                opening::answer(&mut stream, refused, ANSWER_TIMEOUT).await;
            }
        },
        Err(OpeningError::Refused(refused)) => opening::answer(&mut stream, refused, ANSWER_TIMEOUT).await,
        Err(OpeningError::Io) => {}
    }
}
