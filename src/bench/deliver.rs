//! `homing bench deliver`: messages to connected devices.

use std::time::Duration;

use super::BenchError;
use super::clock::{now_us, us};
use super::costs;
use super::floor::{self, Floor};
use super::options::{DeliverOptions, MessagesOptions};
use super::outcome::Outcome;
use super::progress::Progress;
use super::report::{Chart, Findings, Series, Unit};
use super::sockets_floor;
use super::stage::{self, DRAIN_MAX, Stage, Usage};
use super::values::{Rate, Via};
use super::worker::orders::{Pace, Publishing, Report};

/// Time from the order to publish to the first message: orders must have arrived.
pub(crate) const START_DELAY: Duration = Duration::from_millis(300);
/// How long bare commands are measured, before and after each.
const FLOOR_TIME: Duration = Duration::from_secs(2);

/// What latencies of messages are.
pub(crate) const LATENCY: &str = "Latency, from the intended time to the device";
/// Time between two looks at CPU and memory, at least: reading the memory of a large process takes some time.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// How much later than the last message was meant to be sent everything has usually arrived and was reported.
pub(crate) const LATE: Duration = Duration::from_millis(500);
/// Points of a curve of them, at most.
const SAMPLES_MAX: u32 = 60;

/// Runs it.
pub(crate) async fn run(options: &DeliverOptions) -> Result<Outcome, BenchError> {
    let mut stage = Stage::open(&options.cluster, &options.clients, Some(&options.messages)).await?;
    stage.connect(options.clients.connect_rate.get()).await?;
    let mut floors = Vec::new();
    floors.extend(floor(&stage, options).await?);
    let pace = match options.rate {
        Rate::Max => Pace::InFlight(u64::from(options.in_flight.get())),
        Rate::PerSecond(rate) => Pace::Rate(rate),
    };
    let flow = Flow { pace, time: options.time.0, warm_up: options.warm_up.0, gather: Duration::ZERO };
    let measured = flow.run(&mut stage).await?;
    floors.extend(floor(&stage, options).await?);
    let mut findings = describe(options, &stage).await;
    let failure = measured.figures(&mut findings, &stage, LATENCY);
    floor_figures(&mut findings, &floors, &measured);
    stage::charts(&mut findings, stage.crew.timeline.seconds(), "Latency");
    stage::percentile_chart(&mut findings, &stage.crew.latencies, "Latency");
    measured.charts(&mut findings);
    stage.stop().await;
    if !floors.is_empty() {
        whole_floor_figures(&mut findings, &floors, &measured, &options.messages).await?;
    }
    Ok(Outcome { findings, failure })
}

async fn floor(stage: &Stage, options: &DeliverOptions) -> Result<Option<Floor>, BenchError> {
    match stage.cluster.redis() {
        Some(redis) if !options.no_floor => {
            let progress = Progress::new("floor", 1);
            progress.say("bare commands on the same Redis");
            floor::measure(redis, FLOOR_TIME.min(options.time.0), options.messages.size).await.map(Some)
        }
        _ => Ok(None),
    }
}

/// Messages to devices that are connected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) pace: Pace,
    pub(crate) time: Duration,
    pub(crate) warm_up: Duration,
    /// See [`Publishing::gather_us`].
    pub(crate) gather: Duration,
}

/// What was counted between two moments.
pub(crate) struct Measured {
    pub(crate) before: Usage,
    pub(crate) after: Usage,
    /// In between.
    pub(crate) samples: Vec<Usage>,
    pub(crate) counts: Report,
    pub(crate) unfinished: Option<stage::Unfinished>,
    /// How long messages were sent.
    pub(crate) seconds: f64,
}

impl Flow {
    pub(crate) async fn run(self, stage: &mut Stage) -> Result<Measured, BenchError> {
        let start_us = now_us() + us(START_DELAY);
        let measured_from_us = start_us + us(self.warm_up);
        let until_us = measured_from_us + us(self.time);
        let (pace, gather_us) = (self.pace, us(self.gather));
        let order = Publishing { start_us, measured_from_us, until_us, pace, gather_us, count_per_user: None };
        stage.crew.publish(order).await?;
        let mut progress = Progress::new("delivering", until_us - start_us);
        let mut watch = move |total: &Report| progress.at(now_us().saturating_sub(start_us), total);
        stage.crew.during(Duration::from_micros(measured_from_us.saturating_sub(now_us())), &mut watch).await?;
        stage.crew.begin_timeline();
        let before = stage.usage().await;
        let mut samples = vec![before];
        let sample_every = SAMPLE_EVERY.max(self.time / SAMPLES_MAX);
        while now_us() + us(sample_every) < until_us {
            stage.crew.during(sample_every, &mut watch).await?;
            samples.push(stage.usage().await);
            stage.cluster.check()?;
        }
        let devices = stage.crew.devices_each();
        let is_done = |total: &Report| !total.is_publishing && total.unique >= total.accepted * devices;
        let rest = Duration::from_micros(until_us.saturating_sub(now_us()));
        stage.crew.until(rest + DRAIN_MAX, &mut watch, is_done).await?;
        let after = stage.usage().await;
        let unfinished = stage.acknowledged().await?;
        stage.cluster.check()?;
        // Over that time, the load was more than the cluster could take, and the rest came late.
        let elapsed_us = after.at_us - before.at_us;
        let seconds = if elapsed_us > us(self.time + LATE) { elapsed_us } else { us(self.time) } as f64 / 1_000_000.0;
        Ok(Measured { before, after, samples, counts: stage.crew.total(), unfinished, seconds })
    }
}

/// What was counted since `before`, when a load is interrupted.
pub(crate) async fn measured_since(stage: &mut Stage, before: Usage) -> Result<Measured, BenchError> {
    let after = stage.usage().await;
    let devices = stage.crew.devices_each();
    stage
        .crew
        .until(DRAIN_MAX, |_| {}, |total| !total.is_publishing && total.unique >= total.accepted * devices)
        .await?;
    let unfinished = stage.acknowledged().await?;
    let seconds = (after.at_us - before.at_us) as f64 / 1_000_000.0;
    Ok(Measured { before, after, samples: Vec::new(), counts: stage.crew.total(), unfinished, seconds })
}

impl Measured {
    /// Deliveries of messages that were meant for the measured time.
    fn deliveries(&self) -> u64 {
        self.counts.measured
    }

    fn per_delivery(&self, before: Option<Duration>, after: Option<Duration>) -> Option<f64> {
        let used = after?.saturating_sub(before?);
        (self.deliveries() > 0).then(|| used.as_secs_f64() * 1_000_000.0 / self.deliveries() as f64)
    }

    fn nodes_us(&self) -> Option<f64> {
        self.per_delivery(self.before.nodes_cpu, self.after.nodes_cpu)
    }

    fn redis_us(&self) -> Option<f64> {
        self.per_delivery(self.before.redis_cpu, self.after.redis_cpu)
    }

    /// Adds all figures; says what is wrong, if something is.
    pub(crate) fn figures(&self, findings: &mut Findings, stage: &Stage, latency: &'static str) -> Option<String> {
        let received = self.deliveries() as f64 / self.seconds;
        findings.figure("Throughput", "received_rate", "received and acknowledged", received, Unit::PerSecond);
        stage::percentiles(findings, latency, "latency", &stage.crew.latencies);
        self.core_figures(findings);
        let group = "CPU for each message that a device received and acknowledged";
        let workers = self.per_delivery(Some(self.before.workers_cpu), Some(self.after.workers_cpu));
        let parts = [
            ("cpu_nodes", "nodes", self.nodes_us()),
            ("cpu_redis", "Redis", self.redis_us()),
            ("cpu_workers", "this load client", workers),
        ];
        for (key, name, value) in parts {
            if let Some(value) = value {
                findings.figure(group, key, name, value, Unit::Microseconds);
            }
        }
        memory_figures(findings, &self.after);
        self.count_figures(findings, stage)
    }

    /// How busy the processes were.
    fn core_figures(&self, findings: &mut Findings) {
        if self.samples.is_empty() {
            // The time holds some waiting as well.
            return;
        }
        costs::busy(findings, (&self.before, &self.after));
    }

    /// CPU and memory over time.
    pub(crate) fn charts(&self, findings: &mut Findings) {
        if self.samples.len() < 3 || self.before.nodes_cpu.is_none() {
            return;
        }
        let time = |usage: &Usage| (usage.at_us - self.before.at_us) as f64 / 1_000_000.0;
        let cpu = |name: &str, value: fn(&Usage) -> Option<Duration>| {
            let load = |pair: &[Usage]| {
                let used = value(&pair[1])?.saturating_sub(value(&pair[0])?).as_secs_f64();
                Some((time(&pair[1]), used / (time(&pair[1]) - time(&pair[0])) * 100.0))
            };
            Series { name: name.to_owned(), points: self.samples.windows(2).filter_map(load).collect() }
        };
        let memory = |name: &str, value: fn(&Usage) -> u64| {
            let points = self.samples.iter().map(|usage| (time(usage), value(usage) as f64)).collect();
            Series { name: name.to_owned(), points }
        };
        let chart = |title: &str, y_unit, series| Chart {
            title: title.to_owned(),
            x_name: "time".to_owned(),
            x_unit: Unit::Seconds,
            y_unit,
            is_logarithmic: false,
            series,
        };
        let series = vec![
            cpu("nodes", |usage| usage.nodes_cpu),
            cpu("Redis", |usage| usage.redis_cpu),
            cpu("this load client", |usage| Some(usage.workers_cpu)),
        ];
        findings.charts.push(chart("CPU, of one core", Unit::Percent, series));
        let series = vec![
            memory("nodes", |usage| usage.nodes.resident),
            memory("Redis", |usage| usage.redis.resident),
            memory("TCP buffers", |usage| usage.kernel.tcp_buffers),
        ];
        findings.charts.push(chart("Memory", Unit::Bytes, series));
    }

    fn count_figures(&self, findings: &mut Findings, stage: &Stage) -> Option<String> {
        let counts = &self.counts;
        let expected = counts.accepted * stage.crew.devices_each();
        let lost = expected.saturating_sub(counts.unique);
        let group = "Counts, with the warm-up";
        findings.figure(group, "sent", "messages sent", counts.sent as f64, Unit::Count);
        findings.figure(group, "accepted", "accepted", counts.accepted as f64, Unit::Count);
        findings.figure(group, "refused", "refused, or outcome unknown", counts.refused as f64, Unit::Count);
        findings.figure(group, "received", "received, each device counts", counts.unique as f64, Unit::Count);
        findings.figure(group, "lost", "lost", lost as f64, Unit::Count);
        findings.figure(group, "duplicates", "received twice", counts.duplicates as f64, Unit::Count);
        findings.figure(group, "disconnects", "disconnects", counts.disconnects as f64, Unit::Count);
        let retries = counts.retries as f64;
        findings.figure(group, "retries", "connections that failed and were made again", retries, Unit::Count);
        if counts.confirmed > 0 {
            findings.figure(group, "confirmed", "acks confirmed by the server", counts.confirmed as f64, Unit::Count);
        }
        match self.unfinished {
            Some(unfinished) => {
                let left = unfinished.pending + unfinished.undelivered;
                findings.figure(
                    group,
                    "unacknowledged",
                    "not acknowledged in Redis at the end",
                    left as f64,
                    Unit::Count,
                );
            }
            None => findings.note("Redis was not given (--redis): whether every ack arrived there was not checked."),
        }
        let troubles = stage::troubles(counts);
        if !troubles.is_empty() {
            findings.note(format!("Troubles:{troubles}"));
        }
        let left = self.unfinished.map_or(0, |unfinished| unfinished.pending + unfinished.undelivered);
        match (lost, left) {
            (0, 0) => None,
            (0, left) => Some(format!("{left} messages were not acknowledged in Redis after {DRAIN_MAX:?}")),
            (lost, _) => Some(format!("{lost} of {expected} messages did not arrive within {DRAIN_MAX:?}")),
        }
    }
}

/// Memory of nodes, Redis and the kernel.
pub(crate) fn memory_figures(findings: &mut Findings, usage: &Usage) {
    let group = "Memory at the end";
    if usage.nodes.resident > 0 {
        findings.figure(group, "memory_nodes", "nodes, resident", usage.nodes.resident as f64, Unit::Bytes);
    }
    if usage.redis.resident > 0 {
        findings.figure(group, "memory_redis", "Redis, resident", usage.redis.resident as f64, Unit::Bytes);
    }
    if usage.kernel.tcp_sockets > 0 {
        findings.figure(
            group,
            "memory_tcp_buffers",
            "TCP buffers of the machine",
            usage.kernel.tcp_buffers as f64,
            Unit::Bytes,
        );
    }
}

fn floor_figures(findings: &mut Findings, floors: &[Floor], measured: &Measured) {
    if floors.is_empty() {
        return;
    }
    let (floor_us, rate) = (mean(floors, |floor| floor.redis_us), mean(floors, |floor| floor.rate));
    let group = "Floor: bare XADD, XREADGROUP, XACK on the same Redis, before and after";
    findings.figure(group, "floor_redis", "Redis's CPU for a message", floor_us, Unit::Microseconds);
    findings.figure(group, "floor_rate", "messages", rate, Unit::PerSecond);
    if floor_us <= 0.0 {
        return;
    }
    if let Some(redis_us) = measured.redis_us() {
        findings.figure(group, "ratio_redis", "Redis here, to the floor", redis_us / floor_us, Unit::Ratio);
        if let Some(nodes_us) = measured.nodes_us() {
            let ratio = (redis_us + nodes_us) / floor_us;
            findings.figure(group, "ratio_all", "Redis and nodes here, to the floor", ratio, Unit::Ratio);
        }
    }
}

fn mean(floors: &[Floor], value: fn(&Floor) -> f64) -> f64 {
    floors.iter().map(value).sum::<f64>() / floors.len() as f64
}

/// What bare sockets cost, too: a frame and its ack for each delivery, and, by HTTP, a request and its answer for each batch.
/// Nothing else may run meanwhile.
async fn whole_floor_figures(
    findings: &mut Findings,
    floors: &[Floor],
    measured: &Measured,
    messages: &MessagesOptions,
) -> Result<(), BenchError> {
    let _progress = Progress::new("floor", 1);
    let sockets_us = sockets_floor::measure(FLOOR_TIME).await?;
    findings.figure(sockets_floor::GROUP, "floor_sockets", sockets_floor::NAME, sockets_us, Unit::Microseconds);
    let requests = match messages.via {
        Via::Http => measured.counts.accepted as f64 / f64::from(messages.batch),
        Via::Xadd => 0.0,
    };
    let exchanges = 1.0 + requests / (measured.counts.unique as f64).max(1.0);
    let floor_us = mean(floors, |floor| floor.redis_us) + exchanges * sockets_us;
    if let Some((redis_us, nodes_us)) = measured.redis_us().zip(measured.nodes_us()) {
        let name = "Redis and nodes here, to bare commands and bare sockets";
        let ratio = (redis_us + nodes_us) / floor_us.max(f64::EPSILON);
        findings.figure(sockets_floor::GROUP, "ratio_whole", name, ratio, Unit::Ratio);
    }
    Ok(())
}

/// How messages are published, for people.
pub(crate) fn via(via: Via) -> &'static str {
    match via {
        Via::Http => "HTTP",
        Via::Xadd => "pipelined XADD",
    }
}

async fn describe(options: &DeliverOptions, stage: &Stage) -> Findings {
    let rate = match options.rate {
        Rate::Max => format!("as fast as possible with {} on their way", options.in_flight),
        Rate::PerSecond(rate) => Unit::PerSecond.show(rate),
    };
    let mut findings =
        Findings::new("deliver", format!("Messages to {} connected devices, {rate}", stage.crew.devices()));
    stage.circumstances(&mut findings).await;
    let messages = &options.messages;
    let (name, producers) = (via(messages.via), messages.producers);
    let batch = if messages.batch > 1 { format!(", {} in a request", messages.batch) } else { String::new() };
    findings
        .circumstance("messages", format!("{} bytes each, by {name} on {producers} connections{batch}", messages.size));
    findings.circumstance(
        "clients",
        format!("users: {}, devices of each: {}", options.clients.users, options.clients.devices),
    );
    findings.circumstance("time", format!("{} after {} of warm-up", options.time, options.warm_up));
    if options.rate == Rate::Max {
        findings.note("As fast as possible: a message is meant to be sent when there is room for it, so latencies say how long the queue is.");
    }
    findings
}
