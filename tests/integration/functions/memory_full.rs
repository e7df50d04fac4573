//! Redis out of memory: what frees memory or keeps sessions alive works, what would fill it is refused without a trace.

use homing::store::{Function, Key, StoreError};
use serde_json::json;

use super::{Attach, Attached, Library, USER};

#[tokio::test]
async fn with_full_memory_a_publish_is_refused_without_a_trace() {
    let mut library = Library::start().await;
    library.redis.config_set("maxmemory", "1").await;
    let (inbox, once) = (library.inbox.clone(), library.once_key("k"));
    let outcome = library
        .try_call::<redis::Value>(Function::PublishOnce, &[&inbox, &once], &["60", "data", "x"])
        .await
        .expect_err("memory is full");
    let error = StoreError::from(outcome);
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert_eq!(library.query::<u64>(&["EXISTS", &inbox, &once]).await, 0);
}

#[tokio::test]
async fn with_full_memory_a_device_attaches_acks_trims_and_leaves() {
    let mut library = Library::start().await;
    library.add(&["1-0", "2-0"]).await;
    library.redis.config_set("maxmemory", "1").await;

    let first = library.attached(Attach::new("a", "1")).await;
    assert_eq!(library.read("a", 9).await, ["1-0", "2-0"]);
    library.ack("a", &["1-0"]).await;
    assert_eq!(library.trim().await, 1);

    let repair = Attach { mode: "repair", generation: &first.generation, ..Attach::new("a", "2") };
    assert!(matches!(library.attach(repair).await, Attached::Granted(_)));
    let channels = library.keys.control_prefix();
    let aside = [USER, "a", &channels, "n1:r.0", "too_big", "0", "2-0"];
    assert_ne!(library.call_user::<String>(Function::SetAside, &aside).await, "");
    let gap = library.record("a").await["gap"]["id"].as_str().expect("a text").to_owned();
    let devices = library.devices.clone();
    assert_eq!(library.call::<u8>(Function::AckGap, &[&devices], &["a", &gap]).await, 1);
    assert_eq!(library.call::<u8>(Function::Touch, &[&devices], &["a", &first.generation]).await, 1);
    assert_eq!(library.release("a", "n1:r.0", &first.generation, true).await, "ended");

    let request = json!({
        "channels": channels, "length_max": 0, "age_max_ms": 86_400_000, "device_idle_ms": 86_400_000,
        "alive": null, "page": 100,
    });
    library.call_user::<redis::Value>(Function::Tend, &[USER, &request.to_string()]).await;
    assert_eq!(library.call_user::<u8>(Function::Remove, &[USER, "a", &channels, ""]).await, 1);
    library.call_user::<u64>(Function::Purge, &[USER, &channels]).await;
}

#[tokio::test]
async fn with_full_memory_nodes_go_on_beating_and_recovering() {
    let mut library = Library::start().await;
    library.redis.config_set("maxmemory", "1").await;
    let (nodes, epoch) = (library.keys.name(Key::Nodes), library.keys.name(Key::Epoch));
    library.call::<redis::Value>(Function::Heartbeat, &[&nodes], &["n1:r", "{}", "60000"]).await;
    library.call::<redis::Value>(Function::Recover, &[&epoch], &["run", "repl", "0"]).await;
}
