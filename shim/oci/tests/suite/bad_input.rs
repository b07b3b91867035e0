//! Wrong commands, and bundles that are none: an error that names what is wrong, and nothing made.

use serde_json::json;

use crate::sandbox::Sandbox;

#[test]
fn a_bundle_without_a_configuration() {
    let sandbox = Sandbox::new("true");
    std::fs::remove_file(sandbox.path("bundle/config.json")).unwrap();
    let error = sandbox.create().err();
    assert!(error.contains("bundle/config.json: No such file"), "{error}");
    assert!(sandbox.is_gone());
    let error = sandbox.on("create", &["--bundle", "/no/such"]).err();
    assert!(error.contains("/no/such: No such file"), "{error}");
}

#[test]
fn a_configuration_that_is_malformed_is_told_by_its_place() {
    let mut sandbox = Sandbox::new("true");
    for (pointer, value, expected) in [
        ("/process/user/uid", json!("root"), "process.user.uid: "),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/args", json!([]), "process.args"),
        ("/linux/resources", json!({"pids": {"limit": "x"}}), "linux.resources.pids.limit: "),
        ("/mounts", json!([{"destination": "/proc", "options": 1}]), "mounts[0].options: "),
    ] {
        let before = sandbox.config.clone();
        sandbox.set(pointer, value);
        let error = sandbox.create().err();
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(error.contains("config.json"), "{error}");
        assert!(sandbox.is_gone());
        sandbox.config = before;
    }
    std::fs::write(sandbox.path("bundle/config.json"), "{\"ociVersion\": \"1.0.0\",").unwrap();
    let error = sandbox.create().err();
    assert!(error.contains("EOF") && error.contains("line 1"), "{error}");
}

#[test]
fn a_capability_that_nobody_knows_is_passed_over_and_said() {
    let mut sandbox = Sandbox::new("grep CapBnd /proc/self/status");
    let names = json!({"bounding": ["CAP_KILL", "CAP_NOPE"]});
    sandbox.set("/process/capabilities", names.clone());
    let said = sandbox.run();
    assert_eq!((said.code, said.stdout.as_str()), (0, "CapBnd:\t0000000000000020\n"), "{said:?}");
    assert!(said.stderr.contains("process.capabilities.bounding: \"CAP_NOPE\""), "{said:?}");
    let sandbox = Sandbox::running("exec sleep 1000");
    let file = sandbox.text("process.json");
    let process = json!({
        "cwd": "/", "args": ["true"], "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0}, "capabilities": names,
    });
    std::fs::write(&file, process.to_string()).unwrap();
    let said = sandbox.exec(&["--process", &file], &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("process.capabilities.bounding: \"CAP_NOPE\""), "{said:?}");
}

#[test]
fn flags_of_a_scheduler_have_the_names_of_the_specification() {
    let mut sandbox = Sandbox::new("exec true");
    let scheduler = |flag| json!({"policy": "SCHED_BATCH", "nice": 1, "flags": [flag]});
    sandbox.set("/process/scheduler", scheduler("SCHED_FLAG_RESET_ON_FORK"));
    sandbox.run().ok();
    sandbox.set("/process/scheduler", scheduler("SCHED_FLAG_NOPE"));
    let error = sandbox.create().err();
    assert!(error.contains("process.scheduler.flags[0]"), "{error}");
}

#[test]
fn a_scheduler_that_the_kernel_does_not_take_is_told_with_the_way_out() {
    let mut sandbox = Sandbox::new("exec true");
    let deadline = json!({
        "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 2_000_000,
        "period": 600_000_000_000u64,
    });
    sandbox.set("/process/scheduler", deadline);
    let error = sandbox.create().err();
    assert!(error.contains("process.scheduler: the period is not within kernel."), "{error}");
    sandbox.set("/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 1}));
    let said = sandbox.run();
    // Only where control groups share the real-time out.
    if said.code != 0 {
        let error = said.err();
        assert!(error.contains("process.scheduler: the kernel gives no real-time"), "{error}");
        assert!(error.contains("linux.resources.cpu.realtimeRuntime"), "{error}");
    }
}

/// What only the process itself can find out, in groups that are there by then.
#[test]
fn a_create_that_fails_leaves_no_groups_above_its_own() {
    let mut sandbox = Sandbox::new("true");
    let above = format!("bosun-oci-above-{}", sandbox.id);
    sandbox.set("/linux/cgroupsPath", json!(format!("/{above}/inner/own")));
    sandbox.set("/mounts", json!([{"destination": "/a", "type": "nope", "source": "nope"}]));
    let error = sandbox.create().err();
    assert!(error.contains("mounts[0]"), "{error}");
    let layout = shim_cgroup::Layout::detect().unwrap();
    let left = shim_cgroup::Cgroup::new(&layout, &above).unwrap();
    assert!(!left.exists(), "{:?}", left.paths());
}

#[test]
fn what_is_no_version_of_the_specification_is_refused() {
    let mut sandbox = Sandbox::new("true");
    sandbox.set("/ociVersion", json!("2.0.0"));
    let error = sandbox.create().err();
    assert!(error.contains("ociVersion: \"2.0.0\" is not a version 1.x.y"), "{error}");
}

#[test]
fn a_rootfs_that_is_not_there() {
    let mut sandbox = Sandbox::new("true");
    for (path, expected) in [
        ("nowhere", "bundle/nowhere: No such file or directory"),
        ("config.json", "bundle/config.json: not a directory"),
    ] {
        sandbox.set("/root/path", json!(path));
        let error = sandbox.create().err();
        assert!(error.contains("root.path: ") && error.contains(expected), "{error}");
        assert!(sandbox.is_gone());
    }
}

#[test]
fn a_command_that_is_not_there_is_told_in_runcs_words() {
    let mut sandbox = Sandbox::new("true");
    for (command, expected) in [
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        ("/nope", "exec: \"/nope\": stat /nope: no such file or directory"),
        ("/bin", "exec: \"/bin\": permission denied"),
    ] {
        sandbox.set("/process/args", json!([command]));
        for verb in ["create", "run"] {
            let error = sandbox.on(verb, &["--bundle", &sandbox.bundle()]).err();
            assert!(error.contains(expected), "{error}");
            assert!(sandbox.is_gone());
        }
    }
}

#[test]
fn what_does_not_fit_a_containers_state_is_refused() {
    let sandbox = Sandbox::new("exec sleep 1000");
    for verb in ["state", "start", "kill", "delete", "pause", "resume", "ps", "events", "update"] {
        let error = sandbox.on(verb, &[]).err();
        assert!(error.contains("container does not exist"), "{verb}: {error}");
    }
    sandbox.on("delete", &["--force"]).ok();
    sandbox.create().ok();
    let error = sandbox.create().err();
    assert!(error.contains("container with given ID already exists"), "{error}");
    assert_eq!(sandbox.status(), "created", "and the first is as it was");
    sandbox.on("start", &[]).ok();
    assert!(sandbox.on("start", &[]).err().contains("it is running"));
    assert!(sandbox.on("delete", &[]).err().contains("not stopped: running"));
    sandbox.oci(&["kill", &sandbox.id, "KILL"]).ok();
    sandbox.wait_for("stopped");
    assert!(sandbox.on("kill", &[]).err().contains("container not running"));
    assert!(sandbox.on("start", &[]).err().contains("it is stopped"));
    assert!(sandbox.exec(&[], &["true"]).err().contains("it is stopped"));
}

#[test]
fn a_created_container_is_deleted_without_force() {
    let sandbox = Sandbox::new("true");
    sandbox.create().ok();
    sandbox.on("delete", &[]).ok();
    assert!(sandbox.is_gone());
}

#[test]
fn ids_stay_in_their_directory() {
    let sandbox = Sandbox::new("true");
    for id in ["../x", "a/b", "..", "a b", ""] {
        for words in [&["create", "--bundle", &sandbox.bundle(), id][..], &["delete", "-f", id]] {
            let error = sandbox.oci(words).err();
            assert!(error.contains("container id"), "{words:?}: {error}");
        }
    }
    assert!(!sandbox.path("x").exists());
}

#[test]
fn signals_are_checked_before_they_are_sent() {
    let sandbox = Sandbox::running("exec sleep 1000");
    let error = sandbox.oci(&["kill", &sandbox.id, "NOPE"]).err();
    assert!(error.contains("\"NOPE\" is not a signal's name or number"), "{error}");
    assert_eq!(sandbox.status(), "running");
    for flags in [&[][..], &["--all"]] {
        sandbox.oci(&[&["kill"], flags, &[&sandbox.id, "0"]].concat()).ok();
    }
    assert_eq!(sandbox.status(), "running", "0 only looks whether it is there");
    sandbox.oci(&["kill", &sandbox.id, "KILL"]).ok();
    sandbox.wait_for("stopped");
    assert!(sandbox.oci(&["kill", &sandbox.id, "0"]).err().contains("container not running"));
}

/// What the kernel refuses only of who asks too much is known when the container is made.
#[test]
fn a_limit_beyond_what_may_be_is_told_by_create() {
    let mut sandbox = Sandbox::new("true");
    let most: u64 =
        std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap().trim().parse().unwrap();
    sandbox
        .set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 64, "hard": most + 1}]));
    let error = sandbox.create().err();
    assert!(error.contains("process.rlimits[0] (RLIMIT_NOFILE)"), "{error}");
    assert!(sandbox.is_gone());
    for (limit, expected) in [
        (json!({"type": "RLIMIT_NOPE", "soft": 1, "hard": 1}), "process.rlimits[0].type"),
        (json!({"type": "RLIMIT_CPU", "soft": 2, "hard": 1}), "process.rlimits[0]: soft is higher"),
    ] {
        sandbox.set("/process/rlimits", json!([limit]));
        let error = sandbox.create().err();
        assert!(error.contains(expected), "{error}");
    }
}

/// What a manager hands over as standard error is the container's.
#[test]
fn a_container_that_is_made_for_somebody_else_has_its_standard_error_to_itself() {
    let mut sandbox = Sandbox::new("true");
    sandbox.set("/process/capabilities", json!({"bounding": ["CAP_NOPE"]}));
    let log = format!("{}/log", sandbox.bundle());
    let create = ["create", "--bundle", &sandbox.bundle(), &sandbox.id];
    let words = [&["--log", log.as_str()], &create[..]].concat();
    let quiet = sandbox.command(&create);
    let said = sandbox.finish(quiet);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    sandbox.on("delete", &["--force"]).ok();
    let told = sandbox.command(&words);
    let said = sandbox.finish(told);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    assert!(std::fs::read_to_string(&log).unwrap().contains("CAP_NOPE"));
}

#[test]
fn a_capability_that_the_runtime_lacks_is_a_warning() {
    let mut sandbox = Sandbox::new("grep -E 'CapPrm|CapBnd' /proc/self/status");
    let names = json!(["CAP_KILL", "CAP_SYSLOG"]);
    sandbox.set(
        "/process/capabilities",
        json!({"bounding": names, "permitted": names, "effective": names}),
    );
    let run = sandbox.command(&["run", "--bundle", &sandbox.bundle(), &sandbox.id]);
    let mut lacking = std::process::Command::new("setpriv");
    lacking.args(["--bounding-set", "-syslog"]).arg(run.get_program()).args(run.get_args());
    let said = sandbox.finish(lacking);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.stdout.matches("0000000000000020\n").count(), 2, "CAP_KILL alone: {said:?}");
    let expected = "warning: process.capabilities.permitted: this runtime has no CAP_SYSLOG";
    assert!(said.stderr.contains(expected), "{said:?}");
}

#[test]
fn an_agent_that_is_not_there_is_told_by_create() {
    let mut sandbox = Sandbox::new("true");
    for (path, expected) in [
        (sandbox.text("nowhere"), "No such file"),
        (sandbox.text("bundle/config.json"), "not a socket"),
    ] {
        sandbox.set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
                   "syscalls": [{"names": ["swapoff"], "action": "SCMP_ACT_NOTIFY"}]}),
        );
        let error = sandbox.create().err();
        assert!(error.contains(&format!("linux.seccomp.listenerPath: {path}: ")), "{error}");
        assert!(error.contains(expected), "{error}");
        assert!(sandbox.is_gone());
    }
}

/// As the specification has it: its process has ended, and it is the caller's to delete.
#[test]
fn a_container_that_could_not_be_started_is_stopped() {
    let mut sandbox = Sandbox::new("true");
    // A program that is there, and that no kernel can execute.
    std::fs::write(sandbox.path("bundle/rootfs/bin/odd"), "\x7fELF").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(sandbox.path("bundle/rootfs/bin/odd"), mode).unwrap();
    sandbox.set("/process/args", json!(["odd"]));
    sandbox.create().ok();
    let error = sandbox.on("start", &[]).err();
    assert!(error.contains("exec: \"odd\""), "{error}");
    assert_eq!(sandbox.status(), "stopped", "as soon as it is told");
    assert!(sandbox.on("start", &[]).err().contains("it is stopped"));
    sandbox.on("delete", &[]).ok();
    assert!(sandbox.is_gone());
    // Whoever runs it has nothing to delete.
    assert!(sandbox.run().err().contains("exec: \"odd\""));
    assert!(sandbox.is_gone());
}

#[test]
fn flags_that_can_not_be_honoured_are_refused_by_name() {
    let sandbox = Sandbox::new("true");
    let bundle = sandbox.bundle();
    for words in [
        &["create", "--no-pivot", "--bundle", &bundle, "x"][..],
        &["--rootless", "true", "create", "--bundle", &bundle, "x"],
        &["spec", "--rootless"],
        &["create", "--console-socket", "/nope", "--bundle", &bundle, "x"],
    ] {
        let error = sandbox.oci(words).err();
        let flag = words.iter().find(|word| word.starts_with("--")).unwrap();
        assert!(error.contains(flag), "{error}");
        assert!(sandbox.is_gone());
    }
    let error = sandbox.oci(&["create", "--nonsense"]).err();
    assert!(error.contains("--nonsense"), "{error}");
}

#[test]
fn systemd_is_asked_for_a_scope_and_missed_where_it_is_not() {
    let mut sandbox = Sandbox::new("true");
    let create = |sandbox: &Sandbox| {
        sandbox.oci(&["--systemd-cgroup", "create", "--bundle", &sandbox.bundle(), &sandbox.id])
    };
    sandbox.set("/linux/cgroupsPath", json!("/not/a/scope"));
    let error = create(&sandbox).err();
    assert!(error.contains("linux.cgroupsPath"), "{error}");
    sandbox.set("/linux/cgroupsPath", json!(format!("bosun-test.slice:oci:{}", sandbox.id)));
    if !std::path::Path::new("/run/systemd/private").exists() {
        let error = create(&sandbox).err();
        assert!(error.contains("--systemd-cgroup: "), "{error}");
        assert!(sandbox.is_gone());
    }
}

#[test]
fn a_group_with_processes_is_nobody_elses() {
    let one = Sandbox::running("exec sleep 1000");
    let mut other = Sandbox::new("true");
    other.set("/linux/cgroupsPath", json!(format!("/bosun-oci-{}", one.id)));
    let error = other.create().err();
    assert!(error.contains("linux.cgroupsPath"), "{error}");
    assert_eq!(one.status(), "running");
}

#[test]
fn nothing_is_written_through_what_others_put_beside_the_pid_file() {
    let sandbox = Sandbox::new("true");
    let victim = sandbox.path("victim");
    std::fs::write(&victim, "kept").unwrap();
    // A name that follows from the number of the process is known to whoever starts it.
    let mut command = std::process::Command::new("sh");
    let script = "cd $1; ln -s victim .pid.$$; shift; exec \"$@\"";
    command.args(["-c", script, "sh", &sandbox.text(""), crate::sandbox::OCI, "--root"]);
    command.args([&sandbox.text("state"), "create", "--bundle", &sandbox.bundle()]);
    command.args(["--pid-file", &sandbox.text("pid"), &sandbox.id]);
    command.stdin(std::process::Stdio::null());
    sandbox.finish(command).ok();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "kept");
    assert!(std::fs::symlink_metadata(sandbox.path("pid")).unwrap().is_file());
    let pid = std::fs::read_to_string(sandbox.path("pid")).unwrap();
    assert_eq!(sandbox.state()["pid"].to_string(), pid);
}

#[test]
fn a_group_that_is_frozen_or_in_use_is_refused_and_left_alone() {
    let mut sandbox = Sandbox::new("true");
    let path = format!("/bosun-oci-test-{}", sandbox.id);
    sandbox.set("/linux/cgroupsPath", json!(path));
    let layout = shim_cgroup::Layout::detect().unwrap();
    let group = shim_cgroup::Cgroup::new(&layout, &path[1..]).unwrap();
    group.create(&shim_wire::plan::Resources::default()).unwrap();
    group.freeze(true).unwrap();
    let error = sandbox.create().err();
    assert!(error.contains("is frozen"), "{error}");
    assert!(!sandbox.path("state").join(&sandbox.id).exists());
    group.freeze(false).unwrap();
    // In one hierarchy alone, as somebody's own tool may do it.
    for directory in group.paths() {
        let mut member = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        std::fs::write(directory.join("cgroup.procs"), member.id().to_string()).unwrap();
        let error = sandbox.create().err();
        assert!(error.contains(&member.id().to_string()), "{directory:?}: {error}");
        member.kill().unwrap();
        member.wait().unwrap();
    }
    group.remove(std::time::Instant::now() + std::time::Duration::from_secs(5)).unwrap();
}
