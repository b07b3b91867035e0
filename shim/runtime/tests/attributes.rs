//! What a process is given beside its words: scheduling, limits, labels. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "of the tests' support only a part is used here")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use shim_runtime::Kind;
use shim_wire::hooks::State;
use shim_wire::plan::{Capabilities, ExecOptions, Notify, Process, Rlimit, Scheduler, User};

#[path = "support/runner.rs"]
mod runner;
#[path = "support/mod.rs"]
mod support;

use support::{Sandbox, finish};

fn main() -> ExitCode {
    runner::main(runner::tests![
        every_policy_is_set_and_inherited,
        a_policy_that_the_kernel_refuses_is_named,
        io_priority_is_set,
        the_execution_domain_is_set,
        every_limit_is_set,
        the_umask_is_set,
        an_exec_has_all_of_it_and_its_cpus,
        cpus_that_are_not_there_are_named,
        labels_without_their_module_are_refused,
        the_unconfined_profile_needs_no_module,
        all_five_sets_of_capabilities_are_set,
        a_capability_that_no_kernel_has_is_passed_over,
        an_agent_gets_the_listener_of_a_process_and_of_execs,
        an_agent_that_is_not_there_is_named,
        what_is_not_permitted_shows_before_the_start,
    ])
}

/// Policy, static priority and nice value of a process that ran an exec: fields 41, 40 and 19 of
/// proc_pid_stat(5).
const SCHEDULING: &str =
    "set -- $(cat /proc/self/stat); shift 18; nice=$1; shift 21; echo $2 $1 $nice";

/// `None` when the machine gives its root no CAP_SYS_NICE.
fn scheduling(scheduler: Scheduler) -> Option<String> {
    let mut sandbox = Sandbox::script(SCHEDULING);
    sandbox.process().scheduler = Some(scheduler);
    let mut created = match sandbox.create() {
        Ok(created) => created,
        Err(error) => {
            let is_denied = error.kind() == Kind::Refused
                && error.to_string().contains("gives no real-time priority")
                || error.errno() == Some(rustix::io::Errno::PERM);
            assert!(is_denied, "{error}");
            assert!(error.to_string().contains("process.scheduler"), "{error}");
            return None;
        }
    };
    created.process.start().unwrap();
    let outcome = finish(created.process);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    Some(outcome.stdout.trim().to_owned())
}

fn every_policy_is_set_and_inherited() {
    let plain = Scheduler::default();
    for (scheduler, expected) in [
        (Scheduler { policy: 0, nice: 7, ..plain }, "0 0 7"),
        (Scheduler { policy: 3, nice: -3, ..plain }, "3 0 -3"),
        (Scheduler { policy: 5, ..plain }, "5 0 0"),
        // What it starts is of no real-time policy any more.
        (Scheduler { policy: 1, priority: 5, flags: 1, ..plain }, "0 0 0"),
    ] {
        let privileged = scheduler.nice < 0 || scheduler.policy == 1;
        match scheduling(scheduler) {
            Some(said) => assert_eq!(said, expected, "{scheduler:?}"),
            None => assert!(privileged, "{scheduler:?}"),
        }
    }
    let millisecond = 1_000_000;
    let mut sandbox = Sandbox::new();
    sandbox.process().args = ["/bin/cat", "/proc/self/sched"].map(str::to_owned).to_vec();
    sandbox.process().scheduler = Some(Scheduler {
        policy: 6,
        runtime: millisecond,
        deadline: 10 * millisecond,
        period: 10 * millisecond,
        ..plain
    });
    // A machine without bandwidth to promise says so.
    match sandbox.create() {
        Ok(mut created) => {
            created.process.start().unwrap();
            let outcome = finish(created.process);
            let policy = outcome.stdout.lines().find(|line| line.starts_with("policy"));
            assert!(policy.is_some_and(|line| line.trim_end().ends_with('6')), "{outcome:?}");
        }
        Err(error) => assert!(error.to_string().contains("process.scheduler"), "{error}"),
    }
}

fn a_policy_that_the_kernel_refuses_is_named() {
    let mut sandbox = Sandbox::new();
    sandbox.process().scheduler = Some(Scheduler { policy: 4, ..Scheduler::default() });
    let said = sandbox.error().to_string();
    assert!(
        said.starts_with("set the scheduling of process.scheduler: Invalid argument"),
        "{said}"
    );
    // A period that is longer than this machine has any, or shorter: before the container waits for
    // its start.
    for nanoseconds in [5_000, 3_600_000_000_000] {
        let mut sandbox = Sandbox::new();
        sandbox.process().scheduler = Some(Scheduler {
            policy: 6,
            runtime: 2048,
            deadline: nanoseconds,
            period: nanoseconds,
            ..Scheduler::default()
        });
        let error = sandbox.create().map(drop).unwrap_err();
        assert!(error.to_string().contains("process.scheduler: "), "{error}");
        assert!(!sandbox.cgroup().exists());
    }
}

fn io_priority_is_set() {
    let mut sandbox = Sandbox::script("ionice -p $$");
    let link = sandbox.path("root/bin/ionice");
    std::os::unix::fs::symlink("busybox", link).unwrap();
    sandbox.process().io_priority = Some(2 << 13 | 6);
    assert_eq!(sandbox.run().stdout, "best-effort: prio 6\n");
}

fn the_execution_domain_is_set() {
    let mut sandbox = Sandbox::script("cat /proc/self/personality");
    sandbox.process().personality = Some(8);
    assert_eq!(sandbox.run().stdout, "00000008\n");
}

fn every_limit_is_set() {
    let mut sandbox = Sandbox::script("cat /proc/self/limits");
    // Below what any machine has as hard limits, and enough to run.
    let limits = (0..16).map(|resource| {
        let soft = match resource {
            // Nice and real-time priority have a hard limit of 0 by default.
            13 | 14 => 0,
            1..=3 | 9 => 1 << 30,
            8 => 1 << 16,
            resource => 100 + u64::from(resource),
        };
        Rlimit { resource, soft, hard: soft }
    });
    sandbox.process().rlimits = limits.collect();
    let outcome = sandbox.run();
    let soft = |name: &str| {
        let line = outcome.stdout.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().next().unwrap().to_owned()
    };
    for (resource, name) in [
        "Max cpu time",
        "Max file size",
        "Max data size",
        "Max stack size",
        "Max core file size",
        "Max resident set",
        "Max processes",
        "Max open files",
        "Max locked memory",
        "Max address space",
        "Max file locks",
        "Max pending signals",
        "Max msgqueue size",
        "Max nice priority",
        "Max realtime priority",
        "Max realtime timeout",
    ]
    .iter()
    .enumerate()
    {
        let expected = sandbox.process().rlimits[resource].soft.to_string();
        assert_eq!(soft(name), expected, "{name}");
    }
}

fn the_umask_is_set() {
    let mut sandbox = Sandbox::script("umask");
    sandbox.process().umask = Some(0o077);
    assert_eq!(sandbox.run().stdout, "0077\n");
}

fn an_exec_has_all_of_it_and_its_cpus() {
    let sandbox = Sandbox::script("sleep 1000");
    let created = sandbox.start();
    let script = format!(
        "{SCHEDULING}; cat /proc/self/personality /proc/self/oom_score_adj; umask; \
         grep Cpus_allowed_list /proc/self/status; ulimit -n"
    );
    let process = Process {
        args: ["/bin/sh", "-c", &script].map(str::to_owned).to_vec(),
        scheduler: Some(Scheduler { nice: 4, ..Scheduler::default() }),
        personality: Some(8),
        oom_score_adj: Some(900),
        umask: Some(0o27),
        cpus_at_clone: vec![1],
        cpus: vec![2],
        rlimits: vec![Rlimit { resource: 7, soft: 50, hard: 60 }],
        ..support::process()
    };
    let options = ExecOptions { process: Some(process), ..ExecOptions::default() };
    let before = shim_sys::sched::affinity().unwrap();
    let outcome = finish(sandbox.exec(&created, &options).unwrap());
    let said: Vec<&str> = outcome.stdout.split_whitespace().collect();
    let expected = ["0", "0", "4", "00000008", "900", "0027", "Cpus_allowed_list:", "1", "50"];
    assert_eq!(said, expected, "{outcome:?}");
    assert_eq!(shim_sys::sched::affinity().unwrap(), before, "the caller's own");
}

fn cpus_that_are_not_there_are_named() {
    let sandbox = Sandbox::script("sleep 1000");
    let created = sandbox.start();
    let far = [vec![0; 1000], vec![128]].concat();
    for (process, field) in [
        (Process { cpus_at_clone: far.clone(), ..support::process() }, "initial"),
        (Process { cpus: far.clone(), ..support::process() }, "final"),
    ] {
        let options = ExecOptions { process: Some(process), ..ExecOptions::default() };
        let said = sandbox.exec(&created, &options).unwrap_err().to_string();
        let expected = format!("bind to CPUs process.execCPUAffinity.{field}: Invalid argument");
        assert!(said.starts_with(&expected), "{said}");
    }
}

fn labels_without_their_module_are_refused() {
    let has_apparmor = std::path::Path::new("/sys/module/apparmor").exists();
    let has_selinux = std::path::Path::new("/sys/fs/selinux/enforce").exists();
    let mut sandbox = Sandbox::new();
    sandbox.process().apparmor = "docker-default".to_owned();
    if !has_apparmor {
        let error = sandbox.create().map(drop).unwrap_err();
        let expected =
            "process.apparmorProfile \"docker-default\": AppArmor is not enabled on this kernel";
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Refused, expected));
    }
    sandbox.process().apparmor = String::new();
    sandbox.process().selinux = "system_u:system_r:container_t:s0".to_owned();
    if !has_selinux {
        let error = sandbox.create().map(drop).unwrap_err();
        let expected = "process.selinuxLabel \"system_u:system_r:container_t:s0\": SELinux is not enabled on this kernel";
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Refused, expected));
    }
}

fn the_unconfined_profile_needs_no_module() {
    let mut sandbox = Sandbox::script("echo ran");
    sandbox.process().apparmor = "unconfined".to_owned();
    assert_eq!(sandbox.run().stdout, "ran\n");
}

fn sets(sandbox: &Sandbox) -> Vec<(String, u64)> {
    let outcome = sandbox.run();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let line = |line: &str| {
        let (name, bits) = line.split_once(":\t").unwrap();
        (name.to_owned(), u64::from_str_radix(bits, 16).unwrap())
    };
    outcome.stdout.lines().map(line).collect()
}

fn all_five_sets_of_capabilities_are_set() {
    let mut sandbox = Sandbox::new();
    sandbox.process().args = ["/bin/grep", "^Cap", "/proc/self/status"].map(str::to_owned).to_vec();
    sandbox.process().user = Some(User { uid: 1000, gid: 1000, ..User::default() });
    sandbox.process().capabilities = Some(Capabilities {
        bounding: 0b1011,
        permitted: 0b1011,
        effective: 0b0001,
        inheritable: 0b0011,
        ambient: 0b0010,
    });
    // After the exec of a plain file by an ordinary user only the ambient set is left to have.
    assert_eq!(
        sets(&sandbox),
        [
            ("CapInh".to_owned(), 0b0011),
            ("CapPrm".to_owned(), 0b0010),
            ("CapEff".to_owned(), 0b0010),
            ("CapBnd".to_owned(), 0b1011),
            ("CapAmb".to_owned(), 0b0010),
        ]
    );
}

fn a_capability_that_no_kernel_has_is_passed_over() {
    let mut sandbox = Sandbox::new();
    sandbox.process().args = ["/bin/grep", "^Cap", "/proc/self/status"].map(str::to_owned).to_vec();
    let all = 1 << 62 | 1;
    sandbox.process().capabilities = Some(Capabilities {
        bounding: all,
        permitted: all,
        effective: all,
        inheritable: all,
        ambient: all,
    });
    assert!(sets(&sandbox).iter().all(|(_, bits)| *bits == 1), "{:?}", sets(&sandbox));
}

/// A filter that notifies of mkdir(2) of x86-64 and of mkdirat(2) of the others, and allows the rest.
fn notifying() -> Vec<u8> {
    let number: u32 = if cfg!(target_arch = "x86_64") { 83 } else { 34 };
    let instruction = |code: u16, jt: u8, jf: u8, k: u32| {
        let ([a, b], [c, d, e, f]) = (code.to_ne_bytes(), k.to_ne_bytes());
        [a, b, jt, jf, c, d, e, f]
    };
    [
        instruction(0x20, 0, 0, 0),
        instruction(0x15, 0, 1, number),
        instruction(0x06, 0, 0, 0x7fc0_0000),
        instruction(0x06, 0, 0, 0x7fff_0000),
    ]
    .concat()
}

fn notify(path: &std::path::Path) -> Notify {
    let state = State {
        oci_version: "1.3.0".to_owned(),
        id: "web".to_owned(),
        bundle: "/b".to_owned(),
        ..State::default()
    };
    Notify {
        path: path.to_str().unwrap().to_owned(),
        metadata: "\"words\"".to_owned(),
        state: Some(state),
        is_exec: false,
    }
}

/// What came to the agent: the text to its end, and the one descriptor.
fn receive(agent: &UnixListener) -> (String, OwnedFd) {
    let (mut socket, _) = agent.accept().unwrap();
    let mut room = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut bytes = vec![0; 1 << 16];
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let count = recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    let mut text = String::from_utf8(bytes[..count].to_vec()).unwrap();
    std::io::Read::read_to_string(&mut socket, &mut text).unwrap();
    let [listener] = <[OwnedFd; 1]>::try_from(descriptors).unwrap();
    (text, listener)
}

/// Whether it is a listener, and hears of a call soon.
fn hears(listener: &OwnedFd) -> bool {
    let link = format!("/proc/self/fd/{}", listener.as_raw_fd());
    let is_listener =
        std::fs::read_link(link).unwrap().to_str() == Some("anon_inode:seccomp notify");
    let mut ready = [PollFd::new(listener, PollFlags::IN)];
    let soon = Timespec { tv_sec: 5, tv_nsec: 0 };
    is_listener && poll(&mut ready, Some(&soon)).unwrap() == 1
}

fn an_agent_gets_the_listener_of_a_process_and_of_execs() {
    let mut sandbox = Sandbox::script("mkdir /tmp/made; sleep 1000");
    let path = sandbox.path("agent.sock");
    let agent = UnixListener::bind(&path).unwrap();
    sandbox.process().seccomp = notifying();
    sandbox.process().notify = Some(notify(&path));
    let created = sandbox.start();
    let (text, listener) = receive(&agent);
    let pid = created.process.pid;
    let expected = |pid: i32, state: &str| {
        format!(
            r#"{{"ociVersion":"1.3.0","fds":["seccompFd"],"pid":{pid},"metadata":"\"words\"","state":{{"ociVersion":"1.3.0","id":"web","status":{state},"bundle":"/b","annotations":{{}}}}}}"#
        )
    };
    assert_eq!(text, expected(pid, &format!("\"created\",\"pid\":{pid}")));
    assert!(hears(&listener));
    assert!(!sandbox.path("upper/tmp/made").exists(), "nobody has answered");

    let process = Process {
        args: ["/bin/mkdir", "/tmp/other"].map(str::to_owned).to_vec(),
        seccomp: notifying(),
        notify: Some(Notify { is_exec: true, ..notify(&path) }),
        ..support::process()
    };
    let options = ExecOptions { process: Some(process), ..ExecOptions::default() };
    let waiting = sandbox.exec(&created, &options).unwrap();
    let (text, listener) = receive(&agent);
    assert_eq!(text, expected(waiting.pid, "\"running\""));
    assert!(hears(&listener));
    support::kill(&created.process.pidfd);
}

fn an_agent_that_is_not_there_is_named() {
    let mut sandbox = Sandbox::new();
    let path = sandbox.path("agent.sock");
    sandbox.process().seccomp = notifying();
    sandbox.process().notify = Some(notify(&path));
    let said = sandbox.error().to_string();
    let expected = format!(
        "hand the seccomp notifications over to linux.seccomp.listenerPath {path:?}: No such file"
    );
    assert!(said.starts_with(&expected), "{said}");
}

fn what_is_not_permitted_shows_before_the_start() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    const SYS_NICE: u64 = 1 << 23;
    const SYS_RESOURCE: u64 = 1 << 24;
    let mut sets = capabilities(None).unwrap();
    let gone = CapabilitySet::from_bits_retain(SYS_NICE | SYS_RESOURCE);
    sets.effective.remove(gone);
    sets.permitted.remove(gone);
    set_capabilities(None, sets).unwrap();
    let refused = |set: &dyn Fn(&mut shim_wire::plan::Process), expected: &str| {
        let mut sandbox = Sandbox::new();
        set(sandbox.process());
        let error = sandbox.create().map(drop).unwrap_err();
        let errno = error.errno();
        let is_denied = matches!(errno, Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS));
        assert!(is_denied || error.kind() == Kind::Refused, "{error}");
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert!(!sandbox.cgroup().exists());
    };
    let fifo = Scheduler { policy: 1, priority: 5, ..Scheduler::default() };
    refused(&|process| process.scheduler = Some(fifo), "process.scheduler: the kernel gives no");
    let deadline = Scheduler {
        policy: 6,
        runtime: 1 << 20,
        deadline: 1 << 24,
        period: 1 << 24,
        ..Scheduler::default()
    };
    refused(&|process| process.scheduler = Some(deadline), "process.scheduler");
    refused(&|process| process.oom_score_adj = Some(-500), "process.oomScoreAdj to -500");
    let set = |process: &mut shim_wire::plan::Process| {
        process.capabilities.get_or_insert_default().permitted |= SYS_NICE;
    };
    refused(&set, "process.capabilities.permitted");
    let set = |process: &mut shim_wire::plan::Process| {
        let sets = process.capabilities.get_or_insert_default();
        sets.inheritable |= SYS_NICE;
        sets.bounding |= SYS_NICE;
        sets.bounding &= !1;
        sets.inheritable |= 1;
    };
    refused(&set, "process.capabilities.inheritable");
    assert_eq!(Sandbox::new().run().code, 0);
}
