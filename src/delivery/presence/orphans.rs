//! Devices of dead nodes: one node of a cluster announces those that stay away.
//!
//! Each shard keeps an index of the devices that it announced. When its node is judged dead, or has ended, the index is
//! walked through, page by page: whoever came back elsewhere is struck from it without a word, whoever stayed away for
//! the grace time is announced as offline. Nobody looks at all users for that.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{RedisResult, pipe};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::entry::{Entry, Event, parse_field};
use super::shard::Finding;
use crate::config::Limits;
use crate::delivery::janitor::holding::Holding;
use crate::delivery::nodes::Nodes;
use crate::delivery::shard::millis;
use crate::store::replies::Value;
use crate::store::{Function, Key, KeySpace, Lock, Store, StoreError};
use crate::telemetry::names;

/// Time between two looks at who is dead.
const TURN: Duration = Duration::from_secs(1);
/// Turns without a renewal after which the lock falls to another node, at least.
const LOCK_TURNS: u32 = 3;
/// Devices of one page: less than a millisecond of Redis's time.
const PAGE_DEVICES: usize = 64;
/// Pause after each page, so that a node with 100,000 devices is not announced as one burst.
const PAGE_PAUSE: Duration = Duration::from_millis(20);

/// Looks after the devices of dead nodes.
pub struct Orphans {
    store: Store,
    nodes: Nodes,
    holding: Holding,
    grace: Duration,
    /// For which nothing was heard of a node that is judged dead.
    silence: Duration,
    length_max: u64,
    /// Dead owners that have devices in their index.
    dead: HashMap<String, Death>,
    failing: bool,
}

/// A dead owner.
#[derive(Clone, Copy)]
struct Death {
    noticed: Instant,
    /// When its index is walked through again.
    next: Instant,
}

/// What a walk through an index left.
#[derive(Default)]
struct Left {
    /// Devices that may still come back.
    wait: Option<Duration>,
}

impl Orphans {
    /// `None` if presence is not announced.
    #[must_use]
    pub fn new(store: Store, nodes: Nodes, limits: &Limits) -> Option<Self> {
        // By the time that the holder's death is noticed, another node has the lock.
        let holding = Holding::of(store.clone(), Lock::Presence, limits.node_dead_after.max(TURN * LOCK_TURNS));
        (limits.presence_length > 0).then(|| Self {
            store,
            nodes,
            holding,
            grace: limits.presence_grace,
            silence: limits.node_dead_after,
            length_max: limits.presence_length,
            dead: HashMap::new(),
            failing: false,
        })
    }

    /// Works until `stop` is true or its sender is gone; then another node may take over at once.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            // May be dropped anywhere: an entry that was written and not struck from the index is written again.
            () = self.run_forever() => {}
        }
        if let Err(error) = self.holding.give_back().await {
            tracing::debug!(%error, "the lock of presence could not be given back; it expires");
        }
    }

    async fn run_forever(&mut self) {
        loop {
            sleep(TURN).await;
            match self.turn().await {
                Ok(()) => self.failing = false,
                Err(error) => {
                    metrics::counter!(names::REDIS_ERRORS, "kind" => error.kind()).increment(1);
                    if !self.failing {
                        tracing::warn!(%error, "the devices of dead nodes cannot be looked after now; trying again");
                    }
                    self.failing = true;
                }
            }
        }
    }

    async fn turn(&mut self) -> Result<(), StoreError> {
        if !self.holding.hold().await? {
            self.dead.clear();
            return Ok(());
        }
        let owners = self.dead_owners().await?;
        self.dead.retain(|owner, _| owners.contains(owner));
        let now = Instant::now();
        for owner in owners {
            let death = *self.dead.entry(owner.clone()).or_insert(Death { noticed: now, next: now });
            if death.next <= Instant::now() {
                self.visit(owner, death).await?;
            }
        }
        Ok(())
    }

    /// Owners that have an index and whose node is dead; none while nobody may be judged.
    async fn dead_owners(&self) -> Result<HashSet<String>, StoreError> {
        let Some(alive) = self.nodes.alive() else { return Ok(HashSet::new()) };
        let mut members = redis::cmd("SMEMBERS");
        members.arg(self.store.keys().name(Key::Announcers));
        let mut owners: HashSet<String> = self.store.query(&members).await?;
        owners.retain(|owner| owner.rsplit_once('.').is_none_or(|(node, _)| !alive.contains(node)));
        Ok(owners)
    }

    /// Walks through the index of a dead owner.
    async fn visit(&mut self, owner: String, death: Death) -> Result<(), StoreError> {
        let index = self.store.keys().name(Key::Online(&owner));
        let mut left = Left::default();
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(&index).arg(cursor).arg("COUNT").arg(PAGE_DEVICES);
            let (next, fields): (u64, Vec<(String, String)>) = self.store.query(&scan).await?;
            for page in fields.chunks(PAGE_DEVICES) {
                let silence = self.silence + death.noticed.elapsed();
                self.look((&owner, silence), &index, page, &mut left).await?;
                sleep(PAGE_PAUSE).await;
                // A long walk must not let the lock go to another node; and the dead may have woken up.
                if !self.holding.hold().await? || !self.dead_owners().await?.contains(&owner) {
                    return Ok(());
                }
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        match left.wait {
            Some(wait) => drop(self.dead.insert(owner, Death { next: Instant::now() + wait, ..death })),
            None => self.forget_if_empty(&owner, &index).await?,
        }
        Ok(())
    }

    /// Looks at some devices of a dead owner, which has been silent for some time, and announces those that are gone.
    async fn look(
        &self,
        (owner, silence): (&str, Duration),
        index: &str,
        page: &[(String, String)],
        left: &mut Left,
    ) -> Result<(), StoreError> {
        let keys = self.store.keys();
        let (mut looks, mut looked) = (pipe(), Vec::new());
        let mut done: Vec<&str> = Vec::new();
        for (text, period) in page {
            // What somebody else wrote says nothing about a device.
            let Some((user, device)) = parse_field(text) else {
                done.push(text);
                continue;
            };
            let mut look = Function::Look.call(&[&keys.name(Key::Devices(&user))]);
            look.arg(device.as_str()).arg(owner).arg(period).arg(millis(self.grace)).arg(millis(silence));
            looks.add_command(look);
            looked.push((text, period, user, device));
        }
        let mut connection = self.store.shared().clone();
        let findings: Vec<RedisResult<redis::Value>> =
            if looked.is_empty() { Vec::new() } else { looks.ignore_errors().query_async(&mut connection).await? };
        let mut entries = Vec::new();
        for ((text, period, user, device), finding) in looked.into_iter().zip(findings) {
            let finding = match finding.map_err(StoreError::from) {
                Ok(reply) => Finding::read(Value::from(&reply))?,
                Err(StoreError::FunctionMissing) => {
                    self.store.load_functions().await?;
                    left.wait(TURN);
                    continue;
                }
                // The keys of this user are not what they should be.
                Err(StoreError::WrongType | StoreError::Unexpected(_)) => Finding::Moved,
                Err(error) => return Err(error),
            };
            match finding {
                Finding::Moved | Finding::Here => done.push(text),
                Finding::Wait { ms } => left.wait(Duration::from_millis(ms)),
                Finding::Gone { generation, node, at_ms } => {
                    done.push(text);
                    let node = if node.is_empty() { node_of(owner) } else { node };
                    let entry = Entry { event: Event::Offline, user, device, node, generation, at_ms, number: 0 };
                    if period.is_empty() {
                        // It died before it had announced the device at all.
                        entries.push(Entry { event: Event::Online, ..entry.clone() });
                    }
                    entries.push(entry);
                }
            }
        }
        self.write(&entries).await?;
        if !done.is_empty() {
            self.store.query::<i64>(redis::cmd("HDEL").arg(index).arg(done)).await?;
        }
        Ok(())
    }

    async fn write(&self, entries: &[Entry]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut writes = pipe();
        for entry in entries {
            let [name, arguments @ ..] = entry.arguments(self.store.keys(), self.length_max);
            writes.cmd(&name).arg(arguments.as_slice());
        }
        writes.query_async::<()>(&mut self.store.shared().clone()).await?;
        for entry in entries {
            metrics::counter!(names::PRESENCE_EVENTS, "event" => entry.event.as_str()).increment(1);
        }
        Ok(())
    }

    /// Nobody is left of this owner: it need not be looked at again.
    async fn forget_if_empty(&mut self, owner: &str, index: &str) -> Result<(), StoreError> {
        if self.store.query::<i64>(redis::cmd("EXISTS").arg(index)).await? == 0 {
            let announcers = self.store.keys().name(Key::Announcers);
            self.store.query::<i64>(redis::cmd("SREM").arg(announcers).arg(owner)).await?;
        }
        Ok(())
    }
}

impl Left {
    fn wait(&mut self, time: Duration) {
        self.wait = Some(self.wait.map_or(time, |wait| wait.min(time)));
    }
}

/// The name of the node in an owner, `<node>:<random per start>.<shard>`.
fn node_of(owner: &str) -> String {
    owner.rsplit_once(':').map_or(owner, |(node, _)| node).to_owned()
}

/// A device whose owner is dead, as the janitor found it: it may be missing in that owner's index, if its node died
/// between the attach and the announcement.
#[derive(Clone, Debug)]
pub(in crate::delivery) struct Orphan {
    owner: String,
    field: String,
}

impl Orphan {
    pub(in crate::delivery) fn new(user: &homing_protocol::name::Name, device: &str, owner: &str) -> Self {
        Self { owner: owner.to_owned(), field: format!("{user} {device}") }
    }
}

/// Adds devices to the indexes of their dead owners, where they are missing.
pub(in crate::delivery) async fn announce(
    connection: &mut (impl ConnectionLike + Send),
    keys: &KeySpace,
    orphans: &[Orphan],
) -> Result<(), StoreError> {
    let mut adds = pipe();
    for Orphan { owner, field } in orphans {
        adds.cmd("HSETNX").arg(keys.name(Key::Online(owner))).arg(field).arg("").ignore();
        adds.cmd("SADD").arg(keys.name(Key::Announcers)).arg(owner).ignore();
    }
    Ok(adds.query_async(connection).await?)
}
