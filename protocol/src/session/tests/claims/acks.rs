//! Acks and their confirmations.

use serde_json::json;

use crate::frame::GapReason;
use crate::id::EntryId;
use crate::session::Command;
use crate::session::tests::pair::Pair;
use crate::simulation::redis::Caller;

#[test]
fn an_ack_is_confirmed_after_redis_executed_it_and_not_before() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({"confirm": true}));
    let id = pair.publish("hello");
    pair.settle();
    pair.say(client, json!({"type": "ack", "ids": [id.to_string()], "ref": "mine"}));
    assert!(pair.send(0));
    assert_eq!(pair.receive(client), None);
    assert!(pair.execute(0));
    assert_eq!((pair.world.redis.pending("web"), pair.receive(client)), (vec![], None));
    pair.settle();
    assert_eq!(pair.client(client).confirmed(), [id]);
    assert_eq!(pair.client(client).last("acked")["ref"], "mine");
}

#[test]
fn a_session_that_is_no_longer_the_owner_confirms_nothing_and_is_closed_as_stale() {
    let mut pair = Pair::new(2);
    let old = pair.connect(0, json!({"confirm": true}));
    let id = pair.publish("hello");
    pair.settle();
    let new = pair.connect_as(1, "web", json!({}));
    while pair.turn(1) {}
    pair.nodes[0].hints.clear();
    pair.ack(old, &[id]);
    pair.settle();
    assert_eq!((pair.client(old).confirmed(), pair.client(old).closed), (vec![], Some(4009)));
    assert_eq!(pair.client(old).error(), "superseded");
    assert_eq!(pair.world.redis.pending("web"), [], "the ack itself is a fact");
    assert!(pair.session(new).is_some_and(|session| session.is_live()));
}

#[test]
fn an_ack_of_an_id_that_was_never_delivered_is_not_confirmed() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({"confirm": true, "window": 1}));
    let ids = pair.publish_many(2);
    pair.settle();
    pair.ack(client, &[ids[1], EntryId { ms: u64::MAX, seq: 0 }, ids[0]]);
    pair.settle();
    assert_eq!(pair.client(client).confirmed(), [ids[0]]);
    assert_eq!(pair.client(client).ids(), ids, "and it is still delivered");
}

#[test]
fn an_ack_that_arrives_during_the_walk_that_still_finds_its_message_stops_the_redelivery() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let id = pair.publish("hello");
    pair.settle();
    pair.nodes[0].lose_link();
    assert!(pair.relink(0) && pair.send(0) && pair.execute(0));
    pair.ack(client, &[id]);
    pair.settle();
    assert_eq!(pair.client(client).messages(), [(id, 1)]);
}

#[test]
fn an_ack_of_what_an_earlier_connection_acked_is_confirmed() {
    let mut pair = Pair::new(2);
    let first = pair.connect(0, json!({"confirm": true}));
    let ids = pair.publish_many(2);
    pair.settle();
    pair.ack(first, &ids[..1]);
    pair.send(0);
    pair.execute(0);
    pair.nodes[0].break_data();
    let second = pair.connect(1, json!({"confirm": true}));
    pair.ack(second, &ids);
    pair.settle();
    assert_eq!(pair.client(second).confirmed(), ids);
}

#[test]
fn a_repeated_ack_of_what_a_stale_node_had_read_is_confirmed() {
    let mut pair = Pair::new(2);
    let old = pair.connect(0, json!({}));
    pair.publish("for the new node");
    pair.hear(0);
    assert!(pair.send(0));
    let new = pair.connect_as(1, "web", json!({"confirm": true}));
    pair.settle_node(1);
    let id = pair.publish("for the old node");
    assert!(pair.execute(0) && pair.reply(0));
    pair.settle();
    for _ in 0..2 {
        pair.ack(new, &[id]);
        pair.settle();
    }
    assert_eq!(pair.client(new).confirmed(), [id, id]);
    assert_eq!(pair.client(old).closed, Some(4009));
}

#[test]
fn while_redis_refuses_acks_wait_unconfirmed_and_bounded() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({"confirm": true}));
    let ids = pair.publish_many(64);
    pair.settle();
    pair.world.redis.refusing = true;
    pair.ack(client, &ids);
    pair.advance(2_000);
    assert_eq!(pair.client(client).confirmed(), []);
    assert_eq!(pair.session(client).map(|session| session.acks_waiting()), Some(64));
    for frame in 0..3 {
        let strangers: Vec<_> = (0..4_000).map(|seq| EntryId { ms: u64::MAX - frame, seq }).collect();
        pair.ack(client, &strangers);
    }
    pair.advance(1_000);
    assert_eq!(pair.client(client).error(), "unavailable");
    assert!(pair.client(client).last("error")["retry_after_ms"].is_u64());
    pair.world.redis.refusing = false;
    pair.advance(2_000);
    assert_eq!(pair.client(client).confirmed(), ids);
    assert_eq!(pair.world.redis.pending("web"), []);
}

// The first sweep is due during the pause, and waits for its end like everything else.
#[test]
fn acks_that_redis_refused_are_sent_again_when_the_pause_is_over_whatever_is_due_besides() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let id = pair.publish("hello");
    pair.settle();
    pair.pass(900);
    pair.world.redis.refusing = true;
    pair.ack(client, &[id]);
    pair.settle();
    pair.world.redis.refusing = false;
    pair.pass(150);
    let now_ms = pair.world.now.mono_ms;
    let due_ms = pair.session(client).map(|session| session.poll_timeout()).expect("it is there");
    assert!(due_ms > now_ms && due_ms < now_ms + 1_000, "{due_ms} at {now_ms}");
    pair.settle();
    assert_eq!(pair.world.redis.pending("web"), [id], "not before");
    pair.pass(due_ms - now_ms);
    pair.settle();
    assert_eq!(pair.world.redis.pending("web"), []);
}

#[test]
fn acks_without_ids_do_not_fill_memory_while_redis_refuses() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({"confirm": true}));
    pair.world.redis.refusing = true;
    pair.advance(61_000);
    for _ in 0..100 {
        for _ in 0..200 {
            pair.say(client, json!({"type": "ack", "ids": [], "ref": "r"}));
        }
        pair.advance(1_000);
    }
    assert_eq!(pair.client(client).error(), "unavailable");
}

#[test]
fn an_ack_frame_without_anything_to_ack_is_answered_soon() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({"confirm": true}));
    pair.say(client, json!({"type": "ack", "ids": [], "ref": "r"}));
    pair.settle();
    assert_eq!(pair.client(client).last("acked")["ref"], "r");
}

#[test]
fn a_gap_is_repeated_after_every_ready_until_its_id_is_acked() {
    let mut pair = Pair::new(1);
    let first = pair.connect(0, json!({}));
    pair.publish(&"x".repeat(100_000));
    pair.settle();
    let gap = pair.client(first).last("gap").clone();
    pair.hang_up(first);
    let second = pair.connect(0, json!({"confirm": true}));
    assert_eq!(pair.client(second).frames[0]["type"], "ready");
    assert_eq!(pair.client(second).frames[1], gap);
    pair.say(second, json!({"type": "ack", "ids": [gap["id"]]}));
    pair.settle();
    assert!(pair.client(second).all("acked").iter().any(|acked| acked["ids"] == json!([gap["id"]])));
    pair.hang_up(second);
    let third = pair.connect(0, json!({}));
    assert!(pair.client(third).all("gap").is_empty());
}

#[test]
fn an_ack_of_an_older_epoch_is_dropped_even_if_it_comes_before_ready() {
    let mut pair = Pair::new(1);
    let first = pair.connect(0, json!({}));
    let id = pair.publish("hello");
    pair.settle();
    pair.hang_up(first);
    pair.settle();
    let second = pair.connect_as(0, "web", json!({"epoch": "1.1", "confirm": true}));
    pair.ack(second, &[id]);
    pair.settle();
    assert_eq!(pair.client(second).messages(), [(id, 2)], "that id named another message");
    assert_eq!(pair.client(second).confirmed(), []);
}

// Whoever finds out what was dropped tells the owner then recorded, which may not know yet that it is the owner.
#[test]
fn a_gap_that_is_heard_while_the_attach_is_in_flight_is_told_after_ready() {
    for open_before in [false, true] {
        let mut pair = Pair::new(2);
        let first = pair.connect(0, json!({}));
        let drop_one = |pair: &mut Pair| {
            let command = Command::SetAside { reason: GapReason::Retention, ids: Vec::new(), gone: 1 };
            let caller = Caller { owner: "somebody", device: "web", nonce: 0 };
            pair.world.redis.execute(caller, &command);
            pair.route();
        };
        if open_before {
            drop_one(&mut pair);
            pair.settle();
            assert_eq!(pair.client(first).last("gap")["count"], 1);
        }
        let second = pair.connect_as(1, "web", json!({}));
        assert!(pair.send(1) && pair.execute(1));
        drop_one(&mut pair);
        assert!(pair.hear(1));
        pair.settle();
        let gaps = pair.client(second).all("gap");
        assert_eq!((gaps.len(), &gaps[0]["count"]), (1, &json!(1 + usize::from(open_before))), "the newest, and once");
        assert_eq!(pair.client(second).frames[0]["type"], "ready");
    }
}
