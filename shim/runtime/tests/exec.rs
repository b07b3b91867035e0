//! Further processes in running containers. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "of the tests' support only a part is used here")]

use std::process::ExitCode;

use shim_runtime::{Created, Kind, ProcessIo};
use shim_wire::plan::{ExecOptions, Process, User};

#[path = "support/runner.rs"]
mod runner;
#[path = "support/mod.rs"]
mod support;

use support::{Sandbox, finish, kill, wait};

fn main() -> ExitCode {
    runner::main(runner::tests![
        joins_everything,
        has_identity_directory_and_environment_of_its_own,
        errors_are_told_apart,
        a_terminal_is_the_containers,
        ends_with_the_container,
        an_ended_container_refuses,
        later_children_of_the_caller_stay_outside,
        descriptors_are_never_seen_from_inside,
        a_container_that_divides_its_group_can_be_joined,
        the_caller_keeps_nothing,
    ])
}

/// A running container that waits.
fn running() -> (Sandbox, Created) {
    let sandbox = Sandbox::script("echo up; sleep 1000");
    let created = sandbox.start();
    (sandbox, created)
}

fn options(script: &str) -> ExecOptions {
    let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    ExecOptions { process: Some(Process { args, ..support::process() }), ..ExecOptions::default() }
}

fn joins_everything() {
    let mut sandbox = Sandbox::script("echo up; sleep 1000");
    sandbox.options.clone_flags |= 0x80;
    let created = sandbox.start();
    let kinds = ["mnt", "uts", "ipc", "pid", "net", "cgroup", "time"];
    let script = kinds.map(|kind| format!("readlink /proc/self/ns/{kind};")).concat();
    let outcome = finish(sandbox.exec(&created, &options(&script)).unwrap());
    assert_eq!(outcome.code, 0, "{outcome:?}");
    for (kind, inside) in kinds.iter().zip(outcome.stdout.lines()) {
        let link = format!("/proc/{}/ns/{kind}", created.process.pid);
        assert_eq!(std::fs::read_link(link).unwrap().to_str().unwrap(), inside);
    }
    let waiting = sandbox.exec(&created, &options("read x; sleep 1000")).unwrap();
    let groups = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(groups(waiting.pid), groups(created.process.pid));
    let outcome =
        finish(sandbox.exec(&created, &options("cat /proc/self/cgroup; exit 9")).unwrap());
    assert!(outcome.stdout.lines().all(|line| line.ends_with(":/")), "{outcome:?}");
    assert_eq!(outcome.code, 9);
}

fn has_identity_directory_and_environment_of_its_own() {
    let (sandbox, created) = running();
    let mut options = options("id -u; pwd; echo $HOME $ONE; grep CapEff /proc/self/status");
    let process = options.process.as_mut().unwrap();
    process.user = Some(User { name: "app".to_owned(), ..User::default() });
    process.cwd = "/etc".to_owned();
    process.env.push("ONE=1".to_owned());
    let outcome = finish(sandbox.exec(&created, &options).unwrap());
    assert_eq!(outcome.stdout, "1000\n/etc\n/home/app 1\nCapEff:\t0000000000000000\n");
}

fn errors_are_told_apart() {
    let (sandbox, created) = running();
    let kind = |change: &dyn Fn(&mut Process)| {
        let mut options = options("exit 0");
        change(options.process.as_mut().unwrap());
        sandbox.exec(&created, &options).unwrap_err().kind()
    };
    assert_eq!(kind(&|p| p.args = vec!["nope".to_owned()]), Kind::CommandNotFound);
    assert_eq!(kind(&|p| p.args = vec!["/etc".to_owned()]), Kind::CommandNotExecutable);
    assert_eq!(kind(&|p| p.cwd = "/nowhere".to_owned()), Kind::BadCwd);
    let user = |name: &str| Some(User { name: name.to_owned(), ..User::default() });
    assert_eq!(kind(&|p| p.user = user("nobody-here")), Kind::BadUser);
    for number in 3..32 {
        let cwd = format!("/proc/self/fd/{number}");
        assert_eq!(kind(&|p| p.cwd.clone_from(&cwd)), Kind::BadCwd);
    }
    assert_eq!(kind(&|p| p.args.clear()), Kind::Refused);
}

fn a_terminal_is_the_containers() {
    let (sandbox, created) = running();
    let mut options = options("readlink /proc/self/fd/1; stty size </dev/tty");
    options.process.as_mut().unwrap().terminal = true;
    (options.width, options.height) = (99, 33);
    for expected in ["/dev/pts/0\r\n33 99\r\n", "/dev/pts/0\r\n33 99\r\n"] {
        assert_eq!(finish(sandbox.exec(&created, &options).unwrap()).stdout, expected);
    }
}

fn ends_with_the_container() {
    let (sandbox, created) = running();
    let waiting = sandbox.exec(&created, &options("sleep 1000")).unwrap();
    kill(&created.process.pidfd);
    assert_eq!(wait(&waiting.pidfd), 128 + 9);
    assert_eq!(wait(&created.process.pidfd), 128 + 9);
}

fn an_ended_container_refuses() {
    let (sandbox, created) = running();
    kill(&created.process.pidfd);
    let error = sandbox.exec(&created, &options("exit 0")).unwrap_err();
    assert_eq!(error.kind(), Kind::System, "{error}");
    assert_eq!(wait(&created.process.pidfd), 128 + 9);
    let error = sandbox.exec(&created, &options("exit 0")).unwrap_err();
    assert!(error.to_string().contains("No such process"), "{error}");
}

fn later_children_of_the_caller_stay_outside() {
    let (sandbox, created) = running();
    finish(sandbox.exec(&created, &options("exit 0")).unwrap());
    let output = std::process::Command::new("readlink").arg("/proc/self/ns/pid").output().unwrap();
    let own = std::fs::read_link("/proc/self/ns/pid").unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), own.to_str().unwrap());
}

/// A container that looks at every process of its own as hard as it can, while execs come in.
fn descriptors_are_never_seen_from_inside() {
    let sandbox = Sandbox::script(
        "while ! test -e /stop; do
           for p in /proc/[0-9]*; do
             for f in $p/exe $p/cwd $p/root $p/fd/*; do readlink $f; done
           done
         done 2>/dev/null | sort -u",
    );
    let created = sandbox.start();
    for _ in 0..100 {
        assert_eq!(finish(sandbox.exec(&created, &options("exit 0")).unwrap()).code, 0);
    }
    finish(sandbox.exec(&created, &options("touch /stop")).unwrap());
    let outcome = finish(created.process);
    assert!(outcome.stdout.contains("/bin/busybox"), "it looked: {outcome:?}");
    let known = |line: &str| {
        ["/", "/bin/busybox", "/dev/null"].contains(&line)
            || ["pipe:", "/proc"].iter().any(|prefix| line.starts_with(prefix))
    };
    let seen: Vec<&str> = outcome.stdout.lines().filter(|line| !known(line)).collect();
    assert!(seen.is_empty(), "{seen:?}");
    // What closes the last gap, between the last change of credentials and the exec, is inherited.
    let behavior = rustix::process::dumpable_behavior().unwrap();
    assert_eq!(behavior, rustix::process::DumpableBehavior::NotDumpable);
}

/// As systemd does inside: only on v2 is a group with controllers below it closed to processes.
fn a_container_that_divides_its_group_can_be_joined() {
    let mut sandbox = Sandbox::script(
        "cd /sys/fs/cgroup; if test -e cgroup.subtree_control; then
           mkdir init && echo 1 > init/cgroup.procs && echo +pids > cgroup.subtree_control
         fi; echo $?; sleep 1000",
    );
    for mount in &mut sandbox.plan.mounts {
        if mount.kind == "cgroup" {
            mount.flags &= !1;
        }
    }
    let created = sandbox.start();
    let ProcessIo::Pipes { stdout, .. } = &created.process.io else { panic!("no pipes") };
    let mut answer = [0; 2];
    assert_eq!(rustix::io::read(stdout, &mut answer).unwrap(), 2);
    assert_eq!(&answer, b"0\n");
    let outcome = finish(sandbox.exec(&created, &options("cat /proc/self/cgroup")).unwrap());
    assert_eq!(outcome.code, 0);
    if sandbox.layout.is_v2() {
        assert_eq!(outcome.stdout, "0::/init\n");
    }
}

/// Neither descriptors nor children, after what went well and after what did not.
fn the_caller_keeps_nothing() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (sandbox, created) = running();
    let mut failing = Sandbox::script("exit 0");
    finish(sandbox.exec(&created, &options("exit 0")).unwrap());
    let before = descriptors();
    for round in 0..20 {
        finish(sandbox.exec(&created, &options("exit 0")).unwrap());
        let mut wrong = options("exit 0");
        wrong.process.as_mut().unwrap().cwd = "/nowhere".to_owned();
        assert!(sandbox.exec(&created, &wrong).is_err());
        failing.options.terminal = round % 2 == 0;
        failing.process().args = vec!["nope".to_owned()];
        assert_eq!(failing.error().kind(), Kind::CommandNotFound);
        assert!(!failing.cgroup().exists());
        failing.process().args = vec!["true".to_owned()];
        assert_eq!(failing.run().code, 0);
        failing.cgroup().remove(std::time::Instant::now()).unwrap();
    }
    assert_eq!(descriptors(), before);
    kill(&created.process.pidfd);
    wait(&created.process.pidfd);
    let left = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
    assert!(matches!(left, Err(rustix::io::Errno::CHILD)), "{left:?}");
}
