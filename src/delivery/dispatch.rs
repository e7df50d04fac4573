//! From events and hints to sessions, and from their actions to outlets and metrics.

use homing_protocol::close::CloseCode;
use homing_protocol::code::ErrorCode;
use homing_protocol::frame::ServerFrame;
use homing_protocol::name::Name;
use homing_protocol::session::{Action, Dismissal, Now, Session};
use tracing::{debug, warn};

use super::batch::Order;
use super::control::Control;
use super::event::Event;
use super::hints::Hint;
use super::outlet::Frame;
use super::sessions::{Held, SessionKey, Subscription};
use super::shard::Shard;

/// What a client is told to wait when this node cannot take it.
const RETRY_AFTER_MS: u64 = 1_000;

impl Shard {
    pub(super) fn handle_event(&mut self, event: Event) {
        let now = self.now();
        let key = match &event {
            Event::Open { .. } => return self.handle_open(event, now),
            Event::Frame(key, _)
            | Event::Renewal(key, _)
            | Event::SignOfLife(key)
            | Event::Drained(key)
            | Event::Gone(key) => *key,
        };
        let Some(held) = self.sessions.get_mut(key) else { return };
        match event {
            Event::Frame(_, frame) => {
                self.observer.frames.increment(1);
                held.session.handle_frame(now, frame, &mut self.actions);
            }
            Event::Renewal(_, renewal) => {
                self.observer.frames.increment(1);
                held.session.handle_renewal(now, renewal.outcome, renewal.reference, &mut self.actions);
            }
            Event::SignOfLife(_) => held.session.handle_sign_of_life(now, &mut self.actions),
            Event::Gone(_) => {
                held.connected = false;
                if !held.session.is_ended() {
                    self.observer.closed(None);
                }
                held.session.handle_disconnected();
            }
            Event::Drained(_) | Event::Open { .. } => {}
        }
        self.attend(key, now);
    }

    fn handle_open(&mut self, event: Event, now: Now) {
        let Event::Open { open, outlet, reply } = event else { return };
        let refusal = if self.draining.is_some() {
            Some((ErrorCode::Draining, "this node is stopping; reconnect", CloseCode::Draining))
        } else if self.is_link_lost_long(now) {
            Some((ErrorCode::Unavailable, "this node cannot reach Redis now; reconnect later", CloseCode::Internal))
        } else {
            None
        };
        if let Some((code, message, close)) = refusal {
            let error = ServerFrame::Error { code, message: message.to_owned(), retry_after_ms: Some(RETRY_AFTER_MS) };
            let _ = outlet.push(Frame::Own(error.encode(None)));
            outlet.close(close);
            // A transport that has gone meanwhile needs no answer.
            let _ = reply.send(None);
            return;
        }
        let mut open = *open;
        open.primary = self.primary;
        let session = Session::new(now, self.session_config.clone(), open);
        let user = session.user().clone();
        let (key, subscription) = self.sessions.insert(Held {
            session,
            outlet,
            nonce: 0,
            period: 0,
            queued: false,
            coalescing: false,
            looked_at_ms: u64::MAX,
            connected: true,
            counted: false,
            acks_counted: 0,
        });
        self.register_topics(key);
        match subscription {
            None => self.added.push(user),
            Some(Subscription::Pending) => {}
            Some(Subscription::Confirmed) => {
                if let Some(held) = self.sessions.get_mut(key) {
                    held.session.handle_subscribed();
                }
            }
        }
        if reply.send(Some(key)).is_err()
            && let Some(held) = self.sessions.get_mut(key)
        {
            held.connected = false;
            held.session.handle_disconnected();
        }
        self.attend(key, now);
    }

    pub(super) fn handle_hint(&mut self, Hint { channel, payload }: Hint<'_>) {
        if let Some(user) = self.store.keys().user_of_event(channel) {
            // Groups, trims and deletions fire events, too.
            if payload == b"xadd" {
                self.observer.wakeups.increment(1);
                let now = self.now();
                if !self.sessions.take_expected(user, now) {
                    self.wake(user, now);
                }
            }
        } else if let Some(topic) = self.store.keys().topic_of_event(channel) {
            if payload == b"xadd" {
                self.observer.wakeups.increment(1);
                self.feeds.wake(topic);
            }
        } else if channel == self.control_channel {
            match serde_json::from_slice::<Control>(payload) {
                Ok(control) => self.handle_control(control),
                Err(error) => debug!(%error, "a control message of another version"),
            }
        } else if self.probe.is_channel(channel) && payload == b"xadd" {
            let now = self.now();
            if let Some(took) = self.probe.seen(now.mono_ms) {
                self.observer.probe_round_trip.record(took.as_secs_f64());
            }
        }
    }

    /// Something new is in a user's inbox, or will be before the next read.
    pub(super) fn wake(&mut self, user: &str, now: Now) {
        let mut keys = std::mem::take(&mut self.woken);
        keys.extend_from_slice(self.sessions.of_user(user));
        for key in keys.drain(..) {
            let Some(held) = self.sessions.get_mut(key) else { continue };
            held.session.handle_wake();
            self.enqueue(key, now);
        }
        self.woken = keys;
    }

    fn handle_control(&mut self, control: Control) {
        let now = self.now();
        match control {
            Control::FlagsRestored => self.lose_hints(now),
            Control::Receipt { token, device, event } => (self.receipted)(&token, &device, &event),
            Control::Superseded { user, device, generation } => {
                let generation = generation.parse().unwrap_or(0);
                let known = self.with_device(&user, &device, now, |session, actions| {
                    session.handle_superseded(generation, actions);
                });
                // What a session that is gone had read must be told to the new owner all the same. A known one
                // releases when it ends.
                if !known && let (Ok(user), Ok(device)) = (Name::parse(&user), Name::parse(&device)) {
                    self.orders.push(Order::Release { user, device });
                }
            }
            Control::Topics { user } => {
                for key in self.sessions.of_user(&user).to_vec() {
                    let Some(held) = self.sessions.get_mut(key) else { continue };
                    held.session.handle_topics_changed();
                    self.attend(key, now);
                }
            }
            Control::Release { user, device } => {
                self.with_device(&user, &device, now, |session, _| session.handle_released());
            }
            Control::Removed { user, device, generation } => {
                let generation = generation.parse().unwrap_or(0);
                self.with_device(&user, &device, now, |session, actions| session.handle_removed(generation, actions));
            }
            Control::Replaced { user, device, generation } => {
                self.dismiss(&user, &device, &generation, Dismissal::Replaced, now);
            }
            Control::Kicked { user, device, generation, reason } => {
                self.dismiss(&user, &device, &generation, Dismissal::Kicked(reason.into()), now);
            }
            Control::Refused { user, device, generation } => {
                self.dismiss(&user, &device, &generation, Dismissal::TokenRefused, now);
            }
            Control::Gap { user, device, gap } => {
                let gap: homing_protocol::frame::Gap = gap.into();
                self.with_device(&user, &device, now, |session, actions| {
                    session.handle_gap(Some(gap.clone()), actions)
                });
            }
        }
    }

    fn dismiss(&mut self, user: &str, device: &str, generation: &str, dismissal: Dismissal, now: Now) {
        let generation = generation.parse().unwrap_or(0);
        self.with_device(user, device, now, |session, actions| {
            session.handle_dismissed(generation, dismissal.clone(), actions);
        });
    }

    /// Does something with each session of a device that has not ended; false if there is none.
    fn with_device(
        &mut self,
        user: &str,
        device: &str,
        now: Now,
        mut work: impl FnMut(&mut Session, &mut Vec<Action>),
    ) -> bool {
        let mut found = false;
        for key in self.sessions.of_user(user).to_vec() {
            let Some(held) = self.sessions.get_mut(key) else { continue };
            if held.session.device().as_str() == device && !held.session.is_ended() {
                found = true;
                work(&mut held.session, &mut self.actions);
                self.attend(key, now);
            }
        }
        found
    }

    /// Wake-ups or control messages may have been lost.
    pub(super) fn lose_hints(&mut self, now: Now) {
        self.sessions.expect_no_events();
        self.feeds.lose_hints();
        for key in self.sessions.keys() {
            let Some(held) = self.sessions.get_mut(key) else { continue };
            held.session.handle_hints_lost(now);
            self.attend(key, now);
        }
    }

    /// Carries out what a session decided.
    pub(super) fn apply_actions(&mut self, key: SessionKey, now: Now) {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            self.apply(key, action, now);
        }
        self.actions = actions;
        let Some(held) = self.sessions.get_mut(key) else { return };
        let live = held.session.is_live();
        if live != held.counted {
            held.counted = live;
            if live {
                self.observer.sessions.increment(1.0);
                self.observer.sessions_opened.increment(1);
            } else {
                self.observer.sessions.decrement(1.0);
            }
        }
    }

    fn apply(&mut self, key: SessionKey, action: Action, now: Now) {
        let Some(held) = self.sessions.get_mut(key) else { return };
        match action {
            Action::Send(frame) => self.push(key, Frame::Own(frame)),
            Action::SendBatch => {
                if let Some(frame) = self.fan_outs.frame() {
                    self.push(key, Frame::Shared(frame));
                }
            }
            Action::Follow(topic) => self.follow_topic(key, &topic),
            Action::Unfollow(topic) => self.feeds.unfollow(&topic, key),
            Action::FollowsChanged(change) => {
                let user = held.session.user().clone();
                if !(change.added.is_empty() && change.removed.is_empty()) {
                    self.orders.push(Order::Reindex { user: user.clone(), change });
                }
                // The function tells other owners; this one's other sessions of the user are told here.
                for other in self.sessions.of_user(user.as_str()).to_vec() {
                    if other != key
                        && let Some(held) = self.sessions.get_mut(other)
                    {
                        held.session.handle_topics_changed();
                        self.enqueue(other, now);
                    }
                }
            }
            Action::TopicAcked => self.observer.acked.increment(1),
            Action::Close(code) => {
                held.outlet.close(code);
                self.observer.closed(Some(code));
            }
            Action::Delivered { ms, attempt } => {
                self.observer.delivered.increment(1);
                if attempt == 1 {
                    let after_ms = now.unix_ms.saturating_sub(ms);
                    self.observer.publish_to_delivery.record(after_ms as f64 / 1_000.0);
                } else {
                    self.observer.redelivered.increment(1);
                }
            }
            Action::Acknowledged { after_ms } => self.observer.delivery_to_ack.record(after_ms as f64 / 1_000.0),
            Action::Acked { count, bytes } => {
                self.observer.acked.increment(u64::from(count));
                if count > 0 {
                    self.trims.note(held.session.user(), count, bytes, now.mono_ms);
                }
            }
            Action::Expired => self.observer.expired.increment(1),
            Action::Dropped { reason, count } => self.observer.dropped(reason, count),
            Action::Refused(code) => self.observer.refused(code),
            Action::GapTold(reason) => self.observer.gap(reason),
            Action::Stale => self.observer.stale.increment(1),
            Action::SuspectEpoch => {
                warn!("a device's record is gone: data may have been lost; looking at the primary epoch");
                self.lose_link("a device's record vanished");
            }
        }
    }
}
