//! What becomes of a message, told to its producer: by a look, by the stream of receipts, by waiting.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::node::API_KEY;
use crate::harness::port::free_port;
use crate::harness::proxy::Weather;
use crate::harness::redis_server::inbox;
use crate::harness::wait::eventually_within;
use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions, TcpProxy, eventually, within};

const STREAM: &str = "homing:receipts";

async fn redis_and_node() -> (Redis, Node) {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default().set("trim_delay", "50ms")).await;
    (redis, node)
}

async fn ask(node: &Node, user: &str, data: &str) -> String {
    let body = json!({ "data": data, "receipt": true, "key": format!("key of {data}") });
    let (status, answer) = node.post(&format!("/v1/users/{user}/messages"), &body).await;
    assert_eq!(status, 201, "{answer}");
    answer["id"].as_str().expect("201 carries an id").to_owned()
}

async fn look(node: &Node, user: &str, id: &str) -> Value {
    let (status, answer) = node.get(&format!("/v1/users/{user}/messages/{id}")).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// State of the message, and of each device.
fn states(answer: &Value) -> (String, Vec<(String, String)>) {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text in {answer}")).to_owned();
    let devices = answer["devices"].as_array().unwrap_or_else(|| panic!("no devices: {answer}"));
    (text(&answer["state"]), devices.iter().map(|device| (text(&device["device"]), text(&device["state"]))).collect())
}

/// Entries that a producer's own consumer group reads from the stream of receipts, each as its fields.
async fn read_receipts(redis: &Redis, group: &str) -> Vec<HashMap<String, String>> {
    let words = ["XREADGROUP", "GROUP", group, "c", "COUNT", "10000", "STREAMS", STREAM, ">"];
    // Streams, each with its entries, each with its fields.
    type Entries = Vec<(String, HashMap<String, String>)>;
    let reply: Option<Vec<(String, Entries)>> = redis.query(&words).await;
    reply.unwrap_or_default().into_iter().flat_map(|(_, entries)| entries).map(|(_, fields)| fields).collect()
}

async fn make_group(redis: &Redis, group: &str) {
    redis.query::<()>(&["XGROUP", "CREATE", STREAM, group, "0", "MKSTREAM"]).await;
}

#[tokio::test]
async fn a_producers_consumer_group_reads_deliveries_and_acks_with_their_times_and_keys() {
    let (redis, node) = redis_and_node().await;
    make_group(&redis, "billing").await;
    let mut web = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    let mut phone = Client::connect(&node, "alice", "phone", ConnectOptions::default()).await;
    let id = ask(&node, "alice", "order").await;
    for client in [&mut web, &mut phone] {
        assert_eq!(client.next_message().await.id, id);
    }
    web.ack(&[&id]).await;
    let mut receipts = Vec::new();
    eventually("three receipts", async || {
        receipts.extend(read_receipts(&redis, "billing").await);
        (receipts.len() >= 3).then_some(())
    })
    .await;
    let mut told: Vec<(&str, &str)> = Vec::new();
    for receipt in &receipts {
        assert_eq!(
            (&receipt["user"], &receipt["id"], &receipt["key"]),
            (&"alice".to_owned(), &id, &"key of order".to_owned())
        );
        let at_ms: u64 = receipt["at_ms"].parse().expect("a time");
        assert!(at_ms >= id.split('-').next().expect("an id has a time").parse().expect("a number"));
        told.push((&receipt["device"], &receipt["event"]));
    }
    told.sort_unstable();
    assert_eq!(told, [("phone", "delivered"), ("web-1", "acked"), ("web-1", "delivered")]);

    let answer = look(&node, "alice", &id).await;
    let expected = vec![("phone".into(), "delivered".into()), ("web-1".into(), "acked".into())];
    assert_eq!(states(&answer), ("acked".to_owned(), expected));
    assert_eq!(answer["receipt"], true);
    let at = |device: &str, event: &str| {
        let receipt = receipts.iter().find(|receipt| receipt["device"] == device && receipt["event"] == event);
        receipt.map(|receipt| receipt["at_ms"].parse::<u64>().expect("a time"))
    };
    // Two functions of one pipeline write them.
    let near = |shown: &Value, told: Option<u64>| shown.as_u64().zip(told).is_some_and(|(a, b)| a.abs_diff(b) <= 1_000);
    assert!(near(&answer["devices"][1]["acked_at_ms"], at("web-1", "acked")), "{answer}");
    assert!(near(&answer["devices"][1]["delivered_at_ms"], at("web-1", "delivered")), "{answer}");
    assert!(near(&answer["devices"][0]["delivered_at_ms"], at("phone", "delivered")), "{answer}");
    assert_eq!(answer["devices"][0]["acked_at_ms"], Value::Null);
}

// The trim takes what all devices have acked; what is known of it stays.
#[tokio::test]
async fn a_message_that_was_acked_and_trimmed_reads_as_acked() {
    let (redis, node) = redis_and_node().await;
    let mut client = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    let (asked, plain) = (ask(&node, "alice", "asked").await, node.publish("alice", json!("plain")).await);
    let waiting = states(&look(&node, "alice", &plain).await).0;
    assert!(["accepted", "delivered"].contains(&waiting.as_str()), "{waiting}");
    client.next_messages(2).await;
    assert_eq!(states(&look(&node, "alice", &plain).await).0, "delivered");
    client.ack(&[&asked, &plain]).await;
    eventually("the inbox is empty", async || (redis.inbox_length("alice").await == 0).then_some(())).await;
    for id in [&asked, &plain] {
        let expected = ("acked".to_owned(), vec![("web-1".to_owned(), "acked".to_owned())]);
        assert_eq!(states(&look(&node, "alice", id).await), expected);
    }
    assert_eq!(look(&node, "alice", &plain).await["devices"][0]["acked_at_ms"], Value::Null, "it asked for nothing");
    assert_eq!(states(&look(&node, "alice", "99999999999999-0").await).0, "unknown");
    assert_eq!(states(&look(&node, "nobody", &plain).await), ("unknown".to_owned(), vec![]));
    let (status, problem) = node.get("/v1/users/alice/messages/first").await;
    assert_eq!((status, &problem["code"]), (400, &json!("bad_id")));
}

#[tokio::test]
async fn what_is_expired_dropped_or_passed_over_reads_so() {
    let (redis, node) = redis_and_node().await;
    make_group(&redis, "billing").await;
    let alone = node.publish("alice", json!("for the first device")).await;
    assert_eq!(states(&look(&node, "alice", &alone).await), ("accepted".to_owned(), vec![]));
    let mut client = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    client.next_message().await;
    let add = async |fields: &[&str]| -> String {
        let key = inbox("alice");
        redis.query(&[&["XADD", key.as_str(), "*"], fields].concat()).await
    };
    let late = add(&["data", "x", "receipt", "1", "exp", "1"]).await;
    let big = "x".repeat(64 * 1024 + 1);
    let big = add(&["data", &big, "receipt", "1"]).await;
    let elsewhere = add(&["data", "x", "receipt", "1", "device", "phone"]).await;
    let marker = ask(&node, "alice", "marker").await;
    client.messages_until("marker").await;
    eventually("the marker is acked", async || {
        (states(&look(&node, "alice", &marker).await).0 == "acked").then_some(())
    })
    .await;
    for (id, state) in [(&late, "expired"), (&big, "dropped"), (&elsewhere, "skipped")] {
        let expected = (state.to_owned(), vec![("web-1".to_owned(), state.to_owned())]);
        assert_eq!(states(&look(&node, "alice", id).await), expected);
    }
    // A device that came later has nothing to do with them.
    Client::connect(&node, "alice", "tablet", ConnectOptions::default()).await;
    assert_eq!(states(&look(&node, "alice", &late).await).1.len(), 1);
    let told: Vec<(String, String)> = read_receipts(&redis, "billing")
        .await
        .into_iter()
        .map(|receipt| (receipt["id"].clone(), receipt["event"].clone()))
        .filter(|(_, event)| event != "delivered")
        .collect();
    let expected = [(late, "expired"), (big, "dropped"), (marker, "acked")];
    assert_eq!(told, expected.map(|(id, event)| (id, event.to_owned())));
}

// The server's own log of commands, with no threshold: what one user's messages cost, and nothing of what a node does
// beside.
#[tokio::test]
async fn a_message_that_asks_for_no_receipt_costs_no_further_command() {
    let (redis, node) = redis_and_node().await;
    let mut client = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    redis.config_set("slowlog-max-len", "100000").await;
    redis.config_set("slowlog-log-slower-than", "0").await;
    let mut run = async |receipt: &str| -> BTreeSet<String> {
        redis.query::<()>(&["SLOWLOG", "RESET"]).await;
        for number in 0..50 {
            let key = inbox("alice");
            redis.query::<String>(&["XADD", &key, "*", "data", &number.to_string(), "receipt", receipt]).await;
            let message = client.next_message().await;
            client.ack(&[&message.id]).await;
        }
        eventually("the inbox is empty", async || (redis.inbox_length("alice").await == 0).then_some(())).await;
        type Row = (u64, u64, u64, Vec<String>, String, String);
        let rows: Vec<Row> = redis.query(&["SLOWLOG", "GET", "-1"]).await;
        // What functions do inside is logged, too.
        let concerns = |words: &Vec<String>| words.iter().any(|word| word.contains("{alice}") || word == STREAM);
        let words = rows.into_iter().map(|row| row.3).filter(concerns);
        words.map(|words| if words[0] == "FCALL" { words[1].clone() } else { words[0].clone() }).collect()
    };
    let plain = run("0").await;
    let of_the_trim = ["homing_1_trim", "EXISTS", "HKEYS", "XINFO", "XPENDING", "XTRIM"];
    let of_the_trim = BTreeSet::from(of_the_trim.map(str::to_owned));
    let left: BTreeSet<&str> = plain.difference(&of_the_trim).map(String::as_str).collect();
    assert_eq!(left, BTreeSet::from(["XACK", "XADD", "XLEN", "XREADGROUP"]), "the test asks for the length itself");
    let asking = run("1").await;
    let more: BTreeSet<&str> =
        asking.difference(&plain).map(String::as_str).filter(|name| *name != "XPENDING").collect();
    assert_eq!(more, BTreeSet::from(["EXPIRE", "HGET", "HSETNX", "homing_1_announce", "homing_1_record"]));
    assert_eq!(redis.query::<u64>(&["XLEN", STREAM]).await, 100);
}

#[tokio::test]
async fn a_producer_that_waits_is_answered_as_soon_as_a_client_of_another_node_has_acked() {
    let (redis, node) = redis_and_node().await;
    let other = Node::start(&redis, NodeOptions::default()).await;
    let mut client = Client::connect(&other, "alice", "web-1", ConnectOptions::default()).await;
    let body = json!({ "data": "now" });
    let begun = Instant::now();
    let waiting = node.post("/v1/users/alice/messages?wait=acked&timeout_s=60", &body);
    let acking = async {
        let message = client.next_message().await;
        client.ack(&[&message.id]).await;
        message.id
    };
    let ((status, answer), id) = within("the answer", async { tokio::join!(waiting, acking) }).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "it did not wait for its time-out");
    assert_eq!((status, &answer["id"]), (201, &json!(id)), "{answer}");
    assert_eq!(states(&answer), ("acked".to_owned(), vec![("web-1".to_owned(), "acked".to_owned())]));
    let device = &answer["devices"][0];
    assert!(device["acked_at_ms"].as_u64() >= device["delivered_at_ms"].as_u64() && device["acked_at_ms"].is_u64());
}

// That listener is served by the main thread, and wake-ups come to the shards'.
#[tokio::test]
async fn a_producer_at_a_listener_of_its_own_is_woken_up_too() {
    let redis = Redis::start(RedisOptions::default()).await;
    let address = format!("127.0.0.1:{}", free_port());
    let node = Node::start(&redis, NodeOptions::default().set("api_listen", &address)).await;
    let mut client = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    let url = format!("http://{address}/v1/users/alice/messages?wait=acked&timeout_s=60");
    let begun = Instant::now();
    let waiting = reqwest::Client::new().post(url).bearer_auth(API_KEY).json(&json!({ "data": 1 })).send();
    let acking = async {
        let message = client.next_message().await;
        client.ack(&[&message.id]).await;
    };
    let (answer, ()) = within("the answer", async { tokio::join!(waiting, acking) }).await;
    let answer: Value = answer.expect("an answer").json().await.expect("JSON");
    assert_eq!(answer["state"], "acked");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_producer_that_waits_for_all_is_answered_by_the_last_device_or_told_who_is_missing() {
    let (redis, node) = redis_and_node().await;
    let mut web = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    let mut phone = Client::connect(&node, "alice", "phone", ConnectOptions::default()).await;
    let path = "/v1/users/alice/messages?wait=acked_all&timeout_s=60";
    let body = json!({ "data": 1 });
    let acking = async {
        for client in [&mut web, &mut phone] {
            let message = client.next_message().await;
            client.ack(&[&message.id]).await;
        }
    };
    let ((status, answer), ()) = within("the answer", async { tokio::join!(node.post(path, &body), acking) }).await;
    assert_eq!(status, 201);
    let acked = |device: &str| (device.to_owned(), "acked".to_owned());
    assert_eq!(states(&answer), ("acked".to_owned(), vec![acked("phone"), acked("web-1")]));

    let path = "/v1/users/alice/messages?wait=acked_all&timeout_s=1";
    let begun = Instant::now();
    let acking = async {
        let message = web.next_message().await;
        web.ack(&[&message.id]).await;
        phone.next_message().await;
    };
    let ((status, answer), ()) = within("the answer", async { tokio::join!(node.post(path, &body), acking) }).await;
    assert_eq!(status, 201);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let pending = ("phone".to_owned(), "delivered".to_owned());
    assert_eq!(states(&answer), ("acked".to_owned(), vec![pending, acked("web-1")]));
    // Nobody waits any more.
    drop(redis);
}

#[tokio::test]
async fn a_time_out_says_what_is_pending_and_the_message_stays() {
    let (redis, node) = redis_and_node().await;
    let path = "/v1/users/alice/messages?wait=acked&timeout_s=1";
    let (status, answer) = node.post(path, &json!({ "data": "for nobody yet" })).await;
    assert_eq!((status, states(&answer)), (201, ("accepted".to_owned(), vec![])));
    let mut client = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    let (status, answer) = node.post(path, &json!({ "data": "marker", "key": "k" })).await;
    assert_eq!(status, 201);
    assert_eq!(states(&answer), ("delivered".to_owned(), vec![("web-1".to_owned(), "delivered".to_owned())]));
    assert_eq!(client.messages_until("marker").await.len(), 2);
    eventually("both are acked", async || (redis.inbox_length("alice").await == 0).then_some(())).await;
    // The same key: the first message, which has been acked meanwhile.
    let begun = Instant::now();
    let path = "/v1/users/alice/messages?wait=acked&timeout_s=60";
    let (status, again) = node.post(path, &json!({ "data": "marker", "key": "k" })).await;
    assert_eq!((status, &again["id"], &again["state"]), (200, &answer["id"], &json!("acked")));
    assert!(begun.elapsed() < Duration::from_secs(20));
    for query in ["wait=read", "wait=acked&timeout_s=0", "wait=acked&timeout_s=61", "timeout_s=5", "wait=acked&x=1"] {
        let (status, problem) = node.post(&format!("/v1/users/alice/messages?{query}"), &json!({ "data": 1 })).await;
        assert_eq!((status, &problem["code"]), (400, &json!("bad_value")), "{query}: {problem}");
    }
    assert_eq!(redis.inbox_length("alice").await, 0, "nothing was appended by what was refused");
}

// The node of the producer is cut off when the ack comes, so that nobody can wake it up.
#[tokio::test]
async fn a_wake_up_that_is_lost_costs_the_wait_its_time_and_not_its_truth() {
    let redis = Redis::start(RedisOptions::default()).await;
    let proxy = TcpProxy::start(redis.address()).await;
    let node = Node::start(&redis, NodeOptions::default().redis_url(proxy.redis_url())).await;
    let other = Node::start(&redis, NodeOptions::default()).await;
    let mut client = Client::connect(&other, "alice", "web-1", ConnectOptions::default()).await;
    let begun = Instant::now();
    let path = "/v1/users/alice/messages?wait=acked&timeout_s=6";
    let body = json!({ "data": 1 });
    let waiting = node.post(path, &body);
    let acking = async {
        let id = client.next_message().await.id;
        let receipt = format!("homing:{{alice}}:receipt:{id}");
        let has = async |field: &str| redis.query::<u64>(&["HEXISTS", &receipt, field]).await == 1;
        eventually("the producer waits", async || has("waiting").await.then_some(())).await;
        proxy.set(Weather::Refusing);
        client.ack(&[&id]).await;
        eventually("the ack is recorded", async || has("acked web-1").await.then_some(())).await;
        proxy.set(Weather::Fair);
    };
    let ((status, answer), ()) = within("the answer", async { tokio::join!(waiting, acking) }).await;
    assert_eq!((status, &answer["state"]), (201, &json!("acked")), "{answer}");
    assert!(begun.elapsed() >= Duration::from_secs(6));
}

#[tokio::test]
async fn what_retention_drops_is_told_and_ends_a_wait() {
    let redis = Redis::start(RedisOptions::default()).await;
    let options = NodeOptions::default().set("inbox_length_max", "2").set("janitor_pause", "100ms");
    let node = Node::start(&redis, options).await;
    make_group(&redis, "billing").await;
    Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await.close().await;
    let path = "/v1/users/alice/messages?wait=acked&timeout_s=60";
    let body = json!({ "data": "first", "key": "k" });
    let waiting = node.post(path, &body);
    let filling = async {
        eventually("the first is there", async || (redis.inbox_length("alice").await == 1).then_some(())).await;
        redis.publish_all("alice", (0..2).map(|number| number.to_string())).await;
    };
    let ((status, answer), ()) = within("the answer", async { tokio::join!(waiting, filling) }).await;
    assert_eq!(
        (status, states(&answer)),
        (201, ("dropped".to_owned(), vec![("web-1".to_owned(), "dropped".to_owned())]))
    );
    let receipts = read_receipts(&redis, "billing").await;
    assert_eq!(receipts.len(), 1);
    let id = answer["id"].as_str().expect("an id").to_owned();
    for (name, value) in [("id", id.as_str()), ("device", "web-1"), ("event", "dropped"), ("key", "k")] {
        assert_eq!(receipts[0][name], value);
    }
}

// Without this, producers that give up would fill the places of those who wait.
#[tokio::test]
async fn a_producer_that_hangs_up_leaves_its_place_and_a_drain_answers_those_who_wait() {
    let (_redis, mut node) = redis_and_node().await;
    let waiting = || node.metric("homing_producers_waiting");
    let path = "/v1/users/alice/messages?wait=acked&timeout_s=60";
    let request = node.request(Method::POST, path).json(&json!({ "data": 1 })).send();
    let hung_up = tokio::spawn(request);
    eventually("somebody waits", async || (waiting().await == Some(1.0)).then_some(())).await;
    hung_up.abort();
    eventually("nobody waits", async || (waiting().await == Some(0.0)).then_some(())).await;

    let url = format!("http://{}{path}", node.address());
    let client = reqwest::Client::new();
    let request = client.post(url).bearer_auth(API_KEY).json(&json!({ "data": 1 })).send();
    let answered = tokio::spawn(request);
    eventually("somebody waits", async || (waiting().await == Some(1.0)).then_some(())).await;
    node.sigterm();
    let answer = within("the answer of a node that drains", answered).await.expect("no panic").expect("an answer");
    assert_eq!(answer.status().as_u16(), 201);
    let answer: Value = answer.json().await.expect("JSON");
    assert_eq!(answer["state"], "accepted");
    node.wait_exit().await;
}

// An acked message whose receipt was lost would be a lie to its producer; a receipt that comes twice is allowed.
#[tokio::test]
async fn a_node_that_is_killed_at_any_moment_leaves_no_acked_message_without_a_receipt() {
    let redis = Redis::start(RedisOptions::default()).await;
    let options =
        || NodeOptions::default().set("trim_delay", "10s").set("node_dead_after", "1s").set("node_heartbeat", "100ms");
    make_group(&redis, "billing").await;
    let mut acked = Vec::new();
    for round in 0..6 {
        let mut node = Node::start(&redis, options()).await;
        let mut client =
            Client::connect(&node, "alice", "web-1", ConnectOptions { confirm: true, ..Default::default() }).await;
        let mut pipeline = redis::pipe();
        for number in 0..200 {
            pipeline.cmd("XADD").arg(inbox("alice")).arg("*").arg("data").arg(number).arg("receipt").arg(1);
        }
        let ids: Vec<String> = pipeline.query_async(&mut redis.connection().await).await.expect("Redis takes them");
        acked.extend(ids);
        // Acks are under way when the node dies, in a later moment of each round.
        let mut count = 0;
        while count < 20 + round * 30 {
            let ids: Vec<String> = client.next_batch().await.into_iter().map(|message| message.id).collect();
            client.ack(&ids).await;
            count += ids.len();
        }
        node.kill9();
    }
    let rows: Vec<(String, String, u64, u64)> =
        redis.query(&["XPENDING", &inbox("alice"), "web-1", "-", "+", "100000"]).await;
    let pending: Vec<String> = rows.into_iter().map(|(id, ..)| id).collect();
    let groups: Vec<HashMap<String, redis::Value>> = redis.query(&["XINFO", "GROUPS", &inbox("alice")]).await;
    let last: String = redis::from_redis_value_ref(&groups[0]["last-delivered-id"]).expect("an id");
    let position = |id: &str| acked.iter().position(|other| other == id);
    let read = position(&last).map_or(0, |last| last + 1);
    let gone: Vec<&String> = acked[..read].iter().filter(|id| !pending.contains(id)).collect();
    assert!(!gone.is_empty(), "some acks were executed");
    let receipts = read_receipts(&redis, "billing").await;
    let told: std::collections::HashSet<&String> =
        receipts.iter().filter(|receipt| receipt["event"] == "acked").map(|receipt| &receipt["id"]).collect();
    let untold: Vec<&&String> = gone.iter().filter(|id| !told.contains(*id)).collect();
    assert!(untold.is_empty(), "{} of {} acked messages without a receipt", untold.len(), gone.len());
    println!("{} acked of {read} read, {} receipts", gone.len(), receipts.len());
}

#[tokio::test]
async fn without_a_stream_of_receipts_a_message_still_tells_what_became_of_it() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default().set("receipts_length", "0")).await;
    let mut client = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    let id = ask(&node, "alice", "order").await;
    client.next_message().await;
    client.ack(&[&id]).await;
    eventually_within(Duration::from_secs(20), "the ack shows", async || {
        look(&node, "alice", &id).await["devices"][0]["acked_at_ms"].is_u64().then_some(())
    })
    .await;
    assert_eq!(redis.query::<u64>(&["EXISTS", STREAM]).await, 0);
    assert!(
        (0..=7 * 24 * 60 * 60).contains(&redis.query::<i64>(&["TTL", &format!("homing:{{alice}}:receipt:{id}")]).await)
    );
}
