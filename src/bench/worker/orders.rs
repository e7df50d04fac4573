//! What the measuring process and its workers tell each other: one JSON object a line.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::bench::latency::Buckets;

/// The first line of a worker's input: its users, and how to reach the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// What the messages of this run carry, so that others are not counted.
    pub(crate) run: String,
    /// Users are `<user_prefix><number>`.
    pub(crate) user_prefix: String,
    /// This worker's first user.
    pub(crate) first_user: u32,
    /// How many users it has.
    pub(crate) users: u32,
    /// Devices of each.
    pub(crate) devices: u32,
    /// The nodes; device `n` connects to number `n` modulo their count.
    pub(crate) targets: Vec<Target>,
    /// Where its connections come from; the system chooses if `None`.
    pub(crate) source: Option<IpAddr>,
    pub(crate) tokens: Tokens,
    /// Whether clients ask for confirmed acks.
    pub(crate) confirm: bool,
    pub(crate) producer: Producer,
    /// Bytes of payload.
    pub(crate) size: usize,
    /// Connections of producers.
    pub(crate) producers: u32,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What stands before `/v1`, without a slash at its end.
    pub(crate) path: String,
    /// Whether it speaks TLS.
    pub(crate) is_tls: bool,
}

/// How tokens come about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tokens {
    pub(crate) secret: String,
    pub(crate) kid: Option<String>,
    pub(crate) audience: Option<String>,
}

/// How messages are published.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Producer {
    /// Nobody publishes.
    None,
    /// `POST`, with so many messages in each.
    Http { api_key: String, batch: u32 },
    /// `XADD`, pipelined, to inboxes under `prefix`.
    Xadd { redis: String, prefix: String },
}

/// One line of a worker's input after the plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Connect whatever is not connected: so many each second from `start_us` on, or all at once if `None`. Latencies
    /// of connecting count from the time at which each was due.
    /// `up_to` of the worker's devices are connected then.
    Connect { start_us: u64, rate: Option<f64>, up_to: u32 },
    /// Cut all connections, without a word.
    Disconnect,
    /// Publish.
    Publish(Publishing),
    /// Publish no more.
    Hush,
    /// Latencies of messages count from this intended time on.
    MeasureFrom { at_us: u64 },
    /// Take latencies of messages from here on as since their device's connection was due.
    SinceConnect,
}

/// An order to publish.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Publishing {
    /// First message's intended time.
    pub(crate) start_us: u64,
    /// Messages that are intended for earlier do not count in latencies.
    pub(crate) measured_from_us: u64,
    /// No message is intended for this time or later.
    pub(crate) until_us: u64,
    pub(crate) pace: Pace,
    /// By XADD, what falls due within such a time is written together at its end; 0: each message on its own.
    pub(crate) gather_us: u64,
    /// After so many messages to each user it is enough, whatever the time.
    pub(crate) count_per_user: Option<u32>,
}

/// When messages are sent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Pace {
    /// So many each second by this worker, whatever comes back.
    Rate(f64),
    /// As fast as possible with so many on their way.
    InFlight(u64),
}

/// One line of a worker's output: counts since its start, and latencies since the last line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Sockets whose session is ready.
    pub(crate) connected: u64,
    /// Sessions that became ready.
    pub(crate) readies: u64,
    /// Connections that were lost without an order.
    pub(crate) disconnects: u64,
    /// Connections, of devices and producers, that failed and were tried again.
    pub(crate) retries: u64,
    /// Why attempts to connect failed or connections were lost, with counts.
    pub(crate) troubles: BTreeMap<String, u64>,
    /// An error that no retry helps against.
    pub(crate) fatal: Option<Fatal>,
    /// Messages that were sent to be published.
    pub(crate) sent: u64,
    /// Of those, how many were accepted.
    pub(crate) accepted: u64,
    /// And how many were not, or not known to be.
    pub(crate) refused: u64,
    /// Whether an order to publish is being worked on.
    pub(crate) is_publishing: bool,
    /// Deliveries of messages to devices, each counted once.
    pub(crate) unique: u64,
    /// Of those, messages that were intended for the measured time.
    pub(crate) measured: u64,
    /// Deliveries of messages that the device had already.
    pub(crate) duplicates: u64,
    /// Deliveries that the server calls not the first.
    pub(crate) again: u64,
    /// Messages of others.
    pub(crate) foreign: u64,
    /// Acks that were sent.
    pub(crate) acks: u64,
    /// Acks that the server confirmed.
    pub(crate) confirmed: u64,
    /// Gaps that the server told.
    pub(crate) gaps: u64,
    /// After [`Order::SinceConnect`]: devices that have every message published to them so far.
    pub(crate) caught_up: u64,
    /// From the intended time of a message to its arrival.
    pub(crate) latencies: Buckets,
    /// From the time that a connection was due to `ready`.
    pub(crate) connecting: Buckets,
    /// From the time that a connection was due to its last queued message.
    pub(crate) catching_up: Buckets,
}

/// What ends a measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fatal {
    /// The server refuses us.
    Refused(String),
    /// The server or Redis cannot be reached.
    Unreachable(String),
    /// Something else.
    Broken(String),
}
