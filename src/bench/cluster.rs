//! The cluster that is measured: one of our own, made for the measurement and thrown away, or somebody's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::BenchError;
use super::node::{Node, NodeSettings, Ports};
use super::options::ClusterOptions;
use super::process::{self, Memory};
use super::values::NodeCount;
use super::worker::orders::{Producer, Target, Tokens};
use crate::config::RedisUrl;
use crate::config::client::URL;
use crate::config::secret::{SECRET_BYTES_MIN, Secret};
use crate::config::serve::PREFIX;
use crate::store::embedded::this_program;
use crate::store::{Embedded, EmbeddedConfig, EmbeddedError};

/// Sockets of one worker of ours: below half of Linux's 28,232 ephemeral ports, beyond which each connection from one
/// address tries all ports of one parity in vain first, so that clients use up the machine.
pub(crate) const WORKER_SOCKETS_MAX: u32 = 14_000;
/// Sockets of one node of ours: below the 20,000 descriptors that a process often has.
const NODE_SOCKETS_MAX: u32 = 16_000;
/// Memory that is a file system: unlinking the old log on a disk with `discard` stalls whoever does it.
const MEMORY_FOLDER: &str = "/dev/shm";

/// Folders of measurements are called `homing-bench-<pid>-<random>`.
const FOLDER_PREFIX: &str = "homing-bench-";

/// What is measured.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    embedded: Option<Embedded>,
    folder: Option<PathBuf>,
    targets: Vec<Target>,
    redis: Option<Redis>,
    tokens: Tokens,
    api_key: Option<String>,
    prefix: String,
}

/// Redis, as far as it is known.
#[derive(Clone)]
pub(crate) struct Redis {
    pub(crate) url: String,
    connection: redis::aio::MultiplexedConnection,
    /// If it is on this machine.
    pid: Option<u32>,
}

impl Redis {
    async fn connect(url: &str) -> Result<Self, BenchError> {
        let unreachable = |error: redis::RedisError| BenchError::Unreachable(format!("Redis: {error}"));
        let client = redis::Client::open(url).map_err(|error| BenchError::Usage(format!("--redis: {error}")))?;
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_response_timeout(Some(Duration::from_secs(60)));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await.map_err(unreachable)?;
        Ok(Self { url: url.to_owned(), connection, pid: None })
    }

    /// For commands.
    pub(crate) fn connection(&self) -> redis::aio::MultiplexedConnection {
        self.connection.clone()
    }

    /// A member of INFO.
    pub(crate) async fn info(&self, section: &str, name: &str) -> Option<String> {
        let mut command = redis::cmd("INFO");
        let text: String = command.arg(section).query_async(&mut self.connection()).await.ok()?;
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
    }

    /// CPU time that its process has used, as it says itself.
    pub(crate) async fn cpu(&self) -> Option<Duration> {
        let mut command = redis::cmd("INFO");
        let text: String = command.arg("cpu").query_async(&mut self.connection()).await.ok()?;
        let seconds = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        Some(Duration::from_secs_f64(seconds("used_cpu_sys:")? + seconds("used_cpu_user:")?))
    }

    pub(crate) fn memory(&self) -> Memory {
        self.pid.map(process::memory).unwrap_or_default()
    }
}

impl Cluster {
    /// Starts nodes and Redis for so many devices, or finds those that the options name.
    pub(crate) async fn open(options: &ClusterOptions, devices: u32) -> Result<Self, BenchError> {
        if options.url.is_empty() {
            if options.jwt_secret_file.is_some() || options.api_key_file.is_some() {
                return Err(BenchError::Usage("secrets are for --url; nodes of our own get their own".to_owned()));
            }
            return Self::start(options, devices).await;
        }
        let targets = options.url.iter().map(|url| parse_url(url)).collect::<Result<Vec<_>, _>>()?;
        let secret = match &options.jwt_secret_file {
            Some(path) => read_secret(path)?,
            None => {
                return Err(BenchError::Configuration(
                    "--url needs --jwt-secret-file: the secret that the cluster verifies tokens with".to_owned(),
                ));
            }
        };
        let api_key = options.api_key_file.as_deref().map(read_secret).transpose()?;
        let redis = match &options.redis {
            Some(url) => Some(Redis::connect(url.expose()).await?),
            None => None,
        };
        for target in &targets {
            if target.is_tls {
                return Err(BenchError::Usage(
                    "TLS is not supported: name a node, or a proxy that takes plain connections".to_owned(),
                ));
            }
            probe(target).await?;
        }
        Ok(Self {
            nodes: Vec::new(),
            embedded: None,
            folder: None,
            targets,
            redis,
            tokens: Tokens { secret, kid: options.kid.clone(), audience: options.audience.clone() },
            api_key,
            prefix: options.prefix.clone(),
        })
    }

    /// Redis without nodes: the given one, or one of our own.
    pub(crate) async fn redis_only(url: Option<&RedisUrl>) -> Result<Self, BenchError> {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let base = if Path::new(MEMORY_FOLDER).is_dir() { PathBuf::from(MEMORY_FOLDER) } else { std::env::temp_dir() };
        remove_leftovers(&base);
        let folder = base.join(format!("{FOLDER_PREFIX}{}-{}", std::process::id(), &random[..8]));
        // From here on, dropping the value cleans up.
        let mut cluster = Self {
            nodes: Vec::new(),
            embedded: None,
            folder: Some(folder.clone()),
            targets: Vec::new(),
            redis: None,
            tokens: Tokens { secret: format!("bench-{random}{random}"), kid: None, audience: None },
            api_key: Some(format!("bench-key-{random}")),
            prefix: PREFIX.to_owned(),
        };
        let redis = match url {
            Some(url) => Redis::connect(url.expose()).await?,
            None => {
                let config = EmbeddedConfig { data_dir: folder.join("redis"), program: this_program() };
                let embedded = Embedded::start(&config).await.map_err(|error| match error {
                    error @ EmbeddedError::NotInstalled => BenchError::Configuration(error.to_string()),
                    error => BenchError::Broken(error.to_string()),
                })?;
                let mut redis = Redis::connect(embedded.url()).await?;
                cluster.embedded = Some(embedded);
                redis.pid = redis.info("server", "process_id").await.and_then(|pid| pid.parse().ok());
                redis
            }
        };
        cluster.redis = Some(redis);
        Ok(cluster)
    }

    async fn start(options: &ClusterOptions, devices: u32) -> Result<Self, BenchError> {
        let mut cluster = Self::redis_only(options.redis.as_ref()).await?;
        cluster.prefix.clone_from(&options.prefix);
        let folder = cluster.folder.clone().unwrap_or_default();
        let redis = cluster.redis.as_ref().map(|redis| redis.url.clone()).unwrap_or_default();
        std::fs::create_dir_all(&folder).map_err(BenchError::broken(folder.display()))?;
        let nodes = match options.nodes {
            NodeCount::Auto => devices.div_ceil(NODE_SOCKETS_MAX).max(1),
            NodeCount::Count(count) => count,
        };
        let settings = NodeSettings {
            redis,
            folder,
            shards: options.shards.get(),
            prefix: options.prefix.clone(),
            further: options.serve_args.clone(),
            api_key: cluster.api_key.clone().unwrap_or_default(),
            jwt_secret: cluster.tokens.secret.clone(),
        };
        let mut ports = Ports::from(options.ports);
        for number in 0..nodes {
            cluster.nodes.push(Node::launch(number, &settings, &mut ports)?);
        }
        for node in &mut cluster.nodes {
            node.wait_ready(&settings, &mut ports).await?;
            cluster.targets.push(node.target());
        }
        Ok(cluster)
    }

    /// Whether nodes are ours, so that their CPU and memory can be seen.
    pub(crate) fn is_own(&self) -> bool {
        !self.nodes.is_empty()
    }

    pub(crate) fn targets(&self) -> &[Target] {
        &self.targets
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    pub(crate) fn redis(&self) -> Option<&Redis> {
        self.redis.as_ref()
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The folder of our own Redis.
    pub(crate) fn data_dir(&self) -> Option<PathBuf> {
        self.embedded.as_ref().and(self.folder.as_ref()).map(|folder| folder.join("redis"))
    }

    /// Producers by HTTP, with so many messages a request.
    pub(crate) fn by_http(&self, batch: u32) -> Result<Producer, BenchError> {
        match &self.api_key {
            Some(key) => Ok(Producer::Http { api_key: key.clone(), batch }),
            None => Err(BenchError::Configuration(
                "publishing by HTTP needs --api-key-file; or give --redis and --via xadd".to_owned(),
            )),
        }
    }

    /// The key for calls of the API.
    pub(crate) fn api_key(&self) -> Result<&str, BenchError> {
        let missing = || BenchError::Configuration("calls of the API need --api-key-file".to_owned());
        self.api_key.as_deref().ok_or_else(missing)
    }

    /// Producers by XADD.
    pub(crate) fn by_xadd(&self) -> Result<Producer, BenchError> {
        match &self.redis {
            Some(redis) => Ok(Producer::Xadd { redis: redis.url.clone(), prefix: self.prefix.clone() }),
            None => Err(BenchError::Usage("--via xadd needs --redis".to_owned())),
        }
    }

    /// CPU time of all nodes.
    pub(crate) fn nodes_cpu(&self) -> Option<Duration> {
        self.is_own().then(|| self.nodes.iter().filter_map(|node| process::cpu(node.pid())).sum())
    }

    /// Memory of all nodes.
    pub(crate) fn nodes_memory(&self) -> Memory {
        let memories = self.nodes.iter().map(|node| process::memory(node.pid()));
        memories.fold(Memory::default(), |sum, memory| Memory {
            resident: sum.resident + memory.resident,
            anonymous: sum.anonymous + memory.anonymous,
        })
    }

    /// An error if a node has ended.
    pub(crate) fn check(&mut self) -> Result<(), BenchError> {
        self.nodes.iter_mut().try_for_each(Node::check)
    }

    /// Ends what was started.
    pub(crate) async fn stop(mut self) {
        for node in &mut self.nodes {
            node.kill().await;
        }
        self.redis = None;
        if let Some(embedded) = self.embedded.take() {
            embedded.stop().await;
        }
    }
}

/// Removes the folder; nodes and Redis end by being dropped.
impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Removes the folders of measurements that were killed: they take memory.
fn remove_leftovers(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((pid, _)) = name.strip_prefix(FOLDER_PREFIX).and_then(|rest| rest.split_once('-')) else { continue };
        if Path::new("/proc/self").exists() && !Path::new("/proc").join(pid).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether somebody's node can be reached and is ready.
async fn probe(target: &Target) -> Result<(), BenchError> {
    let name = format!("{}:{}{}", target.host, target.port, target.path);
    match status_of(target, "/readyz").await {
        Ok(200) => Ok(()),
        Ok(503) => Err(BenchError::Unreachable(format!("{name} is not ready"))),
        Ok(status) => Err(BenchError::Unreachable(format!("{name} is no Homing node: /readyz answers {status}"))),
        Err(error) => Err(BenchError::Unreachable(format!("{name} cannot be reached: {error}"))),
    }
}

pub(super) async fn status_of(target: &Target, path: &str) -> Result<u16, String> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build();
    let scheme = if target.is_tls { "https" } else { "http" };
    let url = format!("{scheme}://{}:{}{}{path}", target.host, target.port, target.path);
    let answer = client.map_err(|error| error.to_string())?.get(url).send().await;
    answer.map(|answer| answer.status().as_u16()).map_err(|error| {
        // The last cause is the one that says something.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        cause.to_string()
    })
}

fn read_secret(path: &Path) -> Result<String, BenchError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| BenchError::Configuration(format!("{}: {error}", path.display())))?;
    let text = text.trim_end();
    match Secret::new(text, &path.display().to_string()) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            Err(BenchError::Configuration(format!("{error} (secrets have {SECRET_BYTES_MIN} bytes or more)")))
        }
    }
}

/// `http://host:port/path`, or with `ws`.
fn parse_url(text: &str) -> Result<Target, BenchError> {
    let wrong = |why: &str| BenchError::Usage(format!("--url {text}: {why}; an example: {URL}"));
    let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("expected http:// or https://"))?;
    let (is_tls, default_port) = match scheme {
        "http" | "ws" => (false, 80),
        "https" | "wss" => (true, 443),
        _ => return Err(wrong("expected http:// or https://")),
    };
    let (authority, path) =
        rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| wrong("the port is no number"))?),
        _ => (authority, default_port),
    };
    if host.is_empty() || host.contains('@') {
        return Err(wrong("a host name or address is needed, without user"));
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Target { host, port, path: path.trim_end_matches('/').trim_end_matches("/v1/ws").to_owned(), is_tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_and_path() {
        let parsed = |url: &str| {
            let Target { host, port, path, is_tls } = parse_url(url).unwrap();
            (host, port, path, is_tls)
        };
        assert_eq!(parsed("http://127.0.0.1:8080"), ("127.0.0.1".into(), 8080, String::new(), false));
        assert_eq!(parsed("wss://push.example.org/v1/ws"), ("push.example.org".into(), 443, String::new(), true));
        assert_eq!(parsed("http://[::1]:81/push/"), ("::1".into(), 81, "/push".into(), false));
        for url in ["127.0.0.1:80", "ftp://x", "http://", "http://a:b", "http://u@h"] {
            assert!(matches!(parse_url(url), Err(BenchError::Usage(_))), "{url}");
        }
    }
}
