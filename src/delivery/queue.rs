//! The sessions that want to be in the next pipeline.

use std::collections::VecDeque;

use super::sessions::SessionKey;

/// Sessions in one pipeline at most: beyond, a longer one gains nothing and delays the others.
pub(super) const SESSIONS_MAX: usize = 2_048;
/// Of these, sessions that attach or release. Each costs Redis a function of up to 0.2 ms, so that a pipeline full of
/// them would keep everybody's messages waiting for 0.4 s, on every node.
pub(super) const OWNER_CHANGES_MAX: usize = 64;

/// A queue in which sessions that come and go, however many, do not stand before those that are there.
#[derive(Debug, Default)]
pub(super) struct Queue {
    present: VecDeque<SessionKey>,
    changing: VecDeque<SessionKey>,
    /// Those for the pipeline that is being put together; empty between.
    next: Next,
}

#[derive(Debug, Default)]
struct Next {
    present: VecDeque<SessionKey>,
    changing: VecDeque<SessionKey>,
}

impl Queue {
    /// Adds a session; `changes_owner`: it will attach or release.
    pub(super) fn push(&mut self, key: SessionKey, changes_owner: bool) {
        if changes_owner { self.changing.push_back(key) } else { self.present.push_back(key) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.present.is_empty() && self.changing.is_empty()
    }

    /// Sets those for one pipeline apart, oldest first; how many there are. Both kinds move on with each pipeline, so that
    /// neither waits for ever.
    pub(super) fn begin(&mut self) -> usize {
        let changing = self.changing.len().min(OWNER_CHANGES_MAX);
        let present = self.present.len().min(SESSIONS_MAX - changing);
        self.next.present.extend(self.present.drain(..present));
        self.next.changing.extend(self.changing.drain(..changing));
        present + changing
    }

    /// The next one of those. `is_long`: the pipeline has commands enough, so that of those that are there no more join
    /// it.
    pub(super) fn next(&mut self, is_long: bool) -> Option<SessionKey> {
        let present = if is_long { None } else { self.next.present.pop_front() };
        present.or_else(|| self.next.changing.pop_front())
    }

    /// Puts back, in front of all others of its kind, what did not fit.
    pub(super) fn end(&mut self) {
        self.next.present.drain(..).rev().for_each(|key| self.present.push_front(key));
        self.next.changing.drain(..).rev().for_each(|key| self.changing.push_front(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(queue: &mut Queue) -> Vec<SessionKey> {
        queue.begin();
        let all = std::iter::from_fn(|| queue.next(false)).collect();
        queue.end();
        all
    }

    // Ten thousand clients come back at once: a message for somebody who is there must not wait for their attaches.
    #[test]
    fn a_session_that_is_there_is_in_the_next_pipeline_however_many_arrive() {
        let mut queue = Queue::default();
        for index in 0..10_000 {
            queue.push(SessionKey::of(index), true);
        }
        queue.push(SessionKey::of(10_000), false);
        let first = taken(&mut queue);
        assert_eq!(first[0], SessionKey::of(10_000));
        assert_eq!(first.len(), 1 + OWNER_CHANGES_MAX);
    }

    #[test]
    fn sessions_that_arrive_move_on_however_many_are_there() {
        let mut queue = Queue::default();
        for index in 0..10_000 {
            queue.push(SessionKey::of(index), false);
        }
        queue.push(SessionKey::of(10_000), true);
        let first = taken(&mut queue);
        assert_eq!(first.len(), SESSIONS_MAX);
        assert_eq!(first.last(), Some(&SessionKey::of(10_000)));
        assert!(!queue.is_empty());
    }

    // Else the bound would not hold while large messages are read.
    #[test]
    fn sessions_that_arrive_and_did_not_fit_still_count_as_such() {
        let mut queue = Queue::default();
        for index in 0..200 {
            queue.push(SessionKey::of(index), true);
        }
        queue.begin();
        queue.end();
        assert_eq!(taken(&mut queue), (0..OWNER_CHANGES_MAX as u32).map(SessionKey::of).collect::<Vec<_>>());
    }

    #[test]
    fn what_did_not_fit_comes_first_next_time() {
        let mut queue = Queue::default();
        (0..3).for_each(|index| queue.push(SessionKey::of(index), false));
        queue.begin();
        assert_eq!(queue.next(false), Some(SessionKey::of(0)));
        queue.push(SessionKey::of(3), false);
        queue.end();
        assert_eq!(taken(&mut queue), [1, 2, 3].map(SessionKey::of));
        assert!(queue.is_empty());
    }

    // A thousand users with a hundred topics each: their cursors take many pipelines, and whoever comes then is let in.
    #[test]
    fn sessions_that_arrive_move_on_also_while_those_that_are_there_have_more_than_a_pipeline_carries() {
        let mut queue = Queue::default();
        (0..3).for_each(|index| queue.push(SessionKey::of(index), false));
        queue.push(SessionKey::of(9), true);
        queue.begin();
        assert_eq!(queue.next(false), Some(SessionKey::of(0)));
        assert_eq!((queue.next(true), queue.next(true)), (Some(SessionKey::of(9)), None));
        queue.end();
        assert_eq!(taken(&mut queue), [1, 2].map(SessionKey::of));
    }
}
