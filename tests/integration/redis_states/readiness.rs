//! What a balancer sees.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Scene, State};
use crate::harness::wait::eventually_within;
use crate::harness::{Client, ConnectOptions, NodeOptions};

/// By contract 15 s; the rest is for a machine that is busy.
const RED_WITHIN: Duration = Duration::from_secs(20);
/// By contract 5 s of probes that come back, the pause between two probes, and the longest between two attempts to
/// connect; the rest is for a machine that is busy.
const GREEN_WITHIN: Duration = Duration::from_secs(15);

/// Red while messages cannot get in, green soon after they can, with nobody's help; and a client that was connected
/// all the time gets what is published then. `/healthz` stays green: a restart of the node would help nobody.
pub(super) async fn turns_red_and_green_again(state: State) {
    let mut scene = Scene::start(state, NodeOptions::default()).await;
    let mut client = Client::connect(&scene.node, "alice", "d", ConnectOptions::default()).await;
    scene.enter().await;
    let entered = Instant::now();
    eventually_within(RED_WITHIN, "/readyz turns red", async || (scene.node.readyz().await == Some(503)).then_some(()))
        .await;
    let red_after = entered.elapsed();
    assert_eq!(scene.node.get("/healthz").await.0, 200);
    client.round_trip().await;
    scene.leave().await;
    let left = Instant::now();
    eventually_within(GREEN_WITHIN, "/readyz turns green", async || {
        (scene.node.readyz().await == Some(200)).then_some(())
    })
    .await;
    println!("{state:?}: red after {red_after:?}, green {:?} after it ended", left.elapsed());
    let id = scene.node.publish("alice", json!("after")).await;
    assert_eq!(client.next_message().await.id, id);
}
