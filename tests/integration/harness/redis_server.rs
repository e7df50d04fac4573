//! A real `redis-server` of a test's own.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use redis::aio::MultiplexedConnection;
use redis::{Client, FromRedisValue};
use rustix::process::Signal;

use super::folder::Folder;
use super::port::free_port;
use super::process::Process;
use super::wait::{DEADLINE, eventually};

/// How a test's Redis differs from the usual.
#[derive(Clone, Debug, Default)]
pub(crate) struct RedisOptions {
    /// Further options, as on the command line: `["--maxmemory", "4mb"]`.
    pub(crate) args: Vec<&'static str>,
    /// Where its data is, if not in a folder of its own: on a disk that can be filled.
    pub(crate) data: Option<PathBuf>,
}

/// A running `redis-server` with an append-only log at `everysec` and no keyspace notifications set: what a node
/// needs it has to set by itself.
#[derive(Debug)]
pub(crate) struct Redis {
    // Declared before the folder: the process ends before its folder goes.
    process: Process,
    port: u16,
    options: RedisOptions,
    folder: Folder,
}

impl Redis {
    pub(crate) async fn start(options: RedisOptions) -> Self {
        let folder = Folder::new("redis");
        let port = free_port();
        let process = launch(&folder, port, &options);
        let mut redis = Self { process, port, options, folder };
        redis.wait_ready().await;
        redis
    }

    /// Its folder, with its log and its data.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Lets its files grow up to this size only, as a disk does that is full; `None`: as large as they like.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        let limit = rustix::process::Rlimit { current: bytes, maximum: None };
        rustix::process::prlimit(self.process.handle(), rustix::process::Resource::Fsize, limit)
            .expect("a limit of a child of ours can be changed");
    }

    /// A crash and a new start that is not waited for: it loads its data first.
    pub(crate) fn restart_unready(&mut self) {
        self.kill9();
        self.process = launch(&self.folder, self.port, &self.options);
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn client(&self) -> Client {
        Client::open(self.url()).expect("the URL is well-formed")
    }

    /// A new connection. Panics if the server cannot be reached.
    pub(crate) async fn connection(&self) -> MultiplexedConnection {
        self.try_connection().await.expect("the test's Redis can be reached")
    }

    async fn try_connection(&self) -> redis::RedisResult<MultiplexedConnection> {
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        self.client().get_multiplexed_async_connection_with_config(&config).await
    }

    /// Runs one command, given as words. Panics if Redis refuses it.
    pub(crate) async fn query<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_query(words).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Runs one command, given as words.
    pub(crate) async fn try_query<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut self.try_connection().await?).await
    }

    /// Appends a message as a raw producer would, with field `data`; gives its id.
    pub(crate) async fn publish(&self, user: &str, data: &str) -> String {
        self.query(&["XADD", &inbox(user), "*", "data", data]).await
    }

    /// Appends many messages in one pipeline; gives their ids in order.
    pub(crate) async fn publish_all(&self, user: &str, data: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut pipeline = redis::pipe();
        let inbox = inbox(user);
        for data in data {
            pipeline.cmd("XADD").arg(&inbox).arg("*").arg("data").arg(data);
        }
        pipeline.query_async(&mut self.connection().await).await.expect("Redis accepts the messages")
    }

    /// Messages in a user's inbox.
    pub(crate) async fn inbox_length(&self, user: &str) -> u64 {
        self.query(&["XLEN", &inbox(user)]).await
    }

    /// Messages that were delivered to a device and not acknowledged; 0 without group.
    pub(crate) async fn pending(&self, user: &str, device: &str) -> u64 {
        match self.try_query::<redis::Value>(&["XPENDING", &inbox(user), device]).await {
            Ok(redis::Value::Array(summary)) => u64::from_redis_value_ref(&summary[0]).expect("a count comes first"),
            _ => 0,
        }
    }

    /// The record of a device, `None` if it is not known.
    pub(crate) async fn device(&self, user: &str, device: &str) -> Option<serde_json::Value> {
        let text: Option<String> = self.query(&["HGET", &devices(user), device]).await;
        text.map(|text| serde_json::from_str(&text).expect("a device's record is JSON"))
    }

    pub(crate) async fn config_set(&self, option: &str, value: &str) {
        self.query::<()>(&["CONFIG", "SET", option, value]).await;
    }

    pub(crate) async fn config(&self, option: &str) -> String {
        let pair: Vec<String> = self.query(&["CONFIG", "GET", option]).await;
        pair.into_iter().nth(1).unwrap_or_default()
    }

    /// Whether the process has ended, and how.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.process.exited()
    }

    /// Ends it as a crash of the process would.
    pub(crate) fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Sends the signal of [`Redis::kill9`] and does not wait for the end.
    pub(crate) fn send_kill9(&self) {
        self.process.signal(Signal::KILL);
    }

    /// Starts it again after [`Redis::kill9`] on the same port and data.
    pub(crate) async fn start_again(&mut self) {
        self.process = launch(&self.folder, self.port, &self.options);
        self.wait_ready().await;
    }

    /// A crash and a new start.
    pub(crate) async fn restart(&mut self) {
        self.kill9();
        self.start_again().await;
    }

    /// A crash, the loss of all data, and a new start.
    pub(crate) async fn restart_empty(&mut self) {
        self.kill9();
        let _ = std::fs::remove_dir_all(self.folder.path().join("appendonlydir"));
        self.start_again().await;
    }

    /// Stops answering without closing a connection.
    pub(crate) fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    async fn wait_ready(&mut self) {
        eventually("redis-server answers PING", async || {
            self.process.assert_running();
            self.try_query::<String>(&["PING"]).await.ok()
        })
        .await;
    }
}

/// The inbox key of a user, written out on purpose: it is what other people's producers use.
pub(crate) fn inbox(user: &str) -> String {
    format!("homing:{{{user}}}:inbox")
}

/// The key of a user's devices.
pub(crate) fn devices(user: &str) -> String {
    format!("homing:{{{user}}}:devices")
}

/// The key of a topic's log.
pub(crate) fn log(topic: &str) -> String {
    format!("homing:topic:{{{topic}}}:log")
}

/// The key of the devices' cursors in a topic.
pub(crate) fn cursors(topic: &str) -> String {
    format!("homing:topic:{{{topic}}}:cursors")
}

/// The key of what a user follows.
pub(crate) fn followed(user: &str) -> String {
    format!("homing:{{{user}}}:topics")
}

fn launch(folder: &Folder, port: u16, options: &RedisOptions) -> Process {
    let port = port.to_string();
    let data = options.data.as_deref().unwrap_or(folder.path());
    let folder_name = data.to_str().expect("the test's folder has a plain name");
    let args = [
        ["--port", &port],
        ["--bind", "127.0.0.1"],
        ["--dir", folder_name],
        ["--appendonly", "yes"],
        ["--appendfsync", "everysec"],
        ["--save", ""],
        ["--notify-keyspace-events", ""],
        ["--enable-debug-command", "local"],
    ];
    let args: Vec<String> = args.iter().flatten().chain(&options.args).map(|arg| (*arg).to_owned()).collect();
    let log = folder.path().join("redis.log");
    // A file that may not grow raises a signal besides the error; a full disk would not.
    let env = Path::new("/usr/bin/env");
    if env.exists() && cfg!(target_os = "linux") {
        let args = [vec!["--ignore-signal=XFSZ".to_owned(), "redis-server".to_owned()], args].concat();
        return Process::start("redis-server", "/usr/bin/env", &args, &[], &log);
    }
    Process::start("redis-server", "redis-server", &args, &[], &log)
}
