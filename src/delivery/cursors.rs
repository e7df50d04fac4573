//! Followers' cursors: gathered over all sessions of a shard, and written in few commands.

use std::collections::HashMap;
use std::ops::Range;

use homing_protocol::id::EntryId;
use homing_protocol::name::Name;
use homing_protocol::session::{Command, Failure, Now, Reply};
use homing_protocol::topic::{Topic, cursor_score};

use super::pipeline::{self, Target};
use super::sessions::SessionKey;
use super::shard::Shard;
use crate::store::replies::{self, Value};
use crate::store::resp::Commands;
use crate::store::{Function, Key, KeySpace, StoreError};

/// Cursors in one command: each costs Redis about a microsecond, and ten in a set of a million that is being saved.
const CURSORS_MAX: usize = 256;

/// Cursors of many sessions in one topic.
#[derive(Debug)]
pub(super) struct CursorGroup {
    topic: Topic,
    parts: Vec<CursorPart>,
}

/// A session's cursor.
#[derive(Debug)]
struct CursorPart {
    key: SessionKey,
    id: EntryId,
    rewind: Option<EntryId>,
    /// The recorded generation is asked for, too: an ack that waits for this is confirmed only if it is the session's.
    confirm: bool,
}

/// What sessions want to be written, gathered while a pipeline is put together.
#[derive(Debug, Default)]
pub(super) struct CursorWrites {
    /// By topic, and whether they must go back.
    groups: HashMap<(Topic, bool), Gathered>,
}

/// Cursors in one topic, and the texts of their members behind one another: one allocation for thousands.
#[derive(Debug, Default)]
struct Gathered {
    writes: Vec<CursorWrite>,
    members: String,
}

/// A session's cursor, what stands for its device there, and where its device's record is, if that is asked for.
#[derive(Debug)]
struct CursorWrite {
    key: SessionKey,
    id: EntryId,
    rewind: Option<EntryId>,
    member: Range<usize>,
    record: Option<(String, Name)>,
}

/// Where a session's cursor goes.
#[derive(Debug)]
pub(super) struct CursorMove {
    pub(super) topic: Topic,
    pub(super) id: EntryId,
    pub(super) rewind: Option<EntryId>,
    pub(super) confirm: bool,
}

impl CursorWrites {
    /// Adds a session's cursor.
    pub(super) fn add(&mut self, keys: &KeySpace, key: SessionKey, target: Target<'_>, write: CursorMove) {
        let Target { user, device } = target;
        let CursorMove { topic, id, rewind, confirm } = write;
        let record = confirm.then(|| (keys.name(Key::Devices(user)), device.clone()));
        let Gathered { writes, members } = self.groups.entry((topic, rewind.is_some())).or_default();
        let start = members.len();
        KeySpace::push_cursor_member(members, user, device);
        writes.push(CursorWrite { key, id, rewind, member: start..members.len(), record });
    }

    /// Writes the commands: one for each group, and then one for each of its parts that is to be confirmed. `is_full`:
    /// Redis may refuse what needs memory.
    pub(super) fn encode(&mut self, keys: &KeySpace, pipeline: &mut Commands, is_full: bool) -> Vec<CursorGroup> {
        let mut groups = Vec::new();
        for ((topic, rewinds), Gathered { writes, members }) in self.groups.drain() {
            let key = keys.name(Key::Cursors(&topic));
            for writes in writes.chunks(CURSORS_MAX) {
                if rewinds {
                    pipeline.add(&rewind(&key, writes, &members));
                } else {
                    let mut command = pipeline.command(if is_full { 4 } else { 3 } + 2 * writes.len());
                    if is_full {
                        command.arg("FCALL").arg(Function::WriteCursors.name()).number(1).arg(&key);
                    } else {
                        // Whoever is late, another connection of the device, cannot take a cursor back.
                        command.arg("ZADD").arg(&key).arg("GT");
                    }
                    for CursorWrite { id, member, .. } in writes {
                        command.number(cursor_score(*id)).arg(&members[member.clone()]);
                    }
                }
                for (devices, device) in writes.iter().filter_map(|write| write.record.as_ref()) {
                    pipeline.command(3).arg("HGET").arg(devices).arg(device.as_str());
                }
                let part = |write: &CursorWrite| CursorPart {
                    key: write.key,
                    id: write.id,
                    rewind: write.rewind,
                    confirm: write.record.is_some(),
                };
                groups.push(CursorGroup { topic: topic.clone(), parts: writes.iter().map(part).collect() });
            }
        }
        groups
    }
}

/// Takes cursors back that still lie where they were found.
fn rewind(key: &str, writes: &[CursorWrite], members: &str) -> redis::Cmd {
    let mut call = Function::RewindCursors.call(&[key]);
    for CursorWrite { id, rewind, member, .. } in writes {
        let from = rewind.unwrap_or(*id);
        call.arg(&members[member.clone()]).arg(cursor_score(from)).arg(cursor_score(*id));
    }
    call
}

impl CursorGroup {
    /// Commands of the pipeline.
    pub(super) fn replies(&self) -> usize {
        1 + self.parts.iter().filter(|part| part.confirm).count()
    }
}

impl Shard {
    /// The replies of a group came back.
    pub(super) fn complete_cursors<'a>(
        &mut self,
        group: CursorGroup,
        values: &mut impl Iterator<Item = Value<'a>>,
        now: Now,
    ) {
        let written = replies::check(pipeline::next(values)).map(drop);
        let written = written.map_err(|error| self.note_failure(&error));
        self.hand_out_cursors(group, now, |shard, confirm| {
            let generation = if confirm { pipeline::recorded_generation(pipeline::next(values)) } else { Ok(None) };
            let generation = generation.map_err(|error| shard.note_failure(&error));
            written.and(generation).map_or_else(Reply::Failed, |generation| Reply::CursorWritten { generation })
        });
    }

    /// Whether a group was written is unknown.
    pub(super) fn lose_cursors(&mut self, group: CursorGroup, now: Now) {
        self.hand_out_cursors(group, now, |_, _| Reply::Failed(Failure::Disconnected));
    }

    /// Gives each session's command back as it gave it, with a reply that depends on whether it is to be confirmed.
    fn hand_out_cursors(
        &mut self,
        group: CursorGroup,
        now: Now,
        mut reply: impl FnMut(&mut Self, bool) -> Reply<&'static [u8]>,
    ) {
        let CursorGroup { topic, parts } = group;
        self.observer.cursor_writes.increment(parts.len() as u64);
        for CursorPart { key, id, rewind, confirm } in parts {
            let reply = reply(self, confirm);
            let command = Command::WriteCursor { topic: topic.clone(), id, rewind, confirm };
            if command.awaits_success() || matches!(reply, Reply::Failed(_)) {
                self.reply(key, command, reply, now);
            }
        }
    }

    fn note_failure(&mut self, error: &StoreError) -> Failure {
        self.note_error(error);
        pipeline::failure(error)
    }
}
