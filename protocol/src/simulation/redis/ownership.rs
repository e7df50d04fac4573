//! Who owns a device: `homing_1_attach`, `homing_1_release` and `homing_1_remove`.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Caller, Control, Group, Record, Redis};
use crate::frame::{Gap, GapReason};
use crate::id::EntryId;
use crate::session::{AttachMode, AttachRefusal, AttachRequest, Attachment, Dismissal};
use crate::simulation::fault::Fault;

/// Another device that is connected: whether its owner lives, since when, its name, and what it was allowed.
type Other = (bool, u64, String, u32);

/// Whether one that connected later allowed no more sessions than there are since.
fn is_outlived(others: &[Other], connected: u64) -> bool {
    let later = others.iter().filter(|(alive, since, ..)| *alive && *since > connected);
    later.zip(1..).any(|((.., limit), count)| *limit > 0 && count >= *limit)
}

impl Redis {
    pub(super) fn attach(&mut self, caller: Caller<'_>, request: &AttachRequest) -> Result<Attachment, AttachRefusal> {
        let device = caller.device;
        if self.refuses(request.issued_at_s) {
            return Err(AttachRefusal::Dismissed(Dismissal::TokenRefused));
        }
        let known = self.devices.contains_key(device);
        let named =
            if request.mode == AttachMode::Again && self.has(Fault::RolledBackIsNew) { "" } else { &*request.epoch };
        let mut record = self.devices.get(device).cloned().unwrap_or_default();
        if request.mode == AttachMode::Repair {
            if !known {
                return Err(AttachRefusal::Removed { primary: self.primary });
            }
            if record.generation != request.generation {
                return Err(AttachRefusal::Superseded);
            }
        }
        let nonce = caller.nonce();
        let repeated = known && record.nonce == nonce;
        if let Some(dismissal) = record.dismissed.clone().filter(|_| repeated) {
            return Err(AttachRefusal::Dismissed(dismissal));
        }
        let instance = if request.instance.is_empty() { nonce.clone() } else { request.instance.to_string() };
        if known
            && !repeated
            && record.instance == instance
            && request.seq < record.seq
            && !self.has(Fault::StaleAttachWins)
        {
            return Err(AttachRefusal::Stale);
        }
        let connected = Some(request.generation).filter(|since| request.mode == AttachMode::Again && *since > 0);
        if known && !repeated && connected.is_some_and(|connected| connected < record.connected) {
            return Err(AttachRefusal::Stale);
        }
        if !known && self.devices.len() >= self.devices_max {
            return Err(AttachRefusal::TooMany);
        }
        let alone = self.devices.is_empty() && request.from != "end";
        let from_start = known || !named.is_empty() || request.from == "start" || alone;
        let at_end = known && self.has(Fault::KnownDeviceAtEnd);
        let start = if from_start && !at_end { EntryId::MIN } else { self.last_id };
        let inbox = self.inbox.get_or_insert_default();
        let made = !inbox.groups.contains_key(device);
        let group = inbox.groups.entry(device.to_owned()).or_insert(Group { last: start, pending: BTreeMap::new() });
        let (last_delivered, waiting) = (group.last, group.pending.len());
        let unread = inbox.entries.range((Bound::Excluded(last_delivered), Bound::Unbounded)).count();
        let length = inbox.entries.len() as u64;
        if !known {
            // All of it, unless an older group of this name is still there.
            let rest = inbox.entries.keys().filter(|id| **id > last_delivered).copied();
            let pending = inbox.groups.get(device).into_iter().flat_map(|group| group.pending.keys().copied());
            self.owed.insert(device.to_owned(), rest.chain(pending).collect());
            record.first_seen_ms = self.unix_ms;
            record.topics_from_ms = if from_start { 0 } else { self.unix_ms };
            if from_start {
                self.topics.begin(device);
            }
        }
        if made && known && self.has(Fault::RepairSilently) {
        } else if made && known {
            self.raise_incarnation();
            open_gap(&mut record, GapReason::Epoch, 0, self.unix_ms);
        } else if !known {
            if self.incarnation == 0 {
                self.raise_incarnation();
            }
            if !named.is_empty() {
                let same = named.starts_with(&format!("{}.", request.primary));
                let reason = if same { GapReason::DeviceExpired } else { GapReason::Epoch };
                open_gap(&mut record, reason, 0, self.unix_ms);
            }
        } else if record.epoch != request.primary {
            open_gap(&mut record, GapReason::Epoch, 0, self.unix_ms);
        }
        let previous_owner = std::mem::replace(&mut record.owner, caller.owner.to_owned());
        let raises = if request.mode == AttachMode::Repair { self.has(Fault::RepairRaises) } else { !repeated };
        (record.dismissed, record.struck) = (None, String::new());
        if raises {
            record.generation = (record.generation + 1).max(self.unix_ms * 1_000);
            record.connected = connected.unwrap_or(record.generation);
            record.limit = request.sessions.unwrap_or(self.sessions_per_user);
        }
        if made || record.start.is_none() {
            record.start = Some(last_delivered);
        }
        (record.nonce, record.instance) = (nonce, instance);
        (record.seq, record.epoch) = (request.seq, request.primary);
        let others = self.others_connected(device);
        let is_outlived = request.mode == AttachMode::Again && is_outlived(&others, record.connected);
        if is_outlived {
            record.owner = String::new();
            record.dismissed = Some(Dismissal::Replaced);
        }
        let (limit, connected) = (record.limit, record.connected);
        let attachment = Attachment {
            generation: record.generation,
            created: !known,
            incarnation: self.incarnation,
            pending: Some((waiting + unread) as u64),
            last_delivered,
            start: record.start.unwrap_or_default(),
            gap: record.gap.clone(),
            length,
            took_over: !previous_owner.is_empty() && !repeated,
            now_ms: self.unix_ms,
            refuse_before_s: self.refuse_before_s,
            period: 0,
            announcer: Box::default(),
        };
        self.devices.insert(device.to_owned(), record);
        if previous_owner != caller.owner || self.has(Fault::OwnGenerationCloses) {
            if self.has(Fault::ReleaseToSuccessor) {
                self.successors.insert(previous_owner.clone(), caller.owner.to_owned());
            }
            let generation = attachment.generation;
            self.tell(&previous_owner, Control::Superseded { device: device.to_owned(), generation });
        }
        if is_outlived {
            return Err(AttachRefusal::Dismissed(Dismissal::Replaced));
        }
        let connects = request.mode == AttachMode::Connect && !repeated;
        self.replace_others(connects, limit, others, connected);
        Ok(attachment)
    }

    fn refuses(&self, issued_at_s: Option<u64>) -> bool {
        self.refuse_before_s > 0 && issued_at_s.is_none_or(|issued_at_s| issued_at_s <= self.refuse_before_s)
    }

    /// Other devices that are connected, those first that were judged dead, in the order in which they connected.
    fn others_connected(&self, device: &str) -> Vec<Other> {
        let others = self.devices.iter().filter(|(name, _)| *name != device);
        let held = others.filter(|(_, record)| !record.owner.is_empty() || !record.struck.is_empty());
        let mut held: Vec<Other> = held
            .map(|(name, record)| (!record.owner.is_empty(), record.connected, name.clone(), record.limit))
            .collect();
        held.sort();
        held
    }

    /// Ends the sessions of other devices that are one too many. Unless the client connects just now, those that
    /// connected later neither count nor end.
    fn replace_others(&mut self, connects: bool, limit: u32, mut others: Vec<Other>, connected: u64) {
        others.retain(|(alive, since, ..)| connects || !*alive || *since <= connected);
        let excess = if limit == 0 { 0 } else { (others.len() + 1).saturating_sub(limit as usize) };
        for (_, _, name, _) in others.into_iter().take(excess) {
            self.dismiss(&name, Dismissal::Replaced);
        }
    }

    /// Ends a device's session, as a policy or `homing_1_disconnect` does.
    pub fn dismiss(&mut self, device: &str, dismissal: Dismissal) {
        let Some(record) = self.devices.get_mut(device) else { return };
        let (owner, struck) = (std::mem::take(&mut record.owner), std::mem::take(&mut record.struck));
        record.dismissed = Some(dismissal.clone());
        let (device, generation) = (device.to_owned(), record.generation);
        let owner = if owner.is_empty() { struck } else { owner };
        self.tell(&owner, Control::Dismissed { device, generation, dismissal });
    }

    pub(super) fn release(&mut self, caller: Caller<'_>, generation: u64, ended: bool) {
        let Some(record) = self.devices.get_mut(caller.device) else { return };
        let named =
            caller.nonce > 0 && record.nonce == caller.nonce() && self.fault != Some(Fault::ReleaseWithoutNonce);
        if record.owner == caller.owner && (record.generation == generation || named) {
            if ended {
                record.owner.clear();
            }
            return;
        }
        if ended && record.owner.is_empty() && record.struck == caller.owner {
            record.struck.clear();
        }
        let successor = self.successors.get(caller.owner).cloned();
        let owner = successor.unwrap_or_else(|| record.owner.clone());
        self.tell(&owner, Control::Release { device: caller.device.to_owned() });
    }

    /// `homing_1_remove`, whatever the generation.
    pub fn remove_device(&mut self, device: &str) {
        self.trim();
        if let Some(inbox) = &mut self.inbox {
            inbox.groups.remove(device);
        }
        self.owed.remove(device);
        let removed = self.devices.remove(device);
        self.raise_incarnation();
        if let Some(Record { owner, generation, .. }) = removed {
            self.tell(&owner, Control::Removed { device: device.to_owned(), generation });
        }
    }
}

pub(super) fn open_gap(record: &mut Record, reason: GapReason, count: u64, now_ms: u64) {
    let before = record.gap.as_ref().map_or(0, |gap| gap.count);
    record.gap = Some(Gap { id: format!("gap-{now_ms}{:03}", before + count).into(), reason, count: before + count });
}
