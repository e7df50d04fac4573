//! `homing serve`: the life of a node.

use std::time::Duration;

use super::descriptors;
use super::exit::{Exit, Failure, OrExit as _};
use super::node;
use super::reload::Reload;
use super::shutdown::Shutdown;
use crate::config::{Host, LogFormat, RedisChoice, ServeConfig, ServeOptions};
use crate::store::embedded::{self, Embedded, EmbeddedConfig, EmbeddedError};
use crate::store::migrate::{MigrateError, migrate};
use crate::store::server::{self, ServerError, ServerReport};
use crate::store::{Store, StoreConfig, StoreError};
use crate::telemetry::logs;

pub(super) const AFTER_HELP: &str = "\
Examples:
  homing serve --dev
      Secrets made up, a private Redis in ./homing-data, loopback only: to try Homing out.
  HOMING_API_KEY_FILE=/run/secrets/api HOMING_JWT_SECRET_FILE=/run/secrets/jwt \\
  homing serve --listen 0.0.0.0:8080 --redis rediss://user:password@redis.example.org:6380/0
      One of several nodes on one Redis. Start as many as you like; clients may connect to any.

Without --redis, a private redis-server runs as a child process, with its append-only log in
--data-dir; it ends with the node. SIGTERM drains: /readyz turns red, then clients are told to
reconnect elsewhere. Ctrl-C drains without waiting. `homing serve --help` shows times and
limits, too; homing.example.toml shows every key.";

/// How long a Redis that is starting or away is waited for.
const REDIS_WAIT_MAX: Duration = Duration::from_secs(30);
/// Time between two tries.
const REDIS_WAIT_PAUSE: Duration = Duration::from_millis(500);

/// Runs a node to its end.
pub(super) fn serve(options: ServeOptions) -> Result<(), Failure> {
    descriptors::raise_limit();
    let reload = Reload::new(options.clone());
    let config = ServeConfig::resolve(options, &Host::current()).or_exit(Exit::Configuration)?;
    let format = match config.log_format {
        LogFormat::Json => logs::LogFormat::Json,
        LogFormat::Human => logs::LogFormat::Human,
    };
    logs::init(format, &config.log_level).or_exit(Exit::Configuration)?;
    super::runtime()?.block_on(live(config, reload))
}

/// From the first signal handler to the last process.
async fn live(config: ServeConfig, reload: Reload) -> Result<(), Failure> {
    let mut shutdown = Shutdown::on_signals()?;
    let embedded = tokio::select! {
        // Dropping it begins a stop, and the end of this process is the end of it.
        embedded = start_redis(&config) => embedded?,
        _ = shutdown.begins() => return Ok(()),
    };
    let outcome = tokio::select! {
        // Dropped only before the node runs: nothing has been promised to anybody yet.
        ready = prepare(&config, embedded.as_ref()) => Some(ready),
        _ = shutdown.begins() => None,
    };
    let outcome = match outcome {
        None => Ok(()),
        Some(Err(failure)) => Err(failure),
        Some(Ok(store)) => node::run(&config, store, reload, shutdown).await,
    };
    // Last: acks and releases of the drain must still reach it.
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    outcome
}

async fn start_redis(config: &ServeConfig) -> Result<Option<Embedded>, Failure> {
    if config.redis != RedisChoice::Embedded {
        return Ok(None);
    }
    let program = embedded::this_program();
    match Embedded::start(&EmbeddedConfig { data_dir: config.data_dir.clone(), program }).await {
        Ok(embedded) => Ok(Some(embedded)),
        Err(error @ EmbeddedError::InUse { .. }) => Err(error).or_exit(Exit::InUse),
        Err(error @ EmbeddedError::NotInstalled) => Err(error).or_exit(Exit::Configuration),
        Err(error) => Err(error).or_exit(Exit::Other),
    }
}

/// Connects, checks the server, migrates it.
async fn prepare(config: &ServeConfig, embedded: Option<&Embedded>) -> Result<Store, Failure> {
    let (url, ca_pem) = match (&config.redis, embedded) {
        (RedisChoice::External { url, ca_pem }, _) => (url.expose().to_owned(), ca_pem.clone()),
        (RedisChoice::Embedded, Some(embedded)) => (embedded.url().to_owned(), None),
        (RedisChoice::Embedded, None) => return Err(Failure::new(Exit::Other, "the private Redis is not running")),
    };
    let reply_timeout = config.limits.redis_reply_timeout;
    let store = Store::new(&StoreConfig { url, ca_pem, prefix: config.prefix.clone(), reply_timeout });
    let store = store.or_exit(Exit::Configuration)?;
    report(&check(config, &store).await?);
    let migrated = migrate(&store).await.map_err(migrate_failure)?;
    for what in migrated.done {
        tracing::info!(from = migrated.from, to = migrated.to, "migrated: {what}");
    }
    Ok(store)
}

/// Checks the server; one that is starting or away gets some time.
async fn check(config: &ServeConfig, store: &Store) -> Result<ServerReport, Failure> {
    let deadline = tokio::time::Instant::now() + REDIS_WAIT_MAX;
    let mut is_first = true;
    loop {
        match server::check(&mut store.shared().clone(), config.allow_eviction).await {
            Ok(report) => return Ok(report),
            Err(ServerError::Store(StoreError::Unavailable(reason) | StoreError::OutcomeUnknown(reason)))
                if tokio::time::Instant::now() < deadline && !is_authentication(&reason) =>
            {
                if is_first {
                    tracing::warn!(reason, wait_s = REDIS_WAIT_MAX.as_secs(), "Redis does not answer; waiting for it");
                }
                is_first = false;
                tokio::time::sleep(REDIS_WAIT_PAUSE).await;
            }
            Err(error @ ServerError::Store(_)) => return Err(error).or_exit(Exit::Unreachable),
            Err(error) => return Err(error).or_exit(Exit::UnsuitableRedis),
        }
    }
}

/// Whether Redis refused who we are: no waiting mends that.
fn is_authentication(reason: &str) -> bool {
    ["NOAUTH", "WRONGPASS", "authentication failed", "AuthenticationFailed"].iter().any(|sign| reason.contains(sign))
}

fn report(report: &ServerReport) {
    let kind = if report.is_valkey { "Valkey" } else { "Redis" };
    tracing::info!(version = report.version, durability = %report.fsync, notifications = ?report.flags, "using {kind}");
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
}

pub(super) fn migrate_failure(error: MigrateError) -> Failure {
    let exit = match error {
        MigrateError::NewerSchema { .. } => Exit::UnsuitableRedis,
        MigrateError::Locked => Exit::InUse,
        MigrateError::Store(_) => Exit::Unreachable,
    };
    Failure { exit, error: error.into() }
}
