//! Presence events: a login is announced once, an absence after the grace time, whichever nodes live.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::harness::wait::eventually_within;
use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions, eventually};

const GRACE: Duration = Duration::from_millis(1_500);

fn options() -> NodeOptions {
    NodeOptions::default().set("presence_grace", "1500ms")
}

/// Node deaths are noticed within a second.
fn quick() -> NodeOptions {
    options().set("node_heartbeat", "200ms").set("node_dead_after", "800ms")
}

async fn connect(node: &Node, user: &str, device: &str) -> Client {
    Client::connect(node, user, device, ConnectOptions::default()).await
}

/// Every entry of the stream, as `event user/device`.
async fn events(redis: &Redis) -> Vec<String> {
    let entries: Vec<(String, Vec<String>)> = redis.query(&["XRANGE", "homing:presence", "-", "+"]).await;
    entries.iter().map(|(_, fields)| format!("{} {}/{}", fields[1], fields[3], fields[5])).collect()
}

/// Waits until the stream holds exactly these.
async fn expect_events(redis: &Redis, expected: &[&str]) {
    let mut seen = Vec::new();
    let what = format!("the events {expected:?}");
    eventually(&what, async || {
        seen = events(redis).await;
        assert!(seen.len() <= expected.len(), "{seen:?} instead of {expected:?}");
        (seen == expected).then_some(())
    })
    .await;
}

/// Proves that what may be announced was announced: a device that left later than all others is.
async fn marker(redis: &Redis, node: &Node, name: &str) {
    connect(node, "marker", name).await.close().await;
    let gone = format!("offline marker/{name}");
    eventually(&gone, async || events(redis).await.contains(&gone).then_some(())).await;
}

#[tokio::test]
async fn a_login_is_announced_once_and_a_logout_after_the_grace_time() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, options().set("node_id", "n1")).await;
    let client = connect(&node, "alice", "web").await;
    let generation = client.ready().generation;
    expect_events(&redis, &["online alice/web"]).await;
    let left = Instant::now();
    client.close().await;
    expect_events(&redis, &["online alice/web", "offline alice/web"]).await;
    assert!(left.elapsed() >= GRACE, "{:?}", left.elapsed());

    let entries: Vec<(String, Vec<String>)> = redis.query(&["XRANGE", "homing:presence", "-", "+"]).await;
    let fields = ["event", "user", "device", "node", "generation", "at_ms"];
    for (_, entry) in &entries {
        assert_eq!(entry.iter().step_by(2).collect::<Vec<_>>(), fields);
        assert_eq!((entry[7].as_str(), &entry[9]), ("n1", &generation.to_string()));
    }
    assert_eq!(node.metric("homing_presence_events_total").await, Some(2.0));

    connect(&node, "alice", "web").await;
    expect_events(&redis, &["online alice/web", "offline alice/web", "online alice/web"]).await;
}

#[tokio::test]
async fn a_reconnect_within_the_grace_time_and_a_take_over_are_silent() {
    let redis = Redis::start(RedisOptions::default()).await;
    let first = Node::start(&redis, options()).await;
    let second = Node::start(&redis, options()).await;
    connect(&first, "alice", "web").await.close().await;
    let mut old = connect(&first, "alice", "web").await;
    let mut client = connect(&second, "alice", "web").await;
    old.expect_close_code(4009).await;
    client.round_trip().await;
    client.close().await;
    let client = connect(&first, "alice", "web").await;
    marker(&redis, &first, "m1").await;
    marker(&redis, &second, "m2").await;
    let about_alice: Vec<String> = events(&redis).await.into_iter().filter(|event| event.contains("alice")).collect();
    assert_eq!(about_alice, ["online alice/web"]);

    client.close().await;
    eventually("the end is announced", async || {
        events(&redis).await.contains(&"offline alice/web".to_owned()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_replaced_and_a_deleted_device_are_announced_as_gone() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, options().set("sessions_per_user", "1")).await;
    let mut phone = connect(&node, "alice", "phone").await;
    expect_events(&redis, &["online alice/phone"]).await;
    let mut web = connect(&node, "alice", "web").await;
    phone.expect_close_code(4010).await;
    expect_events(&redis, &["online alice/phone", "online alice/web", "offline alice/phone"]).await;
    node.delete("/v1/users/alice/devices/web").await;
    web.expect_close_code(4011).await;
    let all = ["online alice/phone", "online alice/web", "offline alice/phone", "offline alice/web"];
    expect_events(&redis, &all).await;
}

#[tokio::test]
async fn the_devices_of_a_killed_node_that_stay_away_are_announced_and_those_that_came_back_are_not() {
    let redis = Redis::start(RedisOptions::default()).await;
    let mut first = Node::start(&redis, quick()).await;
    let second = Node::start(&redis, quick()).await;
    let mut clients = Vec::new();
    for user in 0..100 {
        clients.push(connect(&first, &format!("user-{user}"), "web").await);
    }
    eventually("all are announced", async || (events(&redis).await.len() == 100).then_some(())).await;
    let killed = Instant::now();
    first.kill9();
    let mut back = Vec::new();
    for user in 0..50 {
        back.push(connect(&second, &format!("user-{user}"), "web").await);
    }
    eventually("half of them are gone", async || (events(&redis).await.len() >= 150).then_some(())).await;
    println!("announced {:?} after the kill, with a grace time of {GRACE:?}", killed.elapsed());
    marker(&redis, &second, "m").await;
    let mut gone: Vec<String> =
        events(&redis).await.into_iter().filter(|event| event.starts_with("offline user")).collect();
    gone.sort();
    let mut expected: Vec<String> = (50..100).map(|user| format!("offline user-{user}/web")).collect();
    expected.sort();
    assert_eq!(gone, expected);
    eventually("nothing of the dead node is left", async || {
        let owners: Vec<String> = redis.query(&["SMEMBERS", "homing:online"]).await;
        let keys: Vec<String> = redis.query(&["KEYS", "homing:online:*"]).await;
        (owners.len() == 1 && keys.len() == 1).then_some(())
    })
    .await;
    for mut client in back {
        client.round_trip().await;
    }
}

// Who reads need not wait until another node has found the time to announce anything.
#[tokio::test]
async fn the_devices_of_a_killed_node_read_as_offline_once_its_heartbeat_is_old_whoever_announces_that() {
    let redis = Redis::start(RedisOptions::default()).await;
    let mut first = Node::start(&redis, quick()).await;
    let second = Node::start(&redis, quick()).await;
    let users: Vec<String> = (0..10).map(|number| format!("user-{number}")).collect();
    let mut clients = Vec::new();
    for user in &users {
        clients.push(connect(&first, user, "phone").await);
        clients.push(connect(&first, user, "web").await);
    }
    // How many devices are online, as the list of presence and as each user's own page have it.
    let path = format!("/v1/presence?users={}", users.join(","));
    let online = async || {
        let count = |answer: &serde_json::Value| {
            let devices = answer["devices"].as_array().expect("a list of devices").iter();
            devices.filter(|device| device["online"] == true).count()
        };
        let (_, list) = second.get(&path).await;
        let mut shown = 0;
        for user in &users {
            shown += count(&second.get(&format!("/v1/users/{user}")).await.1);
        }
        (list["items"].as_array().expect("users").iter().map(count).sum::<usize>(), shown)
    };
    eventually("all are announced", async || (events(&redis).await.len() == 20).then_some(())).await;
    assert_eq!(online().await, (20, 20));
    // Nobody stands in for a dead node as long as somebody holds this.
    redis.query::<()>(&["SET", "homing:lock:presence", "somebody", "PX", "600000"]).await;
    let killed = Instant::now();
    first.kill9();
    eventually("all read as offline", async || (online().await == (0, 0)).then_some(())).await;
    // Its last heartbeat is not younger than its death; the rest is patience with a busy machine.
    assert!(killed.elapsed() < Duration::from_millis(800) + Duration::from_secs(3), "{:?}", killed.elapsed());
    assert_eq!(events(&redis).await.len(), 20);
}

#[tokio::test]
async fn the_devices_of_a_killed_node_are_announced_once_each_within_the_documented_time() {
    let redis = Redis::start(RedisOptions::default()).await;
    let (dead_after, heartbeat) = (Duration::from_secs(3), Duration::from_millis(200));
    let options = || options().set("node_heartbeat", "200ms").set("node_dead_after", "3s");
    let mut first = Node::start(&redis, options()).await;
    let second = Node::start(&redis, options()).await;
    let devices: Vec<(String, &str)> =
        (0..20).map(|number| (format!("user-{}", number / 2), ["phone", "web"][number % 2])).collect();
    let mut clients = Vec::new();
    for (user, device) in &devices {
        clients.push(connect(&first, user, device).await);
    }
    eventually("all are announced", async || (events(&redis).await.len() == 20).then_some(())).await;
    let killed = Instant::now();
    first.kill9();
    eventually("all are announced as gone", async || (events(&redis).await.len() >= 40).then_some(())).await;
    let (took, promised) = (killed.elapsed(), dead_after + heartbeat + Duration::from_secs(1));
    println!("announced {took:?} after the kill; promised are {promised:?}");
    assert!(took < promised + Duration::from_secs(3), "{took:?}, with patience for a busy machine");
    marker(&redis, &second, "m").await;
    let told = events(&redis).await;
    for (user, device) in devices {
        let device = format!("{user}/{device}");
        let about: Vec<&String> = told.iter().filter(|event| event.ends_with(&format!(" {device}"))).collect();
        assert_eq!(about, [&format!("online {device}"), &format!("offline {device}")]);
    }
    assert_eq!(told.len(), 42, "and nothing beside them and the marker: {told:?}");
}

// A node that ends forgets whom it was about to announce: its successor finds them.
#[tokio::test]
async fn the_devices_of_a_node_that_ended_are_announced_by_the_next_one() {
    let redis = Redis::start(RedisOptions::default()).await;
    // Long enough for bob to come back.
    let drain = || quick().set("presence_grace", "6s").set("drain_pause", "0ms").set("drain_spread", "0ms");
    let mut first = Node::start(&redis, drain()).await;
    let mut client = connect(&first, "alice", "web").await;
    let mut stays = connect(&first, "bob", "web").await;
    expect_events(&redis, &["online alice/web", "online bob/web"]).await;
    first.sigterm();
    client.expect_close_code(4112).await;
    stays.expect_close_code(4112).await;
    first.wait_exit().await;
    let second = Node::start(&redis, drain()).await;
    let mut stays = connect(&second, "bob", "web").await;
    expect_events(&redis, &["online alice/web", "online bob/web", "offline alice/web"]).await;
    stays.round_trip().await;
}

// Its devices were announced as gone; its clients never noticed anything.
#[tokio::test]
async fn the_devices_of_a_stopped_node_are_online_again_when_it_wakes_up() {
    let redis = Redis::start(RedisOptions::default()).await;
    let first = Node::start(&redis, quick()).await;
    let second = Node::start(&redis, quick()).await;
    let mut client = connect(&first, "alice", "web").await;
    expect_events(&redis, &["online alice/web"]).await;
    first.sigstop();
    expect_events(&redis, &["online alice/web", "offline alice/web"]).await;
    first.sigcont();
    expect_events(&redis, &["online alice/web", "offline alice/web", "online alice/web"]).await;
    client.round_trip().await;
    client.close().await;
    let all = ["online alice/web", "offline alice/web", "online alice/web", "offline alice/web"];
    expect_events(&redis, &all).await;
    drop(second);
}

#[tokio::test]
async fn an_announcement_that_redis_refused_is_written_later_and_in_order() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, options()).await;
    redis.config_set("maxmemory", "1").await;
    connect(&node, "alice", "web").await.close().await;
    eventually("it is known that the device is gone", async || {
        let record = redis.device("alice", "web").await?;
        (record["owner"] == "" && record.get("announced").is_none()).then_some(())
    })
    .await;
    assert!(events(&redis).await.is_empty());
    redis.config_set("maxmemory", "0").await;
    expect_events(&redis, &["online alice/web", "offline alice/web"]).await;
}

/// Who is online, as a consumer sees it that follows the documented rule: an event of a lower generation than the highest
/// one of its device is late.
async fn online(redis: &Redis) -> BTreeSet<String> {
    let entries: Vec<(String, Vec<String>)> = redis.query(&["XRANGE", "homing:presence", "-", "+"]).await;
    let mut seen: BTreeMap<String, (u64, bool)> = BTreeMap::new();
    for (_, fields) in entries {
        let generation = fields[9].parse().expect("a number");
        let state = seen.entry(format!("{}/{}", fields[3], fields[5])).or_default();
        if generation >= state.0 {
            *state = (generation, fields[1] == "online");
        }
    }
    seen.into_iter().filter(|(_, (_, online))| *online).map(|(device, _)| device).collect()
}

// Devices come, move, leave without a word, while nodes are killed and connections to Redis break.
#[tokio::test]
async fn in_the_end_the_events_say_who_is_connected_whatever_happened() {
    const DEVICES: usize = 24;
    let redis = Redis::start(RedisOptions::default()).await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(Node::start(&redis, quick().set("presence_grace", "300ms").set("janitor_pause", "1s")).await);
    }
    let mut clients: Vec<Option<(usize, Client)>> = (0..DEVICES).map(|_| None).collect();
    for round in 0..8 {
        for step in 0..60 {
            let (device, node) = (random.usize(..DEVICES), random.usize(..nodes.len()));
            match random.u8(..4) {
                0 => {
                    if let Some((_, client)) = clients[device].take() {
                        client.close().await;
                    }
                }
                1 => {
                    if let Some((_, client)) = clients[device].take() {
                        client.reset();
                    }
                }
                _ => {
                    let (user, name) = (format!("user-{}", device / 2), format!("d-{}", device % 2));
                    // A node whose connection to Redis just broke may refuse; then the device is where it was.
                    let options = ConnectOptions::default();
                    if let Ok(client) = Client::try_connect(nodes[node].address(), &user, &name, options).await {
                        clients[device] = Some((node, client));
                    }
                }
            }
            if step == 30 && round % 3 == 1 {
                let _: u64 = redis.query(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
            }
        }
        if round % 2 == 0 {
            let killed = random.usize(..nodes.len());
            nodes[killed].kill9();
            nodes[killed].launch_again();
            nodes[killed].wait_ready().await;
            for client in &mut clients {
                client.take_if(|(node, _)| *node == killed);
            }
        }
    }
    // Whoever was superseded or lost its node is not connected any more, whatever it believes.
    let mut connected = BTreeSet::new();
    for (device, client) in clients.iter_mut().enumerate() {
        if let Some((_, client)) = client {
            client.round_trip().await;
            connected.insert(format!("user-{}/d-{}", device / 2, device % 2));
        }
    }
    assert!(!connected.is_empty() && connected.len() < DEVICES, "seed {seed}: {connected:?}");
    let mut seen = BTreeSet::new();
    let what = format!("seed {seed}: the events say that {connected:?} are online");
    eventually_within(Duration::from_secs(60), &what, async || {
        seen = online(&redis).await;
        (seen == connected).then_some(())
    })
    .await;
    // And the indexes hold just them: what would be announced if all nodes died now.
    eventually("the indexes name who is connected, once each", async || {
        let mut named = Vec::new();
        for key in redis.query::<Vec<String>>(&["KEYS", "homing:online:*"]).await {
            named.extend(redis.query::<Vec<String>>(&["HKEYS", &key]).await);
        }
        named.sort();
        let expected: Vec<String> = connected.iter().map(|device| device.replace('/', " ")).collect();
        (named == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_stream_is_bounded() {
    let redis =
        Redis::start(RedisOptions { args: vec!["--stream-node-max-entries", "10"], ..RedisOptions::default() }).await;
    let node = Node::start(&redis, options().set("presence_length", "20").set("devices_max", "1000")).await;
    for number in 0..60 {
        connect(&node, "alice", &format!("d-{number}")).await.close().await;
    }
    eventually_within(Duration::from_secs(20), "all are announced", async || {
        (node.metric("homing_presence_events_total").await? >= 120.0).then_some(())
    })
    .await;
    let length: u64 = redis.query(&["XLEN", "homing:presence"]).await;
    assert!((20..=30).contains(&length), "{length}");
}

#[tokio::test]
async fn off_means_off() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, options().set("presence_length", "0")).await;
    let client = connect(&node, "alice", "web").await;
    let record = redis.device("alice", "web").await.expect("a record");
    assert_eq!(record.get("announced"), None);
    client.close().await;
    eventually("the device is offline", async || (redis.device("alice", "web").await?["owner"] == "").then_some(()))
        .await;
    let keys: Vec<String> = redis.query(&["KEYS", "homing:*"]).await;
    assert!(!keys.iter().any(|key| key.contains("online") || key.contains("presence")), "{keys:?}");
}

/// Calls of a command so far, those of functions included.
async fn calls(redis: &Redis, command: &str) -> f64 {
    let text: String = redis.query(&["INFO", "commandstats"]).await;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0.0)
}

const COMMANDS: [&str; 6] = ["xadd", "hset", "hget", "hdel", "fcall", "sadd"];

/// Calls of [`COMMANDS`] for one login and logout, with or without presence.
async fn cost(presence: bool) -> [f64; 6] {
    const LOGINS: usize = 50;
    let redis = Redis::start(RedisOptions::default()).await;
    let length = if presence { "1000" } else { "0" };
    // Nothing else may happen meanwhile: no sweeps after the first, no janitor, no trims.
    let options = options().set("presence_length", length).set("janitor_pause", "1h").set("trim_delay", "10m");
    let node = Node::start(&redis, options).await;
    let mut clients = Vec::new();
    let mut before = [0.0; 6];
    for (count, command) in before.iter_mut().zip(COMMANDS) {
        *count = calls(&redis, command).await;
    }
    for user in 0..LOGINS {
        clients.push(connect(&node, &format!("user-{user}"), "web").await);
    }
    for client in clients {
        client.close().await;
    }
    eventually("everybody is offline", async || {
        let shown = redis.device(&format!("user-{}", LOGINS - 1), "web").await?;
        (shown["owner"] == "").then_some(())
    })
    .await;
    if presence {
        eventually("all are announced and struck from the index", async || {
            let keys: Vec<String> = redis.query(&["KEYS", "homing:online:*"]).await;
            (events(&redis).await.len() == 2 * LOGINS && keys.is_empty()).then_some(())
        })
        .await;
    }
    let mut after = [0.0; 6];
    for (count, command) in after.iter_mut().zip(COMMANDS) {
        *count = calls(&redis, command).await;
    }
    std::array::from_fn(|index| (after[index] - before[index]) / LOGINS as f64)
}

// What presence costs is part of its promise: XADD and HSET for a login; a look, XADD and a share of an HDEL for a
// logout. The look reads the record and writes it back, and probes and heartbeats go on meanwhile.
#[tokio::test]
async fn presence_adds_two_commands_to_a_login_and_two_to_a_logout() {
    let (with, without) = (cost(true).await, cost(false).await);
    for ((command, with), without) in COMMANDS.iter().zip(with).zip(without) {
        println!("{command}: {:.2} more for a login and logout ({with:.2} instead of {without:.2})", with - without);
    }
    let extra: Vec<f64> = with.iter().zip(without).map(|(with, without)| with - without).collect();
    let at_most = |command: &str, bound: f64| {
        let position = COMMANDS.iter().position(|name| *name == command).expect("it is counted");
        assert!(extra[position] < bound, "{command}: {:.2}", extra[position]);
    };
    at_most("xadd", 2.5);
    at_most("hset", 2.5);
    at_most("hget", 1.5);
    at_most("hdel", 0.2);
    at_most("fcall", 1.5);
    at_most("sadd", 0.1);
}
