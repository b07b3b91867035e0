//! Containers in user namespaces: who they are inside, and who they are to the host. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "of the tests' support only a part is used here")]

use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

use shim_runtime::{Kind, ProcessIo};
use shim_wire::plan::{ExecOptions, IdMapping, Join, PlanMount, Process, Rootfs, User};

#[path = "support/runner.rs"]
mod runner;
#[path = "support/mod.rs"]
mod support;

use support::{Sandbox, finish, kill, wait};

fn main() -> ExitCode {
    runner::main(runner::tests![
        root_inside_is_nobody_outside,
        all_namespaces_belong_to_it,
        an_image_belongs_to_the_containers_root,
        layers_without_an_upper_directory_are_mapped_too,
        a_directory_belongs_to_whom_it_belonged,
        devices_and_masks_are_there,
        users_other_than_root,
        a_terminal_is_the_users,
        the_first_process_has_no_more_than_others,
        an_exec_is_in_it,
        one_is_joined_by_path,
        views_of_namespaces_of_others,
        host_directories_keep_their_owners,
        a_map_that_fills_a_page,
        what_the_host_alone_can_give_is_given,
        it_dies_with_whoever_made_it,
        priorities_that_the_host_alone_can_give,
        the_caller_keeps_nothing,
        errors_are_told_apart,
    ])
}

const FIRST: u32 = 1_000_000;
const USER: u64 = 0x1000_0000;

/// A container of a user namespace, on a layer that a user of the host owns a part of.
fn mapped(script: &str) -> Sandbox {
    let mut sandbox = Sandbox::script(script);
    sandbox.options.clone_flags |= USER;
    let map = vec![IdMapping { inside: 0, outside: FIRST, size: 65_536 }];
    sandbox.plan.uid_mappings = map.clone();
    sandbox.plan.gid_mappings = map;
    sandbox.plan.rootfs.as_mut().unwrap().idmap = true;
    sandbox
}

fn admin(sandbox: &mut Sandbox) {
    let sets = sandbox.process().capabilities.as_mut().unwrap();
    for set in [&mut sets.bounding, &mut sets.permitted, &mut sets.effective] {
        *set |= 1 << 21;
    }
}

fn root_inside_is_nobody_outside() {
    let mut sandbox = mapped("id -u; id -g; cat /proc/self/uid_map; read wait");
    sandbox.options.stdin = true;
    let created = sandbox.start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", created.process.pid)).unwrap();
    assert!(status.contains(&format!("Uid:\t{FIRST}\t{FIRST}\t{FIRST}\t{FIRST}\n")), "{status}");
    assert!(status.contains(&format!("Gid:\t{FIRST}\t{FIRST}\t{FIRST}\t{FIRST}\n")), "{status}");
    assert!(status.contains("Groups:\t1000000 \n"), "{status}");
    let outcome = finish(created.process);
    let words: Vec<&str> = outcome.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "0", "1000000", "65536"], "{outcome:?}");
}

fn all_namespaces_belong_to_it() {
    let kinds = ["user", "mnt", "uts", "ipc", "pid", "net", "cgroup", "time"];
    let links = kinds.map(|kind| format!("readlink /proc/self/ns/{kind};")).concat();
    let mut sandbox = mapped(&format!(
        "{links} hostname other && hostname; mount -t tmpfs t /tmp && touch /tmp/x && echo mounted
         ip link set lo down && echo down; umount /proc/keys 2>/dev/null; cat /proc/self/timens_offsets"
    ));
    sandbox.options.clone_flags |= 0x80;
    sandbox.plan.time_offsets = vec![shim_wire::plan::TimeOffset {
        clock: "boottime".to_owned(),
        seconds: 77,
        nanoseconds: 0,
    }];
    admin(&mut sandbox);
    let sets = sandbox.process().capabilities.as_mut().unwrap();
    for set in [&mut sets.bounding, &mut sets.permitted, &mut sets.effective] {
        *set |= 1 << 12;
    }
    let outcome = sandbox.run();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    for (kind, inside) in kinds.iter().zip(&lines) {
        let outside = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(outside.to_str().unwrap(), *inside, "{outcome:?}");
    }
    assert_eq!(lines[8..11], ["other", "mounted", "down"], "{outcome:?}");
    assert!(outcome.stdout.contains("boottime           77         0"), "{outcome:?}");
}

fn an_image_belongs_to_the_containers_root() {
    let sandbox = mapped(
        "stat -c %u:%g / /etc/passwd /etc/app /bin/busybox; echo x >> /etc/passwd
         touch /made; mkdir /deep; chown 5:6 /made; stat -c %u:%g /made /etc/passwd
         rm /etc/group; ls /etc; mv /usr /usr2; ls -d /usr2/bin",
    );
    let app = sandbox.path("root/etc/app");
    std::fs::write(&app, "").unwrap();
    std::os::unix::fs::chown(&app, Some(1000), Some(1001)).unwrap();
    let outcome = sandbox.run();
    assert_eq!(
        outcome.stdout, "0:0\n0:0\n1000:1001\n0:0\n5:6\n0:0\napp\npasswd\n/usr2/bin\n",
        "{outcome:?}"
    );
    let owner = |name: &str| {
        let found = std::fs::symlink_metadata(sandbox.path(name)).unwrap();
        (found.uid(), found.gid())
    };
    // On disk there is nothing of the mapping: what is written can be committed as a layer.
    assert_eq!(owner("upper/made"), (5, 6));
    assert_eq!(owner("upper/deep"), (0, 0));
    assert_eq!(owner("upper/etc/passwd"), (0, 0));
    assert_eq!(owner("root/etc/app"), (1000, 1001));
    // Again, over what the first run left, without a mapping and with another one.
    let mut again = sandbox;
    again.process().args[2] = "stat -c %u:%g /made /deep; touch /again".to_owned();
    assert_eq!(again.run().stdout, "5:6\n0:0\n");
    again.cgroup().remove(std::time::Instant::now()).unwrap();
    again.plan.uid_mappings[0].outside = 2 * FIRST;
    assert_eq!(again.run().stdout, "5:6\n0:0\n");
    again.cgroup().remove(std::time::Instant::now()).unwrap();
    again.options.clone_flags &= !USER;
    assert_eq!(again.run().stdout, "5:6\n0:0\n");
}

fn layers_without_an_upper_directory_are_mapped_too() {
    for count in [1, 2] {
        let mut sandbox = mapped("stat -c %u /bin /etc; touch /x || echo refused");
        let other = sandbox.path("host").to_str().unwrap().to_owned();
        let rootfs = sandbox.plan.rootfs.as_mut().unwrap();
        rootfs.upper.clear();
        rootfs.work.clear();
        rootfs.lower.push(other);
        rootfs.lower.truncate(count);
        let outcome = sandbox.run();
        assert_eq!(outcome.stdout, "0\n0\nrefused\n", "{count} layers: {outcome:?}");
    }
}

/// As for every OCI runtime: who makes the directory gives it to the container's root, or not.
fn a_directory_belongs_to_whom_it_belonged() {
    let mut sandbox = mapped("stat -c %u / /etc/passwd; touch /x || echo refused");
    let root = sandbox.path("root");
    sandbox.plan.rootfs =
        Some(Rootfs { directory: root.to_str().unwrap().to_owned(), ..Rootfs::default() });
    std::os::unix::fs::chown(&root, Some(FIRST), Some(FIRST)).unwrap();
    let outcome = sandbox.run();
    assert_eq!(outcome.stdout, "0\n65534\n", "{outcome:?}");
    assert_eq!(std::fs::metadata(root.join("x")).unwrap().uid(), FIRST);
}

fn devices_and_masks_are_there() {
    let outcome = mapped(
        "for name in null zero full random urandom tty; do stat -c '%n %t:%T %F' /dev/$name; done
         echo x > /dev/null && head -c 3 /dev/zero | wc -c; readlink /dev/ptmx; readlink /dev/fd
         cat /proc/keys /proc/interrupts | wc -c; stat -c %t:%T /proc/keys; ls -A /sys/firmware
         echo 1 > /proc/sys/vm/swappiness && echo written; touch /sys/fs/cgroup/x && echo written
         stat -c %u /dev /dev/shm /dev/pts /proc/1 /proc; ls /sys/class/net; chmod 0 /dev/null || echo kept",
    )
    .run();
    let kind = "character special file";
    let nodes = [
        ("null", "1:3"),
        ("zero", "1:5"),
        ("full", "1:7"),
        ("random", "1:8"),
        ("urandom", "1:9"),
        ("tty", "5:0"),
    ]
    .map(|(name, number)| format!("/dev/{name} {number} {kind}\n"));
    let rest = "3\npts/ptmx\n/proc/self/fd\n0\n1:3\n0\n0\n0\n0\n65534\nlo\nkept\n";
    assert_eq!(outcome.stdout, nodes.concat() + rest, "{outcome:?}");
}

fn users_other_than_root() {
    let mut sandbox =
        mapped("id -u; id -G; echo again > /dev/stdout; touch /tmp/mine; stat -c %u /tmp/mine");
    let tmp = sandbox.path("root/tmp");
    std::fs::set_permissions(tmp, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    sandbox.process().user = Some(User { name: "app".to_owned(), ..User::default() });
    let outcome = sandbox.run();
    assert_eq!(outcome.stdout, "1000\n1000 29\nagain\n1000\n", "{outcome:?}");
    sandbox.process().user = Some(User { uid: 70_000, ..User::default() });
    let error = sandbox.error();
    assert!(error.to_string().contains("70000"), "{error}");
}

fn a_terminal_is_the_users() {
    let mut sandbox =
        mapped("tty </dev/tty; stat -c %u $(readlink /proc/$$/fd/1); echo x > /dev/console");
    sandbox.options.terminal = true;
    sandbox.process().terminal = true;
    sandbox.process().user = Some(User { uid: 1000, gid: 1000, ..User::default() });
    let outcome = sandbox.run();
    assert_eq!(outcome.stdout, "/dev/tty\r\n1000\r\nx\r\n", "{outcome:?}");
}

fn the_first_process_has_no_more_than_others() {
    let leak = std::fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let outcome =
        mapped("echo $$; ls /proc/1/fd; grep -E '^(CapEff|CapPrm|Seccomp:)' /proc/1/status").run();
    let found: Vec<&str> = outcome.stdout.split_whitespace().collect();
    assert_eq!(found[..4], ["1", "0", "1", "2"], "{outcome:?}");
    assert!(outcome.stdout.contains("CapEff:\t00000000a80425fb"), "{outcome:?}");
}

fn exec_options(script: &str) -> ExecOptions {
    let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    ExecOptions { process: Some(Process { args, ..support::process() }), ..ExecOptions::default() }
}

fn an_exec_is_in_it() {
    let mut sandbox = mapped("echo up; sleep 1000");
    sandbox.options.clone_flags |= 0x80;
    let created = sandbox.start();
    let kinds = ["user", "mnt", "uts", "ipc", "pid", "net", "cgroup", "time"];
    let links = kinds.map(|kind| format!("readlink /proc/self/ns/{kind};")).concat();
    let mut options = exec_options(&format!(
        "{links} id -u; id -G; echo own > /dev/stderr; cat /proc/self/oom_score_adj"
    ));
    let process = options.process.as_mut().unwrap();
    process.user = Some(User { uid: 7, gid: 8, additional_gids: vec![9], ..User::default() });
    process.oom_score_adj = Some(300);
    let outcome = finish(sandbox.exec(&created, &options).unwrap());
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    for (kind, inside) in kinds.iter().zip(&lines) {
        let link = format!("/proc/{}/ns/{kind}", created.process.pid);
        assert_eq!(std::fs::read_link(link).unwrap().to_str().unwrap(), *inside, "{outcome:?}");
    }
    assert_eq!(lines[8..], ["7", "8 9", "300"], "{outcome:?}");
    assert_eq!(outcome.stderr, "own\n");
    let mut terminal = exec_options("tty; id -u");
    terminal.process.as_mut().unwrap().terminal = true;
    let outcome = finish(sandbox.exec(&created, &terminal).unwrap());
    assert!(outcome.stdout.ends_with("0\r\n"), "{outcome:?}");
    let waiting = sandbox.exec(&created, &exec_options("sleep 1000")).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", waiting.pid)).unwrap();
    assert!(status.contains(&format!("Uid:\t{FIRST}\t")), "{status}");
    kill(&created.process.pidfd);
    wait(&waiting.pidfd);
    wait(&created.process.pidfd);
}

fn one_is_joined_by_path() {
    let other = mapped("sleep 1000");
    let holder = other.start();
    let path = format!("/proc/{}/ns/user", holder.process.pid);
    let expected = std::fs::read_link(&path).unwrap();
    let mut sandbox = mapped("readlink /proc/self/ns/user; id -u; stat -c %u /bin; hostname");
    sandbox.options.clone_flags &= !USER;
    sandbox.options.join = vec![Join { kind: USER, path: path.clone(), index: 5 }];
    for said in [true, false] {
        if !said {
            sandbox.plan.uid_mappings.clear();
            sandbox.plan.gid_mappings.clear();
        }
        let outcome = sandbox.run();
        let expected = format!("{}\n0\n0\nbox\n", expected.to_str().unwrap());
        assert_eq!(outcome.stdout, expected, "{outcome:?}");
        sandbox.cgroup().remove(std::time::Instant::now()).unwrap();
    }
    // With the network of the same holder, which then belongs to it.
    let net = format!("/proc/{}/ns/net", holder.process.pid);
    sandbox.options.clone_flags &= !0x4000_0000;
    sandbox.options.join.push(Join { kind: 0x4000_0000, path: net.clone(), index: 6 });
    sandbox.plan.loopback = false;
    sandbox.process().args[2] = "readlink /proc/self/ns/net; ls -d /sys/class".to_owned();
    let network = std::fs::read_link(net).unwrap();
    let outcome = sandbox.run();
    assert_eq!(outcome.stdout, format!("{}\n/sys/class\n", network.to_str().unwrap()));
    sandbox.plan.uid_mappings = vec![IdMapping { inside: 0, outside: 5, size: 1 }];
    let error = sandbox.error();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.to_string().starts_with("linux.uidMappings: "), "{error}");
    drop(holder);
}

fn views_of_namespaces_of_others() {
    let script = "mkdir /sys/x || echo refused; echo 1 > /sys/kernel/profiling || echo refused
         readlink /proc/self/ns/net; ls /sys/class/net | tr '\\n' ' '; test -d /dev/mqueue && echo queues";
    let mut sandbox = mapped(script);
    sandbox.options.clone_flags &= !(0x4000_0000 | 0x2000_0000 | 0x800_0000);
    sandbox.plan.loopback = false;
    let run = |sandbox: &Sandbox, net: &str| {
        let outcome = sandbox.run();
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        let net = std::fs::read_link(net).unwrap();
        assert_eq!(lines[..3], ["refused", "refused", net.to_str().unwrap()], "{outcome:?}");
        assert!(outcome.stdout.ends_with("queues\n"), "{outcome:?}");
        sandbox.cgroup().remove(std::time::Instant::now()).unwrap();
        lines[3].to_owned()
    };
    assert!(run(&sandbox, "/proc/self/ns/net").contains("lo "));
    // Of a container without a user namespace: its interfaces, not the host's.
    let other = Sandbox::script("sleep 1000");
    let holder = other.start();
    let net = format!("/proc/{}/ns/net", holder.process.pid);
    sandbox.options.join = vec![Join { kind: 0x4000_0000, path: net.clone(), index: 3 }];
    // Of which only the host's root can set the parameters.
    sandbox.plan.sysctls = vec![shim_wire::plan::Sysctl {
        path: "net/ipv4/ip_unprivileged_port_start".to_owned(),
        value: "81".to_owned(),
    }];
    assert_eq!(run(&sandbox, &net), "lo queues");
    sandbox.plan.sysctls.clear();
    sandbox.process().args[2] = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start".to_owned();
    assert_eq!(sandbox.run().stdout, "81\n");
    drop(holder);
}

fn host_directories_keep_their_owners() {
    let mut sandbox = mapped(
        "stat -c %u /data /data/mine; touch /data/x || echo refused; grep -c ' /data ' /proc/self/mountinfo; id -u",
    );
    let host = sandbox.path("host");
    std::fs::write(host.join("mine"), "").unwrap();
    std::os::unix::fs::chown(host.join("mine"), Some(FIRST + 5), None).unwrap();
    sandbox.plan.mounts.push(PlanMount {
        destination: "/data".to_owned(),
        kind: "bind".to_owned(),
        source: host.to_str().unwrap().to_owned(),
        flags: 0x5000,
        ..PlanMount::default()
    });
    let outcome = sandbox.run();
    assert_eq!(outcome.stdout, "65534\n5\nrefused\n1\n0\n", "{outcome:?}");
}

fn a_map_that_fills_a_page() {
    let mut sandbox =
        mapped("cat /proc/self/uid_map | wc -l; cat /proc/self/uid_map | tail -n 1 | tr -s ' '");
    let map: Vec<IdMapping> = (0..340)
        .map(|index| IdMapping { inside: index, outside: 10_000 + index, size: 1 })
        .collect();
    sandbox.plan.uid_mappings = map.clone();
    sandbox.plan.gid_mappings = map;
    let outcome = sandbox.run();
    assert_eq!(outcome.stdout, "340\n 339 10339 1\n", "{outcome:?}");
}

fn what_the_host_alone_can_give_is_given() {
    let mut sandbox = mapped("ulimit -n; cat /proc/self/oom_score_adj");
    let process = sandbox.process();
    process.rlimits = vec![shim_wire::plan::Rlimit { resource: 7, soft: 123, hard: 456 }];
    process.oom_score_adj = Some(500);
    assert_eq!(sandbox.run().stdout, "123\n500\n");
    let process = sandbox.process();
    process.rlimits = vec![shim_wire::plan::Rlimit { resource: 7, soft: 1, hard: 1 << 60 }];
    let error = sandbox.error().to_string();
    let expected = "set process.rlimits[0] (RLIMIT_NOFILE) to 1:1152921504606846976: ";
    assert!(error.starts_with(expected), "{error}");
    sandbox.process().oom_score_adj = Some(2000);
    let error = sandbox.error().to_string();
    assert!(error.starts_with("set process.oomScoreAdj to 2000: "), "{error}");
}

fn it_dies_with_whoever_made_it() {
    let mut sandbox = mapped("sleep 1000");
    sandbox.process().user = Some(User { uid: 1000, gid: 1000, ..User::default() });
    let (read_end, write_end) = rustix::pipe::pipe().unwrap();
    let shim_sys::clone::Cloned::Parent { pid: _, pidfd: maker } =
        shim_sys::clone::clone3(0, None).unwrap()
    else {
        let created = sandbox.start();
        rustix::io::write(&write_end, &created.process.pid.to_ne_bytes()).unwrap();
        std::thread::sleep(std::time::Duration::from_secs(100));
        shim_sys::exec::exit_now(0)
    };
    let mut pid = [0; 4];
    assert_eq!(rustix::io::read(&read_end, &mut pid).unwrap(), 4);
    let pid = rustix::process::Pid::from_raw(i32::from_ne_bytes(pid)).unwrap();
    let container = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    kill(&maker);
    wait(&maker);
    let mut ended = [rustix::event::PollFd::new(&container, rustix::event::PollFlags::IN)];
    let deadline = rustix::event::Timespec { tv_sec: 2, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut ended, Some(&deadline)), Ok(1));
}

fn the_caller_keeps_nothing() {
    support::leave_the_machines_mount_table();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    // Others may remove a namespace's file, and its mount goes everywhere.
    let table = || {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let lines = text.lines().filter(|line| !line.contains(" /run/netns/"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut sandbox = mapped("exit 0");
    assert_eq!(sandbox.run().code, 0);
    sandbox.cgroup().remove(std::time::Instant::now()).unwrap();
    let before = (descriptors(), table());
    for round in 0..10 {
        sandbox.options.terminal = round % 2 == 0;
        sandbox.process().args[0] = "nope".to_owned();
        assert_eq!(sandbox.error().kind(), Kind::CommandNotFound);
        assert!(!sandbox.cgroup().exists());
        sandbox.process().args[0] = "/bin/sh".to_owned();
        assert_eq!(sandbox.run().code, 0);
        sandbox.cgroup().remove(std::time::Instant::now()).unwrap();
    }
    assert_eq!((descriptors(), table()), before);
    let left = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
    assert!(matches!(left, Err(rustix::io::Errno::CHILD)), "{left:?}");
}

fn errors_are_told_apart() {
    let mut sandbox = mapped("exit 0");
    sandbox.plan.rootfs.as_mut().unwrap().lower = vec!["/no/such/layer".to_owned()];
    let error = sandbox.error();
    assert_eq!(error.kind(), Kind::MountSource, "{error}");
    assert!(error.to_string().contains("/no/such/layer"), "{error}");
    // Of a file system that has no id-mapped mounts.
    sandbox.plan.rootfs.as_mut().unwrap().lower = vec!["/proc".to_owned()];
    let error = sandbox.error();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.to_string().contains("/proc: its file system"), "{error}");
    let sandbox = mapped("exit 0");
    let created = sandbox.create().unwrap();
    let ProcessIo::Pipes { .. } = created.process.io else { panic!("no pipes") };
    let pidfd = created.process.pidfd.try_clone().unwrap();
    drop(created);
    assert_eq!(wait(&pidfd), 1);
}

fn priorities_that_the_host_alone_can_give() {
    let mut sandbox =
        mapped("busybox ionice -p $$; read a < /proc/$$/stat; set -- $a; echo ${19}; read wait");
    let scheduler = shim_wire::plan::Scheduler { nice: -5, ..Default::default() };
    sandbox.options.stdin = true;
    sandbox.process().scheduler = Some(scheduler);
    sandbox.process().io_priority = Some(1 << 13 | 4);
    let created = sandbox.start();
    let mut exec = support::process();
    exec.args =
        ["/bin/sh", "-c", "busybox ionice -p $$; read a < /proc/$$/stat; set -- $a; echo ${19}"]
            .map(str::to_owned)
            .to_vec();
    exec.scheduler = Some(scheduler);
    exec.io_priority = Some(1 << 13 | 4);
    let options = ExecOptions { process: Some(exec), ..ExecOptions::default() };
    let inside = finish(sandbox.exec(&created, &options).unwrap());
    assert_eq!(inside.stdout, "realtime: prio 4\n-5\n", "{inside:?}");
    let outcome = finish(created.process);
    assert_eq!(outcome.stdout, "realtime: prio 4\n-5\n", "{outcome:?}");
}
