//! `serve` without `--redis`: its private Redis lives and dies with it, and no two servers share one log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use serde_json::json;

use crate::harness::disk::Disk;
use crate::harness::folder::Folder;
use crate::harness::node::RedisAt;
use crate::harness::{Client, ConnectOptions, Node, NodeOptions, eventually};

fn confirming() -> ConnectOptions {
    ConnectOptions { confirm: true, ..ConnectOptions::default() }
}

/// Pids of the `redis-server` processes that work in this folder.
fn redis_servers_of(folder: &Path) -> Vec<u32> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("this test runs on Linux").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let is_redis =
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("redis-server"));
        let works_here = std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|path| path.starts_with(folder));
        if is_redis && works_here {
            pids.push(pid);
        }
    }
    pids
}

fn kill9(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a pid of this test");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a process of this test's own folder");
}

#[tokio::test]
async fn an_embedded_redis_keeps_messages_over_a_clean_restart() {
    let folder = Folder::new("data");
    let data = folder.path().join("homing-data");
    let mut node = Node::start_embedded(data.clone(), NodeOptions::default().set("drain_pause", "0s")).await;
    let id = node.publish("alice", json!("kept")).await;
    node.sigterm();
    assert!(node.wait_exit().await.success());
    eventually("its Redis is gone", async || redis_servers_of(folder.path()).is_empty().then_some(())).await;

    let node = Node::start_embedded(data, NodeOptions::default()).await;
    let mut client = Client::connect(&node, "alice", "d", confirming()).await;
    let message = client.next_message().await;
    assert_eq!((&message.id, message.json()), (&id, json!("kept")));
}

#[tokio::test]
async fn a_killed_server_takes_its_redis_with_it_and_loses_nothing() {
    let folder = Folder::new("data");
    let data = folder.path().join("homing-data");
    let mut node = Node::start_embedded(data.clone(), NodeOptions::default()).await;
    let mut ids = Vec::new();
    for number in 0..200 {
        ids.push(node.publish("alice", json!(number)).await);
    }
    let mut client = Client::connect(&node, "alice", "d", confirming()).await;
    client.next_messages(10).await;
    client.ack_confirmed(&ids[..10]).await;
    assert_eq!(redis_servers_of(folder.path()).len(), 1);
    node.kill9();
    eventually("its Redis is gone", async || redis_servers_of(folder.path()).is_empty().then_some(())).await;

    let node = Node::start_embedded(data, NodeOptions::default()).await;
    let mut client = Client::connect(&node, "alice", "d", confirming()).await;
    for id in &ids[10..] {
        assert_eq!(client.next_message().await.id, *id);
        client.ack(&[id]).await;
    }
}

/// The nice value of a process, by proc_pid_stat(5).
fn nice_of(pid: u32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    fields.split_ascii_whitespace().nth(16).and_then(|text| text.parse().ok()).expect("field 19 is a number")
}

// On two full cores with 128,000 sockets: p99 271 instead of 939 ms.
#[tokio::test]
async fn an_embedded_redis_has_precedence_over_those_who_wait_for_it_where_that_is_permitted() {
    let folder = Folder::new("data");
    let node = Node::start_embedded(folder.path().join("homing-data"), NodeOptions::default()).await;
    let own = nice_of(std::process::id());
    assert_eq!(nice_of(node.pid()), own, "the node itself stays what it was");
    // The kernel lets only the privileged raise themselves.
    let may = std::process::Command::new("nice").args(["-n", "-10", "true"]).output().expect("coreutils are here");
    let step = if may.stderr.is_empty() { 10 } else { 0 };
    for pid in redis_servers_of(folder.path()) {
        assert_eq!(nice_of(pid), (own - step).max(-20));
    }
    assert_eq!(redis_servers_of(folder.path()).len(), 1);
}

// Two servers that append to one log destroy it.
#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused_and_the_first_goes_on() {
    let folder = Folder::new("data");
    let data = folder.path().join("homing-data");
    let first = Node::start_embedded(data.clone(), NodeOptions::default()).await;
    let options = NodeOptions { redis: RedisAt::Embedded(data.clone()), ..NodeOptions::default() };
    let mut second = Node::launch(None, options);
    let status = second.wait_exit().await;
    assert!(!status.success());
    assert!(second.output().contains("homing-data"), "{}", second.output());
    assert_eq!(redis_servers_of(folder.path()).len(), 1);
    first.publish("alice", json!(1)).await;
}

// The lock is held by the Redis child as well: its log is safe even while a killed server's child still dies.
#[tokio::test]
async fn a_server_that_starts_right_after_a_kill_finds_its_data_whole() {
    let folder = Folder::new("data");
    let data = folder.path().join("homing-data");
    for round in 0..3 {
        let mut node = loop {
            let options = NodeOptions { redis: RedisAt::Embedded(data.clone()), ..NodeOptions::default() };
            let mut node = Node::launch(None, options);
            let up = eventually("it starts or refuses", async || match node.exited() {
                Some(_) => Some(false),
                None => (node.readyz().await == Some(200)).then_some(true),
            })
            .await;
            if up {
                break node;
            }
        };
        node.publish("alice", json!(round)).await;
        node.kill9();
    }
    eventually("the last Redis is gone", async || redis_servers_of(folder.path()).is_empty().then_some(())).await;
    let node = Node::start_embedded(data, NodeOptions::default()).await;
    let mut client = Client::connect(&node, "alice", "d", confirming()).await;
    let data: Vec<_> = client.next_messages(3).await.iter().map(|message| message.json()).collect();
    assert_eq!(data, [json!(0), json!(1), json!(2)]);
}

#[tokio::test]
async fn an_embedded_redis_that_dies_is_started_again() {
    let folder = Folder::new("data");
    let node = Node::start_embedded(folder.path().join("homing-data"), NodeOptions::default()).await;
    let mut client = Client::connect(&node, "alice", "d", confirming()).await;
    let id = node.publish("alice", json!("before")).await;
    let before = redis_servers_of(folder.path());
    kill9(before[0]);
    eventually("another Redis runs", async || {
        let now = redis_servers_of(folder.path());
        (now.len() == 1 && now != before).then_some(())
    })
    .await;
    node.wait_readyz(200).await;
    loop {
        let message = client.next_message().await;
        assert_eq!(message.id, id);
        if message.attempt > 1 {
            break;
        }
    }
    client.ack_confirmed(&[&id]).await;
    // The first request may find that its connection is broken: outcome unknown, so it is safe only with a key.
    eventually("a publish is accepted", async || {
        let body = json!({ "data": "after", "key": "k" });
        matches!(node.post("/v1/users/alice/messages", &body).await.0, 200 | 201).then_some(())
    })
    .await;
    assert_eq!(client.next_message().await.json(), "after");
}

/// Size of the disk that is filled.
const DISK_BYTES: u64 = 64 * 1024 * 1024;

/// Publishes 3 KB; the id if it was accepted, `None` if it was refused for now.
async fn try_publish(node: &Node, data: &str) -> Option<String> {
    let body = json!({ "data": data, "meta": { "pad": "x".repeat(3_000) } });
    let (status, answer) = node.post("/v1/users/alice/messages", &body).await;
    match status {
        201 => Some(answer["id"].as_str().expect("201 carries an id").to_owned()),
        503 => None,
        _ => panic!("{status}: {answer}"),
    }
}

async fn log_was_rewritten(redis: &mut MultiplexedConnection, times: u32) {
    eventually(&format!("the log was rewritten {times} times"), async || {
        let info: String = redis::cmd("INFO").arg("persistence").query_async(redis).await.expect("it answers");
        let done = [format!("aof_rewrites:{times}\r"), "aof_rewrite_in_progress:0\r".to_owned()];
        done.iter().all(|line| info.contains(line)).then_some(())
    })
    .await;
}

/// Publishes, and fills the disk, until a publish is refused; gives what was accepted. Redis 7.0.15 will go on when there
/// is room, but would not start again on the log that it has then.
async fn fill_disk(disk: &Disk, node: &Node, redis: &mut MultiplexedConnection) -> Vec<String> {
    let mut accepted = Vec::new();
    for number in 0..20 {
        accepted.push(try_publish(node, &number.to_string()).await.expect("there is room"));
    }
    // The log breaks only in a Redis that has rewritten it before, as it does by itself from 64 MB on.
    redis::cmd("BGREWRITEAOF").exec_async(redis).await.expect("nothing is wrong yet");
    log_was_rewritten(redis, 1).await;
    accepted.push(try_publish(node, "before").await.expect("there is room"));
    disk.fill();
    eventually("a publish is refused", async || match try_publish(node, "while it fills").await {
        Some(id) => {
            accepted.push(id);
            None
        }
        None => Some(()),
    })
    .await;
    accepted
}

/// Makes room on the disk, and publishes as soon as that is possible.
async fn make_room(disk: &Disk, node: &Node) -> String {
    disk.free();
    eventually("a publish is accepted", async || try_publish(node, "after").await).await
}

async fn redis_of(data: &Path) -> MultiplexedConnection {
    let url = homing::store::embedded::running_url(data).expect("its node wrote its address");
    let client = redis::Client::open(url).expect("the node wrote a URL");
    client.get_multiplexed_async_connection().await.expect("it runs")
}

/// Starts a node on this data, and reads until the message `last`.
async fn assert_all_there(data: PathBuf, accepted: &[String], last: &str) {
    let node = Node::start_embedded(data, NodeOptions::default()).await;
    let mut client = Client::connect(&node, "alice", "d", ConnectOptions::default()).await;
    let ids: Vec<String> = client.messages_until(last).await.into_iter().map(|message| message.id).collect();
    let lost: Vec<&String> = accepted.iter().filter(|id| !ids.contains(id)).collect();
    assert!(lost.is_empty(), "accepted and lost: {lost:?} of {}", accepted.len());
}

#[tokio::test]
async fn an_embedded_redis_has_its_log_mended_after_a_full_disk() {
    let Some(disk) = Disk::mount(DISK_BYTES) else { return };
    let data = disk.path().join("homing-data");
    let mut node = Node::start_embedded(data.clone(), NodeOptions::default()).await;
    let mut redis = redis_of(&data).await;
    let mut accepted = fill_disk(&disk, &node, &mut redis).await;
    eventually("it is told", async || node.output().contains("cannot write its log").then_some(())).await;
    accepted.push(make_room(&disk, &node).await);
    log_was_rewritten(&mut redis, 2).await;
    eventually("that is told, too", async || node.output().contains("was rewritten").then_some(())).await;
    accepted.push(try_publish(&node, "last").await.expect("there is room"));
    kill9(redis_servers_of(disk.path())[0]);
    node.kill9();
    eventually("its Redis is gone", async || redis_servers_of(disk.path()).is_empty().then_some(())).await;
    assert_all_there(data, &accepted, "last").await;
}

// Room is made so soon that a look in between is unlikely: Redis's status is as if nothing had been.
#[tokio::test]
async fn a_full_disk_that_nobody_saw_in_time_is_seen_by_what_redis_wrote_about_it() {
    let Some(disk) = Disk::mount(DISK_BYTES) else { return };
    let data = disk.path().join("homing-data");
    let node = Node::start_embedded(data.clone(), NodeOptions::default()).await;
    let mut redis = redis_of(&data).await;
    fill_disk(&disk, &node, &mut redis).await;
    make_room(&disk, &node).await;
    log_was_rewritten(&mut redis, 2).await;
}

// Else a node that is ended soon after its disk had room again could not be started any more.
#[tokio::test]
async fn a_node_that_ends_has_the_log_of_its_embedded_redis_mended_first() {
    let Some(disk) = Disk::mount(DISK_BYTES) else { return };
    let data = disk.path().join("homing-data");
    let options = NodeOptions::default().set("drain_pause", "0s").set("drain_spread", "0s");
    let mut node = Node::start_embedded(data.clone(), options).await;
    let mut accepted = fill_disk(&disk, &node, &mut redis_of(&data).await).await;
    accepted.push(make_room(&disk, &node).await);
    node.sigterm();
    assert!(node.wait_exit().await.success());
    assert_all_there(data, &accepted, "after").await;
}

#[tokio::test]
async fn a_server_without_secrets_refuses_to_start() {
    let folder = Folder::new("data");
    for missing in ["HOMING_API_KEY", "HOMING_JWT_SECRET"] {
        for value in ["", "too short"] {
            let mut options =
                NodeOptions { redis: RedisAt::Embedded(folder.path().join("d")), ..NodeOptions::default() };
            options.env.push((missing.to_owned(), value.to_owned()));
            let mut node = Node::launch(None, options);
            let status = node.wait_exit_within(Duration::from_secs(10)).await;
            assert!(!status.success());
            assert!(node.output().contains(missing), "{}", node.output());
        }
    }
}

#[tokio::test]
async fn a_development_server_says_what_to_type_next() {
    let folder = Folder::new("data");
    let options = NodeOptions { args: vec!["--dev".to_owned()], ..NodeOptions::default() };
    let node = Node::start_embedded(folder.path().join("homing-data"), options).await;
    let output = node.output();
    for word in ["curl", "listen", "alice", &node.address().to_string()] {
        assert!(output.contains(word), "no {word} in:\n{output}");
    }
    assert!(output.lines().count() < 60, "it fits a screen");
    // A page of another site must not reach a server that anybody may use.
    let request = "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let answer = crate::harness::raw::raw_http(node.address(), request.as_bytes()).await.expect("an answer");
    assert!((400..500).contains(&answer.status), "{}", answer.head);
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", node.address());
    let answer = crate::harness::raw::raw_http(node.address(), request.as_bytes()).await.expect("an answer");
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn an_address_in_use_is_a_readable_error() {
    let folder = Folder::new("data");
    let first = Node::start_embedded(folder.path().join("one"), NodeOptions::default()).await;
    let mut options = NodeOptions { redis: RedisAt::Embedded(folder.path().join("two")), ..NodeOptions::default() };
    options.args = vec!["--listen".to_owned(), first.address().to_string()];
    let mut second = Node::launch(None, options);
    assert!(!second.wait_exit().await.success());
    eventually("no Redis of the refused server is left", async || {
        (redis_servers_of(folder.path()).len() == 1).then_some(())
    })
    .await;
}
