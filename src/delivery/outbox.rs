//! What a turn decided to send, written once the next pipeline is on its way, so that Redis does not wait meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;

use super::outlet::{Frame, Outlet};
use super::sessions::SessionKey;
use super::shard::Shard;

/// Outlets that are written before others get their turn: each costs some microseconds.
const WRITES_MAX: usize = 128;

/// Outlets to be written, oldest first.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    due: VecDeque<(SessionKey, Arc<Outlet>)>,
    /// Those that wait while topics are handed out; empty between.
    aside: VecDeque<(SessionKey, Arc<Outlet>)>,
    scratch: Vec<u8>,
}

impl Shard {
    /// Sends a frame in this turn.
    pub(super) fn push(&mut self, key: SessionKey, frame: Frame) {
        let Some(held) = self.sessions.get_mut(key) else { return };
        if held.outlet.push(frame) {
            self.outbox.due.push_back((key, held.outlet.clone()));
        }
    }

    /// Writes some of what is to be sent, and hands out some of what topics brought, by turns, so that neither waits for
    /// all of the other; true if there is more.
    pub(super) fn hand_out(&mut self) -> bool {
        self.write_frames(WRITES_MAX);
        if !self.fan_outs.is_empty() {
            std::mem::swap(&mut self.outbox.due, &mut self.outbox.aside);
            self.fan_out();
            // While it is in the caches.
            self.write_frames(usize::MAX);
            std::mem::swap(&mut self.outbox.due, &mut self.outbox.aside);
        }
        !self.outbox.due.is_empty() || !self.fan_outs.is_empty()
    }

    fn write_frames(&mut self, count_max: usize) {
        for _ in 0..count_max {
            let Some((key, outlet)) = self.outbox.due.pop_front() else { return };
            if outlet.write_out(&mut self.outbox.scratch) {
                let now = self.now();
                self.attend(key, now);
            }
        }
    }
}
