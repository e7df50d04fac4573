//! The system under chaos: three nodes, each behind a proxy towards its clients and one towards Redis, and a Redis
//! whose disk can be filled.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::harness::disk::Disk;
use super::harness::{Node, NodeOptions, Redis, RedisOptions, TcpProxy};
use super::settings::Settings;

const NODES: usize = 3;
/// Size of the disk of Redis.
const DISK_BYTES: u64 = 512 * 1024 * 1024;
/// For an answer of `/readyz`.
const READY_PATIENCE: Duration = Duration::from_secs(1);

/// A node with its proxies.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) node: Node,
    /// Between its clients and producers and itself.
    pub(crate) front: TcpProxy,
    /// Between itself and Redis.
    pub(crate) back: TcpProxy,
    starts: u32,
}

impl Member {
    /// Starts the node again after its end; does not wait.
    pub(crate) fn launch_again(&mut self) {
        self.node.launch_again();
        self.starts += 1;
    }

    /// Its name, and which start of it: resources of another process are not comparable one to one.
    fn process(&self) -> String {
        if self.starts == 1 { self.name.clone() } else { format!("{}#{}", self.name, self.starts) }
    }
}

/// A process whose resources are looked at.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) name: String,
    pub(crate) pid: u32,
    /// Where its metrics are, if it has any.
    pub(crate) admin: Option<SocketAddr>,
}

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    pub(crate) redis: Redis,
    /// `None` where nothing may be mounted.
    pub(crate) disk: Option<Disk>,
    watched: Arc<Mutex<Vec<Watched>>>,
}

impl Cluster {
    pub(crate) async fn start(settings: &Settings) -> Self {
        let disk = Disk::mount(DISK_BYTES);
        let options = RedisOptions {
            args: vec!["--appendfsync", settings.fsync],
            data: disk.as_ref().map(|disk| disk.path().to_owned()),
        };
        let redis = Redis::start(options).await;
        let start = async |number: usize| {
            let name = format!("node-{number}");
            let back = TcpProxy::start(redis.address()).await;
            let node = Node::start(&redis, node_options(settings, &name, &back)).await;
            let front = TcpProxy::start(node.address().to_string()).await;
            Member { name, node, front, back, starts: 1 }
        };
        let members = futures_util::future::join_all((0..NODES).map(start)).await;
        let cluster = Self { members, redis, disk, watched: Arc::default() };
        cluster.watch();
        cluster
    }

    /// Where clients connect: names and addresses of the proxies.
    pub(crate) fn fronts(&self) -> Vec<(String, SocketAddr)> {
        self.members.iter().map(|member| (member.name.clone(), member.front.address())).collect()
    }

    /// The nodes themselves.
    pub(crate) fn nodes(&self) -> Vec<(String, SocketAddr)> {
        self.members.iter().map(|member| (member.name.clone(), member.node.address())).collect()
    }

    /// The list of processes, which [`Cluster::watch`] keeps up to date.
    pub(crate) fn watched(&self) -> Arc<Mutex<Vec<Watched>>> {
        self.watched.clone()
    }

    /// Notes the processes after one was started again.
    pub(crate) fn watch(&self) {
        let nodes = self.members.iter().map(|member| Watched {
            name: member.process(),
            pid: member.node.pid(),
            admin: Some(member.node.admin_address()),
        });
        let pid = self.redis.pid();
        let redis = Watched { name: format!("redis#{pid}"), pid, admin: None };
        // Not this process: connections that were stranded stay so to its end, and histories grow.
        let processes = nodes.chain([redis]).collect();
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = processes;
    }

    /// Whether every node is ready. One that ended by itself is started again, and told.
    pub(crate) async fn look_after(&mut self) -> Result<bool, String> {
        for member in &mut self.members {
            if let Some(status) = member.node.exited() {
                member.launch_again();
                let name = member.name.clone();
                self.watch();
                return Err(format!("{name} ended by itself with {status}"));
            }
            let ready = tokio::time::timeout(READY_PATIENCE, member.node.readyz()).await;
            if ready != Ok(Some(200)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Keeps the logs of the nodes beside the history.
    pub(crate) fn save_logs(&self, folder: &Path) {
        for member in &self.members {
            let _ = std::fs::write(folder.join(format!("{}.log", member.name)), member.node.output());
        }
    }
}

fn node_options(settings: &Settings, name: &str, back: &TcpProxy) -> NodeOptions {
    let options = NodeOptions::default()
        .redis_url(back.redis_url())
        .set("node_id", name)
        .set("log_level", "info")
        // A rolling restart in seconds.
        .set("drain_pause", "1s")
        .set("drain_spread", "3s")
        .set("drain_grace", "8s")
        .set("ack_timeout_max", "60s");
    if settings.short {
        // What nothing hints at is found within the drain of a short run.
        options.set("ack_timeout", "5s").set("ack_timeout_max", "10s").set("sweep", "5s")
    } else {
        options
    }
}
