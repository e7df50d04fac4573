//! Forgets what makes no difference for anything that a session can still do, for tests that compare states.
//!
//! Must not change behaviour while windows are far below the byte limits and clients far below the frame rate: counters
//! are brought back to a fixed value, only their comparisons being kept.

use super::protocol::RateLimit;
use super::wire::Now;
use super::{Attach, ENTRY_BYTES_FIRST_GUESS, Session, Walk};
use crate::id::EntryId;

impl Session {
    /// Makes sessions equal that will behave alike.
    pub fn forget_what_is_over(&mut self, now: Now) {
        self.rate = RateLimit::new(now, &self.config);
        self.entry_bytes = ENTRY_BYTES_FIRST_GUESS;
        if self.acks.as_ref().is_some_and(|acks| acks.is_empty()) {
            self.acks = None;
        }
        if self.receipts.as_ref().is_some_and(|receipts| !receipts.is_waiting() && self.ledger.len() == 0) {
            self.receipts = None;
        }
        if self.attach == Attach::Done && self.superseding <= self.generation {
            self.superseding = 0;
        }
        let (ended, window) = (self.is_ended(), self.options.window);
        if let Some(topics) = &mut self.topics {
            topics.forget_what_is_over(ended, window);
        }
        if self.is_ended() {
            (self.dismissal, self.gap_heard) = (None, None);
            self.ledger.clear();
            self.aside.clear();
            self.gone = 0;
            self.given = (EntryId::MIN, EntryId::MIN);
            self.epoch = (0, 0);
            self.sweep_at_ms = u64::MAX;
            (self.connected, self.superseding, self.sweeps) = (0, 0, 0);
            (self.dirty, self.reading, self.claiming, self.subscribed) = (false, false, false, true);
        }
        // Which entries the walk under way has seen; without one, or if it begins anew, nobody asks.
        let matters = matches!(self.walk, Some(Walk { again: false, .. }));
        self.ledger.renumber(self.walk_number, matters);
        self.walk_number = 1;
    }
}
