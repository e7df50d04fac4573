//! Homing: a durable push engine on Redis Streams.
//!
//! Imports run one way: `protocol ← config ← telemetry ← store ← {auth, publish, delivery} ← {transport, api, console, bench}
//! ← cli`. See `docs/ARCHITECTURE.md`.

pub mod api;
pub mod auth;
pub mod bench;
pub mod cli;
pub mod config;
pub mod console;
pub mod delivery;
pub mod publish;
pub mod store;
pub mod telemetry;
pub mod transport;
