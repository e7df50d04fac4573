//! The calls of a home-grown push service over Socket.IO, row by row as `docs/MIGRATING.md` has them: what is called
//! now, and what the client sees of it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions, eventually};

async fn service(options: NodeOptions) -> (Redis, Node) {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, options).await;
    (redis, node)
}

async fn connect(node: &Node, user: &str, device: &str) -> Client {
    let options = ConnectOptions { confirm: true, ..ConnectOptions::default() };
    Client::connect(node, user, device, options).await
}

async fn post(node: &Node, path: &str, body: Value, expected: u16) -> Value {
    let (status, answer) = node.post(path, &body).await;
    assert_eq!(status, expected, "{path}: {answer}");
    answer
}

/// The next message is this one, and the client acknowledges it.
async fn expect(client: &mut Client, text: &str) -> String {
    let message = client.next_message().await;
    assert_eq!(message.text(), text);
    client.ack_confirmed(&[&message.id]).await;
    message.id
}

/// What comes before a message that is sent now; all of it is acknowledged.
async fn until_now(redis: &Redis, client: &mut Client, user: &str) -> Vec<String> {
    redis.publish(user, "now").await;
    let seen = client.messages_until("now").await;
    seen.iter().map(|message| message.text()).filter(|text| text != "now").collect()
}

#[tokio::test]
async fn push_to_a_single_device_comes_to_that_device_only() {
    let (redis, node) = service(NodeOptions::default()).await;
    let mut phone = connect(&node, "alice", "phone").await;
    let mut web = connect(&node, "alice", "web-1").await;
    post(&node, "/v1/users/alice/messages", json!({ "data": "for the phone", "device": "phone" }), 201).await;
    expect(&mut phone, "for the phone").await;
    assert!(until_now(&redis, &mut web, "alice").await.is_empty());
}

#[tokio::test]
async fn push_of_one_message_to_a_batch_of_users_comes_to_each_of_them() {
    let (_redis, node) = service(NodeOptions::default()).await;
    let mut alice = connect(&node, "alice", "web-1").await;
    let mut bob = connect(&node, "bob", "web-1").await;
    let answer = post(&node, "/v1/messages", json!({ "users": ["alice", "bob"], "data": "to both" }), 200).await;
    for (index, client) in [&mut alice, &mut bob].into_iter().enumerate() {
        let id = expect(client, "to both").await;
        assert_eq!((&answer["results"][index]["status"], &answer["results"][index]["id"]), (&json!(201), &json!(id)));
    }
}

#[tokio::test]
async fn push_to_a_room_comes_to_who_is_in_it_and_a_change_of_room_takes_effect_while_connected() {
    let (redis, node) = service(NodeOptions::default()).await;
    let mut alice = connect(&node, "alice", "web-1").await;
    let mut bob = connect(&node, "bob", "web-1").await;
    // Enter, as changeRoom did: these rooms and no other.
    let (status, answer) =
        node.call(Method::PUT, "/v1/users/alice/topics", Some(&json!({ "topics": ["room.1"] }))).await;
    assert_eq!((status, &answer["topics"][0]["topic"]), (200, &json!("room.1")));
    let answer = post(&node, "/v1/topics/room.1/messages", json!({ "data": "in room 1" }), 201).await;
    assert_eq!(expect(&mut alice, "in room 1").await, answer["id"]);
    assert!(until_now(&redis, &mut bob, "bob").await.is_empty(), "he is not in the room");

    let (status, answer) =
        node.call(Method::PUT, "/v1/users/alice/topics", Some(&json!({ "topics": ["room.2"] }))).await;
    assert_eq!((status, answer["topics"].as_array().map(Vec::len)), (200, Some(1)));
    // Each enters or leaves by itself, as well.
    for (method, topic) in [(Method::PUT, "room.1"), (Method::PUT, "room.2"), (Method::DELETE, "room.1")] {
        let (status, answer) = node.call(method, &format!("/v1/topics/{topic}/followers/bob"), None).await;
        assert_eq!((status, answer), (200, json!({ "changed": true })), "{topic}");
    }
    post(&node, "/v1/topics/room.1/messages", json!({ "data": "nobody is here" }), 201).await;
    post(&node, "/v1/topics/room.2/messages", json!({ "data": "in room 2" }), 201).await;
    for client in [&mut alice, &mut bob] {
        let message = client.next_message().await;
        assert_eq!((message.text().as_str(), message.topic.as_deref()), ("in room 2", Some("room.2")));
    }
}

#[tokio::test]
async fn push_to_all_comes_to_every_device_also_later() {
    let (_redis, node) = service(NodeOptions::default()).await;
    let mut alice = connect(&node, "alice", "web-1").await;
    connect(&node, "bob", "web-1").await.close().await;
    let answer = post(&node, "/v1/broadcast", json!({ "data": "to all" }), 201).await;
    assert_eq!(expect(&mut alice, "to all").await, answer["id"]);
    assert_eq!(expect(&mut connect(&node, "bob", "web-1").await, "to all").await, answer["id"]);
}

#[tokio::test]
async fn push_to_who_is_offline_needs_no_call_and_ends_when_its_time_is_over() {
    let (_redis, node) = service(NodeOptions::default()).await;
    connect(&node, "alice", "web-1").await.close().await;
    post(&node, "/v1/users/alice/messages", json!({ "data": "only if connected", "ttl_s": 0 }), 201).await;
    post(&node, "/v1/users/alice/messages", json!({ "data": "within the hour", "ttl_s": 3600 }), 201).await;
    post(&node, "/v1/users/alice/messages", json!({ "data": "whenever" }), 201).await;
    let mut alice = connect(&node, "alice", "web-1").await;
    expect(&mut alice, "within the hour").await;
    expect(&mut alice, "whenever").await;
}

#[tokio::test]
async fn a_login_and_a_logout_are_entries_of_the_presence_stream() {
    let (redis, node) = service(NodeOptions::default().set("presence_grace", "200ms")).await;
    let client = connect(&node, "alice", "web-1").await;
    for (expected, client) in [("online", Some(client)), ("offline", None)] {
        let fields = eventually(expected, async || {
            let entries: Vec<(String, Vec<String>)> = redis.query(&["XRANGE", "homing:presence", "-", "+"]).await;
            entries.into_iter().map(|(_, fields)| fields).find(|fields| fields[1] == expected)
        })
        .await;
        assert_eq!(fields[2..6], ["user", "alice", "device", "web-1"]);
        if let Some(client) = client {
            client.close().await;
        }
    }
}

#[tokio::test]
async fn a_repeated_login_ends_the_older_session_with_4010() {
    let (_redis, node) = service(NodeOptions::default().set("sessions_per_user", "1")).await;
    let mut phone = connect(&node, "alice", "phone").await;
    let mut web = connect(&node, "alice", "web-1").await;
    assert_eq!(phone.expect_frame("error").await["code"], "replaced");
    phone.expect_close_code(4010).await;
    post(&node, "/v1/users/alice/messages", json!({ "data": "to the newer" }), 201).await;
    expect(&mut web, "to the newer").await;
}
