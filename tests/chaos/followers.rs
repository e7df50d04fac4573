//! What users follow: some topics for the whole run, some now and then.
//!
//! As a customer's backend does, by HTTP. Invariant: a change is recorded before it is asked for and when it is answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::harness::node::API_KEY;
use super::history::{Event, Outcome};
use super::recorder::Recorder;

/// The broadcast topic.
pub(crate) const EVERYBODY: &str = "*";
/// Topics of a run, beside it.
const ROOMS: usize = 6;
/// One of so many users follows further topics now and then, by HTTP.
const FICKLE_ONE_IN: usize = 3;
/// And one of so many does so by frames.
const WHIMSICAL_ONE_IN: usize = 4;
/// Time between two changes of mind.
const SECONDS: std::ops::Range<f64> = 1.0..25.0;
/// A backend's patience: the node answers 504 itself (it waits 5 s for Redis).
const PATIENCE: Duration = Duration::from_secs(8);
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// Until everybody follows what they should. A fault may be going on.
const FOLLOW_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// What a user likes: a topic to follow for the whole run, then those to follow now and then by HTTP, then, from the last
/// of these on, by the clients' own frames.
fn taste(user: &str) -> usize {
    user.bytes().fold(0, |taste: usize, byte| taste.wrapping_mul(31).wrapping_add(byte.into()))
}

/// Topics that a user's own clients follow and leave.
pub(crate) fn whims(user: &str) -> Vec<String> {
    let taste = taste(user);
    if (taste / ROOMS).is_multiple_of(WHIMSICAL_ONE_IN) { vec![room(taste + 2), room(taste + 3)] } else { Vec::new() }
}

/// The name of a topic.
fn room(number: usize) -> String {
    format!("room.{}", number % ROOMS)
}

/// All topics of a run.
pub(crate) fn topics() -> Vec<String> {
    (0..ROOMS).map(room).chain([EVERYBODY.to_owned()]).collect()
}

/// Any topic.
pub(crate) fn any_room(rng: &mut fastrand::Rng) -> String {
    room(rng.usize(..ROOMS))
}

/// What users follow, and how that changes.
#[derive(Debug)]
pub(crate) struct Followers {
    desk: Arc<Desk>,
    /// Users who follow a topic for the whole run.
    faithful: BTreeMap<String, Vec<String>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Desk {
    recorder: Arc<Recorder>,
    http: reqwest::Client,
    nodes: Vec<SocketAddr>,
}

impl Followers {
    /// Each of `users` follows a topic from now on.
    pub(crate) async fn begin(recorder: Arc<Recorder>, nodes: Vec<SocketAddr>, users: &[String]) -> Self {
        let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_PATIENCE).timeout(PATIENCE);
        let http = http.build().expect("an HTTP client needs nothing");
        let mut faithful = BTreeMap::<String, Vec<String>>::new();
        for user in users {
            faithful.entry(room(taste(user))).or_default().push(user.clone());
        }
        let (stop, _) = watch::channel(false);
        let desk = Arc::new(Desk { recorder, http, nodes });
        let followers = Self { desk, faithful, stop, tasks: JoinSet::new() };
        followers.restore().await;
        followers
    }

    /// Some users follow further topics now and then, until [`Followers::stop`].
    pub(crate) fn start_changing(&mut self, users: &[String], seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x666F_6C6C_6F77);
        for user in users.iter().filter(|user| (taste(user) / ROOMS).is_multiple_of(FICKLE_ONE_IN)) {
            for topic in [room(taste(user) + 1), room(taste(user) + 2)] {
                let (desk, stopped) = (self.desk.clone(), self.stop.subscribe());
                self.tasks.spawn(change_again_and_again(desk, user.clone(), topic, rng.fork(), stopped));
            }
        }
    }

    /// Changes nothing more, once what was asked for is answered.
    pub(crate) async fn stop(&mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a backend does not panic");
        }
    }

    /// Makes everybody follow again what they follow for the whole run: Redis may have forgotten it.
    pub(crate) async fn restore(&self) {
        let mut rng = fastrand::Rng::new();
        for (topic, users) in &self.faithful {
            let mut missing: Vec<&String> = users.iter().collect();
            let end = tokio::time::Instant::now() + FOLLOW_MAX;
            while !missing.is_empty() {
                assert!(tokio::time::Instant::now() < end, "{missing:?} do not follow {topic} after {FOLLOW_MAX:?}");
                let outcomes = self.desk.add(topic, &missing, &mut rng).await;
                let mut outcomes = outcomes.into_iter();
                missing.retain(|_| outcomes.next() != Some(Outcome::Done));
                if !missing.is_empty() {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn change_again_and_again(
    desk: Arc<Desk>,
    user: String,
    topic: String,
    mut rng: fastrand::Rng,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let pause = SECONDS.start + (SECONDS.end - SECONDS.start) * rng.f64();
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs_f64(pause)) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        let follow = rng.bool();
        let request = desk.ask(&user, &topic, follow);
        let method = if follow { Method::PUT } else { Method::DELETE };
        let answer = desk.call(method, format!("/v1/topics/{topic}/followers/{user}"), None, &mut rng).await;
        let outcome = match answer {
            Ok((status, _)) => outcome(u64::from(status)),
            Err(outcome) => outcome,
        };
        desk.recorder.record(Event::Followed { request, outcome });
    }
}

impl Desk {
    /// Records that something is asked for.
    fn ask(&self, user: &str, topic: &str, follow: bool) -> u64 {
        let request = self.recorder.request();
        let (user, topic) = (user.to_owned(), topic.to_owned());
        self.recorder.record(Event::Follow { request, user, topic, follow, connection: None });
        request
    }

    /// Makes many users follow a topic in one call.
    async fn add(&self, topic: &str, users: &[&String], rng: &mut fastrand::Rng) -> Vec<Outcome> {
        let requests: Vec<u64> = users.iter().map(|user| self.ask(user, topic, true)).collect();
        let path = format!("/v1/topics/{topic}/followers");
        let outcomes = match self.call(Method::POST, path, Some(json!({ "add": users })), rng).await {
            Ok((200, answer)) => {
                let results = answer["results"].as_array().cloned().unwrap_or_default();
                assert_eq!(results.len(), users.len(), "a result for each user: {answer}");
                results.iter().map(|result| outcome(result["status"].as_u64().unwrap_or(0))).collect()
            }
            Ok((status, _)) => vec![outcome(u64::from(status)); users.len()],
            Err(outcome) => vec![outcome; users.len()],
        };
        for (request, outcome) in requests.into_iter().zip(&outcomes) {
            self.recorder.record(Event::Followed { request, outcome: *outcome });
        }
        outcomes
    }

    /// Status and body of an answer, or what the lack of one means.
    async fn call(
        &self,
        method: Method,
        path: String,
        body: Option<Value>,
        rng: &mut fastrand::Rng,
    ) -> Result<(u16, Value), Outcome> {
        let node = self.nodes[rng.usize(..self.nodes.len())];
        let mut request = self.http.request(method, format!("http://{node}{path}")).bearer_auth(API_KEY);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            Ok::<_, reqwest::Error>((status, response.json::<Value>().await.unwrap_or_default()))
        };
        answer.await.map_err(|error| if error.is_connect() { Outcome::Refused } else { Outcome::Unknown })
    }
}

fn outcome(status: u64) -> Outcome {
    match status {
        200 => Outcome::Done,
        400..500 | 503 => Outcome::Refused,
        _ => Outcome::Unknown,
    }
}
