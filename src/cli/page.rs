//! The first page, with `--dev`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use homing_protocol::name::Name;

use super::greeting::redis_cli;
use crate::auth::Grant;
use crate::config::ServeConfig;
use crate::console::{self, DevSession};
use crate::store::{Key, Store};

/// How long the page's tokens are valid; it renews them in time.
const TOKEN_SECONDS: u64 = 60 * 60;

/// The page's routes; none without `--dev`.
pub(super) fn routes(config: &ServeConfig, store: &Store) -> Router {
    let (Some(dev), Some(secret)) = (&config.dev, config.jwt.secrets.first().cloned()) else { return Router::new() };
    // A key that was given is known by its hash only.
    let api_key = dev.api_key.as_ref().map(|key| String::from_utf8_lossy(key.expose()).into_owned());
    let audience = config.jwt.audience.clone();
    let redis_cli = redis_cli(store.client());
    let keys = store.keys().clone();
    console::router(Arc::new(move |user: &Name| {
        let issued_at_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let grant = Grant {
            user,
            device: None,
            topics: &[],
            audience: audience.as_deref(),
            issued_at_s,
            expires_at_s: issued_at_s + TOKEN_SECONDS,
        };
        Ok(DevSession {
            token: grant.sign(&secret)?,
            api_key: api_key.clone(),
            redis_cli: redis_cli.clone(),
            inbox: keys.name(Key::Inbox(user)),
        })
    }))
}
