//! What a pipeline carries, and how far it has come.

use super::feeds::Wish;
use crate::session::{AckBatch, Command, FollowChange};
use crate::simulation::redis::Answer;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Session {
        key: usize,
        command: Command,
    },
    /// Append a message that a producer left.
    Append,
    Trim,
    Release {
        device: String,
    },
    Feed(Wish),
    /// Bring the list of followers and the cursors up to date.
    Reindex(FollowChange),
}

impl Item {
    pub(super) fn is_new_read(&self) -> bool {
        matches!(self, Self::Session { command: Command::ReadNew { .. }, .. })
    }

    pub(super) fn is_cursor(&self) -> bool {
        matches!(self, Self::Session { command: Command::WriteCursor { .. }, .. })
    }

    pub(super) fn is_attach(&self) -> bool {
        matches!(self, Self::Session { command: Command::Attach(_), .. })
    }

    /// A copy of what it writes, if that is a cursor.
    pub(super) fn cursor(&self) -> Option<(usize, Command)> {
        match self {
            Self::Session { key, command: command @ Command::WriteCursor { .. } } => Some((*key, command.clone())),
            _ => None,
        }
    }

    /// A copy, if it reads new entries.
    pub(super) fn new_read(&self) -> Option<Self> {
        match self {
            Self::Session { key, command: Command::ReadNew { count } } => {
                Some(Self::Session { key: *key, command: Command::ReadNew { count: *count } })
            }
            _ => None,
        }
    }
}

/// A planted bug: takes the confirmations out of an ack that is about to be sent.
pub(super) fn confirm_early(command: &mut Command) -> Option<AckBatch> {
    let Command::Ack(batch) = command else { return None };
    let (foreign, confirmations) = (batch.foreign.clone(), batch.confirmations.clone());
    let copy = AckBatch { foreign, confirmations, ..AckBatch::default() };
    batch.confirmations.clear();
    Some(copy)
}

/// The pipeline in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    pub(super) items: Vec<Item>,
    /// To those that Redis has executed.
    pub(super) answers: Vec<Answer>,
    /// Its connection is dead: it will fail.
    pub(super) killed: bool,
}

impl Flight {
    pub(super) fn is_executed(&self) -> bool {
        self.answers.len() == self.items.len()
    }

    /// Up to where Redis executes it at once.
    pub(super) fn next_end(&self, torn: bool) -> usize {
        let part = |item: &Item| match item {
            Item::Append => 0,
            Item::Session { .. } if !item.is_cursor() => 1,
            _ => 2,
        };
        let done = self.answers.len();
        let here = self.items.get(done).map(part);
        let next = self.items.iter().skip(done).position(|item| Some(part(item)) != here);
        next.filter(|_| torn).map_or(self.items.len(), |next| done + next)
    }
}
