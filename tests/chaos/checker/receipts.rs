//! Receipts: each tells of an ack that a client sent, and of each ack one tells.

use std::collections::HashMap;

use super::entry_id::EntryId;

/// What a device got that asked for a receipt.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// When its client first sent an ack, and when one was confirmed.
    acked_us: Option<u64>,
    confirmed_us: Option<u64>,
    /// The stream told of it.
    told: bool,
}

/// An ack of which the stream has not told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Untold {
    pub(crate) id: EntryId,
    /// It was executed between these moments, if it was.
    pub(crate) from_us: u64,
    pub(crate) until_us: u64,
}

/// Of one device, by the message's id.
#[derive(Debug, Default)]
pub(crate) struct Receipts(HashMap<EntryId, Asked>);

impl Receipts {
    pub(crate) fn delivered(&mut self, id: EntryId) {
        self.0.entry(id).or_default();
    }

    pub(crate) fn acked(&mut self, now_us: u64, id: EntryId) {
        if let Some(asked) = self.0.get_mut(&id) {
            asked.acked_us.get_or_insert(now_us);
        }
    }

    pub(crate) fn confirmed(&mut self, now_us: u64, id: EntryId) {
        if let Some(asked) = self.0.get_mut(&id) {
            asked.confirmed_us.get_or_insert(now_us);
        }
    }

    /// Somebody was told of an ack; false if no client has sent one, or nobody had asked.
    pub(crate) fn told(&mut self, id: EntryId, by_stream: bool) -> bool {
        let Some(asked) = self.0.get_mut(&id) else { return false };
        asked.told |= by_stream;
        asked.acked_us.is_some()
    }

    pub(crate) fn untold(&self) -> impl Iterator<Item = Untold> {
        let untold = self.0.iter().filter(|(_, asked)| !asked.told);
        untold.filter_map(|(id, asked)| {
            Some(Untold { id: *id, from_us: asked.acked_us?, until_us: asked.confirmed_us.unwrap_or(u64::MAX) })
        })
    }
}
