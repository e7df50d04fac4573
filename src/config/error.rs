//! Why a configuration is refused.

use std::path::PathBuf;

use thiserror::Error;

/// Why a configuration is refused. Every message says what to change.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file that was named cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The dev secrets cannot be kept.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configuration file is not what it should be.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Where and what, as the parser says it.
        reason: String,
    },
    /// One value is unusable.
    #[error("{option}: {reason}")]
    Value {
        /// The option's name in the file; its flag has dashes and its variable is `HOMING_` and capitals.
        option: &'static str,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// One value is outside its bounds.
    #[error("{option}: {value} is out of bounds; it must be between {min} and {max}")]
    OutOfBounds {
        /// The option's name in the file.
        option: &'static str,
        /// What was given.
        value: String,
        /// The smallest allowed value.
        min: String,
        /// The largest allowed value.
        max: String,
    },
    /// A secret is too short to be one.
    #[error(
        "{origin}: a secret must have at least {min} bytes, this one has {bytes}; `openssl rand -hex 32` makes one"
    )]
    SecretTooShort {
        /// The variable or file.
        origin: String,
        /// Its length.
        bytes: usize,
        /// The limit.
        min: usize,
    },
    /// Neither secrets nor `--dev`.
    #[error(
        "no {what}: set {variable} or {variable}_FILE, or add [[{table}]] to homing.toml; to try Homing out, \
         `homing serve --dev` makes its own"
    )]
    SecretMissing {
        /// "API key" or "JWT secret".
        what: &'static str,
        /// The environment variable.
        variable: &'static str,
        /// The table in the file.
        table: &'static str,
    },
    /// A client command found no secret.
    #[error("no {what}: set {variable} or {variable}_FILE; without them, a running `homing serve --dev` would have left one in {}", dev_file.display())]
    ClientSecretMissing {
        /// "API key" or "JWT secret".
        what: &'static str,
        /// The environment variable.
        variable: &'static str,
        /// Where the dev secrets would be.
        dev_file: PathBuf,
    },
    /// `--dev` secrets on a network.
    #[error("{option}: --dev prints its secrets and so listens on loopback only, not on {address}")]
    DevNotOnLoopback {
        /// The listener's option.
        option: &'static str,
        /// What was asked for.
        address: std::net::SocketAddr,
    },
}

impl ConfigError {
    pub(crate) fn value(option: &'static str, reason: impl ToString) -> Self {
        Self::Value { option, reason: reason.to_string() }
    }
}
