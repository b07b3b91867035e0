//! Finds the detach keys in what is typed.

/// Holds back what may become the sequence, and gives it out when it does not.
#[derive(Debug)]
pub(super) struct KeyScanner {
    keys: Vec<u8>,
    /// What was typed of the sequence so far: always a proper prefix of it.
    held: Vec<u8>,
}

/// What a piece of input is to become.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    pub(super) pass: Vec<u8>,
    /// The sequence is complete; what follows it is dropped.
    pub(super) detach: bool,
}

impl KeyScanner {
    /// `keys` is not empty.
    pub(super) fn new(keys: &[u8]) -> Self {
        Self { keys: keys.to_vec(), held: Vec::new() }
    }

    pub(super) fn feed(&mut self, typed: &[u8]) -> Scanned {
        let mut pass = Vec::with_capacity(typed.len());
        for byte in typed {
            self.held.push(*byte);
            while !self.keys.starts_with(&self.held) {
                pass.push(self.held.remove(0));
            }
            if self.held.len() == self.keys.len() {
                self.held.clear();
                return Scanned { pass, detach: true };
            }
        }
        Scanned { pass, detach: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_found_and_anything_else_passes() {
        let keys = b"\x10\x11";
        for (pieces, passed, detached) in [
            (&[&b"abc"[..]][..], &b"abc"[..], false),
            (&[b"a\x10\x11b"], b"a", true),
            (&[b"a\x10", b"\x11"], b"a", true),
            (&[b"\x10", b"x"], b"\x10x", false),
            (&[b"\x10\x10\x11"], b"\x10", true),
            (&[b"\x11\x10"], b"\x11", false),
        ] {
            let mut scanner = KeyScanner::new(keys);
            let mut all = Vec::new();
            let mut end = false;
            for piece in pieces {
                let scanned = scanner.feed(piece);
                all.extend(scanned.pass);
                end |= scanned.detach;
            }
            assert_eq!((all.as_slice(), end), (passed, detached), "{pieces:?}");
        }
    }

    #[test]
    fn a_sequence_that_overlaps_itself_is_found() {
        let mut scanner = KeyScanner::new(b"aab");
        assert_eq!(scanner.feed(b"aaab"), Scanned { pass: b"a".to_vec(), detach: true });
    }
}
