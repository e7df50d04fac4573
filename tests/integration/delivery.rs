//! One node, one Redis: from an append to the ack that removes the message.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions, eventually};

async fn redis_and_node() -> (Redis, Node) {
    redis_and_node_with(NodeOptions::default()).await
}

async fn redis_and_node_with(options: NodeOptions) -> (Redis, Node) {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, options).await;
    (redis, node)
}

fn confirming() -> ConnectOptions {
    ConnectOptions { confirm: true, ..ConnectOptions::default() }
}

#[tokio::test]
async fn a_raw_append_reaches_its_client_and_the_ack_empties_the_inbox() {
    let (redis, node) = redis_and_node_with(NodeOptions::default().set("trim_delay", "50ms")).await;
    let mut client = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    assert!(client.ready().created);
    let id = redis.publish("alice", r#"{"text":  "hi"}"#).await;
    let message = client.next_message().await;
    assert_eq!(message.id, id);
    assert_eq!(message.data.get(), r#"{"text":  "hi"}"#, "JSON is never reformatted");
    assert_eq!(message.attempt, 1);
    assert!(id.starts_with(&message.ts.to_string()));
    assert_eq!(redis.pending("alice", "web-1").await, 1);
    client.ack(&[&id]).await;
    eventually("the inbox is empty", async || (redis.inbox_length("alice").await == 0).then_some(())).await;
    assert_eq!(redis.pending("alice", "web-1").await, 0);
}

#[tokio::test]
async fn large_messages_are_removed_soon_after_their_ack_and_small_ones_may_wait() {
    let (redis, node) = redis_and_node_with(NodeOptions::default().set("trim_delay", "10m")).await;
    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    let small = (1..=12).map(|left| ("x".to_owned(), left));
    for (data, left) in small.chain([("x".repeat(40_000), 13), ("x".repeat(40_000), 0)]) {
        redis.publish("alice", &data).await;
        let message = client.next_message().await;
        client.ack_confirmed(&[&message.id]).await;
        eventually("what the ack leaves", async || (redis.inbox_length("alice").await == left).then_some(())).await;
    }
}

#[tokio::test]
async fn an_http_publish_reaches_its_client_with_all_its_members() {
    let (_redis, node) = redis_and_node().await;
    let mut client = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    let body = json!({ "data": [1, { "a": null }], "key": "order-7", "ttl_s": 60, "meta": { "kind": "order" } });
    let (status, answer) = node.post("/v1/users/alice/messages", &body).await;
    assert_eq!(status, 201, "{answer}");
    let message = client.next_message().await;
    assert_eq!(json!(message.id), answer["id"]);
    assert_eq!(message.json(), body["data"]);
    assert_eq!(message.key.as_deref(), Some("order-7"));
    assert_eq!(message.meta, Some(json!({ "kind": "order" })));
    assert!(message.exp.expect("it has a ttl") > message.ts);
}

#[tokio::test]
async fn messages_that_waited_are_delivered_in_order_to_the_first_device() {
    let (redis, node) = redis_and_node().await;
    let ids = redis.publish_all("alice", (0..500).map(|number| number.to_string())).await;
    let mut client = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    assert_eq!(client.ready().pending, Some(500));
    for id in &ids {
        let message = client.next_message().await;
        assert_eq!((&message.id, message.attempt), (id, 1));
        client.ack(&[id]).await;
    }
}

#[tokio::test]
async fn a_message_whose_ack_was_confirmed_never_comes_again() {
    let (redis, node) = redis_and_node().await;
    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    let ids = redis.publish_all("alice", (0..20).map(|number| number.to_string())).await;
    client.next_messages(20).await;
    client.ack_confirmed(&ids[..10]).await;
    client.reset();

    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    redis.publish("alice", "marker").await;
    let seen = client.messages_until("marker").await;
    let unacked: Vec<&str> = seen[..10].iter().map(|message| message.id.as_str()).collect();
    assert_eq!(unacked, ids[10..].iter().map(String::as_str).collect::<Vec<_>>());
    assert!(seen[..10].iter().all(|message| message.attempt >= 2), "the client was given them before");
    assert_eq!((seen.len(), seen[10].attempt), (11, 1));
}

#[tokio::test]
async fn an_ack_is_not_confirmed_for_a_message_that_was_never_delivered() {
    let (redis, node) = redis_and_node().await;
    let options = ConnectOptions { window: Some(1), ..confirming() };
    let mut client = Client::connect(&node, "alice", "web-1", options).await;
    let ids = redis.publish_all("alice", ["1".to_owned(), "2".to_owned()]).await;
    assert_eq!(client.next_message().await.id, ids[0]);
    client.ack(&[&ids[1], &ids[0]]).await;
    let acked = client.expect_frame("acked").await;
    assert_eq!(acked["ids"], json!([ids[0]]));
    assert_eq!(client.next_message().await.id, ids[1], "an early ack does not swallow a message");
    client.ack_confirmed(&[&ids[1]]).await;
}

#[tokio::test]
async fn a_malformed_id_is_an_error_of_its_own_frame_and_poisons_no_other() {
    let (redis, node) = redis_and_node().await;
    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    let id = redis.publish("alice", "1").await;
    client.next_message().await;
    client.send(json!({ "type": "ack", "ids": [id, "1-0x"], "ref": "r7" })).await;
    let error = client.expect_frame("error").await;
    assert_eq!((&error["code"], &error["ref"]), (&json!("bad_id"), &json!("r7")));
    client.ack_confirmed(&[&id]).await;
}

#[tokio::test]
async fn a_full_window_holds_the_rest_back_in_redis() {
    let (redis, node) = redis_and_node().await;
    let options = ConnectOptions { window: Some(3), ..confirming() };
    let mut client = Client::connect(&node, "alice", "web-1", options).await;
    redis.publish_all("alice", (0..10).map(|number| number.to_string())).await;
    let first = client.next_messages(3).await;
    client.round_trip().await;
    assert_eq!(client.waiting(), 0);
    assert_eq!(redis.pending("alice", "web-1").await, 3, "what is not delivered was not read");
    client.ack_confirmed(&[&first[0].id, &first[2].id]).await;
    client.next_messages(2).await;
    client.round_trip().await;
    assert_eq!((client.waiting(), redis.pending("alice", "web-1").await), (0, 3));
}

#[tokio::test]
async fn a_message_without_ack_comes_again_with_a_growing_attempt() {
    let (redis, node) = redis_and_node_with(NodeOptions::default().set("ack_timeout", "200ms")).await;
    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    let id = redis.publish("alice", "1").await;
    let deliveries = client.next_messages(3).await;
    assert!(deliveries.iter().all(|message| message.id == id));
    assert_eq!(deliveries[0].attempt, 1);
    assert!(deliveries[0].attempt < deliveries[1].attempt && deliveries[1].attempt < deliveries[2].attempt);
    client.ack_confirmed(&[&id]).await;
}

#[tokio::test]
async fn a_nack_brings_the_message_again_without_waiting_for_the_ack_time_out() {
    let (redis, node) =
        redis_and_node_with(NodeOptions::default().set("ack_timeout", "1h").set("ack_timeout_max", "2h")).await;
    let mut client = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    let id = redis.publish("alice", "1").await;
    client.next_message().await;
    client.nack(&[&id], 50).await;
    let again = client.next_message().await;
    assert_eq!((again.id, again.attempt), (id, 2));
}

#[tokio::test]
async fn a_batch_answers_for_each_of_its_messages_in_order() {
    let (_redis, node) = redis_and_node().await;
    let mut alice = Client::connect(&node, "alice", "a", ConnectOptions::default()).await;
    let mut bob = Client::connect(&node, "bob", "b", ConnectOptions::default()).await;
    let too_big = "x".repeat(65 * 1024);
    let body = json!({ "messages": [
        { "user": "alice", "data": 1 }, { "user": "no spaces", "data": 2 }, { "user": "bob", "data": 3 },
        { "user": "alice", "data": too_big }, { "user": "alice", "data": 5 },
    ]});
    let (status, answer) = node.post("/v1/messages", &body).await;
    assert_eq!(status, 200, "{answer}");
    let statuses: Vec<_> =
        answer["results"].as_array().expect("a list").iter().map(|one| one["status"].clone()).collect();
    assert_eq!(statuses, [json!(201), json!(400), json!(201), json!(413), json!(201)]);
    let got: Vec<_> = alice.next_messages(2).await.iter().map(|message| message.json()).collect();
    assert_eq!(got, [json!(1), json!(5)]);
    assert_eq!(bob.next_message().await.json(), json!(3));
}

#[tokio::test]
async fn a_second_publish_with_the_same_key_is_delivered_once() {
    let (redis, node) = redis_and_node().await;
    let mut client = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    let body = json!({ "data": "first", "key": "k1" });
    let (status, first) = node.post("/v1/users/alice/messages", &body).await;
    assert_eq!(status, 201);
    let (status, second) = node.post("/v1/users/alice/messages", &json!({ "data": "second", "key": "k1" })).await;
    assert_eq!((status, &second["id"]), (200, &first["id"]));
    redis.publish("alice", "marker").await;
    assert_eq!(client.messages_until("marker").await.len(), 2);
}

#[tokio::test]
async fn an_expired_message_is_not_delivered_and_not_left_behind() {
    let (redis, node) = redis_and_node().await;
    let mut client = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    redis.query::<String>(&["XADD", "homing:{alice}:inbox", "*", "data", "old", "exp", "1000"]).await;
    redis.publish("alice", "marker").await;
    assert_eq!(client.messages_until("marker").await.len(), 1);
    eventually("nothing is pending", async || (redis.pending("alice", "web-1").await == 0).then_some(())).await;
    assert!(node.metric("homing_messages_expired_total").await >= Some(1.0));
}

#[tokio::test]
async fn a_message_for_connected_devices_only_does_not_wait_for_others() {
    let (redis, node) = redis_and_node().await;
    let offline = Client::connect(&node, "alice", "offline", ConnectOptions::default()).await;
    offline.close().await;
    eventually("the device is offline", async || {
        (redis.device("alice", "offline").await?["owner"] == "").then_some(())
    })
    .await;
    let mut online = Client::connect(&node, "alice", "online", ConnectOptions::default()).await;
    let (status, _) = node.post("/v1/users/alice/messages", &json!({ "data": "now", "ttl_s": 0 })).await;
    assert_eq!(status, 201);
    assert_eq!(online.next_message().await.json(), "now");
    redis.publish("alice", "marker").await;
    let mut late = Client::connect(&node, "alice", "offline", ConnectOptions::default()).await;
    assert_eq!(late.messages_until("marker").await.len(), 1);
}

// One device acks everything at once, one almost nothing, one appears while trims run every few milliseconds.
#[tokio::test]
async fn a_trim_never_takes_a_message_from_a_slower_or_newer_device() {
    let (redis, node) =
        redis_and_node_with(NodeOptions::default().set("trim_delay", "10ms").set("trim_acks", "1")).await;
    let mut fast = Client::connect(&node, "alice", "fast", ConnectOptions::default()).await;
    let slow_options = ConnectOptions { window: Some(1), ..ConnectOptions::default() };
    let mut slow = Client::connect(&node, "alice", "slow", slow_options).await;
    let mut ids = Vec::new();
    let mut newer = None;
    for round in 0..20 {
        if round == 10 {
            let options = ConnectOptions { window: Some(2), ..ConnectOptions::default() };
            newer = Some(Client::connect(&node, "alice", "newer", options).await);
        }
        let batch = redis.publish_all("alice", (0..20).map(|number| format!("{round}-{number}"))).await;
        for _ in &batch {
            let message = fast.next_message().await;
            fast.ack(&[&message.id]).await;
        }
        ids.extend(batch);
    }
    for id in &ids {
        let message = slow.next_message().await;
        assert_eq!(message.id, *id, "the slow device gets everything in order");
        slow.ack(&[id]).await;
    }
    let mut newer = newer.expect("it connected in round 10");
    for id in &ids[200..] {
        let message = newer.next_message().await;
        assert_eq!(message.id, *id, "the new device gets everything since it came");
        newer.ack(&[id]).await;
    }
    eventually("the inbox is empty", async || (redis.inbox_length("alice").await == 0).then_some(())).await;
}

#[tokio::test]
async fn each_device_gets_each_message_and_acks_for_itself() {
    let (redis, node) = redis_and_node().await;
    let mut phone = Client::connect(&node, "alice", "phone", confirming()).await;
    let mut laptop = Client::connect(&node, "alice", "laptop", confirming()).await;
    let id = redis.publish("alice", "1").await;
    assert_eq!(phone.next_message().await.id, id);
    phone.ack_confirmed(&[&id]).await;
    assert_eq!(laptop.next_message().await.id, id);
    assert_eq!((redis.pending("alice", "phone").await, redis.pending("alice", "laptop").await), (0, 1));
}

#[tokio::test]
async fn a_client_without_a_device_is_the_device_default() {
    let (redis, node) = redis_and_node().await;
    let client = Client::connect(&node, "alice", "", ConnectOptions::default()).await;
    assert_eq!(client.ready().frame["device"], "default");
    assert!(redis.device("alice", "default").await.is_some());
}

#[tokio::test]
async fn a_newer_connection_of_a_device_closes_the_older_one() {
    let (redis, node) = redis_and_node().await;
    let mut older = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    let mut newer = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    older.expect_close_code(4009).await;
    assert!(newer.ready().generation > older.ready().generation);
    let id = redis.publish("alice", "1").await;
    assert_eq!(newer.next_message().await.id, id);
}

#[tokio::test]
async fn an_older_attempt_of_the_same_client_cannot_supersede_a_newer_one() {
    let (_redis, node) = redis_and_node().await;
    let attempt = |seq| ConnectOptions { instance: Some(("object-1".to_owned(), seq)), ..ConnectOptions::default() };
    let mut newer = Client::connect(&node, "alice", "web-1", attempt(2)).await;
    let refusal = Client::connect_refused(&node, "alice", "web-1", attempt(1)).await;
    assert_eq!(refusal.closed.code, Some(4009));
    newer.round_trip().await;
    assert_eq!(newer.closed(), None);
}

#[tokio::test]
async fn a_client_that_forgets_its_device_leaves_nothing_behind() {
    let (redis, node) = redis_and_node().await;
    let mut client = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    redis.publish("alice", "1").await;
    client.next_message().await;
    client.send(json!({ "type": "forget" })).await;
    client.expect_close_code(1000).await;
    assert_eq!(redis.device("alice", "web-1").await, None);
}

#[tokio::test]
async fn a_deleted_device_is_closed_and_its_user_is_told_about() {
    let (redis, node) = redis_and_node().await;
    let mut client = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    let (status, user) = node.get("/v1/users/alice").await;
    assert_eq!(status, 200, "{user}");
    assert!(user.to_string().contains("web-1"), "{user}");
    let (status, _) = node.delete("/v1/users/alice/devices/web-1").await;
    assert!((200..300).contains(&status), "{status}");
    client.expect_close_code(4011).await;
    assert_eq!(redis.device("alice", "web-1").await, None);
}

#[tokio::test]
async fn retention_is_told_by_a_gap_until_the_client_acks_it() {
    let options = NodeOptions::default().set("inbox_length_max", "10").set("janitor_pause", "100ms");
    let (redis, node) = redis_and_node_with(options).await;
    Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await.close().await;
    redis.publish_all("alice", (0..50).map(|number| number.to_string())).await;
    eventually("the janitor cuts the inbox", async || (redis.inbox_length("alice").await == 10).then_some(())).await;

    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    let gap = client.expect_frame("gap").await;
    assert_eq!((&gap["reason"], &gap["count"]), (&json!("retention"), &json!(40)));
    assert_eq!(client.next_messages(10).await[0].json(), "40");
    client.reset();

    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    let again = client.expect_frame("gap").await;
    assert_eq!(again["id"], gap["id"], "it is repeated until it is acknowledged");
    client.ack_confirmed(&[gap["id"].as_str().expect("a text")]).await;
    client.reset();

    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    client.round_trip().await;
    assert_eq!(client.take_frame("gap"), None);
}

#[tokio::test]
async fn a_silent_client_is_pinged_and_then_closed() {
    let (_redis, node) = redis_and_node_with(NodeOptions::default().set("heartbeat", "500ms")).await;
    let mut clients = silent_and_talking(&node).await;
    closes_only_the_silent(&mut clients).await;
    clients.1.round_trip().await;
}

// A sweep of each session becomes due after a second, and finds no room in a pipeline: for its client it is looked at in
// time all the same.
#[tokio::test]
async fn clients_that_answer_are_pinged_and_kept_while_redis_does_not_answer() {
    let (redis, node) = redis_and_node_with(NodeOptions::default().set("heartbeat", "500ms")).await;
    let mut clients = silent_and_talking(&node).await;
    redis.pause();
    // Nothing else leaves until this is answered.
    clients.1.ack(&["1-0"]).await;
    closes_only_the_silent(&mut clients).await;
    let closed = tokio::time::timeout(Duration::from_secs(2), clients.1.expect_close()).await;
    assert!(closed.is_err(), "a client that answers was closed: {closed:?}");
    redis.resume();
    clients.1.round_trip().await;
}

async fn silent_and_talking(node: &Node) -> (Client, Client) {
    let mute = ConnectOptions { mute: true, ..ConnectOptions::default() };
    let silent = Client::connect(node, "alice", "silent", mute).await;
    (silent, Client::connect(node, "alice", "talking", ConnectOptions::default()).await)
}

async fn closes_only_the_silent((silent, talking): &mut (Client, Client)) {
    // The talking one answers its pings while it reads, and it reads until the other one is closed.
    tokio::select! {
        closed = talking.expect_close() => panic!("a client that answers was closed: {closed:?}"),
        () = silent.expect_close_code(4108) => {}
    }
    assert!(silent.take_frame("ping").is_some(), "it was asked before");
}

#[tokio::test]
async fn a_metric_counts_what_was_published_delivered_and_acknowledged() {
    let (_redis, node) = redis_and_node().await;
    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    for number in 0..5 {
        node.publish("alice", json!(number)).await;
    }
    let ids: Vec<String> = client.next_messages(5).await.into_iter().map(|message| message.id).collect();
    client.ack_confirmed(&ids).await;
    eventually("the metrics count them", async || {
        let published = node.metric("homing_messages_published_total").await?;
        let delivered = node.metric("homing_messages_delivered_total").await?;
        let acked = node.metric("homing_messages_acked_total").await?;
        (published == 5.0 && delivered == 5.0 && acked == 5.0).then_some(())
    })
    .await;
    assert_eq!(node.metric("homing_sessions").await, Some(1.0));
    assert_eq!(node.metric("homing_publish_to_delivery_seconds_count").await, Some(5.0));
}

#[tokio::test]
async fn an_entry_over_the_payload_limit_is_set_aside_with_a_gap() {
    let (redis, node) = redis_and_node().await;
    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    redis.publish("alice", &"x".repeat(1024 * 1024)).await;
    redis.publish("alice", "marker").await;
    assert_eq!(client.messages_until("marker").await.len(), 1);
    let gap = client.expect_frame("gap").await;
    assert_eq!((&gap["reason"], &gap["count"]), (&json!("too_big"), &json!(1)));
    client.ack_confirmed(&[gap["id"].as_str().expect("a text")]).await;
    eventually("nothing is pending", async || (redis.pending("alice", "web-1").await == 0).then_some(())).await;
}

#[tokio::test]
async fn no_frame_is_larger_than_the_client_asked_unless_it_holds_one_message() {
    let (redis, node) = redis_and_node().await;
    redis.publish_all("alice", (0..200).map(|number| format!("{number:0>1000}x"))).await;
    let options = ConnectOptions { max_frame_bytes: Some(4_096), window: Some(200), ..ConnectOptions::default() };
    let mut client = Client::connect(&node, "alice", "web-1", options).await;
    let ids: Vec<String> = client.next_messages(200).await.into_iter().map(|message| message.id).collect();
    assert!(client.largest_frame() <= 4_096, "{}", client.largest_frame());
    client.ack(&ids).await;
    redis.publish("alice", &"y".repeat(20_000)).await;
    assert_eq!(client.next_message().await.text().len(), 20_000);
}
