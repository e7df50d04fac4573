//! `homing_1_set_aside` and `homing_1_ack_gap`: every drop is counted and told until the client has taken note.

use homing::store::Function;
use serde_json::json;

use super::{Attach, Library, USER};

impl Library {
    async fn set_aside(&mut self, owner: &str, reason: &str, gone: &str, ids: &[&str]) -> serde_json::Value {
        let channels = self.keys.control_prefix();
        let args = [&[USER, "a", &channels, owner, reason, gone], ids].concat();
        let text: String = self.call_user(Function::SetAside, &args).await;
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn ack_gap(&mut self, device: &str, id: &str) -> u8 {
        let devices = self.devices.clone();
        self.call(Function::AckGap, &[&devices], &[device, id]).await
    }
}

#[tokio::test]
async fn what_is_set_aside_is_acknowledged_counted_and_told_once() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    library.add(&["1-0", "2-0", "3-0"]).await;
    library.read("a", 9).await;

    let gap = library.set_aside("n1:r.0", "too_big", "0", &["1-0", "3-0"]).await;
    assert_eq!((&gap["reason"], &gap["count"]), (&json!("too_big"), &json!(2)));
    assert_eq!(library.pending("a").await, ["2-0"]);
    let record = library.record("a").await;
    assert_eq!((&record["dropped"], &record["gap"]), (&json!(2), &gap));

    let again = library.set_aside("n1:r.0", "too_big", "0", &["1-0", "3-0"]).await;
    assert_eq!(again, json!(null), "they were gone already");
    assert_eq!(library.record("a").await["dropped"], 2);
}

#[tokio::test]
async fn messages_that_were_gone_already_are_counted_with_the_others() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    library.add(&["1-0"]).await;
    library.read("a", 9).await;
    let gap = library.set_aside("n1:r.0", "retention", "2", &["1-0"]).await;
    assert_eq!(gap["count"], 3);
}

#[tokio::test]
async fn a_gap_that_grows_has_a_new_id_and_the_sum() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    let first = library.set_aside("n1:r.0", "retention", "1", &[]).await;
    let second = library.set_aside("n1:r.0", "too_big", "2", &[]).await;
    assert_ne!(first["id"], second["id"]);
    assert_eq!((&second["reason"], &second["count"]), (&json!("too_big"), &json!(3)));

    // The client took note of the first one only.
    assert_eq!(library.ack_gap("a", first["id"].as_str().expect("a text")).await, 0);
    assert_eq!(library.record("a").await["gap"], second);
    assert_eq!(library.ack_gap("a", second["id"].as_str().expect("a text")).await, 1);
    assert_eq!(library.record("a").await.get("gap"), None);
    assert_eq!(library.record("a").await["dropped"], 3, "the count stays");
    assert_eq!(library.ack_gap("a", second["id"].as_str().expect("a text")).await, 0);
    assert_eq!(library.ack_gap("unknown", "gap-1").await, 0);

    let third = library.set_aside("n1:r.0", "retention", "1", &[]).await;
    assert_eq!(third["count"], 1, "a new gap counts from the start");
}

// A stale node finds what it cannot deliver: the session that owns the device has to hear of it.
#[tokio::test]
async fn another_owner_hears_of_the_gap() {
    let mut library = Library::start().await;
    library.attached(Attach { owner: "n2:r.0", ..Attach::new("a", "1") }).await;
    let mut owner = library.listen("n2:r.0").await;
    let gap = library.set_aside("n1:r.0", "retention", "1", &[]).await;
    assert_eq!(owner.next().await, json!({ "kind": "gap", "user": "alice", "device": "a", "gap": gap }));
    library.set_aside("n2:r.0", "retention", "1", &[]).await;
    owner.nothing_more(&mut library).await;
}

#[tokio::test]
async fn an_open_gap_is_told_at_every_attach() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    let gap = library.set_aside("n1:r.0", "retention", "1", &[]).await;
    assert_eq!(library.attached(Attach::new("a", "2")).await.gap, gap);
    assert_eq!(library.attached(Attach::new("a", "3")).await.gap, gap);
    library.ack_gap("a", gap["id"].as_str().expect("a text")).await;
    assert_eq!(library.attached(Attach::new("a", "4")).await.gap, json!(null));
}

#[tokio::test]
async fn nothing_is_set_aside_for_an_unknown_device() {
    let mut library = Library::start().await;
    assert_eq!(library.set_aside("n1:r.0", "retention", "5", &["1-0"]).await, json!(null));
}
