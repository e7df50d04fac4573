//! Frames of `homing.v1`: JSON texts in both directions.
//!
//! Owns their shapes and strict parsing. It must not know sessions or transports. Invariant: whatever bytes a client
//! sends, parsing answers with a frame or a typed error, and text from a client is only ever echoed
//! as `ref`, as the id of a gap that it acked, or as a short piece in an error's message.

mod ack;
pub mod client;
pub mod server;

pub use client::{AckId, ClientFrame, Connect, FrameError, Incoming, StartFrom};
pub use server::{Gap, GapReason, MessagesFrame, Ready, ServerFrame};
