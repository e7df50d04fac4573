//! Histories made up for the tests: a run with one node, told step by step.

use super::checker::verdict::Verdict;
use super::checker::{self};
use super::history::{Event, Line, Via};

/// Time between two lines.
const STEP_US: u64 = 1_000;
/// Lateness of a delivery when nothing is wrong.
const LATE_US: u64 = 2_000;

/// A history in the making.
pub(crate) struct Story {
    pub(crate) lines: Vec<Line>,
    now_us: u64,
    generation: u64,
}

impl Story {
    pub(crate) fn new() -> Self {
        let mut story = Self { lines: Vec::new(), now_us: 0, generation: 0 };
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
        let (tag, user, key) = (tag.to_owned(), user.to_owned(), key.map(str::to_owned));
        self.event(Event::Publish { tag, user, via, key })
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
        let (user, device) = (user.to_owned(), device.to_owned());
        let (node, group) = ("node-1".to_owned(), group.to_owned());
        self.event(Event::Connect { connection, user, device, node, group })
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
        let (id, tag, user) = (stream_id(id), tag.to_owned(), user.to_owned());
        self.event(Event::Message { connection, id, tag, user, attempt, late_us: LATE_US })
    }

    pub(crate) fn message_late(&mut self, connection: u64, tag: &str, id: u64, late_us: u64) -> &mut Self {
        let (id, tag, user) = (stream_id(id), tag.to_owned(), "alice".to_owned());
        self.event(Event::Message { connection, id, tag, user, attempt: 1, late_us })
    }

    pub(crate) fn ack(&mut self, connection: u64, id: u64) -> &mut Self {
        self.event(Event::Ack { connection, ids: vec![stream_id(id)] })
    }

    pub(crate) fn acked(&mut self, connection: u64, id: u64) -> &mut Self {
        self.event(Event::Acked { connection, ids: vec![stream_id(id)] })
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

    pub(crate) fn drained(&mut self) -> &mut Self {
        self.event(Event::Drained)
    }

    /// Drained, with nothing left, and over.
    pub(crate) fn drained_and_over(&mut self) -> &mut Self {
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
