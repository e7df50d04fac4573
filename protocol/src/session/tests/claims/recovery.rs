//! Lost connections and lost data.

use serde_json::json;

use crate::session::tests::pair::{PRIMARY, Pair};

#[test]
fn a_read_whose_reply_was_lost_comes_from_the_pending_list() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let id = pair.publish("hello");
    pair.hear(0);
    assert!(pair.send(0) && pair.execute(0));
    pair.nodes[0].break_data();
    pair.settle();
    assert_eq!(pair.client(client).messages(), [(id, 2)]);
}

#[test]
fn a_read_that_was_never_executed_is_sent_again() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let id = pair.publish("hello");
    pair.hear(0);
    assert!(pair.send(0));
    pair.nodes[0].break_data();
    pair.settle();
    assert_eq!(pair.client(client).messages(), [(id, 1)]);
}

#[test]
fn acks_whose_reply_was_lost_are_sent_again_and_confirmed() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({"confirm": true}));
    let id = pair.publish("hello");
    pair.settle();
    pair.ack(client, &[id]);
    assert!(pair.send(0) && pair.execute(0));
    pair.nodes[0].break_data();
    pair.settle();
    assert_eq!(pair.client(client).confirmed(), [id]);
    assert_eq!(pair.client(client).messages(), [(id, 1)]);
}

#[test]
fn a_deleted_inbox_is_repaired_with_a_gap_and_a_new_epoch() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let before = pair.publish("before");
    pair.settle();
    pair.world.redis.delete_inbox();
    pair.pass(2_000);
    let after = pair.publish("after");
    pair.settle();
    let client = pair.client(client);
    assert_eq!(client.messages(), [(before, 1), (after, 1)]);
    let gap = client.last("gap");
    assert_eq!(gap["reason"], "epoch");
    assert_ne!(gap["epoch"], client.last("ready")["epoch"]);
    assert_eq!(client.closed, None);
}

#[test]
fn a_record_that_vanished_in_the_same_primary_epoch_means_removed() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.world.redis.remove_device("web");
    pair.world.redis.said.clear();
    pair.advance(1_000);
    assert_eq!((pair.client(client).error(), pair.client(client).closed), ("removed", Some(4011)));
}

#[test]
fn a_record_that_was_lost_with_the_data_is_made_again_with_a_gap() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.advance(10_000);
    pair.world.redis.lose_data();
    let id = pair.publish("after the loss");
    pair.settle();
    assert_eq!(pair.client(client).closed, None);
    assert_eq!(pair.client(client).last("gap")["reason"], "epoch");
    assert_eq!(pair.client(client).ids(), [id]);
    assert_eq!(pair.session(client).map(|session| session.is_live()), Some(true));
}

#[test]
fn a_session_whose_record_was_lost_goes_on_although_the_primary_epoch_looks_the_same() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.world.redis.lose_data();
    pair.pass(1_000);
    while pair.turn(0) {}
    // An epoch is at least the clock's seconds: made again within the same second, it is the same.
    pair.world.redis.primary = Some(PRIMARY);
    pair.settle();
    let id = pair.publish("after the loss");
    pair.settle();
    assert_eq!((pair.client(client).closed, pair.client(client).ids()), (None, vec![id]));
}

#[test]
fn a_changed_primary_epoch_drops_buffered_acks_and_delivers_again() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({"confirm": true}));
    let id = pair.publish("hello");
    pair.settle();
    pair.ack(client, &[id]);
    pair.nodes[0].lose_link();
    pair.world.redis.primary = Some(PRIMARY + 1);
    pair.settle();
    assert_eq!(pair.client(client).confirmed(), []);
    assert_eq!(pair.client(client).messages(), [(id, 1), (id, 2)]);
    assert_eq!(pair.client(client).last("gap")["reason"], "epoch");
    assert!(pair.client(client).last("gap")["epoch"].as_str().is_some_and(|epoch| epoch.starts_with("1600000001.")));
}

#[test]
fn acks_in_flight_across_a_change_of_the_primary_epoch_are_dropped() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({"confirm": true}));
    let id = pair.publish("hello");
    pair.settle();
    pair.ack(client, &[id]);
    assert!(pair.send(0));
    pair.nodes[0].lose_link();
    pair.world.redis.primary = Some(PRIMARY + 1);
    assert!(pair.relink(0), "the new link is there before the old pipeline has failed");
    pair.settle();
    assert_eq!(pair.client(client).confirmed(), []);
    assert_eq!(pair.client(client).messages(), [(id, 1), (id, 2)]);
}

#[test]
fn a_repair_that_fails_across_a_change_of_the_primary_epoch_does_not_close() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.world.redis.delete_inbox();
    pair.pass(1_000);
    assert!(pair.turn(0), "the sweep finds no group");
    assert!(pair.send(0), "the repair");
    pair.nodes[0].lose_link();
    pair.world.redis.lose_data();
    assert!(pair.relink(0), "the new link is there before the old pipeline has failed");
    pair.settle();
    assert_eq!(pair.client(client).closed, None, "data was lost; nobody deleted the device");
}

#[test]
fn a_repair_that_is_answered_across_a_change_of_the_primary_epoch_does_not_close() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.world.redis.lose_data();
    pair.pass(1_000);
    assert!(pair.turn(0), "the sweep finds no group");
    pair.world.redis.primary = Some(PRIMARY + 1);
    assert!(pair.send(0) && pair.execute(0), "the repair finds no record");
    pair.change_epoch(0, PRIMARY + 1);
    assert!(pair.reply(0));
    pair.settle();
    assert_eq!(pair.client(client).closed, None, "data was lost; nobody deleted the device");
    assert_eq!(pair.client(client).last("gap")["reason"], "epoch");
}

#[test]
fn a_generation_that_went_back_means_lost_data_and_not_a_take_over() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.world.redis.rewind_generation("web");
    pair.world.redis.primary = Some(PRIMARY + 1);
    pair.advance(1_000);
    assert_eq!(pair.client(client).closed, None);
    let generation = pair.session(client).map(|session| session.generation());
    assert_eq!(pair.world.redis.record("web").map(|record| record.generation), generation);
}
