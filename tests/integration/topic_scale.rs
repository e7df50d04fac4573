//! Many topics, and many followers: what that costs, and what it must not.

use std::collections::{BTreeMap, HashMap, HashSet};

use reqwest::Method;
use serde_json::json;

use crate::harness::redis_server::cursors;
use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions, Token, eventually};

/// How often Redis has executed each command since `CONFIG RESETSTAT`.
async fn calls(redis: &Redis) -> BTreeMap<String, u64> {
    let stats = redis.query::<String>(&["INFO", "commandstats"]).await;
    let calls = stats.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    });
    calls.collect()
}

fn of(calls: &BTreeMap<String, u64>, command: &str) -> u64 {
    calls.get(command).copied().unwrap_or(0)
}

async fn follow(node: &Node, user: &str, topics: &[String]) -> (u16, serde_json::Value) {
    let path = format!("/v1/users/{user}/topics");
    node.call(Method::PUT, &path, Some(&json!({ "topics": topics }))).await
}

/// One message to each of these topics.
async fn publish(node: &Node, topics: &[String], data: u64) {
    let (status, answer) = node.post("/v1/topics/messages", &json!({ "topics": topics, "data": data })).await;
    assert_eq!(status, 200, "{answer}");
    let results = answer["results"].as_array().expect("a result for each");
    assert!(results.iter().all(|result| result["status"] == 201), "{answer}");
}

#[tokio::test]
async fn a_user_may_follow_as_many_topics_as_the_limit_says_and_gets_all_of_them_in_order_and_its_inbox_too() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default().set("topics_per_user", "100")).await;
    let topics: Vec<String> = (0..101).map(|number| format!("room.{number:03}")).collect();
    let limit = json!({ "name": "topics_per_user", "value": 100 });
    let (status, problem) = follow(&node, "alice", &topics).await;
    assert_eq!((status, &problem["code"], &problem["limit"]), (413, &json!("too_many"), &limit));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("at most 100 topics")), "{problem}");
    let (topics, beyond) = (&topics[..100], &topics[100]);
    assert_eq!(follow(&node, "alice", topics).await.0, 200);
    let path = format!("/v1/topics/{beyond}/followers/alice");
    let (status, problem) = node.call(Method::PUT, &path, None).await;
    assert_eq!((status, &problem["limit"]), (413, &limit), "{problem}");

    let token = Token::of("alice").claim("topics", json!(["room.*"])).encode();
    let options = ConnectOptions { token: Some(token), window: Some(16), ..ConnectOptions::default() };
    let mut client = Client::connect(&node, "alice", "web-1", options.clone()).await;
    client.send(json!({ "type": "follow", "topics": [beyond] })).await;
    let error = client.expect_frame("error").await;
    assert_eq!(error["code"], "too_many");
    assert!(error["message"].as_str().is_some_and(|message| message.contains("at most 100 topics")), "{error}");
    client.close().await;

    // What waited, of the inbox and of all topics at once.
    for number in 0..3 {
        publish(&node, topics, number).await;
    }
    redis.publish_all("alice", (0..600).map(|number| number.to_string())).await;
    let mut client = Client::connect(&node, "alice", "web-1", options).await;
    let mut next: HashMap<Option<String>, u64> = HashMap::new();
    let (mut of_inbox, mut of_topics, mut first_topics) = (0, 0, HashSet::new());
    for _ in 0..900 {
        let message = client.next_message().await;
        let expected = next.entry(message.topic.clone()).or_default();
        // A raw producer's number is a text.
        let data = message.json().to_string();
        assert_eq!((data.trim_matches('"'), message.attempt), (expected.to_string().as_str(), 1), "{message:?}");
        *expected += 1;
        match &message.topic {
            // From then on, both have something to deliver.
            None => of_inbox += u32::from((1..50).contains(&of_topics)),
            Some(topic) => {
                of_topics += 1;
                if of_topics <= 100 {
                    first_topics.insert(topic.clone());
                }
            }
        }
        client.ack(&[&message.id]).await;
    }
    assert!((15..=400).contains(&of_inbox), "{of_inbox} were the inbox's beside the first 50 of topics");
    assert!(first_topics.len() >= 80, "the first 100 of topics were of {} topics only", first_topics.len());
    // And what comes while it is connected.
    publish(&node, topics, 3).await;
    let mut live = HashSet::new();
    for _ in 0..100 {
        let message = client.next_message().await;
        assert_eq!(message.json(), json!(3));
        client.ack(&[&message.id]).await;
        live.insert(message.topic);
    }
    assert_eq!(live.len(), 100);
}

// A shard that looked at its topics from time to time would have 10,000 reads each time.
#[tokio::test]
async fn ten_thousand_topics_at_rest_cost_redis_nothing_and_each_message_one_read() {
    let redis = Redis::start(RedisOptions::default()).await;
    let options = NodeOptions::default().set("topics_per_user", "1000").set("janitor_pause", "1h");
    let node = Node::start(&redis, options).await;
    let (mut clients, mut topics) = (Vec::new(), Vec::new());
    for user in 0..10 {
        let own: Vec<String> = (0..1_000).map(|number| format!("t{user}.{number}")).collect();
        assert_eq!(follow(&node, &format!("user-{user}"), &own).await.0, 200);
        topics.extend(own);
    }
    for user in 0..10 {
        clients.push(Client::connect(&node, &format!("user-{user}"), "web", ConnectOptions::default()).await);
    }
    // Each, and the broadcast topic: its end by the shard, its cursor by each session.
    eventually("all topics are known", async || {
        let calls = calls(&redis).await;
        (of(&calls, "zscore") == 10_010 && of(&calls, "xinfo|stream") == 10_001).then_some(())
    })
    .await;
    // Heartbeats and sweeps of sessions need others.
    let reads = ["xrange", "zscore", "xinfo|stream", "zadd", "xread"];
    redis.query::<()>(&["CONFIG", "RESETSTAT"]).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let idle = calls(&redis).await;
    for command in reads {
        assert_eq!(of(&idle, command), 0, "{command} in {idle:?}");
    }
    let busy: Vec<String> = topics.iter().step_by(50).cloned().collect();
    publish(&node, &busy, 7).await;
    for client in &mut clients {
        let seen: HashSet<_> =
            client.next_messages(20).await.into_iter().map(|message| message.topic.expect("of a topic")).collect();
        assert_eq!(seen.len(), 20);
    }
    assert_eq!(of(&calls(&redis).await, "xrange"), 200);
}

/// Writes followers who were never here, as the API leaves them, and a cursor each, as a device leaves it.
async fn write_crowd(redis: &Redis, topic: &str, count: u32) {
    let mut connection = redis.connection().await;
    for begin in (0..count).step_by(1_000) {
        let mut pipeline = redis::pipe();
        let users: Vec<String> = (begin..begin + 1_000).map(|number| format!("away-{number}")).collect();
        for user in &users {
            pipeline
                .cmd("HSET")
                .arg(format!("homing:{{{user}}}:topics"))
                .arg(topic)
                .arg(1_795_424_301_455_u64)
                .ignore();
        }
        pipeline.cmd("SADD").arg(format!("homing:topic:{{{topic}}}:followers")).arg(&users).ignore();
        pipeline.cmd("ZADD").arg(format!("homing:topic:{{{topic}}}:cursors"));
        for user in &users {
            pipeline.arg(1_000).arg(format!("{user}/web"));
        }
        pipeline.ignore();
        pipeline.query_async::<()>(&mut connection).await.expect("Redis takes them");
    }
}

#[tokio::test]
async fn a_message_costs_redis_as_many_commands_with_100_000_followers_who_are_away_as_without() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default().set("janitor_pause", "1h")).await;
    let mut clients = Vec::new();
    for number in 0..3 {
        let user = format!("user-{number}");
        assert_eq!(follow(&node, &user, &["news".to_owned()]).await.0, 200);
        let options = ConnectOptions { confirm: true, ..ConnectOptions::default() };
        clients.push(Client::connect(&node, &user, "web", options).await);
    }
    let mut costs = Vec::new();
    for followers in [3, 100_003] {
        if followers > 3 {
            write_crowd(&redis, "news", followers - 3).await;
        }
        // The first one finds who is still loading what it follows.
        for round in 0..2 {
            redis.query::<()>(&["CONFIG", "RESETSTAT"]).await;
            for number in 0..50 {
                publish(&node, &["news".to_owned()], number).await;
                for client in &mut clients {
                    let id = client.next_message().await.id;
                    client.ack_confirmed(&[&id]).await;
                }
            }
            if round == 1 {
                costs.push(calls(&redis).await);
            }
        }
        let (_, page) = node.get("/v1/topics/news/messages?limit=1").await;
        let id = page["items"][0]["id"].as_str().expect("an id").strip_prefix("news/").expect("of the topic");
        let (_, receipt) = node.get(&format!("/v1/topics/news/messages/{id}")).await;
        assert_eq!((&receipt["followers"], &receipt["devices_acked"]), (&json!(followers), &json!(3)));
        let (_, page) = node.get("/v1/topics/news/followers?limit=100").await;
        assert!(page["items"].as_array().is_some_and(|items| items.len() <= 110), "a page stays a page");
    }
    // What sessions and nodes do by the clock, whatever is published, is a few commands a second.
    for command in costs[0].keys().chain(costs[1].keys()) {
        let (without, with) = (of(&costs[0], command), of(&costs[1], command));
        assert!(with.abs_diff(without) <= 40, "{command}: {without} without, {with} with: {costs:#?}");
    }
    assert_eq!((of(&costs[0], "xrange"), of(&costs[1], "xrange")), (50, 50), "{costs:#?}");
    assert_eq!((of(&costs[0], "zadd"), of(&costs[1], "zadd")), (150, 150), "{costs:#?}");
}

#[tokio::test]
async fn a_thousand_users_follow_by_one_call_and_who_is_in_both_lists_is_left() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default()).await;
    let mut add: Vec<String> = (0..997).map(|number| format!("user-{number}")).collect();
    add.push("no spaces".to_owned());
    let body = json!({ "add": add, "remove": ["user-7", "bob"] });
    let (status, answer) = node.post("/v1/topics/news/followers", &body).await;
    assert_eq!(status, 200);
    let results = answer["results"].as_array().expect("a result for each");
    for (index, user) in add.iter().chain(&["user-7".to_owned(), "bob".to_owned()]).enumerate() {
        let expected = match index {
            997 => (json!(400), json!(null), json!(null)),
            999 => (json!(200), json!(user), json!(false)),
            _ => (json!(200), json!(user), json!(true)),
        };
        let result = &results[index];
        assert_eq!((&result["status"], &result["user"], &result["changed"]), (&expected.0, &expected.1, &expected.2));
    }
    assert_eq!(redis.query::<u64>(&["SCARD", "homing:topic:{news}:followers"]).await, 996);
    assert_eq!(node.get("/v1/users/user-7/topics").await.1["topics"], json!([]));
    assert_eq!(node.get("/v1/users/user-8/topics").await.1["topics"][0]["topic"], "news");
}

#[tokio::test]
async fn a_request_with_more_names_than_allowed_names_the_limit_and_changes_nothing() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default().set("topics_per_user", "2000")).await;
    let names = |count: usize| (0..count).map(|number| format!("n{number}")).collect::<Vec<_>>();
    let (all, half) = (names(1_001), names(500));
    let requests = [
        (Method::POST, "/v1/topics/messages", json!({ "topics": all, "data": 1 })),
        (Method::POST, "/v1/topics/news/followers", json!({ "add": all })),
        (Method::POST, "/v1/topics/news/followers", json!({ "remove": all })),
        (Method::POST, "/v1/topics/news/followers", json!({ "add": half, "remove": all[500..] })),
        (Method::PUT, "/v1/users/alice/topics", json!({ "topics": all })),
    ];
    for (method, path, body) in requests {
        let (status, problem) = node.call(method, path, Some(&body)).await;
        let limit = json!({ "name": "topics_per_request_max", "value": 1_000 });
        let told = (status, &problem["code"], &problem["limit"]);
        assert_eq!(told, (413, &json!("too_many"), &limit), "{path}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("1001")), "{problem}");
    }
    let keys: Vec<String> = redis.query(&["KEYS", "homing:*topic*"]).await;
    assert!(keys.is_empty(), "{keys:?}");
    // And as many as allowed are not too many.
    publish(&node, &all[..1_000], 1).await;
    assert_eq!(follow(&node, "alice", &all[..1_000]).await.0, 200);
}

// A command for each follower would be most of what a broadcast costs Redis.
#[tokio::test]
async fn the_cursors_of_fifty_followers_who_acked_at_about_the_same_time_are_written_by_few_commands() {
    let redis = Redis::start(RedisOptions::default()).await;
    let options = NodeOptions::default().set("shards", "1").set("cursor_flush", "200ms");
    let node = Node::start(&redis, options).await;
    let mut clients = Vec::new();
    for number in 0..50 {
        let user = format!("user-{number}");
        assert_eq!(follow(&node, &user, &["news".to_owned()]).await.0, 200);
        clients.push(Client::connect(&node, &user, "web", ConnectOptions::default()).await);
    }
    for (topic, path) in [("*", "/v1/broadcast"), ("news", "/v1/topics/news/messages")] {
        let (status, answer) = node.post(path, &json!({ "data": "hello" })).await;
        assert_eq!(status, 201, "{answer}");
        let id = answer["id"].as_str().expect("an id");
        for client in &mut clients {
            assert_eq!(client.next_message().await.id, id);
        }
        redis.query::<()>(&["CONFIG", "RESETSTAT"]).await;
        for client in &mut clients {
            client.ack(&[id]).await;
        }
        eventually("all cursors are in Redis", async || {
            (redis.query::<u64>(&["ZCARD", &cursors(topic)]).await == 50).then_some(())
        })
        .await;
        let written = of(&calls(&redis).await, "zadd");
        assert!((1..=20).contains(&written), "{written} commands wrote 50 cursors of {topic}");
    }
}

// Not once for each follower, however many a shard has.
#[tokio::test]
async fn a_message_is_read_once_by_each_shard_that_has_followers() {
    let redis = Redis::start(RedisOptions::default()).await;
    let options = NodeOptions::default().set("shards", "2").set("janitor_pause", "1h");
    let node = Node::start(&redis, options).await;
    let mut shards: HashMap<String, Vec<Client>> = HashMap::new();
    // The kernel chooses which shard accepts a connection.
    for number in 0.. {
        assert!(number < 200, "all clients are served by {:?}", shards.keys());
        let user = format!("user-{number}");
        assert_eq!(follow(&node, &user, &["news".to_owned()]).await.0, 200);
        let client = Client::connect(&node, &user, "web", ConnectOptions::default()).await;
        let record = redis.device(&user, "web").await.expect("a record");
        shards.entry(record["owner"].as_str().expect("an owner").to_owned()).or_default().push(client);
        if shards.len() == 2 && shards.values().all(|clients| clients.len() >= 3) {
            break;
        }
    }
    // The first one finds who is still loading what it follows.
    for round in 0..3 {
        redis.query::<()>(&["CONFIG", "RESETSTAT"]).await;
        publish(&node, &["news".to_owned()], round).await;
        for client in shards.values_mut().flatten() {
            assert_eq!(client.next_message().await.json(), json!(round));
        }
        let calls = calls(&redis).await;
        if round > 0 {
            assert_eq!((of(&calls, "xrange"), of(&calls, "xread")), (2, 0), "{calls:#?}");
        }
    }
}
