//! `homing migrate`: brings a Redis to the schema of this version.

use std::path::PathBuf;
use std::time::Duration;

use super::exit::{Exit, Failure, OrExit as _, print};
use super::serve::migrate_failure;
use crate::config::{ClientConfig, ClientOptions, RedisUrl};
use crate::store::embedded::running_url;
use crate::store::migrate::{Library, SCHEMA, migrate as apply, status};
use crate::store::{Store, StoreConfig};

pub(super) const AFTER_HELP: &str = "\
`serve` does the same at its start, so this is for those who want to do it before, or by other
hands. A private Redis must be running (`homing serve`). Rules: migrations/README.md.

Examples:
  homing migrate --status
  homing migrate --redis redis://redis.example.org:6379/0";

/// How long Redis may take to answer.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct MigrateOptions {
    /// Only say what is applied and what is missing.
    #[arg(long, env = "HOMING_MIGRATE_STATUS")]
    status: bool,
    #[command(flatten)]
    redis: RedisOptions,
    #[command(flatten)]
    pub(super) client: ClientOptions,
}

/// Which Redis a command looks into.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RedisOptions {
    /// Which Redis [default: redis in homing.toml, else the private one in the data directory].
    #[arg(long, env = "HOMING_REDIS", value_name = "URL", hide_env_values = true)]
    redis: Option<RedisUrl>,
    /// Certificate authority (PEM) of a rediss:// server.
    #[arg(long, env = "HOMING_REDIS_CA", value_name = "FILE")]
    redis_ca: Option<PathBuf>,
    /// First part of every key in Redis [default: homing].
    #[arg(long, env = "HOMING_PREFIX", value_name = "TEXT")]
    prefix: Option<String>,
}

impl RedisOptions {
    /// Connections to it; `None` if neither options, file nor data directory name one.
    pub(super) fn store(self, config: &ClientConfig) -> Result<Option<Store>, Failure> {
        let url = config.redis(self.redis).map(|url| url.expose().to_owned());
        let Some(url) = url.or_else(|| running_url(config.data_dir())) else { return Ok(None) };
        let store = StoreConfig {
            url,
            ca_pem: config.redis_ca(self.redis_ca).or_exit(Exit::Configuration)?,
            prefix: config.prefix(self.prefix).or_exit(Exit::Configuration)?,
            reply_timeout: REPLY_TIMEOUT,
        };
        Store::new(&store).map(Some).or_exit(Exit::Configuration)
    }
}

/// Migrates, or says what is missing.
pub(super) async fn migrate(options: MigrateOptions, config: ClientConfig) -> Result<(), Failure> {
    let Some(store) = options.redis.store(&config)? else {
        return Err(Failure::new(Exit::Configuration, "which Redis? Give --redis, or run where ./homing-data is"));
    };
    if options.status {
        let status = status(&store).await.map_err(migrate_failure)?;
        let library = match status.library {
            Library::Current => "loaded",
            Library::Missing => "not loaded",
            Library::Different => "loaded by another, unreleased build",
            Library::Unknown => "not visible (FUNCTION LIST is not permitted)",
        };
        return print(format_args!("schema {} of {SCHEMA}; functions {library}", status.schema));
    }
    let migrated = apply(&store).await.map_err(migrate_failure)?;
    for what in &migrated.done {
        print(what)?;
    }
    print(format_args!("schema {}{}", migrated.to, if migrated.done.is_empty() { ", nothing to do" } else { "" }))
}
