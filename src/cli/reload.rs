//! SIGHUP: the configuration is read again for API keys, so that one can be added or revoked without a restart.

use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use super::exit::{Exit, Failure, OrExit as _};
use crate::auth::ApiKeys;
use crate::config::{Host, ServeConfig, ServeOptions};

/// Reads the configuration again.
pub(super) struct Reload {
    options: ServeOptions,
}

impl Reload {
    pub(super) fn new(options: ServeOptions) -> Self {
        Self { options }
    }

    /// Listens for SIGHUP from now on, until it is dropped.
    pub(super) fn run(self, keys: ApiKeys) -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
        let mut hangup = signal(SignalKind::hangup()).or_exit(Exit::Other)?;
        Ok(async move {
            while hangup.recv().await.is_some() {
                match ServeConfig::resolve(self.options.clone(), &Host::current()) {
                    Ok(config) => {
                        info!(keys = config.api_keys.len(), "API keys were read again; other settings need a restart");
                        keys.replace(config.api_keys);
                    }
                    // The node goes on with what it has: a mistake in a file must not lock everybody out.
                    Err(error) => error!(%error, "the configuration is not usable; the API keys stay as they were"),
                }
            }
        })
    }
}
