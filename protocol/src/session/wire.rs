//! What passes between the session machine and its driver.

use super::receipts::{Receipt, Wish};
use crate::close::CloseCode;
use crate::code::ErrorCode;
use crate::frame::{Gap, GapReason};
use crate::id::EntryId;
use crate::message::Entry;
use crate::name::Name;
use crate::topic::Topic;

use super::open::Dismissal;
use super::topics::{FollowChange, Follows};

/// The time, as the driver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Now {
    /// Monotonic milliseconds since some start; never 0.
    pub mono_ms: u64,
    /// Unix time in milliseconds.
    pub unix_ms: u64,
}

/// How soon a session wants to be in a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Not at all.
    None,
    /// Some milliseconds may pass, so that acks gather.
    Coalesce,
    /// With the next one.
    Now,
}

/// Why a session attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttachMode {
    /// A client connected.
    Connect,
    /// The primary epoch changed.
    Again,
    /// Its group is missing.
    Repair,
}

impl AttachMode {
    /// As the function `attach` takes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Again => "again",
            Self::Repair => "repair",
        }
    }
}

/// What the session gives to an attach; the driver adds who it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttachRequest {
    /// Why.
    pub mode: AttachMode,
    /// Generation that must still be recorded, for a repair; with which the client connected, to attach again.
    pub generation: u64,
    /// `start`, `end` or empty.
    pub from: &'static str,
    /// Epoch that the client named, or empty.
    pub epoch: Box<str>,
    /// Client object, or empty.
    pub instance: Box<str>,
    /// Number of the client's connection.
    pub seq: u64,
    /// Primary epoch that the node believes in.
    pub primary: u64,
    /// When the session's token was issued, Unix seconds.
    pub issued_at_s: Option<u64>,
    /// How many devices of the user may be connected at once, if the token says so.
    pub sessions: Option<u32>,
}

/// A command for Redis. What each means in Redis stands in the driver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Become the device's owner.
    Attach(Box<AttachRequest>),
    /// Take undeliverable entries from the pending list; `gone` more already left it.
    SetAside {
        /// Why they are dropped.
        reason: GapReason,
        /// Entries to acknowledge and count.
        ids: Vec<EntryId>,
        /// Entries to count.
        gone: u32,
    },
    /// Tell what became of messages on the stream of receipts.
    Announce {
        /// Each becomes an entry.
        receipts: Vec<Receipt>,
    },
    /// Write down beside the messages what became of them, and wake up who waits for it.
    Record {
        /// The first record of each counts.
        receipts: Vec<Receipt>,
    },
    /// Acknowledge.
    Ack(Box<AckBatch>),
    /// Close a gap.
    AckGap {
        /// The gap.
        id: Box<str>,
        /// The frame's `ref`.
        reference: Option<Box<str>>,
    },
    /// Compare the pending list's summary with the ledger, and the owner.
    Sweep {
        /// What the ledger says; `None` if the ledger is not complete now.
        expected: Option<Pending>,
    },
    /// Deliver these again.
    Claim {
        /// Exact ids.
        ids: Vec<EntryId>,
    },
    /// Read the pending list.
    ReadPending {
        /// After this entry.
        after: EntryId,
        /// At most so many.
        count: u16,
    },
    /// Read new entries.
    ReadNew {
        /// At most so many; never 0, which means unlimited.
        count: u16,
    },
    /// Refresh the device's last-seen time, and name this shard as the owner again if nobody is.
    Touch {
        /// Generation that must be recorded.
        generation: u64,
    },
    /// Forget the device.
    Forget {
        /// Generation that must be recorded.
        generation: u64,
    },
    /// Learn which topics the user follows.
    LoadFollows {
        /// And where the device begins in them.
        begin: bool,
    },
    /// Learn where the device stands in a topic.
    LoadCursor {
        /// The topic.
        topic: Topic,
        /// Redis may have gone back in time: then the log's end is asked for, after the cursor.
        rewound: bool,
    },
    /// Move the device's cursor in a topic.
    WriteCursor {
        /// The topic.
        topic: Topic,
        /// The device is done with everything up to here.
        id: EntryId,
        /// Back from here, which only a cursor of an older epoch must go; one that lies elsewhere by now stays if it is
        /// higher.
        rewind: Option<EntryId>,
        /// Somebody waits for it: then the recorded generation is asked for after it was written.
        confirm: bool,
    },
    /// Read a topic's log.
    ReadTopic {
        /// The topic.
        topic: Topic,
        /// After this entry.
        after: EntryId,
        /// At most so many.
        count: u16,
    },
    /// Read these entries of a topic's log again.
    RereadTopic {
        /// The topic.
        topic: Topic,
        /// Exact ids.
        ids: Vec<EntryId>,
    },
    /// Make the user follow topics, or follow them no more.
    Follow {
        /// The topics.
        topics: Vec<Name>,
        /// Whether to follow.
        follow: bool,
        /// The frame's `ref`.
        reference: Option<Box<str>>,
    },
    /// Nothing more will be handed out for this generation.
    Release {
        /// Ours.
        generation: u64,
        /// The session has ended.
        ended: bool,
    },
}

impl Command {
    /// Whether the session must be told that this was done. If not, it takes that for granted unless it is told that it
    /// failed: most cursors, which would else call each session back to memory to no effect.
    #[must_use]
    pub fn awaits_success(&self) -> bool {
        !matches!(self, Self::WriteCursor { rewind: None, confirm: false, .. })
    }

    /// Whether it concerns topics only: what Redis says to it says nothing about the inbox.
    pub(super) fn is_of_topic(&self) -> bool {
        matches!(
            self,
            Self::LoadFollows { .. }
                | Self::LoadCursor { .. }
                | Self::WriteCursor { .. }
                | Self::ReadTopic { .. }
                | Self::RereadTopic { .. }
                | Self::Follow { .. }
        )
    }
}

/// Acks for one pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AckBatch {
    /// Ids that this session delivered: one `XACK` for all.
    pub own: Vec<EntryId>,
    /// What these were charged, in bytes.
    pub own_bytes: usize,
    /// Ids of unknown standing: acknowledged one by one, unless their messages ask for receipts, which must be written
    /// first.
    pub foreign: Vec<EntryId>,
    /// `acked` frames to send; also asks for the recorded generation.
    pub confirmations: Vec<Confirmation>,
}

/// An `acked` frame to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Confirmation {
    /// The `ref` of the `ack` frame.
    pub reference: Option<Box<str>>,
    /// Its ids.
    pub ids: Vec<EntryId>,
}

/// Summary of a pending list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Pending {
    /// Entries.
    pub count: u64,
    /// Lowest id; 0-0 if there is none.
    pub first: EntryId,
    /// Highest id; 0-0 if there is none.
    pub last: EntryId,
}

/// What Redis answered to a [`Command`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply<B> {
    /// To `Attach`.
    Attached(Box<Result<Attachment, AttachRefusal>>),
    /// To `SetAside`: the open gap, if any.
    SetAside(Option<Gap>),
    /// To `Forget`: whether the device was known with that generation.
    Forgotten(bool),
    /// To `Ack`.
    Acked {
        /// How many of `own` were removed.
        own: u32,
        /// For each of `foreign`, whether it was removed.
        removed: Vec<bool>,
        /// Those of `foreign` that are pending still, because their messages ask for receipts.
        withheld: Vec<(EntryId, Wish)>,
        /// With confirmations: the recorded generation, `None` if the record is gone.
        generation: Option<u64>,
    },
    /// To `Sweep`.
    Swept {
        /// Redis's summary.
        pending: Pending,
        /// Recorded generation; `None` if the record is gone.
        generation: Option<u64>,
        /// Whether the record names this shard as the owner.
        owned: bool,
        /// Whether the record says that this session is to end.
        dismissed: Option<Dismissal>,
    },
    /// To `Claim`.
    Claimed {
        /// Those of the ids that were pending just before.
        pending: Vec<EntryId>,
        /// Those that still exist.
        entries: Vec<Entry<B>>,
    },
    /// To `ReadPending`: entries, without fields if they were deleted, and how often they were delivered before.
    PendingRead(Vec<(Entry<B>, bool, u32)>),
    /// To `ReadNew`.
    NewRead(Vec<Entry<B>>),
    /// To `LoadFollows`.
    FollowsLoaded(Box<Follows>),
    /// To `LoadCursor`.
    CursorLoaded {
        /// The device's cursor; `None` if it has none.
        at: Option<EntryId>,
        /// The last entry that retention took from the log; 0-0 if there is none.
        trimmed: EntryId,
        /// If it was asked for: the last id that the log has given out; 0-0 if there is no log.
        end: Option<EntryId>,
    },
    /// To `WriteCursor`.
    CursorWritten {
        /// If it was asked for: the recorded generation, `None` if the record is gone.
        generation: Option<u64>,
    },
    /// To `ReadTopic`.
    TopicRead {
        /// What the log holds.
        entries: Vec<Entry<B>>,
        /// The last entry that retention took from the log; 0-0 if there is none.
        trimmed: EntryId,
    },
    /// To `RereadTopic`: those that still exist.
    TopicReread(Vec<Entry<B>>),
    /// To `Follow`: the limit if it would be exceeded.
    Followed(Result<FollowChange, u64>),
    /// To `Record`: for each receipt, whether it was the first record.
    Recorded(Vec<bool>),
    /// To the others.
    Done,
    /// It did not work.
    Failed(Failure),
}

/// A successful attach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attachment {
    /// Ours from now on.
    pub generation: u64,
    /// Whether the device is new.
    pub created: bool,
    /// Inbox incarnation.
    pub incarnation: u64,
    /// Unacknowledged plus undelivered messages, if known.
    pub pending: Option<u64>,
    /// The last entry that was read for the device.
    pub last_delivered: EntryId,
    /// The device's group began after this entry.
    pub start: EntryId,
    /// The open gap.
    pub gap: Option<Gap>,
    /// Entries in the inbox.
    pub length: u64,
    /// Whether another session had the device.
    pub took_over: bool,
    /// When it happened, Unix ms by Redis's clock.
    pub now_ms: u64,
    /// Tokens that were issued until then, in Unix seconds, are refused for this user; 0: none.
    pub refuse_before_s: u64,
    /// Generation with which the device came online, for presence; 0 if nobody asks.
    pub period: u64,
    /// The owner that announces this presence until now; empty: nobody does yet.
    pub announcer: Box<str>,
}

/// Why an attach was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AttachRefusal {
    /// A later connection of the same client object is attached.
    Stale,
    /// Repair: another session owns the device.
    Superseded,
    /// Repair: the record is gone. `primary` is what `homing:epoch` holds now, if it exists.
    Removed {
        /// Primary epoch in Redis.
        primary: Option<u64>,
    },
    /// Too many devices.
    TooMany,
    /// The session that attaches again was ended by somebody else, or its token is refused.
    Dismissed(Dismissal),
}

/// Why a command has no useful reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The connection is gone: whether it was executed is unknown.
    Disconnected,
    /// Redis refuses for now.
    Refused,
    /// The functions are not loaded; they will be in a moment.
    NotLoaded,
    /// No such stream or group.
    NoGroup,
    /// The inbox is no stream.
    WrongType,
    /// Something else.
    Unexpected,
}

/// What the driver shall do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a text frame.
    Send(String),
    /// Send the frame of the topic batch that is being handled.
    SendBatch,
    /// This session wants to be told of a topic's new entries.
    Follow(Topic),
    /// It does not want that any more.
    Unfollow(Topic),
    /// The user follows these topics now, or does not any more: lists of followers must say so, whether or not they did.
    FollowsChanged(Box<FollowChange>),
    /// Send a close frame, after what was sent before, and end the connection.
    Close(CloseCode),
    /// `homing:epoch` must be looked at: a record vanished under a live session.
    SuspectEpoch,
    /// For metrics: a message was put into a frame.
    Delivered {
        /// Milliseconds of its id.
        ms: u64,
        /// Attempt.
        attempt: u32,
    },
    /// For metrics: messages of this session were acknowledged; for each, ms since its last delivery.
    Acknowledged {
        /// Since its last delivery.
        after_ms: u64,
    },
    /// For metrics and the trim: entries left the pending list by `XACK`.
    Acked {
        /// How many.
        count: u32,
        /// What those that this session delivered were charged, in bytes.
        bytes: usize,
    },
    /// For metrics: a topic's message was acknowledged.
    TopicAcked,
    /// For metrics: a message expired undelivered.
    Expired,
    /// For metrics: messages were dropped.
    Dropped {
        /// Why.
        reason: GapReason,
        /// How many.
        count: u32,
    },
    /// For metrics: a frame of the client was answered with an error.
    Refused(ErrorCode),
    /// For metrics: a gap frame was sent.
    GapTold(GapReason),
    /// For metrics: this session found itself no longer the owner, or entries that it did not know.
    Stale,
}
