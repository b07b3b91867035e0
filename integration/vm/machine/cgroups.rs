//! A machine with cgroup v2 and nothing else.

use std::path::{Path, PathBuf};

use integration::daemon::Daemon;
use integration::process::Process;
use integration::wait;

const ROOT: &str = "/sys/fs/cgroup";

/// Where a container's group is.
fn group(daemon: &Daemon, container: &str) -> PathBuf {
    Path::new(ROOT).join(&daemon.process(container).cgroups()[""][1..])
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn this_machine_has_the_unified_hierarchy_alone() {
    assert_eq!(Process(std::process::id()).cgroups().len(), 1);
    let daemon = Daemon::start();
    assert_eq!(daemon.ctl("info --format '{{.CgroupVersion}}'").text(), "2");
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn the_device_program_decides_what_can_be_opened() {
    let daemon = Daemon::start();
    let disk = std::fs::read_to_string("/sys/block/vda/dev").unwrap();
    let numbers = disk.trim().replace(':', " ");
    let inside =
        |script: &str| daemon.ctl(&format!("run --rm --net none --rootfs / /bin/sh -c '{script}'"));
    // docker lets a container make any node, and open few.
    let denied = inside(&format!("mknod /tmp/disk b {numbers} && head -c 1 /tmp/disk"));
    assert_ne!(denied.code, Some(0));
    assert!(denied.stderr.contains("Operation not permitted"), "{}", denied.stderr);
    assert_eq!(inside("mknod /tmp/null c 1 3 && echo x > /tmp/null && echo fine").text(), "fine");
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn everything_in_a_container_ends_with_it() {
    let daemon = Daemon::start();
    let many = "for n in $(seq 60); do setsid sleep 600 & done; wait";
    daemon.ctl(&format!("run -d --name one --net none --rootfs / /bin/sh -c '{many}'")).ok();
    let group = group(&daemon, "one");
    let members = || -> Vec<Process> {
        let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        text.lines().map(|pid| Process(pid.parse().unwrap())).collect()
    };
    wait::until_true("sixty processes", || members().len() > 60);
    assert!(group.join("cgroup.kill").exists());
    let all = members();
    daemon.ctl("rm -f one").ok();
    assert!(all.iter().all(|process| !process.lives()), "some outlived it");
    assert!(!group.exists());
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn an_exec_is_born_into_the_group() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one -m 64m --net none --rootfs / /bin/sleep 600").ok();
    let own = daemon.process("one").cgroups()[""].clone();
    let mut exec = daemon.ctl_start("exec one /bin/sleep 500");
    let child = wait::until("the exec", || {
        Process::all().into_iter().find(|process| process.arguments() == ["/bin/sleep", "500"])
    });
    assert_eq!(child.cgroups()[""], own);
    assert!(!exec.has_ended());
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn a_container_that_divides_its_group_can_still_be_entered() {
    let daemon = Daemon::start();
    // What distributes controllers can have no process of its own (cgroups(7)).
    let script = "cd /sys/fs/cgroup && mkdir inner && echo 1 > inner/cgroup.procs && \
        echo +memory > cgroup.subtree_control && echo divided && sleep 600";
    daemon
        .ctl(&format!("run -d --name one --privileged --net none --rootfs / sh -c '{script}'"))
        .ok();
    daemon.until_logged("one", "divided");
    assert_eq!(daemon.ctl("exec one cat /proc/self/cgroup").text(), "0::/inner");
}
