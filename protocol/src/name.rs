//! Names of users, devices and topics.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::limits::NAME_BYTES_MAX;

/// What a name may hold beside ASCII letters and digits.
pub const NAME_PUNCTUATION: &str = "._~@:+=|-";

/// A valid name: 1-255 characters of `A-Z a-z 0-9 . _ ~ @ : + = | -`, not `.` or `..`. Case-sensitive.
///
/// The alphabet has no braces, spaces or slashes, so a name can stand in a Redis key, a hash tag and a URL path as it
/// is. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Parses a name.
    ///
    /// # Errors
    /// [`NameError`] says which rule was broken.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text).map(|()| Self(Arc::from(text)))
    }

    /// The device of a client that names none.
    #[must_use]
    pub fn default_device() -> Self {
        Self(Arc::from("default"))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong);
    }
    if text == "." || text == ".." {
        return Err(NameError::Dots);
    }
    match text.chars().find(|character| !is_allowed(*character)) {
        Some(character) => Err(NameError::Character(character)),
        None => Ok(()),
    }
}

fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || NAME_PUNCTUATION.contains(character)
}

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// No characters at all.
    #[error("a name must not be empty")]
    Empty,
    /// Over [`NAME_BYTES_MAX`].
    #[error("a name has at most {NAME_BYTES_MAX} characters")]
    TooLong,
    /// `.` or `..`, which URL libraries resolve away.
    #[error("'.' and '..' are not names")]
    Dots,
    /// A character outside the alphabet.
    #[error("{0:?} is not allowed in a name; allowed are A-Z a-z 0-9 . _ ~ @ : + = | -")]
    Character(char),
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_outside_the_alphabet_is_refused_with_its_rule() {
        assert_eq!(Name::parse(""), Err(NameError::Empty));
        assert_eq!(Name::parse("."), Err(NameError::Dots));
        assert_eq!(Name::parse(".."), Err(NameError::Dots));
        assert_eq!(Name::parse("a{b}"), Err(NameError::Character('{')));
        assert_eq!(Name::parse("größe"), Err(NameError::Character('ö')));
        assert_eq!(Name::parse(&"a".repeat(256)), Err(NameError::TooLong));
        for text in ["...", "a", "A.b_c~d@e:f+g=h|i-j", &"a".repeat(255)] {
            assert_eq!(Name::parse(text).unwrap().as_str(), text);
        }
    }
}
