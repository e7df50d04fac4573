//! What becomes of acks, and of what is delivered meanwhile.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Scene, State};
use crate::harness::redis_server::inbox;
use crate::harness::{Client, ConnectOptions, NodeOptions, Redis, eventually};

const WINDOW: usize = 3;

/// An ack is confirmed when Redis has executed it, and not before; one that Redis refuses waits, and is executed when
/// Redis takes it, or the message comes again. An ack that was confirmed too early is a message that comes back from
/// the dead, or one that a client relies on having handled.
pub(super) async fn are_confirmed_only_when_executed(state: State) {
    // So that nothing but the acks decides what comes again.
    let mut scene = Scene::start(state, NodeOptions::default().set("ack_timeout", "60s")).await;
    let options = ConnectOptions { confirm: true, window: Some(WINDOW as u32), ..ConnectOptions::default() };
    let mut client = Client::connect(&scene.node, "alice", "d", options).await;
    let ids = scene.redis.publish_all("alice", (0..6).map(|number| number.to_string())).await;
    let held: Vec<String> = client.next_messages(WINDOW).await.into_iter().map(|message| message.id).collect();
    assert_eq!(held, ids[..WINDOW]);
    scene.enter().await;
    client.ack(&held).await;
    if state.still_delivers() {
        let confirmed = client.expect_frame("acked").await;
        assert_eq!(confirmed["ids"], json!(held));
        let later: Vec<String> = client.next_messages(WINDOW).await.into_iter().map(|message| message.id).collect();
        assert_eq!(later, ids[WINDOW..], "what waited in the inbox comes");
        assert_eq!(scene.redis.pending("alice", "d").await, WINDOW as u64);
        client.ack_confirmed(&later).await;
        assert_eq!(scene.redis.pending("alice", "d").await, 0);
        return;
    }
    eventually("the acks wait in the node", async || {
        (scene.node.metric("homing_ack_buffer_messages").await == Some(WINDOW as f64)).then_some(())
    })
    .await;
    client.round_trip().await;
    assert_eq!(client.take_frame("acked"), None, "nothing was executed");
    if state != State::Loading {
        assert_eq!(scene.redis.pending("alice", "d").await, WINDOW as u64);
    }

    scene.leave().await;
    let mut confirmed = HashSet::new();
    let mut seen = HashSet::new();
    while confirmed.len() < ids.len() {
        if let Some(message) = client.poll_message(Duration::from_millis(50)).await {
            let again = held.contains(&message.id);
            assert!(!again || state.changes_epoch(), "{} came again though its ack was taken", message.id);
            client.ack(&[&message.id]).await;
            seen.insert(message.id);
        }
        assert_eq!(client.closed(), None);
        while let Some(acked) = client.take_frame("acked") {
            for id in confirmed_ids(&acked) {
                assert!(!is_pending(&scene.redis, &id).await, "{id} was confirmed and is still pending");
                confirmed.insert(id);
            }
        }
    }
    assert_eq!(scene.redis.pending("alice", "d").await, 0);
    assert!(ids[WINDOW..].iter().all(|id| seen.contains(id)), "what waited in the inbox comes: {seen:?}");
    let told = client.take_frame("gap").is_some_and(|gap| gap["reason"] == "epoch");
    assert_eq!(told, state.changes_epoch(), "whether data may have been lost");
    eventually("nothing waits in the node any more", async || {
        (scene.node.metric("homing_ack_buffer_messages").await == Some(0.0)).then_some(())
    })
    .await;
}

fn confirmed_ids(acked: &Value) -> Vec<String> {
    let ids = acked["ids"].as_array().expect("acked.ids is a list");
    ids.iter().map(|id| id.as_str().expect("ids are texts").to_owned()).filter(|id| !id.starts_with("gap")).collect()
}

async fn is_pending(redis: &Redis, id: &str) -> bool {
    let details: Vec<redis::Value> = redis.query(&["XPENDING", &inbox("alice"), "d", id, id, "1"]).await;
    !details.is_empty()
}

// Redis may refuse for hours, and a client may go on to ack: the node's memory must not grow with it.
#[tokio::test]
async fn beyond_their_buffer_acks_are_refused_and_the_client_may_repeat_them() {
    const BUFFER: usize = 8_192;
    let options = NodeOptions::default().set("frames_per_second", "1000000").set("frames_burst", "1000000");
    let mut scene = Scene::start(State::NoReplicas, options).await;
    let options = ConnectOptions { confirm: true, ..ConnectOptions::default() };
    let mut client = Client::connect(&scene.node, "alice", "d", options).await;
    let id = scene.redis.publish("alice", "1").await;
    assert_eq!(client.next_message().await.id, id);
    scene.enter().await;
    client.ack(&[&id]).await;
    let others: Vec<String> = (1..=1_000).map(|number| format!("{number}-0")).collect();
    let refusal = loop {
        client.ack(&others).await;
        client.round_trip().await;
        if let Some(error) = client.take_frame("error") {
            break error;
        }
    };
    assert_eq!(refusal["code"], "unavailable");
    assert!(refusal["retry_after_ms"].as_u64() > Some(0), "{refusal}");
    for _ in 0..100 {
        client.ack(&others).await;
    }
    client.round_trip().await;
    let waiting = scene.node.metric("homing_ack_buffer_messages").await.expect("the gauge is there");
    // Those in flight when others come are put back before them.
    assert!(waiting <= 2.0 * BUFFER as f64, "{waiting} acks wait");
    assert_eq!(client.take_frame("acked"), None);
    assert_eq!(scene.redis.pending("alice", "d").await, 1);

    scene.leave().await;
    loop {
        let acked = client.expect_frame("acked").await;
        if confirmed_ids(&acked).contains(&id) {
            break;
        }
    }
    assert_eq!(scene.redis.pending("alice", "d").await, 0);
    client.ack_confirmed(&[&id]).await;
}
