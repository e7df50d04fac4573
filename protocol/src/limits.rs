//! Limits that are part of the protocol, and the defaults of those that an operator may change.

/// Longest name of a user, device or topic, in bytes (all ASCII).
pub const NAME_BYTES_MAX: usize = 255;
/// Longest `ref` member of a client frame, in bytes.
pub const REF_BYTES_MAX: usize = 128;
/// Longest `instance` member of a `connect` frame, in bytes.
pub const INSTANCE_BYTES_MAX: usize = 64;
/// Largest number of ids in one `ack` or `nack` frame; a frame limit of 64 KiB lets no more useful ones through.
pub const IDS_PER_FRAME_MAX: usize = 4_096;
/// Largest client frame, in bytes.
pub const CLIENT_FRAME_BYTES_MAX: usize = 64 * 1024;
/// Largest server frame that holds more than one message, in bytes.
pub const SERVER_FRAME_BYTES_MAX: usize = 256 * 1024;
/// Smallest `max_frame_bytes` that a client may ask for.
pub const SERVER_FRAME_BYTES_MIN: usize = 1_024;
/// Default window: messages that a session may have in flight.
pub const WINDOW: u16 = 64;
/// Largest window.
pub const WINDOW_MAX: u16 = 1_024;
/// Default heartbeat of a session, in milliseconds.
pub const HEARTBEAT_MS: u32 = 25_000;
/// Shortest heartbeat that a client may ask for, in milliseconds.
pub const HEARTBEAT_MS_MIN: u32 = 10_000;
/// Longest heartbeat that a client may ask for, in milliseconds.
pub const HEARTBEAT_MS_MAX: u32 = 300_000;
/// Most topics in one `follow` or `unfollow` frame.
pub const TOPICS_PER_FRAME_MAX: usize = 100;
/// Default of how many topics a user may follow.
pub const TOPICS_PER_USER: u32 = 200;
/// Longest delay of a `nack`, in milliseconds.
pub const NACK_DELAY_MS_MAX: u64 = 60_000;
/// Time for the first frame, in milliseconds.
pub const CONNECT_TIMEOUT_MS: u64 = 5_000;
/// Default payload limit, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Largest `meta` object, in bytes of JSON.
pub const META_BYTES_MAX: usize = 4 * 1024;
/// Longest idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// Deepest JSON that is spliced into a frame.
pub const JSON_DEPTH_MAX: usize = 128;
/// Most messages in one HTTP batch.
pub const BATCH_MESSAGES_MAX: usize = 1_000;
/// Most users that one HTTP request may send one message to.
pub const BATCH_USERS_MAX: usize = 10_000;
/// Largest body of one HTTP batch, in bytes.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
