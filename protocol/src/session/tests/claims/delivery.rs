//! The first delivery: order, window, bytes, expiry.

use serde_json::json;

use crate::frame::GapReason;
use crate::session::tests::pair::{BEGIN_UNIX_MS, Pair};

#[test]
fn a_client_is_ready_after_its_attach_and_then_gets_the_inbox_in_order() {
    let mut pair = Pair::new(1);
    let ids = pair.publish_many(5);
    let client = pair.connect_as(0, "web", json!({}));
    pair.nodes[0].subscribe();
    pair.settle();
    let client = pair.client(client);
    let ready = &client.frames[0];
    assert_eq!((&ready["type"], &ready["user"], &ready["device"]), (&json!("ready"), &json!("alice"), &json!("web")));
    assert_eq!((&ready["created"], &ready["pending"], &ready["window"]), (&json!(true), &json!(5), &json!(64)));
    assert_eq!(ready["generation"], BEGIN_UNIX_MS * 1_000);
    assert_eq!(client.messages(), ids.iter().map(|id| (*id, 1)).collect::<Vec<_>>());
}

#[test]
fn nothing_is_read_before_the_subscription_is_confirmed() {
    let mut pair = Pair::new(1);
    pair.publish("early");
    let client = pair.connect_as(0, "web", json!({}));
    while pair.turn(0) {}
    pair.receive(client);
    assert!(pair.client(client).last("ready")["generation"].is_u64());
    assert_eq!(pair.world.redis.pending("web"), []);
    pair.settle();
    assert_eq!(pair.client(client).ids().len(), 1);
}

#[test]
fn a_wake_up_brings_what_is_new() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let id = pair.publish("hello");
    pair.settle();
    assert_eq!(pair.client(client).messages(), [(id, 1)]);
    assert_eq!(pair.client(client).last("messages")["messages"][0]["data"], "hello");
}

#[test]
fn a_wake_up_during_the_read_that_misses_its_entry_is_not_lost() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.publish("first");
    pair.hear(0);
    assert!(pair.send(0) && pair.execute(0));
    let second = pair.publish("second");
    pair.hear(0);
    pair.settle();
    assert_eq!(pair.client(client).ids().last(), Some(&second));
}

#[test]
fn a_read_that_redis_refuses_is_sent_again() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.advance(10_000);
    let id = pair.publish("hello");
    pair.world.redis.refusing = true;
    pair.settle();
    pair.world.redis.refusing = false;
    pair.advance(1_000);
    assert_eq!(pair.client(client).messages(), [(id, 1)]);
}

#[test]
fn the_window_is_never_exceeded_and_an_ack_makes_room() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({"window": 3}));
    let ids = pair.publish_many(10);
    pair.settle();
    assert_eq!(pair.client(client).ids(), ids[..3]);
    assert_eq!(pair.world.redis.pending("web").len(), 3, "a full window means: do not read");
    pair.ack(client, &ids[1..3]);
    pair.settle();
    assert_eq!(pair.client(client).ids(), ids[..5]);
    assert_eq!(pair.session(client).map(|session| session.in_flight()), Some(3));
}

#[test]
fn bytes_in_flight_are_bounded_once_the_size_of_entries_is_known() {
    let mut pair = Pair::new(1);
    std::sync::Arc::make_mut(&mut pair.config).in_flight_bytes_max = 100_000;
    let client = pair.connect(0, json!({"window": 1024}));
    let text = "x".repeat(20_000);
    let first = pair.publish(&text);
    pair.settle();
    pair.ack(client, &[first]);
    for _ in 0..30 {
        pair.publish(&text);
    }
    pair.settle();
    let in_flight = pair.client(client).ids().len() - 1;
    assert!((3..=6).contains(&in_flight), "{in_flight} of 20,000 bytes each in flight");
}

#[test]
fn an_entry_larger_than_the_bytes_in_flight_is_delivered_alone() {
    let mut pair = Pair::new(1);
    std::sync::Arc::make_mut(&mut pair.config).in_flight_bytes_max = 10_000;
    let ids = [pair.publish(&"x".repeat(30_000)), pair.publish(&"y".repeat(30_000))];
    let client = pair.connect(0, json!({"from": "start"}));
    while pair.client(client).ids().len() < 2 {
        let seen = pair.client(client).ids();
        assert!(!seen.is_empty(), "an entry that never fits must not block its inbox");
        pair.ack(client, &seen);
        pair.settle();
    }
    assert_eq!(pair.client(client).ids(), ids);
}

#[test]
fn a_blocked_outlet_means_do_not_read() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.block(client, true);
    let id = pair.publish("waits in Redis");
    pair.advance(90_000);
    assert_eq!((pair.client(client).ids(), pair.world.redis.pending("web")), (vec![], vec![]));
    pair.block(client, false);
    pair.settle();
    assert_eq!(pair.client(client).messages(), [(id, 1)]);
}

#[test]
fn frames_stay_within_what_the_client_takes() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({"max_frame_bytes": 1024}));
    for _ in 0..20 {
        pair.publish(&"x".repeat(300));
    }
    let big = pair.publish(&"y".repeat(5_000));
    pair.settle();
    let client = pair.client(client);
    assert_eq!(client.ids().len(), 21);
    for (frame, size) in client.frames.iter().zip(&client.sizes) {
        let alone = frame["messages"].as_array().is_some_and(|messages| messages.len() == 1);
        assert!(*size <= 1024 || alone, "a frame of {size} bytes");
    }
    assert_eq!(client.ids().last(), Some(&big));
}

#[test]
fn an_expired_message_is_acked_without_being_shown() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let past = (BEGIN_UNIX_MS - 1).to_string();
    pair.publish_fields(&[("data", "late"), ("exp", &past)]);
    let id = pair.publish("in time");
    pair.settle();
    assert_eq!(pair.client(client).ids(), [id]);
    assert_eq!(pair.world.redis.pending("web"), [id]);
}

#[test]
fn a_message_that_expires_in_flight_is_not_delivered_again() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let soon = (BEGIN_UNIX_MS + 20_000).to_string();
    let id = pair.publish_fields(&[("data", "soon late"), ("exp", &soon)]);
    pair.advance(31_000);
    assert_eq!(pair.client(client).messages(), [(id, 1)]);
    assert_eq!(pair.world.redis.pending("web"), []);
}

#[test]
fn a_message_with_ttl_0_is_only_for_the_connected() {
    let mut pair = Pair::new(1);
    let first = pair.connect(0, json!({}));
    pair.hang_up(first);
    pair.settle();
    pair.pass(10);
    pair.publish_fields(&[("data", "for nobody"), ("exp", "0")]);
    pair.pass(10);
    let second = pair.connect(0, json!({}));
    let id = pair.publish_fields(&[("data", "for you"), ("exp", "0")]);
    pair.settle();
    assert_eq!(pair.client(second).messages(), [(id, 1)]);
    pair.hang_up(second);
    pair.pass(10);
    let third = pair.connect(0, json!({}));
    assert_eq!(pair.client(third).ids(), [], "it was for the second connection");
    assert_eq!(pair.world.redis.pending("web"), []);
}

#[test]
fn an_entry_over_the_payload_limit_is_set_aside_and_told_by_a_gap() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.publish(&"x".repeat(64 * 1024 + 1));
    let id = pair.publish("small");
    pair.settle();
    let client = pair.client(client);
    assert_eq!(client.ids(), [id]);
    let gap = client.last("gap");
    assert_eq!((&gap["reason"], &gap["count"]), (&json!(GapReason::TooBig.as_str()), &json!(1)));
    assert_eq!(gap["epoch"], client.last("ready")["epoch"]);
    assert_eq!(pair.world.redis.pending("web"), [id]);
}

#[test]
fn a_new_device_begins_with_the_next_message_unless_it_is_the_first_or_asks() {
    let mut pair = Pair::new(1);
    let before = pair.publish("before");
    let first = pair.connect_as(0, "first", json!({}));
    pair.settle();
    let second = pair.connect_as(0, "second", json!({}));
    let third = pair.connect_as(0, "third", json!({"from": "start"}));
    pair.settle();
    let after = pair.publish("after");
    pair.settle();
    assert_eq!(pair.client(first).ids(), [before, after]);
    assert_eq!(pair.client(second).ids(), [after]);
    assert_eq!(pair.client(third).ids(), [before, after]);
}

#[test]
fn a_pending_list_larger_than_the_window_is_handed_out_before_a_new_entry_is_read() {
    let mut pair = Pair::new(1);
    let first = pair.connect(0, json!({"window": 10}));
    let old = pair.publish_many(10);
    pair.settle();
    assert_eq!(pair.client(first).ids(), old);
    pair.hang_up(first);
    pair.settle();
    let new = pair.publish("new");
    let second = pair.connect(0, json!({"window": 3}));
    for _ in 0..10 {
        let seen = pair.client(second).ids();
        pair.ack(second, &seen[seen.len().saturating_sub(2)..]);
        pair.settle();
    }
    let messages = pair.client(second).messages();
    assert_eq!(messages.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [&old[..], &[new]].concat());
    assert!(messages[..10].iter().all(|(_, attempt)| *attempt >= 2) && messages[10].1 == 1);
}
