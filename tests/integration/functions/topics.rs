//! `homing_1_follow` and `homing_1_leave`: who hears of a change, and which cursors it ends.

use serde_json::json;

use super::{Attach, Library, USER};
use homing::store::Function;

const A: &str = "n1:r.0";
const B: &str = "n2:r.0";

impl Library {
    /// The user follows `room`, or does not any more.
    async fn follow(&mut self, follow: bool) {
        let (topics, devices) = (format!("homing:{{{USER}}}:topics"), self.devices.clone());
        let about = json!({
            "user": USER, "channels": self.keys.control_prefix(), "owner": "", "limit": 9, "replace": false,
        });
        let count = if follow { "1" } else { "0" };
        self.call::<redis::Value>(Function::Follow, &[&topics, &devices], &[&about.to_string(), count, "room"]).await;
    }
}

#[tokio::test]
async fn whoever_holds_a_device_hears_of_a_change_also_if_it_was_judged_dead() {
    let mut library = Library::start().await;
    library.attached(Attach { owner: A, ..Attach::new("web", "n1") }).await;
    library.attached(Attach { owner: B, ..Attach::new("phone", "n2") }).await;
    // It may only have been paused, and looks after its sessions again.
    library.set_record("web", "owner", json!("")).await;
    library.set_record("web", "struck", json!(A)).await;
    let mut controls = [library.listen(A).await, library.listen(B).await];
    library.follow(true).await;
    for control in &mut controls {
        assert_eq!(control.next().await, json!({ "kind": "topics", "user": USER }));
    }
    library.follow(true).await;
    for control in &mut controls {
        control.nothing_more(&mut library).await;
    }
}

#[tokio::test]
async fn leaving_removes_cursors_of_the_time_before_and_none_that_was_written_since() {
    let mut library = Library::start().await;
    let cursors = "homing:topic:{room}:cursors";
    let left_ms: u64 = 1_795_000_000_000;
    for (member, ms, seq) in [("a/web", left_ms - 1, 1_023), ("b/web", left_ms, 0), ("c/web", left_ms + 1, 5)] {
        library.query::<()>(&["ZADD", cursors, &(ms * 1_024 + seq).to_string(), member]).await;
    }
    let args = [&left_ms.to_string(), "a/web", "b/web", "c/web", "nobody/web"];
    assert_eq!(library.call::<u64>(Function::Leave, &[cursors], &args).await, 1);
    let left: Vec<String> = library.query(&["ZRANGE", cursors, "0", "-1"]).await;
    assert_eq!(left, ["b/web", "c/web"]);
}
