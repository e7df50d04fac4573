//! When to connect again: full jitter, from half a second doubling to half a minute.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const MAX: Duration = Duration::from_secs(30);
/// A connection that lasted this long was a good one: the next failure counts as the first.
const GOOD: Duration = Duration::from_secs(30);

/// Counts failures.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after a failure. Never less than the server asked for, so
    /// the jitter comes on top of that: it asks many clients at once.
    pub(super) fn pause(&mut self, connected_for: Option<Duration>, retry_after: Option<Duration>) -> Duration {
        if connected_for.is_some_and(|lasted| lasted >= GOOD) {
            self.failures = 0;
        }
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(10)).min(MAX);
        self.failures = self.failures.saturating_add(1);
        retry_after.unwrap_or_default() + ceiling.mul_f64(fraction())
    }
}

/// A random number in 0..1.
fn fraction() -> f64 {
    uuid::Uuid::new_v4().as_u64_pair().0 as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_half_a_minute_and_begin_anew_after_a_good_connection() {
        let mut backoff = Backoff::default();
        for failure in 0..40 {
            let ceiling = FIRST.saturating_mul(1 << failure.min(6)).min(MAX);
            assert!(backoff.pause(None, None) <= ceiling);
        }
        assert!(backoff.pause(Some(Duration::from_secs(31)), None) <= FIRST);
    }

    #[test]
    fn the_server_is_never_called_before_it_asked_to_be() {
        let retry_after = Duration::from_secs(7);
        for _ in 0..20 {
            assert!(Backoff::default().pause(None, Some(retry_after)) >= retry_after);
        }
    }
}
