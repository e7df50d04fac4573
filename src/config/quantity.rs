//! Times and sizes as people write them: `5ms`, `30s`, `7d`; `64KiB`, `1MiB`, `4096`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use thiserror::Error;

/// A time: a whole number with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes: a whole number, with a unit if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub usize);

/// A text that is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// Not a [`Span`].
    #[error("expected a whole number with a unit: ms, s, m, h or d, as in 500ms, 30s or 7d")]
    Span,
    /// Not a [`ByteSize`].
    #[error("expected a whole number of bytes, or of KiB or MiB, as in 65536, 64KiB or 1MiB")]
    ByteSize,
}

const SPAN_UNITS_MS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: [(&str, usize); 3] = [("MiB", 1024 * 1024), ("KiB", 1024), ("", 1)];

fn split(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split(text);
        let unit_ms = SPAN_UNITS_MS.iter().find(|(name, _)| *name == unit).ok_or(QuantityError::Span)?.1;
        let number: u64 = number.parse().map_err(|_| QuantityError::Span)?;
        number.checked_mul(unit_ms).map(|ms| Self(Duration::from_millis(ms))).ok_or(QuantityError::Span)
    }
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split(text);
        let factor = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or(QuantityError::ByteSize)?.1;
        let number: usize = number.parse().map_err(|_| QuantityError::ByteSize)?;
        number.checked_mul(factor).map(Self).ok_or(QuantityError::ByteSize)
    }
}

/// Prints the largest unit that keeps the number whole, so that what is printed can be typed.
impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if ms == 0 {
            return formatter.write_str("0s");
        }
        let (unit, unit_ms) =
            SPAN_UNITS_MS.iter().find(|(_, unit_ms)| ms.is_multiple_of(*unit_ms)).unwrap_or(&("ms", 1));
        write!(formatter, "{}{unit}", ms / unit_ms)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) =
            SIZE_UNITS.iter().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor)).unwrap_or(&("", 1));
        write!(formatter, "{}{unit}", self.0 / factor)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(usize),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(Self(number)),
            Either::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_read_as_people_write_it_and_printed_as_it_can_be_typed() {
        for text in ["5ms", "30s", "1500ms", "5m", "36h", "7d"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("60s".parse::<Span>().unwrap().to_string(), "1m");
        for text in ["65537", "64KiB", "1MiB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_quantity_without_a_known_unit_is_refused() {
        for text in ["", "5", "s", "-1s", "1.5s", "5 s", "5S", "99999999999999999999d"] {
            assert_eq!(text.parse::<Span>(), Err(QuantityError::Span), "{text:?}");
        }
        for text in ["", "KiB", "64kb", "-1", "99999999999999999999MiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(QuantityError::ByteSize), "{text:?}");
        }
    }
}
