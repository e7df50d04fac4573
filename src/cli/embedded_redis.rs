//! The hidden commands with which `homing` runs itself around the private redis-server.

use std::path::PathBuf;

use super::exit::{Exit, Failure, OrExit as _};
use crate::store::embedded;

#[derive(Debug, clap::Subcommand)]
pub(super) enum EmbeddedRedisCommand {
    /// Locks the data directory, runs redis-server, and ends it when standard input ends.
    Guard {
        /// Only to be seen in a list of processes; the order comes on standard input.
        #[arg(long)]
        data_dir: PathBuf,
    },
    /// Becomes redis-server.
    Exec {
        #[arg(long)]
        parent: u32,
        #[arg(long)]
        server: PathBuf,
        #[arg(long)]
        settings: PathBuf,
    },
}

pub(super) fn run(command: EmbeddedRedisCommand) -> Result<(), Failure> {
    match command {
        EmbeddedRedisCommand::Guard { data_dir: _ } => match embedded::guard() {
            Ok(()) => Ok(()),
            // Its supervisor has been told, and tells people.
            Err(_) => std::process::exit(Exit::Other as i32),
        },
        EmbeddedRedisCommand::Exec { parent, server, settings } => {
            embedded::exec(parent, &server, &settings).map(|never| match never {}).or_exit(Exit::Other)
        }
    }
}
