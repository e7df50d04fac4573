//! Appending messages to inboxes.
//!
//! Owns what a message may be, how it becomes a stream entry, and who waits for what becomes of it. It must not know HTTP, sessions or sockets. Invariant:
//! a message that was answered with an id is in the inbox, exactly as it came; nothing is ever trimmed here.

pub mod error;
pub mod message;
pub mod publisher;
mod topics;
pub mod waits;

pub use error::{Limit, PublishError};
pub use message::{NewMessage, Payload};
pub use publisher::{Published, Publisher, PublisherConfig};
pub use waits::Waits;
