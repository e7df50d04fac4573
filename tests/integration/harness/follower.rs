//! A device's owner who never gives up: connects, reads, acks, and connects somewhere else when the connection ends.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::client::{Client, ConnectOptions};
use super::redis_server::Redis;
use super::wait::eventually_within;

/// A node that was stopped still accepts connections: the kernel does it.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// Time between two looks at whether something else is to be done.
const POLL: Duration = Duration::from_millis(200);
/// Silence after which the follower asks whether the node is still there, and after which it leaves.
const ASK_AFTER: Duration = Duration::from_secs(2);
const LEAVE_AFTER: Duration = Duration::from_secs(5);
/// Pause after a connection that failed.
const BACKOFF: Duration = Duration::from_millis(100);

/// What a follower has seen so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Id and payload text of each message, in the order of first sight.
    pub(crate) first: Vec<(String, String)>,
    /// First sights whose `attempt` was 1, as positions in `first`.
    pub(crate) fresh: Vec<usize>,
    /// Deliveries, repeated ones included.
    pub(crate) deliveries: u64,
    pub(crate) connections: u64,
    /// `reason` of every `gap` frame.
    pub(crate) gaps: Vec<String>,
    /// Ids that came again with another payload. Must stay empty.
    pub(crate) changed: Vec<String>,
}

impl Seen {
    pub(crate) fn ids(&self) -> Vec<&str> {
        self.first.iter().map(|(id, _)| id.as_str()).collect()
    }

    /// Checks the promise for one device: each accepted message arrived, nothing else did, and those that came with
    /// `attempt` 1 came in stream order.
    pub(crate) fn assert_complete(&self, published: &[String]) {
        let seen: HashSet<&str> = self.ids().into_iter().collect();
        let missing: Vec<&String> = published.iter().filter(|id| !seen.contains(id.as_str())).collect();
        assert!(missing.is_empty(), "{} of {} are missing: {missing:?}", missing.len(), published.len());
        let known: HashSet<&str> = published.iter().map(String::as_str).collect();
        let unknown: Vec<&&str> = seen.iter().filter(|id| !known.contains(**id)).collect();
        assert!(unknown.is_empty(), "never published: {unknown:?}");
        self.assert_in_order();
    }

    pub(crate) fn assert_in_order(&self) {
        assert!(self.changed.is_empty(), "came again with another payload: {:?}", self.changed);
        let fresh: Vec<_> = self.fresh.iter().map(|position| self.first[*position].0.as_str()).collect();
        for pair in fresh.windows(2) {
            assert!(stream_order(pair[0]) < stream_order(pair[1]), "{} was delivered before {}", pair[0], pair[1]);
        }
    }
}

/// A stream id as a pair of numbers.
pub(crate) fn stream_order(id: &str) -> (u64, u64) {
    let (ms, seq) = id.split_once('-').unwrap_or_else(|| panic!("not a stream id: {id}"));
    (ms.parse().expect("a number"), seq.parse().expect("a number"))
}

/// What a follower is told to do.
#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    /// Counts up: leave without a word and connect to the next node.
    moves: u64,
    stop: bool,
}

/// A task that follows one device over some nodes.
#[derive(Debug)]
pub(crate) struct Follower {
    seen: Arc<Mutex<Seen>>,
    orders: watch::Sender<Orders>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Starts at the first of `nodes`; after a connection ends it goes on to the next.
    pub(crate) fn start(nodes: &[SocketAddr], user: &str, device: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (orders, follow_orders) = watch::channel(Orders::default());
        let task =
            tokio::spawn(follow(nodes.to_vec(), user.to_owned(), device.to_owned(), seen.clone(), follow_orders));
        Self { seen, orders, task }
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many different messages it has seen.
    pub(crate) fn count(&self) -> usize {
        self.seen().first.len()
    }

    /// Makes it drop its connection and connect to the next node.
    pub(crate) fn move_on(&self) {
        self.orders.send_modify(|orders| orders.moves += 1);
    }

    /// Waits until it is connected.
    pub(crate) async fn connected(&self) {
        super::wait::eventually("a follower is connected", async || (self.seen().connections > 0).then_some(())).await;
    }

    /// Waits until it has seen `count` different messages.
    pub(crate) async fn wait_count(&self, count: usize, deadline: Duration) {
        let what = format!("a follower sees {count} messages");
        eventually_within(deadline, &what, async || {
            assert!(!self.task.is_finished(), "the follower failed");
            (self.count() >= count).then_some(())
        })
        .await;
    }

    /// Waits until everything that was published is seen and acknowledged in Redis, then ends and tells.
    pub(crate) async fn finish(self, redis: &Redis, user: &str, device: &str, count: usize) -> Seen {
        let deadline = Duration::from_secs(90);
        self.wait_count(count, deadline).await;
        let what = format!("everything is acknowledged for {user}/{device}");
        eventually_within(deadline, &what, async || (redis.pending(user, device).await == 0).then_some(())).await;
        self.stop().await
    }

    /// Ends it and tells what it saw.
    pub(crate) async fn stop(self) -> Seen {
        self.orders.send_modify(|orders| orders.stop = true);
        self.task.await.expect("a follower does not panic");
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn follow(
    nodes: Vec<SocketAddr>,
    user: String,
    device: String,
    seen: Arc<Mutex<Seen>>,
    orders: watch::Receiver<Orders>,
) {
    let mut payloads: HashMap<String, String> = HashMap::new();
    // As an SDK would: a connection attempt that got stuck on a stopped node must not win later.
    let instance = format!("{user}-{device}");
    for attempt in 0.. {
        if orders.borrow().stop {
            return;
        }
        let moves = orders.borrow().moves;
        let options =
            ConnectOptions { instance: Some((instance.clone(), attempt)), confirm: true, ..ConnectOptions::default() };
        let node = nodes[usize::try_from(attempt).expect("few attempts") % nodes.len()];
        let connect = Client::try_connect(node, &user, &device, options);
        let Ok(Ok(mut client)) = tokio::time::timeout(CONNECT_PATIENCE, connect).await else {
            tokio::time::sleep(BACKOFF).await;
            continue;
        };
        lock(&seen).connections += 1;
        let mut asked = false;
        while client.closed().is_none() && orders.borrow().moves == moves && client.silence() < LEAVE_AFTER {
            if orders.borrow().stop {
                return client.close().await;
            }
            let mut ids = Vec::new();
            if let Some(message) = client.poll_message(POLL).await {
                ids.push(note(message, &mut payloads, &seen));
                while client.waiting() > 0 {
                    ids.push(note(client.next_message().await, &mut payloads, &seen));
                }
            }
            while let Some(gap) = client.take_frame("gap") {
                lock(&seen).gaps.push(gap["reason"].as_str().unwrap_or_default().to_owned());
                ids.push(gap["id"].as_str().expect("gap.id is a text").to_owned());
            }
            while client.take_frame("acked").is_some() {}
            if !ids.is_empty() {
                client.ack(&ids).await;
            }
            let silent = client.silence() > ASK_AFTER;
            if silent && !asked {
                client.send(serde_json::json!({ "type": "ping" })).await;
            }
            asked = silent;
        }
        client.reset();
    }
}

/// Notes a delivery; gives the id to ack.
fn note(message: super::client::Message, payloads: &mut HashMap<String, String>, seen: &Mutex<Seen>) -> String {
    let mut seen = lock(seen);
    seen.deliveries += 1;
    let payload = message.data.get().to_owned();
    match payloads.get(&message.id) {
        Some(before) if *before != payload => seen.changed.push(message.id.clone()),
        Some(_) => {}
        None => {
            if message.attempt == 1 {
                let position = seen.first.len();
                seen.fresh.push(position);
            }
            seen.first.push((message.id.clone(), payload.clone()));
            payloads.insert(message.id.clone(), payload);
        }
    }
    message.id
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
