//! The shard's metrics, with their handles kept: looking one up by name costs more than counting.

use homing_protocol::close::CloseCode;
use homing_protocol::code::ErrorCode;
use homing_protocol::frame::GapReason;
use metrics::{Counter, Gauge, Histogram};

use crate::store::StoreError;
use crate::telemetry::names;

/// Handles of what a shard counts.
pub(super) struct Observer {
    pub(super) delivered: Counter,
    pub(super) redelivered: Counter,
    pub(super) acked: Counter,
    pub(super) expired: Counter,
    pub(super) topic_entries: Counter,
    pub(super) cursor_writes: Counter,
    pub(super) publish_to_delivery: Histogram,
    pub(super) delivery_to_ack: Histogram,
    pub(super) sessions: Gauge,
    pub(super) sessions_opened: Counter,
    pub(super) takeovers: Counter,
    pub(super) stale: Counter,
    pub(super) frames: Counter,
    pub(super) wakeups: Counter,
    pub(super) read_entries: Histogram,
    pub(super) read_inboxes: Histogram,
    pub(super) ack_buffer: Gauge,
    pub(super) trims: Counter,
    pub(super) trimmed: Counter,
    pub(super) round_trip: Histogram,
    pub(super) probe_round_trip: Histogram,
    pub(super) probe_failures: Counter,
    pub(super) reconnects: Counter,
    pub(super) epoch_changes: Counter,
    pub(super) flags_restored: Counter,
}

impl Observer {
    pub(super) fn new() -> Self {
        Self {
            delivered: metrics::counter!(names::MESSAGES_DELIVERED),
            redelivered: metrics::counter!(names::MESSAGES_REDELIVERED),
            acked: metrics::counter!(names::MESSAGES_ACKED),
            expired: metrics::counter!(names::MESSAGES_EXPIRED),
            topic_entries: metrics::counter!(names::TOPIC_ENTRIES_READ),
            cursor_writes: metrics::counter!(names::CURSOR_WRITES),
            publish_to_delivery: metrics::histogram!(names::PUBLISH_TO_DELIVERY),
            delivery_to_ack: metrics::histogram!(names::DELIVERY_TO_ACK),
            sessions: metrics::gauge!(names::SESSIONS),
            sessions_opened: metrics::counter!(names::SESSIONS_OPENED),
            takeovers: metrics::counter!(names::TAKEOVERS),
            stale: metrics::counter!(names::STALE_OWNER_EVENTS),
            frames: metrics::counter!(names::FRAMES_RECEIVED),
            wakeups: metrics::counter!(names::WAKEUPS),
            read_entries: metrics::histogram!(names::READ_BATCH_ENTRIES),
            read_inboxes: metrics::histogram!(names::READ_INBOXES),
            ack_buffer: metrics::gauge!(names::ACK_BUFFER),
            trims: metrics::counter!(names::TRIMS),
            trimmed: metrics::counter!(names::TRIMMED_ENTRIES),
            round_trip: metrics::histogram!(names::REDIS_ROUND_TRIP, "connection" => "data"),
            probe_round_trip: metrics::histogram!(names::REDIS_ROUND_TRIP, "connection" => "probe"),
            probe_failures: metrics::counter!(names::PROBE_FAILURES),
            reconnects: metrics::counter!(names::REDIS_RECONNECTS),
            epoch_changes: metrics::counter!(names::PRIMARY_EPOCH_CHANGES),
            flags_restored: metrics::counter!(names::NOTIFICATION_FLAGS_RESTORED),
        }
    }

    pub(super) fn dropped(&self, reason: GapReason, count: u32) {
        metrics::counter!(names::MESSAGES_DROPPED, "reason" => reason.as_str()).increment(u64::from(count));
    }

    /// A session ended; `None` when its connection broke without a close code of ours.
    pub(super) fn closed(&self, code: Option<CloseCode>) {
        let code = code.map_or_else(|| "none".to_owned(), |code| code.number().to_string());
        metrics::counter!(names::SESSIONS_CLOSED, "code" => code).increment(1);
    }

    /// A client was answered with an error frame.
    pub(super) fn refused(&self, code: ErrorCode) {
        metrics::counter!(names::FRAMES_REFUSED, "code" => code.as_str()).increment(1);
    }

    /// A gap frame was sent.
    pub(super) fn gap(&self, reason: GapReason) {
        metrics::counter!(names::GAPS, "reason" => reason.as_str()).increment(1);
    }

    pub(super) fn redis_error(&self, error: &StoreError) {
        metrics::counter!(names::REDIS_ERRORS, "kind" => error.kind()).increment(1);
    }
}
