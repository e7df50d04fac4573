//! What is under way between a node and Redis.

use super::redis::Answer;
use crate::session::{AckBatch, Command};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Session { key: usize, command: Command },
    Trim,
    Release { device: String },
}

impl Item {
    pub(super) fn is_new_read(&self) -> bool {
        matches!(self, Self::Session { command: Command::ReadNew { .. }, .. })
    }

    pub(super) fn is_attach(&self) -> bool {
        matches!(self, Self::Session { command: Command::Attach(_), .. })
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
    let copy = AckBatch { own: Vec::new(), foreign: batch.foreign.clone(), confirmations: batch.confirmations.clone() };
    batch.confirmations.clear();
    Some(copy)
}

/// The pipeline in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    pub(super) items: Vec<Item>,
    /// Once Redis has executed it.
    pub(super) answers: Option<Vec<Answer>>,
    /// Its connection is dead: it will fail.
    pub(super) killed: bool,
}
