//! Client tokens: JSON Web Tokens (RFC 7519), signed with HMAC-SHA-256.
//!
//! The parts are taken apart here and not by `jsonwebtoken`, whose defaults are more lenient than the protocol: it
//! skips claims of an odd type. The library verifies the signature.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;
use homing_protocol::code::ErrorCode;
use homing_protocol::name::{Name, NameError};
use homing_protocol::topic::{PatternError, TopicPatterns};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::{JwtAlgorithm, JwtConfig, JwtSecret};

/// Longest token that is looked at, in bytes. Nothing is decoded before this is checked.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How far `nbf` and `iat` may lie in the future, in seconds: the clocks of issuer and node differ a little.
///
/// `exp` has none: it is enforced during the connection too, and a token that is accepted only to be expired at once
/// would help nobody.
pub const LEEWAY_S: u64 = 5;

/// The claims of a token to be made.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Grant<'a> {
    /// The user.
    #[serde(rename = "sub", serialize_with = "as_text")]
    pub user: &'a Name,
    /// Pins the device.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_optional_text")]
    pub device: Option<&'a Name>,
    /// Patterns of topics that the client may follow and leave by itself.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub topics: &'a [String],
    /// The audience, if verifiers ask for one.
    #[serde(rename = "aud", skip_serializing_if = "Option::is_none")]
    pub audience: Option<&'a str>,
    /// When it was made, in Unix seconds.
    #[serde(rename = "iat")]
    pub issued_at_s: u64,
    /// When it ends, in Unix seconds.
    #[serde(rename = "exp")]
    pub expires_at_s: u64,
}

fn as_text<S: serde::Serializer>(name: &Name, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}

fn as_optional_text<S: serde::Serializer>(name: &Option<&Name>, serializer: S) -> Result<S::Ok, S::Error> {
    name.map(Name::as_str).serialize(serializer)
}

impl Grant<'_> {
    /// Makes a token, for the command line, the first page and tests.
    ///
    /// # Errors
    /// [`SignError`] if the cryptography library fails.
    pub fn sign(&self, secret: &JwtSecret) -> Result<String, SignError> {
        let mut header = jsonwebtoken::Header::new(Algorithm::HS256);
        header.kid.clone_from(&secret.kid);
        let key = EncodingKey::from_secret(secret.secret.expose());
        jsonwebtoken::encode(&header, self, &key).map_err(|error| SignError(error.to_string()))
    }
}

/// A token could not be signed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the token could not be signed: {0}")]
pub struct SignError(String);

/// What a valid token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The user.
    pub user: Name,
    /// The only device that the token may be used for.
    pub device: Option<Name>,
    /// When the token ends, in Unix milliseconds.
    pub expires_at_ms: u64,
    /// Topics that the client may follow and leave by itself; none unless the token says so.
    pub topics: TopicPatterns,
    /// When it was issued, in Unix seconds.
    pub issued_at_s: Option<u64>,
    /// Devices of the user that may be connected at once, 0 for any number; as many as the node says if it is missing.
    pub sessions: Option<u32>,
}

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Over [`TOKEN_BYTES_MAX`].
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// Not three parts of base64url, or the header is no JSON object.
    #[error("this is no JSON Web Token")]
    Malformed,
    /// The header names another algorithm than HS256, or an extension that must be understood (`crit`).
    #[error("the token's header asks for something else than HS256")]
    Algorithm,
    /// Not signed with any secret that is valid now.
    #[error("the token's signature is not valid here")]
    Signature,
    /// A claim is missing or of the wrong type.
    #[error("the token's claims are not usable: {0}")]
    Claims(String),
    /// `sub` or `device` is no valid name.
    #[error("the token's '{0}' is not usable: {1}")]
    Name(&'static str, NameError),
    /// `topics` is no list of patterns.
    #[error("the token's 'topics' is not usable: {0}")]
    Topics(PatternError),
    /// `aud` does not hold the configured audience.
    #[error("the token is meant for another audience")]
    Audience,
    /// `nbf` or `iat` lies in the future.
    #[error("the token's '{0}' lies in the future")]
    NotYet(&'static str),
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
}

impl TokenError {
    /// The code for error frames and problem documents.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Expired => ErrorCode::TokenExpired,
            _ => ErrorCode::Unauthorized,
        }
    }
}

#[derive(Deserialize)]
struct TokenHeader<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    kid: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct TokenClaims {
    sub: String,
    exp: Seconds,
    nbf: Option<Seconds>,
    iat: Option<Seconds>,
    aud: Option<Audience>,
    device: Option<String>,
    #[serde(default)]
    topics: Vec<String>,
    #[serde(default, deserialize_with = "present")]
    sessions: Option<u32>,
}

/// A claim that must not be `null`, which would read as if it were missing.
fn present<'a, D: serde::Deserializer<'a>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    u32::deserialize(deserializer).map(Some)
}

/// A NumericDate (RFC 7519, section 2): a JSON number, which may have a fraction. Texts are refused.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "serde_json::Number")]
struct Seconds(u64);

impl TryFrom<serde_json::Number> for Seconds {
    type Error = &'static str;

    fn try_from(number: serde_json::Number) -> Result<Self, Self::Error> {
        if let Some(whole) = number.as_u64() {
            return Ok(Self(whole));
        }
        match number.as_f64() {
            // Rounds down; the cast saturates, and a time beyond u64 never comes anyway.
            Some(seconds) if seconds >= 0.0 => Ok(Self(seconds as u64)),
            _ => Err("a time must be a number of seconds since 1970"),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn holds(&self, wanted: &str) -> bool {
        match self {
            Self::One(audience) => audience == wanted,
            Self::Many(audiences) => audiences.iter().any(|audience| audience == wanted),
        }
    }
}

/// Parses a JSON object. An array would do for serde too: it fills a struct's members by position.
fn object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, serde_json::Error> {
    match text.trim_ascii_start().first() {
        // From bytes, the parser would take members that nobody reads for texts, whatever bytes they are.
        Some(b'{') => serde_json::from_str(std::str::from_utf8(text).map_err(serde::de::Error::custom)?),
        _ => Err(serde::de::Error::custom("not an object")),
    }
}

/// Verifies client tokens. Cloning is cheap.
#[derive(Clone)]
pub struct TokenVerifier {
    secrets: Arc<[HeldSecret]>,
    audience: Option<Arc<str>>,
    devices_max: u32,
}

struct HeldSecret {
    kid: Option<String>,
    key: DecodingKey,
}

impl TokenVerifier {
    /// A verifier. Without secrets it refuses every token.
    #[must_use]
    pub fn new(config: JwtConfig) -> Self {
        // A second algorithm must not compile before the verification below knows it.
        let JwtAlgorithm::Hs256 = config.algorithm;
        let held =
            |secret: JwtSecret| HeldSecret { kid: secret.kid, key: DecodingKey::from_secret(secret.secret.expose()) };
        Self {
            secrets: config.secrets.into_iter().map(held).collect(),
            audience: config.audience.map(Arc::from),
            devices_max: u32::MAX,
        }
    }

    /// The same, refusing tokens that allow more sessions than a user can have devices.
    #[must_use]
    pub fn with_devices_max(self, devices_max: u32) -> Self {
        Self { devices_max, ..self }
    }

    /// What the token says, if it is valid at `now_unix_s`.
    ///
    /// # Errors
    /// [`TokenError`]. Times are looked at after the signature, so that `Expired` is only said of a genuine token.
    pub fn verify(&self, token: &str, now_unix_s: u64) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let header = BASE64_URL.decode(header).map_err(|_| TokenError::Malformed)?;
        let header: TokenHeader<'_> = object(&header).map_err(|_| TokenError::Malformed)?;
        if header.alg != "HS256" || header.crit.is_some() {
            return Err(TokenError::Algorithm);
        }
        if !self.is_signed(message, signature, header.kid.as_deref()) {
            return Err(TokenError::Signature);
        }
        let claims = BASE64_URL.decode(claims).map_err(|_| TokenError::Malformed)?;
        let claims: TokenClaims = object(&claims).map_err(|error| TokenError::Claims(error.to_string()))?;
        self.check(claims, now_unix_s)
    }

    /// A token that names a known `kid` was signed with that secret. One that names an unknown `kid` may still be
    /// signed with a secret that was configured without; one that names none, with any.
    fn is_signed(&self, message: &str, signature: &str, kid: Option<&str>) -> bool {
        let secrets = &self.secrets;
        let named = kid.filter(|kid| secrets.iter().any(|secret| secret.kid.as_deref() == Some(kid)));
        secrets.iter().filter(|secret| kid.is_none() || secret.kid.as_deref() == named).any(|secret| {
            jsonwebtoken::crypto::verify(signature, message.as_bytes(), &secret.key, Algorithm::HS256).unwrap_or(false)
        })
    }

    fn check(&self, claims: TokenClaims, now_s: u64) -> Result<Claims, TokenError> {
        if let Some(wanted) = &self.audience
            && !claims.aud.is_some_and(|audience| audience.holds(wanted))
        {
            return Err(TokenError::Audience);
        }
        let user = Name::parse(&claims.sub).map_err(|error| TokenError::Name("sub", error))?;
        let device = match claims.device {
            None => None,
            Some(device) => Some(Name::parse(&device).map_err(|error| TokenError::Name("device", error))?),
        };
        let latest = now_s.saturating_add(LEEWAY_S);
        for (claim, time) in [("nbf", claims.nbf), ("iat", claims.iat)] {
            if time.is_some_and(|time| time.0 > latest) {
                return Err(TokenError::NotYet(claim));
            }
        }
        if let Some(sessions) = claims.sessions.filter(|sessions| *sessions > self.devices_max) {
            let bound = self.devices_max;
            let reason = format!("'sessions' is {sessions}; it must be 0 to {bound} (devices_max)");
            return Err(TokenError::Claims(reason));
        }
        if claims.exp.0 <= now_s {
            return Err(TokenError::Expired);
        }
        let topics = TopicPatterns::parse(&claims.topics).map_err(TokenError::Topics)?;
        Ok(Claims {
            user,
            device,
            expires_at_ms: claims.exp.0.saturating_mul(1_000),
            issued_at_s: claims.iat.map(|issued_at| issued_at.0),
            sessions: claims.sessions,
            topics,
        })
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
