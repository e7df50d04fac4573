//! `homing bench broadcast`: a message to everybody every few seconds, acknowledged by everybody.

use std::time::Duration;

use homing_protocol::id::EntryId;
use homing_protocol::topic::{Topic, cursor_score};

use super::BenchError;
use super::clock::{now_us, us};
use super::costs;
use super::deliver::{START_DELAY, memory_figures};
use super::latency::Latencies;
use super::options::{BroadcastOptions, ClientsOptions};
use super::outcome::Outcome;
use super::progress::Progress;
use super::report::{Findings, Unit};
use super::sockets_floor;
use super::stage::{self, DRAIN_MAX, Stage};
use super::worker::payload::{Payloads, SIZE_MIN, Told};
use crate::config::Limits;
use crate::store::{Key, KeySpace};

/// Time in which new sessions come to rest, their early sweeps included, before the first broadcast.
const CALM: Duration = Duration::from_secs(10);
/// Time beyond [`Limits::cursor_flush`] in which cursors are written after the last ack.
const CURSORS_SPARE: Duration = Duration::from_secs(3);

/// Time for the floor.
const FLOOR_TIME: Duration = Duration::from_secs(3);

/// Runs it.
pub(crate) async fn run(options: &BroadcastOptions) -> Result<Outcome, BenchError> {
    let clients = ClientsOptions::one_device_each(options.users, options.workers, options.connect_rate);
    let mut stage = Stage::open(&options.cluster, &clients, None).await?;
    stage.connect(options.connect_rate.get()).await?;
    stage.crew.during(CALM, |_| {}).await?;
    let devices = stage.crew.devices();
    let Some(redis) = stage.cluster.redis() else {
        return Err(BenchError::Usage("broadcasts are appended by XADD: --redis is needed".to_owned()));
    };
    let mut connection = redis.connection();
    let log = KeySpace::new(stage.cluster.prefix(), 0).name(Key::Log(&Topic::Broadcast));
    let payloads = Payloads::new(stage.crew.run(), options.size.max(SIZE_MIN));
    let rounds = (options.time.0.as_secs_f64() / options.every.0.as_secs_f64()).round().max(1.0) as u32;
    let mut progress = Progress::new("broadcasting", u64::from(rounds));
    let before = stage.usage().await;
    let (mut slowest, mut complete, mut last) = (Latencies::default(), 0, EntryId::MIN);
    let start_us = now_us() + us(START_DELAY);
    for number in 0..rounds {
        let intended_us = start_us + u64::from(number) * us(options.every.0);
        let wait = Duration::from_micros(intended_us.saturating_sub(now_us()));
        stage.crew.during(wait, |total| progress.at(u64::from(number), total)).await?;
        let mut payload = Vec::new();
        payloads.push(&mut payload, Told { intended_us, number });
        let mut append = redis::cmd("XADD");
        append.arg(&log).arg("*").arg("data").arg(payload);
        let id: String = append
            .query_async(&mut connection)
            .await
            .map_err(|error| BenchError::Failed(format!("Redis refused a broadcast: {error}")))?;
        last = id.parse().map_err(|_| BenchError::Broken(format!("{id:?} is no entry's id")))?;
        let expected = u64::from(number + 1) * devices;
        let due = intended_us + us(options.every.0);
        let rest = Duration::from_micros(due.saturating_sub(now_us()));
        let done = stage.crew.until(rest, |_| {}, |total| total.unique >= expected).await?;
        if done.is_some() {
            complete += 1;
            slowest.record(now_us().saturating_sub(intended_us));
        }
        stage.cluster.check()?;
    }
    let expected = u64::from(rounds) * devices;
    stage.crew.until(DRAIN_MAX, |_| {}, |total| total.unique >= expected).await?;
    stage.crew.during(Limits::default().cursor_flush + CURSORS_SPARE, |_| {}).await?;
    drop(progress);
    let (after, total) = (stage.usage().await, stage.crew.total());
    let cursors = KeySpace::new(stage.cluster.prefix(), 0).name(Key::Cursors(&Topic::Broadcast));
    let mut count = redis::cmd("ZCOUNT");
    count.arg(cursors).arg(cursor_score(last)).arg("+inf");
    let written: u64 = count.query_async(&mut connection).await.unwrap_or(0);
    let about = format!("A broadcast to {devices} connected devices every {}, acknowledged", options.every);
    let mut findings = Findings::new("broadcast", about);
    stage.circumstances(&mut findings).await;
    findings.circumstance("messages", format!("{rounds} broadcasts of {} bytes, by XADD", options.size.max(SIZE_MIN)));
    stage::percentiles(
        &mut findings,
        "Latency, from the intended time to each device",
        "latency",
        &stage.crew.latencies,
    );
    stage::percentiles(&mut findings, "Until the last device has it", "last", &slowest);
    let group = "CPU for each device that received and acknowledged a broadcast";
    let cost_us = costs::cpu_each(&mut findings, (group, ""), (&before, &after), total.unique);
    costs::busy(&mut findings, (&before, &after));
    memory_figures(&mut findings, &after);
    let lost = expected.saturating_sub(total.unique);
    for (key, name, value) in [
        ("received", "received, each device counts", total.unique),
        ("lost", "lost", lost),
        ("duplicates", "received twice", total.duplicates),
        ("disconnects", "disconnects", total.disconnects),
        ("complete", "broadcasts that everybody had before the next", complete),
        ("cursors", "devices that have acked the last one, by their cursor", written),
    ] {
        findings.figure("Counts", key, name, value as f64, Unit::Count);
    }
    findings.note("The CPU holds what idle sessions cost between broadcasts.");
    stage::charts(&mut findings, stage.crew.timeline.seconds(), "Latency");
    stage::percentile_chart(&mut findings, &stage.crew.latencies, "Latency");
    stage.stop().await;
    if let Some(cost_us) = cost_us {
        let _progress = Progress::new("floor", 1);
        let floor_us = sockets_floor::measure(FLOOR_TIME.min(options.time.0)).await?;
        findings.figure(sockets_floor::GROUP, "floor_sockets", sockets_floor::NAME, floor_us, Unit::Microseconds);
        let name = "Redis and nodes here, to the floor";
        findings.figure(sockets_floor::GROUP, "ratio_all", name, cost_us / floor_us.max(f64::EPSILON), Unit::Ratio);
    }
    let failure = if lost > 0 {
        Some(format!("{lost} of {expected} deliveries did not happen within {DRAIN_MAX:?}"))
    } else if written < devices {
        Some(format!("only {written} of {devices} devices have acked the last broadcast, as far as Redis knows"))
    } else {
        (total.disconnects > 0).then(|| format!("{} clients were disconnected", total.disconnects))
    };
    Ok(Outcome { findings, failure })
}
