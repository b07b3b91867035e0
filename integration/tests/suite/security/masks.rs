//! What is masked, read-only, filtered or no device.

use std::path::Path;

use integration::daemon::Daemon;
use integration::device;
use integration::process::Process;

use super::{inside, run_on, sleeper, tree};

/// moby's list of August 2026; what a kernel does not have is not there inside either.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// CVE-2015-3630, CVE-2018-10892, GHSA-6fw5-f8r9-fgfm, GHSA-jq35-85cj-fj4p: by this list and by no
/// list of the daemon's own. Fails when nothing is masked, and when nothing is made read-only.
#[test]
fn the_golden_list_is_masked_or_read_only() {
    let (daemon, _process) = sleeper("");
    let thermal = (0..).map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"));
    let cpus = std::thread::available_parallelism().unwrap().get();
    let thermal: Vec<String> = thermal.take(cpus).collect();
    for path in MASKED.into_iter().chain(thermal.iter().map(String::as_str)) {
        if !Path::new(path).exists() {
            continue;
        }
        let seen = inside(
            &daemon,
            &format!("if test -d {path}; then ls -A {path}; else stat -c %t:%T {path}; fi"),
        );
        let expected = if Path::new(path).is_dir() { "" } else { "1:3" };
        assert_eq!(seen.text(), expected, "{path}");
        let write = format!("chmod 777 {path} || touch {path}/x || (echo x > {path}/x)");
        assert_ne!(inside(&daemon, &write).code, Some(0), "{path}");
    }
    let table = inside(&daemon, "cat /proc/self/mountinfo").text();
    for path in READ_ONLY.into_iter().filter(|path| Path::new(path).exists()) {
        let line = table.lines().rfind(|line| line.split(' ').nth(4) == Some(path));
        let options = line.and_then(|line| line.split(' ').nth(5)).unwrap_or_default();
        assert!(options.split(',').any(|option| option == "ro"), "{path}: {line:?}");
    }
    let files = ["sys/kernel/core_pattern", "sysrq-trigger", "irq/default_smp_affinity"];
    let files = files.map(|name| format!("/proc/{name}"));
    for file in files.iter().filter(|file| Path::new(file).exists()) {
        let output = inside(&daemon, &format!("true >> {file}"));
        assert!(output.stderr.contains("Read-only"), "{file}: {}", output.stderr);
    }
}

/// CVE-2025-31133, CVE-2025-62161 (youki): what masks is the null device of the host, whatever the
/// container's looks like at that moment. Fails when it is looked up in the container.
#[test]
fn a_null_device_of_the_containers_own_masks_nothing() {
    let daemon = Daemon::start();
    let devices = daemon.scratch().join("devices");
    std::fs::create_dir(&devices).unwrap();
    std::os::unix::fs::symlink("/proc/version", devices.join("null")).unwrap();
    let tree = tree(&daemon, "tree");
    let masked: Vec<&str> = MASKED.into_iter().filter(|path| Path::new(path).is_file()).collect();
    let flags = format!("-v {}:/dev", devices.display());
    let script = format!("stat -c %t:%T {}", masked.join(" "));
    let seen = run_on(&daemon, &tree, &flags, &script).text();
    assert_eq!(seen.lines().collect::<Vec<_>>(), vec!["1:3"; masked.len()]);
}

/// runc 5275 and 5280: each file system more would slow the teardown. Fails when each directory is
/// masked with one of its own.
#[test]
fn all_masked_directories_are_one_file_system() {
    let (_daemon, process) = sleeper("");
    let table = std::fs::read_to_string(process.path("mountinfo")).unwrap();
    let field = |line: &str, number: usize| line.split(' ').nth(number).unwrap().to_owned();
    let mut devices: Vec<String> = table
        .lines()
        .filter(|line| MASKED.contains(&field(line, 4).as_str()) && line.contains(" - tmpfs "))
        .map(|line| field(line, 2))
        .collect();
    assert!(devices.len() > 1, "{table}");
    devices.dedup();
    assert_eq!(devices.len(), 1, "{devices:?}");
}

/// CVE-2026-31431: the kernel's cryptography, and the hypervisor's sockets, by every entry to the
/// kernel. Fails when the families are allowed, and, for the 32-bit entries, when `socketcall` is.
#[cfg(target_arch = "x86_64")]
#[test]
fn sockets_of_the_kernels_cryptography_are_denied_by_every_entry() {
    use integration::elf::{Machine, program};

    // The end of a program that ends with 0 when it got a descriptor, else with the error's number.
    const EXIT_64: &[u8] = b"\x31\xff\x85\xc0\x79\x04\x89\xc7\xf7\xdf\xb8\x3c\0\0\0\x0f\x05";
    const EXIT_32: &[u8] = b"\x31\xdb\x85\xc0\x79\x04\x89\xc3\xf7\xdb\xb8\x01\0\0\0\xcd\x80";
    let daemon = Daemon::start();
    let tree = tree(&daemon, "tree");
    const SEQPACKET: u8 = 5;
    for (family, what) in [(38u8, "alg"), (40, "vsock"), (1, "unix")] {
        // socket(family, SOCK_SEQPACKET, 0)
        let direct = [
            b"\xb8\x29\0\0\0\xbf",
            &[family][..],
            b"\0\0\0\xbe",
            &[SEQPACKET],
            b"\0\0\0\x31\xd2\x0f\x05",
            EXIT_64,
        ]
        .concat();
        // push 0; push SOCK_SEQPACKET; push family; socketcall(SYS_SOCKET, esp)
        let call = [
            b"\x6a\0\x6a",
            &[SEQPACKET][..],
            b"\x6a",
            &[family],
            b"\xb8\x66\0\0\0\xbb\x01\0\0\0\x89\xe1\xcd\x80",
            EXIT_32,
        ]
        .concat();
        // The same call as 32-bit programs have it since Linux 4.3.
        let new = [
            b"\xb8\x67\x01\0\0\xbb",
            &[family][..],
            b"\0\0\0\xb9",
            &[SEQPACKET],
            b"\0\0\0\x31\xd2\xcd\x80",
            EXIT_32,
        ]
        .concat();
        for (entry, machine, code) in [
            ("syscall", Machine::X86_64, &direct),
            ("int80", Machine::X86_64, &new),
            ("socketcall", Machine::I386, &call),
            ("i386", Machine::I386, &new),
        ] {
            let path = tree.join("bin/probe");
            integration::executable::write(&path, program(machine, code));
            let code = run_on(&daemon, &tree, "", "exec /bin/probe").code;
            let expected: &[i32] = match (what, entry) {
                ("unix", "socketcall") => &[0, 1, 38],
                ("unix", _) => &[0],
                // EPERM, EAFNOSUPPORT; ENOSYS says that there is no such entry.
                _ => &[1, 97, 38],
            };
            assert!(expected.contains(&code.unwrap()), "{what} by {entry}: {code:?}");
        }
    }
}

#[test]
fn system_calls_are_filtered() {
    let (daemon, process) = sleeper("");
    assert_eq!(process.status("Seccomp").as_deref(), Some("2"));
    for script in ["unshare -U true", "unshare -m true", "mount -t tmpfs none /mnt"] {
        assert_ne!(inside(&daemon, script).code, Some(0), "{script}");
    }
    assert_eq!(inside(&daemon, "chroot / /bin/echo allowed").text(), "allowed");
}

/// What is there is the kernel's, and the host's. CVE-2023-25809. Fails when it is mounted writable.
#[test]
fn sys_and_cgroups_are_read_only() {
    let (daemon, _process) = sleeper("");
    let table = inside(&daemon, "cat /proc/self/mountinfo").text();
    for line in table
        .lines()
        .filter(|line| line.split(' ').nth(4).is_some_and(|point| point.starts_with("/sys")))
    {
        let options = line.split(' ').nth(5).unwrap();
        assert!(options.split(',').any(|option| option == "ro"), "{line}");
    }
    assert!(table.lines().any(|line| line.split(' ').nth(4) == Some("/sys")));
}

/// Fails when the rules of devices are not written.
#[test]
fn devices_are_the_harmless_ones() {
    let (daemon, _process) = sleeper("");
    let found =
        inside(&daemon, "cd /dev; for f in *; do test -b $f && echo block $f; done; echo *").text();
    assert!(!found.contains("block"), "{found}");
    for wanted in [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin",
        "stdout", "stderr",
    ] {
        assert!(found.split_whitespace().any(|name| name == wanted), "{wanted} in {found}");
    }
    assert_eq!(
        inside(&daemon, "echo x > /dev/null && head -c 3 /dev/zero | wc -c").text().trim(),
        "3"
    );
    // MKNOD is allowed, using what was made is not, and it is the device cgroup alone that says no.
    let (major, minor) = (device::MISC, device::harmless());
    let open = format!("mknod /tmp/node c {major} {minor} && exec < /tmp/node");
    inside(&daemon, &open).fails(2, &["/tmp/node", "not permitted"]);
    daemon.ctl(&format!("run --rm --privileged --net none --rootfs / /bin/sh -c '{open}'")).ok();
}

#[test]
fn processes_of_the_host_are_out_of_sight() {
    let (daemon, _process) = sleeper("");
    let pids = inside(&daemon, "ls /proc | grep -c ^[0-9]").text();
    assert!(pids.trim().parse::<u32>().unwrap() < 8, "{pids}");
}

#[test]
fn privileged_lifts_what_the_defaults_hold_back() {
    let (daemon, process) = sleeper("--privileged");
    assert_eq!(process.status("Seccomp").as_deref(), Some("0"));
    assert_eq!(process.status("CapBnd"), Process(std::process::id()).status("CapBnd"));
    inside(&daemon, "mount -t tmpfs none /mnt").ok();
}
