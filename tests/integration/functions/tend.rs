//! `homing_1_tend`: retention counts each drop for each device exactly; only what is idle and offline expires.

use homing::store::Function;
use serde_json::{Value, json};

use super::{Attach, Library, USER};

/// A hundred years: no age limit for entries with the ids `1-0`, `2-0`, …
pub(super) const NO_AGE_MS: u64 = 100 * 365 * 86_400_000;

/// What the janitor asks; the default drops nothing.
#[derive(Clone, Debug)]
struct Tend {
    length_max: u64,
    age_max_ms: u64,
    device_idle_ms: u64,
    alive: Value,
    page: u64,
}

impl Default for Tend {
    fn default() -> Self {
        Self { length_max: 10_000, age_max_ms: NO_AGE_MS, device_idle_ms: NO_AGE_MS, alive: Value::Null, page: 1_000 }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Tended {
    length: u64,
    pending: u64,
    oldest: String,
    removed: u64,
    dropped: u64,
    expired: u64,
    more: u64,
}

/// A device, an entry, its key, and whether it was for that device only.
pub(super) type DroppedReceipt = (String, String, String, u8);
/// As the function answers it.
type Reply = (u64, u64, String, u64, u64, u64, u64, u64, Vec<(String, String)>, Vec<DroppedReceipt>);

impl Tended {
    fn read(reply: &redis::Value) -> Self {
        let (length, pending, oldest, removed, dropped, expired, more, _now, _lost, _receipts): Reply =
            redis::from_redis_value_ref(reply).expect("a reply of the function");
        Self { length, pending, oldest, removed, dropped, expired, more }
    }
}

impl Library {
    async fn tend(&mut self, request: Tend) -> Tended {
        self.try_tend(request).await.expect("the function does it")
    }

    async fn try_tend(&mut self, request: Tend) -> redis::RedisResult<Tended> {
        let text = json!({
            "channels": self.keys.control_prefix(), "length_max": request.length_max,
            "age_max_ms": request.age_max_ms, "device_idle_ms": request.device_idle_ms, "alive": request.alive,
            "page": request.page,
        });
        let (inbox, devices) = (self.inbox.clone(), self.devices.clone());
        let reply = self.try_call(Function::Tend, &[&inbox, &devices], &[USER, &text.to_string()]).await;
        reply.map(|reply: redis::Value| Tended::read(&reply))
    }

    /// The drops that asked for a receipt, of one visit.
    pub(super) async fn tend_for_receipts(
        &mut self,
        length_max: u64,
        age_max_ms: u64,
        page: u64,
    ) -> (u64, Vec<DroppedReceipt>) {
        let text = json!({
            "channels": self.keys.control_prefix(), "length_max": length_max, "age_max_ms": age_max_ms,
            "device_idle_ms": NO_AGE_MS, "alive": null, "page": page,
        });
        let keys = [self.inbox.clone(), self.devices.clone(), self.asked_key()];
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let (.., more, _now, _lost, mut receipts): Reply =
            self.call(Function::Tend, &keys, &[USER, &text.to_string()]).await;
        receipts.sort();
        (more, receipts)
    }

    /// `dropped` and the gap's count of a device.
    async fn drops(&self, device: &str) -> (u64, u64) {
        let record = self.record(device).await;
        (record["dropped"].as_u64().expect("a number"), record["gap"]["count"].as_u64().unwrap_or(0))
    }

    /// Appends `count` entries with the ids `<first>-0`, `<first+1>-0`, …
    async fn add_numbered(&mut self, first: u64, count: u64) {
        let ids: Vec<String> = (first..first + count).map(|number| format!("{number}-0")).collect();
        self.add(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
}

// Three devices at different places in the same inbox: each is told of exactly what it lost.
#[tokio::test]
async fn retention_by_length_counts_for_each_device_what_it_had_not_acknowledged() {
    let mut library = Library::start().await;
    for (device, nonce) in [("new", "1"), ("half", "2"), ("done", "3")] {
        library.attached(Attach { from: "start", ..Attach::new(device, nonce) }).await;
    }
    library.add_numbered(1, 10).await;
    library.read("half", 6).await;
    library.ack("half", &["2-0", "3-0"]).await;
    library.read("done", 10).await;
    library.ack("done", &["1-0", "2-0", "3-0", "4-0", "5-0", "6-0", "7-0", "8-0"]).await;

    let tended = library.tend(Tend { length_max: 2, ..Tend::default() }).await;
    assert_eq!(library.ids().await, ["9-0", "10-0"]);
    // half: 1, 4, 5 and 6 were pending, 7 and 8 not delivered.
    assert_eq!(library.drops("new").await, (8, 8));
    assert_eq!(library.drops("half").await, (6, 6));
    assert_eq!(library.drops("done").await, (0, 0));
    assert_eq!(library.record("done").await.get("gap"), None);
    assert_eq!(library.pending("half").await, Vec::<String>::new());
    assert_eq!((tended.length, tended.removed, tended.dropped), (2, 8, 14));
    assert_eq!((tended.pending, tended.oldest.as_str()), (2, "9-0"));

    let again = library.tend(Tend { length_max: 2, ..Tend::default() }).await;
    assert_eq!((again.removed, again.dropped), (0, 0), "nothing is counted twice");
    assert_eq!(library.drops("new").await, (8, 8));
}

#[tokio::test]
async fn retention_by_age_drops_what_is_older_and_keeps_what_is_not() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    let now = library.now_ms().await;
    let (old, older, young) = (format!("{}-0", now - 61_000), format!("{}-5", now - 99_000), format!("{}-0", now - 1));
    library.add(&[&older, &old, &young]).await;
    library.read("a", 1).await;
    let tended = library.tend(Tend { age_max_ms: 60_000, ..Tend::default() }).await;
    assert_eq!(library.ids().await, [young.as_str()]);
    assert_eq!((tended.removed, tended.dropped, tended.pending), (2, 2, 0));
    assert_eq!(library.drops("a").await, (2, 2));
    assert_eq!(library.record("a").await["gap"]["reason"], "retention");
}

// Somebody deletes entries with XDEL, which leaves them pending.
#[tokio::test]
async fn a_message_that_was_deleted_unacknowledged_is_dropped_when_it_is_too_old() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    library.add_numbered(1, 3).await;
    library.read("a", 9).await;
    let inbox = library.inbox.clone();
    library.query::<u64>(&["XDEL", &inbox, "1-0", "2-0", "3-0"]).await;
    let tended = library.tend(Tend::default()).await;
    assert_eq!((tended.length, tended.pending, tended.oldest.as_str(), tended.dropped), (0, 3, "1-0", 0));
    let tended = library.tend(Tend { age_max_ms: 60_000, ..Tend::default() }).await;
    assert_eq!((tended.pending, tended.oldest.as_str(), tended.dropped), (0, "", 3));
    assert_eq!(library.drops("a").await, (3, 3));
}

// What was dropped could be written nowhere.
#[tokio::test]
async fn of_a_user_whose_devices_cannot_be_read_nothing_is_dropped() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    library.add_numbered(1, 3).await;
    library.read("a", 2).await;
    let devices = library.devices.clone();
    for broken in [["HSET", &devices, "b", "{oops"].as_slice(), &["SET", &devices, "x"]] {
        library.query::<redis::Value>(broken).await;
        let request = Tend { length_max: 1, ..Tend::default() };
        library.try_tend(request).await.expect_err("they are no devices");
        assert_eq!((library.ids().await.len(), library.pending("a").await.len()), (3, 2));
    }
}

// Nobody is busy with most of a cluster's users at any time; each of them costs Redis this in every pass.
#[tokio::test]
async fn a_visit_that_finds_nothing_to_do_is_few_commands() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    library.add_numbered(1, 1).await;
    library.read("a", 9).await;
    library.ack("a", &["1-0"]).await;
    assert_eq!(library.tend(Tend::default()).await.removed, 1);
    library.query::<()>(&["CONFIG", "RESETSTAT"]).await;
    library.tend(Tend::default()).await;
    let stats: String = library.query(&["INFO", "commandstats"]).await;
    let mut commands: Vec<&str> = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")).collect();
    commands.retain(|line| !line.starts_with("config") && !line.starts_with("fcall"));
    let mut calls: Vec<&str> = commands.iter().filter_map(|line| line.split(",usec").next()).collect();
    calls.sort_unstable();
    assert_eq!(calls, ["hgetall:calls=1", "time:calls=1", "xinfo|groups:calls=1", "xlen:calls=1"]);
}

#[tokio::test]
async fn an_inbox_far_over_its_length_is_cut_page_by_page_with_the_same_counts() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    library.add_numbered(1, 25).await;
    library.read("a", 7).await;
    let request = Tend { length_max: 5, page: 8, ..Tend::default() };
    let mut pages = Vec::new();
    loop {
        let tended = library.tend(request.clone()).await;
        pages.push(tended.removed);
        if tended.more == 0 {
            break;
        }
    }
    assert_eq!(pages, [8, 8, 4]);
    assert_eq!(library.drops("a").await, (20, 20));
    assert_eq!(library.ids().await.len(), 5);
}

#[tokio::test]
async fn more_pending_messages_than_one_page_of_the_list_are_all_dropped() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    let inbox = library.inbox.clone();
    let mut pipeline = redis::pipe();
    for number in 1..=2_500 {
        pipeline.cmd("XADD").arg(&inbox).arg(format!("{number}-0")).arg("data").arg("x").ignore();
    }
    pipeline.query_async::<()>(&mut library.connection).await.expect("Redis accepts entries");
    library.read("a", 2_300).await;
    let tended = library.tend(Tend { length_max: 10, page: 10_000, ..Tend::default() }).await;
    assert_eq!((tended.removed, tended.dropped, tended.pending), (2_490, 2_490, 0));
}

#[tokio::test]
async fn the_owner_hears_of_a_drop() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    library.add_numbered(1, 3).await;
    let mut owner = library.listen("n1:r.0").await;
    library.tend(Tend { length_max: 1, ..Tend::default() }).await;
    let gap = library.record("a").await["gap"].clone();
    assert_eq!(owner.next().await, json!({ "kind": "gap", "user": USER, "device": "a", "gap": gap }));
}

// Explicit ids from the far future, up to the last possible one: retention by age never reaches them.
#[tokio::test]
async fn explicit_ids_at_the_end_of_the_range_are_cut_by_length() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    let max = u64::MAX;
    let (first, second, last) = (format!("{max}-1"), format!("{max}-{}", max - 1), format!("{max}-{max}"));
    library.add(&[&first, &second, &last]).await;
    library.read("a", 9).await;
    let tended = library.tend(Tend { length_max: 1, ..Tend::default() }).await;
    assert_eq!((tended.removed, tended.dropped, tended.oldest), (2, 2, last));
}

#[tokio::test]
async fn a_message_that_everybody_acknowledged_is_removed_without_being_counted() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    library.add_numbered(1, 3).await;
    library.read("a", 9).await;
    library.ack("a", &["1-0", "2-0"]).await;
    let tended = library.tend(Tend::default()).await;
    assert_eq!((tended.length, tended.removed, tended.dropped), (1, 2, 0));
    assert_eq!((tended.pending, tended.oldest.as_str()), (1, "3-0"));
}

#[tokio::test]
async fn the_oldest_unacknowledged_message_may_be_one_that_nobody_was_given() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    library.add_numbered(1, 2).await;
    let tended = library.tend(Tend::default()).await;
    assert_eq!((tended.pending, tended.oldest.as_str()), (0, "1-0"));
    library.read("a", 9).await;
    library.ack("a", &["1-0", "2-0"]).await;
    assert_eq!(library.tend(Tend::default()).await.oldest, "");
}

#[tokio::test]
async fn only_a_device_that_is_idle_and_offline_expires() {
    let mut library = Library::start().await;
    for (device, ends, long_ago) in
        [("online-idle", false, true), ("offline-lately", true, false), ("offline-idle", true, true)]
    {
        let generation = library.attached(Attach::new(device, device)).await.generation;
        if ends {
            library.release(device, "n1:r.0", &generation, true).await;
        }
        if long_ago {
            library.set_record(device, "last_seen_ms", json!(1_000)).await;
        }
    }
    let before = library.incarnation().await;
    let tended = library.tend(Tend { device_idle_ms: 86_400_000, ..Tend::default() }).await;
    assert_eq!(tended.expired, 1);
    assert!(library.redis.device(USER, "offline-idle").await.is_none());
    assert!(library.redis.device(USER, "online-idle").await.is_some());
    assert!(library.redis.device(USER, "offline-lately").await.is_some());
    assert!(library.incarnation().await > before);
}

// A node that was killed cannot say that its sessions ended.
#[tokio::test]
async fn a_device_of_a_dead_node_is_offline_and_of_a_living_one_is_not() {
    let mut library = Library::start().await;
    library.attached(Attach { owner: "dead:x.3", ..Attach::new("a", "1") }).await;
    library.attached(Attach { owner: "living:y.12", ..Attach::new("b", "2") }).await;
    for device in ["a", "b"] {
        library.set_record(device, "last_seen_ms", json!(1_000)).await;
    }
    let idle = Tend { device_idle_ms: 86_400_000, ..Tend::default() };
    assert_eq!(library.tend(idle.clone()).await.expired, 0, "deaths may not be judged now");
    let tended = library.tend(Tend { alive: json!({ "living:y": true }), ..idle }).await;
    assert_eq!(tended.expired, 1);
    assert!(library.redis.device(USER, "a").await.is_none());
    assert_eq!(library.record("b").await["owner"], "living:y.12");
}

#[tokio::test]
async fn a_device_that_is_removed_by_age_no_longer_holds_up_the_trim() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    let gone = library.attached(Attach::new("gone", "2")).await;
    library.release("gone", "n1:r.0", &gone.generation, true).await;
    library.set_record("gone", "last_seen_ms", json!(1_000)).await;
    library.add(&["1-0"]).await;
    library.read("a", 1).await;
    library.ack("a", &["1-0"]).await;
    let tended = library.tend(Tend { device_idle_ms: 86_400_000, ..Tend::default() }).await;
    assert_eq!((tended.length, tended.expired, tended.dropped), (0, 1, 0));
}

#[tokio::test]
async fn an_inbox_without_messages_and_devices_leaves_no_key() {
    let mut library = Library::start().await;
    let generation = library.attached(Attach::new("a", "1")).await.generation;
    library.release("a", "n1:r.0", &generation, true).await;
    library.set_record("a", "last_seen_ms", json!(1_000)).await;
    library.tend(Tend { device_idle_ms: 86_400_000, ..Tend::default() }).await;
    assert_eq!(library.query::<Vec<String>>(&["KEYS", "homing:*"]).await, Vec::<String>::new());
}

#[tokio::test]
async fn messages_of_a_user_without_devices_wait_until_retention_takes_them() {
    let mut library = Library::start().await;
    let now = library.now_ms().await;
    let (old, young) = (format!("{}-0", now - 61_000), format!("{}-0", now - 1));
    library.add(&[&old, &young]).await;
    let tended = library.tend(Tend { age_max_ms: 60_000, ..Tend::default() }).await;
    assert_eq!((tended.length, tended.removed, tended.dropped), (1, 1, 0));
    assert_eq!(library.ids().await, [young]);
}

#[tokio::test]
async fn an_empty_inbox_of_a_known_device_stays() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    library.tend(Tend::default()).await;
    let inbox = library.inbox.clone();
    assert_eq!(library.query::<u64>(&["EXISTS", &inbox]).await, 1);
    assert!(library.redis.device(USER, "a").await.is_some());
}

#[tokio::test]
async fn a_visit_to_a_user_without_any_key_finds_nothing() {
    let mut library = Library::start().await;
    let nothing = Tended { length: 0, pending: 0, oldest: String::new(), removed: 0, dropped: 0, expired: 0, more: 0 };
    assert_eq!(library.tend(Tend::default()).await, nothing);
}
