//! Times and limits that an operator may change, with the defaults of DESIGN.md.

use std::time::Duration;

use homing_protocol::limits;

/// Times and limits of a node. `docs/OPERATIONS.md` has the same table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages that a session may have in flight unless its client asks for another number.
    pub window: u16,
    /// Bytes of payload that a session may have in flight.
    pub in_flight_bytes_max: usize,
    /// Time after which an unacknowledged message is delivered again, the first time.
    pub ack_timeout: Duration,
    /// The longest that this time grows to, by doubling.
    pub ack_timeout_max: Duration,
    /// Longest that an ack waits to be sent to Redis together with others.
    pub ack_flush: Duration,
    /// How long an acknowledged message waits for the trim of its inbox; longer where many are due.
    pub trim_delay: Duration,
    /// Acks of one inbox after which it is trimmed at once.
    pub trim_acks: u32,
    /// Silence after which a session is pinged; twice that is death.
    pub heartbeat: Duration,
    /// Time between two comparisons of a session with Redis.
    pub sweep: Duration,
    /// Largest payload (`data`), in bytes.
    pub payload_bytes_max: usize,
    /// Bytes of request bodies that a node holds at once.
    pub bodies_bytes_max: usize,
    /// Devices per user.
    pub devices_max: u32,
    /// Devices of a user that may be connected at once; 0 for any number.
    pub sessions_per_user: u32,
    /// Time offline after which a device may be replaced by a new one beyond `devices_max`.
    pub device_replace_after: Duration,
    /// Time offline after which a device is forgotten.
    pub device_idle_max: Duration,
    /// Frames per second that a client may send.
    pub frames_per_second: u32,
    /// Frames that a client may send at once.
    pub frames_burst: u32,
    /// Messages that an inbox keeps.
    pub inbox_length_max: u64,
    /// Age at which a message is dropped.
    pub inbox_age_max: Duration,
    /// Topics that a user may follow.
    pub topics_per_user: u32,
    /// Messages that a topic keeps.
    pub topic_length_max: u64,
    /// Age at which a topic's message is dropped.
    pub topic_age_max: Duration,
    /// Longest that the ack of a topic's message waits to be written together with others.
    pub cursor_flush: Duration,
    /// Entries that the stream of presence events keeps, about; 0: presence is not announced.
    pub presence_length: u64,
    /// Time without a session after which a device is announced as offline.
    pub presence_grace: Duration,
    /// Entries that the stream of receipts keeps; 0: there is none.
    pub receipts_length: u64,
    /// Time between two passes of the janitor over all users.
    pub janitor_pause: Duration,
    /// Time between two heartbeats of a node.
    pub node_heartbeat: Duration,
    /// Time without heartbeat after which a node is judged dead.
    pub node_dead_after: Duration,
    /// Time after which Redis counts as not answering.
    pub redis_reply_timeout: Duration,
    /// Time for the `connect` frame.
    pub connect_timeout: Duration,
    /// Time for the head of an HTTP request.
    pub header_timeout: Duration,
    /// Drain: `/readyz` is red this long before the node stops accepting, so that balancers notice.
    pub drain_pause: Duration,
    /// Drain: closes are spread over this time.
    pub drain_spread: Duration,
    /// Drain: the process exits within this time, whatever happens.
    pub drain_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window: limits::WINDOW,
            in_flight_bytes_max: 1024 * 1024,
            ack_timeout: Duration::from_secs(30),
            ack_timeout_max: Duration::from_secs(5 * 60),
            ack_flush: Duration::from_millis(5),
            trim_delay: Duration::from_secs(30),
            trim_acks: 256,
            heartbeat: Duration::from_millis(u64::from(limits::HEARTBEAT_MS)),
            sweep: Duration::from_secs(60),
            payload_bytes_max: limits::PAYLOAD_BYTES_MAX,
            bodies_bytes_max: 64 * 1024 * 1024,
            devices_max: 20,
            sessions_per_user: 0,
            device_replace_after: Duration::from_secs(24 * 60 * 60),
            device_idle_max: Duration::from_secs(30 * 24 * 60 * 60),
            frames_per_second: 200,
            frames_burst: 1_000,
            inbox_length_max: 10_000,
            inbox_age_max: Duration::from_secs(7 * 24 * 60 * 60),
            topics_per_user: limits::TOPICS_PER_USER,
            topic_length_max: 10_000,
            topic_age_max: Duration::from_secs(7 * 24 * 60 * 60),
            cursor_flush: Duration::from_secs(5),
            presence_length: 100_000,
            presence_grace: Duration::from_secs(10),
            receipts_length: 100_000,
            janitor_pause: Duration::from_secs(60),
            node_heartbeat: Duration::from_secs(2),
            node_dead_after: Duration::from_secs(6),
            redis_reply_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_millis(limits::CONNECT_TIMEOUT_MS),
            header_timeout: Duration::from_secs(10),
            drain_pause: Duration::from_secs(5),
            drain_spread: Duration::from_secs(15),
            drain_grace: Duration::from_secs(25),
        }
    }
}
