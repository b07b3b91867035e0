//! Containers really made: what their first process finds, and what the host does not. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "of the tests' support only a part is used here")]

use std::os::fd::AsFd;
use std::process::ExitCode;

use shim_runtime::{Kind, ProcessIo};
use shim_wire::plan::{Resources, Rootfs, User};

#[path = "support/runner.rs"]
mod runner;
#[path = "support/mod.rs"]
mod support;

use support::{Sandbox, finish, kill, read, wait};

fn main() -> ExitCode {
    runner::main(runner::tests![
        exit_codes_and_output_come_through,
        a_signal_is_the_end_it_was,
        namespaces_are_its_own,
        mounts_stay_out_of_the_hosts_table,
        masked_paths_are_empty_and_read_only_ones_refuse,
        a_command_that_is_missing_or_no_program_is_told_apart,
        the_user_is_the_rootfs_own,
        home_and_working_directory,
        no_descriptor_leaks_in,
        stdin_is_null_or_held_open,
        a_terminal_controls_its_session,
        a_terminal_can_be_its_input_too,
        limits_and_groups,
        a_refused_limit_leaves_nothing,
        too_little_memory_to_start_in_is_named,
        dropped_before_its_start_it_ends,
        the_mount_namespace_outlives_the_process,
        a_container_dies_with_whoever_made_it,
        capabilities_are_as_given,
        a_read_only_root_refuses,
        a_directory_is_bound_as_root,
        layers_without_an_upper_directory_are_a_view,
        the_hosts_own_tree_below_an_overlay,
        layers_with_odd_and_long_names,
        kernels_that_can_not_change_detached_mounts,
        without_a_cgroup_namespace_only_its_own_groups_are_seen,
        network_is_handed_over,
        namespaces_are_joined_by_path,
        what_is_no_such_namespace_is_refused_by_its_path,
        clocks_of_its_own,
        init_reaps_and_passes_signals_on,
        the_host_is_told_apart_by_names,
        kernel_parameters_of_its_own_namespaces,
        mounts_travel_only_where_the_plan_says,
        resource_limits_umask_and_oom_score,
        a_frozen_group_is_refused_at_once,
        a_group_that_is_frozen_meanwhile_is_undone,
    ])
}

fn exit_codes_and_output_come_through() {
    let outcome = Sandbox::script("echo out; echo err >&2; exit 42").run();
    assert_eq!((outcome.code, &*outcome.stdout, &*outcome.stderr), (42, "out\n", "err\n"));
}

fn a_signal_is_the_end_it_was() {
    let sandbox = Sandbox::script("sleep 100");
    let created = sandbox.start();
    kill(&created.process.pidfd);
    assert_eq!(wait(&created.process.pidfd), 128 + 9);
}

fn namespaces_are_its_own() {
    let kinds = ["mnt", "uts", "ipc", "pid", "net", "cgroup"];
    let script = kinds.map(|kind| format!("readlink /proc/self/ns/{kind};")).concat();
    let outcome = Sandbox::script(&script).run();
    let inside: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(inside.len(), kinds.len(), "{outcome:?}");
    for (kind, inside) in kinds.iter().zip(inside) {
        let outside = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(outside.to_str().unwrap(), inside);
    }
    let outcome =
        Sandbox::script("echo $$; hostname; ip -o addr show lo; cat /proc/self/cgroup").run();
    assert!(outcome.stdout.starts_with("1\nbox\n"), "{outcome:?}");
    assert!(outcome.stdout.contains("127.0.0.1/8"), "{outcome:?}");
    let groups = outcome.stdout.lines().filter(|line| line.contains(":/"));
    assert!(groups.clone().count() > 0);
    assert!(groups.into_iter().all(|line| line.ends_with(":/")), "{outcome:?}");
}

fn mounts_stay_out_of_the_hosts_table() {
    support::leave_the_machines_mount_table();
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut sandbox = Sandbox::script("cat /proc/self/mountinfo; read wait");
    sandbox.options.stdin = true;
    let created = sandbox.start();
    support::expect_no_new_mount(&before);
    let outcome = finish(created.process);
    let mounts: Vec<&str> =
        outcome.stdout.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
    assert_eq!(mounts[0], "/", "the host's root is gone: {mounts:?}");
    for path in ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/shm"] {
        assert!(mounts.contains(&path), "{path}: {mounts:?}");
    }
    let host = sandbox.path("").to_str().unwrap().to_owned();
    assert!(!mounts.iter().any(|path| path.contains(&host)), "{mounts:?}");
    assert!(!outcome.stdout.contains("shared:"), "{}", outcome.stdout);
}

fn masked_paths_are_empty_and_read_only_ones_refuse() {
    let outcome = Sandbox::script(
        "cat /proc/keys /proc/interrupts | wc -c
         stat -c '%t:%T' /proc/keys
         ls -A /proc/scsi /sys/firmware 2>/dev/null | grep -v : | wc -w
         echo 1 > /proc/sys/vm/swappiness && echo written
         echo 1 > /proc/irq/default_smp_affinity && echo written
         mkdir /sys/fs/cgroup/x && echo written
         touch /proc/acpi/x && echo written
         chmod 0 /proc/keys && echo changed
         exit 0",
    )
    .run();
    assert_eq!(outcome.stdout, "0\n1:3\n0\n", "{outcome:?}");
    let null = std::fs::metadata("/dev/null").unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&null.permissions()) & 0o777, 0o666);
}

fn a_command_that_is_missing_or_no_program_is_told_apart() {
    let error = |command: &str| {
        let mut sandbox = Sandbox::new();
        let file = sandbox.path("root/bin/script");
        std::fs::write(&file, "#!/no/such/interpreter\n").unwrap();
        executable(&file);
        let data = sandbox.path("root/bin/data");
        std::fs::write(&data, [0; 64]).unwrap();
        executable(&data);
        sandbox.process().args = vec![command.to_owned()];
        sandbox.error()
    };
    for (command, kind) in [
        ("nope", Kind::CommandNotFound),
        ("/bin/nope", Kind::CommandNotFound),
        ("/bin/script", Kind::CommandNotFound),
        ("/etc", Kind::CommandNotExecutable),
        ("/etc/passwd", Kind::CommandNotExecutable),
        ("data", Kind::CommandNotExecutable),
    ] {
        let error = error(command);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(command), "{error}");
    }
}

fn executable(path: &std::path::Path) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

fn the_user_is_the_rootfs_own() {
    let id = |name: &str| {
        let mut sandbox = Sandbox::script("id -u; id -g; id -G; touch /dev/stdout && echo own");
        sandbox.process().user = Some(User { name: name.to_owned(), ..User::default() });
        sandbox.run().stdout
    };
    assert_eq!(id("app"), "1000\n1000\n1000 29\nown\n");
    assert_eq!(id("1000:5"), "1000\n5\n5 29\nown\n");
    assert_eq!(id("4711"), "4711\n0\n0\nown\n");
    let mut sandbox = Sandbox::new();
    for name in ["nobody-here", "4294967296", "-1", ":1", "app:nope"] {
        sandbox.process().user = Some(User { name: name.to_owned(), ..User::default() });
        assert_eq!(sandbox.error().kind(), Kind::BadUser, "{name}");
    }
}

fn home_and_working_directory() {
    let mut sandbox = Sandbox::script("pwd; echo $HOME");
    sandbox.process().cwd = "/made/on/the/way".to_owned();
    sandbox.process().user = Some(User { name: "app".to_owned(), ..User::default() });
    assert_eq!(sandbox.run().stdout, "/made/on/the/way\n/home/app\n");
    let variables = |own: &[&str]| own.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let before = sandbox.process().env.clone();
    for (own, home) in [(&["HOME=/a", "HOME="][..], "/home/app"), (&["HOME=", "HOME=/a"], "/a")] {
        sandbox.process().env = [before.clone(), variables(own)].concat();
        assert_eq!(sandbox.run().stdout, format!("/made/on/the/way\n{home}\n"), "{own:?}");
    }
    for cwd in ["/proc/self/fd/3", "/proc/self/cwd", "/etc/passwd", "/bin/sh/x"] {
        sandbox.process().cwd = cwd.to_owned();
        assert_eq!(sandbox.error().kind(), Kind::BadCwd, "{cwd}");
    }
    let mut sandbox = Sandbox::script("exit 0");
    for number in 3..64 {
        sandbox.process().cwd = format!("/proc/self/fd/{number}");
        assert_eq!(sandbox.error().kind(), Kind::BadCwd);
    }
}

fn no_descriptor_leaks_in() {
    // One that is inherited by every exec, as a careless caller would have it.
    let leak = std::fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let outcome = Sandbox::script("ls /proc/1/fd; readlink /proc/1/fd/0").run();
    // 3 is busybox' own: the directory that it lists, or the script.
    let found: Vec<&str> = outcome.stdout.split_whitespace().collect();
    assert_eq!(found[..3], ["0", "1", "2"], "{outcome:?}");
    assert_eq!(found[3..], ["/dev/null"], "{outcome:?}");
}

fn stdin_is_null_or_held_open() {
    assert_eq!(Sandbox::script("cat | wc -c; stat -Lc %t:%T /dev/stdin").run().stdout, "0\n1:3\n");
    let mut sandbox = Sandbox::script("cat");
    sandbox.options.stdin = true;
    let created = sandbox.start();
    let ProcessIo::Pipes { stdin: Some(stdin), stdout, stderr: _ } = created.process.io else {
        panic!("no pipes");
    };
    rustix::io::write(&stdin, b"through").unwrap();
    drop(stdin);
    assert_eq!(read(stdout), "through");
    assert_eq!(wait(&created.process.pidfd), 0);
}

fn a_terminal_controls_its_session() {
    let mut sandbox = Sandbox::script(
        "readlink /proc/1/fd/0; readlink /proc/1/fd/1; tty </dev/tty; stty size </dev/tty; echo x >/dev/console",
    );
    sandbox.options.terminal = true;
    sandbox.options.width = 120;
    sandbox.options.height = 40;
    sandbox.process().terminal = true;
    let outcome = sandbox.run();
    assert_eq!(
        outcome.stdout, "/dev/pts/0\r\n/dev/pts/0\r\n/dev/tty\r\n40 120\r\nx\r\n",
        "{outcome:?}"
    );
    assert_eq!(outcome.code, 0);
}

fn a_terminal_can_be_its_input_too() {
    let mut sandbox = Sandbox::script("tty; read line; echo got $line");
    sandbox.options.terminal = true;
    sandbox.options.stdin = true;
    let created = sandbox.start();
    let ProcessIo::Terminal { master } = &created.process.io else { panic!("no terminal") };
    rustix::io::write(master, b"hello\n").unwrap();
    let outcome = finish(created.process);
    assert!(outcome.stdout.contains("/dev/pts/0"), "{outcome:?}");
    assert!(outcome.stdout.contains("got hello"), "{outcome:?}");
}

fn limits_and_groups() {
    let mut sandbox = Sandbox::script("dd if=/dev/zero of=/dev/shm/hog bs=1M count=32; exit 3");
    sandbox.options.resources = Some(Resources {
        memory: Some(8 << 20),
        pids: Some(20),
        cpu_quota: Some(50_000),
        ..Resources::default()
    });
    let created = sandbox.start();
    let group = sandbox.cgroup();
    assert!(group.paths().iter().all(|path| path.exists()));
    let outcome = finish(created.process);
    assert_eq!(outcome.code, 3, "{outcome:?}");
    assert!(group.oom_kills().unwrap() >= 1, "{outcome:?}");
    let mut sandbox = Sandbox::script("for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; exit 0");
    sandbox.options.resources = Some(Resources { pids: Some(4), ..Resources::default() });
    assert!(sandbox.run().stderr.contains("fork"));
}

fn too_little_memory_to_start_in_is_named() {
    let mut sandbox = Sandbox::new();
    sandbox.options.resources = Some(Resources { memory: Some(4096), ..Resources::default() });
    let error = sandbox.error();
    assert_eq!(error.kind(), Kind::LimitRefused, "{error}");
    let said = error.to_string();
    assert!(said.starts_with("linux.resources.memory.limit: 4096: too little memory"), "{said}");
    assert!(!sandbox.cgroup().exists());
}

fn a_refused_limit_leaves_nothing() {
    let mut sandbox = Sandbox::new();
    for resources in [
        Resources { memory: Some(1000), ..Resources::default() },
        Resources { cpu_quota: Some(100), ..Resources::default() },
        Resources { cpuset_cpus: "0-999".to_owned(), ..Resources::default() },
    ] {
        sandbox.options.resources = Some(resources);
        let error = sandbox.error();
        assert_eq!(error.kind(), Kind::LimitRefused, "{error}");
        assert!(!sandbox.cgroup().exists());
    }
}

fn dropped_before_its_start_it_ends() {
    let sandbox = Sandbox::script("touch /started");
    let created = sandbox.create().unwrap();
    let pidfd = created.process.pidfd.try_clone().unwrap();
    drop(created);
    assert_eq!(wait(&pidfd), 1);
    assert!(!sandbox.path("upper/started").exists());
}

fn the_mount_namespace_outlives_the_process() {
    let sandbox = Sandbox::script("echo kept > /tmp/file");
    let created = sandbox.start();
    assert_eq!(wait(&created.process.pidfd), 0);
    assert_eq!(std::fs::read_to_string(sandbox.path("upper/tmp/file")).unwrap(), "kept\n");
    rustix::fs::fstat(&created.mount_namespace).unwrap();
    // It is the container's, not ours.
    let own = rustix::fs::stat("/proc/self/ns/mnt").unwrap();
    let kept = rustix::fs::fstat(&created.mount_namespace).unwrap();
    assert_ne!(kept.st_ino, own.st_ino);
}

fn a_container_dies_with_whoever_made_it() {
    for started in [false, true] {
        let mut sandbox = Sandbox::script("sleep 1000");
        sandbox.process().user = Some(User { uid: 1000, gid: 1000, ..User::default() });
        let (read_end, write_end) = rustix::pipe::pipe().unwrap();
        let shim_sys::clone::Cloned::Parent { pid: _, pidfd: maker } =
            shim_sys::clone::clone3(0, None).unwrap()
        else {
            let mut created = sandbox.create().unwrap();
            if started {
                created.process.start().unwrap();
            }
            rustix::io::write(&write_end, &created.process.pid.to_ne_bytes()).unwrap();
            std::thread::sleep(std::time::Duration::from_secs(100));
            shim_sys::exec::exit_now(0)
        };
        let mut pid = [0; 4];
        assert_eq!(rustix::io::read(&read_end, &mut pid).unwrap(), 4);
        let pid = rustix::process::Pid::from_raw(i32::from_ne_bytes(pid)).unwrap();
        let container =
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        kill(&maker);
        wait(&maker);
        let mut ended = [rustix::event::PollFd::new(&container, rustix::event::PollFlags::IN)];
        let deadline = rustix::event::Timespec { tv_sec: 2, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut ended, Some(&deadline)), Ok(1), "{started}");
    }
}

fn capabilities_are_as_given() {
    let status = |user: u32, no_new_privileges: bool| {
        let mut sandbox = Sandbox::script("grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status");
        sandbox.process().user = Some(User { uid: user, gid: user, ..User::default() });
        sandbox.process().no_new_privileges = no_new_privileges;
        // ALLOW: return 0x7fff0000.
        sandbox.process().seccomp = vec![6, 0, 0, 0, 0, 0, 0xff, 0x7f];
        sandbox.run().stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let bounded = "00000000a80425fb";
    let none = "0000000000000000";
    assert_eq!(
        status(0, false),
        format!(
            "CapInh: {none} CapPrm: {bounded} CapEff: {bounded} CapBnd: {bounded} CapAmb: {none} NoNewPrivs: 0 Seccomp: 2"
        )
    );
    assert_eq!(
        status(1000, true),
        format!(
            "CapInh: {none} CapPrm: {none} CapEff: {none} CapBnd: {bounded} CapAmb: {none} NoNewPrivs: 1 Seccomp: 2"
        )
    );
    assert!(status(1000, false).starts_with(&format!("CapInh: {none} CapPrm: {none}")));
}

fn a_read_only_root_refuses() {
    let mut sandbox = Sandbox::script("touch /x || echo refused; touch /dev/shm/x && pwd");
    sandbox.plan.rootfs.as_mut().unwrap().readonly = true;
    sandbox.process().cwd = "/srv".to_owned();
    assert_eq!(sandbox.run().stdout, "refused\n/srv\n");
}

fn a_directory_is_bound_as_root() {
    let mut sandbox = Sandbox::script("touch /made; echo done");
    let directory = sandbox.path("root").to_str().unwrap().to_owned();
    sandbox.plan.rootfs = Some(Rootfs { directory, ..Rootfs::default() });
    assert_eq!(sandbox.run().stdout, "done\n");
    assert!(sandbox.path("root/made").exists());
    sandbox.plan.rootfs = Some(Rootfs { directory: "/no/such".to_owned(), ..Rootfs::default() });
    let error = sandbox.error();
    assert_eq!(error.kind(), Kind::MountSource, "{error}");
    sandbox.plan.rootfs =
        Some(Rootfs { lower: vec!["/no/such/layer".to_owned()], ..Rootfs::default() });
    let error = sandbox.error();
    assert!(error.to_string().contains("/no/such/layer"), "{error}");
}

fn layers_without_an_upper_directory_are_a_view() {
    for count in [1, 2] {
        let mut sandbox = Sandbox::script("touch /x || echo refused");
        let other = sandbox.path("host").to_str().unwrap().to_owned();
        let rootfs = sandbox.plan.rootfs.as_mut().unwrap();
        rootfs.upper.clear();
        rootfs.work.clear();
        rootfs.lower.push(other);
        rootfs.lower.truncate(count);
        assert_eq!(sandbox.run().stdout, "refused\n", "{count} layers");
        assert!(!sandbox.path("root/x").exists());
    }
}

fn the_hosts_own_tree_below_an_overlay() {
    let mut sandbox = Sandbox::script("ls / >/dev/null && touch /bosun-test-made && echo made");
    sandbox.plan.rootfs.as_mut().unwrap().lower = vec!["/".to_owned()];
    assert_eq!(sandbox.run().stdout, "made\n");
    assert!(!std::path::Path::new("/bosun-test-made").exists());
    assert!(sandbox.path("upper/bosun-test-made").exists());
}

/// As before Linux 5.12: the call is not there, and mount(2) has to do.
fn kernels_that_can_not_change_detached_mounts() {
    let mut sandbox = Sandbox::script(
        "stat -c %t:%T /proc/keys; cat /proc/keys | wc -c
         echo 1 > /proc/sys/vm/swappiness && echo written
         touch /proc/acpi/x /sys/fs/cgroup/x /bound/x /x && echo written
         grep -c shared: /proc/self/mountinfo; grep ' /bound ' /proc/self/mountinfo
         exit 0",
    );
    let source = sandbox.path("host").to_str().unwrap().to_owned();
    sandbox.plan.mounts.push(shim_wire::plan::PlanMount {
        destination: "/bound".to_owned(),
        kind: "bind".to_owned(),
        source,
        flags: 0x5000 | 1 | 4,
        ..Default::default()
    });
    sandbox.plan.rootfs.as_mut().unwrap().readonly = true;
    let expected = sandbox.run().stdout;
    let (before, _) = expected.split_once("0\n").unwrap();
    assert!(before.ends_with("1:3\n") && expected.contains(" ro,nodev"), "{expected}");
    refuse_system_call(442);
    let found = sandbox.run().stdout;
    let strip = |text: &str| -> Vec<String> {
        // Of a mount, all but the numbers of itself, its parent and its device.
        let skip = |line: &str| if line.contains(" - ") { 3 } else { 0 };
        text.lines().map(|line| line.split(' ').skip(skip(line)).collect()).collect()
    };
    assert_eq!(strip(&found), strip(&expected), "{found}");
    assert_eq!(found.lines().count(), expected.lines().count(), "{found}");
    assert!(sandbox.host_is_untouched());
}

/// Makes a system call of this process one that its kernel does not have.
fn refuse_system_call(number: u32) {
    let instruction = |code: u16, jt: u8, jf: u8, k: u32| {
        let mut bytes = code.to_ne_bytes().to_vec();
        bytes.extend([jt, jf]);
        bytes.extend(k.to_ne_bytes());
        bytes
    };
    let program = [
        instruction(0x20, 0, 0, 0),
        instruction(0x15, 0, 1, number),
        instruction(0x06, 0, 0, 0x0005_0000 | 38),
        instruction(0x06, 0, 0, 0x7fff_0000),
    ];
    shim_sys::seccomp::install_filter(&program.concat(), 0).unwrap();
}

fn layers_with_odd_and_long_names() {
    let long = format!("{}/{}", "a".repeat(200), "b".repeat(200));
    for name in ["comma,colon:back\\slash", "lowerdir=x", &*long] {
        let mut sandbox = Sandbox::script("cat /mark; touch /made");
        let layer = sandbox.path(name);
        let upper = sandbox.path(&format!("{name}-up"));
        for directory in [&layer, &upper] {
            std::fs::create_dir_all(directory).unwrap();
        }
        std::fs::write(layer.join("mark"), "lower\n").unwrap();
        let rootfs = sandbox.plan.rootfs.as_mut().unwrap();
        rootfs.lower.insert(0, layer.to_str().unwrap().to_owned());
        rootfs.upper = upper.to_str().unwrap().to_owned();
        rootfs.volatile = true;
        assert_eq!(sandbox.run().stdout, "lower\n", "{name}");
        assert!(upper.join("made").exists(), "{name}");
    }
}

fn without_a_cgroup_namespace_only_its_own_groups_are_seen() {
    let mut sandbox = Sandbox::script(
        "cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs 2>/dev/null | sort -u",
    );
    sandbox.options.clone_flags &= !0x0200_0000;
    sandbox.options.new_cgroup_namespace = false;
    sandbox.plan.new_cgroup_namespace = false;
    let outcome = sandbox.run();
    let (groups, pids): (Vec<&str>, Vec<&str>) =
        outcome.stdout.lines().partition(|line| line.contains(':'));
    assert!(groups.iter().all(|line| line.ends_with(&sandbox.options.cgroup)), "{outcome:?}");
    assert!(pids.contains(&"1") && !pids.contains(&"0"), "{outcome:?}");
}

fn network_is_handed_over() {
    let mut other = Sandbox::script("read wait");
    other.options.stdin = true;
    let holder = other.start();
    let path = format!("/proc/{}/ns/net", holder.process.pid);
    let network = std::fs::File::open(&path).unwrap();
    let expected = std::fs::read_link(&path).unwrap();
    let mut sandbox = Sandbox::script("readlink /proc/self/ns/net");
    sandbox.options.clone_flags &= !0x4000_0000;
    sandbox.options.join = vec![shim_wire::plan::Join { kind: 0x4000_0000, ..Default::default() }];
    sandbox.plan.loopback = false;
    let mut created = sandbox.create_in(Some(network.as_fd())).unwrap();
    created.process.start().unwrap();
    assert_eq!(finish(created.process).stdout.trim(), expected.to_str().unwrap());
    let error = sandbox.create().unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    drop(sandbox);
    sandbox = Sandbox::script("readlink /proc/self/ns/net");
    sandbox.options.clone_flags &= !0x4000_0000;
    sandbox.options.join = vec![shim_wire::plan::Join { kind: 0x4000_0000, path, index: 4 }];
    sandbox.plan.loopback = false;
    assert_eq!(sandbox.run().stdout.trim(), expected.to_str().unwrap());
    assert_eq!(finish(holder.process).code, 1);
}

/// All kinds but two: a mount namespace is set up as well (`bosun-oci`'s tests), and a user namespace is
/// another matter.
fn namespaces_are_joined_by_path() {
    let mut other = Sandbox::script("read wait");
    other.options.stdin = true;
    other.options.clone_flags |= 0x80;
    let holder = other.start();
    let kinds = [
        ("uts", 0x400_0000),
        ("ipc", 0x800_0000),
        ("pid", 0x2000_0000),
        ("net", 0x4000_0000),
        ("cgroup", 0x200_0000),
        ("time", 0x80),
    ];
    let path = |name: &str| format!("/proc/{}/ns/{name}", holder.process.pid);
    for (name, kind) in kinds {
        let mut sandbox = Sandbox::script(&format!("readlink /proc/self/ns/{name}"));
        sandbox.options.clone_flags &= !kind;
        sandbox.options.join = vec![shim_wire::plan::Join { kind, path: path(name), index: 2 }];
        if name == "uts" {
            sandbox.plan.hostname.clear();
        }
        if name == "cgroup" {
            sandbox.options.new_cgroup_namespace = false;
            sandbox.plan.new_cgroup_namespace = false;
        }
        let expected = std::fs::read_link(path(name)).unwrap();
        let outcome = sandbox.run();
        assert_eq!(outcome.stdout.trim(), expected.to_str().unwrap(), "{name}: {outcome:?}");
    }
    drop(holder);
}

fn what_is_no_such_namespace_is_refused_by_its_path() {
    let fifo = Sandbox::new();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, fifo.path("fifo"), kind, mode, 0).unwrap();
    for (path, why) in [
        ("/etc/passwd", "not a namespace"),
        (fifo.path("fifo").to_str().unwrap(), "not a namespace"),
        ("/proc/self/ns/uts", "a namespace of another kind"),
        ("/no/such/namespace", "No such file"),
    ] {
        let mut sandbox = Sandbox::new();
        sandbox.options.clone_flags &= !0x4000_0000;
        let path = path.to_owned();
        sandbox.options.join = vec![shim_wire::plan::Join { kind: 0x4000_0000, path, index: 3 }];
        let error = sandbox.error();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        let text = error.to_string();
        assert!(text.contains("linux.namespaces[3].path") && text.contains(why), "{text}");
        assert!(!sandbox.cgroup().exists());
    }
}

fn clocks_of_its_own() {
    let offset = |clock: &str, seconds| shim_wire::plan::TimeOffset {
        clock: clock.to_owned(),
        seconds,
        nanoseconds: 0,
    };
    let mut sandbox =
        Sandbox::script("cat /proc/uptime /proc/self/timens_offsets; readlink /proc/self/ns/time");
    sandbox.options.clone_flags |= 0x80;
    sandbox.plan.time_offsets = vec![offset("boottime", 1_000_000), offset("monotonic", 7)];
    let outcome = sandbox.run();
    let uptime = |text: &str| -> f64 { text.split(['.', ' ']).next().unwrap().parse().unwrap() };
    let host = uptime(&std::fs::read_to_string("/proc/uptime").unwrap());
    let ahead = uptime(&outcome.stdout) - host;
    assert!((999_990.0..1_000_010.0).contains(&ahead), "{outcome:?}");
    assert!(outcome.stdout.contains("monotonic           7         0"), "{outcome:?}");
    let own = std::fs::read_link("/proc/self/ns/time").unwrap();
    assert!(!outcome.stdout.contains(own.to_str().unwrap()), "{outcome:?}");
    sandbox.plan.time_offsets = vec![offset("boottime", -(1 << 40))];
    let error = sandbox.error().to_string();
    assert!(
        error.contains("set linux.timeOffsets.boottime to -1099511627776 s and 0 ns: "),
        "{error}"
    );
    assert_eq!(std::fs::read_link("/proc/self/ns/time").unwrap(), own);
}

/// With the host's own tree, because this test program is not static.
fn init_reaps_and_passes_signals_on() {
    let mut sandbox = Sandbox::script(
        "trap 'echo term; exit 7' TERM; (sleep 0.05 &); echo $$; sleep 0.3
         grep -l '^State:.Z' /proc/[0-9]*/status; echo ready; while :; do sleep 0.01; done",
    );
    sandbox.plan.rootfs.as_mut().unwrap().lower = vec!["/".to_owned()];
    sandbox.process().init = true;
    let created = sandbox.start();
    let ProcessIo::Pipes { stdin: _, stdout, stderr: _ } = created.process.io else {
        panic!("no pipes");
    };
    let mut text = String::new();
    let mut bytes = [0; 256];
    while !text.contains("ready") {
        let count = rustix::io::read(&stdout, &mut bytes).unwrap();
        assert_ne!(count, 0, "{text}");
        text += std::str::from_utf8(&bytes[..count]).unwrap();
    }
    assert_eq!(text, "2\nready\n", "pid 2, and no zombies");
    let exe = format!("/proc/{}/exe", created.process.pid);
    let written = std::fs::OpenOptions::new().write(true).open(&exe).unwrap_err();
    assert!(written.to_string().contains("Read-only") || written.raw_os_error() == Some(26));
    rustix::process::pidfd_send_signal(&created.process.pidfd, rustix::process::Signal::TERM)
        .unwrap();
    assert_eq!(wait(&created.process.pidfd), 7);
    sandbox.process().args = vec!["/bin/sh".to_owned(), "-c".to_owned(), "kill -9 $$".to_owned()];
    let outcome = sandbox.run();
    assert_eq!(outcome.code, 128 + 9);
}

fn the_host_is_told_apart_by_names() {
    let before = rustix::system::uname();
    let mut sandbox = Sandbox::script("hostname; cat /proc/sys/kernel/domainname");
    sandbox.plan.domainname = "example".to_owned();
    assert_eq!(sandbox.run().stdout, "box\nexample\n");
    sandbox.options.clone_flags &= !0x0400_0000;
    assert_eq!(sandbox.error().kind(), Kind::Refused);
    assert_eq!(rustix::system::uname().nodename(), before.nodename());
}

fn kernel_parameters_of_its_own_namespaces() {
    let mut sandbox = Sandbox::script("cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
    let sysctl = |path: &str, value: &str| shim_wire::plan::Sysctl {
        path: path.to_owned(),
        value: value.to_owned(),
    };
    sandbox.plan.sysctls = vec![sysctl("net/ipv4/ip_unprivileged_port_start", "77")];
    assert_eq!(sandbox.run().stdout, "77\n");
    for (path, value) in
        [("kernel/sysrq", "0"), ("net/../kernel/sysrq", "0"), ("net/ipv4/ip_forward", "1\n1")]
    {
        sandbox.plan.sysctls = vec![sysctl(path, value)];
        assert_eq!(sandbox.error().kind(), Kind::Refused, "{path}");
    }
}

/// In a mount namespace of the test's own, so that nothing reaches the machine's.
fn mounts_travel_only_where_the_plan_says() {
    use rustix::mount::{MountFlags, MountPropagationFlags as Propagation, mount, mount_change};
    const SHARED: u64 = 1 << 20;
    const SLAVE: u64 = 1 << 19;
    support::leave_the_machines_mount_table();
    for (propagation, goes_out, comes_in) in
        [(0, false, false), (SLAVE | 0x4000, false, true), (SHARED | 0x4000, true, true)]
    {
        let mut sandbox = Sandbox::script(
            "mount -t tmpfs inner /bound/inside; echo up; read go; grep -c ' /bound/outside ' /proc/self/mountinfo",
        );
        let host = sandbox.path("host");
        mount("outer", &host, "tmpfs", MountFlags::empty(), None).unwrap();
        mount_change(&host, Propagation::SHARED).unwrap();
        for name in ["inside", "outside"] {
            std::fs::create_dir(host.join(name)).unwrap();
        }
        let capabilities = sandbox.process().capabilities.as_mut().unwrap();
        for set in [&mut capabilities.bounding, &mut capabilities.permitted] {
            *set |= 1 << 21;
        }
        capabilities.effective |= 1 << 21;
        sandbox.options.stdin = true;
        sandbox.plan.mounts.push(shim_wire::plan::PlanMount {
            destination: "/bound".to_owned(),
            kind: "bind".to_owned(),
            source: host.to_str().unwrap().to_owned(),
            flags: 0x5000,
            propagation,
            ..Default::default()
        });
        let created = sandbox.start();
        let ProcessIo::Pipes { stdin: Some(stdin), stdout, stderr: _ } = created.process.io else {
            panic!("no pipes");
        };
        rustix::io::read(&stdout, &mut [0; 16]).unwrap();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(table.contains("/host/inside "), goes_out, "{propagation:#x}");
        mount("late", host.join("outside"), "tmpfs", MountFlags::empty(), None).unwrap();
        drop(stdin);
        assert_eq!(read(stdout).trim() == "1", comes_in, "{propagation:#x}");
        wait(&created.process.pidfd);
        rustix::mount::unmount(&host, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

fn resource_limits_umask_and_oom_score() {
    let mut sandbox = Sandbox::script("ulimit -n; umask; cat /proc/self/oom_score_adj");
    let process = sandbox.process();
    process.rlimits = vec![shim_wire::plan::Rlimit { resource: 7, soft: 123, hard: 456 }];
    process.umask = Some(0o077);
    process.oom_score_adj = Some(500);
    assert_eq!(sandbox.run().stdout, "123\n0077\n500\n");
    sandbox.process().rlimits =
        vec![shim_wire::plan::Rlimit { resource: 7, soft: 1 << 60, hard: 1 << 60 }];
    let error = sandbox.error();
    assert_eq!(error.kind(), Kind::System, "{error}");
    let expected = "set process.rlimits[0] (RLIMIT_NOFILE) to ";
    assert!(error.to_string().starts_with(expected), "{error}");
    sandbox.process().rlimits.clear();
    sandbox.process().oom_score_adj = Some(2000);
    let error = sandbox.error().to_string();
    assert!(error.starts_with("set process.oomScoreAdj to 2000: "), "{error}");
}

/// Nothing could ever run in it, nor be killed.
fn a_frozen_group_is_refused_at_once() {
    let sandbox = Sandbox::new();
    for path in [sandbox.options.cgroup.clone(), sandbox.cgroup_above()] {
        let group = shim_cgroup::Cgroup::new(&sandbox.layout, &path).unwrap();
        group.create(&Resources::default()).unwrap();
        group.freeze(true).unwrap();
        let error = sandbox.create().map(drop).unwrap_err();
        assert!(error.to_string().contains("frozen"), "{error}");
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(support::has_no_children());
        // It is somebody else's, and stays as it was.
        assert!(group.exists());
        group.freeze(false).unwrap();
        assert_eq!(sandbox.run().code, 0);
        sandbox.cgroup().remove(support::soon()).unwrap();
    }
}

fn a_group_that_is_frozen_meanwhile_is_undone() {
    let mut sandbox = Sandbox::new();
    let freezer = sandbox.cgroup().freezer().unwrap();
    let script = format!(
        "cd {}; [ -e freezer.state ] && echo FROZEN > freezer.state || echo 1 > cgroup.freeze; exit 1",
        freezer.display()
    );
    sandbox.hooks.hooks = vec![shim_wire::hooks::Hook {
        kind: shim_wire::hooks::HookKind::CreateRuntime.into(),
        path: "/bin/sh".to_owned(),
        args: ["sh", "-c", &script].map(str::to_owned).to_vec(),
        ..Default::default()
    }];
    let error = sandbox.create().map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::Hook, "{error}");
    assert!(support::has_no_children());
    assert!(!sandbox.cgroup().exists());
}
