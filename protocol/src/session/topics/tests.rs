//! A device and its topics over connections, nodes and pipelines that come, go and get lost, in any order.

mod claims;
mod follows;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;

use crate::frame::{ClientFrame, Connect, GapReason, Incoming};
use crate::id::EntryId;
use crate::message::Entry;
use crate::name::Name;
use crate::session::{
    Action, Attachment, Begin, Command, Failure, FollowChange, Follows, Now, Open, Reply, Session, SessionConfig,
    Terms, TopicBatch,
};
use crate::topic::{Topic, TopicPatterns};

const NODES: usize = 2;
const BEGIN_MS: u64 = 1_700_000_000_000;
/// Of a user's first device.
const BEGIN: Begin = Begin { from_ms: 0, first_seen_ms: BEGIN_MS };

#[derive(Clone, Debug)]
enum Op {
    /// To the followed topic, or to everybody.
    Publish(bool),
    /// A node hears of it and reads the log.
    Feed(usize),
    /// A pipeline leaves and is executed, or is not; its replies arrive, or get lost.
    Send,
    Execute,
    Reply,
    Lose,
    Turn,
    /// The client acknowledges its n-th unacked message.
    Ack(usize),
    /// A new connection, to a node, with a window; the old one is released or vanishes with its node.
    Connect(usize, u16, bool),
    Pass(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => any::<bool>().prop_map(Op::Publish),
        5 => (0..NODES).prop_map(Op::Feed),
        3 => Just(Op::Send),
        3 => Just(Op::Execute),
        3 => Just(Op::Reply),
        1 => Just(Op::Lose),
        6 => Just(Op::Turn),
        6 => (0..4usize).prop_map(Op::Ack),
        2 => (0..NODES, 1..5u16, any::<bool>()).prop_map(|(node, window, dies)| Op::Connect(node, window, dies)),
        2 => prop::sample::select(vec![1, 1_000, 31_000]).prop_map(Op::Pass),
    ];
    prop::collection::vec(op, 5..120)
}

type Answer = Reply<Vec<u8>>;
type Log = BTreeMap<EntryId, ()>;

/// The session of the newest connection, its pipeline, and its client.
struct Connection {
    session: Session,
    node: usize,
    window: usize,
    flight: VecDeque<(Command, Option<Answer>)>,
    executed: bool,
    unacked: Vec<String>,
    last_first: BTreeMap<String, EntryId>,
}

struct World {
    now: Now,
    logs: BTreeMap<Topic, Log>,
    last: EntryId,
    cursors: BTreeMap<Topic, EntryId>,
    /// Recorded by the last attach.
    generation: u64,
    heads: Vec<BTreeMap<Topic, EntryId>>,
    connection: Option<Connection>,
    seen: BTreeSet<String>,
    acked: BTreeSet<String>,
    confirmed: BTreeSet<String>,
    /// Whether the client wants its acks confirmed.
    confirms: bool,
    /// A planted bug: a cursor goes to the newest ack, whatever lies before it.
    skips: bool,
}

fn topics() -> [Topic; 2] {
    [Topic::Broadcast, Topic::parse("news").expect("a name")]
}

fn config() -> Arc<SessionConfig> {
    Arc::new(SessionConfig {
        window: 4,
        in_flight_bytes_max: 1 << 20,
        ack_timeout_ms: 30_000,
        ack_timeout_max_ms: 60_000,
        heartbeat_ms: 300_000,
        sweep_ms: 60_000,
        touch_ms: u64::MAX / 4,
        payload_bytes_max: 1 << 16,
        frame_bytes_max: 1 << 16,
        frames_per_second: 1_000_000,
        frames_burst: 1_000_000,
        topics: true,
        cursor_flush_ms: 1_000,
    })
}

fn entry(id: EntryId) -> Entry<Vec<u8>> {
    Entry { id, fields: vec![(b"data".to_vec(), b"1".to_vec())] }
}

impl World {
    fn new(skips: bool) -> Self {
        Self {
            now: Now { mono_ms: 1_000, unix_ms: BEGIN_MS },
            logs: topics().into_iter().map(|topic| (topic, Log::new())).collect(),
            last: EntryId { ms: BEGIN_MS, seq: 0 },
            cursors: BTreeMap::new(),
            generation: 0,
            heads: vec![topics().into_iter().map(|topic| (topic, EntryId::MIN)).collect(); NODES],
            connection: None,
            seen: BTreeSet::new(),
            acked: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            confirms: true,
            skips,
        }
    }

    fn publish(&mut self, broadcast: bool) {
        let [all, news] = topics();
        self.last = (EntryId { ms: self.now.unix_ms, seq: 0 }).max(self.last.next().expect("ids do not end here"));
        let topic = if broadcast { all } else { news };
        self.logs.get_mut(&topic).expect("it exists").insert(self.last, ());
    }

    fn after(&self, topic: &Topic, id: EntryId, count: usize) -> Vec<Entry<Vec<u8>>> {
        let entries = self.logs[topic].keys().copied().filter(|other| *other > id);
        entries.take(count).map(entry).collect()
    }

    fn execute_command(&mut self, generation: u64, command: &Command) -> Answer {
        match command {
            Command::Attach(_) => {
                self.generation = generation;
                Reply::Attached(Box::new(Ok(Attachment { generation, incarnation: 1, ..Attachment::default() })))
            }
            Command::ReadPending { .. } => Reply::PendingRead(Vec::new()),
            Command::ReadNew { .. } => Reply::NewRead(Vec::new()),
            Command::LoadFollows { begin } => {
                let topics = vec![(Name::parse("news").expect("a name"), BEGIN_MS)];
                Reply::FollowsLoaded(Box::new(Follows { topics, begin: begin.then_some(BEGIN) }))
            }
            Command::LoadCursor { topic, rewound } => {
                let end = self.logs[topic].keys().next_back().copied().unwrap_or_default();
                let at = self.cursors.get(topic).copied();
                Reply::CursorLoaded { at, trimmed: EntryId::MIN, end: rewound.then_some(end) }
            }
            Command::WriteCursor { topic, id, .. } => {
                let cursor = self.cursors.entry(topic.clone()).or_default();
                *cursor = (*cursor).max(*id);
                Reply::CursorWritten { generation: Some(self.generation) }
            }
            Command::ReadTopic { topic, after, count } => {
                Reply::TopicRead { entries: self.after(topic, *after, usize::from(*count)), trimmed: EntryId::MIN }
            }
            Command::RereadTopic { ids, .. } => Reply::TopicReread(ids.iter().copied().map(entry).collect()),
            Command::Release { .. } => Reply::Done,
            _ => Reply::Failed(Failure::Refused),
        }
    }

    fn with(&mut self, work: impl FnOnce(&mut Session, Now, &mut Vec<Action>), batch: Option<&TopicBatch>) {
        let Some(connection) = &mut self.connection else { return };
        let mut actions = Vec::new();
        work(&mut connection.session, self.now, &mut actions);
        for action in actions {
            match action {
                Action::Send(text) => self.receive(&text),
                Action::SendBatch => {
                    let text = batch.and_then(TopicBatch::frame).expect("a frame that can be shared").to_owned();
                    self.receive(&text);
                }
                Action::Follow(topic) => self.ready(&topic),
                _ => {}
            }
        }
    }

    fn ready(&mut self, topic: &Topic) {
        let Some(connection) = &self.connection else { return };
        let head = self.heads[connection.node][topic];
        let topic = topic.clone();
        self.with(|session, _, _| session.handle_topic_ready(&topic, head), None);
    }

    fn receive(&mut self, text: &str) {
        let frame: Value = serde_json::from_str(text).expect("the server sends JSON");
        let ids = |member: &str| frame[member].as_array().cloned().unwrap_or_default();
        if frame["type"] == "acked" {
            self.confirmed.extend(ids("ids").iter().filter_map(|id| id.as_str().map(str::to_owned)));
        }
        if frame["type"] != "messages" {
            return;
        }
        for message in ids("messages") {
            let id = message["id"].as_str().expect("an id").to_owned();
            let topic = message["topic"].as_str().expect("a topic").to_owned();
            assert!(!self.confirmed.contains(&id), "{id} was confirmed and comes again");
            let connection = self.connection.as_mut().expect("somebody receives");
            let entry: EntryId = id[topic.len() + 1..].parse().expect("an entry's id");
            if message["attempt"] == 1 {
                let last = connection.last_first.insert(topic, entry);
                assert!(last.is_none_or(|last| last < entry), "{id} after {last:?}");
                connection.unacked.push(id.clone());
            }
            assert!(connection.unacked.len() <= connection.window, "more than the window: {:?}", connection.unacked);
            self.seen.insert(id);
        }
    }

    fn connect(&mut self, node: usize, window: u16, dies: bool) {
        if !dies && self.connection.is_some() {
            self.with(|session, _, _| session.handle_disconnected(), None);
            self.settle();
        }
        let connect = Connect { window: Some(window), confirm: self.confirms, ..Connect::default() };
        let open = Open {
            user: Name::parse("alice").expect("a name"),
            device: Name::default_device(),
            connect,
            terms: Terms::until(u64::MAX),
            primary: 1,
            topics: TopicPatterns::parse(&["news"]).expect("a pattern"),
        };
        let mut session = Session::new(self.now, config(), open);
        session.handle_subscribed();
        self.connection = Some(Connection {
            session,
            node,
            window: usize::from(window),
            flight: VecDeque::new(),
            executed: false,
            unacked: Vec::new(),
            last_first: BTreeMap::new(),
        });
        self.ready(&Topic::Broadcast);
    }

    fn feed(&mut self, node: usize) {
        for topic in topics() {
            let head = self.heads[node][&topic];
            let entries = self.after(&topic, head, 3);
            let Some(last) = entries.last().map(|entry| entry.id) else { continue };
            self.heads[node].insert(topic.clone(), last);
            if self.connection.as_ref().is_some_and(|connection| connection.node == node) {
                let batch = TopicBatch::new(topic, (head, EntryId::MIN), &entries, 1 << 16, 1 << 16);
                self.with(
                    |session, now, actions| session.handle_topic_batch(now, &batch, false, actions),
                    Some(&batch),
                );
            }
        }
    }

    fn send(&mut self) {
        let now = self.now;
        let Some(connection) = &mut self.connection else { return };
        if connection.flight.is_empty() && !connection.session.is_done() {
            let mut commands = Vec::new();
            connection.session.poll_commands(now, false, &mut commands);
            connection.flight = commands.into_iter().map(|command| (command, None)).collect();
            connection.executed = false;
        }
    }

    fn execute(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        if std::mem::replace(&mut connection.executed, true) {
            return;
        }
        let generation = self.now.unix_ms * 1_000;
        let mut flight = std::mem::take(&mut connection.flight);
        for (command, answer) in &mut flight {
            *answer = Some(self.execute_command(generation, command));
        }
        if let Some(connection) = &mut self.connection {
            connection.flight = flight;
        }
    }

    fn reply(&mut self, lost: bool) {
        let Some(connection) = &mut self.connection else { return };
        if !connection.executed && !lost {
            return;
        }
        for (command, answer) in std::mem::take(&mut connection.flight) {
            let answer = answer.filter(|_| !lost).unwrap_or(Reply::Failed(Failure::Disconnected));
            if !command.awaits_success() && !matches!(answer, Reply::Failed(_)) {
                continue;
            }
            self.with(|session, now, actions| session.handle_reply(now, command, answer, actions), None);
        }
    }

    fn turn(&mut self) {
        self.send();
        self.execute();
        self.reply(false);
    }

    fn settle(&mut self) {
        for _ in 0..30 {
            self.turn();
        }
    }

    fn ack(&mut self, nth: usize) {
        let Some(connection) = &mut self.connection else { return };
        if nth >= connection.unacked.len() {
            return;
        }
        let id = connection.unacked.remove(nth);
        if self.skips {
            let (topic, entry) = id.rsplit_once('/').expect("a topic's id");
            let entry = entry.parse().expect("an id");
            self.cursors.insert(Topic::parse(topic).expect("a topic"), entry);
        }
        let frame = Incoming::parse(&format!(r#"{{"type":"ack","ids":["{id}"]}}"#));
        assert!(matches!(&frame, Ok(Incoming { frame: ClientFrame::Ack(_), .. })));
        self.acked.insert(id);
        self.with(|session, now, actions| session.handle_frame(now, frame, actions), None);
    }

    fn pass(&mut self, ms: u64) {
        self.now = Now { mono_ms: self.now.mono_ms + ms, unix_ms: self.now.unix_ms + ms };
        self.with(|session, now, actions| session.handle_timeout(now, actions), None);
    }

    /// Whatever happened, the last connection is given everything, and in the end everything is acknowledged.
    fn finish(&mut self) {
        self.connect(0, 3, true);
        for _ in 0..400 {
            self.settle_once();
            self.ack(0);
        }
        self.pass(2_000);
        self.settle();
        for (topic, log) in &self.logs {
            let last = log.keys().next_back();
            assert!(
                last.is_none_or(|last| self.cursors.get(topic) == Some(last)),
                "{topic}: its cursor is not written"
            );
            for id in log.keys() {
                let id = format!("{topic}/{id}");
                assert!(self.seen.contains(&id), "{id} was never delivered");
                // Confirmed, or on a connection that ended before it could be.
                assert!(self.acked.contains(&id), "{id} was never to be acknowledged");
            }
        }
    }

    fn settle_once(&mut self) {
        self.feed(0);
        self.turn();
    }

    fn play(&mut self, ops: &[Op]) {
        self.connect(0, 2, true);
        for op in ops {
            match op {
                Op::Publish(broadcast) => self.publish(*broadcast),
                Op::Feed(node) => self.feed(*node),
                Op::Send => self.send(),
                Op::Execute => self.execute(),
                Op::Reply => self.reply(false),
                Op::Lose => self.reply(true),
                Op::Turn => self.turn(),
                Op::Ack(nth) => self.ack(*nth),
                Op::Connect(node, window, dies) => self.connect(*node, *window, *dies),
                Op::Pass(ms) => self.pass(*ms),
            }
        }
        self.finish();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn whatever_happens_nothing_of_a_topic_is_lost_reordered_or_given_again_after_its_confirmation(
        ops in ops(),
        confirms in any::<bool>(),
    ) {
        World { confirms, ..World::new(false) }.play(&ops);
    }
}

#[test]
fn a_cursor_that_skips_what_is_not_acked_is_found() {
    let ops = [
        Op::Turn,
        Op::Turn,
        Op::Turn,
        Op::Publish(false),
        Op::Publish(false),
        Op::Feed(0),
        Op::Turn,
        Op::Ack(1),
        Op::Connect(1, 4, true),
    ];
    let outcome = std::panic::catch_unwind(|| World::new(true).play(&ops));
    assert!(outcome.is_err(), "the play must notice");
}
