//! Reads of inboxes: those of a pipeline that ask for the same are few commands.
//!
//! `XREADGROUP` takes many streams if their groups have the same name, as devices have that are called alike (`default`, if
//! a client names none). It spares Redis a third of the work for each. Invariant: Redis executes such a command as a whole
//! or refuses it before it has read anything; one inbox that it refuses, whose group or type is wrong, must not keep
//! others from theirs, so then each is asked for alone.

use std::collections::HashMap;
use std::ops::Range;

use homing_protocol::name::Name;
use homing_protocol::session::{Command, Failure, Now, Reply};

use super::pipeline::{self, Target};
use super::sessions::SessionKey;
use super::shard::Shard;
use crate::store::keys::CONSUMER;
use crate::store::replies::{self, RawEntry};
use crate::store::resp::{Commands, Reader};
use crate::store::{Key, KeySpace, StoreError};

/// Inboxes in one command. With eight of them most is gained, and what a refusal repeats is little.
const INBOXES_MAX: usize = 16;

/// Reads that ask for the same: at most so many entries of the group of a device that is called so.
#[derive(Debug)]
pub(super) struct ReadGroup {
    device: Name,
    count: u16,
    parts: Vec<ReadPart>,
    parts_max: usize,
    /// The inboxes' names behind one another.
    names: String,
}

/// A session's read.
#[derive(Debug)]
struct ReadPart {
    key: SessionKey,
    /// Where its inbox's name stands.
    name: Range<usize>,
}

/// Reads that wait for the next pipeline.
#[derive(Debug, Default)]
pub(super) struct Reads {
    gathered: Vec<ReadGroup>,
    /// Where the last group of each kind stands among them.
    last: HashMap<(Name, u16), usize>,
    /// Inboxes in all of them.
    inboxes: usize,
    /// Refused together with others.
    refused: Vec<(SessionKey, u16)>,
}

impl ReadGroup {
    fn new(device: &Name, count: u16, parts_max: usize) -> Self {
        Self { device: device.clone(), count, parts: Vec::new(), parts_max, names: String::new() }
    }

    /// Whether it has room for a read of this kind.
    fn takes(&self, device: &Name, count: u16) -> bool {
        self.parts.len() < self.parts_max && self.count == count && self.device == *device
    }

    fn add(&mut self, keys: &KeySpace, key: SessionKey, user: &Name) {
        let start = self.names.len();
        self.names.extend(keys.parts(Key::Inbox(user)));
        self.parts.push(ReadPart { key, name: start..self.names.len() });
    }

    /// The sessions, each with the name of its inbox, in the order of the command.
    fn parts(&self) -> impl Iterator<Item = (SessionKey, &str)> {
        self.parts.iter().map(|part| (part.key, &self.names[part.name.clone()]))
    }

    fn encode(&self, pipeline: &mut Commands) {
        let mut read = pipeline.command(7 + 2 * self.parts.len());
        read.arg("XREADGROUP").arg("GROUP").arg(self.device.as_str()).arg(CONSUMER);
        read.arg("COUNT").number(u64::from(self.count.max(1))).arg("STREAMS");
        for (_, name) in self.parts() {
            read.arg(name);
        }
        for _ in &self.parts {
            read.arg(">");
        }
    }
}

impl Reads {
    /// Whether something was refused that must be asked for again.
    pub(super) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Inboxes that are to be read: each keeps Redis about as long as a command of its own would.
    pub(super) fn inboxes(&self) -> usize {
        self.inboxes
    }

    /// Adds a session's read.
    pub(super) fn add(&mut self, keys: &KeySpace, key: SessionKey, Target { user, device }: Target<'_>, count: u16) {
        let takes = |index: &usize| self.gathered.get(*index).is_some_and(|group| group.takes(device, count));
        // Mostly one after the other asks for the same.
        let index = self.gathered.len().checked_sub(1).filter(takes);
        let index = index.or_else(|| self.last.get(&(device.clone(), count)).copied().filter(takes));
        let index = index.unwrap_or_else(|| {
            self.gathered.push(ReadGroup::new(device, count, INBOXES_MAX));
            self.last.insert((device.clone(), count), self.gathered.len() - 1);
            self.gathered.len() - 1
        });
        self.gathered[index].add(keys, key, user);
        self.inboxes += 1;
    }

    /// Adds one that was refused together with others, as a command of its own.
    fn add_alone(&mut self, keys: &KeySpace, key: SessionKey, Target { user, device }: Target<'_>, count: u16) {
        let mut group = ReadGroup::new(device, count, 1);
        group.add(keys, key, user);
        self.gathered.push(group);
        self.inboxes += 1;
    }

    /// Writes the commands.
    pub(super) fn encode(&mut self, pipeline: &mut Commands) -> Vec<ReadGroup> {
        self.last.clear();
        self.inboxes = 0;
        self.gathered.iter().for_each(|group| group.encode(pipeline));
        std::mem::take(&mut self.gathered)
    }
}

impl Shard {
    /// Asks again, for each alone, for what was refused together.
    pub(super) fn gather_refused(&mut self) {
        for (key, count) in std::mem::take(&mut self.reads.refused) {
            let Some(held) = self.sessions.get_mut(key) else { continue };
            let target = Target { user: held.session.user(), device: held.session.device() };
            self.reads.add_alone(self.store.keys(), key, target, count);
        }
    }

    /// The reply of a group came back.
    pub(super) fn complete_reads(&mut self, group: &ReadGroup, replies: &mut Reader<'_>, now: Now) {
        let streams = match replies.next_group_reads() {
            Some(streams) => Ok(streams),
            None => replies::group_reads(pipeline::next(replies)),
        };
        let streams = match streams {
            Ok(streams) => streams,
            Err(error) => return self.refuse_reads(group, &error, now),
        };
        // Redis leaves out inboxes without news.
        let mut streams = streams.into_iter().peekable();
        for (key, name) in group.parts() {
            let entries = streams.next_if(|(stream, _)| *stream == name.as_bytes());
            self.complete_read(key, group.count, entries.map(|(_, entries)| entries).unwrap_or_default(), now);
        }
        if streams.next().is_some() {
            // They are pending now; the sweep finds them.
            self.note_error(&StoreError::Unexpected("entries of an inbox that was not asked for".to_owned()));
        }
    }

    fn complete_read(&mut self, key: SessionKey, count: u16, entries: Vec<RawEntry<'_>>, now: Now) {
        self.observer.read_entries.record(entries.len() as f64);
        self.reply(key, Command::ReadNew { count }, Reply::NewRead(entries), now);
    }

    fn refuse_reads(&mut self, group: &ReadGroup, error: &StoreError, now: Now) {
        let concerns_one = matches!(error, StoreError::NoGroup | StoreError::WrongType | StoreError::Unexpected(_));
        if concerns_one && group.parts.len() > 1 {
            self.reads.refused.extend(group.parts.iter().map(|part| (part.key, group.count)));
            return;
        }
        self.note_error(error);
        self.fail_reads(group, pipeline::failure(error), now);
    }

    /// What became of a group is unknown, or it was refused whatever it asked for.
    pub(super) fn fail_reads(&mut self, group: &ReadGroup, failure: Failure, now: Now) {
        for part in &group.parts {
            self.reply(part.key, Command::ReadNew { count: group.count }, Reply::Failed(failure), now);
        }
    }

    /// Those that were refused together are not asked for again: their sessions begin anew.
    pub(super) fn lose_refused(&mut self, now: Now) {
        for (key, count) in std::mem::take(&mut self.reads.refused) {
            self.reply(key, Command::ReadNew { count }, Reply::Failed(Failure::Disconnected), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn what_asks_for_the_same_is_one_command_and_nothing_else_is() {
        let keys = KeySpace::new("h", 0);
        let mut reads = Reads::default();
        let mut add = |number, user: &str, device: &str, count| {
            let (user, device) = (name(user), name(device));
            reads.add(&keys, SessionKey::of(number), Target { user: &user, device: &device }, count);
        };
        add(1, "ann", "web", 64);
        add(2, "bob", "app", 64);
        add(3, "cid", "web", 64);
        add(4, "dan", "web", 63);
        assert_eq!(reads.inboxes(), 4);
        let mut pipeline = Commands::default();
        let groups = reads.encode(&mut pipeline);
        let parts: Vec<Vec<_>> = groups.iter().map(|group| group.parts().collect()).collect();
        assert_eq!(
            parts,
            [
                vec![(SessionKey::of(1), "h:{ann}:inbox"), (SessionKey::of(3), "h:{cid}:inbox")],
                vec![(SessionKey::of(2), "h:{bob}:inbox")],
                vec![(SessionKey::of(4), "h:{dan}:inbox")]
            ]
        );
        assert_eq!((pipeline.len(), reads.inboxes()), (3, 0));
        let text = String::from_utf8(pipeline.bytes().to_vec()).unwrap();
        let words: Vec<&str> = text.split("\r\n").filter(|line| !line.starts_with(['*', '$'])).collect();
        let expected = "XREADGROUP GROUP web c COUNT 64 STREAMS h:{ann}:inbox h:{cid}:inbox > >";
        assert_eq!(words[..11], expected.replace(" c ", &format!(" {CONSUMER} ")).split(' ').collect::<Vec<_>>());
    }

    #[test]
    fn a_command_asks_for_a_few_inboxes_only_and_for_one_that_was_refused_alone() {
        let keys = KeySpace::new("h", 0);
        let mut reads = Reads::default();
        let (user, device) = (name("u"), name("web"));
        let target = Target { user: &user, device: &device };
        reads.add_alone(&keys, SessionKey::of(100), target, 64);
        let count = u32::try_from(INBOXES_MAX).unwrap();
        (0..2 * count + 1).for_each(|number| reads.add(&keys, SessionKey::of(number), target, 64));
        let groups = reads.encode(&mut Commands::default());
        let sizes: Vec<usize> = groups.iter().map(|group| group.parts.len()).collect();
        assert_eq!(sizes, [1, INBOXES_MAX, INBOXES_MAX, 1]);
    }
}
