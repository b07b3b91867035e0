//! What a process is born with, and who can look at it before it is itself.

use std::time::{Duration, Instant};

use integration::archive::load;
use integration::daemon::Daemon;
use integration::image::Recipe;

use super::{inside, sleeper};

/// Lists a process' own descriptors; the one that it lists by is the directory of the list.
const LIST: &str = "ls -l /proc/self/fd";

/// What [`LIST`] shows beyond 0, 1 and 2.
fn beyond_three(listed: &str) -> Vec<&str> {
    let entries = listed.lines().filter_map(|line| line.split_once(" -> "));
    entries
        .filter(|(left, target)| {
            let number: u32 = left.split_whitespace().last().unwrap().parse().unwrap();
            number > 2
                && !(target.trim_end().starts_with("/proc/") && target.trim_end().ends_with("/fd"))
        })
        .map(|(_, target)| target)
        .collect()
}

/// CVE-2024-21626's first half, CVE-2016-9962's second: whatever is going on in the shim meanwhile.
/// Fails when the last step before the exec, which closes everything else, is left out and one of the
/// earlier ones forgot to.
#[test]
fn no_descriptor_but_three_reaches_a_container() {
    let daemon = Daemon::start();
    for flags in ["-d", "-d -t", "-d -i", "-d -i -t --init", "-d --init"] {
        let words = format!("run --name one {flags} -p 8000:8000 -p 8001:8001/udp --rootfs / ");
        daemon.ctl(&format!("{words} /bin/sh -c '{LIST}; echo listed; exec sleep 600'")).ok();
        let seen = daemon.until_logged("one", "listed");
        assert_eq!(beyond_three(&seen), Vec::<&str>::new(), "run {flags}: {seen}");
        let open: Vec<u32> = daemon.process("one").descriptors().into_keys().collect();
        let expected: &[u32] = &[0, 1, 2];
        assert_eq!(open, expected, "run {flags}");
        let clients = [daemon.ctl_start("attach one"), daemon.ctl_start("exec -i one /bin/cat")];
        for flags in ["", "-i", "--privileged", "-u 65534"] {
            let seen = daemon.ctl(&format!("exec {flags} one {LIST}")).text();
            assert_eq!(beyond_three(&seen), Vec::<&str>::new(), "exec {flags}: {seen}");
        }
        for flags in ["-t", "-it"] {
            let (code, seen) = daemon.terminal(&format!("exec {flags} one {LIST}")).finish();
            assert_eq!((code, beyond_three(&seen)), (Some(0), Vec::new()), "exec {flags}: {seen}");
        }
        drop(clients);
        daemon.ctl("rm -f one").ok();
    }
}

/// CVE-2024-21626: a working directory that is a descriptor of the runtime's. Fails when the
/// directory is entered by its path alone.
#[test]
fn the_working_directory_can_not_be_a_leaked_descriptor() {
    let (daemon, _process) = sleeper("");
    // As seen from the container's root, or not at all.
    let harmless = |output: &integration::ctl::Output, directory: &str| {
        let place = output.stdout.lines().next().unwrap_or_default();
        assert!(output.code != Some(0) || place.starts_with("/proc/"), "{directory}: {output:?}");
    };
    for number in 0..40 {
        let directory = format!("/proc/self/fd/{number}");
        let output =
            daemon.ctl(&format!("exec -w {directory} one /bin/sh -c '/bin/pwd; ls -d ../../..'"));
        harmless(&output, &directory);
    }
    let root = daemon.place().root.display().to_string();
    for directory in [
        "/proc/1/cwd",
        "/proc/1/root",
        "/proc/self/fd/3",
        "/proc/self/fd/7",
        "/proc/self/fd/8",
        "/proc/self/fd/9",
    ] {
        let output = daemon.ctl(&format!(
            "run --rm -w {directory} --net none --rootfs / /bin/sh -c '/bin/pwd; ls {root}'"
        ));
        harmless(&output, directory);
        assert!(!output.stdout.contains("meta.db"), "{directory}: {output:?}");
    }
    let image = Recipe::busybox().config(serde_json::json!({"WorkingDir": "/proc/self/fd/8"}));
    load(&daemon, &[("test/cwd:1", &image.image())]);
    harmless(&daemon.ctl("run --rm --net none test/cwd:1 pwd"), "of an image");
}

/// Looks at each process that is born, as fast as it can: what it has open and whether it can be
/// traced, until it is a program of the container's own.
const WATCH: &str = r#"
import ctypes, os, signal, time
libc = ctypes.CDLL(None, use_errno=True)
SEIZE, WALL = 0x4206, 0x40000000
looks = denied = 0
def name(pid):
    return open(f"/proc/{pid}/comm").read().strip()
def look(pid):
    """Whether the process is a program of the container's own by now."""
    global looks, denied
    before = name(pid)
    looks += 1
    try:
        found = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        if name(pid) == "bosun-shim":
            print("SEEN", found, flush=True)
    except PermissionError:
        denied += 1
    if libc.ptrace(SEIZE, pid, 0, 0) == 0:
        if name(pid) == "bosun-shim":
            print("TRACED", pid, flush=True)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, WALL)
        return True
    return before != "bosun-shim"
print("watching", flush=True)
last, end = os.getpid(), time.time() + 300
while time.time() < end and not os.path.exists("/tmp/enough"):
    newest = int(open("/proc/loadavg").read().split()[4])
    for pid in range(last + 1, newest + 2):
        for _ in range(400):
            try:
                if look(pid): break
            except OSError:
                # Not yet, or no more.
                if pid <= newest: break
    last = max(last, newest)
print("looks", looks, "denied", denied, flush=True)
"#;

/// CVE-2016-9962: a container with every capability but that to trace watches while others join it.
/// Fails when the runtime can be inspected like any process.
#[test]
fn who_joins_can_not_be_inspected_before_its_exec() {
    let daemon = Daemon::start();
    let script = daemon.scratch().join("watch.py");
    std::fs::write(&script, WATCH).unwrap();
    let words = format!(
        "run -d --name one --cap-add ALL --cap-drop SYS_PTRACE -v {}:/watch.py --net none --rootfs / /usr/bin/python3 /watch.py",
        script.display()
    );
    daemon.ctl(&words).ok();
    daemon.until_logged("one", "watching");
    // The watcher looks for five minutes at most.
    let end = Instant::now() + Duration::from_secs(180);
    let execs = || {
        for _ in (0..40).take_while(|_| Instant::now() < end) {
            // Once it is a program of the container's own, the container may end it.
            let _ = daemon.ctl("exec one /bin/true");
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(execs);
        }
    });
    std::fs::write(daemon.process("one").path("root/tmp/enough"), "").unwrap();
    let seen = daemon.until_logged("one", "looks");
    assert!(!seen.contains("SEEN") && !seen.contains("TRACED"), "{seen}");
    let denied: u32 = seen.split_whitespace().last().unwrap().parse().unwrap();
    assert!(denied > 20, "it looked in time: {seen}");
}

/// The same of the first process and of what the shim is: nothing of it is in the container's sight.
#[test]
fn the_shim_is_not_in_sight() {
    let (daemon, _process) = sleeper("");
    let seen = inside(&daemon, "cat /proc/[0-9]*/comm").text();
    assert!(!seen.contains("bosun"), "{seen}");
}
