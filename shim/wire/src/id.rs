//! Identifiers of namespaces, containers, execs, leases and snapshots' owners.
//!
//! The rule is containerd's, because its clients and ours name the same things:
//! `^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$`, at most 76 bytes. Such an id is never empty, never
//! `.` or `..`, holds no `/`, and so is always one safe path component.

use std::fmt;
use std::str::FromStr;

/// The longest id, in bytes.
pub const MAX_LEN: usize = 76;

/// A checked identifier: one safe path component.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(String);

impl Id {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidId {
    Empty,
    TooLong {
        len: usize,
    },
    /// The byte offset of the first character that breaks the rule.
    Character {
        text: String,
        offset: usize,
    },
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "an id must not be empty"),
            Self::TooLong { len } => {
                write!(f, "an id has at most {MAX_LEN} characters, this one has {len}")
            }
            Self::Character { text, offset } => write!(
                f,
                "invalid id {text:?} at character {}: letters and digits, with single '.', '_' or '-' between them",
                offset + 1
            ),
        }
    }
}

impl std::error::Error for InvalidId {}

impl FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.is_empty() {
            return Err(InvalidId::Empty);
        }
        if text.len() > MAX_LEN {
            return Err(InvalidId::TooLong { len: text.len() });
        }
        let bytes = text.as_bytes();
        for (offset, byte) in bytes.iter().enumerate() {
            let separator = matches!(byte, b'.' | b'_' | b'-');
            let inside =
                offset > 0 && offset + 1 < bytes.len() && bytes[offset - 1].is_ascii_alphanumeric();
            if !(byte.is_ascii_alphanumeric() || (separator && inside)) {
                return Err(InvalidId::Character { text: text.to_owned(), offset });
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_containerd_accepts() {
        for text in ["a", "web", "k8s.io", "a-b_c.d9", "0123456789abcdef", &"x".repeat(76)] {
            assert!(text.parse::<Id>().is_ok(), "{text}");
        }
    }

    #[test]
    fn refuses_what_could_leave_its_directory_or_grow_without_bound() {
        for text in
            ["", ".", "..", "../x", "a/b", "-a", "a-", "a..b", "a--b", "a b", "a\n", "é", "a\0"]
        {
            assert!(text.parse::<Id>().is_err(), "{text:?}");
        }
        assert_eq!("x".repeat(77).parse::<Id>(), Err(InvalidId::TooLong { len: 77 }));
    }
}
