//! References: what people call an image, and what it means.
//!
//! ```text
//!   alpine                    docker.io/library/alpine:latest
//!   localhost:5000/a/b:c      as it stands
//!   a@sha256:…                docker.io/library/a@sha256:…
//! ```
//!
//! The grammar is that of the distribution project's `reference` package, which docker, containerd
//! and all registries share; a value of [`Reference`] is always whole and normalised.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, NameProblem, shortened};
use crate::{Digest, Result};

const DOCKER: &str = "docker.io";
const DOCKER_OLD: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const LATEST: &str = "latest";
/// Characters of host and repository together.
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

/// A normalised name of an image: host, repository, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry's host, with its port if the name has one.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository inside the registry.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Host and repository, without tag and digest.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The whole name. No two names of the same thing are written differently.
    #[must_use]
    pub fn name(&self) -> String {
        self.to_string()
    }

    /// The name as people write it: without what docker adds by itself, but for the tag.
    #[must_use]
    pub fn familiar(&self) -> String {
        let name = self.name();
        let short = name.strip_prefix("docker.io/").unwrap_or(&name);
        let shorter = short.strip_prefix(OFFICIAL).unwrap_or(short);
        // `docker.io/a.b/c` without its host would be another name.
        let same = |text: &&str| text.parse::<Self>().is_ok_and(|read| read == *self);
        [shorter, short].into_iter().find(same).unwrap_or(&name).to_owned()
    }

    /// The same repository at another tag.
    ///
    /// # Errors
    /// The text is no tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(Error::Name { text: shortened(tag), problem: NameProblem::Tag });
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same name, fixed to a digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The repository at a digest alone.
    #[must_use]
    pub fn at_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|problem| Error::Name { text: shortened(text), problem })
    }
}

impl TryFrom<String> for Reference {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

fn parse(text: &str) -> Result<Reference, NameProblem> {
    if text.is_empty() {
        return Err(NameProblem::Empty);
    }
    if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(NameProblem::Id);
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| NameProblem::Digest)?)),
        None => (text, None),
    };
    let (domain, rest) = split_domain(rest);
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    let domain = if domain == DOCKER_OLD { DOCKER } else { domain };
    let official = if domain == DOCKER && !path.contains('/') { OFFICIAL } else { "" };
    if !is_domain(domain) {
        return Err(NameProblem::Host);
    }
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(NameProblem::UpperCase);
    }
    if !path.split('/').all(is_component) {
        return Err(NameProblem::Repository);
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(NameProblem::Tag);
    }
    let path = format!("{official}{path}");
    if domain.len() + 1 + path.len() > LONGEST_NAME {
        return Err(NameProblem::TooLong);
    }
    let latest = digest.is_none().then_some(LATEST);
    let tag = tag.or(latest).map(str::to_owned);
    Ok(Reference { domain: domain.to_owned(), path, tag, digest })
}

/// The first component is a host when nothing else could look like it.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        Some(_) | None => (DOCKER, text),
    }
}

/// A name or an address, and a port: `a.b`, `a:5000`, `[::1]:5000`.
fn is_domain(text: &str) -> bool {
    let port = |text: &str| text.parse::<u16>().is_ok_and(|_| !text.starts_with('+'));
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, rest)| {
            address.parse::<std::net::Ipv6Addr>().is_ok()
                && (rest.is_empty() || rest.strip_prefix(':').is_some_and(port))
        });
    }
    let (host, valid_port) = match text.split_once(':') {
        Some((host, text)) => (host, port(text)),
        None => (text, true),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    valid_port && host.split('.').all(label)
}

/// Lower-case words with single separators between them: `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    let separator =
        |run: &[u8]| matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-');
    word(first)
        && word(last)
        && bytes
            .chunk_by(|left, right| word(left) == word(right))
            .all(|run| run.first().is_some_and(word) || separator(run))
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised_as_docker_does() {
        let table = [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3", "docker.io/library/alpine:3", "alpine:3"),
            ("a/b", "docker.io/a/b:latest", "a/b:latest"),
            ("library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("host:5000/x", "host:5000/x:latest", "host:5000/x:latest"),
            ("host:5000", "docker.io/library/host:5000", "host:5000"),
            ("[::1]:5000/x:y", "[::1]:5000/x:y", "[::1]:5000/x:y"),
            ("[fe80::1]/x", "[fe80::1]/x:latest", "[fe80::1]/x:latest"),
            (
                "127.0.0.1:5000/a/b/c:1.2-x_y",
                "127.0.0.1:5000/a/b/c:1.2-x_y",
                "127.0.0.1:5000/a/b/c:1.2-x_y",
            ),
            ("a__b/c---d/e.f_g", "docker.io/a__b/c---d/e.f_g:latest", "a__b/c---d/e.f_g:latest"),
            ("Host/x", "Host/x:latest", "Host/x:latest"),
        ];
        for (text, name, familiar) in table {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(
                (reference.name().as_str(), reference.familiar().as_str()),
                (name, familiar)
            );
            assert_eq!(name.parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn a_digest_stands_beside_a_tag_or_alone() {
        let alone: Reference = format!("alpine@{DIGEST}").parse().unwrap();
        assert_eq!((alone.tag(), alone.digest().unwrap().as_str()), (None, DIGEST));
        assert_eq!(alone.name(), format!("docker.io/library/alpine@{DIGEST}"));
        let both: Reference = format!("host:1/x:y@{DIGEST}").parse().unwrap();
        assert_eq!((both.tag(), both.digest().unwrap().as_str()), (Some("y"), DIGEST));
        assert_eq!(both.name(), format!("host:1/x:y@{DIGEST}"));
        assert_eq!(both.at_digest(Digest::of(b"")).name(), format!("host:1/x@{DIGEST}"));
        assert_eq!(both.with_tag("z").unwrap().name(), "host:1/x:z");
        assert_eq!((both.domain(), both.path()), ("host:1", "x"));
        assert_eq!(both.repository(), "host:1/x");
    }

    #[test]
    fn what_is_no_name_says_why() {
        let (tag, name) = ("t".repeat(129), "n".repeat(254));
        let long = "a".repeat(200);
        let table = [
            ("", NameProblem::Empty),
            ("Alpine", NameProblem::UpperCase),
            ("host:5000/Alpine", NameProblem::UpperCase),
            (&DIGEST[7..], NameProblem::Id),
            ("a b", NameProblem::Repository),
            ("a//b", NameProblem::Repository),
            ("a/", NameProblem::Repository),
            ("/a", NameProblem::Repository),
            ("a..b", NameProblem::Repository),
            ("a___b", NameProblem::Repository),
            ("a.-b", NameProblem::Repository),
            ("-a", NameProblem::Repository),
            ("../a", NameProblem::Host),
            ("a.b/../c", NameProblem::Repository),
            ("é", NameProblem::Repository),
            ("host:port/x", NameProblem::Host),
            ("host:70000/x", NameProblem::Host),
            ("[::1/x", NameProblem::Host),
            ("-h.x/y", NameProblem::Host),
            ("u:p@host/x", NameProblem::Digest),
            ("https://host/x", NameProblem::Host),
            ("a:", NameProblem::Tag),
            ("a:.b", NameProblem::Tag),
            ("a:b:c", NameProblem::Tag),
            (&format!("a:{tag}"), NameProblem::Tag),
            ("a@sha256:00", NameProblem::Digest),
            ("a@", NameProblem::Digest),
            (&name, NameProblem::TooLong),
            (&format!("h.x/{long}/{long}"), NameProblem::TooLong),
        ];
        for (text, wanted) in table {
            match text.parse::<Reference>() {
                Err(Error::Name { problem, .. }) => assert_eq!(problem, wanted, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
