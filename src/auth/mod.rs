//! Who may do what: clients by tokens, producers by API keys.
//!
//! Owns the verification of credentials and the making of tokens. It must not know Redis, HTTP or sockets, and reads no
//! clock: the time comes in as an argument. Invariant: what decides how a credential is verified is configuration,
//! never the credential itself.

pub mod api_key;
pub mod jwt;

pub use api_key::{ApiKeyError, ApiKeys, KeyName};
pub use jwt::{Claims, Grant, SignError, TokenError, TokenVerifier};
