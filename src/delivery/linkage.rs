//! When the link is lost, and when there is one again.

use std::collections::HashSet;

use homing_protocol::name::Name;
use homing_protocol::session::Now;
use homing_protocol::topic::Topic;
use tracing::{error, info, warn};

use super::batch::Order;
use super::control::Control;
use super::link::{Link, LinkPlan, rescue};
use super::shard::{Shard, millis};
use crate::store::server::FlagsOutcome;
use crate::store::{Key, Store, StoreError};

/// Pauses between attempts to connect: doubling from the first to the last.
const CONNECT_PAUSE_MS: u64 = 100;
const CONNECT_PAUSE_MS_MAX: u64 = 2_000;

/// Tries of [`refresh`].
const REFRESH_COUNT_MAX: usize = 5;

/// Lets this thread's publishing connection find out that it is dead, if it is: else the next publish would, and be
/// answered with an unknown outcome.
async fn refresh(store: Store) {
    for _ in 0..REFRESH_COUNT_MAX {
        if store.query::<()>(&redis::cmd("PING")).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(CONNECT_PAUSE_MS)).await;
    }
}

impl Shard {
    /// Begins to make a link, after a pause that grows with the attempts.
    pub(super) fn connect(&mut self) {
        if self.io.connecting.is_some() {
            return;
        }
        let pause_ms = match self.connect_attempts {
            0 => 0,
            attempts => (CONNECT_PAUSE_MS << (attempts - 1).min(8)).min(CONNECT_PAUSE_MS_MAX),
        };
        self.connect_attempts += 1;
        let plan = LinkPlan {
            store: self.store.clone(),
            owner: self.identity.owner.clone(),
            channels: vec![self.control_channel.clone(), self.probe.channel().to_owned()],
            users: self.sessions.users().cloned().collect(),
            topics: self.feeds.topics().cloned().collect(),
            old_client: self.io.old_client.clone(),
            step_timeout: self.limits.redis_reply_timeout,
        };
        self.io.connecting = Some(Box::pin(async move {
            tokio::time::sleep(std::time::Duration::from_millis(pause_ms)).await;
            plan.establish().await
        }));
    }

    /// Gives both connections up. A pipeline in flight comes back by itself, with replies or with an error, and its
    /// connection is killed before anything is read again.
    pub(super) fn lose_link(&mut self, why: &str) {
        let Some(link) = self.io.link.take() else { return };
        self.store.piggyback().close();
        warn!(why, "connection to Redis lost; making it anew");
        self.observer.reconnects.increment(1);
        self.io.old_client = Some(link.client);
        self.io.following = None;
        self.link_lost_ms = Some(self.now().mono_ms);
        self.connect_attempts = 0;
        self.probe.reset();
        self.lose_refused(self.now());
        self.connect();
    }

    pub(super) fn handle_connected(&mut self, outcome: Result<Link, StoreError>) {
        let link = match outcome {
            Ok(link) => link,
            Err(error) => {
                self.observer.redis_error(&error);
                if self.connect_attempts == 1 {
                    error!(%error, "cannot connect to Redis; trying again");
                }
                return self.connect();
            }
        };
        let now = self.now();
        self.connect_attempts = 0;
        self.link_lost_ms = None;
        // Killed while the link was made: nothing of it is executed any more.
        if self.io.flight.as_ref().is_some_and(|flight| Some(&flight.client) == self.io.old_client.as_ref()) {
            self.abandon("its connection was given up");
        }
        self.io.old_client = None;
        let Link { primary, ref flags, ref users, ref topics, .. } = link;
        self.note_flags(flags);
        let (followed, topics) = (users.clone(), topics.clone());
        self.io.link = Some(link);
        // Of the epoch in which it was read.
        self.finish_fan_outs();
        self.feeds.lose_link(self.primary != primary);
        self.note_primary(primary, now);
        // Subscriptions died with the old link; what was not in the new one's list is subscribed to next.
        self.dropped.clear();
        let known: HashSet<&Name> = followed.iter().collect();
        self.added = self.sessions.users().filter(|user| !known.contains(user)).cloned().collect();
        self.dropped
            .extend(followed.iter().filter(|user| self.sessions.subscription(user.as_str()).is_none()).cloned());
        for user in &followed {
            self.confirm(user, now);
        }
        self.feeds.added = self.feeds.topics().filter(|topic| !topics.contains(topic)).cloned().collect();
        for topic in topics {
            if self.feeds.is_followed(&topic) {
                self.feeds.subscribed(&topic);
            } else {
                self.feeds.dropped.push(topic);
            }
        }
        self.lose_hints(now);
        self.store.piggyback().open();
        self.register_announcer();
        tokio::spawn(refresh(self.store.clone()));
        info!(sessions = self.sessions.len(), primary, "connected to Redis");
    }

    fn note_flags(&mut self, flags: &FlagsOutcome) {
        match flags {
            FlagsOutcome::AlreadySet => {}
            FlagsOutcome::Unable(reason) => warn!(reason, "the notification flags could not be checked"),
            FlagsOutcome::Set => {
                self.observer.flags_restored.increment(1);
                // A node whose probe succeeds from now on would never know that its wake-ups were lost.
                let message = serde_json::to_string(&Control::FlagsRestored).unwrap_or_default();
                for owner in (self.peers)() {
                    if owner != self.identity.owner {
                        self.orders.push(Order::Tell { owner, message: message.clone() });
                    }
                }
            }
        }
    }

    fn note_primary(&mut self, primary: u64, now: Now) {
        if self.primary == primary {
            return;
        }
        if self.primary != 0 {
            warn!(primary, "the primary epoch changed: data may have been lost; all sessions attach again");
            self.observer.epoch_changes.increment(1);
        }
        self.primary = primary;
        for key in self.sessions.keys() {
            let Some(held) = self.sessions.get_mut(key) else { continue };
            held.session.handle_epoch(primary);
            self.attend(key, now);
        }
    }

    pub(super) fn is_link_lost_long(&self, now: Now) -> bool {
        let limit_ms = millis(self.limits.redis_reply_timeout);
        self.link_lost_ms.is_some_and(|since_ms| now.mono_ms.saturating_sub(since_ms) > limit_ms)
    }

    /// Looks at what is overdue.
    pub(super) fn tick_link(&mut self, now: Now) {
        let overdue = now.mono_ms.saturating_sub(self.io.sent_ms) > millis(self.limits.redis_reply_timeout);
        if let Some(client) = self.io.flight.as_ref().map(|flight| flight.client.clone())
            && overdue
            && self.io.rescue.is_none()
        {
            self.io.sent_ms = now.mono_ms;
            let step_timeout = self.limits.redis_reply_timeout;
            self.io.rescue = Some(Box::pin(rescue(self.store.clone(), client, step_timeout)));
        }
        if self.is_link_lost_long(now) {
            for key in self.sessions.keys() {
                let Some(held) = self.sessions.get_mut(key) else { continue };
                held.session.handle_unavailable(&mut self.actions);
                self.apply_actions(key, now);
            }
        }
    }

    pub(super) fn handle_rescued(&mut self, outcome: Result<(), StoreError>) {
        match outcome {
            Ok(()) => {
                warn!("Redis did not answer in time; the connection was ended");
                self.abandon("its connection was ended");
            }
            Err(error) => {
                self.observer.redis_error(&error);
                // Redis answers, but does not let us end connections: the early sweeps find what a late read leaves.
                if matches!(error, StoreError::Unexpected(_)) {
                    self.abandon("it did not answer in time, and may not be ended");
                }
            }
        }
    }

    /// Ends the wait for a pipeline whose connection is dead at the server. If the network between is gone as well, its
    /// end never arrives here.
    fn abandon(&mut self, why: &str) {
        if self.io.flight.is_some() {
            self.complete(Err(StoreError::OutcomeUnknown(why.to_owned())));
        }
    }

    /// Subscribes to the inboxes of new users and to new topics, and drops those that nobody is here for any more; false
    /// if there is nothing to be sent.
    pub(super) fn send_follows(&mut self) -> bool {
        let nothing = [&self.added, &self.dropped].iter().all(|users| users.is_empty())
            && [&self.feeds.added, &self.feeds.dropped].iter().all(|topics| topics.is_empty());
        if self.io.following.is_some() || nothing {
            return false;
        }
        let Some(link) = &mut self.io.link else { return false };
        let mut dropped = std::mem::take(&mut self.dropped);
        dropped.retain(|user| self.sessions.subscription(user.as_str()).is_none());
        let mut added = std::mem::take(&mut self.added);
        added.retain(|user| self.sessions.subscription(user.as_str()).is_some());
        let mut topics_dropped = std::mem::take(&mut self.feeds.dropped);
        topics_dropped.retain(|topic| !self.feeds.is_followed(topic));
        let mut topics = std::mem::take(&mut self.feeds.added);
        topics.retain(|topic| self.feeds.is_followed(topic));
        if added.is_empty() && dropped.is_empty() && topics.is_empty() && topics_dropped.is_empty() {
            return false;
        }
        let keys = self.store.keys();
        let inbox = |user: &Name| keys.event_channel(Key::Inbox(user));
        let log = |topic: &Topic| keys.event_channel(Key::Log(topic));
        link.hints.follow(
            added.iter().map(inbox).chain(topics.iter().map(log)),
            dropped.iter().map(inbox).chain(topics_dropped.iter().map(log)),
        );
        self.io.following = Some((added, topics));
        true
    }

    /// All subscriptions that were on their way are confirmed.
    pub(super) fn handle_followed(&mut self) {
        let Some((users, topics)) = self.io.following.take() else { return };
        let now = self.now();
        users.iter().for_each(|user| self.confirm(user, now));
        topics.iter().for_each(|topic| self.feeds.subscribed(topic));
    }

    fn confirm(&mut self, user: &Name, now: Now) {
        if !self.sessions.confirm_subscription(user.as_str()) {
            return;
        }
        self.store.piggyback().welcome(user);
        for key in self.sessions.of_user(user.as_str()).to_vec() {
            let Some(held) = self.sessions.get_mut(key) else { continue };
            held.session.handle_subscribed();
            self.attend(key, now);
        }
    }

    pub(super) fn tick_probe(&mut self, now: Now) {
        if self.probe.is_lost(now.mono_ms) {
            self.observer.probe_failures.increment(1);
            return self.lose_link("a probe did not come back as a wake-up");
        }
        if self.io.link.is_none() {
            if self.probe.is_due(now.mono_ms) {
                self.probe.failed(now.mono_ms);
            }
        } else if self.probe.is_due(now.mono_ms) {
            self.orders.push(Order::Probe);
        }
    }
}
