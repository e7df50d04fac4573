//! Which inboxes are to be trimmed, and when: acks and deleting are separate.

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
        Self { delay_ms, acks_max, waiting: HashMap::new(), due: VecDeque::new(), now: Vec::new() }
    }

    /// Notes acknowledged messages, and about how large they were together.
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

    /// Whether [`Trims::take`] would give anything.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        !self.now.is_empty() || self.due.front().is_some_and(|(due_ms, _)| *due_ms <= now_ms)
    }

    /// At most `count_max` inboxes to trim now.
    pub(super) fn take(&mut self, now_ms: u64, count_max: usize) -> Vec<Name> {
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
        while taken.len() < count_max && self.due.front().is_some_and(|(due_ms, _)| *due_ms <= now_ms) {
            // The front was just looked at.
            let Some((_, user)) = self.due.pop_front() else { break };
            if self.waiting.remove(&user).is_some_and(|acked| acked.count > 0) {
                taken.push(user);
            }
        }
        taken
    }

    /// Takes all, for the end.
    pub(super) fn take_all(&mut self) -> Vec<Name> {
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
        assert!(!trims.is_due(4_999));
        assert_eq!(trims.take(5_000, 10), std::slice::from_ref(&alice));
        trims.note(&bob, 1, 100, 5_010);
        assert_eq!(trims.take(5_020, 10), [bob]);
        assert_eq!(trims.take(u64::MAX, 10), Vec::<Name>::new());
    }

    #[test]
    fn large_messages_do_not_wait() {
        let [alice, bob] = names();
        let mut trims = Trims::new(5_000, 100);
        trims.note(&alice, 1, BYTES_MAX - 1, 0);
        trims.note(&bob, 1, BYTES_MAX, 0);
        assert_eq!(trims.take(0, 10), std::slice::from_ref(&bob));
        trims.note(&alice, 1, 1, 0);
        assert!(trims.is_due(0));
        assert_eq!(trims.take(0, 10), [alice], "what was noted in two parts counts together, and once");
        trims.note(&bob, 1, 1, 10);
        assert!(!trims.is_due(10), "a trim begins the count anew");
    }
}
