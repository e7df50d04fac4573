//! Acks of a topic that were given out of order, once nothing stands before them any more.

use std::time::Duration;

use serde_json::json;

use crate::harness::redis_server::{cursors, log};
use crate::harness::wait::eventually_within;
use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis};
use crate::topics::{cluster, confirming, follow, publish};

const NEWS: &str = "/v1/topics/news/messages";

/// A device that has two messages and has acked the second one; the first expires after a second.
async fn second_acked(options: ConnectOptions) -> (Redis, Vec<Node>, Client, [String; 2]) {
    let node = NodeOptions::default().set("ack_timeout", "1500ms").set("cursor_flush", "200ms");
    let (redis, nodes) = cluster(2, node).await;
    follow(&nodes[0], "news", "alice").await;
    let mut client = Client::connect(&nodes[0], "alice", "web-1", options).await;
    let (_, first) = nodes[0].post(NEWS, &json!({ "data": "first", "ttl_s": 1 })).await;
    let second = publish(&nodes[0], NEWS, "second").await;
    client.next_messages(2).await;
    client.ack(&[&second]).await;
    client.round_trip().await;
    (redis, nodes, client, [first["id"].as_str().expect("an id").to_owned(), second])
}

// Its time is over: the client can do nothing about it, and nothing holds the second one up.
#[tokio::test]
async fn an_ack_is_confirmed_once_what_stood_before_it_has_expired() {
    let (_redis, _nodes, mut client, [_, second]) = second_acked(confirming()).await;
    assert_eq!(client.expect_frame("acked").await["ids"], json!([second]));
}

#[tokio::test]
async fn an_ack_is_confirmed_once_what_stood_before_it_was_removed() {
    let (redis, _nodes, mut client, [first, second]) = second_acked(confirming()).await;
    let removed: u64 = redis.query(&["XDEL", &log("news"), first.strip_prefix("news/").expect("of the topic")]).await;
    assert_eq!(removed, 1);
    assert_eq!(client.expect_frame("gap").await["reason"], "retention");
    assert_eq!(client.expect_frame("acked").await["ids"], json!([second]));
}

// Acks older than `cursor_flush` outlive their node.
#[tokio::test]
async fn a_cursor_is_written_once_what_held_it_up_has_expired() {
    let (redis, _nodes, _client, _) = second_acked(ConnectOptions::default()).await;
    eventually_within(Duration::from_secs(10), "the cursor is in Redis", async || {
        redis.query::<Option<f64>>(&["ZSCORE", &cursors("news"), "alice/web-1"]).await
    })
    .await;
}
