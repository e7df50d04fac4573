//! Cursors of topics: what is acknowledged is kept, and what is to be forgotten goes.

use serde_json::json;

use crate::harness::redis_server::cursors;
use crate::harness::{Client, ConnectOptions, NodeOptions, Redis, eventually};
use crate::topics::{cluster, confirming, follow, publish};

const NEWS: &str = "/v1/topics/news/messages";
const ALL: &str = "/v1/broadcast";

/// Connects, and acknowledges all up to a message of a topic and one to everybody: a user's first device begins with what
/// the topic holds.
async fn with_cursors(redis: &Redis, node: &crate::harness::Node, device: &str, options: ConnectOptions) -> Client {
    let mut client = Client::connect(node, "alice", device, options).await;
    let mut awaited = vec![publish(node, NEWS, "x").await, publish(node, ALL, "y").await];
    while !awaited.is_empty() {
        let message = client.next_message().await;
        client.ack(&[&message.id]).await;
        awaited.retain(|id| *id != message.id);
    }
    for topic in ["news", "*"] {
        eventually(&format!("{device} has a cursor in {topic}"), async || {
            let score: Option<f64> = redis.query(&["ZSCORE", &cursors(topic), &format!("alice/{device}")]).await;
            score.is_some().then_some(())
        })
        .await;
    }
    client
}

async fn nothing_is_left(redis: &Redis) {
    for topic in ["news", "*"] {
        eventually("no cursor is left", async || {
            (redis.query::<u64>(&["ZCARD", &cursors(topic)]).await == 0).then_some(())
        })
        .await;
    }
}

// Else its name would stay, and a new device of that name begin where this one left off.
#[tokio::test]
async fn a_device_that_is_forgotten_takes_its_cursors_with_it_in_whatever_way_it_goes() {
    let (redis, nodes) = cluster(1, NodeOptions::default().set("cursor_flush", "50ms")).await;
    let node = &nodes[0];
    follow(node, "news", "alice").await;

    let client = with_cursors(&redis, node, "offline", confirming()).await;
    client.close().await;
    assert_eq!(node.delete("/v1/users/alice/devices/offline").await.0, 200);
    nothing_is_left(&redis).await;

    let mut client = with_cursors(&redis, node, "deleted", confirming()).await;
    assert_eq!(node.delete("/v1/users/alice/devices/deleted").await.0, 200);
    client.expect_close_code(4011).await;
    nothing_is_left(&redis).await;

    let mut client = with_cursors(&redis, node, "forgets", ConnectOptions::default()).await;
    client.send(json!({ "type": "forget" })).await;
    client.expect_close_code(1000).await;
    nothing_is_left(&redis).await;

    // Everything but the broadcast topic goes with what the user follows.
    with_cursors(&redis, node, "offline", confirming()).await.close().await;
    let mut client = with_cursors(&redis, node, "online", ConnectOptions::default()).await;
    assert_eq!(node.delete("/v1/users/alice").await.0, 200);
    client.expect_close_code(4011).await;
    nothing_is_left(&redis).await;
}

// What is acknowledged can go, which is what a full Redis needs.
#[tokio::test]
async fn with_full_memory_topics_are_acked_and_left_and_users_deleted() {
    let (redis, nodes) = cluster(1, NodeOptions::default()).await;
    let node = &nodes[0];
    for topic in ["news", "other"] {
        follow(node, topic, "alice").await;
    }
    let mut client = Client::connect(node, "alice", "web", confirming()).await;
    let ids = [publish(node, NEWS, "x").await, publish(node, ALL, "y").await];
    client.next_messages(2).await;
    redis.config_set("maxmemory", "1").await;
    assert_eq!(node.post(NEWS, &json!({ "data": "z" })).await.0, 503);
    client.ack_confirmed(&ids).await;
    for topic in ["news", "*"] {
        assert_eq!(redis.query::<u64>(&["ZCARD", &cursors(topic)]).await, 1, "{topic}");
    }

    let call = async |method, path| node.call(method, path, None).await;
    let (status, problem) = call(reqwest::Method::PUT, "/v1/topics/third/followers/alice").await;
    assert_eq!((status, &problem["code"]), (503, &json!("unavailable")), "{problem}");
    let left = call(reqwest::Method::DELETE, "/v1/topics/other/followers/alice").await;
    assert_eq!(left, (200, json!({ "changed": true })));
    assert_eq!(node.delete("/v1/users/alice").await.0, 200);
    client.expect_close_code(4011).await;
    nothing_is_left(&redis).await;
    let (_, followed) = node.get("/v1/users/alice/topics").await;
    assert_eq!(followed["topics"], json!([]));
}

// The cursor is not written yet, and both sessions are at one shard: nothing needs to come again.
#[tokio::test]
async fn a_connection_that_takes_over_at_its_node_begins_where_the_one_before_it_was() {
    let (_redis, nodes) = cluster(1, NodeOptions::default().set("cursor_flush", "1m")).await;
    let node = &nodes[0];
    follow(node, "news", "alice").await;
    let mut first = Client::connect(node, "alice", "web", ConnectOptions::default()).await;
    for round in 0..10 {
        let acked = [publish(node, NEWS, "x").await, publish(node, ALL, "y").await];
        let mut given: Vec<String> = first.next_messages(2).await.into_iter().map(|message| message.id).collect();
        given.sort_by_key(|id| id.starts_with('*'));
        assert_eq!(given, acked, "round {round}: nothing that was acknowledged comes again");
        first.ack(&acked).await;
        first.round_trip().await;
        first = Client::connect(node, "alice", "web", ConnectOptions::default()).await;
    }
}
