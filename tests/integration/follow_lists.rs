//! The lists of a topic's followers, which are written after what the user follows.

use reqwest::Method;
use serde_json::json;

use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions};

const FOLLOW: &str = "/v1/topics/news/followers/alice";

async fn put(node: &Node) -> (u16, serde_json::Value) {
    node.call(Method::PUT, FOLLOW, None).await
}

#[tokio::test]
async fn a_follow_that_could_not_be_listed_says_so_holds_and_is_listed_when_it_is_repeated() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default()).await;
    let mut alice = Client::connect(&node, "alice", "web", ConnectOptions::default()).await;
    redis.query::<()>(&["ACL", "SETUSER", "default", "-sadd"]).await;
    let (status, problem) = put(&node).await;
    assert_eq!((status, problem["code"].as_str()), (504, Some("outcome_unknown")), "{problem}");
    let detail = problem["detail"].as_str().expect("a text");
    assert!(
        detail.starts_with("what the user follows is changed, but not listed") && detail.contains("sadd"),
        "{detail}"
    );
    let (_, followed) = node.get("/v1/users/alice/topics").await;
    assert_eq!(followed["topics"][0]["topic"], "news", "{followed}");
    let (status, sent) = node.post("/v1/topics/news/messages", &json!({ "data": "held" })).await;
    assert_eq!((status, alice.next_message().await.json()), (201, json!("held")), "{sent}");
    assert_eq!(node.get("/v1/topics/news/followers").await.1["items"], json!([]));

    redis.query::<()>(&["ACL", "SETUSER", "default", "+sadd"]).await;
    assert_eq!(put(&node).await, (200, json!({ "changed": false })));
    assert_eq!(node.get("/v1/topics/news/followers").await.1["items"], json!([{ "user": "alice" }]));
}

#[tokio::test]
async fn a_list_of_followers_of_another_type_is_told() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default()).await;
    redis.query::<()>(&["SET", "homing:topic:{news}:followers", "no set"]).await;
    let asked = [put(&node).await, node.get("/v1/topics/news/followers").await];
    for (status, problem) in asked {
        assert_eq!((status, problem["code"].as_str()), (409, Some("inbox_unusable")), "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("or topic")), "{problem}");
    }
}
