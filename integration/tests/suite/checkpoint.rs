//! Running containers, written down to archives, and containers that go on from there: by criu, or by the
//! program in its place (`integration::criu`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bosun_proto::cri;
use integration::canary::Canary;
use integration::criu::{COUNT, with_one_that_waits, with_stand_in};
use integration::daemon::{Daemon, Settings};
use integration::kubelet::{Kubelet, node_with};
use integration::tar::{Entry, Header, Kind, Tar};
use integration::wait;
use tonic::{Code, Status};

use crate::pause::Freezer;

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
    let settings = with_stand_in(Settings::new());
    let daemon = settings.start();
    counting(&daemon);
    let archive = daemon.scratch().join("count.tar");
    let checkpoint = format!("checkpoint --export {}", archive.display());
    assert_eq!(daemon.ctl(&format!("{checkpoint} -R count")).text(), "count");
    goes_on(&daemon);
    assert!(!left(&daemon));
    let names = entries(&archive);
    let known =
        ["config.dump", "spec.dump", "options.dump", "dump.log", "rootfs-diff.tar", "checkpoint/"];
    assert_eq!(names[..6], known, "{names:?}");
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
fn its_streams_are_those_that_it_was_given_whatever_a_shell_has_in_their_place() {
    let settings = with_stand_in(Settings::new());
    let daemon = settings.start();
    let script = format!("exec 3>&1 4>&2 >/other 2>&1; {COUNT}");
    daemon.ctl(&format!("run -d --name count --net none --rootfs / /bin/sh -c '{script}'")).ok();
    wait::until_true("a count", || counted(&daemon) > 0);
    let archive = daemon.scratch().join("count.tar");
    daemon.ctl(&format!("checkpoint --export {} -R count", archive.display())).ok();
    let names = content(&archive, "checkpoint/descriptors.json");
    let names: [String; 3] = serde_json::from_slice(&names).unwrap();
    assert_eq!(names[0], "/dev/null");
    assert!(names[1..].iter().all(|name| name.starts_with("pipe:[")), "{names:?}");
    assert_ne!(names[1], names[2]);
}

#[test]
fn one_that_is_paused_stays_so() {
    let settings = with_stand_in(Settings::new());
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
    let settings = with_stand_in(Settings::new());
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
    let settings = with_one_that_waits("time.sleep(4)", Settings::new());
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

/// criu is at work on a container, until `held` goes, for a daemon that was killed.
struct AtWork {
    daemon: Daemon,
    freezer: Freezer,
    held: tempfile::NamedTempFile,
    /// Of criu's images.
    directory: PathBuf,
    archive: PathBuf,
}

impl AtWork {
    fn without_daemon() -> Self {
        let held = tempfile::NamedTempFile::new().unwrap();
        let path = held.path().display();
        let wait =
            format!("[time.sleep(0.02) for _ in iter(lambda: os.path.exists('{path}'), False)]");
        let settings = with_one_that_waits(&wait, Settings::new());
        let mut daemon = settings.start();
        counting(&daemon);
        let freezer = Freezer::of(&daemon, "count");
        let directory =
            daemon.container_dir(&daemon.api().get("count").id).path().join("checkpoint");
        let archive = daemon.scratch().join("count.tar");
        let words = format!("checkpoint -e {} -R count", archive.display());
        let asked = daemon.client().start(&words, Stdio::null());
        wait::until_true("criu's image", || directory.join("count.img").exists());
        daemon.kill();
        drop(asked);
        Self { daemon, freezer, held, directory, archive }
    }
}

#[test]
fn what_a_killed_daemon_was_writing_down_goes_on_with_the_next_and_nothing_is_left() {
    let AtWork { mut daemon, held, directory, archive, .. } = AtWork::without_daemon();
    daemon.start_again();
    assert!(!directory.exists() && !archive.exists());
    goes_on(&daemon);
    assert_eq!(daemon.inspect("count", "{{.State.Status}}"), "running");
    // criu is never interrupted, not even by a removal.
    drop(held);
}

#[test]
fn what_criu_is_at_goes_on_without_a_daemon_when_it_is_done() {
    let AtWork { mut daemon, freezer, held, directory, archive } = AtWork::without_daemon();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(freezer.holds(), "criu is at work");
    drop(held);
    wait::until_true("a container that goes on", || !freezer.holds());
    daemon.start_again();
    goes_on(&daemon);
    assert!(!directory.exists() && !archive.exists());
}

#[test]
fn an_archive_that_can_not_be_made_holds_nobody() {
    let settings = with_stand_in(Settings::new());
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

/// The archive of a container that has counted, written a file, and ended with it.
fn archive_of_count(daemon: &Daemon) -> PathBuf {
    counting(daemon);
    daemon.ctl("exec count /bin/sh -c 'echo mine >/kept'").ok();
    let archive = daemon.scratch().join("count.tar");
    daemon.ctl(&format!("checkpoint --export {} count", archive.display())).ok();
    archive
}

fn written_down(archive: &Path) -> u64 {
    let text = String::from_utf8(content(archive, "checkpoint/count.img")).unwrap();
    text.trim().parse().unwrap()
}

/// What a daemon's root has of restores that are not done, or were undone.
fn left_of_restores(daemon: &Daemon) -> Vec<String> {
    let names = std::fs::read_dir(daemon.root().join("trash")).unwrap().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    // Others are of what was removed.
    names.filter(|name| name.starts_with("restore-") || name.starts_with("images-")).collect()
}

#[test]
fn a_container_goes_on_where_it_was_written_down() {
    let settings = with_stand_in(Settings::new());
    let daemon = settings.start();
    let archive = archive_of_count(&daemon);
    let before = written_down(&archive);
    let restore = format!("restore {}", archive.display());
    daemon.ctl(&restore).fails(1, &["name \"count\" is in use"]);
    let id = daemon.ctl(&format!("{restore} --name again")).text();
    assert_eq!(daemon.api().get("again").id, id);
    daemon.ctl("rm count").ok();
    std::fs::remove_file(&archive).unwrap();
    assert_eq!(daemon.inspect("again", "{{.State.Status}}"), "running");
    assert_eq!(daemon.ctl("exec again /bin/cat /kept").text(), "mine");
    let counted = || daemon.ctl("exec again /bin/cat /count").stdout.trim().parse().unwrap_or(0);
    wait::until_true("a higher count", || counted() > before);
    wait::until_true("its output", || {
        daemon.ctl("logs again").stdout.trim() == format!("from {before}")
    });
    // It is one like all others: it ends with its code, and runs its program when it is started again.
    daemon.ctl("kill -s KILL again").ok();
    daemon.ctl("wait again").fails(137, &[]);
    let images = daemon.container_dir(&id).path().join("restore/images");
    assert!(!images.exists(), "its images are of no more use");
    daemon.ctl("start again").ok();
    daemon.ctl("rm -f again").ok();
    wait::until_true("an empty trash", || left_of_restores(&daemon).is_empty());
}

#[test]
fn a_restore_that_fails_says_why_and_leaves_nothing() {
    let settings = with_stand_in(Settings::new());
    let daemon = settings.start();
    let archive = archive_of_count(&daemon);
    daemon.ctl("rm count").ok();
    let directory = daemon.scratch().join("unpacked");
    std::fs::create_dir(&directory).unwrap();
    let place = directory.to_str().unwrap();
    tar(&["-xf", archive.to_str().unwrap(), "-C", place]);
    std::fs::write(directory.join("checkpoint/count.img"), "0").unwrap();
    let other = daemon.scratch().join("other.tar");
    tar(&["-cf", other.to_str().unwrap(), "-C", place, "."]);
    daemon
        .ctl(&format!("restore {}", other.display()))
        .fails(1, &["restore through criu: Error (stand-in.c:1): it had not begun to count"]);
    assert_eq!(daemon.ctl("ps -aq").text(), "");
    assert_eq!(left_of_restores(&daemon), Vec::<String>::new());
    // Nothing of it is in the way of the next.
    daemon.ctl(&format!("restore {}", archive.display())).ok();
    goes_on(&daemon);
}

#[test]
fn a_restored_container_survives_its_daemon() {
    let settings = with_stand_in(Settings::new());
    let mut daemon = settings.start();
    let archive = archive_of_count(&daemon);
    daemon.ctl("rm count").ok();
    let id = daemon.ctl(&format!("restore {}", archive.display())).text();
    daemon.kill();
    // As of one that ended before it had let go of them.
    let images = daemon.container_dir(&id).path().join("restore/images");
    std::fs::create_dir(&images).unwrap();
    daemon.start_again();
    goes_on(&daemon);
    assert!(!images.exists(), "they are not used a second time");
}

/// What an archive of a container over the host's tree has at least, with this in its image.
fn minimal(count: &str) -> Tar {
    let options =
        r#"{"name":"hostile","rootfs":"/","network":{"mode":"none"},"command":["/bin/sleep","9"]}"#;
    let mut tar = Tar::new();
    for (name, content) in [
        ("config.dump", "{}"),
        ("spec.dump", "{}"),
        ("options.dump", options),
        ("checkpoint/count.img", count),
        ("checkpoint/descriptors.json", r#"["","",""]"#),
    ] {
        tar.push(&Entry::file(name, content));
    }
    tar
}

#[test]
fn archives_that_mean_harm_are_refused_by_name_and_reach_nothing() {
    let settings = with_stand_in(Settings::new());
    let daemon = settings.start();
    let canary = Canary::new();
    let memory = daemon.peak_memory();
    let archive = daemon.scratch().join("hostile.tar");
    let restore = || daemon.ctl(&format!("restore {}", archive.display()));
    let with = |entry: &dyn Fn(&mut Tar)| {
        let mut tar = minimal("7");
        entry(&mut tar);
        tar.finish()
    };
    let entry = |entry: Entry| with(&|tar| tar.push(&entry));
    let raw = |header: &Header| with(&|tar| tar.raw(header, b""));
    let sparse =
        [("major", "1"), ("minor", "0"), ("name", "checkpoint/x"), ("realsize", "2000000000000")];
    let sparse =
        sparse.map(|(key, value)| (format!("GNU.sparse.{key}"), value.as_bytes().to_vec()));
    let map = format!("{:\0<512}", "1\n2000000000000\n0\n");
    let file = canary.file();
    let cases: [(&str, Vec<u8>, &str); 12] = [
        (
            "a link among images",
            entry(Entry::symlink("checkpoint/x", &file)),
            "\"checkpoint/x\" is refused",
        ),
        (
            "a link in the place of them",
            entry(Entry::symlink("checkpoint", &canary.dir())),
            "is refused",
        ),
        ("a hard link", entry(Entry::hard_link("checkpoint/x", &file)), "is refused"),
        ("a path up", entry(Entry::file("checkpoint/../../../x", "x")), "leads out"),
        ("an absolute path", entry(Entry::file(&file, "x")), "leads out"),
        ("a device", entry(Entry::new("checkpoint/x", Kind::Block(8, 0))), "a device"),
        ("a pipe", entry(Entry::new("rootfs-diff.tar", Kind::Fifo)), "a pipe"),
        (
            "eight exabytes",
            raw(&Header::new("checkpoint/x", b'0', u64::MAX >> 1)),
            "bytes together",
        ),
        (
            "two terabytes of nothing",
            with(&|tar| {
                tar.pax(&sparse);
                tar.raw(&Header::new("GNUSparseFile.0/x", b'0', 512), map.as_bytes());
            }),
            "bytes together",
        ),
        (
            "a document without end",
            raw(&Header::new("status/../config.dump", b'0', 9)),
            "leads out",
        ),
        ("a document twice", entry(Entry::file("config.dump", "{}")), "config.dump is in it twice"),
        (
            "an archive that ends early",
            minimal("7").unfinished()[..2000].to_vec(),
            "no images of criu's",
        ),
    ];
    for (what, bytes, said) in cases {
        std::fs::write(&archive, bytes).unwrap();
        let output = restore();
        assert_eq!(output.code, Some(1), "{what}: {} {}", output.stdout, output.stderr);
        assert!(output.stderr.contains(said), "{what}: {}", output.stderr);
        canary.expect_untouched(what);
        assert_eq!(left_of_restores(&daemon), Vec::<String>::new(), "{what}");
    }
    // The changed files are a layer: what leads out of it is found inside, or refused.
    let mut layer = Tar::new();
    layer.push(&Entry::symlink("bridge", &canary.dir()));
    layer.push(&Entry::file("bridge/planted", "x"));
    let bytes = entry(Entry::file("rootfs-diff.tar", layer.finish()));
    std::fs::write(&archive, bytes).unwrap();
    restore().ok();
    daemon.ctl("exec hostile /bin/cat /bridge/planted").ok();
    canary.expect_untouched("a link in a layer");
    daemon.ctl("rm -f hostile").ok();
    let mut layer = Tar::new();
    layer.push(&Entry::file("../../planted", "x"));
    std::fs::write(&archive, entry(Entry::file("rootfs-diff.tar", layer.finish()))).unwrap();
    restore().fails(1, &["rootfs-diff.tar: entry \"../../planted\" is refused"]);
    canary.expect_untouched("a path up in a layer");
    assert_eq!(daemon.ctl("ps -aq").text(), "");
    assert!(daemon.peak_memory() < memory + 64 * 1024, "memory is bounded");
    for (place, why) in
        [("/dev/zero", "no file"), ("/proc", "no file"), ("/nowhere.tar", "No such file")]
    {
        daemon.ctl(&format!("restore {place}")).fails(1, &[place, why]);
    }
    std::fs::write(&archive, b"\x1f\x8b\x08\x00").unwrap();
    restore().fails(1, &["it is compressed"]);
}

/// A pod of a kubelet's with a container that counts, until it has begun to.
struct Counted<'a> {
    kubelet: &'a Kubelet,
    pod: String,
    one: String,
}

impl<'a> Counted<'a> {
    fn run(kubelet: &'a Kubelet) -> Self {
        let config = kubelet.pod_config("web");
        let pod = kubelet.run_pod(&config);
        let one = kubelet.run(&pod, &kubelet.container_config("one", COUNT), &config);
        let counted = Self { kubelet, pod, one };
        wait::until_true("a count", || counted.count(&counted.one) > 0);
        counted
    }

    fn count(&self, id: &str) -> u64 {
        count_of(self.kubelet, id)
    }
}

/// What a container has counted to; 0 where that can't be read.
fn count_of(kubelet: &Kubelet, id: &str) -> u64 {
    let output = kubelet.exec(id, "cat /count", 0).map(|it| it.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().parse().unwrap_or(0)
}

fn checkpoint(kubelet: &Kubelet, id: &str, location: &Path) {
    let request = cri::CheckpointContainerRequest {
        container_id: id.to_owned(),
        location: location.to_str().unwrap().to_owned(),
        timeout: 0,
    };
    kubelet.call(|mut client| async move { client.checkpoint_container(request).await }).unwrap();
}

#[test]
fn a_kubelet_makes_a_container_of_an_archive_that_goes_on_with_its_start() {
    let settings = with_stand_in(Settings::new());
    let daemon = node_with(settings);
    let kubelet = Kubelet::of(&daemon);
    let one = Counted::run(&kubelet);
    kubelet.exec(&one.one, "echo mine >/kept; rm /bin/vi", 0).unwrap();
    let archive = daemon.scratch().join("one.tar");
    checkpoint(&kubelet, &one.one, &archive);
    let before = written_down(&archive);
    kubelet.remove_pod(&one.pod).unwrap();

    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let mut wanted = kubelet.container_config("one", COUNT);
    wanted.image.as_mut().unwrap().image = archive.to_str().unwrap().to_owned();
    let again = kubelet.try_create(&pod, &wanted, &config).unwrap();
    assert_eq!(kubelet.status(&again).state(), cri::ContainerState::ContainerCreated);
    assert_eq!(kubelet.try_create(&pod, &wanted, &config).unwrap(), again, "asked for once more");
    std::fs::remove_file(&archive).unwrap();
    kubelet.start(&again).unwrap();
    let status = kubelet.status(&again);
    assert_eq!(status.state(), cri::ContainerState::ContainerRunning);
    assert_eq!(status.image.unwrap().image, integration::kubelet::IMAGE);
    wait::until_true("a higher count", || count_of(&kubelet, &again) > before);
    let files = kubelet.exec(&again, "cat /kept; ls /bin/vi || true", 0).unwrap();
    assert_eq!(String::from_utf8(files.stdout).unwrap(), "mine\n");
    let log = PathBuf::from(status.log_path);
    wait::until_true("its output", || {
        std::fs::read_to_string(&log).unwrap().contains(&format!(" F from {before}\n"))
    });
    let refused = kubelet.start(&again).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    kubelet.stop(&again, 0).unwrap();
    assert_eq!(kubelet.status(&again).exit_code, 137);
}

#[test]
fn what_does_not_fit_the_one_that_was_written_down_is_refused_by_name() {
    let settings = with_stand_in(Settings::new());
    let daemon = node_with(settings);
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().privileged = true;
    let pod = kubelet.run_pod(&config);
    let mut wanted = kubelet.container_config("one", COUNT);
    wanted.mounts.push(cri::Mount {
        container_path: "/data".to_owned(),
        host_path: daemon.scratch().to_str().unwrap().to_owned(),
        ..cri::Mount::default()
    });
    let one = kubelet.run(&pod, &wanted, &config);
    wait::until_true("a count", || count_of(&kubelet, &one) > 0);
    let archive = daemon.scratch().join("one.tar");
    checkpoint(&kubelet, &one, &archive);
    kubelet.remove(&one).unwrap();
    wanted.image.as_mut().unwrap().image = archive.to_str().unwrap().to_owned();
    let refused = |change: &dyn Fn(&mut cri::ContainerConfig), said: &str| {
        let mut wanted = wanted.clone();
        change(&mut wanted);
        let refused = kubelet.try_create(&pod, &wanted, &config).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(said), "{said}: {refused}");
    };
    refused(&|config| config.mounts.clear(), "mounts at /data");
    refused(&|config| config.tty = true, "terminal");
    let context = |config: &mut cri::ContainerConfig| {
        config.linux.as_mut().unwrap().security_context.clone().unwrap()
    };
    refused(
        &|config| {
            let mut context = context(config);
            context.privileged = true;
            config.linux.as_mut().unwrap().security_context = Some(context);
        },
        "the privilege that they had",
    );
    refused(
        &|config| {
            let mut context = context(config);
            context.run_as_user = Some(cri::Int64Value { value: 7 });
            config.linux.as_mut().unwrap().security_context = Some(context);
        },
        "the user that they had",
    );
    refused(
        &|config| config.image.as_mut().unwrap().image = "/tmp/../one.tar".to_owned(),
        "absolute path",
    );
    assert!(kubelet.containers(cri::ContainerFilter::default()).is_empty());
    assert_eq!(left_of_restores(&daemon), Vec::<String>::new());
    // Of a pod that shares its processes as well, and where the image is not there any more.
    let mut shared = kubelet.pod_config("shared");
    let context = shared.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Pod.into();
    let pod = kubelet.run_pod(&shared);
    let mut sharing = wanted.clone();
    let context = sharing.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Pod.into();
    let said = kubelet.try_create(&pod, &sharing, &shared).unwrap_err();
    assert!(said.message().contains("shares its processes"), "{said}");
    let image =
        cri::ImageSpec { image: integration::kubelet::IMAGE.to_owned(), ..Default::default() };
    let request = cri::RemoveImageRequest { image: Some(image) };
    kubelet.image_call(|mut client| async move { client.remove_image(request).await }).unwrap();
    let refused = kubelet.try_create(&pod, &wanted, &config).unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
}

/// Counts, and says how far after it has noted that for itself.
const TELLS: &str = "i=0; while :; do i=$((i+1)); echo $i >/count.new; mv /count.new /count; \
                     cp /count /shared/new; mv /shared/new /shared/count; done";
/// Notes how far the other one was.
const HEARS: &str =
    "while :; do cp /shared/count /count.new 2>/dev/null && mv /count.new /count; done";

/// A pod of two: what one notes is never more than what the other has noted before.
struct Pair<'a> {
    kubelet: &'a Kubelet,
    configs: [cri::ContainerConfig; 2],
    pod: String,
    ids: [String; 2],
}

impl<'a> Pair<'a> {
    fn run(kubelet: &'a Kubelet, daemon: &Daemon) -> Self {
        let shared = daemon.scratch().join("shared");
        std::fs::create_dir(&shared).unwrap();
        let config = kubelet.pod_config("pair");
        let pod = kubelet.run_pod(&config);
        let configs = [("tells", TELLS), ("hears", HEARS)].map(|(name, script)| {
            let mut config = kubelet.container_config(name, script);
            config.mounts.push(cri::Mount {
                container_path: "/shared".to_owned(),
                host_path: shared.to_str().unwrap().to_owned(),
                ..cri::Mount::default()
            });
            config
        });
        let ids = [0, 1].map(|number| kubelet.run(&pod, &configs[number], &config));
        let pair = Self { kubelet, configs, pod, ids };
        wait::until_true("both have counted", || {
            pair.ids.iter().all(|id| count_of(kubelet, id) > 0)
        });
        pair
    }

    fn request(&self, directory: &Path) -> cri::CheckpointPodRequest {
        cri::CheckpointPodRequest {
            pod_sandbox_id: self.pod.clone(),
            output_path: directory.to_str().unwrap().to_owned(),
            container_ids: self.ids.to_vec(),
            options: HashMap::new(),
        }
    }

    fn go_on(&self) {
        for id in &self.ids {
            let before = count_of(self.kubelet, id);
            wait::until_true("a higher count", || count_of(self.kubelet, id) > before);
        }
    }

    /// What makes a pod of a checkpoint of this one.
    fn restore(&self, directory: &Path) -> cri::RestorePodRequest {
        cri::RestorePodRequest {
            checkpoint_path: directory.to_str().unwrap().to_owned(),
            config: Some(self.kubelet.pod_config("pair")),
            container_configs: self.configs.to_vec(),
            ..cri::RestorePodRequest::default()
        }
    }
}

fn checkpoint_pod(kubelet: &Kubelet, request: cri::CheckpointPodRequest) -> Result<(), Status> {
    kubelet.call(|mut client| async move { client.checkpoint_pod(request).await }).map(drop)
}

fn restore_pod(
    kubelet: &Kubelet,
    request: cri::RestorePodRequest,
) -> Result<cri::RestorePodResponse, Status> {
    kubelet.call(|mut client| async move { client.restore_pod(request).await })
}

fn empty_directory(daemon: &Daemon, name: &str) -> PathBuf {
    let directory = daemon.scratch().join(name);
    std::fs::create_dir(&directory).unwrap();
    directory
}

fn names_in(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap().flatten();
    let mut names: Vec<String> =
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn containers_of_a_pod_are_written_down_at_one_moment() {
    let settings = with_stand_in(Settings::new());
    let daemon = node_with(settings);
    let kubelet = Kubelet::of(&daemon);
    let pair = Pair::run(&kubelet, &daemon);
    let directory = empty_directory(&daemon, "pair");
    checkpoint_pod(&kubelet, pair.request(&directory)).unwrap();
    pair.go_on();
    assert_eq!(names_in(&directory), ["container-0.tar", "container-1.tar", "pod.json"]);
    let [told, heard] =
        ["container-0.tar", "container-1.tar"].map(|name| written_down(&directory.join(name)));
    assert!(heard > 0 && heard <= told, "{heard} was heard, {told} was told");
    let text = std::fs::read(directory.join("pod.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(manifest["id"], pair.pod);
    let names = manifest["containers"].as_array().unwrap();
    let names: Vec<&str> = names.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["tells", "hears"]);
}

#[test]
fn a_pod_of_which_one_can_not_be_written_down_goes_on_and_nothing_is_written() {
    let settings = with_stand_in(Settings::new());
    let daemon = node_with(settings);
    let kubelet = Kubelet::of(&daemon);
    let pair = Pair::run(&kubelet, &daemon);
    kubelet.exec(&pair.ids[1], "touch /refuse", 0).unwrap();
    let directory = empty_directory(&daemon, "pair");
    let refused = checkpoint_pod(&kubelet, pair.request(&directory)).unwrap_err();
    assert!(refused.message().contains("Error (stand-in.c:2): it does not want to"), "{refused}");
    assert_eq!(names_in(&directory), Vec::<String>::new());
    pair.go_on();
    for id in &pair.ids {
        assert!(!daemon.root().join("containers/k8s.io").join(id).join("checkpoint").exists());
    }
}

#[test]
fn who_does_not_wait_for_a_pod_gets_nothing_and_the_pod_goes_on() {
    let settings = with_one_that_waits("time.sleep(2)", Settings::new());
    let daemon = node_with(settings);
    let kubelet = Kubelet::of(&daemon);
    let pair = Pair::run(&kubelet, &daemon);
    let directory = empty_directory(&daemon, "pair");
    let mut request = tonic::Request::new(pair.request(&directory));
    request.set_timeout(Duration::from_secs(1));
    let asked = kubelet.call(|mut client| async move { client.checkpoint_pod(request).await });
    let refused = asked.unwrap_err();
    assert!(matches!(refused.code(), Code::DeadlineExceeded | Code::Cancelled), "{refused}");
    pair.go_on();
    assert_eq!(names_in(&directory), Vec::<String>::new());
}

#[test]
fn what_a_pod_s_checkpoint_can_not_honour_is_refused_by_name() {
    let settings = with_stand_in(Settings::new());
    let daemon = node_with(settings);
    let kubelet = Kubelet::of(&daemon);
    let pair = Pair::run(&kubelet, &daemon);
    let other = Counted::run(&kubelet);
    let directory = empty_directory(&daemon, "pair");
    let full = empty_directory(&daemon, "full");
    std::fs::write(full.join("file"), "").unwrap();
    let refused = |change: &dyn Fn(&mut cri::CheckpointPodRequest), code: Code, said: &str| {
        let mut request = pair.request(&directory);
        change(&mut request);
        let refused = checkpoint_pod(&kubelet, request).unwrap_err();
        assert_eq!(refused.code(), code, "{said}: {refused}");
        assert!(refused.message().contains(said), "{said}: {refused}");
        assert_eq!(names_in(&directory), Vec::<String>::new());
    };
    let option = |key: &str, value: &str| {
        let options = HashMap::from([(key.to_owned(), value.to_owned())]);
        move |request: &mut cri::CheckpointPodRequest| request.options = options.clone()
    };
    let path = |path: &Path| {
        let path = path.to_str().unwrap().to_owned();
        move |request: &mut cri::CheckpointPodRequest| request.output_path = path.clone()
    };
    let is = Code::InvalidArgument;
    refused(&option("compression", "zstd"), is, "\"compression\" is not known");
    refused(&option("file-locks", "maybe"), is, "file-locks: \"maybe\"");
    refused(&path(Path::new("pair")), is, "absolute path");
    refused(&path(&directory.join("../pair")), is, "absolute path");
    refused(&path(&full), is, "not empty");
    refused(&path(&full.join("file")), is, "no directory");
    refused(&path(&directory.join("no")), is, "no directory");
    refused(&|request| request.container_ids.clear(), is, "container_ids: it is empty");
    refused(&|request| request.container_ids[1] = pair.ids[0].clone(), is, "named twice");
    refused(&|request| request.container_ids[1] = other.one.clone(), is, "no container of pod");
    refused(&|request| request.container_ids[1] = "abcdef".to_owned(), Code::NotFound, "abcdef");
    refused(&|request| request.pod_sandbox_id = "abcdef".to_owned(), Code::NotFound, "abcdef");
    kubelet.stop(&pair.ids[1], 0).unwrap();
    refused(&|_| (), Code::FailedPrecondition, "not running");
    kubelet.stop_pod(&pair.pod).unwrap();
    refused(&|_| (), Code::FailedPrecondition, "not running");
}

#[test]
fn a_pod_is_made_of_its_checkpoint_and_goes_on_with_the_starts() {
    let settings = with_stand_in(Settings::new());
    let daemon = node_with(settings);
    let kubelet = Kubelet::of(&daemon);
    let pair = Pair::run(&kubelet, &daemon);
    let directory = empty_directory(&daemon, "pair");
    checkpoint_pod(&kubelet, pair.request(&directory)).unwrap();
    let before =
        [0, 1].map(|number| written_down(&directory.join(format!("container-{number}.tar"))));
    kubelet.remove_pod(&pair.pod).unwrap();

    let request = pair.restore(&directory);
    let made = restore_pod(&kubelet, request.clone()).unwrap();
    assert_ne!(made.pod_sandbox_id, pair.pod);
    assert_eq!(names_in(&directory).len(), 3, "the checkpoint is left as it is");
    let names: Vec<&str> = made.restored_containers.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["tells", "hears"]);
    for (one, before) in made.restored_containers.iter().zip(before) {
        let id = one.container_id.as_str();
        assert_eq!(kubelet.status(id).state(), cri::ContainerState::ContainerCreated);
        kubelet.start(id).unwrap();
        wait::until_true("a higher count", || count_of(&kubelet, id) > before);
        let log = kubelet.status(id).log_path;
        assert!(log.contains(&request.config.as_ref().unwrap().log_directory), "{log}");
    }
    // The same once more is another pod of that name, which there can't be.
    let refused = restore_pod(&kubelet, request).unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    assert_eq!(kubelet.containers(cri::ContainerFilter::default()).len(), 2);
    // And another pod of the same checkpoint is one.
    let other = restore_pod(&kubelet, pair.restore(&directory)).unwrap();
    assert_ne!(other.pod_sandbox_id, made.pod_sandbox_id);
}

#[test]
fn a_pod_that_can_not_be_made_of_its_checkpoint_leaves_nothing() {
    let settings = with_stand_in(Settings::new());
    let daemon = node_with(settings);
    let kubelet = Kubelet::of(&daemon);
    let pair = Pair::run(&kubelet, &daemon);
    let directory = empty_directory(&daemon, "pair");
    checkpoint_pod(&kubelet, pair.request(&directory)).unwrap();
    kubelet.remove_pod(&pair.pod).unwrap();
    let refused = |change: &dyn Fn(&mut cri::RestorePodRequest), said: &str| {
        let mut request = pair.restore(&directory);
        change(&mut request);
        let refused = restore_pod(&kubelet, request).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{said}: {refused}");
        assert!(refused.message().contains(said), "{said}: {refused}");
        assert!(kubelet.pods(cri::PodSandboxFilter::default()).is_empty(), "{said}");
        assert!(kubelet.containers(cri::ContainerFilter::default()).is_empty(), "{said}");
        assert_eq!(left_of_restores(&daemon), Vec::<String>::new(), "{said}");
        // What was made of them is removed beside other work.
        wait::until_true("no directory of a container", || {
            names_in(&daemon.root().join("containers/k8s.io")).is_empty()
        });
    };
    refused(
        &|request| request.options = HashMap::from([("lazy".to_owned(), "true".to_owned())]),
        "\"lazy\" is not known",
    );
    refused(&|request| request.runtime_handler = "runc".to_owned(), "\"runc\" restores nothing");
    refused(&|request| request.runtime_handler = "nobody".to_owned(), "nobody");
    refused(&|request| request.config = None, "config: it is missing");
    refused(&|request| request.checkpoint_path = "pair".to_owned(), "absolute path");
    refused(&|request| request.checkpoint_path = "/nowhere".to_owned(), "no directory");
    refused(
        &|request| request.checkpoint_path = daemon.scratch().to_str().unwrap().to_owned(),
        "no checkpoint of a pod",
    );
    refused(&|request| drop(request.container_configs.pop()), "is of hears, tells, not of tells");
    refused(
        &|request| request.container_configs[1] = request.container_configs[0].clone(),
        "named twice",
    );
    // Found out when the other one is there already, and the pod with its network.
    refused(&|request| request.container_configs[1].args.push("x".to_owned()), "the command that");
    refused(&|request| request.container_configs[1].working_dir = "/tmp".to_owned(), "the working");
    refused(
        &|request| {
            let variable = cri::KeyValue { key: "A".to_owned(), value: b"b".to_vec() };
            request.container_configs[1].envs.push(variable);
        },
        "the environment that",
    );
    refused(&|request| request.container_configs[1].mounts.clear(), "mounts at /shared");
    // A checkpoint that was tampered with.
    let manifest = directory.join("pod.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    for (from, to, said) in [
        ("container-1.tar", "../container-1.tar", "no file beside it"),
        ("container-1.tar", "/dev/zero", "no file beside it"),
        ("\"version\": 1", "\"version\": 2", "version 2"),
        ("container-1.tar", "pod.json", "not a tar archive"),
        ("container-1.tar", "container-9.tar", "No such file"),
    ] {
        std::fs::write(&manifest, text.replace(from, to)).unwrap();
        refused(&|_| (), said);
    }
    std::fs::remove_file(&manifest).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &manifest).unwrap();
    refused(&|_| (), "no checkpoint of a pod");
}

/// Whether criu and this kernel fit each other.
fn criu_works() -> bool {
    let mut check = Command::new("criu");
    check.arg("check").stderr(Stdio::null()).stdout(Stdio::null());
    let works = check.status().is_ok_and(|status| status.success());
    if !works {
        eprintln!("skipped: criu can't work with this kernel (`criu check`)");
    }
    works
}

/// Counts in a variable, so that one that begins again would begin with 1.
const SLOWLY: &str = "i=0; while :; do i=$((i+1)); echo $i >/count; echo $i; sleep 0.1; done";

#[test]
fn criu_itself_lets_a_container_go_on() {
    if !criu_works() {
        return;
    }
    let daemon = Daemon::start();
    for (name, flags) in [("plain", "--net none"), ("bridge", ""), ("terminal", "-t")] {
        daemon.ctl(&format!("run -d --name {name} {flags} --rootfs / /bin/sh -c '{SLOWLY}'")).ok();
        let counted = |name: &str| -> u64 {
            let text = daemon.ctl(&format!("exec {name} /bin/cat /count")).stdout;
            text.trim().parse().unwrap_or(0)
        };
        wait::until_true("a count of 20", || counted(name) >= 20);
        let archive = daemon.scratch().join(format!("{name}.tar"));
        daemon.ctl(&format!("checkpoint -e {} {name}", archive.display())).ok();
        assert_eq!(daemon.inspect(name, "{{.State.ExitCode}}"), "137");
        daemon.ctl(&format!("rm {name}")).ok();
        daemon.ctl(&format!("restore --name {name}-2 {}", archive.display())).ok();
        let again = format!("{name}-2");
        wait::until_true("a higher count", || counted(&again) > 20);
        wait::until_true("its output", || {
            let logs = daemon.ctl(&format!("logs {again}")).stdout;
            let first = logs.lines().next().and_then(|line| line.trim().parse::<u64>().ok());
            first.is_some_and(|first| first > 10)
        });
        daemon.ctl(&format!("stop -t 0 {again}")).ok();
        assert_eq!(daemon.inspect(&again, "{{.State.ExitCode}}"), "137");
        daemon.ctl(&format!("rm {again}")).ok();
    }
}

#[test]
fn criu_itself_lets_a_terminal_go_on() {
    if !criu_works() {
        return;
    }
    let daemon = Daemon::start();
    daemon.ctl("run -dit --name shell --net none --rootfs / /bin/sh").ok();
    let mut terminal = daemon.terminal("attach shell");
    terminal.send("i=40; echo ready-$((1+1))\n");
    terminal.expect("ready-2");
    terminal.send("\u{10}\u{11}");
    terminal.finish();
    let archive = daemon.scratch().join("shell.tar");
    daemon.ctl(&format!("checkpoint -e {} shell", archive.display())).ok();
    daemon.ctl("rm shell").ok();
    daemon.ctl(&format!("restore {}", archive.display())).ok();
    let mut terminal = daemon.terminal("attach shell");
    terminal.send("echo $((i+2))\n");
    terminal.expect("42");
    terminal.send("exit 3\n");
    assert_eq!(terminal.finish().0, Some(3));
}

#[test]
fn criu_itself_lets_a_pod_go_on() {
    if !criu_works() {
        return;
    }
    let daemon = node_with(Settings::new());
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("pair");
    let pod = kubelet.run_pod(&config);
    let configs = ["one", "two"].map(|name| kubelet.container_config(name, SLOWLY));
    let ids = configs.each_ref().map(|wanted| kubelet.run(&pod, wanted, &config));
    wait::until_true("counts of 20", || ids.iter().all(|id| count_of(&kubelet, id) >= 20));
    let directory = empty_directory(&daemon, "pair");
    let request = cri::CheckpointPodRequest {
        pod_sandbox_id: pod.clone(),
        output_path: directory.to_str().unwrap().to_owned(),
        container_ids: ids.to_vec(),
        options: HashMap::new(),
    };
    checkpoint_pod(&kubelet, request).unwrap();
    for id in &ids {
        let before = count_of(&kubelet, id);
        wait::until_true("a higher count", || count_of(&kubelet, id) > before);
    }
    kubelet.remove_pod(&pod).unwrap();
    let request = cri::RestorePodRequest {
        checkpoint_path: directory.to_str().unwrap().to_owned(),
        config: Some(kubelet.pod_config("pair")),
        container_configs: configs.to_vec(),
        ..cri::RestorePodRequest::default()
    };
    let made = restore_pod(&kubelet, request).unwrap();
    for one in &made.restored_containers {
        kubelet.start(&one.container_id).unwrap();
        wait::until_true("a higher count", || count_of(&kubelet, &one.container_id) > 20);
    }
    // One by itself, in the place of an image.
    let mut wanted = kubelet.container_config("alone", SLOWLY);
    let archive = directory.join("container-0.tar");
    wanted.image.as_mut().unwrap().image = archive.to_str().unwrap().to_owned();
    let config = kubelet.pod_config("alone");
    let pod = kubelet.run_pod(&config);
    let alone = kubelet.run(&pod, &wanted, &config);
    wait::until_true("a higher count", || count_of(&kubelet, &alone) > 20);
    kubelet.stop(&alone, 0).unwrap();
}
