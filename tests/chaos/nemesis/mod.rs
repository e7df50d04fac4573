//! Does what the plan says: injects faults, heals them, and waits until everything works again.
//!
//! It must not know what is right: it records what it does and lets the checker judge. Invariant: a fault is recorded
//! before it is injected and healed before the next period begins.

mod clients;
mod data;
mod network;
mod nodes;
mod redis;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::followers::Followers;
use super::history::Event;
use super::plan::{Kind, Period};
use super::population::{Population, Storm};
use super::recorder::Recorder;
use super::settings::Settings;

/// After a fault, until every node is ready and every client is back.
const RECOVERY_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Clients that may be on their way from one node to another at any time.
const MOVING: usize = 5;

/// The one who does it.
#[derive(Debug)]
pub(crate) struct Nemesis {
    pub(crate) cluster: Cluster,
    pub(crate) population: Population,
    pub(crate) followers: Followers,
    recorder: Arc<Recorder>,
    settings: Settings,
    number: u32,
    /// Clients of the largest storm until now.
    stormed: usize,
    /// What went wrong that no history shows: a node that died by itself, a recovery that took too long.
    pub(crate) failures: Vec<String>,
}

impl Nemesis {
    pub(crate) fn new(
        cluster: Cluster,
        population: Population,
        followers: Followers,
        recorder: Arc<Recorder>,
        settings: Settings,
    ) -> Self {
        Self { cluster, population, followers, recorder, settings, number: 0, stormed: 0, failures: Vec::new() }
    }

    /// Whether this fault can be injected here.
    pub(crate) fn can(&self, kind: Kind) -> bool {
        let wanted = self.settings.only.is_empty() || self.settings.only.iter().any(|name| name == kind.name());
        wanted && (kind != Kind::DiskFull || self.cluster.disk.is_some())
    }

    /// One period of the plan, with the recovery from it.
    pub(crate) async fn run(&mut self, period: Period) {
        let Some(kind) = period.fault else {
            self.number += 1;
            let number = self.number;
            self.recorder.record(Event::Calm { number });
            tokio::time::sleep(period.length).await;
            self.recorder.record(Event::CalmEnds { number });
            return;
        };
        match kind {
            Kind::NodeKilled | Kind::NodeStopped | Kind::RollingRestart => self.hit_node(kind, period).await,
            Kind::RedisKilled | Kind::RedisPaused | Kind::RedisOutOfMemory | Kind::DiskFull => {
                self.hit_redis(kind, period).await;
            }
            Kind::FlushedAll
            | Kind::InboxDeleted
            | Kind::GroupDestroyed
            | Kind::FunctionsFlushed
            | Kind::FlagsCleared
            | Kind::SubscriptionsKilled => self.hit_data(kind, period).await,
            Kind::SlowReader | Kind::NeverAcks | Kind::Twin | Kind::Storm => self.hit_clients(kind, period).await,
            _ => self.hit_network(kind, period).await,
        }
        self.recover(kind.name()).await;
    }

    /// Every device that ever connected, as user and device.
    pub(crate) fn devices(&self) -> Vec<(String, String)> {
        let mut devices = self.population.devices();
        devices.extend(Storm::devices(self.stormed));
        devices
    }

    fn begin(&mut self, kind: Kind, target: &str) {
        let loses_from_us = self.recorder.now_us();
        self.begin_with(kind, target, false, loses_from_us);
    }

    fn begin_with(&mut self, kind: Kind, target: &str, loses: bool, loses_from_us: u64) {
        self.number += 1;
        let (number, kind, target) = (self.number, kind.name().to_owned(), target.to_owned());
        println!("{:>6.1} s  {kind} {target}", self.recorder.now_us() as f64 / 1e6);
        self.recorder.record(Event::Fault { number, kind, target, loses, loses_from_us });
        self.recorder.flush();
    }

    fn healed(&self) {
        self.recorder.record(Event::Healed { number: self.number });
    }

    /// Waits until every node is ready and every client is connected.
    pub(crate) async fn recover(&mut self, after: &str) {
        let start = Instant::now();
        loop {
            self.population.check();
            let ready = match self.cluster.look_after().await {
                Ok(ready) => ready,
                Err(failure) => {
                    println!("          {failure}");
                    self.failures.push(format!("{failure} after {after}"));
                    false
                }
            };
            let (connected, all) = self.population.connected();
            if ready && connected + MOVING >= all {
                break;
            }
            if start.elapsed() > RECOVERY_MAX {
                let state =
                    format!("not recovered {RECOVERY_MAX:?} after {after}: ready {ready}, {connected} of {all}");
                println!("          {state}");
                self.failures.push(state);
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        // What piled up is delivered before the next period begins.
        tokio::time::sleep(Duration::from_secs(if self.settings.short { 1 } else { 3 })).await;
    }
}
