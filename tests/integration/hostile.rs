//! Clients and producers who mean harm: what they take from others ends with them.

use std::time::Duration;

use tokio::time::timeout;

use crate::harness::raw::{CONTINUATION, Frame, TEXT};
use crate::harness::redis_server::{devices, inbox};
use crate::harness::{Client, ConnectOptions, Node, NodeOptions, RawSocket, Redis, RedisOptions, eventually};

async fn redis_and_node(options: NodeOptions) -> (Redis, Node) {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, options).await;
    (redis, node)
}

/// Options of a client whose kernel takes little before the server feels it.
fn deaf() -> ConnectOptions {
    ConnectOptions { receive_buffer: Some(4_096), ..ConnectOptions::default() }
}

/// A large payload, different for each number.
fn large(number: usize) -> String {
    format!("{number}-{}", "x".repeat(60_000))
}

// Its kernel answers for it, so nothing but the server itself ends the connection. Without that a few clients could
// hold all places of a node for ever.
#[tokio::test]
async fn a_client_that_reads_nothing_gives_its_place_back_when_its_session_ends() {
    let (redis, node) = redis_and_node(NodeOptions::default().set("sessions_max", "2")).await;
    let _stuck = Client::connect(&node, "alice", "d", deaf()).await;
    redis.publish_all("alice", (0..300).map(large)).await;
    eventually("messages wait for the client", async || (redis.pending("alice", "d").await > 0).then_some(())).await;
    let mut successor = Client::connect(&node, "alice", "d", ConnectOptions::default()).await;
    let mut other = eventually("the place of the superseded connection is free", async || {
        Client::try_connect(node.address(), "bob", "d", ConnectOptions::default()).await.ok()
    })
    .await;
    let id = redis.publish("bob", "1").await;
    assert_eq!(other.next_message().await.id, id);
    successor.round_trip().await;
}

// Confirmations are as large as the acks: unread ones would fill the node's memory as fast as the client can send.
#[tokio::test]
async fn a_client_that_provokes_answers_and_reads_none_is_closed() {
    // What waits is not added to: its frames are not heard any more, and so it falls silent.
    let limits =
        NodeOptions::default().set("frames_per_second", "100000").set("frames_burst", "1000000").set("heartbeat", "1s");
    let (redis, node) = redis_and_node(limits).await;
    let mut client = Client::connect(&node, "alice", "d", ConnectOptions { confirm: true, ..deaf() }).await;
    let id = redis.publish("alice", "1").await;
    assert_eq!(client.next_message().await.id, id);
    client.ack_confirmed(&[&id]).await;
    // An id that was acked before is confirmed again. 20 MB of answers; the kernel's buffers hold less.
    for _ in 0..400 {
        client.ack(&vec![&id; 2_500]).await;
    }
    eventually("the client is closed", async || {
        node.metrics().await.contains("homing_sessions_closed_total{code=\"4108\"} 1").then_some(())
    })
    .await;
}

#[tokio::test]
async fn acks_of_ids_that_nobody_knows_count_by_their_number() {
    let (redis, node) = redis_and_node(NodeOptions::default()).await;
    let options = ConnectOptions { confirm: true, ..ConnectOptions::default() };
    let mut client = Client::connect(&node, "mallory", "d", options).await;
    let mut calm = Client::connect(&node, "calm", "d", ConnectOptions::default()).await;
    let ids: Vec<String> = (1..=4_000).map(|number| format!("{number}-0")).collect();
    // As frames, 200 are within the burst.
    for _ in 0..200 {
        client.ack(&ids).await;
    }
    client.expect_close_code(4129).await;
    let id = redis.publish("calm", "1").await;
    assert_eq!(calm.next_message().await.id, id);
}

// Each field was once compared with each: one such entry stopped its shard for a second or two.
#[tokio::test]
async fn entries_of_thousands_of_fields_delay_nobody() {
    let (redis, node) = redis_and_node(NodeOptions::default()).await;
    let mut client = Client::connect(&node, "alice", "d", ConnectOptions::default()).await;
    let mut other = Client::connect(&node, "bob", "d", ConnectOptions::default()).await;
    let names: Vec<String> = (0..15_000).map(|number| format!("{number:x}")).collect();
    let mut words = vec!["XADD".to_owned(), inbox("alice"), "*".to_owned()];
    words.extend(names.iter().flat_map(|name| [name.clone(), String::new()]));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    for _ in 0..20 {
        redis.query::<String>(&words).await;
    }
    let id = redis.publish("bob", "1").await;
    let message = timeout(Duration::from_secs(10), other.next_message()).await;
    assert_eq!(message.expect("within seconds, on a slow machine as well").id, id);
    for message in client.next_messages(20).await {
        assert_eq!(message.json().as_object().expect("an object of its fields").len(), 15_000);
    }
}

// Releasing it failed again and again, a line in the log each time, and the node waited for it when it stopped.
#[tokio::test]
async fn a_device_record_that_somebody_overwrote_does_not_outlive_its_session() {
    let options = NodeOptions::default().set("drain_pause", "0s").set("drain_spread", "0s");
    let (redis, mut node) = redis_and_node(options).await;
    let client = Client::connect(&node, "alice", "d", ConnectOptions::default()).await;
    redis.query::<i64>(&["HSET", &devices("alice"), "d", "no record"]).await;
    client.reset();
    eventually("the end of the connection is noticed", async || {
        (node.metric("homing_sessions").await == Some(0.0)).then_some(())
    })
    .await;
    node.sigterm();
    assert!(node.wait_exit_within(Duration::from_secs(10)).await.success());
    let refusals = node.output().matches("homing_1_release").count();
    assert!(refusals <= 2, "{refusals} releases were tried");
}

// What stands in Redis under our names is other people's, too.
#[tokio::test]
async fn garbage_in_a_users_keys_harms_only_that_user() {
    let (redis, node) = redis_and_node(NodeOptions::default()).await;
    let mut other = Client::connect(&node, "bob", "d", ConnectOptions::default()).await;
    let nested = "[".repeat(3_000);
    let records = ["", "5", "[]", "{}", r#"{"generation":5}"#, r#"{"generation":"-1","gap":7}"#, &nested];
    for (number, record) in records.into_iter().enumerate() {
        let user = format!("u{number}");
        // Before a session, and under one.
        redis.query::<i64>(&["HSET", &devices(&user), "d", record]).await;
        let _ = Client::try_connect(node.address(), &user, "d", ConnectOptions::default()).await;
        let _client = Client::connect(&node, &format!("v{number}"), "d", ConnectOptions::default()).await;
        redis.query::<i64>(&["HSET", &devices(&format!("v{number}")), "d", record]).await;
        redis.publish(&format!("v{number}"), "1").await;
        let id = redis.publish("bob", "1").await;
        assert_eq!(other.next_message().await.id, id, "{record}");
        other.ack(&[id]).await;
    }
    assert_eq!(node.readyz().await, Some(200));
}

#[tokio::test]
async fn many_connections_of_one_device_at_once_leave_one_that_works() {
    let (redis, node) = redis_and_node(NodeOptions::default()).await;
    let options = ConnectOptions::default();
    let attempts = (0..200).map(|_| Client::try_connect(node.address(), "alice", "d", options.clone()));
    let clients: Vec<Client> = futures_util::future::join_all(attempts).await.into_iter().flatten().collect();
    let newest = clients.into_iter().max_by_key(|client| client.ready().generation);
    let mut newest = newest.expect("at least one was let in");
    let id = redis.publish("alice", "1").await;
    assert_eq!(newest.next_message().await.id, id);
    eventually("the others are gone", async || (node.metric("homing_sessions").await == Some(1.0)).then_some(())).await;
}

#[tokio::test]
async fn a_frame_that_never_ends_is_not_a_sign_of_life() {
    let (_redis, node) = redis_and_node(NodeOptions::default().set("connect_timeout", "500ms")).await;
    let mut socket = RawSocket::upgrade(node.address()).await;
    let empty = Frame { fin: false, ..Frame::text(b"") };
    socket.send(Frame { opcode: TEXT, ..empty }).await;
    for _ in 0..10_000 {
        socket.send(Frame { opcode: CONTINUATION, ..empty }).await;
    }
    assert_eq!(socket.read_close().await, Some(4000));
}
