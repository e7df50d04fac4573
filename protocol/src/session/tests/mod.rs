//! Tests of the session machine in virtual time, by the simulation in `crate::simulation`.
//!
//! The claims are examples that read as sentences; `promise` plays random interleavings against the promise of
//! DESIGN.md. What happens in any order within small bounds is explored by `tests/model/`.

use crate::simulation::{connection, node, pair};

mod claims;
mod play;
mod promise;
