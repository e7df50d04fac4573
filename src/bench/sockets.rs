//! `homing bench sockets`: many sockets over several nodes, and a message to each every few seconds.

use std::fmt::Write as _;

use super::BenchError;
use super::deliver::{self, Flow};
use super::options::{ClientsOptions, MessagesOptions, SocketsOptions};
use super::outcome::Outcome;
use super::report::Findings;
use super::stage::{self, Stage};
use super::values::Via;
use super::worker::orders::Pace;

/// Runs it.
pub(crate) async fn run(options: &SocketsOptions) -> Result<Outcome, BenchError> {
    if options.every.0.is_zero() {
        return Err(BenchError::Usage("--every must be more than nothing".to_owned()));
    }
    if options.gather.0 >= options.every.0 {
        return Err(BenchError::Usage("--gather must be shorter than --every".to_owned()));
    }
    let clients = ClientsOptions::one_device_each(options.users, options.workers, options.connect_rate);
    // One pipelined connection in each worker, or some kept HTTP connections.
    let producers = if options.via == Via::Xadd { 1 } else { 64 };
    let producers = std::num::NonZeroU32::new(producers).unwrap_or(std::num::NonZeroU32::MIN);
    let messages = MessagesOptions { via: options.via, producers, batch: 1, size: options.size };
    let mut stage = Stage::open(&options.cluster, &clients, Some(&messages)).await?;
    stage.connect(options.connect_rate.get()).await?;
    let rate = f64::from(options.users.get()) / options.every.0.as_secs_f64();
    let (pace, gather) = (Pace::Rate(rate), options.gather.0);
    let flow = Flow { pace, time: options.time.0, warm_up: options.warm_up.0, gather };
    let measured = flow.run(&mut stage).await?;
    let mut findings =
        Findings::new("sockets", format!("{} sockets, a message to each every {}", options.users, options.every));
    stage.circumstances(&mut findings).await;
    let mut messages = format!("{} bytes each, by {}", options.size, deliver::via(options.via));
    if options.via == Via::Xadd {
        let _ = write!(messages, " every {} from each worker", options.gather);
    }
    findings.circumstance("messages", messages);
    findings.circumstance("time", format!("{} after {} of warm-up", options.time, options.warm_up));
    let failure = measured.figures(&mut findings, &stage, deliver::LATENCY);
    let failure = failure.or_else(|| {
        let disconnects = measured.counts.disconnects;
        (disconnects > 0).then(|| format!("{disconnects} clients were disconnected"))
    });
    stage::charts(&mut findings, stage.crew.timeline.seconds(), "Latency");
    measured.charts(&mut findings);
    stage::percentile_chart(&mut findings, &stage.crew.latencies, "Latency");
    stage.stop().await;
    Ok(Outcome { findings, failure })
}
