//! What `homing listen` knows across connections, and what it does on each.

use std::time::{Duration, Instant};

use homing_protocol::close::CloseCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::connection::{Connection, Incoming, ServerFrame, Unconnected};
use super::exit::{Exit, Failure, OrExit as _, note, print};
use super::listen::{From, ListenOptions};
use super::token::{Allowed, Signer};
use crate::config::quantity::Span;
use crate::config::{ClientConfig, host};

/// Time for the server's `ready`.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// Life of the tokens that it makes.
const TOKEN_TTL: Span = Span(Duration::from_secs(3_600));
/// Time to wait for the last acks to be confirmed, with `--count`.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// Digits of `instance`.
const INSTANCE_DIGITS: usize = 16;

/// How a connection ended, if not by a failure.
pub(super) enum End {
    /// All is done.
    Done,
    /// Connect again.
    Again {
        /// For people.
        reason: String,
        /// Not before this time.
        retry_after: Option<Duration>,
    },
}

/// A client of the protocol.
pub(super) struct Listener {
    options: ListenOptions,
    url: String,
    signer: Option<Signer>,
    interrupt: Signal,
    /// With `seq`, tells the server which of two connections of this process is the newer.
    instance: String,
    seq: u64,
    /// Of the last `ready`: with it the server knows that a device that it has forgotten is not new.
    epoch: Option<String>,
    was_connected: bool,
    printed: u64,
    done_at: Option<Instant>,
    link: Link,
}

/// What holds for one connection only.
struct Link {
    ready_since: Option<Instant>,
    /// After one heartbeat without a word of ours we ping; after two without one of the server's, it is dead.
    heartbeat: Duration,
    spoke: Instant,
    renew_at: Option<Instant>,
    /// Said by an `error` frame, before the close.
    retry_after: Option<Duration>,
    unconfirmed: usize,
}

impl Link {
    fn new() -> Self {
        Self {
            ready_since: None,
            heartbeat: READY_TIMEOUT / 2,
            spoke: Instant::now(),
            renew_at: None,
            retry_after: None,
            unconfirmed: 0,
        }
    }
}

#[derive(Deserialize)]
struct MessageId {
    id: String,
}

/// A frame could not be sent; the connection is lost.
type Sent = Result<(), String>;

impl Listener {
    pub(super) fn new(options: ListenOptions, config: &ClientConfig) -> Result<Self, Failure> {
        let signer = match &options.user {
            Some(_) => Some(Signer::new(options.kid.clone(), options.audience.clone(), config)?),
            None => None,
        };
        Ok(Self {
            url: web_socket_url(&config.url(options.url.as_deref()))?,
            signer,
            interrupt: signal(SignalKind::interrupt()).or_exit(Exit::Other)?,
            instance: host::random().chars().take(INSTANCE_DIGITS).collect(),
            seq: 0,
            epoch: None,
            was_connected: false,
            printed: 0,
            done_at: None,
            link: Link::new(),
            options,
        })
    }

    /// Resolves at Ctrl-C.
    pub(super) async fn interrupted(&mut self) {
        self.interrupt.recv().await;
    }

    /// How long the last connection lasted since its `ready`.
    pub(super) fn lasted(&self) -> Option<Duration> {
        self.link.ready_since.map(|since| since.elapsed())
    }

    /// One connection, from its beginning to its end.
    pub(super) async fn connect(&mut self) -> Result<End, Failure> {
        self.link = Link::new();
        let hello = self.hello()?;
        let opened = tokio::select! {
            opened = Connection::open(&self.url) => opened,
            _ = self.interrupt.recv() => return Ok(End::Done),
        };
        let mut connection = match opened {
            Ok(connection) => connection,
            Err(Unconnected::Fatal(failure)) => return Err(failure),
            Err(Unconnected::Later { reason, retry_after }) => return Ok(End::Again { reason, retry_after }),
            Err(Unconnected::Unreachable(reason)) if self.was_connected => return Ok(self.again(reason)),
            // The first time, a wrong address is likelier than a server that is away.
            Err(Unconnected::Unreachable(reason)) => return Err(Failure::new(Exit::Unreachable, reason)),
        };
        self.was_connected = true;
        let end = match self.send(&mut connection, &hello).await {
            Ok(()) => self.converse(&mut connection).await,
            Err(reason) => Ok(self.again(reason)),
        };
        if !matches!(end, Ok(End::Again { .. })) {
            connection.close().await;
        }
        end
    }

    fn token(&self) -> Result<String, Failure> {
        match (&self.signer, &self.options.user, &self.options.token) {
            (Some(signer), Some(user), _) => signer.sign(user, Allowed::default(), TOKEN_TTL),
            (_, _, Some(token)) => Ok(token.clone()),
            _ => Err(Failure::new(Exit::Usage, "give --token or --user")),
        }
    }

    fn hello(&mut self) -> Result<Value, Failure> {
        self.seq += 1;
        let mut hello = json!({
            "type": "connect",
            "token": self.token()?,
            "device": self.options.device.as_str(),
            "instance": self.instance,
            "seq": self.seq,
            "confirm": self.options.count.is_some(),
        });
        if let Some(window) = self.options.window {
            hello["window"] = json!(window);
        }
        if let Some(from) = self.options.from {
            hello["from"] = json!(if from == From::Start { "start" } else { "end" });
        }
        if let Some(epoch) = &self.epoch {
            hello["epoch"] = json!(epoch);
        }
        Ok(hello)
    }

    async fn converse(&mut self, connection: &mut Connection) -> Result<End, Failure> {
        let mut heard = Instant::now();
        loop {
            let silent_at = heard + self.link.heartbeat * 2;
            let events =
                [Some(silent_at), Some(self.link.spoke + self.link.heartbeat), self.link.renew_at, self.done_at];
            let next_event = events.into_iter().flatten().min().unwrap_or(silent_at);
            // All arms are cancel-safe; see `Connection::next`.
            let incoming = tokio::select! {
                incoming = connection.next() => Some(incoming),
                () = tokio::time::sleep_until(next_event.into()) => None,
                _ = self.interrupt.recv() => return Ok(End::Done),
            };
            let sent = match incoming {
                None if Instant::now() >= silent_at => {
                    return Ok(self.again(format!("the server has been silent for {:?}", self.link.heartbeat * 2)));
                }
                None => self.on_time(connection).await?,
                Some(Incoming::Closed { code, reason }) => return self.on_close(code, &reason),
                Some(Incoming::Lost(reason)) => return Ok(self.again(reason)),
                Some(Incoming::Frame(frame)) => {
                    heard = Instant::now();
                    self.on_frame(connection, *frame).await?
                }
                Some(Incoming::Alive) => {
                    heard = Instant::now();
                    Ok(())
                }
            };
            if let Err(reason) = sent {
                return Ok(self.again(reason));
            }
            if self.done_at.is_some_and(|done_at| self.link.unconfirmed == 0 || Instant::now() >= done_at) {
                return Ok(End::Done);
            }
        }
    }

    async fn on_time(&mut self, connection: &mut Connection) -> Result<Sent, Failure> {
        if self.link.renew_at.is_some_and(|renew_at| Instant::now() >= renew_at) {
            self.link.renew_at = None;
            let token = self.token()?;
            return Ok(self.send(connection, &json!({ "type": "auth", "token": token })).await);
        }
        if self.link.spoke.elapsed() >= self.link.heartbeat {
            return Ok(self.send(connection, &json!({ "type": "ping" })).await);
        }
        Ok(Ok(()))
    }

    async fn on_frame(&mut self, connection: &mut Connection, frame: ServerFrame) -> Result<Sent, Failure> {
        match frame.kind.as_str() {
            "messages" => self.on_messages(connection, &frame.messages).await,
            "ready" => {
                self.on_ready(&frame);
                Ok(Ok(()))
            }
            "authed" => {
                self.plan_renewal(frame.expires_at_ms, frame.now_ms);
                Ok(Ok(()))
            }
            "acked" => {
                self.link.unconfirmed = self.link.unconfirmed.saturating_sub(frame.ids.len());
                Ok(Ok(()))
            }
            "ping" => Ok(self.send(connection, &json!({ "type": "pong" })).await),
            "gap" => {
                note(format_args!("messages may be missing: {} ({})", frame.reason, frame.count));
                Ok(self.ack(connection, &[frame.id]).await)
            }
            "error" => {
                self.link.retry_after = frame.retry_after_ms.map(Duration::from_millis).or(self.link.retry_after);
                note(format_args!("the server says {}: {}", frame.code, frame.message));
                Ok(Ok(()))
            }
            // `pong`, and what later versions may bring.
            _ => Ok(Ok(())),
        }
    }

    fn on_ready(&mut self, frame: &ServerFrame) {
        let pending = frame.pending.as_u64().map_or(String::new(), |pending| format!(", {pending} pending"));
        note(format_args!("connected as {}/{}, generation {}{pending}", frame.user, frame.device, frame.generation));
        if self.epoch.as_ref().is_some_and(|epoch| *epoch != frame.epoch) {
            note(format_args!("new epoch {}: the server may have lost or rewound data", frame.epoch));
        }
        self.epoch = Some(frame.epoch.clone());
        self.link.ready_since = Some(Instant::now());
        self.link.heartbeat = Duration::from_millis(frame.heartbeat_ms.max(1_000));
        self.plan_renewal(frame.expires_at_ms, frame.now_ms);
    }

    /// Renews the tokens that it makes well before they expire; a token that it was given, it cannot.
    fn plan_renewal(&mut self, expires_at_ms: u64, now_ms: u64) {
        if self.signer.is_some() && expires_at_ms > 0 {
            let now_ms = if now_ms > 0 { now_ms } else { unix_ms() };
            let left = Duration::from_millis(expires_at_ms.saturating_sub(now_ms));
            self.link.renew_at = Some(Instant::now() + left.mul_f64(0.8));
        }
    }

    async fn on_messages(&mut self, connection: &mut Connection, messages: &[Box<RawValue>]) -> Result<Sent, Failure> {
        let mut ids = Vec::with_capacity(messages.len());
        for message in messages {
            if self.options.count.is_some_and(|count| self.printed >= count) {
                break;
            }
            let id: MessageId = serde_json::from_str(message.get()).or_exit(Exit::Other)?;
            print(one_line(message.get()))?;
            self.printed += 1;
            ids.push(id.id);
        }
        if self.options.count.is_some_and(|count| self.printed >= count) && self.done_at.is_none() {
            self.done_at = Some(Instant::now() + CONFIRM_TIMEOUT);
        }
        if ids.is_empty() { Ok(Ok(())) } else { Ok(self.ack(connection, &ids).await) }
    }

    async fn ack(&mut self, connection: &mut Connection, ids: &[String]) -> Sent {
        if self.options.no_ack {
            return Ok(());
        }
        if self.options.count.is_some() {
            self.link.unconfirmed += ids.len();
        }
        self.send(connection, &json!({ "type": "ack", "ids": ids })).await
    }

    async fn send(&mut self, connection: &mut Connection, frame: &Value) -> Sent {
        self.link.spoke = Instant::now();
        connection.send(frame).await
    }

    fn again(&self, reason: String) -> End {
        End::Again { reason: format!("connection lost: {reason}"), retry_after: self.link.retry_after }
    }

    fn on_close(&self, code: u16, reason: &str) -> Result<End, Failure> {
        let text =
            if reason.is_empty() { format!("closed with {code}") } else { format!("closed with {code}: {reason}") };
        if code == CloseCode::TokenExpired.number() && self.signer.is_none() {
            return Err(Failure::new(Exit::Refused, format!("{text}; get a new token")));
        }
        if CloseCode::may_reconnect(code) {
            return Ok(End::Again { reason: text, retry_after: self.link.retry_after });
        }
        let exit = match code {
            4001 | 4003 => Exit::Refused,
            1000 | 4004..=4099 => Exit::Ended,
            _ => Exit::Rejected,
        };
        Err(Failure::new(exit, text))
    }
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The server never reformats a message; a line break can only stand between its parts, never inside a text.
fn one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

/// `http` becomes `ws`, and the path is added unless it is there.
fn web_socket_url(url: &str) -> Result<String, Failure> {
    let url = match url.split_once("://") {
        Some(("http" | "ws", rest)) => format!("ws://{rest}"),
        Some(("https" | "wss", rest)) => format!("wss://{rest}"),
        _ => return Err(Failure::new(Exit::Usage, format!("{url}: expected http(s)://host or ws(s)://host"))),
    };
    Ok(if url.ends_with("/v1/ws") { url } else { format!("{url}/v1/ws") })
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
