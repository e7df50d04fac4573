//! Messages over HTTP for users whose sessions are at the same node: they leave together with the read that fetches them.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions, eventually};

/// After an attach, sweeps come at 1, 2, 4 and 8 s, and would make a lost wake-up good.
const EARLY_SWEEPS: Duration = Duration::from_secs(16);

struct Scene {
    redis: Redis,
    node: Node,
    client: Client,
}

impl Scene {
    async fn start() -> Self {
        let redis = Redis::start(RedisOptions::default()).await;
        let node = Node::start(&redis, NodeOptions::default().set("shards", "1").set("sweep", "1h")).await;
        let options = ConnectOptions { confirm: true, ..ConnectOptions::default() };
        let client = Client::connect(&node, "alice", "web", options).await;
        Self { redis, node, client }
    }

    /// As [`Scene::start`], when no sweep comes any more.
    async fn start_unswept() -> Self {
        let scene = Self::start().await;
        tokio::time::sleep(EARLY_SWEEPS).await;
        scene
    }

    /// The last command of each connection.
    async fn last_commands(&self) -> Vec<String> {
        let list: String = self.redis.query(&["CLIENT", "LIST"]).await;
        let commands = list.split_ascii_whitespace().filter_map(|member| member.strip_prefix("cmd="));
        commands.map(str::to_owned).collect()
    }

    async fn expect(&mut self, id: &str) {
        let message = self.client.next_message().await;
        assert_eq!(message.id, id);
        self.client.ack(&[id]).await;
    }
}

#[tokio::test]
async fn a_message_for_a_user_who_is_here_leaves_with_the_read_and_its_event_reads_nothing_again() {
    let mut scene = Scene::start_unswept().await;
    scene.redis.query::<()>(&["CONFIG", "RESETSTAT"]).await;
    for number in 0..20 {
        let id = scene.node.publish("alice", json!(number)).await;
        let message = scene.client.next_message().await;
        assert_eq!((&message.id, message.json(), message.attempt), (&id, json!(number), 1));
        scene.client.ack_confirmed(&[&id]).await;
    }
    let stats: String = scene.redis.query(&["INFO", "commandstats"]).await;
    let reads = stats.lines().find_map(|line| line.strip_prefix("cmdstat_xreadgroup:calls=")).expect("reads");
    let reads: u32 = reads.split(',').next().and_then(|count| count.parse().ok()).expect("a number");
    assert_eq!(reads, 20, "one for each message: {stats}");
    let commands = scene.last_commands().await;
    assert!(!commands.iter().any(|command| command == "xadd"), "no connection for publishing only: {commands:?}");
    // Who is not here is written to on another one.
    scene.node.publish("bob", json!("later")).await;
    let commands = scene.last_commands().await;
    assert!(commands.iter().any(|command| command == "xadd"), "{commands:?}");
}

// On two threads, producers are mostly on the other one.
#[tokio::test]
async fn raw_appends_between_them_are_delivered_too_to_each_device() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default().set("shards", "2").set("sweep", "1h")).await;
    let mut clients = Vec::new();
    for device in ["web", "phone", "tablet"] {
        clients.push(Client::connect(&node, "alice", device, ConnectOptions::default()).await);
    }
    tokio::time::sleep(EARLY_SWEEPS).await;
    for round in 0..200 {
        let text = format!("raw {round}");
        let (over_http, raw) =
            tokio::join!(node.publish("alice", json!({ "http": round })), redis.publish("alice", &text));
        let mut expected = vec![over_http, raw];
        expected.sort();
        for client in &mut clients {
            let mut ids: Vec<String> = client.next_messages(2).await.into_iter().map(|message| message.id).collect();
            client.ack(&ids).await;
            ids.sort();
            assert_eq!(ids, expected);
        }
    }
}

// No event comes of an append that Redis refuses: the next one must not be taken for it.
#[tokio::test]
async fn what_comes_after_refused_messages_is_delivered_too() {
    let mut scene = Scene::start_unswept().await;
    for round in 0..5 {
        scene.redis.config_set("maxmemory", "1").await;
        let body = json!({ "data": "refused" });
        let (status, problem) = scene.node.post("/v1/users/alice/messages", &body).await;
        assert_eq!((status, problem["code"].as_str()), (503, Some("unavailable")), "{problem}");
        scene.redis.config_set("maxmemory", "0").await;
        let id = scene.redis.publish("alice", &format!("after {round}")).await;
        scene.expect(&id).await;
    }
}

// Nor of one whose key was seen.
#[tokio::test]
async fn what_comes_after_a_message_that_was_there_already_is_delivered_too() {
    let mut scene = Scene::start_unswept().await;
    let body = json!({ "data": "once", "key": "order-17" });
    let (status, first) = scene.node.post("/v1/users/alice/messages", &body).await;
    assert_eq!(status, 201, "{first}");
    scene.expect(first["id"].as_str().expect("an id")).await;
    for round in 0..5 {
        let (status, again) = scene.node.post("/v1/users/alice/messages", &body).await;
        assert_eq!((status, &again), (200, &first));
        let id = scene.redis.publish("alice", &format!("after {round}")).await;
        scene.expect(&id).await;
    }
}

// So does one whose producer is on another thread, as all are with `api_listen`.
#[tokio::test]
async fn a_message_leaves_with_the_read_whichever_thread_its_producer_is_on() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default().set("shards", "2")).await;
    let mut client = Client::connect(&node, "alice", "web", ConnectOptions::default()).await;
    // As many connections, which both threads accept.
    let publishes = (0..32).map(|number| node.publish("alice", json!(number)));
    let mut ids = futures_util::future::join_all(publishes).await;
    let mut came: Vec<String> = client.next_messages(32).await.into_iter().map(|message| message.id).collect();
    ids.sort();
    came.sort();
    assert_eq!(came, ids);
    let scene = Scene { redis, node, client };
    let commands = scene.last_commands().await;
    assert!(!commands.iter().any(|command| command == "xadd"), "no connection for publishing only: {commands:?}");
}

#[tokio::test]
async fn a_producer_is_not_the_first_to_notice_that_the_connection_of_an_idle_shard_is_gone() {
    let scene = Scene::start().await;
    let data = async || -> Option<String> {
        let list: String = scene.redis.query(&["CLIENT", "LIST"]).await;
        let line = list.lines().find(|line| line.contains(" name=homing:"))?;
        line.split_ascii_whitespace().find_map(|member| member.strip_prefix("id=")).map(str::to_owned)
    };
    for _ in 0..5 {
        let id = data().await.expect("the shard names its connection");
        scene.redis.query::<u64>(&["CLIENT", "KILL", "ID", &id]).await;
        let (status, answer) = scene.node.post("/v1/users/alice/messages", &json!({ "data": "x" })).await;
        assert_eq!(status, 201, "{answer}");
        eventually("the shard has another one", async || data().await.filter(|now| *now != id)).await;
    }
}

#[tokio::test]
async fn messages_are_answered_and_delivered_while_the_connections_of_the_shard_are_lost() {
    let mut scene = Scene::start().await;
    let mut told = Vec::new();
    for number in 0..60 {
        if number % 10 == 5 {
            let kind = if number % 20 == 5 { "pubsub" } else { "normal" };
            scene.redis.query::<u64>(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await;
        }
        let (status, answer) = scene.node.post("/v1/users/alice/messages", &json!({ "data": number })).await;
        match status {
            201 => told.push(answer["id"].as_str().expect("an id").to_owned()),
            // Sent on a connection that was being ended.
            503 | 504 => {}
            _ => panic!("{status} {answer}"),
        }
    }
    assert!(told.len() > 30, "most are accepted: {}", told.len());
    let last = eventually("the node has its connections again", async || {
        let (status, answer) = scene.node.post("/v1/users/alice/messages", &json!({ "data": "last" })).await;
        (status == 201).then(|| answer["id"].as_str().expect("an id").to_owned())
    })
    .await;
    let raw = scene.redis.publish("alice", "raw").await;
    told.extend([last, raw.clone()]);
    let mut came = Vec::new();
    while came.last() != Some(&raw) {
        let message = scene.client.next_message().await;
        scene.client.ack(&[&message.id]).await;
        came.push(message.id);
    }
    told.retain(|id| !came.contains(id));
    assert!(told.is_empty(), "accepted and not delivered: {told:?}");
}
