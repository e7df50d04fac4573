//! Sessions that somebody else ends: replaced, kicked, or with a refused token.

use serde_json::json;

use crate::session::tests::pair::Pair;
use crate::session::{Dismissal, Terms};

/// A user of whom so many devices may be connected at once.
fn limited(nodes: usize, sessions: u32) -> Pair {
    let mut pair = Pair::new(nodes);
    pair.world.redis.sessions_per_user = sessions;
    pair
}

fn connect(pair: &mut Pair, node: usize, device: &str) -> usize {
    let connection = pair.connect_as(node, device, json!({}));
    pair.settle();
    connection
}

fn end(pair: &Pair, connection: usize) -> (String, Option<u16>) {
    (pair.client(connection).error().to_owned(), pair.client(connection).closed)
}

fn owner<'a>(pair: &'a Pair, device: &str) -> Option<&'a str> {
    pair.world.redis.record(device).map(|record| record.owner.as_str())
}

#[test]
fn of_one_session_per_user_the_newer_wins_and_the_older_is_closed_with_4010() {
    for new_node in [0, 1] {
        let mut pair = limited(2, 1);
        let old = connect(&mut pair, 0, "phone");
        let new = connect(&mut pair, new_node, "web");
        assert_eq!(end(&pair, old), ("replaced".to_owned(), Some(4010)));
        assert_eq!(pair.client(new).closed, None);
        assert_eq!(owner(&pair, "phone"), Some(""));
        assert!(pair.session(old).is_none(), "it has released and is gone");
    }
}

#[test]
fn of_two_sessions_per_user_the_one_attached_longest_ago_is_replaced() {
    let mut pair = limited(1, 2);
    let devices = ["phone", "web", "tv"].map(|device| {
        pair.pass(1);
        connect(&mut pair, 0, device)
    });
    assert_eq!(end(&pair, devices[0]).1, Some(4010));
    assert_eq!((pair.client(devices[1]).closed, pair.client(devices[2]).closed), (None, None));
}

#[test]
fn a_device_that_connects_again_replaces_no_other() {
    let mut pair = limited(2, 2);
    let phone = connect(&mut pair, 0, "phone");
    let old = connect(&mut pair, 0, "web");
    let new = connect(&mut pair, 1, "web");
    assert_eq!(pair.client(phone).closed, None);
    assert_eq!((pair.client(old).closed, pair.client(new).closed), (Some(4009), None));
}

#[test]
fn a_replaced_session_sends_its_acks_before_it_goes() {
    let mut pair = limited(2, 1);
    let old = connect(&mut pair, 0, "phone");
    let ids = pair.publish_many(2);
    pair.settle();
    pair.ack(old, &ids[..1]);
    connect(&mut pair, 1, "web");
    assert_eq!(end(&pair, old).1, Some(4010));
    assert_eq!(pair.world.redis.pending("phone"), ids[1..]);
}

// A replaced session that took its device back would replace the newer one, for ever in turn.
#[test]
fn a_session_that_never_heard_that_it_was_replaced_finds_out_by_its_sweep_and_claims_nothing() {
    let mut pair = limited(2, 1);
    let old = connect(&mut pair, 0, "phone");
    let new = pair.connect_as(1, "web", json!({}));
    pair.settle_node(1);
    pair.nodes[0].hints.clear();
    pair.settle();
    assert_eq!(pair.client(old).closed, None, "nobody has told it");
    pair.advance(60_000);
    assert_eq!(end(&pair, old), ("replaced".to_owned(), Some(4010)));
    assert_eq!((owner(&pair, "phone"), owner(&pair, "web")), (Some(""), Some("node-1")));
    assert_eq!(pair.client(new).closed, None);
}

#[test]
fn the_word_of_a_replacement_that_overtakes_the_reply_of_the_attach_closes_the_session() {
    let mut pair = limited(2, 1);
    let old = pair.connect_as(0, "phone", json!({}));
    assert!(pair.send(0) && pair.execute(0));
    pair.connect_as(1, "web", json!({}));
    pair.settle_node(1);
    assert!(pair.hear(0), "the word overtakes the reply");
    pair.settle();
    assert_eq!(end(&pair, old).1, Some(4010));
    assert!(pair.client(old).all("ready").is_empty());
}

#[test]
fn an_attach_that_is_repeated_because_its_reply_was_lost_does_not_undo_a_replacement() {
    let mut pair = limited(2, 1);
    let old = pair.connect_as(0, "phone", json!({}));
    assert!(pair.send(0) && pair.execute(0));
    pair.nodes[0].break_data();
    let new = pair.connect_as(1, "web", json!({}));
    pair.settle_node(1);
    pair.settle();
    assert_eq!(end(&pair, old).1, Some(4010));
    assert_eq!((pair.client(new).closed, owner(&pair, "phone")), (None, Some("")));
}

#[test]
fn a_replaced_session_does_not_attach_again_when_the_primary_epoch_changes() {
    let mut pair = limited(2, 1);
    let old = connect(&mut pair, 0, "phone");
    let new = pair.connect_as(1, "web", json!({}));
    pair.settle_node(1);
    pair.nodes[0].hints.clear();
    pair.world.redis.restarted = true;
    pair.nodes[0].lose_link();
    pair.settle();
    assert_eq!(end(&pair, old).1, Some(4010));
    assert_eq!(pair.client(new).closed, None);
}

// It was paused, judged dead, and its place was given away: it must not come back beside the newer one.
#[test]
fn a_session_whose_node_was_judged_dead_is_replaced_as_well() {
    let mut pair = limited(2, 1);
    let old = connect(&mut pair, 0, "phone");
    pair.world.redis.strike_owner("phone");
    let new = connect(&mut pair, 1, "web");
    pair.advance(60_000);
    assert_eq!(end(&pair, old).1, Some(4010));
    assert_eq!((pair.client(new).closed, owner(&pair, "phone")), (None, Some("")));
}

#[test]
fn a_device_that_was_judged_dead_is_replaced_before_one_that_lives() {
    let mut pair = limited(3, 2);
    let lives = connect(&mut pair, 0, "phone");
    pair.pass(1);
    connect(&mut pair, 1, "web");
    pair.world.redis.strike_owner("web");
    pair.pass(1);
    connect(&mut pair, 2, "tv");
    assert_eq!(pair.client(lives).closed, None);
}

#[test]
fn a_replaced_device_may_connect_again_and_replaces_in_turn() {
    let mut pair = limited(2, 1);
    connect(&mut pair, 0, "phone");
    let web = connect(&mut pair, 1, "web");
    let phone = connect(&mut pair, 0, "phone");
    assert_eq!((pair.client(phone).closed, pair.client(web).closed), (None, Some(4010)));
    pair.advance(120_000);
    assert_eq!(pair.client(phone).closed, None, "nothing of its first replacement is left");
}

#[test]
fn a_kicked_session_is_told_why_and_may_come_back() {
    let mut pair = Pair::new(1);
    let kicked = connect(&mut pair, 0, "web");
    let id = pair.publish("hello");
    pair.settle();
    pair.world.redis.dismiss("web", Dismissal::Kicked(Box::from("maintenance")));
    pair.route();
    pair.settle();
    assert_eq!(end(&pair, kicked), ("kicked".to_owned(), Some(4011)));
    assert_eq!(pair.client(kicked).last("error")["message"], "maintenance");
    let again = connect(&mut pair, 0, "web");
    assert_eq!(pair.client(again).closed, None);
    assert_eq!(pair.client(again).messages(), [(id, 2)], "its messages stay");
}

#[test]
fn the_word_of_an_older_dismissal_closes_nobody() {
    let mut pair = Pair::new(1);
    connect(&mut pair, 0, "web");
    pair.world.redis.dismiss("web", Dismissal::Kicked(Box::default()));
    let again = pair.connect_as(0, "web", json!({}));
    assert!(pair.turn(0));
    pair.settle();
    assert_eq!(pair.client(again).closed, None);
}

#[test]
fn a_refused_token_attaches_nothing_and_a_newer_one_does() {
    let mut pair = Pair::new(1);
    pair.world.redis.refuse_before_s = 1_000;
    for (issued_at_s, closed) in [(None, Some(4001)), (Some(1_000), Some(4001)), (Some(1_001), None)] {
        pair.issued_at_s = issued_at_s;
        let client = connect(&mut pair, 0, "web");
        assert_eq!(pair.client(client).closed, closed, "{issued_at_s:?}");
    }
}

#[test]
fn a_renewal_with_a_refused_token_is_refused_and_the_old_token_stays_in_force() {
    let mut pair = Pair::new(1);
    pair.world.redis.refuse_before_s = 1_000;
    pair.issued_at_s = Some(1_001);
    let client = connect(&mut pair, 0, "web");
    let later = pair.expires_at_ms + 1;
    pair.renew_with(client, Ok(Terms { issued_at_s: Some(999), ..Terms::until(later) }));
    pair.settle();
    assert_eq!((pair.client(client).error(), pair.client(client).closed), ("unauthorized", None));
    assert!(pair.client(client).all("authed").is_empty());
    pair.renew_with(client, Ok(Terms { issued_at_s: Some(1_002), ..Terms::until(later) }));
    pair.settle();
    assert_eq!(pair.client(client).last("authed")["expires_at_ms"], later);
}
