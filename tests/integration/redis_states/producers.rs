//! What producers are answered.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Scene, State};
use crate::harness::redis_server::inbox;
use crate::harness::{NodeOptions, eventually};

/// 503 with `Retry-After` for a single message, one with a key, and each of a batch; none of them is in the inbox
/// afterwards. Another answer would make a producer give up what may be repeated, or believe what is not so.
pub(super) async fn are_told_to_try_again(state: State) {
    // One connection for publishes: each shard has its own, and the first publish on a broken one has an unknown outcome.
    let mut scene = Scene::start(state, NodeOptions::default().set("shards", "1")).await;
    let before = scene.node.publish("alice", json!("before")).await;
    scene.enter().await;
    if state.breaks_connections() {
        eventually("the node has noticed that its connection broke", async || {
            let (status, problem) = post(&scene, "/v1/users/alice/messages", &json!({ "data": "unknown" })).await.0;
            assert!(matches!(status, 503 | 504), "{status} {problem}");
            problem["detail"].as_str()?.contains(state.code()).then_some(())
        })
        .await;
    }
    for body in [json!({ "data": "refused" }), json!({ "data": "refused", "key": "k" })] {
        // The second time finds what the first may have left behind: an entry, or a key.
        for _ in 0..2 {
            let (answer, retry_after) = post(&scene, "/v1/users/alice/messages", &body).await;
            assert_refusal(state, &answer);
            assert!(retry_after.is_some_and(|seconds| (1..=60).contains(&seconds)), "Retry-After: {retry_after:?}");
        }
    }
    let messages = json!([
        { "user": "alice", "data": "refused" },
        { "user": "alice", "data": "refused", "key": "k" },
        { "user": "bob", "data": "refused" },
    ]);
    let ((status, answer), _) = post(&scene, "/v1/messages", &json!({ "messages": messages })).await;
    assert_eq!(status, 200, "{answer}");
    let results = answer["results"].as_array().expect("a batch has a result for each message");
    assert_eq!(results.len(), 3);
    for result in results {
        let status = result["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        assert_refusal(state, &(status.expect("a result has a status"), result.clone()));
        assert!(result["retry_after_ms"].as_u64() > Some(0), "{result}");
    }

    scene.leave().await;
    let after = eventually("the key publishes for the first time", async || {
        let body = json!({ "data": "after", "key": "k" });
        let ((status, answer), _) = post(&scene, "/v1/users/alice/messages", &body).await;
        match status {
            201 => answer["id"].as_str().map(ToOwned::to_owned),
            503 | 504 => None,
            _ => panic!("{status} {answer}"),
        }
    })
    .await;
    let entries: Vec<(String, Vec<(String, String)>)> = scene.redis.query(&["XRANGE", &inbox("alice"), "-", "+"]).await;
    let data = |entry: &(String, Vec<(String, String)>)| {
        let data = entry.1.iter().find(|(field, _)| field == "data");
        data.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let kept: Vec<&str> =
        entries.iter().filter(|entry| data(entry) != r#""unknown""#).map(|entry| entry.0.as_str()).collect();
    assert_eq!(kept, [before, after], "what was refused left something: {entries:?}");
    assert_eq!(scene.redis.inbox_length("bob").await, 0);
}

fn assert_refusal(state: State, (status, problem): &(u16, Value)) {
    assert_eq!((*status, &problem["code"]), (503, &json!("unavailable")), "{problem}");
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(state.code()), "the operator is told why: {detail}");
}

/// Status, body, and `Retry-After`.
async fn post(scene: &Scene, path: &str, body: &Value) -> ((u16, Value), Option<u64>) {
    let response = scene.node.request(Method::POST, path).json(body).send().await.expect("the node answers");
    let status = response.status().as_u16();
    let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    ((status, response.json().await.expect("a JSON document")), retry_after)
}
