//! `homing bench load`: a plain load on any cluster, for as long as somebody wants it.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::BenchError;
use super::deliver::{self, Flow};
use super::options::{ClientsOptions, LoadOptions, MessagesOptions};
use super::outcome::Outcome;
use super::report::{Findings, Unit};
use super::stage::{self, Stage};
use super::worker::orders::{Order, Pace};

/// For as long as somebody wants it: a year.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Runs it. Ctrl-C ends it, and it tells what it found.
pub(crate) async fn run(options: &LoadOptions) -> Result<Outcome, BenchError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(BenchError::broken("signals"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(BenchError::broken("signals"))?;
    let clients = ClientsOptions {
        users: options.amount,
        devices: 1,
        workers: options.workers,
        connect_rate: options.per_second,
        confirm: options.confirm,
    };
    let messages =
        MessagesOptions { via: options.via, producers: options.producers, batch: 1, size: options.characters };
    let messages = options.interval.map(|interval| (messages, interval.0));
    if messages.as_ref().is_some_and(|(_, interval)| interval.is_zero()) {
        return Err(BenchError::Usage("--interval must be more than nothing".to_owned()));
    }
    let mut stage = tokio::select! {
        // Dropped, it ends what it has started.
        stage = Stage::open(&options.cluster, &clients, messages.as_ref().map(|(messages, _)| messages)) => stage?,
        _ = interrupt.recv() => return Err(BenchError::Failed("interrupted".to_owned())),
        _ = terminate.recv() => return Err(BenchError::Failed("interrupted".to_owned())),
    };
    let time = options.time.map_or(FOREVER, |time| time.0);
    let before = stage.usage().await;
    let measured = {
        let load = async {
            stage.connect(options.per_second.get()).await?;
            match &messages {
                Some((_, interval)) => {
                    let rate = f64::from(options.amount.get()) / interval.as_secs_f64();
                    let flow = Flow { pace: Pace::Rate(rate), time, warm_up: Duration::ZERO, gather: Duration::ZERO };
                    flow.run(&mut stage).await.map(Some)
                }
                None => stage.crew.during(time, |_| {}).await.map(|_| None),
            }
        };
        tokio::select! {
            measured = load => measured?,
            // Reports are taken whole or not at all; what was counted stays.
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
        }
    };
    let measured = match measured {
        Some(measured) => measured,
        None => {
            stage.crew.order_all(&Order::Hush).await?;
            deliver::measured_since(&mut stage, before).await?
        }
    };
    let mut findings = Findings::new("load", format!("{} clients", options.amount));
    stage.circumstances(&mut findings).await;
    if let Some((messages, interval)) = &messages {
        let every = crate::config::quantity::Span(*interval);
        findings.circumstance("messages", format!("one to each client every {every}, {} bytes", messages.size));
    }
    stage::percentiles(
        &mut findings,
        "Connecting, from the time it was due to ready",
        "connecting",
        &stage.crew.connecting,
    );
    findings.figure("Clients", "connected", "connected at the end", measured.counts.connected as f64, Unit::Count);
    let failure = measured.figures(&mut findings, &stage, deliver::LATENCY);
    stage::charts(&mut findings, stage.crew.timeline.seconds(), "Latency");
    stage.stop().await;
    Ok(Outcome { findings, failure })
}
