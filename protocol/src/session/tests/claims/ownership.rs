//! Take-over between nodes, releases and sweeps.

use serde_json::json;

use crate::session::tests::pair::Pair;

#[test]
fn the_newer_connection_gets_what_is_unacked_and_the_older_is_closed_with_4009() {
    let mut pair = Pair::new(2);
    let old = pair.connect(0, json!({}));
    let ids = pair.publish_many(3);
    pair.settle();
    pair.ack(old, &ids[..1]);
    pair.settle();
    let new = pair.connect(1, json!({}));
    assert_eq!((pair.client(old).error(), pair.client(old).closed), ("superseded", Some(4009)));
    assert_eq!(pair.client(new).messages(), [(ids[1], 2), (ids[2], 2)]);
    let fresh = pair.publish("fresh");
    pair.settle();
    assert_eq!(pair.client(new).messages().last(), Some(&(fresh, 1)));
    assert_eq!(pair.client(old).ids(), ids);
}

#[test]
fn two_connections_at_one_node_are_told_apart_as_well() {
    let mut pair = Pair::new(1);
    let old = pair.connect(0, json!({}));
    let id = pair.publish("hello");
    pair.settle();
    let new = pair.connect(0, json!({}));
    assert_eq!((pair.client(old).closed, pair.client(new).closed), (Some(4009), None));
    assert_eq!(pair.client(new).messages(), [(id, 2)]);
}

#[test]
fn two_attaches_in_one_pipeline_leave_the_later_one() {
    let mut pair = Pair::new(1);
    let old = pair.connect_as(0, "web", json!({}));
    let new = pair.connect_as(0, "web", json!({}));
    pair.settle();
    assert_eq!((pair.client(old).closed, pair.client(new).closed), (Some(4009), None));
}

#[test]
fn a_session_that_was_superseded_before_its_attach_reply_came_is_closed() {
    let mut pair = Pair::new(2);
    let old = pair.connect_as(0, "web", json!({}));
    assert!(pair.send(0) && pair.execute(0));
    let new = pair.connect_as(1, "web", json!({}));
    pair.settle_node(1);
    assert!(pair.hear(0), "the word of the take-over overtakes the reply");
    pair.settle();
    assert_eq!((pair.client(old).closed, pair.client(new).closed), (Some(4009), None));
    assert!(pair.client(old).all("ready").is_empty());
}

#[test]
fn the_word_of_an_older_or_equal_generation_closes_nobody() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let generation = pair.client(client).last("ready")["generation"].as_u64().expect("a number");
    for generation in [generation - 1, generation] {
        pair.supersede(client, generation);
        pair.settle();
        assert_eq!(pair.client(client).closed, None);
    }
    pair.supersede(client, generation + 1);
    pair.settle();
    assert_eq!(pair.client(client).closed, Some(4009));
}

// A node that was paused and judged dead goes on when it wakes up; its record must name it again, or nobody tells it of
// the next take-over.
#[test]
fn a_session_whose_node_was_judged_dead_claims_its_record_at_the_next_sweep() {
    let mut pair = Pair::new(2);
    let old = pair.connect(0, json!({}));
    let owner = |pair: &Pair| pair.world.redis.record("web").map(|record| record.owner.clone());
    pair.world.redis.strike_owner("web");
    pair.advance(60_000);
    assert_eq!(owner(&pair).as_deref(), Some("node-0"));
    let new = pair.connect(1, json!({}));
    assert_eq!((pair.client(old).closed, pair.client(new).closed), (Some(4009), None));
}

#[test]
fn an_attach_whose_reply_was_lost_is_repeated_and_does_not_supersede_itself() {
    let mut pair = Pair::new(1);
    let client = pair.connect_as(0, "web", json!({}));
    assert!(pair.send(0) && pair.execute(0));
    let generation = pair.world.redis.record("web").map(|record| record.generation);
    pair.nodes[0].break_data();
    pair.pass(5);
    pair.settle();
    assert_eq!(pair.client(client).closed, None);
    assert_eq!(pair.client(client).last("ready")["generation"].as_u64(), generation);
}

#[test]
fn an_older_attempt_of_the_same_client_object_does_not_win() {
    let mut pair = Pair::new(2);
    let stuck = pair.connect_as(0, "web", json!({"instance": "tab", "seq": 1}));
    assert!(pair.send(0));
    let new = pair.connect(1, json!({"instance": "tab", "seq": 2}));
    pair.settle();
    assert_eq!((pair.client(stuck).closed, pair.client(new).closed), (Some(4009), None));
}

/// Node 1 takes the device over and reads the first of two messages, then an old read of node 0 gets the second.
fn late_read(pair: &mut Pair) -> usize {
    pair.publish("first");
    pair.hear(0);
    assert!(pair.send(0), "the read is on its way");
    let new = pair.connect_as(1, "web", json!({}));
    pair.settle_node(1);
    pair.publish("second");
    assert!(pair.execute(0), "and is executed now");
    pair.settle_node(1);
    assert_eq!(pair.world.redis.pending("web").len(), 2);
    new
}

#[test]
fn what_a_superseded_node_reads_late_is_delivered_after_its_release() {
    let mut pair = Pair::new(2);
    pair.connect(0, json!({}));
    let new = late_read(&mut pair);
    pair.settle();
    let attempts: Vec<_> = pair.client(new).messages().iter().map(|(_, attempt)| *attempt).collect();
    assert_eq!(attempts, [1, 2]);
}

#[test]
fn a_release_during_the_walk_that_misses_it_begins_the_walk_anew() {
    let mut pair = Pair::new(2);
    pair.connect(0, json!({}));
    pair.publish("late");
    pair.hear(0);
    assert!(pair.send(0), "the read is on its way");
    let new = pair.connect_as(1, "web", json!({}));
    while pair.nodes[1].subscribe() || pair.nodes[1].subscribed() || pair.hear(1) {}
    assert!(pair.turn(1), "the attach");
    assert!(pair.send(1) && pair.execute(1), "the walk finds nothing");
    pair.settle_node(0);
    while pair.hear(1) {}
    pair.settle();
    assert_eq!(pair.client(new).ids().len(), 1);
}

#[test]
fn what_a_node_reads_for_a_session_that_is_gone_is_released_all_the_same() {
    let mut pair = Pair::new(3);
    let first = pair.connect(0, json!({}));
    late_read(&mut pair);
    pair.hang_up(first);
    let third = pair.connect_as(2, "web", json!({}));
    pair.settle_node(2);
    pair.publish("third");
    pair.settle();
    assert_eq!(pair.client(third).ids().len(), 3);
}

#[test]
fn the_sweep_finds_what_lost_hints_would_have_told() {
    let mut pair = Pair::new(2);
    let old = pair.connect(0, json!({}));
    let new = late_read(&mut pair);
    pair.nodes[0].hints.clear();
    pair.settle();
    assert_eq!((pair.client(old).closed, pair.client(new).ids().len()), (None, 1));
    pair.advance(1_000);
    assert_eq!(pair.client(old).closed, Some(4009), "the owner in the record is not this session");
    assert_eq!(pair.client(new).ids().len(), 2, "the pending list is not the ledger");
}

#[test]
fn the_sweep_finds_a_lost_wake_up() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.advance(10_000);
    let id = pair.publish("unheard");
    pair.nodes[0].hints.clear();
    pair.advance(60_000);
    assert_eq!(pair.client(client).messages(), [(id, 1)]);
}

#[test]
fn sweeps_come_at_1_2_4_and_8_s_and_then_every_60_s() {
    let mut pair = Pair::new(1);
    pair.connect(0, json!({}));
    let begin_ms = pair.world.now.mono_ms;
    let mut sweeps = Vec::new();
    while pair.world.now.mono_ms < begin_ms + 200_000 {
        let before = pair.world.redis.sweeps;
        pair.advance(500);
        if pair.world.redis.sweeps > before {
            sweeps.push(pair.world.now.mono_ms - begin_ms);
        }
    }
    assert_eq!(sweeps, [1_000, 2_000, 4_000, 8_000, 68_000, 128_000, 188_000]);
}

#[test]
fn a_message_that_another_session_acked_leaves_the_ledger() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let ids = pair.publish_many(3);
    pair.settle();
    pair.world.redis.ack_by_hand("web", ids[0]);
    pair.advance(1_000);
    assert_eq!(pair.session(client).map(|session| session.in_flight()), Some(2));
    pair.advance(40_000);
    assert!(!pair.client(client).messages().contains(&(ids[0], 2)));
}
