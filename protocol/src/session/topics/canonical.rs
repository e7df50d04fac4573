//! Forgets what makes no difference for anything that a session can still do with its topics, for tests that compare
//! states.

use super::list::FollowedTopics;
use super::outstanding::Outstanding;
use super::{Followed, Load, Topics};
use crate::id::EntryId;

impl Topics {
    /// Makes topics equal that will behave alike.
    pub(in super::super) fn forget_what_is_over(&mut self, ended: bool, window: u16) {
        if window > 1 {
            self.next = false;
        }
        if self.followed.iter().filter(|followed| followed.wants_read()).count() < 2 {
            self.turn = 0;
        }
        let mut all = self.followed.take();
        for followed in &mut all {
            followed.outstanding.forget_times();
            if !followed.reading {
                followed.head_before = EntryId::MIN;
            }
            if ended {
                // Only cursors are written still.
                followed.end();
            }
        }
        self.followed = FollowedTopics::new(all);
        if ended {
            (self.load, self.changing, self.rewound) = (Load::Done, false, false);
            self.changes.clear();
            self.waiting.clear();
            (self.in_flight, self.bytes, self.pause_until_ms) = (0, 0, 0);
            (self.redeliver_at_ms, self.write_at_ms) = (u64::MAX, u64::MAX);
        }
    }
}

impl Followed {
    fn end(&mut self) {
        (self.position, self.head, self.head_before) = (EntryId::MIN, None, EntryId::MIN);
        (self.dirty, self.reading, self.rereading) = (false, false, false);
        self.outstanding = Outstanding::default();
    }
}
