//! Scopes of the machine's own systemd. Needs root, and a machine that was booted with systemd on the
//! unified hierarchy, as the virtual machine of `make test-vm` is; elsewhere these say so and do nothing.
#![expect(clippy::unwrap_used, reason = "a test that meets a missing value has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use shim_systemd::{Error, Manager};
use shim_wire::plan::Resources;

const SLICE: &str = "system.slice";
const BUS: &str = "/run/dbus/system_bus_socket";

fn may_run() -> bool {
    let booted = Path::new("/run/systemd/system").is_dir();
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let root = rustix::process::geteuid().is_root();
    if !(booted && unified && root) {
        eprintln!("skipped: needs root, and a systemd with cgroup v2 as process 1");
    }
    booted && unified && root
}

/// A unit's name, and a process to put into it; both go with this.
struct Scope {
    unit: String,
    process: Child,
}

impl Scope {
    fn new(name: &str) -> Self {
        let process = Command::new("sleep").arg("1000").spawn().unwrap();
        Self { unit: format!("bosun-test-{name}-{}.scope", std::process::id()), process }
    }

    fn directory(&self) -> PathBuf {
        Path::new("/sys/fs/cgroup").join(SLICE).join(&self.unit)
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.directory().join(name)).unwrap().trim().to_owned()
    }

    /// As `systemctl show` tells it.
    fn property(&self, name: &str) -> String {
        let show = ["show", "--value", "-p", name, &self.unit];
        let output = Command::new("systemctl").args(show).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn start(&self, manager: &mut Manager, limits: &Resources) -> Result<(), Error> {
        manager.start(&self.unit, SLICE, self.process.id(), limits, true)
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn limits() -> Resources {
    Resources {
        memory: Some(64 << 20),
        memory_swap: Some(96 << 20),
        memory_reservation: Some(16 << 20),
        pids: Some(23),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        cpuset_cpus: "0".to_owned(),
        ..Resources::default()
    }
}

#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "no {what} within 30 seconds");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_scope_has_its_process_and_limits_and_ends_with_it() {
    if !may_run() {
        return;
    }
    let mut manager = Manager::connect().unwrap();
    let mut scope = Scope::new("limits");
    scope.start(&mut manager, &limits()).unwrap();
    let group = fs::read_to_string(format!("/proc/{}/cgroup", scope.process.id())).unwrap();
    assert_eq!(group.trim(), format!("0::/{SLICE}/{}", scope.unit));
    for (name, value) in [
        ("ActiveState", "active"),
        ("Slice", SLICE),
        ("Delegate", "yes"),
        ("MemoryMax", "67108864"),
        ("MemorySwapMax", "33554432"),
        ("MemoryLow", "16777216"),
        ("TasksMax", "23"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("AllowedCPUs", "0"),
        ("Description", &format!("container {}", scope.unit)),
    ] {
        assert_eq!(scope.property(name), value, "{name}");
    }
    assert_eq!(scope.file("memory.max"), "67108864");
    assert_eq!(scope.file("pids.max"), "23");
    assert_eq!(scope.file("cpu.max"), "50000 100000");
    // New limits, and they outlive a reload.
    let more = Resources { pids: Some(42), memory: Some(-1), ..Resources::default() };
    fs::write(scope.directory().join("pids.max"), "42").unwrap();
    fs::write(scope.directory().join("memory.max"), "max").unwrap();
    manager.set(&scope.unit, &more, Some(&scope.directory())).unwrap();
    assert!(Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
    assert_eq!(scope.property("TasksMax"), "42");
    assert_eq!(scope.file("pids.max"), "42");
    assert_eq!(scope.file("memory.max"), "max");
    scope.process.kill().unwrap();
    scope.process.wait().unwrap();
    until("end of the scope", || scope.property("LoadState") == "not-found");
    assert!(!scope.directory().exists());
}

#[test]
fn a_scope_that_is_stopped_ends_what_is_in_it_and_its_name_is_free() {
    if !may_run() {
        return;
    }
    // Also by the bus, where others talk as well.
    let soon = Instant::now() + Duration::from_secs(30);
    let mut managers = vec![Manager::connect().unwrap()];
    if Path::new(BUS).exists() {
        managers.push(Manager::connect_bus(Path::new(BUS), soon).unwrap());
    }
    for mut manager in managers {
        let mut scope = Scope::new("stopped");
        scope.start(&mut manager, &Resources::default()).unwrap();
        manager.stop(&scope.unit).unwrap();
        assert!(scope.process.wait().unwrap().code().is_none(), "it is killed");
        manager.stop(&scope.unit).unwrap();
        assert!(!scope.directory().exists());
    }
}

#[test]
fn what_systemd_refuses_is_told_in_its_words() {
    if !may_run() {
        return;
    }
    let mut manager = Manager::connect().unwrap();
    let scope = Scope::new("refused");
    let started = manager.start(&scope.unit, "no-slice", scope.process.id(), &limits(), true);
    let said = started.unwrap_err().to_string();
    assert!(said.contains("systemd: StartTransientUnit: ") && said.contains("no-slice"), "{said}");
    let mut ended = Scope::new("ended");
    ended.process.kill().unwrap();
    ended.process.wait().unwrap();
    let said = ended.start(&mut manager, &limits()).unwrap_err().to_string();
    assert!(said.starts_with("systemd: StartTransientUnit: "), "{said}");
    let said = manager.set(&scope.unit, &limits(), None).unwrap_err().to_string();
    assert!(said.contains(&scope.unit), "{said}");
}
