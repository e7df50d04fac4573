//! The way from a shard to one client: a small queue that a transport empties.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use homing_protocol::close::CloseCode;

/// Bytes that may wait for a slow socket before the shard reads no more for it. Ordinary frames are smaller.
pub const OUTLET_BYTES_MAX: usize = 64 * 1024;
/// Bytes beyond which the transport takes no client frames either: their answers would pile up.
const UNHEARD_BYTES_MIN: usize = 1024 * 1024;
/// Bytes that a transport takes at once, and then writes before it takes more.
const TAKE_BYTES_MAX: usize = 256 * 1024;

/// A channel of text frames with one consumer. It is empty, and holds no buffer, for an idle session.
///
/// Its memory is bounded: the shard stops reading for a session whose outlet is blocked, so that no more than one
/// batch comes after [`OUTLET_BYTES_MAX`] is reached, and a transport takes no client frames once it is overfull.
#[derive(Debug, Default)]
pub struct Outlet {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    frames: Vec<Frame>,
    /// Bytes that were pushed and not yet written to the socket.
    bytes: usize,
    close: Option<CloseCode>,
    waker: Option<Waker>,
    /// The shard waits for the outlet to be drained.
    awaited: bool,
}

impl State {
    fn wake_later(&mut self, context: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
        }
    }
}

/// One text frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// For this client only.
    Own(String),
    /// The same for many clients; it is text.
    Shared(Bytes),
}

impl Frame {
    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Own(text) => text.len(),
            Self::Shared(text) => text.len(),
        }
    }

    /// Whether it is empty, which no frame of ours is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a transport has to write.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// Text frames, in order.
    pub frames: Vec<Frame>,
    /// Then close with this code.
    pub close: Option<CloseCode>,
}

impl Outlet {
    /// An empty outlet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    // A panic while the lock is held cannot leave the state half changed: no code in between can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame.
    pub fn push(&self, frame: String) {
        self.push_frame(Frame::Own(frame));
    }

    /// Adds a frame that other clients get as well.
    pub fn push_shared(&self, frame: Bytes) {
        self.push_frame(Frame::Shared(frame));
    }

    fn push_frame(&self, frame: Frame) {
        let mut state = self.state();
        if state.close.is_some() {
            return;
        }
        state.bytes += frame.len();
        state.frames.push(frame);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Ends the connection after what was pushed before.
    pub fn close(&self, code: CloseCode) {
        let mut state = self.state();
        state.close.get_or_insert(code);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Whether the socket does not take what was sent before. If so, the transport will say when it has.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        let mut state = self.state();
        let blocked = state.bytes > OUTLET_BYTES_MAX;
        state.awaited |= blocked;
        blocked
    }

    /// Whether so much waits that the client must take some of it before it is heard again.
    #[must_use]
    pub fn is_overfull(&self) -> bool {
        self.state().bytes > UNHEARD_BYTES_MIN
    }

    /// Ready once the connection shall end, whatever still waits to be written.
    pub fn poll_ending(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.close.is_some() {
            return Poll::Ready(());
        }
        state.wake_later(context);
        Poll::Pending
    }

    /// Takes what is queued, or as much of it as should be written at once; the close comes with the last frame.
    pub fn poll_take(&self, context: &mut Context<'_>) -> Poll<Outgoing> {
        let mut state = self.state();
        if state.frames.is_empty() && state.close.is_none() {
            state.wake_later(context);
            return Poll::Pending;
        }
        let mut bytes = 0;
        let fitting = state.frames.iter().take_while(|frame| {
            let fits = bytes < TAKE_BYTES_MAX;
            bytes += frame.len();
            fits
        });
        let count = fitting.count();
        if count < state.frames.len() {
            return Poll::Ready(Outgoing { frames: state.frames.drain(..count).collect(), close: None });
        }
        Poll::Ready(Outgoing { frames: std::mem::take(&mut state.frames), close: state.close })
    }

    /// Says that `bytes` were written to the socket; true if the shard must be told that the outlet is free again.
    #[must_use]
    pub fn written(&self, bytes: usize) -> bool {
        let mut state = self.state();
        state.bytes = state.bytes.saturating_sub(bytes);
        state.awaited && state.bytes <= OUTLET_BYTES_MAX && std::mem::take(&mut state.awaited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_outlet_tells_once_when_it_is_free() {
        let outlet = Outlet::new();
        outlet.push("x".repeat(OUTLET_BYTES_MAX + 1));
        assert!(outlet.is_blocked());
        assert!(outlet.written(2));
        assert!(!outlet.is_blocked());
        assert!(!outlet.written(1));
    }

    #[test]
    fn a_large_batch_is_taken_in_parts_and_the_close_comes_last() {
        let outlet = Outlet::new();
        (0..3).for_each(|_| outlet.push("x".repeat(TAKE_BYTES_MAX)));
        outlet.close(CloseCode::Draining);
        let mut context = Context::from_waker(Waker::noop());
        for close in [None, None, Some(CloseCode::Draining)] {
            let Poll::Ready(part) = outlet.poll_take(&mut context) else { panic!("more was queued") };
            assert_eq!((part.frames.len(), part.close), (1, close));
        }
    }

    #[test]
    fn nothing_follows_a_close() {
        let outlet = Outlet::new();
        outlet.push("a".to_owned());
        outlet.close(CloseCode::Superseded);
        outlet.push("b".to_owned());
        let mut context = Context::from_waker(Waker::noop());
        let taken = outlet.poll_take(&mut context);
        assert_eq!(
            taken,
            Poll::Ready(Outgoing { frames: vec![Frame::Own("a".to_owned())], close: Some(CloseCode::Superseded) })
        );
    }
}
