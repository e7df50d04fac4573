//! Who may do what: clients by tokens, producers by API keys.
//!
//! Owns the verification of credentials and the making of tokens. It must not know Redis, HTTP or sockets, and reads no
//! clock: the time comes in as an argument. Invariant: what decides how a credential is verified is configuration,
//! never the credential itself.

pub mod api_key;
pub mod jwt;

pub use api_key::{ApiKey, ApiKeyError, ApiKeys, KeyName, Scope, Scopes};
pub use jwt::{Claims, JwtConfig, JwtSecret, TokenError, TokenVerifier};

/// Shortest secret, in bytes: what HMAC-SHA-256 makes full use of, and more than anyone can guess.
pub const SECRET_BYTES_MIN: usize = 32;

/// A secret below [`SECRET_BYTES_MIN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret of {0} bytes is too short; at least {SECRET_BYTES_MIN} are needed")]
pub struct SecretTooShort(pub usize);

fn check_length(secret: &[u8]) -> Result<(), SecretTooShort> {
    if secret.len() < SECRET_BYTES_MIN { Err(SecretTooShort(secret.len())) } else { Ok(()) }
}
