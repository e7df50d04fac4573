//! Receipts of what retention drops.

use homing_protocol::name::Name;
use homing_protocol::session::ReceiptEvent;
use redis::Pipeline;

use crate::config::Limits;
use crate::store::{Function, Key, KeySpace};

/// A message that was dropped for a device and asked for a receipt: device, entry id, key, 1 if it was for that device
/// only. A key may be any bytes.
pub(super) type DroppedReceipt = (String, String, Vec<u8>, u8);

/// Tells and records these drops of a user.
pub(super) fn write(
    pipeline: &mut Pipeline,
    keys: &KeySpace,
    limits: &Limits,
    user: &Name,
    dropped: &[DroppedReceipt],
) {
    let event = ReceiptEvent::Dropped.as_str();
    for (device, id, key, aimed) in dropped {
        let Ok(entry) = id.parse() else { continue };
        if limits.receipts_length > 0 {
            let mut call = Function::Announce.call(&[&keys.name(Key::Receipts)]);
            call.arg(limits.receipts_length).arg(user.as_str()).arg(device);
            call.arg(id).arg(event).arg(std::str::from_utf8(key).unwrap_or_default());
            pipeline.add_command(call);
        }
        let mut call = Function::Record.call(&[&keys.name(Key::Receipt(user, entry))]);
        call.arg(limits.inbox_age_max.as_secs()).arg(keys.control_prefix()).arg(device).arg(event).arg(*aimed);
        pipeline.add_command(call);
    }
}
