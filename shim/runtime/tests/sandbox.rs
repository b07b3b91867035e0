//! A pod's namespaces: held without a process, or with the one that a shared pid namespace needs.
//! Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "of the tests' support only a part is used here")]

use std::os::fd::AsRawFd;
use std::process::ExitCode;

use rustix::process::{Signal, pidfd_send_signal};
use shim_runtime::{Held, Kind, namespaces_of, sandbox};
use shim_wire::plan::{CreateOptions, Join, Sandbox as Pod, Sysctl};

#[path = "support/runner.rs"]
mod runner;
#[path = "support/mod.rs"]
mod support;

use support::{ALL_NAMESPACES, Sandbox, finish, wait};

const NEW_MOUNT: u64 = 0x0002_0000;
const NEW_UTS: u64 = 0x0400_0000;
const NEW_IPC: u64 = 0x0800_0000;
const NEW_PID: u64 = 0x2000_0000;
const NEW_NET: u64 = 0x4000_0000;

fn main() -> ExitCode {
    runner::main(runner::tests![
        namespaces_live_without_a_process,
        containers_of_a_pod_share_what_it_holds,
        names_and_parameters_are_set_in_its_own_namespaces_only,
        what_needs_a_process_is_refused,
        the_first_process_of_a_pid_namespace_reaps_and_ends_at_a_signal,
    ])
}

fn pod(flags: u64) -> Vec<Held> {
    let options = CreateOptions { clone_flags: flags, ..CreateOptions::default() };
    let pod = Pod { hostname: "pod".to_owned(), ..Pod::default() };
    sandbox(&options, &pod, None).unwrap()
}

/// Where a descriptor of this process can be found by its children.
fn path(held: &Held) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), held.namespace.as_raw_fd())
}

fn children() -> String {
    let path = format!("/proc/self/task/{}/children", std::process::id());
    std::fs::read_to_string(path).unwrap()
}

fn namespaces_live_without_a_process() {
    let held = pod(NEW_IPC | NEW_UTS | NEW_NET);
    assert_eq!(held.len(), 3);
    assert_eq!(children(), "");
    for held in &held {
        let name = std::fs::read_link(path(held)).unwrap();
        let kind = name.to_str().unwrap().split(':').next().unwrap().to_owned();
        assert_ne!(name, std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap());
    }
}

fn containers_of_a_pod_share_what_it_holds() {
    let held = pod(NEW_IPC | NEW_UTS | NEW_NET);
    let script = "hostname; for kind in ipc uts net; do readlink /proc/self/ns/$kind; done";
    let outcomes = [0, 1].map(|_| {
        let mut container = Sandbox::script(script);
        container.plan.hostname.clear();
        container.plan.loopback = false;
        container.options.clone_flags = ALL_NAMESPACES & !(NEW_IPC | NEW_UTS | NEW_NET);
        container.options.join = held
            .iter()
            .map(|held| Join { kind: held.kind, path: path(held), ..Join::default() })
            .collect();
        container.run().stdout
    });
    assert!(outcomes[0].starts_with("pod\nipc:"), "{outcomes:?}");
    assert_eq!(outcomes[0], outcomes[1]);
}

fn names_and_parameters_are_set_in_its_own_namespaces_only() {
    let options = CreateOptions { clone_flags: NEW_IPC, ..CreateOptions::default() };
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let named = Pod { hostname: "pod".to_owned(), ..Pod::default() };
    assert_eq!(sandbox(&options, &named, None).unwrap_err().kind(), Kind::Refused);
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), host);
    let sysctl = |path: &str| Sysctl { path: path.to_owned(), value: "123456".to_owned() };
    let own = Pod { sysctls: vec![sysctl("kernel/shmmax")], ..Pod::default() };
    assert_eq!(sandbox(&options, &own, None).unwrap().len(), 1);
    let others = Pod { sysctls: vec![sysctl("net/ipv4/ip_default_ttl")], ..Pod::default() };
    assert_eq!(sandbox(&options, &others, None).unwrap_err().kind(), Kind::Refused);
    assert_eq!(children(), "");
}

fn what_needs_a_process_is_refused() {
    for flags in [NEW_PID, NEW_MOUNT] {
        let options = CreateOptions { clone_flags: flags, ..CreateOptions::default() };
        let error = sandbox(&options, &Pod::default(), None).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
    }
}

fn the_first_process_of_a_pid_namespace_reaps_and_ends_at_a_signal() {
    let mut pod = Sandbox::new();
    // The test's own program is the init here, and not a static one.
    pod.plan.rootfs.as_mut().unwrap().lower = vec!["/".to_owned()];
    pod.process().args.clear();
    pod.process().pause = true;
    let created = pod.start();
    let held = namespaces_of(created.process.pid, NEW_PID | NEW_IPC | NEW_UTS).unwrap();
    assert_eq!(held.len(), 3);
    // A grandchild that nobody in the container waits for becomes its child, and is gone.
    let script = "(sleep 0.1 &) ; sleep 0.5; ps -o pid,stat,args | grep -c '[Z] '; ps";
    let mut container = Sandbox::script(script);
    container.options.clone_flags = ALL_NAMESPACES & !NEW_PID;
    let pid = held.iter().find(|held| held.kind == NEW_PID).unwrap();
    container.options.join = vec![Join { kind: NEW_PID, path: path(pid), ..Join::default() }];
    let mut inside = container.create().unwrap().process;
    inside.start().unwrap();
    let outcome = finish(inside);
    assert!(outcome.stdout.starts_with("0\n"), "{outcome:?}");
    assert!(outcome.stdout.contains("bosun-init"), "{outcome:?}");
    pidfd_send_signal(&created.process.pidfd, Signal::TERM).unwrap();
    assert_eq!(wait(&created.process.pidfd), 0);
}
