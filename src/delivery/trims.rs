//! Which inboxes are to be trimmed, and when: acks and deleting are separate.

use std::collections::{HashMap, VecDeque};

use homing_protocol::name::Name;

/// Debounces trims per inbox.
#[derive(Debug)]
pub(super) struct Trims {
    delay_ms: u64,
    acks_max: u32,
    waiting: HashMap<Name, u32>,
    /// In the order of their first ack since the last trim; one entry for each in `waiting`.
    due: VecDeque<(u64, Name)>,
    now: Vec<Name>,
}

impl Trims {
    pub(super) fn new(delay_ms: u64, acks_max: u32) -> Self {
        Self { delay_ms, acks_max, waiting: HashMap::new(), due: VecDeque::new(), now: Vec::new() }
    }

    /// Notes acknowledged messages.
    pub(super) fn note(&mut self, user: &Name, acks: u32, now_ms: u64) {
        match self.waiting.get_mut(user) {
            Some(count) => {
                let before = *count;
                *count = count.saturating_add(acks);
                if before < self.acks_max && *count >= self.acks_max {
                    self.now.push(user.clone());
                }
            }
            None => {
                self.waiting.insert(user.clone(), acks);
                self.due.push_back((now_ms + self.delay_ms, user.clone()));
                if acks >= self.acks_max {
                    self.now.push(user.clone());
                }
            }
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
            if let Some(count) = self.waiting.get_mut(&user) {
                *count = 0;
                taken.push(user);
            }
        }
        while taken.len() < count_max && self.due.front().is_some_and(|(due_ms, _)| *due_ms <= now_ms) {
            // The front was just looked at.
            let Some((_, user)) = self.due.pop_front() else { break };
            if self.waiting.remove(&user).is_some_and(|count| count > 0) {
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

    #[test]
    fn an_inbox_is_trimmed_after_the_delay_or_after_many_acks() {
        let (alice, bob) = (Name::parse("alice").unwrap(), Name::parse("bob").unwrap());
        let mut trims = Trims::new(5_000, 3);
        trims.note(&alice, 1, 0);
        trims.note(&alice, 1, 10);
        trims.note(&bob, 3, 20);
        assert_eq!(trims.take(30, 10), std::slice::from_ref(&bob));
        assert!(!trims.is_due(4_999));
        assert_eq!(trims.take(5_000, 10), std::slice::from_ref(&alice));
        trims.note(&bob, 1, 5_010);
        assert_eq!(trims.take(5_020, 10), [bob]);
        assert_eq!(trims.take(u64::MAX, 10), Vec::<Name>::new());
    }
}
