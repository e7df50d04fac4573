//! `homing bench idle`: what a session costs that has nothing to do.

use std::time::Duration;

use super::BenchError;
use super::clock::now_us;
use super::options::IdleOptions;
use super::outcome::Outcome;
use super::progress::Progress;
use super::report::{Chart, Findings, Series, Unit};
use super::stage::{self, Stage, Usage};

/// Time after the last connection of a step until memory is taken.
const SETTLE: Duration = Duration::from_secs(1);
/// Time until sessions are done with their first sweeps (1, 2, 4 and 8 s after they began).
const SWEEPS: Duration = Duration::from_secs(16);
/// Time for clients to connect beyond what their rate asks for.
const CONNECT_MARGIN: Duration = Duration::from_secs(60);

/// Runs it.
pub(crate) async fn run(options: &IdleOptions) -> Result<Outcome, BenchError> {
    let mut stage = Stage::open(&options.cluster, &options.clients, None).await?;
    let samples = climb(&mut stage, options).await?;
    let time = options.time.0;
    let mut progress = Progress::new("idle", (SWEEPS.min(time) + time).as_millis() as u64);
    let begin_us = now_us();
    let mut watch = move |total: &super::worker::orders::Report| progress.at((now_us() - begin_us) / 1_000, total);
    stage.crew.during(SWEEPS.min(time), &mut watch).await?;
    let before = stage.usage().await;
    let total = stage.crew.during(time, &mut watch).await?;
    let after = stage.usage().await;
    stage.cluster.check()?;
    let devices = stage.crew.devices();
    let mut findings = Findings::new("idle", format!("{devices} sessions with nothing to do"));
    stage.circumstances(&mut findings).await;
    findings.circumstance(
        "clients",
        format!("users: {}, devices of each: {}", options.clients.users, options.clients.devices),
    );
    findings.circumstance("time", options.time);
    memory(&mut findings, &samples, &stage);
    cpu(&mut findings, &before, &after, devices);
    stage::percentiles(
        &mut findings,
        "Connecting, from the time it was due to ready",
        "connecting",
        &stage.crew.connecting,
    );
    findings.figure("Counts", "connected", "connected at the end", total.connected as f64, Unit::Count);
    findings.figure("Counts", "disconnects", "disconnects", total.disconnects as f64, Unit::Count);
    let failure = (total.disconnects > 0 || total.connected < devices).then(|| {
        format!(
            "{} disconnects, {} of {devices} connected{}",
            total.disconnects,
            total.connected,
            stage::troubles(&total)
        )
    });
    stage.stop().await;
    Ok(Outcome { findings, failure })
}

/// Connects in steps. Gives what is in use before the first and after each, with the number of connections.
async fn climb(stage: &mut Stage, options: &IdleOptions) -> Result<Vec<(u64, Usage)>, BenchError> {
    let devices = stage.crew.devices();
    let steps = u64::from(options.steps.get()).min(devices);
    let rate = f64::from(options.clients.connect_rate.get());
    let mut samples = vec![(0, stage.usage().await)];
    let mut progress = Progress::new("connecting", devices);
    for step in 1..=steps {
        let goal = devices * step / steps;
        stage.crew.connect_up_to(now_us(), Some(rate), goal).await?;
        let limit = Duration::from_secs_f64(devices as f64 / rate) * 4 + CONNECT_MARGIN;
        let done = stage
            .crew
            .until(limit, |total| progress.at(total.connected, total), |total| total.connected >= goal)
            .await?;
        if done.is_none() {
            stage.cluster.check()?;
            let total = stage.crew.total();
            return Err(BenchError::Unreachable(format!(
                "only {} of {goal} clients are connected{}",
                total.connected,
                stage::troubles(&total)
            )));
        }
        stage.crew.during(SETTLE, |total| progress.at(total.connected, total)).await?;
        samples.push((goal, stage.usage().await));
    }
    Ok(samples)
}

fn memory(findings: &mut Findings, samples: &[(u64, Usage)], stage: &Stage) {
    let (Some((_, first)), Some((count, last))) = (samples.first(), samples.last()) else { return };
    let group = "Memory of one session";
    let each = |value: fn(&Usage) -> u64| (value(last) as f64 - value(first) as f64) / (*count).max(1) as f64;
    if stage.cluster.is_own() {
        findings.figure(group, "memory_node", "node", each(|usage| usage.nodes.anonymous), Unit::Bytes);
    }
    if last.redis.anonymous > 0 {
        findings.figure(
            group,
            "memory_redis",
            "Redis: inbox, group, device record",
            each(|usage| usage.redis.anonymous),
            Unit::Bytes,
        );
    }
    if last.kernel.tcp_sockets > 0 {
        findings.figure(
            group,
            "memory_tcp_buffers",
            "kernel: TCP buffers, both ends",
            each(|usage| usage.kernel.tcp_buffers),
            Unit::Bytes,
        );
        findings.figure(
            group,
            "memory_slab",
            "kernel: sockets and files, both ends",
            each(|usage| usage.kernel.slab),
            Unit::Bytes,
        );
        findings.note("The kernel's memory is that of the whole machine: it holds both ends of each connection, and whatever else runs.");
    }
    let series = |name: &str, value: fn(&Usage) -> u64| Series {
        name: name.to_owned(),
        points: samples.iter().map(|(count, usage)| (*count as f64, value(usage) as f64)).collect(),
    };
    let mut curves = Vec::new();
    if stage.cluster.is_own() {
        curves.push(series("nodes", |usage| usage.nodes.anonymous));
    }
    if last.redis.anonymous > 0 {
        curves.push(series("Redis", |usage| usage.redis.anonymous));
    }
    if last.kernel.tcp_sockets > 0 {
        curves.push(Series {
            name: "kernel, more than before".to_owned(),
            points: samples
                .iter()
                .map(|(count, usage)| {
                    let kept = |usage: &Usage| (usage.kernel.slab + usage.kernel.tcp_buffers) as f64;
                    (*count as f64, (kept(usage) - kept(first)).max(0.0))
                })
                .collect(),
        });
    }
    findings.charts.push(Chart {
        title: "Memory against connections".to_owned(),
        x_name: "connections".to_owned(),
        x_unit: Unit::Count,
        y_unit: Unit::Bytes,
        is_logarithmic: false,
        series: curves,
    });
}

fn cpu(findings: &mut Findings, before: &Usage, after: &Usage, devices: u64) {
    let group = "CPU of 10,000 idle sessions, of one core";
    let seconds = (after.at_us - before.at_us) as f64 / 1_000_000.0;
    let per = |before: Option<Duration>, after: Option<Duration>| {
        Some(after?.saturating_sub(before?).as_secs_f64() / seconds * 100.0 * 10_000.0 / devices.max(1) as f64)
    };
    if let Some(value) = per(before.nodes_cpu, after.nodes_cpu) {
        findings.figure(group, "cpu_nodes", "nodes", value, Unit::Percent);
    }
    if let Some(value) = per(before.redis_cpu, after.redis_cpu) {
        findings.figure(group, "cpu_redis", "Redis", value, Unit::Percent);
    }
}
