//! Real text through the whole of it: the descriptions of a distribution's packages, to 1,000 users, over two nodes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::json;

use crate::harness::follower::Seen;
use crate::harness::wait::eventually_within;
use crate::harness::{Follower, Node, NodeOptions, Redis, RedisOptions};

const USERS: usize = 1_000;
/// HTTP requests at a time.
const PRODUCERS: usize = 16;
/// Small enough that some descriptions are over it, so that refusals are part of the test.
const PAYLOAD_BYTES_MAX: usize = 4 * 1024;
/// Followers that change nodes after each chunk of messages.
const MOVES: usize = 40;
/// Messages between two rounds of moves.
const CHUNK: usize = 1_000;

/// Entries that are sent unless `HOMING_REAL_INPUT_ENTRIES` says another number.
const ENTRIES: usize = 20_000;

/// The entries: a file named by `HOMING_REAL_INPUT`, else what `apt-cache dumpavail` prints; empty lines separate
/// them.
fn entries() -> Vec<String> {
    let text = match std::env::var_os("HOMING_REAL_INPUT") {
        Some(path) => std::fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}")),
        None => match std::process::Command::new("apt-cache").arg("dumpavail").output() {
            Ok(output) => output.stdout,
            Err(_) => Vec::new(),
        },
    };
    let limit = std::env::var("HOMING_REAL_INPUT_ENTRIES").ok().and_then(|limit| limit.parse().ok());
    let text = String::from_utf8_lossy(&text).into_owned();
    text.split("\n\n")
        .map(|entry| entry.trim_matches('\n').to_owned())
        .filter(|entry| !entry.is_empty())
        .take(limit.unwrap_or(ENTRIES))
        .collect()
}

/// A thousand clients and as many ports need more descriptors than many systems give at first.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("a process may raise its soft limit to its hard limit");
}

/// xorshift64: moves must be arbitrary, not random; the seed is printed.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A busy machine may be slow with all of it; a hang is longer.
const PATIENCE: Duration = Duration::from_secs(300);

/// What became of the entries.
#[derive(Default)]
struct Published {
    /// User → id → text, for what was accepted and is within the limit.
    accepted: Vec<HashMap<String, String>>,
    by_http: usize,
    by_xadd: usize,
    refused: usize,
    set_aside: usize,
}

#[tokio::test]
async fn every_description_of_a_distribution_arrives_exactly_as_published() {
    let entries = entries();
    if entries.len() < 1_000 {
        println!("skipped: no apt-cache and no HOMING_REAL_INPUT here ({} entries)", entries.len());
        return;
    }
    raise_descriptor_limit();
    let redis = Redis::start(RedisOptions::default()).await;
    let limit = PAYLOAD_BYTES_MAX.to_string();
    // With an ack time-out of an hour nothing is saved by it: whoever moves gets what is pending at once.
    let options = || {
        let options =
            NodeOptions::default().set("payload_bytes_max", &limit).set("log_level", "warn").set("trim_delay", "1s");
        options.set("ack_timeout", "1h").set("ack_timeout_max", "2h")
    };
    let first = Node::start(&redis, options()).await;
    let second = Node::start(&redis, options()).await;
    let nodes = [first.address(), second.address()];
    let users: Vec<String> = (0..USERS).map(|number| format!("user-{number}")).collect();
    // Half of them are there from the start, half find what waited.
    let mut followers: Vec<Option<Follower>> = users
        .iter()
        .enumerate()
        .map(|(number, user)| (number % 2 == 0).then(|| Follower::start(&nodes, user, "d")))
        .collect();

    let mut seed = 0x9E37_79B9_7F4A_7C15;
    println!("seed {seed:#x}, {} entries, {} bytes", entries.len(), entries.iter().map(String::len).sum::<usize>());
    let start = Instant::now();
    let mut published = Published { accepted: vec![HashMap::new(); USERS], ..Published::default() };
    for (round, chunk) in entries.chunks(CHUNK).enumerate() {
        let numbered: Vec<(usize, &String)> =
            chunk.iter().enumerate().map(|(index, entry)| ((round * CHUNK + index) % USERS, entry)).collect();
        let (http, raw): (Vec<_>, Vec<_>) =
            numbered.into_iter().enumerate().partition(|(index, _)| (index + round) % 2 == 0);
        let node = if round % 2 == 0 { &first } else { &second };
        by_http(node, &users, http.into_iter().map(|(_, entry)| entry).collect(), &mut published).await;
        by_xadd(&redis, &users, raw.into_iter().map(|(_, entry)| entry).collect(), &mut published).await;
        for _ in 0..MOVES {
            let chosen = usize::try_from(next(&mut seed) % USERS as u64).expect("below USERS");
            match &followers[chosen] {
                Some(follower) => follower.move_on(),
                None => followers[chosen] = Some(Follower::start(&nodes, &users[chosen], "d")),
            }
        }
    }
    for (user, follower) in users.iter().zip(&mut followers) {
        follower.get_or_insert_with(|| Follower::start(&nodes, user, "d"));
    }
    let took = start.elapsed();

    let followers: Vec<Follower> = followers.into_iter().flatten().collect();
    for (follower, accepted) in followers.iter().zip(&published.accepted) {
        follower.wait_count(accepted.len(), PATIENCE).await;
    }
    eventually_within(PATIENCE, "every inbox is empty", async || {
        let mut lengths = redis::pipe();
        for user in &users {
            lengths.cmd("XLEN").arg(format!("homing:{{{user}}}:inbox"));
        }
        let lengths: Vec<u64> = lengths.query_async(&mut redis.connection().await).await.expect("Redis answers");
        (lengths.iter().sum::<u64>() == 0).then_some(())
    })
    .await;

    let (mut messages, mut deliveries, mut connections, mut gaps) = (0, 0, 0, 0);
    let seen = join_all(followers.into_iter().map(Follower::stop)).await;
    for ((user, seen), accepted) in users.iter().zip(seen).zip(&published.accepted) {
        assert_exactly(user, &seen, accepted);
        messages += seen.first.len();
        deliveries += seen.deliveries;
        connections += seen.connections;
        gaps += usize::from(seen.gaps.iter().any(|reason| reason == "too_big"));
    }
    assert!(published.refused > 0 && published.set_aside > 0, "some entries are over the limit");
    assert!(gaps > 0, "who lost an entry over the limit was told");
    println!(
        "published {} by HTTP and {} by XADD in {took:?}; {} refused with 413, {} set aside; {messages} messages \
         arrived in {deliveries} deliveries over {connections} connections in {:?}",
        published.by_http,
        published.by_xadd,
        published.refused,
        published.set_aside,
        start.elapsed()
    );
}

async fn by_http(node: &Node, users: &[String], entries: Vec<(usize, &String)>, published: &mut Published) {
    let requests = entries.into_iter().map(|(user, entry)| async move {
        let body = json!({ "data": entry });
        let (status, answer) = node.post(&format!("/v1/users/{}/messages", users[user]), &body).await;
        (user, entry, status, answer)
    });
    let mut answers = futures_util::stream::iter(requests).buffer_unordered(PRODUCERS);
    while let Some((user, entry, status, answer)) = answers.next().await {
        if entry.len() > PAYLOAD_BYTES_MAX {
            assert_eq!(status, 413, "{answer}");
            published.refused += 1;
        } else {
            assert_eq!(status, 201, "{} bytes: {answer}", entry.len());
            let id = answer["id"].as_str().expect("an id").to_owned();
            published.accepted[user].insert(id, entry.clone());
            published.by_http += 1;
        }
    }
}

async fn by_xadd(redis: &Redis, users: &[String], entries: Vec<(usize, &String)>, published: &mut Published) {
    let mut pipeline = redis::pipe();
    for (user, entry) in &entries {
        pipeline.cmd("XADD").arg(format!("homing:{{{}}}:inbox", users[*user])).arg("*").arg("data").arg(entry.as_str());
    }
    let ids: Vec<String> = pipeline.query_async(&mut redis.connection().await).await.expect("Redis accepts entries");
    for ((user, entry), id) in entries.into_iter().zip(ids) {
        if entry.len() > PAYLOAD_BYTES_MAX {
            published.set_aside += 1;
        } else {
            published.accepted[user].insert(id, entry.clone());
            published.by_xadd += 1;
        }
    }
}

fn assert_exactly(user: &str, seen: &Seen, accepted: &HashMap<String, String>) {
    let ids: Vec<String> = accepted.keys().cloned().collect();
    seen.assert_complete(&ids);
    for (id, payload) in &seen.first {
        let text: String = serde_json::from_str(payload).unwrap_or_else(|error| panic!("{user} {id}: {error}"));
        assert_eq!(text, accepted[id], "{user} {id}");
    }
}
