//! A client on a pseudo terminal, as a person has it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::wait;

/// A program on a terminal of its own, with the test at the keyboard.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    /// The program's side, held open so that its settings can be looked at after the end.
    line: File,
    child: Child,
    seen: String,
    before: String,
}

impl Terminal {
    /// Starts a command as the leader of a session on a new terminal.
    ///
    /// # Panics
    /// When the machine has no terminals left, or the program can't be started.
    #[must_use]
    pub fn start(command: &Command, columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a pseudo terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("a pseudo terminal");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let line = rustix::fs::open(
            name.as_c_str(),
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .expect("its other side");
        set_size(&master, columns, rows);
        let before = settings(&line);
        let side = || line.try_clone().expect("a descriptor");
        // Only a program can take a terminal as its controlling one before its exec.
        let mut leader = Command::new("setsid");
        leader.args(["--ctty", "--wait", "--"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            leader.env(name, value.unwrap_or_default());
        }
        leader.env("TERM", "xterm").stdin(side()).stdout(side()).stderr(side());
        let child = leader.spawn().unwrap_or_else(|error| panic!("{leader:?}: {error}"));
        Self {
            keyboard: File::from(master),
            line: File::from(line),
            child,
            seen: String::new(),
            before,
        }
    }

    /// Types something.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn send(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("the terminal takes input");
    }

    /// Waits until the screen has shown a text since the last such wait, and gives what it showed.
    ///
    /// # Panics
    /// After the time limit, with what was shown instead.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let found = wait::within(wait::LIMIT, || {
            self.read();
            self.seen.find(text).map(|at| at + text.len())
        });
        let Some(end) = found else {
            panic!("waited for {text:?} on the screen; it shows {:?}", self.seen)
        };
        let rest = self.seen.split_off(end);
        std::mem::replace(&mut self.seen, rest)
    }

    /// Makes the window another size; the kernel tells the program (SIGWINCH).
    pub fn resize(&self, columns: u16, rows: u16) {
        set_size(&self.keyboard, columns, rows);
    }

    /// Is the terminal in raw mode, so that the far end sees every key?
    #[must_use]
    pub fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.line).expect("a terminal").local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// The process that the terminal was given to.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of the program. The terminal has to be as it was before.
    ///
    /// # Panics
    /// When it doesn't end, or left the terminal's settings changed.
    #[track_caller]
    pub fn finish(mut self) -> (Option<i32>, String) {
        let status = wait::within(wait::LIMIT, || {
            self.read();
            self.child.try_wait().expect("a child of ours")
        });
        let Some(status) = status else {
            panic!("it does not end; the screen shows {:?}", self.seen)
        };
        self.read();
        assert_eq!(settings(&self.line), self.before, "the terminal's settings were not restored");
        (status.code(), std::mem::take(&mut self.seen))
    }

    fn read(&mut self) {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut buffer = [0; 4096];
        loop {
            let mut wanted = [PollFd::new(&self.keyboard, PollFlags::IN)];
            if !matches!(poll(&mut wanted, Some(&now)), Ok(1)) {
                return;
            }
            match self.keyboard.read(&mut buffer) {
                Ok(count @ 1..) => self.seen.push_str(&String::from_utf8_lossy(&buffer[..count])),
                Ok(0) | Err(_) => return,
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn set_size(terminal: impl AsFd, columns: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("a terminal takes a size");
}

fn settings(line: &(impl AsFd + ?Sized)) -> String {
    let all = tcgetattr(line).expect("a terminal");
    format!(
        "{:?} {:?} {:?} {:?}",
        all.input_modes, all.output_modes, all.control_modes, all.local_modes
    )
}
