//! Root file systems made to reach the host while a container is built over them. What must be seen
//! is always the same: an error or a container that sees only itself, and an untouched host. Needs
//! root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "of the tests' support only a part is used here")]

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use shim_runtime::Kind;
use shim_wire::plan::{Device, Join, PlanMount, Sysctl};

#[path = "support/runner.rs"]
mod runner;
#[path = "support/mod.rs"]
mod support;

use support::{Sandbox, finish};

fn main() -> ExitCode {
    runner::main(runner::tests![
        proc_and_sys_that_are_links_are_refused,
        a_dev_that_is_a_link_stays_inside,
        mount_targets_that_are_links_stay_inside,
        a_dangling_resolv_conf_is_made_inside,
        nothing_is_mounted_over_parts_of_procfs,
        a_null_device_of_the_image_masks_nothing,
        a_console_of_the_image_is_covered,
        devices_of_the_image_are_not_trusted,
        a_device_that_is_there_has_the_mode_and_the_owner_that_are_asked_for,
        devices_of_a_rootfs_that_nothing_is_written_to,
        a_device_of_a_volume_stays_as_it_is,
        users_files_that_lead_out_are_read_inside,
        a_volume_that_is_swapped_during_starts,
        a_program_that_is_the_runtime_itself_can_not_be_written,
        standard_streams_of_the_image_are_not_opened,
        a_device_directory_of_the_hosts_is_left_alone,
        a_path_that_can_not_be_hidden_is_named,
        the_hosts_namespaces_by_path_are_not_the_containers_own,
    ])
}

/// A rootfs whose `path` is a link to the test's own directory of the host.
fn with_link(path: &str, script: &str) -> Sandbox {
    let sandbox = Sandbox::script(script);
    let inside = sandbox.path("root").join(path);
    let _ = std::fs::remove_dir_all(&inside);
    symlink(sandbox.path("host"), &inside).unwrap();
    sandbox
}

fn proc_and_sys_that_are_links_are_refused() {
    for path in ["proc", "sys"] {
        for target in ["/tmp", "tmp", "../../../proc", "/nowhere"] {
            let sandbox = Sandbox::new();
            let inside = sandbox.path("root").join(path);
            std::fs::remove_dir(&inside).unwrap();
            symlink(target, &inside).unwrap();
            let error = sandbox.error();
            assert_eq!(error.kind(), Kind::Refused, "{path} -> {target}: {error}");
        }
        let sandbox = with_link(path, "true");
        assert_eq!(sandbox.error().kind(), Kind::Refused);
        assert!(sandbox.host_is_untouched());
    }
}

fn a_dev_that_is_a_link_stays_inside() {
    let sandbox =
        with_link("dev", "echo x > /dev/null; ls -d /dev/pts /dev/shm; stat -c %t:%T /dev/null");
    let outcome = sandbox.run();
    assert_eq!(outcome.stdout, "/dev/pts\n/dev/shm\n1:3\n", "{outcome:?}");
    assert!(sandbox.host_is_untouched());
}

fn mount_targets_that_are_links_stay_inside() {
    for path in ["/etc/hosts", "/data/below", "/dev/shm/x"] {
        let mut sandbox = Sandbox::script("cat /mark; cat /etc/hosts /data/below 2>/dev/null");
        let host = sandbox.path("host");
        std::fs::write(sandbox.path("source"), "bound\n").unwrap();
        std::fs::write(sandbox.path("root/mark"), "").unwrap();
        symlink(host.join("hosts"), sandbox.path("root/etc/hosts")).unwrap();
        symlink(&host, sandbox.path("root/data")).unwrap();
        sandbox.plan.mounts.push(PlanMount {
            destination: path.to_owned(),
            kind: "bind".to_owned(),
            source: sandbox.path("source").to_str().unwrap().to_owned(),
            flags: 0x5000,
            ..PlanMount::default()
        });
        let outcome = sandbox.run();
        if path != "/dev/shm/x" {
            assert_eq!(outcome.stdout, "bound\n", "{path}: {outcome:?}");
        }
        assert!(sandbox.host_is_untouched(), "{path}");
    }
}

fn a_dangling_resolv_conf_is_made_inside() {
    let mut sandbox = Sandbox::script("cat /etc/resolv.conf; readlink /etc/resolv.conf");
    symlink("../run/resolve/stub.conf", sandbox.path("root/etc/resolv.conf")).unwrap();
    std::fs::write(sandbox.path("source"), "nameserver 10.0.0.1\n").unwrap();
    sandbox.plan.mounts.push(PlanMount {
        destination: "/etc/resolv.conf".to_owned(),
        kind: "bind".to_owned(),
        source: sandbox.path("source").to_str().unwrap().to_owned(),
        flags: 0x5001,
        ..PlanMount::default()
    });
    assert_eq!(sandbox.run().stdout, "nameserver 10.0.0.1\n../run/resolve/stub.conf\n");
}

fn nothing_is_mounted_over_parts_of_procfs() {
    for (kind, path, allowed) in [
        ("tmpfs", "/proc", false),
        ("bind", "/proc", false),
        ("tmpfs", "/proc/self", false),
        ("bind", "/proc/self/attr", false),
        ("tmpfs", "/proc/sys", false),
        ("bind", "/link/sys", false),
        ("file", "/proc/uptime", true),
        ("host", "/proc", true),
    ] {
        let mut sandbox = Sandbox::script("echo ran");
        symlink("/proc", sandbox.path("root/link")).unwrap();
        std::fs::write(sandbox.path("file"), "").unwrap();
        let source = match kind {
            "file" => sandbox.path("file").to_str().unwrap().to_owned(),
            "host" => "/proc".to_owned(),
            _ => sandbox.path("host").to_str().unwrap().to_owned(),
        };
        sandbox.plan.mounts.push(PlanMount {
            destination: path.to_owned(),
            kind: if kind == "tmpfs" { "tmpfs" } else { "bind" }.to_owned(),
            source,
            flags: if kind == "tmpfs" { 0 } else { 0x5000 },
            ..PlanMount::default()
        });
        if allowed {
            assert_eq!(sandbox.run().stdout, "ran\n", "{kind} at {path}");
        } else {
            assert_eq!(sandbox.error().kind(), Kind::Refused, "{kind} at {path}");
        }
    }
}

fn a_null_device_of_the_image_masks_nothing() {
    // The image's own /dev is used, with a link where the null device should be.
    let mut sandbox = Sandbox::script("stat -c %t:%T /proc/keys; cat /proc/keys | wc -c");
    symlink("/proc/sys/kernel/hostname", sandbox.path("root/dev/null")).unwrap();
    sandbox.plan.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    sandbox.plan.devices.clear();
    assert_eq!(sandbox.run().stdout, "1:3\n0\n");
}

fn a_console_of_the_image_is_covered() {
    let mut sandbox = Sandbox::script("echo to-console > /dev/console; cat /etc/passwd | wc -l");
    std::fs::remove_file(sandbox.path("root/etc/passwd")).unwrap();
    std::fs::write(sandbox.path("root/etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    symlink(sandbox.path("host/console"), sandbox.path("root/dev/console")).unwrap();
    symlink("/etc/passwd", sandbox.path("root/dev/tty")).unwrap();
    sandbox.plan.mounts.retain(|mount| mount.destination != "/dev");
    sandbox.plan.devices.clear();
    sandbox.options.terminal = true;
    let outcome = sandbox.run();
    assert_eq!(outcome.stdout, "to-console\r\n1\r\n", "{outcome:?}");
    assert!(sandbox.host_is_untouched());
}

fn devices_of_the_image_are_not_trusted() {
    let mut sandbox = Sandbox::new();
    sandbox.plan.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    std::fs::write(sandbox.path("root/dev/zero"), "").unwrap();
    let error = sandbox.error();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.to_string().contains("/dev/zero"), "{error}");
}

/// A node of a device, with a mode and an owner that nobody asked for.
fn node(path: &Path, minor: u32) {
    use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, chownat, makedev, mknodat};
    let device = makedev(1, minor);
    mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0o600), device).unwrap();
    let owner = (Some(Uid::from_raw(5)), Some(Gid::from_raw(6)));
    chownat(CWD, path, owner.0, owner.1, AtFlags::empty()).unwrap();
}

fn owned(path: &Path) -> (u32, u32, u32) {
    let found = std::fs::metadata(path).unwrap();
    (found.mode() & 0o7777, found.uid(), found.gid())
}

fn a_device_that_is_there_has_the_mode_and_the_owner_that_are_asked_for() {
    let mut sandbox = Sandbox::script(
        "stat -c '%a %u:%g' /dev/zero /dev/full /dev/null /dev/random /dev/urandom",
    );
    sandbox.plan.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    for (name, minor) in [("zero", 5), ("full", 7), ("null", 3), ("urandom", 9)] {
        node(&sandbox.path("root/dev").join(name), minor);
    }
    // With bits that a change of the owner takes away (chown(2)).
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(sandbox.path("root/dev/urandom"), mode(0o4711)).unwrap();
    for device in &mut sandbox.plan.devices {
        (device.mode, device.uid, device.gid, device.index) = match device.path.as_str() {
            "/dev/zero" => (Some(0o640), Some(7), Some(8), Some(0)),
            "/dev/full" => (None, None, Some(0), Some(1)),
            "/dev/random" => (None, Some(9), None, Some(2)),
            "/dev/urandom" => (Some(0o4711), Some(9), None, Some(3)),
            // As every container has it.
            _ => (Some(0o666), None, None, None),
        };
    }
    assert_eq!(sandbox.run().stdout, "640 7:8\n600 5:0\n666 5:6\n666 9:0\n4711 9:6\n");
    assert_eq!(owned(&sandbox.path("root/dev/zero")), (0o600, 5, 6), "in the layer below");
}

fn devices_of_a_rootfs_that_nothing_is_written_to() {
    let mut sandbox = Sandbox::script("stat -c '%a %u:%g' /dev/null; echo kept >/dev/null");
    sandbox.plan.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    let dev = sandbox.path("root/dev");
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        node(&dev.join(name), minor);
    }
    sandbox.plan.devices.retain(|device| device.path != "/dev/tty");
    for link in ["fd", "stdin", "stdout", "stderr", "ptmx"] {
        std::os::unix::fs::symlink("/nowhere", dev.join(link)).unwrap();
    }
    let lower = ["root", "host"].map(|name| sandbox.path(name).to_str().unwrap().to_owned());
    let rootfs = sandbox.plan.rootfs.as_mut().unwrap();
    (rootfs.lower, rootfs.upper, rootfs.work) = (lower.to_vec(), String::new(), String::new());
    assert_eq!(sandbox.run().stdout, "600 5:6\n", "as every container has them");
    // What the specification names is not passed over.
    sandbox.plan.devices[0].index = Some(0);
    let error = sandbox.error().to_string();
    assert!(error.contains("linux.devices[0] at /dev/null: Read-only file system"), "{error}");
}

fn a_device_of_a_volume_stays_as_it_is() {
    let mut sandbox = Sandbox::script("stat -c '%a %u:%g' /volume/zero");
    let host = sandbox.path("volume");
    std::fs::create_dir(&host).unwrap();
    node(&host.join("zero"), 5);
    // What lies below it is the container's own.
    sandbox.plan.mounts.push(PlanMount {
        destination: "/volume".to_owned(),
        kind: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        ..PlanMount::default()
    });
    sandbox.plan.mounts.push(PlanMount {
        destination: "/volume".to_owned(),
        kind: "bind".to_owned(),
        source: host.to_str().unwrap().to_owned(),
        flags: 0x5000,
        ..PlanMount::default()
    });
    let device = |mode, uid, minor| Device {
        path: "/volume/zero".to_owned(),
        kind: "c".to_owned(),
        major: 1,
        minor,
        mode,
        uid,
        gid: None,
        index: Some(3),
    };
    for (asked, expected) in [
        (
            device(Some(0o666), None, 5),
            "linux.devices[3] at /volume/zero, mode 600 owner 5:6 instead of mode 666 owner 5:6: ",
        ),
        (
            device(None, Some(0), 5),
            "linux.devices[3] at /volume/zero, mode 600 owner 5:6 instead of mode 600 owner 0:6: ",
        ),
        (device(None, None, 7), "linux.devices[3] at /volume/zero: another device"),
    ] {
        sandbox.plan.devices.push(asked);
        let error = sandbox.error();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        let error = error.to_string();
        assert!(error.starts_with(expected), "{error}");
        sandbox.plan.devices.pop();
    }
    sandbox.plan.devices.push(device(Some(0o600), Some(5), 5));
    assert_eq!(sandbox.run().stdout, "600 5:6\n");
    assert_eq!(owned(&host.join("zero")), (0o600, 5, 6));
}

fn users_files_that_lead_out_are_read_inside() {
    let mut sandbox = Sandbox::new();
    sandbox.process().user =
        Some(shim_wire::plan::User { name: "canary".to_owned(), ..Default::default() });
    std::fs::write(sandbox.path("host-passwd"), "canary:x:0:0::/:/bin/sh\n").unwrap();
    let passwd = sandbox.path("root/etc/passwd");
    for target in [sandbox.path("host-passwd").to_str().unwrap(), "../../host-passwd", "/dev/zero"]
    {
        std::fs::remove_file(&passwd).unwrap();
        symlink(target, &passwd).unwrap();
        assert_eq!(sandbox.error().kind(), Kind::BadUser, "{target}");
    }
}

/// Two containers share a volume; the one swaps a directory in it for a link to the host while the
/// other is started with a mount below it, again and again.
fn a_volume_that_is_swapped_during_starts() {
    support::leave_the_machines_mount_table();
    let mut sandbox = Sandbox::script("exit 0");
    let volume = sandbox.path("volume");
    std::fs::create_dir_all(volume.join("directory")).unwrap();
    symlink(sandbox.path("host"), volume.join("link")).unwrap();
    let bind = |source: &Path, destination: &str| PlanMount {
        destination: destination.to_owned(),
        kind: "bind".to_owned(),
        source: source.to_str().unwrap().to_owned(),
        flags: 0x5000,
        ..PlanMount::default()
    };
    std::fs::write(sandbox.path("file"), "").unwrap();
    sandbox.plan.mounts.push(bind(&volume, "/volume"));
    sandbox.plan.mounts.push(bind(&sandbox.path("file"), "/volume/directory/a/b"));
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let swapper = std::process::Command::new("/bin/busybox")
        .args(["sh", "-c", "while :; do mv -T directory d2; mv -T link directory; mv -T directory link; mv -T d2 directory; done"])
        .current_dir(&volume)
        .stderr(std::process::Stdio::null())
        .spawn();
    let mut swapper = swapper.unwrap();
    let untouched = AtomicBool::new(true);
    for _ in 0..100 {
        if let Ok(mut created) = sandbox.create()
            && created.process.start().is_ok()
        {
            finish(created.process);
        }
        untouched.fetch_and(sandbox.host_is_untouched(), Ordering::Relaxed);
    }
    swapper.kill().unwrap();
    swapper.wait().unwrap();
    assert!(untouched.into_inner());
    support::expect_no_new_mount(&before);
}

/// `#!/proc/self/exe` makes the kernel run whatever runs at that moment: this very program.
fn a_program_that_is_the_runtime_itself_can_not_be_written() {
    let own = std::env::current_exe().unwrap();
    let identity = |path: &Path| {
        let found = std::fs::metadata(path).unwrap();
        (found.ino(), found.len(), found.mtime_nsec(), found.ctime_nsec())
    };
    let before = identity(&own);
    let mut sandbox = Sandbox::new();
    let script = sandbox.path("root/bin/again");
    std::fs::write(&script, "#!/proc/self/exe\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for command in ["/bin/again", "/proc/self/exe"] {
        sandbox.process().args = vec![command.to_owned()];
        // Whether it starts, without its libraries and arguments, does not matter.
        if let Ok(mut created) = sandbox.create()
            && created.process.start().is_ok()
        {
            finish(created.process);
        }
    }
    assert_eq!(identity(&own), before);
}

fn standard_streams_of_the_image_are_not_opened() {
    for terminal in [false, true] {
        let mut sandbox = Sandbox::script("echo fine");
        sandbox.options.terminal = terminal;
        for name in ["stdin", "stdout", "stderr", "fd"] {
            symlink(sandbox.path("host/x"), sandbox.path("root/dev").join(name)).unwrap();
        }
        sandbox.plan.mounts.retain(|mount| mount.destination != "/dev");
        sandbox.plan.devices.clear();
        assert_eq!(sandbox.run().stdout.trim_end(), "fine");
        assert!(sandbox.host_is_untouched());
    }
}

fn a_path_that_can_not_be_hidden_is_named() {
    let mut sandbox = Sandbox::new();
    symlink("/loop", sandbox.path("root/loop")).unwrap();
    sandbox.plan.masked_paths = vec!["/nowhere".to_owned(), "/loop".to_owned()];
    let error = sandbox.error().to_string();
    assert!(error.starts_with("linux.maskedPaths[1]: mask /loop: "), "{error}");
    sandbox.plan.masked_paths.clear();
    sandbox.plan.readonly_paths = vec!["/loop".to_owned()];
    let error = sandbox.error().to_string();
    assert!(error.starts_with("linux.readonlyPaths[0]: make read-only /loop: "), "{error}");
}

fn a_device_directory_of_the_hosts_is_left_alone() {
    let mut sandbox = Sandbox::script("ls -A /dev");
    let host = sandbox.path("host").to_str().unwrap().to_owned();
    sandbox.plan.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    sandbox.plan.devices.clear();
    sandbox.plan.mounts.push(PlanMount {
        destination: "/dev".to_owned(),
        kind: "bind".to_owned(),
        source: host,
        flags: 0x5000,
        ..PlanMount::default()
    });
    assert_eq!(sandbox.run().stdout, "");
    assert!(sandbox.host_is_untouched());
}

const NEW_UTS: u64 = 0x0400_0000;
const NEW_IPC: u64 = 0x0800_0000;
const NEW_NET: u64 = 0x4000_0000;

/// A container that joins a namespace by path and sets a parameter of it.
fn with_parameter(kind: u64, path: &str, parameter: &str, value: &str) -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.options.clone_flags &= !kind;
    sandbox.options.join = vec![Join { kind, path: path.to_owned(), index: 1 }];
    sandbox.plan.hostname.clear();
    sandbox.plan.loopback = false;
    sandbox.plan.sysctls = vec![Sysctl { path: parameter.to_owned(), value: value.to_owned() }];
    sandbox
}

/// The namespaces of whoever runs the runtime, found by a path, as a namespace of a pod would be. Those
/// of this test stand for the machine's.
fn the_hosts_namespaces_by_path_are_not_the_containers_own() {
    let machines = std::fs::read_to_string("/proc/sys/kernel/domainname").unwrap();
    shim_sys::clone::unshare(NEW_UTS | NEW_IPC | NEW_NET).unwrap();
    let parameter = |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap();
    for (kind, name, path, value) in [
        (NEW_NET, "net", "net/ipv4/ip_unprivileged_port_start", "77"),
        (NEW_IPC, "ipc", "kernel/msgmax", "4242"),
        (NEW_UTS, "uts", "kernel/domainname", "changed"),
    ] {
        let before = parameter(path);
        assert_ne!(before.trim(), value);
        let link = format!("/proc/self/ns/{name}");
        let held = std::fs::File::open(&link).unwrap();
        let descriptor = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
        for of in [&link, &descriptor] {
            for user in [0, 0x1000_0000] {
                let mut sandbox = with_parameter(kind, of, path, value);
                sandbox.options.clone_flags |= user;
                let map = shim_wire::plan::IdMapping { inside: 0, outside: 100_000, size: 65_536 };
                sandbox.plan.uid_mappings = vec![map];
                sandbox.plan.gid_mappings = vec![map];
                sandbox.plan.rootfs.as_mut().unwrap().idmap = user != 0;
                let error = sandbox.error();
                assert_eq!(error.kind(), Kind::Refused, "{of}: {error}");
                assert!(error.to_string().contains(&path.replace('/', ".")), "{error}");
                assert_eq!(parameter(path), before, "{of}");
            }
        }
    }
    // The names too, and those of the first process of the machine.
    for (hostname, domainname) in [("changed", ""), ("", "changed")] {
        let mut sandbox = with_parameter(NEW_UTS, "/proc/self/ns/uts", "", "");
        sandbox.plan.sysctls.clear();
        sandbox.plan.hostname = hostname.to_owned();
        sandbox.plan.domainname = domainname.to_owned();
        let error = sandbox.error();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(error.to_string().contains("\"changed\""), "{error}");
    }
    assert_ne!(parameter("kernel/hostname"), "changed\n");
    const FIRST: &str = "/proc/1/ns/uts";
    // A security module may keep it from everybody.
    if std::fs::File::open(FIRST).is_ok() {
        let first = with_parameter(NEW_UTS, FIRST, "kernel/domainname", machines.trim());
        let error = first.error();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
    }
    // What somebody else holds may be set, without and with a new name for it.
    let held = std::fs::File::open("/proc/self/ns/uts").unwrap();
    shim_sys::clone::unshare(NEW_UTS).unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    let mut others = with_parameter(NEW_UTS, &path, "kernel/domainname", "theirs");
    others.plan.hostname = "them".to_owned();
    others.process().args =
        ["/bin/cat", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname"]
            .map(str::to_owned)
            .to_vec();
    assert_eq!(others.run().stdout, "them\ntheirs\n");
    assert_ne!(parameter("kernel/domainname"), "theirs\n");
}
