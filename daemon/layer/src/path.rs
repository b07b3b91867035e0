//! Names in archives as paths below a root.

use crate::error::{Error, Result, Rule};
use crate::tar::MAX_NAME;

/// A path without `.`, `..`, empty components and slashes around it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plain(Vec<u8>);

impl Plain {
    /// Absolute names are taken from the root, as every unpacker does.
    ///
    /// # Errors
    /// `..` is refused: where it leads depends on who reads it.
    pub(crate) fn new(name: &[u8]) -> Result<Self> {
        let mut path = Self(Vec::with_capacity(name.len()));
        path.set(name)?;
        Ok(path)
    }

    /// Another name in the same memory.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn set(&mut self, name: &[u8]) -> Result<()> {
        self.0.clear();
        for component in components(name) {
            if component == b".." {
                return Err(Error::refused(name, Rule::Up));
            }
            self.push(component);
        }
        Ok(())
    }

    pub(crate) fn push(&mut self, component: &[u8]) {
        if !self.0.is_empty() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(component);
    }

    pub(crate) fn pop(&mut self) {
        let parent = split(&self.0).0.len();
        self.0.truncate(parent);
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn check_length(&self) -> Result<()> {
        if self.0.len() <= MAX_NAME { Ok(()) } else { Err(Error::refused(&self.0, Rule::LongPath)) }
    }
}

/// The components of a name, `..` among them.
pub(crate) fn components(name: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    name.split(|byte| *byte == b'/').filter(|component| !matches!(*component, b"" | b"."))
}

/// The directory of a plain path, and the name in it.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Whether a plain path is a directory's or lies in it.
pub(crate) fn is_within(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty()
        || path.strip_prefix(directory).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_plain_or_are_refused() {
        for (name, want) in [
            (&b"a/b"[..], &b"a/b"[..]),
            (b"/a//b/", b"a/b"),
            (b"./a/./b/.", b"a/b"),
            (b"./", b""),
            (b"/", b""),
            (b"...", b"..."),
        ] {
            assert_eq!(Plain::new(name).unwrap().as_bytes(), want);
        }
        for name in [&b".."[..], b"a/..", b"../a", b"a/../b", b"/.."] {
            assert!(Plain::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn within_goes_by_components() {
        assert!(is_within(b"a/b", b"a") && is_within(b"a", b"a") && is_within(b"a", b""));
        assert!(!is_within(b"ab", b"a") && !is_within(b"a", b"a/b"));
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"a"), (&b""[..], &b"a"[..]));
    }
}
