//! Mounts with all that can be said of them. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "of the tests' support only a part is used here")]

use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

use rustix::mount::{MountFlags, mount, mount_bind};
use shim_runtime::Kind;
use shim_wire::plan::{IdMap, IdMapping, PlanMount};

#[path = "support/runner.rs"]
mod runner;
#[path = "support/mod.rs"]
mod support;

use support::Sandbox;

fn main() -> ExitCode {
    runner::main(runner::tests![
        flags_are_of_the_mount_and_attributes_of_all_below_it,
        a_flag_of_the_source_can_be_switched_off,
        a_bind_is_mapped_by_maps_of_its_own,
        a_bind_is_mapped_as_the_container,
        a_tree_that_can_not_be_mapped_is_refused,
        a_tmpfs_starts_with_what_it_covers,
        what_can_not_be_copied_into_a_tmpfs_is_named,
        options_that_the_kernel_does_not_take_are_told,
        a_tmpfs_has_the_mode_of_what_it_covers,
        any_file_system_and_its_own_options,
        what_is_there_is_changed_by_a_remount,
        the_root_travels_as_the_plan_says,
        the_unified_hierarchy_alone,
        a_label_needs_selinux,
        a_read_only_procfs_keeps_from_nothing_that_is_asked_for,
        a_read_only_tmpfs_is_filled_first,
        a_tmpfs_that_is_read_only_with_all_below_it,
        a_remount_has_the_last_word_on_a_tmpfs,
    ])
}

const BIND: u64 = 0x1000;
const REC: u64 = 0x4000;
const REMOUNT: u64 = 0x20;

fn bind(sandbox: &Sandbox, flags: u64) -> PlanMount {
    PlanMount {
        destination: "/data".to_owned(),
        kind: "bind".to_owned(),
        source: sandbox.path("host").to_str().unwrap().to_owned(),
        flags,
        ..PlanMount::default()
    }
}

/// A directory of the host with another file system below it, of which nobody else knows.
fn with_mounts_below(script: &str) -> Sandbox {
    support::leave_the_machines_mount_table();
    let sandbox = Sandbox::script(script);
    let host = sandbox.path("host");
    mount("outer", &host, "tmpfs", MountFlags::NOEXEC, None).unwrap();
    std::fs::create_dir(host.join("below")).unwrap();
    mount("inner", host.join("below"), "tmpfs", MountFlags::empty(), None).unwrap();
    sandbox
}

const OPTIONS: &str = "grep -E ' /data(/below)? ' /proc/self/mountinfo | while read a b c d path flags rest; do echo $path $flags; done";

fn flags_are_of_the_mount_and_attributes_of_all_below_it() {
    let mut sandbox = with_mounts_below(OPTIONS);
    sandbox.plan.mounts.push(PlanMount {
        recursive_set: 0x4 | 0x10,
        recursive_cleared: 0x70,
        ..bind(&sandbox, BIND | REC | 1 | 2)
    });
    let outcome = sandbox.run();
    assert_eq!(
        outcome.stdout, "/data ro,nosuid,nodev,noexec,noatime\n/data/below rw,nodev,noatime\n",
        "{outcome:?}"
    );
}

fn a_flag_of_the_source_can_be_switched_off() {
    let mut sandbox = with_mounts_below(OPTIONS);
    sandbox.plan.mounts.push(PlanMount { cleared: 8, ..bind(&sandbox, BIND | REC) });
    let outcome = sandbox.run();
    assert_eq!(outcome.stdout, "/data rw,relatime\n/data/below rw,relatime\n", "{outcome:?}");
}

fn mapping(outside: u32) -> Vec<IdMapping> {
    vec![IdMapping { inside: 0, outside, size: 1000 }]
}

fn a_bind_is_mapped_by_maps_of_its_own() {
    let mut sandbox = Sandbox::script("stat -c %u:%g /data /data/five; touch /data/made");
    let host = sandbox.path("host");
    std::fs::write(host.join("five"), "").unwrap();
    std::os::unix::fs::chown(host.join("five"), Some(5), Some(6)).unwrap();
    sandbox.plan.mounts.push(PlanMount {
        idmap: IdMap::Mount.into(),
        uid_mappings: mapping(7000),
        gid_mappings: mapping(8000),
        ..bind(&sandbox, BIND | REC)
    });
    let outcome = sandbox.run();
    assert_eq!(outcome.stdout, "7000:8000\n7005:8006\n", "{outcome:?}");
    // Root is nobody there, so it makes nothing.
    assert!(!host.join("made").exists());
}

fn a_bind_is_mapped_as_the_container() {
    for (idmap, below) in [(IdMap::Mount, "65534"), (IdMap::Tree, "0")] {
        support::leave_the_machines_mount_table();
        let mut sandbox = Sandbox::script(
            "stat -c %u /data /data/below; touch /data/made; stat -c %u /data/made",
        );
        let (host, below_it) = (sandbox.path("host"), sandbox.path("host/below"));
        std::fs::create_dir(&below_it).unwrap();
        // Of the same file system, for a tmpfs can be mapped only since Linux 6.3.
        std::fs::create_dir(sandbox.path("inner")).unwrap();
        mount_bind(sandbox.path("inner"), &below_it).unwrap();
        sandbox.options.clone_flags |= 0x1000_0000;
        sandbox.plan.uid_mappings = mapping(100_000);
        sandbox.plan.gid_mappings = mapping(100_000);
        sandbox.plan.rootfs.as_mut().unwrap().idmap = true;
        sandbox.plan.mounts.push(PlanMount { idmap: idmap.into(), ..bind(&sandbox, BIND | REC) });
        let outcome = sandbox.run();
        assert_eq!(outcome.stdout, format!("0\n{below}\n0\n"), "{outcome:?}");
        assert_eq!(std::fs::metadata(host.join("made")).unwrap().uid(), 0);
        rustix::mount::unmount(&below_it, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

fn a_tree_that_can_not_be_mapped_is_refused() {
    let mut sandbox = Sandbox::new();
    sandbox.plan.mounts.push(PlanMount {
        source: "/proc/fs".to_owned(),
        idmap: IdMap::Tree.into(),
        uid_mappings: mapping(7000),
        gid_mappings: mapping(7000),
        ..bind(&sandbox, BIND | REC)
    });
    let error = sandbox.error();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    let expected = "mounts[7] (\"/proc/fs\" at \"/data\"): /proc/fs: ";
    assert!(error.to_string().starts_with(expected), "{error}");
}

fn tmpfs(destination: &str, flags: u64, data: &str) -> PlanMount {
    PlanMount {
        destination: destination.to_owned(),
        kind: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        flags,
        data: data.to_owned(),
        ..PlanMount::default()
    }
}

fn a_tmpfs_starts_with_what_it_covers() {
    let mut sandbox = Sandbox::script(
        "cd /etc; cat deep/er/file; stat -c '%a %u %g %Y' deep deep/er/file; readlink link
         stat -c %F pipe; cat passwd | wc -l; rm passwd; touch new; ls /etc; cd /ro; cat file; touch x || echo refused",
    );
    let etc = sandbox.path("root/etc");
    std::fs::create_dir_all(etc.join("deep/er")).unwrap();
    std::fs::write(etc.join("deep/er/file"), "text\n").unwrap();
    std::os::unix::fs::chown(etc.join("deep/er/file"), Some(5), Some(6)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(etc.join("deep/er/file"), mode(0o4751)).unwrap();
    std::fs::set_permissions(etc.join("deep"), mode(0o1700)).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    for name in ["deep/er/file", "deep"] {
        std::fs::File::open(etc.join(name)).unwrap().set_modified(time).unwrap();
    }
    std::os::unix::fs::symlink("/proc/1/root", etc.join("link")).unwrap();
    let fifo = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, etc.join("pipe"), kind, fifo, 0).unwrap();
    std::fs::create_dir(sandbox.path("root/ro")).unwrap();
    std::fs::write(sandbox.path("root/ro/file"), "kept\n").unwrap();
    sandbox.plan.mounts.push(PlanMount { copy_up: true, ..tmpfs("/etc", 0, "") });
    sandbox.plan.mounts.push(PlanMount { copy_up: true, ..tmpfs("/ro", 1, "size=1m") });
    let outcome = sandbox.run();
    assert_eq!(
        outcome.stdout,
        "text\n1700 0 0 1000000\n4751 5 6 1000000\n/proc/1/root\nfifo\n2\ndeep\ngroup\nlink\nnew\npipe\nkept\nrefused\n",
        "{outcome:?}"
    );
    assert!(etc.join("passwd").exists() && !sandbox.path("upper/etc/new").exists());
    // What the mount's own options say holds for it.
    let mut sandbox = Sandbox::script("stat -c '%a %u %g' /etc; ls /etc");
    sandbox.plan.mounts.push(PlanMount { copy_up: true, ..tmpfs("/etc", 0, "mode=711,uid=7") });
    assert_eq!(sandbox.run().stdout, "711 7 0\ngroup\npasswd\n");
}

fn what_can_not_be_copied_into_a_tmpfs_is_named() {
    let mut sandbox = Sandbox::script("exit 0");
    let directory = sandbox.path("root/etc/d");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("large"), vec![1; 1 << 20]).unwrap();
    sandbox.plan.mounts.push(PlanMount { copy_up: true, ..tmpfs("/etc", 0, "size=64k") });
    let error = sandbox.error().to_string();
    assert!(error.contains("/etc/d/large: No space left"), "{error}");
}

fn options_that_the_kernel_does_not_take_are_told() {
    let mut sandbox = Sandbox::script("exit 0");
    let lower = sandbox.path("root").display().to_string();
    sandbox.plan.mounts.push(PlanMount {
        kind: "overlay".to_owned(),
        source: "overlay".to_owned(),
        destination: "/data".to_owned(),
        data: format!("lowerdir={lower}:{lower}/etc,nope=1"),
        ..PlanMount::default()
    });
    let error = sandbox.error().to_string();
    assert!(error.contains("/data") && error.contains("nope=1"), "{error}");
}

fn a_tmpfs_has_the_mode_of_what_it_covers() {
    let mut sandbox = Sandbox::script("stat -c %a /tmp /etc /new");
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(sandbox.path("root/tmp"), mode(0o2751)).unwrap();
    sandbox.plan.mounts.extend([
        tmpfs("/tmp", 0, "size=1m"),
        tmpfs("/etc", 0, "mode=700"),
        tmpfs("/new", 1, ""),
    ]);
    assert_eq!(sandbox.run().stdout, "2751\n700\n755\n");
}

fn any_file_system_and_its_own_options() {
    let mut sandbox = Sandbox::script(
        "touch /ram/x && echo made; grep -E ' /(ram|tmp|merged) ' /proc/self/mountinfo | while read a b c d path flags rest; do echo $path $flags ${rest#*- }; done; cat /merged/mark",
    );
    let layers: Vec<String> = (0..8)
        .map(|index| {
            let layer = sandbox.path(&format!("{}{index}", "long".repeat(20)));
            std::fs::create_dir(&layer).unwrap();
            std::fs::write(layer.join("mark"), index.to_string()).unwrap();
            layer.to_str().unwrap().to_owned()
        })
        .collect();
    let file_system = |kind: &str, destination: &str, flags, data: &str| PlanMount {
        kind: kind.to_owned(),
        source: kind.to_owned(),
        ..tmpfs(destination, flags, data)
    };
    sandbox.plan.mounts.extend([
        file_system("ramfs", "/ram", 2, "mode=755"),
        // sync, lazytime
        file_system("tmpfs", "/tmp", 1 << 4 | 1 << 25, "size=1m"),
        file_system("overlay", "/merged", 1, &format!("lowerdir={}", layers.join(":"))),
    ]);
    let outcome = sandbox.run();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines[..2], ["made", "/ram rw,nosuid,relatime ramfs ramfs rw"]);
    assert!(lines[2].starts_with("/tmp rw,relatime tmpfs tmpfs rw,sync,lazytime"), "{outcome:?}");
    assert!(
        lines[3].starts_with("/merged ro,relatime overlay overlay ro,lowerdir="),
        "{outcome:?}"
    );
    assert_eq!(lines[4], "0");
    sandbox.plan.mounts.push(file_system("nosuchfs", "/x", 0, ""));
    let error = sandbox.error().to_string();
    assert!(
        error.contains("\"/x\"): type \"nosuchfs\" of the mount at \"/x\": this kernel has no"),
        "{error}"
    );
    sandbox.plan.mounts.pop();
    sandbox.plan.mounts.push(file_system("tmpfs", "/x", 0, "nosuchoption=1"));
    let error = sandbox.error().to_string();
    let place = format!("mounts[{}] (\"tmpfs\" at \"/x\"): ", sandbox.plan.mounts.len() - 1);
    let expected = format!("{place}set the option nosuchoption=1 of tmpfs: ");
    assert!(error.starts_with(&expected), "{error}");
    sandbox.plan.mounts.pop();
    // What only the kernel finds, in each of the ways to mount: new calls, the old call, a bind, a
    // remount.
    let lower = sandbox.path("layer0").to_str().unwrap().to_owned();
    for mount in [
        file_system("tmpfs", "/x", 0, "mpol=nonsense"),
        file_system("overlay", "/x", 0, &format!("lowerdir={lower}-nowhere")),
        PlanMount { source: lower.clone(), ..bind(&sandbox, BIND | REC) },
        PlanMount { source: String::new(), ..file_system("tmpfs", "/nowhere", REMOUNT | BIND, "") },
    ] {
        let index = sandbox.plan.mounts.len();
        sandbox.plan.mounts.push(mount.clone());
        let error = sandbox.error().to_string();
        assert!(error.starts_with(&format!("mounts[{index}]")), "{error}");
        assert!(error.contains(&mount.source) && error.contains(&mount.destination), "{error}");
        sandbox.plan.mounts.pop();
    }
    let (directory, file) = (sandbox.path("layer0"), sandbox.path("a-file"));
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(&file, "").unwrap();
    for (source, destination, expected) in [
        (&directory, "/bin/sh", "it is a directory, and what it would cover is none"),
        (&file, "/bin", "its source is no directory, and what it would cover is one"),
    ] {
        let source = source.to_str().unwrap().to_owned();
        let destination = destination.to_owned();
        let index = sandbox.plan.mounts.len();
        let place = format!("mounts[{index}] ({source:?} at {destination:?})");
        let expected = format!("{place}: mount at {destination:?}: {expected}");
        let mount = PlanMount { source, destination, ..bind(&sandbox, BIND | REC) };
        sandbox.plan.mounts.push(mount);
        assert_eq!(sandbox.error().to_string(), expected);
        sandbox.plan.mounts.pop();
    }
}

fn what_is_there_is_changed_by_a_remount() {
    let mut sandbox = Sandbox::script(
        "touch /tmp/x || echo refused; touch /data/x || echo refused
         grep -E ' /(tmp|data) ' /proc/self/mountinfo | while read a b c d path flags rest; do echo $path $flags; done",
    );
    let remount = |destination: &str, kind: &str, flags: u64, data: &str| PlanMount {
        kind: kind.to_owned(),
        source: String::new(),
        ..tmpfs(destination, flags | 0x20, data)
    };
    sandbox.plan.mounts.push(tmpfs("/tmp", 2, "size=1m"));
    sandbox.plan.mounts.push(bind(&sandbox, BIND | REC | 2));
    sandbox.plan.mounts.push(remount("/tmp", "tmpfs", 1, "size=2m"));
    sandbox.plan.mounts.push(remount("/data", "bind", BIND | 1 | 8, ""));
    let outcome = sandbox.run();
    assert_eq!(
        outcome.stdout, "refused\nrefused\n/tmp ro,relatime\n/data ro,noexec,relatime\n",
        "{outcome:?}"
    );
    assert!(sandbox.host_is_untouched());
    sandbox.plan.mounts.push(remount("/etc", "bind", BIND | 1, ""));
    let error = sandbox.error().to_string();
    assert!(error.contains("/etc"), "{error}");
}

fn the_root_travels_as_the_plan_says() {
    const SHARED: u64 = 1 << 20;
    const UNBINDABLE: u64 = 1 << 17;
    support::leave_the_machines_mount_table();
    let table = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    for (propagation, root, proc) in [
        (0, "", ""),
        (1 << 18, "", ""),
        (SHARED, "shared", ""),
        (SHARED | REC, "shared", "shared"),
        (UNBINDABLE, "unbindable", ""),
    ] {
        let mut sandbox = Sandbox::script(
            "while read a b c d path flags tag rest; do case $path in /|/proc) echo $path ${tag%%:*};; esac; done < /proc/self/mountinfo",
        );
        sandbox.plan.root_propagation = propagation;
        let before = table();
        let outcome = sandbox.run();
        let tag = |tag: &str| if tag.is_empty() { "-".to_owned() } else { tag.to_owned() };
        let expected = format!("/ {}\n/proc {}\n", tag(root), tag(proc));
        assert_eq!(outcome.stdout, expected, "{propagation:#x}: {outcome:?}");
        assert_eq!(table(), before);
    }
}

fn the_unified_hierarchy_alone() {
    let mut sandbox = Sandbox::script("cat /sys/fs/cgroup/cgroup.procs | head -n 1");
    for mount in &mut sandbox.plan.mounts {
        if mount.kind == "cgroup" {
            mount.kind = "cgroup2".to_owned();
        }
    }
    match sandbox.layout.unified() {
        Some(_) => assert_eq!(sandbox.run().stdout, "1\n"),
        None => assert_eq!(sandbox.error().kind(), Kind::Refused),
    }
}

fn a_label_needs_selinux() {
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        return;
    }
    let mut sandbox = Sandbox::new();
    sandbox.plan.mount_label = "system_u:object_r:container_file_t:s0".to_owned();
    let error = sandbox.error();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.to_string().starts_with("linux.mountLabel: "), "{error}");
}

fn a_read_only_procfs_keeps_from_nothing_that_is_asked_for() {
    let mut sandbox = Sandbox::script(
        "cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_forward
         echo 5 2>/dev/null > /proc/self/oom_score_adj || echo kept",
    );
    let procfs = sandbox.plan.mounts.iter_mut().find(|mount| mount.kind == "proc").unwrap();
    procfs.flags |= 1;
    sandbox.process().oom_score_adj = Some(77);
    sandbox.plan.sysctls = vec![shim_wire::plan::Sysctl {
        path: "net/ipv4/ip_forward".to_owned(),
        value: "1".to_owned(),
    }];
    let outcome = sandbox.run();
    assert_eq!(outcome.stdout, "77\n1\nkept\n", "{outcome:?}");
}

fn a_read_only_tmpfs_is_filled_first() {
    for user in [0, 0x1000_0000] {
        let mut sandbox = Sandbox::script(
            "pwd; cat /data/bound/file; ls -d /dev/pts /dev/null
             touch /data/x 2>/dev/null || touch /dev/x 2>/dev/null || echo kept
             touch /dev/shm/x /data/bound/made && echo made",
        );
        sandbox.options.clone_flags |= user;
        sandbox.plan.uid_mappings = mapping(100_000);
        sandbox.plan.gid_mappings = mapping(100_000);
        sandbox.plan.rootfs.as_mut().unwrap().idmap = user != 0;
        sandbox.process().cwd = "/data/work/here".to_owned();
        let dev = sandbox.plan.mounts.iter_mut().find(|mount| mount.destination == "/dev");
        dev.unwrap().flags |= 1;
        std::fs::write(sandbox.path("host/file"), "bound\n").unwrap();
        rustix::fs::chmod(sandbox.path("host"), 0o777.into()).unwrap();
        sandbox.plan.mounts.push(tmpfs("/data", 1, ""));
        let inside = bind(&sandbox, BIND | REC);
        sandbox.plan.mounts.push(PlanMount { destination: "/data/bound".to_owned(), ..inside });
        let outcome = sandbox.run();
        assert_eq!(
            outcome.stdout, "/data/work/here\nbound\n/dev/null\n/dev/pts\nkept\nmade\n",
            "{user:#x}: {outcome:?}"
        );
    }
}

fn a_tmpfs_that_is_read_only_with_all_below_it() {
    for copy_up in [false, true] {
        let mut sandbox = Sandbox::script("ls /etc; touch /etc/x 2>/dev/null || echo kept");
        sandbox.plan.mounts.push(PlanMount {
            recursive_set: 0x1 | 0x8,
            copy_up,
            ..tmpfs("/etc", 0, "")
        });
        let outcome = sandbox.run();
        let found = if copy_up { "group\npasswd\n" } else { "" };
        assert_eq!(outcome.stdout, format!("{found}kept\n"), "{outcome:?}");
    }
    // The other way around, the attribute has the last word.
    let mut sandbox = Sandbox::script("touch /data/x && echo made");
    sandbox.plan.mounts.push(PlanMount { recursive_cleared: 0x1, ..tmpfs("/data", 1, "") });
    assert_eq!(sandbox.run().stdout, "made\n");
}

fn a_remount_has_the_last_word_on_a_tmpfs() {
    let mut sandbox = Sandbox::script("touch /data/x && echo made");
    sandbox.plan.mounts.push(tmpfs("/data", 1, ""));
    sandbox.plan.mounts.push(tmpfs("/data/", 0x20 | BIND, ""));
    assert_eq!(sandbox.run().stdout, "made\n");
}
