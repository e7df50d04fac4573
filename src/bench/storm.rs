//! `homing bench storm`: all clients are cut off and reconnect at once.

use std::time::Duration;

use super::BenchError;
use super::clock::{now_us, us};
use super::costs;
use super::deliver::{START_DELAY, memory_figures};
use super::options::StormOptions;
use super::outcome::Outcome;
use super::progress::Progress;
use super::report::{Chart, Findings, Series, Unit};
use super::stage::{self, Stage};
use super::worker::orders::Order;

/// Time for everybody to be back.
const BACK_MAX: Duration = Duration::from_secs(600);
/// Time in which new sessions are quiet again before the storm.
const CALM: Duration = Duration::from_secs(2);

/// Runs it.
pub(crate) async fn run(options: &StormOptions) -> Result<Outcome, BenchError> {
    let mut stage = Stage::open(&options.cluster, &options.clients, None).await?;
    stage.connect(options.clients.connect_rate.get()).await?;
    stage.crew.during(CALM, |_| {}).await?;
    let devices = stage.crew.devices();
    let (before, readies) = (stage.usage().await, stage.crew.total().readies);
    stage.crew.order_all(&Order::Disconnect).await?;
    stage.crew.until(BACK_MAX, |_| {}, |total| total.connected == 0).await?;
    stage.crew.forget();
    stage.crew.connect(now_us() + us(START_DELAY), None).await?;
    let mut progress = Progress::new("storm", devices);
    let back =
        stage.crew.until(BACK_MAX, |total| progress.at(total.connected, total), |total| total.connected >= devices);
    let is_back = back.await?.is_some();
    drop(progress);
    stage.cluster.check()?;
    let (after, total) = (stage.usage().await, stage.crew.total());
    let mut findings = Findings::new("storm", format!("{devices} clients are cut off and reconnect at once"));
    stage.circumstances(&mut findings).await;
    findings.circumstance(
        "clients",
        format!("users: {}, devices of each: {}", options.clients.users, options.clients.devices),
    );
    stage::percentiles(&mut findings, "From the start to ready", "connecting", &stage.crew.connecting);
    let seconds = stage.crew.connecting.max() as f64 / 1_000_000.0;
    if seconds > 0.0 {
        findings.figure("Throughput", "ready_rate", "clients ready", devices as f64 / seconds, Unit::PerSecond);
    }
    let group = "CPU of one client: its end and its return";
    costs::cpu_each(&mut findings, (group, ""), (&before, &after), devices);
    memory_figures(&mut findings, &after);
    let troubles: u64 = total.troubles.values().sum();
    findings.figure("Counts", "connected", "connected at the end", total.connected as f64, Unit::Count);
    findings.figure("Counts", "readies", "sessions made", (total.readies - readies) as f64, Unit::Count);
    findings.figure("Counts", "troubles", "attempts that failed", troubles as f64, Unit::Count);
    if troubles > 0 {
        findings.note(format!("Troubles:{}", stage::troubles(&total)));
    }
    returns_chart(&mut findings, &stage);
    stage::percentile_chart(&mut findings, &stage.crew.connecting, "Time to ready");
    let failure =
        (!is_back).then(|| format!("only {} of {devices} clients are back after {BACK_MAX:?}", total.connected));
    stage.stop().await;
    Ok(Outcome { findings, failure })
}

/// How many are back at which time: the histogram of times, summed up.
fn returns_chart(findings: &mut Findings, stage: &Stage) {
    let devices = stage.crew.devices() as f64;
    let parts = (0..=100).map(|percent| f64::from(percent) / 100.0);
    let points =
        parts.map(|part| (stage.crew.connecting.quantile(part) as f64 / 1_000_000.0, part * devices)).collect();
    findings.charts.push(Chart {
        title: "Clients that are back".to_owned(),
        x_name: "time since the start".to_owned(),
        x_unit: Unit::Seconds,
        y_unit: Unit::Count,
        is_logarithmic: false,
        series: vec![Series { name: "ready".to_owned(), points }],
    });
}
