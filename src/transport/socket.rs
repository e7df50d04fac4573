//! One WebSocket connection: the `connect` frame, then frames to the shard and from the outlet.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use homing_protocol::close::CloseCode;
use homing_protocol::code::ErrorCode;
use homing_protocol::frame::{ClientFrame, Connect, Incoming, ServerFrame};
use homing_protocol::limits::CLIENT_FRAME_BYTES_MAX;
use homing_protocol::name::Name;
use homing_protocol::session::{Open, Terms};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as SocketError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::gate::Gate;
use super::line::LineStream;
use super::slots::Slot;
use crate::auth::{Claims, TokenError};
use crate::delivery::outlet::{Frame, Outgoing, Outlet};
use crate::delivery::{Renewal, SessionKey};

/// Bytes that a connection reads at once, and keeps as a buffer all its life.
const READ_BUFFER_BYTES: usize = 512;
/// Time for a client to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for a client to take what was sent to it before its close. One that reads nothing would else hold its place
/// for ever.
const TAKE_TIMEOUT: Duration = Duration::from_secs(10);

type Socket = WebSocketStream<LineStream>;

/// An error frame and a close, before there is a session.
struct Farewell {
    code: ErrorCode,
    message: String,
    close: CloseCode,
}

fn farewell(code: ErrorCode, message: impl Into<String>, close: CloseCode) -> Farewell {
    Farewell { code, message: message.into(), close }
}

/// Serves one connection to its end.
pub(super) async fn run(
    stream: TcpStream,
    rest: Bytes,
    gate: Arc<Gate>,
    header_token: Option<Box<str>>,
    places: (Slot, Slot),
) {
    // What may wait to be written is bounded by the outlet, and by the size of a single message.
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(CLIENT_FRAME_BYTES_MAX))
        .max_frame_size(Some(CLIENT_FRAME_BYTES_MAX));
    let (stream, line) = LineStream::new(stream);
    let mut socket = WebSocketStream::from_partially_read(stream, rest.to_vec(), Role::Server, Some(config)).await;
    let outlet = Outlet::new(Some(line));
    match Box::pin(open(&mut socket, &gate, header_token, &outlet)).await {
        Ok(Some((key, user, device))) => {
            let mut carrier = Carrier { socket: &mut socket, outlet: &outlet, unflushed: 0 };
            if carrier.carry(&gate, key, (&user, &device), true).await == Carried::Ending {
                // A closed session ignores what its client says; that must not stop the client from reading.
                let _ = timeout(TAKE_TIMEOUT, Box::pin(carrier.carry(&gate, key, (&user, &device), false))).await;
            }
            // The shard is gone only when the node is.
            let _ = gate.shard.gone(key).await;
        }
        // The shard refused: the outlet says why.
        Ok(None) => drain(&mut socket, &outlet).await,
        Err(Some(farewell)) => Box::pin(part(&mut socket, farewell)).await,
        Err(None) => {}
    }
    drop(places);
}

/// Waits for the `connect` frame and opens a session. `Err(None)`: the client is gone.
async fn open(
    socket: &mut Socket,
    gate: &Gate,
    header_token: Option<Box<str>>,
    outlet: &Arc<Outlet>,
) -> Result<Option<(SessionKey, Name, Name)>, Option<Farewell>> {
    let mut connect = match timeout(gate.connect_timeout, read_connect(socket)).await {
        Ok(connect) => connect?,
        Err(_) => {
            let message = format!("no connect frame within {} ms (connect_timeout)", gate.connect_timeout.as_millis());
            return Err(Some(farewell(ErrorCode::ConnectTimeout, message, CloseCode::Protocol)));
        }
    };
    let Some(token) = connect.token.take().or(header_token) else {
        let message = "a token is needed, in the connect frame or as Authorization: Bearer";
        return Err(Some(farewell(ErrorCode::Unauthorized, message, CloseCode::Unauthorized)));
    };
    let claims = gate.verifier.verify(&token, unix_s()).map_err(|error| Some(refusal(&error)))?;
    drop(token);
    let terms = terms(&claims);
    let device = match (claims.device, connect.device.take()) {
        (Some(pinned), Some(asked)) if pinned != asked => {
            let message = "the token is for another device";
            return Err(Some(farewell(ErrorCode::Forbidden, message, CloseCode::Forbidden)));
        }
        (Some(device), _) | (None, Some(device)) => device,
        (None, None) => Name::default_device(),
    };
    let user = claims.user.clone();
    let open = Open {
        user: claims.user,
        device: device.clone(),
        connect,
        terms,
        // The shard knows.
        primary: 0,
        topics: claims.topics,
    };
    match gate.shard.open(open, outlet.clone()).await {
        Ok(key) => Ok(key.map(|key| (key, user, device))),
        Err(_) => Err(Some(farewell(ErrorCode::Draining, "this node is stopping; reconnect", CloseCode::Draining))),
    }
}

fn terms(claims: &Claims) -> Terms {
    let Claims { expires_at_ms, issued_at_s, sessions, .. } = *claims;
    Terms { expires_at_ms, issued_at_s, sessions }
}

fn refusal(error: &TokenError) -> Farewell {
    let close = match error.code() {
        ErrorCode::TokenExpired => CloseCode::TokenExpired,
        _ => CloseCode::Unauthorized,
    };
    farewell(error.code(), error.to_string(), close)
}

async fn read_connect(socket: &mut Socket) -> Result<Connect, Option<Farewell>> {
    loop {
        match poll_fn(|context| Pin::new(&mut *socket).poll_next(context)).await {
            Some(Ok(Message::Text(text))) => {
                return match Incoming::parse(&text) {
                    Ok(Incoming { frame: ClientFrame::Connect(connect), .. }) => Ok(*connect),
                    Ok(_) => {
                        let message = "the first frame must be connect";
                        Err(Some(farewell(ErrorCode::UnexpectedFrame, message, CloseCode::Protocol)))
                    }
                    Err(error) => Err(Some(farewell(error.code, error.message, CloseCode::Protocol))),
                };
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Binary(_))) => {
                return Err(Some(farewell(ErrorCode::Malformed, "frames are JSON texts", CloseCode::Protocol)));
            }
            Some(Err(error)) => {
                Box::pin(close_after(socket, &error)).await;
                return Err(None);
            }
            Some(Ok(Message::Close(_) | Message::Frame(_))) | None => return Err(None),
        }
    }
}

/// What happens next on a connection.
enum Turn {
    Received(Result<Message, SocketError>),
    Take(Outgoing),
    /// So many bytes were written.
    Flushed(usize),
    /// The session has ended, and the client is slow to take what was sent before.
    Ending,
    Over,
}

/// How carrying frames came to its end.
#[derive(PartialEq, Eq)]
enum Carried {
    /// The connection has ended.
    Over,
    /// The session has, and frames still wait to be taken by the client.
    Ending,
}

/// A connection of a session.
struct Carrier<'a> {
    socket: &'a mut Socket,
    outlet: &'a Outlet,
    /// Bytes that were given to the socket, or to its line, and are not flushed yet.
    unflushed: usize,
}

impl Carrier<'_> {
    /// Carries frames both ways until the connection ends; or, if `patient`, until only the client's slowness keeps it
    /// from ending.
    async fn carry(&mut self, gate: &Gate, key: SessionKey, who: (&Name, &Name), patient: bool) -> Carried {
        loop {
            let turn = poll_fn(|context| self.poll_turn(patient, context)).await;
            let told = match turn {
                Turn::Flushed(bytes) => match self.outlet.written(bytes) {
                    true => gate.shard.drained(key).await,
                    false => Ok(()),
                },
                Turn::Take(outgoing) => {
                    self.unflushed += outgoing.begun;
                    for frame in outgoing.frames {
                        self.unflushed += frame.len();
                        if Pin::new(&mut *self.socket).start_send(message(frame)).is_err() {
                            return Carried::Over;
                        }
                    }
                    if let Some(code) = outgoing.close {
                        Box::pin(close(self.socket, code.number())).await;
                        return Carried::Over;
                    }
                    Ok(())
                }
                Turn::Received(Ok(Message::Text(text))) => match Incoming::parse(&text) {
                    Ok(Incoming { frame: ClientFrame::Auth(token), reference }) => {
                        let outcome = renew(gate, who, &token);
                        gate.shard.renewal(key, Renewal { outcome, reference }).await
                    }
                    frame => gate.shard.frame(key, frame).await,
                },
                Turn::Received(Ok(Message::Ping(_) | Message::Pong(_))) => gate.shard.sign_of_life(key).await,
                Turn::Received(Ok(Message::Binary(_))) => {
                    // 1003: this endpoint takes texts only.
                    Box::pin(close(self.socket, 1003)).await;
                    return Carried::Over;
                }
                Turn::Received(Ok(Message::Close(_) | Message::Frame(_))) => {
                    // The socket answers it when it reads on.
                    self.socket.get_ref().begin_close();
                    Ok(())
                }
                Turn::Received(Err(error)) => {
                    Box::pin(close_after(self.socket, &error)).await;
                    return Carried::Over;
                }
                Turn::Ending => return Carried::Ending,
                Turn::Over => return Carried::Over,
            };
            if told.is_err() {
                return Carried::Over;
            }
        }
    }

    /// Writes what is to be written, takes what is queued once that is done, and reads. Writing does not stop reading,
    /// so that a client that is slow to take frames can still ack; only one that lets too many answers pile up is not
    /// heard until it has taken some.
    fn poll_turn(&mut self, patient: bool, context: &mut Context<'_>) -> Poll<Turn> {
        if self.unflushed > 0 {
            match Pin::new(&mut *self.socket).poll_flush(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(Turn::Flushed(std::mem::take(&mut self.unflushed))),
                Poll::Ready(Err(_)) => return Poll::Ready(Turn::Over),
                Poll::Pending if patient && self.outlet.poll_ending(context).is_ready() => {
                    return Poll::Ready(Turn::Ending);
                }
                Poll::Pending if self.outlet.is_overfull() => return Poll::Pending,
                Poll::Pending => {}
            }
        } else if let Poll::Ready(outgoing) = self.outlet.poll_take(context) {
            return Poll::Ready(Turn::Take(outgoing));
        }
        Poll::Ready(match ready!(Pin::new(&mut *self.socket).poll_next(context)) {
            Some(received) => Turn::Received(received),
            None => Turn::Over,
        })
    }
}

fn message(frame: Frame) -> Message {
    match frame {
        Frame::Own(text) => Message::text(text),
        // It was made from text, so this only counts its bytes.
        Frame::Shared(bytes) => Message::Text(Utf8Bytes::try_from(bytes).unwrap_or_default()),
    }
}

/// Checks a fresh token; it must be for the same user and device.
fn renew(gate: &Gate, (user, device): (&Name, &Name), token: &str) -> Result<Terms, (ErrorCode, String)> {
    match gate.verifier.verify(token, unix_s()) {
        Ok(Claims { user: other, .. }) if other != *user => {
            Err((ErrorCode::Forbidden, "the token is for another user".to_owned()))
        }
        Ok(Claims { device: Some(other), .. }) if other != *device => {
            Err((ErrorCode::Forbidden, "the token is for another device".to_owned()))
        }
        Ok(claims) => Ok(terms(&claims)),
        Err(error) => Err((error.code(), error.to_string())),
    }
}

/// Writes what a refused client's outlet holds, and closes.
async fn drain(socket: &mut Socket, outlet: &Outlet) {
    let outgoing = poll_fn(|context| outlet.poll_take(context)).await;
    for frame in outgoing.frames {
        if Pin::new(&mut *socket).start_send(message(frame)).is_err() {
            return;
        }
    }
    let code = outgoing.close.unwrap_or(CloseCode::Internal);
    Box::pin(close(socket, code.number())).await;
}

async fn part(socket: &mut Socket, farewell: Farewell) {
    let Farewell { code, message, close: number } = farewell;
    let error = ServerFrame::Error { code, message, retry_after_ms: None };
    if Pin::new(&mut *socket).start_send(Message::text(error.encode(None))).is_ok() {
        close(socket, number.number()).await;
    }
}

/// Closes after a frame that broke the rules of WebSocket (RFC 6455, section 7.4.1).
async fn close_after(socket: &mut Socket, error: &SocketError) {
    let number = match error {
        SocketError::Capacity(CapacityError::MessageTooLong { .. }) => 1009,
        SocketError::Utf8(_) => 1007,
        SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return,
        SocketError::Protocol(_) => 1002,
        _ => return,
    };
    close(socket, number).await;
}

/// Sends a close frame and waits a little for the client's, so that it is not lost to a reset.
async fn close(socket: &mut Socket, number: u16) {
    socket.get_ref().begin_close();
    let frame = CloseFrame { code: number.into(), reason: "".into() };
    let _ = timeout(CLOSE_TIMEOUT, async {
        socket.close(Some(frame)).await?;
        while let Some(Ok(_)) = poll_fn(|context| Pin::new(&mut *socket).poll_next(context)).await {}
        Ok::<_, SocketError>(())
    })
    .await;
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
