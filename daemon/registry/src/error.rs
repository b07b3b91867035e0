//! What can go wrong with a registry. Nothing here holds a secret, or an address with a query.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bosun_image::Digest;

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was asked for, of whom, and who was asked before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// `image "…"`, `blob sha256:… of "…"`
    pub what: Arc<str>,
    /// As in the image's name.
    pub registry: Arc<str>,
    pub tried: Vec<Tried>,
}

/// A mirror that did not help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    pub mirror: String,
    pub answer: String,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "registry {}", self.registry)?;
        for (index, tried) in self.tried.iter().enumerate() {
            let start = if index == 0 { " (tried " } else { ", " };
            write!(f, "{start}mirror {}: {}", tried.mirror, tried.answer)?;
        }
        if self.tried.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: not found in {at}: check the name and the tag", at.what)]
    NotFound { at: At },
    #[error("{}: {at} does not let you in{detail}: check the name, or log in with `ctl login {}`", at.what, at.registry)]
    Unauthorized { at: At, detail: Detail },
    #[error("{}: {at} denies access{detail}: another user may have it", at.what)]
    Denied { at: At, detail: Detail },
    #[error("{}: {at} has had too many requests{detail}: wait, or log in", at.what)]
    TooManyRequests { at: At, detail: Detail, retry_after: Option<Duration> },
    #[error("{}: {at} is out of order (status {status}){detail}: try again later", at.what)]
    Unavailable { at: At, status: u16, detail: Detail, retry_after: Option<Duration> },
    #[error("{}: {at} answers with status {status}{detail}", at.what)]
    Status { at: At, status: u16, detail: Detail },
    #[error("{}: {at} can't be reached: {problem}", at.what)]
    Unreachable { at: At, problem: String, source: reqwest::Error },
    #[error("{}: {at}: the connection broke at byte {received}: {problem}", at.what)]
    Broken { at: At, received: u64, problem: String },
    #[error("{}: {at} stalled at byte {received}: {stall}", at.what)]
    Stalled { at: At, received: u64, stall: Stall },
    #[error("{}: {at} sent other content: want {wanted}, got {got}", at.what)]
    BadDigest { at: At, wanted: Digest, got: Digest },
    #[error("{}: {at} sent another length: want {wanted} bytes, got {got}", at.what)]
    BadLength { at: At, wanted: u64, got: u64 },
    #[error("{}: {at} sent more than {limit} bytes: refused", at.what)]
    TooLarge { at: At, limit: u64 },
    #[error("{}: {at} sent what is no image", at.what)]
    BadDocument { at: At, source: bosun_image::Error },
    #[error("{}: {at} sent an unusable answer: {problem}", at.what)]
    BadAnswer { at: At, problem: &'static str },
    #[error("{}: {at} redirects in a ring, or more than {limit} times", at.what)]
    RedirectLoop { at: At, limit: usize },
    #[error("{}: {at} redirects to where nobody follows: {problem}", at.what)]
    BadRedirect { at: At, problem: &'static str },
    #[error("{}: {at} wants a token of {realm}: {problem}", at.what)]
    Token { at: At, realm: String, problem: &'static str },
    #[error("credentials of {host:?} are not for registry {registry}: they go nowhere else")]
    ForeignCredentials { host: String, registry: String },
    #[error("{}: {problem}", path.display())]
    Hosts { path: PathBuf, problem: String },
    #[error("the HTTP client can't be made")]
    Client { source: reqwest::Error },
    #[error("{what}: its bytes can't be read")]
    Upload { what: String, source: std::io::Error },
}

/// What a registry says of an error, made fit for a terminal; with a colon before it, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail(String);

/// Why something counts as stalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    /// No answer at all.
    Response(Duration),
    /// No byte of a body.
    Idle(Duration),
    /// Fewer bytes per second than a body has to come with.
    Slow { rate: u64, minimum: u64 },
}

impl Detail {
    const LONGEST: usize = 400;

    pub(crate) fn new(text: &str) -> Self {
        Self(text.trim().chars().take(Self::LONGEST).flat_map(visible).collect())
    }
}

/// Control characters, and those that change the direction of text, as escapes.
fn visible(letter: char) -> impl Iterator<Item = char> {
    let hidden = letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let escaped = hidden.then(|| letter.escape_default());
    escaped.into_iter().flatten().chain((!hidden).then_some(letter))
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Response(time) => write!(f, "no answer for {} s", time.as_secs_f32()),
            Self::Idle(time) => write!(f, "no byte for {} s", time.as_secs_f32()),
            Self::Slow { rate, minimum } => {
                write!(f, "{rate} bytes a second, of at least {minimum}")
            }
        }
    }
}

impl Error {
    /// Whether the same may go well a little later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::TooManyRequests { .. } | Self::Broken { .. } | Self::Stalled { .. } => true,
            Self::Unavailable { status, .. } => matches!(status, 500 | 502 | 503 | 504),
            Self::Unreachable { source, .. } => tls_error(source).is_none(),
            Self::NotFound { .. }
            | Self::Unauthorized { .. }
            | Self::Denied { .. }
            | Self::Status { .. }
            | Self::BadDigest { .. }
            | Self::BadLength { .. }
            | Self::TooLarge { .. }
            | Self::BadDocument { .. }
            | Self::BadAnswer { .. }
            | Self::RedirectLoop { .. }
            | Self::BadRedirect { .. }
            | Self::Token { .. }
            | Self::ForeignCredentials { .. }
            | Self::Hosts { .. }
            | Self::Client { .. }
            | Self::Upload { .. } => false,
        }
    }

    /// How long the registry asks to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                *retry_after
            }
            Self::NotFound { .. }
            | Self::Unauthorized { .. }
            | Self::Denied { .. }
            | Self::Status { .. }
            | Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Stalled { .. }
            | Self::BadDigest { .. }
            | Self::BadLength { .. }
            | Self::TooLarge { .. }
            | Self::BadDocument { .. }
            | Self::BadAnswer { .. }
            | Self::RedirectLoop { .. }
            | Self::BadRedirect { .. }
            | Self::Token { .. }
            | Self::ForeignCredentials { .. }
            | Self::Hosts { .. }
            | Self::Client { .. }
            | Self::Upload { .. } => None,
        }
    }
}

impl Error {
    /// The answer of a mirror, in a word or two.
    pub(crate) fn brief(&self) -> String {
        match self {
            Self::NotFound { .. } => "404".to_owned(),
            Self::Unauthorized { .. } => "401".to_owned(),
            Self::Denied { .. } => "403".to_owned(),
            Self::TooManyRequests { .. } => "429".to_owned(),
            Self::Unavailable { status, .. } | Self::Status { status, .. } => status.to_string(),
            Self::Unreachable { problem, .. } | Self::Broken { problem, .. } => problem.clone(),
            Self::Stalled { stall, .. } => stall.to_string(),
            Self::BadDigest { .. } => "other content".to_owned(),
            Self::BadLength { .. } => "another length".to_owned(),
            Self::TooLarge { .. } => "too large".to_owned(),
            Self::BadDocument { .. } => "no image".to_owned(),
            Self::RedirectLoop { .. } => "redirects in a ring".to_owned(),
            Self::BadAnswer { problem, .. }
            | Self::BadRedirect { problem, .. }
            | Self::Token { problem, .. } => (*problem).to_owned(),
            Self::ForeignCredentials { .. }
            | Self::Hosts { .. }
            | Self::Client { .. }
            | Self::Upload { .. } => self.to_string(),
        }
    }
}

/// Each error in a chain. An I/O error hides the one it was made of from the usual way.
fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        match inner {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        }
    })
}

/// The last error of a chain: what really happened.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    Detail::new(&chain(error).last().map(ToString::to_string).unwrap_or_default()).0
}

fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    chain(error).find_map(|error| error.downcast_ref::<rustls::Error>())
}

/// Whether nothing speaks TLS there: nothing at all, or something else.
pub(crate) fn is_no_tls(error: &reqwest::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, ConnectionReset, UnexpectedEof};
    match tls_error(error) {
        Some(rustls::Error::InvalidMessage(_)) => true,
        // It speaks TLS, and is not trusted.
        Some(_) => false,
        None => {
            error.is_connect()
                && chain(error).any(|error| {
                    error.downcast_ref::<std::io::Error>().is_some_and(|error| {
                        matches!(error.kind(), ConnectionRefused | ConnectionReset | UnexpectedEof)
                    })
                })
        }
    }
}
