//! Topics and broadcasts over real processes: one append, any number of followers, each with a durable cursor.

use serde_json::{Value, json};

use crate::harness::proxy::Weather;
use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions, TcpProxy, Token, eventually};
use crate::topic_messages::next_millisecond;

pub(crate) async fn cluster(nodes: usize, options: NodeOptions) -> (Redis, Vec<Node>) {
    let redis = Redis::start(RedisOptions::default()).await;
    let mut started = Vec::new();
    for _ in 0..nodes {
        started.push(Node::start(&redis, options.clone()).await);
    }
    (redis, started)
}

pub(crate) fn confirming() -> ConnectOptions {
    ConnectOptions { confirm: true, ..ConnectOptions::default() }
}

fn allowed(user: &str, topics: Value) -> ConnectOptions {
    ConnectOptions { token: Some(Token::of(user).claim("topics", topics).encode()), ..confirming() }
}

pub(crate) async fn follow(node: &Node, topic: &str, user: &str) {
    let (status, answer) = node.call(reqwest::Method::PUT, &format!("/v1/topics/{topic}/followers/{user}"), None).await;
    assert_eq!(status, 200, "{answer}");
}

pub(crate) async fn publish(node: &Node, path: &str, data: &str) -> String {
    let (status, answer) = node.post(path, &json!({ "data": data })).await;
    assert_eq!(status, 201, "{answer}");
    answer["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn one_append_reaches_every_follower_on_every_node() {
    let (_redis, nodes) = cluster(2, NodeOptions::default()).await;
    let mut clients = Vec::new();
    for number in 0..6 {
        let user = format!("user-{number}");
        follow(&nodes[0], "news", &user).await;
        clients.push(Client::connect(&nodes[number % 2], &user, "web-1", confirming()).await);
    }
    let id = publish(&nodes[1], "/v1/topics/news/messages", "hello").await;
    assert!(id.starts_with("news/"), "{id}");
    for client in &mut clients {
        let message = client.next_message().await;
        assert_eq!((&message.id, message.topic.as_deref(), message.attempt), (&id, Some("news"), 1));
        assert_eq!(message.text(), "hello");
        client.ack_confirmed(&[&id]).await;
    }
    let (status, receipt) = nodes[0].get(&format!("/v1/topics/news/messages/{}", &id["news/".len()..])).await;
    assert_eq!((status, &receipt["followers"], &receipt["devices_acked"]), (200, &json!(6), &json!(6)));
    assert_eq!((&receipt["followers_acked"], &receipt["followers_unacked"]), (&json!(6), &json!(0)));
}

// Followers are given what came some at a time.
#[tokio::test]
async fn many_followers_of_one_node_all_get_every_message_in_order() {
    let (_redis, nodes) = cluster(1, NodeOptions::default()).await;
    let mut clients = Vec::new();
    for number in 0..50 {
        clients.push(Client::connect(&nodes[0], &format!("user-{number}"), "web-1", confirming()).await);
    }
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(publish(&nodes[0], "/v1/broadcast", &number.to_string()).await);
    }
    for client in &mut clients {
        for id in &ids {
            assert_eq!(&client.next_message().await.id, id);
        }
        client.ack_confirmed(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
}

// As the documentation says: a cursor tells where a device stands, not where it began.
#[tokio::test]
async fn a_device_that_began_after_a_message_counts_as_done_with_it_once_it_is_further() {
    let (redis, nodes) = cluster(1, NodeOptions::default()).await;
    follow(&nodes[0], "news", "alice").await;
    let mut early = Client::connect(&nodes[0], "alice", "early", confirming()).await;
    let first = publish(&nodes[0], "/v1/topics/news/messages", "first").await;
    assert_eq!(early.next_message().await.id, first);
    next_millisecond(&redis, &first).await;
    let mut late = Client::connect(&nodes[0], "alice", "late", confirming()).await;
    let acked = async || {
        let path = format!("/v1/topics/news/messages/{}", &first["news/".len()..]);
        let devices = nodes[0].get(&format!("{path}/followers")).await.1["items"][0]["devices"].clone();
        let acked = |name: &str| {
            let devices = devices.as_array().expect("a list").iter();
            devices.clone().any(|device| device["device"] == name && device["acked"] == true)
        };
        (nodes[0].get(&path).await.1["devices_acked"].clone(), acked("early"), acked("late"))
    };
    assert_eq!(acked().await, (json!(0), false, false));
    let second = publish(&nodes[0], "/v1/topics/news/messages", "second").await;
    assert_eq!(late.next_message().await.id, second, "it was never given the first one");
    late.ack_confirmed(&[&second]).await;
    assert_eq!(acked().await, (json!(1), false, true));
    early.ack_confirmed(&[&first]).await;
    assert_eq!(acked().await, (json!(2), true, true));
}

#[tokio::test]
async fn a_follower_that_was_offline_catches_up_from_its_cursor_on_another_node() {
    let (_redis, nodes) = cluster(2, NodeOptions::default()).await;
    follow(&nodes[0], "news", "alice").await;
    let mut client = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    let first = publish(&nodes[0], "/v1/topics/news/messages", "first").await;
    assert_eq!(client.next_message().await.id, first);
    client.ack_confirmed(&[&first]).await;
    client.reset();
    let mut missed = Vec::new();
    for number in 0..200 {
        missed.push(publish(&nodes[0], "/v1/topics/news/messages", &number.to_string()).await);
    }
    let options = ConnectOptions { window: Some(8), ..confirming() };
    let mut client = Client::connect(&nodes[1], "alice", "web-1", options).await;
    for id in &missed {
        let message = client.next_message().await;
        assert_eq!((&message.id, message.attempt), (id, 1), "in order, nothing twice, nothing left out");
        client.ack(&[id]).await;
    }
}

#[tokio::test]
async fn an_ack_out_of_order_skips_nothing_that_is_not_acked() {
    let (_redis, nodes) = cluster(1, NodeOptions::default()).await;
    follow(&nodes[0], "news", "alice").await;
    let mut client = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(publish(&nodes[0], "/v1/topics/news/messages", &number.to_string()).await);
        client.next_message().await;
    }
    client.ack_confirmed(&ids[..1]).await;
    client.ack(&ids[2..]).await;
    client.round_trip().await;
    assert!(client.take_frame("acked").is_none(), "what lies behind an unacked message is not confirmed");
    client.close().await;
    let mut client = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    let seen: Vec<String> = client.next_messages(3).await.into_iter().map(|message| message.id).collect();
    assert_eq!(seen, ids[1..]);
    client.ack(&[&ids[2], &ids[1], &ids[3]]).await;
    let mut confirmed = Vec::new();
    while confirmed.len() < 3 {
        let acked = client.expect_frame("acked").await;
        confirmed.extend(acked["ids"].as_array().expect("ids").clone());
    }
}

// Its successor may have begun from the cursor as it was before, and gives out again what this one confirms.
#[tokio::test]
async fn an_ack_in_a_topic_is_not_confirmed_once_another_connection_owns_the_device() {
    let (redis, nodes) = cluster(1, NodeOptions::default()).await;
    follow(&nodes[0], "news", "alice").await;
    let mut client = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    let id = publish(&nodes[0], "/v1/topics/news/messages", "hello").await;
    assert_eq!(client.next_message().await.id, id);
    // As an attach at another node leaves it, whose word has not arrived.
    let mut record = redis.device("alice", "web-1").await.expect("the device is known");
    record["generation"] = json!((client.ready().generation + 1).to_string());
    redis.query::<u64>(&["HSET", "homing:{alice}:devices", "web-1", &record.to_string()]).await;
    client.ack(&[&id]).await;
    client.expect_close_code(4009).await;
    assert!(client.take_frame("acked").is_none(), "the successor may give it out again");
}

#[tokio::test]
async fn a_client_follows_and_leaves_what_its_token_allows_while_connected() {
    let (redis, nodes) = cluster(2, NodeOptions::default()).await;
    let mut web = Client::connect(&nodes[0], "alice", "web-1", allowed("alice", json!(["room.*"]))).await;
    let mut phone = Client::connect(&nodes[1], "alice", "phone-1", confirming()).await;
    web.send(json!({ "type": "follow", "topics": ["room.1", "secret"], "ref": "a" })).await;
    let error = web.expect_frame("error").await;
    assert_eq!((&error["code"], &error["ref"]), (&json!("forbidden"), &json!("a")));
    web.send(json!({ "type": "follow", "topics": ["room.1"], "ref": "b" })).await;
    let followed = web.expect_frame("followed").await;
    assert_eq!((&followed["topics"], &followed["ref"]), (&json!(["room.1"]), &json!("b")));
    let id = publish(&nodes[0], "/v1/topics/room.1/messages", "in").await;
    assert_eq!(web.next_message().await.id, id);
    assert_eq!(phone.next_message().await.id, id, "a follow is the user's, live on all devices");
    web.ack_confirmed(&[&id]).await;
    let (_, list) = nodes[0].get("/v1/topics/room.1/followers").await;
    assert_eq!(list["items"], json!([{ "user": "alice" }]));

    web.send(json!({ "type": "unfollow", "topics": ["room.1"] })).await;
    web.expect_frame("unfollowed").await;
    eventually("the list of followers is empty", async || {
        (nodes[0].get("/v1/topics/room.1/followers").await.1["items"] == json!([])).then_some(())
    })
    .await;
    let out = publish(&nodes[0], "/v1/topics/room.1/messages", "out").await;
    next_millisecond(&redis, &out).await;
    web.send(json!({ "type": "follow", "topics": ["room.1"] })).await;
    web.expect_frame("followed").await;
    publish(&nodes[0], "/v1/topics/room.1/messages", "in again").await;
    assert_eq!(web.next_message().await.text(), "in again", "nothing of the room in between");
}

// What counts is the user's own record; the topic's list may lack a name, or have one left, if a node died between the two.
#[tokio::test]
async fn a_repeated_frame_mends_the_list_of_followers_as_a_repeated_call_does() {
    let (redis, nodes) = cluster(1, NodeOptions::default()).await;
    let mut client = Client::connect(&nodes[0], "alice", "web-1", allowed("alice", json!(["*"]))).await;
    let listed = async || redis.query::<bool>(&["SISMEMBER", "homing:topic:{room.1}:followers", "alice"]).await;
    let is =
        async |wanted: bool| eventually("the list is right", async || (listed().await == wanted).then_some(())).await;
    for repetition in [false, true] {
        client.send(json!({ "type": "follow", "topics": ["room.1"] })).await;
        client.expect_frame("followed").await;
        is(true).await;
        if !repetition {
            redis.query::<u64>(&["SREM", "homing:topic:{room.1}:followers", "alice"]).await;
        }
    }
    for repetition in [false, true] {
        client.send(json!({ "type": "unfollow", "topics": ["room.1"] })).await;
        client.expect_frame("unfollowed").await;
        is(false).await;
        if !repetition {
            redis.query::<u64>(&["SADD", "homing:topic:{room.1}:followers", "alice"]).await;
        }
    }
}

// Whoever forgets cursors after an unfollow may come late: what was acked since the user follows again stays acked.
#[tokio::test]
async fn an_unfollow_forgets_cursors_and_a_late_one_not_those_that_were_written_since() {
    let (redis, nodes) = cluster(1, NodeOptions::default()).await;
    follow(&nodes[0], "news", "alice").await;
    let mut client = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    let cursor = async || redis.query::<Option<f64>>(&["ZSCORE", "homing:topic:{news}:cursors", "alice/web-1"]).await;
    let first = publish(&nodes[0], "/v1/topics/news/messages", "first").await;
    assert_eq!(client.next_message().await.id, first);
    client.ack_confirmed(&[&first]).await;
    assert!(cursor().await.is_some());
    let path = "/v1/topics/news/followers/alice";
    let (_, answer) = nodes[0].call(reqwest::Method::DELETE, path, None).await;
    assert_eq!((&answer["changed"], cursor().await), (&json!(true), None));

    // The calls of two nodes, of which the first one's second half comes after all.
    let unfollowed = redis.query::<(u64, u64)>(&["TIME"]).await;
    follow(&nodes[0], "news", "alice").await;
    let second = publish(&nodes[0], "/v1/topics/news/messages", "second").await;
    assert_eq!(client.next_message().await.id, second);
    client.ack_confirmed(&[&second]).await;
    let at_ms = (unfollowed.0 * 1_000 + unfollowed.1 / 1_000).to_string();
    let late = ["FCALL", "homing_1_forget_cursors", "1", "homing:topic:{news}:cursors", &at_ms, "alice/web-1"];
    assert_eq!(redis.query::<u64>(&late).await, 0);
    assert!(cursor().await.is_some());
}

// The node that left the topic for its client learns late that it did, and tidies up when the user has long come back.
#[tokio::test]
async fn who_follows_again_keeps_the_cursor_whatever_is_still_done_about_the_time_before() {
    let (redis, nodes) = cluster(1, NodeOptions::default()).await;
    let proxy = TcpProxy::start(redis.address()).await;
    let slow = Node::start(&redis, NodeOptions::default().redis_url(proxy.redis_url())).await;
    follow(&nodes[0], "room.1", "alice").await;
    let mut client = Client::connect(&slow, "alice", "web-1", allowed("alice", json!(["room.*"]))).await;
    let id = publish(&nodes[0], "/v1/topics/room.1/messages", "before").await;
    assert_eq!(client.next_message().await.id, id);
    client.ack_confirmed(&[&id]).await;

    proxy.set(Weather::AnswersLost);
    client.send(json!({ "type": "unfollow", "topics": ["room.1"] })).await;
    let topics = "/v1/users/alice/topics";
    eventually("the topic is left", async || (nodes[0].get(topics).await.1["topics"] == json!([])).then_some(())).await;
    follow(&nodes[0], "room.1", "alice").await;
    let mut client = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    let id = publish(&nodes[0], "/v1/topics/room.1/messages", "after").await;
    assert_eq!(client.next_message().await.id, id);
    client.ack_confirmed(&[&id]).await;
    client.close().await;

    proxy.set(Weather::Fair);
    let listed = "/v1/topics/room.1/followers";
    eventually("the list is tidied up", async || (slow.get(listed).await.1["items"] == json!([])).then_some(())).await;
    let mut client = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    let id = publish(&nodes[0], "/v1/topics/room.1/messages", "marker").await;
    assert_eq!(client.next_message().await.id, id, "what was acked does not come again");
}

#[tokio::test]
async fn a_broadcast_reaches_every_device_those_that_are_offline_later_and_new_ones_never() {
    let (_redis, nodes) = cluster(2, NodeOptions::default()).await;
    let mut here = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    let away = Client::connect(&nodes[1], "bob", "web-1", confirming()).await;
    away.close().await;
    let id = publish(&nodes[0], "/v1/broadcast", "to all").await;
    assert!(id.starts_with("*/"), "{id}");
    assert_eq!(here.next_message().await.id, id);
    here.ack_confirmed(&[&id]).await;
    let mut back = Client::connect(&nodes[0], "bob", "web-1", confirming()).await;
    let message = back.next_message().await;
    assert_eq!((&message.id, message.topic.as_deref()), (&id, Some("*")));
    let mut new = Client::connect(&nodes[0], "carol", "web-1", confirming()).await;
    let later = publish(&nodes[1], "/v1/broadcast", "again").await;
    for client in [&mut here, &mut back, &mut new] {
        assert_eq!(client.next_message().await.id, later, "nothing again, and a new device begins at the end");
    }
}

// As a faster clock of the primary before left it: what came since has lower ids.
#[tokio::test]
async fn a_cursor_beyond_the_end_of_the_log_hides_nothing_after_redis_was_restarted() {
    let (mut redis, nodes) = cluster(1, NodeOptions::default()).await;
    follow(&nodes[0], "news", "alice").await;
    let client = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    client.close().await;
    let id = publish(&nodes[0], "/v1/topics/news/messages", "hello").await;
    let ms: u64 = id["news/".len()..].split_once('-').expect("an id").0.parse().expect("a number");
    let beyond = ((ms + 3_600_000) * 1_024).to_string();
    let cursors = "homing:topic:{news}:cursors";
    redis.query::<u64>(&["ZADD", cursors, &beyond, "alice/web-1"]).await;
    redis.restart().await;
    nodes[0].wait_readyz(200).await;
    let mut client = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    assert_eq!(client.next_message().await.id, id);
    client.ack_confirmed(&[&id]).await;
    let score: u64 = redis.query::<f64>(&["ZSCORE", cursors, "alice/web-1"]).await as u64;
    assert_eq!(score / 1_024, ms);
}

#[tokio::test]
async fn a_busy_topic_does_not_starve_the_inbox_nor_the_inbox_a_topic() {
    let (redis, nodes) = cluster(1, NodeOptions::default()).await;
    follow(&nodes[0], "news", "alice").await;
    for window in [1, 4] {
        let device = format!("web-{window}");
        Client::connect(&nodes[0], "alice", &device, confirming()).await.close().await;
    }
    redis.publish_all("alice", (0..40).map(|number| format!("i{number}"))).await;
    for number in 0..40 {
        publish(&nodes[0], "/v1/topics/news/messages", &format!("t{number}")).await;
    }
    for window in [1, 4] {
        let options = ConnectOptions { window: Some(window), ..ConnectOptions::default() };
        let mut client = Client::connect(&nodes[0], "alice", &format!("web-{window}"), options).await;
        let mut of_topic = 0;
        for _ in 0..40 {
            let message = client.next_message().await;
            of_topic += usize::from(message.topic.is_some());
            client.ack(&[&message.id]).await;
        }
        assert!((5..=35).contains(&of_topic), "window {window}: {of_topic} of 40 were the topic's");
        client.close().await;
    }
}

#[tokio::test]
async fn a_crash_before_cursors_were_written_repeats_and_loses_nothing() {
    let options = NodeOptions::default().set("cursor_flush", "60s");
    let (_redis, mut nodes) = cluster(2, options).await;
    follow(&nodes[0], "news", "alice").await;
    let mut client = Client::connect(&nodes[0], "alice", "web-1", ConnectOptions::default()).await;
    let ids: Vec<String> = {
        let mut ids = Vec::new();
        for number in 0..3 {
            ids.push(publish(&nodes[1], "/v1/topics/news/messages", &number.to_string()).await);
        }
        ids
    };
    client.next_messages(3).await;
    client.ack(&ids).await;
    client.round_trip().await;
    nodes[0].kill9();
    drop(client);
    let mut client = Client::connect(&nodes[1], "alice", "web-1", confirming()).await;
    let seen: Vec<String> = client.next_messages(3).await.into_iter().map(|message| message.id).collect();
    assert_eq!(seen, ids);
    client.ack_confirmed(&ids).await;
    client.close().await;
    let mut client = Client::connect(&nodes[1], "alice", "web-1", confirming()).await;
    let later = publish(&nodes[1], "/v1/topics/news/messages", "later").await;
    assert_eq!(client.next_message().await.id, later, "nothing comes again");
}

#[tokio::test]
async fn an_unacked_message_of_a_topic_comes_again_with_a_higher_attempt() {
    let (_redis, nodes) = cluster(1, NodeOptions::default().set("ack_timeout", "200ms")).await;
    follow(&nodes[0], "news", "alice").await;
    let mut client = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    let id = publish(&nodes[0], "/v1/topics/news/messages", "x").await;
    for attempt in 1..=3 {
        let message = client.next_message().await;
        assert_eq!((&message.id, message.attempt), (&id, attempt));
    }
    client.ack_confirmed(&[&id]).await;
}

#[tokio::test]
async fn a_user_that_is_forgotten_follows_nothing() {
    let (redis, nodes) = cluster(1, NodeOptions::default()).await;
    follow(&nodes[0], "news", "alice").await;
    let mut client = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    let id = publish(&nodes[0], "/v1/topics/news/messages", "x").await;
    client.next_message().await;
    client.ack_confirmed(&[&id]).await;
    assert_eq!(nodes[0].delete("/v1/users/alice").await.0, 200);
    client.expect_close_code(4011).await;
    assert_eq!(nodes[0].get("/v1/users/alice/topics").await.1["topics"], json!([]));
    assert_eq!(nodes[0].get("/v1/topics/news/followers").await.1["items"], json!([]));
    assert_eq!(redis.query::<u64>(&["ZCARD", "homing:topic:{news}:cursors"]).await, 0);
}

#[tokio::test]
async fn an_entry_of_a_topic_over_the_limit_is_told_by_a_gap_and_shows_its_size_only() {
    let (redis, nodes) = cluster(1, NodeOptions::default().set("payload_bytes_max", "1KiB")).await;
    follow(&nodes[0], "news", "alice").await;
    let mut client = Client::connect(&nodes[0], "alice", "web-1", confirming()).await;
    let data = "x".repeat(2_000);
    let big = redis.query::<String>(&["XADD", "homing:topic:{news}:log", "*", "data", &data]).await;
    let small = publish(&nodes[0], "/v1/topics/news/messages", "small").await;
    assert_eq!(client.next_message().await.id, small);
    assert_eq!(client.expect_frame("gap").await["reason"], "too_big");
    let (_, page) = nodes[0].get("/v1/topics/news/messages").await;
    assert_eq!(page["items"][0]["id"], format!("news/{big}"));
    assert_eq!((&page["items"][0]["payload_bytes"], &page["items"][0]["data"]), (&json!(2_000), &Value::Null));
}

#[tokio::test]
async fn keys_of_the_wrong_type_hold_up_neither_the_inbox_nor_other_topics_nor_redis() {
    let (redis, nodes) = cluster(1, NodeOptions::default()).await;
    let node = &nodes[0];
    for topic in ["good", "bad", "cursorless"] {
        follow(node, topic, "alice").await;
    }
    let odd = ["homing:topic:{bad}:log", "homing:topic:{cursorless}:cursors", "homing:{bob}:topics"];
    for key in odd {
        redis.query::<()>(&["SET", key, "not what it should be"]).await;
    }
    let mut alice = Client::connect(node, "alice", "web-1", confirming()).await;
    let mut bob = Client::connect(node, "bob", "web-1", confirming()).await;
    let id = publish(node, "/v1/topics/good/messages", "x").await;
    assert_eq!(alice.next_message().await.id, id);
    alice.ack_confirmed(&[&id]).await;
    redis.query::<()>(&["CONFIG", "RESETSTAT"]).await;
    for number in 0..200 {
        for (user, client) in [("alice", &mut alice), ("bob", &mut bob)] {
            let id = redis.publish(user, &number.to_string()).await;
            assert_eq!(client.next_message().await.id, id);
            client.ack_confirmed(&[&id]).await;
        }
    }
    let stats = redis.query::<String>(&["INFO", "commandstats"]).await;
    let calls = |command: &str| -> u64 {
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |line| line.split(',').next().expect("a number").parse().expect("a number"))
    };
    // Twice a second each, and not with each pipeline, of which there were some hundreds.
    let asked = [calls("hgetall"), calls("zscore"), calls("xinfo|stream"), calls("xrange")];
    assert!(asked.iter().all(|asked| *asked < 100), "{asked:?}");

    for key in odd {
        redis.query::<()>(&["DEL", key]).await;
    }
    for topic in ["bad", "cursorless"] {
        let id = publish(node, &format!("/v1/topics/{topic}/messages"), "x").await;
        assert_eq!(alice.next_message().await.id, id, "it goes on once the key is mended");
    }
}

#[tokio::test]
async fn bad_requests_about_topics_say_what_is_wrong() {
    let (_redis, nodes) = cluster(1, NodeOptions::default().set("topics_per_user", "2")).await;
    let node = &nodes[0];
    let put = async |path: &str| node.call(reqwest::Method::PUT, path, None).await;
    assert_eq!(put("/v1/topics/a%20b/followers/alice").await.1["code"], "bad_name");
    assert_eq!(put("/v1/topics/*/followers/alice").await.1["code"], "bad_name");
    for topic in ["a", "b", "b"] {
        assert_eq!(put(&format!("/v1/topics/{topic}/followers/alice")).await.0, 200);
    }
    let (status, problem) = put("/v1/topics/c/followers/alice").await;
    assert_eq!((status, &problem["code"], &problem["limit"]["value"]), (413, &json!("too_many"), &json!(2)));
    let replaced = json!({ "topics": ["c"] });
    let (status, answer) = node.call(reqwest::Method::PUT, "/v1/users/alice/topics", Some(&replaced)).await;
    assert_eq!((status, &answer["topics"][0]["topic"]), (200, &json!("c")));
    let (_, results) = node.post("/v1/topics/messages", &json!({ "topics": ["c", "a b"], "data": 1 })).await;
    assert_eq!((&results["results"][0]["status"], &results["results"][1]["code"]), (&json!(201), &json!("bad_name")));
    let (_, results) =
        node.post("/v1/topics/c/followers", &json!({ "add": ["bob", "x y"], "remove": ["alice"] })).await;
    let codes: Vec<&Value> = (0..3).map(|index| &results["results"][index]["status"]).collect();
    assert_eq!(codes, [&json!(200), &json!(400), &json!(200)], "{results}");
    let mut client = Client::connect(node, "alice", "web-1", confirming()).await;
    client.send(json!({ "type": "follow", "topics": ["x"] })).await;
    assert_eq!(client.expect_frame("error").await["code"], "forbidden", "the token names no topics");
}
