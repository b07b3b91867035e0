//! What a container has of its caller's descriptors: those it shall have, and no other.

use std::os::fd::{AsFd as _, OwnedFd};

use serde_json::json;

use crate::sandbox::{Sandbox, until};

/// Lets every exec inherit a descriptor, as a careless caller would have it, and leaves its number.
fn leak(path: &str) -> OwnedFd {
    let file = std::fs::File::open(path).unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    file.into()
}

/// The numbers of a process' descriptors.
fn descriptors_of(pid: &str) -> Vec<u32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut numbers: Vec<u32> =
        entries.map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

impl Sandbox {
    /// Those of its first process, once that has executed its program.
    fn descriptors(&self) -> Vec<u32> {
        self.wait_for("running");
        descriptors_of(&self.state()["pid"].to_string())
    }

    /// Runs it, detached, from a shell that has opened something before.
    fn run_after(&self, opened: &str, flags: &str) {
        let [state, bundle] = ["state", "bundle"].map(|name| self.text(name));
        let (oci, id) = (crate::sandbox::OCI, &self.id);
        let script =
            format!("{opened}; exec {oci} --root {state} run -d {flags} --bundle {bundle} {id}");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script]).stdin(std::process::Stdio::null());
        self.finish(shell).ok();
    }
}

/// CVE-2024-21626: a descriptor of a directory of the host that a container inherits is a way out.
#[test]
fn no_descriptor_of_the_caller_or_of_the_runtime_leaks_in() {
    let _leaked = leak("/");
    let sandbox = Sandbox::running("exec sleep 1000");
    assert_eq!(sandbox.descriptors(), [0, 1, 2]);
    let pid_file = sandbox.text("exec.pid");
    sandbox.exec(&["--detach", "--pid-file", &pid_file], &["sleep", "1000"]).ok();
    assert_eq!(descriptors_of(&std::fs::read_to_string(&pid_file).unwrap()), [0, 1, 2]);
    let created = Sandbox::new("exec sleep 1000");
    created.create().ok();
    created.on("start", &[]).ok();
    assert_eq!(created.descriptors(), [0, 1, 2]);
}

/// CVE-2024-21626: a working directory that is a descriptor in disguise.
#[test]
fn a_working_directory_is_never_a_descriptor_of_the_runtime() {
    let mut sandbox = Sandbox::new("readlink /proc/self/cwd; ls ../../../..");
    for number in 3..20 {
        for cwd in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/..")] {
            sandbox.set("/process/cwd", json!(cwd));
            let error = sandbox.run().err();
            assert!(error.contains("working directory"), "{cwd}: {error}");
        }
    }
    sandbox.set("/process/cwd", json!("/"));
    sandbox.set("/process/args", json!(["sleep", "1000"]));
    sandbox.on("run", &["--detach", "--bundle", &sandbox.bundle()]).ok();
    for number in 3..20 {
        let cwd = format!("/proc/self/fd/{number}");
        let error = sandbox.exec(&["--cwd", &cwd], &["ls"]).err();
        assert!(error.contains("working directory"), "{cwd}: {error}");
    }
}

#[test]
fn descriptors_are_preserved_when_asked_for() {
    let sandbox = Sandbox::new("cat <&3; exec sleep 1000");
    let config = sandbox.text("bundle/config.json");
    sandbox.run_after(&format!("exec 3<{config} 4</dev/null 5</dev/null"), "--preserve-fds 2");
    until("output", || !std::fs::read_to_string(sandbox.path("stdout")).unwrap().is_empty());
    assert!(std::fs::read_to_string(sandbox.path("stdout")).unwrap().starts_with('{'));
    assert_eq!(sandbox.descriptors(), [0, 1, 2, 3, 4]);
}

#[test]
fn what_is_to_be_preserved_must_be_there() {
    let sandbox = Sandbox::new("true");
    let error = sandbox.on("run", &["--preserve-fds", "40", "--bundle", &sandbox.bundle()]).err();
    assert!(error.contains("--preserve-fds: descriptor "), "{error}");
    assert!(sandbox.is_gone());
}

#[test]
fn sockets_to_listen_at_are_passed_on() {
    let sandbox = Sandbox::new("echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; exec sleep 1000");
    sandbox.run_after("exec 3</dev/null; export LISTEN_FDS=1 LISTEN_FDNAMES=web", "");
    let output = || std::fs::read_to_string(sandbox.path("stdout")).unwrap();
    until("output", || output() == "1 1 web\n");
    assert_eq!(sandbox.descriptors(), [0, 1, 2, 3]);
}

#[test]
fn standard_input_and_output_are_the_callers() {
    let mut sandbox = Sandbox::new(
        "cat; owner=$(stat -Lc %u /proc/1/fd/1); echo $owner >&2; echo again >/dev/stdout",
    );
    sandbox.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (input, mut feed) = std::io::pipe().unwrap();
    let mut command = sandbox.command(&["run", "--bundle", &sandbox.bundle(), &sandbox.id]);
    command.stdin(input).stdout(writer).stderr(std::fs::File::create(sandbox.path("err")).unwrap());
    let mut child = command.spawn().unwrap();
    drop(command);
    std::io::Write::write_all(&mut feed, b"through\n").unwrap();
    drop(feed);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut reader, &mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), &*said), (Some(0), "through\nagain\n"));
    assert_eq!(std::fs::read_to_string(sandbox.path("err")).unwrap(), "1000\n");
    assert!(rustix::io::fcntl_getfd(reader.as_fd()).is_ok());
}
