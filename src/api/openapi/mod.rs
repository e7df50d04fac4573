//! The description of the HTTP API as a document (OpenAPI 3.1) and as a page, made from the code that serves it.
//!
//! Owns the calls' words, shapes and examples, a file for each group of calls. It must not answer calls itself, nor
//! repeat a limit: numbers come from the constants that the handlers check. Invariant: a row of the table of calls
//! cannot be written without its description, so a route without one does not exist.

pub(super) mod describe;
mod document;
pub(super) mod follows;
pub(super) mod health;
pub(super) mod messages;
mod page;
mod schema;
pub(super) mod topics;
pub(super) mod users;

pub(super) use describe::Description;
pub(super) use document::{document, serve_document};
pub(super) use page::serve_page;

#[cfg(test)]
mod tests;
