//! The way from a shard to one client: a small queue that a transport empties.

use std::fmt;
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
    writer: Option<Arc<dyn Writer>>,
}

/// The shard's own way to a client, past the transport's task.
pub trait Writer: fmt::Debug + Send + Sync {
    /// Writes frames if they can go at once, all before anything that the transport writes later. `scratch` is for
    /// the implementation's use.
    fn write(&self, frames: &[Frame], scratch: &mut Vec<u8>) -> Written;
}

/// What became of frames that a writer was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The socket has them.
    All,
    /// The writer has begun them; the transport must flush the rest.
    Part,
    /// They must go the transport's way.
    Nothing,
}

#[derive(Debug, Default)]
struct State {
    frames: Vec<Frame>,
    /// Bytes of these.
    queued: usize,
    /// Bytes that the writer has begun and the transport was not told of.
    begun: usize,
    /// Bytes that the transport took, and has not yet written to the socket.
    taken: usize,
    close: Option<CloseCode>,
    waker: Option<Waker>,
    /// The shard waits for the outlet to be drained.
    awaited: bool,
}

impl State {
    fn bytes(&self) -> usize {
        self.queued + self.begun + self.taken
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn wake_later(&mut self, context: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
        }
    }

    fn take_free(&mut self) -> bool {
        self.awaited && self.bytes() <= OUTLET_BYTES_MAX && std::mem::take(&mut self.awaited)
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
    /// Its UTF-8 text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Own(text) => text.as_bytes(),
            Self::Shared(text) => text,
        }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
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
    /// Bytes that the writer has begun, which must be flushed first.
    pub begun: usize,
    /// Text frames, in order.
    pub frames: Vec<Frame>,
    /// Then close with this code.
    pub close: Option<CloseCode>,
}

impl Outlet {
    /// An empty outlet. Without a writer, all goes through the transport's task.
    #[must_use]
    pub fn new(writer: Option<Arc<dyn Writer>>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), writer })
    }

    // A panic while the lock is held cannot leave the state half changed: no code in between can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame. If true, [`Self::write_out`] must be called in the same turn.
    #[must_use]
    pub fn push(&self, frame: Frame) -> bool {
        let mut state = self.state();
        if state.close.is_some() {
            return false;
        }
        state.queued += frame.len();
        state.frames.push(frame);
        state.frames.len() == 1
    }

    /// Writes what was pushed, or leaves it to the transport; true if the shard waited for the outlet and it is free.
    #[must_use]
    pub fn write_out(&self, scratch: &mut Vec<u8>) -> bool {
        let mut state = self.state();
        if state.frames.is_empty() {
            return false;
        }
        let is_alone = state.begun + state.taken == 0 && state.close.is_none() && state.queued <= TAKE_BYTES_MAX;
        let written = match &self.writer {
            Some(writer) if is_alone => writer.write(&state.frames, scratch),
            _ => Written::Nothing,
        };
        if written != Written::Nothing {
            state.frames = Vec::new();
            let bytes = std::mem::take(&mut state.queued);
            if written == Written::All {
                return state.take_free();
            }
            state.begun = bytes;
        }
        state.wake();
        false
    }

    /// Ends the connection after what was pushed before.
    pub fn close(&self, code: CloseCode) {
        let mut state = self.state();
        state.close.get_or_insert(code);
        state.wake();
    }

    /// Whether the socket does not take what was sent before. If so, the transport will say when it has.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        let mut state = self.state();
        let blocked = state.bytes() > OUTLET_BYTES_MAX;
        state.awaited |= blocked;
        blocked
    }

    /// Whether so much waits that the client must take some of it before it is heard again.
    #[must_use]
    pub fn is_overfull(&self) -> bool {
        self.state().bytes() > UNHEARD_BYTES_MIN
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
        if state.frames.is_empty() && state.begun == 0 && state.close.is_none() {
            state.wake_later(context);
            return Poll::Pending;
        }
        let mut bytes = 0;
        let fitting = state.frames.iter().take_while(|frame| {
            let fits = bytes < TAKE_BYTES_MAX;
            bytes += if fits { frame.len() } else { 0 };
            fits
        });
        let count = fitting.count();
        let begun = std::mem::take(&mut state.begun);
        state.queued -= bytes;
        state.taken += begun + bytes;
        let (frames, close) = if count < state.frames.len() {
            (state.frames.drain(..count).collect(), None)
        } else {
            (std::mem::take(&mut state.frames), state.close)
        };
        Poll::Ready(Outgoing { begun, frames, close })
    }

    /// Says that `bytes` were written to the socket; true if the shard must be told that the outlet is free again.
    #[must_use]
    pub fn written(&self, bytes: usize) -> bool {
        let mut state = self.state();
        state.taken = state.taken.saturating_sub(bytes);
        state.take_free()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: usize) -> Frame {
        Frame::Own("x".repeat(length))
    }

    /// A writer to which the same happens always.
    #[derive(Debug)]
    struct Always(Written);

    impl Writer for Always {
        fn write(&self, _: &[Frame], _: &mut Vec<u8>) -> Written {
            self.0
        }
    }

    fn outlet(written: Written) -> Arc<Outlet> {
        Outlet::new(Some(Arc::new(Always(written))))
    }

    fn take(outlet: &Outlet) -> Poll<Outgoing> {
        outlet.poll_take(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_blocked_outlet_tells_once_when_it_is_free() {
        let outlet = Outlet::new(None);
        assert!(outlet.push(text(OUTLET_BYTES_MAX + 1)));
        assert!(outlet.is_blocked());
        assert!(!outlet.write_out(&mut Vec::new()));
        assert!(take(&outlet).is_ready());
        assert!(outlet.written(2));
        assert!(!outlet.is_blocked());
        assert!(!outlet.written(1));
    }

    #[test]
    fn what_the_writer_writes_at_once_is_nothing_to_the_transport() {
        let outlet = outlet(Written::All);
        assert!(outlet.push(text(OUTLET_BYTES_MAX + 1)));
        assert!(!outlet.push(text(1)), "one call writes both");
        assert!(outlet.is_blocked());
        assert!(outlet.write_out(&mut Vec::new()), "the shard waited, and it is free");
        assert!(take(&outlet).is_pending());
        assert!(!outlet.is_blocked());
    }

    #[test]
    fn a_frame_that_the_writer_began_is_flushed_before_the_next() {
        let outlet = outlet(Written::Part);
        assert!(outlet.push(text(5)));
        assert!(!outlet.write_out(&mut Vec::new()));
        assert!(outlet.push(text(7)));
        assert!(!outlet.write_out(&mut Vec::new()));
        assert_eq!(take(&outlet), Poll::Ready(Outgoing { begun: 5, frames: vec![text(7)], close: None }));
        assert!(!outlet.written(12));
        assert!(outlet.push(text(OUTLET_BYTES_MAX + 1)));
        assert!(outlet.is_blocked());
        assert!(!outlet.write_out(&mut Vec::new()), "it was begun, not written");
        assert!(take(&outlet).is_ready());
        assert!(outlet.written(OUTLET_BYTES_MAX + 1));
    }

    #[test]
    fn the_writer_stays_aside_while_the_transport_writes() {
        let outlet = outlet(Written::All);
        assert!(outlet.push(text(1)));
        assert!(take(&outlet).is_ready());
        assert!(outlet.push(text(2)));
        assert!(!outlet.write_out(&mut Vec::new()));
        assert_eq!(take(&outlet), Poll::Ready(Outgoing { begun: 0, frames: vec![text(2)], close: None }));
    }

    #[test]
    fn a_large_batch_is_taken_in_parts_and_the_close_comes_last() {
        let outlet = Outlet::new(None);
        (0..3).for_each(|number| assert_eq!(outlet.push(text(TAKE_BYTES_MAX)), number == 0));
        outlet.close(CloseCode::Draining);
        for close in [None, None, Some(CloseCode::Draining)] {
            let Poll::Ready(part) = take(&outlet) else { panic!("more was queued") };
            assert_eq!((part.frames.len(), part.close), (1, close));
        }
    }

    #[test]
    fn nothing_follows_a_close() {
        let outlet = outlet(Written::All);
        assert!(outlet.push(text(1)));
        outlet.close(CloseCode::Superseded);
        assert!(!outlet.push(text(2)));
        assert!(!outlet.write_out(&mut Vec::new()), "the transport writes it, with the close");
        let taken = take(&outlet);
        assert_eq!(
            taken,
            Poll::Ready(Outgoing { begun: 0, frames: vec![text(1)], close: Some(CloseCode::Superseded) })
        );
    }
}
