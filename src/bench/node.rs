//! A node of a measurement's own: a process that is started, at other ports if somebody takes those that it should have,
//! and killed.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

use super::BenchError;
use super::calls::Calls;
use super::cluster::status_of;
use super::latency::Latencies;
use super::worker::orders::Target;
use crate::store::embedded::this_program;

/// Time for a node to start.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two looks whether it is there.
const READY_PAUSE: Duration = Duration::from_millis(50);
/// Starts of one node, each at other ports.
const STARTS_MAX: u32 = 10;
/// How `homing serve` ends when an address is in use.
const IN_USE: i32 = 8;

/// What all nodes have in common.
#[derive(Clone, Debug)]
pub(super) struct NodeSettings {
    pub(super) redis: String,
    /// For their logs.
    pub(super) folder: PathBuf,
    pub(super) shards: u32,
    pub(super) prefix: String,
    /// Further arguments of `homing serve`.
    pub(super) further: Vec<String>,
    pub(super) api_key: String,
    pub(super) jwt_secret: String,
}

/// Where nodes listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    /// The next one; any that is free if `None`.
    next: Option<u16>,
}

impl From<Option<u16>> for Ports {
    fn from(first: Option<u16>) -> Self {
        Self { next: first }
    }
}

impl Ports {
    /// Whether nobody has it is only known when the node is there: another process may be faster.
    fn take(&mut self) -> Result<SocketAddr, BenchError> {
        if let Some(port) = self.next {
            self.next = port.checked_add(1);
            return Ok((Ipv4Addr::LOCALHOST, port).into());
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        listener.map_err(BenchError::broken("no free port"))
    }
}

/// A running node of ours.
pub(super) struct Node {
    process: Child,
    number: u32,
    pid: u32,
    address: SocketAddr,
    log: PathBuf,
}

impl Node {
    /// Starts it; it is not ready yet.
    pub(super) fn launch(number: u32, settings: &NodeSettings, ports: &mut Ports) -> Result<Self, BenchError> {
        let (address, admin) = (ports.take()?, ports.take()?);
        let folder = &settings.folder;
        let path = folder.join(format!("node-{number}.log"));
        let log = std::fs::File::create(&path).map_err(BenchError::broken(folder.display()))?;
        let errors = log.try_clone().map_err(BenchError::broken(folder.display()))?;
        let mut command = Command::new(this_program());
        // What the caller has set for a server of their own must not change what is measured.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HOMING_") {
                command.env_remove(name);
            }
        }
        let process = command
            .args(["bench", "node", "--parent", &std::process::id().to_string(), "--", "--redis", &settings.redis])
            .args(["--listen", &address.to_string(), "--admin-listen", &admin.to_string()])
            .args(["--node-id", &format!("bench-{number}"), "--shards", &settings.shards.to_string()])
            .args(["--prefix", &settings.prefix])
            // Limits against abuse: few users at a high rate would meet them.
            .args(["--frames-per-second", "1000000", "--frames-burst", "1000000"])
            .args(&settings.further)
            .env("HOMING_API_KEY", &settings.api_key)
            .env("HOMING_JWT_SECRET", &settings.jwt_secret)
            .current_dir(folder)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .map_err(BenchError::broken("a node cannot be started"))?;
        let pid = process.id().ok_or_else(|| BenchError::Broken("a node ended at once".to_owned()))?;
        Ok(Self { process, number, pid, address, log: path })
    }

    /// Waits until it is ready; starts it again at other ports if somebody has these.
    pub(super) async fn wait_ready(&mut self, settings: &NodeSettings, ports: &mut Ports) -> Result<(), BenchError> {
        let deadline = tokio::time::Instant::now() + READY_TIMEOUT;
        let mut starts = 1;
        loop {
            match self.ended() {
                Some(status) if status.code() == Some(IN_USE) && starts < STARTS_MAX => {
                    starts += 1;
                    *self = Self::launch(self.number, settings, ports)?;
                }
                Some(status) => return Err(self.end(status)),
                None => {}
            }
            if status_of(&self.target(), "/readyz").await.is_ok_and(|status| status == 200)
                && self.is_ours(settings).await
            {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(BenchError::Broken(format!("a node is not ready after {READY_TIMEOUT:?}")));
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
    }

    /// Whether it is this node that answers, and not another measurement's that has the port: keys are secrets.
    async fn is_ours(&self, settings: &NodeSettings) -> bool {
        let Ok(calls) = Calls::new(&self.target(), &settings.api_key) else { return false };
        calls.get("/v1/users/bench", &mut Latencies::default()).await.is_ok()
    }

    /// Where clients reach it.
    pub(super) fn target(&self) -> Target {
        Target { host: self.address.ip().to_string(), port: self.address.port(), path: String::new(), is_tls: false }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// An error if it has ended.
    pub(super) fn check(&mut self) -> Result<(), BenchError> {
        self.ended().map_or(Ok(()), |status| Err(self.end(status)))
    }

    /// Ends it. Nobody needs what is in it any more: no drain.
    pub(super) async fn kill(&mut self) {
        let _ = self.process.kill().await;
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    fn end(&self, status: ExitStatus) -> BenchError {
        BenchError::Broken(format!("node {} ended: {status}\n{}", self.number, log_tail(&self.log)))
    }
}

fn log_tail(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
