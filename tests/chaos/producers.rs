//! Producers: HTTP one message a request with a key and retries, HTTP batches, and raw `XADD`, to users, to topics, and to
//! everybody.
//!
//! Messages are due at fixed times, whatever became of the ones before: a producer that waits for a slow server would
//! not see how slow it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::followers::{EVERYBODY, any_room};
use super::harness::node::API_KEY;
use super::harness::redis_server::{inbox, log};
use super::history::{Event, Heard, To, Via};
use super::recorder::Recorder;
use super::settings::Settings;

/// Messages of a batch.
const BATCH: usize = 8;
/// Requests in flight; beyond them the next ones are late, which their times show.
const IN_FLIGHT: usize = 2_000;
/// Attempts at one message with a key.
const TRIES: u32 = 10;
/// A producer's patience; the longer one lets the node answer 504 itself (it waits 5 s for Redis).
const SHORT_PATIENCE: Duration = Duration::from_secs(2);
const LONG_PATIENCE: Duration = Duration::from_secs(8);
/// Pause before the second attempt; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// One of so many messages is padded to this many bytes.
const PADDED_ONE_IN: u32 = 10;
const PADDING: usize = 4096;

/// Of so many requests, those to topics and to everybody: each reaches dozens of devices, and hundreds.
const OF: u32 = 1_000;
const TO_TOPICS: u32 = 40;
const TO_EVERYBODY: u32 = 6;

/// With one of so many messages to a topic come others at once, more than some clients' window takes.
const BURSTS_ONE_IN: u32 = 5;
const BURST: usize = 8;
/// One of so many messages to users asks what becomes of it, and one of so many of these waits for that.
const ASKS_ONE_IN: u32 = 4;
const WAITS_ONE_IN: u32 = 8;
/// How long it waits.
const WAIT_S: u32 = 3;

/// What all producers share.
#[derive(Debug)]
struct Desk {
    recorder: Arc<Recorder>,
    http: reqwest::Client,
    nodes: Vec<SocketAddr>,
    redis: redis::Client,
    link: Mutex<Option<MultiplexedConnection>>,
    users: Vec<String>,
    tags: AtomicU64,
}

/// Running producers.
#[derive(Debug)]
pub(crate) struct Producers {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Producers {
    /// Publishes to `users` at the rate of the settings, by HTTP at `nodes`, and by `XADD` at `redis`.
    pub(crate) fn start(
        settings: &Settings,
        recorder: Arc<Recorder>,
        nodes: Vec<SocketAddr>,
        redis: redis::Client,
        users: Vec<String>,
    ) -> Self {
        let http = reqwest::Client::builder().no_proxy().connect_timeout(SHORT_PATIENCE);
        let http = http.build().expect("an HTTP client needs nothing");
        let desk = Desk { recorder, http, nodes, redis, link: Mutex::new(None), users, tags: AtomicU64::new(0) };
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(produce(Arc::new(desk), settings.rate, settings.seed, stopped));
        Self { stop, task }
    }

    /// Publishes nothing new, and waits until every retry has come to its end.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.expect("a producer does not panic");
    }
}

async fn produce(desk: Arc<Desk>, rate: u32, seed: u64, stopped: watch::Receiver<bool>) {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x0070_726F_6475_6365);
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut sending = JoinSet::new();
    let begin = tokio::time::Instant::now();
    let begin_us = desk.recorder.now_us();
    let mut due = Duration::ZERO;
    while !*stopped.borrow() {
        tokio::time::sleep_until(begin + due).await;
        while let Some(ended) = sending.try_join_next() {
            ended.expect("a producer does not panic");
        }
        let topic = match rng.u32(..OF) {
            ..TO_EVERYBODY => Some(EVERYBODY.to_owned()),
            number if number < TO_EVERYBODY + TO_TOPICS => Some(any_room(&mut rng)),
            _ => None,
        };
        let via = match rng.u8(..100) {
            ..45 => Via::Http,
            45..55 if topic.is_none() => Via::HttpBatch,
            _ => Via::Xadd,
        };
        let count = if via == Via::HttpBatch { BATCH } else { 1 };
        let in_burst = topic.as_deref().is_some_and(|topic| topic != EVERYBODY) && rng.u32(..BURSTS_ONE_IN) == 0;
        let errands = if in_burst { BURST } else { 1 };
        let keyed = via != Via::Xadd && rng.u8(..10) < 8;
        let sent_us = begin_us + super::recorder::micros(due);
        let letter = |_| {
            let user = || To::User(desk.users[rng.usize(..desk.users.len())].clone());
            let to = topic.clone().map_or_else(user, To::Topic);
            Letter::draw(&mut rng, &desk, to, sent_us, keyed)
        };
        let letters: Vec<Letter> = (0..count * errands).map(letter).collect();
        due += Duration::from_secs(1) * u32::try_from(letters.len()).expect("a batch is small") / rate.max(1);
        for letters in letters.chunks(count) {
            let permit = permits.clone().acquire_owned().await.expect("nobody closes the semaphore");
            let errand = Errand { desk: desk.clone(), via, letters: letters.to_vec(), rng: rng.fork() };
            sending.spawn(async move {
                errand.run().await;
                drop(permit);
            });
        }
    }
    while let Some(ended) = sending.join_next().await {
        ended.expect("a producer does not panic");
    }
}

/// A message that is to be sent.
#[derive(Clone, Debug)]
struct Letter {
    tag: String,
    to: To,
    data: Value,
    key: Option<String>,
    receipt: bool,
    waits: bool,
}

impl Letter {
    fn draw(rng: &mut fastrand::Rng, desk: &Desk, to: To, sent_us: u64, keyed: bool) -> Self {
        let tag = format!("t{}", desk.tags.fetch_add(1, Ordering::Relaxed));
        let mut data = json!({ "tag": tag, "sent_us": sent_us });
        match &to {
            To::User(user) => data["user"] = user.as_str().into(),
            To::Topic(topic) => data["topic"] = topic.as_str().into(),
        }
        if rng.u32(..PADDED_ONE_IN) == 0 {
            data["padding"] = "x".repeat(PADDING).into();
        }
        let receipt = matches!(to, To::User(_)) && rng.u32(..ASKS_ONE_IN) == 0;
        let waits = receipt && rng.u32(..WAITS_ONE_IN) == 0;
        Self { key: keyed.then(|| format!("key-{tag}")), tag, to, data, receipt, waits }
    }

    fn body(&self) -> Value {
        let mut body = json!({ "data": self.data });
        if let Some(key) = &self.key {
            body["key"] = key.as_str().into();
        }
        if self.receipt {
            body["receipt"] = true.into();
        }
        body
    }

    /// Where it goes by HTTP, one message a request.
    fn path(&self) -> String {
        match &self.to {
            To::User(user) if self.waits => format!("/v1/users/{user}/messages?wait=acked&timeout_s={WAIT_S}"),
            To::User(user) => format!("/v1/users/{user}/messages"),
            To::Topic(topic) if topic == EVERYBODY => "/v1/broadcast".to_owned(),
            To::Topic(topic) => format!("/v1/topics/{topic}/messages"),
        }
    }

    /// Where it goes by `XADD`.
    fn stream(&self) -> String {
        match &self.to {
            To::User(user) => inbox(user),
            To::Topic(topic) => log(topic),
        }
    }
}

/// How one attempt at one message ended.
#[derive(Debug)]
enum Outcome {
    /// Devices are those of which the answer says that they acked it.
    Accepted {
        id: String,
        created: bool,
        acked_by: Vec<String>,
    },
    Refused(String),
    Unknown(String),
}

/// One request, with its retries.
struct Errand {
    desk: Arc<Desk>,
    via: Via,
    letters: Vec<Letter>,
    rng: fastrand::Rng,
}

impl Errand {
    async fn run(mut self) {
        let mut pause = PAUSE;
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(pause.mul_f64(self.rng.f64())).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            for letter in &self.letters {
                let Letter { tag, to, key, receipt, .. } = letter;
                let (tag, to, key) = (tag.clone(), to.clone(), key.clone());
                self.desk.recorder.record(Event::Publish { tag, to, via: self.via, key, receipt: *receipt });
            }
            let outcomes = match self.via {
                Via::Xadd => vec![self.desk.append(&self.letters[0]).await],
                Via::Http | Via::HttpBatch => self.request().await,
            };
            for (letter, outcome) in self.letters.iter().zip(&outcomes) {
                self.desk.record(letter, outcome);
            }
            // Only what has a key may be sent again: the others could arrive twice.
            let mut outcomes = outcomes.into_iter();
            self.letters.retain(|letter| {
                let accepted = matches!(outcomes.next(), Some(Outcome::Accepted { .. }));
                letter.key.is_some() && !accepted
            });
            if self.letters.is_empty() {
                return;
            }
        }
    }

    async fn request(&mut self) -> Vec<Outcome> {
        let node = self.desk.nodes[self.rng.usize(..self.desk.nodes.len())];
        let waits = self.via == Via::Http && self.letters[0].waits;
        let patience = if waits || self.rng.bool() { LONG_PATIENCE } else { SHORT_PATIENCE };
        let (url, body) = if self.via == Via::HttpBatch {
            let message = |letter: &Letter| {
                let mut message = letter.body();
                message["user"] = letter.data["user"].clone();
                message
            };
            let messages: Vec<Value> = self.letters.iter().map(message).collect();
            (format!("http://{node}/v1/messages"), json!({ "messages": messages }))
        } else {
            let letter = &self.letters[0];
            (format!("http://{node}{}", letter.path()), letter.body())
        };
        let request = self.desk.http.post(url).bearer_auth(API_KEY).timeout(patience).json(&body);
        let answer = async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            Ok::<_, reqwest::Error>((status, response.json::<Value>().await.unwrap_or_default()))
        };
        match answer.await {
            // Nobody was there, so nothing was sent.
            Err(error) if error.is_connect() => self.all(|| Outcome::Refused("no connection".to_owned())),
            Err(error) if error.is_timeout() => self.all(|| Outcome::Unknown("time-out".to_owned())),
            Err(_) => self.all(|| Outcome::Unknown("connection lost".to_owned())),
            Ok((200, answer)) if self.via == Via::HttpBatch => {
                let results = answer["results"].as_array().cloned().unwrap_or_default();
                assert_eq!(results.len(), self.letters.len(), "a result for each message of a batch: {answer}");
                results.iter().map(|result| outcome(result["status"].as_u64().unwrap_or(0), result)).collect()
            }
            Ok((status, answer)) => self.all(|| outcome(u64::from(status), &answer)),
        }
    }

    fn all(&self, outcome: impl Fn() -> Outcome) -> Vec<Outcome> {
        self.letters.iter().map(|_| outcome()).collect()
    }
}

fn outcome(status: u64, answer: &Value) -> Outcome {
    match (status, answer["id"].as_str()) {
        (200 | 201, Some(id)) => {
            let devices = answer["devices"].as_array().map_or(&[][..], Vec::as_slice);
            let acked = devices.iter().filter(|device| device["state"] == "acked");
            let acked_by = acked.filter_map(|device| device["device"].as_str().map(str::to_owned)).collect();
            Outcome::Accepted { id: id.to_owned(), created: status == 201, acked_by }
        }
        (400..500 | 503, _) => Outcome::Refused(format!("{status} {}", answer["code"].as_str().unwrap_or_default())),
        _ => Outcome::Unknown(format!("{status} {}", answer["code"].as_str().unwrap_or_default())),
    }
}

impl Desk {
    /// Records how one attempt at a message ended.
    fn record(&self, letter: &Letter, outcome: &Outcome) {
        let tag = letter.tag.clone();
        self.recorder.record(match outcome {
            Outcome::Accepted { id, created, .. } => Event::Published { tag, id: id.clone(), created: *created },
            Outcome::Refused(why) => Event::Refused { tag, why: why.clone() },
            Outcome::Unknown(why) => Event::Unknown { tag, why: why.clone() },
        });
        let (Outcome::Accepted { id, acked_by, .. }, To::User(user)) = (outcome, &letter.to) else { return };
        for device in acked_by {
            let (user, device, id) = (user.clone(), device.clone(), id.clone());
            self.recorder.record(Event::Receipt { heard: Heard::Wait, user, device, id, event: "acked".to_owned() });
        }
    }

    /// A raw `XADD`.
    async fn append(&self, letter: &Letter) -> Outcome {
        let Some(mut link) = self.link().await else { return Outcome::Refused("no connection".to_owned()) };
        let mut command = redis::cmd("XADD");
        command.arg(letter.stream()).arg("*").arg("data").arg(letter.data.to_string());
        if letter.receipt {
            command.arg("receipt").arg("1");
        }
        match command.query_async::<String>(&mut link).await {
            Ok(id) => Outcome::Accepted { id, created: true, acked_by: Vec::new() },
            // An error reply has a code; everything else says only that no answer came.
            Err(error) => match error.code() {
                Some(code) => Outcome::Refused(code.to_owned()),
                None => {
                    *self.link.lock().await = None;
                    Outcome::Unknown(error.to_string())
                }
            },
        }
    }

    async fn link(&self) -> Option<MultiplexedConnection> {
        let mut link = self.link.lock().await;
        if link.is_none() {
            let config = redis::AsyncConnectionConfig::new()
                .set_connection_timeout(Some(SHORT_PATIENCE))
                .set_response_timeout(Some(SHORT_PATIENCE));
            *link = self.redis.get_multiplexed_async_connection_with_config(&config).await.ok();
        }
        link.clone()
    }
}
