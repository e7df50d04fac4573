//! The part of `homing serve` between start-up and the end: the listeners, the shards, the drain.

use super::exit::{Failure, note};
use super::greeting::greeting;
use super::shutdown::Shutdown;
use crate::config::ServeConfig;
use crate::store::Store;

/// Runs the node until `shutdown` begins, then drains it.
// UNDER CONSTRUCTION: listeners, shards and drain go here.
pub(super) async fn run(config: &ServeConfig, store: Store, mut shutdown: Shutdown) -> Result<(), Failure> {
    if config.dev.is_some() {
        super::exit::print(greeting(config, config.listen, store.client()))?;
    }
    let stage = shutdown.begins().await;
    note(format_args!("ending: {stage:?}"));
    Ok(())
}
