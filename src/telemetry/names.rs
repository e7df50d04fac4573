//! Every metric of Homing.
//!
//! Record by the constants: `metrics::counter!(names::WAKEUPS).increment(1)`. On hot paths keep the handle
//! (`let wakeups = metrics::counter!(names::WAKEUPS);`), made after [`super::Recorder::install`]: a handle that is made
//! before it records nothing.

use super::metric::{Kind, Label, Metric, Unit};

/// Times between machines and people, in seconds: half a millisecond to ten minutes.
const LATENCY: &[f64] = &[
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 600.0,
];
/// Times of one command or pipeline, in seconds: 50 µs to the reply time-out and beyond.
const ROUND_TRIP: &[f64] =
    &[0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Sizes of batches, in things; the largest is a full window or a full pipeline.
const BATCH: &[f64] = &[0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

const SOURCE: Label = Label { name: "source", values: &["single", "batch"] };
const DROP_REASON: Label = Label { name: "reason", values: &["retention", "too_big"] };
const GAP_REASON: Label = Label { name: "reason", values: &["retention", "epoch", "device_expired", "too_big"] };
const PRESENCE_EVENT: Label = Label { name: "event", values: &["online", "offline"] };
const CONNECTION: Label = Label { name: "connection", values: &["data", "probe"] };
/// The variants of `store::StoreError`.
const ERROR_KIND: Label = Label {
    name: "kind",
    values: &["unavailable", "outcome_unknown", "wrong_type", "function_missing", "no_group", "unexpected"],
};
/// Numbers of `homing_protocol::close::CloseCode`, and `none` for a connection that broke without one.
const CLOSE: Label = Label {
    name: "code",
    values: &[
        "1000", "1009", "1011", "4000", "4001", "4003", "4009", "4010", "4011", "4101", "4108", "4112", "4129", "none",
    ],
};
/// Codes of `homing_protocol::code::ErrorCode`.
const CODE: Label = Label { name: "code", values: &[] };
/// The route's pattern, never the path: a path holds a user.
const ROUTE: Label = Label { name: "route", values: &[] };
const STATUS: Label = Label { name: "status", values: &["2xx", "3xx", "4xx", "5xx"] };
const VERSION: Label = Label { name: "version", values: &[] };

/// Makes a constant of each line, and [`ALL`] of all of them; the doc comment is the help text.
macro_rules! metrics_list {
    ($($(#[doc = $help:literal])+ $constant:ident = $name:literal, $kind:expr, $unit:ident, [$($label:ident),*];)+) => {
        $($(#[doc = $help])+ pub const $constant: &str = $name;)+

        /// Every metric, in the order in which they are documented.
        pub const ALL: &[Metric] = &[
            $(Metric {
                name: $name,
                kind: $kind,
                unit: Unit::$unit,
                help: concat!($($help),+).trim_ascii(),
                labels: &[$($label),*],
            },)+
        ];
    };
}

metrics_list! {
    // Messages.
    /// Messages accepted by the HTTP API; what producers append by XADD themselves is not seen here.
    MESSAGES_PUBLISHED = "homing_messages_published_total", Kind::Counter, Count, [SOURCE];
    /// Messages handed to sessions, redeliveries included.
    MESSAGES_DELIVERED = "homing_messages_delivered_total", Kind::Counter, Count, [];
    /// Messages that Redis took from a device's pending list for an ack.
    MESSAGES_ACKED = "homing_messages_acked_total", Kind::Counter, Count, [];
    /// Entries read from the logs of topics, once for each shard with followers.
    TOPIC_ENTRIES_READ = "homing_topic_entries_read_total", Kind::Counter, Count, [];
    /// Cursors of devices in topics that were written.
    CURSOR_WRITES = "homing_cursor_writes_total", Kind::Counter, Count, [];
    /// Messages handed to sessions again.
    MESSAGES_REDELIVERED = "homing_messages_redelivered_total", Kind::Counter, Count, [];
    /// Messages that were not delivered because their time to live had passed.
    MESSAGES_EXPIRED = "homing_messages_expired_total", Kind::Counter, Count, [];
    /// Messages that a device did not acknowledge and will never be given, counted once for each device.
    MESSAGES_DROPPED = "homing_messages_dropped_total", Kind::Counter, Count, [DROP_REASON];
    /// Time from a message's entry id to its first delivery to a connected device.
    PUBLISH_TO_DELIVERY = "homing_publish_to_delivery_seconds", Kind::Histogram(LATENCY), Seconds, [];
    /// Time from a delivery to the client's ack.
    DELIVERY_TO_ACK = "homing_delivery_to_ack_seconds", Kind::Histogram(LATENCY), Seconds, [];

    // Sessions.
    /// Live sessions of this node.
    SESSIONS = "homing_sessions", Kind::Gauge, Count, [];
    /// Sessions that this node accepts at most.
    SESSIONS_MAX = "homing_sessions_max", Kind::Gauge, Count, [];
    /// Sessions that became ready.
    SESSIONS_OPENED = "homing_sessions_opened_total", Kind::Counter, Count, [];
    /// Sessions that ended, by the number of the close code, or none when the connection broke.
    SESSIONS_CLOSED = "homing_sessions_closed_total", Kind::Counter, Count, [CLOSE];
    /// Sessions that took a device over from another session.
    TAKEOVERS = "homing_takeovers_total", Kind::Counter, Count, [];
    /// Times that a node found out by itself, not by being told, that another session owns a device.
    STALE_OWNER_EVENTS = "homing_stale_owner_events_total", Kind::Counter, Count, [];
    /// Gap frames sent, by reason.
    GAPS = "homing_gaps_total", Kind::Counter, Count, [GAP_REASON];
    /// Frames that clients sent.
    FRAMES_RECEIVED = "homing_frames_received_total", Kind::Counter, Count, [];
    /// Frames that were answered with an error, by its code.
    FRAMES_REFUSED = "homing_frames_refused_total", Kind::Counter, Count, [CODE];

    // Reading.
    /// Wake-ups: keyspace events of local inboxes.
    WAKEUPS = "homing_wakeups_total", Kind::Counter, Count, [];
    /// Entries that one read of one device returned.
    READ_BATCH_ENTRIES = "homing_read_batch_entries", Kind::Histogram(BATCH), Count, [];
    /// Devices that one pipeline of reads asked for.
    READ_INBOXES = "homing_read_inboxes", Kind::Histogram(BATCH), Count, [];
    /// Acks that wait to be sent to Redis.
    ACK_BUFFER = "homing_ack_buffer_messages", Kind::Gauge, Count, [];
    /// Trims of inboxes.
    TRIMS = "homing_trims_total", Kind::Counter, Count, [];
    /// Entries that trims removed.
    TRIMMED_ENTRIES = "homing_trimmed_entries_total", Kind::Counter, Count, [];

    // Redis.
    /// Time of one pipeline on a connection for data, or of a probe from its XADD to its keyspace event.
    REDIS_ROUND_TRIP = "homing_redis_round_trip_seconds", Kind::Histogram(ROUND_TRIP), Seconds, [CONNECTION];
    /// Failed Redis commands.
    REDIS_ERRORS = "homing_redis_errors_total", Kind::Counter, Count, [ERROR_KIND];
    /// Connections to Redis that were made again.
    REDIS_RECONNECTS = "homing_redis_reconnects_total", Kind::Counter, Count, [];
    /// Changes of the primary epoch that this node saw: data may have been lost.
    PRIMARY_EPOCH_CHANGES = "homing_primary_epoch_changes_total", Kind::Counter, Count, [];
    /// Times that this node had to restore the keyspace notification flags.
    NOTIFICATION_FLAGS_RESTORED = "homing_notification_flags_restored_total", Kind::Counter, Count, [];
    /// Probes that did not come back as a wake-up in time.
    PROBE_FAILURES = "homing_probe_failures_total", Kind::Counter, Count, [];

    // This node.
    /// Whether /readyz is green.
    READY = "homing_ready", Kind::Gauge, Flag, [];
    /// HTTP requests, by route pattern and class of status.
    HTTP_REQUESTS = "homing_http_requests_total", Kind::Counter, Count, [ROUTE, STATUS];
    /// Producers that wait for an ack of what they have published.
    PRODUCERS_WAITING = "homing_producers_waiting", Kind::Gauge, Count, [];
    /// Connections that could not be accepted, mostly for lack of descriptors.
    ACCEPT_ERRORS = "homing_accept_errors_total", Kind::Counter, Count, [];
    /// Nodes with a recent heartbeat, as this node sees it.
    NODES_ALIVE = "homing_nodes_alive", Kind::Gauge, Count, [];
    /// Always 1; its labels say what runs.
    BUILD_INFO = "homing_build_info", Kind::Gauge, Flag, [VERSION];

    // Presence.
    /// Presence events written to the stream, by what happened.
    PRESENCE_EVENTS = "homing_presence_events_total", Kind::Counter, Count, [PRESENCE_EVENT];
    /// Presence events that were given up because Redis refused too many.
    PRESENCE_EVENTS_DROPPED = "homing_presence_events_dropped_total", Kind::Counter, Count, [];

    // The janitor, on the node that runs it.
    /// Users with an inbox or a device, by the last pass.
    USERS = "homing_users", Kind::ClusterGauge, Count, [];
    /// Entries in all inboxes, by the last pass.
    INBOX_MESSAGES = "homing_inbox_messages", Kind::ClusterGauge, Count, [];
    /// Messages delivered to a device and not acknowledged, over all devices, by the last pass.
    PENDING_MESSAGES = "homing_pending_messages", Kind::ClusterGauge, Count, [];
    /// Age of the oldest message that a device has not acknowledged, by the last pass; 0 if there is none.
    OLDEST_UNACKED_AGE = "homing_oldest_unacked_age_seconds", Kind::ClusterGauge, Seconds, [];
    /// Time since this node last finished a pass, or since it started; the cluster's is the smallest.
    JANITOR_PASS_AGE = "homing_janitor_pass_age_seconds", Kind::Gauge, Seconds, [];
    /// How long this node's last pass took.
    JANITOR_PASS_DURATION = "homing_janitor_pass_duration_seconds", Kind::ClusterGauge, Seconds, [];
    /// Passes that this node finished.
    JANITOR_PASSES = "homing_janitor_passes_total", Kind::Counter, Count, [];
    /// Devices that were forgotten because they were idle too long.
    DEVICES_EXPIRED = "homing_devices_expired_total", Kind::Counter, Count, [];
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_says_what_it_is() {
        let mut seen = HashSet::new();
        for metric in ALL {
            let name = metric.name;
            assert!(seen.insert(name), "{name} stands twice in the list");
            assert!(name.starts_with("homing_"), "{name} lacks the prefix");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(metric.help.len() > 10 && metric.help.ends_with('.'), "{name} has no help: {:?}", metric.help);
            assert!(!metric.help.contains("  "), "{name}: {:?}", metric.help);
            assert_eq!(name.ends_with("_total"), matches!(metric.kind, Kind::Counter), "{name}");
            assert_eq!(name.contains("_seconds"), metric.unit == Unit::Seconds, "{name}");
            assert!(!name.contains("_ms") && !name.contains("_bytes"), "{name}: seconds and counts only");
            for label in metric.labels {
                assert!(!["user", "device", "token", "key", "id"].contains(&label.name), "{name} by {}", label.name);
            }
        }
    }

    /// A number that is missing in the list would not be announced.
    #[test]
    fn the_label_of_closed_sessions_knows_every_close_code() {
        use homing_protocol::close::CloseCode::*;
        let codes = [
            Normal,
            TooBig,
            Internal,
            Protocol,
            Unauthorized,
            Forbidden,
            Superseded,
            Replaced,
            Removed,
            TokenExpired,
            Silent,
            Draining,
            RateLimited,
        ];
        for code in codes {
            assert!(CLOSE.values.contains(&code.number().to_string().as_str()), "{code:?}");
        }
        assert_eq!(CLOSE.values.len(), codes.len() + 1);
    }

    #[test]
    fn buckets_grow() {
        for metric in ALL {
            if let Kind::Histogram(bounds) = metric.kind {
                assert!(bounds.len() > 5 && bounds.windows(2).all(|pair| pair[0] < pair[1]), "{}", metric.name);
            }
        }
    }
}
