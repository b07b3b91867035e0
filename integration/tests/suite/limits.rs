//! Limits, and what happens at them.

use std::path::PathBuf;

use integration::daemon::Daemon;
use integration::leak;

/// The value of a control file of a container: v1's name, v2's name.
pub(crate) fn control(daemon: &Daemon, v1: &str, v2: &str) -> String {
    std::fs::read_to_string(control_file(daemon, "one", v1, v2)).unwrap().trim().to_owned()
}

pub(crate) fn control_file(daemon: &Daemon, container: &str, v1: &str, v2: &str) -> PathBuf {
    let cgroups = daemon.process(container).cgroups();
    let candidates = leak::hierarchies().into_iter().flat_map(|top| {
        cgroups.values().map(move |path| top.join(path.trim_start_matches('/'))).collect::<Vec<_>>()
    });
    let mut files = candidates.flat_map(|cgroup| [cgroup.join(v1), cgroup.join(v2)]);
    files
        .find(|file| file.is_file() && file.to_string_lossy().contains(&daemon.place().prefix))
        .unwrap_or_else(|| panic!("neither {v1} nor {v2}: {cgroups:?}"))
}

#[test]
fn too_much_memory_is_killed_and_said() {
    let daemon = Daemon::start();
    let words = "run --name one -m 32m --net none --rootfs / /usr/bin/python3 -c 'x = bytearray(200_000_000); print(len(x))'";
    daemon.ctl(words).check(137);
    assert_eq!(daemon.inspect("one", "{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
    assert_eq!(daemon.ctl("logs one").stdout, "");
}

#[test]
fn an_ordinary_kill_is_not_called_out_of_memory() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one -m 32m --net none --rootfs / /bin/sleep 600").ok();
    daemon.ctl("kill one").ok();
    daemon.until_status("one", "exited");
    assert_eq!(daemon.inspect("one", "{{.State.OOMKilled}}"), "false");
}

#[test]
fn the_memory_limit_reaches_the_kernel() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one -m 64m --net none --rootfs / /bin/sleep 600").ok();
    assert_eq!(control(&daemon, "memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
}

#[test]
fn who_is_not_root_reads_the_own_limits() {
    let daemon = Daemon::start();
    let script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes || cat memory.max";
    let words = format!("run --rm -m 64m -u 1000 --net none --rootfs / sh -c '{script}'");
    assert_eq!(daemon.ctl(&words).text(), (64 << 20).to_string());
}

#[test]
fn the_process_limit_holds() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --pids-limit 8 --net none --rootfs / /bin/sleep 600").ok();
    assert_eq!(control(&daemon, "pids.max", "pids.max"), "8");
    let output =
        daemon.ctl("exec one /bin/sh -c 'for n in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; wait'");
    assert_ne!(output.code, Some(0), "{}", output.stdout);
    assert!(output.stderr.to_lowercase().contains("fork"), "{}", output.stderr);
}

#[test]
fn the_share_of_processors_reaches_the_kernel() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --cpus 0.5 --net none --rootfs / /bin/sleep 600").ok();
    let value = control(&daemon, "cpu.cfs_quota_us", "cpu.max");
    assert!(value.starts_with("50000"), "{value}");
}

/// A whole disk of this machine.
fn disk() -> Option<String> {
    let disks = std::fs::read_dir("/sys/block").unwrap().flatten();
    let names = disks.map(|entry| entry.file_name().into_string().unwrap());
    let real = |name: &String| !name.starts_with("loop") && !name.starts_with("zram");
    names
        .filter(real)
        .map(|name| format!("/dev/{name}"))
        .find(|path| std::fs::exists(path).unwrap())
}

#[test]
fn disks_are_shared_and_throttled() {
    let Some(disk) = disk() else { return };
    let daemon = Daemon::start();
    let flags = format!("--device-read-bps {disk}:1mb --device-write-iops {disk}:100");
    daemon.ctl(&format!("run -d --name one {flags} --net none --rootfs / /bin/sleep 600")).ok();
    let bytes = control(&daemon, "blkio.throttle.read_bps_device", "io.max");
    assert!(bytes.contains("1048576"), "{bytes}");
    let writes = control(&daemon, "blkio.throttle.write_iops_device", "io.max");
    assert!(writes.contains("100"), "{writes}");
    let shown = daemon.inspect("one", "{{(index .HostConfig.BlkioDeviceReadBps 0).Path}}");
    assert_eq!(shown, disk);
}

#[test]
fn what_is_no_disk_is_not_throttled() {
    let daemon = Daemon::start();
    let run = |flag: &str| daemon.ctl(&format!("run --rm {flag} --net none --rootfs / /bin/true"));
    run("--device-read-bps /dev/null:1mb").fails(125, &["/dev/null", "block device"]);
    run("--device-read-bps /dev/nowhere:1mb").fails(125, &["/dev/nowhere"]);
    run("--device-read-iops sda:1").fails(125, &["sda:1"]);
    run("--blkio-weight 5").fails(125, &["10 and 1000"]);
    run("--cpus 1 --cpu-quota 5000").fails(125, &["asked for twice"]);
    assert_eq!(daemon.ctl("ps -aq").text(), "");
}

#[test]
fn memory_nodes_and_a_reservation_reach_the_kernel() {
    let daemon = Daemon::start();
    let flags =
        "-m 64m --memory-reservation 32m --cpuset-mems 0 --cpu-quota 20000 --cpu-period 40000";
    daemon.ctl(&format!("run -d --name one {flags} --net none --rootfs / /bin/sleep 600")).ok();
    let reserved = control(&daemon, "memory.soft_limit_in_bytes", "memory.low");
    assert_eq!(reserved, (32 << 20).to_string());
    assert_eq!(control(&daemon, "cpuset.mems", "cpuset.mems"), "0");
    assert!(control(&daemon, "cpu.cfs_quota_us", "cpu.max").starts_with("20000"));
}

#[test]
fn more_processors_than_there_are_is_refused() {
    let daemon = Daemon::start();
    daemon.ctl("run --rm --cpus 100000 --net none --rootfs / /bin/true").fails(125, &["100000"]);
}

#[test]
fn less_memory_than_anything_needs_is_refused() {
    let daemon = Daemon::start();
    daemon.ctl("run --rm -m 1k --net none --rootfs / /bin/true").fails(125, &["memory"]);
}

#[test]
fn a_malformed_limit_is_named() {
    let daemon = Daemon::start();
    for flag in ["-m 12x", "-m lots", "--cpus many", "--cpus=-1", "--pids-limit few"] {
        let value = flag.rsplit([' ', '=']).next().unwrap();
        daemon
            .ctl(&format!("run --rm {flag} --net none --rootfs / /bin/true"))
            .fails(125, &[value]);
    }
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
}

#[test]
fn without_a_limit_there_is_none() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    let inherited = daemon.inspect("one", "{{.HostConfig.Memory}}");
    assert_eq!(inherited, "0");
}
