//! API keys of producers: named, scoped, several at once, revocable.

use std::sync::{Arc, PoisonError, RwLock};

use homing_protocol::code::ErrorCode;
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use thiserror::Error;

use crate::config::{ApiKey, Scope};

/// Longest key that is looked at, in bytes; longer ones cannot be ours.
pub const API_KEY_BYTES_MAX: usize = 512;

/// What a key is called in logs and metrics. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyName(Arc<str>);

impl KeyName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for KeyName {
    fn from(name: &str) -> Self {
        Self(Arc::from(name))
    }
}

/// A key as it is compared. Its text is kept nowhere.
///
/// A fast hash is enough: a key is at least 32 bytes, made at random, which nobody finds by trying.
#[derive(Debug)]
struct HeldKey {
    name: KeyName,
    sha256: [u8; 32],
    scopes: Vec<Scope>,
}

impl From<ApiKey> for HeldKey {
    fn from(key: ApiKey) -> Self {
        Self { name: KeyName::from(key.name.as_str()), sha256: key.sha256, scopes: key.scopes }
    }
}

/// A scope's name in configuration and errors.
#[must_use]
pub fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Publish => "publish",
        Scope::Read => "read",
        Scope::Manage => "manage",
    }
}

/// Why an API key does not allow a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ApiKeyError {
    /// Not one of the keys, or not one any more.
    #[error("this API key is not known")]
    Unknown,
    /// A valid key without the scope that the call needs.
    #[error("this API key lacks the scope '{}'", scope_name(*.0))]
    Scope(Scope),
}

impl ApiKeyError {
    /// The code for problem documents.
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Unknown => ErrorCode::Unauthorized,
            Self::Scope(_) => ErrorCode::Forbidden,
        }
    }
}

/// The keys that are valid now. Cloning is cheap, and all clones see a replacement.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys {
    keys: Arc<RwLock<Vec<HeldKey>>>,
}

impl ApiKeys {
    /// A set of keys.
    #[must_use]
    pub fn new(keys: Vec<ApiKey>) -> Self {
        Self { keys: Arc::new(RwLock::new(keys.into_iter().map(HeldKey::from).collect())) }
    }

    /// Replaces all keys at once: the next call with a key that is gone is refused.
    pub fn replace(&self, keys: Vec<ApiKey>) {
        let keys = keys.into_iter().map(HeldKey::from).collect();
        // A vector is valid at every moment, so a poisoned lock says nothing.
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// The name of the presented key, if it allows `scope`.
    ///
    /// Takes the same time for every key that is presented, known or not, first or last.
    ///
    /// # Errors
    /// [`ApiKeyError`] says what is missing.
    pub fn authorize(&self, presented: &str, scope: Scope) -> Result<KeyName, ApiKeyError> {
        if presented.len() > API_KEY_BYTES_MAX {
            return Err(ApiKeyError::Unknown);
        }
        let hash: [u8; 32] = Sha256::digest(presented).into();
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = u64::MAX;
        for (index, key) in (0u64..).zip(keys.iter()) {
            found.conditional_assign(&index, key.sha256.ct_eq(&hash));
        }
        let key = usize::try_from(found).ok().and_then(|index| keys.get(index)).ok_or(ApiKeyError::Unknown)?;
        if key.scopes.contains(&scope) { Ok(key.name.clone()) } else { Err(ApiKeyError::Scope(scope)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    const ORDERS: &str = "orders-key-of-at-least-32-bytes-0001";
    const SUPPORT: &str = "support-key-of-at-least-32-bytes-001";

    fn key(name: &str, text: &str, scopes: &[Scope]) -> ApiKey {
        let key = ApiKey::with_all_scopes(name, &Secret::new(text, "test").unwrap());
        ApiKey { scopes: scopes.to_vec(), ..key }
    }

    fn keys() -> ApiKeys {
        ApiKeys::new(vec![
            key("orders", ORDERS, &[Scope::Publish]),
            key("support", SUPPORT, &[Scope::Read, Scope::Manage]),
        ])
    }

    #[test]
    fn each_key_allows_its_own_scopes_and_no_others() {
        let keys = keys();
        assert_eq!(keys.authorize(ORDERS, Scope::Publish).unwrap().as_str(), "orders");
        assert_eq!(keys.authorize(ORDERS, Scope::Manage), Err(ApiKeyError::Scope(Scope::Manage)));
        assert_eq!(keys.authorize(SUPPORT, Scope::Manage).unwrap().as_str(), "support");
        assert_eq!(keys.authorize(SUPPORT, Scope::Publish), Err(ApiKeyError::Scope(Scope::Publish)));
    }

    #[test]
    fn anything_else_than_a_whole_key_is_unknown() {
        let long = "x".repeat(API_KEY_BYTES_MAX + 1);
        for presented in ["", &ORDERS[1..], &format!("{ORDERS} "), &long] {
            assert_eq!(keys().authorize(presented, Scope::Publish), Err(ApiKeyError::Unknown));
        }
        assert_eq!(ApiKeys::default().authorize(ORDERS, Scope::Publish), Err(ApiKeyError::Unknown));
    }

    #[test]
    fn a_key_that_was_replaced_is_revoked_for_every_clone() {
        let keys = keys();
        let clone = keys.clone();
        keys.replace(vec![key("support", SUPPORT, &[Scope::Read])]);
        assert_eq!(clone.authorize(ORDERS, Scope::Publish), Err(ApiKeyError::Unknown));
        assert!(clone.authorize(SUPPORT, Scope::Read).is_ok());
    }
}
