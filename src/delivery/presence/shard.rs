//! What a shard does about presence: announces who comes, and looks after those whose sessions end.

use std::collections::{BTreeMap, HashSet};

use homing_protocol::name::Name;
use homing_protocol::session::{Attachment, Now};
use metrics::Counter;

use super::entry::{Entry, Event, field, parse_field};
use super::step::{Arrival, Departure, Step};
use crate::delivery::batch::Order;
use crate::delivery::sessions::SessionKey;
use crate::delivery::shard::{Shard, millis};
use crate::store::StoreError;
use crate::store::replies::{self, Value};
use crate::telemetry::names;

/// Steps that go into one pipeline at most, each some microseconds of Redis's time: who leaves in a crowd is announced
/// one after the other.
const STEPS_MAX: usize = 64;
/// Beyond the grace time, so that Redis, which counts from the release, agrees that it has passed.
const MARGIN_MS: u64 = 20;
/// Pause before what Redis did not do is tried again.
const RETRY_MS: u64 = 500;
/// Steps that may wait while Redis refuses; what is beyond is lost, and counted.
const WAITING_MAX: usize = 200_000;
/// Devices are struck from the index when so many are to go, or the first has waited so long.
const FORGOTTEN_MAX: usize = 256;
const FORGET_AFTER_MS: u64 = 5_000;

/// What a shard has to do, now and later.
pub(in crate::delivery) struct Presence {
    /// By time, and by number among those of one time.
    waiting: BTreeMap<(u64, u64), Step>,
    number: u64,
    /// Entries that Redis refused, and those that came after them, by their number.
    refused: BTreeMap<u64, Step>,
    retry_at_ms: u64,
    /// Fields to be struck from the index.
    forgotten: HashSet<String>,
    forget_at_ms: u64,
    online: Counter,
    offline: Counter,
    dropped: Counter,
}

impl Default for Presence {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            number: 0,
            refused: BTreeMap::new(),
            retry_at_ms: 0,
            forgotten: HashSet::new(),
            forget_at_ms: u64::MAX,
            online: metrics::counter!(names::PRESENCE_EVENTS, "event" => "online"),
            offline: metrics::counter!(names::PRESENCE_EVENTS, "event" => "offline"),
            dropped: metrics::counter!(names::PRESENCE_EVENTS_DROPPED),
        }
    }
}

impl Presence {
    fn wait(&mut self, until_ms: u64, step: Step) {
        if self.waiting.len() + self.refused.len() >= WAITING_MAX {
            return self.dropped.increment(1);
        }
        let number = self.next_number();
        self.waiting.insert((until_ms, number), step);
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Keeps an entry until Redis takes it.
    fn keep(&mut self, number: u64, step: Step) {
        if self.refused.len() >= WAITING_MAX {
            return self.dropped.increment(1);
        }
        self.refused.insert(number, step);
    }

    fn forget(&mut self, field: String, now: Now) {
        if self.forgotten.is_empty() {
            self.forget_at_ms = now.mono_ms + FORGET_AFTER_MS;
        }
        self.forgotten.insert(field);
    }
}

impl Shard {
    /// Names this shard as one that has an index, so that its devices are not forgotten when it dies.
    pub(in crate::delivery) fn register_announcer(&mut self) {
        if self.identity.presence {
            self.take_step(Step::Register);
        }
    }

    /// A session attached.
    pub(in crate::delivery) fn note_arrival(&mut self, key: SessionKey, attachment: &Attachment) {
        let Attachment { generation, period, now_ms, ref announcer, .. } = *attachment;
        if period == 0 {
            return;
        }
        let Some(arrival) = self.arrival(key, generation, period, now_ms) else { return };
        // Nobody else announces it: this very attach began the presence.
        if announcer.is_empty() {
            self.take_step(Step::Welcome(arrival));
        } else {
            self.take_step(Step::Ask { arrival, announcer: announcer.clone() });
        }
    }

    /// A session is the owner again of a device that was announced as gone while this node was thought dead.
    pub(in crate::delivery) fn note_return(&mut self, key: SessionKey) {
        let Some(held) = self.sessions.get_mut(key) else { return };
        let generation = held.session.generation();
        let unix_ms = self.now().unix_ms;
        if let Some(arrival) = self.arrival(key, generation, generation, unix_ms) {
            self.take_step(Step::Welcome(arrival));
        }
    }

    fn arrival(&mut self, key: SessionKey, generation: u64, period: u64, at_ms: u64) -> Option<Arrival> {
        let held = self.sessions.get_mut(key)?;
        held.period = period;
        let (user, device) = (held.session.user().clone(), held.session.device().clone());
        let (node, number) = (self.identity.node.clone(), self.presence.next_number());
        Some(Arrival { entry: Entry { event: Event::Online, user, device, node, generation, at_ms, number }, period })
    }

    /// A session has released its device and is forgotten.
    pub(in crate::delivery) fn note_departure(&mut self, key: SessionKey) {
        let Some(held) = self.sessions.get_mut(key) else { return };
        if held.period == 0 {
            return;
        }
        let (user, device) = (held.session.user().clone(), held.session.device().clone());
        let departure = Departure { user, device, period: held.period };
        let until_ms = self.now().mono_ms + millis(self.limits.presence_grace) + MARGIN_MS;
        self.presence.wait(until_ms, Step::Look(departure));
    }

    /// Whether a session here holds the device, so that nobody need ask Redis whether it is gone.
    fn holds(&mut self, user: &Name, device: &Name) -> bool {
        self.sessions.of_user(user.as_str()).to_vec().into_iter().any(|key| {
            self.sessions.get_mut(key).is_some_and(|held| held.session.device() == device && held.period != 0)
        })
    }

    fn take_step(&mut self, step: Step) {
        match step.number().filter(|_| !self.presence.refused.is_empty()) {
            Some(number) => self.presence.keep(number, step),
            None => self.orders.push(Order::Presence(Box::new(step))),
        }
    }

    /// Takes the steps whose time has come.
    pub(in crate::delivery) fn tick_presence(&mut self, now: Now) {
        if self.io.link.is_none() {
            return;
        }
        if now.mono_ms >= self.presence.retry_at_ms {
            for _ in 0..STEPS_MAX {
                let Some((_, step)) = self.presence.refused.pop_first() else { break };
                self.orders.push(Order::Presence(Box::new(step)));
            }
        }
        for _ in 0..STEPS_MAX {
            let Some(first) = self.presence.waiting.first_entry().filter(|first| first.key().0 <= now.mono_ms) else {
                break;
            };
            let step = first.remove();
            let is_back = matches!(&step, Step::Look(departure) if self.holds(&departure.user, &departure.device));
            if !is_back {
                self.take_step(step);
            }
        }
        if self.presence.forgotten.len() >= FORGOTTEN_MAX || now.mono_ms >= self.presence.forget_at_ms {
            self.strike_forgotten();
        }
    }

    /// Strikes from the index who is not here any more. Some may have come back.
    fn strike_forgotten(&mut self) {
        self.presence.forget_at_ms = u64::MAX;
        let mut fields = Vec::from_iter(std::mem::take(&mut self.presence.forgotten));
        fields.retain(|field| parse_field(field).is_some_and(|(user, device)| !self.holds(&user, &device)));
        if !fields.is_empty() {
            self.take_step(Step::Forget(fields));
        }
    }

    /// Redis did what was asked.
    pub(in crate::delivery) fn complete_step(&mut self, step: Step, reply: Value<'_>, now: Now) {
        match step {
            Step::Ask { arrival, announcer } => {
                let written = matches!(replies::text(reply), Ok(Some(text)) if text == arrival.period.to_string());
                if !written {
                    self.take_step(Step::Welcome(arrival));
                } else if *announcer != *self.identity.owner {
                    self.take_step(Step::Keep(arrival));
                }
            }
            Step::Welcome(_) => self.presence.online.increment(1),
            Step::Farewell(entry) => {
                self.presence.offline.increment(1);
                self.presence.forget(field(&entry.user, &entry.device), now);
            }
            Step::Look(departure) => match Finding::read(reply) {
                Ok(finding) => self.conclude(departure, finding, now),
                Err(error) => {
                    self.observer.redis_error(&error);
                    self.put_off(Step::Look(departure), now);
                }
            },
            Step::Register | Step::Keep(_) | Step::Forget(_) => {}
        }
    }

    fn conclude(&mut self, departure: Departure, finding: Finding, now: Now) {
        match finding {
            Finding::Gone { generation, node, at_ms } => {
                let Departure { user, device, .. } = departure;
                let node = if node.is_empty() { self.identity.node.clone() } else { node };
                let number = self.presence.next_number();
                let entry = Entry { event: Event::Offline, user, device, node, generation, at_ms, number };
                self.take_step(Step::Farewell(entry));
            }
            Finding::Moved => self.presence.forget(field(&departure.user, &departure.device), now),
            Finding::Here => {}
            Finding::Wait { ms } => self.presence.wait(now.mono_ms + ms + MARGIN_MS, Step::Look(departure)),
        }
    }

    /// Redis did not do it; later it may.
    pub(in crate::delivery) fn put_off(&mut self, step: Step, now: Now) {
        match step {
            Step::Welcome(Arrival { entry: Entry { number, .. }, .. }) | Step::Farewell(Entry { number, .. }) => {
                self.presence.retry_at_ms = now.mono_ms + RETRY_MS;
                self.presence.keep(number, step);
                // What comes after it must not overtake it.
                for order in std::mem::take(&mut self.orders) {
                    match order {
                        Order::Presence(step) => self.take_step(*step),
                        order => self.orders.push(order),
                    }
                }
            }
            Step::Forget(fields) => fields.into_iter().for_each(|field| self.presence.forget(field, now)),
            // A new link registers anew.
            Step::Register if self.io.link.is_none() => {}
            step => self.presence.wait(now.mono_ms + RETRY_MS, step),
        }
    }
}

/// What the function `look` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Gone { generation: u64, node: String, at_ms: u64 },
    Moved,
    Here,
    Wait { ms: u64 },
}

impl Finding {
    pub(super) fn read(reply: Value<'_>) -> Result<Self, StoreError> {
        let parts = replies::array(reply)?.into_iter().map(replies::text).collect::<Result<Vec<_>, _>>()?;
        let text = |position: usize| parts.get(position).and_then(Option::as_deref).unwrap_or_default();
        let number = |position: usize| {
            text(position).parse().map_err(|_| StoreError::Unexpected(format!("look answered {parts:?}")))
        };
        Ok(match text(0) {
            "gone" => Self::Gone { generation: number(1)?, node: text(2).to_owned(), at_ms: number(3)? },
            "moved" => Self::Moved,
            "here" => Self::Here,
            "wait" => Self::Wait { ms: number(1)? },
            other => return Err(StoreError::Unexpected(format!("look answered {other:?}"))),
        })
    }
}
