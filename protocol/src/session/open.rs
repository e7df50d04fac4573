//! What a session is opened with.

use crate::frame::Connect;
use crate::name::Name;
use crate::topic::TopicPatterns;

/// Limits that all sessions of a node share. Times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionConfig {
    /// Default window.
    pub window: u16,
    /// Bytes of payload in flight.
    pub in_flight_bytes_max: usize,
    /// First ack time-out.
    pub ack_timeout_ms: u64,
    /// Longest ack time-out.
    pub ack_timeout_max_ms: u64,
    /// Default heartbeat.
    pub heartbeat_ms: u32,
    /// Time between sweeps.
    pub sweep_ms: u64,
    /// Time between refreshes of the device's last-seen time.
    pub touch_ms: u64,
    /// Largest payload.
    pub payload_bytes_max: usize,
    /// Largest frame with several messages.
    pub frame_bytes_max: u32,
    /// Frames per second that a client may send.
    pub frames_per_second: u32,
    /// Frames that a client may send at once.
    pub frames_burst: u32,
    /// Whether sessions follow topics.
    pub topics: bool,
    /// How long acks of topics gather before cursors are written.
    pub cursor_flush_ms: u64,
}

/// What a session is opened with.
#[derive(Clone, Debug)]
pub struct Open {
    /// From the token.
    pub user: Name,
    /// From the token or the `connect` frame.
    pub device: Name,
    /// The `connect` frame.
    pub connect: Connect,
    /// What else the token says.
    pub terms: Terms,
    /// The node's primary epoch.
    pub primary: u64,
    /// Topics that the token lets the client follow and leave.
    pub topics: TopicPatterns,
}

/// What a token says of its session, beside user and device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// When it expires, Unix ms.
    pub expires_at_ms: u64,
    /// When it was issued, Unix seconds; `None` if it does not say.
    pub issued_at_s: Option<u64>,
    /// How many devices of the user may be connected at once, 0 for any number; `None`: as many as the node says.
    pub sessions: Option<u32>,
}

impl Terms {
    /// Of a token that only says when it expires.
    #[must_use]
    pub fn until(expires_at_ms: u64) -> Self {
        Self { expires_at_ms, issued_at_s: None, sessions: None }
    }
}

/// Why somebody else ended a session. The device's record says it until the next attach, so that a session that did not
/// hear it finds out, and does not take its device back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dismissal {
    /// Another device connected, and no more may be connected at once.
    Replaced,
    /// An operator ended it, for this reason, which may be empty.
    Kicked(Box<str>),
    /// The tokens of this user that were issued until some time are refused.
    TokenRefused,
}
