//! What can go wrong with a layer.

use std::io;

use rustix::io::Errno;

/// The longest part of a name that an error shows, in bytes.
const SHOWN: usize = 200;

/// Why a layer or an archive could not be read, unpacked or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are no tar at all.
    #[error("not a tar archive")]
    NotTar,
    /// The bytes are compressed in a way that is not understood.
    #[error("compressed with {0}, which is not supported: only gzip and zstd are")]
    Compression(&'static str),
    /// The compressed bytes are damaged, end too early, or can't be read.
    #[error("read the archive: {0}")]
    Read(#[source] io::Error),
    /// The archive ends in the middle of an entry.
    #[error("the archive ends in the middle of {entry}")]
    Truncated { entry: String },
    /// A header breaks the format.
    #[error("malformed entry {entry}: {problem}")]
    Malformed { entry: String, problem: Problem },
    /// An entry asks for something that is never done.
    #[error("entry {entry} is refused: {rule}")]
    Refused { entry: String, rule: Rule },
    /// More than the limits allow.
    #[error("the archive has more than {limit} {what}")]
    Limit { what: &'static str, limit: u64 },
    /// The tree or a file in it.
    #[error("{step} {path}: {source}")]
    File { step: &'static str, path: String, source: io::Error },
    /// A path below, or in the root of a container.
    #[error(transparent)]
    Rootfs(#[from] shim_rootfs::Error),
    /// The archive that is being written does not take any more.
    #[error("write the archive: {0}")]
    Write(#[source] io::Error),
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// How a header breaks the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the checksum of its header is wrong")]
    Checksum,
    #[error("a number in its header can't be read")]
    Number,
    #[error("a number in its header is negative or too large")]
    Range,
    #[error("it has no name")]
    NoName,
    #[error("its name or the name it links to is longer than 4095 bytes")]
    LongName,
    #[error("its name or the name it links to holds a NUL byte")]
    NulByte,
    #[error("its extended header is malformed")]
    Extended,
    #[error("its extended headers are larger than 1 MiB")]
    LargeExtended,
    #[error("an extended header for all entries gives what only one can have")]
    Global,
    #[error("it has more than 1000 extended attributes")]
    ManyXattrs,
    #[error("its map of holes is malformed")]
    Sparse,
    #[error("its map of holes has more than 1048576 parts")]
    LargeSparse,
    #[error("a part of the archive that is neither an entry nor its end")]
    LoneZeros,
}

/// What no archive gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    #[error("its path goes up with ..")]
    Up,
    #[error("it names no file in a directory")]
    NotAPath,
    #[error("its path is longer than 4095 bytes once links are followed")]
    LongPath,
    #[error("it is a kind of entry that is not understood")]
    Kind,
    #[error("the root can only be a directory")]
    RootKind,
    #[error("a whiteout that hides no single file")]
    Whiteout,
    #[error("it would forge what overlayfs keeps in extended attributes")]
    OverlayAttribute,
    #[error("too many symbolic links on the way")]
    TooManyLinks,
    #[error("what leads there is no directory")]
    NotADirectory,
    #[error("what it links to is not there")]
    NoTarget,
    #[error("a hard link to a directory")]
    LinkToDirectory,
    #[error(
        "a directory is never replaced by something else here, nor something else by a directory"
    )]
    KindKept,
    #[error("directories lie deeper in each other than 500")]
    TooDeep,
    #[error("it was changed by renaming a directory, which a layer can't say")]
    Redirect,
}

impl Error {
    pub(crate) fn malformed(entry: &[u8], problem: Problem) -> Self {
        Self::Malformed { entry: shown(entry), problem }
    }

    pub(crate) fn refused(entry: &[u8], rule: Rule) -> Self {
        Self::Refused { entry: shown(entry), rule }
    }
}

/// Names the step and the object of a failed system call.
pub(crate) trait At<T> {
    fn at(self, step: &'static str, path: &[u8]) -> Result<T>;
}

impl<T> At<T> for std::result::Result<T, Errno> {
    fn at(self, step: &'static str, path: &[u8]) -> Result<T> {
        self.map_err(|errno| Error::File { step, path: shown(path), source: errno.into() })
    }
}

/// A name from an archive as an error may show it: short, without control characters.
pub(crate) fn shown(name: &[u8]) -> String {
    let cut = &name[..name.len().min(SHOWN)];
    let dots = if cut.len() < name.len() { "…" } else { "" };
    format!("{:?}{dots}", String::from_utf8_lossy(cut))
}
