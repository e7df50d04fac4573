//! API keys of producers: named, scoped, several at once, revocable.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use homing_protocol::code::ErrorCode;
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use thiserror::Error;

use super::{SecretTooShort, check_length};

/// Longest key that is looked at, in bytes; longer ones cannot be ours.
pub const API_KEY_BYTES_MAX: usize = 512;

/// What a key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Append messages.
    Publish,
    /// Read users, devices and messages.
    Read,
    /// Delete users and devices.
    Manage,
}

impl Scope {
    const ALL: [Self; 3] = [Self::Publish, Self::Read, Self::Manage];

    /// The scope's name in configuration and errors.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Manage => "manage",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A text that is no scope.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no scope; there are publish, read and manage")]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope.
    pub const ALL: Self = Self(0b111);

    /// Whether the set holds this scope.
    #[must_use]
    pub fn allow(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | (1 << scope as u8)))
    }
}

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

/// One API key: its name, its scopes, and the SHA-256 of its text. The text itself is kept nowhere.
///
/// A fast hash is enough: a key is at least 32 random bytes, which nobody finds by trying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    name: KeyName,
    sha256: [u8; 32],
    scopes: Scopes,
}

/// A text that is not the hexadecimal SHA-256 of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an API key is configured by its SHA-256 in 64 hexadecimal digits")]
pub struct BadHash;

impl ApiKey {
    /// A key by its hash, as configuration files hold it.
    ///
    /// # Errors
    /// [`BadHash`] unless `hash` is 64 hexadecimal digits.
    pub fn from_hash(name: impl Into<KeyName>, hash: &str, scopes: Scopes) -> Result<Self, BadHash> {
        let digits = hash.as_bytes();
        let mut sha256 = [0; 32];
        if digits.len() != 64 {
            return Err(BadHash);
        }
        for (byte, pair) in sha256.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self { name: name.into(), sha256, scopes })
    }

    /// A key by its text, as environment variables hold it.
    ///
    /// # Errors
    /// [`SecretTooShort`] below 32 bytes.
    pub fn from_text(name: impl Into<KeyName>, text: &str, scopes: Scopes) -> Result<Self, SecretTooShort> {
        check_length(text.as_bytes())?;
        Ok(Self { name: name.into(), sha256: Sha256::digest(text).into(), scopes })
    }

    /// The hash as configuration files hold it.
    #[must_use]
    pub fn hash(&self) -> String {
        self.sha256.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn nibble(digit: u8) -> Result<u8, BadHash> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(BadHash),
    }
}

/// Why an API key does not allow a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ApiKeyError {
    /// Not one of the keys, or not one any more.
    #[error("this API key is not known")]
    Unknown,
    /// A valid key without the scope that the call needs.
    #[error("this API key lacks the scope '{0}'")]
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
    keys: Arc<RwLock<Vec<ApiKey>>>,
}

impl ApiKeys {
    /// A set of keys.
    #[must_use]
    pub fn new(keys: Vec<ApiKey>) -> Self {
        Self { keys: Arc::new(RwLock::new(keys)) }
    }

    /// Replaces all keys at once: the next call with a key that is gone is refused.
    pub fn replace(&self, keys: Vec<ApiKey>) {
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
        if key.scopes.allow(scope) { Ok(key.name.clone()) } else { Err(ApiKeyError::Scope(scope)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERS: &str = "orders-key-of-at-least-32-bytes-0001";
    const SUPPORT: &str = "support-key-of-at-least-32-bytes-001";

    fn keys() -> ApiKeys {
        ApiKeys::new(vec![
            ApiKey::from_text("orders", ORDERS, Scopes::from_iter([Scope::Publish])).unwrap(),
            ApiKey::from_text("support", SUPPORT, Scopes::from_iter([Scope::Read, Scope::Manage])).unwrap(),
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
        keys.replace(vec![ApiKey::from_text("support", SUPPORT, Scopes::ALL).unwrap()]);
        assert_eq!(clone.authorize(ORDERS, Scope::Publish), Err(ApiKeyError::Unknown));
        assert!(clone.authorize(SUPPORT, Scope::Publish).is_ok());
    }

    #[test]
    fn a_key_configured_by_its_hash_is_the_same_key() {
        let by_text = ApiKey::from_text("a", ORDERS, Scopes::ALL).unwrap();
        let by_hash = ApiKey::from_hash("a", &by_text.hash().to_uppercase(), Scopes::ALL).unwrap();
        assert_eq!(by_text, by_hash);
        for hash in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(ApiKey::from_hash("a", hash, Scopes::ALL), Err(BadHash));
        }
        assert_eq!(ApiKey::from_text("a", "short", Scopes::ALL), Err(SecretTooShort(5)));
    }

    #[test]
    fn scopes_are_read_by_name() {
        assert_eq!("manage".parse(), Ok(Scope::Manage));
        assert!("Manage".parse::<Scope>().is_err());
        assert_eq!(Scopes::from_iter(Scope::ALL), Scopes::ALL);
        assert!(!Scopes::default().allow(Scope::Publish));
    }
}
