//! How many connections a node holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A counter with a limit, shared by all shards.
#[derive(Clone, Debug)]
pub struct Slots {
    used: Arc<AtomicUsize>,
    max: usize,
}

/// One connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    used: Arc<AtomicUsize>,
}

impl Slots {
    /// At most `max` connections.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { used: Arc::default(), max }
    }

    /// The limit.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }

    /// Connections now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A place, if there is one.
    pub(super) fn take(&self) -> Option<Slot> {
        // Only counts: no other memory depends on it.
        if self.used.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.used.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Slot { used: self.used.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_free_when_its_connection_ends() {
        let slots = Slots::new(1);
        let slot = slots.take();
        assert!(slot.is_some() && slots.take().is_none());
        drop(slot);
        assert!(slots.take().is_some());
    }
}
