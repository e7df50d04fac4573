//! How many bytes of request bodies a node holds at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use homing_protocol::code::ErrorCode;

use super::problem::Problem;

/// Bytes that bodies may take together, from their arrival until their request is answered. Without it, as many
/// batches of 8 MiB as there are connections would be held while Redis is slow.
#[derive(Clone, Debug)]
pub struct BodyBudget {
    held: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// What one request holds, given back when dropped.
#[derive(Debug)]
pub(super) struct HeldBytes {
    budget: BodyBudget,
    bytes: usize,
}

impl BodyBudget {
    /// At most `bytes_max` bytes for all clones together.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { held: Arc::default(), bytes_max }
    }

    /// A request's share, nothing at first.
    pub(super) fn share(&self) -> HeldBytes {
        HeldBytes { budget: self.clone(), bytes: 0 }
    }
}

impl HeldBytes {
    /// Takes more; refuses if others hold too much.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let BodyBudget { held, bytes_max } = &self.budget;
        // Only counts: no other memory depends on it.
        if held.fetch_add(bytes, Ordering::Relaxed) + bytes > *bytes_max {
            held.fetch_sub(bytes, Ordering::Relaxed);
            let detail = "this node holds as many bytes of requests as it may; try again";
            return Err(Problem::new(ErrorCode::Overloaded, detail).with_limit("bodies_bytes_max", *bytes_max as u64));
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_free_when_their_request_is_answered() {
        let budget = BodyBudget::new(10);
        let mut first = budget.share();
        first.grow(6).unwrap();
        assert!(budget.share().grow(5).is_err(), "11 of 10");
        first.grow(4).unwrap();
        assert!(first.grow(1).is_err());
        drop(first);
        assert!(budget.share().grow(10).is_ok());
    }
}
