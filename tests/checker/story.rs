//! Histories made up for the tests: a run with one node, told step by step.

use super::checker::verdict::Verdict;
use super::checker::{self};
use super::history::{Event, Heard, Line, Outcome, To, Via};

/// Time between two lines.
const STEP_US: u64 = 1_000;
/// Lateness of a delivery when nothing is wrong.
const LATE_US: u64 = 2_000;

/// A history in the making.
pub(crate) struct Story {
    pub(crate) lines: Vec<Line>,
    now_us: u64,
    generation: u64,
    /// What came, over which connection, and was not acked.
    unacked: Vec<(u64, String)>,
    requests: u64,
}

impl Story {
    pub(crate) fn new() -> Self {
        let mut story = Self { lines: Vec::new(), now_us: 0, generation: 0, unacked: Vec::new(), requests: 0 };
        story.event(Event::Begin { seed: 7, nodes: 1, fsync: "always".to_owned() });
        story
    }

    /// One that has its baseline and alice's phone on connection 1.
    pub(crate) fn with_alice() -> Self {
        let mut story = Self::new();
        story.connect(1, "alice", "phone").ready(1, "e1", true).sample("node-1", 100, 0).event(Event::Baseline);
        story
    }

    pub(crate) fn event(&mut self, event: Event) -> &mut Self {
        self.now_us += STEP_US;
        self.lines.push(Line { at_us: self.now_us, event });
        self
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.now_us
    }

    pub(crate) fn publish_by(&mut self, via: Via, tag: &str, user: &str, key: Option<&str>) -> &mut Self {
        self.publish_to(via, tag, To::User(user.to_owned()), key)
    }

    pub(crate) fn publish_to(&mut self, via: Via, tag: &str, to: To, key: Option<&str>) -> &mut Self {
        let (tag, key) = (tag.to_owned(), key.map(str::to_owned));
        self.event(Event::Publish { tag, to, via, key, receipt: false })
    }

    /// An accepted message of alice that asks for receipts.
    pub(crate) fn accept_asking(&mut self, tag: &str, id: u64) -> &mut Self {
        let (to, key) = (To::User("alice".to_owned()), None);
        self.event(Event::Publish { tag: tag.to_owned(), to, via: Via::Http, key, receipt: true }).published(tag, id)
    }

    /// A producer hears that alice's phone has acked a message.
    pub(crate) fn receipt(&mut self, heard: Heard, id: u64) -> &mut Self {
        let (user, device, event) = ("alice".to_owned(), "phone".to_owned(), "acked".to_owned());
        self.event(Event::Receipt { heard, user, device, id: stream_id(id), event })
    }

    /// An accepted message of a topic.
    pub(crate) fn accept_to(&mut self, topic: &str, tag: &str, id: u64) -> &mut Self {
        self.publish_to(Via::Http, tag, To::Topic(topic.to_owned()), None);
        let id = format!("{topic}/{}", stream_id(id));
        self.event(Event::Published { tag: tag.to_owned(), id, created: true })
    }

    /// Somebody asks that a user follows a topic; gives the number of the request.
    pub(crate) fn ask(&mut self, user: &str, topic: &str, follow: bool, connection: Option<u64>) -> u64 {
        self.requests += 1;
        let (request, user, topic) = (self.requests, user.to_owned(), topic.to_owned());
        self.event(Event::Follow { request, user, topic, follow, connection });
        request
    }

    pub(crate) fn answer(&mut self, request: u64, outcome: Outcome) -> &mut Self {
        self.event(Event::Followed { request, outcome })
    }

    /// Alice follows a topic.
    pub(crate) fn follows(&mut self, topic: &str) -> &mut Self {
        let request = self.ask("alice", topic, true, None);
        self.answer(request, Outcome::Done)
    }

    pub(crate) fn unfollows(&mut self, topic: &str) -> &mut Self {
        let request = self.ask("alice", topic, false, None);
        self.answer(request, Outcome::Done)
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, us: u64) -> &mut Self {
        self.now_us += us;
        self
    }

    pub(crate) fn publish(&mut self, tag: &str) -> &mut Self {
        self.publish_by(Via::Xadd, tag, "alice", None)
    }

    pub(crate) fn publish_keyed(&mut self, tag: &str) -> &mut Self {
        self.publish_by(Via::Http, tag, "alice", Some("key"))
    }

    pub(crate) fn published(&mut self, tag: &str, id: u64) -> &mut Self {
        self.event(Event::Published { tag: tag.to_owned(), id: stream_id(id), created: true })
    }

    pub(crate) fn refused(&mut self, tag: &str) -> &mut Self {
        self.event(Event::Refused { tag: tag.to_owned(), why: "503".to_owned() })
    }

    pub(crate) fn unknown(&mut self, tag: &str) -> &mut Self {
        self.event(Event::Unknown { tag: tag.to_owned(), why: "504".to_owned() })
    }

    /// An accepted message of alice.
    pub(crate) fn accept(&mut self, tag: &str, id: u64) -> &mut Self {
        self.publish(tag).published(tag, id)
    }

    pub(crate) fn connect(&mut self, connection: u64, user: &str, device: &str) -> &mut Self {
        self.connect_as("healthy", connection, user, device)
    }

    pub(crate) fn connect_as(&mut self, group: &str, connection: u64, user: &str, device: &str) -> &mut Self {
        self.connect_with(group, connection, user, device, true)
    }

    /// A client that has forgotten everything.
    pub(crate) fn connect_anew(&mut self, connection: u64, user: &str, device: &str) -> &mut Self {
        self.connect_with("healthy", connection, user, device, false)
    }

    fn connect_with(&mut self, group: &str, connection: u64, user: &str, device: &str, returns: bool) -> &mut Self {
        let (user, device) = (user.to_owned(), device.to_owned());
        let (node, group) = ("node-1".to_owned(), group.to_owned());
        self.event(Event::Connect { connection, user, device, node, group, returns })
    }

    pub(crate) fn ready(&mut self, connection: u64, epoch: &str, created: bool) -> &mut Self {
        self.generation += 1;
        let generation = self.generation;
        self.event(Event::Ready { connection, epoch: epoch.to_owned(), generation, created })
    }

    pub(crate) fn message(&mut self, connection: u64, tag: &str, id: u64, attempt: u32) -> &mut Self {
        self.message_of("alice", connection, tag, id, attempt)
    }

    pub(crate) fn message_of(&mut self, user: &str, connection: u64, tag: &str, id: u64, attempt: u32) -> &mut Self {
        self.receive(connection, stream_id(id), tag, To::User(user.to_owned()), attempt, LATE_US)
    }

    pub(crate) fn message_late(&mut self, connection: u64, tag: &str, id: u64, late_us: u64) -> &mut Self {
        self.receive(connection, stream_id(id), tag, To::User("alice".to_owned()), 1, late_us)
    }

    pub(crate) fn message_in(&mut self, topic: &str, connection: u64, tag: &str, id: u64, attempt: u32) -> &mut Self {
        let id = format!("{topic}/{}", stream_id(id));
        self.receive(connection, id, tag, To::Topic(topic.to_owned()), attempt, LATE_US)
    }

    fn receive(&mut self, connection: u64, id: String, tag: &str, to: To, attempt: u32, late_us: u64) -> &mut Self {
        self.unacked.push((connection, id.clone()));
        self.event(Event::Message { connection, id, tag: tag.to_owned(), to, attempt, late_us })
    }

    /// A client sends an ack.
    pub(crate) fn ack(&mut self, connection: u64, id: u64) -> &mut Self {
        self.ack_as(connection, stream_id(id))
    }

    pub(crate) fn ack_in(&mut self, topic: &str, connection: u64, id: u64) -> &mut Self {
        self.ack_as(connection, format!("{topic}/{}", stream_id(id)))
    }

    fn ack_as(&mut self, connection: u64, id: String) -> &mut Self {
        self.unacked.retain(|(_, unacked)| *unacked != id);
        self.event(Event::Ack { connection, ids: vec![id] })
    }

    pub(crate) fn acked(&mut self, connection: u64, id: u64) -> &mut Self {
        self.event(Event::Acked { connection, ids: vec![stream_id(id)] })
    }

    pub(crate) fn acked_in(&mut self, topic: &str, connection: u64, id: u64) -> &mut Self {
        self.event(Event::Acked { connection, ids: vec![format!("{topic}/{}", stream_id(id))] })
    }

    pub(crate) fn gap(&mut self, connection: u64, epoch: &str, reason: &str, count: u64) -> &mut Self {
        let (id, epoch, reason) = (format!("gap-{reason}"), epoch.to_owned(), reason.to_owned());
        self.event(Event::Gap { connection, id, epoch, reason, count })
    }

    pub(crate) fn closed(&mut self, connection: u64) -> &mut Self {
        self.event(Event::Closed { connection, code: None, why: "reset".to_owned() })
    }

    pub(crate) fn forgotten(&mut self, user: &str, device: &str) -> &mut Self {
        self.event(Event::Forgotten { user: user.to_owned(), device: device.to_owned() })
    }

    pub(crate) fn fault(&mut self, number: u32, kind: &str) -> &mut Self {
        let (kind, target) = (kind.to_owned(), "node-1".to_owned());
        self.event(Event::Fault { number, kind, target, loses: false, loses_from_us: 0 })
    }

    pub(crate) fn losing_fault(&mut self, number: u32, target: &str, loses_from_us: u64) -> &mut Self {
        let (kind, target) = ("flushed_all".to_owned(), target.to_owned());
        self.event(Event::Fault { number, kind, target, loses: true, loses_from_us })
    }

    pub(crate) fn healed(&mut self, number: u32) -> &mut Self {
        self.event(Event::Healed { number })
    }

    pub(crate) fn sample(&mut self, process: &str, mebibytes: u64, sessions: u64) -> &mut Self {
        let (rss_bytes, process) = (mebibytes << 20, process.to_owned());
        self.event(Event::Sample { process, rss_bytes, descriptors: 50, threads: 4, sessions })
    }

    pub(crate) fn left(&mut self, user: &str, device: &str, id: u64) -> &mut Self {
        let ids = vec![stream_id(id)];
        self.event(Event::Left { user: user.to_owned(), device: device.to_owned(), ids })
    }

    /// What a topic's log holds in the end.
    pub(crate) fn log(&mut self, topic: &str, ids: &[u64]) -> &mut Self {
        let ids = ids.iter().map(|id| stream_id(*id)).collect();
        self.event(Event::Log { topic: topic.to_owned(), ids })
    }

    /// Alice's phone has not got beyond this entry of a topic.
    pub(crate) fn behind(&mut self, topic: &str, after: u64) -> &mut Self {
        let (user, device) = ("alice".to_owned(), "phone".to_owned());
        self.event(Event::Behind { user, device, topic: topic.to_owned(), after: stream_id(after) })
    }

    pub(crate) fn drained(&mut self) -> &mut Self {
        self.event(Event::Drained)
    }

    /// Clients have acked whatever came to them; drained, with nothing left, and over.
    pub(crate) fn drained_and_over(&mut self) -> &mut Self {
        for (connection, id) in std::mem::take(&mut self.unacked) {
            self.event(Event::Ack { connection, ids: vec![id] });
        }
        self.over()
    }

    /// Drained, with nothing left, and over.
    pub(crate) fn over(&mut self) -> &mut Self {
        self.drained().event(Event::End)
    }

    pub(crate) fn verdict(&self) -> Verdict {
        checker::check(&self.lines)
    }

    /// Nothing is wrong with it.
    #[track_caller]
    pub(crate) fn passes(&self) -> Verdict {
        let verdict = self.verdict();
        assert!(verdict.is_clean() && verdict.complete, "{verdict}");
        verdict
    }

    /// One thing is wrong with it, and it is this.
    #[track_caller]
    pub(crate) fn shows(&self, kind: &str) -> Verdict {
        let verdict = self.verdict();
        let found: Vec<_> = verdict.violations_by_kind.iter().map(|(kind, count)| (*kind, *count)).collect();
        assert_eq!(found, [(kind, 1)], "{verdict}");
        assert!(verdict.violations[0].to_string().len() > 20, "a violation is a sentence: {verdict}");
        verdict
    }
}

fn stream_id(id: u64) -> String {
    format!("1700000000000-{id}")
}
