//! Control messages between nodes: what the functions of `migrations/` publish, and what a node tells all others.

use homing_protocol::frame::{Gap, GapReason};
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
    /// Something became of a message that somebody at this node waits for. `token` says who, as text like `generation`.
    Receipt { token: String, device: String, event: String },
    /// A node had to restore the notification flags: wake-ups may have been lost everywhere.
    FlagsRestored,
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
