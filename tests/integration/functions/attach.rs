//! `homing_1_attach`: where a device begins, who owns it, and what a session is told.

use serde_json::json;

use super::{Attach, Attached, Library, PRIMARY};

#[tokio::test]
async fn the_first_device_of_a_user_gets_everything_and_the_second_only_what_is_new() {
    let mut library = Library::start().await;
    library.add(&["1-0", "2-0"]).await;

    let first = library.attached(Attach::new("a", "1")).await;
    assert!(first.created);
    assert_eq!((first.start.as_str(), first.pending, first.length), ("0-0", 2, 2));
    let second = library.attached(Attach::new("b", "2")).await;
    assert!(second.created);
    assert_eq!((second.start.as_str(), second.pending), ("2-0", 0));

    library.add(&["3-0"]).await;
    assert_eq!(library.read("a", 9).await, ["1-0", "2-0", "3-0"]);
    assert_eq!(library.read("b", 9).await, ["3-0"]);
}

#[tokio::test]
async fn a_client_may_choose_where_its_new_device_begins() {
    let mut library = Library::start().await;
    library.add(&["1-0"]).await;
    let end = library.attached(Attach { from: "end", ..Attach::new("a", "1") }).await;
    assert_eq!((end.start.as_str(), &end.gap), ("1-0", &json!(null)));
    let start = library.attached(Attach { from: "start", ..Attach::new("b", "2") }).await;
    assert_eq!((start.start.as_str(), &start.gap), ("0-0", &json!(null)));
}

// A client that names an epoch was here before: its device was forgotten or its data lost, and it must hear of it.
#[tokio::test]
async fn a_client_that_was_here_before_begins_at_the_start_with_a_gap() {
    let mut library = Library::start().await;
    library.add(&["1-0"]).await;
    library.attached(Attach::new("other", "1")).await;
    let same = library.attached(Attach { epoch: "1.77", ..Attach::new("a", "2") }).await;
    assert_eq!((same.start.as_str(), &same.gap["reason"]), ("0-0", &json!("device_expired")));
    // "1" is a prefix of "10", which is another epoch.
    let lost = library.attached(Attach { epoch: "10.77", ..Attach::new("b", "3") }).await;
    assert_eq!((lost.start.as_str(), &lost.gap["reason"]), ("0-0", &json!("epoch")));
}

#[tokio::test]
async fn a_known_device_whose_group_is_gone_begins_again_at_the_start_with_a_gap_and_a_new_incarnation() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    let before = library.attached(Attach::new("b", "2")).await;
    let inbox = library.inbox.clone();
    library.query::<()>(&["DEL", &inbox]).await;
    library.add(&["5-0"]).await;

    let after = library.attached(Attach::new("b", "3")).await;
    assert!(!after.created);
    assert_eq!((after.start.as_str(), after.pending), ("0-0", 1));
    assert!(after.incarnation > before.incarnation);
    assert_eq!(after.gap["reason"], "epoch");
    assert_eq!(library.record("b").await["gap"], after.gap);
}

// A hash that was deleted together with the inbox must not give an incarnation that a client has seen before.
#[tokio::test]
async fn an_incarnation_never_repeats_after_a_purge() {
    let mut library = Library::start().await;
    let before = library.attached(Attach::new("a", "1")).await;
    let (inbox, devices) = (library.inbox.clone(), library.devices.clone());
    let seconds = library.now_ms().await / 1_000;
    library.query::<()>(&["DEL", &inbox, &devices]).await;
    let after = library.attached(Attach::new("a", "2")).await;
    assert!(after.incarnation >= seconds, "{} < {seconds}", after.incarnation);
    assert!(after.incarnation >= before.incarnation);
}

#[tokio::test]
async fn a_device_that_returns_to_its_group_goes_on_where_it_was() {
    let mut library = Library::start().await;
    let before = library.attached(Attach::new("a", "1")).await;
    library.add(&["1-0", "2-0", "3-0"]).await;
    library.read("a", 2).await;
    library.ack("a", &["1-0"]).await;
    let after = library.attached(Attach::new("a", "2")).await;
    assert!(!after.created);
    assert_eq!((after.pending, after.last.as_str(), after.start.as_str()), (2, "2-0", "0-0"));
    assert_eq!((after.incarnation, &after.gap), (before.incarnation, &json!(null)));
}

// Redis was restarted and may have lost the newest entries; the group survived.
#[tokio::test]
async fn a_changed_primary_epoch_opens_a_gap_once() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    let changed = library.attached(Attach { primary: "2", ..Attach::new("a", "2") }).await;
    assert_eq!(changed.gap["reason"], "epoch");
    let again = library.attached(Attach { primary: "2", ..Attach::new("a", "3") }).await;
    assert_eq!(again.gap, changed.gap, "the gap stays open and is not opened anew");
}

#[tokio::test]
async fn a_generation_grows_although_the_clock_does_not() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    // As if the clock had run far ahead and was set back; also beyond what a double's text form keeps.
    let future = 4_102_444_800_000_123_u64;
    library.set_record("a", "generation", json!(future.to_string())).await;
    let next = library.attached(Attach::new("a", "2")).await;
    assert_eq!(next.generation, (future + 1).to_string());
    assert_eq!(library.record("a").await["generation"], json!((future + 1).to_string()));
}

#[tokio::test]
async fn a_generation_is_at_least_the_time_in_microseconds() {
    let mut library = Library::start().await;
    let before_us = library.now_ms().await * 1_000;
    let generation: u64 = library.attached(Attach::new("a", "1")).await.generation.parse().expect("a number");
    assert!(generation >= before_us);
}

// An attach that was queued while its client gave up and connected again must not win over the newer one.
#[tokio::test]
async fn an_older_connection_of_the_same_client_is_refused() {
    let mut library = Library::start().await;
    let attach = |seq, nonce| Attach { instance: "i", seq, ..Attach::new("a", nonce) };
    let newer = library.attached(attach(2, "1")).await;
    assert_eq!(library.attach(attach(1, "2")).await, Attached::Stale(newer.generation.clone()));
    assert_eq!(library.record("a").await["generation"], json!(newer.generation));
    let next = library.attached(attach(3, "3")).await;
    assert!(next.generation > newer.generation);
    // Another client object starts its own numbers.
    library.attached(Attach { instance: "j", seq: 1, ..Attach::new("a", "4") }).await;
}

// Clients may count in microseconds or nanoseconds: more digits than cjson writes of a number.
#[tokio::test]
async fn connection_numbers_of_many_digits_are_compared_exactly() {
    let mut library = Library::start().await;
    let attach = |seq, nonce| Attach { instance: "i", seq, ..Attach::new("a", nonce) };
    let base = 1_700_000_000_000_007_u64;
    library.attached(attach(base, "1")).await;
    library.attached(attach(base + 1, "2")).await;
    assert!(matches!(library.attach(attach(base, "3")).await, Attached::Stale(_)));
}

#[tokio::test]
async fn a_repeated_attach_is_answered_with_the_existing_generation() {
    let mut library = Library::start().await;
    let request = Attach { instance: "i", seq: 1, ..Attach::new("a", "same") };
    let first = library.attached(request).await;
    let again = library.attached(request).await;
    assert_eq!(again.generation, first.generation);
    assert_eq!(again.incarnation, first.incarnation);
    assert_eq!(again.gap, json!(null));
}

#[tokio::test]
async fn the_previous_owner_hears_of_its_successor_and_the_owner_hears_nothing_of_itself() {
    let mut library = Library::start().await;
    let mut old = library.listen("n1:r.0").await;
    let mut new = library.listen("n2:r.0").await;
    library.attached(Attach::new("a", "1")).await;
    // The same node again: it knows by itself.
    library.attached(Attach::new("a", "2")).await;
    old.nothing_more(&mut library).await;

    let taken = library.attached(Attach { owner: "n2:r.0", ..Attach::new("a", "3") }).await;
    assert_eq!(
        old.next().await,
        json!({ "kind": "superseded", "user": "alice", "device": "a", "generation": taken.generation })
    );
    new.nothing_more(&mut library).await;
}

#[tokio::test]
async fn a_repair_is_refused_when_another_session_owns_the_device() {
    let mut library = Library::start().await;
    let first = library.attached(Attach::new("a", "1")).await;
    let second = library.attached(Attach { owner: "n2:r.0", ..Attach::new("a", "2") }).await;
    let repair = Attach { mode: "repair", generation: &first.generation, ..Attach::new("a", "3") };
    assert_eq!(library.attach(repair).await, Attached::Superseded(second.generation.clone()));
    assert_eq!(library.record("a").await["owner"], "n2:r.0");
}

#[tokio::test]
async fn a_repair_is_refused_when_the_device_was_removed() {
    let mut library = Library::start().await;
    let first = library.attached(Attach::new("a", "1")).await;
    let devices = library.devices.clone();
    library.query::<()>(&["HDEL", &devices, "a"]).await;
    let repair = Attach { mode: "repair", generation: &first.generation, ..Attach::new("a", "2") };
    assert_eq!(library.attach(repair).await, Attached::Removed);
    let inbox = library.inbox.clone();
    let groups: Vec<redis::Value> = library.query(&["XINFO", "GROUPS", &inbox]).await;
    assert_eq!(groups.len(), 1, "a refused repair makes no group");
}

#[tokio::test]
async fn a_repair_keeps_the_generation_and_makes_the_group_again() {
    let mut library = Library::start().await;
    let first = library.attached(Attach::new("a", "1")).await;
    let inbox = library.inbox.clone();
    library.query::<()>(&["DEL", &inbox]).await;
    library.add(&["1-0"]).await;
    let repair = Attach { mode: "repair", generation: &first.generation, ..Attach::new("a", "2") };
    let repaired = library.attached(repair).await;
    assert_eq!(repaired.generation, first.generation);
    assert!(repaired.incarnation > first.incarnation);
    assert_eq!(repaired.gap["reason"], "epoch");
    assert_eq!(library.read("a", 9).await, ["1-0"]);
}

#[tokio::test]
async fn beyond_the_limit_a_new_device_replaces_the_one_that_is_offline_longest() {
    let mut library = Library::start().await;
    let mut nobody = library.listen("").await;
    let now = library.now_ms().await;
    for (device, offline_ms) in [("a", 3_000), ("b", 5_000), ("c", 0)] {
        let generation = library.attached(Attach::new(device, device)).await.generation;
        if offline_ms > 0 {
            library.release(device, "n1:r.0", &generation, true).await;
            library.set_record(device, "last_seen_ms", json!(now - offline_ms)).await;
        }
    }
    let limited = |nonce| Attach { devices_max: 3, replace_after_ms: 2_000, ..Attach::new("d", nonce) };
    let before = library.incarnation().await;
    library.attached(limited("4")).await;
    assert!(library.redis.device("alice", "b").await.is_none(), "b was offline longest");
    assert!(library.redis.device("alice", "a").await.is_some());
    assert!(library.incarnation().await > before);
    nobody.nothing_more(&mut library).await;
}

#[tokio::test]
async fn beyond_the_limit_nothing_is_replaced_that_is_online_or_was_here_lately() {
    let mut library = Library::start().await;
    library.attached(Attach::new("online", "1")).await;
    library.set_record("online", "last_seen_ms", json!(1)).await;
    let lately = library.attached(Attach::new("lately", "2")).await;
    library.release("lately", "n1:r.0", &lately.generation, true).await;
    let limited = |device, nonce| Attach { devices_max: 2, ..Attach::new(device, nonce) };
    assert_eq!(library.attach(limited("new", "3")).await, Attached::TooMany);
    library.attached(limited("lately", "4")).await;
}

// The device that had to go was the user's last: the newcomer is the first device, and gets what waits.
#[tokio::test]
async fn a_device_that_replaces_the_only_other_one_gets_what_waits() {
    let mut library = Library::start().await;
    let old = library.attached(Attach::new("old", "1")).await;
    library.add(&["1-0"]).await;
    library.release("old", "n1:r.0", &old.generation, true).await;
    library.set_record("old", "last_seen_ms", json!(1)).await;
    let new = library.attached(Attach { devices_max: 1, ..Attach::new("new", "2") }).await;
    assert_eq!((new.start.as_str(), new.pending), ("0-0", 1));
}

#[tokio::test]
async fn an_inbox_that_is_no_stream_is_an_error_that_changes_nothing() {
    let mut library = Library::start().await;
    let (inbox, devices) = (library.inbox.clone(), library.devices.clone());
    library.query::<()>(&["SET", &inbox, "x"]).await;
    let text = Attach::new("a", "1").json(&library.keys).to_string();
    let refused = library
        .try_call::<redis::Value>(homing::store::Function::Attach, &[&inbox, &devices], &[&text])
        .await
        .expect_err("a string is no inbox");
    assert!(refused.to_string().contains("WRONGTYPE"), "{refused}");
    assert_eq!(library.query::<u64>(&["EXISTS", &devices]).await, 0);
}

#[tokio::test]
async fn a_device_remembers_its_first_day_and_its_primary_epoch() {
    let mut library = Library::start().await;
    let before = library.now_ms().await;
    library.attached(Attach::new("a", "1")).await;
    library.set_record("a", "last_seen_ms", json!(1)).await;
    let first_seen = library.record("a").await["first_seen_ms"].as_u64().expect("a number");
    assert!(first_seen >= before);
    library.attached(Attach::new("a", "2")).await;
    let record = library.record("a").await;
    assert_eq!(record["first_seen_ms"], json!(first_seen));
    assert!(record["last_seen_ms"].as_u64() >= Some(before));
    assert_eq!(record["epoch"], PRIMARY);
}
