//! The HTTP API of producers and operators.
//!
//! Owns paths, request bodies, answers and problem documents. It must not know sessions or how Redis keeps things.
//! Invariant: every refused request is answered with a problem document whose code stands in the protocol's closed
//! list, and no message is published by a request that was refused as a whole.

mod answer;
mod batch;
mod body;
mod budget;
mod calls;
mod disconnect;
mod follows;
mod health;
mod host;
mod messages;
mod openapi;
mod page;
mod presence;
mod problem;
mod receipt;
mod request;
mod router;
mod topics;
mod users;

// The parsers of request bodies, for the fuzz targets.
#[cfg(any(test, fuzzing))]
pub(crate) use {batch::Batch, batch::parse_batch, messages::parse as parse_message, page::Page};

pub use budget::BodyBudget;
pub use health::{AdminState, Health};
pub use host::HostPolicy;
pub use problem::Problem;
pub use router::{ApiConfig, ApiState, admin_router, client_router, producer_router, public_router};

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
