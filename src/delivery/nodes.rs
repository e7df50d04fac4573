//! Which nodes live: this node's heartbeats, and what it may conclude about the others.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::Value;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::config::Limits;
use crate::store::{Function, Key, Store, StoreError};
use crate::telemetry::names;

/// Time without heartbeat after which a node is forgotten. Until then a paused node still gets control messages.
const FORGET_AFTER: Duration = Duration::from_secs(60 * 60);

/// The nodes of this Redis, as seen by this one. Cloning is cheap.
#[derive(Clone)]
pub struct Nodes {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    me: String,
    about: About,
    heartbeat: Duration,
    dead_after: Duration,
    view: RwLock<View>,
}

/// What a node says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    node: String,
    shards: u16,
    version: String,
}

/// What the last heartbeats said.
#[derive(Default)]
struct View {
    /// Every node that is not forgotten: its name with the random part, and its shards.
    known: Vec<(String, u16)>,
    /// Those with a heartbeat within [`Limits::node_dead_after`].
    alive: HashSet<String>,
    /// The last heartbeat that Redis took.
    last_success: Option<Instant>,
    /// Since when all heartbeats succeeded, without a pause.
    steady_since: Option<Instant>,
    /// Grows whenever other nodes are alive than before, or nobody may be judged for a while.
    changes: u64,
}

/// When it was known who lives: one is like another only as long as the same nodes were alive, without an interruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement(u64);

impl Nodes {
    /// This node among others. `node` is its name for people; a random part makes it unique per start.
    #[must_use]
    pub fn new(store: Store, node: &str, shards: u16, limits: &Limits) -> Self {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let about = About { node: node.to_owned(), shards, version: env!("CARGO_PKG_VERSION").to_owned() };
        Self {
            inner: Arc::new(Inner {
                store,
                me: format!("{node}:{random}"),
                about,
                heartbeat: limits.node_heartbeat,
                dead_after: limits.node_dead_after,
                view: RwLock::default(),
            }),
        }
    }

    /// This node as it stands in `homing:nodes`: `<node>:<random per start>`.
    #[must_use]
    pub fn me(&self) -> &str {
        &self.inner.me
    }

    /// What a shard of this node writes into the devices that it owns; names its control channel.
    #[must_use]
    pub fn owner(&self, shard: u16) -> String {
        owner(&self.inner.me, shard)
    }

    /// The nodes that live, this one included; `None` while nobody may be judged dead.
    ///
    /// That is: until this node has itself heartbeated for [`Limits::node_dead_after`] without a failure or a pause.
    /// While Redis refuses writes nobody's heartbeat counts, and after that the others need time to catch up.
    #[must_use]
    pub fn alive(&self) -> Option<HashSet<String>> {
        let now = Instant::now();
        let view = self.inner.view.read().unwrap_or_else(PoisonError::into_inner);
        let fresh = now.duration_since(view.last_success?) < self.inner.dead_after;
        let steady = now.duration_since(view.steady_since?) >= self.inner.dead_after;
        (fresh && steady).then(|| view.alive.clone())
    }

    /// What [`Self::alive`] rests on; `None` while nobody may be judged dead.
    #[must_use]
    pub fn judgement(&self) -> Option<Judgement> {
        self.alive()?;
        Some(Judgement(self.inner.view.read().unwrap_or_else(PoisonError::into_inner).changes))
    }

    /// Every shard of every node that may still listen, for control messages to all.
    #[must_use]
    pub fn owners(&self) -> Vec<String> {
        let view = self.inner.view.read().unwrap_or_else(PoisonError::into_inner);
        view.known.iter().flat_map(|(node, shards)| (0..*shards).map(|shard| owner(node, shard))).collect()
    }

    /// Heartbeats until `stop` is true or its sender is gone, then strikes this node from the list.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            // A heartbeat that is dropped while it is under way may still be executed, but before the farewell, which
            // goes over the same connection.
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.beat_forever() => {}
        }
        if let Err(error) = self.leave().await {
            tracing::debug!(%error, "could not leave the list of nodes; the others find out by the missing heartbeat");
        }
    }

    async fn beat_forever(&self) {
        let mut ticks = interval(self.inner.heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            match self.beat().await {
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!("heartbeats of this node succeed again");
                }
                Ok(()) => {}
                Err(error) => {
                    metrics::counter!(names::REDIS_ERRORS, "kind" => error.kind()).increment(1);
                    if !failing {
                        tracing::warn!(%error, "heartbeats of this node fail; no node is judged dead meanwhile");
                    }
                    failing = true;
                }
            }
        }
    }

    /// One heartbeat.
    ///
    /// # Errors
    /// Any [`StoreError`]; from then on [`Self::alive`] is `None` for a while.
    pub async fn beat(&self) -> Result<(), StoreError> {
        let outcome = self.ask().await;
        let mut view = self.inner.view.write().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Err(error) => {
                view.steady_since = None;
                view.changes += 1;
                Err(error)
            }
            Ok(reply) => {
                self.learn(&mut view, reply);
                metrics::gauge!(names::NODES_ALIVE).set(view.alive.len() as f64);
                Ok(())
            }
        }
    }

    async fn ask(&self) -> Result<Heartbeat, StoreError> {
        let Inner { store, me, about, .. } = &*self.inner;
        let about = serde_json::to_string(about).map_err(|error| StoreError::Unexpected(error.to_string()))?;
        let mut command = Function::Heartbeat.call(&[&store.keys().name(Key::Nodes)]);
        command.arg(me).arg(about).arg(millis(FORGET_AFTER));
        let reply: Vec<Value> = store.call(&command).await?;
        Heartbeat::parse(reply).ok_or_else(|| StoreError::Unexpected("a heartbeat's reply of another form".to_owned()))
    }

    fn learn(&self, view: &mut View, reply: Heartbeat) {
        let now = Instant::now();
        // By Redis's clock: a node that was stopped for a while does not notice by its own.
        let paused = reply.pause.is_none_or(|pause| pause >= self.inner.dead_after);
        if paused || view.steady_since.is_none() {
            view.steady_since = Some(now);
            view.changes += 1;
        }
        view.last_success = Some(now);
        let dead_after = self.inner.dead_after;
        let alive = reply.nodes.iter().filter(|seen| seen.age < dead_after).map(|seen| seen.name.clone()).collect();
        if alive != view.alive {
            view.alive = alive;
            view.changes += 1;
        }
        view.known = reply.nodes.into_iter().map(|seen| (seen.name, seen.shards)).collect();
    }

    async fn leave(&self) -> Result<(), StoreError> {
        let mut command = redis::cmd("HDEL");
        command.arg(self.inner.store.keys().name(Key::Nodes)).arg(&self.inner.me);
        self.inner.store.query::<i64>(&command).await.map(|_| ())
    }
}

fn owner(node: &str, shard: u16) -> String {
    format!("{node}.{shard}")
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The reply to a heartbeat; its form stands in `17_nodes.lua`.
pub(crate) struct Heartbeat {
    /// Time since this node's previous heartbeat; `None` for its first.
    pause: Option<Duration>,
    nodes: Vec<Seen>,
}

struct Seen {
    name: String,
    age: Duration,
    shards: u16,
}

impl Heartbeat {
    pub(crate) fn parse(reply: Vec<Value>) -> Option<Self> {
        let (head, nodes) = reply.split_at_checked(2)?;
        let Value::Int(pause) = head[1] else { return None };
        Some(Self {
            pause: u64::try_from(pause).ok().map(Duration::from_millis),
            // A field that another program wrote is left out.
            nodes: nodes.chunks_exact(3).filter_map(Seen::parse).collect(),
        })
    }
}

impl Seen {
    fn parse(triple: &[Value]) -> Option<Self> {
        let [Value::BulkString(name), Value::Int(age), Value::BulkString(about)] = triple else { return None };
        let about: About = serde_json::from_slice(about).ok()?;
        Some(Self {
            name: String::from_utf8(name.clone()).ok()?,
            // Negative when Redis's clock was set back: as good as now.
            age: Duration::from_millis(u64::try_from(*age).unwrap_or_default()),
            shards: about.shards,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::test_server::TestServer;

    fn limits() -> Limits {
        Limits {
            node_heartbeat: Duration::from_millis(20),
            node_dead_after: Duration::from_millis(300),
            ..Limits::default()
        }
    }

    /// Waits for a condition that heartbeats bring about.
    async fn eventually(what: &str, condition: impl Fn() -> bool) {
        let give_up = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < give_up, "never: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_node_hears_of_every_shard_of_every_node() {
        let server = TestServer::start(&[]);
        let store = server.store().await;
        let one = Nodes::new(store.clone(), "one", 2, &limits());
        let two = Nodes::new(store, "two", 1, &limits());
        one.beat().await.unwrap();
        two.beat().await.unwrap();
        let mut owners = two.owners();
        owners.sort();
        assert_eq!(owners, [one.owner(0), one.owner(1), two.owner(0)]);
        assert!(one.me().starts_with("one:") && one.owner(1) == format!("{}.1", one.me()));
    }

    #[tokio::test]
    async fn nobody_is_judged_before_a_node_has_heartbeated_long_enough_itself() {
        let server = TestServer::start(&[]);
        let store = server.store().await;
        let dead = Nodes::new(store.clone(), "dead", 1, &limits());
        dead.beat().await.unwrap();
        let node = Nodes::new(store, "node", 1, &limits());
        node.beat().await.unwrap();
        assert_eq!(node.alive(), None, "one heartbeat is not enough");

        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn({
            let node = node.clone();
            async move { node.run(stopped).await }
        });
        // The dead one's age is that of the last heartbeat's answer, so its death may show one heartbeat later.
        eventually("judging", || {
            node.alive().is_some_and(|alive| alive.contains(node.me()) && !alive.contains(dead.me()))
        })
        .await;
        stop.send(true).unwrap();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn nobody_is_judged_while_redis_refuses_writes_nor_right_after() {
        let server = TestServer::start(&[]);
        let store = server.store().await;
        let node = Nodes::new(store.clone(), "node", 1, &limits());
        let (_stop, stopped) = watch::channel(false);
        let _running = tokio::spawn({
            let node = node.clone();
            async move { node.run(stopped).await }
        });
        eventually("judging", || node.alive().is_some()).await;

        let set = |value: &str| redis::cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(value).to_owned();
        let _: () = store.query(&set("1")).await.unwrap();
        assert!(node.beat().await.is_err());
        assert_eq!(node.alive(), None, "no judging while writes are refused");
        let _: () = store.query(&set("0")).await.unwrap();
        node.beat().await.unwrap();
        assert_eq!(node.alive(), None, "the other nodes need time to heartbeat again");
        eventually("judging again", || node.alive().is_some()).await;
    }

    #[tokio::test]
    async fn a_node_that_was_paused_judges_nobody_at_first() {
        let server = TestServer::start(&[]);
        let store = server.store().await;
        let limits = Limits { node_dead_after: Duration::from_millis(100), ..limits() };
        let node = Nodes::new(store, "node", 1, &limits);
        node.beat().await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(node.alive(), None, "its own list is old");
        node.beat().await.unwrap();
        assert_eq!(node.alive(), None, "its list is fresh, but the others may have been paused with it");
    }

    #[tokio::test]
    async fn a_node_that_stops_leaves_the_list() {
        let server = TestServer::start(&[]);
        let store = server.store().await;
        let node = Nodes::new(store.clone(), "node", 1, &limits());
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn({
            let node = node.clone();
            async move { node.run(stopped).await }
        });
        eventually("a heartbeat", || !node.owners().is_empty()).await;
        stop.send(true).unwrap();
        running.await.unwrap();
        let mut command = redis::cmd("HLEN");
        command.arg(store.keys().name(Key::Nodes));
        assert_eq!(store.query::<i64>(&command).await.unwrap(), 0);
    }
}
