//! Starting a program with more descriptors than three.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// The number of the first descriptor behind standard error.
const FIRST: RawFd = 3;

/// Signals that a program must not find ignored because whoever starts it ignores them.
const HANDED_DOWN: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGXFSZ];

/// Starts a program that finds `descriptors` as 3, 4, and so on, and no signal ignored or blocked.
///
/// # Errors
/// Those of fcntl(2), and of starting a program.
pub fn spawn_with(mut command: Command, descriptors: &[OwnedFd]) -> io::Result<Child> {
    let count = RawFd::try_from(descriptors.len()).map_err(io::Error::other)?;
    // Copies above the numbers to be, so that none is overwritten before it is in its place. Those
    // numbers are kept taken meanwhile, or they would be given to what tells of a failed start.
    let mut copies = Vec::with_capacity(descriptors.len());
    let mut taken: Vec<OwnedFd> = Vec::new();
    for descriptor in descriptors {
        copies.push(rustix::io::fcntl_dupfd_cloexec(descriptor, FIRST + count)?);
        loop {
            let copy = rustix::io::fcntl_dupfd_cloexec(descriptor, FIRST)?;
            if copy.as_raw_fd() >= FIRST + count {
                break;
            }
            taken.push(copy);
        }
    }
    let numbers: Vec<RawFd> = copies.iter().map(AsRawFd::as_raw_fd).collect();
    let prepare = move || {
        for signal in HANDED_DOWN {
            // SAFETY: sets a disposition that runs no code of ours.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        // SAFETY: sigset_t is plain old data that sigemptyset initialises; a null old set is allowed.
        unsafe {
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        }
        for (place, number) in (FIRST..).zip(&numbers) {
            // SAFETY: takes no pointers. What the child had at this number is a copy that nothing in
            // it uses before its exec.
            crate::check(libc::c_long::from(unsafe { libc::dup2(*number, place) }))?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only calls signal(2), sigprocmask(2) and dup2(2), which are
    // safe there (signal-safety(7)), and allocates nothing.
    unsafe { command.pre_exec(prepare) };
    let child = command.spawn();
    drop((copies, taken));
    child
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Stdio;

    use super::*;

    /// What the program holds is asked of itself: other tests of this process may open what is handed
    /// down, and so may whoever runs them.
    #[test]
    fn descriptors_are_in_their_places_and_no_others() {
        let make = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let pipes: Vec<_> = (0..3).map(|_| make()).collect();
        let (mut readers, writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
        let ends: Vec<u64> =
            writers.iter().map(|writer| rustix::fs::fstat(writer).unwrap().st_ino).collect();
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            "echo one >&3; echo two >&4; echo three >&5; exec readlink /proc/self/fd/*",
        ]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let child = spawn_with(command, &writers).unwrap();
        drop(writers);
        let held = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        for (word, end) in ["one\n", "two\n", "three\n"].into_iter().zip(ends) {
            let mut text = String::new();
            std::fs::File::from(readers.remove(0)).read_to_string(&mut text).unwrap();
            assert_eq!(text, word);
            let link = format!("pipe:[{end}]");
            assert_eq!(held.lines().filter(|line| *line == link).count(), 1, "{link} in {held}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let (reader, _writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let error = spawn_with(Command::new("/no/such/program"), &[reader]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
