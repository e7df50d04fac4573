//! The end of a shard: closes spread over time, then acks flushed, devices released, inboxes trimmed.

use homing_protocol::session::Now;

use super::sessions::SessionKey;
use super::shard::{Shard, Stop, millis};

/// What drained clients are told to wait at most: each a little differently, so that they do not come back at once.
const RETRY_AFTER_MS_MAX: u64 = 2_000;

/// A drain under way.
pub(super) struct Draining {
    keys: Vec<SessionKey>,
    closed: usize,
    begun_ms: u64,
    spread_ms: u64,
}

impl Shard {
    pub(super) fn handle_stop(&mut self, stop: Stop) {
        let now = self.now();
        let Stop::Drain { spread } = stop else { return };
        self.draining =
            Some(Draining { keys: self.sessions.keys(), closed: 0, begun_ms: now.mono_ms, spread_ms: millis(spread) });
        self.tick_drain(now);
    }

    /// Closes as many sessions as the time that has passed says.
    pub(super) fn tick_drain(&mut self, now: Now) {
        let Some(draining) = &mut self.draining else { return };
        let passed_ms = now.mono_ms - draining.begun_ms;
        let total = draining.keys.len();
        let target = match passed_ms.checked_mul(total as u64) {
            Some(product) if draining.spread_ms > 0 => (product / draining.spread_ms) as usize,
            _ => total,
        };
        let target = target.min(total);
        let due: Vec<(usize, SessionKey)> =
            (draining.closed..target).map(|index| (index, draining.keys[index])).collect();
        draining.closed = draining.closed.max(target);
        for (index, key) in due {
            let Some(held) = self.sessions.get_mut(key) else { continue };
            let retry_after_ms = (index as u64 * 97) % RETRY_AFTER_MS_MAX;
            held.session.handle_drain(retry_after_ms, &mut self.actions);
            self.attend(key, now);
        }
    }

    /// All sessions have been told to go: what is left to do is done at once.
    pub(super) fn is_ending(&self) -> bool {
        self.draining.as_ref().is_some_and(|draining| draining.closed == draining.keys.len())
    }

    /// Nothing is left to do.
    pub(super) fn is_drained(&self) -> bool {
        self.is_ending()
            && self.sessions.len() == 0
            && self.io.flight.is_none()
            && self.orders.is_empty()
            && self.deferred.is_empty()
    }
}
