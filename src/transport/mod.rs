//! Transports: from sockets to sessions, and HTTP beside them.
//!
//! Owns the listener, the accept loop, the WebSocket handshake and the task of each connection. It must not know Redis
//! or what a session decides: it verifies tokens, passes frames to a shard and writes what its outlet holds.
//! Invariants: nothing that a peer sends ends more than its own connection; every wait for a peer has a limit.

mod accept;
mod gate;
mod handshake;
mod http;
mod listener;
mod opening;
mod prefixed;
mod shared_stream;
mod slots;
mod socket;
mod upgrade;

// The parser of what comes before anybody is known, for the fuzz targets.
#[cfg(any(test, fuzzing))]
pub(crate) use opening::{OpeningError, parse as parse_head};

pub use accept::{AcceptConfig, Acceptor};
pub use gate::{Gate, HostFilter};
pub use listener::{ListenError, listen};
pub use slots::Slots;
