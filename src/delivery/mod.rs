//! (under construction)

pub mod janitor;
pub mod nodes;
pub mod readiness;
