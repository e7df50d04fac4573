//! The configuration of a node, complete and checked.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use homing_protocol::name::Name;

use super::dev::DevSecrets;
use super::error::ConfigError;
use super::file::ConfigFile;
use super::host::Host;
use super::limits::Limits;
use super::options::{JwtAlgorithm, LogFormat, ServeOptions};
use super::redis_url::RedisUrl;
use super::secret::{self, API_KEY_VARIABLE, ApiKey, JWT_SECRET_VARIABLE, JwtSecret, Secret};

/// Everything that `homing serve` needs to know.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Where clients and producers connect.
    pub listen: SocketAddr,
    /// Metrics and health.
    pub admin_listen: SocketAddr,
    /// Producers' calls, if they have a listener of their own.
    pub api_listen: Option<SocketAddr>,
    /// Which Redis.
    pub redis: RedisChoice,
    /// Folder of the private Redis and the dev secrets.
    pub data_dir: PathBuf,
    /// Secrets were made up; loopback only; foreign Host headers are refused.
    pub dev: Option<DevMode>,
    /// This node's name.
    pub node_id: Name,
    /// First part of every key.
    pub prefix: String,
    /// Threads that serve sessions.
    pub shards: NonZeroUsize,
    /// Sessions of this node.
    pub sessions_max: usize,
    /// Whom tokens are believed.
    pub jwt: JwtConfig,
    /// Producers' keys.
    pub api_keys: Vec<ApiKey>,
    /// Start although Redis may evict messages.
    pub allow_eviction: bool,
    /// How logs are written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_level: String,
    /// Times and limits.
    pub limits: Limits,
}

/// Which Redis a node uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisChoice {
    /// A private child process in the data directory.
    Embedded,
    /// One that somebody else runs.
    External {
        /// Its address.
        url: RedisUrl,
        /// PEM of its certificate authority.
        ca_pem: Option<Vec<u8>>,
    },
}

/// Whom tokens are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtConfig {
    /// How tokens must be signed.
    pub algorithm: JwtAlgorithm,
    /// What they may be signed with; at least one.
    pub secrets: Vec<JwtSecret>,
    /// The audience that they must name.
    pub audience: Option<String>,
}

/// What `--dev` prints. `None`: that secret was given, and is not printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevMode {
    /// The API key that was made.
    pub api_key: Option<Secret>,
    /// The JWT secret that was made.
    pub jwt_secret: Option<Secret>,
}

/// Where clients and producers connect by default.
pub const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// Metrics and health, by default.
pub const ADMIN_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9090);
/// Folder of the private Redis and the dev secrets, by default.
pub const DATA_DIR: &str = "./homing-data";
/// First part of every key, by default.
pub const PREFIX: &str = "homing";
/// Longest prefix: it stands in every key and every wake-up.
const PREFIX_BYTES_MAX: usize = 64;
/// Descriptors that are not for sessions: listeners, Redis, logs, and connections for HTTP requests.
/// At most half of all.
const DESCRIPTORS_RESERVED: u64 = 1_536;
/// Sessions if descriptors are not limited at all.
const SESSIONS_MAX: u64 = 1_048_576;

impl ServeConfig {
    /// Puts flags, environment, file and defaults together, in this order, and checks the result.
    ///
    /// # Errors
    /// [`ConfigError`] says which option is wrong and what would be right.
    pub fn resolve(flags: ServeOptions, host: &Host) -> Result<Self, ConfigError> {
        let file = ConfigFile::read(flags.config.as_deref())?;
        Self::resolve_with(flags, file, host)
    }

    /// The same with a file that was read already.
    ///
    /// # Errors
    /// [`ConfigError`] says which option is wrong and what would be right.
    pub fn resolve_with(flags: ServeOptions, file: ConfigFile, host: &Host) -> Result<Self, ConfigError> {
        let options = flags.or(file.options);
        let data_dir = options.data_dir.clone().unwrap_or_else(|| DATA_DIR.into());
        let limits = options.limits.resolve()?;
        let node_id = match &options.node_id {
            Some(text) => Name::parse(text).map_err(|error| ConfigError::value("node_id", error))?,
            None => host.node_id(),
        };
        let redis = redis_choice(&options)?;
        let is_dev = options.dev.unwrap_or(false);
        let config = Self {
            listen: options.listen.unwrap_or(LISTEN),
            admin_listen: options.admin_listen.unwrap_or(ADMIN_LISTEN),
            api_listen: options.api_listen,
            redis,
            dev: is_dev.then_some(DevMode { api_key: None, jwt_secret: None }),
            node_id,
            prefix: parse_prefix(options.prefix.unwrap_or_else(|| PREFIX.to_owned()))?,
            // Redis itself needs about as much processor time as all shards together.
            shards: options.shards.unwrap_or(NonZeroUsize::new(host.cores / 2).unwrap_or(NonZeroUsize::MIN)),
            sessions_max: options.sessions_max.map_or_else(|| sessions_max(host.descriptors_max), NonZeroUsize::get),
            jwt: JwtConfig {
                algorithm: options.jwt_algorithm.unwrap_or(JwtAlgorithm::Hs256),
                secrets: options
                    .jwt_secrets
                    .into_iter()
                    .map(|entry| entry.parse(&file.folder))
                    .collect::<Result<_, _>>()?,
                audience: options.jwt_audience,
            },
            api_keys: options.api_keys.into_iter().map(|entry| entry.parse()).collect::<Result<_, _>>()?,
            allow_eviction: options.allow_eviction.unwrap_or(false),
            log_format: options.log_format.unwrap_or(if is_dev { LogFormat::Human } else { LogFormat::Json }),
            log_level: options.log_level.unwrap_or_else(|| "info".to_owned()),
            limits,
            data_dir,
        };
        config.check_listeners()?.with_secrets(host)?.check_names()
    }

    fn check_listeners(self) -> Result<Self, ConfigError> {
        let listeners =
            [("listen", Some(self.listen)), ("admin_listen", Some(self.admin_listen)), ("api_listen", self.api_listen)];
        for (option, address) in listeners {
            if let Some(address) = address.filter(|address| self.dev.is_some() && !address.ip().is_loopback()) {
                return Err(ConfigError::DevNotOnLoopback { option, address });
            }
        }
        for (i, (_, address)) in listeners.iter().enumerate() {
            // Port 0 asks the system for a free one, so two of them differ.
            let taken = address.filter(|address| address.port() != 0);
            if let Some((option, _)) = listeners[..i].iter().find(|(_, other)| taken.is_some() && *other == taken) {
                return Err(ConfigError::value(option, "two listeners have the same address"));
            }
        }
        Ok(self)
    }

    /// Adds the secrets of the environment, and those that `--dev` makes.
    fn with_secrets(mut self, host: &Host) -> Result<Self, ConfigError> {
        if let Some(key) = secret::from_environment(host, API_KEY_VARIABLE)? {
            self.api_keys.push(ApiKey::with_all_scopes("default", &key));
        }
        if let Some(secret) = secret::from_environment(host, JWT_SECRET_VARIABLE)? {
            self.jwt.secrets.push(JwtSecret { kid: None, secret });
        }
        let (has_key, has_secret) = (!self.api_keys.is_empty(), !self.jwt.secrets.is_empty());
        if has_key && has_secret {
            return Ok(self);
        }
        let Some(dev) = &mut self.dev else {
            let (what, variable, table) = if has_key {
                ("JWT secret", JWT_SECRET_VARIABLE, "jwt_secrets")
            } else {
                ("API key", API_KEY_VARIABLE, "api_keys")
            };
            return Err(ConfigError::SecretMissing { what, variable, table });
        };
        let made = DevSecrets::read_or_make(&self.data_dir)?;
        let origin = DevSecrets::path(&self.data_dir).display().to_string();
        if !has_key {
            let key = Secret::new(made.api_key, &origin)?;
            self.api_keys.push(ApiKey::with_all_scopes("dev", &key));
            dev.api_key = Some(key);
        }
        if !has_secret {
            let secret = Secret::new(made.jwt_secret, &origin)?;
            self.jwt.secrets.push(JwtSecret { kid: None, secret: secret.clone() });
            dev.jwt_secret = Some(secret);
        }
        Ok(self)
    }

    fn check_names(self) -> Result<Self, ConfigError> {
        for (i, key) in self.api_keys.iter().enumerate() {
            if self.api_keys[..i].iter().any(|other| other.name == key.name) {
                return Err(ConfigError::value("api_keys", format!("two keys have the name {:?}", key.name)));
            }
        }
        for (i, secret) in self.jwt.secrets.iter().enumerate() {
            if self.jwt.secrets[..i].iter().any(|other| other.kid == secret.kid) {
                let kid = secret.kid.as_deref().unwrap_or("(none)");
                return Err(ConfigError::value("jwt_secrets", format!("two secrets have the kid {kid}")));
            }
        }
        Ok(self)
    }
}

fn redis_choice(options: &ServeOptions) -> Result<RedisChoice, ConfigError> {
    match (&options.redis, &options.redis_ca) {
        (None, None) => Ok(RedisChoice::Embedded),
        (Some(url), None) => Ok(RedisChoice::External { url: url.clone(), ca_pem: None }),
        (Some(url), Some(path)) if url.is_tls() => match std::fs::read(path) {
            Ok(pem) => Ok(RedisChoice::External { url: url.clone(), ca_pem: Some(pem) }),
            Err(source) => Err(ConfigError::Unreadable { path: path.clone(), source }),
        },
        (_, Some(_)) => Err(ConfigError::value("redis_ca", "is only used with a rediss:// URL")),
    }
}

/// # Errors
/// A prefix with braces would move the hash tag; one with glob characters would match other keys.
pub(super) fn parse_prefix(prefix: String) -> Result<String, ConfigError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX || !prefix.bytes().all(allowed) {
        let reason = format!("must be 1-{PREFIX_BYTES_MAX} characters of A-Z a-z 0-9 . _ - :");
        return Err(ConfigError::value("prefix", reason));
    }
    Ok(prefix)
}

fn sessions_max(descriptors_max: Option<u64>) -> usize {
    let descriptors = descriptors_max.unwrap_or(SESSIONS_MAX).min(SESSIONS_MAX);
    usize::try_from((descriptors - DESCRIPTORS_RESERVED.min(descriptors / 2)).max(1)).unwrap_or(1)
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
