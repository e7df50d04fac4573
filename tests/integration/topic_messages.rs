//! What a single message of a topic may say beside its data, and what becomes of it then: refused for now, expired, for
//! one device only, published twice.

use serde_json::{Value, json};

use crate::harness::redis_server::{cursors, log};
use crate::harness::token::unix_now;
use crate::harness::{Client, Node, NodeOptions, Redis, eventually};
use crate::topics::{cluster, confirming, follow, publish};

const NEWS: &str = "/v1/topics/news/messages";

async fn one_node() -> (Redis, Node) {
    let (redis, mut nodes) = cluster(1, NodeOptions::default()).await;
    (redis, nodes.remove(0))
}

async fn connect(node: &Node, user: &str, device: &str) -> Client {
    Client::connect(node, user, device, confirming()).await
}

/// Up to where a device is done with `news`, as milliseconds.
async fn cursor_ms(redis: &Redis, device: &str) -> Option<u64> {
    let score = redis.query::<Option<f64>>(&["ZSCORE", &cursors("news"), device]).await;
    score.map(|score| score as u64 / 1_024)
}

fn ms(id: &str) -> u64 {
    let (_, id) = id.split_once('/').expect("a topic and an id");
    id.split_once('-').expect("an id").0.parse().expect("a number")
}

/// Lets the server's clock go on, so that what comes now has another millisecond than what came before.
pub(crate) async fn next_millisecond(redis: &Redis, id: &str) {
    eventually("the next millisecond", async || {
        let (seconds, micros): (u64, u64) = redis.query(&["TIME"]).await;
        (seconds * 1_000 + micros / 1_000 > ms(id)).then_some(())
    })
    .await;
}

// The time-out is far away, so only the nack can bring it again.
#[tokio::test]
async fn a_nacked_message_of_a_topic_comes_again_after_its_delay_and_no_cursor_passes_it() {
    let (redis, node) = one_node().await;
    follow(&node, "news", "alice").await;
    let mut client = connect(&node, "alice", "web-1").await;
    let first = publish(&node, NEWS, "first").await;
    next_millisecond(&redis, &first).await;
    let second = publish(&node, NEWS, "second").await;
    client.next_messages(2).await;

    let nacked = std::time::Instant::now();
    client.nack(&[&first], 700).await;
    client.ack(&[&second]).await;
    let again = client.next_message().await;
    assert!(nacked.elapsed() >= std::time::Duration::from_millis(700), "{:?}", nacked.elapsed());
    assert_eq!((&again.id, again.attempt, again.text().as_str()), (&first, 2, "first"));
    assert!(client.take_frame("acked").is_none(), "the second one waits for the first");
    assert_eq!(cursor_ms(&redis, "alice/web-1").await, None);
    client.nack(&[&first], 0).await;
    assert_eq!(client.next_message().await.attempt, 3);

    // The nack is forgotten with the session: both come again at once, as nothing was recorded.
    client.nack(&[&first], 60_000).await;
    client.round_trip().await;
    client.close().await;
    let mut client = connect(&node, "alice", "web-1").await;
    let seen: Vec<String> = client.next_messages(2).await.into_iter().map(|message| message.id).collect();
    assert_eq!(seen, [first.as_str(), second.as_str()]);
    client.ack_confirmed(&[&first, &second]).await;
    assert_eq!(cursor_ms(&redis, "alice/web-1").await, Some(ms(&second)));
}

#[tokio::test]
async fn what_expired_in_a_topic_is_passed_over_and_holds_up_no_cursor() {
    let (redis, node) = one_node().await;
    follow(&node, "news", "alice").await;
    connect(&node, "alice", "web-1").await.close().await;
    let before = publish(&node, NEWS, "before").await;
    let (status, answer) = node.post(NEWS, &json!({ "data": "expires", "ttl_s": 1 })).await;
    assert_eq!(status, 201, "{answer}");
    let (status, answer) = node.post(NEWS, &json!({ "data": "lasts", "ttl_s": 3600 })).await;
    assert_eq!(status, 201, "{answer}");
    let after = publish(&node, NEWS, "after").await;
    let expired_ms = ms(&after) + 1_000;
    eventually("it has expired", async || (unix_now().as_millis() > u128::from(expired_ms)).then_some(())).await;

    let mut client = connect(&node, "alice", "web-1").await;
    let seen = client.next_messages(3).await;
    let texts: Vec<String> = seen.iter().map(|message| message.text()).collect();
    assert_eq!((&seen[0].id, texts), (&before, vec!["before".into(), "lasts".into(), "after".into()]));
    assert!(seen[1].exp.is_some_and(|exp| exp > expired_ms), "{seen:?}");
    client.ack_confirmed(&seen.iter().map(|message| &message.id).collect::<Vec<_>>()).await;
    assert_eq!(cursor_ms(&redis, "alice/web-1").await, Some(ms(&after)));
    assert!(client.take_frame("gap").is_none(), "what expires is no loss");
    assert_eq!(redis.query::<u64>(&["XLEN", &log("news")]).await, 4, "the log keeps it until retention");
}

#[tokio::test]
async fn a_message_with_a_ttl_of_0_reaches_those_followers_only_who_are_connected() {
    let (redis, mut nodes) = cluster(2, NodeOptions::default()).await;
    let (other, node) = (nodes.remove(1), nodes.remove(0));
    for user in ["alice", "bob"] {
        follow(&node, "news", user).await;
    }
    let mut here = connect(&other, "alice", "web-1").await;
    connect(&node, "alice", "phone").await.close().await;
    connect(&node, "bob", "web-1").await.close().await;
    for path in [NEWS, "/v1/broadcast"] {
        let (status, answer) = node.post(path, &json!({ "data": "now or never", "ttl_s": 0 })).await;
        assert_eq!(
            (status, &here.next_message().await.id),
            (201, answer["id"].as_str().map(str::to_owned).as_ref().expect("an id"))
        );
        // A session that begins in the same millisecond is connected.
        next_millisecond(&redis, answer["id"].as_str().expect("an id")).await;
    }
    let mut later = vec![publish(&node, NEWS, "later").await, publish(&node, "/v1/broadcast", "later").await];
    later.sort();
    for (user, device) in [("alice", "phone"), ("bob", "web-1")] {
        let mut back = connect(&other, user, device).await;
        let mut seen: Vec<String> = back.next_messages(2).await.into_iter().map(|message| message.id).collect();
        seen.sort();
        assert_eq!(seen, later, "{user}/{device}");
        back.ack_confirmed(&seen).await;
        assert_eq!(cursor_ms(&redis, &format!("{user}/{device}")).await, Some(ms(&later[1])));
    }
}

// As a raw producer may append it; the HTTP API refuses to.
#[tokio::test]
async fn a_raw_entry_for_a_device_reaches_that_device_of_each_follower_and_holds_up_no_other() {
    let (redis, node) = one_node().await;
    for user in ["alice", "bob"] {
        follow(&node, "news", user).await;
    }
    let mut web = connect(&node, "alice", "web-1").await;
    connect(&node, "alice", "phone").await.close().await;
    let mut bobs = connect(&node, "bob", "phone").await;
    let aimed: String = redis.query(&["XADD", &log("news"), "*", "data", "for phones", "device", "phone"]).await;
    let aimed = format!("news/{aimed}");
    next_millisecond(&redis, &aimed).await;
    let all = publish(&node, NEWS, "for all").await;
    let mut phone = connect(&node, "alice", "phone").await;
    for (client, expected) in [(&mut web, &[&all][..]), (&mut bobs, &[&aimed, &all]), (&mut phone, &[&aimed, &all])] {
        let seen: Vec<String> =
            client.next_messages(expected.len()).await.into_iter().map(|message| message.id).collect();
        assert!(seen.iter().eq(expected.iter().copied()), "{seen:?} instead of {expected:?}");
        client.ack_confirmed(expected).await;
    }
    for device in ["alice/web-1", "alice/phone", "bob/phone"] {
        assert_eq!(cursor_ms(&redis, device).await, Some(ms(&all)), "{device}");
    }
}

// Receipts are an inbox's: a topic has cursors, which tell the same.
#[tokio::test]
async fn a_raw_entry_of_a_topic_that_asks_for_a_receipt_gets_none_and_is_delivered_as_any_other() {
    let (redis, node) = one_node().await;
    follow(&node, "news", "alice").await;
    let mut client = connect(&node, "alice", "web-1").await;
    let id: String = redis.query(&["XADD", &log("news"), "*", "data", "x", "receipt", "1"]).await;
    let id = format!("news/{id}");
    assert_eq!(client.next_message().await.id, id);
    client.ack_confirmed(&[&id]).await;
    // A receipt of the inbox, which would stand behind one of the topic.
    let asked = json!({ "data": "y", "receipt": true });
    assert_eq!(node.post("/v1/users/alice/messages", &asked).await.0, 201);
    let message = client.next_message().await;
    client.ack_confirmed(&[&message.id]).await;
    let receipts: Vec<(String, Vec<String>)> = redis.query(&["XRANGE", "homing:receipts", "-", "+"]).await;
    assert!(!receipts.is_empty(), "those of the inbox");
    assert!(receipts.iter().all(|(_, fields)| fields.contains(&message.id)), "{receipts:?}");
}

#[tokio::test]
async fn a_key_that_a_topic_has_seen_is_answered_with_the_first_message_and_appends_nothing() {
    let (redis, node) = one_node().await;
    follow(&node, "news", "alice").await;
    let mut client = connect(&node, "alice", "web-1").await;
    for (topic, path) in [("news", NEWS), ("*", "/v1/broadcast")] {
        let (status, first) = node.post(path, &json!({ "data": "first", "key": "k" })).await;
        assert_eq!(status, 201, "{first}");
        for data in ["first", "another"] {
            assert_eq!(node.post(path, &json!({ "data": data, "key": "k" })).await, (200, first.clone()));
        }
        assert_eq!(redis.query::<u64>(&["XLEN", &log(topic)]).await, 1, "{topic}");
        let message = client.next_message().await;
        assert_eq!((message.text().as_str(), message.key.as_deref()), ("first", Some("k")));
        assert_eq!(first["id"], json!(message.id));
    }
    // Each topic remembers for itself: one that has not seen the key gets the message.
    let several = json!({ "topics": ["news", "sports"], "data": "second", "key": "k" });
    let (_, answer) = node.post("/v1/topics/messages", &several).await;
    let statuses: Vec<&Value> =
        answer["results"].as_array().expect("results").iter().map(|one| &one["status"]).collect();
    assert_eq!(statuses, [&json!(200), &json!(201)], "{answer}");
    let (_, again) = node.post("/v1/topics/messages", &several).await;
    for index in [0, 1] {
        assert_eq!(again["results"][index], json!({ "status": 200, "id": answer["results"][index]["id"] }));
    }
    for topic in ["news", "sports"] {
        assert_eq!(redis.query::<u64>(&["XLEN", &log(topic)]).await, 1, "{topic}");
    }
    let last = publish(&node, NEWS, "last").await;
    assert_eq!(client.next_message().await.id, last, "nothing came twice");
}

#[tokio::test]
async fn a_message_to_topics_takes_no_device_and_no_receipt() {
    let (redis, node) = one_node().await;
    for (path, body) in
        [(NEWS, json!({})), ("/v1/broadcast", json!({})), ("/v1/topics/messages", json!({ "topics": ["news"] }))]
    {
        for (member, value) in [("device", json!("phone")), ("receipt", json!(true))] {
            let mut body = body.clone();
            body["data"] = json!("x");
            body[member] = value;
            let (status, problem) = node.post(path, &body).await;
            assert_eq!((status, &problem["code"]), (400, &json!("bad_value")), "{path} {member}: {problem}");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(member)), "{problem}");
        }
    }
    let keys: Vec<String> = redis.query(&["KEYS", "homing:topic:*"]).await;
    assert!(keys.is_empty(), "{keys:?}");
}

// A user counts once, however many devices it has; those who are not done are the rest.
#[tokio::test]
async fn followers_who_acked_and_who_did_not_are_counted() {
    let (redis, node) = one_node().await;
    for user in ["alice", "bob", "carol"] {
        follow(&node, "news", user).await;
    }
    let mut devices = Vec::new();
    for (user, device) in [("alice", "web-1"), ("alice", "phone"), ("bob", "web-1")] {
        devices.push(connect(&node, user, device).await);
    }
    for (topic, path, followers) in [("news", NEWS, json!(3)), ("*", "/v1/broadcast", Value::Null)] {
        let id = publish(&node, path, "x").await;
        let counted = async || {
            let entry = id.split_once('/').expect("a topic and an id").1;
            let (status, receipt) = node.get(&format!("/v1/topics/{topic}/messages/{entry}")).await;
            assert_eq!((status, &receipt["followers"]), (200, &followers), "{receipt}");
            ["followers_acked", "followers_unacked", "devices_acked"].map(|member| receipt[member].clone())
        };
        let unacked = |count: u64| if topic == "*" { Value::Null } else { json!(count) };
        assert_eq!(counted().await, [json!(0), unacked(3), json!(0)]);
        for (client, expected) in devices.iter_mut().zip([(1, 2, 1), (1, 2, 2), (2, 1, 3)]) {
            assert_eq!(client.next_message().await.id, id);
            client.ack_confirmed(&[&id]).await;
            let (acked, rest, each) = expected;
            assert_eq!(counted().await, [json!(acked), unacked(rest), json!(each)]);
        }
        // More than are counted: those who are done are known by their number only.
        let cursor: String = redis.query(&["ZSCORE", &cursors(topic), "bob/web-1"]).await;
        for part in 0..10 {
            let members: Vec<String> = (0..1_000).map(|number| format!("user-{part}-{number}/d")).collect();
            let mut add = vec!["ZADD".to_owned(), cursors(topic)];
            add.extend(members.into_iter().flat_map(|member| [cursor.clone(), member]));
            redis.query::<u64>(&add.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
        assert_eq!(counted().await, [Value::Null, Value::Null, json!(10_003)]);
        redis.query::<u64>(&["ZREM", &cursors(topic), "bob/web-1", "alice/phone", "alice/web-1"]).await;
        assert_eq!(counted().await, [json!(10_000), unacked(0), json!(10_000)]);
    }
}

#[tokio::test]
async fn cursors_of_another_type_are_told_to_who_asks_for_counts() {
    let (redis, node) = one_node().await;
    redis.query::<()>(&["SET", &cursors("odd"), "not what it should be"]).await;
    let (status, problem) = node.get("/v1/topics/odd/messages/1-0").await;
    assert_eq!((status, &problem["code"]), (409, &json!("inbox_unusable")), "{problem}");
}
