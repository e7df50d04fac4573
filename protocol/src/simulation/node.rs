//! A node (one shard of it): one pipeline in flight, hints on one ordered connection, sessions, and no decisions.

mod appends;
mod feeds;
mod flight;
mod hints;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::connection::{Connection, Out, messages_of};
use super::fault::Fault;
use super::redis::{Answer, Caller, Control, Redis};
use crate::close::CloseCode;
use crate::id::EntryId;
use crate::session::{Action, Command, Failure, Now, Reply, Session, Urgency};
use crate::topic::Topic;
use feeds::{FanOut, Feed};
use flight::{Flight, Item, confirm_early};

/// What all nodes share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub now: Now,
    pub redis: Redis,
    pub connections: Vec<Connection>,
    /// What others do may come between what sessions want in a pipeline and the rest of it.
    pub torn: bool,
    /// Broken invariants.
    pub wrongs: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Hint {
    Wake,
    /// The inbox is subscribed to.
    Subscribed,
    /// A topic's log has something new.
    TopicWake(Topic),
    /// A topic's log is subscribed to.
    TopicSubscribed(Topic),
    Control(Control),
    /// Another node had to switch keyspace events on again.
    FlagsRestored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Follow {
    No,
    Sent,
    Confirmed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    pub session: Session,
    pub connection: usize,
    pub device: String,
    nonce: u64,
    /// The socket does not take what was sent before.
    pub blocked: bool,
    /// Pending when it attached: all of it must be handed out before a new entry is read.
    pending_first: Vec<EntryId>,
    handed: BTreeSet<EntryId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    owner: String,
    primary: u64,
    pub linked: bool,
    follow: Follow,
    pub hints: VecDeque<Hint>,
    pub sessions: Vec<Option<Held>>,
    flight: Option<Flight>,
    /// Pipelines of dead connections that may still be executed (only by a planted bug).
    orphans: Vec<Flight>,
    orders: Vec<Item>,
    /// Appends that producers have left, for the next pipeline.
    appends: usize,
    /// Events of appends that were sent, and that have not been heard.
    own_events: usize,
    nonce: u64,
    feeds: BTreeMap<Topic, Feed>,
    feeds_sweep_at_ms: u64,
    fan_outs: VecDeque<FanOut>,
    /// The frame of the batch that is being handed to sessions.
    shared_frame: Option<String>,
}

impl Node {
    pub fn new(owner: String, primary: u64) -> Self {
        Self {
            owner,
            primary,
            linked: true,
            follow: Follow::No,
            hints: VecDeque::new(),
            sessions: Vec::new(),
            flight: None,
            orphans: Vec::new(),
            orders: Vec::new(),
            appends: 0,
            own_events: 0,
            nonce: 0,
            feeds: BTreeMap::new(),
            feeds_sweep_at_ms: feeds::SWEEP_MS,
            fan_outs: VecDeque::new(),
            shared_frame: None,
        }
    }

    pub fn owner(&self) -> &str {
        &self.owner
    }

    pub fn primary(&self) -> u64 {
        self.primary
    }

    /// Whether the pipeline in flight holds such a command of a session.
    fn flies(&self, key: usize, is_such: impl Fn(&Item) -> bool) -> bool {
        let items = self.flight.iter().flat_map(|flight| &flight.items);
        items.into_iter().any(|item| matches!(item, Item::Session { key: of, .. } if *of == key) && is_such(item))
    }

    /// Whether a pipeline waits to be executed, and whether one waits to come back.
    pub fn flight(&self) -> (bool, bool) {
        let flight = self.flight.as_ref();
        let ends = flight.is_some_and(|flight| flight.killed || flight.is_executed());
        (flight.is_some() && !ends, ends)
    }

    /// Whether the subscription waits for its confirmation.
    pub fn is_subscribing(&self) -> bool {
        self.linked && (self.follow == Follow::Sent || self.is_subscribing_to_topics())
    }

    /// Whether an event of the inbox reaches this node.
    pub fn is_subscribed(&self) -> bool {
        self.linked && self.follow == Follow::Confirmed
    }

    pub fn insert(&mut self, world: &mut World, session: Session, connection: usize) -> usize {
        let device = session.device().as_str().to_owned();
        let (pending_first, handed) = (Vec::new(), BTreeSet::new());
        let held = Held { session, connection, device, nonce: 0, blocked: false, pending_first, handed };
        let key = self.sessions.len();
        self.sessions.push(Some(held));
        self.register_topics(world, key);
        let confirmed =
            self.follow == Follow::Confirmed && !self.hints.iter().any(|hint| matches!(hint, Hint::Subscribed));
        if confirmed || world.redis.fault == Some(Fault::ReadBeforeSubscribe) {
            self.with(world, key, |session, _, _| session.handle_subscribed());
        }
        key
    }

    /// Does something with a session, then looks after it.
    pub fn with(&mut self, world: &mut World, key: usize, work: impl FnOnce(&mut Session, Now, &mut Vec<Action>)) {
        let Some(held) = self.sessions[key].as_mut() else { return };
        let mut actions = Vec::new();
        work(&mut held.session, world.now, &mut actions);
        for action in actions {
            self.apply(world, key, action);
        }
        if self.sessions[key].as_ref().is_some_and(|held| held.session.is_done()) {
            self.sessions[key] = None;
            self.unregister_topics(key);
            if self.sessions.iter().all(Option::is_none) {
                self.follow = Follow::No;
                self.own_events = 0;
                self.hints.retain(|hint| !matches!(hint, Hint::Subscribed));
            }
        }
    }

    fn apply(&mut self, world: &mut World, key: usize, action: Action) {
        let Some(held) = self.sessions[key].as_mut() else { return };
        match action {
            Action::Send(text) => {
                if text.starts_with(r#"{"type":"messages""#) {
                    let frame = serde_json::from_str(&text).expect("the server sends JSON");
                    held.handed.extend(messages_of(&frame).into_iter().map(|(id, _)| id));
                }
                world.connections[held.connection].wire.push_back(Out::Frame(text));
            }
            Action::Close(code) => {
                let record = world.redis.record(&held.device);
                let nonce = Caller { owner: &self.owner, device: &held.device, nonce: held.nonce }.nonce();
                let owns = record.is_some_and(|record| record.owner == self.owner && record.nonce == nonce);
                if code == CloseCode::Superseded && owns {
                    world.wrongs.push(format!("{} closed its session by its own generation", self.owner));
                }
                world.connections[held.connection].wire.push_back(Out::Close(code));
            }
            Action::Acked { count, .. } if count > 0 => self.orders.push(Item::Trim),
            Action::SuspectEpoch => self.lose_link(),
            Action::SendBatch => {
                let text = self.shared_frame.clone().expect("a batch is being handed out");
                world.connections[held.connection].wire.push_back(Out::Frame(text));
            }
            Action::Follow(topic) => self.follow_topic(world, key, &topic),
            Action::Unfollow(topic) => self.unfollow_topic(key, &topic),
            Action::FollowsChanged(change) => self.note_follows(world, key, *change),
            _ => {}
        }
    }

    fn each(&mut self, world: &mut World, mut work: impl FnMut(&mut Session, Now, &mut Vec<Action>)) {
        for key in 0..self.sessions.len() {
            self.with(world, key, &mut work);
        }
    }

    /// Makes nodes equal that will behave alike.
    pub fn forget_what_is_over(&mut self, world: &World) {
        let mut hints = VecDeque::new();
        for hint in std::mem::take(&mut self.hints) {
            // A second wake-up says nothing that the first one does not, unless that is taken for the node's own.
            let repeats = matches!(hint, Hint::Wake | Hint::TopicWake(_)) && hints.back() == Some(&hint);
            if !repeats || self.own_events > 0 {
                hints.push_back(hint);
            }
        }
        self.hints = hints;
        let mut trims = 0;
        self.orders.retain(|order| *order != Item::Trim || std::mem::replace(&mut trims, 1) == 0);
        for held in self.sessions.iter_mut().flatten() {
            held.session.forget_what_is_over(world.now);
            let pending = world.redis.pending(&held.device);
            held.handed.retain(|id| pending.contains(id));
            held.pending_first.retain(|id| pending.contains(id) && !held.handed.contains(id));
            if held.session.is_ended() {
                (held.handed, held.pending_first) = (BTreeSet::new(), Vec::new());
            }
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, world: &mut World) {
        self.tick_feeds(world);
        for key in 0..self.sessions.len() {
            let Some(held) = &self.sessions[key] else { continue };
            let expired = held.session.expires_at_ms() <= world.now.unix_ms;
            if held.session.poll_timeout() <= world.now.mono_ms || expired {
                self.with(world, key, Session::handle_timeout);
            }
        }
    }

    /// Sends the next pipeline, if none is in flight and there is something to send.
    pub fn send(&mut self, world: &mut World) -> bool {
        if self.flight.is_some() || !self.linked {
            return false;
        }
        let (mut items, mut early) = (self.take_appends(world), Vec::new());
        for (key, held) in self.sessions.iter_mut().enumerate() {
            let Some(held) = held else { continue };
            if held.session.urgency(world.now, held.blocked) == Urgency::None {
                continue;
            }
            let mut commands = Vec::new();
            held.session.poll_commands(world.now, held.blocked, &mut commands);
            if commands.iter().any(|command| matches!(command, Command::Attach(_))) && held.nonce == 0 {
                self.nonce += 1;
                held.nonce = self.nonce;
            }
            if world.redis.fault == Some(Fault::ConfirmBeforeXack) {
                early.extend(commands.iter_mut().filter_map(|command| Some((key, confirm_early(command)?))));
            }
            items.extend(commands.into_iter().map(|command| Item::Session { key, command }));
        }
        // Gathered over all sessions, cursors end what sessions want.
        let late_append = world.redis.fault == Some(Fault::AppendBehindRead);
        items.sort_by_key(|item| (late_append && *item == Item::Append, item.is_cursor()));
        items.append(&mut self.orders);
        items.extend(self.take_wishes(world));
        if items.is_empty() {
            return false;
        }
        let mut early_cursors = Vec::new();
        if world.redis.fault == Some(Fault::ConfirmBeforeCursor) {
            early_cursors.extend(items.iter().filter_map(Item::cursor));
        }
        self.flight = Some(Flight { items, answers: Vec::new(), killed: false });
        for (key, command) in early_cursors {
            let generation = self.sessions[key].as_ref().map(|held| held.session.generation());
            self.complete(world, key, command, Reply::CursorWritten { generation });
        }
        for (key, batch) in early {
            let generation = self.sessions[key].as_ref().map(|held| held.session.generation());
            let removed = vec![true; batch.foreign.len()];
            let answer = Reply::Acked { own: 0, removed, withheld: Vec::new(), generation };
            self.complete(world, key, Command::Ack(Box::new(batch)), answer);
        }
        true
    }

    /// Redis executes the pipeline in flight, or the next part of it.
    pub fn execute(&mut self, world: &mut World) -> bool {
        let Some(mut flight) = self.flight.take() else { return false };
        let executes = !flight.is_executed() && !flight.killed;
        if executes {
            let part = flight.answers.len()..flight.next_end(world.torn);
            let answers = self.execute_items(world, &flight.items[part]);
            flight.answers.extend(answers);
        }
        self.flight = Some(flight);
        executes
    }

    fn execute_items(&mut self, world: &mut World, items: &[Item]) -> Vec<Answer> {
        items.iter().map(|item| self.execute_item(world, item)).collect()
    }

    fn execute_item(&mut self, world: &mut World, item: &Item) -> Answer {
        let owner = &self.owner;
        match item {
            Item::Trim => {
                world.redis.trim();
                Reply::Done
            }
            Item::Release { device } => {
                let caller = Caller { owner, device, nonce: 0 };
                world.redis.execute(caller, &Command::Release { generation: 0, ended: false })
            }
            Item::Append => Self::execute_append(world),
            Item::Feed(wish) => Self::execute_wish(world, wish),
            Item::Reindex(change) => {
                world.redis.reindex(change);
                Reply::Done
            }
            Item::Session { key, command } => {
                let Some(held) = self.sessions[*key].as_mut() else { return Reply::Done };
                if let Command::ReadNew { count } = command {
                    let pending = world.redis.pending(&held.device);
                    let left = held.pending_first.iter().find(|id| pending.contains(id) && !held.handed.contains(id));
                    if let Some(id) = left {
                        world.wrongs.push(format!("{owner} reads new entries before pending {id} was handed out"));
                    }
                    assert!(*count > 0, "COUNT 0 is unlimited");
                }
                let caller = Caller { owner, device: &held.device, nonce: held.nonce };
                let mut answer = world.redis.execute(caller, command);
                let (recorded, unseen) = match &mut answer {
                    Reply::Acked { generation, .. } => (generation.as_mut(), Fault::ConfirmForAnyGeneration),
                    Reply::CursorWritten { generation } => (generation.as_mut(), Fault::ConfirmCursorForAnyGeneration),
                    _ => (None, Fault::ConfirmForAnyGeneration),
                };
                if let Some(generation) = recorded.filter(|_| world.redis.fault == Some(unseen)) {
                    *generation = held.session.generation();
                }
                if let Reply::Attached(_) = &answer {
                    held.pending_first = world.redis.pending(&held.device);
                }
                answer
            }
        }
    }

    /// Redis executes what was left behind on dead connections.
    pub fn execute_orphans(&mut self, world: &mut World) {
        for orphan in std::mem::take(&mut self.orphans) {
            self.execute_items(world, &orphan.items);
        }
    }

    /// The replies arrive, or the news that there will be none.
    pub fn reply(&mut self, world: &mut World) -> bool {
        let Some(flight) = self.flight.take_if(|flight| flight.killed || flight.is_executed()) else {
            return false;
        };
        let executed = flight.is_executed();
        let Flight { items, answers, killed } = flight;
        if killed {
            self.lose_link();
            if !executed && world.redis.fault == Some(Fault::OldConnectionLives) {
                let items = items.iter().filter_map(Item::new_read).collect();
                self.orphans.push(Flight { items, answers: Vec::new(), killed: false });
            }
        }
        let mut answers = if killed { Vec::new() } else { answers }.into_iter();
        let mut pairs: Vec<_> = items.into_iter().map(|item| (item, answers.next())).collect();
        if world.redis.fault == Some(Fault::ReadPassesWhatCameBack) {
            // Only then does it matter: as if feeds were read on another connection.
            pairs.sort_by_key(|(item, _)| !matches!(item, Item::Feed(_)));
        }
        for pair in pairs {
            match pair {
                (Item::Append, answer) => self.complete_append(world, answer),
                (Item::Feed(wish), answer) => self.complete_wish(world, &wish, answer),
                (Item::Session { key, mut command }, answer) => {
                    let mut answer = answer.unwrap_or(Reply::Failed(Failure::Disconnected));
                    if world.redis.fault == Some(Fault::ReadPassesWhatCameBack) {
                        self.pass_all_seen(&mut command, &mut answer);
                    }
                    if !command.awaits_success() && !matches!(answer, Reply::Failed(_)) {
                        continue;
                    }
                    self.complete(world, key, command, answer);
                }
                (order, None | Some(Reply::Failed(_))) => self.orders.push(order),
                _ => {}
            }
        }
        true
    }

    fn complete(&mut self, world: &mut World, key: usize, command: Command, answer: Answer) {
        if let Reply::Attached(outcome) = &answer
            && let Ok(attachment) = outcome.as_ref()
        {
            // A function does not publish to the owner that calls it.
            let generation = attachment.generation;
            let device = self.sessions[key].as_ref().map(|held| held.device.clone()).unwrap_or_default();
            for other in (0..self.sessions.len()).filter(|other| *other != key) {
                self.with_device(world, other, &device, |session, _, actions| {
                    session.handle_superseded(generation, actions);
                });
            }
        }
        self.with(world, key, |session, now, actions| session.handle_reply(now, command, answer, actions));
    }

    /// False if that session is of another device, or has ended.
    fn with_device(
        &mut self,
        world: &mut World,
        key: usize,
        device: &str,
        work: impl FnOnce(&mut Session, Now, &mut Vec<Action>),
    ) -> bool {
        let held = self.sessions[key].as_ref();
        let found = held.is_some_and(|held| held.device == device && !held.session.is_ended());
        if found {
            self.with(world, key, work);
        }
        found
    }
}
