//! The sessions of one shard, and who follows which inbox.

use std::collections::HashMap;
use std::sync::Arc;

use homing_protocol::name::Name;
use homing_protocol::session::{Now, Session};

use super::outlet::Outlet;
use super::own_events::OwnEvents;

/// Names a session of a shard; a key of a session that is gone finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    index: u32,
    version: u32,
}

#[cfg(test)]
impl SessionKey {
    /// A key for tests of what only passes keys on.
    pub(super) fn of(index: u32) -> Self {
        Self { index, version: 0 }
    }
}

/// A session and what the shard keeps about it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) session: Session,
    pub(super) outlet: Arc<Outlet>,
    /// Number of its attach; 0 before the first.
    pub(super) nonce: u64,
    /// Generation with which its device came online; 0 if nobody announces that.
    pub(super) period: u64,
    /// Whether it stands in the queue for the next pipeline.
    pub(super) queued: bool,
    /// Whether it waits for acks to gather.
    pub(super) coalescing: bool,
    /// When the wheel looks at it, in monotonic ms.
    pub(super) looked_at_ms: u64,
    /// Whether the transport still holds the outlet.
    pub(super) connected: bool,
    /// Whether it counts as live in the metrics.
    pub(super) counted: bool,
    /// How many of its acks count there as waiting.
    pub(super) acks_counted: u32,
}

// The allocator's next size is 640 bytes, for each of many sessions that have nothing to do.
const _: () = assert!(size_of::<Held>() <= 512);

/// Where the subscription to an inbox's wake-ups stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subscription {
    /// In the queue or on its way.
    Pending,
    /// Confirmed.
    Confirmed,
}

#[derive(Debug)]
struct Follower {
    subscription: Subscription,
    own_events: OwnEvents,
    sessions: Vec<SessionKey>,
}

/// All sessions of a shard.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slots: Vec<(u32, Option<Box<Held>>)>,
    free: Vec<u32>,
    users: HashMap<Name, Follower>,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds a session; true if its user's inbox must be subscribed to.
    pub(super) fn insert(&mut self, held: Held) -> (SessionKey, Option<Subscription>) {
        let user = held.session.user().clone();
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            // The descriptor limit bounds sessions far below 2^32.
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.1 = Some(Box::new(held));
        let key = SessionKey { index, version: slot.0 };
        match self.users.get_mut(&user) {
            Some(follower) => {
                follower.sessions.push(key);
                (key, Some(follower.subscription))
            }
            None => {
                let (subscription, sessions) = (Subscription::Pending, vec![key]);
                self.users.insert(user, Follower { subscription, own_events: OwnEvents::default(), sessions });
                (key, None)
            }
        }
    }

    /// Removes a session; true if it was its user's last one, whose subscription can go.
    pub(super) fn remove(&mut self, key: SessionKey) -> bool {
        let Some(slot) = self.slots.get_mut(key.index as usize).filter(|slot| slot.0 == key.version) else {
            return false;
        };
        let Some(held) = slot.1.take() else { return false };
        slot.0 = slot.0.wrapping_add(1);
        self.free.push(key.index);
        let user = held.session.user();
        let Some(follower) = self.users.get_mut(user) else { return false };
        follower.sessions.retain(|other| *other != key);
        if follower.sessions.is_empty() {
            self.users.remove(user);
            return true;
        }
        false
    }

    pub(super) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Held> {
        self.slots.get_mut(key.index as usize).filter(|slot| slot.0 == key.version)?.1.as_deref_mut()
    }

    /// The sessions of a user, oldest first.
    pub(super) fn of_user(&self, user: &str) -> &[SessionKey] {
        self.users.get(user).map_or(&[], |follower| &follower.sessions)
    }

    pub(super) fn subscription(&self, user: &str) -> Option<Subscription> {
        self.users.get(user).map(|follower| follower.subscription)
    }

    pub(super) fn confirm_subscription(&mut self, user: &str) -> bool {
        match self.users.get_mut(user) {
            Some(follower) => {
                follower.subscription = Subscription::Confirmed;
                true
            }
            None => false,
        }
    }

    /// An append of this shard's own is on its way, and a read behind it: its event will say nothing new.
    pub(super) fn expect_event(&mut self, user: &str, now: Now) {
        if let Some(follower) = self.users.get_mut(user)
            && follower.subscription == Subscription::Confirmed
        {
            follower.own_events.expect(now);
        }
    }

    /// An event came; true if it may be taken for one that was expected.
    pub(super) fn take_expected(&mut self, user: &str, now: Now) -> bool {
        self.users.get_mut(user).is_some_and(|follower| follower.own_events.take(now))
    }

    /// Nothing was appended: no event comes of it.
    pub(super) fn expect_no_event(&mut self, user: &str) {
        if let Some(follower) = self.users.get_mut(user) {
            follower.own_events.expect_one_less();
        }
    }

    /// Events may have been lost.
    pub(super) fn expect_no_events(&mut self) {
        self.users.values_mut().for_each(|follower| follower.own_events = OwnEvents::default());
    }

    pub(super) fn users(&self) -> impl Iterator<Item = &Name> {
        self.users.keys()
    }

    pub(super) fn keys(&self) -> Vec<SessionKey> {
        let held = self.slots.iter().enumerate().filter(|(_, slot)| slot.1.is_some());
        held.map(|(index, slot)| SessionKey { index: index as u32, version: slot.0 }).collect()
    }
}
