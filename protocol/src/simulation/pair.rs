//! Clients and nodes around one Redis, in virtual time: what a test scripts.

use std::sync::Arc;

use serde_json::{Value, json};

use super::connection::Connection;
use super::fault::Fault;
use super::node::{Hint, Node, World};
use super::redis::{Fields, Redis};
use crate::code::ErrorCode;
use crate::frame::{ClientFrame, Incoming};
use crate::id::EntryId;
use crate::name::Name;
use crate::session::{Now, Open, Session, SessionConfig, Terms};
use crate::topic::{Topic, TopicPatterns};

/// Unix time at which every test begins.
pub const BEGIN_UNIX_MS: u64 = 1_700_000_000_000;
/// The first primary epoch.
pub const PRIMARY: u64 = 1_600_000_000;
/// Rounds after which something goes in a circle.
const ROUNDS_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    pub world: World,
    pub nodes: Vec<Node>,
    /// Nodes that died with a pipeline that Redis may still execute.
    pub dead: Vec<Node>,
    starts: usize,
    pub config: Arc<SessionConfig>,
    /// When tokens expire, Unix ms.
    pub expires_at_ms: u64,
    /// When tokens were issued, Unix seconds.
    pub issued_at_s: Option<u64>,
    /// Topics that tokens let clients follow and leave.
    pub topics: TopicPatterns,
}

/// DESIGN.md's defaults.
fn defaults() -> SessionConfig {
    SessionConfig {
        window: 64,
        in_flight_bytes_max: 1024 * 1024,
        ack_timeout_ms: 30_000,
        ack_timeout_max_ms: 300_000,
        heartbeat_ms: 25_000,
        sweep_ms: 60_000,
        touch_ms: 24 * 60 * 60 * 1_000,
        payload_bytes_max: 64 * 1024,
        frame_bytes_max: 256 * 1024,
        frames_per_second: 200,
        frames_burst: 1_000,
        topics: false,
        cursor_flush_ms: 1_000,
    }
}

impl Pair {
    pub fn new(nodes: usize) -> Self {
        let redis = Redis::new(BEGIN_UNIX_MS, PRIMARY);
        let now = Now { mono_ms: 1_000, unix_ms: BEGIN_UNIX_MS };
        Self {
            world: World { now, redis, connections: Vec::new(), torn: false, wrongs: Vec::new() },
            nodes: (0..nodes).map(|number| Node::new(format!("node-{number}"), PRIMARY)).collect(),
            dead: Vec::new(),
            starts: 0,
            config: Arc::new(defaults()),
            expires_at_ms: BEGIN_UNIX_MS + 365 * 24 * 60 * 60 * 1_000,
            issued_at_s: None,
            topics: TopicPatterns::default(),
        }
    }

    /// Appends a text message.
    pub fn publish(&mut self, text: &str) -> EntryId {
        self.publish_fields(&[("data", text)])
    }

    pub fn publish_fields(&mut self, fields: &[(&str, &str)]) -> EntryId {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let fields: Fields = fields.iter().map(|(field, value)| (bytes(field), bytes(value))).collect();
        let id = self.world.redis.append(fields);
        let flags = self.world.redis.flags;
        for node in self.nodes.iter_mut().filter(|node| flags && node.is_subscribed()) {
            node.hints.push_back(Hint::Wake);
        }
        id
    }

    /// Appends a text message to a topic's log.
    pub fn publish_to(&mut self, topic: &Topic, text: &str) -> EntryId {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let id = self.world.redis.append_to(topic, vec![(bytes("data"), bytes(text))]);
        let flags = self.world.redis.flags;
        for node in self.nodes.iter_mut().filter(|node| flags && node.is_following(topic)) {
            node.hints.push_back(Hint::TopicWake(topic.clone()));
        }
        id
    }

    pub fn publish_many(&mut self, count: usize) -> Vec<EntryId> {
        (0..count).map(|number| self.publish(&format!("message {number}"))).collect()
    }

    /// A client of a device connects; its `connect` frame has these members beside its type.
    pub fn connect_as(&mut self, node: usize, device: &str, members: Value) -> usize {
        let mut frame = members;
        frame["type"] = json!("connect");
        frame["device"] = json!(device);
        let incoming = Incoming::parse(&frame.to_string()).expect("a valid frame");
        let ClientFrame::Connect(connect) = incoming.frame else { panic!("no connect frame") };
        let user = Name::parse("alice").expect("a valid name");
        let device_name = Name::parse(device).expect("a valid name");
        let primary = self.nodes[node].primary();
        let terms = Terms { issued_at_s: self.issued_at_s, ..Terms::until(self.expires_at_ms) };
        let open = Open { user, device: device_name, connect: *connect, terms, primary, topics: self.topics.clone() };
        let session = Session::new(self.world.now, self.config.clone(), open);
        let connection = self.world.connections.len();
        self.world.connections.push(Connection::new(node, 0));
        let key = self.nodes[node].insert(&mut self.world, session, connection);
        self.world.connections[connection].key = key;
        connection
    }

    /// A client of the device `web` connects and everything comes to rest.
    pub fn connect(&mut self, node: usize, members: Value) -> usize {
        let connection = self.connect_as(node, "web", members);
        self.settle();
        connection
    }

    /// The client sends a text.
    pub fn say_text(&mut self, connection: usize, text: &str) {
        let Connection { node, key, .. } = self.world.connections[connection];
        let incoming = Incoming::parse(text);
        self.nodes[node].with(&mut self.world, key, |session, now, actions| {
            session.handle_frame(now, incoming, actions);
        });
    }

    pub fn say(&mut self, connection: usize, frame: Value) {
        self.say_text(connection, &frame.to_string());
    }

    pub fn ack(&mut self, connection: usize, ids: &[EntryId]) {
        let ids: Vec<String> = ids.iter().map(EntryId::to_string).collect();
        self.say(connection, json!({"type": "ack", "ids": ids}));
    }

    pub fn nack(&mut self, connection: usize, id: EntryId, delay_ms: u64) {
        self.say(connection, json!({"type": "nack", "ids": [id.to_string()], "delay_ms": delay_ms}));
    }

    /// The client's connection is gone, and its node notices.
    pub fn hang_up(&mut self, connection: usize) {
        let Connection { node, key, .. } = self.world.connections[connection];
        self.nodes[node].with(&mut self.world, key, |session, _, _| session.handle_disconnected());
    }

    /// The client sent a token, and the driver has checked it.
    pub fn renew(&mut self, connection: usize, outcome: Result<u64, &str>) {
        let terms = outcome.map(Terms::until);
        self.renew_with(connection, terms);
    }

    /// The same with all that the token says.
    pub fn renew_with(&mut self, connection: usize, outcome: Result<Terms, &str>) {
        let Connection { node, key, .. } = self.world.connections[connection];
        let outcome = outcome.map_err(|message| (ErrorCode::Unauthorized, message.to_owned()));
        self.nodes[node].with(&mut self.world, key, |session, now, actions| {
            session.handle_renewal(now, outcome, None, actions);
        });
    }

    /// The node drains this session.
    pub fn drain(&mut self, connection: usize, retry_after_ms: u64) {
        let Connection { node, key, .. } = self.world.connections[connection];
        self.nodes[node].with(&mut self.world, key, |session, _, actions| {
            session.handle_drain(retry_after_ms, actions);
        });
    }

    /// The node hears that a session with this generation took over.
    pub fn supersede(&mut self, connection: usize, generation: u64) {
        let Connection { node, key, .. } = self.world.connections[connection];
        self.nodes[node].with(&mut self.world, key, |session, _, actions| {
            session.handle_superseded(generation, actions);
        });
    }

    /// The node of this session learns of another primary epoch.
    pub fn change_epoch(&mut self, connection: usize, primary: u64) {
        let Connection { node, key, .. } = self.world.connections[connection];
        self.nodes[node].with(&mut self.world, key, |session, _, _| session.handle_epoch(primary));
    }

    pub fn client(&self, connection: usize) -> &Connection {
        &self.world.connections[connection]
    }

    /// The session at the other end; `None` once it is over.
    pub fn session(&self, connection: usize) -> Option<&Session> {
        let Connection { node, key, .. } = self.world.connections[connection];
        self.nodes[node].sessions[key].as_ref().map(|held| &held.session)
    }

    pub fn block(&mut self, connection: usize, blocked: bool) {
        let Connection { node, key, .. } = self.world.connections[connection];
        if let Some(held) = self.nodes[node].sessions[key].as_mut() {
            held.blocked = blocked;
        }
    }

    /// The client takes one thing off the wire, and answers a ping.
    pub fn receive(&mut self, connection: usize) -> Option<Value> {
        let client = &mut self.world.connections[connection];
        let frame = client.receive()?;
        if frame["type"] == "ping" && client.answers {
            self.say(connection, json!({"type": "pong"}));
        }
        Some(frame)
    }

    /// What functions have published reaches the owners that listen, and events of appends those who read the inbox.
    pub fn route(&mut self) {
        let appended = std::mem::take(&mut self.world.redis.appended);
        for node in self.nodes.iter_mut().filter(|node| node.is_subscribed()) {
            node.hints.extend(std::iter::repeat_n(Hint::Wake, appended));
        }
        for (owner, control) in std::mem::take(&mut self.world.redis.said) {
            if let Some(node) = self.nodes.iter_mut().find(|node| node.owner() == owner && node.linked) {
                node.hints.push_back(Hint::Control(control));
            }
        }
    }

    pub fn send(&mut self, node: usize) -> bool {
        self.nodes[node].send(&mut self.world)
    }

    pub fn execute(&mut self, node: usize) -> bool {
        let executed = self.nodes[node].execute(&mut self.world);
        self.route();
        executed
    }

    pub fn reply(&mut self, node: usize) -> bool {
        self.nodes[node].reply(&mut self.world)
    }

    /// The next follower is given what its topic brought.
    pub fn fan_out(&mut self, node: usize) -> bool {
        self.nodes[node].fan_out(&mut self.world)
    }

    pub fn hear(&mut self, node: usize) -> bool {
        self.nodes[node].hear(&mut self.world)
    }

    pub fn relink(&mut self, node: usize) -> bool {
        let linked = self.nodes[node].relink(&mut self.world);
        if linked && !std::mem::replace(&mut self.world.redis.flags, true) && !self.has(Fault::FlagsSilently) {
            for (number, other) in self.nodes.iter_mut().enumerate() {
                if number != node && other.linked {
                    other.hints.push_back(Hint::FlagsRestored);
                }
            }
        }
        linked
    }

    fn has(&self, fault: Fault) -> bool {
        self.world.redis.fault == Some(fault)
    }

    /// A node dies and is started again under the same id. What it had sent may still be executed.
    pub fn crash(&mut self, node: usize) {
        self.starts += 1;
        let starts = self.starts;
        let primary = self.world.redis.recover();
        let fresh = Node::new(format!("node-{node}.{starts}"), primary);
        self.dead.push(std::mem::replace(&mut self.nodes[node], fresh));
    }

    /// Redis executes what dead nodes had sent.
    pub fn execute_dead(&mut self) -> bool {
        let mut executed = false;
        for node in &mut self.dead {
            executed |= node.execute(&mut self.world);
        }
        self.route();
        executed
    }

    /// Makes pairs equal that will behave alike.
    pub fn forget_what_is_over(&mut self) {
        self.world.redis.forget_what_is_over();
        for node in &mut self.nodes {
            node.forget_what_is_over(&self.world);
        }
        self.dead.retain(|node| node.flight().0);
    }

    /// One pipeline there and back.
    pub fn turn(&mut self, node: usize) -> bool {
        self.send(node) | self.execute(node) | self.reply(node)
    }

    /// Links, subscriptions, hints and pipelines of one node go on until nothing is left to do. No time passes.
    pub fn settle_node(&mut self, node: usize) -> bool {
        let mut progress = false;
        for _ in 0..ROUNDS_MAX {
            let moved = self.relink(node)
                | self.nodes[node].subscribe()
                | self.nodes[node].subscribed()
                | self.hear(node)
                | self.turn(node)
                | self.fan_out(node);
            if !moved {
                return progress;
            }
            progress = true;
        }
        panic!("node {node} does not come to rest");
    }

    /// Everything goes on until nothing is left to do, and clients have received all. No time passes.
    pub fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut progress = false;
            for node in 0..self.nodes.len() {
                progress |= self.settle_node(node);
            }
            for connection in 0..self.world.connections.len() {
                while !self.world.connections[connection].wire.is_empty() {
                    progress = true;
                    self.receive(connection);
                }
            }
            if !progress {
                return;
            }
        }
        panic!("the pair does not come to rest");
    }

    /// Time passes, without anything being settled.
    pub fn pass(&mut self, ms: u64) {
        self.world.now.mono_ms += ms;
        self.world.now.unix_ms += ms;
        self.world.redis.unix_ms += ms;
        for node in &mut self.nodes {
            node.tick(&mut self.world);
        }
    }

    /// Time passes from timer to timer; everything comes to rest at each.
    pub fn advance(&mut self, ms: u64) {
        let end_ms = self.world.now.mono_ms + ms;
        self.settle();
        while self.world.now.mono_ms < end_ms {
            let now_ms = self.world.now.mono_ms;
            let sessions = self.nodes.iter().flat_map(|node| node.sessions.iter().flatten());
            let next_ms = sessions.map(|held| held.session.poll_timeout()).min().unwrap_or(u64::MAX);
            let expiry_ms = match self.expires_at_ms.saturating_sub(self.world.now.unix_ms) {
                0 => u64::MAX,
                left_ms => now_ms + left_ms,
            };
            self.pass(next_ms.min(expiry_ms).clamp(now_ms + 1, end_ms) - now_ms);
            self.settle();
        }
    }
}
