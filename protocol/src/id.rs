//! Stream ids: `<milliseconds>-<sequence>`, compared as a pair of numbers.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The id of one entry of a Redis stream.
///
/// Source: <https://redis.io/docs/latest/develop/data-types/streams/#entry-ids>
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    /// Unix time in milliseconds for ids that Redis made itself.
    pub ms: u64,
    /// Number within the millisecond.
    pub seq: u64,
}

/// The longest textual id: two 20-digit numbers and a dash.
pub const ENTRY_ID_BYTES_MAX: usize = 41;

impl EntryId {
    /// The id before every entry.
    pub const MIN: Self = Self { ms: 0, seq: 0 };

    /// The smallest id after this one; `None` after the last.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { ms: self.ms, seq }),
            None => self.ms.checked_add(1).map(|ms| Self { ms, seq: 0 }),
        }
    }

    /// Parses the canonical text form strictly: digits, one dash, digits, no leading zeros, no sign.
    ///
    /// One malformed id fails a whole `XACK`, so nothing looser may reach Redis.
    ///
    /// # Errors
    /// [`IdError`] for anything else than what Redis itself prints.
    pub fn parse(text: &[u8]) -> Result<Self, IdError> {
        match Self::parse_first(text)? {
            (id, []) => Ok(id),
            _ => Err(IdError),
        }
    }

    /// Parses the id that `text` begins with, as strictly; answers what follows it, too.
    #[inline]
    pub(crate) fn parse_first(text: &[u8]) -> Result<(Self, &[u8]), IdError> {
        let (ms, rest) = parse_number(text)?;
        let (seq, rest) = parse_number(rest.strip_prefix(b"-").ok_or(IdError)?)?;
        Ok((Self { ms, seq }, rest))
    }

    /// Appends the text form.
    pub(crate) fn push_to(self, text: &mut String) {
        let mut digits = itoa::Buffer::new();
        text.push_str(digits.format(self.ms));
        text.push('-');
        text.push_str(digits.format(self.seq));
    }
}

/// So many digits are a number of 64 bits, whatever they are.
const SAFE_DIGITS: usize = 19;

/// The number that `text` begins with, and what follows it.
#[inline]
fn parse_number(text: &[u8]) -> Result<(u64, &[u8]), IdError> {
    let (mut number, mut count) = (0, 0);
    for byte in text.iter().take(SAFE_DIGITS) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        number = number * 10 + u64::from(digit);
        count += 1;
    }
    if count == 0 || (count > 1 && text[0] == b'0') {
        return Err(IdError);
    }
    let rest = &text[count..];
    match rest {
        [digit @ b'0'..=b'9', rest @ ..] => {
            let digit = u64::from(digit - b'0');
            let number = number.checked_mul(10).and_then(|number| number.checked_add(digit)).ok_or(IdError)?;
            Ok((number, rest))
        }
        rest => Ok((number, rest)),
    }
}

/// A text that is not a stream id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a message id: expected <milliseconds>-<sequence>, exactly as it was delivered")]
pub struct IdError;

impl FromStr for EntryId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text.as_bytes())
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.ms, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_form_that_redis_prints_is_an_id() {
        for text in ["0-0", "1700000000000-0", "18446744073709551615-18446744073709551615"] {
            assert_eq!(text.parse::<EntryId>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "01-0",
            "1-00",
            "+1-0",
            "1 -0",
            "1-0 ",
            "1-0-0",
            "1-*",
            "18446744073709551616-0",
            "184467440737095516150-0",
            "0-18446744073709551616",
            "0-100000000000000000000",
            "1\u{661}-0",
        ] {
            assert_eq!(text.parse::<EntryId>(), Err(IdError), "{text:?}");
        }
    }

    #[test]
    fn the_next_id_carries_over_the_sequence() {
        assert_eq!(EntryId { ms: 1, seq: u64::MAX }.next(), Some(EntryId { ms: 2, seq: 0 }));
        assert_eq!(EntryId { ms: u64::MAX, seq: u64::MAX }.next(), None);
    }
}
