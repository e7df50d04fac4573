//! Structured logs, to standard error.
//!
//! Rules for every line that Homing logs: no token, secret, API key or password, and no message content, in whole or
//! in part, on any level; a Redis URL only without its password. Users and devices may be named on the level `debug`
//! and below. Text that a peer chose goes into a field, never into the message, and the formatters escape it there.
//! A failure is logged once, by the one who handles it.

use std::io::IsTerminal;

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people: one line of text, with colours on a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum LogError {
    /// The filter cannot be parsed.
    #[error(
        "not a log filter: {0}; write a level (error, warn, info, debug, trace) or target=level, separated by commas"
    )]
    Filter(String),
    /// Something in this process already receives the logs.
    #[error("logs are already set up in this process")]
    AlreadySet,
}

/// Sends logs to standard error. `filter` is a level or a list of `target=level`, as in `info,homing=debug`.
///
/// # Errors
/// [`LogError`], if the filter is malformed or logs were set up before.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let filter = parse(filter)?;
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Human => {
            registry.with(layer.with_ansi(std::io::stderr().is_terminal()).with_target(false)).try_init()
        }
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_current_span(true).with_span_list(false)).try_init()
        }
    }
    .map_err(|_| LogError::AlreadySet)
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder().parse(filter).map_err(|error| LogError::Filter(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_filter_is_refused_with_what_is_allowed() {
        assert!(parse("info").is_ok());
        assert!(parse("warn,homing=debug").is_ok());
        let error = parse("homing=loud").unwrap_err().to_string();
        assert!(error.contains("trace"), "{error}");
    }
}
