//! The janitor: retention, idle devices, inboxes that nobody needs, and the numbers that only a look at everyone tells.
//!
//! Owns when users are tended; what tending does is decided by `migrations/0001_functions/16_tend.lua`, atomically for
//! each user. It must not know sessions: it reaches them by control messages alone. Invariant: of a cluster's nodes,
//! one passes over all users, slowly enough that Redis stays free for deliveries; any node tends the users that it was
//! told are over their limit.

pub(super) mod holding;
mod overfull;
mod pass;
mod receipts;
mod tending;
#[cfg(test)]
mod tests;
mod topics;

use tokio::sync::{mpsc, watch};

use crate::config::Limits;
use crate::delivery::nodes::Nodes;
use crate::store::Store;
use homing_protocol::name::Name;

use self::overfull::Overfull;
use self::pass::Passes;
use self::tending::Tending;

/// Users that may wait to be tended out of turn. A hint that finds the queue full is dropped: the next pass comes by.
pub const OVERFULL_USERS_MAX: usize = 1_024;

/// Tends users, by passes and by hints.
pub struct Janitor {
    passes: Passes,
    overfull: Overfull,
}

impl Janitor {
    /// A janitor. Publishers and readers send the users whose inboxes they see over [`Limits::inbox_length_max`] to
    /// `overfull`, a channel of [`OVERFULL_USERS_MAX`], without waiting.
    #[must_use]
    pub fn new(store: Store, nodes: Nodes, limits: &Limits, overfull: mpsc::Receiver<Name>) -> Self {
        let tending = Tending::new(store, nodes, limits);
        Self { passes: Passes::new(tending.clone(), limits.janitor_pause), overfull: Overfull::new(tending, overfull) }
    }

    /// Works until `stop` is true or its sender is gone; then another node may take over at once.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            // May be dropped anywhere: each visit is one atomic function, and a pass that breaks off is begun anew.
            ((), ()) = async { tokio::join!(self.passes.run(), self.overfull.run()) } => {}
        }
        self.passes.hand_over().await;
    }
}
