//! The command line: what people and scripts type.
//!
//! Owns options of commands, exit codes, and what is printed. It must not know how a message is delivered. Invariant:
//! standard output carries what was asked for and nothing else; every word about it goes to standard error.

mod api;
mod backoff;
mod bench;
mod connection;
mod descriptors;
mod embedded_redis;
mod exit;
mod greeting;
mod health;
mod inspect;
mod listen;
mod listener;
mod migrate;
mod node;
mod page;
mod pending;
mod publish;
mod reload;
mod serve;
mod shutdown;
mod threads;
mod token;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::limit_options::LimitOptions;
use crate::config::{ClientConfig, ClientOptions, Host, ServeOptions};
use exit::{Exit, Failure, OrExit as _};

/// A durable push engine on Redis Streams: every message finds its way home.
///
/// Producers append messages to a user's inbox, by HTTP or by XADD; the user's devices receive them through a
/// WebSocket and acknowledge them; only that removes them.
#[derive(Debug, Parser)]
#[command(name = "homing", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Try it out:
  homing serve --dev                              a node with a private Redis, on loopback
  homing listen --user alice                      receives as alice, in another terminal
  homing publish --user alice '{\"text\":\"hi\"}'     sends her something

Every option of `serve` has a flag, an environment variable (HOMING_...) and a key in
homing.toml; the flag wins over the variable, the variable over the file. Secrets have no
flag: set HOMING_API_KEY and HOMING_JWT_SECRET, or HOMING_API_KEY_FILE and
HOMING_JWT_SECRET_FILE.

Exit codes:
  0  done
  1  failed in a way not listed here
  2  the command line is wrong
  3  the configuration is wrong or incomplete
  4  the server or Redis cannot be reached, or cannot serve now: worth a retry
  5  credentials missing, wrong or expired, or without the right to do this
  6  the request itself was rejected
  7  this Redis cannot be used: too old, evicts messages, or has a newer schema
  8  the data directory or an address is in use
  9  the server ended the session: another connection took over, or device removed";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node.
    #[command(after_help = serve::AFTER_HELP)]
    Serve(Box<ServeOptions>),
    /// Make a token with which a user's devices connect.
    #[command(after_help = token::AFTER_HELP)]
    Token(token::TokenOptions),
    /// Send a message to a user.
    #[command(after_help = publish::AFTER_HELP)]
    Publish(publish::PublishOptions),
    /// Receive a user's messages, print and acknowledge them.
    #[command(after_help = listen::AFTER_HELP)]
    Listen(listen::ListenOptions),
    /// Show a user's devices and pending messages, or the content of one message.
    #[command(after_help = inspect::AFTER_HELP)]
    Inspect(inspect::InspectOptions),
    /// Bring a Redis to the schema of this version, as `serve` does at its start.
    #[command(after_help = migrate::AFTER_HELP)]
    Migrate(migrate::MigrateOptions),
    /// Measure latency, throughput, CPU and memory, here or on your own cluster.
    #[command(after_help = bench::AFTER_HELP, subcommand)]
    Bench(crate::bench::options::BenchCommand),
    /// The processes around the private Redis; not for people.
    #[command(hide = true, subcommand)]
    EmbeddedRedis(embedded_redis::EmbeddedRedisCommand),
}

/// Runs the program to its end.
#[must_use]
pub fn run() -> ExitCode {
    let line = match Line::from_arg_matches(&command().get_matches()) {
        Ok(line) => line,
        Err(error) => error.exit(),
    };
    match dispatch(line.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(options) => serve::serve(*options),
        Command::EmbeddedRedis(command) => embedded_redis::run(command),
        Command::Bench(command) => block_on(bench::bench(command)),
        Command::Token(options) => token::token(&options, &resolve(&options.client)?),
        Command::Publish(options) => {
            let client = resolve(&options.client)?;
            block_on(publish::publish(options, client))
        }
        Command::Listen(options) => {
            let client = resolve(&options.client)?;
            block_on(listen::listen(options, client))
        }
        Command::Inspect(options) => {
            let client = resolve(&options.client)?;
            block_on(inspect::inspect(options, client))
        }
        Command::Migrate(options) => {
            let client = resolve(&options.client)?;
            block_on(migrate::migrate(options, client))
        }
    }
}

fn resolve(client: &ClientOptions) -> Result<ClientConfig, Failure> {
    ClientConfig::resolve(client.clone(), Host::current()).or_exit(Exit::Configuration)
}

/// One thread is plenty for a client command.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    runtime()?.block_on(command)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().or_exit(Exit::Other)
}

/// The command line, with defaults and bounds of the limits added to their help.
fn command() -> clap::Command {
    Line::command().mut_subcommand("serve", |serve| {
        LimitOptions::table().into_iter().fold(serve, |serve, row| {
            serve.mut_arg(row.option, |argument| {
                let what = argument.get_help().map(ToString::to_string).unwrap_or_default();
                argument.help(format!("{what} [default: {}; {} to {}]", row.default, row.min, row.max))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn help_names_the_default_and_bounds_of_every_limit() {
        let mut command = command();
        let help = command.find_subcommand_mut("serve").unwrap().render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for row in LimitOptions::table() {
            assert!(help.contains(&format!("[default: {}; {} to {}]", row.default, row.min, row.max)), "{row:?}");
        }
    }
}
