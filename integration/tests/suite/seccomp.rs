//! The default seccomp profile, asked by a program inside: natively, and on x86-64 also as 32-bit
//! programs ask.

use std::process::Command;

use integration::daemon::Daemon;

/// Makes each call and says what came of it, `NAME: RESULT` with a negative errno. A call by
/// `int $0x80` has i386's numbers, and its pointers have to lie below 4 GiB.
const PROBE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *name, long result) {
    printf("%s: %ld\n", name, result < 0 ? -(long)errno : 0);
    if (result > 2) close(result);
}

#ifdef __x86_64__
static long i386(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "r8", "r9", "r10", "r11", "memory");
    result = (int)result;
    if (result < 0 && result > -4096) { errno = -result; return -1; }
    return result;
}
#endif

int main(void) {
    say("socket AF_INET", syscall(SYS_socket, 2, 1, 0));
    say("socket AF_UNIX", syscall(SYS_socket, 1, 1, 0));
    say("socket AF_ALG", syscall(SYS_socket, 38, 5, 0));
    say("socket AF_VSOCK", syscall(SYS_socket, 40, 1, 0));
    say("socket AF_ALG high", syscall(SYS_socket, 38L | 1L << 40, 5, 0));
    say("socket AF_VSOCK high", syscall(SYS_socket, 40L | 1L << 40, 1, 0));
    say("io_uring_setup", syscall(425, 1, 0));
    say("clone3", syscall(435, 0, 0));
    say("keyctl", syscall(SYS_keyctl, 0, -1, 0));
    say("bpf", syscall(SYS_bpf, 0, 0, 0));
    say("userfaultfd", syscall(SYS_userfaultfd, 0));
    say("fchmodat2", syscall(452, -1, "x", 0, 0));
#ifdef __x86_64__
    fflush(stdout);
    if (fork() == 0) {
        _exit(i386(20, 0, 0, 0) > 0 ? 0 : 1);
    }
    int status = 0;
    wait(&status);
    if (status != 0) return 0;
    int *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (low == MAP_FAILED) return 1;
    say("i386 socket AF_INET", i386(359, 2, 1, 0));
    say("i386 socket AF_ALG", i386(359, 38, 5, 0));
    say("i386 socket AF_VSOCK", i386(359, 40, 1, 0));
    low[0] = 38; low[1] = 5; low[2] = 0;
    say("i386 socketcall socket", i386(102, 1, (long)low, 0));
    low[0] = -1; low[1] = 0; low[2] = 0;
    say("i386 socketcall bind", i386(102, 2, (long)low, 0));
    say("i386 io_uring_setup", i386(425, 1, 0, 0));
    say("i386 clone3", i386(435, 0, 0, 0));
#endif
    return 0;
}
"#;

const EPERM: i32 = -1;
const EBADF: i32 = -9;
/// Of what the kernel does not have, and of what it is said not to have.
const ENOSYS: i32 = -38;

/// A rootfs of this one program.
fn rootfs() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("probe.c");
    std::fs::write(&source, PROBE).unwrap();
    let built = Command::new("gcc")
        .args(["-static", "-O1", "-o"])
        .arg(directory.path().join("probe"))
        .arg(&source)
        .status()
        .unwrap();
    assert!(built.success());
    directory
}

/// What came of a call.
fn answer(text: &str, name: &str) -> Option<i32> {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.map(|number| number.parse().unwrap())
}

#[test]
fn the_default_profile_denies_by_every_entry() {
    let (daemon, rootfs) = (Daemon::start(), rootfs());
    let directory = rootfs.path().display();
    let output = daemon.ctl(&format!("run --rm --net none --rootfs {directory} /probe"));
    output.ok();
    let text = output.text();
    let said = |name: &str| answer(&text, name);
    // It is allowed: what comes of it is the kernel's, which has it since Linux 6.6.
    let outside = Command::new(rootfs.path().join("probe")).output().unwrap();
    let fchmodat2 = answer(&String::from_utf8_lossy(&outside.stdout), "fchmodat2").unwrap();
    assert!([EBADF, ENOSYS].contains(&fchmodat2), "{fchmodat2}");
    for (name, expected) in [
        ("socket AF_INET", 0),
        ("socket AF_UNIX", 0),
        ("socket AF_ALG", EPERM),
        ("socket AF_VSOCK", EPERM),
        ("socket AF_ALG high", EPERM),
        ("socket AF_VSOCK high", EPERM),
        ("io_uring_setup", EPERM),
        ("clone3", ENOSYS),
        ("keyctl", EPERM),
        ("bpf", EPERM),
        ("userfaultfd", EPERM),
        ("fchmodat2", fchmodat2),
    ] {
        assert_eq!(said(name), Some(expected), "{name}\n{text}");
    }
    if said("i386 socket AF_INET").is_none() {
        eprintln!("skipped: this kernel runs no 32-bit programs");
        return;
    }
    for (name, expected) in [
        ("i386 socket AF_INET", 0),
        ("i386 socket AF_ALG", EPERM),
        ("i386 socket AF_VSOCK", EPERM),
        ("i386 socketcall socket", ENOSYS),
        ("i386 socketcall bind", EBADF),
        ("i386 io_uring_setup", EPERM),
        ("i386 clone3", ENOSYS),
    ] {
        assert_eq!(said(name), Some(expected), "{name}\n{text}");
    }
}
