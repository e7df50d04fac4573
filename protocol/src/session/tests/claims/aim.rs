//! Messages for one device of several.

use serde_json::json;

use crate::session::tests::pair::Pair;

#[test]
fn a_message_for_one_device_is_passed_over_by_the_others_without_a_word() {
    let mut pair = Pair::new(1);
    let web = pair.connect_as(0, "web", json!({}));
    let phone = pair.connect_as(0, "phone", json!({}));
    pair.settle();
    let aimed = pair.publish_fields(&[("data", "for the phone"), ("device", "phone")]);
    let all = pair.publish("for all");
    pair.settle();
    assert_eq!(pair.client(web).ids(), [all]);
    assert_eq!(pair.client(phone).ids(), [aimed, all]);
    assert_eq!((pair.world.redis.pending("web"), pair.world.redis.pending("phone")), (vec![all], vec![aimed, all]));
    assert_eq!(pair.world.redis.record("web").map(|record| record.dropped), Some(0));
    assert!(pair.client(web).all("gap").is_empty());
}

#[test]
fn a_message_for_another_device_holds_up_no_trim() {
    let mut pair = Pair::new(1);
    let web = pair.connect_as(0, "web", json!({}));
    pair.hang_up(web);
    let phone = pair.connect_as(0, "phone", json!({}));
    pair.settle();
    let aimed = pair.publish_fields(&[("data", "for the phone"), ("device", "phone"), ("exp", "1")]);
    let kept = pair.publish_fields(&[("data", "for the phone"), ("device", "phone")]);
    pair.settle();
    assert_eq!(pair.client(phone).ids(), [kept], "{aimed} has expired for the device that it was for");
    pair.ack(phone, &[kept]);
    pair.settle();
    let web = pair.connect_as(0, "web", json!({}));
    pair.settle();
    assert_eq!(pair.client(web).ids(), []);
    assert_eq!(pair.world.redis.pending("web"), []);
}

// What an older node without this rule had read, or a node that died between its read and its ack.
#[test]
fn a_message_for_another_device_that_is_pending_is_passed_over_too() {
    let mut pair = Pair::new(2);
    let first = pair.connect(0, json!({}));
    pair.publish_fields(&[("data", "x"), ("device", "phone")]);
    pair.hear(0);
    pair.send(0);
    pair.execute(0);
    assert_eq!(pair.world.redis.pending("web").len(), 1);
    pair.crash(0);
    let second = pair.connect(1, json!({}));
    assert_eq!((pair.client(first).ids(), pair.client(second).ids()), (vec![], vec![]));
    assert_eq!(pair.world.redis.pending("web"), []);
}
