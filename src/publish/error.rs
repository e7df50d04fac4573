//! Why a message was not published.

use homing_protocol::code::ErrorCode;
use thiserror::Error;

use crate::store::StoreError;

/// A limit that a message exceeds, by its name in the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The limit's name.
    pub name: &'static str,
    /// Its value, in the unit that the name says.
    pub value: u64,
}

/// A message was not published, or it is not known whether it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PublishError {
    /// A part of the message is larger than its limit.
    #[error("'{member}' has {bytes} bytes; at most {} are allowed", .limit.value)]
    TooBig {
        /// The member that is too big.
        member: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: Limit,
    },
    /// A member is out of its bounds.
    #[error("'{member}' {detail}")]
    BadValue {
        /// The member.
        member: &'static str,
        /// What is wrong with it.
        detail: &'static str,
        /// The bound that it breaks, if that is a number.
        limit: Option<Limit>,
    },
    /// A key of the user or of the topic holds something of another type than it should.
    #[error(
        "a key of this user or topic (its inbox or log, a list) is of another type than it should be: look at it, delete it"
    )]
    InboxUnusable,
    /// Redis refused the write, or could not be reached: nothing was written.
    #[error("{0}")]
    Unavailable(String),
    /// Redis did not answer: the message may or may not be in the inbox.
    #[error("{0}")]
    OutcomeUnknown(String),
    /// An answer of Redis that Homing does not understand.
    #[error("{0}")]
    Internal(String),
}

impl PublishError {
    /// The code for problem documents.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooBig { .. } => ErrorCode::TooBig,
            Self::BadValue { .. } => ErrorCode::BadValue,
            Self::InboxUnusable => ErrorCode::InboxUnusable,
            Self::Unavailable(_) => ErrorCode::Unavailable,
            Self::OutcomeUnknown(_) => ErrorCode::OutcomeUnknown,
            Self::Internal(_) => ErrorCode::Internal,
        }
    }

    /// The limit that was hit.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Self::TooBig { limit, .. } => Some(*limit),
            Self::BadValue { limit, .. } => *limit,
            _ => None,
        }
    }
}

impl From<StoreError> for PublishError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::WrongType => Self::InboxUnusable,
            StoreError::Unavailable(_) => Self::Unavailable(error.to_string()),
            StoreError::OutcomeUnknown(_) | StoreError::NotListed(_) => Self::OutcomeUnknown(error.to_string()),
            StoreError::FunctionMissing | StoreError::NoGroup | StoreError::Unexpected(_) => {
                Self::Internal(error.to_string())
            }
        }
    }
}
