//! From the session machine's commands to Redis's, and back.

use std::borrow::Cow;

use homing_protocol::id::EntryId;
use homing_protocol::name::Name;
use homing_protocol::session::{
    AckBatch, AttachRefusal, AttachRequest, Attachment, Command, Dismissal, Failure, Pending, Reply,
};
use serde::Deserialize;
use serde_json::json;

use super::control::{DismissalRecord, GapRecord};
use super::{receipts, topic_pipeline};
use crate::store::keys::CONSUMER;
use crate::store::replies::{self, Value};
use crate::store::resp::Commands;
use crate::store::{Function, Key, KeySpace, StoreError};

/// What the function `touch` answers when a device is online again that was announced as gone.
pub(super) const TOUCH_CAME_BACK: i64 = 2;
/// Rows of the pending list that are looked through for the ids of a claim.
const CLAIM_PENDING_COUNT: u64 = 2_048;

/// Who attaches, and within which limits.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// The node's name, for people.
    pub(super) node: String,
    /// `<node>:<random per start>.<shard>`.
    pub(super) owner: String,
    pub(super) devices_max: u32,
    /// Devices of a user that may be connected at once, unless the token says otherwise; 0: any number.
    pub(super) sessions_max: u32,
    /// Whether presence is announced.
    pub(super) presence: bool,
    pub(super) replace_after_ms: u64,
    pub(super) topics_per_user: u32,
    /// Entries that the stream of receipts keeps; 0 if there is none.
    pub(super) receipts_length: u64,
    /// How long what became of a message is remembered.
    pub(super) receipt_seconds: u64,
}

/// Whom a command concerns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) user: &'a Name,
    pub(super) device: &'a Name,
}

/// Appends a command; answers how many replies will come.
pub(super) fn encode(
    pipeline: &mut Commands,
    keys: &KeySpace,
    identity: &Identity,
    target: Target<'_>,
    nonce: u64,
    command: &Command,
) -> usize {
    let Target { user, device } = target;
    let inbox = || keys.name(Key::Inbox(user));
    let devices = || keys.name(Key::Devices(user));
    let device_name = device.as_str();
    let before = pipeline.len();
    match command {
        Command::Attach(request) => {
            let request = attach_json(keys, identity, target, nonce, request);
            call(pipeline, Function::Attach, &[&inbox(), &devices()], &[&request]);
            pipeline.command(3).arg("HGET").arg(keys.name(Key::Epoch)).arg("epoch");
        }
        Command::SetAside { reason, ids, gone } => {
            let mut call = Function::SetAside.call(&[&inbox(), &devices()]);
            call.arg(user.as_str()).arg(device_name).arg(keys.control_prefix()).arg(&identity.owner);
            call.arg(reason.as_str()).arg(*gone);
            call.arg(ids.iter().map(EntryId::to_string).collect::<Vec<_>>());
            pipeline.add(&call);
        }
        Command::Announce { receipts } => receipts::encode_announce(pipeline, keys, identity, target, receipts),
        Command::Record { receipts } => receipts::encode_record(pipeline, keys, identity, target, receipts),
        Command::Ack(batch) => encode_acks(pipeline, keys, target, batch),
        Command::AckGap { id, .. } => call(pipeline, Function::AckGap, &[&devices()], &[device_name, id]),
        Command::Sweep { .. } => {
            pipeline.command(3).arg("XPENDING").parts(&keys.parts(Key::Inbox(user))).arg(device_name);
            pipeline.command(3).arg("HGET").parts(&keys.parts(Key::Devices(user))).arg(device_name);
        }
        Command::Claim { ids } => {
            let inbox = keys.parts(Key::Inbox(user));
            let first = ids.iter().min().copied().unwrap_or_default();
            let last = ids.iter().max().copied().unwrap_or_default();
            let mut pending = pipeline.command(6);
            pending.arg("XPENDING").parts(&inbox).arg(device_name).id(first).id(last).number(CLAIM_PENDING_COUNT);
            drop(pending);
            let mut claim = pipeline.command(5 + ids.len());
            claim.arg("XCLAIM").parts(&inbox).arg(device_name).arg(CONSUMER).number(0).ids(ids);
        }
        Command::ReadPending { after, count } => {
            let from = self::after(*after);
            // Before the read, which raises the counters of all that it returns.
            let mut pending = pipeline.command(6);
            pending.arg("XPENDING").parts(&keys.parts(Key::Inbox(user))).arg(device_name).arg(from).arg("+");
            pending.number(u64::from(*count));
            drop(pending);
            encode_read(pipeline, keys, target, *count, &after.to_string());
        }
        Command::Touch { generation } => {
            let (generation, Identity { owner, node, .. }) = (generation.to_string(), identity);
            call(pipeline, Function::Touch, &[&devices()], &[device_name, &generation, owner, node]);
        }
        Command::Forget { generation } => {
            let (generation, control) = (generation.to_string(), keys.control_prefix());
            let arguments = [user.as_str(), device_name, &control, &generation];
            call(pipeline, Function::Remove, &[&inbox(), &devices()], &arguments);
        }
        Command::Release { generation, ended } => {
            encode_release(pipeline, keys, identity, target, nonce, *generation, *ended);
        }
        command => topic_pipeline::encode(pipeline, keys, identity, target, command),
    }
    pipeline.len() - before
}

pub(super) fn encode_release(
    pipeline: &mut Commands,
    keys: &KeySpace,
    identity: &Identity,
    target: Target<'_>,
    nonce: u64,
    generation: u64,
    ended: bool,
) {
    let (control, generation) = (keys.control_prefix(), generation.to_string());
    let nonce = if nonce == 0 { String::new() } else { nonce_text(identity, nonce) };
    let ended = if ended { "1" } else { "0" };
    let (user, device) = (target.user.as_str(), target.device.as_str());
    let arguments = [user, device, &control, &identity.owner, &generation, ended, &nonce];
    call(pipeline, Function::Release, &[&keys.name(Key::Devices(target.user))], &arguments);
}

pub(super) fn encode_trim(pipeline: &mut Commands, keys: &KeySpace, user: &Name) {
    call(pipeline, Function::Trim, &[&keys.name(Key::Inbox(user)), &keys.name(Key::Devices(user))], &[]);
}

fn call(pipeline: &mut Commands, function: Function, keys: &[&str], arguments: &[&str]) {
    let mut command = pipeline.command(3 + keys.len() + arguments.len());
    command.arg("FCALL").arg(function.name()).number(keys.len() as u64);
    for argument in keys.iter().chain(arguments) {
        command.arg(argument);
    }
}

fn encode_read(pipeline: &mut Commands, keys: &KeySpace, target: Target<'_>, count: u16, from: &str) {
    let mut read = pipeline.command(9);
    read.arg("XREADGROUP").arg("GROUP").arg(target.device.as_str()).arg(CONSUMER);
    read.arg("COUNT").number(u64::from(count.max(1))).arg("STREAMS");
    read.parts(&keys.parts(Key::Inbox(target.user))).arg(from);
}

fn encode_acks(pipeline: &mut Commands, keys: &KeySpace, Target { user, device }: Target<'_>, batch: &AckBatch) {
    let (inbox, device) = (keys.parts(Key::Inbox(user)), device.as_str());
    if !batch.own.is_empty() {
        pipeline.command(3 + batch.own.len()).arg("XACK").parts(&inbox).arg(device).ids(&batch.own);
    }
    if !batch.foreign.is_empty() {
        receipts::encode_foreign_acks(pipeline, &inbox.concat(), device, &batch.foreign);
    }
    if !batch.confirmations.is_empty() {
        pipeline.command(3).arg("HGET").parts(&keys.parts(Key::Devices(user))).arg(device);
    }
}

/// Names one session's attach among all of all nodes.
fn nonce_text(identity: &Identity, nonce: u64) -> String {
    format!("{}#{nonce}", identity.owner)
}

fn attach_json(
    keys: &KeySpace,
    identity: &Identity,
    target: Target<'_>,
    nonce: u64,
    request: &AttachRequest,
) -> String {
    let owner = &identity.owner;
    let nonce = nonce_text(identity, nonce);
    // A client that names no instance is its own: it is never older than itself.
    let instance = if request.instance.is_empty() { nonce.as_str() } else { &request.instance };
    json!({
        "user": target.user.as_str(),
        "device": target.device.as_str(),
        "channels": keys.control_prefix(),
        "owner": owner,
        "node": identity.node,
        "nonce": nonce,
        "instance": instance,
        "seq": request.seq,
        "from": request.from,
        "epoch": request.epoch,
        "primary": request.primary.to_string(),
        "mode": request.mode.as_str(),
        "generation": request.generation.to_string(),
        "devices_max": identity.devices_max,
        "replace_after_ms": identity.replace_after_ms,
        "sessions_max": request.sessions.unwrap_or(identity.sessions_max),
        "issued_at_s": request.issued_at_s.map_or(-1, |seconds| i64::try_from(seconds).unwrap_or(i64::MAX)),
        "presence": identity.presence,
    })
    .to_string()
}

/// Makes the reply of a command out of Redis's replies: those that [`encode`] announced, or fewer if they are missing.
pub(crate) fn decode<'a>(
    owner: &str,
    command: &Command,
    mut values: impl Iterator<Item = Value<'a>>,
) -> Result<Reply<&'a [u8]>, StoreError> {
    Ok(match command {
        Command::Attach(_) => Reply::Attached(Box::new(decode_attach(&mut values)?)),
        Command::SetAside { .. } => {
            Reply::SetAside(replies::text(next(&mut values))?.and_then(|text| GapRecord::parse(&text)))
        }
        Command::Ack(batch) => decode_acks(batch, &mut values)?,
        Command::Announce { receipts } => receipts::decode_announce(receipts, &mut values)?,
        Command::Record { receipts } => receipts::decode_record(receipts, &mut values)?,
        Command::Sweep { .. } => {
            let (count, first, last) = replies::pending_summary(next(&mut values))?;
            let text = replies::text(next(&mut values))?;
            let record = text.as_deref().map(Record::parse).transpose()?;
            let owned = record.as_ref().is_none_or(|record| record.owner == owner);
            let generation = record.as_ref().map(|record| number(&record.generation)).transpose()?;
            let dismissed = record.and_then(|record| record.dismissed).map(Dismissal::from);
            Reply::Swept { pending: Pending { count, first, last }, generation, owned, dismissed }
        }
        Command::Claim { .. } => {
            let pending = replies::pending_entries(next(&mut values))?;
            let entries = replies::entries(next(&mut values))?;
            Reply::Claimed { pending: pending.iter().map(|entry| entry.id).collect(), entries }
        }
        Command::ReadPending { .. } => {
            let pending = replies::pending_entries(next(&mut values))?;
            let read = replies::group_read(next(&mut values))?;
            // Both are in the order of ids, and nothing can come between them.
            let mut pending = pending.into_iter().peekable();
            let entries = read.into_iter().map(|(entry, exists)| {
                while pending.next_if(|row| row.id < entry.id).is_some() {}
                let deliveries = pending.next_if(|row| row.id == entry.id).map_or(1, |row| row.deliveries);
                (entry, exists, deliveries)
            });
            Reply::PendingRead(entries.collect())
        }
        Command::Forget { .. } => Reply::Forgotten(replies::integer(next(&mut values))? == 1),
        Command::AckGap { .. } | Command::Touch { .. } | Command::Release { .. } => {
            replies::check(next(&mut values))?;
            Reply::Done
        }
        command => match topic_pipeline::decode(command, &mut values)? {
            Some(reply) => reply,
            None => return Err(StoreError::Unexpected("a reply to no command".to_owned())),
        },
    })
}

/// An exclusive lower end of a range of entries.
pub(super) fn after(id: EntryId) -> String {
    if id == EntryId::MIN { "-".to_owned() } else { format!("({id}") }
}

pub(super) fn next<'a>(values: &mut impl Iterator<Item = Value<'a>>) -> Value<'a> {
    values.next().unwrap_or(Value::Nil)
}

fn decode_acks<'a>(
    batch: &AckBatch,
    values: &mut impl Iterator<Item = Value<'a>>,
) -> Result<Reply<&'a [u8]>, StoreError> {
    let own = if batch.own.is_empty() { 0 } else { replies::integer(next(values))? };
    let (removed, withheld) = receipts::decode_foreign_acks(&batch.foreign, values)?;
    let generation = if batch.confirmations.is_empty() { None } else { recorded_generation(next(values))? };
    Ok(Reply::Acked { own: u32::try_from(own).unwrap_or(0), removed, withheld, generation })
}

fn decode_attach<'a>(
    values: &mut impl Iterator<Item = Value<'a>>,
) -> Result<Result<Attachment, AttachRefusal>, StoreError> {
    let reply = replies::array(next(values))?.into_iter().map(replies::text);
    let mut reply = reply.map(|text| Ok(text?.unwrap_or_default()));
    let mut text = || reply.next().unwrap_or(Ok::<_, StoreError>(Cow::Borrowed("")));
    match &*text()? {
        "ok" => {}
        "stale" => return Ok(Err(AttachRefusal::Stale)),
        "superseded" => return Ok(Err(AttachRefusal::Superseded)),
        "refused" => return Ok(Err(AttachRefusal::Dismissed(Dismissal::TokenRefused))),
        "dismissed" => {
            text()?;
            let (kind, reason) = (text()?, text()?);
            return Ok(Err(AttachRefusal::Dismissed(DismissalRecord::new(&kind, &reason).into())));
        }
        "too_many" => return Ok(Err(AttachRefusal::TooMany)),
        "removed" => {
            let primary = replies::text(next(values))?.and_then(|epoch| epoch.parse().ok());
            return Ok(Err(AttachRefusal::Removed { primary }));
        }
        other => return Err(StoreError::Unexpected(format!("attach answered {other:?}"))),
    }
    let generation = number(&text()?)?;
    let created = text()? == "1";
    let incarnation = number(&text()?)?;
    let pending = text()?.parse().ok();
    Ok(Ok(Attachment {
        generation,
        created,
        incarnation,
        pending,
        last_delivered: id(&text()?)?,
        start: id(&text()?)?,
        gap: GapRecord::parse(&text()?),
        length: number(&text()?)?,
        now_ms: number(&text()?)?,
        took_over: text()? == "1",
        refuse_before_s: number(&text()?)?,
        period: number(&text()?)?,
        announcer: text()?.into(),
    }))
}

fn number(text: &str) -> Result<u64, StoreError> {
    text.parse().map_err(|_| StoreError::Unexpected(format!("{text:?} is no number")))
}

fn id(text: &str) -> Result<EntryId, StoreError> {
    text.parse().map_err(|_| StoreError::Unexpected(format!("{text:?} is no entry id")))
}

/// What is asked of a device's record. Read for every confirmed ack, so it copies nothing.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    generation: Cow<'a, str>,
    #[serde(borrow, default)]
    owner: Cow<'a, str>,
    #[serde(default)]
    dismissed: Option<DismissalRecord>,
}

impl<'a> Record<'a> {
    fn parse(text: &'a str) -> Result<Self, StoreError> {
        serde_json::from_str(text).map_err(|error| StoreError::Unexpected(error.to_string()))
    }
}

/// The generation in a device's record; `None` if there is no record.
pub(super) fn recorded_generation(value: Value<'_>) -> Result<Option<u64>, StoreError> {
    let Some(text) = replies::text(value)? else { return Ok(None) };
    number(&Record::parse(&text)?.generation).map(Some)
}

/// What a session should make of an error.
pub(super) fn failure(error: &StoreError) -> Failure {
    match error {
        StoreError::Unavailable(_) => Failure::Refused,
        StoreError::FunctionMissing => Failure::NotLoaded,
        StoreError::OutcomeUnknown(_) => Failure::Disconnected,
        StoreError::WrongType => Failure::WrongType,
        StoreError::NoGroup => Failure::NoGroup,
        StoreError::Unexpected(_) | StoreError::NotListed(_) => Failure::Unexpected,
    }
}
