//! Who follows what, as far as the history proves it.
//!
//! A change of what a user follows takes effect somewhere between its request and its answer; one that nobody answered,
//! or whose outcome is unknown, may take effect later. So there are times when a user surely follows a topic, times when
//! they surely do not, and times that nobody is judged by.

use std::collections::{BTreeSet, HashMap};

use super::super::history::Outcome;

/// A request of somebody.
#[derive(Clone, Copy, Debug)]
struct Request {
    follow: bool,
    connection: Option<u64>,
    from_us: u64,
    /// When it had taken effect at the latest, if it did: the end of time until it is answered.
    until_us: u64,
    answer: Option<Outcome>,
}

impl Request {
    fn is_done_before(&self, at_us: u64) -> bool {
        self.answer == Some(Outcome::Done) && self.until_us < at_us
    }

    fn may_take_effect(&self, from_us: u64, until_us: u64) -> bool {
        self.answer != Some(Outcome::Refused) && self.from_us <= until_us && from_us <= self.until_us
    }
}

#[derive(Debug)]
pub(crate) struct Follows {
    all: Vec<Request>,
    numbers: HashMap<u64, usize>,
    /// Of each user and topic, in the order in which they began.
    of: HashMap<(u32, u32), Vec<usize>>,
    topics_of: HashMap<u32, BTreeSet<u32>>,
    /// When all that is followed was forgotten: the begin and the end of it.
    forgotten: Vec<(u64, u64)>,
    settle_us: u64,
}

impl Follows {
    /// What is unknown has taken effect, or never will, after `settle_us`.
    pub(crate) fn new(settle_us: u64) -> Self {
        Self {
            all: Vec::new(),
            numbers: HashMap::new(),
            of: HashMap::new(),
            topics_of: HashMap::new(),
            forgotten: Vec::new(),
            settle_us,
        }
    }

    /// False if there is such a request.
    pub(crate) fn ask(
        &mut self,
        now_us: u64,
        number: u64,
        (user, topic): (u32, u32),
        follow: bool,
        connection: Option<u64>,
    ) -> bool {
        let index = self.all.len();
        self.all.push(Request { follow, connection, from_us: now_us, until_us: u64::MAX, answer: None });
        self.of.entry((user, topic)).or_default().push(index);
        if follow {
            self.topics_of.entry(user).or_default().insert(topic);
        }
        self.numbers.insert(number, index).is_none()
    }

    /// False if there is no such request, or it was answered.
    pub(crate) fn answered(&mut self, now_us: u64, number: u64, outcome: Outcome) -> bool {
        let Some(request) = self.numbers.get(&number).map(|index| &mut self.all[*index]) else { return false };
        request.until_us = if outcome == Outcome::Unknown { now_us.saturating_add(self.settle_us) } else { now_us };
        request.answer.replace(outcome).is_none()
    }

    /// Somewhere between these moments, Redis forgot what everybody follows.
    pub(crate) fn forget(&mut self, from_us: u64, until_us: u64) {
        self.forgotten.push((from_us, until_us));
    }

    /// Topics that somebody ever wanted the user to follow.
    pub(crate) fn topics_of(&self, user: u32) -> impl Iterator<Item = u32> {
        self.topics_of.get(&user).into_iter().flatten().copied()
    }

    fn requests(&self, user: u32, topic: u32) -> impl DoubleEndedIterator<Item = &Request> {
        let of = self.of.get(&(user, topic)).map_or(&[][..], Vec::as_slice);
        of.iter().map(|index| &self.all[*index])
    }

    /// Whether the user follows the topic all the time between two moments.
    pub(crate) fn surely(&self, user: u32, topic: u32, from_us: u64, until_us: u64) -> bool {
        let latest = self.requests(user, topic).rev().find(|request| request.follow && request.is_done_before(from_us));
        let Some(follow) = latest else { return false };
        !self.may_end(user, topic, follow.from_us, until_us)
            && !self.forgotten.iter().any(|(from, until)| *from <= until_us && follow.from_us <= *until)
    }

    /// Whether somebody may have ended it between two moments.
    pub(crate) fn may_end(&self, user: u32, topic: u32, from_us: u64, until_us: u64) -> bool {
        self.requests(user, topic).any(|request| !request.follow && request.may_take_effect(from_us, until_us))
    }

    /// Whether the user surely does not follow the topic between two moments, and if so since when everybody knows.
    pub(crate) fn surely_not(&self, user: u32, topic: u32, from_us: u64, until_us: u64) -> Option<Unfollowed> {
        let latest =
            self.requests(user, topic).rev().find(|request| !request.follow && request.is_done_before(from_us));
        let begin_us = latest.map_or(0, |unfollow| unfollow.from_us);
        let may_follow =
            self.requests(user, topic).any(|request| request.follow && request.may_take_effect(begin_us, until_us));
        (!may_follow).then_some(Unfollowed { done_us: latest.map_or(0, |unfollow| unfollow.until_us) })
    }

    /// Whether this connection was told that the topic is followed no more, and nobody has made it so again since.
    pub(crate) fn was_told(&self, user: u32, topic: u32, connection: u64, now_us: u64) -> bool {
        let told = |request: &&Request| {
            !request.follow && request.connection == Some(connection) && request.is_done_before(now_us)
        };
        let Some(unfollow) = self.requests(user, topic).rev().find(told) else { return false };
        !self.requests(user, topic).any(|request| request.follow && request.may_take_effect(unfollow.from_us, now_us))
    }
}

/// A topic that is surely not followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unfollowed {
    /// When that was confirmed; 0 if it never was followed.
    pub(crate) done_us: u64,
}
