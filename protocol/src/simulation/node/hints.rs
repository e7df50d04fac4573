//! A node's other connection: subscriptions, hints and control messages, and what a new link makes good.

use super::{Follow, Hint, Item, Node, World};
use crate::simulation::fault::Fault;
use crate::simulation::redis::Control;

impl Node {
    /// Subscribes to the inbox and to topics, if a session needs it.
    pub fn subscribe(&mut self) -> bool {
        if !self.linked {
            return false;
        }
        let to_topics = self.subscribe_to_topics();
        if self.follow != Follow::No || self.sessions.iter().all(Option::is_none) {
            return to_topics;
        }
        self.follow = Follow::Sent;
        true
    }

    /// Redis executes the subscription: events follow the confirmation on the same connection.
    pub fn subscribed(&mut self) -> bool {
        let sent = self.is_subscribing();
        if self.linked && self.follow == Follow::Sent {
            self.follow = Follow::Confirmed;
            self.hints.push_back(Hint::Subscribed);
        }
        if sent {
            let topics = self.confirm_topics();
            self.hints.extend(topics.into_iter().map(Hint::TopicSubscribed));
        }
        sent
    }

    /// The same, and its confirmation is heard at once.
    pub fn subscribed_at_once(&mut self, world: &mut World) {
        if self.linked && self.follow == Follow::Sent {
            self.follow = Follow::Confirmed;
            self.each(world, |session, _, _| session.handle_subscribed());
        }
        if self.linked {
            self.confirm_topics().iter().for_each(|topic| self.wake_feed(topic));
        }
    }

    /// Takes the next hint.
    pub fn hear(&mut self, world: &mut World) -> bool {
        let Some(hint) = self.hints.pop_front() else { return false };
        let deaf = world.redis.fault == Some(Fault::DeafToReleases);
        match hint {
            Hint::Wake if world.redis.fault == Some(Fault::WakeLostInRead) => {
                for key in
                    (0..self.sessions.len()).filter(|key| !self.flies(*key, Item::is_new_read)).collect::<Vec<_>>()
                {
                    self.with(world, key, |session, _, _| session.handle_wake());
                }
            }
            Hint::TopicWake(topic) | Hint::TopicSubscribed(topic) => self.wake_feed(&topic),
            Hint::Control(Control::Topics) => self.each(world, |session, _, _| session.handle_topics_changed()),
            Hint::FlagsRestored => {
                self.own_events = 0;
                self.lose_hints_of_feeds();
                self.each(world, |session, now, _| session.handle_hints_lost(now));
            }
            Hint::Wake if self.expects_event() => {}
            Hint::Wake => self.each(world, |session, _, _| session.handle_wake()),
            Hint::Subscribed => self.each(world, |session, _, _| session.handle_subscribed()),
            Hint::Control(Control::Release { .. }) if deaf => {}
            Hint::Control(control) => self.handle_control(world, control),
        }
        true
    }

    fn handle_control(&mut self, world: &mut World, control: Control) {
        let device = match &control {
            Control::Superseded { device, .. }
            | Control::Release { device }
            | Control::Removed { device, .. }
            | Control::Dismissed { device, .. }
            | Control::Gap { device, .. } => device.clone(),
            Control::Topics => return,
        };
        let mut known = false;
        let fault = world.redis.fault;
        for key in 0..self.sessions.len() {
            if matches!(control, Control::Superseded { .. })
                && fault == Some(Fault::SupersededInAttach)
                && self.flies(key, Item::is_attach)
            {
                continue;
            }
            let control = control.clone();
            known |= self.with_device(world, key, &device, |session, _, actions| match control {
                Control::Superseded { generation, .. } => {
                    let more = u64::from(fault == Some(Fault::OwnGenerationCloses));
                    session.handle_superseded(generation + more, actions);
                }
                Control::Release { .. } => session.handle_released(),
                Control::Removed { generation, .. } => session.handle_removed(generation, actions),
                Control::Dismissed { generation, dismissal, .. } => {
                    session.handle_dismissed(generation, dismissal, actions);
                }
                Control::Gap { gap, .. } => session.handle_gap(Some(gap), actions),
                Control::Topics => {}
            });
        }
        if !known && matches!(control, Control::Superseded { .. }) {
            self.orders.push(Item::Release { device });
        }
    }

    /// The subscription connection is gone, and with it what it would have said.
    pub fn lose_link(&mut self) {
        self.linked = false;
        self.hints.clear();
        // Their producers send them on a connection of their own, which is a publish like any other.
        self.appends = 0;
        if self.follow == Follow::Sent {
            self.follow = Follow::No;
        }
        self.unlink_feeds();
    }

    /// The data connection is gone: whether the pipeline was executed stays unknown.
    pub fn break_data(&mut self) {
        if let Some(flight) = &mut self.flight {
            flight.killed = true;
        }
        self.lose_link();
    }

    /// A new link, as `handle_connected` makes it.
    pub fn relink(&mut self, world: &mut World) -> bool {
        if self.linked {
            return false;
        }
        if let Some(flight) = &mut self.flight {
            flight.killed = true;
        }
        self.linked = true;
        self.hints.clear();
        if world.redis.fault != Some(Fault::OwnEventsOutliveLink) {
            self.own_events = 0;
        }
        let primary = world.redis.recover();
        // Of the epoch in which it was read.
        while world.redis.fault != Some(Fault::FanOutOutlivesEpoch) && self.fan_out(world) {}
        self.relink_feeds(primary != self.primary);
        if primary != self.primary && world.redis.fault != Some(Fault::EpochUnnoticed) {
            self.primary = primary;
            self.each(world, |session, _, _| session.handle_epoch(primary));
        }
        if self.sessions.iter().any(Option::is_some) {
            self.follow = Follow::Confirmed;
            self.each(world, |session, _, _| session.handle_subscribed());
        }
        if world.redis.fault != Some(Fault::ForgetfulLink) {
            self.lose_hints_of_feeds();
            self.each(world, |session, now, _| session.handle_hints_lost(now));
        }
        true
    }
}
