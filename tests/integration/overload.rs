//! More than the machine can take: Homing sheds with clear errors, its memory stays bounded, those who are connected
//! are served, and it recovers by itself. `make overload` runs the same for longer and prints what was measured.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::raw::raw_http;
use crate::harness::wait::{eventually_within, within};
use crate::harness::{Client, ConnectOptions, Node, NodeOptions, RawSocket, Redis, RedisOptions, Token, eventually};

/// What a node may grow by under any of these loads. Its limits bound far less than what is offered.
const GROWTH_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Time that a healthy message may take beside a flood, on a machine whose load generator takes most of it.
const BESIDE_MAX: Duration = Duration::from_secs(10);

/// How long a flood lasts: short, unless `make overload` says otherwise.
fn flood_time() -> Duration {
    let seconds = std::env::var("HOMING_OVERLOAD_SECONDS");
    seconds.map_or(Duration::from_secs(3), |text| Duration::from_secs(text.parse().expect("a number of seconds")))
}

/// Messages of the hot user in one pipeline of its producer.
const HOT_BATCH: usize = 200;

/// Messages a second to the hot user. Their wake-ups come on one connection with everybody's: a build without
/// optimisation can take fewer.
fn hot_rate() -> u64 {
    std::env::var("HOMING_OVERLOAD_HOT_RATE").map_or(4_000, |rate| rate.parse().expect("a number of messages"))
}

/// Resident memory of a process, in bytes; the largest that it ever had.
fn resident_peak_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs on Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells the peak");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number of KiB") * 1_024
}

/// Somebody who is connected and minds their own business: a message to them every 50 ms, each of which must arrive.
struct Witness {
    client: Client,
    times: Vec<Duration>,
}

impl Witness {
    async fn connect(node: &Node) -> Self {
        let client = Client::connect(node, "witness", "d", ConnectOptions::default()).await;
        Self { client, times: Vec::new() }
    }

    /// Goes on for a while; gives the 99th percentile of what was measured in it, from `XADD` to receipt.
    async fn watch(&mut self, redis: &Redis, time: Duration) -> Duration {
        self.times.clear();
        let start = Instant::now();
        while start.elapsed() < time {
            let sent = Instant::now();
            let id = redis.publish("witness", "1").await;
            assert_eq!(self.client.next_message().await.id, id, "those who are connected are served");
            self.times.push(sent.elapsed());
            self.client.ack(&[id]).await;
            // The pace of the load, not a wait for anything.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.times.sort();
        self.times[self.times.len() * 99 / 100]
    }
}

/// What is printed of every flood.
fn report(what: &str, outcomes: &BTreeMap<String, u64>, p99: [Duration; 3], node: &Node) {
    let peak = resident_peak_bytes(node.pid()) / 1024 / 1024;
    println!("{what}: {outcomes:?}; witness p99 before, during, after: {p99:?}; node at most {peak} MiB");
}

/// All outcomes of a flood, when its tasks have ended.
async fn sum(tasks: JoinSet<BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for (outcome, times) in tasks.join_all().await.into_iter().flatten() {
        *sum.entry(outcome).or_default() += times;
    }
    sum
}

fn count(into: &mut BTreeMap<String, u64>, outcome: impl Into<String>) {
    *into.entry(outcome.into()).or_default() += 1;
}

// 400 producers push as fast as they can, and Redis stands still for a while: without a bound on bodies the node would
// hold whatever arrives.
#[tokio::test]
async fn a_flood_of_publishes_is_shed_with_503_and_leaves_the_connected_alone() {
    const PRODUCERS: usize = 400;
    let redis = Redis::start(RedisOptions::default()).await;
    let options = NodeOptions::default().set("bodies_bytes_max", "8MiB").set("inbox_length_max", "200");
    let node = Arc::new(Node::start(&redis, options.set("janitor_pause", "500ms")).await);
    let mut witness = Witness::connect(&node).await;
    let before = witness.watch(&redis, Duration::from_millis(500)).await;
    let memory = resident_peak_bytes(node.pid());
    let body = json!({ "data": "x".repeat(60_000) }).to_string();
    let end = Instant::now() + flood_time();
    let shed = Arc::new(AtomicU64::new(0));
    let mut flood = JoinSet::new();
    for number in 0..PRODUCERS {
        let (node, body, shed) = (node.clone(), body.clone(), shed.clone());
        flood.spawn(async move {
            let mut outcomes = BTreeMap::new();
            while Instant::now() < end || shed.load(Ordering::Relaxed) == 0 {
                let path = format!("/v1/users/flood{}/messages", number % 50);
                let request = node.request(Method::POST, &path).header("content-type", "application/json");
                let answer = request.body(body.clone()).send().await;
                let outcome = outcome(answer).await;
                shed.fetch_add(u64::from(outcome == "503 overloaded"), Ordering::Relaxed);
                count(&mut outcomes, outcome);
            }
            outcomes
        });
    }
    redis.pause();
    eventually("something is shed while Redis stands still", async || (shed.load(Ordering::Relaxed) > 0).then_some(()))
        .await;
    redis.resume();
    let during = witness.watch(&redis, flood_time()).await;
    let outcomes = sum(flood).await;
    let after = witness.watch(&redis, Duration::from_millis(500)).await;
    report("publish flood", &outcomes, [before, during, after], &node);
    let known = ["201", "503 overloaded", "503 unavailable", "504 outcome_unknown", "closed"];
    assert!(outcomes.keys().all(|outcome| known.contains(&outcome.as_str())), "{outcomes:?}");
    assert!(outcomes.get("201") > Some(&0), "nothing got through: {outcomes:?}");
    let grown = resident_peak_bytes(node.pid()).saturating_sub(memory);
    assert!(grown < GROWTH_BYTES_MAX, "the node grew by {grown} bytes");
    assert!(during < BESIDE_MAX && after < BESIDE_MAX, "{during:?} {after:?}");
    node.publish("alice", json!("all is well")).await;
}

/// Status and code of an answer; a refusal must say when to come back, and which limit it was.
async fn outcome(answer: reqwest::Result<reqwest::Response>) -> String {
    // A refusal may overtake the rest of a body, and the connection is closed then.
    let Ok(response) = answer else { return "closed".to_owned() };
    let status = response.status().as_u16();
    if status == 201 {
        return "201".to_owned();
    }
    let retry_after = response.headers().contains_key("retry-after");
    let Ok(problem) = response.json::<Value>().await else { return "closed".to_owned() };
    assert!(status != 503 || retry_after, "503 without Retry-After: {problem}");
    if problem["code"] == "overloaded" && problem.get("limit").is_some() {
        assert_eq!(problem["limit"]["name"], "bodies_bytes_max", "{problem}");
    }
    format!("{status} {}", problem["code"].as_str().unwrap_or_default())
}

// Everybody reconnects at once, and some are up to no good.
#[tokio::test]
async fn a_flood_of_connections_is_refused_with_503_and_leaves_the_connected_alone() {
    const SESSIONS_MAX: usize = 100;
    const SOCKETS_AT_ONCE: usize = 400;
    let redis = Redis::start(RedisOptions::default()).await;
    let options = NodeOptions::default().set("sessions_max", &SESSIONS_MAX.to_string()).set("connect_timeout", "1s");
    let node = Node::start(&redis, options.set("header_timeout", "1s")).await;
    let mut witness = Witness::connect(&node).await;
    let before = witness.watch(&redis, Duration::from_millis(500)).await;
    let memory = resident_peak_bytes(node.pid());
    let end = Instant::now() + flood_time();
    let mut attackers = JoinSet::new();
    for number in 0..SOCKETS_AT_ONCE {
        let address = node.address();
        attackers.spawn(async move {
            let mut outcomes = BTreeMap::new();
            while Instant::now() < end {
                count(&mut outcomes, attack(address, number).await);
            }
            outcomes
        });
    }
    // Beside the attackers, those who just open connections and say nothing; more than the node has room for.
    let mut idle = Vec::new();
    for _ in 0..1_500 {
        idle.push(RawSocket::open(node.address()).await);
    }
    let during = witness.watch(&redis, flood_time()).await;
    let outcomes = sum(attackers).await;
    drop(idle);
    let after = witness.watch(&redis, Duration::from_millis(500)).await;
    report("connect flood", &outcomes, [before, during, after], &node);
    let known = ["400", "408", "426", "503", "4001", "closed"];
    assert!(outcomes.keys().all(|outcome| known.contains(&outcome.as_str())), "{outcomes:?}");
    assert!(outcomes.get("503") > Some(&0), "nobody was shed: {outcomes:?}");
    let grown = resident_peak_bytes(node.pid()).saturating_sub(memory);
    assert!(grown < GROWTH_BYTES_MAX, "the node grew by {grown} bytes");
    assert!(during < BESIDE_MAX && after < BESIDE_MAX, "{during:?} {after:?}");
    eventually("there is room for others again", async || {
        Client::try_connect(node.address(), "bob", "d", ConnectOptions::default()).await.ok()
    })
    .await;
}

/// One bad connection, and how it ended.
async fn attack(address: SocketAddr, number: usize) -> String {
    match number % 3 {
        // A token of somebody else's making.
        0 => {
            let token = format!("{}x", Token::of("mallory").encode());
            let options = ConnectOptions { token: Some(token), ..ConnectOptions::default() };
            match Client::try_connect(address, "mallory", "d", options).await {
                Ok(_) => "let in".to_owned(),
                Err(refusal) => match refusal.closed.code {
                    Some(code) => code.to_string(),
                    None if refusal.closed.reason.contains("503") => "503".to_owned(),
                    None => "closed".to_owned(),
                },
            }
        }
        1 => status(raw_http(address, b"NOT HTTP AT ALL\r\n\r\n").await),
        _ => {
            let upgrade = "GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            status(raw_http(address, upgrade.as_bytes()).await)
        }
    }
}

fn status(answer: Option<crate::harness::raw::Answer>) -> String {
    answer.map_or_else(|| "closed".to_owned(), |answer| answer.status.to_string())
}

// By default a client may send 200 frames a second; here nothing limits it, so that what stands behind is shown: 100,000
// acks a second, of ids that nobody ever delivered.
#[tokio::test]
async fn a_flood_of_acks_does_not_grow_the_node_nor_hold_up_the_others() {
    const CLIENTS: usize = 25;
    const IDS: usize = 400;
    let redis = Redis::start(RedisOptions::default()).await;
    let options = NodeOptions::default().set("frames_per_second", "1000000").set("frames_burst", "1000000");
    let node = Node::start(&redis, options).await;
    let mut witness = Witness::connect(&node).await;
    let before = witness.watch(&redis, Duration::from_millis(500)).await;
    let memory = resident_peak_bytes(node.pid());
    let ids: Vec<String> = (1..=IDS).map(|number| format!("{number}-0")).collect();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(Client::connect(&node, &format!("u{number}"), "d", ConnectOptions::default()).await);
    }
    let end = Instant::now() + flood_time();
    let mut flood = JoinSet::new();
    for mut client in clients {
        let ids = ids.clone();
        flood.spawn(async move {
            let mut frames = 0;
            // Each client's share of 100,000 acks a second.
            let mut beat = tokio::time::interval(Duration::from_millis((1_000 * IDS * CLIENTS / 100_000) as u64));
            while Instant::now() < end {
                beat.tick().await;
                client.ack(&ids).await;
                frames += 1;
            }
            client.round_trip().await;
            frames
        });
    }
    let during = witness.watch(&redis, flood_time()).await;
    let sent: u64 = flood.join_all().await.iter().sum::<u64>() * IDS as u64;
    let after = witness.watch(&redis, Duration::from_millis(500)).await;
    let per_second = sent / flood_time().as_secs();
    report(&format!("ack flood, {per_second}/s"), &BTreeMap::new(), [before, during, after], &node);
    let grown = resident_peak_bytes(node.pid()).saturating_sub(memory);
    assert!(grown < GROWTH_BYTES_MAX, "the node grew by {grown} bytes");
    assert!(during < BESIDE_MAX && after < BESIDE_MAX, "{during:?} {after:?}");
    eventually("nothing waits any more", async || {
        (node.metric("homing_ack_buffer_messages").await == Some(0.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_acks_faster_than_it_may_is_closed_with_4129() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default()).await;
    let mut witness = Witness::connect(&node).await;
    let mut client = Client::connect(&node, "loud", "d", ConnectOptions::default()).await;
    let flood = async {
        for _ in 0..20_000 {
            if timeout(Duration::from_secs(5), client.ack(&["1-0"])).await.is_err() {
                break;
            }
        }
        client.expect_close_code(4129).await;
    };
    let ((), during) = tokio::join!(flood, witness.watch(&redis, Duration::from_millis(500)));
    assert!(during < BESIDE_MAX, "{during:?}");
}

/// What the hot user is sent after the flood.
const LAST: &str = "the last one";

/// Acks what comes, in as few frames as it may, until the last message has come; gives how many came. A device whose
/// acks no longer open its window would wait in vain.
async fn read_to_last(mut device: Client) -> u64 {
    let mut received = 0;
    loop {
        let messages = device.next_batch().await;
        received += messages.len() as u64;
        device.ack(&messages.iter().map(|message| &message.id).collect::<Vec<_>>()).await;
        if messages.iter().any(|message| message.json() == LAST) {
            return received;
        }
    }
}

/// Reads, acks nothing, and must not be closed for it.
async fn stay_silent(mut device: Client, until: Instant) -> Client {
    while Instant::now() < until {
        device.poll_message(Duration::from_millis(100)).await;
        assert_eq!(device.closed(), None, "a device may leave its messages unacknowledged");
    }
    device
}

// One user with 20 devices, half of which ack nothing, and more messages than any inbox may hold.
#[tokio::test]
async fn a_hot_user_is_bounded_by_retention_and_told_and_delays_nobody_else() {
    const DEVICES: usize = 20;
    const LENGTH_MAX: u64 = 500;
    let redis = Arc::new(Redis::start(RedisOptions::default()).await);
    let options = NodeOptions::default().set("inbox_length_max", &LENGTH_MAX.to_string());
    let node = Node::start(&redis, options.set("janitor_pause", "500ms").set("ack_timeout", "60s")).await;
    let mut witness = Witness::connect(&node).await;
    let before = witness.watch(&redis, Duration::from_millis(500)).await;
    let memory = resident_peak_bytes(node.pid());
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        devices.push(Client::connect(&node, "hot", &format!("d{number}"), ConnectOptions::default()).await);
    }
    let end = Instant::now() + flood_time();
    let producer = tokio::spawn({
        let redis = redis.clone();
        async move {
            let mut offered = 0;
            let mut beat = tokio::time::interval(Duration::from_millis(1_000 * HOT_BATCH as u64 / hot_rate()));
            while Instant::now() < end {
                beat.tick().await;
                offered += redis.publish_all("hot", (0..HOT_BATCH).map(|_| "x".repeat(200))).await.len();
            }
            offered
        }
    });
    let (mut readers, mut silent) = (JoinSet::new(), JoinSet::new());
    for (number, device) in devices.into_iter().enumerate() {
        if number % 2 == 0 {
            readers.spawn(read_to_last(device));
        } else {
            silent.spawn(stay_silent(device, end));
        }
    }
    let during = witness.watch(&redis, flood_time()).await;
    let offered = producer.await.expect("the producer does not panic");
    let silent = silent.join_all().await;
    let ended = Instant::now();
    redis.publish("hot", LAST).await;
    let received = within("the last message reaches each device that acks", readers.join_all()).await;
    let caught_up = ended.elapsed();
    eventually_within(Duration::from_secs(20), "the janitor cuts the inbox to its length", async || {
        (redis.inbox_length("hot").await <= LENGTH_MAX).then_some(())
    })
    .await;
    let after = witness.watch(&redis, Duration::from_millis(500)).await;
    let outcomes = BTreeMap::from([
        ("offered".to_owned(), offered as u64),
        ("delivered to those who ack".to_owned(), received.iter().sum::<u64>()),
        ("last one came after ms".to_owned(), caught_up.as_millis() as u64),
    ]);
    report("hot user", &outcomes, [before, during, after], &node);
    assert!(offered as u64 > 4 * LENGTH_MAX, "the flood was none: {offered}");
    for mut device in silent {
        let gap = device.expect_frame("gap").await;
        assert_eq!(gap["reason"], "retention", "{gap}");
        assert!(gap["count"].as_u64() > Some(0), "{gap}");
    }
    let grown = resident_peak_bytes(node.pid()).saturating_sub(memory);
    assert!(grown < GROWTH_BYTES_MAX, "the node grew by {grown} bytes");
    assert!(during < BESIDE_MAX && after < BESIDE_MAX, "{during:?} {after:?}");
}

// The flood comes faster than it can be taken, so that wake-ups, reads and acks of all the devices mix in every order.
#[tokio::test]
async fn each_of_a_hot_users_devices_that_ack_gets_all_of_a_flood_in_order() {
    const DEVICES: usize = 15;
    const MESSAGES: usize = 10_000;
    let redis = Redis::start(RedisOptions::default()).await;
    let options = NodeOptions::default().set("inbox_length_max", &(2 * MESSAGES).to_string());
    let node = Node::start(&redis, options.set("janitor_pause", "500ms").set("ack_timeout", "60s")).await;
    let mut readers = JoinSet::new();
    for number in 0..DEVICES {
        let mut device = Client::connect(&node, "hot", &format!("d{number}"), ConnectOptions::default()).await;
        readers.spawn(async move {
            let mut ids = Vec::new();
            while ids.len() < MESSAGES {
                let messages = device.next_batch().await;
                assert!(messages.iter().all(|message| message.attempt == 1), "delivered again before its time");
                let arrived: Vec<String> = messages.into_iter().map(|message| message.id).collect();
                device.ack(&arrived).await;
                ids.extend(arrived);
            }
            ids
        });
    }
    let mut published = Vec::new();
    for _ in 0..MESSAGES / HOT_BATCH {
        published.extend(redis.publish_all("hot", (0..HOT_BATCH).map(|_| "x".repeat(200))).await);
    }
    for ids in readers.join_all().await {
        assert!(ids == published, "{} of {}, or in another order", ids.len(), published.len());
    }
    eventually("all acks are in Redis, and the inbox is empty", async || {
        (redis.inbox_length("hot").await == 0).then_some(())
    })
    .await;
}
