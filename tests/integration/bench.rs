//! `homing bench` on real processes: what it counts is what happened, and nothing of it stays behind.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::Command;

use crate::harness::folder::Folder;
use crate::harness::node::API_KEY;
use crate::harness::port::free_port;
use crate::harness::token::SECRET;
use crate::harness::{Node, NodeOptions, Redis, RedisOptions, eventually};

/// Time for a run with few clients, on a machine that is busy with other tests.
const RUN_MAX: Duration = Duration::from_secs(120);

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_homing"));
    command.arg("bench").args(args).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Exit code, standard output and standard error.
async fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = tokio::time::timeout(RUN_MAX, command(args).output()).await;
    let output = output.unwrap_or_else(|_| panic!("{args:?} takes too long")).expect("homing can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The findings of a run that succeeds.
async fn findings(args: &[&str]) -> Value {
    let (code, output, errors) = run(&[args, &["--json"]].concat()).await;
    assert_eq!(code, Some(0), "{args:?}: {errors}{output}");
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{args:?}: {error}: {output}"))
}

fn figure(findings: &Value, key: &str) -> f64 {
    findings["figures"][key]["value"].as_f64().unwrap_or_else(|| panic!("no {key} in {findings:#}"))
}

/// All that was accepted reached every device and was acknowledged in Redis.
fn assert_whole(findings: &Value, devices: f64) {
    assert!(figure(findings, "accepted") > 0.0, "{findings:#}");
    assert_eq!(figure(findings, "sent"), figure(findings, "accepted"), "{findings:#}");
    assert_eq!(figure(findings, "received"), figure(findings, "accepted") * devices, "{findings:#}");
    for key in ["lost", "refused", "unacknowledged", "disconnects"] {
        assert_eq!(figure(findings, key), 0.0, "{key} in {findings:#}");
    }
    assert!(figure(findings, "latency_p50") > 0.0);
    assert!(figure(findings, "latency_p99") >= figure(findings, "latency_p50"));
    assert!(figure(findings, "latency_max") >= figure(findings, "latency_p99"));
}

#[tokio::test]
async fn deliver_by_http_counts_every_message_at_every_device() {
    let folder = Folder::new("bench");
    let page = folder.path().join("report.html");
    let page_name = page.to_str().expect("the test's folder has a plain name");
    let args = ["deliver", "--users", "20", "--devices", "2", "--rate", "100", "--time", "2s", "--warm-up", "500ms"];
    let found = findings(&[&args[..], &["--confirm", "--html", page_name]].concat()).await;
    assert_whole(&found, 2.0);
    // 2.5 s at 100 a second.
    assert!((245.0..=255.0).contains(&figure(&found, "sent")), "{found:#}");
    assert_eq!(figure(&found, "confirmed"), figure(&found, "received"));
    assert!(figure(&found, "cpu_nodes") > 0.0 && figure(&found, "cpu_redis") > 0.0);
    assert!(figure(&found, "floor_redis") > 0.0 && figure(&found, "floor_sockets") > 0.0);
    let [whole, redis_only] = ["ratio_whole", "ratio_all"].map(|key| figure(&found, key));
    assert!(0.0 < whole && whole < redis_only, "{found:#}");
    let page = std::fs::read_to_string(page).expect("the page was written");
    assert!(page.contains("<polyline") && page.contains("Latency over time") && !page.contains("NaN"), "{page}");
}

#[tokio::test]
async fn deliver_as_fast_as_possible_loses_nothing() {
    let args = ["deliver", "--users", "10", "--rate", "max", "--in-flight", "50", "--time", "1s", "--no-floor"];
    let batches = ["--batch", "10", "--producers", "2", "--warm-up", "0s"];
    assert_whole(&findings(&[&args[..], &batches].concat()).await, 1.0);
    let xadd = ["--via", "xadd", "--producers", "2", "--workers", "2", "--nodes", "2", "--warm-up", "0s"];
    assert_whole(&findings(&[&args[..], &xadd].concat()).await, 1.0);
}

#[tokio::test]
async fn replay_brings_everything_that_waited() {
    let found = findings(&["replay", "--users", "20", "--queued", "30", "--workers", "2", "--via", "xadd"]).await;
    assert_whole(&found, 1.0);
    assert_eq!(figure(&found, "received"), 600.0);
    assert!(figure(&found, "catching_up_max") >= figure(&found, "connecting_p50"), "{found:#}");
}

#[tokio::test]
async fn idle_and_storm_hold_every_client() {
    let found = findings(&["idle", "--users", "60", "--steps", "3", "--time", "1s"]).await;
    assert_eq!((figure(&found, "connected"), figure(&found, "disconnects")), (60.0, 0.0), "{found:#}");
    // Whatever it is: a kernel that takes idle memory back takes more than sixty sessions need.
    assert!(figure(&found, "memory_node").is_finite(), "{found:#}");
    assert_eq!(found["charts"][0]["series"][0]["points"].as_array().map(Vec::len), Some(4), "{found:#}");
    let found = findings(&["storm", "--users", "60", "--devices", "2"]).await;
    assert_eq!((figure(&found, "connected"), figure(&found, "readies")), (120.0, 120.0), "{found:#}");
}

#[tokio::test]
async fn sockets_are_spread_over_nodes_and_workers() {
    let args = ["sockets", "--users", "40", "--every", "500ms", "--time", "1s", "--warm-up", "0s"];
    let found = findings(&[&args[..], &["--nodes", "2", "--workers", "3"]].concat()).await;
    assert_whole(&found, 1.0);
    assert!((70.0..=90.0).contains(&figure(&found, "sent")), "{found:#}");
}

#[tokio::test]
async fn a_port_that_somebody_has_is_passed_over() {
    let port = free_port();
    let taken = TcpListener::bind(("127.0.0.1", port)).expect("it was free");
    let found =
        findings(&["idle", "--users", "3", "--steps", "1", "--time", "200ms", "--ports", &port.to_string()]).await;
    assert_eq!(figure(&found, "connected"), 3.0, "{found:#}");
    drop(taken);
}

#[tokio::test]
async fn topics_count_every_message_at_every_follower_also_beside_a_crowd_that_is_away() {
    let args = ["topics", "--users", "30", "--topics", "60", "--each", "10", "--rate", "100", "--time", "1s"];
    let found =
        findings(&[&args[..], &["--warm-up", "200ms", "--rest", "2s", "--workers", "2", "--offline", "3000"]].concat())
            .await;
    for suffix in ["", "_alone", "_crowd"] {
        let value = |key: &str| figure(&found, &format!("{key}{suffix}"));
        assert_eq!((value("lost"), value("duplicates")), (0.0, 0.0), "{found:#}");
        // Of 60 topics, each of 30 users follows 10: five followers on the average. All 30 have the last topic.
        let followers = value("received") / value("messages");
        let range = if suffix.is_empty() { 4.0..=6.0 } else { 30.0..=30.0 };
        assert!(range.contains(&followers), "{followers} followers{suffix}");
        assert!(figure(&found, &format!("latency{suffix}_p50")) > 0.0 && value("cpu_nodes") > 0.0, "{found:#}");
    }
    assert_eq!((figure(&found, "messages"), figure(&found, "disconnects")), (120.0, 0.0), "{found:#}");
    // What Redis keeps of somebody who is away: the names and some pointers.
    for key in ["memory_cursor_crowd", "memory_follower_crowd", "memory_follow_crowd"] {
        assert!((20.0..300.0).contains(&figure(&found, key)), "{key} in {found:#}");
    }
    // Ten topics, each with cursor and trim; the log's end and a subscription for those that are new to the node.
    assert!((20.0..200.0).contains(&figure(&found, "login_commands")), "{found:#}");
}

#[tokio::test]
async fn broadcast_reaches_everybody_and_waits_for_the_cursors() {
    // A single one: a cursor that is there at the end is that of this one.
    let found = findings(&["broadcast", "--users", "20", "--every", "1s", "--time", "1s"]).await;
    for (key, expected) in
        [("received", 20.0), ("lost", 0.0), ("disconnects", 0.0), ("complete", 1.0), ("cursors", 20.0)]
    {
        assert_eq!(figure(&found, key), expected, "{key} in {found:#}");
    }
    for key in ["latency_p50", "last_p50", "cpu_nodes", "cpu_redis", "floor_sockets", "ratio_all"] {
        assert!(figure(&found, key) > 0.0, "{key} in {found:#}");
    }
}

// Many systems begin with 1,024, where more are allowed.
#[tokio::test]
async fn a_measurement_opens_more_sockets_than_the_soft_limit_of_descriptors_allows() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", r#"ulimit -Sn 128 && exec "$0" "$@""#, env!("CARGO_BIN_EXE_homing"), "bench", "idle"]);
    command.args(["--users", "300", "--time", "1s", "--json"]).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(RUN_MAX, command.output()).await.expect("in time").expect("it can be started");
    let found: Value = serde_json::from_slice(&output.stdout).expect("findings");
    assert_eq!((output.status.code(), figure(&found, "connected")), (Some(0), 300.0), "{found:#}");
}

#[tokio::test]
async fn the_floor_costs_something() {
    let (code, _, errors) = run(&["floor", "--time", "0s"]).await;
    assert!(code == Some(2) && errors.contains("--time must be longer than 0"), "{code:?}: {errors}");
    let found = findings(&["floor", "--time", "500ms"]).await;
    assert!(figure(&found, "floor_redis") > 0.0 && figure(&found, "floor_rate") > 0.0, "{found:#}");
    assert!(figure(&found, "floor_sockets") > 0.0, "{found:#}");
}

#[tokio::test]
async fn the_standard_set_becomes_a_document() {
    let folder = Folder::new("bench");
    let (document, pages) = (folder.path().join("BENCHMARKS.md"), folder.path().join("pages"));
    let [document, pages] = [&document, &pages].map(|path| path.to_str().expect("a plain name"));
    let args = ["suite", "--out", document, "--html", pages, "--only", "1,000 messages a second by HTTP"];
    let (code, _, errors) = run(&[&args[..], &["--runs", "2", "--seconds", "1", "--scale", "2"]].concat()).await;
    assert_eq!(code, Some(0), "{errors}");
    let text = std::fs::read_to_string(document).expect("the document was written");
    assert!(text.contains("## 1,000 messages a second by HTTP") && text.contains("| lost | 0 |"), "{text}");
    assert_eq!(std::fs::read_dir(pages).expect("pages were written").count(), 2);
}

/// A cluster as somebody may have it, and files with its secrets.
struct Theirs {
    redis: Redis,
    node: Node,
    folder: Folder,
}

impl Theirs {
    async fn start() -> Self {
        let redis = Redis::start(RedisOptions::default()).await;
        let node = Node::start(&redis, NodeOptions::default()).await;
        Self { redis, node, folder: Folder::new("bench") }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        std::fs::write(&path, format!("{text}\n")).expect("the test's folder can be written to");
        path.to_str().expect("the test's folder has a plain name").to_owned()
    }

    fn url(&self) -> String {
        format!("http://{}", self.node.address())
    }
}

#[tokio::test]
async fn a_cluster_of_ones_own_is_loaded_by_its_url() {
    let theirs = Theirs::start().await;
    let (jwt, key) = (theirs.file("jwt", SECRET), theirs.file("key", API_KEY));
    let url = theirs.url();
    let cluster = ["--url", &url, "--jwt-secret-file", &jwt, "--api-key-file", &key, "--redis", &theirs.redis.url()];
    let load = ["load", "-a", "20", "-c", "100", "-w", "2", "-t", "200ms", "--characters", "200", "--time", "1s"];
    let found = findings(&[&load[..], &cluster].concat()).await;
    assert_whole(&found, 1.0);
    assert_eq!(figure(&found, "connected"), 20.0);
    assert!(found["figures"]["cpu_nodes"].is_null(), "somebody else's CPU is not seen: {found:#}");
    let deliver = ["deliver", "--users", "10", "--rate", "50", "--time", "1s", "--warm-up", "0s", "--via", "xadd"];
    assert_whole(&findings(&[&deliver[..], &cluster].concat()).await, 1.0);
    // Without messages, and without an API key: connections alone.
    let found = findings(&["load", "-a", "5", "--time", "500ms", "--url", &url, "--jwt-secret-file", &jwt]).await;
    assert_eq!((figure(&found, "connected"), figure(&found, "sent")), (5.0, 0.0), "{found:#}");
}

#[tokio::test]
async fn what_cannot_work_is_said_with_its_exit_code() {
    let theirs = Theirs::start().await;
    let wrong = theirs.file("wrong", "a secret that nobody else has, long enough for all checks");
    let (jwt, key, url) = (theirs.file("jwt", SECRET), theirs.file("key", API_KEY), theirs.url());
    let expect = async |code: i32, word: &str, args: &[&str]| {
        let args = [&["load", "--time", "1s", "-a", "3", "-t", "100ms"], args].concat();
        let (found, output, errors) = run(&args).await;
        assert!(found == Some(code) && errors.contains(word), "{args:?} → {found:?}: {errors}{output}");
    };
    expect(2, "http://", &["--url", "nonsense", "--jwt-secret-file", &jwt]).await;
    expect(2, "TLS", &["--url", "wss://127.0.0.1:1", "--jwt-secret-file", &jwt]).await;
    expect(2, "--rate", &["--rate", "7"]).await;
    expect(3, "--jwt-secret-file", &["--url", &url]).await;
    expect(3, "--api-key-file", &["--url", &url, "--jwt-secret-file", &jwt]).await;
    expect(3, "no-such-file", &["--url", &url, "--jwt-secret-file", "no-such-file"]).await;
    expect(4, "cannot be reached", &["--url", "http://127.0.0.1:1", "--jwt-secret-file", &jwt]).await;
    expect(4, "Redis", &["--url", &url, "--jwt-secret-file", &jwt, "--redis", "redis://127.0.0.1:1"]).await;
    expect(5, "4001", &["--url", &url, "--jwt-secret-file", &wrong, "--api-key-file", &key]).await;
    expect(5, "API key", &["--url", &url, "--jwt-secret-file", &jwt, "--api-key-file", &wrong]).await;
    let (found, _, errors) = run(&["sockets", "--users", "2", "--every", "1s", "--gather", "1s", "--time", "1s"]).await;
    assert!(found == Some(2) && errors.contains("--gather"), "{found:?}: {errors}");
}

/// A process with all that come from it, and the folder that its node runs in.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut index = 0;
    while index < all.len() {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", all[index])).into_iter().flatten().flatten();
        for task in tasks {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        index += 1;
    }
    all
}

fn name(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// Whether it runs; a zombie has ended.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[tokio::test]
async fn nothing_stays_behind_however_it_ends() {
    for signal in [Signal::INT, Signal::KILL] {
        let mut bench = command(&["idle", "--users", "5", "--time", "10m"])
            .stdout(Stdio::null())
            .spawn()
            .expect("homing can be started");
        let pid = bench.id().expect("it runs");
        // Bench, node, worker, the guard of Redis, and Redis.
        let all = eventually("all processes of the measurement run", async || {
            let all = family(pid);
            (all.len() == 5 && all.iter().any(|pid| name(*pid).contains("-server"))).then_some(all)
        })
        .await;
        let folders: Vec<PathBuf> = all[1..]
            .iter()
            .filter_map(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).ok())
            .filter(|folder| folder.to_string_lossy().contains("homing-bench-"))
            .collect();
        assert!(!folders.is_empty());
        kill_process(Pid::from_raw(pid as i32).expect("a pid is positive"), signal).expect("it runs");
        bench.wait().await.expect("it ends");
        for process in all {
            eventually("its processes have ended", async || (!lives(process)).then_some(())).await;
        }
        if signal == Signal::INT {
            assert!(folders.iter().all(|folder| !Path::new(folder).exists()), "{folders:?}");
        } else {
            // Nobody is left to remove the folder but the next measurement.
            findings(&["floor", "--time", "100ms"]).await;
            eventually("the next one sweeps", async || folders.iter().all(|folder| !folder.exists()).then_some(()))
                .await;
        }
    }
}
