//! Whether somebody new is let in.

use super::{Scene, State};
use crate::harness::{Client, ConnectOptions, NodeOptions, eventually};

/// An attach writes a record of a few bytes, and acks free more than that: whom a full Redis kept away could not free it.
#[tokio::test]
async fn a_new_device_attaches_and_drains_its_inbox_though_memory_is_full() {
    let mut scene = Scene::start(State::MemoryFull, NodeOptions::default().set("trim_delay", "50ms")).await;
    let ids = scene.redis.publish_all("alice", (0..100).map(|number| number.to_string())).await;
    scene.enter().await;
    let options = ConnectOptions { confirm: true, ..ConnectOptions::default() };
    let mut client = Client::connect(&scene.node, "alice", "new", options).await;
    assert!(client.ready().created);
    for id in &ids {
        assert_eq!(client.next_message().await.id, *id);
        client.ack_confirmed(&[id]).await;
    }
    eventually("what was acked is trimmed", async || (scene.redis.inbox_length("alice").await == 0).then_some(()))
        .await;
}
