//! A queue that keeps a single element in place.
//!
//! Most sessions have one message in flight, if any. A buffer for it would be allocated and freed with each message, and
//! lie in memory that nothing else has brought near.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

#[derive(Clone, Debug, Default)]
pub(super) enum Queue<T> {
    #[default]
    Empty,
    One(T),
    /// Never empty, since an idle session keeps no buffer; but it may have come down to one.
    Many(VecDeque<T>),
}

// Two queues that hold the same are the same, however they keep it.
impl<T: PartialEq> PartialEq for Queue<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<T: Eq> Eq for Queue<T> {}

impl<T: Hash> Hash for Queue<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.len().hash(state);
        self.iter().for_each(|element| element.hash(state));
    }
}

impl<T> Queue<T> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(_) => 1,
            Self::Many(many) => many.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let (first, second) = self.slices();
        first.iter().chain(second)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let (first, second) = self.slices_mut();
        first.iter_mut().chain(second)
    }

    pub(super) fn front(&self) -> Option<&T> {
        match self {
            Self::Empty => None,
            Self::One(one) => Some(one),
            Self::Many(many) => many.front(),
        }
    }

    pub(super) fn back_mut(&mut self) -> Option<&mut T> {
        let (first, second) = self.slices_mut();
        second.last_mut().or(first.last_mut())
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        match self {
            Self::Empty => None,
            Self::One(one) => (index == 0).then_some(one),
            Self::Many(many) => many.get_mut(index),
        }
    }

    pub(super) fn push_back(&mut self, element: T) {
        if let Self::Many(many) = self {
            many.push_back(element);
        } else {
            *self = match std::mem::take(self) {
                Self::One(one) => Self::Many(VecDeque::from([one, element])),
                _ => Self::One(element),
            };
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<T> {
        self.remove(0)
    }

    pub(super) fn remove(&mut self, index: usize) -> Option<T> {
        match self {
            Self::Many(many) => {
                let element = many.remove(index);
                self.let_go();
                element
            }
            Self::One(_) if index == 0 => match std::mem::take(self) {
                Self::One(one) => Some(one),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        match self {
            Self::Empty => {}
            Self::One(one) if keep(one) => {}
            Self::One(_) => *self = Self::Empty,
            Self::Many(many) => {
                many.retain(keep);
                self.let_go();
            }
        }
    }

    /// As that of slices, for what lies in order.
    pub(super) fn binary_search_by_key<K: Ord>(&self, key: &K, of: impl FnMut(&T) -> K) -> Option<usize> {
        match self {
            Self::Empty => None,
            Self::One(one) => std::slice::from_ref(one).binary_search_by_key(key, of).ok(),
            Self::Many(many) => many.binary_search_by_key(key, of).ok(),
        }
    }

    fn let_go(&mut self) {
        if matches!(self, Self::Many(many) if many.is_empty()) {
            *self = Self::Empty;
        }
    }

    fn slices(&self) -> (&[T], &[T]) {
        match self {
            Self::Empty => (&[], &[]),
            Self::One(one) => (std::slice::from_ref(one), &[]),
            Self::Many(many) => many.as_slices(),
        }
    }

    fn slices_mut(&mut self) -> (&mut [T], &mut [T]) {
        match self {
            Self::Empty => (&mut [], &mut []),
            Self::One(one) => (std::slice::from_mut(one), &mut []),
            Self::Many(many) => many.as_mut_slices(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Pop,
        Remove(usize),
        Retain(u32),
        Add(usize),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Push),
            2 => Just(Step::Pop),
            1 => (0..4_usize).prop_map(Step::Remove),
            1 => (1..4_u32).prop_map(Step::Retain),
            1 => (0..4_usize).prop_map(Step::Add),
        ]
    }

    fn hash_of(queue: &impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        queue.hash(&mut hasher);
        hasher.finish()
    }

    proptest! {
        #[test]
        fn it_holds_what_a_deque_would(steps in proptest::collection::vec(any_step(), 0..40)) {
            let (mut queue, mut deque) = (Queue::default(), VecDeque::new());
            for (number, step) in (0_u32..).zip(steps) {
                match step {
                    Step::Push => {
                        queue.push_back(number);
                        deque.push_back(number);
                    }
                    Step::Pop => prop_assert_eq!(queue.pop_front(), deque.pop_front()),
                    Step::Remove(index) => prop_assert_eq!(queue.remove(index), deque.remove(index)),
                    Step::Retain(modulus) => {
                        queue.retain(|number| number % modulus == 0);
                        deque.retain(|number| number % modulus == 0);
                    }
                    Step::Add(index) => {
                        prop_assert_eq!(queue.get_mut(index).map(|number| *number += 100), deque.get_mut(index).map(|number| *number += 100));
                        queue.iter_mut().for_each(|number| *number += 1);
                        deque.iter_mut().for_each(|number| *number += 1);
                        // Back in order, for the search.
                        queue.retain(|number| *number < 100);
                        deque.retain(|number| *number < 100);
                    }
                }
                prop_assert!(queue.iter().eq(deque.iter()));
                prop_assert_eq!((queue.len(), queue.is_empty()), (deque.len(), deque.is_empty()));
                prop_assert_eq!(queue.front(), deque.front());
                prop_assert_eq!(queue.back_mut(), deque.back_mut());
                for sought in 0..=number {
                    prop_assert_eq!(queue.binary_search_by_key(&sought, |n| *n), deque.binary_search(&sought).ok());
                }
                let mut anew = Queue::default();
                deque.iter().for_each(|number| anew.push_back(*number));
                prop_assert_eq!(&anew, &queue);
                prop_assert_eq!(hash_of(&anew), hash_of(&queue));
                prop_assert!(!matches!(&queue, Queue::Many(many) if many.is_empty()), "an idle session keeps no buffer");
            }
        }
    }
}
