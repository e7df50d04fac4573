//! Delivery: from wake-ups to frames, from acks to trims.
//!
//! Owns the shards, which drive session machines (`homing_protocol::session`) over Redis, and what a node does beside:
//! heartbeats, the janitor, readiness. It must not know transports, HTTP or tokens: a transport hands it an
//! [`outlet::Outlet`] and events. Invariants: one pipeline in flight per shard; a sent read is never abandoned; a shard
//! decides nothing that the session machine could.

mod batch;
mod control;
mod cursors;
mod dispatch;
mod drain;
mod event;
mod fan_out;
mod feeds;
mod hints;
pub mod janitor;
mod link;
mod linkage;
pub mod nodes;
mod observe;
mod outbox;
pub mod outlet;
mod own_events;
mod pipeline;
pub mod presence;
mod probe;
mod queue;
pub mod readiness;
mod reads;
mod receipts;
mod riders;
mod sessions;
mod shard;
mod topic_pipeline;
mod trims;
mod turn;
mod wheel;

// What turns other programs' bytes into values, for the fuzz targets.
#[cfg(any(test, fuzzing))]
pub(crate) use control::{Control, GapRecord};
#[cfg(any(test, fuzzing))]
pub(crate) use nodes::Heartbeat;
#[cfg(any(test, fuzzing))]
pub(crate) use pipeline::decode;

pub use event::{Renewal, ShardGone, ShardHandle, Told};
pub use sessions::SessionKey;
pub use shard::{Receipted, Shard, ShardConfig, ShardRun, Stop};
