//! Clients that read slowly, never ack, or send too much: Redis is the buffer, and nobody else pays.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions, eventually};

/// Resident memory of a process, in bytes.
fn resident_bytes(pid: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("the process runs on Linux");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("statm has a second number");
    pages * 4_096
}

#[tokio::test]
async fn a_slow_reader_is_buffered_in_redis_and_gets_everything_in_the_end() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default()).await;
    let options = ConnectOptions { window: Some(1_024), receive_buffer: Some(4_096), ..ConnectOptions::default() };
    let mut slow = Client::connect(&node, "slow", "d", options).await;
    let mut quick = Client::connect(&node, "quick", "d", ConnectOptions::default()).await;
    let before = resident_bytes(node.pid());
    let mut ids = Vec::new();
    for round in 0..20 {
        ids.extend(
            redis.publish_all("slow", (0..50).map(|number| format!("{round}-{number}-{}", "x".repeat(60_000)))).await,
        );
        let id = redis.publish("quick", "1").await;
        assert_eq!(quick.next_message().await.id, id, "others are not delayed");
        quick.ack(&[id]).await;
    }
    // 1,000 messages, 60 MB. In flight: at most 1 MiB by contract, and what one read may overshoot.
    let pending = redis.pending("slow", "d").await;
    assert!((1..=40).contains(&pending), "{pending} messages were read for a client that reads nothing");
    let grown = resident_bytes(node.pid()).saturating_sub(before);
    assert!(grown < 32 * 1024 * 1024, "the node grew by {grown} bytes");
    for id in &ids {
        let message = slow.next_message().await;
        assert_eq!(message.id, *id);
        slow.ack(&[id]).await;
    }
}

// The shard writes by itself as long as the socket takes it; of the message at which it does not, somebody must write the
// rest although nothing else happens.
#[tokio::test]
async fn what_does_not_fit_into_a_socket_any_more_arrives_when_the_client_reads() {
    const SIZE: usize = 200_000;
    let redis = Redis::start(RedisOptions::default()).await;
    let options = NodeOptions::default().set("payload_bytes_max", "256KiB").set("in_flight_bytes_max", "64MiB");
    let node = Node::start(&redis, options.set("heartbeat", "5m")).await;
    let options = ConnectOptions { window: Some(1_024), receive_buffer: Some(4_096), ..ConnectOptions::default() };
    let mut client = Client::connect(&node, "alice", "d", options).await;
    let mut ids = Vec::new();
    // One at a time, so that each is written alone, until one is not read any more: the socket is full.
    loop {
        ids.push(redis.publish("alice", &"x".repeat(SIZE)).await);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
        while redis.pending("alice", "d").await < ids.len() as u64 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if redis.pending("alice", "d").await < ids.len() as u64 {
            break;
        }
        assert!(ids.len() < 300, "the socket takes 60 MB");
    }
    for id in &ids {
        let message = client.next_message().await;
        assert_eq!((&message.id, message.text().len()), (id, SIZE));
    }
}

#[tokio::test]
async fn a_client_that_never_acks_gets_its_window_again_and_again_and_nothing_else() {
    let redis = Redis::start(RedisOptions::default()).await;
    let options = NodeOptions::default().set("ack_timeout", "150ms").set("ack_timeout_max", "300ms");
    let node = Node::start(&redis, options).await;
    let options = ConnectOptions { window: Some(4), confirm: true, ..ConnectOptions::default() };
    let mut client = Client::connect(&node, "alice", "d", options).await;
    let ids = redis.publish_all("alice", (0..100).map(|number| number.to_string())).await;
    let mut attempts = [0; 4];
    while attempts.iter().any(|attempt| *attempt < 4) {
        let message = client.next_message().await;
        let position = ids.iter().position(|id| *id == message.id).expect("it was published");
        assert!(position < 4, "beyond the window");
        assert!(message.attempt > attempts[position], "attempts grow");
        attempts[position] = message.attempt;
    }
    assert_eq!(redis.pending("alice", "d").await, 4);
    assert_eq!(redis.inbox_length("alice").await, 100);
    // It comes to its senses.
    for id in &ids {
        loop {
            let message = client.next_message().await;
            client.ack(&[&message.id]).await;
            if message.id == *id {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_sends_too_many_frames_is_closed_and_told_when_to_return() {
    let redis = Redis::start(RedisOptions::default()).await;
    let options = NodeOptions::default().set("frames_per_second", "10").set("frames_burst", "50");
    let node = Node::start(&redis, options).await;
    let mut loud = Client::connect(&node, "loud", "d", ConnectOptions::default()).await;
    let mut calm = Client::connect(&node, "calm", "d", ConnectOptions::default()).await;
    for _ in 0..200 {
        loud.send(json!({ "type": "ping" })).await;
    }
    loud.expect_close_code(4129).await;
    let error = loud.take_frame("error").expect("it was told why");
    assert_eq!(error["code"], "rate_limited");
    assert!(error["retry_after_ms"].is_u64(), "{error}");
    calm.round_trip().await;
}

#[tokio::test]
async fn a_client_that_vanishes_in_the_middle_of_a_large_backlog_can_return() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default()).await;
    let ids = redis.publish_all("alice", (0..200).map(|number| format!("{number}-{}", "x".repeat(20_000)))).await;
    for _ in 0..5 {
        let options = ConnectOptions { receive_buffer: Some(4_096), ..ConnectOptions::default() };
        let mut client = Client::connect(&node, "alice", "d", options).await;
        client.next_message().await;
        client.reset();
    }
    let mut client = Client::connect(&node, "alice", "d", ConnectOptions::default()).await;
    for id in &ids {
        assert_eq!(client.next_message().await.id, *id);
        client.ack(&[id]).await;
    }
}

#[tokio::test]
async fn a_backlog_of_large_messages_gets_through_to_a_client_with_a_large_window() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default()).await;
    let ids = redis.publish_all("alice", (0..300).map(|number| format!("{number}-{}", "x".repeat(60_000)))).await;
    let options = ConnectOptions { window: Some(1_024), receive_buffer: Some(4_096), ..ConnectOptions::default() };
    let mut client = Client::connect(&node, "alice", "d", options).await;
    for id in &ids {
        assert_eq!(client.next_message().await.id, *id);
        client.ack(&[id]).await;
    }
}

#[tokio::test]
async fn a_closed_client_that_reads_nothing_gives_its_place_back() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default().set("sessions_max", "2")).await;
    redis.publish_all("alice", (0..60).map(|number| format!("{number}-{}", "x".repeat(60_000)))).await;
    let options = ConnectOptions { receive_buffer: Some(4_096), ..ConnectOptions::default() };
    let _deaf = Client::connect(&node, "alice", "d", options).await;
    eventually("its messages were read", async || (redis.pending("alice", "d").await > 0).then_some(())).await;
    let _newer = Client::connect(&node, "alice", "d", ConnectOptions::default()).await;
    eventually("a place for another session", async || {
        Client::try_connect(node.address(), "bob", "d", ConnectOptions::default()).await.ok()
    })
    .await;
}

#[tokio::test]
async fn answers_to_a_client_that_reads_nothing_do_not_pile_up() {
    let redis = Redis::start(RedisOptions::default()).await;
    let options = NodeOptions::default().set("frames_per_second", "10000").set("frames_burst", "10000");
    let node = Node::start(&redis, options).await;
    let options = ConnectOptions { confirm: true, receive_buffer: Some(4_096), ..ConnectOptions::default() };
    let mut deaf = Client::connect(&node, "deaf", "d", options).await;
    let id = redis.publish("deaf", "1").await;
    deaf.next_message().await;
    let before = resident_bytes(node.pid());
    // Each is answered by as many bytes as it has.
    let ids = vec![id; 500];
    let _ = tokio::time::timeout(Duration::from_secs(10), async {
        for _ in 0..9_000 {
            deaf.ack(&ids).await;
        }
    })
    .await;
    let grown = resident_bytes(node.pid()).saturating_sub(before);
    assert!(grown < 16 * 1024 * 1024, "the node grew by {grown} bytes");
}

#[tokio::test]
async fn beyond_the_sessions_a_node_may_hold_a_client_is_refused_and_the_others_stay() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default().set("sessions_max", "3")).await;
    let mut clients = Vec::new();
    for number in 0..3 {
        clients.push(Client::connect(&node, &format!("u{number}"), "d", ConnectOptions::default()).await);
    }
    let refused = Client::try_connect(node.address(), "u3", "d", ConnectOptions::default()).await;
    assert!(refused.is_err());
    for client in &mut clients {
        client.round_trip().await;
    }
}
