//! A state of the model: clients, nodes and Redis, what may still go wrong, and what one step makes of it.

mod heal;
mod topics;

use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use homing_protocol::id::EntryId;
use homing_protocol::session::FollowChange;
use homing_protocol::simulation::node::{Hint, Node};
use homing_protocol::simulation::pair::Pair;
use homing_protocol::simulation::redis::Redis;
use homing_protocol::topic::{Topic, TopicPatterns};
use serde_json::json;

use crate::client::Client;
use crate::scenario::{Left, Scenario, Sight};
pub(crate) use topics::Way;

const DEVICES: [&str; 2] = ["phone", "web"];
/// Longer than the ack time-out.
pub(crate) const LONG_MS: u64 = 31_000;

/// One thing that happens. Numbers of nodes and devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Publish,
    /// A producer leaves a message at a node that reads the inbox.
    PublishAlong(usize),
    /// Redis refuses such an append, after so many others.
    Refuse(u8),
    /// The device's client connects to a node; the old connection's node does not notice.
    Connect {
        device: usize,
        node: usize,
    },
    /// The node of the device's last connection notices that it is gone.
    HangUp(usize),
    /// The client acknowledges everything that it has received.
    Ack(usize),
    Forget(usize),
    /// A pipeline is sent, executed, or comes back (or the news that it is lost).
    Send(usize),
    Execute(usize),
    Reply(usize),
    /// One follower is given what its topic brought.
    FanOut(usize),
    Subscribed(usize),
    Hear(usize),
    /// The next hint is lost without anybody noticing, or comes twice.
    DropHint(usize),
    RepeatHint(usize),
    /// The connection of hints, or of data, is lost; a new link is made.
    LoseLink(usize),
    BreakData(usize),
    Relink(usize),
    /// The node dies and starts again under the same id.
    Crash(usize),
    /// Redis executes what a dead node had sent.
    ExecuteDead,
    /// The ack time-out passes.
    Pass,
    DeleteGroup(usize),
    DeleteInbox,
    DeleteRecords,
    /// A copy of Redis's data is kept, and Redis starts again with it.
    Save,
    Rewind,
    /// Somebody switches keyspace events off.
    FlagsOff,
    /// The janitor takes the device's owner for dead, which lives.
    Strike(usize),
    PublishToTopic,
    /// The client acknowledges only what it has received last of the topic.
    AckNewest(usize),
    Follow(Way),
    Unfollow(Way),
    /// A call's second write.
    Reindex,
    /// The janitor visits the topic.
    Retain,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) pair: Pair,
    pub(crate) clients: [Client; 2],
    saved: Option<Box<Redis>>,
    left: Left,
    window: usize,
    topic: Option<Topic>,
    /// Whether clients ask for confirmed acks.
    confirm: bool,
    /// With older data, the topic's log is missing.
    loses_log: bool,
    /// Entries that retention leaves in the topic.
    kept: usize,
    /// What calls have not written yet.
    reindexes: Vec<FollowChange>,
    eager: bool,
    follows: bool,
    thorough: bool,
    sights: &'static [Sight],
    /// The user followed the topic no more at some time.
    left_topic: bool,
    /// Something happened that only a sweep finds.
    silent: bool,
    /// Something happened that a gap tells.
    gaps_expected: bool,
    /// What is wrong once everything works again: computed when it is asked for.
    verdict: OnceLock<Vec<String>>,
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.pair == other.pair
            && self.clients == other.clients
            && self.saved == other.saved
            && self.reindexes == other.reindexes
            && self.left == other.left
            && (self.left_topic, self.silent, self.gaps_expected)
                == (other.left_topic, other.silent, other.gaps_expected)
    }
}

impl Eq for World {}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.pair.hash(hasher);
        self.clients.hash(hasher);
        self.saved.hash(hasher);
        self.reindexes.hash(hasher);
        self.left.hash(hasher);
        (self.left_topic, self.silent, self.gaps_expected).hash(hasher);
    }
}

impl World {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let mut pair = Pair::new(scenario.nodes);
        pair.world.redis.fault = scenario.fault;
        pair.world.torn = scenario.torn;
        Arc::make_mut(&mut pair.config).topics = scenario.topic.is_some();
        pair.topics = TopicPatterns::parse(&["*"]).expect("a pattern");
        let mut world = Self {
            pair,
            clients: Default::default(),
            saved: None,
            left: Left::default(),
            window: scenario.window,
            topic: scenario.topic.map(|name| Topic::parse(name).expect("a topic's name")),
            confirm: scenario.confirm,
            kept: scenario.kept,
            loses_log: scenario.loses_log,
            reindexes: Vec::new(),
            eager: scenario.eager,
            follows: scenario.follows,
            thorough: scenario.thorough,
            sights: scenario.sights,
            left_topic: false,
            silent: false,
            gaps_expected: false,
            verdict: OnceLock::new(),
        };
        if let Some(topic) = world.topic.as_ref().filter(|_| scenario.came_before > 0) {
            // Follows take a millisecond each.
            let ms = world.pair.world.redis.unix_ms + 1;
            world.pair.world.redis.topics.continue_after(topic, EntryId { ms, seq: scenario.came_before - 1 });
        }
        for step in scenario.begin {
            world.step(*step);
            world.settle(false);
        }
        world.left = scenario.left.clone();
        world
    }

    /// What is wrong already.
    pub(crate) fn wrongs(&self) -> Vec<String> {
        let redis = &self.pair.world.redis;
        let robbed = redis.robbed.iter().map(|(device, id)| format!("trimmed: {id} was not acked by {device}"));
        let skipped =
            redis.topics.skipped.iter().map(|(device, id)| format!("skipped: {id} was not acked by {device}"));
        robbed.chain(skipped).chain(self.pair.world.wrongs.iter().cloned()).collect()
    }

    /// What is wrong when everything works again.
    pub(crate) fn verdict(&self) -> &[String] {
        self.verdict.get_or_init(|| if self.thorough || self.rests() { self.clone().heal() } else { self.wrongs() })
    }

    /// Whether nothing is under way. Every other state leads to such ones by steps that need no mishap.
    fn rests(&self) -> bool {
        let rests = |node: &Node| {
            node.linked && node.flight() == (false, false) && node.hints.is_empty() && !node.is_fanning_out()
        };
        self.pair.nodes.iter().all(rests)
    }

    /// What may happen next.
    pub(crate) fn steps(&self, steps: &mut Vec<Step>) {
        if !self.wrongs().is_empty() {
            return;
        }
        let mut may = |step: Step| {
            if self.left.allows(step) && self.is_possible(step) {
                steps.push(step);
            }
        };
        for node in 0..self.pair.nodes.len() {
            for step in [Step::Send(node), Step::Execute(node), Step::Reply(node), Step::FanOut(node)] {
                may(step);
            }
            may(Step::Subscribed(node));
            may(Step::PublishAlong(node));
            for step in [Step::Hear(node), Step::DropHint(node), Step::RepeatHint(node), Step::Relink(node)] {
                may(step);
            }
            for step in [Step::LoseLink(node), Step::BreakData(node), Step::Crash(node)] {
                may(step);
            }
            for device in 0..DEVICES.len() {
                may(Step::Connect { device, node });
            }
        }
        for device in 0..DEVICES.len() {
            for step in [Step::Ack(device), Step::HangUp(device), Step::Forget(device), Step::DeleteGroup(device)] {
                may(step);
            }
            may(Step::Strike(device));
            may(Step::AckNewest(device));
        }
        let rest = [Step::Publish, Step::Pass, Step::ExecuteDead, Step::DeleteInbox, Step::DeleteRecords];
        for step in rest.into_iter().chain([Step::Save, Step::Rewind, Step::FlagsOff, Step::Refuse(0), Step::Refuse(1)])
        {
            may(step);
        }
        for way in [Way::Frame, Way::Call] {
            for step in [Step::Follow(way), Step::Unfollow(way)] {
                may(step);
            }
        }
        for step in [Step::PublishToTopic, Step::Reindex, Step::Retain] {
            may(step);
        }
    }

    fn is_possible(&self, step: Step) -> bool {
        let nodes = &self.pair.nodes;
        let known = |device: usize| self.pair.world.redis.record(DEVICES[device]).is_some();
        match step {
            Step::Send(_) => !self.eager,
            Step::PublishAlong(node) => nodes[node].takes_appends(),
            Step::Refuse(_) => self.pair.world.redis.appends_until_refused.is_none(),
            Step::Execute(node) => nodes[node].flight().0,
            Step::Reply(node) => nodes[node].flight().1,
            Step::FanOut(node) => nodes[node].is_fanning_out(),
            Step::Subscribed(node) => nodes[node].is_subscribing(),
            Step::Hear(node) => !nodes[node].hints.is_empty(),
            Step::DropHint(node) | Step::RepeatHint(node) => {
                !matches!(nodes[node].hints.front(), None | Some(Hint::Subscribed))
            }
            Step::LoseLink(node) => nodes[node].linked,
            Step::BreakData(node) => nodes[node].linked && nodes[node].flight() != (false, false),
            Step::Relink(node) => !nodes[node].linked,
            Step::ExecuteDead => self.pair.dead.iter().any(|node| node.flight().0),
            Step::Ack(device) => self.clients[device].owes_acks(),
            // Of one message, it is the same as acknowledging all.
            Step::AckNewest(device) => self.clients[device].open && self.clients[device].follower.unacked.len() > 1,
            Step::Follow(way) | Step::Unfollow(way) => self.may_follow(way),
            Step::Reindex => !self.reindexes.is_empty(),
            Step::HangUp(device) => self.clients[device].open,
            Step::Forget(device) => self.clients[device].open && !self.clients[device].forgetting,
            Step::DeleteGroup(device) => known(device),
            Step::Save => self.saved.is_none(),
            Step::Rewind => self.saved.is_some(),
            Step::FlagsOff => self.pair.world.redis.flags,
            Step::Strike(device) => {
                self.pair.world.redis.record(DEVICES[device]).is_some_and(|record| !record.owner.is_empty())
            }
            _ => true,
        }
    }

    /// Makes one step; false if it changed nothing.
    pub(crate) fn step(&mut self, step: Step) {
        self.verdict = OnceLock::new();
        self.left.take(step);
        let pair = &mut self.pair;
        match step {
            Step::Publish => drop(pair.publish("x")),
            Step::PublishAlong(node) => pair.nodes[node].leave_append(),
            Step::Refuse(others) => pair.world.redis.appends_until_refused = Some(others),
            Step::Connect { device, node } => self.connect(device, node),
            Step::HangUp(device) => {
                let client = &mut self.clients[device];
                client.open = false;
                if let Some(connection) = client.connections.last() {
                    pair.hang_up(*connection);
                }
            }
            Step::Ack(device) => self.ack(device, false),
            Step::AckNewest(device) => self.ack(device, true),
            Step::Forget(device) => {
                self.clients[device].forgetting = true;
                self.clients[device].forgot = true;
                self.gaps_expected = true;
                if let Some(connection) = self.clients[device].connections.last() {
                    pair.say(*connection, json!({"type": "forget"}));
                }
            }
            Step::Send(node) => drop(pair.send(node)),
            Step::Execute(node) => drop(pair.execute(node)),
            Step::Reply(node) => drop(pair.reply(node)),
            Step::FanOut(node) => drop(pair.fan_out(node)),
            Step::Subscribed(node) => drop(pair.nodes[node].subscribed()),
            Step::Hear(node) => drop(pair.hear(node)),
            Step::DropHint(node) => {
                pair.nodes[node].hints.pop_front();
                self.silent = true;
            }
            Step::RepeatHint(node) => {
                let hint = pair.nodes[node].hints.front().cloned();
                pair.nodes[node].hints.extend(hint);
            }
            Step::LoseLink(node) => pair.nodes[node].lose_link(),
            Step::BreakData(node) => pair.nodes[node].break_data(),
            Step::Relink(node) => drop(pair.relink(node)),
            Step::Crash(node) => {
                pair.crash(node);
                self.silent = true;
                for client in &mut self.clients {
                    let last = client.connections.last();
                    client.open &= last.is_some_and(|last| pair.world.connections[*last].node != node);
                }
            }
            Step::ExecuteDead => drop(pair.execute_dead()),
            Step::Pass => pair.pass(LONG_MS),
            Step::DeleteGroup(device) => {
                pair.world.redis.delete_group(DEVICES[device]);
                self.lose(|number| number == device);
            }
            Step::DeleteInbox => {
                pair.world.redis.delete_inbox();
                self.lose(|_| true);
            }
            Step::DeleteRecords => {
                pair.world.redis.delete_records();
                pair.pass(1_000);
                self.lose(|_| true);
            }
            Step::Save => self.saved = Some(Box::new(pair.world.redis.clone())),
            Step::Rewind => {
                if let Some(older) = self.saved.take() {
                    pair.world.redis.rewind(&older);
                }
                if let Some(topic) = self.topic.as_ref().filter(|_| self.loses_log) {
                    pair.world.redis.topics.lose_log(topic);
                }
                // By a slower clock, so that ids of the topic run backwards and none comes twice.
                pair.world.redis.unix_ms -= u64::from(self.topic.is_some());
                pair.nodes.iter_mut().for_each(Node::break_data);
                pair.dead.clear();
                self.lose(|_| true);
            }
            Step::FlagsOff => pair.world.redis.flags = false,
            Step::Strike(device) => {
                pair.world.redis.strike_owner(DEVICES[device]);
                self.silent = true;
            }
            Step::PublishToTopic => self.publish_to_topic(),
            Step::Follow(way) => self.follow(way, true),
            Step::Unfollow(way) => self.follow(way, false),
            Step::Reindex => drop(self.reindex()),
            Step::Retain => self.retain(),
        }
        self.follow_up();
    }

    /// Data was lost: who had been told of the epoch must be told of another.
    fn lose(&mut self, concerns: impl Fn(usize) -> bool) {
        self.silent = true;
        self.gaps_expected = true;
        for (number, client) in self.clients.iter_mut().enumerate() {
            if concerns(number) && client.epoch.is_some() {
                client.untold = client.epoch.clone();
            }
        }
    }

    /// What happens at once: subscriptions and pipelines leave, clients receive.
    fn follow_up(&mut self) {
        self.pair.route();
        for node in 0..self.pair.nodes.len() {
            self.pair.nodes[node].subscribe();
            if self.follows {
                self.pair.nodes[node].subscribed_at_once(&mut self.pair.world);
            }
            if self.eager {
                self.pair.send(node);
            }
        }
        self.receive();
        self.forget_what_is_over();
    }

    /// Makes states equal from which the same follows.
    fn forget_what_is_over(&mut self) {
        self.pair.forget_what_is_over();
        for client in &mut self.clients {
            client.saw_stale &= self.sights.contains(&Sight::StaleEntries);
            client.saw_redelivery &= self.sights.contains(&Sight::Redelivery);
            client.follower.saw_again &= self.sights.contains(&Sight::TopicAgain);
            client.told_of_retention &= self.sights.contains(&Sight::RetentionTold);
        }
        self.pair.world.redis.topics.wrote_late &= self.sights.contains(&Sight::LateCursor);
        self.pair.world.redis.trimmed_for_two &= self.sights.contains(&Sight::TrimForTwo);
    }

    fn receive(&mut self) -> bool {
        let mut progress = false;
        for device in 0..DEVICES.len() {
            for connection in self.clients[device].connections.clone() {
                while !self.pair.world.connections[connection].wire.is_empty() {
                    progress = true;
                    self.receive_from(device, connection);
                }
            }
        }
        progress
    }

    fn receive_from(&mut self, device: usize, connection: usize) {
        let frame = self.pair.receive(connection);
        let end = &mut self.pair.world.connections[connection];
        (end.frames, end.sizes) = (Vec::new(), Vec::new());
        let closed = end.closed;
        let client = &mut self.clients[device];
        let current = client.open && client.connections.last() == Some(&connection);
        match frame {
            Some(frame) if current => {
                let retention = frame["type"] == "gap" && frame["reason"] == "retention";
                let told = retention && self.pair.world.redis.topics.has_trimmed;
                if told {
                    self.pair.world.redis.topics.note_told(DEVICES[device]);
                }
                client.told_of_retention |= told;
                let since_ms = self.pair.world.redis.topics.left_at_ms;
                let topic = self.topic.as_ref().map(|topic| (topic, since_ms));
                let wrongs = client.take(&frame, self.gaps_expected || told, topic);
                self.pair.world.wrongs.extend(wrongs);
            }
            Some(frame) => client.take_older(connection, &frame, self.topic.as_ref()),
            None if current => {
                client.open = false;
                match closed {
                    Some(1000) if client.forgetting => client.forget(),
                    Some(4011) if self.gaps_expected && client.untold.is_some() => client.forget(),
                    code => self.pair.world.wrongs.push(format!("closed: the newest connection, with {code:?}")),
                }
            }
            None => {}
        }
    }

    fn connect(&mut self, device: usize, node: usize) {
        let client = &mut self.clients[device];
        let mut members =
            json!({"confirm": self.confirm, "instance": "tab", "seq": client.connections.len(), "window": self.window});
        if let Some(epoch) = &client.epoch {
            members["epoch"] = json!(epoch);
        }
        client.begin(self.pair.connect_as(node, DEVICES[device], members));
    }
}
