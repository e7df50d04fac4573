//! A cluster and a crew together: what every measurement does with them.

use std::time::Duration;

use super::BenchError;
use super::clock::now_us;
use super::cluster::Cluster;
use super::crew::{Crew, Work};
use super::latency::Latencies;
use super::options::{ClientsOptions, ClusterOptions, MessagesOptions};
use super::process::{self, Kernel, Memory};
use super::progress::Progress;
use super::report::{Chart, Findings, Series, Unit};
use super::timeline::Second;
use super::values::Via;
use super::worker::orders::{Producer, Report};

/// Time for the last clients to connect, beside what their rate asks for.
const CONNECT_MARGIN: Duration = Duration::from_secs(60);
/// Time for the last messages and acks after the last publish.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(60);
/// Users whose groups are asked for at once.
const GROUPS_BATCH: usize = 500;

/// A cluster with clients.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) crew: Crew,
}

/// Resources used so far, and kept now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) at_us: u64,
    /// `None` if they cannot be seen.
    pub(crate) nodes_cpu: Option<Duration>,
    pub(crate) redis_cpu: Option<Duration>,
    pub(crate) workers_cpu: Duration,
    /// That the machine had work for and was not given.
    pub(crate) stolen_cpu: Option<Duration>,
    pub(crate) nodes: Memory,
    pub(crate) redis: Memory,
    pub(crate) kernel: Kernel,
}

/// What Redis still holds for the users of a measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// Delivered, and not acknowledged.
    pub(crate) pending: u64,
    /// Not delivered.
    pub(crate) undelivered: u64,
}

impl Stage {
    /// Starts all processes.
    pub(crate) async fn open(
        cluster: &ClusterOptions,
        clients: &ClientsOptions,
        messages: Option<&MessagesOptions>,
    ) -> Result<Self, BenchError> {
        let devices = clients.users.get().checked_mul(clients.devices).filter(|devices| *devices <= 10_000_000);
        let devices = devices.ok_or_else(|| BenchError::Usage("more than 10,000,000 devices".to_owned()))?;
        let cluster = Cluster::open(cluster, devices).await?;
        let producer = match messages {
            None => Producer::None,
            Some(MessagesOptions { via: Via::Http, batch, .. }) => cluster.by_http(*batch)?,
            Some(MessagesOptions { via: Via::Xadd, .. }) => cluster.by_xadd()?,
        };
        let work = Work {
            users: clients.users.get(),
            devices: clients.devices,
            workers: clients.workers.map_or(0, std::num::NonZero::get),
            producer,
            producers: messages.map_or(1, |messages| messages.producers.get()),
            size: messages.map_or(0, |messages| messages.size),
            confirm: clients.confirm,
        };
        let crew = Crew::start(&cluster, work).await?;
        Ok(Self { cluster, crew })
    }

    /// Connects all devices, so many each second.
    pub(crate) async fn connect(&mut self, rate: u32) -> Result<(), BenchError> {
        let devices = self.crew.devices();
        let mut progress = Progress::new("connecting", devices);
        self.crew.connect(now_us(), Some(f64::from(rate))).await?;
        let limit = Duration::from_secs(devices / u64::from(rate)) * 4 + CONNECT_MARGIN;
        let done =
            self.crew.until(limit, |total| progress.at(total.connected, total), |total| total.connected >= devices);
        if done.await?.is_none() {
            self.cluster.check()?;
            let total = self.crew.total();
            return Err(BenchError::Unreachable(format!(
                "only {} of {devices} clients are connected after {limit:?}{}",
                total.connected,
                troubles(&total)
            )));
        }
        Ok(())
    }

    pub(crate) async fn usage(&self) -> Usage {
        Usage {
            at_us: now_us(),
            nodes_cpu: self.cluster.nodes_cpu(),
            redis_cpu: match self.cluster.redis() {
                Some(redis) => redis.cpu().await,
                None => None,
            },
            workers_cpu: self.crew.cpu(),
            stolen_cpu: process::stolen(),
            nodes: self.cluster.nodes_memory(),
            redis: self.cluster.redis().map(super::cluster::Redis::memory).unwrap_or_default(),
            kernel: process::kernel(),
        }
    }

    /// What Redis holds for the users; `None` if it cannot be asked.
    pub(crate) async fn unfinished(&self) -> Result<Option<Unfinished>, BenchError> {
        let Some(redis) = self.cluster.redis() else { return Ok(None) };
        let keys: Vec<String> = (0..self.crew.users()).map(|number| self.inbox(number)).collect();
        let mut unfinished = Unfinished::default();
        for batch in keys.chunks(GROUPS_BATCH) {
            let mut pipeline = redis::pipe();
            for key in batch {
                pipeline.cmd("XINFO").arg("GROUPS").arg(key);
            }
            // A user to whom nothing came yet has no inbox, which is an error of its reply alone.
            let replies: Vec<redis::Value> = pipeline
                .ignore_errors()
                .query_async(&mut redis.connection())
                .await
                .map_err(BenchError::unreachable("Redis"))?;
            for reply in replies {
                let groups: Vec<std::collections::HashMap<String, redis::Value>> =
                    redis::from_redis_value(reply).unwrap_or_default();
                for group in groups {
                    let number = |name: &str| match group.get(name) {
                        Some(redis::Value::Int(number)) => u64::try_from(*number).unwrap_or(0),
                        _ => 0,
                    };
                    unfinished.pending += number("pending");
                    unfinished.undelivered += number("lag");
                }
            }
        }
        Ok(Some(unfinished))
    }

    /// Waits until every message is acknowledged in Redis, for some time; gives what is left.
    pub(crate) async fn acknowledged(&mut self) -> Result<Option<Unfinished>, BenchError> {
        let deadline = tokio::time::Instant::now() + DRAIN_MAX;
        loop {
            let unfinished = self.unfinished().await?;
            let is_done = unfinished.is_none_or(|unfinished| unfinished == Unfinished::default());
            if is_done || tokio::time::Instant::now() >= deadline {
                return Ok(unfinished);
            }
            self.crew.during(Duration::from_millis(200), |_| {}).await?;
        }
    }

    fn inbox(&self, user: u32) -> String {
        format!("{}:{{{}}}:inbox", self.cluster.prefix(), self.crew.user(user))
    }

    /// Machine, versions, processes.
    pub(crate) async fn circumstances(&self, findings: &mut Findings) {
        findings.circumstance("machine", process::machine());
        let build = if cfg!(debug_assertions) { " (debug build: its figures mean little)" } else { "" };
        findings.circumstance("homing", format!("{}{build}", env!("CARGO_PKG_VERSION")));
        if let Some(redis) = self.cluster.redis() {
            let version = redis.info("server", "redis_version").await.unwrap_or_default();
            let log = match self.cluster.data_dir() {
                Some(folder) => format!(", appendfsync everysec, log on {}", process::file_system(&folder)),
                None => String::new(),
            };
            findings.circumstance("redis", format!("{version}{log}"));
        }
        let nodes = self.cluster.targets().len();
        let whose = if self.cluster.is_own() { "" } else { " (not ours: CPU and memory are not seen)" };
        findings
            .circumstance("processes", format!("nodes: {nodes}{whose}, workers with clients: {}", self.crew.workers()));
    }

    /// Ends all processes.
    pub(crate) async fn stop(self) {
        self.crew.stop().await;
        self.cluster.stop().await;
    }
}

/// Troubles as a text, the commonest first; empty if there were none.
pub(crate) fn troubles(total: &Report) -> String {
    let mut troubles: Vec<(&String, &u64)> = total.troubles.iter().collect();
    troubles.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    troubles.iter().take(5).map(|(what, count)| format!("\n  {count} × {what}")).collect()
}

/// The percentiles that are shown.
pub(crate) fn percentiles(findings: &mut Findings, group: &'static str, key: &str, latencies: &Latencies) {
    for (name, suffix, part) in
        [("50 %", "p50", 0.5), ("90 %", "p90", 0.9), ("99 %", "p99", 0.99), ("99.9 %", "p99_9", 0.999)]
    {
        let name = format!("{name} within");
        findings.figure(group, &format!("{key}_{suffix}"), &name, latencies.quantile(part) as f64, Unit::Microseconds);
    }
    findings.figure(group, &format!("{key}_max"), "slowest", latencies.max() as f64, Unit::Microseconds);
}

/// Latency percentiles over time, and throughput over time.
pub(crate) fn charts(findings: &mut Findings, seconds: &[Second], what: &str) {
    let points = |value: &dyn Fn(&Second) -> Option<f64>| -> Vec<(f64, f64)> {
        let values =
            seconds.iter().enumerate().filter_map(|(index, second)| Some((index as f64 + 1.0, value(second)?)));
        values.collect()
    };
    let latency = |name: &str, part: f64| Series {
        name: name.to_owned(),
        points: points(&|second| (second.latencies.count() > 0).then(|| second.latencies.quantile(part) as f64)),
    };
    findings.charts.push(Chart {
        title: format!("{what} over time"),
        x_name: "time".to_owned(),
        x_unit: Unit::Seconds,
        y_unit: Unit::Microseconds,
        is_logarithmic: true,
        series: vec![latency("50 %", 0.5), latency("90 %", 0.9), latency("99 %", 0.99), latency("slowest", 1.0)],
    });
    // The last second is hardly ever a whole one.
    let whole = seconds.len().saturating_sub(1).max(1);
    let rate = |name: &str, value: &dyn Fn(&Second) -> Option<f64>| Series {
        name: name.to_owned(),
        points: points(value).into_iter().take(whole).collect(),
    };
    findings.charts.push(Chart {
        title: "Throughput".to_owned(),
        x_name: "time".to_owned(),
        x_unit: Unit::Seconds,
        y_unit: Unit::PerSecond,
        is_logarithmic: false,
        series: vec![
            rate("sent", &|second| Some(second.sent as f64)),
            rate("received", &|second| Some(second.received as f64)),
        ],
    });
}

/// Latency by percentile: how fast the rare cases become slow.
pub(crate) fn percentile_chart(findings: &mut Findings, latencies: &Latencies, what: &str) {
    let parts = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.75, 99.9, 99.95, 99.975, 99.99, 99.999];
    // A percentile beyond the last message says nothing but the slowest again.
    let told = parts.into_iter().filter(|part| (1.0 - part / 100.0) * latencies.count() as f64 >= 1.0);
    let points: Vec<(f64, f64)> = told.map(|part| (part, latencies.quantile(part / 100.0) as f64)).collect();
    findings.charts.push(Chart {
        title: format!("{what} by percentile"),
        x_name: "part of all".to_owned(),
        x_unit: Unit::Percent,
        y_unit: Unit::Microseconds,
        is_logarithmic: true,
        series: vec![Series { name: "latency".to_owned(), points }],
    });
}
