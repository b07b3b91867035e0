//! Digests: what a blob is called by. Only `sha256`, which every registry speaks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::shortened;

/// `sha256:` and 64 lower-case hex digits (OCI image specification, descriptor).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest(String);

/// A text that is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("digest {text:?}: want sha256: and 64 lower-case hex digits")]
pub struct InvalidDigest {
    text: String,
}

impl Digest {
    /// What every digest begins with.
    pub const PREFIX: &'static str = "sha256:";

    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    /// The digest of all that a hash was fed.
    #[must_use]
    pub fn finish(hash: Sha256) -> Self {
        Self::of_hash(&hash.finalize().into())
    }

    /// The digest whose hash was computed already.
    #[must_use]
    pub fn of_hash(hash: &[u8; 32]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(Self::PREFIX.len() + 64);
        text.push_str(Self::PREFIX);
        for byte in hash {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        Self(text)
    }

    /// The hex digits: safe as a file name.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0[Self::PREFIX.len()..]
    }

    /// The whole text, with its prefix.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let hex = text.strip_prefix(Self::PREFIX).unwrap_or_default();
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() == 64 && hex.bytes().all(lower) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidDigest { text: shortened(text) })
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_a_file_name_for_sure_is_a_digest() {
        let hex = "0123456789abcdef".repeat(4);
        let digest: Digest = format!("sha256:{hex}").parse().unwrap();
        assert_eq!(digest.hex(), hex);
        let upper = format!("sha256:{}", hex.to_uppercase());
        let short = format!("sha256:{}", &hex[1..]);
        let path = format!("sha256:../{}", &hex[3..]);
        for text in ["", "sha256:", &hex, &upper, &short, &path, "sha512:00", "sha256:é"] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
            assert!(serde_json::from_value::<Digest>(text.into()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        let nothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), nothing);
        assert_eq!(serde_json::to_value(Digest::of(b"")).unwrap(), nothing);
    }
}
