//! The first page, with `--dev`.

use axum::Router;

use crate::config::ServeConfig;

/// The page's routes; none without `--dev`.
pub(super) fn routes(_config: &ServeConfig) -> Router {
    Router::new()
}
