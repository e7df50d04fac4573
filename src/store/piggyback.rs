//! Appends that leave in the pipeline of a shard of this process, just before it reads the same inbox.
//!
//! A message for a user whose session is here would else wake Redis twice, for the append and for the read that its event
//! asks for, and the shard as well. Invariant: whoever offers an append learns whether it was sent; one that was not is the
//! caller's again.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use homing_protocol::name::Name;
use tokio::sync::oneshot;

use super::error::StoreError;
use super::line::Outcome;
use super::resp::{Commands, Reader, Replies, Value};

/// Bytes of appends that may wait for a pipeline: with more, other users' messages would wait for them.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one of them. A large message gains nothing worth mentioning.
const APPEND_BYTES_MAX: usize = 64 * 1024;
/// Room that is kept for those to come.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// Appends that may wait.
const WAITING_MAX: usize = 1_024;

/// Where producers leave appends, and a shard takes them.
#[derive(Debug, Default)]
pub struct Piggyback {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The shard can send.
    is_open: bool,
    /// Users whose inboxes it reads.
    users: HashSet<Name>,
    /// The commands of the riders below.
    commands: Commands,
    riders: Vec<Rider>,
    waker: Option<Waker>,
}

impl State {
    fn takes(&self, user: &Name, bytes: usize) -> bool {
        let has_room = bytes <= APPEND_BYTES_MAX
            && self.riders.len() < WAITING_MAX
            && self.commands.bytes().len() < WAITING_BYTES_MAX;
        self.is_open && has_room && self.users.contains(user)
    }
}

/// An append that is on its way.
#[derive(Debug)]
pub struct Rider {
    user: Name,
    count: usize,
    /// `None` once its producer was told something.
    reply: Option<oneshot::Sender<Option<Outcome>>>,
}

impl Rider {
    /// Whose inbox it is for.
    #[must_use]
    pub fn user(&self) -> &Name {
        &self.user
    }

    /// Takes its replies; false if nothing was appended.
    pub fn complete(&mut self, replies: &mut Reader<'_>) -> bool {
        let start = replies.at;
        let appended = match replies.next() {
            Some(Value::Bulk(_)) => true,
            // Of a function: its id, and whether it was appended now.
            Some(Value::Array(parts)) => matches!(parts[..], [Value::Bulk(_), Value::Int(1)]),
            _ => false,
        };
        replies.take(self.count - 1).for_each(drop);
        self.tell(Some(Ok(Replies::new(replies.bytes[start..replies.at].to_vec()))));
        appended
    }

    /// It was sent, and its producer does not wait any longer for what becomes of it.
    pub fn lose(&mut self, why: &str) {
        self.tell(Some(Err(StoreError::OutcomeUnknown(why.to_owned()))));
    }

    fn tell(&mut self, outcome: Option<Outcome>) {
        if let Some(reply) = self.reply.take() {
            // Who asked may have gone.
            let _ = reply.send(outcome);
        }
    }
}

/// What becomes of an append that a shard took.
#[derive(Debug)]
pub struct Ride(oneshot::Receiver<Option<Outcome>>);

impl Ride {
    /// Its replies. `None` if it was not sent after all: it is the caller's again.
    pub async fn outcome(self) -> Option<Outcome> {
        // Dropped without an answer: the shard has ended, perhaps after it was sent.
        self.0.await.unwrap_or_else(|_| Some(Err(StoreError::OutcomeUnknown("the node is stopping".to_owned()))))
    }
}

impl Piggyback {
    /// Lets the shard send what `write` writes, some `bytes`: what appends to the inbox of `user`, as the first command, and
    /// perhaps more. `None` if the shard does not read this inbox, or cannot send now.
    pub fn offer(&self, user: &Name, bytes: usize, write: impl FnOnce(&mut Commands)) -> Option<Ride> {
        let mut state = self.state();
        if !state.takes(user, bytes) {
            return None;
        }
        let (reply, outcome) = oneshot::channel();
        let before = state.commands.len();
        write(&mut state.commands);
        let count = state.commands.len() - before;
        state.riders.push(Rider { user: user.clone(), count, reply: Some(reply) });
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        Some(Ride(outcome))
    }

    /// The shard reads this user's inbox, and hears of what is appended to it.
    pub fn welcome(&self, user: &Name) {
        self.state().users.insert(user.clone());
    }

    /// It does not read it any more.
    pub fn dismiss(&self, user: &Name) {
        self.state().users.remove(user);
    }

    /// The shard can send.
    pub fn open(&self) {
        self.state().is_open = true;
    }

    /// The shard cannot send: what waits goes back.
    pub fn close(&self) {
        let riders = {
            let mut state = self.state();
            state.is_open = false;
            state.commands = Commands::default();
            std::mem::take(&mut state.riders)
        };
        riders.into_iter().for_each(|mut rider| rider.tell(None));
    }

    /// Whether something waits; if not, the task is woken up when something does.
    pub fn poll(&self, context: &Context<'_>) -> bool {
        let mut state = self.state();
        if !state.riders.is_empty() {
            return true;
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.waker = Some(context.waker().clone());
        }
        false
    }

    /// Adds to `pipeline` what waits.
    pub fn take(&self, pipeline: &mut Commands) -> Vec<Rider> {
        let mut state = self.state();
        if !state.riders.is_empty() {
            pipeline.append(&mut state.commands);
            state.commands.clear(KEPT_BYTES_MAX);
        }
        std::mem::take(&mut state.riders)
    }

    // As with `Line`: whoever writes commands must not panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "piggyback_tests.rs"]
mod tests;
