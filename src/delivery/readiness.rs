//! Whether messages get through: what `/readyz` says.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Time without a successful probe after which a node is not ready.
pub const RED_AFTER: Duration = Duration::from_secs(15);
/// Time of successful probes alone after which it is ready again.
pub const GREEN_AFTER: Duration = Duration::from_secs(5);

/// No run of successes.
const NONE: u64 = u64::MAX;

/// The outcomes of all shards' probes. A node is ready if every shard's probes come back and it is not draining.
///
/// All times are milliseconds of one monotonic clock of the caller. Each shard's fields are written by that shard alone
/// and may be read by any thread; a reader is at worst a probe late, so the loads and stores need no order.
#[derive(Debug)]
pub struct Readiness {
    shards: Box<[Shard]>,
    draining: AtomicBool,
}

#[derive(Debug)]
struct Shard {
    /// The last success, or the start of the node.
    last_ok_ms: AtomicU64,
    /// When the present run of successes began, or [`NONE`].
    run_start_ms: AtomicU64,
    green: AtomicBool,
    /// Whether a probe has ever come back: a node that never failed need not wait for [`GREEN_AFTER`].
    proven: AtomicBool,
}

impl Readiness {
    /// A node that starts now, not ready until each of its shards had a probe come back.
    #[must_use]
    pub fn new(shards: usize, now_ms: u64) -> Self {
        let shard = || Shard {
            last_ok_ms: AtomicU64::new(now_ms),
            run_start_ms: AtomicU64::new(NONE),
            green: AtomicBool::new(false),
            proven: AtomicBool::new(false),
        };
        Self { shards: std::iter::repeat_with(shard).take(shards).collect(), draining: AtomicBool::new(false) }
    }

    /// A probe of a shard came back. `shard` is less than the number given to [`Self::new`].
    pub fn probe_ok(&self, shard: usize, now_ms: u64) {
        self.shards[shard].ok(now_ms);
    }

    /// A probe of a shard failed or did not come back in time.
    pub fn probe_failed(&self, shard: usize, now_ms: u64) {
        self.shards[shard].failed(now_ms);
    }

    /// The node drains from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the node drains.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether `/readyz` is green.
    #[must_use]
    pub fn is_ready(&self, now_ms: u64) -> bool {
        !self.is_draining() && self.failing_shard(now_ms).is_none()
    }

    /// The first shard whose probes do not come back, for the admin listener's explanation.
    #[must_use]
    pub fn failing_shard(&self, now_ms: u64) -> Option<usize> {
        self.shards.iter().position(|shard| !shard.is_green(now_ms))
    }
}

impl Shard {
    fn ok(&self, now_ms: u64) {
        if self.is_overdue(now_ms) {
            self.fall_red();
        }
        let mut run_start_ms = self.run_start_ms.load(Ordering::Relaxed);
        if run_start_ms == NONE {
            run_start_ms = now_ms;
            self.run_start_ms.store(now_ms, Ordering::Relaxed);
        }
        let first = !self.proven.swap(true, Ordering::Relaxed);
        if first || now_ms.saturating_sub(run_start_ms) >= millis(GREEN_AFTER) {
            self.green.store(true, Ordering::Relaxed);
        }
        self.last_ok_ms.store(now_ms, Ordering::Relaxed);
    }

    fn failed(&self, now_ms: u64) {
        self.run_start_ms.store(NONE, Ordering::Relaxed);
        if self.is_overdue(now_ms) {
            self.fall_red();
        }
    }

    fn fall_red(&self) {
        self.green.store(false, Ordering::Relaxed);
        self.run_start_ms.store(NONE, Ordering::Relaxed);
    }

    /// A shard that hangs reports nothing, so the reader looks at the time as well.
    fn is_green(&self, now_ms: u64) -> bool {
        self.green.load(Ordering::Relaxed) && !self.is_overdue(now_ms)
    }

    fn is_overdue(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.last_ok_ms.load(Ordering::Relaxed)) >= millis(RED_AFTER)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A probe every second from `from_s` to `to_s`, both included.
    fn probe(readiness: &Readiness, from_s: u64, to_s: u64, ok: bool) {
        for now_ms in (from_s..=to_s).map(|second| second * 1_000) {
            if ok { readiness.probe_ok(0, now_ms) } else { readiness.probe_failed(0, now_ms) }
        }
    }

    #[test]
    fn a_new_node_is_ready_once_every_shard_had_a_probe_come_back() {
        let readiness = Readiness::new(2, 0);
        assert!(!readiness.is_ready(0));
        readiness.probe_ok(0, 100);
        assert_eq!(readiness.failing_shard(100), Some(1));
        readiness.probe_ok(1, 200);
        assert!(readiness.is_ready(200));
    }

    #[test]
    fn failures_turn_it_red_after_15_seconds_and_not_before() {
        let readiness = Readiness::new(1, 0);
        probe(&readiness, 1, 10, true);
        probe(&readiness, 11, 24, false);
        assert!(readiness.is_ready(24_999));
        assert!(!readiness.is_ready(25_000));
    }

    #[test]
    fn successes_turn_it_green_after_5_seconds_without_a_failure() {
        let readiness = Readiness::new(1, 0);
        probe(&readiness, 1, 1, true);
        probe(&readiness, 2, 30, false);
        probe(&readiness, 31, 35, true);
        assert!(!readiness.is_ready(35_000));
        readiness.probe_failed(0, 35_500);
        probe(&readiness, 36, 40, true);
        assert!(!readiness.is_ready(40_000), "the failure started the 5 seconds anew");
        probe(&readiness, 41, 41, true);
        assert!(readiness.is_ready(41_000));
    }

    #[test]
    fn single_failures_among_successes_do_not_turn_it_red() {
        let readiness = Readiness::new(1, 0);
        for second in 1..100 {
            probe(&readiness, second, second, second % 3 == 0);
            assert!(second < 3 || readiness.is_ready(second * 1_000));
        }
    }

    #[test]
    fn a_shard_that_reports_nothing_turns_it_red() {
        let readiness = Readiness::new(1, 0);
        readiness.probe_ok(0, 1_000);
        assert!(!readiness.is_ready(16_000));
        readiness.probe_ok(0, 17_000);
        assert!(!readiness.is_ready(17_000), "one success after the silence is not 5 seconds of success");
    }

    #[test]
    fn a_draining_node_is_red_whatever_its_probes_say() {
        let readiness = Readiness::new(1, 0);
        probe(&readiness, 1, 10, true);
        readiness.drain();
        assert!(!readiness.is_ready(10_000));
        assert_eq!(readiness.failing_shard(10_000), None);
    }
}
