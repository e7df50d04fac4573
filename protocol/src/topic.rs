//! Topics: their names, the ids of their messages, cursors in them, and which of them a token lets a client follow.

use std::fmt;

use thiserror::Error;

use crate::id::{EntryId, IdError};
use crate::name::{Name, NameError};

/// The broadcast topic's name. It stands outside the alphabet of names, so that nobody can take it.
pub const BROADCAST: &str = "*";

/// A stream that many devices follow, each by a cursor.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// What every device follows, without asking.
    Broadcast,
    /// What users follow by name.
    Named(Name),
}

impl Topic {
    /// Parses a topic's name, [`BROADCAST`] among them.
    ///
    /// # Errors
    /// [`NameError`] says which rule was broken.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == BROADCAST { Ok(Self::Broadcast) } else { Name::parse(text).map(Self::Named) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Broadcast => BROADCAST,
            Self::Named(name) => name.as_str(),
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.as_str())
    }
}

/// The id of a message as clients know it: a stream id for the inbox, `<topic>/<stream id>` for a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageId {
    /// A message of the inbox.
    Inbox(EntryId),
    /// A message of a topic.
    Topic(Topic, EntryId),
}

impl MessageId {
    /// Parses an id strictly.
    ///
    /// # Errors
    /// [`IdError`] for anything else than what was delivered.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        match text.rsplit_once('/') {
            None => text.parse().map(Self::Inbox),
            Some((topic, id)) => Ok(Self::Topic(Topic::parse(topic).map_err(|_| IdError)?, id.parse()?)),
        }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inbox(id) => id.fmt(formatter),
            Self::Topic(topic, id) => write!(formatter, "{topic}/{id}"),
        }
    }
}

/// Sequence numbers that a cursor can tell apart within a millisecond.
const CURSOR_SEQ_MAX: u64 = 1 << 10;
/// Beyond 2^53, numbers in a sorted set lose digits.
const CURSOR_MS_MAX: u64 = (1 << 43) - 1;

/// A cursor as the score of a sorted set, which keeps the largest of what is written (`ZADD GT`) and counts how many
/// have passed an entry (`ZCOUNT`). What does not fit is rounded down: a message may then be delivered twice, never not.
#[must_use]
pub fn cursor_score(id: EntryId) -> u64 {
    if id.ms > CURSOR_MS_MAX {
        return CURSOR_MS_MAX * CURSOR_SEQ_MAX;
    }
    id.ms * CURSOR_SEQ_MAX + id.seq.min(CURSOR_SEQ_MAX - 1)
}

/// The reverse of [`cursor_score`].
#[must_use]
pub fn cursor_of_score(score: u64) -> EntryId {
    EntryId { ms: score / CURSOR_SEQ_MAX, seq: score % CURSOR_SEQ_MAX }
}

/// Most patterns in one token.
pub const PATTERNS_MAX: usize = 100;

/// Which topics a client may follow and leave by itself: the token's `topics` claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TopicPatterns(Box<[Box<str>]>);

/// A `topics` claim that is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// Over [`PATTERNS_MAX`].
    #[error("at most {PATTERNS_MAX} patterns")]
    TooMany,
    /// A pattern with its stars taken out must be made of the characters of names.
    #[error("{0:?} is no pattern: it has at most 255 characters of names, and '*' for any run of characters")]
    Pattern(String),
}

impl TopicPatterns {
    /// Checks patterns: characters of names, and `*` for any run of characters.
    ///
    /// # Errors
    /// [`PatternError`]
    pub fn parse<T: AsRef<str>>(patterns: &[T]) -> Result<Self, PatternError> {
        if patterns.len() > PATTERNS_MAX {
            return Err(PatternError::TooMany);
        }
        let check = |pattern: &T| {
            let pattern = pattern.as_ref();
            let bare = pattern.replace('*', "");
            let good = pattern.len() <= crate::limits::NAME_BYTES_MAX
                && !pattern.is_empty()
                && (bare.is_empty() || bare.chars().all(|character| character == '.') || Name::parse(&bare).is_ok());
            if good { Ok(Box::from(pattern)) } else { Err(PatternError::Pattern(pattern.chars().take(40).collect())) }
        };
        Ok(Self(patterns.iter().map(check).collect::<Result<_, _>>()?))
    }

    /// Whether one of the patterns matches the whole name.
    #[must_use]
    pub fn allow(&self, topic: &Name) -> bool {
        self.0.iter().any(|pattern| matches(pattern, topic.as_str()))
    }
}

/// Whether `pattern` matches all of `text`. Each piece between stars is taken where it first fits, which is never worse
/// than a later place, so this takes no more than length times length steps.
fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(mut piece) = pieces.next() else { return rest.is_empty() };
    for next in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
        piece = next;
    }
    rest.ends_with(piece)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_of_topics_are_parsed_strictly() {
        for text in ["1-2", "news/1-2", "*/1-2", "a:b|c/0-0"] {
            assert_eq!(MessageId::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "/1-2", "news/", "news/1", "news/1-2/", "a b/1-2", "**/1-2", "../1-2", "news/01-2"] {
            assert_eq!(MessageId::parse(text), Err(IdError), "{text:?}");
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        let allowed = TopicPatterns::parse(&["news.*", "room-1", "*:public", "a*b*c"]).unwrap();
        let allow = |name: &str| allowed.allow(&Name::parse(name).unwrap());
        for name in ["news.de", "news.", "room-1", "x:public", ":public", "abc", "axxbyyc", "abbcc"] {
            assert!(allow(name), "{name}");
        }
        for name in ["news", "room-10", "x:publics", "ab", "acb", "bac"] {
            assert!(!allow(name), "{name}");
        }
        assert!(!TopicPatterns::default().allow(&Name::parse("a").unwrap()));
        assert!(TopicPatterns::parse(&["*"]).unwrap().allow(&Name::parse("a").unwrap()));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in ["", "a b", "{", "a/b"] {
            assert!(TopicPatterns::parse(&[pattern]).is_err(), "{pattern:?}");
        }
        assert_eq!(TopicPatterns::parse(&vec!["a"; PATTERNS_MAX + 1]), Err(PatternError::TooMany));
    }

    /// The definition: a star stands for nothing, or for one character more.
    fn matches_by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|from| matches_by_definition(rest, &text[from..])),
            [one, rest @ ..] => text.first() == Some(one) && matches_by_definition(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_cursor_is_never_rounded_up_and_keeps_its_order(a in (0u64..1 << 44, 0u64..3_000), b in (0u64..1 << 44, 0u64..3_000)) {
            let [a, b] = [a, b].map(|(ms, seq)| EntryId { ms, seq });
            prop_assert!(cursor_of_score(cursor_score(a)) <= a);
            prop_assert_eq!(cursor_score(a) as f64 as u64, cursor_score(a));
            if a <= b {
                prop_assert!(cursor_score(a) <= cursor_score(b));
            }
            if a.seq < CURSOR_SEQ_MAX && a.ms <= CURSOR_MS_MAX {
                prop_assert_eq!(cursor_of_score(cursor_score(a)), a);
            }
        }

        #[test]
        fn matching_is_what_it_is_defined_to_be(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            prop_assert_eq!(matches(&pattern, &text), matches_by_definition(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
