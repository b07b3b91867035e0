//! What can be wrong with a description of an image.

use crate::{InvalidDigest, MAX_DOCUMENT};

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was wrong, with which text or document.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    #[error("image name {text:?}: {problem}")]
    Name { text: String, problem: NameProblem },
    #[error(
        "platform {text:?}: want OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, as linux/arm64/v8"
    )]
    Platform { text: String },
    #[error("the {what} has {size} bytes: at most {MAX_DOCUMENT} are read")]
    TooLarge { what: &'static str, size: usize },
    #[error("the {what} can't be read")]
    Json { what: &'static str, source: serde_json::Error },
    #[error("the document says {inside:?} of itself, but came as {given:?}")]
    MediaType { given: String, inside: String },
    #[error(
        "the document has \"manifests\" and {other:?}: it could be read as index and as manifest"
    )]
    Ambiguous { other: &'static str },
    #[error("the {what} lacks {key:?}")]
    Missing { what: &'static str, key: &'static str },
    #[error("media type {media_type:?} is neither an image's index nor its manifest")]
    NotAnImage { media_type: String },
    #[error(
        "neither \"manifests\" nor \"layers\" is there: neither an image's index nor its manifest"
    )]
    Shapeless,
    #[error(
        "schema version 1 (docker before 1.10) is not supported: push the image again with a newer tool"
    )]
    SchemaOne,
    #[error("schema version {version} is unknown: want 2")]
    SchemaVersion { version: u64 },
    #[error("the {what} has {count} {of}: at most {limit} are supported")]
    TooMany { what: &'static str, of: &'static str, count: usize, limit: usize },
    #[error("root file system of type {kind:?}: want \"layers\"")]
    RootType { kind: String },
    #[error("the manifest has {layers} layers, the configuration {diff_ids} diff ids")]
    LayerCount { layers: usize, diff_ids: usize },
}

/// Why a text is no name of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    #[error("is empty: want [HOST/]NAME[:TAG][@DIGEST]")]
    Empty,
    #[error("the repository has upper-case letters: write it in lower case")]
    UpperCase,
    #[error("64 hex digits are an image's id, never a name")]
    Id,
    #[error("the host is not a name or address with an optional port")]
    Host,
    #[error("the repository is not made of a-z, 0-9 and single separators (. _ __ -) between /")]
    Repository,
    #[error(
        "the tag is not 1 to 128 letters, digits, _ . or -, beginning with none of the last two"
    )]
    Tag,
    #[error("the digest is not sha256: and 64 lower-case hex digits")]
    Digest,
    #[error("host and repository have more than 255 characters")]
    TooLong,
}

/// A text from outside, as much of it as an error needs.
pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 300;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
