//! What a container may not do, by class: a test for each way out that runtimes once had, with the
//! advisory's number and what it was seen failing without ("fails when …").
//!
//! | module | class |
//! |---|---|
//! | [`paths`] | links and swaps in trees that others own |
//! | [`procfs`] | what stands at `/proc` and `/sys`, and writes to it |
//! | [`masks`] | what is masked, read-only, filtered or no device |
//! | [`descriptors`] | what a process is born with, and who can look at it before it is itself |
//! | [`program`] | the runtime's own program |
//! | [`identity`] | users, groups, capabilities |
//! | [`sockets`] | sockets, and the modes of directories |
//! | [`spec`] | what only a specification can ask for |
//! | [`text`] | names and settings that become files, paths or commands |
//! | [`exhaustion`] | memory, descriptors and threads |
//!
//! Other classes have modules of their own, beside this one: archives and layers (`hostile_layers`,
//! `archives`), registries (`bad_registry`, `credentials`), copies (`cp`), what an image says
//! (`image_config`).
//!
//! Deliberately absent, for there is nothing to attack: builds (CVE-2024-1753, 9407, 9675, 9341,
//! 11218), plugins of authorization (CVE-2024-41110, CVE-2026-34040), SPDY
//! (CVE-2026-35469), rootless daemons (CVE-2023-25809). Security labels (CVE-2019-16884,
//! CVE-2021-43816) need a kernel that has them.

mod descriptors;
mod exhaustion;
mod identity;
mod masks;
mod paths;
mod procfs;
mod program;
mod sockets;
mod spec;
mod text;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use integration::ctl::Output;
use integration::daemon::Daemon;
use integration::process::Process;

/// A daemon with container `one` that sleeps on the host's tree.
fn sleeper(flags: &str) -> (Daemon, Process) {
    let daemon = Daemon::start();
    daemon.ctl(&format!("run -d --name one {flags} --net none --rootfs / /bin/sleep 600")).ok();
    let process = daemon.process("one");
    (daemon, process)
}

fn inside(daemon: &Daemon, script: &str) -> Output {
    daemon.ctl(&format!("exec one /bin/sh -c '{script}'"))
}

/// A small tree to stand on, of the test's own, that is the host's to change at any time.
fn tree(daemon: &Daemon, name: &str) -> PathBuf {
    let tree = daemon.scratch().join(name);
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp", "usr"] {
        std::fs::create_dir_all(tree.join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
    for name in
        ["sh", "cat", "ls", "echo", "sleep", "stat", "true", "id", "env", "grep", "readlink"]
    {
        symlink("busybox", tree.join("bin").join(name)).unwrap();
    }
    tree
}

/// Puts a link where something else was.
fn replace_by_link(path: &Path, target: impl AsRef<Path>) {
    let _ = std::fs::remove_dir_all(path);
    let _ = std::fs::remove_file(path);
    symlink(target, path).unwrap();
}

/// Runs a script on a tree, to its end.
fn run_on(daemon: &Daemon, tree: &Path, flags: &str, script: &str) -> Output {
    daemon.ctl(&format!(
        "run --rm {flags} --net none --rootfs {} /bin/sh -c '{script}'",
        tree.display()
    ))
}
