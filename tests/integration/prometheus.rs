//! A real Prometheus loads the repository's rules and finds data for everything that the dashboard asks.
//!
//! Needs the Debian package `prometheus`, which holds `prometheus` and `promtool`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::folder::Folder;
use crate::harness::port::free_port;
use crate::harness::process::Process;
use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions, eventually};

/// A rate needs two scrapes, a rule an evaluation, and the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// A file of `grafana/`.
fn grafana(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana").join(path)
}

/// A program of the Debian package, wherever it was installed to.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: install the package prometheus (apt-get install prometheus)"))
}

/// A Prometheus that scrapes one node.
struct Prometheus {
    // Ends before its folder goes.
    process: Process,
    url: String,
    http: reqwest::Client,
    _folder: Folder,
}

impl Prometheus {
    /// Starts it with the example configuration of the repository, only quicker and with the node's address.
    fn start(node: &Node) -> Self {
        let folder = Folder::new("prometheus");
        let example = std::fs::read_to_string(grafana("prometheus/prometheus.yml")).expect("the example is there");
        let rules = grafana("prometheus/homing.rules.yml");
        let rules = rules.to_str().expect("the repository's path is plain text");
        let mut config = example;
        for (from, to) in [
            ("_interval: 10s", "_interval: 1s"),
            ("- homing.rules.yml", &format!("- {rules}")),
            ("\"127.0.0.1:9090\"", &format!("\"{}\"", node.admin_address())),
        ] {
            assert!(config.contains(from), "the example has no {from}: {config}");
            config = config.replace(from, to);
        }
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config).expect("the test's folder can be written to");
        let address = format!("127.0.0.1:{}", free_port());
        let args = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            format!("--web.listen-address={address}"),
        ];
        let program = program("prometheus");
        let program = program.to_str().expect("programs have plain names");
        let process = Process::start("prometheus", program, &args, &[], &folder.path().join("prometheus.log"));
        let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client needs nothing");
        Self { process, url: format!("http://{address}/api/v1"), http, _folder: folder }
    }

    /// `data` of an answer of its API; `None` while it does not answer.
    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Option<Value> {
        let url = reqwest::Url::parse_with_params(&format!("{}/{path}", self.url), parameters);
        let response = self.http.get(url.expect("the path is plain")).send().await.ok()?;
        let answer: Value = serde_json::from_slice(&response.bytes().await.ok()?).ok()?;
        assert_eq!(answer["status"], "success", "{path} {parameters:?}: {answer}");
        Some(answer["data"].clone())
    }

    /// Waits until it has scraped the node.
    async fn wait_up(&mut self) {
        eventually("Prometheus scrapes the node", async || {
            self.process.assert_running();
            let targets = self.ask("targets", &[]).await?;
            // The list is empty for a moment after the start.
            let target = targets["activeTargets"].get(0)?;
            assert_ne!(target["health"], "down", "{target}");
            (target["health"] == "up").then_some(())
        })
        .await;
    }

    /// Whether an expression has a value now that is a number.
    async fn has_number(&self, expression: &str) -> bool {
        let data = self.ask("query", &[("query", expression)]).await.unwrap_or_default();
        let samples = data["result"].as_array().map_or(&[][..], Vec::as_slice);
        let value = |sample: &Value| sample["value"][1].as_str()?.parse::<f64>().ok();
        samples.iter().filter_map(value).any(|value| !value.is_nan())
    }
}

/// Title and expression of every panel, with variables as Grafana would fill them in for `All`.
fn panel_expressions() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(grafana("dashboards/homing.json")).expect("the dashboard is there");
    let dashboard: Value = serde_json::from_str(&text).expect("the dashboard is JSON");
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().expect("a dashboard has panels") {
        for target in panel["targets"].as_array().map_or(&[][..], Vec::as_slice) {
            let expression = target["expr"].as_str().expect("a target has an expression");
            // Grafana's is at least four times the scrape interval; longer for a machine that is busy.
            let expression = expression.replace("$__rate_interval", "30s");
            let expression = expression.replace("$job", ".*").replace("$instance", ".*");
            assert!(!expression.contains('$'), "a variable that is not known here: {expression}");
            expressions.push((panel["title"].as_str().unwrap_or_default().to_owned(), expression));
        }
    }
    assert!(expressions.len() > 30, "the dashboard was not read");
    expressions
}

/// A little of everything that is counted: published, delivered twice, acked, refused.
async fn make_traffic(node: &Node, client: &mut Client) {
    let id = node.publish("alice", json!("hello")).await;
    let message = client.next_message().await;
    assert_eq!(message.id, id);
    client.nack(&[&id], 0).await;
    assert_eq!(client.next_message().await.id, id);
    client.ack_confirmed(&[&id]).await;
    client.send(json!({ "type": "ack", "ids": ["no id"] })).await;
    assert_eq!(client.expect_frame("error").await["code"], "bad_id");
    assert_eq!(node.get("/v1/users/alice").await.0, 200);
    Client::connect(node, "bob", "d", ConnectOptions::default()).await.close().await;
}

#[tokio::test]
async fn a_real_prometheus_loads_the_rules_and_has_data_for_every_panel() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default().set("janitor_pause", "500ms")).await;
    let options = ConnectOptions { confirm: true, ..ConnectOptions::default() };
    let mut client = Client::connect(&node, "alice", "d", options).await;
    let mut prometheus = Prometheus::start(&node);
    prometheus.wait_up().await;

    let start = Instant::now();
    let mut missing = panel_expressions();
    while !missing.is_empty() {
        // A quantile of a rate is a number only if something happens between two scrapes.
        make_traffic(&node, &mut client).await;
        let mut still = Vec::new();
        for (title, expression) in missing {
            if !prometheus.has_number(&expression).await {
                still.push((title, expression));
            }
        }
        missing = still;
        assert!(start.elapsed() < DEADLINE, "no data within {DEADLINE:?}: {missing:#?}");
    }

    let groups = eventually("every rule was evaluated", async || {
        let rules = prometheus.ask("rules", &[]).await?;
        let groups = rules["groups"].as_array()?.clone();
        let waits = groups.iter().flat_map(|group| group["rules"].as_array()).flatten();
        (waits.filter(|rule| rule["health"] == "unknown").count() == 0).then_some(groups)
    })
    .await;
    let rules: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array()).flatten().collect();
    assert!(rules.len() > 10, "the rules were not loaded: {groups:?}");
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{}: {}", rule["name"], rule["lastError"]);
    }
}

// Whether an alert fires when it should, and only then, is in the rules' own test.
#[test]
fn the_rules_and_the_example_configuration_pass_promtool() {
    for (words, file) in [
        (["check", "rules"], "homing.rules.yml"),
        (["check", "config"], "prometheus.yml"),
        (["test", "rules"], "homing.rules.test.yml"),
    ] {
        let mut promtool = Command::new(program("promtool"));
        let output = promtool.args(words).arg(file).current_dir(grafana("prometheus")).output();
        let output = output.expect("promtool can be run");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "promtool {words:?} {file}: {}", String::from_utf8_lossy(&said));
    }
}
