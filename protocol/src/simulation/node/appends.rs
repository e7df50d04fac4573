//! Appends that producers leave at a node because it reads the inbox: they leave in its pipeline, in front of the read.

use super::{Hint, Item, Node, World};
use crate::session::{Failure, Reply};
use crate::simulation::fault::Fault;
use crate::simulation::redis::Answer;

impl Node {
    /// Whether producers may leave appends here.
    pub fn takes_appends(&self) -> bool {
        let confirmed = !self.hints.iter().any(|hint| matches!(hint, Hint::Subscribed));
        self.is_subscribed() && confirmed && self.sessions.iter().any(Option::is_some)
    }

    /// A producer leaves one.
    pub fn leave_append(&mut self) {
        self.appends += 1;
    }

    /// What leaves in the next pipeline: sessions will read behind it, so its event says nothing new.
    pub(super) fn take_appends(&mut self, world: &mut World) -> Vec<Item> {
        let appends = std::mem::take(&mut self.appends);
        if self.takes_appends() {
            self.own_events += appends;
        }
        if appends > 0 {
            self.each(world, |session, _, _| session.handle_wake());
        }
        (0..appends).map(|_| Item::Append).collect()
    }

    pub(super) fn execute_append(world: &mut World) -> Answer {
        let left = &mut world.redis.appends_until_refused;
        if left.take_if(|left| *left == 0).is_some() {
            return Reply::Failed(Failure::Refused);
        }
        if let Some(left) = left {
            *left -= 1;
        }
        world.redis.append(vec![(b"data".to_vec(), b"x".to_vec())]);
        world.redis.appended += usize::from(world.redis.flags);
        Reply::Done
    }

    pub(super) fn complete_append(&mut self, world: &mut World, answer: Option<Answer>) {
        // Of a lost connection: the next link begins anew.
        if let Some(Reply::Failed(_)) = answer
            && world.redis.fault != Some(Fault::RefusedAppendExpected)
        {
            self.own_events = self.own_events.saturating_sub(1);
            if world.redis.fault != Some(Fault::RefusedAppendWakesNobody) {
                // Another event may have been taken for the one that does not come.
                self.each(world, |session, _, _| session.handle_wake());
            }
        }
    }

    /// Whether an event is taken for one of the node's own appends.
    pub(super) fn expects_event(&mut self) -> bool {
        let expects = self.own_events > 0;
        self.own_events = self.own_events.saturating_sub(1);
        expects
    }
}
