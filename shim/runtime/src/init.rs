//! The tiny init of `--init`: pid 1 of a container, which reaps what others leave behind, passes
//! signals on, and ends as its one child ends. Without a command it is the first process of a pod that
//! shares a pid namespace, and only reaps.
//!
//! It is the caller's own program, run again inside, from where it can't be written
//! ([`program`](crate::program)).

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use shim_sys::exec::{execve, exit_now};
use shim_sys::signal::{self, Blocked};

/// The name that this program has when it shall be the init: its `main` then has to call [`main`]
/// before anything else.
pub const ARGV0: &str = "bosun-init";

/// shells' codes for a command that is not there, or can't be executed.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// What the container's arguments become: `bosun-init PATH ARGV0 ARGUMENT…`.
pub(crate) fn arguments(path: CString, arguments: Vec<CString>) -> Vec<CString> {
    let name = CString::new(ARGV0).unwrap_or_default();
    [name, path].into_iter().chain(arguments).collect()
}

/// Without a command there is nothing to do but to reap.
pub(crate) fn pause_arguments() -> Vec<CString> {
    vec![CString::new(ARGV0).unwrap_or_default()]
}

/// Is the init: runs the command in its own arguments and ends with its status. Without a command it
/// is the first process of a pod.
pub fn main() -> ! {
    // Who looks at a list of processes sees what it is, not what it was executed from.
    let name = CString::new(ARGV0).unwrap_or_default();
    let _ = rustix::thread::set_name(&name);
    let mut arguments = std::env::args_os()
        .skip(1)
        .map(|argument| CString::new(argument.into_vec()).unwrap_or_default());
    let Some(path) = arguments.next() else { pause() };
    let arguments: Vec<CString> = arguments.collect();
    let signals = Blocked::all();
    match signal::fork() {
        Ok(None) => run(&path, &arguments),
        Ok(Some(child)) => supervise(&signals, child),
        Err(_) => exit_now(NOT_EXECUTABLE),
    }
}

/// Reaps what the containers of a pod leave behind, until it is told to end.
fn pause() -> ! {
    let signals = Blocked::all();
    loop {
        match signals.wait().map(Signal::from_named_raw) {
            Ok(Some(Signal::CHILD)) => drop(reap(0)),
            Ok(Some(Signal::TERM | Signal::INT | Signal::QUIT)) => exit_now(0),
            Ok(_) | Err(_) => {}
        }
    }
}

/// The child: a process group of its own, which gets the terminal when there is one.
fn run(path: &CString, arguments: &[CString]) -> ! {
    let group = rustix::process::setpgid(None, None).map(|()| rustix::process::getpgrp());
    if let Ok(group) = group {
        for terminal in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
            if rustix::termios::tcsetpgrp(terminal, group).is_ok() {
                break;
            }
        }
    }
    signal::reset();
    let environment: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend(value.into_vec());
            CString::new(entry).ok()
        })
        .collect();
    match execve(path, arguments, &environment) {
        Errno::NOENT => exit_now(NOT_FOUND),
        _ => exit_now(NOT_EXECUTABLE),
    }
}

/// The parent: passes every signal on and reaps whatever ends, until the child does.
fn supervise(signals: &Blocked, child: i32) -> ! {
    let sigchld = Signal::CHILD.as_raw();
    loop {
        match signals.wait() {
            Ok(signal) if signal == sigchld => {
                if let Some(code) = reap(child) {
                    exit_now(code);
                }
            }
            Ok(signal) => {
                // Gone already: its status is next.
                let _ = signal::kill(child, signal);
            }
            Err(_) => {}
        }
    }
}

/// Reaps all that has ended; the code when the child is among it.
fn reap(child: i32) -> Option<i32> {
    let mut code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if Pid::as_raw(Some(pid)) == child {
            code = status
                .exit_status()
                .or_else(|| status.terminating_signal().map(|signal| 128 + signal));
        }
    }
    code
}
