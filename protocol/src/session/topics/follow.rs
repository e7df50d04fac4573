//! Which topics a session follows: what its user's record says, and what the client asks for.

use std::collections::BTreeMap;

use super::super::Session;
use super::super::wire::{Action, Command, Failure, Now};
use super::list::FollowedTopics;
use super::{Followed, Load, Topics};
use crate::code::ErrorCode;
use crate::frame::ServerFrame;
use crate::name::Name;
use crate::topic::Topic;

/// Requests of a client that may wait for Redis.
const CHANGES_MAX: usize = 16;

/// What Redis knows about what a device follows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Follows {
    /// Topics of the user, and since when each is followed, Unix ms.
    pub topics: Vec<(Name, u64)>,
    /// Where the device begins, if that was asked for.
    pub begin: Option<Begin>,
}

/// Where a device begins in topics that it has no cursor in. The same as long as the device is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Begin {
    /// In those that its user follows, Unix ms: 0 for a user's first device.
    pub from_ms: u64,
    /// In the broadcast topic: when the device was first seen, Unix ms.
    pub first_seen_ms: u64,
}

/// What a change of what a user follows has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FollowChange {
    /// Followed now, and were not before.
    pub added: Vec<Name>,
    /// Not followed any more.
    pub removed: Vec<Name>,
    /// The user's devices.
    pub devices: Vec<Name>,
    /// When it happened, Unix ms by Redis's clock.
    pub at_ms: u64,
}

/// A `follow` or `unfollow` frame.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Change {
    topics: Vec<Name>,
    follow: bool,
    reference: Option<Box<str>>,
}

impl Session {
    pub(in super::super) fn handle_follow(
        &mut self,
        now: Now,
        topics: Vec<Name>,
        follow: bool,
        reference: Option<Box<str>>,
        actions: &mut Vec<Action>,
    ) {
        let Some(own) = &mut self.topics else {
            let message = "topics are switched off here (topics)";
            return self.complain(now, ErrorCode::Forbidden, message, reference, actions);
        };
        if let Some(topic) = topics.iter().find(|topic| !own.allowed.allow(topic)) {
            let message =
                format!("the token's topics claim does not allow {:?}; the frame was ignored", topic.as_str());
            return self.complain(now, ErrorCode::Forbidden, &message, reference, actions);
        }
        if own.changes.len() >= CHANGES_MAX {
            let message =
                format!("{CHANGES_MAX} follow and unfollow frames wait for Redis; send fewer, with more topics");
            return self.complain(now, ErrorCode::TooMany, &message, reference, actions);
        }
        own.changes.push(Change { topics, follow, reference });
    }

    pub(super) fn poll_follows(&mut self, commands: &mut Vec<Command>) {
        let Some(topics) = &mut self.topics else { return };
        if !topics.changing && !topics.changes.is_empty() {
            topics.changing = true;
            let Change { topics, follow, reference } = topics.changes.remove(0);
            commands.push(Command::Follow { topics, follow, reference });
        }
        let Some(topics) = &mut self.topics else { return };
        if topics.load == Load::Needed {
            topics.load = Load::InFlight { again: false };
            commands.push(Command::LoadFollows { begin: topics.begin.is_none() });
        }
    }

    pub(in super::super) fn handle_followed(
        &mut self,
        now: Now,
        change: (Vec<Name>, bool, Option<Box<str>>),
        outcome: Result<FollowChange, u64>,
        actions: &mut Vec<Action>,
    ) {
        let (topics, follow, reference) = change;
        if let Some(own) = &mut self.topics {
            own.changing = false;
        }
        match outcome {
            Ok(mut change) => {
                // What was so before may be missing in the topics' lists, if a node died between the two writes.
                *(if follow { &mut change.added } else { &mut change.removed }) = topics.clone();
                actions.push(Action::FollowsChanged(Box::new(change)));
                if self.is_ended() {
                    return;
                }
                self.handle_topics_changed();
                if !follow {
                    // At once: nothing of them may come after the word that they are left.
                    let stays = |topic: &Topic| !topics.iter().any(|left| left.as_str() == topic.as_str());
                    self.keep_topics(now, stays, actions);
                }
                self.send(now, &ServerFrame::Followed { topics, follow }, reference.as_deref(), actions);
            }
            Err(_) if self.is_ended() => {}
            Err(limit) => {
                let message = format!("a user follows at most {limit} topics (topics_per_user); nothing was changed");
                self.complain(now, ErrorCode::TooMany, &message, reference, actions);
            }
        }
    }

    pub(in super::super) fn handle_follow_failed(
        &mut self,
        now: Now,
        change: (Vec<Name>, bool, Option<Box<str>>),
        failure: Failure,
        actions: &mut Vec<Action>,
    ) {
        let (names, follow, reference) = change;
        let Some(own) = &mut self.topics else { return };
        own.changing = false;
        if matches!(failure, Failure::Disconnected | Failure::NotLoaded) {
            // Following twice is following once.
            own.changes.insert(0, Change { topics: names, follow, reference });
            return;
        }
        if !self.is_ended() {
            let message = "Redis does not take changes now; ask again later";
            self.complain(now, ErrorCode::Unavailable, message, reference, actions);
        }
    }

    /// What the user follows has changed, or may have.
    pub fn handle_topics_changed(&mut self) {
        let Some(topics) = &mut self.topics else { return };
        topics.load = match topics.load {
            Load::InFlight { .. } => Load::InFlight { again: true },
            Load::Needed | Load::Done => Load::Needed,
        };
    }

    pub(in super::super) fn handle_follows_not_loaded(&mut self) {
        if let Some(topics) = &mut self.topics {
            topics.load = Load::Needed;
        }
    }

    pub(in super::super) fn handle_follows_loaded(&mut self, now: Now, follows: Follows, actions: &mut Vec<Action>) {
        let ended = self.is_ended();
        let Some(topics) = &mut self.topics else { return };
        topics.load = if topics.load == (Load::InFlight { again: true }) { Load::Needed } else { Load::Done };
        if ended {
            return;
        }
        topics.begin = follows.begin.or(topics.begin);
        if topics.begin.is_none() {
            // What was known when this was asked for is of an older epoch now.
            topics.load = Load::Needed;
            return;
        }
        let named = follows.topics.into_iter().map(|(name, since_ms)| (Topic::Named(name), since_ms));
        let wanted: BTreeMap<Topic, u64> = named.chain([(Topic::Broadcast, 0)]).collect();
        let mut known = topics.followed.take().into_iter().peekable();
        let mut followed = Vec::with_capacity(wanted.len());
        // Both are in the order of their names.
        for (topic, since_ms) in wanted {
            while let Some(gone) = known.next_if(|known| known.topic < topic) {
                topics.leave(&gone, actions);
            }
            followed.push(known.next_if(|known| known.topic == topic).unwrap_or_else(|| {
                actions.push(Action::Follow(topic.clone()));
                Followed::new(topic, since_ms)
            }));
        }
        known.for_each(|gone| topics.leave(&gone, actions));
        topics.followed = FollowedTopics::new(followed);
        // Acks in a topic that is followed no more wait for nothing.
        self.confirm_written(now, actions);
    }

    /// Follows the other topics no more.
    fn keep_topics(&mut self, now: Now, stays: impl Fn(&Topic) -> bool, actions: &mut Vec<Action>) {
        let Some(topics) = &mut self.topics else { return };
        let (kept, gone): (Vec<_>, Vec<_>) = topics.followed.take().into_iter().partition(|known| stays(&known.topic));
        gone.iter().for_each(|gone| topics.leave(gone, actions));
        topics.followed = FollowedTopics::new(kept);
        if !gone.is_empty() {
            // Acks in a topic that is followed no more wait for nothing.
            self.confirm_written(now, actions);
        }
    }
}

impl Topics {
    /// A topic is followed no more. What of it is in flight may still be acked, to no effect.
    fn leave(&mut self, gone: &Followed, actions: &mut Vec<Action>) {
        let sent = gone.outstanding.in_flight();
        let (count, bytes) = sent.fold((0, 0), |(count, bytes), sent| (count + 1, bytes + sent.bytes as usize));
        self.in_flight -= count;
        self.bytes -= bytes;
        actions.push(Action::Unfollow(gone.topic.clone()));
    }
}
