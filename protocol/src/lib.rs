//! Homing's client protocol and session state machine.
//!
//! Owns the words that both sides of a connection share: ids, names, frames, close codes, error codes, limits, and
//! the machine that decides what one session does. It must not know tokio, Redis, HTTP, a clock or randomness: time
//! and results of I/O come in as arguments, actions go out as values. Invariant: same inputs, same actions.

pub mod close;
pub mod code;
pub mod depth;
pub mod frame;
pub mod id;
pub mod json;
pub mod limits;
pub mod message;
pub mod name;
pub mod session;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
pub mod topic;
