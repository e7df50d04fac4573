//! Presence as the functions keep it: when a device counts as online, and when it is gone.

use serde_json::{Value as Json, json};

use super::{Attach, Grant, Library, USER};
use homing::store::Function;

/// A grace time that no test waits for.
const LONG_MS: &str = "600000";
const A: &str = "n1:r.0";
const B: &str = "n2:r.0";

impl Library {
    async fn arrive(&mut self, nonce: &str, owner: &str) -> Grant {
        self.attached(Attach { presence: true, owner, ..Attach::new("web", nonce) }).await
    }

    /// The first part of the answer, and all others as texts.
    async fn look(&mut self, owner: &str, period: &str, grace_ms: &str, dead: bool) -> Vec<String> {
        let devices = self.devices.clone();
        let silent_ms = if dead { "1000" } else { "0" };
        self.call(Function::Look, &[&devices], &["web", owner, period, grace_ms, silent_ms]).await
    }

    /// Makes the device's last session end so long ago.
    async fn age(&mut self, ms: u64) {
        let last_seen_ms = self.now_ms().await - ms;
        self.set_record("web", "last_seen_ms", json!(last_seen_ms)).await;
    }
}

#[tokio::test]
async fn the_first_attach_begins_a_presence_and_later_ones_go_on_with_it() {
    let mut library = Library::start().await;
    let first = library.arrive("n1", A).await;
    assert_eq!((&first.period, first.announcer.as_str()), (&first.generation, ""), "nobody has announced it");
    let second = library.arrive("n2", B).await;
    assert_eq!((&second.period, second.announcer.as_str()), (&first.generation, A), "A has, or died over it");
    library.release("web", B, &second.generation, true).await;
    let third = library.arrive("n3", A).await;
    assert_eq!((&third.period, third.announcer.as_str()), (&first.generation, B), "within the grace time");
    let repeated = library.arrive("n3", A).await;
    assert_eq!((&repeated.generation, repeated.announcer.as_str()), (&third.generation, A));
}

#[tokio::test]
async fn without_presence_nothing_is_kept() {
    let mut library = Library::start().await;
    let grant = library.attached(Attach::new("web", "n1")).await;
    assert_eq!((grant.period.as_str(), grant.announcer.as_str()), ("0", ""));
    assert_eq!(library.record("web").await["announced"], Json::Null);
}

// Presence was switched on after it had attached. With a dead owner in the record, it would never expire.
#[tokio::test]
async fn a_dead_owner_that_announced_nothing_is_struck_and_no_other() {
    let mut library = Library::start().await;
    library.attached(Attach { owner: A, ..Attach::new("web", "n1") }).await;
    for (owner, dead) in [(A, false), (B, true)] {
        assert_eq!(library.look(owner, "", "0", dead).await, ["moved"]);
        assert_eq!(library.record("web").await["owner"], A);
    }
    let before_ms = library.now_ms().await;
    assert_eq!(library.look(A, "", "0", true).await, ["moved"], "nobody was told that it is online");
    let record = library.record("web").await;
    assert_eq!((&record["owner"], &record["struck"]), (&json!(""), &json!(A)));
    let seen_ms = record["last_seen_ms"].as_u64().expect("a time");
    assert!((before_ms - 1_000..before_ms).contains(&seen_ms), "when A fell silent, a second ago");
}

#[tokio::test]
async fn a_device_is_gone_when_it_had_no_owner_for_the_grace_time() {
    let mut library = Library::start().await;
    let grant = library.arrive("n1", A).await;
    assert_eq!(library.look(A, &grant.period, "0", false).await, ["here"]);
    library.release("web", A, &grant.generation, true).await;
    assert_eq!(library.look(A, &grant.period, LONG_MS, false).await[0], "wait");
    library.age(600_000).await;
    let gone = library.look(A, &grant.period, LONG_MS, false).await;
    assert_eq!(gone[..3], ["gone", &grant.generation, "n1"]);
    assert_eq!(library.look(A, &grant.period, LONG_MS, false).await[0], "gone", "an answer may be lost");

    let back = library.arrive("n2", B).await;
    assert_eq!((&back.period, back.announcer.as_str()), (&back.generation, ""), "a new presence");
    let late = library.look(A, &grant.period, LONG_MS, false).await;
    assert_eq!(late[..2], ["gone", &grant.period], "and the old one is over, whoever asks however late");
    assert_eq!(library.look(B, &back.period, "0", false).await, ["here"]);
}

#[tokio::test]
async fn a_device_that_moved_is_not_its_earlier_announcers_to_look_after() {
    let mut library = Library::start().await;
    let grant = library.arrive("n1", A).await;
    let moved = library.arrive("n2", B).await;
    assert_eq!(library.look(A, &grant.period, "0", false).await, ["moved"]);
    library.release("web", B, &moved.generation, true).await;
    assert_eq!(library.look(A, &grant.period, "0", false).await, ["moved"]);
    assert_eq!(library.look(B, &grant.period, "0", false).await[0], "gone");
}

#[tokio::test]
async fn a_device_that_was_deleted_is_gone() {
    let mut library = Library::start().await;
    let grant = library.arrive("n1", A).await;
    let channels = library.keys.control_prefix();
    library.call_user::<u64>(Function::Remove, &[USER, "web", &channels, ""]).await;
    let gone = library.look(A, &grant.period, LONG_MS, false).await;
    assert_eq!(gone[..2], ["gone", &grant.period]);
}

#[tokio::test]
async fn the_owner_of_a_dead_node_is_struck_and_its_device_has_the_grace_time_to_come_back() {
    let mut library = Library::start().await;
    let grant = library.arrive("n1", A).await;
    assert_eq!(library.look(A, &grant.period, LONG_MS, true).await[0], "wait");
    let record = library.record("web").await;
    assert_eq!((&record["owner"], &record["struck"]), (&json!(""), &json!(A)));
    let back = library.arrive("n2", B).await;
    assert_eq!(back.period, grant.period, "silently");
    assert_eq!(library.look(A, &grant.period, "0", true).await, ["moved"]);
}

#[tokio::test]
async fn a_node_that_wakes_up_after_its_device_was_announced_as_gone_announces_it_again() {
    let mut library = Library::start().await;
    let grant = library.arrive("n1", A).await;
    let devices = library.devices.clone();
    let touch = ["web", grant.generation.as_str(), A, "n1"];
    assert_eq!(library.call::<u64>(Function::Touch, &[&devices], &touch).await, 1, "nothing happened to it");
    library.look(A, &grant.period, LONG_MS, true).await;
    assert_eq!(library.call::<u64>(Function::Touch, &[&devices], &touch).await, 1, "it was struck, but not announced");
    library.look(A, &grant.period, "0", true).await;
    assert_eq!(library.look(A, &grant.period, "0", true).await[0], "gone");
    assert_eq!(library.call::<u64>(Function::Touch, &[&devices], &touch).await, 2);
    let record = library.record("web").await;
    assert_eq!((&record["owner"], &record["announced"]), (&json!(A), &json!(grant.generation)));
}
