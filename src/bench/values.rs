//! The values that options of `homing bench` take.

use std::num::NonZeroU32;
use std::str::FromStr;

use super::worker::payload::SIZE_MIN;

/// How many nodes are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeCount {
    /// As many as the devices need.
    Auto,
    /// So many.
    Count(u32),
}

impl FromStr for NodeCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            text => match text.parse::<NonZeroU32>() {
                Ok(count) => Ok(Self::Count(count.get())),
                Err(_) => Err("expected a number from 1, or auto".to_owned()),
            },
        }
    }
}

/// Messages each second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as possible.
    Max,
    /// So many.
    PerSecond(f64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "max" => Ok(Self::Max),
            text => match text.parse::<f64>() {
                Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(Self::PerSecond(rate)),
                _ => Err("expected a number of messages each second, or max".to_owned()),
            },
        }
    }
}

/// How messages are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Via {
    /// POST to the nodes.
    Http,
    /// XADD to Redis, pipelined.
    Xadd,
}

pub(super) fn size(text: &str) -> Result<usize, String> {
    let bytes = text.parse::<crate::config::quantity::ByteSize>().map_err(|error| error.to_string())?.0;
    if bytes < SIZE_MIN {
        return Err(format!("at least {SIZE_MIN}: a payload says when it was meant to be sent"));
    }
    Ok(bytes)
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(Rate::PerSecond(rate)) => Ok(rate),
        _ => Err("expected a number of messages each second".to_owned()),
    }
}
