//! What can go wrong with Redis, by what the caller should do about it.

use redis::{ErrorKind, RedisError};
use thiserror::Error;

/// A failed Redis command.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// Redis refused the command or could not be reached before it was sent: nothing was written.
    #[error("Redis is unavailable: {0}")]
    Unavailable(String),
    /// The command was sent, but no answer came: whether it was executed is unknown.
    #[error("Redis did not answer; whether the command was executed is unknown: {0}")]
    OutcomeUnknown(String),
    /// A user follows other topics now, and the topics' lists of followers could not be written.
    #[error("what the user follows is changed, but not listed at the topic; repeat the call, which lists it: {0}")]
    NotListed(String),
    /// The key holds another type than Homing expects.
    #[error("a key of this user holds another type than a Homing key should")]
    WrongType,
    /// The functions of `migrations/` are not loaded (any more).
    #[error("Homing's functions are not loaded in Redis")]
    FunctionMissing,
    /// The consumer group or the stream does not exist.
    #[error("no such consumer group")]
    NoGroup,
    /// A reply or an error that Homing does not understand.
    #[error("unexpected answer of Redis: {0}")]
    Unexpected(String),
}

/// Error codes of replies that refuse a command for a while: nothing was written, and retrying later is right.
const REFUSALS: [&str; 9] =
    ["OOM", "MISCONF", "NOREPLICAS", "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY"];

impl StoreError {
    /// The variant as a metric's label.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::OutcomeUnknown(_) | Self::NotListed(_) => "outcome_unknown",
            Self::WrongType => "wrong_type",
            Self::FunctionMissing => "function_missing",
            Self::NoGroup => "no_group",
            Self::Unexpected(_) => "unexpected",
        }
    }

    /// Sorts an error reply by its code and text.
    #[must_use]
    pub fn from_reply(code: &str, text: &str) -> Self {
        if REFUSALS.contains(&code) {
            return Self::Unavailable(format!("{code} {text}"));
        }
        // Inside a function, Redis wraps the refusal: "ERR OOM command not allowed … script: …".
        if let Some(refusal) = REFUSALS.iter().find(|refusal| text.starts_with(**refusal)) {
            return Self::Unavailable(format!("{refusal} {text}"));
        }
        match code {
            "WRONGTYPE" => Self::WrongType,
            "NOGROUP" => Self::NoGroup,
            _ if text.contains("WRONGTYPE") => Self::WrongType,
            _ if text.contains("Function not found") => Self::FunctionMissing,
            _ => Self::Unexpected(format!("{code} {text}")),
        }
    }

    /// Sorts an error reply inside a pipeline's replies.
    #[must_use]
    pub fn from_server(error: &redis::ServerError) -> Self {
        Self::from_reply(error.code(), error.details().unwrap_or_default())
    }
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => {
                Self::from_reply(error.code().unwrap_or_default(), error.detail().unwrap_or_default())
            }
            ErrorKind::Io if error.is_connection_refusal() => Self::Unavailable(error.to_string()),
            ErrorKind::Io if error.is_timeout() || error.is_connection_dropped() => {
                Self::OutcomeUnknown(error.to_string())
            }
            ErrorKind::Io | ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => {
                Self::Unavailable(error.to_string())
            }
            _ => Self::Unexpected(error.to_string()),
        }
    }
}
