//! One message to many users, and messages for one device of several.

use serde_json::{Value, json};

use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions};

async fn redis_and_node() -> (Redis, Node) {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default()).await;
    (redis, node)
}

fn results(answer: &Value) -> &Vec<Value> {
    answer["results"].as_array().unwrap_or_else(|| panic!("no results: {answer}"))
}

#[tokio::test]
async fn one_request_reaches_10_000_users_and_bad_names_spoil_nobody_elses() {
    let (redis, node) = redis_and_node().await;
    let mut alice = Client::connect(&node, "user-5000", "web-1", ConnectOptions::default()).await;
    let mut users: Vec<Value> = (0..10_000).map(|number| json!(format!("user-{number}"))).collect();
    for (index, bad) in [(7, json!("no spaces")), (4_321, json!(4_321)), (9_999, json!(""))] {
        users[index] = bad;
    }
    let body = json!({ "users": users, "data": { "news": true }, "key": "news-1", "meta": { "from": "desk" } });
    let (status, answer) = node.post("/v1/messages", &body).await;
    assert_eq!(status, 200, "{answer}");
    let results = results(&answer);
    assert_eq!(results.len(), 10_000);
    for (index, result) in results.iter().enumerate() {
        match index {
            7 | 4_321 | 9_999 => {
                assert_eq!((&result["status"], &result["code"]), (&json!(400), &json!("bad_name")), "{index}");
            }
            _ => assert!(result["status"] == 201 && result["id"].is_string(), "{index}: {result}"),
        }
    }
    let message = alice.next_message().await;
    assert_eq!((json!(message.id), message.json()), (results[5_000]["id"].clone(), json!({ "news": true })));
    assert_eq!((message.key.as_deref(), message.meta), (Some("news-1"), Some(json!({ "from": "desk" }))));
    let (inboxes, lengths) = tokio::join!(redis.query::<Vec<String>>(&["KEYS", "homing:{*}:inbox"]), async {
        [redis.inbox_length("user-0").await, redis.inbox_length("user-9998").await]
    });
    assert_eq!((inboxes.len(), lengths), (9_997, [1, 1]));

    // The key is each user's own: a repetition appends to nobody and answers the first ids.
    let (status, again) = node.post("/v1/messages", &body).await;
    assert_eq!(status, 200);
    assert_eq!((&again["results"][0]["status"], &again["results"][0]["id"]), (&json!(200), &results[0]["id"]));
    assert_eq!(redis.inbox_length("user-0").await, 1);
}

#[tokio::test]
async fn a_large_message_reaches_many_users_in_pipelines_of_bounded_size() {
    let (redis, node) = redis_and_node().await;
    let users: Vec<String> = (0..300).map(|number| format!("user-{number}")).collect();
    let (status, answer) = node.post("/v1/messages", &json!({ "users": users, "data": "x".repeat(60_000) })).await;
    assert_eq!(status, 200);
    assert!(results(&answer).iter().all(|result| result["status"] == 201));
    for user in ["user-0", "user-299"] {
        assert_eq!(redis.inbox_length(user).await, 1);
    }
}

#[tokio::test]
async fn a_request_for_more_users_than_allowed_names_the_limit_and_sends_nothing() {
    let (redis, node) = redis_and_node().await;
    let users: Vec<String> = (0..10_001).map(|number| format!("u{number}")).collect();
    let (status, problem) = node.post("/v1/messages", &json!({ "users": users, "data": 1 })).await;
    assert_eq!((status, &problem["code"]), (413, &json!("too_many")), "{problem}");
    assert_eq!(problem["limit"], json!({ "name": "batch_users_max", "value": 10_000 }));
    let bad = [
        (json!({ "users": ["a"] }), 400, "bad_value"),
        (json!({ "data": 1 }), 400, "bad_value"),
        (json!({ "users": ["a"], "messages": [], "data": 1 }), 400, "bad_value"),
        (json!({ "messages": [{ "user": "a", "data": 1 }], "key": "k" }), 400, "bad_value"),
        (json!({ "users": ["a"], "data": 1, "colour": 1 }), 400, "bad_value"),
        (json!({ "users": "a", "data": 1 }), 400, "bad_value"),
        (json!({ "users": ["a"], "data": 1, "device": "no spaces" }), 400, "bad_name"),
        (json!({ "users": ["a"], "data": 1, "ttl_s": 2_592_001 }), 400, "bad_value"),
        (json!({ "users": ["a"], "data": "x".repeat(65 * 1024) }), 413, "too_big"),
    ];
    for (body, status, code) in bad {
        let (got, problem) = node.post("/v1/messages", &body).await;
        assert_eq!((got, &problem["code"]), (status, &json!(code)), "{body}: {problem}");
    }
    assert_eq!(redis.query::<Vec<String>>(&["KEYS", "homing:{*"]).await, Vec::<String>::new());
    // `null` is a value like any other.
    let (status, answer) = node.post("/v1/messages", &json!({ "users": ["a"], "data": null })).await;
    assert_eq!((status, &answer["results"][0]["status"]), (200, &json!(201)), "{answer}");
    assert_eq!(node.post("/v1/messages", &json!({ "users": [], "data": 1 })).await.1, json!({ "results": [] }));
}

#[tokio::test]
async fn a_message_for_one_device_comes_to_that_device_only() {
    let (redis, node) = redis_and_node().await;
    let mut web = Client::connect(&node, "alice", "web-1", ConnectOptions::default()).await;
    let mut phone = Client::connect(&node, "alice", "phone", ConnectOptions::default()).await;
    let aimed = json!({ "data": "single", "device": "phone" });
    assert_eq!(node.post("/v1/users/alice/messages", &aimed).await.0, 201);
    let batch = json!({ "messages": [{ "user": "alice", "data": "batch", "device": "phone" }] });
    assert_eq!(node.post("/v1/messages", &batch).await.1["results"][0]["status"], 201);
    let users = json!({ "users": ["alice"], "data": "users", "device": "phone" });
    assert_eq!(node.post("/v1/messages", &users).await.1["results"][0]["status"], 201);
    redis.query::<String>(&["XADD", "homing:{alice}:inbox", "*", "data", "raw", "device", "phone"]).await;
    // Without `data` all fields are the producer's own.
    redis.query::<String>(&["XADD", "homing:{alice}:inbox", "*", "device", "kitchen", "celsius", "20"]).await;
    redis.publish("alice", "marker").await;
    let texts = |messages: Vec<crate::harness::client::Message>| -> Vec<Value> {
        messages.iter().map(|message| message.json()).collect()
    };
    let reading = json!({ "device": "kitchen", "celsius": "20" });
    assert_eq!(texts(web.messages_until("marker").await), [reading.clone(), json!("marker")]);
    let all = [json!("single"), json!("batch"), json!("users"), json!("raw"), reading, json!("marker")];
    assert_eq!(texts(phone.messages_until("marker").await), all);
    let (_, user) = node.get("/v1/users/alice").await;
    for device in user["devices"].as_array().expect("there are two") {
        assert_eq!(device["dropped"], 0, "{device}");
    }
    for metric in ["homing_messages_expired_total", "homing_messages_dropped_total"] {
        assert_eq!(node.metric(metric).await.unwrap_or(0.0), 0.0, "{metric}");
    }
    let (status, problem) = node.post("/v1/users/alice/messages", &json!({ "data": 1, "device": "a b" })).await;
    assert_eq!((status, &problem["code"]), (400, &json!("bad_name")));
}
