//! The first page of `--dev`: a client in the browser, and the credentials that it needs.
//!
//! Owns the page and the policy under which a browser runs it. It must not know Redis or sessions: it is a client like
//! any other. Invariant: credentials go to pages of this very server only, and the page runs no script but its own.

mod page;
mod session;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use homing_protocol::name::Name;

pub use session::DevSession;

use crate::auth::SignError;

/// Makes credentials for a user.
pub type MakeSession = Arc<dyn Fn(&Name) -> Result<DevSession, SignError> + Send + Sync>;

/// `GET /` and `GET /dev/session`. To be served in `--dev` only, where foreign `Host` headers are refused before.
pub fn router(make_session: MakeSession) -> Router {
    let page = page::Page::new();
    Router::new()
        .route("/", get(async move || page.answer()))
        .route("/dev/session", get(session::answer))
        .with_state(make_session)
}
