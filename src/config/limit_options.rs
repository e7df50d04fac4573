//! The options behind [`Limits`]: name, variable, bounds. Defaults stand in [`Limits::default`].

use std::fmt::Display;
use std::time::Duration;

use homing_protocol::limits::{BATCH_BYTES_MAX, HEARTBEAT_MS_MAX, WINDOW_MAX};
use serde::Deserialize;

use super::error::ConfigError;
use super::limits::Limits;
use super::quantity::{ByteSize, Span};

/// A limit as it is typed, and as [`Limits`] holds it.
trait Typed: Copy + PartialOrd + Display {
    type Held;
    fn held(self) -> Self::Held;
    fn typed(held: Self::Held) -> Self;
}

macro_rules! typed_as_held {
    ($($number:ty),*) => {$(
        impl Typed for $number {
            type Held = $number;
            fn held(self) -> $number {
                self
            }
            fn typed(held: $number) -> $number {
                held
            }
        }
    )*};
}
typed_as_held!(u16, u32, u64);

impl Typed for Span {
    type Held = Duration;
    fn held(self) -> Duration {
        self.0
    }
    fn typed(held: Duration) -> Self {
        Self(held)
    }
}

impl Typed for ByteSize {
    type Held = usize;
    fn held(self) -> usize {
        self.0
    }
    fn typed(held: usize) -> Self {
        Self(held)
    }
}

const fn ms(number: u64) -> Span {
    Span(Duration::from_millis(number))
}
const fn seconds(number: u64) -> Span {
    Span(Duration::from_secs(number))
}
const fn days(number: u64) -> Span {
    Span(Duration::from_secs(number * 24 * 60 * 60))
}
const fn kib(number: usize) -> ByteSize {
    ByteSize(number * 1024)
}

/// One limit, for help and documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRow {
    /// Name in the file; the flag has dashes instead.
    pub option: &'static str,
    /// Name in the environment.
    pub variable: &'static str,
    /// What holds if it is not set.
    pub default: String,
    /// Smallest allowed value.
    pub min: String,
    /// Largest allowed value.
    pub max: String,
}

macro_rules! limit_options {
    ($($(#[doc = $doc:literal])+ $option:ident: $typed:ty, $variable:literal, $min:expr, $max:expr;)*) => {
        /// Times and limits, as far as they are set.
        #[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Deserialize)]
        #[command(next_help_heading = "Times and limits")]
        #[serde(deny_unknown_fields, default)]
        pub struct LimitOptions {
            $(
                $(#[doc = $doc])+
                #[arg(long, env = $variable, hide_env_values = true, hide_short_help = true)]
                pub $option: Option<$typed>,
            )*
        }

        impl LimitOptions {
            /// What is set here, else what is set there.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                Self { $($option: self.$option.or(other.$option),)* }
            }

            /// Every limit with its default and bounds.
            #[must_use]
            pub fn table() -> Vec<LimitRow> {
                let defaults = Limits::default();
                vec![$(
                    LimitRow {
                        option: stringify!($option),
                        variable: $variable,
                        default: <$typed as Typed>::typed(defaults.$option).to_string(),
                        min: <$typed>::to_string(&$min),
                        max: <$typed>::to_string(&$max),
                    },
                )*]
            }

            fn within_bounds(&self) -> Result<Limits, ConfigError> {
                let defaults = Limits::default();
                Ok(Limits {
                    $($option: match self.$option {
                        None => defaults.$option,
                        Some(value) => within(stringify!($option), value, $min, $max)?.held(),
                    },)*
                })
            }
        }
    };
}

limit_options! {
    /// Messages that a session may have in flight, unless its client asks for another number.
    window: u16, "HOMING_WINDOW", 1, WINDOW_MAX;
    /// Bytes of payload that a session may have in flight.
    in_flight_bytes_max: ByteSize, "HOMING_IN_FLIGHT_BYTES_MAX", kib(16), kib(64 * 1024);
    /// Time after which an unacknowledged message is delivered again, the first time.
    ack_timeout: Span, "HOMING_ACK_TIMEOUT", ms(100), seconds(3_600);
    /// The longest that this time grows to, by doubling.
    ack_timeout_max: Span, "HOMING_ACK_TIMEOUT_MAX", ms(100), days(1);
    /// Longest that an ack waits to be sent to Redis together with others.
    ack_flush: Span, "HOMING_ACK_FLUSH", ms(0), ms(100);
    /// Longest that an acknowledged message waits to be removed from its inbox.
    trim_delay: Span, "HOMING_TRIM_DELAY", ms(10), seconds(600);
    /// Acks of one inbox after which it is trimmed at once.
    trim_acks: u32, "HOMING_TRIM_ACKS", 1, 100_000;
    /// Silence after which a session is pinged; twice that is death.
    heartbeat: Span, "HOMING_HEARTBEAT", ms(500), ms(HEARTBEAT_MS_MAX as u64);
    /// Time between two comparisons of a session with Redis.
    sweep: Span, "HOMING_SWEEP", ms(100), seconds(3_600);
    /// Largest payload (`data`).
    payload_bytes_max: ByteSize, "HOMING_PAYLOAD_BYTES_MAX", kib(1), ByteSize(BATCH_BYTES_MAX / 2);
    /// Bytes of request bodies that a node holds at once; beyond, publishes are refused.
    bodies_bytes_max: ByteSize, "HOMING_BODIES_BYTES_MAX", ByteSize(BATCH_BYTES_MAX), kib(16 * 1024 * 1024);
    /// Devices per user.
    devices_max: u32, "HOMING_DEVICES_MAX", 1, 1_000;
    /// Devices of a user that may be connected at once, unless the token says otherwise; 0 for any number.
    sessions_per_user: u32, "HOMING_SESSIONS_PER_USER", 0, 1_000;
    /// Time offline after which a device may be replaced by one more than `devices_max`.
    device_replace_after: Span, "HOMING_DEVICE_REPLACE_AFTER", seconds(1), days(3_650);
    /// Time offline after which a device is forgotten.
    device_idle_max: Span, "HOMING_DEVICE_IDLE_MAX", seconds(1), days(3_650);
    /// Frames per second that a client may send.
    frames_per_second: u32, "HOMING_FRAMES_PER_SECOND", 1, 1_000_000;
    /// Frames that a client may send at once.
    frames_burst: u32, "HOMING_FRAMES_BURST", 1, 1_000_000;
    /// Messages that an inbox keeps; older ones are dropped, and their devices told.
    inbox_length_max: u64, "HOMING_INBOX_LENGTH_MAX", 1, 10_000_000;
    /// Age at which a message is dropped.
    inbox_age_max: Span, "HOMING_INBOX_AGE_MAX", seconds(1), days(3_650);
    /// Topics that a user may follow.
    topics_per_user: u32, "HOMING_TOPICS_PER_USER", 1, 10_000;
    /// Messages that a topic keeps; older ones are dropped, and followers told who had not got them.
    topic_length_max: u64, "HOMING_TOPIC_LENGTH_MAX", 1, 10_000_000;
    /// Age at which a topic's message is dropped.
    topic_age_max: Span, "HOMING_TOPIC_AGE_MAX", seconds(1), days(3_650);
    /// Longest that acks of topics' messages wait to be written together with others.
    cursor_flush: Span, "HOMING_CURSOR_FLUSH", ms(0), seconds(60);
    /// Presence events that are kept, about; 0: presence is not announced.
    presence_length: u64, "HOMING_PRESENCE_LENGTH", 0, 100_000_000;
    /// Time without a session after which a device is announced as offline.
    presence_grace: Span, "HOMING_PRESENCE_GRACE", ms(100), seconds(3_600);
    /// Receipts that the stream of receipts keeps, about; 0: none are written to it.
    receipts_length: u64, "HOMING_RECEIPTS_LENGTH", 0, 100_000_000;
    /// Time between two passes of the janitor over all users.
    janitor_pause: Span, "HOMING_JANITOR_PAUSE", ms(100), days(1);
    /// Time between two heartbeats of a node.
    node_heartbeat: Span, "HOMING_NODE_HEARTBEAT", ms(100), seconds(60);
    /// Time without heartbeat after which a node is judged dead; at least twice the heartbeat.
    node_dead_after: Span, "HOMING_NODE_DEAD_AFTER", ms(200), seconds(600);
    /// Time after which Redis counts as not answering.
    redis_reply_timeout: Span, "HOMING_REDIS_REPLY_TIMEOUT", ms(100), seconds(60);
    /// Time for a client's first frame.
    connect_timeout: Span, "HOMING_CONNECT_TIMEOUT", ms(100), seconds(60);
    /// Time for the head of an HTTP request.
    header_timeout: Span, "HOMING_HEADER_TIMEOUT", ms(100), seconds(60);
    /// Drain: `/readyz` is red this long before the node stops accepting, so that balancers notice.
    drain_pause: Span, "HOMING_DRAIN_PAUSE", ms(0), seconds(600);
    /// Drain: closes are spread over this time.
    drain_spread: Span, "HOMING_DRAIN_SPREAD", ms(0), seconds(600);
    /// Drain: the process exits within this time; at least pause and spread together.
    drain_grace: Span, "HOMING_DRAIN_GRACE", seconds(1), seconds(3_600);
}

fn within<T: Typed>(option: &'static str, value: T, min: T, max: T) -> Result<T, ConfigError> {
    if value >= min && value <= max {
        return Ok(value);
    }
    let [value, min, max] = [value, min, max].map(|quantity| quantity.to_string());
    Err(ConfigError::OutOfBounds { option, value, min, max })
}

impl LimitOptions {
    /// Checks bounds, and the limits against each other.
    ///
    /// # Errors
    /// [`ConfigError`] names the limit and what it may be.
    pub fn resolve(&self) -> Result<Limits, ConfigError> {
        let limits = self.within_bounds()?;
        let at_least = |option, holds: bool, what: &str| {
            if holds { Ok(()) } else { Err(ConfigError::value(option, format!("must be at least {what}"))) }
        };
        at_least("ack_timeout_max", limits.ack_timeout_max >= limits.ack_timeout, "ack_timeout")?;
        at_least(
            "in_flight_bytes_max",
            limits.in_flight_bytes_max >= limits.payload_bytes_max,
            "payload_bytes_max, or the largest message could never be delivered",
        )?;
        at_least(
            "devices_max",
            limits.devices_max >= limits.sessions_per_user,
            "sessions_per_user, or that many devices could never be connected",
        )?;
        at_least("frames_burst", limits.frames_burst >= limits.frames_per_second, "frames_per_second")?;
        at_least(
            "node_dead_after",
            limits.node_dead_after >= limits.node_heartbeat * 2,
            "twice node_heartbeat, or one late heartbeat would be a death",
        )?;
        at_least(
            "drain_grace",
            limits.drain_grace >= limits.drain_pause + limits.drain_spread,
            "drain_pause and drain_spread together",
        )?;
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_their_bounds() {
        assert_eq!(LimitOptions::default().resolve().unwrap(), Limits::default());
        let defaults = Limits::default();
        let set = LimitOptions {
            heartbeat: Some(Span(defaults.heartbeat)),
            window: Some(defaults.window),
            payload_bytes_max: Some(ByteSize(defaults.payload_bytes_max)),
            drain_grace: Some(Span(defaults.drain_grace)),
            ..LimitOptions::default()
        };
        assert_eq!(set.resolve().unwrap(), defaults);
    }

    #[test]
    fn a_limit_out_of_bounds_is_refused_with_its_bounds() {
        let error = LimitOptions { window: Some(2_000), ..LimitOptions::default() }.resolve().unwrap_err();
        assert_eq!(error.to_string(), "window: 2000 is out of bounds; it must be between 1 and 1024");
        let error = LimitOptions { ack_timeout: Some(ms(5)), ..LimitOptions::default() }.resolve().unwrap_err();
        assert_eq!(error.to_string(), "ack_timeout: 5ms is out of bounds; it must be between 100ms and 1h");
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        for options in [
            LimitOptions { ack_timeout: Some(seconds(600)), ..LimitOptions::default() },
            LimitOptions { payload_bytes_max: Some(kib(2 * 1024)), ..LimitOptions::default() },
            LimitOptions { sessions_per_user: Some(21), ..LimitOptions::default() },
            LimitOptions { frames_per_second: Some(2_000), ..LimitOptions::default() },
            LimitOptions { node_heartbeat: Some(seconds(4)), ..LimitOptions::default() },
            LimitOptions { drain_grace: Some(seconds(10)), ..LimitOptions::default() },
        ] {
            assert!(matches!(options.resolve(), Err(ConfigError::Value { .. })), "{options:?}");
        }
    }
}
