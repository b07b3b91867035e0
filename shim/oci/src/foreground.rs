//! Waiting for a process in the foreground: its signals, its terminal, its end.
//!
//! ```text
//!  signals of ours ──▶ process          SIGWINCH ──▶ size of its terminal
//!  standard input  ──▶ master           SIGCHLD  ──▶ reap, until it is the process itself
//!  standard output ◀── master
//! ```

use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};
use shim_runtime::ProcessIo;
use shim_sys::pidfd::send_signal;
use shim_sys::signal::Blocked;

use crate::ending::UNKNOWN;
use crate::error::Error;

/// The signals of this program, which come by descriptor from then on.
#[derive(Debug)]
pub(crate) struct Signals(OwnedFd);

impl Signals {
    /// To be called before there is a process that may end.
    ///
    /// # Errors
    /// Those of signalfd(2).
    pub(crate) fn take() -> Result<Self, Error> {
        Blocked::all().descriptor().map(Self).map_err(Error::system("take over signals"))
    }

    fn next(&self) -> Option<i32> {
        shim_sys::signal::read(self.0.as_fd()).ok().flatten()
    }
}

/// Whoever waits for a process.
#[derive(Debug)]
pub(crate) struct Foreground {
    signals: Signals,
    terminal: Option<Terminal>,
}

impl Foreground {
    /// With the process' terminal, unless somebody else has that.
    ///
    /// # Errors
    /// When a terminal can't be set up.
    pub(crate) fn new(signals: Signals, io: &ProcessIo, elsewhere: bool) -> Result<Self, Error> {
        let terminal = match io {
            ProcessIo::Terminal { master } if !elsewhere => {
                let failed = Error::system("set up the terminal");
                Some(master.try_clone().and_then(Terminal::new).map_err(failed)?)
            }
            ProcessIo::Terminal { .. } | ProcessIo::Pipes { .. } | ProcessIo::Inherited => None,
        };
        Ok(Self { signals, terminal })
    }

    /// Waits for the end of a child: its exit code, or 128 and the signal.
    pub(crate) fn attend(mut self, pid: i32, pidfd: &OwnedFd) -> u8 {
        loop {
            if let Some(code) = reap(pid) {
                if let Some(terminal) = &mut self.terminal {
                    terminal.drain();
                }
                return code;
            }
            self.wait();
            while let Some(signal) = self.signals.next() {
                self.pass_on(signal, pidfd);
            }
        }
    }

    /// Until there is something to do, and does what the terminal asks for.
    fn wait(&mut self) {
        let Some(terminal) = &mut self.terminal else {
            let _ = poll(&mut [PollFd::new(&self.signals.0, PollFlags::IN)], None);
            return;
        };
        let stdin = rustix::stdio::stdin();
        let unsent = !terminal.unsent.is_empty();
        let wanted = if unsent { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut all = vec![PollFd::new(&self.signals.0, PollFlags::IN)];
        if terminal.open {
            all.push(PollFd::new(&terminal.master, wanted));
        }
        if terminal.input && !unsent {
            all.push(PollFd::new(&stdin, PollFlags::IN));
        }
        let _ = poll(&mut all, None);
        let ready: Vec<bool> = all.iter().map(|one| !one.revents().is_empty()).collect();
        drop(all);
        let mut ready = ready.into_iter().skip(1);
        if terminal.open && ready.next() == Some(true) {
            terminal.copy_output();
            terminal.send();
        }
        if terminal.input && !unsent && ready.next() == Some(true) {
            terminal.copy_input();
        }
    }

    fn pass_on(&self, signal: i32, pidfd: &OwnedFd) {
        const OWN: [Signal; 2] = [Signal::CHILD, Signal::PIPE];
        match &self.terminal {
            _ if OWN.iter().any(|own| own.as_raw() == signal) => {}
            Some(terminal) if signal == Signal::WINCH.as_raw() => terminal.resize(),
            // One that is gone does not take it: its end is next.
            Some(_) | None => drop(send_signal(pidfd.as_fd(), signal)),
        }
    }
}

/// Reaps whatever has ended: the code when the process is among it. Orphans of a container come to
/// a subreaper.
fn reap(process: i32) -> Option<u8> {
    let mut found = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Pid::as_raw(Some(pid)) == process => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                let code = status.exit_status().or(signal);
                found = Some(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(UNKNOWN));
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return found,
            // There is no child left: it was not one, or was reaped by somebody else.
            Err(_) => return found.or(Some(UNKNOWN)),
        }
    }
}

/// The master of the process' terminal, beside the terminal that this program is on, if any.
#[derive(Debug)]
struct Terminal {
    master: OwnedFd,
    /// Whether something may still come from it.
    open: bool,
    /// Whether something may still come from standard input.
    input: bool,
    /// What the process has not taken yet.
    unsent: Vec<u8>,
    /// Of standard input, to be set again.
    before: Option<Termios>,
}

impl Terminal {
    fn new(master: OwnedFd) -> std::io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        let stdin = rustix::stdio::stdin();
        let before = isatty(stdin).then(|| tcgetattr(stdin)).transpose()?;
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(stdin, OptionalActions::Now, &raw)?;
        }
        let terminal = Self { master, open: true, input: true, unsent: Vec::new(), before };
        terminal.resize();
        Ok(terminal)
    }

    /// Gives it the size of the terminal that this is on.
    fn resize(&self) {
        if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
            // It ends as the process does, which is noticed elsewhere.
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    fn copy_output(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match rustix::io::read(&self.master, &mut buffer) {
            Ok(count @ 1..) => {
                // Nobody to tell when standard output is gone; the process is not to stop for that.
                let mut stdout = std::io::stdout();
                let _ = stdout.write_all(&buffer[..count]).and_then(|()| stdout.flush());
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            // EIO is how a terminal says that its other side is closed.
            Ok(0) | Err(_) => {
                self.open = false;
                false
            }
        }
    }

    fn copy_input(&mut self) {
        let mut buffer = [0; 4096];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(count @ 1..) => {
                self.unsent.extend_from_slice(&buffer[..count]);
                self.send();
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(0) | Err(_) => self.input = false,
        }
    }

    fn send(&mut self) {
        while !self.unsent.is_empty() {
            match rustix::io::write(&self.master, &self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.unsent.clear(),
            }
        }
    }

    /// What the process had written when it ended.
    fn drain(&mut self) {
        while self.copy_output() {}
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // The terminal may be gone.
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}
