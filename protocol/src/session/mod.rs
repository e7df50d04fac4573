//! The session state machine: everything that one connection of a device decides.
//!
//! Owns the order of attach, pending entries, new entries, acks, redelivery, heartbeats and the end. It must not know
//! Redis, sockets, a clock or randomness. The driver feeds it events (`handle_*`), asks it for commands to put into
//! the next pipeline ([`Session::poll_commands`]), gives back each command with its reply, and carries out its
//! actions. Invariants: a new entry is asked for only when the whole pending list was handed out; a message is in
//! the ledger from its delivery to its ack; an ack is confirmed only for the generation that Redis has recorded.
//!
//! The driver promises that one pipeline is in flight at a time and that replies come back in order: what is sent
//! in a later pipeline is executed after everything in an earlier one.

mod acks;
#[cfg(any(test, feature = "simulation"))]
mod canonical;
mod deliver;
mod dismiss;
mod ledger;
mod open;
mod owner;
mod protocol;
mod queue;
mod receipts;
mod redeliver;
mod reply;
#[cfg(test)]
mod tests;
mod topics;
mod wire;

use std::sync::Arc;

use crate::close::CloseCode;
use crate::code::ErrorCode;
use crate::frame::{Gap, ServerFrame, StartFrom};
use crate::id::EntryId;
use crate::name::Name;

pub use open::{Dismissal, Open, SessionConfig, Terms};
pub use receipts::{Receipt, ReceiptEvent, Wish};
pub use topics::{Begin, FollowChange, Follows, TopicBatch};
pub use wire::{
    AckBatch, Action, AttachMode, AttachRefusal, AttachRequest, Attachment, Command, Confirmation, Failure, Now,
    Pending, Reply, Urgency,
};

use acks::AckBuffer;
use ledger::Ledger;
use protocol::{Heartbeat, RateLimit};
use receipts::Receipts;
use topics::Topics;

/// One live connection of a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    config: Arc<SessionConfig>,
    user: Name,
    device: Name,
    phase: Phase,
    options: Options,
    /// 0 until the first attach.
    generation: u64,
    /// The generation of the `ready`: says when the client connected, whatever epochs came since. 0 until then.
    connected: u64,
    /// Highest generation that is known to have superseded us, while our own is not known for sure.
    superseding: u64,
    /// A dismissal that was heard before the first attach's reply, and the generation that it concerns.
    dismissal: Option<Box<(u64, Dismissal)>>,
    /// Heard of before the attach was answered.
    gap_heard: Option<Box<Gap>>,
    /// Primary epoch and inbox incarnation.
    epoch: (u64, u64),
    terms: Terms,
    /// Tokens that were issued until then, in Unix seconds, are refused for this user.
    refuse_before_s: u64,
    attach: Attach,
    /// Whether wake-ups of this inbox arrive: nothing is read before.
    subscribed: bool,
    /// The inbox may hold entries that were never read for this device.
    dirty: bool,
    /// Where the walk through the pending list stands; `None` when all of it was handed out.
    walk: Option<Walk>,
    /// Number of the current walk, to tell entries that a whole walk did not find.
    walk_number: u16,
    ledger: Ledger,
    acks: Option<Box<AckBuffer>>,
    receipts: Option<Box<Receipts>>,
    /// Ids for `SetAside` commands, few and rare.
    aside: Vec<(crate::frame::GapReason, EntryId)>,
    /// Entries that vanished from the pending list while they were claimed, or from a topic before they were read.
    gone: u32,
    /// Entries of topics that are too big for anybody.
    too_big: u32,
    topics: Option<Box<Topics>>,
    /// The device began after this id, and was given entries up to that one.
    given: (EntryId, EntryId),
    /// Decaying maximum of entry sizes, in bytes.
    entry_bytes: u32,
    reading: bool,
    /// How many new messages that read may bring; only kept if topics share the window.
    reading_count: u16,
    claiming: bool,
    heartbeat: Heartbeat,
    rate: RateLimit,
    /// When Redis and the ledger are compared next, and how often they were.
    sweep_at_ms: u64,
    sweeps: u8,
    touch_at_ms: u64,
    /// No commands before this time: Redis refused the last ones.
    pause_until_ms: u64,
    forget: Forget,
    /// The device is known no more.
    forgotten: bool,
}

/// What the client asked for, within the server's bounds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Options {
    window: u16,
    confirm: bool,
    heartbeat_ms: u32,
    frame_bytes_max: u32,
    from: Option<StartFrom>,
    seq: u64,
    instance: Option<Box<str>>,
    epoch: Option<Box<str>>,
    /// Acks of messages that this session did not deliver are dropped: they may be of an older epoch.
    only_own_acks: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// No `ready` yet.
    Opening,
    /// Between `ready` and the end.
    Live,
    /// The client is gone or was told to go; acks and the release are still to be sent.
    Ending,
    /// Nothing left to do.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Attach {
    Needed(AttachMode),
    InFlight,
    Done,
    /// The record is gone: the node must find out whether data was lost.
    Suspended,
}

/// A walk through the pending list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Walk {
    after: EntryId,
    /// Begin anew when the read in flight has returned.
    again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Forget {
    No,
    Needed,
    InFlight,
}

impl Session {
    /// A session that wants to attach.
    #[must_use]
    pub fn new(now: Now, config: Arc<SessionConfig>, open: Open) -> Self {
        let connect = open.connect;
        let heartbeat_ms = connect.heartbeat_ms.unwrap_or(config.heartbeat_ms);
        let options = Options {
            window: connect.window.unwrap_or(config.window),
            confirm: connect.confirm,
            heartbeat_ms,
            frame_bytes_max: connect.max_frame_bytes.unwrap_or(config.frame_bytes_max),
            from: connect.from,
            seq: connect.seq,
            instance: connect.instance,
            only_own_acks: false,
            epoch: connect.epoch,
        };
        Self {
            heartbeat: Heartbeat::new(now, heartbeat_ms),
            rate: RateLimit::new(now, &config),
            user: open.user,
            device: open.device,
            phase: Phase::Opening,
            options,
            generation: 0,
            connected: 0,
            superseding: 0,
            dismissal: None,
            gap_heard: None,
            epoch: (open.primary, 0),
            terms: open.terms,
            refuse_before_s: 0,
            attach: Attach::Needed(AttachMode::Connect),
            subscribed: false,
            dirty: true,
            walk: Some(Walk { after: EntryId::MIN, again: false }),
            walk_number: 1,
            ledger: Ledger::default(),
            acks: None,
            receipts: None,
            aside: Vec::new(),
            gone: 0,
            too_big: 0,
            topics: config.topics.then(|| Box::new(Topics::new(open.topics))),
            given: (EntryId::MIN, EntryId::MIN),
            entry_bytes: ENTRY_BYTES_FIRST_GUESS,
            reading: false,
            reading_count: 0,
            claiming: false,
            sweep_at_ms: u64::MAX,
            sweeps: 0,
            touch_at_ms: now.mono_ms + config.touch_ms,
            pause_until_ms: 0,
            forget: Forget::No,
            forgotten: false,
            config,
        }
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> &Name {
        &self.user
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Name {
        &self.device
    }

    /// The generation; 0 before the first attach.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether `ready` was sent and the connection is still wanted.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Whether the connection is over, for the client.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ending | Phase::Done)
    }

    /// Whether the driver may forget this session.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Whether the device was removed while this session held it: nothing of it shall stay.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.forgotten
    }

    /// Messages in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ledger.len()
    }

    /// How large an entry of this inbox may be expected to be, in bytes.
    #[must_use]
    pub fn entry_bytes(&self) -> usize {
        self.entry_bytes as usize
    }

    /// Whether and how soon [`Session::poll_commands`] would give anything. `blocked`: the socket does not take what
    /// was sent before.
    #[must_use]
    pub fn urgency(&self, now: Now, blocked: bool) -> Urgency {
        if self.phase == Phase::Done || now.mono_ms < self.pause_until_ms {
            return Urgency::None;
        }
        let acks = self.acks.as_ref().is_some_and(|acks| !acks.is_empty());
        let receipts = self.receipts.as_ref().is_some_and(|receipts| receipts.is_waiting());
        match (self.phase, self.attach) {
            (_, Attach::InFlight) => Urgency::None,
            (Phase::Ending, _) => Urgency::Now,
            (_, Attach::Suspended) => Urgency::None,
            (_, Attach::Needed(_)) => Urgency::Now,
            (_, Attach::Done) => {
                let (topics, cursors) = self.topics_urgency(now, blocked);
                let rare = topics
                    || !self.aside.is_empty()
                    || self.gone > 0
                    || self.too_big > 0
                    || self.forget == Forget::Needed
                    || now.mono_ms >= self.sweep_at_ms
                    || now.mono_ms >= self.touch_at_ms
                    || self.acks.as_ref().is_some_and(|acks| acks.is_pressing());
                if rare || self.wants_read(blocked).is_some() || self.wants_claim(now, blocked) {
                    Urgency::Now
                } else if acks || receipts || cursors {
                    Urgency::Coalesce
                } else {
                    Urgency::None
                }
            }
        }
    }

    /// Whether its next command makes it the owner of its device, or no longer the owner.
    #[must_use]
    pub fn changes_owner(&self) -> bool {
        self.phase == Phase::Ending || matches!(self.attach, Attach::Needed(_))
    }

    /// Adds what this session wants in the next pipeline, in the order in which it must be executed.
    pub fn poll_commands(&mut self, now: Now, blocked: bool, commands: &mut Vec<Command>) {
        if self.phase == Phase::Done || now.mono_ms < self.pause_until_ms || self.attach == Attach::InFlight {
            return;
        }
        if self.phase == Phase::Ending {
            self.poll_receipts(commands);
            self.poll_acks(commands);
            self.poll_topics(now, blocked, commands);
            commands.push(Command::Release { generation: self.generation, ended: true });
            return;
        }
        match self.attach {
            Attach::Needed(mode) => {
                self.attach = Attach::InFlight;
                commands.push(Command::Attach(Box::new(self.attach_request(mode))));
            }
            Attach::Done => {
                self.poll_receipts(commands);
                self.poll_aside(commands);
                self.poll_acks(commands);
                if self.forget == Forget::Needed {
                    self.forget = Forget::InFlight;
                    commands.push(Command::Forget { generation: self.generation });
                    return;
                }
                // After the acks and before the reads, so that what is expected of Redis is just the ledger.
                self.poll_sweep(now, commands);
                self.poll_claim(now, blocked, commands);
                self.poll_read(blocked, commands);
                self.poll_topics(now, blocked, commands);
                if now.mono_ms >= self.touch_at_ms {
                    self.touch_at_ms = now.mono_ms + self.config.touch_ms;
                    commands.push(Command::Touch { generation: self.generation });
                }
            }
            Attach::InFlight | Attach::Suspended => {}
        }
    }

    /// The inbox has something new.
    pub fn handle_wake(&mut self) {
        self.dirty = true;
    }

    /// Wake-ups of this inbox arrive from now on.
    pub fn handle_subscribed(&mut self) {
        self.subscribed = true;
    }

    /// The client's connection is gone.
    pub fn handle_disconnected(&mut self) {
        if !self.is_ended() {
            self.end();
        }
    }

    /// The node is draining.
    pub fn handle_drain(&mut self, retry_after_ms: u64, actions: &mut Vec<Action>) {
        self.refuse(
            ErrorCode::Draining,
            "this node is stopping; reconnect",
            Some(retry_after_ms),
            CloseCode::Draining,
            actions,
        );
    }

    /// Redis cannot be reached for long: a client that waits for its `ready` is sent away.
    pub fn handle_unavailable(&mut self, actions: &mut Vec<Action>) {
        if self.phase == Phase::Opening {
            self.refuse_opening(ErrorCode::Unavailable, "this node cannot reach Redis now; reconnect later", actions);
        }
    }

    /// Redis refused or could not be reached for too long before this session could attach.
    fn refuse_opening(&mut self, code: ErrorCode, message: &str, actions: &mut Vec<Action>) {
        self.refuse(code, message, Some(RETRY_AFTER_MS), CloseCode::Internal, actions);
    }

    /// Ends the session with an error frame.
    fn refuse(
        &mut self,
        code: ErrorCode,
        message: &str,
        retry_after_ms: Option<u64>,
        close: CloseCode,
        actions: &mut Vec<Action>,
    ) {
        if self.is_ended() {
            return;
        }
        let error = ServerFrame::Error { code, message: message.to_owned(), retry_after_ms };
        actions.push(Action::Send(error.encode(None)));
        self.close(close, actions);
    }

    fn close(&mut self, code: CloseCode, actions: &mut Vec<Action>) {
        if self.is_ended() {
            return;
        }
        actions.push(Action::Close(code));
        self.end();
    }

    fn end(&mut self) {
        self.phase = Phase::Ending;
        self.walk = None;
        self.dirty = false;
    }

    fn send(&mut self, now: Now, frame: &ServerFrame, reference: Option<&str>, actions: &mut Vec<Action>) {
        self.heartbeat.sent(now);
        actions.push(Action::Send(frame.encode(reference)));
    }

    fn epoch_text(&self) -> String {
        format!("{}.{}", self.epoch.0, self.epoch.1)
    }

    /// When [`Session::handle_timeout`] wants to be called at the latest, in monotonic ms. What is in the past when it has
    /// just been called waits for [`Session::poll_commands`]: time alone will not help it.
    #[must_use]
    pub fn poll_timeout(&self) -> u64 {
        if self.is_ended() {
            return self.pause_until_ms;
        }
        if self.pause_until_ms > 0 {
            return self.poll_silence().min(self.pause_until_ms);
        }
        self.poll_silence()
            .min(self.ledger.earliest_due_ms())
            .min(self.sweep_at_ms)
            .min(self.touch_at_ms)
            .min(self.topics.as_ref().map_or(u64::MAX, |topics| topics.due_ms()))
    }

    /// That part of [`Session::poll_timeout`] which waits for nothing but the time: until silence is answered.
    #[must_use]
    pub fn poll_silence(&self) -> u64 {
        if self.is_ended() { u64::MAX } else { self.heartbeat.due_ms() }
    }

    /// When the token expires, Unix ms; the driver calls [`Session::handle_timeout`] then, too.
    #[must_use]
    pub fn expires_at_ms(&self) -> u64 {
        self.terms.expires_at_ms
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now, actions: &mut Vec<Action>) {
        if now.mono_ms >= self.pause_until_ms {
            self.pause_until_ms = 0;
        }
        if let Some(topics) = &mut self.topics {
            topics.handle_timeout(now);
        }
        if self.is_ended() {
            return;
        }
        if now.unix_ms >= self.terms.expires_at_ms {
            let message = "the token has expired; get a new one, then reconnect";
            return self.refuse(ErrorCode::TokenExpired, message, None, CloseCode::TokenExpired, actions);
        }
        match self.heartbeat.check(now) {
            protocol::Pulse::Fine => {}
            protocol::Pulse::Ping => self.send(now, &ServerFrame::Ping, None, actions),
            protocol::Pulse::Dead => {
                let message = "nothing was heard from the client for twice the heartbeat";
                self.refuse(ErrorCode::Silent, message, None, CloseCode::Silent, actions);
            }
        }
    }
}

/// Before anything was read: a guess that makes a first read of a full window stay near the in-flight limit.
const ENTRY_BYTES_FIRST_GUESS: u32 = 16 * 1024;
/// What a client is told to wait when Redis cannot serve its attach.
const RETRY_AFTER_MS: u64 = 2_000;
