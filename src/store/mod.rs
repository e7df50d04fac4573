//! Redis as Homing uses it: keys, connections, functions, errors, and the embedded server.
//!
//! Owns every key name and every decoding of a reply. It must not know sessions, HTTP or sockets. Invariant: a key of
//! one user is only ever touched together with keys of that same user.

pub mod connect;
pub mod embedded;
pub mod error;
pub mod functions;
pub mod keys;
mod line;
pub mod message_view;
pub mod migrate;
mod piggyback;
pub mod presence;
pub mod replies;
pub mod resp;
pub mod server;
mod straight;
#[cfg(test)]
pub(crate) mod test_server;
pub mod topic_view;
pub mod topics;
pub mod view;
mod wire;

pub use connect::{Store, StoreConfig};
pub use embedded::{Embedded, EmbeddedConfig, EmbeddedError};
pub use error::StoreError;
pub use functions::Function;
pub use keys::{Key, KeySpace, Lock};
pub use line::Line;
pub use piggyback::{Piggyback, Rider};
pub use wire::Wire;
