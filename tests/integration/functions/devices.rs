//! `homing_1_remove` and `homing_1_purge`: what forgetting takes with it.

use homing::store::Function;
use serde_json::json;

use super::{Attach, Library, USER};

impl Library {
    async fn remove(&mut self, device: &str, generation: &str) -> u8 {
        let channels = self.keys.control_prefix();
        self.call_user(Function::Remove, &[USER, device, &channels, generation]).await
    }

    async fn purge(&mut self) -> u64 {
        let channels = self.keys.control_prefix();
        self.call_user(Function::Purge, &[USER, &channels]).await
    }
}

// What the last device had acknowledged must not come back to the next first device.
#[tokio::test]
async fn a_removed_device_takes_what_it_acknowledged_with_it() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    library.add(&["1-0", "2-0"]).await;
    library.read("a", 1).await;
    library.ack("a", &["1-0"]).await;
    assert_eq!(library.remove("a", "").await, 1);
    assert_eq!(library.ids().await, ["2-0"]);
    library.attached(Attach::new("b", "2")).await;
    assert_eq!(library.read("b", 9).await, ["2-0"]);
}

#[tokio::test]
async fn a_removal_tells_the_owner_and_raises_the_incarnation() {
    let mut library = Library::start().await;
    let a = library.attached(Attach::new("a", "1")).await;
    let mut owner = library.listen("n1:r.0").await;
    assert_eq!(library.remove("a", "").await, 1);
    assert_eq!(
        owner.next().await,
        json!({ "kind": "removed", "user": "alice", "device": "a", "generation": a.generation })
    );
    assert!(library.incarnation().await > a.incarnation);
    assert_eq!(library.remove("a", "").await, 0, "it is not known any more");
}

// A logout that was queued while the client connected again must not remove the new session's device.
#[tokio::test]
async fn a_removal_for_another_generation_changes_nothing() {
    let mut library = Library::start().await;
    let a = library.attached(Attach::new("a", "1")).await;
    assert_eq!(library.remove("a", "1").await, 0);
    assert!(library.redis.device(USER, "a").await.is_some());
    assert_eq!(library.remove("a", &a.generation).await, 1);
}

#[tokio::test]
async fn a_slow_device_that_is_removed_no_longer_holds_up_the_trim() {
    let mut library = Library::start().await;
    library.attached(Attach::new("fast", "1")).await;
    library.attached(Attach::new("slow", "2")).await;
    library.add(&["1-0"]).await;
    library.read("fast", 9).await;
    library.ack("fast", &["1-0"]).await;
    assert_eq!(library.remove("slow", "").await, 1);
    library.trim().await;
    assert_eq!(library.ids().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_device_without_inbox_can_be_removed() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    let inbox = library.inbox.clone();
    library.query::<()>(&["DEL", &inbox]).await;
    assert_eq!(library.remove("a", "").await, 1);
}

#[tokio::test]
async fn a_purge_forgets_everything_and_tells_every_owner() {
    let mut library = Library::start().await;
    library.attached(Attach { owner: "n1:r.0", ..Attach::new("a", "1") }).await;
    let b = library.attached(Attach { owner: "n2:r.1", ..Attach::new("b", "2") }).await;
    library.add(&["1-0"]).await;
    let mut first = library.listen("n1:r.0").await;
    let mut second = library.listen("n2:r.1").await;
    assert_eq!(library.purge().await, 2);
    assert_eq!(first.next().await["device"], "a");
    assert_eq!(
        second.next().await,
        json!({ "kind": "removed", "user": "alice", "device": "b", "generation": b.generation })
    );
    assert_eq!(library.ids().await, Vec::<String>::new());
    assert!(library.incarnation().await > b.incarnation);
    assert_eq!(library.purge().await, 0);
}
