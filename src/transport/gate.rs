//! What stands before a session: who may get in, and how many.

use std::sync::Arc;
use std::time::Duration;

use homing_protocol::code::ErrorCode;

use super::handshake::Refused;
use super::slots::Slots;
use crate::auth::TokenVerifier;
use crate::delivery::ShardHandle;

/// The node is full.
pub(super) const FULL: Refused = Refused {
    status: 503,
    code: ErrorCode::Overloaded,
    detail: "this node holds as many sessions as it may (sessions_max); connect to another one",
};

/// Says whether a `Host` header is one that this server answers to.
pub type HostFilter = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What every connection of a shard needs to get in.
pub struct Gate {
    /// The shard.
    pub shard: ShardHandle,
    /// Client tokens.
    pub verifier: TokenVerifier,
    /// Places for sessions.
    pub slots: Slots,
    /// Places for connections of every kind.
    pub connections: Slots,
    /// Time for the `connect` frame.
    pub connect_timeout: Duration,
    /// Which `Host` headers are answered; all if `None`.
    pub hosts: Option<HostFilter>,
}

impl Gate {
    /// Why a request was refused by its `Host` header.
    pub(super) const BAD_HOST: &'static str = "this development server answers to loopback names only";

    /// Whether a request with this `Host` header is answered. A page of another site that made a browser resolve its
    /// name to loopback would send that name.
    pub(super) fn answers_to(&self, host: Option<&str>) -> bool {
        self.hosts.as_ref().is_none_or(|answers| host.is_some_and(|host| answers(host)))
    }
}
