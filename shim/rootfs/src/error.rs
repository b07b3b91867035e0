//! What can go wrong with a path or an overlay.

use std::ffi::OsStr;
use std::fmt;

use rustix::io::Errno;

/// Why a path can't be had, or an overlay can't be assembled.
#[derive(Debug)]
pub enum Error {
    /// Something that is never done, or that this kernel can't do.
    Refused { object: String, rule: Rule },
    /// A directory of an overlay is not there.
    Layer { path: String, errno: Errno },
    /// A system call.
    System { step: Step, object: String, errno: Errno },
}

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Following a path.
    Resolve,
    /// Making what a path names.
    MakeTarget,
    /// Looking at what a path names.
    Look,
    /// Assembling an overlay.
    Overlay,
}

/// What stands against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The path names no entry of a directory.
    NotAPath,
    /// More symbolic links than path_resolution(7) allows.
    TooManyLinks,
    /// The options of an overlay are longer than mount(2) takes.
    OptionTooLong,
    /// A path holds a NUL byte.
    NulByte,
    /// The kernel can assemble these layers only where everybody sees them.
    OldKernel,
}

impl Error {
    /// What the kernel said, when it was the kernel.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Layer { errno, .. } | Self::System { errno, .. } => Some(*errno),
            Self::Refused { .. } => None,
        }
    }

    pub(crate) fn refused(object: &OsStr, rule: Rule) -> Self {
        Self::Refused { object: object.to_string_lossy().into_owned(), rule }
    }
}

/// Names the step and the path of a failed system call.
pub(crate) trait At<T> {
    fn at(self, step: Step, path: &OsStr) -> Result<T, Error>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: Step, path: &OsStr) -> Result<T, Error> {
        let object = || path.to_string_lossy().into_owned();
        self.map_err(|errno| Error::System { step, object: object(), errno })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "find in the rootfs",
            Self::MakeTarget => "make in the rootfs",
            Self::Look => "look at",
            Self::Overlay => "assemble the overlay",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAPath => "not a path inside the rootfs",
            Self::TooManyLinks => "too many symbolic links on the way",
            Self::OptionTooLong => "the option does not fit a page",
            Self::NulByte => "it holds a NUL byte",
            Self::OldKernel => "it needs Linux 6.8 to assemble these layers without a place",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { object, rule } => write!(f, "{object}: {rule}"),
            Self::Layer { path, errno } => write!(f, "layer {path:?}: {errno}"),
            Self::System { step, object, errno } => write!(f, "{step} {object}: {errno}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Layer { errno, .. } | Self::System { errno, .. } => Some(errno),
            Self::Refused { .. } => None,
        }
    }
}
