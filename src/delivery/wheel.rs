//! A coarse timer wheel: one entry per session, looked at when it comes round.

/// A timer that fires a little late, never early, and costs a push and a pop.
///
/// What comes out may be out of date: the owner looks at the real deadline and schedules it again.
#[derive(Debug)]
pub(super) struct Wheel<T> {
    slots: Vec<Vec<T>>,
    tick_ms: u64,
    /// The last tick that was handed out.
    tick: u64,
}

/// 1,024 ticks of 50 ms are 51 s; later deadlines are looked at then and pushed on.
const SLOTS: usize = 1_024;
/// Deadlines that are at least so many ticks away can wait for one another: a node of idle sessions then wakes up, and
/// Redis with it, a few times a second instead of with every tick.
const FAR_TICKS: u64 = 80;
/// Ticks of which one takes all deadlines that were far.
const TOGETHER_TICKS: u64 = 5;

impl<T> Wheel<T> {
    pub(super) fn new(tick_ms: u64, now_ms: u64) -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), tick_ms, tick: now_ms / tick_ms }
    }

    /// Schedules `item` unless it comes out by `known_ms` anyway; answers the time at which it will at the latest.
    pub(super) fn insert(&mut self, item: T, due_ms: u64, known_ms: u64) -> u64 {
        let last = self.tick + SLOTS as u64 - 1;
        let mut tick = due_ms.div_ceil(self.tick_ms);
        if tick >= self.tick + FAR_TICKS {
            tick = tick.next_multiple_of(TOGETHER_TICKS);
        }
        let tick = tick.clamp(self.tick + 1, last);
        if tick * self.tick_ms >= known_ms {
            return known_ms;
        }
        self.slots[(tick % SLOTS as u64) as usize].push(item);
        tick * self.tick_ms
    }

    /// Takes out what is due.
    pub(super) fn advance(&mut self, now_ms: u64, due: &mut Vec<T>) {
        while self.tick < now_ms / self.tick_ms {
            self.tick += 1;
            due.append(&mut self.slots[(self.tick % SLOTS as u64) as usize]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_out_early_or_is_forgotten() {
        let mut wheel = Wheel::new(50, 1_000);
        let mut due = Vec::new();
        wheel.insert("soon", 1_001, u64::MAX);
        wheel.insert("past", 3, u64::MAX);
        assert!(wheel.insert("far", 10_000_000, u64::MAX) < 60_000);
        wheel.advance(1_049, &mut due);
        assert!(due.is_empty());
        wheel.advance(1_050, &mut due);
        assert_eq!(due, ["soon", "past"]);
        wheel.advance(60_000, &mut due);
        assert_eq!(due, ["soon", "past", "far"]);
    }

    #[test]
    fn what_comes_out_early_enough_is_not_scheduled_again() {
        let mut wheel = Wheel::new(50, 1_000);
        let mut due = Vec::new();
        let mut known_ms = wheel.insert("item", 1_001, u64::MAX);
        for due_ms in [1_001, 1_049, 1_050, 5_000] {
            known_ms = wheel.insert("item", due_ms, known_ms);
        }
        assert_eq!(known_ms, 1_050);
        wheel.advance(60_000, &mut due);
        assert_eq!(due, ["item"]);
    }

    #[test]
    fn what_is_far_off_comes_out_together_and_a_little_late() {
        let mut wheel = Wheel::new(50, 1_000);
        let mut due = Vec::new();
        let times: Vec<u64> = (10_001..10_251).map(|due_ms| wheel.insert(due_ms, due_ms, u64::MAX)).collect();
        assert!(times.iter().all(|time| *time == 10_250), "{times:?}");
        assert_eq!(wheel.insert(4_950, 4_950, u64::MAX), 4_950, "what is near does not wait");
        wheel.advance(10_249, &mut due);
        assert_eq!(due, [4_950]);
        wheel.advance(10_250, &mut due);
        assert_eq!(due.len(), 251);
    }
}
