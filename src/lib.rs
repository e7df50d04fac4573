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

// The fuzz targets live inside of the crate, because much of what they feed is private to it, and are only compiled
// for fuzzing and for tests: `fuzz/fuzz_targets` calls them with coverage guidance, their own tests replay the corpus.
#[cfg(any(test, fuzzing))]
#[path = "../fuzz/targets/mod.rs"]
pub mod fuzzing;
