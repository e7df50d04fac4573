//! A shard: one task that owns the sessions of one thread and everything that is decided for them.
//!
//! Its loop takes events from transports, hints from Redis, replies and the time, and feeds them to the sessions. It
//! keeps one pipeline in flight; what becomes due meanwhile gathers in a queue and makes up the next one.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use homing_protocol::name::Name;
use homing_protocol::session::{Action, Command, Now, SessionConfig};
use homing_protocol::topic::Topic;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant as TokioInstant;

use super::batch::{Answer, Flight, Order};
use super::cursors::CursorWrites;
use super::drain::Draining;
use super::event::{Event, ShardHandle};
use super::fan_out::FanOuts;
use super::feeds::Feeds;
use super::hints::Taken;
use super::link::{ClientId, Link};
use super::observe::Observer;
use super::outbox::Outbox;
use super::pipeline::Identity;
use super::presence::Presence;
use super::probe::Probe;
use super::queue::Queue;
use super::readiness::Readiness;
use super::reads::Reads;
use super::sessions::{SessionKey, Sessions};
use super::trims::Trims;
use super::turn::{Alarm, Mailbox, Stops};
use super::wheel::Wheel;
use crate::config::Limits;
use crate::store::{Key, Store, StoreError};

/// What a shard is made with.
pub struct ShardConfig {
    /// Redis.
    pub store: Store,
    /// The node's name.
    pub node: String,
    /// `<node>:<random per start>.<shard>`: names this shard's control channel.
    pub owner: String,
    /// `<node>.<shard>`: names this shard's probe stream.
    pub probe: String,
    /// Times and limits.
    pub limits: Limits,
    /// Where the outcome of probes goes, and this shard's number there.
    pub readiness: Arc<Readiness>,
    /// This shard's number.
    pub number: usize,
    /// Where the node's monotonic clock begins; all its shards share it.
    pub clock: Instant,
    /// Owners of all shards of all nodes, to be told when notification flags had to be restored.
    pub peers: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Users whose inboxes are over the length limit.
    pub overfull: mpsc::Sender<Name>,
    /// Is told of receipts that somebody waits for.
    pub receipted: Receipted,
}

/// Takes the token of who waits, the device, and the event.
pub type Receipted = Arc<dyn Fn(&str, &str, &str) + Send + Sync>;

/// How the node tells its shards to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Go on.
    No,
    /// Close every session within `spread`, flush acks, release, end.
    Drain {
        /// Time over which the closes are spread.
        spread: Duration,
    },
}

/// Resolution of timers, in ms.
pub(super) const TICK_MS: u64 = 50;

/// Time until a session is looked at again for which something is due already: that waits for a pipeline or for the client,
/// and whoever brings it looks after the session. Behind a Redis that does not keep up, a shard with thousands of such
/// sessions would otherwise do little but look at all of them with each tick.
const OVERDUE_MS: u64 = 1_000;

pub(super) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One thread's sessions. See the module.
pub struct Shard {
    pub(super) store: Store,
    pub(super) identity: Identity,
    pub(super) limits: Limits,
    pub(super) session_config: Arc<SessionConfig>,
    pub(super) peers: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    pub(super) overfull: mpsc::Sender<Name>,
    pub(super) receipted: Receipted,
    pub(super) control_channel: String,
    pub(super) probe: Probe,
    pub(super) observer: Observer,
    start: Instant,
    turn_now: Cell<Option<Now>>,
    pub(super) sessions: Sessions,
    pub(super) nonce: u64,
    /// Those whom a wake-up concerns; empty between.
    pub(super) woken: Vec<SessionKey>,
    /// Sessions that want to be in the next pipeline.
    pub(super) queue: Queue,
    /// Sessions whose acks gather; all join the next pipeline, which goes at this time at the latest.
    pub(super) coalescing: Vec<SessionKey>,
    pub(super) flush_at: Option<TokioInstant>,
    /// What the shard itself wants in the next pipeline.
    pub(super) orders: Vec<Order>,
    /// Orders that Redis did not execute, and when they are tried again.
    pub(super) deferred: Vec<Order>,
    pub(super) deferred_until_ms: u64,
    pub(super) trims: Trims,
    pub(super) presence: Presence,
    /// Whether inboxes were to be trimmed at the last tick. They can wait for a tick, and the time need not be asked for
    /// with each message.
    pub(super) trims_due: bool,
    wheel: Wheel<SessionKey>,
    pub(super) actions: Vec<Action>,
    pub(super) commands: Vec<Command>,
    /// 0 until the first link.
    pub(super) primary: u64,
    pub(super) added: Vec<Name>,
    pub(super) dropped: Vec<Name>,
    pub(super) feeds: Feeds,
    pub(super) fan_outs: FanOuts,
    pub(super) cursor_writes: CursorWrites,
    /// Empty between pipelines.
    pub(super) cursor_loads: Vec<(SessionKey, Command)>,
    pub(super) reads: Reads,
    /// Whether producers have left appends for the next pipeline.
    pub(super) riders_wait: bool,
    pub(super) outbox: Outbox,
    pub(super) io: Io,
    pub(super) link_lost_ms: Option<u64>,
    pub(super) connect_attempts: u32,
    pub(super) draining: Option<Draining>,
    /// Acks that sessions have and Redis has not executed, as of when each was last attended.
    acks_waiting: usize,
    acks_observed: usize,
    last_tick_ms: u64,
}

/// Work in flight, each awaited in the loop.
#[derive(Default)]
pub(super) struct Io {
    pub(super) link: Option<Link>,
    /// A data connection that was given up.
    pub(super) old_client: Option<ClientId>,
    /// The pipeline in flight and, in `answer`, its replies to come.
    pub(super) flight: Option<Flight>,
    pub(super) answer: Option<Work<Result<Answer, StoreError>>>,
    /// Pipelines that were ever sent.
    pub(super) flights: u64,
    pub(super) sent_ms: u64,
    pub(super) rescue: Option<Work<Result<(), StoreError>>>,
    pub(super) connecting: Option<Work<Result<Link, StoreError>>>,
    /// Whose subscriptions are on their way; they have them once all are confirmed.
    pub(super) following: Option<(Vec<Name>, Vec<Topic>)>,
}

impl Shard {
    /// A shard and the handle to it.
    #[must_use]
    pub fn with_handle(config: ShardConfig) -> (ShardRun, ShardHandle) {
        let (handle, events) = ShardHandle::new();
        let limits = config.limits;
        let keys = config.store.keys();
        let probe = Probe::new(
            keys.name(Key::Probe(&config.probe)),
            keys.event_channel(Key::Probe(&config.probe)),
            config.readiness,
            config.number,
        );
        let shard = Self {
            identity: Identity {
                node: config.node,
                owner: config.owner.clone(),
                devices_max: limits.devices_max,
                replace_after_ms: millis(limits.device_replace_after),
                topics_per_user: limits.topics_per_user,
                sessions_max: limits.sessions_per_user,
                presence: limits.presence_length > 0,
                receipts_length: limits.receipts_length,
                receipt_seconds: limits.inbox_age_max.as_secs(),
            },
            session_config: Arc::new(session_config(&limits)),
            presence: Presence::default(),
            trims: Trims::new(millis(limits.trim_delay), limits.trim_acks),
            trims_due: false,
            wheel: Wheel::new(TICK_MS, config.clock.elapsed().as_millis() as u64),
            control_channel: keys.control_channel(&config.owner),
            probe,
            store: config.store,
            limits,
            peers: config.peers,
            overfull: config.overfull,
            receipted: config.receipted,
            observer: Observer::new(),
            start: config.clock,
            turn_now: Cell::new(None),
            sessions: Sessions::default(),
            nonce: 0,
            woken: Vec::new(),
            queue: Queue::default(),
            coalescing: Vec::new(),
            flush_at: None,
            orders: Vec::new(),
            deferred: Vec::new(),
            deferred_until_ms: 0,
            actions: Vec::new(),
            commands: Vec::new(),
            primary: 0,
            added: Vec::new(),
            dropped: Vec::new(),
            feeds: Feeds::default(),
            fan_outs: FanOuts::default(),
            cursor_writes: CursorWrites::default(),
            cursor_loads: Vec::new(),
            reads: Reads::default(),
            riders_wait: false,
            outbox: Outbox::default(),
            io: Io::default(),
            link_lost_ms: Some(1),
            connect_attempts: 0,
            draining: None,
            acks_waiting: 0,
            acks_observed: 0,
            last_tick_ms: config.clock.elapsed().as_millis() as u64 + 1,
        };
        (ShardRun { shard, events }, handle)
    }

    /// The time of this turn, which is taken when it is first asked for.
    pub(super) fn now(&self) -> Now {
        if let Some(now) = self.turn_now.get() {
            return now;
        }
        let unix_ms =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
        let now = Now { mono_ms: self.start.elapsed().as_millis() as u64 + 1, unix_ms };
        self.turn_now.set(Some(now));
        now
    }

    /// A turn begins.
    pub(super) fn forget_now(&self) {
        self.turn_now.set(None);
    }

    /// Looks after a session that something happened to: queues it, schedules it, or forgets it.
    pub(super) fn attend(&mut self, key: SessionKey, now: Now) {
        self.apply_actions(key, now);
        let Some(held) = self.sessions.get_mut(key) else { return };
        let is_done = held.session.is_done();
        let acks = if is_done { 0 } else { held.session.acks_waiting() as u32 };
        let before = std::mem::replace(&mut held.acks_counted, acks);
        self.acks_waiting = (self.acks_waiting + acks as usize).saturating_sub(before as usize);
        if is_done {
            self.forget(key);
            return;
        }
        self.enqueue(key, now);
        self.schedule(key, now);
    }

    /// Sets the timer of a session.
    pub(super) fn schedule(&mut self, key: SessionKey, now: Now) {
        let Some(held) = self.sessions.get_mut(key) else { return };
        let mut due_ms = look_at_ms(held.session.poll_timeout(), held.session.poll_silence(), now.mono_ms);
        if !held.session.is_ended() {
            due_ms = due_ms.min(now.mono_ms + held.session.expires_at_ms().saturating_sub(now.unix_ms));
        }
        held.looked_at_ms = self.wheel.insert(key, due_ms, held.looked_at_ms);
    }

    fn forget(&mut self, key: SessionKey) {
        let now_ms = self.now().unix_ms;
        if let Some(held) = self.sessions.get_mut(key).filter(|held| held.session.is_forgotten()) {
            let (user, device) = (held.session.user().clone(), held.session.device().clone());
            let cursors = held.session.cursors();
            let topics = cursors.map(|(topic, up_to_ms)| (topic.clone(), up_to_ms.unwrap_or(now_ms))).collect();
            self.orders.push(Order::DropCursors { user, device, topics });
        }
        self.unregister_topics(key);
        let user = self.sessions.get_mut(key).map(|held| held.session.user().clone());
        self.note_departure(key);
        if self.sessions.remove(key)
            && let Some(user) = user
        {
            self.store.piggyback().dismiss(&user);
            self.dropped.push(user);
        }
    }

    pub(super) fn tick(&mut self) {
        let now = self.now();
        let pause_ms = now.mono_ms.saturating_sub(self.last_tick_ms);
        self.last_tick_ms = now.mono_ms;
        if pause_ms >= millis(self.limits.node_dead_after) {
            // This process was stopped, and meanwhile judged dead: its sessions claim their records again.
            self.lose_hints(now);
            self.register_announcer();
        }
        let mut due = Vec::new();
        self.wheel.advance(now.mono_ms, &mut due);
        for key in due {
            let Some(held) = self.sessions.get_mut(key) else { continue };
            if held.looked_at_ms > now.mono_ms {
                continue;
            }
            held.looked_at_ms = u64::MAX;
            held.session.handle_timeout(now, &mut self.actions);
            self.attend(key, now);
        }
        self.trims_due = self.trims.grant(now.mono_ms);
        self.tick_deferred(now);
        self.tick_link(now);
        self.tick_riders();
        self.tick_probe(now);
        self.tick_feeds(now);
        self.tick_presence(now);
        self.tick_drain(now);
        self.observe_acks();
    }

    /// Acks that wait: few, unless Redis refuses or cannot be reached. Shards share the gauge, so each adds its
    /// difference.
    fn observe_acks(&mut self) {
        if self.acks_waiting != self.acks_observed {
            self.observer.ack_buffer.increment(self.acks_waiting as f64 - self.acks_observed as f64);
            self.acks_observed = self.acks_waiting;
        }
    }
}

/// A shard with its mailbox, ready to run.
pub struct ShardRun {
    shard: Shard,
    events: mpsc::Receiver<Event>,
}

impl ShardRun {
    /// Runs until `stop` says to drain and everything has been closed, flushed and released.
    pub async fn run(self, stop: watch::Receiver<Stop>) {
        let Self { mut shard, events } = self;
        let (mut mailbox, mut alarm, mut stops) = (Mailbox::new(events), Alarm::new(), Stops::new(stop));
        shard.connect();
        poll_fn(|context| shard.poll_turns(&mut mailbox, &mut alarm, &mut stops, context)).await;
    }
}

impl Shard {
    pub(super) fn take_hints(&mut self, taken: Result<Taken, StoreError>) {
        match taken {
            Ok(taken) => taken.hints().for_each(|hint| self.handle_hint(hint)),
            Err(error) => return self.lose_link(&format!("the subscription connection: {error}")),
        }
        if self.io.link.as_ref().is_some_and(|link| !link.hints.is_changing()) {
            self.handle_followed();
        }
    }
}

/// When to look at a session whose next deadline is `due_ms`, and whose client must be asked at `silence_ms`.
fn look_at_ms(due_ms: u64, silence_ms: u64, now_ms: u64) -> u64 {
    if due_ms > now_ms { due_ms } else { silence_ms.min(now_ms + OVERDUE_MS) }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Time between refreshes of a live device's last-seen time.
const TOUCH: Duration = Duration::from_secs(24 * 60 * 60);

fn session_config(limits: &Limits) -> SessionConfig {
    SessionConfig {
        window: limits.window,
        in_flight_bytes_max: limits.in_flight_bytes_max,
        ack_timeout_ms: millis(limits.ack_timeout),
        ack_timeout_max_ms: millis(limits.ack_timeout_max),
        heartbeat_ms: millis(limits.heartbeat) as u32,
        sweep_ms: millis(limits.sweep),
        touch_ms: millis(TOUCH.min(limits.device_idle_max / 4)),
        payload_bytes_max: limits.payload_bytes_max,
        frame_bytes_max: homing_protocol::limits::SERVER_FRAME_BYTES_MAX as u32,
        frames_per_second: limits.frames_per_second,
        frames_burst: limits.frames_burst,
        topics: true,
        cursor_flush_ms: millis(limits.cursor_flush),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_overdue_is_looked_at_in_a_second_unless_the_client_must_be_asked_before() {
        let (now_ms, far_ms) = (10_000, 30_000);
        assert_eq!(look_at_ms(now_ms + 1, far_ms, now_ms), now_ms + 1);
        assert_eq!(look_at_ms(now_ms, far_ms, now_ms), now_ms + OVERDUE_MS);
        assert_eq!(look_at_ms(3, far_ms, now_ms), now_ms + OVERDUE_MS);
        assert_eq!(look_at_ms(3, now_ms + 200, now_ms), now_ms + 200);
        assert_eq!(look_at_ms(0, u64::MAX, now_ms), now_ms + OVERDUE_MS, "a session that has ended asks nobody");
    }
}
