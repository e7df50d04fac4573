//! What Redis does for one user, in memory: the inbox, its groups, the devices' records, and the functions of
//! `migrations/`, line by line. It only serves to drive the pure machine; tests of the server use a real Redis.

mod ownership;
mod topics;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use ownership::open_gap;
use topics::Topics;

use super::fault::Fault;
use crate::frame::{Gap, GapReason};
use crate::id::EntryId;
use crate::message::Entry;
use crate::session::{AckBatch, Command, Dismissal, Failure, Pending, Receipt, ReceiptEvent, Reply, Wish};

/// A reply as the driver would decode it.
pub type Answer = Reply<Vec<u8>>;

/// Fields of an entry.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// What a function publishes to the owner of a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Control {
    Superseded {
        device: String,
        generation: u64,
    },
    Release {
        device: String,
    },
    Removed {
        device: String,
        generation: u64,
    },
    Gap {
        device: String,
        gap: Gap,
    },
    Dismissed {
        device: String,
        generation: u64,
        dismissal: Dismissal,
    },
    /// The user follows other topics.
    Topics,
}

/// Who sends a command.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    pub owner: &'a str,
    pub device: &'a str,
    pub nonce: u64,
}

impl Caller<'_> {
    pub fn nonce(&self) -> String {
        format!("{}#{}", self.owner, self.nonce)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Inbox {
    entries: BTreeMap<EntryId, Fields>,
    groups: BTreeMap<String, Group>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Group {
    last: EntryId,
    /// Deliveries of each pending entry.
    pending: BTreeMap<EntryId, u32>,
}

impl Group {
    fn first_needed(&self) -> EntryId {
        self.pending.keys().next().copied().or_else(|| self.last.next()).expect("ids do not end here")
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    pub generation: u64,
    pub owner: String,
    /// The generation with which the client connected.
    connected: u64,
    /// The sessions of the user that were allowed then; 0 for any number.
    limit: u32,
    /// Owner and number of the attach.
    pub nonce: String,
    instance: String,
    seq: u64,
    start: Option<EntryId>,
    epoch: u64,
    first_seen_ms: u64,
    topics_from_ms: u64,
    pub dropped: u64,
    pub gap: Option<Gap>,
    /// Somebody else ended the session of this generation.
    pub dismissed: Option<Dismissal>,
    /// The owner that was judged dead: it may go on, unless it is dismissed meanwhile.
    pub struck: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Redis {
    pub unix_ms: u64,
    /// `homing:epoch`.
    pub primary: Option<u64>,
    /// Writes are refused.
    pub refusing: bool,
    /// The inbox key holds something else than a stream.
    pub wrong_type: bool,
    pub devices_max: usize,
    /// Devices of the user that may be connected at once; 0: any number.
    pub sessions_per_user: u32,
    /// Tokens that were issued until then, in Unix seconds, are refused.
    pub refuse_before_s: u64,
    inbox: Option<Inbox>,
    /// Not part of the inbox, so that ids never repeat however often it is deleted.
    last_id: EntryId,
    devices: BTreeMap<String, Record>,
    incarnation: u64,
    pub topics: Topics,
    /// Published to owners, to be handed out.
    pub said: Vec<(String, Control)>,
    /// What each device has a right to: appended while it was known, or before the first device, and not acked.
    pub owed: BTreeMap<String, BTreeSet<EntryId>>,
    /// Entries that a trim took from a device that had not acked them.
    pub robbed: Vec<(String, EntryId)>,
    /// The stream of receipts, each with its device.
    pub announced: Vec<(String, Receipt)>,
    /// What is recorded beside messages.
    pub recorded: BTreeSet<(String, EntryId, ReceiptEvent)>,
    /// Entries that left a pending list by an ack of theirs without a receipt that they asked for.
    pub untold: Vec<(String, EntryId)>,
    /// A planted bug.
    pub fault: Option<Fault>,
    /// Keyspace events are on.
    pub flags: bool,
    /// Redis refuses an append that a node sends, after so many others.
    pub appends_until_refused: Option<u8>,
    /// Appends that nodes sent, whose events are to be handed out.
    pub appended: usize,
    /// Another server, or the same one with older data: its identity is not the recorded one.
    pub restarted: bool,
    /// Something was removed while two devices were known.
    pub trimmed_for_two: bool,
    /// Whom each owner was superseded by last; only a planted bug looks at it.
    successors: BTreeMap<String, String>,
    /// How many were executed.
    pub sweeps: usize,
}

impl Redis {
    pub fn new(unix_ms: u64, primary: u64) -> Self {
        Self { unix_ms, primary: Some(primary), devices_max: 20, flags: true, ..Self::default() }
    }

    /// `XADD`.
    pub fn append(&mut self, fields: Fields) -> EntryId {
        let id = (EntryId { ms: self.unix_ms, seq: 0 }).max(self.last_id.next().expect("ids do not end here"));
        self.last_id = id;
        self.inbox.get_or_insert_default().entries.insert(id, fields);
        for device in self.devices.keys() {
            self.owed.entry(device.clone()).or_default().insert(id);
        }
        id
    }

    pub fn execute(&mut self, caller: Caller<'_>, command: &Command) -> Answer {
        if self.refusing {
            return Reply::Failed(Failure::Refused);
        }
        if self.wrong_type {
            return Reply::Failed(Failure::WrongType);
        }
        let device = caller.device;
        match command {
            Command::Attach(request) => Reply::Attached(Box::new(self.attach(caller, request))),
            Command::SetAside { reason, ids, gone } => Reply::SetAside(self.set_aside(caller, *reason, ids, *gone)),
            Command::Announce { receipts } => {
                self.announced.extend(receipts.iter().map(|receipt| (device.to_owned(), receipt.clone())));
                Reply::Done
            }
            Command::Record { receipts } => {
                let fresh = receipts.iter().map(|receipt| (device.to_owned(), receipt.id, receipt.event));
                Reply::Recorded(fresh.map(|receipt| self.recorded.insert(receipt)).collect())
            }
            Command::Ack(batch) => self.ack(device, batch),
            Command::AckGap { id, .. } => {
                if let Some(record) = self.devices.get_mut(device)
                    && record.gap.as_ref().is_some_and(|gap| gap.id == *id)
                {
                    record.gap = None;
                }
                Reply::Done
            }
            Command::Sweep { expected } => self.sweep(caller, *expected),
            Command::Claim { ids } => self.claim(device, ids),
            Command::ReadPending { after, count } => self.read_pending(device, *after, *count),
            Command::ReadNew { count } => self.read_new(device, *count),
            Command::Touch { .. } if self.has(Fault::TouchDoesNotClaim) => Reply::Done,
            Command::Touch { generation } => {
                let record = self.devices.get_mut(device).filter(|record| record.generation == *generation);
                if let Some(record) = record.filter(|record| record.owner.is_empty() && record.dismissed.is_none()) {
                    caller.owner.clone_into(&mut record.owner);
                    record.struck.clear();
                }
                Reply::Done
            }
            Command::Forget { generation } => {
                let is_it = self.devices.get(device).is_some_and(|record| record.generation == *generation)
                    || self.has(Fault::ForgetAnyGeneration);
                if is_it {
                    self.remove_device(device);
                }
                Reply::Forgotten(is_it)
            }
            Command::Release { generation, ended } => {
                self.release(caller, *generation, *ended);
                Reply::Done
            }
            Command::LoadFollows { begin } => self.load_follows(device, *begin),
            Command::LoadCursor { topic, rewound } => self.load_cursor(device, topic, *rewound),
            Command::WriteCursor { topic, id, rewind, confirm } => {
                self.write_cursor(device, topic, *id, *rewind);
                Reply::CursorWritten { generation: self.generation(device).filter(|_| *confirm) }
            }
            Command::ReadTopic { topic, after, count } => self.read_topic(topic, *after, *count),
            Command::RereadTopic { topic, ids } => Reply::TopicReread(self.topics.reread(topic, ids)),
            Command::Follow { topics, follow, .. } => Reply::Followed(self.follow(caller.owner, topics, *follow)),
        }
    }

    pub fn record(&self, device: &str) -> Option<&Record> {
        self.devices.get(device)
    }

    pub fn pending(&self, device: &str) -> Vec<EntryId> {
        self.group(device).map(|group| group.pending.keys().copied().collect()).unwrap_or_default()
    }

    /// Goes back to what an older copy holds. Ids may run backwards.
    pub fn rewind(&mut self, older: &Self) {
        let (unix_ms, primary) = (self.unix_ms, self.primary);
        *self = Self { unix_ms, primary, restarted: true, ..older.clone() };
        self.said.clear();
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Makes states equal that will behave alike: only whether an entry was delivered before is of interest.
    pub fn forget_what_is_over(&mut self) {
        self.sweeps = 0;
        let groups = self.inbox.iter_mut().flat_map(|inbox| inbox.groups.values_mut());
        groups.flat_map(|group| group.pending.values_mut()).for_each(|deliveries| *deliveries = 1);
    }

    /// A device's group is destroyed by somebody.
    pub fn delete_group(&mut self, device: &str) {
        if let Some(inbox) = &mut self.inbox {
            inbox.groups.remove(device);
            // It is repaired at the beginning: what is left comes again, whether acknowledged or not.
            let left = inbox.entries.keys().copied().collect();
            self.owed.insert(device.to_owned(), left);
        }
    }

    /// The devices' records are deleted by somebody.
    pub fn delete_records(&mut self) {
        self.devices.clear();
        self.incarnation = 0;
    }

    /// The inbox is deleted by somebody.
    pub fn delete_inbox(&mut self) {
        self.inbox = None;
        self.owed.values_mut().for_each(BTreeSet::clear);
    }

    /// One entry is deleted by somebody, or by retention without a word.
    pub fn delete_entry(&mut self, id: EntryId) {
        if let Some(inbox) = &mut self.inbox {
            inbox.entries.remove(&id);
        }
        for owed in self.owed.values_mut() {
            owed.remove(&id);
        }
    }

    /// Everything is lost.
    pub fn lose_data(&mut self) {
        self.inbox = None;
        self.devices.clear();
        self.owed.clear();
        self.primary = None;
        self.incarnation = 0;
    }

    /// Somebody acknowledges by another way.
    pub fn ack_by_hand(&mut self, device: &str, id: EntryId) {
        self.xack(device, id);
    }

    /// A restored server: the record is older than the session.
    pub fn rewind_generation(&mut self, device: &str) {
        if let Some(record) = self.devices.get_mut(device) {
            record.generation -= 1;
        }
    }

    /// The janitor judges the owner dead.
    pub fn strike_owner(&mut self, device: &str) {
        if let Some(record) = self.devices.get_mut(device) {
            record.struck = std::mem::take(&mut record.owner);
        }
    }

    /// `homing_1_recover` on a server that did not change.
    pub fn recover(&mut self) -> u64 {
        if std::mem::take(&mut self.restarted) {
            self.primary = self.primary.map(|primary| (primary + 1).max(self.unix_ms / 1_000));
        }
        *self.primary.get_or_insert(self.unix_ms / 1_000)
    }

    fn group(&self, device: &str) -> Option<&Group> {
        self.inbox.as_ref()?.groups.get(device)
    }

    fn group_mut(&mut self, device: &str) -> Option<&mut Group> {
        self.inbox.as_mut()?.groups.get_mut(device)
    }

    fn generation(&self, device: &str) -> Option<u64> {
        self.devices.get(device).map(|record| record.generation)
    }

    fn tell(&mut self, owner: &str, control: Control) {
        if !owner.is_empty() {
            self.said.push((owner.to_owned(), control));
        }
    }

    fn raise_incarnation(&mut self) {
        self.incarnation = (self.incarnation + 1).max(self.unix_ms / 1_000);
    }

    fn xack(&mut self, device: &str, id: EntryId) -> bool {
        let removed = self.group_mut(device).is_some_and(|group| group.pending.remove(&id).is_some());
        if removed && let Some(owed) = self.owed.get_mut(device) {
            owed.remove(&id);
        }
        removed
    }

    /// What a pending message wants in its receipts; `None` if it wants none, or is not pending.
    fn wish(&self, device: &str, id: EntryId) -> Option<Wish> {
        self.group(device)?.pending.get(&id)?;
        let entry = Entry { id, fields: self.inbox.as_ref()?.entries.get(&id)?.clone() };
        let envelope = entry.envelope();
        let wish = Wish { key: entry.key().map(Box::from), aimed: envelope.aim.is_some() };
        (envelope.receipt && envelope.is_for(device)).then_some(wish)
    }

    /// An ack, which must come behind its receipt.
    fn xack_told(&mut self, device: &str, id: EntryId) -> bool {
        let told = |(name, receipt): &(String, Receipt)| {
            name == device && receipt.id == id && receipt.event != ReceiptEvent::Delivered
        };
        if self.wish(device, id).is_some() && !self.announced.iter().any(told) {
            self.untold.push((device.to_owned(), id));
        }
        self.xack(device, id)
    }

    fn ack(&mut self, device: &str, batch: &AckBatch) -> Answer {
        let own = batch.own.iter().filter(|id| self.xack_told(device, **id)).count() as u32;
        let mut withheld = Vec::new();
        let mut removed = Vec::new();
        for id in &batch.foreign {
            match self.wish(device, *id).filter(|_| !self.has(Fault::AckWithoutReceipt)) {
                Some(wish) => {
                    withheld.push((*id, wish));
                    removed.push(false);
                }
                None => removed.push(self.xack_told(device, *id)),
            }
        }
        let generation = if batch.confirmations.is_empty() { None } else { self.generation(device) };
        Reply::Acked { own, removed, withheld, generation }
    }

    fn set_aside(&mut self, caller: Caller<'_>, reason: GapReason, ids: &[EntryId], gone: u32) -> Option<Gap> {
        if !self.devices.contains_key(caller.device) {
            return None;
        }
        let dropped = u64::from(gone) + ids.iter().filter(|id| self.xack(caller.device, **id)).count() as u64;
        let now_ms = self.unix_ms;
        let record = self.devices.get_mut(caller.device).filter(|_| dropped > 0)?;
        record.dropped += dropped;
        open_gap(record, reason, dropped, now_ms);
        let (owner, gap) = (record.owner.clone(), record.gap.clone()?);
        if owner != caller.owner {
            self.tell(&owner, Control::Gap { device: caller.device.to_owned(), gap: gap.clone() });
        }
        Some(gap)
    }

    fn sweep(&mut self, caller: Caller<'_>, expected: Option<Pending>) -> Answer {
        let device = caller.device;
        self.sweeps += 1;
        let Some(pending) = self.summary(device) else { return Reply::Failed(Failure::NoGroup) };
        let blind = matches!(self.fault, Some(Fault::NoSweep | Fault::DeafToReleases)).then_some(expected).flatten();
        let owned = self.devices.get(device).is_none_or(|record| record.owner == caller.owner);
        let seen = self.devices.get(device).filter(|_| self.fault != Some(Fault::DismissalUnseen));
        let dismissed = seen.and_then(|record| record.dismissed.clone());
        Reply::Swept { pending: blind.unwrap_or(pending), generation: self.generation(device), owned, dismissed }
    }

    fn summary(&self, device: &str) -> Option<Pending> {
        let pending = &self.group(device)?.pending;
        Some(Pending {
            count: pending.len() as u64,
            first: pending.keys().next().copied().unwrap_or_default(),
            last: pending.keys().next_back().copied().unwrap_or_default(),
        })
    }

    fn claim(&mut self, device: &str, ids: &[EntryId]) -> Answer {
        let Some(inbox) = &mut self.inbox else { return Reply::Failed(Failure::NoGroup) };
        let Some(group) = inbox.groups.get_mut(device) else { return Reply::Failed(Failure::NoGroup) };
        let pending = ids.iter().filter(|id| group.pending.contains_key(*id)).copied().collect();
        let mut entries = Vec::new();
        for id in ids {
            let Some(deliveries) = group.pending.get_mut(id) else { continue };
            *deliveries += 1;
            match inbox.entries.get(id) {
                Some(fields) => entries.push(Entry { id: *id, fields: fields.clone() }),
                // XCLAIM drops deleted entries from the pending list.
                None => drop(group.pending.remove(id)),
            }
        }
        Reply::Claimed { pending, entries }
    }

    fn read_pending(&mut self, device: &str, after: EntryId, count: u16) -> Answer {
        let Some(inbox) = &mut self.inbox else { return Reply::Failed(Failure::NoGroup) };
        let Some(group) = inbox.groups.get_mut(device) else { return Reply::Failed(Failure::NoGroup) };
        let rows = group.pending.range_mut((Bound::Excluded(after), Bound::Unbounded)).take(usize::from(count));
        let read = rows.map(|(id, deliveries)| {
            *deliveries += 1;
            let fields = inbox.entries.get(id);
            (Entry { id: *id, fields: fields.cloned().unwrap_or_default() }, fields.is_some(), *deliveries - 1)
        });
        Reply::PendingRead(read.collect())
    }

    fn read_new(&mut self, device: &str, count: u16) -> Answer {
        let Some(inbox) = &mut self.inbox else { return Reply::Failed(Failure::NoGroup) };
        let Some(group) = inbox.groups.get_mut(device) else { return Reply::Failed(Failure::NoGroup) };
        let rows = inbox.entries.range((Bound::Excluded(group.last), Bound::Unbounded)).take(usize::from(count));
        let entries: Vec<_> = rows.map(|(id, fields)| Entry { id: *id, fields: fields.clone() }).collect();
        for entry in &entries {
            group.pending.insert(entry.id, 1);
            group.last = entry.id;
        }
        Reply::NewRead(entries)
    }

    /// `homing_1_trim`.
    pub fn trim(&mut self) {
        let Some(inbox) = &mut self.inbox else { return };
        let all_grouped = self.devices.keys().all(|device| inbox.groups.contains_key(device));
        if !all_grouped && self.fault != Some(Fault::TrimWithoutGroup) {
            return;
        }
        let needed = inbox.groups.values().map(Group::first_needed);
        let keep = if self.fault == Some(Fault::TrimByOneDevice) { needed.max() } else { needed.min() };
        let Some(keep) = keep else { return };
        let kept = inbox.entries.split_off(&keep);
        let removed = std::mem::replace(&mut inbox.entries, kept);
        self.trimmed_for_two |= !removed.is_empty() && self.devices.len() > 1;
        for (device, owed) in &self.owed {
            let robbed = removed.keys().filter(|id| owed.contains(*id));
            self.robbed.extend(robbed.map(|id| (device.clone(), *id)));
        }
    }
}
