//! Fuzz targets: functions from bytes to assertions.
//!
//! A target turns whatever bytes it gets into input of one boundary, and panics when what came out breaks that
//! boundary's promise. It must not know who calls it: libFuzzer with coverage guidance, or the tests with the corpus.
//! Invariant: no target does I/O or reads a clock, so that an input means the same every time. See `docs/FUZZING.md`.

mod client_frames;
mod configuration;
mod cursor;
mod entries;
mod handshake;
mod names;
mod redis_values;
mod replies;
mod requests;
mod session;
mod session_redis;
mod tokens;

#[cfg(test)]
mod corpus_tests;

pub use client_frames::client_frames;
pub use configuration::configuration;
pub use entries::entries;
pub use handshake::handshake;
pub use names::names;
pub use replies::replies;
pub use requests::requests;
pub use session::session;
pub use tokens::tokens;

/// The name of a corpus, and what takes it.
#[cfg(test)]
type Target = (&'static str, fn(&[u8]));

#[cfg(test)]
const TARGETS: [Target; 9] = [
    ("client_frames", client_frames),
    ("configuration", configuration),
    ("entries", entries),
    ("handshake", handshake),
    ("names", names),
    ("replies", replies),
    ("requests", requests),
    ("session", session),
    ("tokens", tokens),
];
