//! One WebSocket connection of `homing listen`: frames out, frames in.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::{RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::exit::{Exit, Failure};

/// Time for the TCP connection, TLS and the HTTP upgrade.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The WebSocket subprotocol.
const SUBPROTOCOL: &str = "homing.v1";

/// What the server sends, all types in one: `RawValue` keeps messages as they came, which a tagged enum would not.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ServerFrame {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) messages: Vec<Box<RawValue>>,
    pub(super) ids: Vec<String>,
    pub(super) id: String,
    pub(super) epoch: String,
    pub(super) user: String,
    pub(super) device: String,
    pub(super) generation: Value,
    pub(super) pending: Value,
    pub(super) heartbeat_ms: u64,
    pub(super) now_ms: u64,
    pub(super) expires_at_ms: u64,
    pub(super) reason: String,
    pub(super) count: Value,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) retry_after_ms: Option<u64>,
}

/// What came.
pub(super) enum Incoming {
    Frame(Box<ServerFrame>),
    /// Something without meaning for us, but a sign of life.
    Alive,
    Closed {
        code: u16,
        reason: String,
    },
    Lost(String),
}

/// Why there is no connection.
pub(super) enum Unconnected {
    /// Trying again makes no sense.
    Fatal(Failure),
    /// The server is there, but not now.
    Later { reason: String, retry_after: Option<Duration> },
    /// Nobody there.
    Unreachable(String),
}

pub(super) struct Connection {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Connection {
    pub(super) async fn open(url: &str) -> Result<Self, Unconnected> {
        let usage = |error: Error| Unconnected::Fatal(Failure::new(Exit::Usage, format!("{url}: {error}")));
        let mut request = url.into_client_request().map_err(usage)?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        match timeout(CONNECT_TIMEOUT, connect_async_with_config(request, None, true)).await {
            Ok(Ok((stream, _))) => Ok(Self { stream }),
            Ok(Err(error)) => Err(unconnected(url, error)),
            Err(_) => Err(Unconnected::Unreachable(format!("{url}: no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
        }
    }

    pub(super) async fn send(&mut self, frame: &Value) -> Result<(), String> {
        self.stream.send(Message::text(frame.to_string())).await.map_err(|error| error.to_string())
    }

    /// The next thing to come. Cancel-safe: a frame is complete or still in the stream's buffer.
    pub(super) async fn next(&mut self) -> Incoming {
        match self.stream.next().await {
            Some(Ok(Message::Text(text))) => match serde_json::from_str(text.as_str()) {
                Ok(frame) => Incoming::Frame(Box::new(frame)),
                Err(error) => Incoming::Lost(format!("the server sent what is no frame: {error}")),
            },
            Some(Ok(Message::Close(Some(frame)))) => {
                Incoming::Closed { code: frame.code.into(), reason: frame.reason.to_string() }
            }
            Some(Ok(Message::Close(None))) | None => Incoming::Lost("closed without a reason".to_owned()),
            Some(Ok(_)) => Incoming::Alive,
            Some(Err(error)) => Incoming::Lost(error.to_string()),
        }
    }

    /// Says goodbye, and waits a moment for the answer.
    pub(super) async fn close(mut self) {
        let goodbye = async {
            let _ = self.stream.close(None).await;
            while let Some(Ok(_)) = self.stream.next().await {}
        };
        let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
    }
}

fn unconnected(url: &str, error: Error) -> Unconnected {
    let response = match error {
        Error::Http(response) => response,
        Error::Url(_) | Error::Protocol(_) => {
            return Unconnected::Fatal(Failure::new(Exit::Rejected, format!("{url}: {error}")));
        }
        error => return Unconnected::Unreachable(format!("{url}: {error}")),
    };
    let status = response.status();
    let reason = format!("{url}: the server answered {status}");
    match status.as_u16() {
        401 | 403 => Unconnected::Fatal(Failure::new(Exit::Refused, reason)),
        429 | 500.. => {
            let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Unconnected::Later { reason, retry_after: seconds.map(Duration::from_secs) }
        }
        _ => Unconnected::Fatal(Failure::new(Exit::Rejected, reason)),
    }
}
