//! The Redis functions of `migrations/`, called directly on a real server, without a node.
//!
//! These tests own the claims that stand at the heads of the Lua files. Invariant: they call the library that the
//! program loads, by the names and keys that the program uses.

mod attach;
mod cursors;
mod devices;
mod dismissal;
mod follow;
mod gap;
mod look;
mod memory_full;
mod nodes;
mod ownership;
mod publish_once;
mod receipts;
mod tend;
mod tend_topic;
mod trim;

use futures_util::StreamExt;
use homing::store::functions::LIBRARY;
use homing::store::keys::CONSUMER;
use homing::store::{Function, Key, KeySpace};
use homing_protocol::name::Name;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{FromRedisValue, RedisResult, Value};
use serde_json::json;

use crate::harness::{Redis, RedisOptions, within};

/// The user of most tests.
const USER: &str = "alice";
/// The primary epoch of most tests.
const PRIMARY: &str = "1";

/// An entry as Redis answers it: its id, and what a test does not look at.
type Entry = (String, Value);

/// A Redis with the library loaded, and one user's keys.
struct Library {
    redis: Redis,
    connection: MultiplexedConnection,
    keys: KeySpace,
    inbox: String,
    devices: String,
}

impl Library {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(args: &[&'static str]) -> Self {
        let redis = Redis::start(RedisOptions { args: args.to_vec(), ..RedisOptions::default() }).await;
        let connection = redis.connection().await;
        let keys = KeySpace::new("homing", 0);
        let user = Name::parse(USER).expect("a plain name");
        let (inbox, devices) = (keys.name(Key::Inbox(&user)), keys.name(Key::Devices(&user)));
        let mut library = Self { redis, connection, keys, inbox, devices };
        library.query::<()>(&["FUNCTION", "LOAD", LIBRARY]).await;
        library
    }

    /// Runs one command; panics if Redis refuses it.
    async fn query<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        self.try_query(words).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    async fn try_query<T: FromRedisValue>(&mut self, words: &[&str]) -> RedisResult<T> {
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut self.connection).await
    }

    async fn call<T: FromRedisValue>(&mut self, function: Function, keys: &[&str], args: &[&str]) -> T {
        self.try_call(function, keys, args).await.unwrap_or_else(|error| panic!("{function:?}: {error}"))
    }

    async fn try_call<T: FromRedisValue>(
        &mut self,
        function: Function,
        keys: &[&str],
        args: &[&str],
    ) -> RedisResult<T> {
        function.call(keys).arg(args).query_async(&mut self.connection).await
    }

    /// Calls a function whose keys are the user's inbox and devices.
    async fn call_user<T: FromRedisValue>(&mut self, function: Function, args: &[&str]) -> T {
        let (inbox, devices) = (self.inbox.clone(), self.devices.clone());
        self.call(function, &[&inbox, &devices], args).await
    }

    /// Appends entries with these ids.
    async fn add(&mut self, ids: &[&str]) {
        let inbox = self.inbox.clone();
        for id in ids {
            self.query::<String>(&["XADD", &inbox, id, "data", "x"]).await;
        }
    }

    /// Reads what is new for a device, as a session would; gives the ids.
    async fn read(&mut self, device: &str, count: usize) -> Vec<String> {
        let (inbox, count) = (self.inbox.clone(), count.to_string());
        let words = ["XREADGROUP", "GROUP", device, CONSUMER, "COUNT", &count, "STREAMS", &inbox, ">"];
        let reply: Option<Vec<(String, Vec<Entry>)>> = self.query(&words).await;
        reply.into_iter().flatten().flat_map(|(_, entries)| entries).map(|(id, _)| id).collect()
    }

    async fn ack(&mut self, device: &str, ids: &[&str]) {
        let inbox = self.inbox.clone();
        let words = [&["XACK", &inbox, device], ids].concat();
        let acked: usize = self.query(&words).await;
        assert_eq!(acked, ids.len(), "{device} had not been given all of {ids:?}");
    }

    /// Ids in the inbox.
    async fn ids(&mut self) -> Vec<String> {
        let inbox = self.inbox.clone();
        let entries: Vec<Entry> = self.query(&["XRANGE", &inbox, "-", "+"]).await;
        entries.into_iter().map(|(id, _)| id).collect()
    }

    /// Ids that a device has been given and not acknowledged.
    async fn pending(&mut self, device: &str) -> Vec<String> {
        let inbox = self.inbox.clone();
        let entries: Vec<(String, Value, Value, Value)> =
            self.query(&["XPENDING", &inbox, device, "-", "+", "9999"]).await;
        entries.into_iter().map(|(id, ..)| id).collect()
    }

    /// A device's record; panics if it is not known.
    async fn record(&self, device: &str) -> serde_json::Value {
        self.redis.device(USER, device).await.unwrap_or_else(|| panic!("{device} is not known"))
    }

    /// Changes one member of a device's record.
    async fn set_record(&mut self, device: &str, member: &str, value: serde_json::Value) {
        let mut record = self.record(device).await;
        record[member] = value;
        let devices = self.devices.clone();
        self.query::<()>(&["HSET", &devices, device, &record.to_string()]).await;
    }

    async fn incarnation(&mut self) -> u64 {
        let devices = self.devices.clone();
        self.query::<Option<u64>>(&["HGET", &devices, "#incarnation"]).await.unwrap_or(0)
    }

    /// Redis's clock in Unix milliseconds.
    async fn now_ms(&mut self) -> u64 {
        let (seconds, micros): (u64, u64) = self.query(&["TIME"]).await;
        seconds * 1_000 + micros / 1_000
    }

    /// Listens on the control channel of an owner.
    async fn listen(&mut self, owner: &str) -> Control {
        let mut pubsub = self.redis.client().get_async_pubsub().await.expect("the test's Redis can be reached");
        let channel = self.keys.control_channel(owner);
        pubsub.subscribe(&channel).await.expect("a subscription is accepted");
        Control { pubsub, channel }
    }

    async fn attach(&mut self, request: Attach<'_>) -> Attached {
        let text = request.json(&self.keys).to_string();
        let reply: Vec<Value> = self.call_user(Function::Attach, &[&text]).await;
        Attached::of(&reply)
    }

    /// Attaches and expects success.
    async fn attached(&mut self, request: Attach<'_>) -> Grant {
        match self.attach(request).await {
            Attached::Granted(grant) => grant,
            other => panic!("not attached: {other:?}"),
        }
    }

    async fn release(&mut self, device: &str, owner: &str, generation: &str, ended: bool) -> String {
        let (devices, channels) = (self.devices.clone(), self.keys.control_prefix());
        let ended = if ended { "1" } else { "0" };
        self.call(Function::Release, &[&devices], &[USER, device, &channels, owner, generation, ended]).await
    }

    async fn trim(&mut self) -> u64 {
        self.call_user(Function::Trim, &[]).await
    }
}

/// What an attach asks; the default is a plain client that connects to the device `a` through the node `n1`.
#[derive(Clone, Copy, Debug)]
struct Attach<'a> {
    device: &'a str,
    owner: &'a str,
    nonce: &'a str,
    instance: &'a str,
    seq: u64,
    from: &'a str,
    epoch: &'a str,
    primary: &'a str,
    mode: &'a str,
    generation: &'a str,
    devices_max: u32,
    replace_after_ms: u64,
    sessions_max: u32,
    issued_at_s: i64,
    presence: bool,
}

impl<'a> Attach<'a> {
    /// Every attach of a test names its own nonce.
    fn new(device: &'a str, nonce: &'a str) -> Self {
        Self {
            device,
            owner: "n1:r.0",
            nonce,
            instance: "",
            seq: 0,
            from: "",
            epoch: "",
            primary: PRIMARY,
            mode: "connect",
            generation: "0",
            devices_max: 20,
            replace_after_ms: 86_400_000,
            sessions_max: 0,
            issued_at_s: -1,
            presence: false,
        }
    }

    fn json(&self, keys: &KeySpace) -> serde_json::Value {
        json!({
            "user": USER, "device": self.device, "channels": keys.control_prefix(), "owner": self.owner,
            "node": "n1", "nonce": self.nonce, "instance": self.instance, "seq": self.seq, "from": self.from,
            "epoch": self.epoch, "primary": self.primary, "mode": self.mode, "generation": self.generation,
            "devices_max": self.devices_max, "replace_after_ms": self.replace_after_ms,
            "sessions_max": self.sessions_max, "issued_at_s": self.issued_at_s, "presence": self.presence,
        })
    }
}

/// The reply of an attach.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Attached {
    Granted(Grant),
    Stale(String),
    Superseded(String),
    Removed,
    TooMany,
    Refused,
    /// Kind and reason.
    Dismissed(String, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    generation: String,
    created: bool,
    incarnation: u64,
    pending: i64,
    last: String,
    start: String,
    /// `null` when none is open.
    gap: serde_json::Value,
    length: u64,
    refuse_before_s: u64,
    /// Generation with which the device came online; 0 without presence.
    period: String,
    announcer: String,
}

impl Attached {
    fn of(reply: &[Value]) -> Self {
        let text = |position: usize| -> String {
            FromRedisValue::from_redis_value_ref(&reply[position]).expect("every part of the reply is a text or number")
        };
        let number = |position: usize| text(position).parse::<i64>().expect("a number");
        match text(0).as_str() {
            "ok" => Self::Granted(Grant {
                generation: text(1),
                created: number(2) == 1,
                incarnation: text(3).parse().expect("an incarnation is a number"),
                pending: number(4),
                last: text(5),
                start: text(6),
                gap: serde_json::from_str(&text(7)).unwrap_or_default(),
                length: text(8).parse().expect("a length is a number"),
                refuse_before_s: text(11).parse().expect("seconds are a number"),
                period: text(12),
                announcer: text(13),
            }),
            "stale" => Self::Stale(text(1)),
            "superseded" => Self::Superseded(text(1)),
            "removed" => Self::Removed,
            "too_many" => Self::TooMany,
            "refused" => Self::Refused,
            "dismissed" => Self::Dismissed(text(2), text(3)),
            other => panic!("unknown reply {other}"),
        }
    }
}

/// A subscription to one owner's control channel.
struct Control {
    pubsub: PubSub,
    channel: String,
}

impl Control {
    async fn next(&mut self) -> serde_json::Value {
        let message = within("a control message", self.pubsub.on_message().next()).await;
        let payload: String = message.expect("the subscription lives").get_payload().expect("a text");
        serde_json::from_str(&payload).expect("control messages are JSON")
    }

    /// Proves that nothing more was published to this owner: a marker arrives next.
    async fn nothing_more(&mut self, library: &mut Library) {
        library.query::<u64>(&["PUBLISH", &self.channel, r#""marker""#]).await;
        assert_eq!(self.next().await, json!("marker"));
    }
}
