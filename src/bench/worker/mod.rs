//! A process that plays devices and producers, for the measuring process.
//!
//! Owns the sockets of its part of the users, and publishes to those users too, so that what was sent and what arrived
//! is compared within one process. It must not know what is measured, or how many workers there are. Invariant: it
//! costs far less CPU than the engine that it loads, or it would hide it; so one thread, no JSON parser on the way of a
//! message, no buffer per connection.

mod device;
mod fleet;
mod http;
pub(crate) mod orders;
pub(crate) mod payload;
mod schedule;
mod tally;
mod xadd;

use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::task::{JoinSet, LocalSet};

use crate::bench::BenchError;
use crate::bench::clock::{Pacer, now_us};
use fleet::Fleet;
use orders::{Fatal, Order, Plan, Producer, Publishing, Report};
use schedule::Schedule;

/// Time between two reports.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// Runs a worker until its input ends.
///
/// # Errors
/// [`BenchError::Broken`] if nobody gives it orders.
pub(crate) async fn run() -> Result<(), BenchError> {
    let no_plan = || BenchError::Broken("no plan on standard input; this is not for people".to_owned());
    let pipes = std::io::stdin().as_fd().try_clone_to_owned().and_then(Receiver::from_owned_fd);
    let pipes = pipes
        .and_then(|input| Ok((input, std::io::stdout().as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd)?)));
    let (input, mut output) = pipes.map_err(|_| no_plan())?;
    let mut input = BufReader::new(input).lines();
    let line: Option<String> = input.next_line().await.ok().flatten();
    let plan: Plan = line.and_then(|line| serde_json::from_str(&line).ok()).ok_or_else(no_plan)?;
    match Fleet::new(plan).await {
        Ok(fleet) => LocalSet::new().run_until(work(Rc::new(fleet), input, output)).await,
        Err(fatal) => say(&mut output, &Report { fatal: Some(fatal), ..Report::default() }).await,
    }
    Ok(())
}

async fn say(output: &mut Sender, report: &Report) {
    // Numbers and texts always serialize. If nobody listens, the input ends as well.
    let mut line = serde_json::to_string(report).unwrap_or_default();
    line.push('\n');
    if output.write_all(line.as_bytes()).await.is_ok() {
        let _ = output.flush().await;
    }
}

/// Takes orders and reports, until there are no more orders.
async fn work(fleet: Rc<Fleet>, mut input: Lines<BufReader<Receiver>>, mut output: Sender) {
    let mut tick = tokio::time::interval(REPORT_EVERY);
    let mut connecting = JoinSet::new();
    let mut publishing = JoinSet::new();
    loop {
        // Each arm is cancel-safe: a line is kept in the reader until it is complete, finished tasks are only reaped.
        tokio::select! {
            line = input.next_line() => match line.ok().flatten().map(|line: String| serde_json::from_str(&line)) {
                None => break,
                Some(Err(error)) => fleet.tally.borrow_mut().fatal(Fatal::Broken(error.to_string())),
                Some(Ok(Order::Connect { start_us, rate, up_to })) => {
                    connecting.spawn_local(connect(fleet.clone(), start_us, rate, up_to));
                }
                Some(Ok(Order::Disconnect)) => {
                    connecting.abort_all();
                    fleet.disconnect();
                }
                Some(Ok(Order::Hush)) => publishing.abort_all(),
                Some(Ok(Order::MeasureFrom { at_us })) => fleet.measured_from_us.set(at_us),
                Some(Ok(Order::SinceConnect)) => fleet.is_since_connect.set(true),
                Some(Ok(Order::Publish(order))) => publish(&fleet, order, &mut publishing),
            },
            _ = tick.tick() => {
                let mut report = fleet.tally.borrow_mut().report();
                if fleet.is_since_connect.get() {
                    report.caught_up = fleet.caught_up();
                }
                report.is_publishing = !publishing.is_empty();
                say(&mut output, &report).await;
            }
            Some(_) = connecting.join_next(), if !connecting.is_empty() => {}
            Some(_) = publishing.join_next(), if !publishing.is_empty() => {}
        }
    }
}

/// Starts every device that is away, each at its due time.
async fn connect(fleet: Rc<Fleet>, start_us: u64, rate: Option<f64>, up_to: u32) {
    let pacer = match Pacer::new() {
        Ok(pacer) => pacer,
        Err(error) => return fleet.tally.borrow_mut().fatal(Fatal::Broken(error.to_string())),
    };
    let away = (0..up_to.min(fleet.plan.users * fleet.plan.devices)).filter(|index| fleet.is_away(*index));
    for (number, index) in away.enumerate() {
        let due_us = start_us + rate.map_or(0, |rate| (number as f64 / rate * 1_000_000.0) as u64);
        if now_us() < due_us && pacer.until(due_us).await.is_err() {
            return;
        }
        let task = tokio::task::spawn_local(device::live(fleet.clone(), index));
        fleet.start(index, due_us, task.abort_handle());
    }
}

fn publish(fleet: &Rc<Fleet>, order: Publishing, publishing: &mut JoinSet<()>) {
    fleet.measured_from_us.set(order.measured_from_us);
    let lanes = fleet.plan.producers.clamp(1, fleet.plan.users);
    for lane in 0..lanes {
        let fleet = fleet.clone();
        let schedule = Schedule::new(&order, lane, lanes, fleet.plan.users);
        publishing.spawn_local(async move {
            let outcome = match &fleet.plan.producer {
                Producer::None => Ok(()),
                Producer::Http { api_key, batch } => http::produce(&fleet, schedule, lane, api_key, *batch).await,
                Producer::Xadd { redis, prefix } => xadd::produce(&fleet, schedule, redis, prefix).await,
            };
            if let Err(fatal) = outcome {
                fleet.tally.borrow_mut().fatal(fatal);
            }
        });
    }
}
