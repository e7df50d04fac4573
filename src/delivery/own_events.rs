//! Events of appends that a shard sent itself, in front of its reads: what they are about is read anyway.

use homing_protocol::session::Now;

/// Time within which the event of an append comes. If somebody switched events off for a moment it never does, and another
/// one must not be taken for it.
const COMES_WITHIN_MS: u32 = 1_000;

/// How many of them have not come. Fewer than there are is always safe: an event too many only costs an empty read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OwnEvents {
    count: u16,
    /// When the last of these appends was sent, in monotonic ms, of which the lowest bits are enough.
    sent_ms: u32,
}

impl OwnEvents {
    /// An append is sent now.
    pub(super) fn expect(&mut self, now: Now) {
        self.forget_late(now);
        self.count = self.count.saturating_add(1);
        self.sent_ms = now.mono_ms as u32;
    }

    /// An event came; true if it may be taken for one of these. Which one it is makes no difference: see ADR 0019.
    pub(super) fn take(&mut self, now: Now) -> bool {
        self.forget_late(now);
        let is_one = self.count > 0;
        self.count = self.count.saturating_sub(1);
        is_one
    }

    /// Of one of the appends, no event comes.
    pub(super) fn expect_one_less(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    fn forget_late(&mut self, now: Now) {
        if (now.mono_ms as u32).wrapping_sub(self.sent_ms) > COMES_WITHIN_MS {
            self.count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ms: 0 }
    }

    #[test]
    fn as_many_events_are_taken_as_appends_were_sent() {
        let mut own = OwnEvents::default();
        assert!(!own.take(at(1)));
        own.expect(at(2));
        own.expect(at(3));
        assert!(own.take(at(4)) && own.take(at(5)) && !own.take(at(6)));
        own.expect(at(7));
        own.expect_one_less();
        own.expect_one_less();
        assert!(!own.take(at(8)), "of a refused append, no event is expected");
    }

    #[test]
    fn an_event_that_does_not_come_is_not_waited_for_whatever_is_sent_later() {
        let mut own = OwnEvents::default();
        own.expect(at(10));
        assert!(own.take(at(1_010)));
        own.expect(at(2_000));
        assert!(!own.take(at(3_001)), "too late");
        own.expect(at(4_000));
        own.expect(at(6_000));
        assert!(own.take(at(6_001)), "the one that was sent last");
        assert!(!own.take(at(6_002)), "and not one of long ago");
    }

    #[test]
    fn the_clock_and_the_count_may_be_at_their_ends() {
        let mut own = OwnEvents::default();
        let end = u64::from(u32::MAX);
        own.expect(at(end - 1));
        assert!(own.take(at(end + 500)));
        (0..100_000).for_each(|_| own.expect(at(end + 600)));
        let taken = (0..100_000).filter(|_| own.take(at(end + 601))).count();
        assert_eq!(taken, usize::from(u16::MAX), "fewer than there are");
    }
}
