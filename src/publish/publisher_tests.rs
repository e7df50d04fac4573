//! What reaches a real Redis, and what does not.

use std::borrow::Cow;

use homing_protocol::id::EntryId;
use homing_protocol::topic::Topic;
use redis::Value;
use serde_json::value::RawValue;

use super::*;
use crate::publish::error::Limit;
use crate::publish::message::{Payload, TTL_S_MAX};
use crate::store::test_server::TestServer;

struct Fixture {
    redis: TestServer,
    store: Store,
    publisher: Publisher,
    overfull: mpsc::Receiver<Name>,
}

async fn fixture() -> Fixture {
    let redis = TestServer::start(&[]);
    let store = redis.store().await;
    let (sender, overfull) = mpsc::channel(1);
    let config =
        PublisherConfig { payload_bytes_max: 1_000, inbox_length_max: 5, inbox_age_max: Duration::from_secs(60) };
    let publisher = Publisher::new(store.clone(), config, sender);
    Fixture { redis, store, publisher, overfull }
}

fn alice() -> Name {
    Name::parse("alice").unwrap()
}

fn json(text: &str) -> NewMessage<'_> {
    NewMessage::new(Payload::Json(raw(text)))
}

fn raw(text: &str) -> &RawValue {
    serde_json::from_str(text).unwrap()
}

fn keyed<'a>(text: &'a str, key: &'a str) -> NewMessage<'a> {
    NewMessage { key: Some(Cow::Borrowed(key)), ..json(text) }
}

impl Fixture {
    /// Id and fields of every entry.
    async fn entries(&self, user: &Name) -> Vec<(String, Vec<String>)> {
        let mut range = redis::cmd("XRANGE");
        range.arg(self.store.keys().name(Key::Inbox(user))).arg("-").arg("+");
        self.store.query(&range).await.unwrap()
    }

    async fn length(&self, user: &Name) -> u64 {
        let mut command = redis::cmd("XLEN");
        self.store.query(command.arg(self.store.keys().name(Key::Inbox(user)))).await.unwrap()
    }

    async fn command(&self, words: &[&str]) {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        self.store.query::<Value>(&command).await.unwrap();
    }
}

#[tokio::test]
async fn a_message_is_stored_exactly_as_it_came() {
    let fixture = fixture().await;
    let text = r#"{ "n": 1.0e2,  "é":"\u00e9", "n":2 }"#;
    let message = NewMessage {
        meta: Some(raw(r#"{"a": 1}"#)),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ..json(text)
    };
    let published = fixture.publisher.publish(&alice(), &message).await.unwrap();
    let fields = ["data", text, "type", "json", "meta", r#"{"a": 1}"#, "traceparent"].map(str::to_owned);
    let entries = fixture.entries(&alice()).await;
    assert_eq!(entries.len(), 1);
    assert_eq!((&entries[0].0, &entries[0].1[..7]), (&published.id, &fields[..]));
    assert!(published.created);
}

#[tokio::test]
async fn bytes_and_times_to_live_become_their_fields() {
    let fixture = fixture().await;
    let bytes = NewMessage { ttl_s: Some(0), ..NewMessage::new(Payload::Bytes(Cow::Borrowed(b"hi"))) };
    fixture.publisher.publish(&alice(), &bytes).await.unwrap();
    let before = now_ms();
    fixture.publisher.publish(&alice(), &NewMessage { ttl_s: Some(60), ..json("1") }).await.unwrap();
    let entries = fixture.entries(&alice()).await;
    assert_eq!(entries[0].1, ["data", "hi", "type", "bytes", "exp", "0"]);
    assert_eq!(entries[1].1[4], "exp");
    let exp: u64 = entries[1].1[5].parse().unwrap();
    assert!((before + 60_000..=now_ms() + 60_000).contains(&exp));
}

// Also: the functions are loaded by the first message that needs them.
#[tokio::test]
async fn a_key_that_was_seen_appends_nothing_and_answers_the_first_id() {
    let fixture = fixture().await;
    let first = fixture.publisher.publish(&alice(), &keyed("1", "order-7")).await.unwrap();
    let second = fixture.publisher.publish(&alice(), &keyed("2", "order-7")).await.unwrap();
    let bob = fixture.publisher.publish(&Name::parse("bob").unwrap(), &keyed("3", "order-7")).await.unwrap();
    assert!(first.created && !second.created && bob.created);
    assert_eq!(first.id, second.id);
    let entries = fixture.entries(&alice()).await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].1, ["data", "1", "type", "json", "key", "order-7"]);
}

#[tokio::test]
async fn a_batch_answers_in_order_and_one_bad_message_spoils_no_other() {
    let fixture = fixture().await;
    fixture.command(&["SET", "homing:{carol}:inbox", "no stream"]).await;
    let (bob, carol) = (Name::parse("bob").unwrap(), Name::parse("carol").unwrap());
    let big = format!("\"{}\"", "x".repeat(1_000));
    let messages = [
        (alice(), json("1")),
        (alice(), keyed("2", "k")),
        (bob.clone(), json(&big)),
        (carol, json("3")),
        (alice(), keyed("4", "k")),
        (bob.clone(), json("5")),
    ];
    let outcomes = fixture.publisher.publish_batch(&messages).await;
    assert!(outcomes[0].as_ref().unwrap().created && outcomes[1].as_ref().unwrap().created);
    let limit = Limit { name: "payload_bytes_max", value: 1_000 };
    assert_eq!(outcomes[2], Err(PublishError::TooBig { member: "data", bytes: 1_002, limit }));
    assert_eq!(outcomes[3], Err(PublishError::InboxUnusable));
    assert_eq!(outcomes[4].as_ref().unwrap().id, outcomes[1].as_ref().unwrap().id);
    assert!(!outcomes[4].as_ref().unwrap().created && outcomes[5].as_ref().unwrap().created);
    assert_eq!((fixture.length(&alice()).await, fixture.length(&bob).await), (2, 1));
    assert!(fixture.publisher.publish_batch(&[]).await.is_empty());
}

#[tokio::test]
async fn an_overfull_inbox_is_reported_and_never_trimmed() {
    let mut fixture = fixture().await;
    for _ in 0..=LENGTH_SAMPLE {
        fixture.publisher.publish(&alice(), &json("1")).await.unwrap();
    }
    assert_eq!(fixture.overfull.try_recv(), Ok(alice()));
    fixture.publisher.publish_batch(&[(alice(), json("1"))]).await.remove(0).unwrap();
    assert_eq!(fixture.overfull.try_recv(), Ok(alice()));
    assert_eq!(fixture.length(&alice()).await, u64::from(LENGTH_SAMPLE) + 2);
}

#[tokio::test]
async fn a_refused_write_is_unavailable_and_can_be_tried_again() {
    let fixture = fixture().await;
    fixture.publisher.publish(&alice(), &keyed("1", "first")).await.unwrap();
    fixture.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for message in [json("2"), keyed("2", "k")] {
        let outcome = fixture.publisher.publish(&alice(), &message).await;
        assert!(matches!(outcome, Err(PublishError::Unavailable(_))), "{outcome:?}");
    }
    let outcome = fixture.publisher.publish_batch(&[(alice(), json("2"))]).await.remove(0);
    assert!(matches!(outcome, Err(PublishError::Unavailable(_))), "{outcome:?}");
    fixture.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert!(fixture.publisher.publish(&alice(), &keyed("2", "k")).await.unwrap().created);
}

#[tokio::test]
async fn without_redis_publishing_fails_and_does_not_hang() {
    let mut fixture = fixture().await;
    fixture.publisher.publish(&alice(), &json("1")).await.unwrap();
    fixture.redis.kill();
    for _ in 0..3 {
        let error = fixture.publisher.publish(&alice(), &json("2")).await.unwrap_err();
        assert!(matches!(error, PublishError::Unavailable(_) | PublishError::OutcomeUnknown(_)), "{error:?}");
    }
}

#[test]
fn a_message_over_a_limit_is_refused_with_the_limits_name() {
    let (fits, over) = ("k".repeat(128), "k".repeat(129));
    let meta = format!(r#"{{"a":"{}"}}"#, "x".repeat(4_089));
    let deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
    for (message, expected) in [
        (keyed("1", ""), Some("key_bytes_max")),
        (keyed("1", &fits), None),
        (keyed("1", &over), Some("key_bytes_max")),
        (NewMessage { ttl_s: Some(TTL_S_MAX), ..json("1") }, None),
        (NewMessage { ttl_s: Some(TTL_S_MAX + 1), ..json("1") }, Some("ttl_s_max")),
        (NewMessage { meta: Some(raw(&meta)), ..json("1") }, Some("meta_bytes_max")),
        (json(&deep), Some("json_depth_max")),
        (NewMessage::new(Payload::Bytes(vec![0; 1_001].into())), Some("payload_bytes_max")),
    ] {
        let limit = message.check(1_000).err().map(|error| error.limit().unwrap().name);
        assert_eq!(limit, expected, "{message:?}");
    }
    let error = NewMessage { meta: Some(raw("[]")), ..json("1") }.check(1_000).unwrap_err();
    assert_eq!(error.to_string(), "'meta' must be an object");
}

// Each topic gets a copy of its own: a thousand of the largest payload are 64 MiB, and others share the connection.
#[tokio::test]
async fn a_message_to_many_topics_leaves_in_parts_and_its_outcomes_in_their_order() {
    let Fixture { redis, store, .. } = fixture().await;
    let config =
        PublisherConfig { payload_bytes_max: 1 << 20, inbox_length_max: 5, inbox_age_max: Duration::from_secs(60) };
    let publisher = Publisher::new(store.clone(), config, mpsc::channel(1).0);
    let payload = format!("{:?}", "x".repeat(1_000_000));
    let message = json(&payload);
    assert_eq!((copies_max(&message), copies_max(&json("1"))), (4, PIPELINE_MESSAGES_MAX));
    let topics: Vec<Topic> = (0..9).map(|number| Topic::parse(&format!("topic-{number}")).unwrap()).collect();
    let outcomes = publisher.publish_to_topics(&topics, &message).await.unwrap();
    assert_eq!(outcomes.len(), topics.len());
    for (topic, outcome) in topics.iter().zip(outcomes) {
        let published = outcome.unwrap();
        let held = store.topic_page(topic, EntryId::MIN, 2).await.unwrap();
        assert_eq!(held.iter().map(|entry| entry.id.to_string()).collect::<Vec<_>>(), [published.id]);
    }
    drop(redis);
    let error = publisher.publish_to_topics(&topics, &message).await.unwrap_err();
    assert!(matches!(error, PublishError::Unavailable(_) | PublishError::OutcomeUnknown(_)), "{error:?}");
}
