//! WebSocket close codes and what they tell a client to do.

/// Why a connection is closed. 4000-4099: do not reconnect by yourself. 4100-4199: reconnect with backoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// 1000: the client asked for it (`forget`).
    Normal,
    /// 1011: the server could not go on; reconnect with backoff.
    Internal,
    /// 1009: a client frame over the limit.
    TooBig,
    /// 4000: the client broke the protocol.
    Protocol,
    /// 4001: the token is missing or invalid.
    Unauthorized,
    /// 4003: the token is valid, but this is not allowed.
    Forbidden,
    /// 4009: another connection of this device took over.
    Superseded,
    /// 4010: a session policy replaced this session.
    Replaced,
    /// 4011: kicked, or the device was deleted.
    Removed,
    /// 4101: the token expired; get a new one, then reconnect.
    TokenExpired,
    /// 4108: nothing was heard from the client for too long.
    Silent,
    /// 4112: the node is draining.
    Draining,
    /// 4129: too many frames.
    RateLimited,
}

impl CloseCode {
    /// The number in the close frame.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::Protocol => 4000,
            Self::Unauthorized => 4001,
            Self::Forbidden => 4003,
            Self::Superseded => 4009,
            Self::Replaced => 4010,
            Self::Removed => 4011,
            Self::TokenExpired => 4101,
            Self::Silent => 4108,
            Self::Draining => 4112,
            Self::RateLimited => 4129,
        }
    }

    /// Whether a client may reconnect by itself after a close with this number.
    #[must_use]
    pub fn may_reconnect(number: u16) -> bool {
        !matches!(number, 1000 | 1002 | 1003 | 1007..=1009 | 4000..=4099)
    }
}
