//! A message as a producer gives it, and the stream entry that it becomes.

use std::borrow::Cow;

use homing_protocol::depth;
use homing_protocol::limits::{JSON_DEPTH_MAX, KEY_BYTES_MAX, META_BYTES_MAX};
use homing_protocol::name::Name;
use serde_json::value::RawValue;

use super::error::{Limit, PublishError};

/// Longest time to live, in seconds: 30 days, beyond any age that retention lets a message reach by default.
pub const TTL_S_MAX: u64 = 30 * 24 * 60 * 60;

/// What is to be delivered.
#[derive(Clone, Debug)]
pub enum Payload<'a> {
    /// One JSON value, kept exactly as it came.
    Json(&'a RawValue),
    /// Bytes; clients get them in base64.
    Bytes(Cow<'a, [u8]>),
}

impl Payload<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Json(json) => json.get().as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// A message to be published. It borrows from the request, so that its payload is copied once, into the command.
#[derive(Clone, Debug)]
pub struct NewMessage<'a> {
    /// What is to be delivered.
    pub data: Payload<'a>,
    /// The producer's own id: a second message with it is not appended, for 24 h.
    pub key: Option<Cow<'a, str>>,
    /// Seconds after which the message is not delivered any more; 0: for connected devices only.
    pub ttl_s: Option<u64>,
    /// A JSON object that clients get beside the data.
    pub meta: Option<&'a RawValue>,
    /// The only device that is to get it.
    pub device: Option<Name>,
    /// Whether what becomes of it is to be written down.
    pub receipt: bool,
    /// W3C trace context of the producer.
    pub traceparent: Option<&'a str>,
}

impl<'a> NewMessage<'a> {
    /// A message of nothing but data.
    #[must_use]
    pub fn new(data: Payload<'a>) -> Self {
        Self { data, key: None, ttl_s: None, meta: None, device: None, receipt: false, traceparent: None }
    }

    /// Whether the message keeps all limits.
    ///
    /// # Errors
    /// [`PublishError::TooBig`] or [`PublishError::BadValue`] for the first limit that it breaks.
    pub fn check(&self, payload_bytes_max: usize) -> Result<(), PublishError> {
        let bytes = self.data.bytes().len();
        if bytes > payload_bytes_max {
            return Err(too_big("data", bytes, "payload_bytes_max", payload_bytes_max));
        }
        if let Payload::Json(json) = self.data {
            check_depth("data", json)?;
        }
        if let Some(meta) = self.meta {
            check_meta(meta)?;
        }
        if let Some(key) = &self.key
            && !(1..=KEY_BYTES_MAX).contains(&key.len())
        {
            return Err(bad_value("key", "must have 1 to 128 bytes", "key_bytes_max", KEY_BYTES_MAX as u64));
        }
        if self.ttl_s.is_some_and(|ttl_s| ttl_s > TTL_S_MAX) {
            return Err(bad_value("ttl_s", "must be at most 2592000 (30 days)", "ttl_s_max", TTL_S_MAX));
        }
        Ok(())
    }

    /// Whether it is appended by a function, which answers also whether it was appended now.
    pub(crate) fn is_call(&self) -> bool {
        self.key.is_some() || self.receipt
    }

    /// Bytes of the fields that may be large.
    pub(crate) fn bytes(&self) -> usize {
        self.data.bytes().len() + self.meta.map_or(0, |meta| meta.get().len())
    }

    /// The entry's fields, as PROTOCOL.md names them.
    ///
    /// `exp` is "0" for connected devices only: no time is in the past for every reader, whatever its clock.
    pub(crate) fn fields(&self, now_ms: u64) -> Fields<'_> {
        let kind: &[u8] = match self.data {
            Payload::Json(_) => b"json",
            Payload::Bytes(_) => b"bytes",
        };
        let expiry = self.ttl_s.map(|ttl_s| match ttl_s {
            0 => Cow::Borrowed(b"0".as_slice()),
            ttl_s => Cow::Owned(now_ms.saturating_add(ttl_s.saturating_mul(1_000)).to_string().into_bytes()),
        });
        Fields([
            Some(("data", Cow::Borrowed(self.data.bytes()))),
            Some(("type", Cow::Borrowed(kind))),
            self.key.as_ref().map(|key| ("key", Cow::Borrowed(key.as_bytes()))),
            expiry.map(|expiry| ("exp", expiry)),
            self.meta.map(|meta| ("meta", Cow::Borrowed(meta.get().as_bytes()))),
            self.device.as_ref().map(|device| ("device", Cow::Borrowed(device.as_str().as_bytes()))),
            self.receipt.then_some(("receipt", Cow::Borrowed(b"1".as_slice()))),
            self.traceparent.map(|traceparent| ("traceparent", Cow::Borrowed(traceparent.as_bytes()))),
        ])
    }
}

/// The fields of an entry.
pub(crate) struct Fields<'a>([Option<Field<'a>>; 8]);

/// Name and value.
type Field<'a> = (&'static str, Cow<'a, [u8]>);

impl<'a> Fields<'a> {
    /// Names and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.0.iter().flatten().map(|(name, value)| (*name, value.as_ref()))
    }

    /// How many arguments of a command they are.
    pub(crate) fn argument_count(&self) -> usize {
        2 * self.0.iter().flatten().count()
    }
}

fn check_meta(meta: &RawValue) -> Result<(), PublishError> {
    let bytes = meta.get().len();
    if bytes > META_BYTES_MAX {
        return Err(too_big("meta", bytes, "meta_bytes_max", META_BYTES_MAX));
    }
    if !meta.get().starts_with('{') {
        return Err(PublishError::BadValue { member: "meta", detail: "must be an object", limit: None });
    }
    check_depth("meta", meta)
}

fn check_depth(member: &'static str, json: &RawValue) -> Result<(), PublishError> {
    if depth::is_within(json.get(), JSON_DEPTH_MAX) {
        return Ok(());
    }
    Err(bad_value(member, "is nested deeper than 128 levels", "json_depth_max", JSON_DEPTH_MAX as u64))
}

fn too_big(member: &'static str, bytes: usize, name: &'static str, max: usize) -> PublishError {
    PublishError::TooBig { member, bytes, limit: Limit { name, value: max as u64 } }
}

fn bad_value(member: &'static str, detail: &'static str, name: &'static str, value: u64) -> PublishError {
    PublishError::BadValue { member, detail, limit: Some(Limit { name, value }) }
}
