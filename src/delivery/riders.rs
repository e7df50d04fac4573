//! Appends that producers leave here because this shard reads the inbox: they leave in its pipeline, in front of the read.
//!
//! Each is announced by Redis all the same, and what it is about has been read by then. So as many events are taken for
//! these as there were such appends, and only others wake sessions up. Invariant: whatever is appended behind the last
//! read that was sent wakes its session up, by an event or by the refusal that it was taken for (ADR 0019 says why, whichever
//! event is taken for which).

use std::time::Duration;

use homing_protocol::session::Now;

use super::shard::Shard;
use crate::store::Rider;
use crate::store::resp::{Commands, Reader};

/// A pipeline that takes longer does not let producers wait for it, with a resolution of a tick.
const PIPELINE_MAX: Duration = Duration::from_millis(50);

impl Shard {
    /// Adds what waits to the pipeline, and has its inboxes read behind it.
    pub(super) fn take_riders(&mut self, now: Now, pipeline: &mut Commands) -> Vec<Rider> {
        if !std::mem::take(&mut self.riders_wait) {
            return Vec::new();
        }
        let riders = self.store.piggyback().take(pipeline);
        for rider in &riders {
            self.sessions.expect_event(rider.user().as_str(), now);
            self.wake(rider.user().as_str(), now);
        }
        riders
    }

    pub(super) fn complete_rider(&mut self, rider: &mut Rider, replies: &mut Reader<'_>, now: Now) {
        if !rider.complete(replies) {
            self.sessions.expect_no_event(rider.user().as_str());
            // Another event may have been taken for the one that does not come.
            self.wake(rider.user().as_str(), now);
        }
    }

    /// Producers do not wait for a pipeline that takes long; those whose appends are in it, only as long as on a connection of
    /// theirs. The reads in it are never given up.
    pub(super) fn tick_riders(&mut self) {
        let Some(flight) = &mut self.io.flight else { return };
        let took = flight.sent.elapsed();
        if took > PIPELINE_MAX {
            self.store.piggyback().close();
        }
        if took > self.limits.redis_reply_timeout {
            flight.riders().for_each(|rider| rider.lose("Redis did not answer in time"));
        }
    }
}
