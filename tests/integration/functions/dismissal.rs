//! Sessions that are replaced by a policy or ended by an operator, and tokens that are refused.

use serde_json::{Value, json};

use super::{Attach, Attached, Library, PRIMARY, USER};
use crate::harness::RedisOptions;
use homing::store::Function;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

impl Library {
    async fn disconnect(&mut self, devices: Value, reason: &str, refuse_tokens: bool) -> u64 {
        let request = json!({
            "user": USER, "channels": self.keys.control_prefix(), "devices": devices, "reason": reason,
            "refuse_tokens": refuse_tokens,
        });
        let devices = self.devices.clone();
        self.call(Function::Disconnect, &[&devices], &[&request.to_string()]).await
    }

    async fn touch(&mut self, device: &str, generation: &str, owner: &str) -> u64 {
        let devices = self.devices.clone();
        self.call(Function::Touch, &[&devices], &[device, generation, owner, "n1"]).await
    }

    async fn now_s(&mut self) -> i64 {
        i64::try_from(self.now_ms().await / 1_000).expect("a plausible time")
    }
}

fn limited<'a>(device: &'a str, nonce: &'a str, owner: &'a str, sessions_max: u32) -> Attach<'a> {
    Attach { owner, sessions_max, ..Attach::new(device, nonce) }
}

#[tokio::test]
async fn an_attach_replaces_the_session_attached_longest_ago_and_tells_its_owner() {
    let mut library = Library::start().await;
    let first = library.attached(limited("phone", "n1", "n1:r.0", 2)).await;
    library.attached(limited("web", "n2", "n2:r.0", 2)).await;
    let mut told = library.listen("n1:r.0").await;
    library.attached(limited("tv", "n3", "n3:r.0", 2)).await;
    assert_eq!(
        told.next().await,
        json!({"kind": "replaced", "user": USER, "device": "phone", "generation": first.generation, "reason": ""})
    );
    told.nothing_more(&mut library).await;
    let record = library.record("phone").await;
    assert_eq!((&record["owner"], &record["dismissed"]["kind"]), (&json!(""), &json!("replaced")));
    assert_eq!(record["generation"], json!(first.generation), "whoever holds it still finds itself in the record");
    assert_eq!(library.record("web").await["owner"], "n2:r.0");
}

#[tokio::test]
async fn without_a_limit_nobody_is_replaced() {
    let mut library = Library::start().await;
    library.attached(limited("phone", "n1", "n1:r.0", 0)).await;
    library.attached(limited("web", "n2", "n2:r.0", 0)).await;
    assert_eq!(library.record("phone").await["owner"], "n1:r.0");
}

#[tokio::test]
async fn devices_without_a_session_and_the_device_itself_do_not_count() {
    let mut library = Library::start().await;
    library.attached(limited("phone", "n1", "n1:r.0", 1)).await;
    let again = library.attached(limited("phone", "n2", "n2:r.0", 1)).await;
    library.release("phone", "n2:r.0", &again.generation, true).await;
    library.attached(limited("web", "n3", "n1:r.0", 1)).await;
    let record = library.record("phone").await;
    assert_eq!((&record["owner"], &record["dismissed"]), (&json!(""), &Value::Null));
}

#[tokio::test]
async fn an_attach_that_is_refused_replaces_nobody() {
    let mut library = Library::start().await;
    library.attached(limited("phone", "n1", "n1:r.0", 1)).await;
    let full = Attach { devices_max: 1, ..limited("web", "n2", "n2:r.0", 1) };
    assert_eq!(library.attach(full).await, Attached::TooMany);
    assert_eq!(library.record("phone").await["owner"], "n1:r.0");
}

// If any of these gave it the device back, two sessions would replace each other for ever.
#[tokio::test]
async fn a_replaced_session_gets_its_device_back_by_no_way_but_a_new_connection() {
    let mut library = Library::start().await;
    let old = library.attached(limited("phone", "n1", "n1:r.0", 1)).await;
    library.attached(limited("web", "n2", "n2:r.0", 1)).await;
    let replaced = Attached::Dismissed("replaced".to_owned(), String::new());
    for mode in ["connect", "again", "repair"] {
        let repeated = Attach { mode, generation: &old.generation, ..limited("phone", "n1", "n1:r.0", 1) };
        assert_eq!(library.attach(repeated).await, replaced, "{mode}");
    }
    assert_eq!(library.touch("phone", &old.generation, "n1:r.0").await, 0);
    assert_eq!(library.release("phone", "n1:r.0", &old.generation, true).await, "nobody");
    assert_eq!(library.record("phone").await["owner"], "");
    assert_eq!(library.record("web").await["owner"], "n2:r.0");

    library.attached(limited("phone", "n3", "n1:r.0", 1)).await;
    assert_eq!(library.record("phone").await["dismissed"], Value::Null);
    assert_eq!(library.record("web").await["dismissed"]["kind"], "replaced");
}

#[tokio::test]
async fn an_owner_that_was_judged_dead_is_replaced_first_and_does_not_come_back() {
    let mut library = Library::start().await;
    library.attached(limited("phone", "n1", "n1:r.0", 2)).await;
    let paused = library.attached(limited("web", "n2", "n2:r.0", 2)).await;
    library.set_record("web", "owner", json!("")).await;
    library.set_record("web", "struck", json!("n2:r.0")).await;
    let mut told = library.listen("n2:r.0").await;
    library.attached(limited("tv", "n3", "n3:r.0", 2)).await;
    assert_eq!(told.next().await["kind"], "replaced", "it may only have been paused");
    assert_eq!(library.touch("web", &paused.generation, "n2:r.0").await, 0);
    assert_eq!(library.record("phone").await["owner"], "n1:r.0", "one that lives stays");
}

/// Attaches again in a new epoch; as a new device, if Redis has lost it.
fn again<'a>(connected: &'a Attached, attach: Attach<'a>) -> Attach<'a> {
    let Attached::Granted(grant) = connected else { panic!("{connected:?}") };
    Attach { mode: "again", generation: &grant.generation, primary: "2", ..attach }
}

// Nobody connected: a restart of Redis is no reason to end a session.
#[tokio::test]
async fn an_older_session_that_attaches_again_dismisses_none_that_was_allowed_beside_it() {
    let mut library = Library::start().await;
    let (phone, web) = (limited("phone", "n1", "n1:r.0", 1), limited("web", "n2", "n2:r.0", 0));
    let first = library.attach(phone).await;
    let second = library.attach(web).await;
    for lost in [false, true] {
        if lost {
            library.query::<()>(&["FLUSHALL"]).await;
        }
        assert!(matches!(library.attach(again(&first, phone)).await, Attached::Granted(_)));
        assert!(matches!(library.attach(again(&second, web)).await, Attached::Granted(_)));
        assert!(matches!(library.attach(again(&first, phone)).await, Attached::Granted(_)));
        assert_eq!(library.record("phone").await["owner"], "n1:r.0", "lost: {lost}");
        assert_eq!(library.record("web").await["owner"], "n2:r.0", "lost: {lost}");
    }
    // A token that allows one, taken over since, dismisses nobody either.
    let renewed = Attach { sessions_max: 1, ..web };
    assert!(matches!(library.attach(again(&second, renewed)).await, Attached::Granted(_)));
    assert_eq!(library.record("phone").await["owner"], "n1:r.0");
}

// None of these connects: what another one was allowed when it did is settled.
#[tokio::test]
async fn a_session_that_attaches_again_or_repeats_its_attach_counts_those_only_that_were_there_before_it() {
    let mut library = Library::start().await;
    let sessions = [
        limited("first", "n1", "n1:r.0", 0),
        limited("second", "n2", "n2:r.0", 2),
        limited("third", "n3", "n3:r.0", 0),
    ];
    let mut connected = Vec::new();
    for session in sessions {
        connected.push(library.attach(session).await);
    }
    assert!(matches!(library.attach(sessions[1]).await, Attached::Granted(_)), "its reply was lost");
    for (session, before) in sessions.into_iter().zip(&connected) {
        assert!(matches!(library.attach(again(before, session)).await, Attached::Granted(_)));
        let Attached::Granted(grant) = before else { panic!("{before:?}") };
        let repair = Attach { mode: "repair", generation: &grant.generation, ..session };
        assert!(matches!(library.attach(repair).await, Attached::Granted(_)));
    }
    for session in sessions {
        let record = library.record(session.device).await;
        assert_eq!((&record["owner"], &record["dismissed"]), (&json!(session.owner), &Value::Null), "{session:?}");
    }
}

#[tokio::test]
async fn an_older_connection_of_a_device_that_attaches_again_does_not_take_over_from_the_newer_one() {
    for lost in [false, true] {
        let mut library = Library::start().await;
        let (old, new) = (limited("phone", "n1", "n1:r.0", 0), limited("phone", "n2", "n2:r.0", 0));
        let older = library.attach(old).await;
        let newer = library.attach(new).await;
        if lost {
            library.query::<()>(&["FLUSHALL"]).await;
        }
        assert!(matches!(library.attach(again(&newer, new)).await, Attached::Granted(_)));
        assert!(matches!(library.attach(again(&older, old)).await, Attached::Stale(_)), "lost: {lost}");
        assert_eq!(library.record("phone").await["owner"], "n2:r.0");
    }
}

// As an older version writes it.
#[tokio::test]
async fn a_record_that_does_not_say_when_its_client_connected_is_as_old_as_its_generation() {
    let mut library = Library::start().await;
    let phone = limited("phone", "n1", "n1:r.0", 0);
    let first = library.attach(phone).await;
    library.attached(limited("web", "n2", "n2:r.0", 1)).await;
    for device in ["phone", "web"] {
        let mut record = library.record(device).await;
        let fields = record.as_object_mut().expect("an object");
        ["connected", "dismissed"].iter().for_each(|field| drop(fields.remove(*field)));
        let devices = library.devices.clone();
        library.query::<()>(&["HSET", &devices, device, &record.to_string()]).await;
    }
    let replaced = Attached::Dismissed("replaced".to_owned(), String::new());
    assert_eq!(library.attach(again(&first, phone)).await, replaced);
}

// Redis may have lost the word of it, or everything: both believe that they are connected.
#[tokio::test]
async fn of_two_that_attach_again_where_one_is_allowed_the_newer_stays_in_whatever_order_they_come() {
    for newer_first in [false, true] {
        for lost in [false, true] {
            let mut library = Library::start().await;
            let (phone, web) = (limited("phone", "n1", "n1:r.0", 1), limited("web", "n2", "n2:r.0", 1));
            let older = library.attach(phone).await;
            let before = library.record("phone").await;
            let newer = library.attach(web).await;
            if lost {
                library.query::<()>(&["FLUSHALL"]).await;
            } else {
                // As it was before the other one connected, of which nothing is known.
                let devices = library.devices.clone();
                library.query::<()>(&["HDEL", &devices, "web"]).await;
                library.query::<()>(&["HSET", &devices, "phone", &before.to_string()]).await;
            }
            let steps = [again(&older, phone), again(&newer, web)];
            let [phone_at, web_at] = if newer_first { [1, 0] } else { [0, 1] };
            let mut outcomes = [Attached::TooMany, Attached::TooMany];
            for turn in 0..2 {
                let step = if turn == phone_at { 0 } else { 1 };
                outcomes[step] = library.attach(steps[step]).await;
            }
            let context = format!("newer first: {newer_first}, lost: {lost}");
            assert!(matches!(outcomes[1], Attached::Granted(_)), "{context}: {outcomes:?}");
            let replaced = Attached::Dismissed("replaced".to_owned(), String::new());
            assert_eq!(outcomes[0] == replaced, phone_at > web_at, "{context}: {outcomes:?}");
            let record = library.record("phone").await;
            assert_eq!((&record["owner"], &record["dismissed"]["kind"]), (&json!(""), &json!("replaced")), "{context}");
            assert_eq!(library.record("web").await["owner"], "n2:r.0", "{context}");
            assert_eq!(library.attach(again(&older, phone)).await, replaced, "{context}: and it stays so");
        }
    }
}

#[tokio::test]
async fn a_kick_ends_the_named_sessions_and_keeps_devices_and_messages() {
    let mut library = Library::start().await;
    let phone = library.attached(Attach::new("phone", "n1")).await;
    library.attached(Attach::new("web", "n2")).await;
    library.add(&["1-0"]).await;
    let mut told = library.listen("n1:r.0").await;
    assert_eq!(library.disconnect(json!(["phone", "unknown"]), "too loud", false).await, 1);
    let (generation, reason) = (phone.generation, "too loud");
    assert_eq!(
        told.next().await,
        json!({"kind": "kicked", "user": USER, "device": "phone", "generation": generation, "reason": reason})
    );
    assert_eq!(library.record("phone").await["dismissed"], json!({"kind": "kicked", "reason": reason}));
    assert_eq!(library.record("web").await["owner"], "n1:r.0");
    assert_eq!(library.ids().await, ["1-0"]);
    assert_eq!(library.read("phone", 10).await, ["1-0"]);

    assert_eq!(library.disconnect(json!([]), "", false).await, 0, "no device is not every device");
    assert_eq!(library.disconnect(Value::Null, "", false).await, 1);
    assert_eq!(library.disconnect(Value::Null, "", false).await, 0);
}

#[tokio::test]
async fn tokens_that_were_issued_until_a_refusal_attach_nothing_any_more() {
    let mut library = Library::start().await;
    library.attached(Attach { issued_at_s: 1, ..Attach::new("phone", "n1") }).await;
    library.attached(Attach { issued_at_s: 1, ..Attach::new("web", "n2") }).await;
    let before = library.now_s().await;
    assert_eq!(library.disconnect(json!(["phone"]), "stolen", true).await, 2, "no stale token keeps a session");
    let after = library.now_s().await;
    assert_eq!(library.record("phone").await["dismissed"]["kind"], "kicked");
    assert_eq!(library.record("web").await["dismissed"]["kind"], "refused");

    for (issued_at_s, mode) in [(-1, "connect"), (before, "connect"), (before, "again"), (before, "repair")] {
        let stale = Attach { issued_at_s, mode, ..Attach::new("phone", "n3") };
        assert_eq!(library.attach(stale).await, Attached::Refused, "{issued_at_s} {mode}");
    }
    let fresh = library.attached(Attach { issued_at_s: after + 1, ..Attach::new("phone", "n4") }).await;
    assert!((before..=after).contains(&(fresh.refuse_before_s as i64)), "{fresh:?}");
}

#[tokio::test]
async fn a_refusal_holds_for_a_user_without_devices_until_no_token_can_be_that_old() {
    let mut library = Library::start_with(RedisOptions::default().args.as_slice()).await;
    assert_eq!(library.disconnect(Value::Null, "", true).await, 0);
    let devices = library.devices.clone();
    let tend = json!({
        "channels": "c:", "length_max": 10_000, "age_max_ms": DAY_MS, "device_idle_ms": DAY_MS,
        "alive": null, "page": 256,
    });
    let _: Vec<redis::Value> = library.call_user(Function::Tend, &[USER, &tend.to_string()]).await;
    assert_eq!(library.attach(Attach::new("phone", "n1")).await, Attached::Refused);

    let old = library.now_s().await - 31 * 24 * 60 * 60;
    library.query::<()>(&["HSET", &devices, "#refuse_before", &old.to_string()]).await;
    let _: Vec<redis::Value> = library.call_user(Function::Tend, &[USER, &tend.to_string()]).await;
    assert_eq!(library.query::<u64>(&["EXISTS", &devices]).await, 0);
    library.attached(Attach { primary: PRIMARY, ..Attach::new("phone", "n2") }).await;
}

#[tokio::test]
async fn a_refusal_stands_in_the_way_of_no_trim_and_no_purge() {
    let mut library = Library::start().await;
    library.disconnect(Value::Null, "", true).await;
    let later = library.now_s().await + 5;
    library.attached(Attach { issued_at_s: later, ..Attach::new("phone", "n1") }).await;
    library.add(&["1-0"]).await;
    library.read("phone", 10).await;
    library.ack("phone", &["1-0"]).await;
    assert_eq!(library.trim().await, 1);
    let channels = library.keys.control_prefix();
    assert_eq!(library.call_user::<u64>(Function::Purge, &[USER, &channels]).await, 1);
    assert_eq!(library.attach(Attach::new("phone", "n2")).await, Attached::Refused, "a purge forgives nobody");
}
