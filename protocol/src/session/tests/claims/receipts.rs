//! Receipts: what is told to a producer who asks, once, and before the ack.

use serde_json::json;

use crate::id::EntryId;
use crate::session::ReceiptEvent::{Acked, Delivered, Dropped, Expired};
use crate::session::tests::pair::{BEGIN_UNIX_MS, Pair};
use crate::session::{Receipt, ReceiptEvent, Wish};

/// The stream of receipts: device, id, event.
fn announced(pair: &Pair) -> Vec<(&str, EntryId, ReceiptEvent)> {
    let entries = pair.world.redis.announced.iter();
    entries.map(|(device, receipt)| (device.as_str(), receipt.id, receipt.event)).collect()
}

fn ask(pair: &mut Pair) -> EntryId {
    pair.publish_fields(&[("data", "x"), ("receipt", "1"), ("key", "order-7")])
}

#[test]
fn a_delivery_and_its_ack_are_told_and_recorded_with_the_key() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let id = ask(&mut pair);
    pair.settle();
    assert_eq!(announced(&pair), [("web", id, Delivered)]);
    pair.ack(client, &[id]);
    pair.settle();
    assert_eq!(announced(&pair), [("web", id, Delivered), ("web", id, Acked)]);
    let wish = Wish { key: Some("order-7".into()), aimed: false };
    let acked = Receipt { id, event: Acked, wish, repeated: false };
    assert_eq!(pair.world.redis.announced[1].1, acked);
    assert!(pair.world.redis.recorded.contains(&("web".to_owned(), id, Acked)));
    assert_eq!(pair.world.redis.pending("web"), []);
}

#[test]
fn a_message_that_asks_for_nothing_costs_no_command() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let ids = pair.publish_many(3);
    pair.settle();
    pair.ack(client, &ids);
    pair.settle();
    assert!(announced(&pair).is_empty() && pair.world.redis.recorded.is_empty());
}

#[test]
fn each_device_has_its_own_receipts_and_one_that_is_passed_over_has_none() {
    let mut pair = Pair::new(1);
    let web = pair.connect_as(0, "web", json!({}));
    let phone = pair.connect_as(0, "phone", json!({}));
    pair.settle();
    let both = ask(&mut pair);
    pair.settle();
    pair.ack(phone, &[both]);
    pair.settle();
    let aimed = pair.publish_fields(&[("data", "x"), ("receipt", "1"), ("device", "web")]);
    pair.settle();
    pair.ack(web, &[both, aimed]);
    pair.settle();
    let mut told = announced(&pair);
    told.sort();
    let expected = [
        ("phone", both, Delivered),
        ("phone", both, Acked),
        ("web", both, Delivered),
        ("web", both, Acked),
        ("web", aimed, Delivered),
        ("web", aimed, Acked),
    ];
    assert_eq!(told, expected);
    assert!(
        pair.world
            .redis
            .announced
            .iter()
            .filter(|(_, receipt)| receipt.wish.aimed)
            .all(|(_, receipt)| receipt.id == aimed)
    );
}

#[test]
fn a_redelivery_is_not_told_again() {
    let mut pair = Pair::new(2);
    let client = pair.connect(0, json!({}));
    let id = ask(&mut pair);
    pair.advance(31_000);
    assert_eq!(pair.client(client).messages(), [(id, 1), (id, 2)]);
    assert_eq!(announced(&pair), [("web", id, Delivered)]);
    // Another session cannot know by itself, so it asks the record first.
    pair.connect(1, json!({}));
    assert_eq!(announced(&pair), [("web", id, Delivered)]);
}

#[test]
fn a_delivery_that_a_dead_node_did_not_tell_is_told_by_the_next() {
    let mut pair = Pair::new(2);
    pair.connect(0, json!({}));
    let id = ask(&mut pair);
    pair.hear(0);
    pair.turn(0);
    assert!(announced(&pair).is_empty());
    pair.crash(0);
    pair.connect(1, json!({}));
    assert_eq!(announced(&pair), [("web", id, Delivered)]);
}

#[test]
fn an_end_without_an_ack_is_told_by_its_name() {
    let mut pair = Pair::new(1);
    pair.connect(0, json!({}));
    let late = pair.publish_fields(&[("data", "x"), ("receipt", "1"), ("exp", "1")]);
    let big = pair.publish_fields(&[("data", &"x".repeat(64 * 1024 + 1)), ("receipt", "1")]);
    let soon = (BEGIN_UNIX_MS + 20_000).to_string();
    let soon = pair.publish_fields(&[("data", "x"), ("receipt", "1"), ("exp", &soon)]);
    let deleted = ask(&mut pair);
    pair.settle();
    pair.world.redis.delete_entry(deleted);
    pair.advance(31_000);
    let mut ends: Vec<_> = announced(&pair).into_iter().filter(|(.., event)| *event != Delivered).collect();
    ends.sort();
    assert_eq!(
        ends,
        [("web", late, Expired), ("web", big, Dropped), ("web", soon, Expired), ("web", deleted, Dropped)]
    );
}

// The receipt is in the pipeline of the ack, before it: if Redis executed the one, it executed the other.
#[test]
fn an_ack_that_fails_is_told_again_and_never_forgotten() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let id = ask(&mut pair);
    pair.settle();
    pair.ack(client, &[id]);
    pair.send(0);
    pair.nodes[0].break_data();
    pair.settle();
    assert!(announced(&pair).contains(&("web", id, Acked)));
    assert_eq!(pair.world.redis.pending("web"), []);
    assert!(pair.world.redis.untold.is_empty());
}

#[test]
fn an_ack_of_a_message_that_this_session_never_saw_is_told_before_it_counts() {
    for confirm in [true, false] {
        let mut pair = Pair::new(2);
        pair.connect(0, json!({}));
        let (id, plain) = (ask(&mut pair), pair.publish("asks for nothing"));
        pair.settle();
        pair.crash(0);
        let client = pair.connect_as(1, "web", json!({"confirm": confirm}));
        // Acked before the new session has read the pending list.
        pair.ack(client, &[id, plain]);
        pair.settle();
        assert!(announced(&pair).contains(&("web", id, Acked)), "confirm: {confirm}");
        assert_eq!(pair.world.redis.pending("web"), []);
        assert!(pair.world.redis.untold.is_empty());
        let confirmed: Vec<_> = pair.client(client).all("acked").iter().map(|frame| frame["ids"].clone()).collect();
        let expected = if confirm { vec![json!([plain.to_string()]), json!([id.to_string()])] } else { vec![] };
        assert_eq!(confirmed, expected);
    }
}
