//! Topics: their logs and cursors, who follows them, `homing_1_follow` and `homing_1_tend_topic`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{Answer, Control, Fields, Record, Redis};
use crate::id::EntryId;
use crate::message::Entry;
use crate::name::Name;
use crate::session::{Begin, FollowChange, Follows, Reply};
use crate::simulation::fault::Fault;
use crate::topic::{Topic, cursor_of_score, cursor_score};

/// Topics that the user may follow.
const TOPICS_MAX: usize = 200;

/// What lies in one topic's slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Log {
    entries: BTreeMap<EntryId, Fields>,
    /// Not part of the log, so that ids never repeat however often it is deleted.
    last_id: EntryId,
    /// Whether there is a stream, which may be empty.
    exists: bool,
    trimmed: Option<EntryId>,
    /// Scores of devices.
    cursors: BTreeMap<String, u64>,
    /// Whether the user stands in the list of followers.
    listed: bool,
}

/// A device in a topic.
type Place = (String, Topic);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Topics {
    /// What the user follows, and since when, Unix ms.
    followed: BTreeMap<Name, u64>,
    logs: BTreeMap<Topic, Log>,
    /// What each device has a right to: appended while it was a follower, and never acknowledged by its client.
    owed: BTreeMap<Place, BTreeSet<EntryId>>,
    /// What retention took of that, until the client is told.
    missed: BTreeMap<Place, BTreeSet<EntryId>>,
    /// The last message of those that its client acknowledged.
    acked: BTreeMap<Place, EntryId>,
    /// What a cursor in Redis passed although its client had not acknowledged it.
    pub skipped: Vec<(String, EntryId)>,
    /// When the user last followed one no more: what was said about earlier messages means nothing any more.
    pub left_at_ms: u64,
    /// Retention took something.
    pub has_trimmed: bool,
    /// A cursor was written that another one had passed.
    pub wrote_late: bool,
}

impl Topics {
    fn log(&mut self, topic: &Topic) -> &mut Log {
        self.logs.entry(topic.clone()).or_default()
    }

    /// Devices and what each has a right to and was neither given nor told of.
    pub fn unpaid(&self) -> impl Iterator<Item = (&str, &BTreeSet<EntryId>)> {
        let owed = self.owed.iter().filter(|(_, ids)| !ids.is_empty());
        owed.map(|((device, _), ids)| (device.as_str(), ids))
    }

    /// Devices and what retention took from each without a word.
    pub fn untold(&self) -> impl Iterator<Item = (&str, &BTreeSet<EntryId>)> {
        let missed = self.missed.iter().filter(|(_, ids)| !ids.is_empty());
        missed.map(|((device, _), ids)| (device.as_str(), ids))
    }

    /// Devices whose cursor lies before what their clients have acknowledged, although nothing is owed to them.
    pub fn behind(&self) -> impl Iterator<Item = (&str, EntryId)> {
        let done = self.acked.iter().filter(|(place, _)| self.owed.get(place).is_none_or(BTreeSet::is_empty));
        let late = done.filter(|((device, topic), id)| {
            let log = self.logs.get(topic);
            let score = log.and_then(|log| log.cursors.get(device)).copied().unwrap_or_default();
            let trimmed = log.and_then(|log| log.trimmed).unwrap_or_default();
            self.since(topic).is_some_and(|since_ms| id.ms >= since_ms) && score < cursor_score(**id) && **id > trimmed
        });
        late.map(|((device, _), id)| (device.as_str(), *id))
    }

    /// Since when the user follows a topic, Unix ms.
    fn since(&self, topic: &Topic) -> Option<u64> {
        match topic {
            Topic::Broadcast => Some(0),
            Topic::Named(name) => self.followed.get(name).copied(),
        }
    }

    /// The client has acknowledged these.
    fn note_acked(&mut self, device: &str, topic: &Topic, ids: &[EntryId]) {
        let place = (device.to_owned(), topic.clone());
        for places in [&mut self.owed, &mut self.missed] {
            if let Some(left) = places.get_mut(&place) {
                left.retain(|id| !ids.contains(id));
            }
        }
        // Of a time that Redis has forgotten, if the log has not come so far.
        let last = self.logs.get(topic).map_or(EntryId::MIN, |log| log.last_id);
        let newest = ids.iter().filter(|id| **id <= last).max().copied().unwrap_or_default();
        let acked = self.acked.entry(place).or_default();
        *acked = (*acked).max(newest);
    }

    /// The client was told that retention took something.
    pub fn note_told(&mut self, device: &str) {
        self.missed.retain(|(of, _), _| of != device);
    }

    /// Whether a topic has the user in its list of followers.
    pub fn is_listed(&self, topic: &Topic) -> bool {
        self.logs.get(topic).is_some_and(|log| log.listed)
    }

    /// The last id that a log has given out: `XINFO STREAM`.
    pub fn head(&self, topic: &Topic) -> EntryId {
        self.logs.get(topic).filter(|log| log.exists).map_or(EntryId::MIN, |log| log.last_id)
    }

    /// `XRANGE`.
    pub fn read(&self, topic: &Topic, after: EntryId, count: usize) -> Vec<Entry<Vec<u8>>> {
        let log = self.logs.get(topic).into_iter();
        let rows = log.flat_map(|log| log.entries.range((Bound::Excluded(after), Bound::Unbounded)));
        rows.take(count).map(|(id, fields)| Entry { id: *id, fields: fields.clone() }).collect()
    }

    /// The last entry that retention took.
    pub fn trimmed(&self, topic: &Topic) -> Option<EntryId> {
        self.logs.get(topic)?.trimmed
    }

    pub(super) fn reread(&self, topic: &Topic, ids: &[EntryId]) -> Vec<Entry<Vec<u8>>> {
        let find = |id: &EntryId| {
            let fields = self.logs.get(topic)?.entries.get(id)?;
            Some(Entry { id: *id, fields: fields.clone() })
        };
        ids.iter().filter_map(find).collect()
    }

    /// Brings the list of followers and the cursors up to date with a change, in the topics' slots.
    fn reindex(&mut self, change: &FollowChange, forgets_all: bool) {
        for topic in &change.added {
            self.log(&Topic::Named(topic.clone())).listed = true;
        }
        for topic in &change.removed {
            let log = self.log(&Topic::Named(topic.clone()));
            log.listed = false;
            let before = cursor_score(EntryId { ms: change.at_ms, seq: 0 });
            log.cursors.retain(|device, score| {
                let is_old = *score < before || forgets_all;
                !(is_old && change.devices.iter().any(|name| name.as_str() == device))
            });
        }
    }

    /// Somebody has lost a log, but not the cursors in it.
    pub fn lose_log(&mut self, topic: &Topic) {
        let log = self.log(topic);
        (log.entries, log.last_id, log.exists) = (BTreeMap::new(), EntryId::MIN, false);
        self.owed.retain(|(_, of), _| of != topic);
        self.acked.retain(|(_, of), _| of != topic);
    }

    /// A user's first device begins with what was appended since the follow.
    pub(super) fn begin(&mut self, device: &str) {
        for (name, since_ms) in &self.followed {
            let topic = Topic::Named(name.clone());
            let Some(log) = self.logs.get(&topic) else { continue };
            let owed = log.entries.keys().filter(|id| id.ms >= *since_ms).copied().collect();
            self.owed.insert((device.to_owned(), topic), owed);
        }
    }

    /// What somebody appended before, so that the next ids are these.
    pub fn continue_after(&mut self, topic: &Topic, id: EntryId) {
        self.log(topic).last_id = id;
    }
}

impl Redis {
    /// A client acknowledges these.
    pub fn note_acked(&mut self, device: &str, topic: &Topic, ids: &[EntryId]) {
        self.topics.note_acked(device, topic, ids);
        if let Some(id) = ids.iter().max().filter(|_| self.has(Fault::CursorPassesUnacked)) {
            self.write_cursor(device, topic, *id, None);
        }
    }

    /// `XADD` to a topic's log.
    pub fn append_to(&mut self, topic: &Topic, fields: Fields) -> EntryId {
        let unix_ms = self.unix_ms;
        let log = self.topics.log(topic);
        let id = (EntryId { ms: unix_ms, seq: 0 }).max(log.last_id.next().expect("ids do not end here"));
        (log.last_id, log.exists) = (id, true);
        log.entries.insert(id, fields);
        if self.topics.since(topic).is_some() {
            for device in self.devices.keys() {
                self.topics.owed.entry((device.clone(), topic.clone())).or_default().insert(id);
            }
        }
        id
    }

    pub(super) fn load_follows(&self, device: &str, begin: bool) -> Answer {
        let begins = |record: &Record| Begin { from_ms: record.topics_from_ms, first_seen_ms: record.first_seen_ms };
        Reply::FollowsLoaded(Box::new(Follows {
            topics: self.topics.followed.iter().map(|(name, since_ms)| (name.clone(), *since_ms)).collect(),
            begin: begin.then(|| self.devices.get(device).map(begins).unwrap_or_default()),
        }))
    }

    pub(super) fn load_cursor(&self, device: &str, topic: &Topic, rewound: bool) -> Answer {
        let log = self.topics.logs.get(topic);
        let at = log.and_then(|log| log.cursors.get(device)).map(|score| cursor_of_score(*score));
        let at = at.or_else(|| self.has(Fault::CursorBeginsAtEnd).then(|| self.topics.head(topic)));
        let end = rewound.then(|| self.topics.head(topic));
        Reply::CursorLoaded { at, trimmed: self.trimmed(topic), end }
    }

    /// What retention took, as a session asks for it.
    fn trimmed(&self, topic: &Topic) -> EntryId {
        self.topics.trimmed(topic).filter(|_| !self.has(Fault::TrimUnseen)).unwrap_or_default()
    }

    pub(super) fn read_topic(&self, topic: &Topic, after: EntryId, count: u16) -> Answer {
        let entries = self.topics.read(topic, after, usize::from(count));
        Reply::TopicRead { entries, trimmed: self.trimmed(topic) }
    }

    /// `ZADD GT`, or `homing_1_rewind_cursors`.
    pub fn write_cursor(&mut self, device: &str, topic: &Topic, id: EntryId, rewind: Option<EntryId>) {
        let (without_gt, blindly) = (self.has(Fault::CursorWithoutGt), self.has(Fault::RewindsBlindly));
        let up = u64::from(self.has(Fault::CursorRoundedUp) && cursor_of_score(cursor_score(id)) != id);
        let log = self.topics.logs.entry(topic.clone()).or_default();
        let score = log.cursors.entry(device.to_owned()).or_default();
        let goes_back = rewind.is_some_and(|from| blindly || *score == cursor_score(from));
        let keeps = !goes_back && !without_gt;
        self.topics.wrote_late |= keeps && cursor_score(id) < *score;
        *score = if keeps { (*score).max(cursor_score(id) + up) } else { cursor_score(id) + up };
        let cursor = cursor_of_score(*score);
        let owed = self.topics.owed.get(&(device.to_owned(), topic.clone()));
        let passed = owed.into_iter().flatten().filter(|id| **id <= cursor);
        self.topics.skipped.extend(passed.map(|id| (device.to_owned(), *id)));
    }

    /// `homing_1_follow`.
    pub fn follow(&mut self, owner: &str, names: &[Name], follow: bool) -> Result<FollowChange, u64> {
        // Later than everything before it, so that what is followed anew has nothing in common with what was.
        self.unix_ms += 1;
        let followed = &mut self.topics.followed;
        let differ = names.iter().filter(|name| followed.contains_key(*name) != follow).cloned();
        let changed: BTreeSet<Name> = differ.collect();
        if follow && !changed.is_empty() && followed.len() + changed.len() > TOPICS_MAX {
            return Err(TOPICS_MAX as u64);
        }
        for name in &changed {
            if follow {
                followed.insert(name.clone(), self.unix_ms);
                continue;
            }
            followed.remove(name);
            self.topics.left_at_ms = self.unix_ms;
            let topic = Topic::Named(name.clone());
            for places in [&mut self.topics.owed, &mut self.topics.missed] {
                places.retain(|(_, of), _| *of != topic);
            }
            self.topics.acked.retain(|(_, of), _| *of != topic);
        }
        let owners: BTreeSet<String> = self.devices.values().map(|record| record.owner.clone()).collect();
        for other in owners.iter().filter(|other| *other != owner && !changed.is_empty()) {
            if !self.has(Fault::FollowSilently) {
                self.tell(other, Control::Topics);
            }
        }
        let (added, removed) = if follow { (changed, BTreeSet::new()) } else { (BTreeSet::new(), changed) };
        let devices = self.devices.keys().map(|device| Name::parse(device).expect("a device has a name"));
        Ok(FollowChange {
            added: added.into_iter().collect(),
            removed: removed.into_iter().collect(),
            devices: devices.collect(),
            at_ms: self.unix_ms,
        })
    }

    /// What follows a change of what the user follows, in the topics' slots.
    pub fn reindex(&mut self, change: &FollowChange) {
        let forgets_all = self.has(Fault::CursorsForgottenLate);
        self.topics.reindex(change, forgets_all);
    }

    /// `homing_1_tend_topic`: all but the last `length_max` entries go.
    pub fn tend_topic(&mut self, topic: &Topic, length_max: usize) {
        let forgets = self.has(Fault::TrimForgotten);
        let log = self.topics.log(topic);
        let excess = log.entries.len().saturating_sub(length_max);
        let gone: Vec<EntryId> = log.entries.keys().take(excess).copied().collect();
        log.entries.retain(|id, _| !gone.contains(id));
        if let Some(last) = gone.last() {
            log.trimmed = Some(log.trimmed.unwrap_or_default().max(*last));
        }
        if let Some(trimmed) = log.trimmed {
            log.cursors.retain(|_, score| *score >= cursor_score(EntryId { ms: trimmed.ms, seq: 0 }));
        }
        if log.entries.is_empty() && !log.listed && log.cursors.is_empty() {
            log.exists = false;
            if forgets {
                log.trimmed = None;
            }
        }
        self.topics.has_trimmed |= !gone.is_empty();
        for ((device, of), owed) in &mut self.topics.owed {
            let lost: Vec<EntryId> = owed.iter().filter(|id| of == topic && gone.contains(id)).copied().collect();
            owed.retain(|id| !lost.contains(id));
            self.topics.missed.entry((device.clone(), of.clone())).or_default().extend(lost);
        }
    }
}
