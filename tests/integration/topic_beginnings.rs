//! Where a device begins in what its user follows, and in the broadcast topic.

use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis};
use crate::topic_messages::next_millisecond;
use crate::topics::{cluster, confirming, follow, publish};

const NEWS: &str = "/v1/topics/news/messages";
const ALL: &str = "/v1/broadcast";

/// Appends, and lets the server's clock go on: who begins after this did not begin in the message's millisecond.
async fn publish_alone(redis: &Redis, node: &Node, path: &str, data: &str) -> String {
    let id = publish(node, path, data).await;
    next_millisecond(redis, &id).await;
    id
}

async fn connect(node: &Node, device: &str, from: Option<&'static str>) -> Client {
    Client::connect(node, "alice", device, ConnectOptions { from, ..confirming() }).await
}

/// Texts that a device gets of a topic before a message that is sent now; without what was sent for this before.
async fn until_now(node: &Node, path: &str, client: &mut Client) -> Vec<String> {
    let marker = format!("now: {}", publish(node, path, "now").await);
    publish(node, path, &marker).await;
    let seen = client.messages_until(&marker).await;
    seen.iter().map(|message| message.text()).filter(|text| !text.starts_with("now")).collect()
}

#[tokio::test]
async fn a_users_first_device_begins_with_the_follow_and_a_further_one_when_it_appears() {
    let (redis, mut nodes) = cluster(1, NodeOptions::default()).await;
    let node = nodes.remove(0);
    publish_alone(&redis, &node, NEWS, "before the follow").await;
    follow(&node, "news", "alice").await;
    publish_alone(&redis, &node, NEWS, "before any device").await;
    let mut first = connect(&node, "first", None).await;
    assert_eq!(until_now(&node, NEWS, &mut first).await, ["before any device"]);
    publish_alone(&redis, &node, NEWS, "before the second device").await;
    let mut second = connect(&node, "second", None).await;
    assert!(second.ready().created && until_now(&node, NEWS, &mut second).await.is_empty());
    publish(&node, NEWS, "for both").await;
    assert_eq!(until_now(&node, NEWS, &mut second).await, ["for both"]);
    assert_eq!(until_now(&node, NEWS, &mut first).await, ["before the second device", "for both"]);
    // It stays where it began, with nothing acked in between.
    second.close().await;
    publish(&node, NEWS, "while it was away").await;
    let mut second = connect(&node, "second", Some("start")).await;
    assert_eq!(until_now(&node, NEWS, &mut second).await, ["while it was away"], "'from' is for new devices");
}

#[tokio::test]
async fn a_new_device_begins_in_a_topic_where_it_asks_to_but_never_before_the_follow() {
    let (redis, mut nodes) = cluster(1, NodeOptions::default()).await;
    let node = nodes.remove(0);
    publish_alone(&redis, &node, NEWS, "before the follow").await;
    follow(&node, "news", "alice").await;
    publish_alone(&redis, &node, NEWS, "since the follow").await;
    let mut at_end = connect(&node, "first-at-end", Some("end")).await;
    assert!(until_now(&node, NEWS, &mut at_end).await.is_empty());
    let mut at_start = connect(&node, "second-at-start", Some("start")).await;
    assert_eq!(until_now(&node, NEWS, &mut at_start).await, ["since the follow"]);
    // A device that was here before and is not known any more asks for nothing, and misses as little as may be.
    let options = ConnectOptions { from: Some("end"), epoch: Some(at_start.ready().epoch.clone()), ..confirming() };
    let mut forgotten = Client::connect(&node, "alice", "forgotten", options).await;
    assert_eq!(forgotten.expect_frame("gap").await["reason"], "device_expired");
    assert_eq!(until_now(&node, NEWS, &mut forgotten).await, ["since the follow"]);
}

// Else whoever appears would be given everything that was ever told to everybody.
#[tokio::test]
async fn every_device_begins_in_the_broadcast_topic_when_it_appears_whatever_it_asks_for() {
    let (redis, mut nodes) = cluster(2, NodeOptions::default()).await;
    let (other, node) = (nodes.remove(1), nodes.remove(0));
    publish_alone(&redis, &node, ALL, "before any device").await;
    let mut first = connect(&node, "first", Some("start")).await;
    assert!(first.ready().created && until_now(&node, ALL, &mut first).await.is_empty());
    publish_alone(&redis, &node, ALL, "for the first").await;
    let mut second = connect(&other, "second", None).await;
    let mut third = connect(&other, "third", Some("start")).await;
    for client in [&mut second, &mut third] {
        assert!(until_now(&node, ALL, client).await.is_empty());
    }
    second.close().await;
    publish(&node, ALL, "for all").await;
    let mut second = connect(&node, "second", None).await;
    assert_eq!(until_now(&node, ALL, &mut second).await, ["for all"]);
    assert_eq!(until_now(&node, ALL, &mut third).await, ["for all"]);
    assert_eq!(until_now(&node, ALL, &mut first).await, ["for the first", "for all"]);
}
