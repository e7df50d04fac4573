//! The workers of a measurement: processes that are started, given orders, and listened to.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use super::BenchError;
use super::cluster::{Cluster, WORKER_SOCKETS_MAX};
use super::latency::Latencies;
use super::process;
use super::timeline::Timeline;
use super::worker::orders::{Fatal, Order, Pace, Plan, Producer, Publishing, Report};
use crate::store::embedded::this_program;

/// Reports that may wait; a worker blocks when they do.
const REPORTS_MAX: usize = 1_024;

/// What the workers have in common.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) users: u32,
    /// Of each user.
    pub(crate) devices: u32,
    /// Processes; as many as descriptors ask for if 0.
    pub(crate) workers: u32,
    pub(crate) producer: Producer,
    /// Connections of producers, of all workers together.
    pub(crate) producers: u32,
    /// Bytes of payload.
    pub(crate) size: usize,
    pub(crate) confirm: bool,
}

struct Worker {
    process: Child,
    orders: ChildStdin,
    pid: u32,
    users: u32,
    /// Its last report, without latencies.
    last: Report,
}

/// The workers of one measurement.
pub(crate) struct Crew {
    workers: Vec<Worker>,
    reports: mpsc::Receiver<(usize, Option<Report>)>,
    work: Work,
    run: String,
    user_prefix: String,
    pub(crate) timeline: Timeline,
    /// Of all messages so far; see [`Crew::forget`].
    pub(crate) latencies: Latencies,
    pub(crate) connecting: Latencies,
    pub(crate) catching_up: Latencies,
}

impl Crew {
    /// Starts the workers; they do nothing yet.
    pub(crate) async fn start(cluster: &Cluster, work: Work) -> Result<Self, BenchError> {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let run = random[..12].to_owned();
        let user_prefix = format!("bench-{}-", &random[..6]);
        let workers = match work.workers {
            0 => (work.users * work.devices).div_ceil(WORKER_SOCKETS_MAX),
            workers => workers,
        };
        let workers = workers.clamp(1, work.users.max(1));
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        let is_local = cluster.targets().iter().all(|target| target.host == Ipv4Addr::LOCALHOST.to_string());
        let mut crew = Self {
            workers: Vec::new(),
            reports,
            run: run.clone(),
            user_prefix: user_prefix.clone(),
            timeline: Timeline::default(),
            latencies: Latencies::default(),
            connecting: Latencies::default(),
            catching_up: Latencies::default(),
            work: work.clone(),
        };
        for number in 0..workers {
            let share = |all: u32| all / workers + u32::from(number < all % workers);
            let first_user =
                (0..number).map(|number| work.users / workers + u32::from(number < work.users % workers)).sum();
            // One address has some 28,000 ports: a loopback address for each worker, if that is where the nodes are.
            let source = Ipv4Addr::new(127, 0, 1 + (number / 250) as u8, 1 + (number % 250) as u8);
            let plan = Plan {
                run: run.clone(),
                user_prefix: user_prefix.clone(),
                first_user,
                users: share(work.users),
                devices: work.devices,
                targets: cluster.targets().to_vec(),
                source: (is_local && cfg!(target_os = "linux")).then_some(IpAddr::V4(source)),
                tokens: cluster.tokens().clone(),
                confirm: work.confirm,
                producer: work.producer.clone(),
                size: work.size,
                producers: share(work.producers).max(1),
            };
            let worker = launch(number as usize, &plan, sender.clone()).await?;
            crew.workers.push(worker);
        }
        Ok(crew)
    }

    /// Processes.
    /// What the messages of this run carry.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Devices of all users.
    pub(crate) fn devices(&self) -> u64 {
        u64::from(self.work.users) * u64::from(self.work.devices)
    }

    /// Devices of one user.
    pub(crate) fn devices_each(&self) -> u64 {
        u64::from(self.work.devices)
    }

    /// The name of a user.
    pub(crate) fn user(&self, number: u32) -> String {
        format!("{}{number}", self.user_prefix)
    }

    pub(crate) fn users(&self) -> u32 {
        self.work.users
    }

    /// CPU time of all workers.
    pub(crate) fn cpu(&self) -> Duration {
        self.workers.iter().filter_map(|worker| process::cpu(worker.pid)).sum()
    }

    /// Orders all devices to connect, so many each second or all at once.
    pub(crate) async fn connect(&mut self, start_us: u64, rate: Option<f64>) -> Result<(), BenchError> {
        self.connect_up_to(start_us, rate, self.devices()).await
    }

    /// Orders devices to connect until there are so many.
    pub(crate) async fn connect_up_to(
        &mut self,
        start_us: u64,
        rate: Option<f64>,
        goal: u64,
    ) -> Result<(), BenchError> {
        let all = self.devices();
        let (mut given, mut before) = (0, 0);
        for worker in &mut self.workers {
            let own = u64::from(worker.users * self.work.devices);
            // Rounded over all workers together, so that the parts make up the goal.
            before += own;
            let up_to = goal * before / all - given;
            given += up_to;
            let rate = rate.map(|rate| rate * own as f64 / all as f64);
            worker.order(&Order::Connect { start_us, rate, up_to: up_to as u32 }).await?;
        }
        Ok(())
    }

    /// The same order to every worker.
    pub(crate) async fn order_all(&mut self, order: &Order) -> Result<(), BenchError> {
        for worker in &mut self.workers {
            worker.order(order).await?;
        }
        Ok(())
    }

    /// Orders to publish; rate and messages in flight are those of all together.
    pub(crate) async fn publish(&mut self, order: Publishing) -> Result<(), BenchError> {
        let users = f64::from(self.work.users);
        for worker in &mut self.workers {
            let part = f64::from(worker.users) / users;
            let pace = match order.pace {
                Pace::Rate(rate) => Pace::Rate(rate * part),
                Pace::InFlight(max) => Pace::InFlight(((max as f64 * part) as u64).max(1)),
            };
            worker.last.is_publishing = true;
            worker.order(&Order::Publish(Publishing { pace, ..order })).await?;
        }
        Ok(())
    }

    /// Takes the next report; says what the sums are then.
    pub(crate) async fn next(&mut self) -> Result<Report, BenchError> {
        let Some((number, report)) = self.reports.recv().await else {
            return Err(BenchError::Broken("all workers have ended".to_owned()));
        };
        let Some(report) = report else {
            let worker = &mut self.workers[number];
            let status =
                worker.process.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
            return Err(BenchError::Broken(format!("worker {number} ended: {status}")));
        };
        match report.fatal {
            Some(Fatal::Refused(reason)) => return Err(BenchError::Refused(reason)),
            Some(Fatal::Unreachable(reason)) => return Err(BenchError::Unreachable(reason)),
            Some(Fatal::Broken(reason)) => return Err(BenchError::Broken(reason)),
            None => {}
        }
        self.latencies.add(&report.latencies);
        self.connecting.add(&report.connecting);
        self.catching_up.add(&report.catching_up);
        let before = self.total();
        self.timeline.latencies(&report.latencies);
        self.workers[number].last = report;
        let total = self.total();
        self.timeline.counts(&before, &total);
        Ok(total)
    }

    /// Takes reports until the sums fulfil a condition; `None` if that does not happen in time.
    pub(crate) async fn until(
        &mut self,
        limit: Duration,
        mut watch: impl FnMut(&Report),
        mut is_done: impl FnMut(&Report) -> bool,
    ) -> Result<Option<Report>, BenchError> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let total = match tokio::time::timeout_at(deadline, self.next()).await {
                Ok(total) => total?,
                Err(_) => return Ok(None),
            };
            watch(&total);
            if is_done(&total) {
                return Ok(Some(total));
            }
        }
    }

    /// Takes reports for some time.
    pub(crate) async fn during(&mut self, time: Duration, watch: impl FnMut(&Report)) -> Result<Report, BenchError> {
        self.until(time, watch, |_| false).await?;
        Ok(self.total())
    }

    /// The sums of all workers' last reports.
    pub(crate) fn total(&self) -> Report {
        let mut total = Report::default();
        for Worker { last, .. } in &self.workers {
            total.connected += last.connected;
            total.readies += last.readies;
            total.disconnects += last.disconnects;
            total.retries += last.retries;
            total.sent += last.sent;
            total.accepted += last.accepted;
            total.refused += last.refused;
            total.is_publishing |= last.is_publishing;
            total.unique += last.unique;
            total.measured += last.measured;
            total.duplicates += last.duplicates;
            total.again += last.again;
            total.foreign += last.foreign;
            total.acks += last.acks;
            total.confirmed += last.confirmed;
            total.gaps += last.gaps;
            total.caught_up += last.caught_up;
            for (trouble, count) in &last.troubles {
                *total.troubles.entry(trouble.clone()).or_default() += count;
            }
        }
        total
    }

    /// Begins latencies and the timeline anew.
    pub(crate) fn forget(&mut self) {
        self.latencies = Latencies::default();
        self.connecting = Latencies::default();
        self.catching_up = Latencies::default();
        self.timeline = Timeline::default();
    }

    /// Begins the timeline anew, and latencies of messages, of which none counted so far.
    pub(crate) fn begin_timeline(&mut self) {
        self.latencies = Latencies::default();
        self.timeline = Timeline::default();
    }

    /// Ends all workers, and with them their connections.
    pub(crate) async fn stop(mut self) {
        for worker in &mut self.workers {
            let _ = worker.process.kill().await;
        }
    }
}

impl Worker {
    async fn order(&mut self, order: &Order) -> Result<(), BenchError> {
        let mut line = serde_json::to_string(order).map_err(BenchError::broken("an order"))?;
        line.push('\n');
        let written = self.orders.write_all(line.as_bytes()).await;
        written.map_err(BenchError::broken("a worker takes no orders"))
    }
}

async fn launch(
    number: usize,
    plan: &Plan,
    sender: mpsc::Sender<(usize, Option<Report>)>,
) -> Result<Worker, BenchError> {
    let mut process = Command::new(this_program())
        .args(["bench", "worker"])
        // Ctrl-C in a terminal reaches the measuring process alone, which then ends the others.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(BenchError::broken("a worker cannot be started"))?;
    let (Some(mut orders), Some(output), Some(pid)) = (process.stdin.take(), process.stdout.take(), process.id())
    else {
        return Err(BenchError::Broken("a worker ended at once".to_owned()));
    };
    let mut line = serde_json::to_string(plan).map_err(BenchError::broken("the plan"))?;
    line.push('\n');
    orders.write_all(line.as_bytes()).await.map_err(BenchError::broken("a worker takes no plan"))?;
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if sender.send((number, serde_json::from_str(&line).ok())).await.is_err() {
                return;
            }
        }
        let _ = sender.send((number, None)).await;
    });
    Ok(Worker { process, orders, pid, users: plan.users, last: Report::default() })
}
