//! Tokens as a customer's backend would make them, and as an attacker would.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value};

/// The secret of every node under test.
pub(crate) const SECRET: &str = "a-secret-of-the-tests-that-is-long-enough-0123456789";

/// A JSON Web Token in the making.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    claims: Map<String, Value>,
    secret: Vec<u8>,
    algorithm: Algorithm,
}

impl Token {
    /// A good one for an hour.
    pub(crate) fn of(user: &str) -> Self {
        let mut claims = Map::new();
        claims.insert("sub".to_owned(), user.into());
        let token = Self { claims, secret: SECRET.into(), algorithm: Algorithm::HS256 };
        token.expires_in(Duration::from_secs(3600))
    }

    pub(crate) fn expires_in(self, time: Duration) -> Self {
        self.claim("exp", (unix_now() + time).as_secs())
    }

    /// A token whose time ended this long ago.
    pub(crate) fn expired_since(self, time: Duration) -> Self {
        self.claim("exp", (unix_now() - time).as_secs())
    }

    pub(crate) fn device(self, device: &str) -> Self {
        self.claim("device", device)
    }

    pub(crate) fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn without_claim(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    pub(crate) fn signed_with(mut self, secret: &str) -> Self {
        self.secret = secret.into();
        self
    }

    pub(crate) fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    pub(crate) fn encode(&self) -> String {
        let key = EncodingKey::from_secret(&self.secret);
        jsonwebtoken::encode(&Header::new(self.algorithm), &self.claims, &key).expect("claims are JSON")
    }

    /// The classic forgery: algorithm `none`, no signature.
    pub(crate) fn encode_unsigned(&self) -> String {
        use base64::Engine;
        let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let claims = serde_json::to_vec(&self.claims).expect("claims are JSON");
        format!("{}.{}.", base64.encode(r#"{"alg":"none","typ":"JWT"}"#), base64.encode(claims))
    }
}

/// Time since 1970.
pub(crate) fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970")
}
