//! What a session follows beside its inbox: topics, each by a durable cursor.
//!
//! Owns the cursors, what of each topic is in flight, and the room that topics and the inbox leave each other in the
//! window. It must not know who else follows a topic. Invariants: a cursor never passes a message that the client has
//! not acknowledged, unless nobody can be given it; messages of a topic go out in its order on their first attempt.
//!
//! A topic has no pending list in Redis: the log itself is the list, and the cursor says from where on it concerns the
//! device. So a reply that is lost costs nothing but another read.

mod batch;
#[cfg(any(test, feature = "simulation"))]
mod canonical;
mod cursor;
mod deliver;
mod follow;
mod list;
mod outstanding;
#[cfg(test)]
mod tests;

use super::wire::{Command, Now};
use super::{Attach, Session};
use crate::frame::GapReason;
use crate::id::EntryId;
use crate::topic::{Topic, TopicPatterns};

pub use batch::TopicBatch;
pub(super) use cursor::Waiting;
pub use follow::{Begin, FollowChange, Follows};
use list::FollowedTopics;
use outstanding::Outstanding;

/// Everything about a session's topics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Topics {
    followed: FollowedTopics,
    load: Load,
    /// Where the device begins in a topic that it has no cursor in: not before it existed, unless it was its user's
    /// first one. Known with the first load of an epoch.
    begin: Option<Begin>,
    /// What the token allows the client to follow.
    allowed: TopicPatterns,
    /// Asked for by the client and not answered.
    changes: Vec<follow::Change>,
    changing: bool,
    /// Acks that are to be confirmed once the cursors have passed them.
    waiting: Vec<Waiting>,
    /// Delivered and not acknowledged, over all topics, and the bytes of it.
    in_flight: usize,
    bytes: usize,
    /// With room for only one message, the inbox and topics take turns.
    next: bool,
    /// Which topic is read first.
    turn: usize,
    /// When the next redelivery is due, and when cursors are to be written, in monotonic ms.
    redeliver_at_ms: u64,
    write_at_ms: u64,
    /// Nothing about topics before this time: Redis refused the last of it. The inbox goes on.
    pause_until_ms: u64,
    /// Redis may have gone back in time: a cursor beyond its topic's end means nothing.
    rewound: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Load {
    Needed,
    /// `again`: something changed meanwhile.
    InFlight {
        again: bool,
    },
    Done,
}

/// Where a cursor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Knowledge {
    Unknown,
    Asked,
    Known,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Followed {
    topic: Topic,
    /// Followed since, Unix ms.
    since_ms: u64,
    knowledge: Knowledge,
    /// All up to here is done with, and what of it Redis knows.
    cursor: EntryId,
    written: EntryId,
    /// What is being written now, if that is not taken for granted.
    writing: Option<EntryId>,
    /// Redis's cursor, which lies beyond ours and must go back.
    rewind: Option<EntryId>,
    /// All up to here was handed out or passed over.
    position: EntryId,
    /// Wake-ups arrive, and up to where this node has seen the log.
    head: Option<EntryId>,
    /// The log may hold entries after `position`.
    dirty: bool,
    reading: bool,
    /// Up to where this node had seen the log when the read was sent.
    head_before: EntryId,
    rereading: bool,
    /// Handed out or passed over, after `cursor`, in order.
    outstanding: Outstanding,
}

impl Followed {
    fn new(topic: Topic, since_ms: u64) -> Self {
        Self {
            topic,
            since_ms,
            knowledge: Knowledge::Unknown,
            cursor: EntryId::MIN,
            written: EntryId::MIN,
            writing: None,
            rewind: None,
            position: EntryId::MIN,
            head: None,
            dirty: false,
            reading: false,
            head_before: EntryId::MIN,
            rereading: false,
            outstanding: Outstanding::default(),
        }
    }

    /// Whether its log may be read at all.
    fn is_open(&self) -> bool {
        self.knowledge == Knowledge::Known && self.head.is_some()
    }

    /// Looks at what lies between the cursor and the log's end, if both are known.
    fn open(&mut self) {
        self.dirty |= self.is_open() && self.head.is_some_and(|head| self.position < head);
    }

    fn wants_read(&self) -> bool {
        self.dirty && !self.reading && self.is_open()
    }

    /// Everything up to `id` was handed out, acknowledged, or cannot be given to anybody.
    fn pass(&mut self, id: EntryId) {
        if id <= self.position {
            return;
        }
        self.position = id;
        self.outstanding.pass(id);
        self.advance();
    }

    fn advance(&mut self) {
        if let Some(cursor) = self.outstanding.settle() {
            self.cursor = self.cursor.max(cursor);
        }
        if self.outstanding.is_empty() {
            self.cursor = self.cursor.max(self.position);
        }
    }

    fn is_unwritten(&self) -> bool {
        self.knowledge == Knowledge::Known
            && self.writing.is_none()
            && (self.rewind.is_some() || self.cursor > self.written)
    }
}

impl Topics {
    pub(super) fn new(allowed: TopicPatterns) -> Self {
        Self {
            followed: FollowedTopics::new(vec![Followed::new(Topic::Broadcast, 0)]),
            load: Load::Needed,
            begin: None,
            allowed,
            changes: Vec::new(),
            changing: false,
            waiting: Vec::new(),
            in_flight: 0,
            bytes: 0,
            next: false,
            turn: 0,
            redeliver_at_ms: u64::MAX,
            write_at_ms: u64::MAX,
            pause_until_ms: 0,
            rewound: false,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn due_ms(&self) -> u64 {
        if self.pause_until_ms > 0 { self.pause_until_ms } else { self.redeliver_at_ms.min(self.write_at_ms) }
    }

    /// Redis refused something about topics, whatever key it was: to ask again at once would only keep it busy.
    pub(super) fn pause(&mut self, now: Now) {
        self.pause_until_ms = now.mono_ms + REFUSED_PAUSE_MS;
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Now) {
        if now.mono_ms >= self.pause_until_ms {
            self.pause_until_ms = 0;
        }
    }

    fn is_paused(&self, now: Now) -> bool {
        now.mono_ms < self.pause_until_ms
    }

    /// The inbox is read; with room for one message only, topics are next.
    pub(super) fn took_turn(&mut self) {
        self.next = true;
    }

    /// Whether a topic waits for room in the window.
    fn is_waiting(&self) -> bool {
        self.followed.wants().reads > 0
    }

    /// Nothing that was said in an older epoch counts.
    pub(super) fn start_over(&mut self) {
        let followed = self.followed.take().into_iter();
        let anew =
            followed.map(|Followed { topic, since_ms, head, .. }| Followed { head, ..Followed::new(topic, since_ms) });
        self.followed = FollowedTopics::new(anew.collect());
        self.load = match self.load {
            Load::InFlight { .. } => Load::InFlight { again: true },
            _ => Load::Needed,
        };
        self.begin = None;
        self.waiting.clear();
        (self.in_flight, self.bytes) = (0, 0);
        (self.redeliver_at_ms, self.write_at_ms) = (u64::MAX, u64::MAX);
    }

    /// Redis may have gone back in time.
    pub(super) fn rewound(&mut self) {
        self.rewound = true;
    }
}

/// Pause of a session's topics after Redis refused something about them.
const REFUSED_PAUSE_MS: u64 = 500;

/// The part of the window that neither the inbox nor topics may take while the other one waits.
fn reserve(window: usize) -> usize {
    if window > 1 { (window / 4).max(1) } else { 0 }
}

impl Session {
    /// Topics that this session is registered for at its node.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter().flat_map(|topics| topics.followed.iter()).map(|followed| &followed.topic)
    }

    /// Where the cursors in them stand, Unix ms; `None` where that is not known.
    pub fn cursors(&self) -> impl Iterator<Item = (&Topic, Option<u64>)> {
        let known = |followed: &Followed| (followed.knowledge == Knowledge::Known).then_some(followed.cursor.ms);
        let followed = self.topics.iter().flat_map(|topics| topics.followed.iter());
        followed.map(move |followed| (&followed.topic, known(followed)))
    }

    /// Messages that the inbox may have in flight now.
    pub(super) fn inbox_window(&self) -> usize {
        let window = usize::from(self.options.window);
        let Some(topics) = &self.topics else { return window };
        let limit = match topics.is_waiting() {
            false => window,
            true if window == 1 => usize::from(!topics.next),
            true => window - reserve(window),
        };
        limit.min(window.saturating_sub(topics.in_flight))
    }

    /// Messages of topics that may be handed out now.
    fn topic_room(&self) -> usize {
        let window = usize::from(self.options.window);
        let Some(topics) = &self.topics else { return 0 };
        let inbox_waits = self.dirty || self.walk.is_some();
        let limit = match inbox_waits || self.reading {
            false => window,
            true if window == 1 => usize::from(topics.next),
            true => window - reserve(window),
        };
        if topics.bytes + self.ledger.bytes() >= self.config.in_flight_bytes_max
            && topics.in_flight + self.ledger.len() > 0
        {
            return 0;
        }
        let taken = self.ledger.len() + usize::from(self.reading_count) + topics.in_flight;
        limit.saturating_sub(topics.in_flight).min(window.saturating_sub(taken))
    }

    /// Whether a pipeline should carry something of the topics at once, and whether later would do.
    pub(super) fn topics_urgency(&self, now: Now, blocked: bool) -> (bool, bool) {
        let Some(topics) = self.topics.as_ref().filter(|topics| !topics.is_paused(now)) else { return (false, false) };
        let now_at_once = topics.load == Load::Needed
            || (!topics.changing && !topics.changes.is_empty())
            || topics.followed.wants().cursors > 0
            || (!blocked && topics.redeliver_at_ms <= now.mono_ms)
            || (!blocked && topics.is_waiting() && self.topic_room() > 0);
        (now_at_once, topics.write_at_ms <= now.mono_ms)
    }

    /// Adds what topics want.
    pub(super) fn poll_topics(&mut self, now: Now, blocked: bool, commands: &mut Vec<Command>) {
        let Some(topics) = &self.topics else { return };
        if self.is_ended() {
            self.poll_missed(commands);
            return self.poll_cursors(now, commands);
        }
        if topics.is_paused(now) {
            return;
        }
        self.poll_follows(commands);
        self.poll_cursors(now, commands);
        if self.subscribed && self.attach == Attach::Done && !blocked {
            self.poll_topic_reads(commands);
            self.poll_topic_rereads(now, commands);
        }
    }

    /// What nobody can be given any more is told by a gap also if the session ends before it could be: the cursors that
    /// are written now lie behind it.
    fn poll_missed(&mut self, commands: &mut Vec<Command>) {
        for (reason, gone) in [(GapReason::Retention, &mut self.gone), (GapReason::TooBig, &mut self.too_big)] {
            let gone = std::mem::take(gone);
            if gone > 0 {
                commands.push(Command::SetAside { reason, ids: Vec::new(), gone });
            }
        }
    }
}
