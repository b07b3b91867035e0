//! The runtime's own program: nothing inside ever writes to it.

use std::os::unix::fs::MetadataExt;

use integration::daemon::{Daemon, program};
use integration::executable;

/// A program's bytes, inode and time of change.
type Identity = (Vec<u8>, u64, i64, i64);

/// Of every program of ours.
fn programs() -> Vec<Identity> {
    ["bosund", "bosun-shim", "ctl"]
        .map(|name| {
            let path = program(name);
            let data = path.metadata().unwrap();
            (std::fs::read(&path).unwrap(), data.ino(), data.ctime(), data.ctime_nsec())
        })
        .to_vec()
}

/// Watches for a process that is the runtime's program, takes hold of that, and tries to open it for
/// writing: there, and by the descriptor after the process has ended. While the shim runs, the kernel
/// says ETXTBSY first, whatever the mount; access(2) says what it would say else.
const TAKE: &str = r#"
import os, signal, sys, time
end = time.time() + 300
last, held, refused = os.getpid(), [], {}
def attempt(path):
    if os.access(path, os.W_OK):
        print("WRITABLE but for who runs it", path, flush=True)
    try:
        os.close(os.open(path, os.O_WRONLY))
        print("WRITABLE", path, flush=True)
    except OSError as error:
        refused[error.errno] = refused.get(error.errno, 0) + 1
print("watching", flush=True)
while time.time() < end and not os.path.exists("/tmp/enough"):
    newest = int(open("/proc/loadavg").read().split()[4])
    for pid in range(last + 1, newest + 2):
        for _ in range(400):
            try:
                exe = os.stat(f"/proc/{pid}/exe")
            except FileNotFoundError:
                if pid <= newest: break
                continue
            except OSError:
                continue
            if exe.st_size == int(sys.argv[1]):
                attempt(f"/proc/{pid}/exe")
                try: os.kill(pid, signal.SIGSTOP)
                except OSError: pass
                try: held.append(os.open(f"/proc/{pid}/exe", os.O_RDONLY))
                except OSError: pass
                try: os.kill(pid, signal.SIGKILL)
                except OSError: pass
            break
    last = max(last, newest)
    for fd in held[:8]:
        attempt(f"/proc/self/fd/{fd}")
print("held", len(held), "refused", refused, flush=True)
"#;

/// CVE-2019-5736: the container executes the runtime, by an interpreter that leads to it and as what
/// it calls itself, holds on to the program, and opens it for writing. That somebody runs it is not what
/// may stand in between: it ends with the last process, and Linux 6.11 does not mind.
/// Fails when the shim runs from where it can be written.
#[test]
fn the_runtimes_own_program_can_not_be_written() {
    let before = programs();
    let daemon = Daemon::start();
    let shared = daemon.scratch().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("take.py"), TAKE).unwrap();
    executable::write(shared.join("again"), "#!/proc/self/exe\n");
    let size = program("bosun-shim").metadata().unwrap().len();
    for flags in ["", "--init"] {
        let words = format!(
            "run -d --name one {flags} -v {}:/shared --net none --rootfs / /usr/bin/python3 /shared/take.py {size}",
            shared.display()
        );
        daemon.ctl(&words).ok();
        daemon.until_logged("one", "watching");
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let _ = daemon.ctl("exec one /shared/again");
                    }
                    let _ = daemon.ctl("exec one /proc/self/exe --version");
                });
            }
        });
        daemon.ctl("exec one /bin/touch /tmp/enough").ok();
        let seen = daemon.until_logged("one", "held");
        assert!(!seen.contains("WRITABLE"), "{flags}: {seen}");
        assert!(!seen.contains("held 0"), "{flags}: it got hold of the program: {seen}");
        daemon.ctl("rm -f one").ok();
    }
    assert!(programs() == before);
}

/// The init that a container is given is the runtime's program, and stays in its sight. CVE-2019-5736. Fails
/// when the shim runs from where it can be written.
#[test]
fn an_inits_program_can_not_be_written() {
    let daemon = Daemon::start();
    let words = "run --rm --init --net none --rootfs / /bin/sh -c";
    let script = "stat -L -c %s /proc/1/exe; test -w /proc/1/exe || echo closed";
    let seen = daemon.ctl(&format!("{words} '{script}'")).text();
    let size = program("bosun-shim").metadata().unwrap().len();
    assert_eq!(seen, format!("{size}\nclosed"));
}

/// The same from the first step: the program to run is the runtime, and it loads no library of the
/// container's. CVE-2019-5736. Fails when its program is not static.
#[test]
fn a_container_that_is_the_runtime_ends_at_once() {
    let before = programs();
    let daemon = Daemon::start();
    let shared = daemon.scratch().join("shared");
    std::fs::create_dir(&shared).unwrap();
    executable::write(shared.join("again"), "#!/proc/self/exe\n");
    for command in ["/shared/again", "/proc/self/exe", "/proc/self/exe --version"] {
        for flags in ["", "--init", "-e LD_PRELOAD=/shared/evil.so -e LD_LIBRARY_PATH=/shared"] {
            let words = format!(
                "run --rm {flags} -v {}:/shared --net none --rootfs / {command}",
                shared.display()
            );
            let output = daemon.ctl(&words);
            assert!(output.code.is_some_and(|code| code != 124), "{words}: {output:?}");
            // What loads libraries says of each that it can't.
            assert!(!output.stderr.contains("evil.so"), "{words}: {output:?}");
        }
    }
    assert!(programs() == before);
}
