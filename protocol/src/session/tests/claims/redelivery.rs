//! Messages that are delivered again.

use serde_json::json;

use crate::session::tests::pair::Pair;

#[test]
fn an_unacked_message_comes_again_after_30_s_and_then_after_twice_as_long_up_to_5_min() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let id = pair.publish("hello");
    pair.settle();
    for (attempt, wait_ms) in (2..).zip([30_000, 60_000, 120_000, 240_000, 300_000, 300_000]) {
        pair.advance(wait_ms - 1);
        assert_eq!(pair.client(client).messages().len() + 1, attempt, "before {wait_ms} ms have passed");
        pair.advance(1);
        assert_eq!(pair.client(client).messages().last(), Some(&(id, attempt as u64)));
    }
}

#[test]
fn a_nack_brings_the_message_again_after_its_delay_and_keeps_the_slot() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({"window": 1}));
    let ids = pair.publish_many(2);
    pair.settle();
    pair.nack(client, ids[0], 5_000);
    pair.advance(4_999);
    assert_eq!(pair.client(client).messages(), [(ids[0], 1)]);
    pair.advance(1);
    assert_eq!(pair.client(client).messages(), [(ids[0], 1), (ids[0], 2)]);
    pair.ack(client, &ids[..1]);
    pair.settle();
    assert_eq!(pair.client(client).messages().last(), Some(&(ids[1], 1)));
}

#[test]
fn a_nack_is_forgotten_with_its_session() {
    let mut pair = Pair::new(1);
    let first = pair.connect(0, json!({}));
    let id = pair.publish("hello");
    pair.settle();
    pair.nack(first, id, 60_000);
    pair.hang_up(first);
    let second = pair.connect(0, json!({}));
    assert_eq!(pair.client(second).messages(), [(id, 2)]);
}

#[test]
fn an_ack_that_arrives_during_the_claim_stops_the_redelivery() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let id = pair.publish("hello");
    pair.settle();
    pair.pass(30_000);
    assert!(pair.send(0) && pair.execute(0));
    pair.ack(client, &[id]);
    pair.settle();
    assert_eq!(pair.client(client).messages(), [(id, 1)]);
}

#[test]
fn a_message_that_was_deleted_meanwhile_is_counted_and_told() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let id = pair.publish("hello");
    pair.settle();
    pair.world.redis.delete_entry(id);
    pair.advance(31_000);
    assert_eq!(pair.client(client).messages(), [(id, 1)]);
    let gap = pair.client(client).last("gap");
    assert_eq!((&gap["reason"], &gap["count"]), (&json!("retention"), &json!(1)));
    assert_eq!(pair.world.redis.record("web").map(|record| record.dropped), Some(1));
}

#[test]
fn a_deleted_message_in_the_pending_list_is_counted_and_told_at_the_next_attach() {
    let mut pair = Pair::new(1);
    let first = pair.connect(0, json!({}));
    let ids = pair.publish_many(2);
    pair.settle();
    pair.hang_up(first);
    pair.world.redis.delete_entry(ids[0]);
    let second = pair.connect(0, json!({}));
    assert_eq!(pair.client(second).messages(), [(ids[1], 2)]);
    assert_eq!(pair.client(second).last("gap")["count"], 1);
    assert_eq!(pair.world.redis.pending("web"), [ids[1]]);
}

#[test]
fn a_pending_message_of_another_session_has_attempt_2_at_least() {
    let mut pair = Pair::new(2);
    let first = pair.connect(0, json!({}));
    let id = pair.publish("hello");
    pair.settle();
    pair.advance(31_000);
    assert_eq!(pair.client(first).messages().last(), Some(&(id, 2)));
    let second = pair.connect(1, json!({}));
    assert_eq!(pair.client(second).messages(), [(id, 3)]);
}

#[test]
fn a_blocked_outlet_gets_no_redelivery() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let id = pair.publish("hello");
    pair.settle();
    pair.block(client, true);
    pair.advance(40_000);
    assert_eq!(pair.client(client).messages(), [(id, 1)]);
    pair.block(client, false);
    pair.settle();
    assert_eq!(pair.client(client).messages(), [(id, 1), (id, 2)]);
}
