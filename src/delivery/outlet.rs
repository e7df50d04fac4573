//! The way from a shard to one client: a small queue that a transport empties.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use homing_protocol::close::CloseCode;

/// Bytes that may wait for a slow socket before the shard reads no more for it. Ordinary frames are smaller.
pub const OUTLET_BYTES_MAX: usize = 64 * 1024;

/// A channel of text frames with one consumer. It is empty, and holds no buffer, for an idle session.
///
/// Its memory is bounded: the shard stops reading for a session whose outlet is blocked, so that no more than one
/// batch comes after [`OUTLET_BYTES_MAX`] is reached, and a transport takes no client frames while it is blocked.
#[derive(Debug, Default)]
pub struct Outlet {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    frames: Vec<String>,
    /// Bytes that were pushed and not yet written to the socket.
    bytes: usize,
    close: Option<CloseCode>,
    waker: Option<Waker>,
    /// The shard waits for the outlet to be drained.
    awaited: bool,
}

/// What a transport has to write.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// Text frames, in order.
    pub frames: Vec<String>,
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

    /// Takes all that is queued.
    pub fn poll_take(&self, context: &mut Context<'_>) -> Poll<Outgoing> {
        let mut state = self.state();
        if state.frames.is_empty() && state.close.is_none() {
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                state.waker = Some(context.waker().clone());
            }
            return Poll::Pending;
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
    fn nothing_follows_a_close() {
        let outlet = Outlet::new();
        outlet.push("a".to_owned());
        outlet.close(CloseCode::Superseded);
        outlet.push("b".to_owned());
        let mut context = Context::from_waker(Waker::noop());
        let taken = outlet.poll_take(&mut context);
        assert_eq!(taken, Poll::Ready(Outgoing { frames: vec!["a".to_owned()], close: Some(CloseCode::Superseded) }));
    }
}
