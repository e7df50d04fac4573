//! The part of `homing serve` between start-up and the end: the listeners, the shards, the drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::info;

use super::exit::{Exit, Failure, OrExit as _};
use super::greeting::greeting;
use super::health::NodeHealth;
use super::reload::Reload;
use super::shutdown::{Shutdown, Stage};
use super::threads::{self, Shared, Threads};
use crate::api::{self, AdminState, BodyBudget, Health as _};
use crate::auth::{ApiKeys, TokenVerifier};
use crate::config::ServeConfig;
use crate::delivery::Stop;
use crate::delivery::janitor::{Janitor, OVERFULL_USERS_MAX};
use crate::delivery::nodes::Nodes;
use crate::delivery::presence::orphans::Orphans;
use crate::delivery::readiness::Readiness;
use crate::publish::Waits;
use crate::store::Store;
use crate::telemetry::{Recorder, names};
use crate::transport::{AcceptConfig, Acceptor, Slots, listen};

/// Connections that are no session, for each listener: requests of producers, probes, handshakes.
const SIDE_CONNECTIONS_MAX: usize = 1_024;
/// What is left of the grace period for the release of ownership and the last replies.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Runs the node until `shutdown` begins, then drains it.
pub(super) async fn run(
    config: &ServeConfig,
    store: Store,
    reload: Reload,
    mut shutdown: Shutdown,
) -> Result<(), Failure> {
    // Before any handle of a metric is made.
    let recorder = Recorder::install();
    let public = listen(config.listen).or_exit(Exit::InUse)?;
    let admin = listen(config.admin_listen).or_exit(Exit::InUse)?;
    let producers = config.api_listen.map(listen).transpose().or_exit(Exit::InUse)?;
    let address = public.local_addr().or_exit(Exit::Other)?;

    let clock = Instant::now();
    let shards = config.shards.get();
    let nodes = Nodes::new(store.clone(), config.node_id.as_str(), shards as u16, &config.limits);
    let readiness = Arc::new(Readiness::new(shards, 0));
    let (overfull, overfull_users) = mpsc::channel(OVERFULL_USERS_MAX);
    let (stop, stopping) = watch::channel(Stop::No);
    let (close, closing) = watch::channel(false);
    let (end, ending) = watch::channel(false);
    let owners = (0..shards as u16).map(|shard| nodes.owner(shard)).collect();
    let shared = Arc::new(Shared {
        config: config.clone(),
        store: store.clone(),
        nodes: nodes.clone(),
        readiness: readiness.clone(),
        health: Arc::new(NodeHealth::new(readiness.clone(), clock, shards)),
        verifier: TokenVerifier::new(config.jwt.clone()).with_devices_max(config.limits.devices_max),
        keys: ApiKeys::new(config.api_keys.clone()),
        slots: Slots::new(config.sessions_max),
        connections: Slots::new(config.sessions_max + SIDE_CONNECTIONS_MAX),
        requests: Slots::new(SIDE_CONNECTIONS_MAX),
        bodies: BodyBudget::new(config.limits.bodies_bytes_max),
        overfull,
        waits: Waits::new(owners, config.limits.inbox_age_max),
        clock,
    });
    let mut side: Vec<JoinHandle<()>> = vec![tokio::spawn(reload.run(shared.keys.clone())?)];
    metrics::gauge!(names::SESSIONS_MAX).set(config.sessions_max as f64);

    let threads = Threads::start(&shared, public, &stopping, &closing)?;
    let admin_state = AdminState {
        health: shared.health.clone(),
        render_metrics: Arc::new({
            let health = shared.health.clone();
            move || {
                // Also when nobody asks for /readyz.
                health.ready();
                recorder.render()
            }
        }),
    };
    side.push(accept(admin, api::admin_router(admin_state), config, &ending)?);
    if let Some(producers) = producers {
        let router = api::producer_router(threads::api_state(&shared, store.clone()));
        side.push(accept(producers, router, config, &closing)?);
    }
    let heartbeats = tokio::spawn({
        let (nodes, ending) = (nodes.clone(), ending.clone());
        async move { nodes.run(ending).await }
    });
    if let Some(orphans) = Orphans::new(store.clone(), nodes.clone(), &config.limits) {
        side.push(tokio::spawn(orphans.run(closing.clone())));
    }
    let janitor = Janitor::new(store.clone(), nodes, &config.limits, overfull_users);
    side.push(tokio::spawn(janitor.run(closing)));

    announce(config, address, &store)?;
    let stage = shutdown.begins().await;
    let (pause, spread) = match stage {
        Stage::DrainFast => (Duration::ZERO, Duration::ZERO),
        _ => (config.limits.drain_pause, config.limits.drain_spread),
    };
    info!(?stage, pause_s = pause.as_secs(), spread_s = spread.as_secs(), "draining");
    // Balancers notice first, then nobody new comes in, then those who are here are told to go.
    readiness.drain();
    tokio::time::sleep(pause).await;
    shared.waits.close();
    close.send_replace(true);
    stop.send_replace(Stop::Drain { spread });
    let left = config.limits.drain_grace.saturating_sub(pause).saturating_sub(LAST_MOMENT).max(spread + LAST_MOMENT);
    if tokio::time::timeout(left, threads.ended()).await.is_err() {
        tracing::warn!("the grace period is over: ending with sessions open; their messages are replayed elsewhere");
    }
    // Last: until here this node's sessions were alive.
    end.send_replace(true);
    let _ = tokio::time::timeout(LAST_MOMENT, heartbeats).await;
    side.iter().for_each(JoinHandle::abort);
    info!("ended");
    Ok(())
}

fn announce(config: &ServeConfig, address: SocketAddr, store: &Store) -> Result<(), Failure> {
    info!(%address, admin = %config.admin_listen, node = %config.node_id, shards = config.shards, "serving");
    match config.dev {
        Some(_) => super::exit::print(greeting(config, address, store.client())),
        None => Ok(()),
    }
}

/// Serves a side listener on the main thread.
fn accept(
    listener: std::net::TcpListener,
    router: axum::Router,
    config: &ServeConfig,
    stopping: &watch::Receiver<bool>,
) -> Result<JoinHandle<()>, Failure> {
    let listener = tokio::net::TcpListener::from_std(listener).or_exit(Exit::Other)?;
    let acceptor = Acceptor::new(AcceptConfig {
        router,
        gate: None,
        connections: Slots::new(SIDE_CONNECTIONS_MAX),
        requests: Slots::new(SIDE_CONNECTIONS_MAX),
        header_timeout: config.limits.header_timeout,
    });
    Ok(tokio::spawn(acceptor.run(listener, stopping.clone())))
}
