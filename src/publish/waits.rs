//! Producers who wait for what becomes of a message: who they are at this node, and how they are woken up.
//!
//! A wait is a token and a channel. The token goes, with the address of one of the node's shards, beside the message's
//! receipt; whichever node writes the receipt publishes it to that shard, which gives it here. Words may be lost on the
//! way: whoever waits looks at the message once more when its time is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use homing_protocol::id::EntryId;
use homing_protocol::name::Name;
use metrics::Gauge;
use tokio::sync::mpsc;

use crate::store::{Function, Key, Store, StoreError};
use crate::telemetry::names;

/// Producers that may wait at a node at once. Each holds one of its HTTP connections, of which half remain.
pub const WAITS_MAX: usize = 512;
/// Events of one message that may be unread: more than devices can have in one go.
const TOLD_MAX: usize = 1_024;

/// Something became of the message for one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The device.
    pub device: String,
    /// As receipts name it: `acked`, `expired`, `dropped`.
    pub event: String,
}

/// All waits of a node. Cloning is cheap.
#[derive(Clone)]
pub struct Waits {
    inner: Arc<Inner>,
}

struct Inner {
    /// Owners of this node's shards, whose channels are listened to.
    owners: Vec<String>,
    /// How long a receipt is kept.
    keep: Duration,
    gauge: Gauge,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    begun: u64,
    waiting: HashMap<u64, mpsc::Sender<Told>>,
    closed: bool,
}

impl Inner {
    // Nothing that can panic is done while the lock is held.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waits {
    /// Waits at the shards with these names; receipts are kept for `keep`.
    #[must_use]
    pub fn new(owners: Vec<String>, keep: Duration) -> Self {
        let gauge = metrics::gauge!(names::PRODUCERS_WAITING);
        Self { inner: Arc::new(Inner { owners, keep, gauge, state: Mutex::default() }) }
    }

    /// Begins to wait; `None` if [`WAITS_MAX`] do.
    #[must_use]
    pub fn begin(&self) -> Option<Wait> {
        let (sender, told) = mpsc::channel(TOLD_MAX);
        let mut state = self.inner.state();
        if state.waiting.len() >= WAITS_MAX {
            return None;
        }
        state.begun += 1;
        let token = state.begun;
        // Without a sender its first look finds that nothing more will come.
        if !state.closed {
            state.waiting.insert(token, sender);
            self.inner.gauge.set(state.waiting.len() as f64);
        }
        Some(Wait { token, inner: self.inner.clone(), told })
    }

    /// Wakes up who waits with this token, if somebody does.
    pub fn tell(&self, token: &str, told: Told) {
        let Ok(token) = token.parse::<u64>() else { return };
        if let Some(waiting) = self.inner.state().waiting.get(&token) {
            // A full channel: the look at the end tells what is missing.
            let _ = waiting.try_send(told);
        }
    }

    /// The node drains: all are answered with what is known now.
    pub fn close(&self) {
        let mut state = self.inner.state();
        state.closed = true;
        state.waiting.clear();
        self.inner.gauge.set(0.0);
    }

    /// How many wait.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inner.state().waiting.len()
    }
}

/// One producer's wait; it ends when this is dropped.
pub struct Wait {
    token: u64,
    inner: Arc<Inner>,
    told: mpsc::Receiver<Told>,
}

impl Wait {
    /// Asks to be told what becomes of a message from now on. Look at the message after this, not before.
    ///
    /// # Errors
    /// Any [`StoreError`]: nothing will be told.
    pub async fn follow(&self, store: &Store, user: &Name, id: EntryId) -> Result<(), StoreError> {
        let shard = usize::try_from(self.token).unwrap_or(0) % self.inner.owners.len().max(1);
        let owner = self.inner.owners.get(shard).map_or("", String::as_str);
        let mut call = Function::Await.call(&[&store.keys().name(Key::Receipt(user, id))]);
        call.arg(self.inner.keep.as_secs()).arg(format!("{owner}#{}", self.token));
        store.call::<u64>(&call).await.map(|_| ())
    }

    /// What is told next; `None` when nothing more will be. Cancel-safe.
    pub async fn next(&mut self) -> Option<Told> {
        self.told.recv().await
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        state.waiting.remove(&self.token);
        self.inner.gauge.set(state.waiting.len() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(device: &str) -> Told {
        Told { device: device.to_owned(), event: "acked".to_owned() }
    }

    #[tokio::test]
    async fn who_waits_is_told_its_own_and_nobody_elses() {
        let waits = Waits::new(vec!["node:0.0".to_owned()], Duration::from_secs(60));
        let (mut first, mut second) = (waits.begin().unwrap(), waits.begin().unwrap());
        waits.tell("2", told("web"));
        waits.tell("7", told("nobody"));
        waits.tell("x", told("nobody"));
        waits.tell("1", told("phone"));
        assert_eq!((first.next().await, second.next().await), (Some(told("phone")), Some(told("web"))));
    }

    #[tokio::test]
    async fn a_wait_that_is_dropped_makes_room_for_another() {
        let waits = Waits::new(vec!["node:0.0".to_owned()], Duration::from_secs(60));
        let mut all: Vec<Wait> = (0..WAITS_MAX).map(|_| waits.begin().unwrap()).collect();
        assert!(waits.begin().is_none());
        all.pop();
        assert_eq!(waits.count(), WAITS_MAX - 1);
        assert!(waits.begin().is_some());
    }

    #[tokio::test]
    async fn nobody_waits_at_a_node_that_drains() {
        let waits = Waits::new(vec!["node:0.0".to_owned()], Duration::from_secs(60));
        let mut before = waits.begin().unwrap();
        waits.close();
        let mut after = waits.begin().unwrap();
        assert_eq!((before.next().await, after.next().await), (None, None));
    }
}
