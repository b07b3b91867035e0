//! Sockets, and the modes of directories: nobody but root, and the socket's group, gets in.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use integration::daemon::{Daemon, Settings};

use super::{inside, sleeper};

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

/// Everything below a directory, itself first.
fn below(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next) {
        if path.is_dir() && !path.is_symlink() {
            let entries = std::fs::read_dir(path).unwrap();
            let entries: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
            found.extend(entries);
        }
        next += 1;
    }
    found
}

/// DESIGN's modes: the root is closed, the state directory is a way through for the socket's group
/// and nothing else, and what is in them gives nothing away.
#[track_caller]
fn expect_closed(daemon: &Daemon) {
    let place = daemon.place();
    assert_eq!(mode(&place.root), 0o700);
    assert_eq!(mode(&place.state), 0o711);
    assert_eq!(mode(&daemon.socket()), 0o660);
    assert_eq!(mode(&place.root.join("meta.db")), 0o600);
    for directory in [
        "containers",
        "content",
        "content/blobs/sha256",
        "content/ingest",
        "snapshots/overlayfs",
        "trash",
    ] {
        assert_eq!(mode(&place.root.join(directory)), 0o700, "{directory}");
    }
    for directory in ["containers", "s"] {
        assert_eq!(mode(&place.state.join(directory)), 0o700, "{directory}");
    }
    for path in below(&place.state.join("s")) {
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
    // Nobody else reads or writes a file, wherever it lies; what is inside a snapshot is the image's.
    for path in below(&place.state).into_iter().chain(below(&place.root.join("containers"))) {
        let is_etc =
            path.ends_with("hosts") || path.ends_with("hostname") || path.ends_with("resolv.conf");
        if path.is_file() && !is_etc {
            assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
        }
    }
    // As somebody else sees it.
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(daemon.scratch(), open).unwrap();
    for directory in [&place.root, &place.state] {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "find"]).arg(directory);
        let output = command.output().unwrap();
        let seen = String::from_utf8_lossy(&output.stdout);
        assert_eq!(seen.trim_end(), directory.display().to_string(), "nothing below it");
        assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"));
    }
}

/// CVE-2021-41103, CVE-2021-41091, CVE-2021-41089, CVE-2024-25621. Fails when the daemon leaves its
/// umask as it was.
#[test]
fn everything_is_closed_whatever_the_umask() {
    let daemon = Settings::new().umask(0).start();
    daemon.ctl("run -d --name one --rootfs / /bin/sleep 600").ok();
    daemon.ctl("exec one /bin/true").ok();
    expect_closed(&daemon);
}

/// The same advisories: directories of an older daemon that were wide open. Fails when modes are only
/// given to what is new.
#[test]
fn directories_that_were_open_are_closed_at_the_next_start() {
    let mut daemon = Settings::new().umask(0).start();
    daemon.terminate();
    let place = daemon.place().clone();
    for path in below(&place.root).into_iter().chain(below(&place.state)) {
        if path.is_dir() {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
    }
    daemon.start_again();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    expect_closed(&daemon);
}

/// Runs its arguments as a program that can't change the mode of a file (seccomp(2)): BPF of three
/// lines for each number, and one that allows the rest.
const NO_CHMOD: &str = r#"
import ctypes, os, platform, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
calls = {"x86_64": [90, 268, 452], "aarch64": [53, 452]}[platform.machine()]
line = lambda code, true, false, k: struct.pack("HBBI", code, true, false, k)
program = line(0x20, 0, 0, 0)
for call in calls:
    program += line(0x15, 0, 1, call) + line(0x06, 0, 0, 0x50000 | 1)
program += line(0x06, 0, 0, 0x7fff0000)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.c_char_p)]
filter = Filter(len(program) // 8, program)
if libc.prctl(22, 2, ctypes.byref(filter)) != 0:
    sys.exit("PR_SET_SECCOMP: " + os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[1], sys.argv[1:])
"#;

/// CVE-2014-3499, CVE-2014-0047: the socket is never open to all, not even for a moment: as it is made,
/// so it stays when nobody can change its mode. Fails when the daemon leaves its umask as it was.
#[test]
fn the_socket_is_born_closed() {
    let daemon = Settings::new().umask(0).prepare();
    // So that nothing else needs another mode.
    let mut builder = std::fs::DirBuilder::new();
    for (path, mode) in [(&daemon.place().state, 0o711), (&daemon.place().root, 0o700)] {
        builder.mode(mode).create(path).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let plain = daemon.command();
    let mut command = std::process::Command::new("python3");
    command.args(["-c", NO_CHMOD]).arg(plain.get_program()).args(plain.get_args());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("bosun.sock") && said.contains("not permitted"), "{said}");
    assert_eq!(mode(&daemon.socket()) & 0o007, 0, "{:o}", mode(&daemon.socket()));
}

/// CVE-2020-15257: nothing listens where a container with the host's network could reach it: no
/// abstract socket, and every other by a path that is closed, and covered inside. Fails when the shim
/// has an abstract socket too.
#[test]
fn no_socket_is_in_reach_of_the_hosts_network() {
    let daemon = Daemon::start();
    daemon.ctl("run -d -t --name other -p 8000:8000 --rootfs / /bin/sleep 600").ok();
    daemon.ctl("run -d --name one --net host --rootfs / /bin/sleep 600").ok();
    let attached = daemon.ctl_start("attach other");
    let script = "cat /proc/net/unix";
    let seen = inside(&daemon, script).text();
    assert!(
        seen.contains(&daemon.socket().display().to_string()),
        "it is the same network: {seen}"
    );
    for line in seen.lines().skip(1) {
        let path = line.split_whitespace().nth(7).unwrap_or_default();
        assert!(!path.starts_with('@'), "{line}");
        if path.starts_with('/') {
            let output = inside(&daemon, &format!("test -e {path}"));
            assert_ne!(output.code, Some(0), "{path} is seen inside");
        }
    }
    drop(attached);
}

#[test]
fn bosuns_own_directories_look_empty() {
    let (daemon, _process) = sleeper("");
    let place = daemon.place();
    for directory in [&place.root, &place.state] {
        let shown = inside(
            &daemon,
            &format!(
                "ls -A {}; cat {}/bosun.sock {}/meta.db",
                directory.display(),
                directory.display(),
                directory.display()
            ),
        );
        assert_eq!(shown.stdout, "", "{}", directory.display());
    }
    assert_eq!(
        inside(&daemon, &format!("echo x > {}/x; true", place.root.display())).code,
        Some(0)
    );
    assert!(!place.root.join("x").exists());
}
