//! What all tasks of a worker share: its devices and what they have seen, counts, and the one read buffer.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Duration;

use homing_protocol::name::Name;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::orders::{Fatal, Plan, Target};
use super::payload::{Payloads, Told};
use super::tally::Tally;
use crate::auth::jwt::Grant;
use crate::bench::clock::{now_us, unix_s};
use crate::bench::frames::Messages;
use crate::config::{JwtSecret, Secret};

/// Bytes that are read from a socket at once.
const READ_BYTES: usize = 64 * 1024;
/// Longest that a producer waits for deliveries before it looks at the time again.
const MOVEMENT_WAIT: Duration = Duration::from_millis(100);
/// Life of the tokens that are made; longer than any measurement.
const TOKEN_SECONDS: u64 = 7 * 24 * 60 * 60;

/// One device.
#[derive(Default)]
struct Device {
    /// One bit for each of its user's messages.
    seen: Vec<u64>,
    /// How many of them are set.
    unique: u64,
    is_connected: bool,
    /// When its connection was due.
    due_us: u64,
    has_caught_up: bool,
    task: Option<AbortHandle>,
}

impl Device {
    /// Whether the message is new to it.
    fn sees(&mut self, number: u32) -> bool {
        let (word, bit) = (number as usize / 64, 1_u64 << (number % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let is_new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        self.unique += u64::from(is_new);
        is_new
    }
}

/// One user's messages.
#[derive(Clone, Copy, Default)]
struct Outgoing {
    sent: u32,
    accepted: u64,
}

/// The state of a worker. Its tasks run on one thread; no borrow is held across an await.
pub(crate) struct Fleet {
    pub(crate) plan: Plan,
    pub(crate) payloads: Payloads,
    pub(crate) tally: RefCell<Tally>,
    pub(crate) buffer: RefCell<Box<[u8]>>,
    /// For an ack that is being written.
    pub(crate) scratch: RefCell<Vec<u8>>,
    /// Something was delivered.
    moved: Notify,
    pub(crate) measured_from_us: Cell<u64>,
    pub(crate) is_since_connect: Cell<bool>,
    addresses: Vec<Vec<SocketAddr>>,
    devices: Vec<RefCell<Device>>,
    outgoing: RefCell<Vec<Outgoing>>,
    secret: JwtSecret,
    random: Cell<u64>,
}

impl Fleet {
    pub(crate) async fn new(plan: Plan) -> Result<Self, Fatal> {
        let mut addresses = Vec::new();
        for Target { host, port, .. } in &plan.targets {
            let found = tokio::net::lookup_host((host.as_str(), *port)).await;
            let found = found.map_err(|error| Fatal::Unreachable(format!("{host}: {error}")))?;
            addresses.push(found.collect());
        }
        let secret = Secret::new(plan.tokens.secret.as_bytes(), "the plan");
        let secret = secret.map_err(|error| Fatal::Broken(error.to_string()))?;
        Ok(Self {
            payloads: Payloads::new(&plan.run, plan.size),
            tally: RefCell::default(),
            buffer: RefCell::new(vec![0; READ_BYTES].into()),
            scratch: RefCell::default(),
            moved: Notify::new(),
            measured_from_us: Cell::new(0),
            is_since_connect: Cell::new(false),
            addresses,
            devices: (0..plan.users * plan.devices).map(|_| RefCell::default()).collect(),
            outgoing: RefCell::new(vec![Outgoing::default(); plan.users as usize]),
            secret: JwtSecret { kid: plan.tokens.kid.clone(), secret },
            random: Cell::new(now_us() | 1),
            plan,
        })
    }

    /// From 0 to 1 (xorshift64): enough to spread retries.
    pub(crate) fn random(&self) -> f64 {
        let mut value = self.random.get();
        value ^= value << 13;
        value ^= value >> 7;
        value ^= value << 17;
        self.random.set(value);
        (value >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The number of a device among all of the measurement.
    fn global(&self, index: u32) -> usize {
        (self.plan.first_user * self.plan.devices + index) as usize
    }

    pub(crate) fn target(&self, index: u32) -> (&Target, &[SocketAddr]) {
        let number = self.global(index) % self.plan.targets.len();
        (&self.plan.targets[number], &self.addresses[number])
    }

    /// A user of this worker.
    pub(crate) fn user(&self, user: u32) -> String {
        format!("{}{}", self.plan.user_prefix, self.plan.first_user + user)
    }

    /// A device's first frame.
    pub(crate) fn hello(&self, index: u32) -> Result<String, Fatal> {
        let user = self.user(index / self.plan.devices);
        let name = Name::parse(&user).map_err(|error| Fatal::Broken(format!("{user}: {error}")))?;
        let issued_at_s = unix_s();
        let audience = self.plan.tokens.audience.as_deref();
        let grant = Grant {
            user: &name,
            device: None,
            topics: &[],
            audience,
            issued_at_s,
            expires_at_s: issued_at_s + TOKEN_SECONDS,
        };
        let token = grant.sign(&self.secret).map_err(|error| Fatal::Broken(error.to_string()))?;
        let (device, confirm) = (index % self.plan.devices, self.plan.confirm);
        Ok(format!(r#"{{"type":"connect","token":"{token}","device":"d{device}","confirm":{confirm}}}"#))
    }

    /// The device that is connected next, with its due time noted; `None` if all are, or are about to be.
    pub(crate) fn is_away(&self, index: u32) -> bool {
        self.devices[index as usize].borrow().task.as_ref().is_none_or(AbortHandle::is_finished)
    }

    /// A device's connection is due.
    pub(crate) fn start(&self, index: u32, due_us: u64, task: AbortHandle) {
        let mut device = self.devices[index as usize].borrow_mut();
        device.due_us = due_us;
        device.has_caught_up = false;
        device.task = Some(task);
    }

    /// Cuts all devices off.
    pub(crate) fn disconnect(&self) {
        for device in &self.devices {
            let mut device = device.borrow_mut();
            if let Some(task) = device.task.take() {
                task.abort();
            }
            if std::mem::take(&mut device.is_connected) {
                self.tally.borrow_mut().counts.connected -= 1;
            }
        }
    }

    /// A device's session is ready.
    pub(crate) fn enter(&self, index: u32, now_us: u64) {
        let mut device = self.devices[index as usize].borrow_mut();
        let mut tally = self.tally.borrow_mut();
        tally.connecting.record(now_us.saturating_sub(device.due_us));
        tally.counts.readies += 1;
        if !std::mem::replace(&mut device.is_connected, true) {
            tally.counts.connected += 1;
        }
    }

    /// A device's connection has ended by itself. Says whether its session had been ready.
    pub(crate) fn leave(&self, index: u32) -> bool {
        let mut device = self.devices[index as usize].borrow_mut();
        let was_connected = std::mem::take(&mut device.is_connected);
        if was_connected {
            let mut tally = self.tally.borrow_mut();
            tally.counts.connected -= 1;
            tally.counts.disconnects += 1;
            // The new attempt is due from now on.
            device.due_us = now_us();
        }
        was_connected
    }

    /// Counts messages that a device received; `ack` gets the id of each. Gives their number.
    pub(crate) fn receive(&self, index: u32, messages: Messages<'_>, now_us: u64, mut ack: impl FnMut(&[u8])) -> u64 {
        let mut device = self.devices[index as usize].borrow_mut();
        let mut tally = self.tally.borrow_mut();
        let mut acks = 0;
        for message in messages {
            ack(message.id);
            acks += 1;
            tally.counts.again += u64::from(message.is_again);
            match self.payloads.read(message.data) {
                None => tally.counts.foreign += 1,
                Some(told) if device.sees(told.number) => {
                    tally.counts.unique += 1;
                    if self.is_since_connect.get() {
                        tally.counts.measured += 1;
                        tally.latencies.record(now_us.saturating_sub(device.due_us));
                    } else if told.intended_us >= self.measured_from_us.get() {
                        tally.counts.measured += 1;
                        tally.latencies.record(now_us.saturating_sub(told.intended_us));
                    }
                }
                Some(_) => tally.counts.duplicates += 1,
            }
        }
        tally.counts.acks += acks;
        let published = self.outgoing.borrow()[(index / self.plan.devices) as usize].accepted;
        if self.is_since_connect.get() && !device.has_caught_up && device.unique >= published {
            device.has_caught_up = true;
            tally.catching_up.record(now_us.saturating_sub(device.due_us));
        }
        self.moved.notify_waiters();
        acks
    }

    /// The next message for a user is about to be sent.
    pub(crate) fn send(&self, user: u32, intended_us: u64) -> Told {
        let outgoing = &mut self.outgoing.borrow_mut()[user as usize];
        let number = outgoing.sent;
        outgoing.sent += 1;
        self.tally.borrow_mut().counts.sent += 1;
        Told { intended_us, number }
    }

    /// A message for a user was accepted, or not.
    pub(crate) fn answered(&self, user: u32, trouble: Option<&str>) {
        let mut tally = self.tally.borrow_mut();
        match trouble {
            None => {
                tally.counts.accepted += 1;
                self.outgoing.borrow_mut()[user as usize].accepted += 1;
            }
            Some(trouble) => {
                tally.counts.refused += 1;
                tally.trouble(trouble);
                self.moved.notify_waiters();
            }
        }
    }

    /// Waits until something is delivered, or until it is time to see whether to go on at all.
    pub(crate) async fn movement(&self) {
        let _ = tokio::time::timeout(MOVEMENT_WAIT, self.moved.notified()).await;
    }

    /// Messages that were sent and are not delivered to every device, about.
    pub(crate) fn in_flight(&self) -> u64 {
        let counts = &self.tally.borrow().counts;
        (counts.sent - counts.refused).saturating_sub(counts.unique / u64::from(self.plan.devices))
    }

    /// Devices that have all that was published to them.
    pub(crate) fn caught_up(&self) -> u64 {
        let outgoing = self.outgoing.borrow();
        let devices = self.devices.iter().enumerate();
        let is_caught_up = |index: usize, device: &RefCell<Device>| {
            device.borrow().unique >= outgoing[index / self.plan.devices as usize].accepted
        };
        devices.filter(|(index, device)| is_caught_up(*index, device)).count() as u64
    }
}
