//! `ctl logs`, the log file, and rotation.

use integration::daemon::Daemon;
use integration::process::Process;
use integration::wait;
use rustix::process::Signal;

fn records(daemon: &Daemon, id: &str) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(daemon.container_dir(id).json_log(id)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn run(daemon: &Daemon, script: &str) -> String {
    daemon.ctl(&format!("run --name one --net none --rootfs / /bin/sh -c '{script}'")).ok();
    daemon.inspect("one", "{{.Id}}")
}

#[test]
fn both_streams_are_kept_apart() {
    let daemon = Daemon::start();
    let id = run(&daemon, "echo out; echo err >&2");
    let mut kept: Vec<_> = records(&daemon, &id)
        .iter()
        .map(|record| {
            (
                record["stream"].as_str().unwrap().to_owned(),
                record["log"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    kept.sort();
    assert_eq!(
        kept,
        [("stderr".to_owned(), "err\n".to_owned()), ("stdout".to_owned(), "out\n".to_owned())]
    );
    let shown = daemon.ctl("logs one");
    assert_eq!((shown.stdout.as_str(), shown.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn a_last_line_without_its_end_is_kept() {
    let daemon = Daemon::start();
    let id = run(&daemon, "printf \"one\\ntwo\"");
    let kept = records(&daemon, &id);
    assert_eq!(kept.last().unwrap()["log"], "two");
    assert_eq!(daemon.ctl("logs one").stdout, "one\ntwo");
}

#[test]
fn every_byte_is_kept_in_order() {
    let daemon = Daemon::start();
    let id = run(&daemon, "seq 1 20000");
    let kept: String = records(&daemon, &id)
        .iter()
        .map(|record| record["log"].as_str().unwrap().to_owned())
        .collect();
    let wanted: String = (1..=20000).map(|n| format!("{n}\n")).collect();
    assert!(kept == wanted, "{} bytes of {}", kept.len(), wanted.len());
    assert!(daemon.ctl("logs one").stdout == wanted);
}

#[test]
fn a_line_longer_than_any_buffer_is_kept() {
    let daemon = Daemon::start();
    run(&daemon, "head -c 300000 /dev/zero | tr \"\\000\" x; echo; echo end");
    let shown = daemon.ctl("logs one").stdout;
    assert_eq!((shown.len(), shown.ends_with("x\nend\n")), (300_005, true));
}

#[test]
fn odd_characters_stay_what_they_are() {
    let daemon = Daemon::start();
    let id = run(&daemon, "printf \"q\\042b\\\\\\\\ t\\\\t e\\\\033 \\303\\244\\n\"");
    let kept = records(&daemon, &id);
    assert_eq!(kept[0]["log"], "q\"b\\ t\t e\u{1b} ä\n");
    assert_eq!(daemon.ctl("logs one").stdout, "q\"b\\ t\t e\u{1b} ä\n");
}

#[test]
fn tail_shows_the_last_lines() {
    let daemon = Daemon::start();
    run(&daemon, "seq 1 100");
    assert_eq!(daemon.ctl("logs --tail 2 one").stdout, "99\n100\n");
    assert_eq!(daemon.ctl("logs --tail 0 one").stdout, "");
    assert_eq!(daemon.ctl("logs -n 1 one").stdout, "100\n");
    assert_eq!(daemon.ctl("logs --tail all one").stdout.lines().count(), 100);
}

#[test]
fn since_shows_what_is_younger() {
    let daemon = Daemon::start();
    let id = run(&daemon, "echo old; sleep 1.2; echo young");
    let time = records(&daemon, &id)[1]["time"].as_str().unwrap().to_owned();
    assert_eq!(daemon.ctl(&format!("logs --since {time} one")).stdout, "young\n");
    assert_eq!(daemon.ctl("logs --since 1h one").stdout, "old\nyoung\n");
    assert_eq!(daemon.ctl("logs --since 2099-01-01T00:00:00Z one").stdout, "");
}

#[test]
fn timestamps_are_those_of_the_file() {
    let daemon = Daemon::start();
    let id = run(&daemon, "echo line");
    let time = records(&daemon, &id)[0]["time"].as_str().unwrap().to_owned();
    assert_eq!(daemon.ctl("logs -t one").stdout, format!("{time} line\n"));
}

#[test]
fn following_goes_on_to_the_end() {
    let daemon = Daemon::start();
    daemon.ctl("run -d -i --name one --net none --rootfs / /bin/sh -c 'echo first; read line; echo \"then $line\"'").ok();
    let follower = daemon.ctl_start("logs -f one");
    follower.expect("first");
    daemon.client().feed("attach one", "second\n").ok();
    assert_eq!(follower.finish().text(), "first\nthen second");
}

#[test]
fn a_follower_of_a_silent_container_that_goes_leaves_nothing_open() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sh -c 'echo first; sleep 600'").ok();
    let process = Process(daemon.pid().unwrap());
    let is_log = |path: &String| path.ends_with("-json.log");
    let follower = daemon.ctl_start("logs -f one");
    follower.expect("first");
    assert!(process.descriptors().values().any(is_log));
    follower.signal(Signal::KILL);
    follower.finish();
    wait::until_true("the log to be closed", || !process.descriptors().values().any(is_log));
}

#[test]
fn a_follower_lives_through_rotation() {
    let daemon = Daemon::start();
    let words = "run -d -i --name one --log-opt max-size=4k --log-opt max-file=3 --net none --rootfs / /bin/sh -c 'read line; for n in $(seq 1 400); do echo \"line $n\"; done'";
    daemon.ctl(words).ok();
    let follower = daemon.ctl_start("logs -f one");
    daemon.client().feed("attach one", "go\n").ok();
    let shown = follower.finish().text();
    assert!(shown.ends_with("line 400"), "{shown}");
}

#[test]
fn the_log_rotates_by_size_and_keeps_so_many_files() {
    let daemon = Daemon::start();
    let words = "run --name one --log-opt max-size=10k --log-opt max-file=3 --net none --rootfs / /bin/seq 1 5000";
    daemon.ctl(words).ok();
    let id = daemon.inspect("one", "{{.Id}}");
    let current = daemon.container_dir(&id).json_log(&id);
    let name = current.file_name().unwrap().to_string_lossy().into_owned();
    let mut files: Vec<_> = std::fs::read_dir(current.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&name))
        .collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    let names: Vec<_> =
        files.iter().map(|entry| entry.file_name().to_string_lossy().replace(&name, "")).collect();
    assert_eq!(names, ["", ".1", ".2"]);
    for file in &files {
        assert!(file.metadata().unwrap().len() <= 10 * 1024 + 200, "{file:?}");
        for line in std::fs::read_to_string(file.path()).unwrap().lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }
    let shown = daemon.ctl("logs one").stdout;
    let first: u32 = shown.lines().next().unwrap().parse().unwrap();
    let wanted: String = (first..=5000).map(|n| format!("{n}\n")).collect();
    assert!(first > 1 && shown == wanted, "what is kept has no hole and ends with the last line");
}

#[test]
fn with_the_none_driver_nothing_is_kept_and_logs_says_so() {
    let daemon = Daemon::start();
    let words = "run --name one --log-driver none --net none --rootfs / /bin/echo shown";
    assert_eq!(daemon.ctl(words).text(), "shown");
    daemon.ctl("logs one").fails(1, &["one", "none"]);
    let id = daemon.inspect("one", "{{.Id}}");
    assert!(!daemon.container_dir(&id).json_log(&id).exists());
}

#[test]
fn logging_does_not_wait_for_the_daemon() {
    let mut daemon = Daemon::start();
    let words = "run -d -i --name one --net none --rootfs / /bin/sh -c 'echo ready; read line; echo $line; sleep 0.5; seq 1 50000; echo written'";
    daemon.ctl(words).ok();
    daemon.until_logged("one", "ready");
    let id = daemon.inspect("one", "{{.Id}}");
    let mut attached = daemon.ctl_start("attach one");
    attached.send("go\n");
    daemon.until_logged("one", "go");
    daemon.kill();
    let file = daemon.container_dir(&id).json_log(&id);
    wait::until_true("the last line in the log file", || {
        std::fs::read_to_string(&file).unwrap().contains("written")
    });
    daemon.start_again();
    daemon.until_status("one", "exited");
    assert_eq!(daemon.ctl("logs one").stdout.lines().count(), 50_003);
}
