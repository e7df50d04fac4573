//! Presence: who comes online and goes offline, written to a stream for other programs.
//!
//! Owns the stream's entries, each owner's index of the devices that it announced, and when a device that has no
//! session is looked at. It must not know why sessions come and go; whether a device is gone for good is decided by the
//! functions `attach` and `look` of `migrations/`. Invariant: an index names a device only after its coming was written,
//! and until its going was, so that whoever stands in for a dead node repeats an entry at worst.

mod entry;
pub mod orphans;
mod shard;
mod step;

pub(super) use shard::Presence;
pub(super) use step::Step;
