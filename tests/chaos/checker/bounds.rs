//! The numbers that a run is held to, each with its reason.

/// Faults that only concern the clients that misbehave: meanwhile, `healthy` clients keep their bound.
pub(crate) const KINDS_THAT_SPARE_THE_HEALTHY: [&str; 4] = ["slow_clients", "never_acks", "twins", "connection_storm"];

/// Group of the clients that read and ack at once and stay connected to some node.
pub(crate) const HEALTHY: &str = "healthy";

/// Group of the clients of users of whom one device may be connected.
pub(crate) const RIVAL: &str = "rival";

#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// 99 of 100 first deliveries to healthy clients, in calm and while others misbehave. Generous against the 4 ms of
    /// the budget: load, clients, Redis and all nodes of a run share one small machine.
    pub(crate) healthy_p99_us: u64,
    /// How long after `healed` a fault's effects may last: the longest take-over by design, when every hint was lost.
    pub(crate) settle_us: u64,
    /// How long after a confirmed change a session that was there may not have heard of what its user follows: a lost
    /// hint, found by the next sweep, of a node that was paused or cut off.
    pub(crate) notice_us: u64,
    /// How long a session may be there after another device has replaced it: a lost hint, found by the next sweep, of a
    /// node that was paused or cut off. Long before that its client leaves a node that says nothing.
    pub(crate) outstay_us: u64,
    /// How long a receipt may be in Redis before it is in the history.
    pub(crate) receipt_us: u64,
    /// Allocators keep what they had at the peak of a reconnect storm; a leak grows beyond any fixed share.
    pub(crate) rss_ratio: f64,
    pub(crate) rss_slack_bytes: u64,
    /// Each session that was not there at the baseline, with its buffers.
    pub(crate) rss_session_bytes: u64,
    /// Connections to Redis that are just being replaced, and a scrape of the metrics.
    pub(crate) descriptors_slack: u64,
    /// Clients that move to another node just then count twice for a moment.
    pub(crate) sessions_slack: u64,
    /// Blocking threads of the runtime come and go.
    pub(crate) threads_slack: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            healthy_p99_us: 1_000_000,
            settle_us: 70_000_000,
            notice_us: 140_000_000,
            outstay_us: 120_000_000,
            receipt_us: 5_000_000,
            rss_ratio: 1.5,
            rss_slack_bytes: 32 << 20,
            rss_session_bytes: 16 << 10,
            descriptors_slack: 16,
            sessions_slack: 8,
            threads_slack: 8,
        }
    }
}
