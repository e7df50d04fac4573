//! What producers who wait for an ack cost, and how many may.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::node::API_KEY;
use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions, eventually};

async fn redis_and_node() -> (Redis, Node) {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default().set("janitor_pause", "1h")).await;
    (redis, node)
}

/// Producers that wait for a user each, at a node; they hang up when this is dropped.
async fn wait_for_offline(node: &Node, count: usize, timeout_s: u64) -> JoinSet<(u16, Value)> {
    let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client needs nothing");
    let mut waiting = JoinSet::new();
    for number in 0..count {
        let path = format!("/v1/users/user-{number}/messages?wait=acked&timeout_s={timeout_s}");
        let request = http.post(format!("http://{}{path}", node.address())).bearer_auth(API_KEY);
        let request = request.json(&json!({ "data": "for later" }));
        waiting.spawn(async move {
            let answer = request.send().await.expect("the node answers");
            (answer.status().as_u16(), answer.json().await.expect("JSON"))
        });
    }
    eventually("all wait", async || {
        (node.metric("homing_producers_waiting").await == Some(count as f64)).then_some(())
    })
    .await;
    waiting
}

/// Commands that Redis executes within two seconds, those of functions included.
async fn commands_in_two_seconds(redis: &Redis) -> u64 {
    redis.query::<()>(&["CONFIG", "RESETSTAT"]).await;
    // What is measured is what happens in a time.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let stats = redis.query::<String>(&["INFO", "commandstats"]).await;
    let calls = stats.lines().filter_map(|line| line.split_once(":calls=")?.1.split(',').next()?.parse::<u64>().ok());
    calls.sum()
}

// Twenty that looked once a second would be forty commands, and many more with what a look takes.
#[tokio::test]
async fn producers_who_wait_cost_redis_nothing_until_they_are_woken_up_or_their_time_is_over() {
    let (redis, node) = redis_and_node().await;
    for number in 0..20 {
        let user = format!("user-{number}");
        Client::connect(&node, &user, "web", ConnectOptions::default()).await.close().await;
        eventually("it is offline", async || (redis.device(&user, "web").await?["owner"] == "").then_some(())).await;
    }
    let mut waiting = wait_for_offline(&node, 20, 6).await;
    let with = commands_in_two_seconds(&redis).await;
    assert_eq!(node.metric("homing_producers_waiting").await, Some(20.0), "they waited all the time");
    while let Some(answer) = waiting.join_next().await {
        let (status, answer) = answer.expect("no panic");
        assert_eq!((status, &answer["state"]), (201, &json!("accepted")), "{answer}");
    }
    let without = commands_in_two_seconds(&redis).await;
    println!("{with} commands in two seconds with 20 producers who wait, {without} without");
    assert!(with <= without + 10, "{with} with 20 producers who wait, {without} without");
}

// Each holds a connection; the rest is for those who do not wait.
#[tokio::test]
async fn one_producer_more_than_may_wait_is_refused_and_its_message_is_not_appended() {
    let (redis, node) = redis_and_node().await;
    let waiting = wait_for_offline(&node, 512, 60).await;
    let path = "/v1/users/alice/messages?wait=acked";
    let answer = node.request(Method::POST, path).json(&json!({ "data": 1 })).send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.headers().contains_key("retry-after")), (503, true));
    let problem: Value = answer.json().await.expect("JSON");
    let limit = json!({ "name": "waits_max", "value": 512 });
    assert_eq!((&problem["code"], &problem["limit"]), (&json!("overloaded"), &limit), "{problem}");
    assert_eq!(redis.inbox_length("alice").await, 0);
    node.publish("alice", json!("without waiting")).await;
    drop(waiting);
    eventually("a place is free", async || {
        let path = "/v1/users/alice/messages?wait=acked&timeout_s=1";
        (node.post(path, &json!({ "data": 1 })).await.0 == 201).then_some(())
    })
    .await;
}
