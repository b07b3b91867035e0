//! What a container changed: shown, exported, and made an image.

use std::process::Stdio;

use integration::archive::load;
use integration::daemon::{Daemon, Settings};
use integration::image::Recipe;
use integration::process::Process;
use integration::tar::{self, Entry, Kind};
use integration::wait;
use serde_json::json;

use crate::pause::Freezer;

const IMAGE: &str = "test/base:1";

fn prepared() -> Daemon {
    let daemon = Daemon::start();
    let files = [
        Entry::directory("dir"),
        Entry::file("dir/kept", "kept"),
        Entry::file("dir/removed", "r"),
        Entry::directory("old"),
        Entry::file("old/below", "b"),
        Entry::file("touched", "same"),
    ];
    let config = json!({"Env": ["PATH=/bin", "A=image"], "Labels": {"base": "1"}});
    load(&daemon, &[(IMAGE, &Recipe::busybox().files(&files).config(config).image())]);
    daemon
}

const CHANGES: &str = "rm /dir/removed; echo new > /dir/new; mkdir -p /fresh/sub; echo x > /fresh/sub/x; ln -s x /fresh/link; chown 3:4 /touched; chmod 4711 /touched; rm -r /old; mkdir /old; echo above > /old/above; mkfifo /pipe; ln /dir/new /dir/again";

#[test]
fn a_diff_shows_what_changed() {
    let daemon = prepared();
    daemon.ctl(&format!("run --name one --net none {IMAGE} sh -c '{CHANGES}'")).ok();
    let text = daemon.ctl("diff one").text();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let expected = [
        "A /dir/again",
        "A /dir/new",
        "A /fresh",
        "A /fresh/link",
        "A /fresh/sub",
        "A /fresh/sub/x",
        "A /old/above",
        "A /pipe",
        "C /dir",
        "C /old",
        "C /touched",
        "D /dir/removed",
        "D /old/below",
    ];
    assert_eq!(lines, expected);
    daemon.ctl(&format!("create --name two {IMAGE} true")).ok();
    assert_eq!(daemon.ctl("diff two").text(), "");
    daemon.ctl("run --name over --net none --rootfs / /bin/sh -c 'echo x > /opt/x'").ok();
    assert_eq!(daemon.ctl("diff over").text(), "C /opt\nA /opt/x");
}

#[test]
fn a_commit_is_an_image_with_the_changes() {
    let daemon = prepared();
    daemon.ctl(&format!("run --name one --net none {IMAGE} sh -c '{CHANGES}'")).ok();
    let id = daemon
        .ctl("commit -a me -m remark -c 'CMD [\"cat\", \"/dir/new\"]' -c 'ENV B=commit' one test/committed:1")
        .text();
    assert!(id.starts_with("sha256:"), "{id}");
    let run =
        |words: &str| daemon.ctl(&format!("run --rm --net none test/committed:1 {words}")).text();
    assert_eq!(run(""), "new");
    assert_eq!(
        run(
            "sh -c 'echo $A $B; ls /old /dir; stat -c %a:%u:%g:%h /touched /dir/new; readlink /fresh/link; test -p /pipe && echo pipe'"
        ),
        "image commit\n/dir:\nagain\nkept\nnew\n\n/old:\nabove\n4711:3:4:1\n644:0:0:2\nx\npipe"
    );
    let inspected = daemon.ctl("image inspect test/committed:1").json();
    assert_eq!(inspected[0]["Id"], id);
    assert_eq!(inspected[0]["Author"], "me");
    assert_eq!(inspected[0]["Config"]["Labels"]["base"], "1");
    assert_eq!(inspected[0]["RootFS"]["Layers"].as_array().unwrap().len(), 3);
    let history = daemon.ctl("history --no-trunc test/committed:1").text();
    assert_eq!(history.lines().count(), 1 + 3, "{history}");
    assert!(history.contains("remark"), "{history}");
    // The new image stands by itself.
    daemon.ctl("rm one").ok();
    daemon.ctl(&format!("rmi {IMAGE}")).ok();
    assert_eq!(run(""), "new");
    daemon.ctl("rmi test/committed:1").ok();
    daemon.expect_nothing_stored("");
}

#[test]
fn a_commit_goes_round_through_an_archive() {
    let daemon = prepared();
    daemon.ctl(&format!("run --name one --net none {IMAGE} sh -c '{CHANGES}'")).ok();
    daemon.ctl("commit one test/committed:1").ok();
    daemon.ctl(&format!("save -o {}/saved.tar test/committed:1", daemon.scratch().display())).ok();
    daemon.ctl("rm one").ok();
    daemon.ctl(&format!("rmi test/committed:1 {IMAGE}")).ok();
    daemon.ctl(&format!("load -i {}/saved.tar", daemon.scratch().display())).ok();
    assert_eq!(
        daemon.ctl("run --rm --net none test/committed:1 ls /old /dir").text(),
        "/dir:\nagain\nkept\nnew\n\n/old:\nabove"
    );
}

#[test]
fn a_running_container_is_frozen_meanwhile_and_goes_on() {
    let daemon = prepared();
    let script = "i=0; while :; do for f in a b; do echo $i > /tmp/$f; mv /tmp/$f /$f; done; i=$((i+1)); done";
    daemon.ctl(&format!("run -d --name one --net none {IMAGE} sh -c '{script}'")).ok();
    wait::until_true("both files", || daemon.ctl("exec one test -e /b").code == Some(0));
    for round in 0..5 {
        daemon.ctl(&format!("commit one test/live:{round}")).ok();
        let both = daemon.ctl(&format!(
            "run --rm --net none test/live:{round} sh -c 'echo $(($(cat /a) - $(cat /b)))'"
        ));
        let apart: i64 = both.text().parse().unwrap_or(0);
        assert!((0..=1).contains(&apart), "the files are {apart} apart");
    }
    let before = daemon.ctl("exec one cat /b").text();
    wait::until_true("it to go on", || daemon.ctl("exec one cat /b").text() != before);
    daemon.ctl("commit --pause=false one test/live:unpaused").ok();
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "running");
    let process: Process = daemon.process("one");
    assert_ne!(process.status("State").unwrap().chars().next(), Some('D'));
}

/// A daemon whose first commit takes so many milliseconds, with a container that does what a shell is told.
fn slow(milliseconds: u32, script: &str) -> Daemon {
    let mut daemon = Settings::new().failpoint("no.such.point=off").start();
    load(&daemon, &[(IMAGE, &Recipe::busybox().image())]);
    daemon.ctl(&format!("run -d --name one --net none {IMAGE} sh -c '{script}'")).ok();
    daemon.until_logged("one", "begun");
    daemon.kill();
    daemon.set_failpoint(&format!("daemon.content.before_sync=1*sleep({milliseconds})"));
    daemon.start_again();
    daemon.clear_environment();
    daemon
}

const TICK: &str = "echo begun; while :; do echo tick; sleep 0.02; done";

/// Waits until its log grows, whether there is a daemon or not.
fn goes_on(daemon: &Daemon, id: &str) {
    let log = daemon.container_dir(id).json_log(id);
    let length = || log.metadata().unwrap().len();
    let before = length();
    wait::until_true("another line", || length() > before);
}

#[test]
fn an_exec_waits_until_a_commit_lets_the_container_go_on() {
    let daemon = slow(3000, "echo begun; exec sleep 600");
    let freezer = Freezer::of(&daemon, "one");
    let before = freezer.processes();
    let commit = daemon.client().start("commit one test/live:1", Stdio::null());
    wait::until_true("a container that is held", || freezer.holds());
    let exec = daemon.client().start("exec one echo on", Stdio::null());
    while freezer.holds() {
        let now = freezer.processes();
        assert!(!freezer.holds() || now == before, "{now} came into what is held with {before}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(exec.finish().text(), "on");
    commit.finish().ok();
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "running");
}

#[test]
fn a_daemon_that_is_told_to_stop_lets_go_what_a_commit_holds() {
    let mut daemon = slow(8000, TICK);
    let (freezer, id) = (Freezer::of(&daemon, "one"), daemon.inspect("one", "{{.Id}}"));
    let commit = daemon.client().start("commit one test/live:1", Stdio::null());
    wait::until_true("a container that is held", || freezer.holds());
    daemon.terminate();
    drop(commit);
    goes_on(&daemon, &id);
    daemon.start_again();
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "running");
    daemon.ctl("commit one test/live:1").ok();
}

#[test]
fn what_a_killed_daemon_held_for_a_commit_goes_on_without_it() {
    let mut daemon = slow(60_000, TICK);
    let (freezer, id) = (Freezer::of(&daemon, "one"), daemon.inspect("one", "{{.Id}}"));
    let commit = daemon.client().start("commit one test/live:1", Stdio::null());
    wait::until_true("a container that is held", || freezer.holds());
    daemon.kill();
    drop(commit);
    wait::until_true("a container that goes on", || !freezer.holds());
    daemon.start_again();
    goes_on(&daemon, &id);
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "running");
    daemon.ctl("commit one test/live:1").ok();
    daemon.ctl("stop -t 0 one").ok();
}

#[test]
fn volumes_and_mounts_are_no_part_of_it() {
    let daemon = Daemon::start();
    let config = json!({"Volumes": {"/data": {}}});
    load(&daemon, &[(IMAGE, &Recipe::busybox().config(config).image())]);
    daemon
        .ctl(&format!("run --name one --net none {IMAGE} sh -c 'echo x > /data/x; echo z > /z'"))
        .ok();
    let diff = daemon.ctl("diff one").text();
    assert!(!diff.contains("/data/x") && diff.contains("A /z"), "{diff}");
    daemon.ctl("commit one test/committed:1").ok();
    assert_eq!(
        daemon.ctl("run --rm --net none test/committed:1 ls /data /z").text(),
        "/z\n\n/data:"
    );
}

#[test]
fn an_export_is_the_whole_tree() {
    let daemon = prepared();
    daemon.ctl(&format!("run -d --name one --net none {IMAGE} sh -c '{CHANGES}; sleep 600'")).ok();
    wait::until_true("the changes", || daemon.ctl("exec one test -e /dir/again").code == Some(0));
    let output = daemon.client().command("export one").output().unwrap();
    assert!(output.status.success());
    let entries = tar::read(&output.stdout);
    let find = |path: &str| {
        entries
            .iter()
            .find(|entry| entry.path.trim_start_matches("./").trim_end_matches('/') == path)
    };
    assert_eq!(find("dir/kept").unwrap().kind, Kind::File(b"kept".to_vec()));
    assert!(find("dir/removed").is_none() && find("old/below").is_none());
    let touched = find("touched").unwrap();
    assert_eq!((touched.mode, touched.uid, touched.gid), (0o4711, 3, 4));
    assert!(
        matches!(find("dir/again").unwrap().kind, Kind::HardLink(_))
            || matches!(find("dir/new").unwrap().kind, Kind::HardLink(_))
    );
    assert!(entries.iter().all(|entry| !entry.path.contains(".wh.")));
    let below_proc = entries
        .iter()
        .filter(|entry| entry.path.trim_start_matches("./").starts_with("proc/"))
        .filter(|entry| entry.path.len() > 7);
    assert_eq!(below_proc.count(), 0, "what is mounted is not exported");
    let file = daemon.scratch().join("one.tar");
    daemon.ctl(&format!("export -o {} one", file.display())).ok();
    assert!(tar::read(&std::fs::read(&file).unwrap()).len() == entries.len());
    daemon.ctl(&format!("export -o {} no-such", file.display())).fails(1, &["no-such"]);
    assert!(!tar::read(&std::fs::read(&file).unwrap()).is_empty(), "what was there stays");
}

#[test]
fn a_commit_without_a_name_is_there_by_its_id_or_gone() {
    let daemon = prepared();
    daemon.ctl(&format!("run --name one --net none {IMAGE} true")).ok();
    let id = daemon.ctl("commit one").text();
    assert!(id.starts_with("sha256:"), "{id}");
    daemon.ctl("commit one Bad:Name").fails(1, &["Bad"]);
    daemon.ctl("commit no-such test/x:1").fails(1, &["no-such"]);
    daemon.ctl("commit -c 'FROM x' one test/x:1").fails(1, &["FROM"]);
}
