//! `homing bench replay`: users that were away, with messages waiting, all come back.

use std::time::Duration;

use super::BenchError;
use super::clock::{now_us, us};
use super::deliver::{Measured, START_DELAY};
use super::options::ReplayOptions;
use super::outcome::Outcome;
use super::progress::Progress;
use super::report::{Findings, Unit};
use super::stage::{self, Stage};
use super::values::Rate;
use super::worker::orders::{Order, Pace, Publishing, Report};

/// Time for the queues to fill, and for all to come back and catch up.
const STEP_MAX: Duration = Duration::from_secs(3_600);

/// Runs it.
pub(crate) async fn run(options: &ReplayOptions) -> Result<Outcome, BenchError> {
    let mut stage = Stage::open(&options.cluster, &options.clients, Some(&options.messages)).await?;
    stage.connect(options.clients.connect_rate.get()).await?;
    stage.crew.order_all(&Order::Disconnect).await?;
    stage.crew.until(STEP_MAX, |_| {}, |total| total.connected == 0).await?;
    fill(&mut stage, options.queued).await?;
    let measured = come_back(&mut stage, options.return_rate).await?;
    let devices = stage.crew.devices();
    let mut findings =
        Findings::new("replay", format!("{devices} devices come back to {} waiting messages each", options.queued));
    stage.circumstances(&mut findings).await;
    let rate = match options.return_rate {
        Rate::Max => "all at once".to_owned(),
        Rate::PerSecond(rate) => Unit::PerSecond.show(rate),
    };
    findings.circumstance("return", rate);
    findings.circumstance("messages", format!("{} bytes each", options.messages.size));
    stage::percentiles(
        &mut findings,
        "Back: from the time a client was due to ready",
        "connecting",
        &stage.crew.connecting,
    );
    stage::percentiles(
        &mut findings,
        "Caught up: from the same time to the last waiting message",
        "catching_up",
        &stage.crew.catching_up,
    );
    let failure = measured.figures(&mut findings, &stage, "Messages, from the time their client was due");
    stage::percentile_chart(&mut findings, &stage.crew.catching_up, "Time to catch up");
    stage::charts(&mut findings, stage.crew.timeline.seconds(), "Latency");
    stage.stop().await;
    Ok(Outcome { findings, failure })
}

/// Publishes to everybody, who is away.
async fn fill(stage: &mut Stage, queued: u32) -> Result<(), BenchError> {
    let start_us = now_us() + us(START_DELAY);
    let until_us = start_us + us(STEP_MAX);
    // Nothing arrives, so nothing may wait for arrivals.
    let pace = Pace::InFlight(u64::MAX);
    let order =
        Publishing { start_us, measured_from_us: until_us, until_us, pace, gather_us: 0, count_per_user: Some(queued) };
    stage.crew.publish(order).await?;
    let expected = u64::from(stage.crew.users()) * u64::from(queued);
    let mut progress = Progress::new("queueing", expected);
    let done = |total: &Report| !total.is_publishing;
    stage.crew.until(STEP_MAX, |total| progress.at(total.accepted, total), done).await?;
    stage.cluster.check()?;
    let total = stage.crew.total();
    match total.accepted == expected {
        true => Ok(()),
        false => Err(BenchError::Failed(format!(
            "only {} of {expected} messages were accepted{}",
            total.accepted,
            stage::troubles(&total)
        ))),
    }
}

async fn come_back(stage: &mut Stage, rate: Rate) -> Result<Measured, BenchError> {
    let devices = stage.crew.devices();
    stage.crew.order_all(&Order::SinceConnect).await?;
    stage.crew.during(START_DELAY, |_| {}).await?;
    stage.crew.forget();
    let before = stage.usage().await;
    let start_us = now_us() + us(START_DELAY);
    let rate = match rate {
        Rate::Max => None,
        Rate::PerSecond(rate) => Some(rate),
    };
    stage.crew.connect(start_us, rate).await?;
    let mut progress = Progress::new("coming back", devices);
    let done = |total: &Report| total.caught_up >= devices;
    stage.crew.until(STEP_MAX, |total| progress.at(total.caught_up, total), done).await?;
    // To the last message, and not to the report of it.
    let seconds = stage.crew.catching_up.max() as f64 / 1_000_000.0;
    let after = stage.usage().await;
    let unfinished = stage.acknowledged().await?;
    stage.cluster.check()?;
    Ok(Measured { before, after, samples: Vec::new(), counts: stage.crew.total(), unfinished, seconds })
}
