//! What transports tell a shard, and the handle by which they do.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use homing_protocol::code::ErrorCode;
use homing_protocol::frame::{FrameError, Incoming};
use homing_protocol::session::{Open, Terms};
use thiserror::Error;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::outlet::Outlet;
use super::sessions::SessionKey;

/// Events that may wait for a shard before transports have to wait, which stops them reading from their sockets.
const EVENTS_MAX: usize = 4_096;

/// Something that happened at a client's connection.
#[derive(Debug)]
pub(super) enum Event {
    /// A client was authenticated and sent its `connect` frame.
    Open { open: Box<Open>, outlet: Arc<Outlet>, reply: oneshot::Sender<Option<SessionKey>> },
    /// A frame came, or something that is none.
    Frame(SessionKey, Result<Incoming, FrameError>),
    /// An `auth` frame came and was checked.
    Renewal(SessionKey, Box<Renewal>),
    /// A WebSocket ping or pong came.
    SignOfLife(SessionKey),
    /// A blocked outlet was drained.
    Drained(SessionKey),
    /// The connection is gone.
    Gone(SessionKey),
}

/// The outcome of an `auth` frame.
#[derive(Debug)]
pub struct Renewal {
    /// What the token says, or why it was refused.
    pub outcome: Result<Terms, (ErrorCode, String)>,
    /// The frame's `ref`.
    pub reference: Option<Box<str>>,
}

/// The shard has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the shard has ended")]
pub struct ShardGone;

/// Ready when the shard has the event in its queue: at once, unless the queue is full.
///
/// Small, because each connection keeps one within its task.
#[must_use = "the shard may not have it yet"]
pub enum Told {
    /// It has it, or there is no shard.
    Now(Result<(), ShardGone>),
    /// The queue is full.
    Later(Pin<Box<dyn Future<Output = Result<(), ShardGone>> + Send>>),
}

impl Future for Told {
    type Output = Result<(), ShardGone>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Now(outcome) => Poll::Ready(*outcome),
            Self::Later(sending) => sending.as_mut().poll(context),
        }
    }
}

/// By which transports reach a shard. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct ShardHandle {
    events: mpsc::Sender<Event>,
}

impl ShardHandle {
    pub(super) fn new() -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        (Self { events }, receiver)
    }

    fn send(&self, event: Event) -> Told {
        match self.events.try_send(event) {
            Ok(()) => Told::Now(Ok(())),
            Err(TrySendError::Closed(_)) => Told::Now(Err(ShardGone)),
            Err(TrySendError::Full(event)) => {
                let events = self.events.clone();
                let sending = async move { events.send(event).await.map_err(|_| ShardGone) };
                Told::Later(Box::pin(sending))
            }
        }
    }

    /// Opens a session whose frames go to `outlet`. `None` if it was refused: the outlet then holds an error and a
    /// close.
    ///
    /// # Errors
    /// [`ShardGone`] when the node has stopped.
    pub async fn open(&self, open: Open, outlet: Arc<Outlet>) -> Result<Option<SessionKey>, ShardGone> {
        let (reply, answer) = oneshot::channel();
        self.send(Event::Open { open: Box::new(open), outlet, reply }).await?;
        answer.await.map_err(|_| ShardGone)
    }

    /// Passes a client's frame on.
    pub fn frame(&self, key: SessionKey, frame: Result<Incoming, FrameError>) -> Told {
        self.send(Event::Frame(key, frame))
    }

    /// Passes the outcome of an `auth` frame on.
    pub fn renewal(&self, key: SessionKey, renewal: Renewal) -> Told {
        self.send(Event::Renewal(key, Box::new(renewal)))
    }

    /// The client is alive.
    pub fn sign_of_life(&self, key: SessionKey) -> Told {
        self.send(Event::SignOfLife(key))
    }

    /// The outlet, which was blocked, is free.
    pub fn drained(&self, key: SessionKey) -> Told {
        self.send(Event::Drained(key))
    }

    /// The connection is gone.
    pub fn gone(&self, key: SessionKey) -> Told {
        self.send(Event::Gone(key))
    }
}
