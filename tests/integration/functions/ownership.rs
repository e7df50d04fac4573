//! `homing_1_release` and `homing_1_touch`: who must read again when a node lets a device go.

use homing::store::Function;
use serde_json::json;

use super::{Attach, Library};

// A read for a device, B took over, C took over from B: what A had read in flight is C's to replay.
#[tokio::test]
async fn a_release_tells_the_owner_of_now_and_not_the_next_one() {
    let mut library = Library::start().await;
    let a = library.attached(Attach { owner: "a:r.0", ..Attach::new("d", "1") }).await;
    library.attached(Attach { owner: "b:r.0", ..Attach::new("d", "2") }).await;
    library.attached(Attach { owner: "c:r.0", ..Attach::new("d", "3") }).await;
    let mut b = library.listen("b:r.0").await;
    let mut c = library.listen("c:r.0").await;
    assert_eq!(library.release("d", "a:r.0", &a.generation, true).await, "told");
    assert_eq!(c.next().await, json!({ "kind": "release", "user": "alice", "device": "d" }));
    b.nothing_more(&mut library).await;
    assert_eq!(library.record("d").await["owner"], "c:r.0", "a late release takes nothing away");
}

#[tokio::test]
async fn the_end_of_the_owning_session_makes_the_device_offline() {
    let mut library = Library::start().await;
    let generation = library.attached(Attach::new("d", "1")).await.generation;
    library.set_record("d", "last_seen_ms", json!(1)).await;
    let before = library.now_ms().await;
    assert_eq!(library.release("d", "n1:r.0", &generation, false).await, "nobody");
    assert_eq!(library.record("d").await["owner"], "n1:r.0");
    assert_eq!(library.release("d", "n1:r.0", &generation, true).await, "ended");
    let record = library.record("d").await;
    assert_eq!(record["owner"], "");
    assert!(record["last_seen_ms"].as_u64() >= Some(before));
}

// A session that ends before it hears of its own attach: without this its device would be online for ever.
#[tokio::test]
async fn a_session_that_knows_no_generation_releases_by_its_nonce() {
    let mut library = Library::start().await;
    library.attached(Attach::new("d", "n1:r.0#7")).await;
    let (devices, channels) = (library.devices.clone(), library.keys.control_prefix());
    let mut release = async |nonce: &str| -> String {
        library.call(Function::Release, &[&devices], &["alice", "d", &channels, "n1:r.0", "0", "1", nonce]).await
    };
    assert_eq!(release("n1:r.0#6").await, "told", "another session's attach is not ours to end");
    assert_eq!(release("n1:r.0#7").await, "ended");
    assert_eq!(library.record("d").await["owner"], "");
}

// Two sessions of one device on the same shard: the end of the older one must not make the device offline.
#[tokio::test]
async fn the_end_of_an_older_session_of_the_same_owner_tells_the_newer_one() {
    let mut library = Library::start().await;
    let old = library.attached(Attach::new("d", "1")).await.generation;
    library.attached(Attach::new("d", "2")).await;
    let mut owner = library.listen("n1:r.0").await;
    assert_eq!(library.release("d", "n1:r.0", &old, true).await, "told");
    assert_eq!(owner.next().await["kind"], "release");
    assert_eq!(library.record("d").await["owner"], "n1:r.0");
}

#[tokio::test]
async fn a_release_of_an_offline_or_unknown_device_tells_nobody() {
    let mut library = Library::start().await;
    let generation = library.attached(Attach::new("d", "1")).await.generation;
    library.release("d", "n1:r.0", &generation, true).await;
    assert_eq!(library.release("d", "n2:r.0", "1", true).await, "nobody");
    assert_eq!(library.release("unknown", "n1:r.0", "1", true).await, "nobody");
}

#[tokio::test]
async fn only_the_owning_session_refreshes_its_device() {
    let mut library = Library::start().await;
    let generation = library.attached(Attach::new("d", "1")).await.generation;
    library.set_record("d", "last_seen_ms", json!(1)).await;
    let devices = library.devices.clone();
    assert_eq!(library.call::<u8>(Function::Touch, &[&devices], &["d", "0", "n1:r.0", "n1"]).await, 0);
    assert_eq!(library.record("d").await["last_seen_ms"], 1);
    assert_eq!(library.call::<u8>(Function::Touch, &[&devices], &["d", &generation, "n1:r.0", "n1"]).await, 1);
    assert!(library.record("d").await["last_seen_ms"].as_u64() > Some(1));
    assert_eq!(library.call::<u8>(Function::Touch, &[&devices], &["unknown", "0", "n1:r.0", "n1"]).await, 0);
}

#[tokio::test]
async fn a_touch_names_the_owner_again_only_where_nobody_is() {
    let mut library = Library::start().await;
    let generation = library.attached(Attach::new("d", "1")).await.generation;
    let devices = library.devices.clone();
    library.set_record("d", "owner", json!("")).await;
    assert_eq!(library.call::<u8>(Function::Touch, &[&devices], &["d", &generation, "n1:r.0", "n1"]).await, 1);
    assert_eq!(library.record("d").await["owner"], "n1:r.0");
    assert_eq!(library.call::<u8>(Function::Touch, &[&devices], &["d", &generation, "n2:r.0", "n2"]).await, 1);
    assert_eq!(library.record("d").await["owner"], "n1:r.0");
}
