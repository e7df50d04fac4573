//! The janitor against a real Redis.

use std::time::Duration;

use homing_protocol::topic::Topic;
use redis::Cmd;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::holding::Holding;
use super::pass::Break;
use super::tending::Found;
use super::topics::PAGE_CURSORS;
use super::*;
use crate::store::test_server::TestServer;
use crate::store::{Function, Key, StoreError};

/// A Redis with functions, and what the janitor needs of it.
struct World {
    server: TestServer,
    store: Store,
    nodes: Nodes,
    limits: Limits,
    user: Name,
}

impl World {
    async fn new(limits: Limits) -> Self {
        let server = TestServer::start(&[]);
        let store = server.store().await;
        store.load_functions().await.unwrap();
        let nodes = Nodes::new(store.clone(), "node", 1, &limits);
        Self { server, store, nodes, limits, user: Name::parse("alice").unwrap() }
    }

    async fn run<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command: Cmd = redis::cmd(words[0]);
        command.arg(&words[1..]);
        self.store.query(&command).await.unwrap()
    }

    fn inbox(&self) -> String {
        self.store.keys().name(Key::Inbox(&self.user))
    }

    fn devices(&self) -> String {
        self.store.keys().name(Key::Devices(&self.user))
    }

    /// Attaches a device of the user for a shard of some node.
    async fn attach(&self, device: &str, owner: &str) {
        let request = json!({
            "user": self.user.as_str(), "device": device, "channels": self.store.keys().control_prefix(),
            "owner": owner, "node": "node", "nonce": format!("nonce of {device}"), "instance": "", "seq": 0,
            "from": "", "epoch": "", "primary": "1", "mode": "connect", "generation": "0", "devices_max": 20,
            "replace_after_ms": 86_400_000
        });
        let mut command = Function::Attach.call(&[&self.inbox(), &self.devices()]);
        command.arg(request.to_string());
        let reply: Vec<redis::Value> = self.store.call(&command).await.unwrap();
        assert_eq!(reply[0], redis::Value::BulkString(b"ok".to_vec()));
    }

    /// The device's session ends.
    async fn detach(&self, device: &str, owner: &str) {
        let generation = self.record(device).await["generation"].as_str().unwrap().to_owned();
        let mut command = Function::Release.call(&[&self.devices()]);
        command.arg(self.user.as_str()).arg(device).arg("c:").arg(owner).arg(generation).arg("1");
        assert_eq!(self.store.call::<String>(&command).await.unwrap(), "ended");
    }

    async fn record(&self, device: &str) -> Value {
        let record: String = self.run(&["HGET", &self.devices(), device]).await;
        serde_json::from_str(&record).unwrap()
    }

    async fn append(&self, id: &str) -> String {
        self.run(&["XADD", &self.inbox(), id, "data", "{}"]).await
    }

    /// A device reads new entries without acknowledging them.
    async fn read(&self, device: &str, count: &str) {
        let _: redis::Value =
            self.run(&["XREADGROUP", "GROUP", device, "c", "COUNT", count, "STREAMS", &self.inbox(), ">"]).await;
    }

    async fn try_tend(&self) -> Result<Found, StoreError> {
        let tending = Tending::new(self.store.clone(), self.nodes.clone(), &self.limits);
        tending.tend(&mut self.store.shared().clone(), std::slice::from_ref(&self.user)).await
    }

    async fn tend(&self) -> Found {
        self.try_tend().await.unwrap()
    }

    /// Heartbeats until this node may judge others.
    async fn heartbeat_until_judging(&self) {
        let give_up = Instant::now() + Duration::from_secs(10);
        while self.nodes.alive().is_none() {
            assert!(Instant::now() < give_up);
            self.nodes.beat().await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn retention_by_length_counts_drops_per_device_and_opens_a_gap() {
    let world = World::new(Limits { inbox_length_max: 10, ..Limits::default() }).await;
    world.attach("slow", "node:1.0").await;
    world.attach("fast", "node:1.0").await;
    for number in 1..=600 {
        world.append(&format!("9000000000000-{number}")).await;
    }
    // One device has read a part, the other everything, and acknowledged some of it.
    world.read("slow", "5").await;
    world.read("fast", "600").await;
    for number in 1..=300 {
        let id = format!("9000000000000-{number}");
        let _: i64 = world.run(&["XACK", &world.inbox(), "fast", &id]).await;
    }

    // More entries are over the limit than one call of the function removes.
    let found = world.tend().await;
    assert_eq!((found.messages, found.removed), (10, 590));
    assert_eq!(found.dropped, 590 + 290);
    let slow = world.record("slow").await;
    assert_eq!(
        (&slow["dropped"], &slow["gap"]["count"], &slow["gap"]["reason"]),
        (&json!(590), &json!(590), &json!("retention"))
    );
    assert_eq!(world.record("fast").await["gap"]["count"], json!(290));
    assert_eq!(found.pending, 10, "what was dropped is pending nowhere");
    assert_eq!(world.tend().await.dropped, 0, "a drop is counted once");
}

#[tokio::test]
async fn retention_by_age_drops_what_is_older_and_nothing_younger() {
    let world = World::new(Limits { inbox_age_max: Duration::from_secs(3_600), ..Limits::default() }).await;
    world.attach("web", "node:1.0").await;
    let now_ms = world.append("*").await.split_once('-').unwrap().0.parse::<u64>().unwrap();
    let _: i64 = world.run(&["DEL", &world.inbox()]).await;
    let _: String = world.run(&["XGROUP", "CREATE", &world.inbox(), "web", "0", "MKSTREAM"]).await;
    world.append(&format!("{}-0", now_ms - 3_700_000)).await;
    world.append(&format!("{}-0", now_ms - 3_500_000)).await;

    let found = world.tend().await;
    assert_eq!((found.messages, found.dropped), (1, 1));
    assert_eq!(world.record("web").await["dropped"], json!(1));
    assert!((3_500_000..3_600_000).contains(&found.oldest_unacked_ms), "undelivered counts as unacknowledged");
}

#[tokio::test]
async fn an_idle_device_expires_and_a_connected_one_does_not() {
    let world = World::new(Limits { device_idle_max: Duration::ZERO, ..Limits::default() }).await;
    world.attach("gone", "node:1.0").await;
    world.attach("here", "node:1.0").await;
    world.detach("gone", "node:1.0").await;
    tokio::time::sleep(Duration::from_millis(2)).await;

    assert_eq!(world.tend().await.expired, 1);
    let left: Vec<String> = world.run(&["HKEYS", &world.devices()]).await;
    assert!(left.contains(&"here".to_owned()) && !left.contains(&"gone".to_owned()), "{left:?}");
    let groups: Vec<redis::Value> = world.run(&["XINFO", "GROUPS", &world.inbox()]).await;
    assert_eq!(groups.len(), 1, "its group went with it, else nothing would ever be trimmed");
}

#[tokio::test]
async fn an_empty_inbox_without_devices_goes_and_one_with_a_message_stays() {
    let world = World::new(Limits { device_idle_max: Duration::ZERO, ..Limits::default() }).await;
    world.attach("web", "node:1.0").await;
    world.detach("web", "node:1.0").await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    world.tend().await;
    assert_eq!(world.run::<i64>(&["EXISTS", &world.inbox(), &world.devices()]).await, 0);

    world.append("*").await;
    assert_eq!(world.tend().await.messages, 1, "the first device to appear gets it");
}

#[tokio::test]
async fn the_device_of_a_dead_node_goes_offline_only_when_judging_is_allowed() {
    let limits = Limits { node_dead_after: Duration::from_millis(100), presence_length: 0, ..Limits::default() };
    let world = World::new(limits).await;
    world.attach("web", "dead:1.0").await;
    world.attach("phone", &world.nodes.owner(0)).await;

    world.tend().await;
    assert_eq!(world.record("web").await["owner"], json!("dead:1.0"), "nobody may judge yet");
    world.heartbeat_until_judging().await;
    world.tend().await;
    assert_eq!(world.record("web").await["owner"], json!(""));
    assert_eq!(world.record("phone").await["owner"], json!(world.nodes.owner(0)), "a living node's device stays");
}

// Its node may have died between the attach and the announcement: then no index names the device.
#[tokio::test]
async fn with_presence_the_device_of_a_dead_node_is_left_to_who_announces_that_it_is_gone() {
    let limits = Limits { node_dead_after: Duration::from_millis(100), ..Limits::default() };
    let world = World::new(limits).await;
    world.attach("web", "dead:1.0").await;
    world.heartbeat_until_judging().await;
    world.tend().await;
    assert_eq!(world.record("web").await["owner"], json!("dead:1.0"));
    let keys = world.store.keys();
    let index: Vec<String> = world.run(&["HGETALL", &keys.name(Key::Online("dead:1.0"))]).await;
    assert_eq!(index, ["alice web", ""]);
    let announcers: Vec<String> = world.run(&["SMEMBERS", &keys.name(Key::Announcers)]).await;
    assert_eq!(announcers, ["dead:1.0"]);
}

#[tokio::test]
async fn a_user_with_a_key_of_another_type_keeps_nobody_from_being_tended() {
    let world = World::new(Limits { inbox_length_max: 1, ..Limits::default() }).await;
    let mallory = Name::parse("mallory").unwrap();
    let _: String = world.run(&["SET", &world.store.keys().name(Key::Inbox(&mallory)), "not a stream"]).await;
    world.append("*").await;
    world.append("*").await;
    let tending = Tending::new(world.store.clone(), world.nodes.clone(), &world.limits);
    let found = tending.tend(&mut world.store.shared().clone(), &[mallory, world.user.clone()]).await.unwrap();
    assert_eq!((found.users, found.messages), (1, 1));
}

#[tokio::test]
async fn functions_that_somebody_flushed_are_loaded_again() {
    let world = World::new(Limits { inbox_length_max: 1, ..Limits::default() }).await;
    world.append("*").await;
    world.append("*").await;
    let _: String = world.run(&["FUNCTION", "FLUSH"]).await;
    assert_eq!(world.tend().await.removed, 1);
}

#[tokio::test]
async fn a_full_memory_is_freed_by_the_janitor() {
    // Also the lock must be had then: a plain SET would be refused.
    let world = World::new(Limits { inbox_length_max: 1, ..Limits::default() }).await;
    for _ in 0..100 {
        world.append("*").await;
    }
    let _: String = world.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let mut add = redis::cmd("XADD");
    add.arg(world.inbox()).arg("*").arg("data").arg("{}");
    assert!(matches!(world.store.query::<String>(&add).await, Err(StoreError::Unavailable(_))));
    assert!(Holding::new(world.store.clone()).hold().await.unwrap());
    assert_eq!(world.tend().await.removed, 99);
}

#[tokio::test]
async fn a_redis_that_refuses_writes_is_reported_and_nothing_is_lost() {
    let world = World::new(Limits { inbox_length_max: 1, ..Limits::default() }).await;
    world.append("*").await;
    world.append("*").await;
    let _: String = world.run(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    assert!(matches!(world.try_tend().await, Err(StoreError::Unavailable(_))));
    let _: String = world.run(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    assert_eq!(world.tend().await.removed, 1);
}

#[tokio::test]
async fn of_two_nodes_one_is_the_janitor_until_it_hands_over() {
    let world = World::new(Limits::default()).await;
    let (first, second) = (Holding::new(world.store.clone()), Holding::new(world.store.clone()));
    assert!(first.hold().await.unwrap());
    assert!(!second.hold().await.unwrap());
    assert!(first.hold().await.unwrap(), "the holder renews");
    second.give_back().await.unwrap();
    assert!(!second.hold().await.unwrap(), "only the holder can give it back");
    first.give_back().await.unwrap();
    assert!(second.hold().await.unwrap());
}

#[tokio::test]
async fn a_pass_finds_users_by_their_inboxes_and_by_devices_without_inbox() {
    let world = World::new(Limits { inbox_length_max: 5, ..Limits::default() }).await;
    for number in 0..200 {
        let name = Name::parse(&format!("user-{number}")).unwrap();
        for _ in 0..6 {
            world.run::<String>(&["XADD", &world.store.keys().name(Key::Inbox(&name)), "*", "data", "{}"]).await;
        }
    }
    world.attach("web", "node:1.0").await;
    let _: i64 = world.run(&["DEL", &world.inbox()]).await;
    // Foreign keys that look alike.
    let _: String = world.run(&["SET", "homing:{not a name}:inbox", ""]).await;
    let mut odd = redis::cmd("SET");
    odd.arg(b"homing:{\xff}:inbox".as_slice()).arg("");
    let _: String = world.store.query(&odd).await.unwrap();

    let tending = Tending::new(world.store.clone(), world.nodes.clone(), &world.limits);
    let mut passes = Passes::new(tending, world.limits.janitor_pause);
    passes.renew().await.unwrap();
    let found = passes.pass(true).await.ok().unwrap();
    assert_eq!((found.users, found.messages, found.removed), (201, 1_000, 200));
}

#[tokio::test]
async fn a_pass_that_is_not_thorough_visits_those_whose_inboxes_hold_something() {
    let world = World::new(Limits { inbox_length_max: 5, ..Limits::default() }).await;
    // Two with nothing in their inboxes, one of them without any, and one with too much.
    world.attach("web", "node:1.0").await;
    let full = world.store.keys().name(Key::Inbox(&Name::parse("full").unwrap()));
    for _ in 0..6 {
        world.run::<String>(&["XADD", &full, "*", "data", "{}"]).await;
    }
    let bare = world.store.keys().name(Key::Devices(&Name::parse("bare").unwrap()));
    let _: i64 = world.run(&["HSET", &bare, "#incarnation", "1"]).await;
    // One that cannot be visited, and keeps nobody from a visit.
    let odd = world.store.keys().name(Key::Inbox(&Name::parse("odd").unwrap()));
    let _: String = world.run(&["SET", &odd, "no stream"]).await;

    let tending = Tending::new(world.store.clone(), world.nodes.clone(), &world.limits);
    let mut passes = Passes::new(tending, world.limits.janitor_pause);
    passes.renew().await.unwrap();
    let found = passes.pass(false).await.ok().unwrap();
    assert_eq!((found.users, found.messages, found.removed), (1, 5, 1));
    assert_eq!(world.run::<i64>(&["EXISTS", &bare]).await, 1);
    let found = passes.pass(true).await.ok().unwrap();
    assert_eq!((found.users, found.messages, found.removed), (3, 5, 0));
    assert_eq!(world.run::<i64>(&["EXISTS", &bare]).await, 0);
}

#[tokio::test]
async fn a_pass_that_visits_nobody_notices_that_the_lock_is_lost() {
    let world = World::new(Limits::default()).await;
    world.attach("web", "node:1.0").await;
    let tending = Tending::new(world.store.clone(), world.nodes.clone(), &world.limits);
    let mut passes = Passes::new(tending, Duration::ZERO);
    passes.turn().await.unwrap();
    assert!(passes.pass(false).await.is_ok());
    passes.hand_over().await;
    assert!(matches!(passes.pass(false).await, Err(Break::LostLock)));
}

// What nobody needs is found by thorough passes alone, which is how this test tells them from others.
#[tokio::test]
async fn a_pass_is_thorough_if_the_janitor_is_new_or_other_nodes_live_or_time_has_passed() {
    let world = World::new(Limits::default()).await;
    world.attach("web", "node:1.0").await;
    let asked = world.store.keys().name(Key::Asked(&world.user));
    let tending = Tending::new(world.store.clone(), world.nodes.clone(), &world.limits);
    let mut passes = Passes::new(tending, Duration::ZERO);
    let is_thorough = async |passes: &mut Passes| {
        let _: i64 = world.run(&["ZADD", &asked, "1", "1-0"]).await;
        passes.turn().await.unwrap();
        world.run::<i64>(&["EXISTS", &asked]).await == 0
    };
    assert!(is_thorough(&mut passes).await, "the first one");
    assert!(!is_thorough(&mut passes).await);
    world.heartbeat_until_judging().await;
    assert!(is_thorough(&mut passes).await, "now it is known who lives");
    assert!(!is_thorough(&mut passes).await);
    let other = Nodes::new(world.store.clone(), "other", 1, &world.limits);
    other.beat().await.unwrap();
    world.nodes.beat().await.unwrap();
    let _: i64 = world.run(&["HDEL", &world.store.keys().name(Key::Nodes), other.me()]).await;
    world.nodes.beat().await.unwrap();
    assert!(is_thorough(&mut passes).await, "a node came and went");
    assert!(!is_thorough(&mut passes).await);
    let _: String = world.run(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    world.nodes.beat().await.unwrap_err();
    let _: String = world.run(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    world.heartbeat_until_judging().await;
    assert!(is_thorough(&mut passes).await, "some may have been visited while nobody could be judged");
    assert!(!is_thorough(&mut passes).await);
    passes.hand_over().await;
    assert!(is_thorough(&mut passes).await, "what another janitor did meanwhile is not known");
    assert!(!is_thorough(&mut passes).await);

    // A tenth of the shortest limit.
    passes.hand_over().await;
    let limits = Limits { device_idle_max: Duration::from_millis(100), ..Limits::default() };
    let tending = Tending::new(world.store.clone(), world.nodes.clone(), &limits);
    let mut passes = Passes::new(tending, Duration::ZERO);
    assert!(is_thorough(&mut passes).await);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(is_thorough(&mut passes).await, "a device that expired is not kept for long");
}

#[tokio::test]
async fn a_pass_trims_topics_however_far_they_are_over_their_limit_and_leaves_what_is_none_alone() {
    let world = World::new(Limits { topic_length_max: 5, ..Limits::default() }).await;
    let log = |topic: &str| world.store.keys().name(Key::Log(&Topic::parse(topic).unwrap()));
    let _: String = world.run(&["SET", &log("a-bad-one"), "a text"]).await;
    let topics = ["news", "*", "room.1"];
    for topic in topics {
        for _ in 0..1_000 {
            world.run::<String>(&["XADD", &log(topic), "*", "data", "{}"]).await;
        }
    }
    let tending = Tending::new(world.store.clone(), world.nodes.clone(), &world.limits);
    let mut passes = Passes::new(tending, world.limits.janitor_pause);
    passes.renew().await.unwrap();
    let found = passes.pass(true).await.ok().unwrap();
    assert_eq!(found.removed, 3 * 995);
    for topic in topics {
        assert_eq!(world.run::<u64>(&["XLEN", &log(topic)]).await, 5, "{topic}");
    }
}

// A million of them at once would stop Redis for a third of a second.
#[tokio::test]
async fn cursors_that_say_nothing_more_go_a_page_at_a_time() {
    let age = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    let world = World::new(Limits { topic_length_max: 1, topic_age_max: age, ..Limits::default() }).await;
    let (topic, count) = (Topic::parse("news").unwrap(), 2 * u64::from(PAGE_CURSORS) + 500);
    let log = world.store.keys().name(Key::Log(&topic));
    let cursors = world.store.keys().name(Key::Cursors(&topic));
    for ms in ["7", "9"] {
        let _: String = world.run(&["XADD", &log, ms, "data", "{}"]).await;
    }
    let mut add = redis::cmd("ZADD");
    add.arg(&cursors).arg(7 * 1_024).arg("alice/web");
    for number in 0..count {
        add.arg(number).arg(format!("bob/{number}"));
    }
    let _: u64 = world.store.query(&add).await.unwrap();

    let tending = Tending::new(world.store.clone(), world.nodes.clone(), &world.limits);
    let mut passes = Passes::new(tending, world.limits.janitor_pause);
    let reply = passes.tend_topic_once(&mut world.store.shared().clone(), &topic).await.unwrap();
    assert_eq!((reply.removed, reply.more, reply.forgotten), (1, true, u64::from(PAGE_CURSORS)));
    passes.renew().await.unwrap();
    let mut found = Found::default();
    passes.pass_topics(&mut world.server.connect().await, &mut found).await.ok().unwrap();
    let left: Vec<String> = world.run(&["ZRANGE", &cursors, "0", "-1"]).await;
    assert_eq!(left, ["alice/web"], "it stands where the log was cut, and has missed nothing");
}

#[tokio::test]
async fn a_running_janitor_tends_whom_it_is_told_of_and_gives_the_lock_back_at_the_end() {
    // The pass comes an hour later; only the hint can do it. This node does not even hold the lock.
    let world = World::new(Limits { inbox_length_max: 1, ..Limits::default() }).await;
    let other = Holding::new(world.store.clone());
    assert!(other.hold().await.unwrap());
    world.append("*").await;
    world.append("*").await;

    let (hints, overfull) = mpsc::channel(OVERFULL_USERS_MAX);
    let (stop, stopped) = watch::channel(false);
    let janitor = Janitor::new(world.store.clone(), world.nodes.clone(), &world.limits, overfull);
    let running = tokio::spawn(janitor.run(stopped));
    hints.send(world.user.clone()).await.unwrap();
    let give_up = Instant::now() + Duration::from_secs(10);
    while world.run::<i64>(&["XLEN", &world.inbox()]).await != 1 {
        assert!(Instant::now() < give_up);
    }
    stop.send(true).unwrap();
    running.await.unwrap();
    assert!(other.hold().await.unwrap(), "a node that does not hold the lock leaves it alone");

    other.give_back().await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let (_hints, overfull) = mpsc::channel(OVERFULL_USERS_MAX);
    let janitor = Janitor::new(world.store.clone(), world.nodes.clone(), &world.limits, overfull);
    let running = tokio::spawn(janitor.run(stopped));
    let lock = world.store.keys().name(Key::Lock(crate::store::Lock::Janitor));
    while world.run::<i64>(&["EXISTS", &lock]).await == 0 {
        assert!(Instant::now() < give_up);
    }
    stop.send(true).unwrap();
    running.await.unwrap();
    assert_eq!(world.run::<i64>(&["EXISTS", &lock]).await, 0);
}

#[tokio::test]
async fn a_user_is_not_tended_out_of_turn_again_at_once() {
    let world = World::new(Limits::default()).await;
    let (_hints, overfull) = mpsc::channel(1);
    let tending = Tending::new(world.store.clone(), world.nodes.clone(), &world.limits);
    let mut overfull = Overfull::new(tending, overfull);
    let now = Instant::now();
    assert!(overfull.is_due(&world.user, now));
    assert!(!overfull.is_due(&world.user, now + Duration::from_millis(1_900)));
    assert!(overfull.is_due(&Name::parse("bob").unwrap(), now));
    assert!(overfull.is_due(&world.user, now + Duration::from_secs(2)));
}
