//! `--systemd-cgroup` with a real systemd. Needs a machine that was booted with it on the unified
//! hierarchy, as the virtual machine of `make test-vm` is; elsewhere these are ignored.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::podman::Podman;
use crate::sandbox::{Said, Sandbox, until};

const SLICE: &str = "machine.slice";

/// A container whose group is the scope `bosun-ID.scope`.
struct Scope {
    sandbox: Sandbox,
    unit: String,
}

impl Scope {
    fn new(script: &str) -> Self {
        let mut sandbox = Sandbox::new(script);
        let unit = format!("bosun-{}.scope", sandbox.id);
        sandbox.set("/linux/cgroupsPath", json!(format!("{SLICE}:bosun:{}", sandbox.id)));
        Self { sandbox, unit }
    }

    fn running(script: &str) -> Self {
        let scope = Self::new(script);
        scope.launch("run", &["--detach"]).ok();
        scope
    }

    fn launch(&self, verb: &str, flags: &[&str]) -> Said {
        let Sandbox { id, .. } = &self.sandbox;
        let bundle = self.sandbox.bundle();
        let words = [&["--systemd-cgroup", verb, "--bundle", &bundle], flags, &[id]].concat();
        self.sandbox.oci(&words)
    }

    fn directory(&self) -> PathBuf {
        Path::new("/sys/fs/cgroup").join(SLICE).join(&self.unit)
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.directory().join(name)).unwrap().trim().to_owned()
    }

    fn properties(&self, names: &str) -> Vec<String> {
        properties(&self.unit, names)
    }

    fn pid(&self) -> String {
        self.sandbox.state()["pid"].to_string()
    }

    /// Neither systemd nor the kernel knows it.
    #[track_caller]
    fn assert_forgotten(&self) {
        assert_eq!(self.properties("LoadState,ActiveState"), ["not-found", "inactive"]);
        assert!(!self.directory().exists());
    }
}

/// As `systemctl show` tells them, in the order of the names.
fn properties(unit: &str, names: &str) -> Vec<String> {
    let text = systemctl(&["show", "-p", names, unit]);
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{name}: {text}")).to_owned()
    };
    names.split(',').map(value).collect()
}

#[track_caller]
fn systemctl(words: &[&str]) -> String {
    let output = Command::new("systemctl").args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn the_group_is_a_scope_with_the_limits_that_were_asked_for() {
    let mut scope = Scope::new("exec sleep 1000");
    let limits = json!({
        "memory": { "limit": 67_108_864, "reservation": 33_554_432, "swap": 100_663_296 },
        "cpu": { "quota": 50_000, "period": 100_000, "cpus": "0" },
        "pids": { "limit": 23 },
    });
    scope.sandbox.set("/linux/resources", limits);
    scope.launch("create", &[]).ok();
    assert_eq!(
        scope.properties("ActiveState,Slice,Delegate,TasksMax,MemoryMax,MemorySwapMax,MemoryLow"),
        ["active", SLICE, "yes", "23", "67108864", "33554432", "33554432"]
    );
    assert_eq!(scope.properties("CPUQuotaPerSecUSec,AllowedCPUs"), ["500ms", "0"]);
    let pid = scope.pid();
    assert_eq!(scope.file("cgroup.procs"), pid, "the container's process and no other");
    let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(group.trim(), format!("0::/{SLICE}/{}", scope.unit));
    assert_eq!(
        (scope.file("memory.max"), scope.file("pids.max")),
        ("67108864".into(), "23".into())
    );
    assert_eq!(scope.file("cpu.max"), "50000 100000");
    scope.sandbox.on("start", &[]).ok();
    let said = scope.sandbox.exec(&[], &["cat", "/proc/1/cgroup", "/proc/self/cgroup"]).ok();
    assert_eq!(said, "0::/\n0::/\n", "an exec is in it as well");
    scope.sandbox.on("delete", &["--force"]).ok();
    scope.assert_forgotten();
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn limits_outlive_a_reload_of_systemd() {
    let mut scope = Scope::new("exec sleep 1000");
    let limits = json!({
        "cpu": { "shares": 512, "burst": 10_000, "quota": 50_000, "period": 100_000 },
        "pids": { "limit": 23 },
        "unified": { "memory.high": "50331648" },
    });
    scope.sandbox.set("/linux/resources", limits);
    scope.launch("run", &["--detach"]).ok();
    let update =
        ["--pids-limit", "42", "--memory", "128m", "--cpu-quota", "30000", "--cpuset-cpus", "1"];
    scope.sandbox.on("update", &update).ok();
    let files = || {
        let names = [
            "pids.max",
            "memory.max",
            "memory.high",
            "cpu.max",
            "cpu.max.burst",
            "cpu.weight",
            "cpuset.cpus",
        ];
        names.map(|name| format!("{name} {}", scope.file(name)))
    };
    let expected = [
        "pids.max 42",
        "memory.max 134217728",
        "memory.high 50331648",
        "cpu.max 30000 100000",
        "cpu.max.burst 10000",
        "cpu.weight 59",
        "cpuset.cpus 1",
    ];
    assert_eq!(files(), expected);
    systemctl(&["daemon-reload"]);
    // It goes through its groups once it has answered.
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(files(), expected);
    // And when it has a reason to write them anew.
    systemctl(&["set-property", "--runtime", &scope.unit, "TasksMax=43"]);
    until("TasksMax", || scope.file("pids.max") == "43");
    assert_eq!(files()[1..], expected[1..]);
    assert_eq!(scope.properties("TasksMax,MemoryMax"), ["43", "134217728"]);
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn devices_that_were_denied_stay_so_after_a_reload() {
    let disk = fs::read_to_string("/sys/block/vda/dev").unwrap();
    let (major, minor) = disk.trim().split_once(':').unwrap();
    let scope = Scope::running("exec sleep 1000");
    let device = scope.sandbox.path("bundle/rootfs/disk");
    let made = Command::new("mknod").arg(&device).args(["b", major, minor]).status().unwrap();
    assert!(made.success());
    let read = || scope.sandbox.exec(&[], &["head", "-c", "1", "/disk"]);
    let denied = read().err();
    assert!(denied.contains("Operation not permitted"), "{denied}");
    systemctl(&["daemon-reload"]);
    let denied = read().err();
    assert!(denied.contains("Operation not permitted"), "{denied}");
    scope.sandbox.exec(&[], &["sh", "-c", "echo x > /dev/null"]).ok();
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn a_scope_is_frozen_and_thawed() {
    let scope = Scope::running("exec sleep 1000");
    let frozen = || scope.file("cgroup.events").contains("frozen 1");
    scope.sandbox.on("pause", &[]).ok();
    assert!(frozen() && scope.sandbox.status() == "paused");
    scope.sandbox.on("resume", &[]).ok();
    assert!(!frozen() && scope.sandbox.status() == "running");
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn an_ended_container_leaves_no_unit() {
    let scope = Scope::new("exit 3");
    assert_eq!(scope.launch("run", &[]).code, 3);
    scope.assert_forgotten();
    // Nor one that the kernel kills for want of memory, whose scope has failed.
    let mut scope = Scope::new("dd if=/dev/zero of=/dev/null bs=256M count=1");
    let limits = json!({ "memory": { "limit": 33_554_432, "swap": 33_554_432 } });
    scope.sandbox.set("/linux/resources", limits);
    scope.launch("run", &["--detach"]).ok();
    scope.sandbox.wait_for("stopped");
    scope.sandbox.on("delete", &[]).ok();
    scope.assert_forgotten();
    // And its name is free.
    scope.sandbox.set("/process/args", json!(["true"]));
    scope.launch("run", &[]).ok();
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn a_create_that_fails_leaves_no_unit() {
    let mut scope = Scope::new("true");
    let hook = scope.sandbox.text("hook");
    fs::copy("/bin/busybox", &hook).unwrap();
    let fails = json!([{ "path": hook, "args": ["false"] }]);
    scope.sandbox.set("/hooks", json!({ "createRuntime": fails }));
    let said = scope.launch("create", &[]).err();
    assert!(said.contains("createRuntime"), "{said}");
    scope.assert_forgotten();
    scope.sandbox.set("/hooks", json!({}));
    // A limit that this machine can't grant.
    scope.sandbox.set("/linux/resources", json!({ "cpu": { "cpus": "0-8999" } }));
    let said = scope.launch("create", &[]).err();
    assert!(said.contains("cpuset-cpus"), "{said}");
    scope.assert_forgotten();
    scope.sandbox.set("/linux/resources", json!({}));
    scope.launch("run", &[]).ok();
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn a_scope_that_somebody_has_is_left_alone() {
    let one = Scope::running("exec sleep 1000");
    let mut other = Sandbox::new("true");
    other.set("/linux/cgroupsPath", json!(format!("{SLICE}:bosun:{}", one.sandbox.id)));
    let bundle = other.bundle();
    let said = other.oci(&["--systemd-cgroup", "create", "--bundle", &bundle, &other.id]).err();
    assert!(said.contains("linux.cgroupsPath"), "{said}");
    assert_eq!(one.sandbox.status(), "running");
    assert_eq!(one.properties("ActiveState"), ["active"]);
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn podman_has_systemd_make_the_groups() {
    let podman = Podman::new("systemd", SLICE);
    let script = "trap 'exit 5' TERM; while :; do sleep 0.05; done";
    let flags = ["--detach", "--name", "a", "--pids-limit", "37", "--memory", "64m"];
    podman.run(&flags, &["sh", "-c", script]).ok();
    let unit = format!("libpod-{}.scope", podman.inspect("a", "{{.Id}}"));
    assert_eq!(
        properties(&unit, "ActiveState,Slice,TasksMax,MemoryMax"),
        ["active", SLICE, "37", "67108864"]
    );
    let said = podman.podman(&["exec", "a", "sh", "-c", "echo on; exit 3"]);
    assert_eq!((said.code, &*said.stdout), (3, "on\n"));
    let stats = ["stats", "--no-stream", "--format", "{{.PIDs}}", "a"];
    assert!(podman.podman(&stats).ok().trim().parse::<u32>().unwrap() >= 1);
    podman.podman(&["pause", "a"]).ok();
    assert_eq!(podman.inspect("a", "{{.State.Status}}"), "paused");
    podman.podman(&["unpause", "a"]).ok();
    podman.podman(&["stop", "a"]).ok();
    assert_eq!(podman.inspect("a", "{{.State.ExitCode}}"), "5");
    podman.podman(&["rm", "a"]).ok();
    assert_eq!(properties(&unit, "LoadState"), ["not-found"]);
}
