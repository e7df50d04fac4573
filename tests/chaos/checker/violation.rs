//! What a history can prove to be wrong, each a sentence that names what to look for in it.

use std::fmt;

use super::entry_id::EntryId;

/// Whose inbox, as one of its devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whose {
    pub(crate) user: String,
    pub(crate) device: String,
}

impl fmt::Display for Whose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.user, self.device)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Accepted, owed, neither delivered nor held, and no fault was declared that may lose it.
    Lost {
        whose: Whose,
        tag: String,
        accepted_us: u64,
    },
    /// Lost within a declared window, but the device was not told by a gap.
    LostUntold {
        whose: Whose,
        tag: String,
        fault: u32,
        kind: String,
    },
    /// Redis holds it, the device is healthy and connected, everything was healed and drained: and it did not come.
    Stuck {
        whose: Whose,
        tag: String,
    },
    /// It came, was not acked, and did not come again, although nothing holds it any more.
    NotRepeated {
        whose: Whose,
        tag: String,
    },
    /// Of a topic that its user surely did not follow when it was published.
    NotFollowed {
        whose: Whose,
        connection: u64,
        tag: String,
        topic: String,
    },
    /// A device that Redis knew is said to be new, although nothing had lost it.
    MadeAnew {
        whose: Whose,
        connection: u64,
    },
    OutOfOrder {
        whose: Whose,
        epoch: String,
        connection: u64,
        tag: String,
        id: EntryId,
        after: EntryId,
    },
    /// The same entry came twice as if it were new.
    RepeatedAsNew {
        whose: Whose,
        epoch: String,
        connection: u64,
        tag: String,
        id: EntryId,
    },
    /// The ack was confirmed in this epoch, and the message came again.
    RepeatedAfterAck {
        whose: Whose,
        epoch: String,
        connection: u64,
        tag: String,
        id: EntryId,
    },
    RefusedButDelivered {
        tag: String,
    },
    NeverPublished {
        whose: Whose,
        connection: u64,
        tag: String,
    },
    /// Delivered with an id that no answer gave, and more often than unknown outcomes explain.
    WrongId {
        tag: String,
        published: String,
        delivered: String,
    },
    /// A keyed message, or one sent once, that exists twice.
    SeveralIds {
        tag: String,
        ids: String,
    },
    /// Of another user, or of another topic.
    ForeignUser {
        whose: Whose,
        connection: u64,
        tag: String,
        owner: String,
    },
    /// A producer was told of an ack that no client had sent, or that nobody had asked about.
    ReceiptUnfounded {
        whose: Whose,
        id: String,
    },
    /// A client acked a message that asked for a receipt; Redis does not hold it any more, and the stream never told.
    ReceiptMissing {
        whose: Whose,
        id: EntryId,
    },
    /// Closed as replaced, and no other device can have replaced it.
    ReplacedByNobody {
        whose: Whose,
        connection: u64,
    },
    /// Another device of a user of whom one may be connected had replaced it long before.
    Outstayed {
        whose: Whose,
        us: u64,
    },
    ResourceNotReturned {
        process: String,
        what: &'static str,
        baseline: u64,
        end: u64,
        allowed: u64,
    },
    /// The nodes count more sessions than clients have connections.
    SessionsLeaked {
        sessions: u64,
        connections: u64,
    },
    TooLate {
        when: String,
        p99_us: u64,
        bound_us: u64,
        deliveries: usize,
    },
    /// The history contradicts itself: what was recorded cannot be judged.
    BadHistory {
        line: u64,
        why: String,
    },
}

impl Violation {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Lost { .. } => "lost",
            Self::LostUntold { .. } => "lost_untold",
            Self::Stuck { .. } => "stuck",
            Self::NotRepeated { .. } => "not_repeated",
            Self::NotFollowed { .. } => "not_followed",
            Self::MadeAnew { .. } => "made_anew",
            Self::OutOfOrder { .. } => "out_of_order",
            Self::RepeatedAsNew { .. } => "repeated_as_new",
            Self::RepeatedAfterAck { .. } => "repeated_after_ack",
            Self::RefusedButDelivered { .. } => "refused_but_delivered",
            Self::NeverPublished { .. } => "never_published",
            Self::WrongId { .. } => "wrong_id",
            Self::SeveralIds { .. } => "several_ids",
            Self::ForeignUser { .. } => "foreign_user",
            Self::ReceiptUnfounded { .. } => "receipt_unfounded",
            Self::ReceiptMissing { .. } => "receipt_missing",
            Self::ReplacedByNobody { .. } => "replaced_by_nobody",
            Self::Outstayed { .. } => "outstayed",
            Self::ResourceNotReturned { .. } => "resource_not_returned",
            Self::SessionsLeaked { .. } => "sessions_leaked",
            Self::TooLate { .. } => "too_late",
            Self::BadHistory { .. } => "bad_history",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { whose, tag, accepted_us } => write!(
                out,
                "{whose} never got {tag}, accepted at {accepted_us} us; Redis does not hold it, and no fault may lose it"
            ),
            Self::LostUntold { whose, tag, fault, kind } => {
                write!(out, "{whose} lost {tag} in fault {fault} ({kind}) and was not told by a gap after it")
            }
            Self::Stuck { whose, tag } => {
                write!(out, "{whose} is healthy, connected and drained, but {tag} still waits in Redis undelivered")
            }
            Self::NotRepeated { whose, tag } => {
                write!(
                    out,
                    "{whose} got {tag}, never acked it, and it did not come again; Redis does not hold it for it"
                )
            }
            Self::NotFollowed { whose, connection, tag, topic } => {
                write!(
                    out,
                    "{whose} got {tag} of {topic} on connection {connection}, which its user did not follow then"
                )
            }
            Self::MadeAnew { whose, connection } => {
                write!(
                    out,
                    "{whose} is said to be new on connection {connection}, which it was not, and nothing lost it"
                )
            }
            Self::OutOfOrder { whose, epoch, connection, tag, id, after } => write!(
                out,
                "{whose} got {tag} ({id}) as new after {after}, in epoch {epoch} on connection {connection}"
            ),
            Self::RepeatedAsNew { whose, epoch, connection, tag, id } => {
                write!(out, "{whose} got {tag} ({id}) as new twice, in epoch {epoch}, again on connection {connection}")
            }
            Self::RepeatedAfterAck { whose, epoch, connection, tag, id } => write!(
                out,
                "{whose} got {tag} ({id}) again after its ack was confirmed, in epoch {epoch} on connection {connection}"
            ),
            Self::RefusedButDelivered { tag } => write!(out, "{tag} was refused each time, and was delivered"),
            Self::NeverPublished { whose, connection, tag } => {
                write!(out, "{whose} got {tag} on connection {connection}, which nobody published")
            }
            Self::WrongId { tag, published, delivered } => {
                write!(out, "{tag} was published as {published} and delivered as {delivered}")
            }
            Self::SeveralIds { tag, ids } => write!(out, "{tag} exists more often than it may: {ids}"),
            Self::ForeignUser { whose, connection, tag, owner } => {
                write!(out, "{whose} got {tag} on connection {connection}, which belongs to {owner}")
            }
            Self::ReceiptUnfounded { whose, id } => {
                write!(
                    out,
                    "a receipt says that {whose} acked {id}, which it had not, or which did not ask for receipts"
                )
            }
            Self::ReceiptMissing { whose, id } => {
                write!(out, "{whose} acked {id}, which asked for a receipt; it is gone from Redis, and no receipt came")
            }
            Self::ReplacedByNobody { whose, connection } => {
                write!(
                    out,
                    "{whose} was closed as replaced on connection {connection}, and nobody can have replaced it"
                )
            }
            Self::Outstayed { whose, us } => {
                write!(out, "{whose} was still connected {us} us after another device of its user had replaced it")
            }
            Self::ResourceNotReturned { process, what, baseline, end, allowed } => {
                write!(out, "{process} ended with {end} {what}; it began with {baseline} and may keep {allowed}")
            }
            Self::SessionsLeaked { sessions, connections } => {
                write!(out, "the nodes count {sessions} sessions at the end, for {connections} connections")
            }
            Self::TooLate { when, p99_us, bound_us, deliveries } => write!(
                out,
                "healthy clients' p99 was {p99_us} us over {deliveries} deliveries {when}; the bound is {bound_us} us"
            ),
            Self::BadHistory { line, why } => write!(out, "line {line} of the history cannot be: {why}"),
        }
    }
}
