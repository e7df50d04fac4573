//! What retention takes from topics is told, whoever was not given it, and however fast it was.

use serde_json::json;

use crate::harness::{Client, NodeOptions, eventually};
use crate::topics::{cluster, confirming, follow, publish};

#[tokio::test]
async fn what_retention_took_from_a_follower_is_told_by_a_gap() {
    let options = NodeOptions::default().set("topic_length_max", "5").set("janitor_pause", "100ms");
    let (redis, nodes) = cluster(1, options).await;
    follow(&nodes[0], "news", "alice").await;
    let client = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    client.close().await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(publish(&nodes[0], "/v1/topics/news/messages", &number.to_string()).await);
    }
    eventually("the log is trimmed", async || {
        (redis.query::<u64>(&["XLEN", "homing:topic:{news}:log"]).await == 5).then_some(())
    })
    .await;
    let mut client = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    let seen: Vec<String> = client.next_messages(5).await.into_iter().map(|message| message.id).collect();
    assert_eq!(seen, ids[15..]);
    let gap = client.expect_frame("gap").await;
    assert_eq!(gap["reason"], json!("retention"));
}

// More came at once than the topic keeps, and was gone before the node of a follower who is connected had read it.
#[tokio::test]
async fn what_retention_took_before_a_node_had_read_it_is_told_by_a_gap() {
    let (redis, nodes) = cluster(1, NodeOptions::default()).await;
    follow(&nodes[0], "news", "alice").await;
    let mut client = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    let first = publish(&nodes[0], "/v1/topics/news/messages", "first").await;
    assert_eq!(client.next_message().await.id, first);
    client.ack_confirmed(&[&first]).await;
    let keys = ["log", "meta", "cursors", "followers"].map(|key| format!("homing:topic:{{news}}:{key}"));
    for left in [1, 0] {
        let mut at_once = redis::pipe();
        at_once.atomic();
        for _ in 0..3 {
            at_once.cmd("XADD").arg(&keys[0]).arg("*").arg("data").arg("x");
        }
        at_once.cmd("FCALL").arg("homing_1_tend_topic").arg(4).arg(&keys);
        at_once.arg(left).arg(1_000_000_000_u64).arg(256).arg(1_000).arg(1_000_000);
        at_once.query_async::<redis::Value>(&mut redis.connection().await).await.expect("a transaction");
        if left > 0 {
            let last = client.next_message().await;
            client.ack(&[&last.id]).await;
        }
        let gap = client.expect_frame("gap").await;
        assert_eq!(gap["reason"], json!("retention"));
        client.ack(&[gap["id"].as_str().expect("an id")]).await;
    }
}

// Nobody was there, so nobody stands anywhere in the topic: what it held is over, but not forgotten.
#[tokio::test]
async fn a_broadcast_that_retention_took_from_all_devices_is_told_by_a_gap() {
    let (redis, nodes) = cluster(1, NodeOptions::default()).await;
    let client = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    client.close().await;
    publish(&nodes[0], "/v1/broadcast", "hello").await;
    let keys = ["log", "meta", "cursors", "followers"].map(|key| format!("homing:topic:{{*}}:{key}"));
    let keys = keys.each_ref().map(String::as_str);
    let call =
        [&["FCALL", "homing_1_tend_topic", "4"], &keys[..], &["0", "1000000000", "256", "1000", "1000000"]].concat();
    redis.query::<redis::Value>(&call).await;
    assert_eq!(redis.query::<u64>(&["EXISTS", keys[0]]).await, 0);
    let mut client = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    assert_eq!(client.expect_frame("gap").await["reason"], json!("retention"));
}
