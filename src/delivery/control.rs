//! Control messages between nodes: what the functions of `migrations/` publish, and what a node tells all others.

use homing_protocol::frame::{Gap, GapReason};
use homing_protocol::session::Dismissal;
use serde::{Deserialize, Serialize};

/// A message on a control channel. `generation` is text because it would lose digits as a number in Lua.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Control {
    /// Another session took the device over.
    Superseded { user: String, device: String, generation: String },
    /// An earlier owner hands out nothing more: read the pending list again.
    Release { user: String, device: String },
    /// The device was deleted.
    Removed { user: String, device: String, generation: String },
    /// Messages of the device were dropped.
    Gap { user: String, device: String, gap: GapRecord },
    /// The user follows other topics now.
    Topics { user: String },
    /// The session was replaced by one of another device.
    Replaced { user: String, device: String, generation: String },
    /// An operator ended the session.
    Kicked { user: String, device: String, generation: String, reason: String },
    /// The session's token is refused now.
    Refused { user: String, device: String, generation: String },
    /// Something became of a message that somebody at this node waits for. `token` says who, as text like `generation`.
    Receipt { token: String, device: String, event: String },
    /// A node had to restore the notification flags: wake-ups may have been lost everywhere.
    FlagsRestored,
}

/// Why a device's record says that its session must end.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct DismissalRecord {
    kind: String,
    #[serde(default)]
    reason: String,
}

impl From<DismissalRecord> for Dismissal {
    /// What a later version may write ends the session as if it were kicked.
    fn from(record: DismissalRecord) -> Self {
        match record.kind.as_str() {
            "replaced" => Self::Replaced,
            "refused" => Self::TokenRefused,
            _ => Self::Kicked(record.reason.into()),
        }
    }
}

impl DismissalRecord {
    /// One whose parts stand apart.
    pub(crate) fn new(kind: &str, reason: &str) -> Self {
        Self { kind: kind.to_owned(), reason: reason.to_owned() }
    }
}

/// A gap as it stands in a device's record.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub(crate) struct GapRecord {
    id: String,
    reason: String,
    count: u64,
}

impl From<GapRecord> for Gap {
    fn from(record: GapRecord) -> Self {
        Self { id: record.id.into(), reason: GapReason::parse(&record.reason), count: record.count }
    }
}

impl GapRecord {
    /// A gap from its JSON; none from an empty text.
    pub(crate) fn parse(text: &str) -> Option<Gap> {
        serde_json::from_str::<Self>(text).ok().map(Gap::from)
    }
}
