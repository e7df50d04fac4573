//! What Redis can do to a node: restart, lose data, refuse writes, forget flags and functions.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::proxy::Weather;
use crate::harness::wait::eventually_within;
use crate::harness::{Client, ConnectOptions, Follower, Node, NodeOptions, Redis, RedisOptions, TcpProxy, eventually};

const INBOX: &str = "homing:{alice}:inbox";

fn confirming() -> ConnectOptions {
    ConnectOptions { confirm: true, ..ConnectOptions::default() }
}

async fn redis_and_node() -> (Redis, Node) {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default()).await;
    (redis, node)
}

/// Publishes with a key until the outcome is known, as a careful producer does; gives the id.
async fn publish_surely(node: &Node, user: &str, key: &str) -> String {
    let body = json!({ "data": key, "key": key });
    eventually_within(Duration::from_secs(60), "a publish succeeds in the end", async || {
        let (status, answer) = node.post(&format!("/v1/users/{user}/messages"), &body).await;
        match status {
            200 | 201 => Some(answer["id"].as_str().expect("an id").to_owned()),
            503 | 504 => None,
            _ => panic!("{status} {answer}"),
        }
    })
    .await
}

// The append-only log is written before a reply leaves, so a crash of the process alone loses nothing that was accepted.
#[tokio::test]
async fn a_restart_of_redis_under_load_loses_nothing_that_was_accepted() {
    let (mut redis, node) = redis_and_node().await;
    let users = ["u0", "u1", "u2", "u3"];
    let followers: Vec<Follower> = users.iter().map(|user| Follower::start(&[node.address()], user, "d")).collect();
    for follower in &followers {
        follower.connected().await;
    }
    let mut published = vec![Vec::new(); users.len()];
    for round in 0..60 {
        for (ids, user) in published.iter_mut().zip(users) {
            ids.push(publish_surely(&node, user, &format!("{user}-{round}")).await);
        }
        if round == 20 || round == 40 {
            redis.restart().await;
        }
    }
    for ((follower, user), ids) in followers.into_iter().zip(users).zip(&published) {
        let seen = follower.finish(&redis, user, "d", ids.len()).await;
        seen.assert_complete(ids);
        assert!(seen.gaps.contains(&"epoch".to_owned()), "{user} was told that data may be lost: {:?}", seen.gaps);
    }
    node.wait_readyz(200).await;
}

// A server numbers its connections from 1 again when it starts: the number of a node's lost one is somebody else's then.
#[tokio::test]
async fn a_node_that_connects_to_a_restarted_redis_ends_nobody_elses_connection() {
    let (mut redis, node) = redis_and_node().await;
    node.sigstop();
    redis.restart().await;
    let mut others = Vec::new();
    // Far more than a node without sessions has opened by then.
    for _ in 0..100 {
        others.push(redis.connection().await);
    }
    node.sigcont();
    eventually("the node has connected anew", async || {
        (node.metric("homing_redis_reconnects_total").await >= Some(1.0)).then_some(())
    })
    .await;
    node.wait_readyz(200).await;
    for other in &mut others {
        redis::cmd("PING").query_async::<String>(other).await.expect("the connection is still there");
    }
}

#[tokio::test]
async fn a_restart_with_fsync_always_keeps_the_epoch() {
    let mut redis =
        Redis::start(RedisOptions { args: vec!["--appendfsync", "always"], ..RedisOptions::default() }).await;
    let node = Node::start(&redis, NodeOptions::default()).await;
    let before = Client::connect(&node, "alice", "web-1", confirming()).await.ready().epoch.clone();
    redis.restart().await;
    node.wait_readyz(200).await;
    let mut after = Client::connect(&node, "alice", "web-1", confirming()).await;
    after.round_trip().await;
    assert_eq!(after.ready().epoch, before);
    assert_eq!(after.take_frame("gap"), None);
}

#[tokio::test]
async fn a_live_session_hears_of_a_new_epoch_and_goes_on() {
    let (mut redis, node) = redis_and_node().await;
    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    let before = redis.publish("alice", "before").await;
    assert_eq!(client.next_message().await.id, before);
    redis.restart().await;
    let gap = client.expect_frame("gap").await;
    assert_eq!(gap["reason"], "epoch");
    assert_ne!(gap["epoch"], json!(client.ready().epoch));
    let after = redis.publish("alice", "after").await;
    loop {
        let message = client.next_message().await;
        client.ack(&[&message.id]).await;
        if message.id == after {
            break;
        }
        assert_eq!(message.id, before, "what was not acknowledged comes again");
    }
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_taken_into_service_with_a_gap() {
    let (mut redis, node) = redis_and_node().await;
    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    let id = redis.publish("alice", "1").await;
    client.next_message().await;
    client.ack_confirmed(&[&id]).await;
    redis.restart_empty().await;
    let gap = client.expect_frame("gap").await;
    assert_eq!(gap["reason"], "epoch");
    eventually("the node loads its functions and knows the device again", async || {
        redis.device("alice", "web-1").await.map(|_| ())
    })
    .await;
    let id = node.publish("alice", json!("after")).await;
    assert_eq!(client.next_message().await.id, id);
    client.ack_confirmed(&[&id]).await;
}

#[tokio::test]
async fn a_group_that_was_destroyed_under_a_live_session_is_made_again_with_a_gap() {
    let (redis, node) = redis_and_node().await;
    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    let epoch = client.ready().epoch.clone();
    redis.query::<u64>(&["XGROUP", "DESTROY", INBOX, "web-1"]).await;
    let id = redis.publish("alice", "after").await;
    assert_eq!(client.next_message().await.id, id);
    let gap = client.expect_frame("gap").await;
    assert_eq!(gap["reason"], "epoch");
    assert_ne!(gap["epoch"], json!(epoch), "the inbox incarnation was raised");
    client.ack_confirmed(&[&id]).await;
}

#[tokio::test]
async fn an_inbox_that_was_deleted_under_known_devices_goes_on_with_a_gap() {
    let (redis, node) = redis_and_node().await;
    let mut online = Client::connect(&node, "alice", "online", confirming()).await;
    Client::connect(&node, "alice", "offline", confirming()).await.close().await;
    redis.publish("alice", "gone").await;
    online.next_message().await;
    redis.query::<u64>(&["DEL", INBOX]).await;
    let id = redis.publish("alice", "after").await;
    loop {
        let message = online.next_message().await;
        if message.id == id {
            break;
        }
    }
    assert_eq!(online.expect_frame("gap").await["reason"], "epoch");
    let mut offline = Client::connect(&node, "alice", "offline", confirming()).await;
    assert_eq!(offline.next_message().await.id, id);
    assert_eq!(offline.expect_frame("gap").await["reason"], "epoch");
}

#[tokio::test]
async fn a_device_that_vanished_from_the_hash_is_closed_as_removed() {
    let (redis, node) = redis_and_node().await;
    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    redis.query::<u64>(&["DEL", INBOX, "homing:{alice}:devices"]).await;
    redis.publish("alice", "1").await;
    client.expect_close_code(4011).await;
}

#[tokio::test]
async fn notification_flags_are_added_to_those_that_others_have_set() {
    let redis =
        Redis::start(RedisOptions { args: vec!["--notify-keyspace-events", "Ex"], ..RedisOptions::default() }).await;
    let _node = Node::start(&redis, NodeOptions::default()).await;
    let flags = redis.config("notify-keyspace-events").await;
    assert!("ExKt".chars().all(|flag| flags.contains(flag)), "{flags}");
}

#[tokio::test]
async fn notification_flags_that_are_cleared_under_a_running_node_are_restored() {
    let (redis, node) = redis_and_node().await;
    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    redis.config_set("notify-keyspace-events", "").await;
    // No event announces this one.
    let id = redis.publish("alice", "unannounced").await;
    assert_eq!(client.next_message().await.id, id);
    eventually("the flags are set again", async || {
        let flags = redis.config("notify-keyspace-events").await;
        "Kt".chars().all(|flag| flags.contains(flag)).then_some(())
    })
    .await;
    let id = redis.publish("alice", "announced").await;
    assert_eq!(client.next_message().await.id, id);
    eventually("the repair is counted", async || {
        (node.metric("homing_notification_flags_restored_total").await >= Some(1.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn functions_that_are_flushed_under_a_running_node_are_loaded_again() {
    let (redis, node) = redis_and_node().await;
    let mut before = Client::connect(&node, "alice", "web-1", confirming()).await;
    redis.query::<()>(&["FUNCTION", "FLUSH"]).await;
    let (status, answer) = node.post("/v1/users/alice/messages", &json!({ "data": 1, "key": "k" })).await;
    assert_eq!(status, 201, "{answer}");
    before.next_message().await;
    redis.query::<()>(&["FUNCTION", "FLUSH"]).await;
    let mut after = Client::connect(&node, "alice", "web-1", confirming()).await;
    assert_eq!(after.next_message().await.json(), 1);
    before.expect_close_code(4009).await;
}

// Trimming is what frees the memory: if it were refused as well, nobody would ever get out of this.
#[tokio::test]
async fn redis_out_of_memory_refuses_publishes_until_the_backlog_is_acknowledged() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default().set("trim_delay", "50ms")).await;
    let options = ConnectOptions { window: Some(1_024), ..confirming() };
    let mut client = Client::connect(&node, "alice", "web-1", options).await;
    let info: String = redis.query(&["INFO", "memory"]).await;
    let used: u64 = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok())
        .expect("INFO memory has used_memory");
    redis.config_set("maxmemory", &(used + 3 * 1024 * 1024).to_string()).await;

    let body = json!({ "data": "x".repeat(8_000) });
    let mut accepted = 0;
    let problem = loop {
        let response = node.request(reqwest::Method::POST, "/v1/users/alice/messages").json(&body).send().await;
        let response = response.expect("the node answers");
        if response.status().as_u16() == 201 {
            accepted += 1;
            assert!(accepted < 2_000, "the memory limit has no effect");
            continue;
        }
        assert_eq!(response.status().as_u16(), 503);
        assert!(response.headers().contains_key("retry-after"));
        break response.json::<Value>().await.expect("a problem document");
    };
    assert_eq!(problem["code"], "unavailable");
    assert!(accepted > 20, "{accepted}");

    // A new device can still attach, and the backlog can be read and acknowledged.
    let mut taken = 0;
    while taken < accepted {
        let message = client.next_message().await;
        client.ack(&[&message.id]).await;
        taken += 1;
    }
    eventually("a publish is accepted again", async || {
        (node.post("/v1/users/alice/messages", &json!({ "data": 1 })).await.0 == 201).then_some(())
    })
    .await;
    assert_eq!(client.next_message().await.json(), 1);
}

#[tokio::test]
async fn a_paused_redis_answers_unknown_and_a_retry_with_a_key_publishes_once() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default().set("redis_reply_timeout", "500ms")).await;
    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    publish_surely(&node, "alice", "before").await;
    assert_eq!(client.next_message().await.json(), "before");
    redis.pause();
    let (status, problem) = node.post("/v1/users/alice/messages", &json!({ "data": "once", "key": "k" })).await;
    assert_eq!((status, &problem["code"]), (504, &json!("outcome_unknown")), "{problem}");
    redis.resume();
    let id = publish_surely(&node, "alice", "k").await;
    let message = client.next_message().await;
    assert_eq!(message.id, id);
    publish_surely(&node, "alice", "marker").await;
    assert_eq!(client.messages_until("marker").await.len(), 1, "whichever body won, it came once");
}

#[tokio::test]
async fn a_redis_that_is_away_answers_503_and_a_node_waits_for_it() {
    let (mut redis, node) = redis_and_node().await;
    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    node.publish("alice", json!("before")).await;
    redis.kill9();
    eventually("publishes are refused", async || {
        let (status, problem) = node.post("/v1/users/alice/messages", &json!({ "data": 1 })).await;
        // One may be on its way when the connection breaks.
        assert!(matches!(status, 503 | 504), "{status} {problem}");
        (status == 503).then_some(())
    })
    .await;
    node.wait_readyz(503).await;
    client.round_trip().await;
    redis.start_again().await;
    node.wait_readyz(200).await;
    publish_surely(&node, "alice", "after").await;
    client.messages_until("after").await;
}

// As it is behind a balancer: connections are accepted and reset.
#[tokio::test]
async fn a_redis_whose_connections_are_reset_never_answers_201() {
    let redis = Redis::start(RedisOptions::default()).await;
    let proxy = TcpProxy::start(redis.address()).await;
    let node = Node::start(&redis, NodeOptions::default().redis_url(proxy.redis_url())).await;
    node.publish("alice", json!("before")).await;
    proxy.set(Weather::Refusing);
    for _ in 0..20 {
        let (status, problem) = node.post("/v1/users/alice/messages", &json!({ "data": 1 })).await;
        assert!(matches!(status, 503 | 504), "{status} {problem}");
    }
    proxy.set(Weather::Fair);
    publish_surely(&node, "alice", "after").await;
}

// PING works, events do not: a health check by PING would stay green for ever.
#[tokio::test]
async fn a_node_whose_wake_ups_cannot_be_switched_on_says_so() {
    let redis = Redis::start(RedisOptions::default()).await;
    redis.query::<()>(&["ACL", "SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all", "-config", "-acl"]).await;
    let url = format!("redis://limited:pw@{}/0", redis.address());
    let node = Node::launch(Some(&redis), NodeOptions::default().redis_url(url));
    eventually("the operator is told what is missing", async || {
        node.output().contains("notify-keyspace-events").then_some(())
    })
    .await;
    node.wait_readyz(503).await;
    redis.config_set("notify-keyspace-events", "Kt").await;
    node.wait_readyz(200).await;
}

#[tokio::test]
async fn a_redis_that_evicts_keys_is_refused_at_start_unless_allowed() {
    let redis =
        Redis::start(RedisOptions { args: vec!["--maxmemory-policy", "allkeys-lru"], ..RedisOptions::default() }).await;
    let mut refused = Node::launch(Some(&redis), NodeOptions::default());
    let status = refused.wait_exit().await;
    assert!(!status.success());
    assert!(refused.output().contains("allkeys-lru"), "{}", refused.output());
    let _allowed = Node::start(&redis, NodeOptions::default().set("allow_eviction", "true")).await;
}

#[tokio::test]
async fn a_schema_newer_than_the_program_is_refused() {
    let redis = Redis::start(RedisOptions::default()).await;
    redis.query::<()>(&["SET", "homing:schema", "999"]).await;
    let mut node = Node::launch(Some(&redis), NodeOptions::default());
    assert!(!node.wait_exit().await.success());
    assert!(node.output().contains("999"), "{}", node.output());
}

#[tokio::test]
async fn connections_that_vanish_without_a_word_are_made_anew() {
    let redis = Redis::start(RedisOptions::default()).await;
    let proxy = TcpProxy::start(redis.address()).await;
    let options = NodeOptions::default().redis_url(proxy.redis_url()).set("redis_reply_timeout", "1s");
    let node = Node::start(&redis, options).await;
    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    for round in 0..2 {
        proxy.strand_all();
        let id = redis.publish("alice", &round.to_string()).await;
        assert_eq!(client.next_message().await.id, id);
        client.ack_confirmed(&[&id]).await;
    }
}

#[tokio::test]
async fn a_release_that_redis_refuses_is_not_repeated_in_haste() {
    let (redis, node) = redis_and_node().await;
    let channels: Vec<String> = redis.query(&["PUBSUB", "CHANNELS", "homing:node:*"]).await;
    redis.config_set("min-replicas-to-write", "1").await;
    let superseded = json!({ "kind": "superseded", "user": "bob", "device": "d", "generation": "1" });
    let _: i64 = redis.query(&["PUBLISH", &channels[0], &superseded.to_string()]).await;
    let calls = async || -> u64 {
        let stats: String = redis.query(&["INFO", "commandstats"]).await;
        let line = stats.lines().find(|line| line.starts_with("cmdstat_fcall:")).unwrap_or_default().to_owned();
        let of = |name: &str| line.split(',').find_map(|part| part.strip_prefix(name)?.trim().parse::<u64>().ok());
        of("rejected_calls=").unwrap_or(0) + of("failed_calls=").unwrap_or(0)
    };
    eventually("a release is refused", async || (calls().await > 0).then_some(())).await;
    let before = calls().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let repeated = calls().await - before;
    assert!(repeated < 100, "{repeated} refused calls in a second");
    drop(node);
}
