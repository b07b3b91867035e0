//! Digests: what a blob is called by. Only `sha256`, which every registry speaks.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// `sha256:` and 64 lower-case hex digits (OCI image specification, descriptor).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Digest(String);

impl Digest {
    pub(super) const PREFIX: &'static str = "sha256:";

    /// The hex digits: the blob's file name.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0[Self::PREFIX.len()..]
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn of_hash(hash: &[u8]) -> Self {
        Self(format!("{}{}", Self::PREFIX, crate::config::hex(hash)))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let hex = text.strip_prefix(Self::PREFIX).unwrap_or_default();
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() == 64 && hex.bytes().all(lower) {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::InvalidArgument {
            what: "digest",
            problem: format!("{text:?}: want sha256: and 64 lower-case hex digits"),
        })
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
        for text in ["", "sha256:", &hex, &upper, &short, &path, "sha512:00"] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
