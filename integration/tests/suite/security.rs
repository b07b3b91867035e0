//! What a container may do by default, and what it can't see.

use integration::daemon::Daemon;
use integration::process::Process;

/// docker's default set: CHOWN, DAC_OVERRIDE, FSETID, FOWNER, MKNOD, NET_RAW, SETGID, SETUID,
/// SETFCAP, SETPCAP, NET_BIND_SERVICE, SYS_CHROOT, KILL, AUDIT_WRITE.
const DEFAULT_CAPABILITIES: &str = "00000000a80425fb";

fn sleeper(flags: &str) -> (Daemon, Process) {
    let daemon = Daemon::start();
    daemon.ctl(&format!("run -d --name one {flags} --net none --rootfs / /bin/sleep 600")).ok();
    let process = daemon.process("one");
    (daemon, process)
}

fn inside(daemon: &Daemon, script: &str) -> integration::ctl::Output {
    daemon.ctl(&format!("exec one /bin/sh -c '{script}'"))
}

#[test]
fn the_capabilities_are_dockers() {
    let (_daemon, process) = sleeper("");
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(process.status(set).as_deref(), Some(DEFAULT_CAPABILITIES), "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(process.status(set).as_deref(), Some("0000000000000000"), "{set}");
    }
}

#[test]
fn capabilities_are_added_and_dropped() {
    let (_daemon, process) = sleeper("--cap-drop ALL --cap-add NET_ADMIN --cap-add CAP_KILL");
    assert_eq!(process.status("CapEff").as_deref(), Some("0000000000001020"));
}

#[test]
fn an_unknown_capability_is_named() {
    let daemon = Daemon::start();
    daemon.ctl("run --rm --cap-add FLY --net none --rootfs / /bin/true").fails(125, &["FLY"]);
}

#[test]
fn another_user_has_no_capabilities() {
    let (_daemon, process) = sleeper("-u 65534:65534");
    assert_eq!(process.status("CapEff").as_deref(), Some("0000000000000000"));
    assert_eq!(process.status("Uid").unwrap().split_whitespace().next(), Some("65534"));
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

#[test]
fn kernel_interfaces_are_masked_or_read_only() {
    let (daemon, _process) = sleeper("");
    for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list"] {
        assert_eq!(
            inside(&daemon, &format!("test -e {path} || exit 0; head -c 10 {path} | wc -c"))
                .text()
                .trim_end_matches('0'),
            "",
            "{path}"
        );
    }
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
        "/proc/irq/default_smp_affinity",
    ] {
        assert_ne!(inside(&daemon, &format!("true >> {path}")).code, Some(0), "{path}");
    }
    assert_eq!(
        inside(
            &daemon,
            "ls -A /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -v : | grep -v ^$; true"
        )
        .text(),
        ""
    );
}

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

#[test]
fn no_descriptor_leaks_into_the_container() {
    let (daemon, process) = sleeper("");
    let open: Vec<u32> = process.descriptors().into_keys().collect();
    assert_eq!(open, [0, 1, 2]);
    assert_eq!(
        inside(&daemon, "ls /proc/self/fd | wc -l").text().trim(),
        "4",
        "0, 1, 2 and the directory itself"
    );
    let mut terminal = daemon.terminal("exec -it one /bin/sh -c 'echo fds $(ls /proc/$$/fd)'");
    let shown = terminal.expect("fds").to_owned() + &terminal.finish().1;
    assert!(!shown.contains('4') && !shown.contains('5'), "{shown}");
}

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
    // MKNOD is allowed, using what was made is not: the device cgroup says no.
    assert_ne!(inside(&daemon, "mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk").code, Some(0));
    assert_ne!(inside(&daemon, "mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem").code, Some(0));
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

#[test]
fn the_working_directory_can_not_be_a_leaked_descriptor() {
    let daemon = Daemon::start();
    for directory in ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/self/fd/8", "/proc/1/root"] {
        let output = daemon.ctl(&format!(
            "run --rm -w {directory} --net none --rootfs / /bin/ls {}",
            daemon.place().root.display()
        ));
        assert_eq!(output.stdout, "", "{directory}");
    }
}

#[test]
fn the_runtimes_own_program_can_not_be_written() {
    let daemon = Daemon::start();
    let shim = integration::daemon::program("bosun-shim");
    let before = std::fs::read(&shim).unwrap();
    let _ = daemon.ctl("run --rm --net none --rootfs / /proc/self/exe --version");
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    let _ = daemon.ctl("exec one /bin/sh -c 'for p in /proc/[0-9]*/exe; do (echo evil > $p) 2>/dev/null; done; true'");
    assert!(std::fs::read(&shim).unwrap() == before);
}

#[test]
fn the_directories_are_closed_to_other_users() {
    use std::os::unix::fs::PermissionsExt;
    let (daemon, _process) = sleeper("");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    let id = daemon.inspect("one", "{{.Id}}");
    for directory in [
        daemon.place().root.clone(),
        daemon.container_dir(&id).path().to_owned(),
        daemon.run_dir(&id).path().to_owned(),
        daemon.place().root.join("snapshots/overlayfs"),
    ] {
        assert_eq!(mode(&directory) & 0o077, 0, "{}", directory.display());
    }
    assert_eq!(mode(&daemon.socket()) & 0o007, 0);
    assert_eq!(mode(&daemon.place().root.join("meta.db")) & 0o077, 0);
}
