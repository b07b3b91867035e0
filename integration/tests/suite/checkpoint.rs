//! Running containers, written down to archives. Where criu can't work with the kernel, a program in its
//! place, which the daemon alone sees, answers as it does and writes one image.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bosun_proto::cri;
use integration::daemon::{Daemon, Settings};
use integration::kubelet::{Kubelet, node_with};
use integration::wait;
use tonic::Code;

const CRIU: &str = "/usr/sbin/criu";

/// Counts, so that one that stands still is told from one that goes on.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i >/count.new; mv /count.new /count; done";

/// Its image is what the container had counted to when it was asked.
const STAND_IN: &str = r#"#!/usr/bin/python3
import os, socket, time
link = socket.socket(fileno=0)
def fields(data):
    at, found = 0, {}
    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while at < len(data):
        key = number()
        if key & 7 == 0:
            found[key >> 3] = number()
        else:
            size = number()
            found[key >> 3] = data[at:at + size]
            at += size
    return found
options = fields(fields(link.recv(65536))[2])
place = lambda number: f"/proc/{os.getppid()}/fd/{number}"
with open(f"/proc/{options[2]}/root/count") as count:
    counted = count.read()
with open(place(options[1]) + "/count.img", "w") as image:
    image.write(counted)
with open(place(options[17]) + "/dump.log", "w") as log:
    log.write("all is well\n")
time.sleep(0.3)
link.send(b"\x08\x01\x10\x01")
"#;

fn with_stand_in(settings: Settings) -> (tempfile::TempDir, Settings) {
    with_one_that_waits(WAIT, settings)
}

/// How the one in its place waits before it answers.
const WAIT: &str = "time.sleep(0.3)";

fn with_one_that_waits(how: &str, settings: Settings) -> (tempfile::TempDir, Settings) {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("criu");
    std::fs::write(&program, STAND_IN.replace(WAIT, how)).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let settings = settings.in_place_of(CRIU, &program);
    (directory, settings)
}

fn tar(words: &[&str]) -> Vec<u8> {
    let output = Command::new("tar").args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn entries(archive: &Path) -> Vec<String> {
    let listed = String::from_utf8(tar(&["-tf", archive.to_str().unwrap()])).unwrap();
    listed.lines().map(str::to_owned).collect()
}

fn content(archive: &Path, entry: &str) -> Vec<u8> {
    tar(&["-xOf", archive.to_str().unwrap(), entry])
}

fn counting(daemon: &Daemon) {
    daemon.ctl(&format!("run -d --name count --net none --rootfs / /bin/sh -c '{COUNT}'")).ok();
    wait::until_true("a count", || counted(daemon) > 0);
}

fn counted(daemon: &Daemon) -> u64 {
    let text = daemon.ctl("exec count /bin/cat /count").stdout;
    text.trim().parse().unwrap_or(0)
}

fn goes_on(daemon: &Daemon) {
    let before = counted(daemon);
    wait::until_true("a higher count", || counted(daemon) > before);
}

/// What lies in a container's directory beside what always does.
fn left(daemon: &Daemon) -> bool {
    daemon.container_dir(&daemon.api().get("count").id).path().join("checkpoint").exists()
}

#[test]
fn processes_and_files_are_of_one_moment() {
    let (_criu, settings) = with_stand_in(Settings::new());
    let daemon = settings.start();
    counting(&daemon);
    let archive = daemon.scratch().join("count.tar");
    let checkpoint = format!("checkpoint --export {}", archive.display());
    assert_eq!(daemon.ctl(&format!("{checkpoint} -R count")).text(), "count");
    goes_on(&daemon);
    assert!(!left(&daemon));
    let names = entries(&archive);
    let known = ["config.dump", "spec.dump", "dump.log", "rootfs-diff.tar", "checkpoint/"];
    assert_eq!(names[..5], known, "{names:?}");
    for name in ["checkpoint/count.img", "checkpoint/descriptors.json"] {
        assert!(names.iter().any(|entry| entry == name), "{names:?}");
    }
    let diff = daemon.scratch().join("diff.tar");
    std::fs::write(&diff, content(&archive, "rootfs-diff.tar")).unwrap();
    assert_eq!(content(&diff, "count"), content(&archive, "checkpoint/count.img"));
    let config: serde_json::Value =
        serde_json::from_slice(&content(&archive, "config.dump")).unwrap();
    assert_eq!(config["id"], daemon.api().get("count").id);
    let spec: serde_json::Value = serde_json::from_slice(&content(&archive, "spec.dump")).unwrap();
    assert_eq!(spec["process"]["args"][2], COUNT);

    daemon.ctl(&format!("{checkpoint} count")).fails(1, &["count.tar", "something is there"]);
    goes_on(&daemon);
    std::fs::remove_file(&archive).unwrap();
    daemon.ctl(&format!("{checkpoint} --ignore-rootfs count")).ok();
    assert_eq!(daemon.inspect("count", "{{.State.ExitCode}}"), "137");
    assert!(!entries(&archive).iter().any(|entry| entry == "rootfs-diff.tar"));
    daemon.ctl(&format!("checkpoint -e {}.2 count", archive.display())).fails(1, &["not running"]);
    daemon.ctl("rm count").ok();
}

#[test]
fn one_that_is_paused_stays_so() {
    let (_criu, settings) = with_stand_in(Settings::new());
    let daemon = settings.start();
    counting(&daemon);
    daemon.ctl("pause count").ok();
    let archive = daemon.scratch().join("count.tar");
    daemon.ctl(&format!("checkpoint -e {} -R count", archive.display())).ok();
    assert_eq!(daemon.inspect("count", "{{.State.Status}}"), "paused");
    daemon.ctl("unpause count").ok();
    goes_on(&daemon);
}

#[test]
fn criu_itself_writes_it_down_or_says_why_not() {
    let mut check = Command::new("criu");
    check.arg("check").stderr(Stdio::null()).stdout(Stdio::null());
    let Ok(checked) = check.status() else { return };
    let daemon = Daemon::start();
    counting(&daemon);
    let archive = daemon.scratch().join("count.tar");
    let output = daemon.ctl(&format!("checkpoint -e {} -R count", archive.display()));
    if checked.success() {
        output.ok();
        assert!(entries(&archive).iter().any(|entry| entry == "checkpoint/inventory.img"));
    } else {
        output.fails(1, &["checkpoint through criu: Error (", "`criu check`"]);
        assert_eq!(daemon.inspect("count", "{{.State.Status}}"), "running");
        let files = std::fs::read_dir(daemon.scratch()).unwrap().flatten();
        let files: Vec<_> = files.map(|file| file.file_name()).collect();
        assert!(
            !files.iter().any(|name| name.to_string_lossy().contains("count.tar")),
            "{files:?}"
        );
    }
    goes_on(&daemon);
    assert!(!left(&daemon));
}

#[test]
fn a_kubelet_s_checkpoint_leaves_the_container_running() {
    let (_criu, settings) = with_stand_in(Settings::new());
    let daemon = node_with(settings);
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let one = kubelet.run(&pod, &kubelet.container_config("one", COUNT), &config);
    wait::until_true("a count", || {
        kubelet.exec(&one, "cat /count", 0).is_ok_and(|it| it.exit_code == 0)
    });
    let archive = daemon.scratch().join("one.tar");
    let checkpoint = |id: &str, location: &str| {
        let request = cri::CheckpointContainerRequest {
            container_id: id.to_owned(),
            location: location.to_owned(),
            timeout: 60,
        };
        kubelet.call(|mut client| async move { client.checkpoint_container(request).await })
    };
    checkpoint(&one, archive.to_str().unwrap()).unwrap();
    assert_eq!(kubelet.status(&one).state(), cri::ContainerState::ContainerRunning);
    let spec: serde_json::Value =
        serde_json::from_slice(&content(&archive, "config.dump")).unwrap();
    assert_eq!(spec["rootfsImageName"], integration::kubelet::IMAGE);
    for location in ["one.tar", "/tmp/../one.tar", "/"] {
        let refused = checkpoint(&one, location).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{location}: {refused}");
    }
    assert_eq!(checkpoint("0123456789ab", "/tmp/x.tar").unwrap_err().code(), Code::NotFound);
    kubelet.stop(&one, 0).unwrap();
    let refused = checkpoint(&one, daemon.scratch().join("two.tar").to_str().unwrap()).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
}

#[test]
fn who_does_not_wait_for_criu_is_told_and_the_container_goes_on() {
    let (_criu, settings) = with_one_that_waits("time.sleep(4)", Settings::new());
    let daemon = node_with(settings);
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let one = kubelet.run(&pod, &kubelet.container_config("one", COUNT), &config);
    let count = || kubelet.exec(&one, "cat /count", 0).map(|it| it.stdout).unwrap_or_default();
    wait::until_true("a count", || !count().is_empty());
    let archive = daemon.scratch().join("one.tar");
    let request = cri::CheckpointContainerRequest {
        container_id: one.clone(),
        location: archive.to_str().unwrap().to_owned(),
        timeout: 1,
    };
    let asked =
        || kubelet.call(|mut client| async move { client.checkpoint_container(request).await });
    let refused = asked().unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused}");
    assert!(refused.message().contains("longer than 1 s"), "{refused}");
    let before = count();
    wait::until_true("a higher count", || count() != before);
    assert!(!archive.exists());
    let names = std::fs::read_dir(daemon.scratch()).unwrap().flatten();
    let names: Vec<_> = names.map(|entry| entry.file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("one.tar")), "{names:?}");
}

#[test]
fn what_a_killed_daemon_was_writing_down_goes_on_with_the_next_and_nothing_is_left() {
    let held = tempfile::NamedTempFile::new().unwrap();
    let path = held.path().display();
    let wait = format!("[time.sleep(0.02) for _ in iter(lambda: os.path.exists('{path}'), False)]");
    let (_criu, settings) = with_one_that_waits(&wait, Settings::new());
    let mut daemon = settings.start();
    counting(&daemon);
    let directory = daemon.container_dir(&daemon.api().get("count").id).path().join("checkpoint");
    let archive = daemon.scratch().join("count.tar");
    let words = format!("checkpoint -e {} -R count", archive.display());
    let asked = daemon.client().start(&words, Stdio::null());
    wait::until_true("criu's image", || directory.join("count.img").exists());
    daemon.kill();
    drop(asked);
    daemon.start_again();
    assert!(!directory.exists() && !archive.exists());
    goes_on(&daemon);
    assert_eq!(daemon.inspect("count", "{{.State.Status}}"), "running");
    // criu is never interrupted, not even by a removal.
    drop(held);
}

#[test]
fn an_archive_that_can_not_be_made_holds_nobody() {
    let (_criu, settings) = with_stand_in(Settings::new());
    let daemon = settings.start();
    counting(&daemon);
    for place in ["/no/such/directory/a.tar", "/proc/a.tar"] {
        let parent = Path::new(place).parent().unwrap().to_str().unwrap();
        daemon.ctl(&format!("checkpoint -e {place} count")).fails(1, &[parent]);
        goes_on(&daemon);
    }
    assert!(!left(&daemon));
}

#[test]
fn containers_of_other_runtimes_are_refused() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name other --runtime runc --net none --rootfs / /bin/sleep 600").ok();
    let archive = daemon.scratch().join("other.tar");
    daemon
        .ctl(&format!("checkpoint -e {} other", archive.display()))
        .fails(1, &["under another runtime"]);
    assert!(!archive.exists());
}
