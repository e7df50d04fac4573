//! The closed list of error codes, shared by `error` frames and HTTP problem documents.

/// What went wrong, for programs. The text of each is part of the protocol and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The frame or body is not what the protocol says.
    Malformed,
    /// A frame of an unknown `type`.
    UnknownType,
    /// The first frame was not `connect`, or a second `connect` came.
    UnexpectedFrame,
    /// No `connect` frame in time.
    ConnectTimeout,
    /// A name is missing or outside the alphabet.
    BadName,
    /// A text is not a message id.
    BadId,
    /// A member is missing or out of its bounds.
    BadValue,
    /// Missing or invalid credentials.
    Unauthorized,
    /// The token's `exp` has passed.
    TokenExpired,
    /// The credentials do not allow this.
    Forbidden,
    /// The user has the most devices that are allowed, all in use.
    TooManyDevices,
    /// A body, frame, payload or `meta` over its limit.
    TooBig,
    /// Too many messages in one batch.
    TooMany,
    /// Too many frames or requests.
    RateLimited,
    /// Another connection of this device took over.
    Superseded,
    /// The device was deleted.
    Removed,
    /// Another device of the user connected, and no more may be connected at once.
    Replaced,
    /// The session was ended by its operator.
    Kicked,
    /// Nothing was heard from the client for too long.
    Silent,
    /// The node is draining.
    Draining,
    /// No such path, or nothing by that id.
    NotFound,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The body is not declared as JSON.
    UnsupportedMediaType,
    /// Only unknown WebSocket subprotocols were offered.
    UnknownSubprotocol,
    /// The request is no WebSocket upgrade.
    UpgradeRequired,
    /// The `Host` header is not one that this server answers to.
    BadHost,
    /// The inbox key holds something else than a stream, or another key of a user or topic what it should not.
    InboxUnusable,
    /// Redis cannot be used now: memory full, read-only, loading, lacking replicas, unreachable. Safe to retry.
    Unavailable,
    /// Redis did not answer in time; whether the write happened is unknown.
    OutcomeUnknown,
    /// The node holds as many connections as it may.
    Overloaded,
    /// A fault of the server.
    Internal,
}

impl ErrorCode {
    /// Every code, for documentation and tests.
    pub const ALL: [Self; 31] = [
        Self::Malformed,
        Self::UnknownType,
        Self::UnexpectedFrame,
        Self::ConnectTimeout,
        Self::BadName,
        Self::BadId,
        Self::BadValue,
        Self::Unauthorized,
        Self::TokenExpired,
        Self::Forbidden,
        Self::TooManyDevices,
        Self::TooBig,
        Self::TooMany,
        Self::RateLimited,
        Self::Superseded,
        Self::Removed,
        Self::Replaced,
        Self::Kicked,
        Self::Silent,
        Self::Draining,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::UnsupportedMediaType,
        Self::UnknownSubprotocol,
        Self::UpgradeRequired,
        Self::BadHost,
        Self::InboxUnusable,
        Self::Unavailable,
        Self::OutcomeUnknown,
        Self::Overloaded,
        Self::Internal,
    ];

    /// The code as it stands in frames and problem documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownType => "unknown_type",
            Self::UnexpectedFrame => "unexpected_frame",
            Self::ConnectTimeout => "connect_timeout",
            Self::BadName => "bad_name",
            Self::BadId => "bad_id",
            Self::BadValue => "bad_value",
            Self::Unauthorized => "unauthorized",
            Self::TokenExpired => "token_expired",
            Self::Forbidden => "forbidden",
            Self::TooManyDevices => "too_many_devices",
            Self::TooBig => "too_big",
            Self::TooMany => "too_many",
            Self::RateLimited => "rate_limited",
            Self::Superseded => "superseded",
            Self::Removed => "removed",
            Self::Replaced => "replaced",
            Self::Kicked => "kicked",
            Self::Silent => "silent",
            Self::Draining => "draining",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::UnknownSubprotocol => "unknown_subprotocol",
            Self::UpgradeRequired => "upgrade_required",
            Self::BadHost => "bad_host",
            Self::InboxUnusable => "inbox_unusable",
            Self::Unavailable => "unavailable",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal",
        }
    }
}
