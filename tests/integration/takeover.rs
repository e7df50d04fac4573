//! Several nodes on one Redis: whoever dies, stops or drains, the next node has what is not acknowledged.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::proxy::Weather;
use crate::harness::wait::eventually_within;
use crate::harness::{Client, ConnectOptions, Follower, Node, NodeOptions, Redis, RedisOptions, TcpProxy, eventually};

/// Two nodes whose ack time-out is so long that it saves nothing.
async fn two_nodes() -> (Redis, Node, Node) {
    let options = || NodeOptions::default().set("ack_timeout", "1h").set("ack_timeout_max", "2h");
    let redis = Redis::start(RedisOptions::default()).await;
    let first = Node::start(&redis, options()).await;
    let second = Node::start(&redis, options()).await;
    (redis, first, second)
}

fn confirming() -> ConnectOptions {
    ConnectOptions { confirm: true, ..ConnectOptions::default() }
}

fn numbers(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| number.to_string())
}

#[tokio::test]
async fn a_device_that_moves_to_another_node_gets_exactly_what_it_has_not_acknowledged() {
    let (redis, first, second) = two_nodes().await;
    let mut before = Client::connect(&first, "alice", "web-1", confirming()).await;
    let ids = redis.publish_all("alice", numbers(10)).await;
    before.next_messages(10).await;
    before.ack_confirmed(&[&ids[0], &ids[2], &ids[9]]).await;

    let start = Instant::now();
    let mut after = Client::connect(&second, "alice", "web-1", confirming()).await;
    let again = after.next_messages(7).await;
    let took = start.elapsed();
    before.expect_close_code(4009).await;
    assert!(after.ready().generation > before.ready().generation);
    assert_eq!(after.ready().epoch, before.ready().epoch);
    let expected: Vec<&String> = [1, 3, 4, 5, 6, 7, 8].iter().map(|position| &ids[*position]).collect();
    assert_eq!(again.iter().map(|message| &message.id).collect::<Vec<_>>(), expected);
    assert!(again.iter().all(|message| message.attempt >= 2));
    // The claim is 1 s; this machine may be busy with other tests.
    assert!(took < Duration::from_secs(5), "{took:?}");

    redis.publish("alice", "marker").await;
    assert_eq!(after.messages_until("marker").await.len(), 1);
    eventually("the takeover is counted", async || {
        (second.metric("homing_takeovers_total").await? >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_device_may_bounce_between_nodes_while_messages_arrive() {
    let (redis, first, second) = two_nodes().await;
    let follower = Follower::start(&[first.address(), second.address()], "alice", "web-1");
    follower.connected().await;
    let mut ids = Vec::new();
    for round in 0..20 {
        ids.extend(redis.publish_all("alice", (0..50).map(|number| format!("{round}:{number}"))).await);
        follower.move_on();
        let count = ids.len() - 25;
        follower.wait_count(count, Duration::from_secs(60)).await;
    }
    let seen = follower.finish(&redis, "alice", "web-1", ids.len()).await;
    seen.assert_complete(&ids);
    assert!(seen.connections > 10, "{}", seen.connections);
    println!("{} messages, {} deliveries, {} connections", ids.len(), seen.deliveries, seen.connections);
}

#[tokio::test]
async fn a_node_that_is_killed_in_the_middle_of_delivery_loses_nothing() {
    let (redis, mut first, second) = two_nodes().await;
    let users: Vec<String> = (0..10).map(|number| format!("user-{number}")).collect();
    let nodes = [first.address(), second.address()];
    let followers: Vec<Follower> = users.iter().map(|user| Follower::start(&nodes, user, "d")).collect();
    for follower in &followers {
        follower.connected().await;
    }
    let mut published = vec![Vec::new(); users.len()];
    for round in 0..20 {
        for (ids, user) in published.iter_mut().zip(&users) {
            ids.extend(redis.publish_all(user, (0..20).map(|number| format!("{round}:{number}"))).await);
        }
        if round == 10 {
            first.kill9();
        }
    }
    for ((follower, user), ids) in followers.into_iter().zip(&users).zip(&published) {
        let seen = follower.finish(&redis, user, "d", ids.len()).await;
        seen.assert_complete(ids);
        assert!(seen.connections >= 2, "{user} was never moved");
    }
}

// While the node was stopped, the janitor judged it dead and struck it from its devices' records. When it wakes up it
// goes on; unless its records name it again, it is online to nobody and hears of no take-over.
#[tokio::test]
async fn a_stopped_node_that_was_judged_dead_is_the_owner_again_when_it_wakes_up() {
    let redis = Redis::start(RedisOptions::default()).await;
    let first = Node::start(&redis, NodeOptions::default().set("janitor_pause", "1h")).await;
    let mut client = Client::connect(&first, "alice", "web-1", confirming()).await;
    let owner = async || redis.device("alice", "web-1").await.map(|record| record["owner"].clone());
    let before = owner().await;
    first.sigstop();
    // The first node has the janitor's lock; it expires.
    let second = Node::start(&redis, NodeOptions::default().set("janitor_pause", "100ms")).await;
    eventually_within(Duration::from_secs(90), "the janitor strikes the stopped node", async || {
        (owner().await? == json!("")).then_some(())
    })
    .await;
    first.sigcont();
    eventually("the node names itself again", async || (owner().await == before).then_some(())).await;
    let mut after = Client::connect(&second, "alice", "web-1", confirming()).await;
    client.expect_close_code(4009).await;
    redis.publish("alice", "marker").await;
    assert_eq!(after.messages_until("marker").await.len(), 1);
}

// The node wakes up and believes that it still owns the device: what it reads then must reach the new owner.
#[tokio::test]
async fn a_stopped_node_that_wakes_up_takes_nothing_from_the_new_owner() {
    let (redis, first, second) = two_nodes().await;
    let mut zombie = Client::connect(&first, "alice", "web-1", confirming()).await;
    let early = redis.publish_all("alice", numbers(5)).await;
    zombie.next_messages(5).await;

    first.sigstop();
    // Wake-ups collect in the stopped node's socket.
    let while_stopped = redis.publish_all("alice", numbers(5)).await;
    let mut owner = Client::connect(&second, "alice", "web-1", confirming()).await;
    let got = owner.next_messages(10).await;
    assert_eq!(
        got.iter().map(|message| &message.id).collect::<Vec<_>>(),
        early.iter().chain(&while_stopped).collect::<Vec<_>>()
    );
    let late = redis.publish_all("alice", numbers(5)).await;

    first.sigcont();
    let more = redis.publish_all("alice", numbers(50)).await;
    zombie.expect_close_code(4009).await;
    let mut missing: std::collections::HashSet<&String> = late.iter().chain(&more).collect();
    while !missing.is_empty() {
        let message = owner.next_message().await;
        missing.remove(&message.id);
        owner.ack_confirmed(&[&message.id]).await;
    }
    owner.ack_confirmed(&early).await;
    owner.ack_confirmed(&while_stopped).await;
    redis.publish("alice", "marker").await;
    owner.messages_until("marker").await;
    eventually("nothing is pending", async || (redis.pending("alice", "web-1").await == 0).then_some(())).await;
}

// An ack that the stopped node had buffered is of an older generation: it may count, but is not confirmed.
#[tokio::test]
async fn a_stopped_node_delays_nobody_who_moves_to_another() {
    let (redis, first, second) = two_nodes().await;
    let mut stuck = Client::connect(&first, "alice", "web-1", confirming()).await;
    first.sigstop();
    let ids = redis.publish_all("alice", numbers(100)).await;
    let start = Instant::now();
    let mut moved = Client::connect(&second, "alice", "web-1", confirming()).await;
    for id in &ids {
        assert_eq!(moved.next_message().await.id, *id);
        moved.ack(&[id]).await;
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    first.sigcont();
    stuck.expect_close_code(4009).await;
    assert_eq!(moved.closed(), None);
}

#[tokio::test]
async fn a_node_that_loses_its_connections_to_redis_again_and_again_loses_nothing() {
    let redis = Redis::start(RedisOptions::default()).await;
    let proxy = TcpProxy::start(redis.address()).await;
    let node = Node::start(&redis, NodeOptions::default().redis_url(proxy.redis_url())).await;
    let follower = Follower::start(&[node.address()], "alice", "web-1");
    follower.connected().await;
    let mut ids = Vec::new();
    for round in 0..10 {
        ids.extend(redis.publish_all("alice", (0..50).map(|number| format!("{round}:{number}"))).await);
        proxy.reset_all();
        ids.extend(redis.publish_all("alice", (50..100).map(|number| format!("{round}:{number}"))).await);
        follower.wait_count(ids.len() - 60, Duration::from_secs(60)).await;
    }
    follower.finish(&redis, "alice", "web-1", ids.len()).await.assert_complete(&ids);
}

// The commands run, the answers never come: entries sit in the pending list and nobody has seen them.
#[tokio::test]
async fn reads_whose_answers_are_lost_are_delivered_later() {
    let redis = Redis::start(RedisOptions::default()).await;
    let proxy = TcpProxy::start(redis.address()).await;
    let options = NodeOptions::default().redis_url(proxy.redis_url()).set("redis_reply_timeout", "1s");
    let node = Node::start(&redis, options).await;
    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    proxy.set(Weather::AnswersLost);
    let lost = redis.publish("alice", "lost").await;
    // No wake-up can arrive now; what is lost is what the node asks by itself. Then the network breaks for good.
    eventually("the node is not ready", async || (node.readyz().await == Some(503)).then_some(())).await;
    proxy.set(Weather::Refusing);
    proxy.set(Weather::Fair);
    let message = client.next_message().await;
    assert_eq!(message.id, lost);
    client.ack_confirmed(&[&lost]).await;
    node.wait_readyz(200).await;
}

// Answers that come 50 ms late keep many commands in flight at a time: order and acks must not suffer.
#[tokio::test]
async fn a_redis_that_is_far_away_changes_nothing_but_the_time() {
    let redis = Redis::start(RedisOptions::default()).await;
    let proxy = TcpProxy::start(redis.address()).await;
    let node = Node::start(&redis, NodeOptions::default().redis_url(proxy.redis_url())).await;
    proxy.set(Weather::Late(Duration::from_millis(50)));
    let follower = Follower::start(&[node.address()], "alice", "web-1");
    follower.connected().await;
    let mut ids = Vec::new();
    for round in 0..20 {
        ids.extend(redis.publish_all("alice", (0..20).map(|number| format!("{round}:{number}"))).await);
    }
    let seen = follower.finish(&redis, "alice", "web-1", ids.len()).await;
    seen.assert_complete(&ids);
    assert_eq!(seen.deliveries, 400, "nothing was delivered twice");
}

#[tokio::test]
async fn a_node_that_is_cut_off_from_redis_is_not_ready_and_keeps_its_sockets() {
    let redis = Redis::start(RedisOptions::default()).await;
    let proxy = TcpProxy::start(redis.address()).await;
    let node = Node::start(&redis, NodeOptions::default().redis_url(proxy.redis_url())).await;
    let mut client = Client::connect(&node, "alice", "web-1", confirming()).await;
    proxy.set(Weather::Silent);
    node.wait_readyz(503).await;
    client.round_trip().await;
    let id = redis.publish("alice", "1").await;
    proxy.set(Weather::Fair);
    assert_eq!(client.next_message().await.id, id);
    node.wait_readyz(200).await;
}

#[tokio::test]
async fn a_draining_node_says_so_flushes_acks_gives_its_devices_back_and_exits() {
    let redis = Redis::start(RedisOptions::default()).await;
    let options = NodeOptions::default()
        .set("drain_pause", "1s")
        .set("drain_spread", "500ms")
        .set("drain_grace", "20s")
        .set("ack_flush", "100ms");
    let mut first = Node::start(&redis, options).await;
    let second = Node::start(&redis, NodeOptions::default()).await;
    let mut clients = Vec::new();
    for number in 0..5 {
        clients.push(Client::connect(&first, &format!("user-{number}"), "d", ConnectOptions::default()).await);
    }
    let ids = redis.publish_all("user-0", numbers(3)).await;
    clients[0].next_messages(3).await;
    // Two acks in the buffer when the signal arrives.
    clients[0].ack(&ids[..2]).await;
    first.sigterm();
    first.wait_readyz(503).await;
    for client in &mut clients {
        client.expect_close_code(4112).await;
        let error = client.take_frame("error").expect("it was told why");
        assert_eq!(error["code"], "draining");
        assert!(error["retry_after_ms"].is_u64(), "{error}");
    }
    let status = first.wait_exit().await;
    assert!(status.success(), "{status}");
    for number in 0..5 {
        let device = redis.device(&format!("user-{number}"), "d").await.expect("it is known");
        assert_eq!(device["owner"], "", "ownership was released");
    }
    assert_eq!(redis.pending("user-0", "d").await, 1, "acks were flushed");
    let mut moved = Client::connect(&second, "user-0", "d", ConnectOptions::default()).await;
    assert_eq!(moved.next_message().await.id, ids[2]);
    let nodes: std::collections::HashMap<String, String> = redis.query(&["HGETALL", "homing:nodes"]).await;
    assert!(!nodes.is_empty(), "the living node is known");
}

#[tokio::test]
async fn a_deletion_on_one_node_closes_the_session_on_another() {
    let (_redis, first, second) = two_nodes().await;
    let mut client = Client::connect(&first, "alice", "web-1", ConnectOptions::default()).await;
    let (status, _) = second.delete("/v1/users/alice").await;
    assert!((200..300).contains(&status), "{status}");
    client.expect_close_code(4011).await;
}

#[tokio::test]
async fn two_prefixes_on_one_redis_do_not_meet() {
    let redis = Redis::start(RedisOptions::default()).await;
    let ours = Node::start(&redis, NodeOptions::default()).await;
    let theirs = Node::start(&redis, NodeOptions::default().set("prefix", "other")).await;
    let mut client = Client::connect(&ours, "alice", "web-1", ConnectOptions::default()).await;
    let mut other = Client::connect(&theirs, "alice", "web-1", ConnectOptions::default()).await;
    theirs.publish("alice", json!("theirs")).await;
    ours.publish("alice", json!("ours")).await;
    assert_eq!(client.next_message().await.json(), "ours");
    assert_eq!(other.next_message().await.json(), "theirs");
    assert_eq!(client.closed(), None);
}
