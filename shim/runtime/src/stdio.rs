//! Descriptors 0 to 2 of a process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Gid, Uid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use shim_rootfs::Root;

use crate::error::At;
use crate::process::ProcessIo;
use crate::userns::Owner;
use crate::{Error, Rule, Step};

/// The child's ends.
#[derive(Debug)]
pub(crate) enum ChildIo {
    /// To be made of the container's own pty: all three are its other side, whether anybody types at it
    /// or not.
    Terminal,
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// Those that the caller itself has.
    Inherited,
}

impl ChildIo {
    /// Gives pipes to the root of a user namespace, who can then give them on.
    pub(crate) fn give_to(&self, owner: Owner) -> Result<(), Error> {
        let give = |fd: BorrowedFd<'_>| {
            let found = rustix::fs::fstat(fd).at(Step::Stdio, "a pipe")?;
            if FileType::from_raw_mode(found.st_mode) != FileType::Fifo {
                return Ok(());
            }
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            rustix::fs::fchown(fd, Some(uid), Some(gid)).at(Step::Stdio, "a pipe")
        };
        match self {
            Self::Terminal => Ok(()),
            Self::Pipes { stdin, stdout, stderr } => {
                let all = stdin.iter().chain([stdout, stderr]);
                all.map(AsFd::as_fd).try_for_each(give)
            }
            Self::Inherited => {
                [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
                    .into_iter()
                    .try_for_each(give)
            }
        }
    }
}

/// Both ends of what is no terminal; a terminal comes later, from inside.
pub(crate) fn make(
    terminal: bool,
    stdin: bool,
    inherit: bool,
) -> Result<(Option<ProcessIo>, ChildIo), Error> {
    if terminal {
        return Ok((None, ChildIo::Terminal));
    }
    if inherit {
        return Ok((Some(ProcessIo::Inherited), ChildIo::Inherited));
    }
    let make = |name| pipe_with(PipeFlags::CLOEXEC).at(Step::Pipe, name);
    let (stdin_read, stdin_write) = match stdin {
        true => make("standard input").map(|(read, write)| (Some(read), Some(write)))?,
        false => (None, None),
    };
    let (stdout_read, stdout_write) = make("standard output")?;
    let (stderr_read, stderr_write) = make("standard error")?;
    Ok((
        Some(ProcessIo::Pipes { stdin: stdin_write, stdout: stdout_read, stderr: stderr_read }),
        ChildIo::Pipes { stdin: stdin_read, stdout: stdout_write, stderr: stderr_write },
    ))
}

/// The three descriptors, not in their places yet.
#[derive(Debug)]
pub(crate) struct Streams {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    /// The terminal to control the session.
    terminal: bool,
    /// Somebody else's, who may go on using them.
    inherited: bool,
}

impl Streams {
    /// Of pipes, or of the pty's other side.
    pub(crate) fn new(root: &Root, io: ChildIo, slave: Option<OwnedFd>) -> Result<Self, Error> {
        let copy = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3).at(Step::Stdio, "a copy");
        let (stdin, stdout, stderr) = match (io, slave) {
            (ChildIo::Terminal, Some(slave)) => {
                return Ok(Self {
                    stdin: copy(&slave)?,
                    stdout: copy(&slave)?,
                    stderr: slave,
                    terminal: true,
                    inherited: false,
                });
            }
            (ChildIo::Pipes { stdin, stdout, stderr }, _) => (stdin, stdout, stderr),
            (ChildIo::Inherited, _) => return Self::inherited(root),
            (ChildIo::Terminal, None) => {
                return Err(Errno::NOTTY).at(Step::Stdio, "the terminal");
            }
        };
        let stdin = stdin.map_or_else(|| null(root), Ok)?;
        Ok(Self { stdin, stdout, stderr, terminal: false, inherited: false })
    }

    /// Those of this process, but the container's null device in place of the host's.
    fn inherited(root: &Root) -> Result<Self, Error> {
        let copy = |fd: BorrowedFd<'_>, name| {
            let found = rustix::fs::fstat(fd).at(Step::Stdio, name)?;
            match is_null(&found) {
                true => null(root),
                false => rustix::io::fcntl_dupfd_cloexec(fd, 3).at(Step::Stdio, name),
            }
        };
        Ok(Self {
            stdin: copy(rustix::stdio::stdin(), "standard input")?,
            stdout: copy(rustix::stdio::stdout(), "standard output")?,
            stderr: copy(rustix::stdio::stderr(), "standard error")?,
            terminal: false,
            inherited: true,
        })
    }

    /// Gives the streams to the user, so that `/dev/stdout` can be opened again. Of somebody else's
    /// only pipes: a file or a terminal keeps its owner.
    pub(crate) fn give_to(&self, uid: Uid) -> Result<(), Error> {
        for (fd, name) in [
            (&self.stdin, "standard input"),
            (&self.stdout, "standard output"),
            (&self.stderr, "standard error"),
        ] {
            let found = rustix::fs::fstat(fd).at(Step::Stdio, name)?;
            let kept = match self.inherited {
                true => FileType::from_raw_mode(found.st_mode) != FileType::Fifo,
                false => is_null(&found),
            };
            if !kept && found.st_uid != uid.as_raw() {
                match rustix::fs::fchown(fd, Some(uid), None::<Gid>) {
                    // The user namespace has no such user.
                    Err(Errno::INVAL) => {
                        return Err(Errno::INVAL).at(Step::Identity, uid.as_raw());
                    }
                    other => other.at(Step::Stdio, name)?,
                }
            }
        }
        Ok(())
    }

    /// Puts them in their places; the terminal then controls the session.
    pub(crate) fn install(self) -> Result<(), Error> {
        if self.terminal {
            rustix::process::ioctl_tiocsctty(&self.stderr).at(Step::Stdio, "the terminal")?;
        }
        dup2_stdin(&self.stdin).at(Step::Stdio, "standard input")?;
        dup2_stdout(&self.stdout).at(Step::Stdio, "standard output")?;
        dup2_stderr(&self.stderr).at(Step::Stdio, "standard error")
    }
}

/// The container's own /dev/null, proven to be it; where there is none, a pipe that is at its end.
/// Never the host's node: a descriptor of it could change the node's mode.
fn null(root: &Root) -> Result<OwnedFd, Error> {
    let proven = |flags| {
        let file = root.open("/dev/null", flags).ok()?;
        rustix::fs::fstat(&file).is_ok_and(|found| is_null(&found)).then_some(file)
    };
    // Looked at before it is opened, for to open some other device may do something.
    if let Some(file) = proven(OFlags::PATH).and_then(|_| proven(OFlags::RDWR | OFlags::NOCTTY)) {
        return Ok(file);
    }
    pipe_with(PipeFlags::CLOEXEC).map(|(read, _)| read).at(Step::Stdio, "standard input")
}

/// Whether a file is the null device: a character device 1:3, whatever its name.
pub(crate) fn is_null(found: &rustix::fs::Stat) -> bool {
    use rustix::fs::{major, minor};
    let is_character = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice;
    is_character && (major(found.st_rdev), minor(found.st_rdev)) == (1, 3)
}

/// The host's null device, to bind over what is masked.
pub(crate) fn host_null() -> Result<OwnedFd, Error> {
    let file = rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .at(Step::Resolve, "the host's /dev/null")?;
    let found = rustix::fs::fstat(&file).at(Step::Resolve, "the host's /dev/null")?;
    match is_null(&found) {
        true => Ok(file),
        false => Err(Error::refused("the host's /dev/null", Rule::NotANullDevice)),
    }
}
