//! `homing_1_heartbeat` and `homing_1_recover`: one clock for all nodes, and one change of the epoch per loss.

use homing::store::{Function, Key};
use redis::{FromRedisValue, Value};
use serde_json::json;

use super::Library;

impl Library {
    async fn recover(&mut self, run_id: &str, replid: &str, fsync_always: bool) -> (String, String) {
        self.recover_replica(run_id, replid, fsync_always, "0000").await
    }

    /// `replid2` is that of the primary whose replica this server was.
    async fn recover_replica(
        &mut self,
        run_id: &str,
        replid: &str,
        fsync_always: bool,
        replid2: &str,
    ) -> (String, String) {
        let epoch = self.keys.name(Key::Epoch);
        let always = if fsync_always { "1" } else { "0" };
        self.call(Function::Recover, &[&epoch], &[run_id, replid, always, replid2]).await
    }

    /// The reply's head, and name, age and JSON of every node.
    async fn heartbeat(&mut self, node: &str) -> (u64, i64, Vec<(String, u64, String)>) {
        let nodes = self.keys.name(Key::Nodes);
        let about = json!({ "node": node, "shards": 1, "version": "0" }).to_string();
        let reply: Vec<Value> = self.call(Function::Heartbeat, &[&nodes], &[node, &about, "60000"]).await;
        let text = |value: &Value| -> String { FromRedisValue::from_redis_value_ref(value).expect("a text or number") };
        let others = reply[2..]
            .chunks(3)
            .map(|node| (text(&node[0]), text(&node[1]).parse().expect("an age"), text(&node[2])))
            .collect();
        (text(&reply[0]).parse().expect("a time"), text(&reply[1]).parse().expect("an age"), others)
    }
}

#[tokio::test]
async fn the_first_node_makes_the_epoch_and_the_others_find_it() {
    let mut library = Library::start().await;
    let seconds = library.now_ms().await / 1_000;
    let (epoch, outcome) = library.recover("run", "repl", false).await;
    assert_eq!(outcome, "created");
    assert!(epoch.parse::<u64>().expect("a number") >= seconds, "an epoch after a loss must not repeat one before it");
    assert_eq!(library.recover("run", "repl", false).await, (epoch, "same".to_owned()));
}

#[tokio::test]
async fn of_all_nodes_that_reconnect_after_a_restart_one_changes_the_epoch_once() {
    let mut library = Library::start().await;
    let (first, _) = library.recover("run-1", "repl-1", false).await;
    let (second, outcome) = library.recover("run-2", "repl-2", false).await;
    assert_eq!(outcome, "changed");
    assert!(second.parse::<u64>().expect("a number") > first.parse().expect("a number"));
    assert_eq!(library.recover("run-2", "repl-2", false).await, (second.clone(), "same".to_owned()));
    // A failover that keeps the process but not the history counts as well.
    assert_eq!(library.recover("run-2", "repl-3", false).await.1, "changed");
}

#[tokio::test]
async fn a_replica_that_takes_over_changes_the_epoch_although_its_log_is_flushed_always() {
    let mut library = Library::start().await;
    let (first, _) = library.recover("run-1", "repl-1", true).await;
    let (second, outcome) = library.recover_replica("run-2", "repl-2", true, "repl-1").await;
    assert_eq!(outcome, "changed", "it may lack the last writes of the old primary");
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_restart_that_loses_nothing_keeps_the_epoch() {
    let mut library = Library::start().await;
    let (epoch, _) = library.recover("run-1", "repl-1", true).await;
    assert_eq!(library.recover("run-2", "repl-2", true).await, (epoch.clone(), "kept".to_owned()));
    assert_eq!(library.recover("run-2", "repl-2", false).await, (epoch, "same".to_owned()));
}

#[tokio::test]
async fn an_epoch_that_is_gone_means_lost_data_whatever_the_fsync() {
    let mut library = Library::start().await;
    library.recover("run-1", "repl-1", true).await;
    let key = library.keys.name(Key::Epoch);
    library.query::<()>(&["DEL", &key]).await;
    assert_eq!(library.recover("run-1", "repl-1", true).await.1, "created");
}

#[tokio::test]
async fn every_node_hears_of_the_others_by_one_clock() {
    let mut library = Library::start().await;
    let before = library.now_ms().await;
    let (now, previous, nodes) = library.heartbeat("n1:r").await;
    assert!(now >= before);
    assert_eq!((previous, nodes.len()), (-1, 1));
    let (_, previous, mut nodes) = library.heartbeat("n2:r").await;
    nodes.sort();
    assert_eq!(previous, -1);
    assert_eq!(nodes.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), ["n1:r", "n2:r"]);
    assert!(nodes.iter().all(|(_, age, about)| *age < 60_000 && about.contains("seen_ms")));
    let (_, previous, _) = library.heartbeat("n1:r").await;
    assert!(previous >= 0);
}

#[tokio::test]
async fn a_node_that_is_long_silent_is_forgotten() {
    let mut library = Library::start().await;
    let key = library.keys.name(Key::Nodes);
    let silent = json!({ "node": "old", "seen_ms": 1_000 }).to_string();
    library.query::<()>(&["HSET", &key, "old:r", &silent]).await;
    let (_, _, nodes) = library.heartbeat("n1:r").await;
    assert_eq!(nodes.len(), 1);
    assert_eq!(library.query::<u64>(&["HEXISTS", &key, "old:r"]).await, 0);
}

// Without this, one field that somebody else wrote would let every node's heartbeat fail.
#[tokio::test]
async fn a_field_that_is_no_heartbeat_is_removed() {
    let mut library = Library::start().await;
    let nodes = library.keys.name(Key::Nodes);
    for (field, garbage) in [("a", "no JSON"), ("b", "7"), ("c", "{}"), ("n1:r", "[]")] {
        let _: u64 = library.query(&["HSET", &nodes, field, garbage]).await;
    }
    let (_, age, others) = library.heartbeat("n1:r").await;
    assert_eq!(age, -1);
    assert_eq!(others.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), ["n1:r"]);
}
