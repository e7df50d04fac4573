//! Configuration: what an operator may set, parsed once into types that cannot be wrong.
//!
//! Owns options, their bounds and their sources. It must not know Redis or sockets. Invariant: a value that was parsed
//! needs no further check.

pub mod limits;

pub use limits::Limits;
