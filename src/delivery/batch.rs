//! The pipeline: what goes into the next one, and what becomes of its replies.

use bytes::BytesMut;
use homing_protocol::name::Name;
use homing_protocol::session::{Attachment, Command, Failure, FollowChange, Now, Reply, Urgency};
use homing_protocol::topic::Topic;
use tokio::time::Instant as TokioInstant;
use tracing::{debug, warn};

use super::cursors::{CursorGroup, CursorMove};
use super::feeds::Wish;
use super::link::ClientId;
use super::pipeline::{self, Target};
use super::presence::Step;
use super::reads::ReadGroup;
use super::sessions::SessionKey;
use super::shard::Shard;
use crate::store::functions::LIBRARY;
use crate::store::replies::{self, Value};
use crate::store::resp::{Commands, Replies};
use crate::store::{Function, Key, KeySpace, Rider, StoreError, Wire, topics};

/// Bytes that the reads of one pipeline may return, as far as can be foreseen.
const READ_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Commands of sessions in one pipeline, about: Redis takes some milliseconds for them. A thousand users who log in at
/// once, with a hundred topics each, have two hundred times as many as sessions, and nobody else should wait for all.
const COMMANDS_MAX: usize = 4_096;
/// Redis's commands for one load of a cursor.
const LOAD_COMMANDS: usize = 2;
/// Trims in one pipeline at most: each costs Redis some microseconds in one go.
const TRIMS_MAX: usize = 64;

/// Time between two tries of what Redis refused.
const DEFERRED_PAUSE_MS: u64 = 500;
/// Orders that wait for another try; what is beyond is left to the sweeps of whom it concerns.
const DEFERRED_MAX: usize = 4_096;

/// What the shard itself wants in a pipeline.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// Trim an inbox.
    Trim(Name),
    /// An entry in the shard's probe stream.
    Probe,
    /// Load the functions, which are gone.
    LoadFunctions,
    /// Release a device that no session here holds.
    Release { user: Name, device: Name },
    /// Publish a control message to an owner.
    Tell { owner: String, message: String },
    /// Ask for what a topic's log holds.
    Feed(Wish),
    /// Bring lists of followers up to date.
    Reindex { user: Name, change: Box<FollowChange> },
    /// Forget where a device stood that is gone, but no cursor beyond that time, Unix ms: a new device of its name may
    /// have come that far.
    DropCursors { user: Name, device: Name, topics: Vec<(Topic, u64)> },
    /// Announce who is online.
    Presence(Box<Step>),
}

enum Item {
    Session { key: SessionKey, command: Command, replies: usize },
    Order(Order, usize),
    Cursors(CursorGroup),
    Reads(ReadGroup),
    Rider(Rider),
}

/// The connection, ready for the next pipeline, and what came on it.
pub(super) type Answer = (Box<Wire>, Replies<BytesMut>);

/// The pipeline in flight.
pub(super) struct Flight {
    items: Vec<Item>,
    reads: usize,
    /// The connection that it was sent on, which may have been given up since.
    pub(super) client: ClientId,
    pub(super) sent: TokioInstant,
}

impl Flight {
    pub(super) fn riders(&mut self) -> impl Iterator<Item = &mut Rider> {
        self.items.iter_mut().filter_map(|item| match item {
            Item::Rider(rider) => Some(rider),
            _ => None,
        })
    }
}

impl Shard {
    /// Puts a session where its urgency belongs.
    pub(super) fn enqueue(&mut self, key: SessionKey, now: Now) {
        let Some(held) = self.sessions.get_mut(key) else { return };
        if held.queued {
            return;
        }
        match held.session.urgency(now, held.outlet.is_blocked()) {
            Urgency::None => {}
            Urgency::Now => {
                held.queued = true;
                self.queue.push(key, held.session.changes_owner());
            }
            Urgency::Coalesce if held.coalescing => {}
            Urgency::Coalesce => {
                held.coalescing = true;
                self.coalescing.push(key);
                if self.flush_at.is_none() {
                    self.flush_at = Some(TokioInstant::now() + self.limits.ack_flush);
                }
            }
        }
    }

    /// The acks have gathered long enough.
    pub(super) fn flush_acks(&mut self) {
        self.flush_at = None;
        for key in self.coalescing.drain(..) {
            let Some(held) = self.sessions.get_mut(key) else { continue };
            held.coalescing = false;
            if !held.queued {
                held.queued = true;
                self.queue.push(key, held.session.changes_owner());
            }
        }
    }

    /// Sends the next pipeline if none is in flight and there is something to send.
    pub(super) fn send_pipeline(&mut self) {
        if self.io.flight.is_some() || self.io.link.is_none() {
            return;
        }
        let feeds = self.feeds.has_wishes() && !self.fan_outs.is_full();
        let nothing = self.queue.is_empty() && self.orders.is_empty() && !self.reads.has_refused() && !feeds;
        if nothing && !self.riders_wait && !self.trims_due {
            return;
        }
        let now = self.now();
        let Some(mut data) = self.io.link.as_mut().and_then(|link| link.data.take()) else { return };
        self.flush_acks();
        if feeds {
            self.orders.extend(self.feeds.take_wishes().into_iter().map(Order::Feed));
        }
        let mut items = Vec::new();
        let riders = self.take_riders(now, data.commands());
        items.extend(riders.into_iter().map(Item::Rider));
        let reads = self.fill(now, data.commands(), &mut items);
        self.fill_orders(now, data.commands(), &mut items);
        let Some(link) = &mut self.io.link else { return };
        if items.is_empty() {
            link.data = Some(data);
            return;
        }
        self.io.sent_ms = now.mono_ms;
        self.io.flights += 1;
        self.io.flight = Some(Flight { items, reads, client: link.client.clone(), sent: TokioInstant::now() });
        self.io.answer = Some(Box::pin(async move {
            let count = data.commands().len();
            let replies = data.exchange(count).await;
            let replies = replies.map_err(|error| StoreError::OutcomeUnknown(error.to_string()))?;
            Ok((data, replies))
        }));
    }

    /// Adds what sessions want; answers how many reads are among it.
    fn fill(&mut self, now: Now, pipeline: &mut Commands, items: &mut Vec<Item>) -> usize {
        let (mut reads, mut read_bytes) = (0, 0);
        self.gather_refused();
        items.reserve(self.queue.begin());
        while read_bytes <= READ_BYTES_MAX {
            let count = pipeline.len() + self.reads.inboxes() + LOAD_COMMANDS * self.cursor_loads.len();
            let Some(key) = self.queue.next(count >= COMMANDS_MAX) else { break };
            let Some(held) = self.sessions.get_mut(key) else { continue };
            held.queued = false;
            held.session.poll_commands(now, held.outlet.is_blocked(), &mut self.commands);
            for command in self.commands.drain(..) {
                if let Command::ReadNew { count } | Command::ReadPending { count, .. } = &command {
                    reads += 1;
                    read_bytes += usize::from(*count) * held.session.entry_bytes();
                }
                if matches!(command, Command::Attach(_)) {
                    self.nonce += u64::from(held.nonce == 0);
                    held.nonce = if held.nonce == 0 { self.nonce } else { held.nonce };
                }
                let target = Target { user: held.session.user(), device: held.session.device() };
                if let Command::WriteCursor { topic, id, rewind, confirm } = command {
                    let write = CursorMove { topic, id, rewind, confirm };
                    self.cursor_writes.add(self.store.keys(), key, target, write);
                    continue;
                }
                if matches!(command, Command::LoadCursor { .. }) {
                    self.cursor_loads.push((key, command));
                    continue;
                }
                if let Command::ReadNew { count } = command {
                    self.reads.add(self.store.keys(), key, target, count);
                    continue;
                }
                let replies =
                    pipeline::encode(pipeline, self.store.keys(), &self.identity, target, held.nonce, &command);
                items.push(Item::Session { key, command, replies });
            }
            // Not everything that was due has a reply, which would do it.
            self.schedule(key, now);
        }
        let groups = self.cursor_writes.encode(self.store.keys(), pipeline, self.probe.is_failing());
        items.extend(groups.into_iter().map(Item::Cursors));
        // After them: a session may begin where the one before it at this shard left off.
        for (key, command) in self.cursor_loads.drain(..) {
            let Some(held) = self.sessions.get_mut(key) else { continue };
            let target = Target { user: held.session.user(), device: held.session.device() };
            let replies = pipeline::encode(pipeline, self.store.keys(), &self.identity, target, held.nonce, &command);
            items.push(Item::Session { key, command, replies });
        }
        items.extend(self.reads.encode(pipeline).into_iter().map(Item::Reads));
        self.queue.end();
        reads
    }

    fn fill_orders(&mut self, now: Now, pipeline: &mut Commands, items: &mut Vec<Item>) {
        self.trims_due = false;
        let trims = if self.is_ending() { self.trims.take_all() } else { self.trims.take(now.mono_ms, TRIMS_MAX) };
        self.orders.extend(trims.into_iter().map(Order::Trim));
        let keys = self.store.keys();
        for order in self.orders.drain(..) {
            let before = pipeline.len();
            match &order {
                Order::Trim(user) => pipeline::encode_trim(pipeline, keys, user),
                Order::Probe => self.probe.encode(pipeline),
                Order::LoadFunctions => {
                    pipeline.command(3).arg("FUNCTION").arg("LOAD").arg(LIBRARY);
                }
                Order::Release { user, device } => {
                    let target = Target { user, device };
                    pipeline::encode_release(pipeline, keys, &self.identity, target, 0, 0, false);
                }
                Order::Feed(wish) => Self::encode_wish(keys, pipeline, wish),
                Order::Reindex { user, change } => topics::reindex(pipeline, keys, user, change),
                Order::DropCursors { user, device, topics } => {
                    let member = KeySpace::cursor_member(user, device);
                    for (topic, up_to_ms) in topics {
                        let mut forget = Function::ForgetCursors.call(&[&keys.name(Key::Cursors(topic))]);
                        pipeline.add(forget.arg(up_to_ms.saturating_add(1)).arg(&member));
                    }
                }
                Order::Presence(step) => step.encode(pipeline, keys, &self.identity, &self.limits),
                Order::Tell { owner, message } => {
                    pipeline.command(3).arg("PUBLISH").arg(keys.control_channel(owner)).arg(message);
                }
            }
            items.push(Item::Order(order, pipeline.len() - before));
        }
    }

    /// Hands each reply to whom it belongs.
    pub(super) fn complete(&mut self, outcome: Result<Answer, StoreError>) {
        self.io.answer = None;
        let Some(Flight { items, reads, client, sent }) = self.io.flight.take() else { return };
        self.io.rescue = None;
        let now = self.now();
        match outcome {
            Ok((data, replies)) => {
                if let Some(link) = self.io.link.as_mut().filter(|link| link.client == client) {
                    link.data = Some(data);
                    self.store.piggyback().open();
                }
                self.observer.round_trip.record(sent.elapsed().as_secs_f64());
                if reads > 0 {
                    self.observer.read_inboxes.record(reads as f64);
                }
                let mut values = replies.reader();
                for item in items {
                    match item {
                        Item::Session { key, command, replies } => {
                            let mut own = values.by_ref().take(replies);
                            self.complete_command(key, command, own.by_ref(), now);
                            // After an error, the rest of a command's replies say nothing more.
                            own.for_each(drop);
                        }
                        Item::Cursors(group) => {
                            let mut own = values.by_ref().take(group.replies());
                            self.complete_cursors(group, &mut own, now);
                            own.for_each(drop);
                        }
                        Item::Reads(group) => self.complete_reads(&group, &mut values, now),
                        Item::Rider(mut rider) => self.complete_rider(&mut rider, &mut values, now),
                        Item::Order(order, replies) => {
                            let mut own = values.by_ref().take(replies);
                            self.complete_order(order, &mut own, now);
                            own.for_each(drop);
                        }
                    }
                }
                // Given up before the replies came, or because of one of them.
                if self.io.link.as_ref().is_none_or(|link| link.client != client) {
                    self.lose_refused(now);
                }
            }
            Err(error) => {
                self.observer.redis_error(&error);
                if self.io.link.as_ref().is_some_and(|link| link.client == client) {
                    self.lose_link(&error.to_string());
                }
                for item in items {
                    match item {
                        Item::Session { key, command, .. } => {
                            self.reply(key, command, Reply::Failed(Failure::Disconnected), now);
                        }
                        Item::Cursors(group) => self.lose_cursors(group, now),
                        Item::Reads(group) => self.fail_reads(&group, Failure::Disconnected, now),
                        Item::Rider(mut rider) => rider.lose(&error.to_string()),
                        Item::Order(order, _) => self.restore(order, now),
                    }
                }
            }
        }
    }

    fn complete_command<'a>(
        &mut self,
        key: SessionKey,
        command: Command,
        values: impl Iterator<Item = Value<'a>>,
        now: Now,
    ) {
        let mut values = values.peekable();
        if matches!(command, Command::Touch { .. }) && values.peek() == Some(&Value::Int(pipeline::TOUCH_CAME_BACK)) {
            self.note_return(key);
        }
        match pipeline::decode(&self.identity.owner, &command, values) {
            Ok(reply) => {
                if let Reply::Attached(outcome) = &reply
                    && let Ok(attachment) = outcome.as_ref()
                {
                    self.take_over(key, attachment, now);
                    self.note_arrival(key, attachment);
                }
                self.reply(key, command, reply, now);
            }
            Err(error) => {
                self.note_error(&error);
                self.reply(key, command, Reply::Failed(pipeline::failure(&error)), now);
            }
        }
    }

    pub(super) fn reply(&mut self, key: SessionKey, command: Command, reply: Reply<&[u8]>, now: Now) {
        let Some(held) = self.sessions.get_mut(key) else { return };
        held.session.handle_reply(now, command, reply, &mut self.actions);
        self.attend(key, now);
    }

    /// A session has attached: an older one of the same device at this shard is told here, since a function does not
    /// publish to the owner that calls it.
    fn take_over(&mut self, key: SessionKey, attachment: &Attachment, now: Now) {
        let generation = attachment.generation;
        if attachment.took_over {
            self.observer.takeovers.increment(1);
        }
        let Some(held) = self.sessions.get_mut(key) else { return };
        let (user, device) = (held.session.user().clone(), held.session.device().clone());
        if attachment.length > self.limits.inbox_length_max {
            // The janitor's pass comes by anyway if its queue is full.
            let _ = self.overfull.try_send(user.clone());
        }
        for other in self.sessions.of_user(user.as_str()).to_vec() {
            if other == key {
                continue;
            }
            let Some(held) = self.sessions.get_mut(other) else { continue };
            if *held.session.device() == device && !held.session.is_ended() {
                held.session.handle_superseded(generation, &mut self.actions);
                self.attend(other, now);
            }
        }
    }

    fn complete_order<'a>(&mut self, order: Order, values: &mut impl Iterator<Item = Value<'a>>, now: Now) {
        let order = match order {
            Order::Feed(wish) => return self.complete_wish(wish, values, now),
            order => order,
        };
        let value = match replies::check(pipeline::next(values)) {
            Ok(value) => value,
            Err(error) => {
                if let Order::Presence(step) = order {
                    self.note_error(&error);
                    self.put_off(*step, now);
                } else if matches!(&order, Order::LoadFunctions) {
                    // Another node was faster.
                    debug!(%error, "functions were not loaded");
                } else {
                    self.note_error(&error);
                    if matches!(error, StoreError::Unavailable(_) | StoreError::FunctionMissing) {
                        self.restore(order, now);
                    }
                }
                return;
            }
        };
        match order {
            Order::Trim(_) => {
                self.observer.trims.increment(1);
                if let Value::Int(count) = value {
                    self.observer.trimmed.increment(count.max(0) as u64);
                }
            }
            Order::Probe => self.probe.sent(now.mono_ms),
            Order::Presence(step) => self.complete_step(*step, value, now),
            Order::LoadFunctions
            | Order::Release { .. }
            | Order::Tell { .. }
            | Order::Reindex { .. }
            | Order::DropCursors { .. } => {}
            // Handled above.
            Order::Feed(_) => {}
        }
    }

    /// Takes an order back that was not executed, for later: Redis may refuse for long.
    fn restore(&mut self, order: Order, now: Now) {
        match order {
            // At the end there is no later; the janitor of another node finds the inbox.
            Order::Trim(_) if self.is_ending() => {}
            // With what comes meanwhile.
            Order::Trim(user) => self.trims.note(&user, 1, 0, now.mono_ms),
            Order::Probe => self.probe.failed(now.mono_ms),
            // A new link looks after the functions itself.
            Order::LoadFunctions => {}
            Order::Feed(Wish::Head(topic) | Wish::Read { topic, .. }) => {
                self.feeds.answered(&topic, None, false);
            }
            Order::Presence(step) => self.put_off(*step, now),
            Order::Release { .. } | Order::Tell { .. } | Order::Reindex { .. } | Order::DropCursors { .. } => {
                if self.deferred.len() < DEFERRED_MAX {
                    self.deferred.push(order);
                }
            }
        }
    }

    /// Tries again what Redis did not do.
    pub(super) fn tick_deferred(&mut self, now: Now) {
        if now.mono_ms >= self.deferred_until_ms {
            self.deferred_until_ms = now.mono_ms + DEFERRED_PAUSE_MS;
            self.orders.append(&mut self.deferred);
        }
    }

    pub(super) fn note_error(&mut self, error: &StoreError) {
        self.observer.redis_error(error);
        match error {
            StoreError::FunctionMissing => {
                if !self.orders.iter().any(|order| matches!(order, Order::LoadFunctions)) {
                    self.orders.push(Order::LoadFunctions);
                }
            }
            // A primary that became a replica: whom to talk to must be found out anew.
            StoreError::Unavailable(text) if text.starts_with("READONLY") => self.lose_link(text),
            StoreError::NoGroup => debug!("a group is missing"),
            error => warn!(%error, "Redis refused a command"),
        }
    }
}
