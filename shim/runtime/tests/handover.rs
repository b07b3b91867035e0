//! Containers that one process makes and another one starts, on descriptors of their maker. Needs
//! root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "of the tests' support only a part is used here")]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, pidfd_open, set_child_subreaper};
use shim_runtime::{Kind, start_at};
use shim_sys::clone::{Cloned, clone3};

#[path = "support/runner.rs"]
mod runner;
#[path = "support/mod.rs"]
mod support;

use support::{Sandbox, kill, read, wait};

fn main() -> ExitCode {
    runner::main(runner::tests![
        another_process_starts_it,
        errors_of_the_last_steps_reach_whoever_starts_it,
        who_says_nothing_is_not_its_parent,
        its_descriptors_are_its_makers,
        descriptors_are_preserved_when_asked_for,
    ])
}

fn socket() -> OwnedFd {
    let kind = SocketType::SEQPACKET;
    rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

/// A container that waits for its second parent at a path.
struct HandedOver {
    sandbox: Sandbox,
    gate: PathBuf,
    pidfd: OwnedFd,
}

impl HandedOver {
    /// Makes it in a process that ends with that.
    fn new(mut sandbox: Sandbox) -> Self {
        set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        sandbox.process().detached = true;
        sandbox.options.inherit_stdio = true;
        let gate = sandbox.path("gate");
        let (read_end, write_end) = rustix::pipe::pipe().unwrap();
        let Cloned::Parent { pid: _, pidfd: maker } = clone3(0, None).unwrap() else {
            let created = sandbox.create().unwrap();
            let listener = socket();
            rustix::net::bind(&listener, &SocketAddrUnix::new(&gate).unwrap()).unwrap();
            rustix::net::listen(&listener, 8).unwrap();
            let pid = created.process.pid;
            created.process.hand_over(listener).unwrap();
            rustix::io::write(&write_end, &pid.to_ne_bytes()).unwrap();
            shim_sys::exec::exit_now(0)
        };
        let mut pid = [0; 4];
        assert_eq!(rustix::io::read(&read_end, &mut pid).unwrap(), 4);
        assert_eq!(wait(&maker), 0);
        let pid = Pid::from_raw(i32::from_ne_bytes(pid)).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        Self { sandbox, gate, pidfd }
    }

    fn connect(&self) -> OwnedFd {
        let socket = socket();
        rustix::net::connect(&socket, &SocketAddrUnix::new(&self.gate).unwrap()).unwrap();
        socket
    }
}

fn another_process_starts_it() {
    let container = HandedOver::new(Sandbox::script("exit 7"));
    start_at(container.connect()).unwrap();
    assert_eq!(wait(&container.pidfd), 7);
}

fn errors_of_the_last_steps_reach_whoever_starts_it() {
    let mut sandbox = Sandbox::script("exit 0");
    // An instruction that is none: the filter is the last to be set.
    sandbox.process().seccomp = vec![0xff; 8];
    let container = HandedOver::new(sandbox);
    let error = start_at(container.connect()).unwrap_err();
    assert_eq!(error.kind(), Kind::System, "{error}");
    assert!(error.to_string().starts_with("install the seccomp filter"), "{error}");
    assert_eq!(wait(&container.pidfd), 1);
}

fn who_says_nothing_is_not_its_parent() {
    let container = HandedOver::new(Sandbox::script("exit 7"));
    drop(container.connect());
    drop(container.connect());
    start_at(container.connect()).unwrap();
    assert_eq!(wait(&container.pidfd), 7);
    let container = HandedOver::new(Sandbox::script("exit 7"));
    kill(&container.pidfd);
    assert_eq!(wait(&container.pidfd), 128 + 9);
}

/// Puts other descriptors in the places of this process' own.
fn replace_stdio() -> (OwnedFd, File) {
    let (output, pipe) = rustix::pipe::pipe().unwrap();
    let file = tempfile::tempfile().unwrap();
    rustix::stdio::dup2_stdin(File::open("/dev/null").unwrap()).unwrap();
    rustix::stdio::dup2_stdout(&pipe).unwrap();
    rustix::stdio::dup2_stderr(&file).unwrap();
    (output, file)
}

fn its_descriptors_are_its_makers() {
    let mut sandbox = Sandbox::script(
        "stat -Lc %t:%T%d /dev/stdin; stat -c %d /dev/null; echo again >/dev/stdout; echo file >&2",
    );
    sandbox.process().user =
        Some(shim_wire::plan::User { uid: 1000, gid: 1000, ..Default::default() });
    let container = {
        let (output, mut file) = replace_stdio();
        let container = HandedOver::new(sandbox);
        start_at(container.connect()).unwrap();
        assert_eq!(wait(&container.pidfd), 0);
        // What is left of it is here.
        rustix::stdio::dup2_stdout(File::open("/dev/null").unwrap()).unwrap();
        let text = read(output);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], format!("1:3{}", lines[1]), "the container's own null device");
        assert_eq!(lines[2], "again");
        let mut text = String::new();
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "file\n");
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_uid, 0, "a file keeps its owner");
        container
    };
    drop(container.sandbox);
}

fn descriptors_are_preserved_when_asked_for() {
    for (count, expected) in [(0, "0 1 2"), (2, "0 1 2 3 4")] {
        let (output, pipe) = rustix::pipe::pipe().unwrap();
        // Not through a pipe of the shell's, which would be among them.
        let mut sandbox = Sandbox::script("ls /proc/1/fd; true");
        sandbox.options.preserve_fds = count;
        // Whatever has these numbers in a test: five that are inherited by every exec.
        let kept: Vec<OwnedFd> = (0..5).map(|_| rustix::io::dup(pipe.as_fd()).unwrap()).collect();
        rustix::stdio::dup2_stdout(&pipe).unwrap();
        let container = HandedOver::new(sandbox);
        start_at(container.connect()).unwrap();
        wait(&container.pidfd);
        drop((kept, pipe));
        rustix::stdio::dup2_stdout(File::open("/dev/null").unwrap()).unwrap();
        let found = read(output);
        assert_eq!(found.split_whitespace().collect::<Vec<_>>().join(" "), expected);
    }
}
