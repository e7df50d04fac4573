//! One turn of a shard's loop: whatever is ready is taken, each source once, so that none keeps another waiting.
//!
//! A `select!` takes one source a turn, and polls all others again for it; each poll costs a message some hundred
//! instructions, a timer or a watched value made anew for it several hundred.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use super::event::Event;
use super::shard::{Shard, TICK_MS, Work};

/// Events that are taken at once before replies and timers get their turn.
const TAKE_MAX: usize = 1_024;

/// Rings for the next tick, or earlier when acks have gathered long enough.
pub(super) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    tick_at: Instant,
}

impl Alarm {
    /// The first tick is due at once.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { sleep: Box::pin(sleep_until(now)), tick_at: now }
    }

    fn set(&mut self, flush_at: Option<Instant>) {
        let due = flush_at.map_or(self.tick_at, |flush_at| flush_at.min(self.tick_at));
        if self.sleep.deadline() != due {
            self.sleep.as_mut().reset(due);
        }
    }

    /// Whether a tick is due; the next one is due a whole tick later, however late this one is.
    fn take_tick(&mut self, now: Instant) -> bool {
        let is_due = self.tick_at <= now;
        if is_due {
            self.tick_at = now + Duration::from_millis(TICK_MS);
        }
        is_due
    }
}

/// What transports tell the shard.
pub(super) struct Mailbox {
    events: mpsc::Receiver<Event>,
    taken: Vec<Event>,
}

impl Mailbox {
    pub(super) fn new(events: mpsc::Receiver<Event>) -> Self {
        Self { events, taken: Vec::with_capacity(TAKE_MAX) }
    }
}

fn poll_work<T>(work: &mut Option<Work<T>>, context: &mut Context<'_>) -> Poll<T> {
    let Some(running) = work else { return Poll::Pending };
    let outcome = ready!(running.as_mut().poll(context));
    *work = None;
    Poll::Ready(outcome)
}

impl Shard {
    /// Deals with what is ready; pending if nothing is. Cancel-safe: what is not ready stays where it is.
    pub(super) fn poll_turn(
        &mut self,
        mailbox: &mut Mailbox,
        alarm: &mut Alarm,
        context: &mut Context<'_>,
    ) -> Poll<Turned> {
        self.forget_now();
        let mut turned = Turned { ticked: false };
        let mut is_idle = true;
        if let Poll::Ready(outcome) = poll_work(&mut self.io.answer, context) {
            is_idle = false;
            self.complete(outcome);
        }
        if let Some(link) = &mut self.io.link
            && let Poll::Ready(hints) = link.hints.poll_next(context)
        {
            is_idle = false;
            self.take_hints(hints);
        }
        // Of no events, the channel is closed: no transport is left.
        if let Poll::Ready(1..) = mailbox.events.poll_recv_many(context, &mut mailbox.taken, TAKE_MAX) {
            is_idle = false;
            for event in mailbox.taken.drain(..) {
                self.handle_event(event);
            }
        }
        if let Poll::Ready(outcome) = poll_work(&mut self.io.connecting, context) {
            is_idle = false;
            self.handle_connected(outcome);
        }
        if let Poll::Ready(outcome) = poll_work(&mut self.io.rescue, context) {
            is_idle = false;
            self.handle_rescued(outcome);
        }
        alarm.set(self.flush_at);
        if alarm.sleep.as_mut().poll(context).is_ready() {
            is_idle = false;
            let now = Instant::now();
            if self.flush_at.is_some_and(|flush_at| flush_at <= now) {
                self.flush_acks();
            }
            if alarm.take_tick(now) {
                turned.ticked = true;
                self.tick();
            }
        }
        if is_idle { Poll::Pending } else { Poll::Ready(turned) }
    }
}

/// What a turn was.
pub(super) struct Turned {
    /// The time to look at what needs no waking up.
    pub(super) ticked: bool,
}
