//! What the client commands need to know: where the server is, and the secrets to talk to it.

use std::path::{Path, PathBuf};

use super::dev::DevSecrets;
use super::error::ConfigError;
use super::file::ConfigFile;
use super::host::Host;
use super::options::ServeOptions;
use super::redis_url::RedisUrl;
use super::secret::{self, API_KEY_VARIABLE, JWT_SECRET_VARIABLE, Secret};
use super::serve::{DATA_DIR, PREFIX, parse_prefix};

/// Where the server is by default.
pub const URL: &str = "http://127.0.0.1:8080";

/// The options that the client commands share, as far as they are set.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct ClientOptions {
    /// Configuration file [default: homing.toml, if there is one].
    #[arg(long, env = "HOMING_CONFIG", value_name = "FILE", hide_env_values = true)]
    pub config: Option<PathBuf>,

    /// Folder in which `homing serve --dev` keeps its secrets [default: ./homing-data].
    #[arg(long, env = "HOMING_DATA_DIR", value_name = "FOLDER", hide_env_values = true)]
    pub data_dir: Option<PathBuf>,
}

/// What the client commands need to know.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    host: Host,
    options: ServeOptions,
    folder: PathBuf,
    data_dir: PathBuf,
}

/// A secret, and where it was found if that deserves a word.
#[derive(Clone, Debug)]
pub struct Found {
    /// The secret.
    pub secret: Secret,
    /// The dev secrets file, if it stood there.
    pub dev_file: Option<PathBuf>,
}

impl ClientConfig {
    /// Puts flags, environment and file together.
    ///
    /// # Errors
    /// [`ConfigError`] if the configuration file is unusable.
    pub fn resolve(flags: ClientOptions, host: Host) -> Result<Self, ConfigError> {
        let file = ConfigFile::read(flags.config.as_deref())?;
        let data_dir = flags.data_dir.or(file.options.data_dir.clone()).unwrap_or_else(|| DATA_DIR.into());
        Ok(Self { host, options: file.options, folder: file.folder, data_dir })
    }

    /// Where the server is: the flag, else the file, else the default.
    #[must_use]
    pub fn url(&self, flag: Option<&str>) -> String {
        let url = flag.or(self.options.client.url.as_deref()).unwrap_or(URL);
        url.trim_end_matches('/').to_owned()
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Which Redis: the flag, else the file.
    #[must_use]
    pub fn redis(&self, flag: Option<RedisUrl>) -> Option<RedisUrl> {
        flag.or_else(|| self.options.redis.clone())
    }

    /// The certificate authority of that Redis.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`].
    pub fn redis_ca(&self, flag: Option<PathBuf>) -> Result<Option<Vec<u8>>, ConfigError> {
        match flag.or_else(|| self.options.redis_ca.clone()) {
            None => Ok(None),
            Some(path) => std::fs::read(&path).map(Some).map_err(|source| ConfigError::Unreadable { path, source }),
        }
    }

    /// First part of every key: the flag, else the file, else the default.
    ///
    /// # Errors
    /// [`ConfigError`] if it cannot stand in a key.
    pub fn prefix(&self, flag: Option<String>) -> Result<String, ConfigError> {
        parse_prefix(flag.or_else(|| self.options.prefix.clone()).unwrap_or_else(|| PREFIX.to_owned()))
    }

    /// The audience that the server's tokens must name, if the file says so.
    #[must_use]
    pub fn jwt_audience(&self) -> Option<&str> {
        self.options.jwt_audience.as_deref()
    }

    /// The API key: from the environment, else from the dev secrets.
    ///
    /// # Errors
    /// [`ConfigError::SecretMissing`] if there is none.
    pub fn api_key(&self) -> Result<Found, ConfigError> {
        if let Some(secret) = secret::from_environment(&self.host, API_KEY_VARIABLE)? {
            return Ok(Found { secret, dev_file: None });
        }
        match self.dev_secrets()? {
            Some((made, path)) => self.found_in_dev(made.api_key, path),
            None => Err(ConfigError::ClientSecretMissing {
                what: "API key",
                variable: API_KEY_VARIABLE,
                dev_file: DevSecrets::path(&self.data_dir),
            }),
        }
    }

    /// The JWT secret: from the file if a `kid` is asked for, else from the environment, else from the dev secrets.
    ///
    /// # Errors
    /// [`ConfigError`] if there is none.
    pub fn jwt_secret(&self, kid: Option<&str>) -> Result<Found, ConfigError> {
        if kid.is_some()
            && let Some(entry) = self.options.jwt_secrets.iter().find(|entry| entry.kid.as_deref() == kid)
        {
            return Ok(Found { secret: entry.clone().parse(&self.folder)?.secret, dev_file: None });
        }
        if let Some(secret) = secret::from_environment(&self.host, JWT_SECRET_VARIABLE)? {
            return Ok(Found { secret, dev_file: None });
        }
        match self.dev_secrets()? {
            Some((made, path)) => self.found_in_dev(made.jwt_secret, path),
            None => Err(ConfigError::ClientSecretMissing {
                what: "JWT secret",
                variable: JWT_SECRET_VARIABLE,
                dev_file: DevSecrets::path(&self.data_dir),
            }),
        }
    }

    fn dev_secrets(&self) -> Result<Option<(DevSecrets, PathBuf)>, ConfigError> {
        Ok(DevSecrets::read(&self.data_dir)?.map(|made| (made, DevSecrets::path(&self.data_dir))))
    }

    fn found_in_dev(&self, text: String, path: PathBuf) -> Result<Found, ConfigError> {
        Ok(Found { secret: Secret::new(text, &path.display().to_string())?, dev_file: Some(path) })
    }
}
