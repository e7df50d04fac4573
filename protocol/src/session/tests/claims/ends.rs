//! How sessions end, and what they leave.

use serde_json::json;

use crate::session::tests::pair::Pair;

#[test]
fn a_drained_session_is_told_when_to_come_back_flushes_its_acks_and_releases() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let ids = pair.publish_many(3);
    pair.settle();
    pair.ack(client, &ids[..2]);
    pair.drain(client, 700);
    pair.settle();
    let told = pair.client(client);
    assert_eq!((told.error(), told.closed), ("draining", Some(4112)));
    assert_eq!(told.last("error")["retry_after_ms"], 700);
    assert_eq!(pair.world.redis.pending("web"), ids[2..]);
    assert_eq!(pair.world.redis.record("web").map(|record| record.owner.as_str()), Some(""));
    assert!(pair.session(client).is_none());
}

#[test]
fn a_connection_that_goes_away_during_its_attach_releases_the_device() {
    let mut pair = Pair::new(1);
    let client = pair.connect_as(0, "web", json!({}));
    assert!(pair.send(0));
    pair.hang_up(client);
    pair.settle();
    assert!(pair.client(client).frames.is_empty() && pair.session(client).is_none());
    assert_eq!(pair.world.redis.record("web").map(|record| record.owner.as_str()), Some(""));
}

#[test]
fn forget_deletes_the_device_and_closes_with_1000() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let ids = pair.publish_many(2);
    pair.settle();
    pair.ack(client, &ids[..1]);
    pair.say(client, json!({"type": "forget"}));
    pair.settle();
    assert_eq!((pair.client(client).closed, pair.client(client).all("error").len()), (Some(1000), 0));
    assert!(pair.world.redis.record("web").is_none());
    let again = pair.connect(0, json!({}));
    assert_eq!(pair.client(again).last("ready")["created"], true);
}

#[test]
fn a_forget_that_may_have_been_executed_still_ends_with_1000() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.say(client, json!({"type": "forget"}));
    assert!(pair.send(0) && pair.execute(0));
    pair.nodes[0].break_data();
    pair.settle();
    assert_eq!(pair.client(client).closed, Some(1000));
}

#[test]
fn a_device_that_somebody_deletes_is_closed_with_4011() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.world.redis.remove_device("web");
    pair.route();
    pair.settle();
    assert_eq!((pair.client(client).error(), pair.client(client).closed), ("removed", Some(4011)));
}

#[test]
fn a_device_over_the_limit_is_refused_with_4003() {
    let mut pair = Pair::new(1);
    pair.world.redis.devices_max = 1;
    pair.connect(0, json!({}));
    let second = pair.connect_as(0, "second", json!({}));
    pair.settle();
    assert_eq!((pair.client(second).error(), pair.client(second).closed), ("too_many_devices", Some(4003)));
}

#[test]
fn a_client_that_connects_while_redis_refuses_is_sent_away_to_come_back() {
    let mut pair = Pair::new(1);
    pair.world.redis.refusing = true;
    let client = pair.connect(0, json!({}));
    assert_eq!((pair.client(client).error(), pair.client(client).closed), ("unavailable", Some(1011)));
    assert!(pair.client(client).last("error")["retry_after_ms"].is_u64());
    pair.world.redis.refusing = false;
    pair.advance(2_000);
    assert!(pair.session(client).is_none());
}

#[test]
fn an_inbox_that_is_no_stream_is_said_so() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.world.redis.wrong_type = true;
    pair.advance(61_000);
    assert_eq!((pair.client(client).error(), pair.client(client).closed), ("inbox_unusable", Some(1011)));
    assert!(pair.session(client).is_none());
}

#[test]
fn a_release_that_redis_refuses_is_repeated() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.world.redis.refusing = true;
    pair.hang_up(client);
    pair.advance(3_000);
    assert!(pair.session(client).is_some());
    pair.world.redis.refusing = false;
    pair.advance(1_000);
    assert!(pair.session(client).is_none());
    assert_eq!(pair.world.redis.record("web").map(|record| record.owner.as_str()), Some(""));
}
