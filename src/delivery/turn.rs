//! One turn of a shard's loop: whatever is ready is taken, each source once, so that none keeps another waiting.
//!
//! A `select!` takes one source a turn, and polls all others again for it; each poll costs a message some hundred
//! instructions, a timer or a watched value made anew for it several hundred.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep, sleep_until};

use super::event::Event;
use super::shard::{Shard, Stop, TICK_MS, Work};

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

    /// Answers whether it rings at another time than before.
    fn set(&mut self, flush_at: Option<Instant>) -> bool {
        let due = flush_at.map_or(self.tick_at, |flush_at| flush_at.min(self.tick_at));
        let is_changed = self.sleep.deadline() != due;
        if is_changed {
            self.sleep.as_mut().reset(due);
        }
        is_changed
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

/// How the node tells the shard to stop. Looked at with each tick: that is soon enough, and to be woken up for it would
/// cost every message.
pub(super) struct Stops {
    asked: watch::Receiver<Stop>,
    taken: Stop,
}

impl Stops {
    pub(super) fn new(asked: watch::Receiver<Stop>) -> Self {
        Self { asked, taken: Stop::No }
    }

    /// What is asked for, if it was not taken before.
    fn take(&mut self) -> Option<Stop> {
        let asked = *self.asked.borrow();
        (asked != std::mem::replace(&mut self.taken, asked)).then_some(asked)
    }
}

fn poll_work<T>(work: &mut Option<Work<T>>, context: &mut Context<'_>) -> Poll<T> {
    let Some(running) = work else { return Poll::Pending };
    let outcome = ready!(running.as_mut().poll(context));
    *work = None;
    Poll::Ready(outcome)
}

/// Which sources were found not ready since the task was woken up, and will wake it up again: they need no second look.
/// One that was forgotten here would be looked at with the next tick.
#[derive(Default)]
struct Waiting {
    /// The number of the pipeline whose replies are awaited.
    answer: Option<u64>,
    /// The number of the last pipeline, behind which the data connection is idle.
    idle: Option<u64>,
    hints: bool,
    events: bool,
    alarm: bool,
}

impl Shard {
    /// Takes turns until nothing is ready; ready once the shard is drained.
    pub(super) fn poll_turns(
        &mut self,
        mailbox: &mut Mailbox,
        alarm: &mut Alarm,
        stops: &mut Stops,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let mut waiting = Waiting::default();
        // The last turn may have been long ago.
        self.forget_now();
        loop {
            self.poll_idle(&mut waiting, context);
            self.riders_wait = self.store.piggyback().poll(context);
            self.send_pipeline();
            if self.send_follows() {
                waiting.hints = false;
            }
            let has_more = self.hand_out();
            if self.is_drained() {
                self.store.piggyback().close();
                return Poll::Ready(());
            }
            let is_idle = !self.take_turn(mailbox, alarm, stops, &mut waiting, context);
            if has_more {
                // Clients' frames and requests come in between.
                context.waker().wake_by_ref();
            }
            if is_idle || has_more {
                return Poll::Pending;
            }
        }
    }

    /// Notices the end of a data connection on which nothing is under way: whoever leaves an append must not be the first.
    fn poll_idle(&mut self, waiting: &mut Waiting, context: &mut Context<'_>) {
        if self.io.flight.is_some() || waiting.idle == Some(self.io.flights) {
            return;
        }
        let Some(data) = self.io.link.as_mut().and_then(|link| link.data.as_mut()) else { return };
        match data.poll_lost(context) {
            Poll::Ready(error) => self.lose_link(&format!("the idle data connection: {error}")),
            Poll::Pending => waiting.idle = Some(self.io.flights),
        }
    }

    /// Deals with what is ready; false if nothing is.
    fn take_turn(
        &mut self,
        mailbox: &mut Mailbox,
        alarm: &mut Alarm,
        stops: &mut Stops,
        waiting: &mut Waiting,
        context: &mut Context<'_>,
    ) -> bool {
        self.forget_now();
        let mut is_idle = true;
        let flight = Some(self.io.flights);
        if self.io.answer.is_some() && waiting.answer != flight {
            match poll_work(&mut self.io.answer, context) {
                Poll::Ready(outcome) => {
                    is_idle = false;
                    self.complete(outcome);
                }
                Poll::Pending => waiting.answer = flight,
            }
        }
        if let Some(link) = &mut self.io.link
            && !waiting.hints
        {
            match link.hints.poll_next(context) {
                Poll::Ready(hints) => {
                    is_idle = false;
                    self.take_hints(hints);
                }
                Poll::Pending => waiting.hints = true,
            }
        }
        if !waiting.events {
            match mailbox.events.poll_recv_many(context, &mut mailbox.taken, TAKE_MAX) {
                Poll::Ready(1..) => {
                    is_idle = false;
                    for event in mailbox.taken.drain(..) {
                        self.handle_event(event);
                    }
                }
                // Of no events, the channel is closed: no transport is left.
                Poll::Ready(0) | Poll::Pending => waiting.events = true,
            }
        }
        if let Poll::Ready(outcome) = poll_work(&mut self.io.connecting, context) {
            is_idle = false;
            waiting.hints = false;
            self.handle_connected(outcome);
        }
        if let Poll::Ready(outcome) = poll_work(&mut self.io.rescue, context) {
            is_idle = false;
            self.handle_rescued(outcome);
        }
        if alarm.set(self.flush_at) || !waiting.alarm {
            waiting.alarm = alarm.sleep.as_mut().poll(context).is_pending();
            if !waiting.alarm {
                is_idle = false;
                self.ring(alarm, stops);
            }
        }
        !is_idle
    }

    fn ring(&mut self, alarm: &mut Alarm, stops: &mut Stops) {
        let now = Instant::now();
        if self.flush_at.is_some_and(|flush_at| flush_at <= now) {
            self.flush_acks();
        }
        if alarm.take_tick(now) {
            self.tick();
            if let Some(stop) = stops.take() {
                self.handle_stop(stop);
            }
        }
    }
}
