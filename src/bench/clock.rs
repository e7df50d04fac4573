//! Time that all processes of a measurement share, and waiting for a moment more exactly than tokio's timers can.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Microseconds of the system's monotonic clock: the same in every process of this machine, and never set back.
pub(crate) fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}

/// Unix time in seconds.
pub(crate) fn unix_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Waits for moments of [`now_us`].
///
/// tokio's timers are exact to a millisecond, and late rather than early: a latency that is counted from the intended
/// time would hold that millisecond. The kernel's timer is exact to some 50 µs.
#[cfg(target_os = "linux")]
pub(crate) struct Pacer(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Pacer {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for types that lie about their descriptor; `OwnedFd` does not"
    )]
    pub(crate) fn new() -> std::io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(tokio::io::unix::AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
    }

    /// Returns at `at_us`, or at once if that has passed.
    pub(crate) async fn until(&self, at_us: u64) -> std::io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        if now_us() >= at_us {
            return Ok(());
        }
        let at = Timespec { tv_sec: (at_us / 1_000_000) as i64, tv_nsec: (at_us % 1_000_000 * 1_000) as _ };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        loop {
            let mut guard = self.0.readable().await?;
            let mut expirations = [0; 8];
            match rustix::io::read(self.0.get_ref(), &mut expirations) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Elsewhere, tokio's timers have to do.
#[cfg(not(target_os = "linux"))]
pub(crate) struct Pacer;

#[cfg(not(target_os = "linux"))]
impl Pacer {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    /// Returns at `at_us`, or at once if that has passed.
    pub(crate) async fn until(&self, at_us: u64) -> std::io::Result<()> {
        tokio::time::sleep(Duration::from_micros(at_us.saturating_sub(now_us()))).await;
        Ok(())
    }
}

/// Microseconds of a duration.
pub(crate) fn us(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pacer_is_never_early_and_does_not_wait_for_the_past() {
        let pacer = Pacer::new().unwrap();
        let begin = now_us();
        pacer.until(begin + 3_000).await.unwrap();
        assert!(now_us() >= begin + 3_000);
        let begin = now_us();
        pacer.until(begin - 1).await.unwrap();
        pacer.until(now_us() + 1_000).await.unwrap();
        assert!(now_us() >= begin + 1_000);
    }
}
