//! A random play: what may happen, in any order, and what must be true all the while and in the end.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};

use super::connection::{confirmed_of, messages_of};
use super::node::Hint;
use super::pair::Pair;
use crate::id::EntryId;
use crate::simulation::fault::Fault;

const NODES: usize = 3;
const DEVICES: [&str; 2] = ["phone", "web"];
/// Small, so that a few messages fill it; different ones, so that a pending list may be larger than the window.
const WINDOWS: std::ops::Range<usize> = 1..6;
/// Within which every lost hint is made good.
const SWEPT_MS: u64 = 70_000;

const SWEPT_STEP_MS: u64 = 2_500;

/// What may happen next. Numbers of nodes and devices come first.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Publish,
    /// A pipeline leaves, is executed, or comes back.
    Send(usize),
    Execute(usize),
    Reply(usize),
    /// The three at once.
    Turn(usize),
    /// The node comes to rest.
    Rest(usize),
    /// The subscription is asked for, is confirmed, or the next hint is taken.
    Subscribe(usize),
    Subscribed(usize),
    Hear(usize),
    /// The next hint is lost without anybody noticing.
    DropHint(usize),
    /// The connection that hints come on is lost.
    LoseLink(usize),
    /// The connection of the pipeline is lost.
    BreakData(usize),
    Relink(usize),
    Receive(usize),
    /// Acknowledge the n-th unacked message, and all before it or not.
    Ack(usize, usize, bool),
    Nack(usize, usize),
    /// A device connects to a node, with a window; the old connection's node does not notice.
    Connect(usize, usize, usize),
    /// The node of a device's connection before the last n notices that it is gone.
    HangUp(usize, usize),
    Block(usize, bool),
    Pass(u64),
}

/// A play, half of them without hints that are lost unnoticed: these must come to their end without a sweep.
pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    (any::<bool>(), all_ops()).prop_map(|(lossy, mut ops)| {
        ops.retain(|op| lossy || !matches!(op, Op::DropHint(_)));
        ops
    })
}

fn all_ops() -> impl Strategy<Value = Vec<Op>> {
    let node = || 0..NODES;
    let device = || 0..DEVICES.len();
    let op = prop_oneof![
        6 => Just(Op::Publish),
        5 => node().prop_map(Op::Send),
        5 => node().prop_map(Op::Execute),
        5 => node().prop_map(Op::Reply),
        8 => node().prop_map(Op::Turn),
        4 => node().prop_map(Op::Rest),
        2 => node().prop_map(Op::Subscribe),
        3 => node().prop_map(Op::Subscribed),
        8 => node().prop_map(Op::Hear),
        1 => node().prop_map(Op::DropHint),
        2 => node().prop_map(Op::LoseLink),
        2 => node().prop_map(Op::BreakData),
        3 => node().prop_map(Op::Relink),
        9 => device().prop_map(Op::Receive),
        5 => (device(), 0..4usize, any::<bool>()).prop_map(|(device, nth, all)| Op::Ack(device, nth, all)),
        1 => (device(), 0..4usize).prop_map(|(device, nth)| Op::Nack(device, nth)),
        3 => (device(), node(), WINDOWS).prop_map(|(device, node, window)| Op::Connect(device, node, window)),
        1 => (device(), 0..3usize).prop_map(|(device, nth)| Op::HangUp(device, nth)),
        1 => (device(), any::<bool>()).prop_map(|(device, blocked)| Op::Block(device, blocked)),
        3 => prop::sample::select(vec![1, 100, 1_000, 5_000, 31_000]).prop_map(Op::Pass),
    ];
    // Many short plays: in a long one, what a bug left undone is often made good by something else.
    let ops = prop_oneof![
        3 => prop::collection::vec(op.clone(), 5..50),
        1 => prop::collection::vec(op, 50..200),
    ];
    (0..NODES, WINDOWS, ops).prop_map(|(node, window, mut ops)| {
        ops.insert(0, Op::Connect(0, node, window));
        ops
    })
}

/// One device's client over all its connections.
#[derive(Default)]
struct Client {
    connections: Vec<usize>,
    /// Whether the last connection is still thought to be open.
    open: bool,
    epoch: Option<String>,
    unacked: Vec<EntryId>,
    seen: BTreeSet<EntryId>,
    confirmed: BTreeSet<EntryId>,
    /// The last message that came with attempt 1.
    last_first: EntryId,
}

pub(super) struct Play {
    pair: Pair,
    clients: [Client; 2],
    /// Of each connection.
    windows: Vec<usize>,
    dropped_hints: bool,
    /// How many devices may be connected at once; 0: any number.
    limit: usize,
    published: usize,
}

impl Play {
    pub(super) fn new(fault: Option<Fault>) -> Self {
        let mut pair = Pair::new(NODES);
        pair.world.redis.fault = fault;
        Self { pair, clients: Default::default(), windows: Vec::new(), dropped_hints: false, limit: 0, published: 0 }
    }

    /// One in which so many devices may be connected at once. Of one that was replaced nothing is demanded.
    pub(super) fn limited(fault: Option<Fault>, limit: usize) -> Self {
        let mut play = Self::new(fault);
        play.pair.world.redis.sessions_per_user = limit as u32;
        Self { limit, ..play }
    }

    /// Plays to the end; an error names the invariant that broke.
    pub(super) fn run(mut self, ops: &[Op]) -> Result<(), TestCaseError> {
        for op in ops {
            self.step(op);
            self.check()?;
        }
        self.heal();
        self.check()?;
        if self.dropped_hints {
            for _ in 0..SWEPT_MS / SWEPT_STEP_MS {
                self.pair.pass(SWEPT_STEP_MS);
                self.settle();
                self.check()?;
            }
        }
        let is_connected = |device: &str| {
            let position = DEVICES.iter().position(|name| *name == device);
            self.limit == 0 || position.is_some_and(|position| self.clients[position].open)
        };
        for (device, owed) in self.pair.world.redis.owed.iter().filter(|(device, _)| is_connected(device)) {
            let lost: Vec<String> = owed.iter().map(EntryId::to_string).collect();
            prop_assert!(lost.is_empty(), "undelivered: {lost:?} never came to {device}");
        }
        for device in DEVICES {
            let sessions = self.pair.nodes.iter().flat_map(|node| node.sessions.iter().flatten());
            let owners = sessions.filter(|held| held.device == device && held.session.is_live()).count();
            prop_assert!(owners <= 1, "owned twice: {device} has {owners} live sessions");
        }
        self.check_limit()
    }

    /// No more sessions than are allowed, each with its device, and the last device to come is there.
    fn check_limit(&self) -> Result<(), TestCaseError> {
        if self.limit == 0 {
            return Ok(());
        }
        let mut count = 0;
        for node in &self.pair.nodes {
            for held in node.sessions.iter().flatten().filter(|held| held.session.is_live()) {
                count += 1;
                let owner = self.pair.world.redis.record(&held.device).map(|record| record.owner.as_str());
                prop_assert!(owner == Some(node.owner()), "a session of {} goes on, owned by {owner:?}", held.device);
            }
        }
        let some = self.clients.iter().any(|client| !client.connections.is_empty());
        prop_assert!(count <= self.limit, "too many sessions: {count}");
        prop_assert!(count > 0 || !some, "nobody is left");
        Ok(())
    }

    fn step(&mut self, op: &Op) {
        let pair = &mut self.pair;
        match *op {
            Op::Publish => {
                // Every other message asks for receipts.
                self.published += 1;
                let wish = [("data", "x"), ("receipt", if self.published.is_multiple_of(2) { "1" } else { "0" })];
                pair.publish_fields(&wish);
            }
            Op::Send(node) => drop(pair.send(node)),
            Op::Execute(node) => drop(pair.execute(node)),
            Op::Reply(node) => drop(pair.reply(node)),
            Op::Turn(node) => drop(pair.turn(node)),
            Op::Rest(node) => drop(pair.settle_node(node)),
            Op::Subscribe(node) => drop(pair.nodes[node].subscribe()),
            Op::Subscribed(node) => drop(pair.nodes[node].subscribed()),
            Op::Hear(node) => drop(pair.hear(node)),
            Op::DropHint(node) => {
                let hints = &mut pair.nodes[node].hints;
                if !matches!(hints.front(), None | Some(Hint::Subscribed)) {
                    hints.pop_front();
                    self.dropped_hints = true;
                }
            }
            Op::LoseLink(node) => pair.nodes[node].lose_link(),
            Op::BreakData(node) => pair.nodes[node].break_data(),
            Op::Relink(node) => drop(pair.relink(node)),
            Op::Receive(device) => drop(self.receive(device)),
            Op::Ack(device, nth, all) => self.ack(device, nth, all),
            Op::Nack(device, nth) => {
                let client = &self.clients[device];
                if let (true, Some(connection), Some(id)) =
                    (client.open, client.connections.last(), client.unacked.get(nth))
                {
                    pair.nack(*connection, *id, 1_000);
                }
            }
            Op::Connect(device, node, window) => self.connect(device, node, window),
            Op::HangUp(device, nth) => {
                let client = &mut self.clients[device];
                if let Some(connection) = client.connections.iter().rev().nth(nth) {
                    pair.hang_up(*connection);
                    client.open &= nth > 0;
                }
            }
            Op::Block(device, blocked) => {
                if let Some(connection) = self.clients[device].connections.last() {
                    pair.block(*connection, blocked);
                }
            }
            Op::Pass(ms) => pair.pass(ms),
        }
    }

    fn connect(&mut self, device: usize, node: usize, window: usize) {
        let client = &mut self.clients[device];
        let seq = client.connections.len();
        let mut members = json!({"confirm": true, "instance": "tab", "seq": seq, "window": window});
        if let Some(epoch) = &client.epoch {
            members["epoch"] = json!(epoch);
        }
        client.connections.push(self.pair.connect_as(node, DEVICES[device], members));
        client.open = true;
        self.windows.push(window);
    }

    fn ack(&mut self, device: usize, nth: usize, all: bool) {
        let client = &mut self.clients[device];
        let Some(connection) = client.connections.last().filter(|_| client.open) else { return };
        let first = if all { 0 } else { nth };
        let end = (nth + 1).min(client.unacked.len());
        if first >= end {
            return;
        }
        let ids: Vec<EntryId> = client.unacked.drain(first..end).collect();
        self.pair.ack(*connection, &ids);
    }

    /// The client takes one thing off the wire of its last connection; what is on older ones is lost.
    fn receive(&mut self, device: usize) -> bool {
        let client = &mut self.clients[device];
        let Some(connection) = client.connections.last().filter(|_| client.open) else { return false };
        if self.pair.client(*connection).wire.is_empty() {
            return false;
        }
        match self.pair.receive(*connection) {
            Some(frame) => self.pair.world.wrongs.extend(client.take(&frame)),
            None => {
                client.open = false;
                match self.pair.client(*connection).closed {
                    // Silence for 50 s: a play may do that.
                    Some(4108) => {}
                    Some(4010) if self.limit > 0 => {}
                    code => self.pair.world.wrongs.push(format!("the newest connection was closed with {code:?}")),
                }
            }
        }
        true
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let Pair { world, nodes, .. } = &self.pair;
        if let Some((device, id)) = world.redis.robbed.first() {
            return Err(TestCaseError::fail(format!("trimmed: {id} was not acked by {device}")));
        }
        if let Some((device, id)) = world.redis.untold.first() {
            return Err(TestCaseError::fail(format!("untold: {id} was acked for {device} without a receipt")));
        }
        if let Some(wrong) = world.wrongs.first() {
            return Err(TestCaseError::fail(wrong.clone()));
        }
        for held in nodes.iter().flat_map(|node| node.sessions.iter().flatten()) {
            prop_assert!(held.session.in_flight() <= self.windows[held.connection], "the window is exceeded");
        }
        Ok(())
    }

    /// Everything works again, every device that ever connected is connected, and clients ack all. No time passes.
    fn heal(&mut self) {
        for connection in 0..self.pair.world.connections.len() {
            self.pair.block(connection, false);
        }
        // What is on the wire may be a close.
        self.settle();
        for device in 0..DEVICES.len() {
            let client = &self.clients[device];
            // An open connection stays: a new one would read everything again, whatever the old one missed.
            if !client.open && !client.connections.is_empty() {
                self.connect(device, device, WINDOWS.end);
            }
        }
        self.settle();
        if self.pair.world.redis.fault == Some(Fault::OldConnectionLives) {
            // The worst moment for a read that was left behind: just after something was appended.
            self.pair.publish("x");
            for node in &mut self.pair.nodes {
                node.execute_orphans(&mut self.pair.world);
            }
            self.settle();
        }
    }

    fn settle(&mut self) {
        loop {
            let mut progress = false;
            for node in 0..NODES {
                progress |= self.pair.settle_node(node);
            }
            for device in 0..DEVICES.len() {
                while self.receive(device) {
                    progress = true;
                }
                let unacked = self.clients[device].unacked.len();
                if unacked > 0 && self.clients[device].open {
                    self.ack(device, unacked - 1, true);
                    progress = true;
                }
            }
            if !progress {
                return;
            }
        }
    }
}

impl Client {
    /// Takes a frame; what is wrong with it.
    fn take(&mut self, frame: &Value) -> Vec<String> {
        let mut wrongs = Vec::new();
        for (id, attempt) in messages_of(frame) {
            if self.confirmed.contains(&id) {
                wrongs.push(format!("redelivered: {id} had been confirmed"));
            }
            if attempt == 1 && id <= self.last_first {
                wrongs.push(format!("disordered: {id} came with attempt 1 after {}", self.last_first));
            }
            if attempt == 1 {
                self.last_first = self.last_first.max(id);
            }
            self.seen.insert(id);
            if !self.unacked.contains(&id) {
                self.unacked.push(id);
            }
        }
        self.confirmed.extend(confirmed_of(frame));
        if let Some(id) = self.confirmed.iter().find(|id| !self.seen.contains(id)) {
            wrongs.push(format!("confirmed: {id} was never seen"));
        }
        match frame["type"].as_str() {
            Some("ready") => self.epoch = frame["epoch"].as_str().map(str::to_owned),
            Some("gap") => wrongs.push(format!("a gap although nothing was lost: {frame}")),
            _ => {}
        }
        wrongs
    }
}
