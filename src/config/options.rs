//! What an operator may set for `homing serve`: flags, environment variables, and keys of `homing.toml`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::BoolishValueParser;
use serde::{Deserialize, Deserializer, de};

use super::limit_options::LimitOptions;
use super::redis_url::RedisUrl;
use super::secret::{ApiKeyEntry, JwtSecretEntry};

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Lines for people.
    Human,
}

/// How tokens are signed. Fixed here, never taken from a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    #[value(name = "HS256")]
    #[serde(rename = "HS256")]
    Hs256,
}

/// The options of `homing serve`, as far as they are set. Fields are the keys of `homing.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeOptions {
    /// Configuration file [default: homing.toml, if there is one].
    #[arg(long, env = "HOMING_CONFIG", value_name = "FILE", hide_env_values = true)]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Make and print secrets, listen on loopback only: to try Homing out.
    #[arg(long, env = "HOMING_DEV", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_env_values = true)]
    pub dev: Option<bool>,

    /// Where clients and producers connect [default: 127.0.0.1:8080].
    #[arg(long, env = "HOMING_LISTEN", value_name = "ADDRESS:PORT", hide_env_values = true)]
    pub listen: Option<SocketAddr>,

    /// Metrics and health, for operators only [default: 127.0.0.1:9090].
    #[arg(long, env = "HOMING_ADMIN_LISTEN", value_name = "ADDRESS:PORT", hide_env_values = true)]
    pub admin_listen: Option<SocketAddr>,

    /// Move the producers' calls from --listen to a listener of their own.
    #[arg(long, env = "HOMING_API_LISTEN", value_name = "ADDRESS:PORT", hide_env_values = true)]
    pub api_listen: Option<SocketAddr>,

    /// Use this Redis (7.0 or newer) or Valkey instead of a private one in --data-dir.
    #[arg(long, env = "HOMING_REDIS", value_name = "URL", hide_env_values = true)]
    #[serde(deserialize_with = "text")]
    pub redis: Option<RedisUrl>,

    /// Certificate authority (PEM) of a rediss:// server [default: the public ones].
    #[arg(long, env = "HOMING_REDIS_CA", value_name = "FILE", hide_env_values = true)]
    pub redis_ca: Option<PathBuf>,

    /// Folder of the private Redis and the dev secrets [default: ./homing-data].
    #[arg(long, env = "HOMING_DATA_DIR", value_name = "FOLDER", hide_env_values = true)]
    pub data_dir: Option<PathBuf>,

    /// This node's name; no two nodes of one Redis share it [default: host name and random digits].
    #[arg(long, env = "HOMING_NODE_ID", value_name = "NAME", hide_env_values = true)]
    pub node_id: Option<String>,

    /// First part of every key in Redis [default: homing].
    #[arg(long, env = "HOMING_PREFIX", value_name = "TEXT", hide_env_values = true)]
    pub prefix: Option<String>,

    /// Threads that serve sessions [default: half of the cores; Redis needs the others].
    #[arg(long, env = "HOMING_SHARDS", value_name = "N", hide_env_values = true)]
    pub shards: Option<NonZeroUsize>,

    /// Sessions of this node [default: what the limit on open files (ulimit -n) allows].
    #[arg(long, env = "HOMING_SESSIONS_MAX", value_name = "N", hide_env_values = true)]
    pub sessions_max: Option<NonZeroUsize>,

    /// Tokens must name this audience (claim `aud`) [default: not checked].
    #[arg(long, env = "HOMING_JWT_AUDIENCE", value_name = "TEXT", hide_env_values = true)]
    pub jwt_audience: Option<String>,

    /// How tokens are signed [default: HS256].
    #[arg(long, env = "HOMING_JWT_ALGORITHM", hide_env_values = true)]
    pub jwt_algorithm: Option<JwtAlgorithm>,

    /// Start although Redis may evict keys when its memory is full, and messages with them.
    #[arg(long, env = "HOMING_ALLOW_EVICTION", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          hide_env_values = true)]
    pub allow_eviction: Option<bool>,

    /// How logs are written [default: json; human with --dev].
    #[arg(long, env = "HOMING_LOG_FORMAT", hide_env_values = true)]
    pub log_format: Option<LogFormat>,

    /// What is logged: error, warn, info, debug, trace, or a list as in `info,homing::delivery=debug` [default: info].
    #[arg(long, env = "HOMING_LOG_LEVEL", value_name = "LEVEL", hide_env_values = true)]
    pub log_level: Option<String>,

    /// `[limits]` in the file.
    #[command(flatten)]
    pub limits: LimitOptions,

    /// `[[api_keys]]`: only in the file.
    #[arg(skip)]
    pub api_keys: Vec<ApiKeyEntry>,

    /// `[[jwt_secrets]]`: only in the file.
    #[arg(skip)]
    pub jwt_secrets: Vec<JwtSecretEntry>,

    /// `[client]`: only in the file.
    #[arg(skip)]
    pub client: ClientTable,
}

/// `[client]` of the file: what the client commands use unless a flag or variable says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientTable {
    /// Where the server listens.
    pub url: Option<String>,
}

impl ServeOptions {
    /// What is set here, else what is set in the file.
    #[must_use]
    pub fn or(self, file: Self) -> Self {
        Self {
            config: self.config,
            dev: self.dev.or(file.dev),
            listen: self.listen.or(file.listen),
            admin_listen: self.admin_listen.or(file.admin_listen),
            api_listen: self.api_listen.or(file.api_listen),
            redis: self.redis.or(file.redis),
            redis_ca: self.redis_ca.or(file.redis_ca),
            data_dir: self.data_dir.or(file.data_dir),
            node_id: self.node_id.or(file.node_id),
            prefix: self.prefix.or(file.prefix),
            shards: self.shards.or(file.shards),
            sessions_max: self.sessions_max.or(file.sessions_max),
            jwt_audience: self.jwt_audience.or(file.jwt_audience),
            jwt_algorithm: self.jwt_algorithm.or(file.jwt_algorithm),
            allow_eviction: self.allow_eviction.or(file.allow_eviction),
            log_format: self.log_format.or(file.log_format),
            log_level: self.log_level.or(file.log_level),
            limits: self.limits.or(file.limits),
            api_keys: file.api_keys,
            jwt_secrets: file.jwt_secrets,
            client: file.client,
        }
    }
}

fn text<'de, D: Deserializer<'de>, T: FromStr<Err: std::fmt::Display>>(deserializer: D) -> Result<Option<T>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(de::Error::custom)
}
