//! The threads of a node: each serves its own sessions and requests on its own runtime, with its own connections.
//!
//! One single-threaded runtime for each shard costs a message a third less than one work-stealing runtime for all (see
//! `docs/adr/`): the session, its shard and the connection to Redis never leave their thread.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use homing_protocol::name::Name;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::exit::{Exit, Failure, OrExit as _};
use super::health::NodeHealth;
use crate::api::{self, ApiConfig, ApiState, BodyBudget, HostPolicy};
use crate::auth::{ApiKeys, TokenVerifier};
use crate::config::ServeConfig;
use crate::delivery::nodes::Nodes;
use crate::delivery::readiness::Readiness;
use crate::delivery::{Shard, ShardConfig, Stop};
use crate::publish::waits::Told;
use crate::publish::{Publisher, PublisherConfig, Waits};
use crate::store::Store;
use crate::transport::{AcceptConfig, Acceptor, Gate, HostFilter, Slots};

/// Time for the last close frames to leave after the sessions are released.
const SOCKETS_CLOSE_MAX: Duration = Duration::from_secs(3);
/// Time that the body of a request may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What all threads of a node share.
pub(super) struct Shared {
    pub(super) config: ServeConfig,
    pub(super) store: Store,
    pub(super) nodes: Nodes,
    pub(super) readiness: Arc<Readiness>,
    pub(super) health: Arc<NodeHealth>,
    pub(super) verifier: TokenVerifier,
    pub(super) keys: ApiKeys,
    /// For sessions.
    pub(super) slots: Slots,
    /// For connections of the public listener, sessions or not.
    pub(super) connections: Slots,
    /// For those of them that are HTTP.
    pub(super) requests: Slots,
    /// For the bodies of requests.
    pub(super) bodies: BodyBudget,
    pub(super) overfull: mpsc::Sender<Name>,
    /// Producers that wait for acks.
    pub(super) waits: Waits,
    pub(super) clock: Instant,
}

/// The running threads.
pub(super) struct Threads {
    ended: Vec<oneshot::Receiver<()>>,
}

impl Threads {
    /// Starts one thread for each shard, all on the same listener.
    pub(super) fn start(
        shared: &Arc<Shared>,
        listener: TcpListener,
        stop: &watch::Receiver<Stop>,
        closing: &watch::Receiver<bool>,
    ) -> Result<Self, Failure> {
        let mut ended = Vec::new();
        for number in 0..shared.config.shards.get() {
            let (over, is_over) = oneshot::channel();
            let (shared, stop, closing) = (shared.clone(), stop.clone(), closing.clone());
            let listener = listener.try_clone().or_exit(Exit::Other)?;
            let runtime = super::runtime()?;
            let thread = std::thread::Builder::new().name(format!("shard-{number}"));
            let started = thread.spawn(move || {
                if let Err(failure) = runtime.block_on(serve(number, shared, listener, stop, closing)) {
                    tracing::error!(error = %failure.error, number, "a shard could not start");
                }
                // Nobody waits any more when the grace period is over.
                let _ = over.send(());
            });
            started.or_exit(Exit::Other)?;
            ended.push(is_over);
        }
        Ok(Self { ended })
    }

    /// Resolves when every thread has ended.
    pub(super) async fn ended(self) {
        for ended in self.ended {
            // An error says that the thread is gone as well.
            let _ = ended.await;
        }
    }
}

/// One shard: its sessions, its accept loop and its part of the API, until it is drained.
async fn serve(
    number: usize,
    shared: Arc<Shared>,
    listener: TcpListener,
    stop: watch::Receiver<Stop>,
    closing: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let config = &shared.config;
    let store = shared.store.for_thread().or_exit(Exit::Other)?;
    let nodes = shared.nodes.clone();
    let (shard, handle) = Shard::with_handle(ShardConfig {
        store: store.clone(),
        node: config.node_id.to_string(),
        owner: shared.nodes.owner(number as u16),
        probe: format!("{}.{number}", config.node_id),
        limits: config.limits.clone(),
        readiness: shared.readiness.clone(),
        number,
        clock: shared.clock,
        peers: Arc::new(move || nodes.owners()),
        overfull: shared.overfull.clone(),
        receipted: Arc::new({
            let waits = shared.waits.clone();
            move |token, device, event| waits.tell(token, Told { device: device.to_owned(), event: event.to_owned() })
        }),
    });
    let gate = Arc::new(Gate {
        shard: handle,
        verifier: shared.verifier.clone(),
        slots: shared.slots.clone(),
        connections: shared.connections.clone(),
        connect_timeout: config.limits.connect_timeout,
        hosts: hosts(config).map(|policy| {
            let answers: HostFilter = Arc::new(move |host: &str| policy.allows(host));
            answers
        }),
    });
    let page = super::page::routes(config, &store);
    let acceptor = Acceptor::new(AcceptConfig {
        // The page of --dev calls the producer API of its own origin.
        router: match config.api_listen {
            Some(_) if config.dev.is_none() => api::client_router(api_state(&shared, store), page),
            _ => api::public_router(api_state(&shared, store), page),
        },
        gate: Some(gate),
        connections: shared.connections.clone(),
        requests: shared.requests.clone(),
        header_timeout: config.limits.header_timeout,
    });
    let listener = tokio::net::TcpListener::from_std(listener).or_exit(Exit::Other)?;
    // A task of its own: as a part of this one it would be polled whenever the shard is woken up. The shard stays here,
    // where the runtime looks at it after some 60 tasks: behind all tasks of clients that it has woken up, Redis would
    // wait for the next pipeline.
    let acceptor = tokio::spawn(acceptor.run(listener, closing));
    tokio::join!(shard.run(stop), whole(acceptor));
    let _ = tokio::time::timeout(SOCKETS_CLOSE_MAX, sockets_closed(&shared.slots)).await;
    Ok(())
}

/// The end of a task, whose panic is this thread's.
async fn whole(task: JoinHandle<()>) {
    if let Err(error) = task.await
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

/// Resolves when no connection is left; they have no other owner than their tasks.
async fn sockets_closed(slots: &Slots) {
    while slots.used() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn hosts(config: &ServeConfig) -> Option<HostPolicy> {
    config.dev.is_some().then(HostPolicy::loopback)
}

/// What the producer API works with, on one thread's connections.
pub(super) fn api_state(shared: &Shared, store: Store) -> ApiState {
    let limits = &shared.config.limits;
    let publisher = PublisherConfig {
        payload_bytes_max: limits.payload_bytes_max,
        inbox_length_max: limits.inbox_length_max,
        inbox_age_max: limits.inbox_age_max,
    };
    ApiState {
        publisher: Publisher::new(store.clone(), publisher, shared.overfull.clone()),
        store,
        waits: shared.waits.clone(),
        keys: shared.keys.clone(),
        bodies: shared.bodies.clone(),
        health: shared.health.clone(),
        config: ApiConfig {
            payload_bytes_max: limits.payload_bytes_max,
            topics_per_user: limits.topics_per_user,
            body_timeout: BODY_TIMEOUT,
            node_dead_after: limits.node_dead_after,
            hosts: hosts(&shared.config),
        },
    }
}
