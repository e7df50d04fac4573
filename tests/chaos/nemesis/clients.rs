//! Clients that misbehave, and a storm of them.

use std::time::{Duration, Instant};

use super::super::plan::{Kind, Period};
use super::super::population::Storm;
use super::Nemesis;

/// Clients of a storm, as far as the descriptors of this process go.
const STORM: usize = 10_000;
/// Descriptors of this process for everything but the clients: proxies to Redis, producers, files.
const DESCRIPTORS_ELSE: usize = 2_000;
/// Descriptors per client of the population: its own, and both sides of the proxy.
const DESCRIPTORS_EACH: usize = 3;
/// Until all clients of a storm are connected.
const STORM_MAX: Duration = Duration::from_secs(90);

impl Nemesis {
    pub(super) async fn hit_clients(&mut self, kind: Kind, period: Period) {
        self.begin(kind, "some clients");
        match kind {
            Kind::SlowReader => self.population.set(|mood| mood.slow = true),
            Kind::NeverAcks => self.population.set(|mood| mood.never_acks = true),
            Kind::Twin => self.population.set(|mood| mood.twin = true),
            _ => self.storm().await,
        }
        if kind != Kind::Storm {
            tokio::time::sleep(period.length).await;
        }
        self.population.set(|mood| (mood.slow, mood.never_acks, mood.twin) = (false, false, false));
        self.healed();
    }

    /// Everybody connects at once, loses the connection at once, and comes back at once.
    async fn storm(&mut self) {
        let (_, clients) = self.population.connected();
        let limit = super::super::run::descriptor_limit();
        let size = STORM.min(limit.saturating_sub(DESCRIPTORS_ELSE + DESCRIPTORS_EACH * clients));
        self.stormed = self.stormed.max(size);
        let storm = Storm::start(&self.settings, self.recorder.clone(), self.cluster.nodes(), size);
        for round in ["a storm", "a storm that comes back"] {
            let start = Instant::now();
            while storm.connected() < storm.size {
                if start.elapsed() > STORM_MAX {
                    let state = format!("{round}: {} of {} after {STORM_MAX:?}", storm.connected(), storm.size);
                    println!("          {state}");
                    self.failures.push(state);
                    break;
                }
                tokio::time::sleep(super::POLL).await;
            }
            println!("          {round}: {} connected in {:.1} s", storm.connected(), start.elapsed().as_secs_f64());
            if round == "a storm" {
                storm.again();
                while storm.connected() == storm.size {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
        storm.stop().await;
    }
}
