//! `homing token`: makes a token for a user.

use std::time::{SystemTime, UNIX_EPOCH};

use homing_protocol::name::{Name, NameError};
use homing_protocol::topic::TopicPatterns;
use serde::Serialize;

use super::exit::{Exit, Failure, OrExit as _, note, print};
use crate::config::client::Found;
use crate::config::quantity::Span;
use crate::config::{ClientConfig, ClientOptions, Secret};

pub(super) const AFTER_HELP: &str = "\
The token is signed (HS256) with HOMING_JWT_SECRET, or what HOMING_JWT_SECRET_FILE holds, or
the secret of `homing serve --dev` in ./homing-data. In production, your own backend makes
tokens: claims `sub` (the user) and `exp`, optionally `device`, `sessions`, `topics`, `aud`,
`nbf`, `iat`.

Examples:
  homing token --user alice
  homing token --user alice --device phone-1 --ttl 7d
  homing token --user alice --kid 2026-01        signed with that secret of [[jwt_secrets]] in homing.toml";

/// No server lets a user have more devices.
const SESSIONS_MAX: i64 = 1_000;

#[derive(Debug, clap::Args)]
pub(super) struct TokenOptions {
    /// The user who connects with it.
    #[arg(long, env = "HOMING_USER", value_parser = parse_name)]
    user: Name,
    /// The only device that may connect with it [default: any].
    #[arg(long, env = "HOMING_DEVICE", value_parser = parse_name)]
    device: Option<Name>,
    /// A pattern of topics that the client may follow and leave by itself; several: again.
    #[arg(long = "topic", env = "HOMING_TOKEN_TOPICS", value_delimiter = ',')]
    topics: Vec<String>,
    /// How many devices of the user may be connected at once, 0 for any number [default: as many as the server says].
    #[arg(long, env = "HOMING_TOKEN_SESSIONS", value_parser = clap::value_parser!(u32).range(..=SESSIONS_MAX))]
    sessions: Option<u32>,
    /// How long it is valid: 30m, 1h, 7d.
    #[arg(long, env = "HOMING_TOKEN_TTL", default_value = "1h")]
    ttl: Span,
    /// Name of the secret, for servers with several.
    #[arg(long, env = "HOMING_JWT_KID")]
    kid: Option<String>,
    /// Audience, if the server asks for one [default: jwt_audience of homing.toml].
    #[arg(long, env = "HOMING_JWT_AUDIENCE")]
    audience: Option<String>,
    #[command(flatten)]
    pub(super) client: ClientOptions,
}

/// A name as an argument.
pub(super) fn parse_name(text: &str) -> Result<Name, NameError> {
    Name::parse(text)
}

/// Prints a token.
pub(super) fn token(options: &TokenOptions, config: &ClientConfig) -> Result<(), Failure> {
    let signer = Signer::new(options.kid.clone(), options.audience.clone(), config)?;
    TopicPatterns::parse(&options.topics).or_exit(Exit::Usage)?;
    let allowed = Allowed { device: options.device.as_ref(), topics: &options.topics, sessions: options.sessions };
    print(signer.sign(&options.user, allowed, options.ttl)?)
}

/// Makes tokens with a secret that was found once.
pub(super) struct Signer {
    secret: Secret,
    kid: Option<String>,
    audience: Option<String>,
}

/// What a token lets its bearer do, beside being the user.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowed<'a> {
    /// The only device; `None` for any.
    device: Option<&'a Name>,
    /// Patterns of topics.
    topics: &'a [String],
    /// Devices that may be connected at once; `None` for as many as the server says.
    sessions: Option<u32>,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    topics: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    iat: u64,
    exp: u64,
}

impl Signer {
    pub(super) fn new(kid: Option<String>, audience: Option<String>, config: &ClientConfig) -> Result<Self, Failure> {
        let found = config.jwt_secret(kid.as_deref()).or_exit(Exit::Configuration)?;
        tell_origin("JWT secret", &found);
        let audience = audience.or_else(|| config.jwt_audience().map(str::to_owned));
        Ok(Self { secret: found.secret, kid, audience })
    }

    pub(super) fn sign(&self, user: &Name, allowed: Allowed<'_>, ttl: Span) -> Result<String, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let claims = Claims {
            sub: user.as_str(),
            device: allowed.device.map(Name::as_str),
            topics: allowed.topics,
            sessions: allowed.sessions,
            aud: self.audience.as_deref(),
            iat: now,
            exp: now.saturating_add(ttl.0.as_secs().max(1)),
        };
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
        header.kid.clone_from(&self.kid);
        let key = jsonwebtoken::EncodingKey::from_secret(self.secret.expose());
        jsonwebtoken::encode(&header, &claims, &key).or_exit(Exit::Other)
    }
}

/// Says so when a secret comes from the dev secrets: it only fits a server on this machine.
pub(super) fn tell_origin(what: &str, found: &Found) {
    if let Some(file) = &found.dev_file {
        note(format_args!("{what} of `homing serve --dev`, from {}", file.display()));
    }
}
