//! The server's frames, as far as a client of chaos looks at them.

use serde::Deserialize;

use super::history::To;

#[derive(Debug, Deserialize)]
pub(crate) struct Frame {
    pub(crate) r#type: String,
    #[serde(default)]
    pub(crate) messages: Vec<Delivery>,
    #[serde(default)]
    pub(crate) ids: Vec<String>,
    #[serde(default)]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) epoch: String,
    #[serde(default)]
    pub(crate) generation: u64,
    #[serde(default)]
    pub(crate) created: bool,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) count: u64,
    #[serde(default)]
    pub(crate) code: String,
    pub(crate) retry_after_ms: Option<u64>,
    pub(crate) r#ref: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    pub(crate) data: Payload,
    pub(crate) attempt: u32,
}

/// What producers put into a message.
#[derive(Debug, Deserialize)]
pub(crate) struct Payload {
    pub(crate) tag: String,
    #[serde(flatten)]
    pub(crate) to: To,
    pub(crate) sent_us: u64,
}
