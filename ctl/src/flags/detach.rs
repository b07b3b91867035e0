//! `--detach-keys`: the key sequence that leaves a session and lets the container run.

use std::str::FromStr;

use super::FlagError;

/// The bytes that the keys send. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    /// ctrl-p,ctrl-q.
    fn default() -> Self {
        Self(vec![0x10, 0x11])
    }
}

impl DetachKeys {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for DetachKeys {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        text.split(',')
            .map(|key| {
                byte(key).ok_or_else(|| FlagError::DetachKey {
                    keys: text.to_owned(),
                    key: key.to_owned(),
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// `a`, or `ctrl-a`, as the byte a terminal sends for it.
fn byte(key: &str) -> Option<u8> {
    if let [byte] = key.as_bytes() {
        return byte.is_ascii_graphic().then_some(*byte);
    }
    let [letter] = key.strip_prefix("ctrl-")?.as_bytes() else { return None };
    match letter {
        b'a'..=b'z' => Some(letter - b'a' + 1),
        b'@' | b'[' | b'\\' | b']' | b'^' | b'_' => Some(letter - b'@'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_the_bytes_a_terminal_sends() {
        for (text, bytes) in [
            ("ctrl-p,ctrl-q", &[0x10, 0x11][..]),
            ("", &[0x10, 0x11]),
            ("ctrl-@,x", &[0, b'x']),
            ("ctrl-],ctrl-\\,ctrl-_,ctrl-[", &[0x1d, 0x1c, 0x1f, 0x1b]),
            ("q", b"q"),
        ] {
            assert_eq!(text.parse::<DetachKeys>().unwrap().bytes(), bytes, "{text}");
        }
        for text in ["ctrl-", "ctrl-P", "ctrl-pq", "p,,q", "ab", "ctrl-1", "é"] {
            assert!(text.parse::<DetachKeys>().is_err(), "{text}");
        }
    }
}
