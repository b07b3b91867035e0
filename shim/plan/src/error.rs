//! Why a spec can't become a plan. Every variant names the place in `config.json`.

/// A spec that is refused. `path` is the JSON path of the field, `linux.intelRdt`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field that bosun does not act on, and so does not pretend to.
    #[error("{path}: not supported")]
    NotSupported { path: String },
    #[error("{path}: {value:?} is not supported")]
    ValueNotSupported { path: String, value: String },
    #[error("{path}: missing")]
    Missing { path: String },
    #[error("{path}: {value:?} is not {expected}")]
    Malformed { path: String, value: String, expected: &'static str },
    /// Two fields that can't both hold.
    #[error("{path}: {why}")]
    Contradiction { path: String, why: &'static str },
    /// The text is no JSON at all.
    #[error("not JSON: {source}")]
    Json { source: serde_json::Error },
    /// JSON whose outermost value is no object.
    #[error("an object is expected")]
    NotAnObject,
    /// JSON of another type than the field's.
    #[error("{path}: {source}")]
    Type { path: String, source: serde_json::Error },
    #[error("linux.seccomp: {step}")]
    Seccomp {
        step: String,
        #[source]
        source: libseccomp::error::SeccompError,
    },
    /// Of an architecture whose words have their bytes in the other order than this machine's.
    #[error(
        "{path}: {name} has another byte order than this machine, and libseccomp can't have both in a \
         filter: no program of it runs here, so leave it away"
    )]
    SeccompByteOrder { path: String, name: String },
    #[error("{path}: libseccomp refuses {name}: {source}")]
    SeccompArchitecture { path: String, name: String, source: libseccomp::error::SeccompError },
    /// The compiled filter could not be taken from libseccomp.
    #[error("linux.seccomp: {step}")]
    SeccompExport {
        step: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// The kernel takes at most 4096 instructions (BPF_MAXINSNS).
    #[error("linux.seccomp: the filter has {instructions} instructions, the kernel takes 4096")]
    SeccompTooLong { instructions: usize },
}

impl Error {
    pub(crate) fn not_supported(path: impl Into<String>) -> Self {
        Self::NotSupported { path: path.into() }
    }

    pub(crate) fn value(path: impl Into<String>, value: impl Into<String>) -> Self {
        Self::ValueNotSupported { path: path.into(), value: value.into() }
    }

    pub(crate) fn missing(path: impl Into<String>) -> Self {
        Self::Missing { path: path.into() }
    }

    pub(crate) fn malformed(
        path: impl Into<String>,
        value: impl Into<String>,
        expected: &'static str,
    ) -> Self {
        Self::Malformed { path: path.into(), value: value.into(), expected }
    }

    pub(crate) fn contradiction(path: impl Into<String>, why: &'static str) -> Self {
        Self::Contradiction { path: path.into(), why }
    }
}
