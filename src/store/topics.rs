//! Commands about topics: who follows what, and where devices stand.

use homing_protocol::id::EntryId;
use homing_protocol::name::Name;
use homing_protocol::session::{Begin, FollowChange};
use homing_protocol::topic::{Topic, cursor_of_score};
use redis::Cmd;
use serde::Deserialize;

use super::error::StoreError;
use super::functions::Function;
use super::keys::{Key, KeySpace};
use super::replies::{self, Value};
use super::resp::Commands;

/// What a user shall follow.
#[derive(Clone, Copy, Debug)]
pub struct FollowRequest<'a> {
    /// The user.
    pub user: &'a Name,
    /// Topics to follow.
    pub follow: &'a [Name],
    /// Topics to follow no more.
    pub unfollow: &'a [Name],
    /// What is not among `follow` is followed no more, whatever it is.
    pub replace: bool,
    /// The owner who asks, and need not be told; empty if it is none.
    pub owner: &'a str,
    /// Most topics that a user may follow.
    pub limit: u32,
}

/// The call of `homing_1_follow`, or of `homing_1_unfollow` if there is nothing to follow.
#[must_use]
pub fn follow(keys: &KeySpace, request: FollowRequest<'_>) -> Cmd {
    let FollowRequest { user, follow, unfollow, replace, owner, limit } = request;
    let about = serde_json::json!({
        "user": user.as_str(),
        "channels": keys.control_prefix(),
        "owner": owner,
        "limit": limit,
        "replace": replace,
    });
    let function = if follow.is_empty() { Function::Unfollow } else { Function::Follow };
    let mut call = function.call(&[&keys.name(Key::Topics(user)), &keys.name(Key::Devices(user))]);
    call.arg(about.to_string()).arg(follow.len());
    for topic in follow.iter().chain(unfollow) {
        call.arg(topic.as_str());
    }
    call
}

/// The reply of `homing_1_follow`: what changed, or the limit that would be exceeded.
///
/// # Errors
/// [`StoreError`] for an error reply or another shape.
pub fn followed(value: Value<'_>) -> Result<Result<FollowChange, u64>, StoreError> {
    let mut parts = replies::array(value)?.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    match replies::text(next())?.as_deref() {
        Some("ok") => {}
        Some("too_many") => return Ok(Err(replies::integer(next())?.max(0) as u64)),
        other => return Err(StoreError::Unexpected(format!("follow answered {other:?}"))),
    }
    let (added, removed, devices) = (names(next())?, names(next())?, names(next())?);
    let at_ms = replies::text(next())?.and_then(|text| text.parse().ok());
    let at_ms = at_ms.ok_or_else(|| StoreError::Unexpected("follow did not say when".to_owned()))?;
    Ok(Ok(FollowChange { added, removed, devices, at_ms }))
}

/// Names; what is none, which nobody but an operator can have written, is left out.
fn names(value: Value<'_>) -> Result<Vec<Name>, StoreError> {
    let texts = replies::array(value)?.into_iter().map(replies::text).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.into_iter().flatten().filter_map(|text| Name::parse(&text).ok()).collect())
}

/// Brings the lists of followers and the cursors up to date with a change. They are in other slots than the user, so
/// this cannot be one with it; if it is lost, a follow that is repeated makes it good.
pub fn reindex(commands: &mut Commands, keys: &KeySpace, user: &Name, change: &FollowChange) {
    for topic in &change.added {
        let topic = Topic::Named(topic.clone());
        commands.command(3).arg("SADD").arg(keys.name(Key::Followers(&topic))).arg(user.as_str());
    }
    for topic in &change.removed {
        let topic = Topic::Named(topic.clone());
        commands.command(3).arg("SREM").arg(keys.name(Key::Followers(&topic))).arg(user.as_str());
        if change.devices.is_empty() {
            continue;
        }
        let mut forget = Function::ForgetCursors.call(&[&keys.name(Key::Cursors(&topic))]);
        forget.arg(change.at_ms);
        for device in &change.devices {
            forget.arg(KeySpace::cursor_member(user, device));
        }
        commands.add(&forget);
    }
}

/// What of a device's record concerns topics.
#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    first_seen_ms: f64,
    topics_from_ms: Option<f64>,
}

/// The reply of `HGETALL` of a user's topics: which, and since when each is followed, Unix ms.
///
/// # Errors
/// [`StoreError`] for an error reply or another shape.
pub fn followed_topics(value: Value<'_>) -> Result<Vec<(Name, u64)>, StoreError> {
    let texts = replies::array(value)?.into_iter().map(replies::text).collect::<Result<Vec<_>, _>>()?;
    let pairs = texts.chunks_exact(2).filter_map(|pair| match pair {
        [Some(topic), Some(since)] => Some((Name::parse(topic).ok()?, since.parse().ok()?)),
        _ => None,
    });
    Ok(pairs.collect())
}

/// Where a device begins, from its record; everywhere at the start if there is none.
///
/// # Errors
/// [`StoreError`] for an error reply or another shape.
pub fn begin(record: Value<'_>) -> Result<Begin, StoreError> {
    let Some(text) = replies::text(record)? else { return Ok(Begin::default()) };
    let record: Record = serde_json::from_str(&text).map_err(|error| StoreError::Unexpected(error.to_string()))?;
    let from_ms = record.topics_from_ms.unwrap_or(record.first_seen_ms);
    Ok(Begin { from_ms: from_ms as u64, first_seen_ms: record.first_seen_ms as u64 })
}

/// The reply of `ZSCORE`: a cursor, if there is one.
///
/// # Errors
/// [`StoreError`] for an error reply or another shape.
pub fn cursor(value: Value<'_>) -> Result<Option<EntryId>, StoreError> {
    let Some(text) = replies::text(value)? else { return Ok(None) };
    let score: f64 = text.parse().map_err(|_| StoreError::Unexpected(format!("{text:?} is no score")))?;
    Ok(Some(cursor_of_score(score.max(0.0) as u64)))
}

/// An entry id, or 0-0 if there is none.
///
/// # Errors
/// [`StoreError`] for an error reply or another shape.
pub fn optional_id(value: Value<'_>) -> Result<EntryId, StoreError> {
    match replies::check(value)? {
        Value::Nil => Ok(EntryId::MIN),
        value => replies::entry_id(&value),
    }
}

/// The reply of `XINFO STREAM`: the last id that the log has given out; 0-0 if there is no log.
///
/// # Errors
/// [`StoreError`] for another error reply or another shape.
pub fn head(value: Value<'_>) -> Result<EntryId, StoreError> {
    let parts = match replies::array(value) {
        Err(StoreError::Unexpected(text)) if text.contains("no such key") => return Ok(EntryId::MIN),
        parts => parts?,
    };
    let mut parts = parts.into_iter();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        if name == Value::Bulk(b"last-generated-id") {
            return replies::entry_id(&value);
        }
    }
    Err(StoreError::Unexpected("XINFO STREAM without last-generated-id".to_owned()))
}
