//! The connection that all publishes of a thread share: what they write at the same time leaves in one system call.
//!
//! One task drives it, made with the first request. It connects when there is something to send, so that a server that
//! comes back is found by the next request. Invariant: a request that fails with another error than `Unavailable` was
//! perhaps executed, and is told so.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisError, RedisFuture};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::connect::CONNECT_TIMEOUT;
use super::error::StoreError;
use super::resp::{Commands, Replies};
use super::wire::{Dialer, Wire, into_crate};

/// Requests that may wait for the connection; those beyond are refused. Each is an HTTP request that is being served.
const REQUESTS_MAX: usize = 16_384;
/// Time between two attempts to connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

pub(super) type Outcome = Result<Replies<Vec<u8>>, StoreError>;

/// A handle to the connection. Cloning is cheap.
#[derive(Clone)]
pub struct Line {
    core: Arc<Core>,
    _owned: Arc<Owned>,
}

/// The last of these ends the task.
struct Owned(Arc<Core>);

impl Drop for Owned {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.unwanted = true;
        state.wake();
    }
}

struct Core {
    dialer: Dialer,
    database: i64,
    reply_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The commands of the requests below.
    commands: Commands,
    requests: Vec<Request>,
    /// Requests that were given to the connection and are not answered.
    sent: usize,
    waker: Option<Waker>,
    driven: bool,
    unwanted: bool,
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

struct Request {
    count: usize,
    reply: oneshot::Sender<Outcome>,
}

impl Line {
    /// A connection that is made when it is needed. A request that is not answered within `reply_timeout` fails.
    #[must_use]
    pub(super) fn new(dialer: Dialer, database: i64, reply_timeout: Duration) -> Self {
        let core = Arc::new(Core { dialer, database, reply_timeout, state: Mutex::default() });
        Self { _owned: Arc::new(Owned(core.clone())), core }
    }

    /// Sends the commands that `write` writes, and awaits their replies, error replies among them.
    ///
    /// # Errors
    /// `Unavailable` if nothing was sent, `OutcomeUnknown` if no answer came.
    pub async fn send(&self, write: impl FnOnce(&mut Commands)) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        {
            let mut state = self.core.state();
            if state.requests.len() + state.sent >= REQUESTS_MAX {
                return Err(StoreError::Unavailable("too many requests wait for Redis".to_owned()));
            }
            let before = state.commands.len();
            write(&mut state.commands);
            let count = state.commands.len() - before;
            state.requests.push(Request { count, reply });
            state.wake();
            if !std::mem::replace(&mut state.driven, true) {
                tokio::spawn(drive(self.core.clone()));
            }
        }
        // Dropped without an answer: the runtime that drove the connection has ended.
        outcome.await.unwrap_or_else(|_| Err(StoreError::OutcomeUnknown("the connection was given up".to_owned())))
    }

    async fn send_for_crate(
        &self,
        count: usize,
        write: impl FnOnce(&mut Commands),
    ) -> Result<Vec<redis::Value>, RedisError> {
        match self.send(write).await {
            Ok(replies) => into_crate(replies.bytes(), count),
            // Their kinds are what `StoreError` makes of the crate's errors.
            Err(StoreError::OutcomeUnknown(why)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, why).into()),
            Err(error) => Err(io::Error::other(error.to_string()).into()),
        }
    }
}

impl ConnectionLike for Line {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, redis::Value> {
        Box::pin(async move {
            let mut replies = self.send_for_crate(1, |commands| commands.add(command)).await?;
            Ok(replies.pop().unwrap_or(redis::Value::Nil))
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<redis::Value>> {
        Box::pin(async move {
            let write = |commands: &mut Commands| pipeline.cmd_iter().for_each(|command| commands.add(command));
            let mut replies = self.send_for_crate(offset + count, write).await?;
            Ok(replies.split_off(offset))
        })
    }

    fn get_db(&self) -> i64 {
        self.core.database
    }
}

impl Core {
    // A panic while the lock is held would leave commands without their request, whose replies others would get. So
    // whoever writes commands must not panic, and writing arguments does not.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready with true when there are requests, with false when no handle is left.
    fn poll_wanted(&self, context: &Context<'_>) -> Poll<bool> {
        let mut state = self.state();
        if !state.requests.is_empty() {
            return Poll::Ready(true);
        }
        if state.unwanted {
            return Poll::Ready(false);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Fails the requests that were not sent.
    fn refuse(&self, why: &str) {
        let requests = {
            let mut state = self.state();
            state.commands = Commands::default();
            std::mem::take(&mut state.requests)
        };
        for Request { reply, .. } in requests {
            // Who asked may have gone.
            let _ = reply.send(Err(StoreError::Unavailable(why.to_owned())));
        }
    }
}

/// Says, however the task ends, that the next request needs a new one.
struct Driving(Arc<Core>);

impl Drop for Driving {
    fn drop(&mut self) {
        self.0.state().driven = false;
        self.0.refuse("the connection was given up");
    }
}

async fn drive(core: Arc<Core>) {
    let driving = Driving(core);
    let core = &driving.0;
    while poll_fn(|context| core.poll_wanted(context)).await {
        let why = match timeout(CONNECT_TIMEOUT, core.dialer.dial()).await {
            Ok(Ok(wire)) => {
                Carrying::new(core, wire).run().await;
                continue;
            }
            Ok(Err(StoreError::Unavailable(why))) => why,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "Redis took too long to accept a connection".to_owned(),
        };
        core.refuse(&why);
        sleep(CONNECT_PAUSE).await;
    }
}

/// A request whose commands were given to the connection.
struct Sent {
    request: Request,
    at: Instant,
}

/// A connection in use.
struct Carrying<'a> {
    core: &'a Core,
    wire: Wire,
    sent: VecDeque<Sent>,
    /// Rings when the oldest request may be overdue; armed rarely, since timers cost more than requests.
    alarm: Pin<Box<Sleep>>,
    armed: bool,
}

impl<'a> Carrying<'a> {
    fn new(core: &'a Core, wire: Wire) -> Self {
        Self { core, wire, sent: VecDeque::new(), alarm: Box::pin(sleep(core.reply_timeout)), armed: false }
    }

    /// Carries requests until the connection fails or nobody wants it any more.
    async fn run(mut self) {
        let outcome = poll_fn(|context| self.poll(context)).await;
        self.core.state().sent = 0;
        if let Err(error) = outcome {
            let why = error.to_string();
            for Sent { request, .. } in self.sent {
                let _ = request.reply.send(Err(StoreError::OutcomeUnknown(why.clone())));
            }
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let held_up = !self.wire.is_flushed();
            let taken = self.take(context);
            if taken == Taken::Unwanted {
                return Poll::Ready(Ok(()));
            }
            let flushed = self.wire.poll_flush(context)?.is_ready();
            self.hand_over(context)?;
            if self.is_overdue(context) {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "Redis did not answer in time")));
            }
            // What came while the socket was full has woken nobody: it is looked for once there is room again.
            if !flushed || (taken == Taken::Nothing && !held_up) {
                return Poll::Pending;
            }
        }
    }

    /// Takes what is to be sent, if all before it has left.
    fn take(&mut self, context: &Context<'_>) -> Taken {
        if !self.wire.is_flushed() {
            return Taken::Nothing;
        }
        let mut state = self.core.state();
        if state.requests.is_empty() {
            if state.unwanted && self.sent.is_empty() {
                return Taken::Unwanted;
            }
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                state.waker = Some(context.waker().clone());
            }
            return Taken::Nothing;
        }
        std::mem::swap(&mut state.commands, self.wire.commands());
        let at = Instant::now();
        self.sent.extend(state.requests.drain(..).map(|request| Sent { request, at }));
        state.sent = self.sent.len();
        Taken::Some
    }

    /// Gives the replies that are there to whom they belong, and notices the end of the connection.
    fn hand_over(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let before = self.sent.len();
        loop {
            let count = self.sent.front().map_or(1, |sent| sent.request.count);
            let Poll::Ready((_, replies)) = self.wire.poll_replies(context, count, count)? else {
                if self.sent.len() < before {
                    self.core.state().sent = self.sent.len();
                }
                return Ok(());
            };
            let Some(Sent { request, .. }) = self.sent.pop_front() else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a reply that nobody asked for"));
            };
            // A copy, because most replies are short, and the buffer is for the next ones. Who asked may have gone.
            let _ = request.reply.send(Ok(Replies::new(replies.bytes().to_vec())));
        }
    }

    fn is_overdue(&mut self, context: &mut Context<'_>) -> bool {
        loop {
            let Some(oldest) = self.sent.front() else { return false };
            let due = oldest.at + self.core.reply_timeout;
            if !self.armed {
                self.alarm.as_mut().reset(due);
                self.armed = true;
            }
            if self.alarm.as_mut().poll(context).is_pending() {
                return false;
            }
            self.armed = false;
            if due <= Instant::now() {
                return true;
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    Some,
    Nothing,
    Unwanted,
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
