//! What other people's producers put into an inbox: every entry is delivered or set aside, none poisons the inbox.

use base64::Engine as _;
use redis::Value;
use serde_json::json;

use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions, eventually};

const INBOX: &str = "homing:{alice}:inbox";

struct Scene {
    redis: Redis,
    node: Node,
    client: Client,
}

impl Scene {
    async fn start() -> Self {
        let redis = Redis::start(RedisOptions::default()).await;
        let node = Node::start(&redis, NodeOptions::default().set("trim_delay", "50ms")).await;
        let options = ConnectOptions { confirm: true, ..ConnectOptions::default() };
        let client = Client::connect(&node, "alice", "web-1", options).await;
        Self { redis, node, client }
    }

    /// Appends an entry of any bytes; gives its id.
    async fn add(&self, id: &str, fields: &[(&[u8], &[u8])]) -> String {
        let mut command = redis::cmd("XADD");
        command.arg(INBOX).arg(id);
        for (field, value) in fields {
            command.arg(*field).arg(*value);
        }
        command.query_async(&mut self.redis.connection().await).await.expect("Redis accepts the entry")
    }

    /// Appends one entry and checks how it is delivered.
    async fn expect(&mut self, fields: &[(&[u8], &[u8])], data: serde_json::Value, encoding: Option<&str>) {
        let id = self.add("*", fields).await;
        let message = self.client.next_message().await;
        assert_eq!((&message.id, message.json(), message.encoding.as_deref()), (&id, data, encoding), "{fields:?}");
        self.client.ack_confirmed(&[&id]).await;
    }
}

#[tokio::test]
async fn a_payload_is_json_text_or_bytes_by_its_content_unless_its_type_says_so() {
    let mut scene = Scene::start().await;
    let base64 = |bytes: &[u8]| json!(base64::engine::general_purpose::STANDARD.encode(bytes));
    scene.expect(&[(b"data", br#"{"a":1}"#)], json!({ "a": 1 }), None).await;
    scene.expect(&[(b"data", b"[1,2]")], json!([1, 2]), None).await;
    scene.expect(&[(b"data", b"17")], json!("17"), None).await;
    scene.expect(&[(b"data", b"{\"a\":1} {}")], json!("{\"a\":1} {}"), None).await;
    scene.expect(&[(b"data", b"{broken")], json!("{broken"), None).await;
    scene.expect(&[(b"data", b"")], json!(""), None).await;
    scene
        .expect(
            &[(b"data", "größe \u{1F680}\u{0}\u{2028}\"\\".as_bytes())],
            json!("größe \u{1F680}\u{0}\u{2028}\"\\"),
            None,
        )
        .await;
    scene.expect(&[(b"data", b"\xff\xfe\x00")], base64(b"\xff\xfe\x00"), Some("base64")).await;
    scene.expect(&[(b"data", b"17"), (b"type", b"json")], json!(17), None).await;
    scene.expect(&[(b"data", b"{\"a\":1}"), (b"type", b"text")], json!("{\"a\":1}"), None).await;
    scene.expect(&[(b"data", b"abc"), (b"type", b"bytes")], base64(b"abc"), Some("base64")).await;
}

#[tokio::test]
async fn an_entry_without_data_is_an_object_of_its_fields() {
    let mut scene = Scene::start().await;
    scene.expect(&[(b"a", b"1"), (b"b", b"two"), (b"a", b"last")], json!({ "a": "last", "b": "two" }), None).await;
    scene.expect(&[(b"", b"")], json!({ "": "" }), None).await;
}

// A client library that builds a map per entry fails here, and with it everything behind the entry.
#[tokio::test]
async fn names_and_values_that_are_not_utf8_do_not_poison_the_inbox() {
    let mut scene = Scene::start().await;
    scene.add("*", &[(b"\xff\xfe", b"x"), (b"\xff\xfe", b"y")]).await;
    scene.add("*", &[(b"data", b"ok"), (b"\xc3\x28", b"\x80")]).await;
    scene.add("*", &[(b"data", b"first"), (b"data", b"second")]).await;
    let first = scene.client.next_message().await;
    assert!(first.json().is_object(), "{:?}", first.json());
    assert_eq!(scene.client.next_message().await.json(), "ok");
    assert_eq!(scene.client.next_message().await.json(), "second", "the last duplicate wins");
}

#[tokio::test]
async fn odd_options_of_an_entry_do_not_keep_it_back() {
    let mut scene = Scene::start().await;
    let deep = [vec![b'['; 5_000], vec![b']'; 5_000]].concat();
    scene.add("*", &[(b"data", b"1"), (b"exp", b"soon"), (b"meta", b"{broken"), (b"key", b"\xff")]).await;
    scene.add("*", &[(b"data", b"2"), (b"exp", b"99999999999999999999999"), (b"meta", b"[1]")]).await;
    scene.add("*", &[(b"data", &deep)]).await;
    scene.add("*", &[(b"data", &deep), (b"type", b"json")]).await;
    scene.add("*", &[(b"data", b"{\"a\":"), (b"type", b"json")]).await;
    scene.add("*", &[(b"data", b"3"), (b"type", b"no such type")]).await;
    scene.add("*", &[(b"data", b"marker")]).await;
    let seen = scene.client.messages_until("marker").await;
    assert_eq!(seen[0].json(), "1");
    assert_eq!(seen[1].json(), "2");
    assert_eq!(seen[2].json().as_str().map(str::len), Some(10_000), "too deep to be JSON, so it is text");
    assert_eq!(seen.len(), 7);
}

#[tokio::test]
async fn many_fields_are_one_message() {
    let mut scene = Scene::start().await;
    let names: Vec<String> = (0..500).map(|number| format!("field-{number}")).collect();
    let fields: Vec<(&[u8], &[u8])> = names.iter().map(|name| (name.as_bytes(), b"v".as_slice())).collect();
    scene.add("*", &fields).await;
    assert_eq!(scene.client.next_message().await.json().as_object().map(serde_json::Map::len), Some(500));
}

#[tokio::test]
async fn entries_of_a_megabyte_are_set_aside_and_counted() {
    let mut scene = Scene::start().await;
    let big = vec![b'x'; 1024 * 1024];
    for _ in 0..3 {
        scene.add("*", &[(b"data", &big)]).await;
    }
    // Over the limit only in sum, and by its field names.
    scene.add("*", &[(&big[..40_000], b"x"), (&big[..40_001], b"x")]).await;
    scene.add("*", &[(b"data", b"marker")]).await;
    assert_eq!(scene.client.messages_until("marker").await.len(), 1);
    let mut count = 0;
    while count < 4 {
        let gap = scene.client.expect_frame("gap").await;
        assert_eq!(gap["reason"], "too_big");
        count = gap["count"].as_u64().expect("a number");
    }
    assert_eq!(count, 4);
    eventually("nothing is pending", async || (scene.redis.pending("alice", "web-1").await == 0).then_some(())).await;
    assert_eq!(scene.redis.device("alice", "web-1").await.expect("it is known")["dropped"], 4);
}

#[tokio::test]
async fn explicit_ids_are_delivered_in_their_order_up_to_the_last_one() {
    let mut scene = Scene::start().await;
    let max = u64::MAX;
    let ids = [
        "9-10".to_owned(),
        "10-0".to_owned(),
        "9007199254740993-1".to_owned(),
        format!("{}-{max}", max - 1),
        format!("{max}-0"),
        format!("{max}-{max}"),
    ];
    for id in &ids {
        scene.add(id, &[(b"data", b"x")]).await;
    }
    for id in &ids {
        let message = scene.client.next_message().await;
        assert_eq!(message.id, *id);
        scene.client.ack_confirmed(&[id]).await;
    }
    // The stream takes no more entries; a producer is told so and not left waiting.
    let (status, problem) = scene.node.post("/v1/users/alice/messages", &json!({ "data": 1 })).await;
    assert!(status >= 400, "{problem}");
    eventually("the inbox is empty", async || (scene.redis.inbox_length("alice").await == 0).then_some(())).await;
}

#[tokio::test]
async fn entries_that_others_delete_or_trim_are_counted_and_hold_up_nothing() {
    let scene = Scene::start().await;
    let options = ConnectOptions { window: Some(1), ..ConnectOptions::default() };
    let mut slow = Client::connect(&scene.node, "alice", "slow", options).await;
    let ids = scene.redis.publish_all("alice", (0..5).map(|number| number.to_string())).await;
    assert_eq!(slow.next_message().await.id, ids[0]);
    scene.redis.query::<u64>(&["XDEL", INBOX, &ids[0], &ids[1]]).await;
    slow.nack(&[&ids[0]], 0).await;
    assert_eq!(slow.next_message().await.id, ids[2], "what is gone is passed over");
}

#[tokio::test]
async fn an_inbox_of_the_wrong_type_harms_only_its_own_user() {
    let mut scene = Scene::start().await;
    scene.redis.query::<()>(&["SET", "homing:{mallory}:inbox", "x"]).await;
    let refusal = Client::connect_refused(&scene.node, "mallory", "d", ConnectOptions::default()).await;
    assert_eq!(refusal.error["code"], "inbox_unusable", "{refusal:?}");
    let (status, problem) = scene.node.post("/v1/users/mallory/messages", &json!({ "data": 1 })).await;
    assert_eq!(problem["code"], "inbox_unusable", "{status} {problem}");
    // Under a live session.
    let id = scene.redis.publish("alice", "1").await;
    assert_eq!(scene.client.next_message().await.id, id);
    let mut bob = Client::connect(&scene.node, "bob", "d", ConnectOptions::default()).await;
    scene.redis.query::<()>(&["SET", INBOX, "x"]).await;
    let id = scene.redis.publish("bob", "2").await;
    assert_eq!(bob.next_message().await.id, id);
    let (status, _) = scene.node.get("/v1/users/alice").await;
    assert!(status < 600);
    assert_eq!(scene.node.readyz().await, Some(200));
}

// Whoever watches the gauge would think for ever that Redis refuses.
#[tokio::test]
async fn acks_that_no_redis_can_take_end_with_their_session() {
    let mut scene = Scene::start().await;
    let id = scene.redis.publish("alice", "1").await;
    assert_eq!(scene.client.next_message().await.id, id);
    scene.redis.query::<()>(&["SET", INBOX, "x"]).await;
    scene.client.ack(&[&id]).await;
    assert_eq!(scene.client.expect_frame("error").await["code"], "inbox_unusable");
    eventually("the session has released its device", async || {
        let record: String = scene.redis.query(&["HGET", "homing:{alice}:devices", "web-1"]).await;
        record.contains(r#""owner":"""#).then_some(())
    })
    .await;
    // What is trimmed after that was looked for in a tick, in which the gauge is set as well.
    let mut bob = Client::connect(&scene.node, "bob", "d", ConnectOptions::default()).await;
    scene.redis.publish("bob", "2").await;
    let id = bob.next_message().await.id;
    bob.ack(&[&id]).await;
    eventually("bob's inbox is empty", async || (scene.redis.inbox_length("bob").await == 0).then_some(())).await;
    assert_eq!(scene.node.metric("homing_ack_buffer_messages").await, Some(0.0));
}

#[tokio::test]
async fn a_group_and_a_consumer_of_others_do_not_stop_delivery() {
    let mut scene = Scene::start().await;
    scene.redis.query::<()>(&["XGROUP", "CREATE", INBOX, "not a {name}", "0"]).await;
    let id = scene.redis.publish("alice", "1").await;
    // Another program reads as another consumer of the device's own group: it may, and the device goes on.
    assert_eq!(scene.client.next_message().await.id, id);
    scene.client.ack_confirmed(&[&id]).await;
    let groups: Vec<Value> = scene.redis.query(&["XINFO", "GROUPS", INBOX]).await;
    assert_eq!(groups.len(), 2);
    let (status, user) = scene.node.get("/v1/users/alice").await;
    assert_eq!(status, 200, "{user}");
}
