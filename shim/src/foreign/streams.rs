//! The streams of a process that a stock shim runs: FIFOs in the bundle, of which this shim has the
//! clients' ends.
//!
//! Output is read and logged as that of any process; it ends when the stock shim has copied
//! everything and closes its ends. The names go once the stock shim has opened them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use shim_wire::files::Bundle;

use crate::stdio::Stdio;

/// FIFOs that were made for a process which is not created yet.
#[derive(Debug)]
pub(super) struct Fifos {
    stdin: Option<Fifo>,
    stdout: Fifo,
    /// A terminal has none.
    stderr: Option<Fifo>,
    terminal: bool,
}

/// Removes its name when it is dropped.
#[derive(Debug)]
struct Fifo {
    path: PathBuf,
    /// Open for both directions, so that neither side waits for the other.
    held: OwnedFd,
}

impl Fifos {
    /// # Errors
    /// When one can't be made or opened.
    pub(super) fn make(
        bundle: &Bundle,
        exec_id: &str,
        stdin: bool,
        terminal: bool,
    ) -> io::Result<Self> {
        let fifo = |name| Fifo::make(bundle.stream(exec_id, name));
        Ok(Self {
            stdin: stdin.then(|| fifo("stdin")).transpose()?,
            stdout: fifo("stdout")?,
            stderr: (!terminal).then(|| fifo("stderr")).transpose()?,
            terminal,
        })
    }

    /// The paths of stdin, stdout and stderr; empty for none.
    pub(super) fn paths(&self) -> [String; 3] {
        let path = |fifo: Option<&Fifo>| {
            fifo.map(|fifo| fifo.path.display().to_string()).unwrap_or_default()
        };
        [path(self.stdin.as_ref()), path(Some(&self.stdout)), path(self.stderr.as_ref())]
    }

    /// This side's ends, once the stock shim has its own.
    ///
    /// # Errors
    /// When one can't be opened: the stock shim has none.
    pub(super) fn streams(self, once: bool) -> io::Result<Stdio> {
        let stdin = self.stdin.as_ref().map(|fifo| fifo.end(OFlags::WRONLY)).transpose()?;
        let stdout = self.stdout.end(OFlags::RDONLY)?;
        let stderr = self.stderr.as_ref().map(|fifo| fifo.end(OFlags::RDONLY)).transpose()?;
        Stdio::relayed(stdin, stdout, stderr, once, self.terminal)
    }
}

impl Fifo {
    fn make(path: PathBuf) -> io::Result<Self> {
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let held = open(&path, flags, Mode::empty()).inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })?;
        Ok(Self { path, held })
    }

    fn end(&self, direction: OFlags) -> io::Result<OwnedFd> {
        let flags = direction | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(open(&self.path, flags, Mode::empty())?)
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        // It may have gone with the bundle. `held` closes behind it.
        let _ = (&self.held, fs::remove_file(&self.path));
    }
}
