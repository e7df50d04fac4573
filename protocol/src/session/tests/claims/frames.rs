//! What clients say, and how the server answers.

use serde_json::json;

use crate::id::EntryId;
use crate::session::tests::pair::Pair;

#[test]
fn a_frame_that_is_no_json_closes_with_4000() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.say_text(client, "{");
    pair.settle();
    assert_eq!((pair.client(client).error(), pair.client(client).closed), ("malformed", Some(4000)));
}

#[test]
fn a_second_connect_closes_with_4000() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.say(client, json!({"type": "connect"}));
    pair.settle();
    assert_eq!((pair.client(client).error(), pair.client(client).closed), ("unexpected_frame", Some(4000)));
}

#[test]
fn an_unknown_type_is_answered_with_its_ref_and_nothing_ends() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.say(client, json!({"type": "later", "ref": "r-1"}));
    pair.settle();
    assert_eq!(pair.client(client).last("error")["ref"], "r-1");
    assert_eq!((pair.client(client).error(), pair.client(client).closed), ("unknown_type", None));
}

#[test]
fn a_malformed_id_refuses_its_own_frame_only() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({"confirm": true}));
    let ids = pair.publish_many(2);
    pair.settle();
    pair.say(client, json!({"type": "ack", "ids": [ids[0].to_string(), "01-0"], "ref": "bad"}));
    pair.ack(client, &ids[1..]);
    pair.settle();
    assert_eq!((pair.client(client).error(), &pair.client(client).last("error")["ref"]), ("bad_id", &json!("bad")));
    assert_eq!(pair.client(client).confirmed(), ids[1..]);
    assert_eq!(pair.world.redis.pending("web"), ids[..1]);
}

#[test]
fn a_ping_is_answered_by_a_pong_with_its_ref() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.say(client, json!({"type": "ping", "ref": "p"}));
    pair.settle();
    assert_eq!(pair.client(client).last("pong")["ref"], "p");
}

#[test]
fn a_client_beyond_its_frames_per_second_is_closed_with_4129() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    for _ in 0..10 {
        for _ in 0..200 {
            pair.say(client, json!({"type": "ping"}));
        }
        pair.advance(1_000);
    }
    assert_eq!(pair.client(client).closed, None, "200 a second are allowed");
    for _ in 0..1_001 {
        pair.say(client, json!({"type": "ping"}));
    }
    pair.settle();
    assert_eq!((pair.client(client).error(), pair.client(client).closed), ("rate_limited", Some(4129)));
    assert!(pair.client(client).last("error")["retry_after_ms"].is_u64());
}

#[test]
fn the_server_pings_after_silence_and_ends_what_stays_silent() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({"heartbeat_ms": 10_000}));
    pair.world.connections[client].answers = false;
    pair.advance(9_999);
    assert!(pair.client(client).all("ping").is_empty());
    pair.advance(1);
    assert_eq!(pair.client(client).all("ping").len(), 1);
    pair.advance(9_999);
    assert_eq!(pair.client(client).closed, None);
    pair.advance(1);
    assert_eq!((pair.client(client).error(), pair.client(client).closed), ("silent", Some(4108)));
}

#[test]
fn a_client_that_answers_pings_lives_on() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    pair.advance(600_000);
    assert_eq!(pair.client(client).closed, None);
    let pings = pair.client(client).all("ping").len();
    assert!((20..=24).contains(&pings), "{pings} pings in 600 s of silence");
}

#[test]
fn a_client_that_only_listens_to_a_steady_stream_is_pinged_and_lives() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({"window": 1024}));
    for _ in 0..30 {
        pair.publish("tick");
        pair.advance(5_000);
    }
    assert_eq!(pair.client(client).closed, None);
}

#[test]
fn a_token_that_expires_closes_with_4101() {
    let mut pair = Pair::new(1);
    pair.expires_at_ms = pair.world.now.unix_ms + 60_000;
    let client = pair.connect(0, json!({}));
    pair.advance(59_999);
    assert_eq!(pair.client(client).closed, None);
    pair.advance(1);
    assert_eq!((pair.client(client).error(), pair.client(client).closed), ("token_expired", Some(4101)));
}

#[test]
fn a_renewed_token_prolongs_the_connection_and_a_refused_one_changes_nothing() {
    let mut pair = Pair::new(1);
    pair.expires_at_ms = pair.world.now.unix_ms + 60_000;
    let client = pair.connect(0, json!({}));
    let renewed_ms = pair.world.now.unix_ms + 120_000;
    pair.renew(client, Ok(renewed_ms));
    pair.settle();
    assert_eq!(pair.client(client).last("authed")["expires_at_ms"], renewed_ms);
    pair.expires_at_ms = renewed_ms;
    pair.advance(100_000);
    pair.renew(client, Err("the signature is wrong"));
    pair.settle();
    assert_eq!((pair.client(client).error(), pair.client(client).closed), ("unauthorized", None));
    pair.advance(20_000);
    assert_eq!(pair.client(client).closed, Some(4101));
}

#[test]
fn acks_of_foreign_ids_disturb_nobody() {
    let mut pair = Pair::new(1);
    let client = pair.connect(0, json!({}));
    let id = pair.publish("hello");
    pair.settle();
    pair.ack(client, &[EntryId { ms: u64::MAX, seq: u64::MAX }, EntryId::MIN]);
    pair.nack(client, EntryId::MIN, 0);
    pair.ack(client, &[id]);
    pair.settle();
    assert_eq!((pair.world.redis.pending("web"), pair.client(client).closed), (vec![], None));
}
