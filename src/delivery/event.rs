//! What transports tell a shard, and the handle by which they do.

use std::sync::Arc;

use homing_protocol::code::ErrorCode;
use homing_protocol::frame::{FrameError, Incoming};
use homing_protocol::session::{Open, Terms};
use thiserror::Error;
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

    async fn send(&self, event: Event) -> Result<(), ShardGone> {
        self.events.send(event).await.map_err(|_| ShardGone)
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
    ///
    /// # Errors
    /// [`ShardGone`] when the node has stopped.
    pub async fn frame(&self, key: SessionKey, frame: Result<Incoming, FrameError>) -> Result<(), ShardGone> {
        self.send(Event::Frame(key, frame)).await
    }

    /// Passes the outcome of an `auth` frame on.
    ///
    /// # Errors
    /// [`ShardGone`] when the node has stopped.
    pub async fn renewal(&self, key: SessionKey, renewal: Renewal) -> Result<(), ShardGone> {
        self.send(Event::Renewal(key, Box::new(renewal))).await
    }

    /// The client is alive.
    ///
    /// # Errors
    /// [`ShardGone`] when the node has stopped.
    pub async fn sign_of_life(&self, key: SessionKey) -> Result<(), ShardGone> {
        self.send(Event::SignOfLife(key)).await
    }

    /// The outlet, which was blocked, is free.
    ///
    /// # Errors
    /// [`ShardGone`] when the node has stopped.
    pub async fn drained(&self, key: SessionKey) -> Result<(), ShardGone> {
        self.send(Event::Drained(key)).await
    }

    /// The connection is gone.
    ///
    /// # Errors
    /// [`ShardGone`] when the node has stopped.
    pub async fn gone(&self, key: SessionKey) -> Result<(), ShardGone> {
        self.send(Event::Gone(key)).await
    }
}
