//! The topics that a session follows, with how many of them want something: whoever asks that, after each event, must
//! not look at all of them.

use std::ops::{Deref, DerefMut};

use super::{Followed, Knowledge};
use crate::topic::Topic;

/// How many topics want something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Wants {
    /// Their cursors must be asked for.
    pub(super) cursors: usize,
    /// Their logs are to be read.
    pub(super) reads: usize,
    /// Their cursors are to be written.
    pub(super) writes: usize,
}

impl Wants {
    fn of(followed: &Followed) -> Self {
        Self {
            cursors: usize::from(followed.knowledge == Knowledge::Unknown),
            reads: usize::from(followed.wants_read()),
            writes: usize::from(followed.is_unwritten()),
        }
    }

    fn add(&mut self, more: Self) {
        self.cursors += more.cursors;
        self.reads += more.reads;
        self.writes += more.writes;
    }

    fn subtract(&mut self, fewer: Self) {
        self.cursors -= fewer.cursors;
        self.reads -= fewer.reads;
        self.writes -= fewer.writes;
    }
}

/// In the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FollowedTopics {
    topics: Vec<Followed>,
    wants: Wants,
}

/// One of them, to be changed; what it wants is counted anew when this is dropped.
pub(super) struct Edit<'a> {
    followed: &'a mut Followed,
    before: Wants,
    wants: &'a mut Wants,
}

impl FollowedTopics {
    /// `topics` are in the order of their names.
    pub(super) fn new(topics: Vec<Followed>) -> Self {
        let mut all = Self { topics, wants: Wants::default() };
        all.wants = all.count();
        all
    }

    /// How many want something.
    pub(super) fn wants(&self) -> Wants {
        debug_assert_eq!(self.wants, self.count(), "something was changed past `edit`");
        self.wants
    }

    fn count(&self) -> Wants {
        let mut wants = Wants::default();
        self.topics.iter().for_each(|followed| wants.add(Wants::of(followed)));
        wants
    }

    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Followed> {
        self.topics.iter()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Followed> {
        self.topics.get(index)
    }

    /// Where a topic stands, or would.
    pub(super) fn position(&self, topic: &Topic) -> Result<usize, usize> {
        self.topics.binary_search_by(|followed| followed.topic.cmp(topic))
    }

    pub(super) fn edit(&mut self, index: usize) -> Option<Edit<'_>> {
        let followed = self.topics.get_mut(index)?;
        Some(Edit { before: Wants::of(followed), followed, wants: &mut self.wants })
    }

    pub(super) fn find(&mut self, topic: &Topic) -> Option<Edit<'_>> {
        let index = self.position(topic).ok()?;
        self.edit(index)
    }

    /// All of them, to be put together anew.
    pub(super) fn take(&mut self) -> Vec<Followed> {
        self.wants = Wants::default();
        std::mem::take(&mut self.topics)
    }
}

impl Deref for Edit<'_> {
    type Target = Followed;

    fn deref(&self) -> &Followed {
        self.followed
    }
}

impl DerefMut for Edit<'_> {
    fn deref_mut(&mut self) -> &mut Followed {
        self.followed
    }
}

impl Drop for Edit<'_> {
    fn drop(&mut self) {
        self.wants.subtract(self.before);
        self.wants.add(Wants::of(self.followed));
    }
}
