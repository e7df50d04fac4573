//! What the processes use: memory, descriptors, threads from `/proc`, sessions from `/metrics`.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::cluster::Watched;
use super::history::Event;
use super::recorder::Recorder;

const PERIOD: Duration = Duration::from_secs(5);
/// A stopped node does not answer.
const METRICS_PATIENCE: Duration = Duration::from_secs(1);
/// Samples before and after a run.
const SERIES: usize = 3;

/// How late this process wakes up, at most, in 99 of 100 cases: what a busy machine adds to each step of a message.
#[derive(Debug)]
pub(crate) struct Canary {
    task: JoinHandle<()>,
    lags: Arc<Mutex<Vec<Duration>>>,
}

/// Sleep of the canary.
const NAP: Duration = Duration::from_millis(20);

impl Canary {
    pub(crate) fn start() -> Self {
        let lags = Arc::new(Mutex::new(Vec::new()));
        let noted = lags.clone();
        let task = tokio::spawn(async move {
            loop {
                let asleep = tokio::time::Instant::now();
                tokio::time::sleep(NAP).await;
                noted.lock().unwrap_or_else(PoisonError::into_inner).push(asleep.elapsed().saturating_sub(NAP));
            }
        });
        Self { task, lags }
    }

    pub(crate) fn finish(self) -> Duration {
        self.task.abort();
        let mut lags = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
        lags.sort_unstable();
        lags.get(lags.len() * 99 / 100).copied().unwrap_or_default()
    }
}

/// Samples processes.
#[derive(Clone, Debug)]
pub(crate) struct Sampler {
    recorder: Arc<Recorder>,
    watched: Arc<Mutex<Vec<Watched>>>,
    http: reqwest::Client,
}

impl Sampler {
    pub(crate) fn new(recorder: Arc<Recorder>, watched: Arc<Mutex<Vec<Watched>>>) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(METRICS_PATIENCE);
        Self { recorder, watched, http: http.build().expect("an HTTP client needs nothing") }
    }

    /// Samples until the handle is aborted.
    pub(crate) fn start(&self) -> JoinHandle<()> {
        let sampler = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(PERIOD).await;
                sampler.sample().await;
                sampler.recorder.flush();
            }
        })
    }

    /// A few samples in a row, with nothing else going on.
    pub(crate) async fn series(&self) {
        for _ in 0..SERIES {
            self.sample().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// One sample of each process that can be looked at now.
    async fn sample(&self) {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for process in watched {
            let sessions = match process.admin {
                None => 0,
                Some(admin) => match self.sessions(admin).await {
                    Some(sessions) => sessions,
                    None => continue,
                },
            };
            let Some((rss_bytes, descriptors, threads)) = look(process.pid) else { continue };
            self.recorder.record(Event::Sample { process: process.name, rss_bytes, descriptors, threads, sessions });
        }
    }

    async fn sessions(&self, admin: std::net::SocketAddr) -> Option<u64> {
        let text = self.http.get(format!("http://{admin}/metrics")).send().await.ok()?.text().await.ok()?;
        let mut sum = 0.0;
        for line in
            text.lines().filter(|line| line.starts_with("homing_sessions ") || line.starts_with("homing_sessions{"))
        {
            sum += line.rsplit(' ').next()?.parse::<f64>().ok()?;
        }
        // A gauge of whole numbers.
        Some(sum as u64)
    }
}

/// Memory, descriptors and threads; `None` if the process is gone.
fn look(pid: u32) -> Option<(u64, u64, u64)> {
    let folder = Path::new("/proc").join(pid.to_string());
    let status = std::fs::read_to_string(folder.join("status")).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let descriptors = std::fs::read_dir(folder.join("fd")).ok()?.count() as u64;
    Some((field("VmRSS:")? * 1024, descriptors, field("Threads:")?))
}
