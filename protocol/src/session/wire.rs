//! What passes between the session machine and its driver.

use super::receipts::{Receipt, Wish};
use crate::close::CloseCode;
use crate::code::ErrorCode;
use crate::frame::{Connect, Gap, GapReason};
use crate::id::EntryId;
use crate::message::Entry;
use crate::name::Name;

/// The time, as the driver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Now {
    /// Monotonic milliseconds since some start; never 0.
    pub mono_ms: u64,
    /// Unix time in milliseconds.
    pub unix_ms: u64,
}

/// Limits that all sessions of a node share. Times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionConfig {
    /// Default window.
    pub window: u16,
    /// Bytes of payload in flight.
    pub in_flight_bytes_max: usize,
    /// First ack time-out.
    pub ack_timeout_ms: u64,
    /// Longest ack time-out.
    pub ack_timeout_max_ms: u64,
    /// Default heartbeat.
    pub heartbeat_ms: u32,
    /// Time between sweeps.
    pub sweep_ms: u64,
    /// Time between refreshes of the device's last-seen time.
    pub touch_ms: u64,
    /// Largest payload.
    pub payload_bytes_max: usize,
    /// Largest frame with several messages.
    pub frame_bytes_max: u32,
    /// Frames per second that a client may send.
    pub frames_per_second: u32,
    /// Frames that a client may send at once.
    pub frames_burst: u32,
}

/// What a session is opened with.
#[derive(Clone, Debug)]
pub struct Open {
    /// From the token.
    pub user: Name,
    /// From the token or the `connect` frame.
    pub device: Name,
    /// The `connect` frame.
    pub connect: Connect,
    /// When the token expires, Unix ms.
    pub expires_at_ms: u64,
    /// The node's primary epoch.
    pub primary: u64,
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
    /// Generation that must still be recorded, for a repair.
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
    /// Nothing more will be handed out for this generation.
    Release {
        /// Ours.
        generation: u64,
        /// The session has ended.
        ended: bool,
    },
}

/// Acks for one pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AckBatch {
    /// Ids that this session delivered: one `XACK` for all.
    pub own: Vec<EntryId>,
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
    /// To `Record`: for each receipt, whether it was the first record.
    Recorded(Vec<bool>),
    /// To the others.
    Done,
    /// It did not work.
    Failed(Failure),
}

/// A successful attach.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
}

/// Why an attach was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    },
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
