//! Users whose inboxes were seen over their limit, tended out of turn.

use std::collections::HashMap;
use std::time::Duration;

use homing_protocol::name::Name;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::tending::Tending;
use crate::telemetry::names;

/// A user is not tended out of turn more often than this, however many hints come.
const REPEAT_AFTER: Duration = Duration::from_secs(2);
/// Users that are remembered as lately tended. Beyond it they are forgotten, and tended again a little early.
const REMEMBERED_MAX: usize = 8_192;
/// Pause after a failure; the hints meanwhile fill the queue.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The hints and what was done about them.
pub(super) struct Overfull {
    tending: Tending,
    hints: mpsc::Receiver<Name>,
    tended: HashMap<Name, Instant>,
    failing: bool,
}

impl Overfull {
    pub(super) fn new(tending: Tending, hints: mpsc::Receiver<Name>) -> Self {
        Self { tending, hints, tended: HashMap::new(), failing: false }
    }

    /// Tends users as hints come; ends when nobody can send one any more.
    pub(super) async fn run(&mut self) {
        while let Some(user) = self.hints.recv().await {
            if self.is_due(&user, Instant::now()) {
                self.tend(user).await;
            }
        }
    }

    async fn tend(&mut self, user: Name) {
        let mut connection = self.tending.store().shared().clone();
        match self.tending.tend(&mut connection, std::slice::from_ref(&user)).await {
            Ok(_) => self.failing = false,
            Err(error) => {
                metrics::counter!(names::REDIS_ERRORS, "kind" => error.kind()).increment(1);
                if !self.failing {
                    tracing::warn!(%error, "overfull inboxes cannot be trimmed now");
                }
                self.failing = true;
                self.tended.remove(&user);
                sleep(RETRY_AFTER).await;
            }
        }
    }

    /// Whether a user's turn has come, which is then taken. A hint that comes too early is dropped: whoever fills the
    /// inbox further sends another one.
    pub(super) fn is_due(&mut self, user: &Name, now: Instant) -> bool {
        let is_recent = |tended: &Instant| now.duration_since(*tended) < REPEAT_AFTER;
        if self.tended.get(user).is_some_and(is_recent) {
            return false;
        }
        if self.tended.len() >= REMEMBERED_MAX {
            self.tended.retain(|_, tended| is_recent(tended));
        }
        if self.tended.len() >= REMEMBERED_MAX {
            self.tended.clear();
        }
        self.tended.insert(user.clone(), now);
        true
    }
}
