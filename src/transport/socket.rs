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
use super::shared_stream::SharedStream;
use super::slots::Slot;
use crate::auth::{Claims, TokenError};
use crate::delivery::outlet::{Frame, Outgoing, Outlet};
use crate::delivery::{Renewal, SessionKey, Told};

/// Bytes that a connection reads at once, and keeps as a buffer all its life.
const READ_BUFFER_BYTES: usize = 512;
/// Time for a client to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for a client to take what was sent to it before its close. One that reads nothing would else hold its place
/// for ever.
const TAKE_TIMEOUT: Duration = Duration::from_secs(10);

type Socket = WebSocketStream<SharedStream>;

/// An error frame and a close, before there is a session.
struct Farewell {
    code: ErrorCode,
    message: String,
    close: CloseCode,
}

fn farewell(code: ErrorCode, message: impl Into<String>, close: CloseCode) -> Farewell {
    Farewell { code, message: message.into(), close }
}

/// What a connection is opened with: it upgraded, and what came behind its request is `rest`.
pub(super) struct Upgraded {
    pub(super) stream: TcpStream,
    pub(super) rest: Bytes,
    pub(super) gate: Arc<Gate>,
    pub(super) header_token: Option<Box<str>>,
    pub(super) places: (Slot, Slot),
}

/// A connection of a session.
struct Connection {
    socket: Socket,
    outlet: Arc<Outlet>,
    /// Bytes that were given to the socket, or begun by the shard, and are not flushed yet.
    unflushed: usize,
    gate: Arc<Gate>,
    key: SessionKey,
    user: Name,
    device: Name,
    /// Given back when the connection has ended.
    _places: (Slot, Slot),
}

/// Serves one connection to its end.
pub(super) fn run(upgraded: Upgraded) -> impl Future<Output = ()> + Send {
    // Boxed, as is all that a quiet connection should not keep room for; and before the future that keeps the box.
    let opening = Box::pin(open(upgraded));
    async move {
        let Some(mut connection) = opening.await else { return };
        if connection.carry(true).await == Carried::Ending {
            // A closed session ignores what its client says; that must not stop the client from reading.
            let _ = Box::pin(timeout(TAKE_TIMEOUT, connection.carry(false))).await;
        }
        // The shard is gone only when the node is.
        let _ = connection.gate.shard.gone(connection.key).await;
    }
}

/// From an upgraded connection to one of a session, if it gets one; else it is closed here.
async fn open(upgraded: Upgraded) -> Option<Connection> {
    let Upgraded { stream, rest, gate, header_token, places } = upgraded;
    // What may wait to be written is bounded by the outlet, and by the size of a single message.
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(CLIENT_FRAME_BYTES_MAX))
        .max_frame_size(Some(CLIENT_FRAME_BYTES_MAX));
    let (stream, writer) = SharedStream::new(stream);
    let mut socket = WebSocketStream::from_partially_read(stream, rest.to_vec(), Role::Server, Some(config)).await;
    let outlet = Outlet::new(Some(writer));
    match enter(&mut socket, &gate, header_token, &outlet).await {
        Ok(Some((key, user, device))) => {
            return Some(Connection { socket, outlet, unflushed: 0, gate, key, user, device, _places: places });
        }
        // The shard refused: the outlet says why.
        Ok(None) => drain(&mut socket, &outlet).await,
        Err(Some(farewell)) => part(&mut socket, farewell).await,
        Err(None) => {}
    }
    None
}

/// Waits for the `connect` frame and opens a session. `Err(None)`: the client is gone.
async fn enter(
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
                if let Some(number) = close_number(&error) {
                    Box::pin(close(socket, number)).await;
                }
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

/// What follows from it.
enum Next {
    GoOn,
    Tell(Told),
    /// Close with this number.
    Close(u16),
    End(Carried),
}

/// How carrying frames came to its end.
#[derive(PartialEq, Eq)]
enum Carried {
    /// The connection has ended.
    Over,
    /// The session has, and frames still wait to be taken by the client.
    Ending,
}

impl Connection {
    /// Carries frames both ways until the connection ends; or, if `patient`, until only the client's slowness keeps it
    /// from ending.
    async fn carry(&mut self, patient: bool) -> Carried {
        loop {
            // What a turn brings is dealt with in there: kept across an await, it would be a part of every connection.
            let next = poll_fn(|context| {
                let turn = ready!(self.poll_turn(patient, context));
                Poll::Ready(self.act(turn))
            });
            match next.await {
                Next::GoOn => {}
                Next::Tell(told) => {
                    if told.await.is_err() {
                        return Carried::Over;
                    }
                }
                Next::Close(number) => {
                    Box::pin(close(&mut self.socket, number)).await;
                    return Carried::Over;
                }
                Next::End(carried) => return carried,
            }
        }
    }

    fn act(&mut self, turn: Turn) -> Next {
        let (shard, key) = (&self.gate.shard, self.key);
        match turn {
            Turn::Flushed(bytes) if self.outlet.written(bytes) => Next::Tell(shard.drained(key)),
            Turn::Flushed(_) => Next::GoOn,
            Turn::Take(outgoing) => {
                self.unflushed += outgoing.begun;
                for frame in outgoing.frames {
                    self.unflushed += frame.len();
                    if Pin::new(&mut self.socket).start_send(message(frame)).is_err() {
                        return Next::End(Carried::Over);
                    }
                }
                outgoing.close.map_or(Next::GoOn, |code| Next::Close(code.number()))
            }
            Turn::Received(Ok(Message::Text(text))) => Next::Tell(match Incoming::parse(&text) {
                Ok(Incoming { frame: ClientFrame::Auth(token), reference }) => {
                    let outcome = self.renew(&token);
                    shard.renewal(key, Renewal { outcome, reference })
                }
                frame => shard.frame(key, frame),
            }),
            Turn::Received(Ok(Message::Ping(_) | Message::Pong(_))) => Next::Tell(shard.sign_of_life(key)),
            // 1003: this endpoint takes texts only.
            Turn::Received(Ok(Message::Binary(_))) => Next::Close(1003),
            Turn::Received(Ok(Message::Close(_) | Message::Frame(_))) => {
                // The socket answers it when it reads on.
                self.socket.get_ref().begin_close();
                Next::GoOn
            }
            Turn::Received(Err(error)) => close_number(&error).map_or(Next::End(Carried::Over), Next::Close),
            Turn::Ending => Next::End(Carried::Ending),
            Turn::Over => Next::End(Carried::Over),
        }
    }

    /// Writes what is to be written, takes what is queued once that is done, and reads. Writing does not stop reading,
    /// so that a client that is slow to take frames can still ack; only one that lets too many answers pile up is not
    /// heard until it has taken some.
    fn poll_turn(&mut self, patient: bool, context: &mut Context<'_>) -> Poll<Turn> {
        if self.unflushed > 0 {
            match Pin::new(&mut self.socket).poll_flush(context) {
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
        Poll::Ready(match ready!(Pin::new(&mut self.socket).poll_next(context)) {
            Some(received) => Turn::Received(received),
            None => Turn::Over,
        })
    }

    /// Checks a fresh token; it must be for the same user and device.
    fn renew(&self, token: &str) -> Result<Terms, (ErrorCode, String)> {
        match self.gate.verifier.verify(token, unix_s()) {
            Ok(Claims { user, .. }) if user != self.user => {
                Err((ErrorCode::Forbidden, "the token is for another user".to_owned()))
            }
            Ok(Claims { device: Some(device), .. }) if device != self.device => {
                Err((ErrorCode::Forbidden, "the token is for another device".to_owned()))
            }
            Ok(claims) => Ok(terms(&claims)),
            Err(error) => Err((error.code(), error.to_string())),
        }
    }
}

fn message(frame: Frame) -> Message {
    match frame {
        Frame::Own(text) => Message::text(text),
        // It was made from text, so this only counts its bytes.
        Frame::Shared(bytes) => Message::Text(Utf8Bytes::try_from(bytes).unwrap_or_default()),
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

/// How a connection is closed after a frame that broke the rules of WebSocket (RFC 6455, section 7.4.1), if it is.
fn close_number(error: &SocketError) -> Option<u16> {
    match error {
        SocketError::Capacity(CapacityError::MessageTooLong { .. }) => Some(1009),
        SocketError::Utf8(_) => Some(1007),
        SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        SocketError::Protocol(_) => Some(1002),
        _ => None,
    }
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
