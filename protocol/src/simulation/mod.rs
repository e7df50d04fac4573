//! Clients, nodes and Redis in virtual time, around real session machines: for tests.
//!
//! A [`pair::Pair`] holds simulated clients, nodes that drive real sessions as `src/delivery` does, and a model of
//! what Redis does for one user. Nothing here knows a clock, a socket or a real server. The unit tests of the session
//! machine play with it, and `tests/model/` explores it exhaustively: hence everything can be cloned, compared and
//! hashed. Compiled for tests only (feature `simulation`).
#![allow(missing_docs, reason = "only tests see it, and their names say what things are")]

pub mod connection;
pub mod fault;
pub mod node;
pub mod pair;
pub mod redis;
