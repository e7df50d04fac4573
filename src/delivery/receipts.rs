//! Receipts between the session machine and Redis.

use homing_protocol::id::EntryId;
use homing_protocol::session::{Receipt, Reply, Wish};

use super::pipeline::{Identity, Target, next};
use crate::store::replies::{self, Value};
use crate::store::resp::Commands;
use crate::store::{Function, Key, KeySpace, StoreError};

/// Receipts, or acks, in one call of a function: meanwhile Redis serves nobody else.
const CALL_COUNT_MAX: usize = 256;

/// Nothing, if there is no stream of receipts.
pub(super) fn encode_announce(
    pipeline: &mut Commands,
    keys: &KeySpace,
    identity: &Identity,
    target: Target<'_>,
    receipts: &[Receipt],
) {
    if identity.receipts_length == 0 {
        return;
    }
    for receipts in receipts.chunks(CALL_COUNT_MAX) {
        let mut call = pipeline.command(7 + 3 * receipts.len());
        call.arg("FCALL").arg(Function::Announce.name()).number(1).arg(keys.name(Key::Receipts));
        call.number(identity.receipts_length).arg(target.user.as_str()).arg(target.device.as_str());
        for receipt in receipts {
            call.id(receipt.id).arg(receipt.event.as_str()).arg(receipt.wish.key.as_deref().unwrap_or_default());
        }
    }
}

pub(super) fn decode_announce<'a, B>(
    receipts: &[Receipt],
    values: &mut impl Iterator<Item = Value<'a>>,
) -> Result<Reply<B>, StoreError> {
    for _ in receipts.chunks(CALL_COUNT_MAX) {
        replies::check(next(values))?;
    }
    Ok(Reply::Done)
}

pub(super) fn encode_record(
    pipeline: &mut Commands,
    keys: &KeySpace,
    identity: &Identity,
    target: Target<'_>,
    receipts: &[Receipt],
) {
    for receipts in receipts.chunks(CALL_COUNT_MAX) {
        let mut call = pipeline.command(6 + 3 * receipts.len());
        call.arg("FCALL").arg(Function::Record.name()).number(receipts.len() as u64);
        for receipt in receipts {
            call.arg(keys.name(Key::Receipt(target.user, receipt.id)));
        }
        call.number(identity.receipt_seconds).arg(keys.control_prefix()).arg(target.device.as_str());
        for receipt in receipts {
            call.arg(receipt.event.as_str()).number(u64::from(receipt.wish.aimed));
        }
    }
}

pub(super) fn decode_record<'a, B>(
    receipts: &[Receipt],
    values: &mut impl Iterator<Item = Value<'a>>,
) -> Result<Reply<B>, StoreError> {
    let mut fresh = Vec::with_capacity(receipts.len());
    for _ in receipts.chunks(CALL_COUNT_MAX) {
        for first in replies::array(next(values))? {
            fresh.push(replies::integer(first)? == 1);
        }
    }
    Ok(Reply::Recorded(fresh))
}

pub(super) fn encode_foreign_acks(pipeline: &mut Commands, inbox: &str, device: &str, ids: &[EntryId]) {
    for ids in ids.chunks(CALL_COUNT_MAX) {
        let mut call = pipeline.command(5 + ids.len());
        call.arg("FCALL").arg(Function::Ack.name()).number(1).arg(inbox).arg(device).ids(ids);
    }
}

/// For each id whether it was acknowledged; those that were not because they ask for receipts.
type ForeignAcks = (Vec<bool>, Vec<(EntryId, Wish)>);

pub(super) fn decode_foreign_acks<'a>(
    ids: &[EntryId],
    values: &mut impl Iterator<Item = Value<'a>>,
) -> Result<ForeignAcks, StoreError> {
    let (mut removed, mut withheld) = (Vec::with_capacity(ids.len()), Vec::new());
    for ids in ids.chunks(CALL_COUNT_MAX) {
        for (id, outcome) in ids.iter().zip(replies::array(next(values))?) {
            let Value::Array(wish) = outcome else {
                removed.push(replies::integer(outcome)? > 0);
                continue;
            };
            removed.push(false);
            withheld.push((*id, read_wish(&wish)));
        }
    }
    Ok((removed, withheld))
}

/// A key that is none is left out, as it is in frames.
fn read_wish(parts: &[Value<'_>]) -> Wish {
    let key = match parts.first() {
        Some(Value::Bulk(key)) if (1..=homing_protocol::limits::KEY_BYTES_MAX).contains(&key.len()) => {
            std::str::from_utf8(key).ok().map(Box::from)
        }
        _ => None,
    };
    Wish { key, aimed: matches!(parts.get(1), Some(Value::Int(1))) }
}
