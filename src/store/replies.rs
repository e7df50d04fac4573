//! Decoding of replies: straight from [`Value`], without a map per entry.
//!
//! A field name that is not UTF-8 or stands twice must not poison an inbox, so names and values stay bytes.

use std::borrow::Cow;

use homing_protocol::id::EntryId;
use homing_protocol::message::Entry;

use super::error::StoreError;
pub use super::resp::{Value, check};

/// An entry whose names and values are bytes, where they arrived.
pub type RawEntry<'a> = Entry<&'a [u8]>;

fn unexpected(what: &str) -> StoreError {
    StoreError::Unexpected(format!("{what} has another shape than expected"))
}

/// The elements of an array; nil is an empty one.
///
/// # Errors
/// [`StoreError`] for an error reply or another type.
pub fn array(value: Value<'_>) -> Result<Vec<Value<'_>>, StoreError> {
    match check(value)? {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        _ => Err(unexpected("an array")),
    }
}

/// An integer.
///
/// # Errors
/// [`StoreError`] for an error reply or another type.
pub fn integer(value: Value<'_>) -> Result<i64, StoreError> {
    match check(value)? {
        Value::Int(number) => Ok(number),
        Value::Bulk(digits) => std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| unexpected("a number")),
        _ => Err(unexpected("an integer")),
    }
}

/// A text; nil is `None`.
///
/// # Errors
/// [`StoreError`] for an error reply, another type or invalid UTF-8.
pub fn text(value: Value<'_>) -> Result<Option<Cow<'_, str>>, StoreError> {
    match check(value)? {
        Value::Nil => Ok(None),
        value => value.text().map(Some).ok_or_else(|| unexpected("a text")),
    }
}

/// An entry id.
///
/// # Errors
/// [`StoreError`] for anything else.
pub fn entry_id(value: &Value<'_>) -> Result<EntryId, StoreError> {
    match value {
        Value::Bulk(bytes) => EntryId::parse(bytes).map_err(|_| unexpected("an entry id")),
        _ => Err(unexpected("an entry id")),
    }
}

/// One `[id, [field, value, …]]`; an entry that was deleted has nil in place of its fields.
fn entry(value: Value<'_>) -> Result<(RawEntry<'_>, bool), StoreError> {
    let Value::Array(parts) = value else { return Err(unexpected("an entry")) };
    let mut parts = parts.into_iter();
    let (Some(id), Some(fields)) = (parts.next(), parts.next()) else { return Err(unexpected("an entry")) };
    let id = entry_id(&id)?;
    let Value::Array(flat) = fields else { return Ok((Entry { id, fields: Vec::new() }, false)) };
    let mut fields = Vec::with_capacity(flat.len() / 2);
    let mut flat = flat.into_iter();
    while let (Some(Value::Bulk(field)), Some(Value::Bulk(value))) = (flat.next(), flat.next()) {
        fields.push((field, value));
    }
    Ok((Entry { id, fields }, true))
}

/// The reply of `XCLAIM` or `XRANGE`: entries that exist.
///
/// # Errors
/// [`StoreError`] for an error reply or another shape.
pub fn entries(value: Value<'_>) -> Result<Vec<RawEntry<'_>>, StoreError> {
    let mut entries = Vec::new();
    for value in array(value)? {
        // Redis before 7.0 answers nil for a deleted entry.
        if value == Value::Nil {
            continue;
        }
        let (entry, exists) = entry(value)?;
        if exists {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// The reply of `XREADGROUP` over one stream; with each entry, whether it still exists.
///
/// # Errors
/// [`StoreError`] for an error reply or another shape.
pub fn group_read(value: Value<'_>) -> Result<Vec<(RawEntry<'_>, bool)>, StoreError> {
    let Some(stream) = array(value)?.into_iter().next() else { return Ok(Vec::new()) };
    let Some(Value::Array(values)) = array(stream)?.into_iter().nth(1) else { return Err(unexpected("a group read")) };
    values.into_iter().map(entry).collect()
}

/// A stream's name and its new entries.
pub type StreamRead<'a> = (&'a [u8], Vec<RawEntry<'a>>);

/// The reply of `XREADGROUP` over streams whose new entries it asks for; those without any are left out.
///
/// # Errors
/// [`StoreError`] for an error reply or another shape.
pub fn group_reads(value: Value<'_>) -> Result<Vec<StreamRead<'_>>, StoreError> {
    let stream = |value| {
        let mut parts = array(value)?.into_iter();
        let (Some(Value::Bulk(name)), Some(Value::Array(values))) = (parts.next(), parts.next()) else {
            return Err(unexpected("a group read"));
        };
        let entries = values.into_iter().map(|value| entry(value).map(|(entry, _)| entry));
        Ok((name, entries.collect::<Result<_, _>>()?))
    };
    array(value)?.into_iter().map(stream).collect()
}

/// The reply of `XPENDING key group`: count, lowest and highest id.
///
/// # Errors
/// [`StoreError`] for an error reply or another shape.
pub fn pending_summary(value: Value<'_>) -> Result<(u64, EntryId, EntryId), StoreError> {
    let mut parts = array(value)?.into_iter();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Value::Int(0)), _, _) => Ok((0, EntryId::MIN, EntryId::MIN)),
        (Some(Value::Int(count @ 1..)), Some(first), Some(last)) => {
            Ok((count as u64, entry_id(&first)?, entry_id(&last)?))
        }
        _ => Err(unexpected("a pending summary")),
    }
}

/// One row of `XPENDING key group - + n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingEntry {
    /// The entry.
    pub id: EntryId,
    /// Milliseconds since its last delivery.
    pub idle_ms: u64,
    /// Deliveries so far.
    pub deliveries: u32,
}

/// The reply of `XPENDING key group - + n`.
///
/// # Errors
/// [`StoreError`] for an error reply or another shape.
pub fn pending_entries(value: Value<'_>) -> Result<Vec<PendingEntry>, StoreError> {
    array(value)?
        .into_iter()
        .map(|row| {
            let mut parts = array(row)?.into_iter();
            match (parts.next(), parts.nth(1), parts.next()) {
                (Some(id), Some(Value::Int(idle)), Some(Value::Int(deliveries))) => Ok(PendingEntry {
                    id: entry_id(&id)?,
                    idle_ms: idle.max(0) as u64,
                    deliveries: u32::try_from(deliveries).unwrap_or(u32::MAX),
                }),
                _ => Err(unexpected("a pending entry")),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &[u8]) -> Value<'_> {
        Value::Bulk(text)
    }

    #[test]
    fn odd_fields_and_deleted_entries_are_decoded() {
        let fields = Value::Array(vec![bulk(b"\xff"), bulk(b"1"), bulk(b"\xff"), bulk(b"2")]);
        let odd = Value::Array(vec![bulk(b"1-0"), fields]);
        let deleted = Value::Array(vec![bulk(b"2-0"), Value::Nil]);
        let reply = Value::Array(vec![Value::Array(vec![bulk(b"key"), Value::Array(vec![odd, deleted])])]);
        let read = group_read(reply).unwrap();
        assert_eq!(read[0].0.fields.len(), 2);
        assert!(read[0].1 && !read[1].1);
        assert_eq!(group_read(Value::Nil).unwrap(), Vec::new());
        assert!(group_read(Value::Int(1)).is_err());
    }

    #[test]
    fn a_pending_list_of_less_than_nothing_is_refused() {
        let summary = |count| pending_summary(Value::Array(vec![Value::Int(count), bulk(b"1-0"), bulk(b"2-0")]));
        assert_eq!(summary(2).unwrap().0, 2);
        assert!(summary(-1).is_err());
    }
}
