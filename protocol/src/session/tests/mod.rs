//! Tests of the session machine in virtual time.
//!
//! A [`pair::Pair`] holds simulated clients, nodes that drive real sessions as `src/delivery` does, and a model of
//! what Redis does for one user. Nothing here knows a clock, a socket or a real server. The claims are examples that
//! read as sentences; `promise` plays random interleavings against the promise of DESIGN.md.

mod claims;
mod connection;
mod node;
mod pair;
mod play;
mod promise;
mod redis;
