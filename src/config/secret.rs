//! API keys and JWT secrets: where they come from, and types that do not print them.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::error::ConfigError;
use super::host::Host;

/// Shortest API key or JWT secret, in bytes.
pub const SECRET_BYTES_MIN: usize = 32;
/// Holds an API key with every scope, named `default`.
pub const API_KEY_VARIABLE: &str = "HOMING_API_KEY";
/// Holds a JWT secret for tokens without `kid`.
pub const JWT_SECRET_VARIABLE: &str = "HOMING_JWT_SECRET";

/// Bytes that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes a secret.
    ///
    /// # Errors
    /// [`ConfigError::SecretTooShort`]; `origin` says where it stood.
    pub fn new(bytes: impl Into<Vec<u8>>, origin: &str) -> Result<Self, ConfigError> {
        let bytes = bytes.into();
        if bytes.len() < SECRET_BYTES_MIN {
            let origin = origin.to_owned();
            return Err(ConfigError::SecretTooShort { origin, bytes: bytes.len(), min: SECRET_BYTES_MIN });
        }
        Ok(Self(bytes))
    }

    /// The bytes, for signing and verifying only.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// What an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Publish messages.
    Publish,
    /// Read users, devices and messages.
    Read,
    /// Delete devices and users.
    Manage,
}

/// A producer's key, known only by its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// What logs call it.
    pub name: String,
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// What it may do.
    pub scopes: Vec<Scope>,
}

impl ApiKey {
    /// A key with every scope.
    #[must_use]
    pub fn with_all_scopes(name: &str, key: &Secret) -> Self {
        let scopes = vec![Scope::Publish, Scope::Read, Scope::Manage];
        Self { name: name.to_owned(), sha256: Sha256::digest(key.expose()).into(), scopes }
    }
}

/// A secret that tokens may be signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSecret {
    /// The `kid` of the tokens that it verifies; `None` for tokens without one.
    pub kid: Option<String>,
    /// The key of the HMAC.
    pub secret: Secret,
}

/// `[[api_keys]]` of the configuration file: hashes only, so that the file can be shown.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyEntry {
    /// What logs call it.
    pub name: String,
    /// SHA-256 of the key, 64 hexadecimal digits.
    pub sha256: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

/// `[[jwt_secrets]]` of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtSecretEntry {
    /// The `kid` of the tokens that it verifies.
    pub kid: Option<String>,
    /// A file that holds the secret, relative to the configuration file.
    pub file: PathBuf,
}

impl ApiKeyEntry {
    pub(super) fn parse(self) -> Result<ApiKey, ConfigError> {
        let Some(sha256) = parse_hash(&self.sha256) else {
            let reason = format!(
                "key {:?}: sha256 must be 64 hexadecimal digits; `printf %s \"$KEY\" | sha256sum` prints them",
                self.name
            );
            return Err(ConfigError::value("api_keys", reason));
        };
        if self.name.is_empty() || self.scopes.is_empty() {
            return Err(ConfigError::value("api_keys", "every key needs a name and at least one scope"));
        }
        Ok(ApiKey { name: self.name, sha256, scopes: self.scopes })
    }
}

impl JwtSecretEntry {
    pub(super) fn parse(self, folder: &Path) -> Result<JwtSecret, ConfigError> {
        Ok(JwtSecret { kid: self.kid, secret: read_secret(&folder.join(self.file))? })
    }
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(hash)
}

fn read_secret(path: &Path) -> Result<Secret, ConfigError> {
    let bytes = std::fs::read(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    // Editors and `echo` end a file with a newline that is no part of the secret.
    Secret::new(bytes.trim_ascii_end(), &path.display().to_string())
}

/// A secret from `variable`, or from the file that `<variable>_FILE` names.
///
/// # Errors
/// [`ConfigError`] if both are set, the file cannot be read, or the secret is too short.
pub fn from_environment(host: &Host, variable: &'static str) -> Result<Option<Secret>, ConfigError> {
    let file_variable = format!("{variable}_FILE");
    match (host.variable(variable), host.variable(&file_variable)) {
        (Some(_), Some(_)) => Err(ConfigError::value(variable, format!("set it or {file_variable}, not both"))),
        (Some(text), None) => Secret::new(text, variable).map(Some),
        (None, Some(path)) => read_secret(Path::new(&path)).map(Some),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints_itself() {
        let secret = Secret::new("0123456789abcdef0123456789abcdef", "test").unwrap();
        assert!(!format!("{secret:?}").contains("0123"));
    }

    #[test]
    fn a_short_secret_is_refused_with_its_origin_and_length() {
        let error = Secret::new("short", "HOMING_API_KEY").unwrap_err().to_string();
        assert!(
            error.starts_with("HOMING_API_KEY: ") && error.contains("at least 32 bytes, this one has 5"),
            "{error}"
        );
    }

    #[test]
    fn an_api_key_in_a_file_must_be_a_hash() {
        let entry = |sha256: &str| ApiKeyEntry { name: "ci".into(), sha256: sha256.into(), scopes: vec![Scope::Read] };
        assert!(entry("the-key-itself-the-key-itself-the-key-itself-the-key-itself-....").parse().is_err());
        let hash = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
        assert_eq!(entry(hash).parse().unwrap().sha256[..2], [0x2c, 0x26]);
    }
}
