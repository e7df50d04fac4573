//! Which inboxes are to be trimmed, and when: acks and deleting are separate.
//!
//! Messages often come to many users at once, and their acks with them. If all those inboxes were trimmed at once, too,
//! when the delay is over, Redis would have a second peak, higher than the first. So they leave at the pace at which they
//! would be due if they had come evenly: in the time of one delay, as many as wait.

use std::collections::{HashMap, VecDeque};

use homing_protocol::name::Name;

/// Bytes of acknowledged messages after which an inbox is trimmed at once: a trim costs Redis about as much as it costs to
/// deliver a message or two, so that few should do; but large messages should not wait long in its memory.
const BYTES_MAX: usize = 64 * 1024;

/// Debounces trims per inbox.
#[derive(Debug)]
pub(super) struct Trims {
    delay_ms: u64,
    acks_max: u32,
    waiting: HashMap<Name, Acked>,
    /// In the order of their first ack since the last trim; one entry for each in `waiting`.
    due: VecDeque<(u64, Name)>,
    now: Vec<Name>,
    /// Of those whose delay is over, how many may leave before the next grant.
    granted: usize,
    granted_ms: u64,
    /// Whether any could leave since the last grant.
    is_asked: bool,
}

/// What was acknowledged since the last trim.
#[derive(Clone, Copy, Debug, Default)]
struct Acked {
    count: u32,
    bytes: usize,
}

impl Acked {
    /// Whether it is too much to wait for the delay.
    fn is_much(self, acks_max: u32) -> bool {
        self.count >= acks_max || self.bytes >= BYTES_MAX
    }
}

impl Trims {
    pub(super) fn new(delay_ms: u64, acks_max: u32) -> Self {
        Self {
            delay_ms,
            acks_max,
            waiting: HashMap::new(),
            due: VecDeque::new(),
            now: Vec::new(),
            granted: 0,
            granted_ms: 0,
            is_asked: true,
        }
    }

    /// Notes acknowledged messages, and what they were charged together, in bytes.
    pub(super) fn note(&mut self, user: &Name, count: u32, bytes: usize, now_ms: u64) {
        let acked = match self.waiting.get_mut(user) {
            Some(acked) => acked,
            None => {
                self.due.push_back((now_ms + self.delay_ms, user.clone()));
                self.waiting.entry(user.clone()).or_default()
            }
        };
        let was_much = acked.is_much(self.acks_max);
        acked.count = acked.count.saturating_add(count);
        acked.bytes = acked.bytes.saturating_add(bytes);
        if !was_much && acked.is_much(self.acks_max) {
            self.now.push(user.clone());
        }
    }

    /// Grants those whose delay is over the share of the time since the last grant; answers whether [`Trims::take`]
    /// would give anything.
    pub(super) fn grant(&mut self, now_ms: u64) -> bool {
        let elapsed_ms = now_ms.saturating_sub(std::mem::replace(&mut self.granted_ms, now_ms));
        let share = (self.due.len() as u64).saturating_mul(elapsed_ms).div_ceil(self.delay_ms.max(1)) as usize;
        let is_due = self.due.front().is_some_and(|(due_ms, _)| *due_ms <= now_ms);
        // A pipeline may take longer than a tick.
        let left = if is_due && !self.is_asked { self.granted } else { 0 };
        self.granted = if is_due { left.saturating_add(share) } else { 0 };
        self.is_asked = false;
        is_due || !self.now.is_empty()
    }

    /// At most `count_max` inboxes to trim now.
    pub(super) fn take(&mut self, now_ms: u64, count_max: usize) -> Vec<Name> {
        self.is_asked = true;
        let mut taken = Vec::new();
        while taken.len() < count_max
            && let Some(user) = self.now.pop()
        {
            // Its place in `due` stays, and counts what comes after this trim.
            if let Some(acked) = self.waiting.get_mut(&user) {
                *acked = Acked::default();
                taken.push(user);
            }
        }
        while taken.len() < count_max
            && self.granted > 0
            && self.due.front().is_some_and(|(due_ms, _)| *due_ms <= now_ms)
        {
            // The front was just looked at.
            let Some((_, user)) = self.due.pop_front() else { break };
            if self.waiting.remove(&user).is_some_and(|acked| acked.count > 0) {
                self.granted -= 1;
                taken.push(user);
            }
        }
        taken
    }

    /// Takes all, for the end.
    pub(super) fn take_all(&mut self) -> Vec<Name> {
        self.granted = usize::MAX;
        self.take(u64::MAX, usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> [Name; 2] {
        ["alice", "bob"].map(|name| Name::parse(name).unwrap())
    }

    #[test]
    fn an_inbox_is_trimmed_after_the_delay_or_after_many_acks() {
        let [alice, bob] = names();
        let mut trims = Trims::new(5_000, 3);
        trims.note(&alice, 1, 100, 0);
        trims.note(&alice, 1, 100, 10);
        trims.note(&bob, 3, 300, 20);
        assert_eq!(trims.take(30, 10), std::slice::from_ref(&bob));
        assert!(!trims.grant(4_999));
        assert!(trims.grant(5_000));
        assert_eq!(trims.take(5_000, 10), std::slice::from_ref(&alice));
        trims.note(&bob, 1, 100, 5_010);
        assert!(trims.grant(5_020));
        assert_eq!(trims.take(5_020, 10), [bob]);
        assert_eq!(trims.take_all(), Vec::<Name>::new());
    }

    #[test]
    fn large_messages_do_not_wait() {
        let [alice, bob] = names();
        let mut trims = Trims::new(5_000, 100);
        trims.note(&alice, 1, BYTES_MAX - 1, 0);
        trims.note(&bob, 1, BYTES_MAX, 0);
        assert_eq!(trims.take(0, 10), std::slice::from_ref(&bob));
        trims.note(&alice, 1, 1, 0);
        assert!(trims.grant(0));
        assert_eq!(trims.take(0, 10), [alice], "what was noted in two parts counts together, and once");
        trims.note(&bob, 1, 1, 10);
        assert!(!trims.grant(10), "a trim begins the count anew");
    }

    // A message to everybody, and all acknowledge it within a second.
    #[test]
    fn a_wave_of_acks_is_no_wave_of_trims() {
        let mut trims = Trims::new(60_000, 100);
        for number in 0..12_000_u64 {
            trims.note(&Name::parse(&format!("user-{number}")).unwrap(), 1, 100, number / 12);
        }
        let (mut taken, mut busiest, mut last_ms) = (0, 0, 0);
        for now_ms in (0..600_000).step_by(50) {
            if trims.grant(now_ms) {
                let now = trims.take(now_ms, 64).len() + trims.take(now_ms, 64).len();
                busiest = busiest.max(now);
                taken += now;
                last_ms = now_ms;
            }
        }
        assert_eq!(taken, 12_000);
        assert_eq!(busiest, 10, "what 12,000 that come evenly over a minute have in 50 ms");
        assert!(last_ms < 600_000 - 50, "{last_ms}");
    }

    #[test]
    fn pipelines_that_take_long_make_nobody_wait_longer() {
        let mut trims = Trims::new(1_000, 100);
        (0..100).for_each(|number| trims.note(&Name::parse(&format!("user-{number}")).unwrap(), 1, 100, 0));
        (0..=40).for_each(|tick| _ = trims.grant(tick * 50));
        assert_eq!(trims.take(2_000, 1_000).len(), 100, "the shares of two delays");
        (0..100).for_each(|number| trims.note(&Name::parse(&format!("user-{number}")).unwrap(), 1, 100, 2_000));
        (41..=70).for_each(|tick| _ = trims.grant(tick * 50));
        assert_eq!(trims.take(3_500, 1_000).len(), 55, "the shares since 3,000, when their delay was over");
        assert!(trims.grant(3_550));
        assert_eq!(trims.take(3_550, 1_000).len(), 3, "a pipeline each tick has that of one");
    }

    #[test]
    fn who_comes_evenly_waits_for_the_delay_and_no_longer() {
        let mut trims = Trims::new(1_000, 100);
        let names: Vec<Name> = (0..100).map(|number| Name::parse(&format!("user-{number}")).unwrap()).collect();
        let mut trimmed = 0;
        for now_ms in (0..20_000_u64).step_by(10) {
            trims.grant(now_ms);
            for user in trims.take(now_ms, 64) {
                let number: u64 = user.as_str()["user-".len()..].parse().unwrap();
                assert!((now_ms - number * 10) % 1_000 <= 10, "{user} at {now_ms}");
                trimmed += 1;
            }
            trims.note(&names[(now_ms / 10 % 100) as usize], 1, 100, now_ms);
        }
        assert!(trimmed > 900, "{trimmed}");
    }
}
