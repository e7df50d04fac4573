//! A real `homing serve` process, and its HTTP side.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::Value;

use super::folder::Folder;
use super::port::free_port;
use super::process::Process;
use super::redis_server::Redis;
use super::token::SECRET;
use super::wait::{DEADLINE, eventually};

/// The API key of every node under test; it has every scope.
pub(crate) const API_KEY: &str = "an-api-key-of-the-tests-that-is-long-enough-0123456789";

/// How a test's node differs from the usual.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeOptions {
    /// Where Redis is, if not directly at the test's server: through a proxy, or the embedded one.
    pub(crate) redis: RedisAt,
    /// Further command-line arguments.
    pub(crate) args: Vec<String>,
    /// Further environment.
    pub(crate) env: Vec<(String, String)>,
}

/// How a node reaches its Redis.
#[derive(Clone, Debug, Default)]
pub(crate) enum RedisAt {
    /// The test's server, directly.
    #[default]
    Server,
    /// Another URL: a proxy, a user with fewer rights.
    Url(String),
    /// The embedded server on this data directory.
    Embedded(PathBuf),
}

impl NodeOptions {
    /// Sets an option as an operator would by environment: `limit("ack_timeout", "1s")` is `HOMING_ACK_TIMEOUT=1s`.
    pub(crate) fn set(mut self, option: &str, value: &str) -> Self {
        self.env.push((format!("HOMING_{}", option.to_uppercase()), value.to_owned()));
        self
    }

    /// A node that reaches Redis at `url`.
    pub(crate) fn redis_url(mut self, url: String) -> Self {
        self.redis = RedisAt::Url(url);
        self
    }
}

/// A node under test.
#[derive(Debug)]
pub(crate) struct Node {
    process: Process,
    listen: SocketAddr,
    admin: SocketAddr,
    http: reqwest::Client,
    args: Vec<String>,
    env: Vec<(String, String)>,
    folder: Folder,
}

impl Node {
    /// Starts a node on `redis` and waits until it is ready.
    pub(crate) async fn start(redis: &Redis, options: NodeOptions) -> Self {
        let mut node = Self::launch(Some(redis), options);
        node.wait_ready().await;
        node
    }

    /// Starts a node on its embedded Redis and waits until it is ready.
    pub(crate) async fn start_embedded(data: PathBuf, options: NodeOptions) -> Self {
        let mut node = Self::launch(None, NodeOptions { redis: RedisAt::Embedded(data), ..options });
        node.wait_ready().await;
        node
    }

    /// Starts the process and does not wait: for tests of starts that fail.
    pub(crate) fn launch(redis: Option<&Redis>, options: NodeOptions) -> Self {
        let folder = Folder::new("node");
        let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut args = vec!["serve".to_owned()];
        if !options.args.contains(&"--listen".to_owned()) {
            args.extend(["--listen".to_owned(), listen.to_string()]);
        }
        args.extend(["--admin-listen".to_owned(), admin.to_string()]);
        match options.redis {
            RedisAt::Server => {
                let redis = redis.expect("a node without a server of the test has another Redis in its options");
                args.extend(["--redis".to_owned(), redis.url()]);
            }
            RedisAt::Url(url) => args.extend(["--redis".to_owned(), url]),
            RedisAt::Embedded(path) => args.extend(["--data-dir".to_owned(), path.display().to_string()]),
        }
        args.extend(options.args);
        let mut env = vec![
            ("HOMING_API_KEY".to_owned(), API_KEY.to_owned()),
            ("HOMING_JWT_SECRET".to_owned(), SECRET.to_owned()),
            ("HOMING_LOG_LEVEL".to_owned(), "info,homing=debug".to_owned()),
        ];
        env.extend(options.env);
        let process = spawn(listen, &args, &env, &folder);
        let http =
            reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("an HTTP client needs nothing");
        Self { process, listen, admin, http, args, env, folder }
    }

    /// Starts it again after its end, with the same options, on the same ports; does not wait.
    pub(crate) fn launch_again(&mut self) {
        self.process = spawn(self.listen, &self.args, &self.env, &self.folder);
    }

    /// The public listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listen
    }

    /// The admin listener.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until `/readyz` is green; fails at once if the process ends.
    pub(crate) async fn wait_ready(&mut self) {
        eventually("the node is ready", async || {
            self.process.assert_running();
            (self.readyz().await == Some(200)).then_some(())
        })
        .await;
    }

    /// Status of `/readyz` on the public listener; `None` if nobody answers.
    pub(crate) async fn readyz(&self) -> Option<u16> {
        let response = self.http.get(format!("http://{}/readyz", self.listen)).send().await.ok()?;
        Some(response.status().as_u16())
    }

    /// Waits until `/readyz` has this status.
    pub(crate) async fn wait_readyz(&self, status: u16) {
        let what = format!("/readyz answers {status}");
        eventually(&what, async || (self.readyz().await == Some(status)).then_some(())).await;
    }

    pub(crate) fn kill9(&mut self) {
        self.process.kill9();
    }

    pub(crate) fn sigstop(&self) {
        self.process.signal(Signal::STOP);
    }

    pub(crate) fn sigcont(&self) {
        self.process.signal(Signal::CONT);
    }

    pub(crate) fn sigterm(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Whether the process has ended, and how.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.process.exited()
    }

    pub(crate) async fn wait_exit(&mut self) -> ExitStatus {
        self.process.wait_exit().await
    }

    pub(crate) async fn wait_exit_within(&mut self, deadline: Duration) -> ExitStatus {
        self.process.wait_exit_within(deadline).await
    }

    /// What it printed: logs and start-up text.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }

    /// A request to the public listener with the API key.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.listen)).bearer_auth(API_KEY)
    }

    /// Sends a request with the API key; gives status and JSON body (`null` if there is none).
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap_or_else(|error| panic!("{path}: {error}"));
        let status = response.status().as_u16();
        let body = response.bytes().await.unwrap_or_else(|error| panic!("{path}: {error}"));
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> (u16, Value) {
        self.call(Method::DELETE, path, None).await
    }

    /// Publishes `data` by HTTP; gives its id.
    pub(crate) async fn publish(&self, user: &str, data: Value) -> String {
        let body = serde_json::json!({ "data": data });
        let (status, answer) = self.post(&format!("/v1/users/{user}/messages"), &body).await;
        assert_eq!(status, 201, "{answer}");
        answer["id"].as_str().expect("201 carries an id").to_owned()
    }

    /// All metrics, as Prometheus would read them.
    pub(crate) async fn metrics(&self) -> String {
        let response = self.http.get(format!("http://{}/metrics", self.admin)).send().await;
        let response = response.unwrap_or_else(|error| panic!("/metrics: {error}"));
        assert_eq!(response.status().as_u16(), 200);
        response.text().await.unwrap_or_else(|error| panic!("/metrics: {error}"))
    }

    /// The sum of one metric over its labels; `None` if it is not there.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.metrics().await;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = match rest.strip_prefix('{') {
                Some(labelled) => labelled.rsplit_once("} ")?.1,
                None => rest.strip_prefix(' ')?,
            };
            value.trim().parse::<f64>().ok()
        });
        values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }
}

fn spawn(listen: SocketAddr, args: &[String], env: &[(String, String)], folder: &Folder) -> Process {
    let name = format!("homing on {listen}");
    Process::start(&name, env!("CARGO_BIN_EXE_homing"), args, env, &folder.path().join("homing.log"))
}
