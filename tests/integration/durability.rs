//! What a crash of Redis loses, by durability level and by how well its disk does. `make durability` runs many trials
//! and prints the table that stands in `docs/GUARANTEES.md`; `make test` runs one of each.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::harness::process::Process;
use crate::harness::redis_server::inbox;
use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions, eventually};

/// Producers that publish at the same time, each to a user of its own.
const PRODUCERS: usize = 16;
/// Bytes of the log that Redis holds back when it is killed on a stalled disk: by then it has accepted what it has not
/// written.
const HELD_BACK_BYTES: u64 = 3_000;
/// How long the stalled disk takes for an fsync: longer than a trial.
const STALL: Duration = Duration::from_secs(20);
/// With `always` each answer waits for an fsync, so that the stall must end for anything to be accepted at all.
const STALL_OF_EACH_ANSWER: Duration = Duration::from_millis(200);

/// What one trial, or several, came to.
#[derive(Clone, Copy, Debug, Default)]
struct Toll {
    accepted: usize,
    lost: usize,
    unknown: usize,
}

fn trials() -> usize {
    std::env::var("HOMING_DURABILITY_TRIALS").map_or(1, |trials| trials.parse().expect("a number of trials"))
}

/// Runs the trials of a level and prints its row.
async fn measure(fsync: &'static str, stalled: bool) -> Option<Toll> {
    if stalled && !Path::new("/usr/bin/strace").exists() {
        println!("skipped: a stalled disk needs strace");
        return None;
    }
    let mut sum = Toll::default();
    for _ in 0..trials() {
        let toll = trial(fsync, stalled).await;
        sum.accepted += toll.accepted;
        sum.lost += toll.lost;
        sum.unknown += toll.unknown;
    }
    let disk = if stalled { "stalled" } else { "well" };
    println!("| `{fsync}` | {disk} | {} | {} | {} | {} |", trials(), sum.accepted, sum.unknown, sum.lost);
    Some(sum)
}

/// Publishes, kills Redis with -9 in the middle, starts it again, and looks for what was accepted.
async fn trial(fsync: &'static str, stalled: bool) -> Toll {
    let mut redis = Redis::start(RedisOptions { args: vec!["--appendfsync", fsync], ..RedisOptions::default() }).await;
    let node = Node::start(&redis, NodeOptions::default().set("redis_reply_timeout", "60s")).await;
    let mut client = Client::connect(&node, "witness", "d", ConnectOptions::default()).await;
    let stall = stalled.then(|| stall_disk(&redis, fsync));
    if let Some(strace) = &stall {
        eventually("strace is attached", async || strace.output().contains("attached").then_some(())).await;
    }
    #[allow(clippy::disallowed_methods, reason = "one message for each publish of a trial that ends")]
    let (answers, accepted) = unbounded_channel();
    let producers =
        futures_util::future::join_all((0..PRODUCERS).map(|number| produce(&node, number, answers.clone())));
    let killer = async {
        wait_for_the_moment(&redis, accepted, fsync, stalled).await;
        redis.send_kill9();
        // It cannot run any more, and cannot be reaped while it is traced.
        drop(stall);
        redis.kill9();
    };
    let (told, ()) = tokio::join!(producers, killer);
    redis.start_again().await;
    let mut toll = Toll::default();
    for (number, (accepted, unknown)) in told.into_iter().enumerate() {
        let entries: Vec<(String, Vec<(String, String)>)> =
            redis.query(&["XRANGE", &inbox(&user(number)), "-", "+"]).await;
        let present: HashSet<String> = entries.into_iter().map(|(id, _)| id).collect();
        toll.accepted += accepted.len();
        toll.lost += accepted.iter().filter(|id| !present.contains(*id)).count();
        toll.unknown += unknown;
    }
    if fsync == "always" {
        let id = redis.publish("witness", "after").await;
        assert_eq!(client.next_message().await.id, id);
        assert_eq!(client.take_frame("gap"), None, "nothing can have been lost");
    } else {
        let gap = client.expect_frame("gap").await;
        assert_eq!(gap["reason"], "epoch", "clients are told that something may have been lost");
    }
    toll
}

fn user(number: usize) -> String {
    format!("u{number}")
}

/// Publishes until refused; gives the ids that were accepted, and how many outcomes are unknown.
async fn produce(node: &Node, number: usize, answers: UnboundedSender<()>) -> (Vec<String>, usize) {
    let (mut accepted, mut unknown) = (Vec::new(), 0);
    let path = format!("/v1/users/{}/messages", user(number));
    let body = json!({ "data": "x".repeat(100) });
    loop {
        let (status, answer) = node.post(&path, &body).await;
        match status {
            201 => accepted.push(answer["id"].as_str().expect("201 carries an id").to_owned()),
            504 => unknown += 1,
            503 => return (accepted, unknown),
            _ => panic!("{status} {answer}"),
        }
        if status == 201 {
            let _ = answers.send(());
        }
    }
}

async fn wait_for_the_moment(redis: &Redis, mut accepted: UnboundedReceiver<()>, fsync: &str, stalled: bool) {
    if stalled && fsync == "everysec" {
        return eventually("Redis holds its log back", async || {
            let info: String = redis.query(&["INFO", "persistence"]).await;
            let number = |name: &str| -> u64 {
                let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
            };
            (number("aof_pending_bio_fsync") > 0 && number("aof_buffer_length") > HELD_BACK_BYTES).then_some(())
        })
        .await;
    }
    for _ in 0..if stalled { 2 * PRODUCERS } else { 1_000 } {
        accepted.recv().await.expect("producers go on until Redis is gone");
    }
}

/// Makes every fsync of this server slow, as a disk does that is busy or about to fail. What was written before it
/// stays written, as it does in the kernel when a process dies.
fn stall_disk(redis: &Redis, fsync: &str) -> Process {
    let delay = if fsync == "always" { STALL_OF_EACH_ANSWER } else { STALL };
    let args = [
        "-f",
        "-p",
        &redis.pid().to_string(),
        "-e",
        "trace=fsync,fdatasync",
        "-e",
        &format!("inject=fsync,fdatasync:delay_enter={}", delay.as_micros()),
    ];
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    Process::start("strace", "/usr/bin/strace", &args, &[], &redis.folder().join("strace.log"))
}

#[tokio::test]
async fn durability_always_loses_nothing_that_was_accepted() {
    let toll = measure("always", false).await.expect("needs no strace");
    assert_eq!(toll.lost, 0, "{toll:?}");
}

#[tokio::test]
async fn durability_everysec_loses_nothing_when_the_process_dies_and_the_disk_is_well() {
    let toll = measure("everysec", false).await.expect("needs no strace");
    assert_eq!(toll.lost, 0, "{toll:?}");
}

#[tokio::test]
async fn durability_no_loses_nothing_when_only_the_process_dies() {
    let toll = measure("no", false).await.expect("needs no strace");
    assert_eq!(toll.lost, 0, "{toll:?}");
}

#[tokio::test]
async fn durability_always_on_a_stalled_disk_is_slow_and_loses_nothing() {
    let Some(toll) = measure("always", true).await else { return };
    assert_eq!(toll.lost, 0, "{toll:?}");
}

// The one case in which an accepted message is lost without a crash of the machine. If this fails because nothing was
// lost, Redis has become better, and docs/GUARANTEES.md may promise more.
#[tokio::test]
async fn durability_everysec_on_a_stalled_disk_loses_what_redis_held_back() {
    let Some(toll) = measure("everysec", true).await else { return };
    assert!(toll.lost > 0, "the stall had no effect: {toll:?}");
}

#[tokio::test]
async fn durability_no_on_a_stalled_disk_loses_nothing_when_only_the_process_dies() {
    let Some(toll) = measure("no", true).await else { return };
    assert_eq!(toll.lost, 0, "{toll:?}");
}
