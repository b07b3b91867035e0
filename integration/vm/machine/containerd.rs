//! Debian's containerd drives bosun's shim on cgroup v2, and asks for systemd's groups (`SystemdCgroup`,
//! as a kubelet's configuration has it) and for AppArmor's profiles.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use integration::containerd::{Containerd, IMAGE};
use integration::ctl::Output;
use integration::process::Process;
use integration::wait;
use prost::Message as _;
use shim_wire::task::{Any, UpdateTaskRequest};

use crate::apparmor::Profile;
use crate::support::{property_of, systemctl};

const SLICE: &str = "bosun-test.slice";

/// A containerd whose containers are scopes: `ctr` says so to `io.containerd.runc.v2` alone, so bosun's
/// shim is found under that name as well.
fn start() -> Containerd {
    let containerd = Containerd::start();
    let shim = containerd.path("bin/containerd-shim-runc-v2");
    let bosun = containerd.path("bin/containerd-shim-bosun-v1");
    fs::write(&shim, format!("#!/bin/sh\nexec {} \"$@\"\n", bosun.display())).unwrap();
    fs::set_permissions(&shim, fs::Permissions::from_mode(0o755)).unwrap();
    containerd
}

/// Runs `ID COMMAND` in the scope `bosun-NAME.scope`.
fn run(containerd: &Containerd, name: &str, flags: &str, command: &str) -> Output {
    let fifos = containerd.path("fifo").display().to_string();
    containerd.ctr(&format!(
        "run --runtime io.containerd.runc.v2 --runc-systemd-cgroup --cgroup {SLICE}:bosun:{name} \
         --fifo-dir {fifos} {flags} {IMAGE} {command}"
    ))
}

fn group(name: &str) -> PathBuf {
    PathBuf::from(format!("/sys/fs/cgroup/bosun.slice/{SLICE}/bosun-{name}.scope"))
}

fn file(name: &str, file: &str) -> String {
    fs::read_to_string(group(name).join(file)).unwrap().trim().to_owned()
}

fn property(name: &str, property: &str) -> String {
    property_of(&format!("bosun-{name}.scope"), property)
}

#[track_caller]
fn assert_forgotten(name: &str) {
    assert_eq!(property(name, "LoadState"), "not-found");
    assert!(!group(name).exists());
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn a_container_is_a_scope_that_systemd_makes() {
    let containerd = start();
    run(&containerd, "one", "-d --memory-limit 67108864 --cpus 0.5", "one sleep 1000").ok();
    for (name, value) in [
        ("ActiveState", "active"),
        ("Slice", SLICE),
        ("Delegate", "yes"),
        ("MemoryMax", "67108864"),
        ("CPUQuotaPerSecUSec", "500ms"),
    ] {
        assert_eq!(property("one", name), value, "{name}");
    }
    let process = containerd.process("one");
    assert_eq!(
        process.cgroups()[""],
        format!("/bosun.slice/{SLICE}/bosun-one.scope"),
        "the container is in it"
    );
    assert_eq!(file("one", "cgroup.procs"), process.0.to_string(), "and nobody else");
    // The shim has no child but the container: who kept the scope has gone.
    let shim = containerd.shim("one");
    let children = Process::all().into_iter().filter(|other| other.parent() == Some(shim));
    assert_eq!(children.collect::<Vec<_>>(), [process]);
    assert!(containerd.ctr("task metrics one").text().contains("memory.usage"), "it is measured");
    let exec = containerd.exec_words("--exec-id a", "one cat /proc/self/cgroup");
    let own = format!("0::/bosun.slice/{SLICE}/bosun-one.scope");
    assert_eq!(containerd.ctr(&exec).text(), own, "an exec as well");
    containerd.ctr("task pause one").ok();
    assert!(file("one", "cgroup.events").contains("frozen 1"));
    containerd.ctr("task resume one").ok();
    // As a kubelet resizes a container in place.
    let url = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
    let json = br#"{"memory": {"limit": 83886080}, "pids": {"limit": 42}}"#;
    let resources = Any { type_url: url.to_owned(), value: json.to_vec() };
    let request = UpdateTaskRequest { id: "one".to_owned(), resources: Some(resources) };
    containerd.call_shim("one", "Update", &request.encode_to_vec()).unwrap();
    systemctl("daemon-reload");
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(
        (file("one", "memory.max"), file("one", "pids.max")),
        ("83886080".into(), "42".into())
    );
    assert_eq!(
        (property("one", "MemoryMax"), property("one", "TasksMax")),
        ("83886080".into(), "42".into())
    );
    containerd.remove("one");
    assert_forgotten("one");
    containerd.expect_nothing_left();
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn a_scope_goes_with_its_container_however_that_ends() {
    let containerd = start();
    run(&containerd, "ended", "--rm", "ended sh -c 'exit 3'").check(3);
    assert_forgotten("ended");
    let mount = "--mount type=bind,src=/nowhere,dst=/x,options=rbind";
    let failed = run(&containerd, "failed", &format!("--rm {mount}"), "failed true");
    failed.fails(1, &["/nowhere"]);
    assert_forgotten("failed");
    run(&containerd, "failed", "--rm", "failed true").ok();
    // A scope that another has is neither shared nor ended.
    run(&containerd, "had", "-d", "had sleep 1000").ok();
    let other = run(&containerd, "had", "--rm", "other true");
    other.fails(1, &["bosun-had.scope", "processes in it already"]);
    assert_eq!(containerd.status("had").as_deref(), Some("RUNNING"));
    assert_eq!(property("had", "ActiveState"), "active");
    // containerd deletes what a killed shim leaves.
    let process = containerd.process("had");
    containerd.shim("had").kill();
    wait::until_true("its end", || !process.lives());
    wait::until_true("no unit", || property("had", "LoadState") == "not-found");
    assert!(!group("had").exists());
    let _ = containerd.ctr("task rm had");
    containerd.ctr("containers rm had").ok();
    containerd.expect_nothing_left();
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn what_is_measured_is_of_the_second_version() {
    let containerd = Containerd::start();
    containerd.run_detached("one sh -c 'while :; do :; done'");
    // Its own words, by which ctr knows io.containerd.cgroups.v2.Metrics.
    let metrics = containerd.ctr("task metrics one").text();
    for name in ["pids.current", "cpu.usage_usec", "memory.usage", "memory.usage_limit"] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    let used = || {
        let text = containerd.ctr("task metrics one").text();
        let line = text.lines().find(|line| line.starts_with("cpu.usage_usec")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = used();
    wait::until_true("more time used", || used() > before);
    containerd.remove("one");
    containerd.expect_nothing_left();
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn a_container_has_the_profile_that_it_is_given() {
    let containerd = Containerd::start();
    let profile = Profile::load("bosun-test-ctr");
    let flags = format!("-d --apparmor-profile {}", profile.0);
    containerd.ctr(&containerd.run_words(&flags, "one sleep 1000")).ok();
    let label = fs::read_to_string(containerd.process("one").path("attr/current")).unwrap();
    assert_eq!(label.trim(), "bosun-test-ctr (enforce)");
    // An exec is given the process of the container, and its profile.
    let words = containerd.exec_words("--exec-id a", "one cat /proc/self/attr/current");
    assert_eq!(containerd.ctr(&words).text(), "bosun-test-ctr (enforce)");
    let words = containerd.exec_words("--exec-id b", "one cat /etc/passwd");
    containerd.ctr(&words).fails(1, &["Permission denied"]);
    containerd.remove("one");
    let words = containerd.run_words("--rm --apparmor-profile bosun-test-none", "two true");
    containerd.ctr(&words).fails(1, &["bosun-test-none"]);
    let _ = containerd.ctr("containers rm two");
    containerd.expect_nothing_left();
}
