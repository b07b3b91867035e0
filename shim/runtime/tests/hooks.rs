//! Hooks around containers. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "of the tests' support only a part is used here")]

use std::process::ExitCode;
use std::time::Duration;

use shim_runtime::hooks;
use shim_runtime::state::Status;
use shim_runtime::{Kind, ProcessIo};
use shim_wire::hooks::{Hook, HookKind, State};
use shim_wire::plan::{Resources, User};

#[path = "support/runner.rs"]
mod runner;
#[path = "support/mod.rs"]
mod support;

use support::{Sandbox, finish};

fn main() -> ExitCode {
    runner::main(runner::tests![
        all_six_run_in_order_and_place,
        the_state_is_told,
        a_container_s_own_run_as_who_the_container_is,
        nothing_but_what_is_asked_for_reaches_one,
        one_that_fails_undoes_the_create,
        one_of_the_container_s_that_fails_undoes_the_create,
        one_that_fails_before_the_program_ends_the_container,
        one_that_hangs_is_killed_with_what_it_started,
        one_that_hangs_is_killed_with_what_left_it,
        one_that_is_no_program_is_named,
        one_that_says_much_and_reads_nothing_is_not_stuck,
        what_one_leaves_running_holds_nothing_up,
        the_limit_of_processes_is_the_programs,
        poststop_runs_all_and_once,
        what_they_mount_in_the_rootfs_is_seen,
        the_caller_keeps_nothing,
    ])
}

fn shell(kind: HookKind, script: &str) -> Hook {
    Hook {
        kind: kind.into(),
        path: "/bin/sh".to_owned(),
        args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        timeout: 0,
    }
}

impl Sandbox {
    fn with_hooks(mut self, hooks: Vec<Hook>) -> Self {
        self.hooks.hooks = hooks;
        self.hooks.state = Some(State {
            oci_version: "1.3.0".to_owned(),
            id: "web \"1\"".to_owned(),
            bundle: self.path("run").to_str().unwrap().to_owned(),
            annotations: [("a".to_owned(), "b\\c".to_owned())].into(),
        });
        self
    }

    /// A file that hooks outside write.
    fn log(&self) -> String {
        self.path("log").to_str().unwrap().to_owned()
    }

    fn logged(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn is_undone(&self) -> bool {
        !self.cgroup().exists()
    }
}

/// The text of the error that creating it ends with.
fn create_error(sandbox: &Sandbox) -> String {
    let error = sandbox.create().map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::Hook, "{error}");
    error.to_string()
}

fn all_six_run_in_order_and_place() {
    let sandbox = Sandbox::script("cat /started");
    let log = sandbox.log();
    let note = |name: &str| {
        format!("echo {name} $(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/pid) >> {log}")
    };
    let sandbox = sandbox.with_hooks(vec![
        shell(HookKind::Poststop, &note("poststop")),
        shell(HookKind::CreateContainer, &note("createContainer")),
        shell(HookKind::StartContainer, "readlink /proc/self/ns/mnt > /started"),
        shell(HookKind::CreateRuntime, &note("createRuntime")),
        shell(HookKind::Prestart, &note("prestart-1")),
        shell(HookKind::Prestart, &note("prestart-2")),
        shell(HookKind::Poststart, &note("poststart")),
    ]);
    let own = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    let outside = format!("{} {}", own("mnt").display(), own("pid").display());

    let mut created = sandbox.create().unwrap();
    let pid = created.process.pid;
    let of = |kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let inside = format!("{} {}", of("mnt").display(), of("pid").display());
    let mut expected = vec![
        format!("prestart-1 {outside}"),
        format!("prestart-2 {outside}"),
        format!("createRuntime {outside}"),
        format!("createContainer {inside}"),
    ];
    assert_eq!(sandbox.logged(), expected);
    assert!(!sandbox.path("upper/started").exists(), "start was not asked for");

    created.process.start().unwrap();
    let outcome = finish(created.process);
    assert_eq!(outcome.stdout.trim(), inside.split(' ').next().unwrap(), "{outcome:?}");
    hooks::run(&sandbox.run_dir(), &[HookKind::Poststart], Status::Running, Some(pid)).unwrap();
    hooks::poststop(&sandbox.run_dir()).unwrap();
    expected.extend([format!("poststart {outside}"), format!("poststop {outside}")]);
    assert_eq!(sandbox.logged(), expected);
}

fn the_state_is_told() {
    let sandbox = Sandbox::script("cat /state");
    let log = sandbox.log();
    let note = format!("cat >> {log}; echo >> {log}");
    let sandbox = sandbox.with_hooks(vec![
        shell(HookKind::CreateRuntime, &note),
        shell(HookKind::CreateContainer, &note),
        shell(HookKind::StartContainer, "cat > /state"),
        shell(HookKind::Poststop, &note),
    ]);
    let mut created = sandbox.create().unwrap();
    let pid = created.process.pid;
    created.process.start().unwrap();
    let inside = finish(created.process).stdout;
    hooks::poststop(&sandbox.run_dir()).unwrap();
    let bundle = sandbox.path("run").display().to_string();
    let state = |status: &str, pid: &str| {
        format!(
            r#"{{"ociVersion":"1.3.0","id":"web \"1\"","status":"{status}",{pid}"bundle":"{bundle}","annotations":{{"a":"b\\c"}}}}"#
        )
    };
    let expected = [
        state("creating", &format!("\"pid\":{pid},")),
        state("creating", "\"pid\":1,"),
        state("stopped", ""),
    ];
    assert_eq!(sandbox.logged(), expected);
    assert_eq!(inside, state("created", "\"pid\":1,"));
}

fn a_container_s_own_run_as_who_the_container_is() {
    let mut sandbox = Sandbox::script("cat /tmp/who");
    let script = "id -u; grep -E '^(Cap(Prm|Bnd)|NoNewPrivs)' /proc/self/status";
    sandbox.process().user = Some(User { uid: 1000, gid: 1000, ..User::default() });
    sandbox.process().no_new_privileges = true;
    std::fs::create_dir(sandbox.path("upper/tmp")).unwrap();
    rustix::fs::chmod(sandbox.path("upper/tmp"), 0o1777.into()).unwrap();
    let sandbox = sandbox
        .with_hooks(vec![shell(HookKind::StartContainer, &format!("({script}) > /tmp/who 2>&1"))]);
    let outcome = sandbox.run();
    let said = outcome.stdout.replace('\t', " ");
    assert_eq!(
        said, "1000\nCapPrm: 0000000000000000\nCapBnd: 00000000a80425fb\nNoNewPrivs: 1\n",
        "{outcome:?}"
    );
}

fn nothing_but_what_is_asked_for_reaches_one() {
    let sandbox = Sandbox::new();
    let log = sandbox.log();
    let script = format!(
        "env | grep -v -E '^(PWD|_|SHLVL|OLDPWD)='>> {log}; ls /proc/$$/fd >> {log}; umask >> {log}"
    );
    let mut hook = shell(HookKind::CreateRuntime, &script);
    hook.env.push("ONLY=this".to_owned());
    let sandbox = sandbox.with_hooks(vec![hook]);
    let created = sandbox.create().unwrap();
    let said: Vec<String> =
        sandbox.logged().into_iter().filter(|line| line != "10" && line != "255").collect();
    assert_eq!(said, ["PATH=/usr/bin:/bin", "ONLY=this", "0", "1", "2", "0022"]);
    drop(created);
}

fn one_that_fails_undoes_the_create() {
    let sandbox = Sandbox::new();
    let log = sandbox.log();
    let sandbox = sandbox.with_hooks(vec![
        shell(HookKind::CreateRuntime, &format!("echo first >> {log}")),
        shell(HookKind::CreateRuntime, "echo no luck >&2; exit 3"),
        shell(HookKind::CreateRuntime, &format!("echo third >> {log}")),
        shell(HookKind::CreateContainer, &format!("echo inside >> {log}")),
        shell(HookKind::Poststop, &format!("echo poststop >> {log}")),
    ]);
    let said = create_error(&sandbox);
    assert_eq!(said, "hooks.createRuntime[1] \"/bin/sh\": exit code 3: no luck");
    assert!(sandbox.is_undone());
    assert_eq!(sandbox.logged(), ["first", "poststop"]);
}

fn one_of_the_container_s_that_fails_undoes_the_create() {
    let sandbox = Sandbox::new().with_hooks(vec![shell(HookKind::CreateContainer, "kill -9 $$")]);
    let said = create_error(&sandbox);
    assert_eq!(said, "hooks.createContainer[0] \"/bin/sh\": killed by signal 9");
    assert!(sandbox.is_undone());
}

fn one_that_fails_before_the_program_ends_the_container() {
    let sandbox = Sandbox::script("echo ran")
        .with_hooks(vec![shell(HookKind::StartContainer, "echo broken; exit 1")]);
    let mut created = sandbox.create().unwrap();
    let error = created.process.start().unwrap_err();
    assert_eq!(error.to_string(), "hooks.startContainer[0] \"/bin/sh\": exit code 1: broken");
    let ProcessIo::Pipes { stdout, .. } = created.process.io else { panic!("pipes") };
    assert_eq!(support::read(stdout), "");
}

fn one_that_hangs_is_killed_with_what_it_started() {
    let sandbox = Sandbox::new();
    let log = sandbox.log();
    let script = format!("(sleep 2; echo late >> {log}) & echo waiting; sleep 1000");
    let mut hook = shell(HookKind::CreateRuntime, &script);
    hook.timeout = 1;
    let sandbox = sandbox.with_hooks(vec![hook]);
    let said = create_error(&sandbox);
    assert_eq!(said, "hooks.createRuntime[0] \"/bin/sh\": did not end within 1 s: waiting");
    assert!(sandbox.is_undone());
    std::thread::sleep(Duration::from_millis(1500));
    assert!(sandbox.logged().is_empty(), "its child lives");
}

fn one_that_hangs_is_killed_with_what_left_it() {
    const NEW_PID: u64 = 0x2000_0000;
    for kind in [HookKind::CreateRuntime, HookKind::CreateContainer] {
        let mut sandbox = Sandbox::new();
        // Nor does a pid namespace of its own end it.
        sandbox.options.clone_flags &= !NEW_PID;
        let log = sandbox.log();
        // The first of them has lost its parent by then.
        let script = format!(
            "(setsid sh -c 'echo $$ >> {log}; exec sleep 1000' &)
             setsid sh -c 'echo $$ >> {log}; setsid sleep 1000; true' & sleep 1000"
        );
        let earlier = shell(kind, "setsid sleep 3 >/dev/null 2>&1 & exit 0");
        let mut hook = shell(kind, &script);
        hook.timeout = 1;
        let sandbox = sandbox.with_hooks(vec![earlier, hook]);
        assert!(create_error(&sandbox).contains("did not end within 1 s"));
        let logged = sandbox.logged();
        assert_eq!(logged.len(), 2);
        for pid in logged {
            assert!(!std::path::Path::new("/proc").join(&pid).exists(), "{kind:?}: {pid} lives");
        }
    }
}

fn one_that_is_no_program_is_named() {
    for kind in [HookKind::Prestart, HookKind::CreateContainer] {
        let mut hook = shell(kind, "");
        hook.path = "/no/such".to_owned();
        let said = create_error(&Sandbox::new().with_hooks(vec![hook]));
        let expected = format!(
            "hooks.{}[0] \"/no/such\": can't be executed: No such file or directory (os error 2)",
            kind.name()
        );
        assert_eq!(said, expected);
    }
}

fn one_that_says_much_and_reads_nothing_is_not_stuck() {
    let script = "exec <&-; head -c 300000 /dev/zero | tr '\\0' x; echo; echo the end >&2; exit 1";
    let mut sandbox = Sandbox::new().with_hooks(vec![shell(HookKind::Prestart, script)]);
    let state = sandbox.hooks.state.as_mut().unwrap();
    state.annotations.insert("large".to_owned(), "y".repeat(300_000));
    let said = create_error(&sandbox);
    assert!(said.ends_with("x the end"), "{said}");
    assert!(said.len() < 600, "{}", said.len());
}

fn what_one_leaves_running_holds_nothing_up() {
    let sandbox = Sandbox::new();
    // For as long as the test has its directory.
    let here = sandbox.path("host");
    let script = format!("while [ -e {} ]; do sleep 0.1; done & echo left", here.display());
    let sandbox = sandbox.with_hooks(vec![shell(HookKind::CreateRuntime, &script)]);
    drop(sandbox.create().unwrap());
    assert!(here.exists());
}

fn the_limit_of_processes_is_the_programs() {
    let mut sandbox = Sandbox::new();
    sandbox.options.resources = Some(Resources { pids: Some(1), ..Resources::default() });
    let made = sandbox.path("upper/made");
    let script = format!("(sleep 0; sleep 0) && echo made > {}", made.display());
    let sandbox = sandbox.with_hooks(vec![shell(HookKind::CreateContainer, &script)]);
    let created = sandbox.create().unwrap();
    let limit = sandbox
        .cgroup()
        .paths()
        .iter()
        .find_map(|path| std::fs::read_to_string(path.join("pids.max")).ok());
    assert_eq!(limit.as_deref(), Some("1\n"));
    drop(created);
    assert_eq!(std::fs::read_to_string(made).unwrap(), "made\n");
}

fn poststop_runs_all_and_once() {
    let sandbox = Sandbox::new();
    let log = sandbox.log();
    let sandbox = sandbox.with_hooks(vec![
        shell(HookKind::Poststop, "exit 1"),
        shell(HookKind::Poststop, &format!("echo ran >> {log}")),
    ]);
    sandbox.run();
    let error = hooks::poststop(&sandbox.run_dir()).unwrap_err();
    assert_eq!(error.to_string(), "hooks.poststop[0] \"/bin/sh\": exit code 1");
    hooks::poststop(&sandbox.run_dir()).unwrap();
    assert_eq!(sandbox.logged(), ["ran"]);
}

/// A hook that adds a mount, as those of GPU vendors do: from inside by the rootfs' path, and from
/// outside by entering the mount namespace of the container.
fn what_they_mount_in_the_rootfs_is_seen() {
    for (kind, enter) in [
        (HookKind::CreateContainer, ""),
        (
            HookKind::CreateRuntime,
            "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); nsenter -t $pid -m ",
        ),
    ] {
        let mut sandbox = Sandbox::script("cat /tmp/mounted");
        let root = sandbox.path("root").to_str().unwrap().to_owned();
        let rootfs = sandbox.plan.rootfs.as_mut().unwrap();
        *rootfs = shim_wire::plan::Rootfs {
            directory: root.clone(),
            shown_at: root.clone(),
            ..Default::default()
        };
        std::fs::write(sandbox.path("host/mounted"), "seen").unwrap();
        let host = sandbox.path("host").display().to_string();
        let script = format!("{enter}mount --bind {host} {root}/tmp");
        let sandbox = sandbox.with_hooks(vec![shell(kind, &script)]);
        let outcome = sandbox.run();
        assert_eq!(outcome.stdout, "seen", "{kind:?}: {outcome:?}");
    }
}

fn the_caller_keeps_nothing() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let sandbox = Sandbox::new();
    let hooks = HookKind::ALL.iter().map(|kind| shell(*kind, "exit 0")).collect::<Vec<_>>();
    let sandbox = sandbox.with_hooks(hooks);
    let before = descriptors();
    let created = sandbox.create().unwrap();
    let pid = created.process.pid;
    hooks::run(&sandbox.run_dir(), &[HookKind::Poststart], Status::Running, Some(pid)).unwrap();
    hooks::poststop(&sandbox.run_dir()).unwrap();
    drop(created);
    assert_eq!(descriptors(), before);
    while rustix::process::wait(rustix::process::WaitOptions::NOHANG).is_ok_and(|w| w.is_some()) {}
}
