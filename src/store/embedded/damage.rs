//! Whether the append-only log can be read again, judged by what Redis says about it. Without clock and I/O.
//!
//! Redis 7.0.15 goes on by itself once a full disk has room again, but its log may be unreadable from the short write
//! on: Redis would not start on it. A rewrite, begun after the write error was over, makes a sound log from memory.
//! One begun before it is not enough: what Redis holds back then goes to the old log and the new one.

use std::time::{Duration, Instant};

/// Pause after a first rewrite that failed; doubles with each. A rewrite writes all data once more, so where there is
/// not enough room it fills the disk itself for a moment, and publishes are refused meanwhile.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// The longest that this pause grows to.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(600);

/// What one look at Redis showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// The process that answered.
    pub(super) process: u32,
    /// Its last write to the log went well.
    pub(super) is_writable: bool,
    /// Its journal tells of a write error that ended since the last look.
    pub(super) has_recovered: bool,
    /// A rewrite runs or waits for its turn.
    pub(super) is_rewriting: bool,
    /// Its last rewrite went well, or there was none.
    pub(super) last_rewrite_ok: bool,
}

/// What a look calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Redis cannot write its log any more.
    Unwritable,
    /// The log must be rewritten now; [`Damage::begun`] or [`Damage::failed`] follows.
    MustRewrite,
    /// A rewrite for the damage's sake failed; the next comes after this pause.
    Failed(Duration),
    /// A rewrite of Redis's own failed. Its log is whole, and Redis tries again when it sees fit.
    OwnRewriteFailed,
    /// The log is sound again.
    Mended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sound,
    Unwritable,
    /// It can be written again, and may not be readable.
    Suspect,
    /// A rewrite that began after the write error is under way.
    Mending,
}

/// What is known of the log.
#[derive(Clone, Debug)]
pub(super) struct Damage {
    state: State,
    process: Option<u32>,
    last_rewrite_ok: bool,
    retry_at: Option<Instant>,
    pause: Duration,
}

impl Damage {
    pub(super) fn none() -> Self {
        Self { state: State::Sound, process: None, last_rewrite_ok: true, retry_at: None, pause: RETRY_PAUSE }
    }

    /// Whether a rewrite is owed that can be expected to work: there is room, and none has failed.
    pub(super) fn is_being_mended(&self) -> bool {
        matches!(self.state, State::Suspect | State::Mending) && self.retry_at.is_none()
    }

    pub(super) fn look(&mut self, look: Look, now: Instant) -> Option<Finding> {
        if self.process != Some(look.process) {
            // A new process has read its log to the end, or it would not answer.
            *self = Self { process: Some(look.process), ..Self::none() };
        }
        let rewrites_began_to_fail = self.last_rewrite_ok && !look.last_rewrite_ok;
        self.last_rewrite_ok = look.last_rewrite_ok;
        if !look.is_writable {
            let before = std::mem::replace(&mut self.state, State::Unwritable);
            if before == State::Mending {
                // Perhaps the rewrite itself took the room: it must not do so at once again.
                self.put_off(now);
            }
            return (before != State::Unwritable).then_some(Finding::Unwritable);
        }
        if self.state == State::Unwritable || look.has_recovered {
            self.state = State::Suspect;
        }
        match self.state {
            State::Suspect if !look.is_rewriting && self.retry_at.is_none_or(|at| at <= now) => {
                Some(Finding::MustRewrite)
            }
            State::Mending if !look.is_rewriting => Some(match look.last_rewrite_ok {
                true => {
                    *self = Self { process: self.process, ..Self::none() };
                    Finding::Mended
                }
                false => Finding::Failed(self.failed(now)),
            }),
            State::Sound if rewrites_began_to_fail => Some(Finding::OwnRewriteFailed),
            _ => None,
        }
    }

    /// Redis has begun the rewrite, or will when it can.
    pub(super) fn begun(&mut self) {
        self.state = State::Mending;
    }

    /// The rewrite was refused, or came to nothing; says how long to wait before the next. It may be under way
    /// nevertheless, if only the answer was lost: then the next one waits for its end as well.
    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        self.state = State::Suspect;
        self.put_off(now)
    }

    fn put_off(&mut self, now: Instant) -> Duration {
        let pause = self.pause;
        self.retry_at = Some(now + pause);
        self.pause = (pause * 2).min(RETRY_PAUSE_MAX);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Look =
        Look { process: 1, is_writable: true, has_recovered: false, is_rewriting: false, last_rewrite_ok: true };
    const UNWRITABLE: Look = Look { is_writable: false, ..WELL };
    const REWRITING: Look = Look { is_rewriting: true, ..WELL };

    /// A log that was unwritable and is suspect since.
    fn suspect(now: Instant) -> Damage {
        let mut damage = Damage::none();
        assert_eq!(damage.look(UNWRITABLE, now), Some(Finding::Unwritable));
        assert_eq!(damage.look(WELL, now), Some(Finding::MustRewrite));
        damage
    }

    #[test]
    fn a_log_that_can_be_written_again_is_rewritten_once() {
        let now = Instant::now();
        let mut damage = suspect(now);
        damage.begun();
        assert!(damage.is_being_mended());
        assert_eq!(damage.look(REWRITING, now), None);
        assert_eq!(damage.look(WELL, now), Some(Finding::Mended));
        assert!(!damage.is_being_mended());
        assert_eq!(damage.look(WELL, now), None);
    }

    // What Redis holds back while it cannot write would be in both logs.
    #[test]
    fn nothing_is_rewritten_while_the_log_cannot_be_written() {
        let now = Instant::now();
        let mut damage = Damage::none();
        assert_eq!(damage.look(UNWRITABLE, now), Some(Finding::Unwritable));
        assert_eq!(damage.look(UNWRITABLE, now + RETRY_PAUSE_MAX), None);
        assert!(!damage.is_being_mended());
    }

    #[test]
    fn a_write_error_between_two_looks_shows_by_the_journal() {
        let now = Instant::now();
        let mut damage = Damage::none();
        assert_eq!(damage.look(WELL, now), None);
        assert_eq!(damage.look(Look { has_recovered: true, ..WELL }, now), Some(Finding::MustRewrite));
    }

    // A rewrite that began before the error was over writes the damage into its new log.
    #[test]
    fn a_rewrite_that_was_under_way_before_is_not_the_one_that_mends() {
        let now = Instant::now();
        let mut damage = Damage::none();
        assert_eq!(damage.look(Look { is_writable: false, ..REWRITING }, now), Some(Finding::Unwritable));
        assert_eq!(damage.look(REWRITING, now), None);
        assert_eq!(damage.look(WELL, now), Some(Finding::MustRewrite));
        damage.begun();
        assert_eq!(damage.look(Look { has_recovered: true, ..REWRITING }, now), None);
        assert_eq!(damage.look(WELL, now), Some(Finding::MustRewrite));
    }

    #[test]
    fn a_rewrite_that_fails_is_tried_again_after_a_pause_that_grows() {
        let mut now = Instant::now();
        let mut damage = suspect(now);
        let failed = Look { last_rewrite_ok: false, ..WELL };
        for pause in [RETRY_PAUSE, RETRY_PAUSE * 2, RETRY_PAUSE * 4] {
            damage.begun();
            assert_eq!(damage.look(failed, now), Some(Finding::Failed(pause)));
            assert!(!damage.is_being_mended());
            assert_eq!(damage.look(failed, now + pause - Duration::from_millis(1)), None);
            now += pause;
            assert_eq!(damage.look(failed, now), Some(Finding::MustRewrite));
        }
        for _ in 0..20 {
            now += damage.failed(now);
        }
        assert_eq!(damage.failed(now), RETRY_PAUSE_MAX);
    }

    // Else a rewrite for which there is no room would make one outage after another.
    #[test]
    fn a_rewrite_that_filled_the_disk_is_not_repeated_at_once() {
        let now = Instant::now();
        let mut damage = suspect(now);
        damage.begun();
        let unwritable = Look { is_writable: false, last_rewrite_ok: false, ..WELL };
        assert_eq!(damage.look(unwritable, now), Some(Finding::Unwritable));
        assert_eq!(damage.look(WELL, now), None);
        assert_eq!(damage.look(WELL, now + RETRY_PAUSE), Some(Finding::MustRewrite));
    }

    #[test]
    fn a_new_process_has_read_its_log() {
        let now = Instant::now();
        let mut damage = suspect(now);
        assert_eq!(damage.look(Look { process: 2, ..WELL }, now), None);
        assert!(!damage.is_being_mended());
    }

    #[test]
    fn a_failed_rewrite_of_redis_itself_is_told_once_and_left_to_it() {
        let now = Instant::now();
        let mut damage = Damage::none();
        let failed = Look { last_rewrite_ok: false, ..WELL };
        assert_eq!(damage.look(failed, now), Some(Finding::OwnRewriteFailed));
        assert_eq!(damage.look(failed, now), None);
        assert_eq!(damage.look(WELL, now), None);
        assert_eq!(damage.look(failed, now), Some(Finding::OwnRewriteFailed));
    }
}
