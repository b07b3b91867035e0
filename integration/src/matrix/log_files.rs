//! A log gets every byte, whatever a container writes and whatever is done to its file.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bosun_proto::v1;
use bosun_proto::v1::log_record::Stream;

use super::life::Extent;
use super::{Case, Round, code, life};
use crate::daemon::{Daemon, Settings};
use crate::disk::Size;
use crate::wait;

/// Longer than a file that was renamed or removed may go unnoticed.
const NOTICED: Duration = Duration::from_millis(300);

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::measured("no line end", no_line_end),
        Case::measured("one byte at a time", single_bytes),
        Case::measured("long lines", long_lines),
        Case::plain("NUL and no UTF-8", |_| odd_bytes()),
        Case::plain("the file is renamed", renamed),
        Case::plain("the file is removed", removed),
        Case::plain("the directory is moved away and back", directory_moved),
        Case::plain("the directory is removed", directory_removed),
        Case::plain("a link is planted", link_planted),
        Case::plain("the disk is full and has room again", disk_full),
    ]
}

/// What a container's log holds of each stream.
fn logged(daemon: &Daemon, container: &str) -> [Vec<u8>; 2] {
    let api = daemon.api();
    let request = v1::LogsRequest { container: container.to_owned(), ..Default::default() };
    let mut streams = [Vec::new(), Vec::new()];
    api.wait(async {
        let mut records = api.io().logs(request).await.expect("a log").into_inner();
        while let Some(record) = records.message().await.expect("a record") {
            let stream = usize::from(record.stream() == Stream::Stderr);
            streams[stream].extend_from_slice(&record.log);
        }
    });
    streams
}

/// Runs a script that writes the same to both streams, and expects just this in the log.
#[track_caller]
fn expect_logged(script: &str, expected: &[u8]) {
    let daemon = Daemon::start();
    let words = format!("run -d --name one --net none --rootfs / /bin/sh -c '{script}'");
    daemon.ctl(&words).ok();
    assert_eq!(daemon.ctl("wait one").waited(), "0");
    for (stream, logged) in logged(&daemon, "one").iter().enumerate() {
        let same = logged.iter().zip(expected).take_while(|(one, other)| one == other).count();
        let lengths = (logged.len(), expected.len());
        assert!(logged == expected, "stream {stream} differs at {same} of {lengths:?}");
    }
}

fn no_line_end(round: &Round) {
    let count = round.count(200_000, 10_000_000);
    let script = format!(
        "/usr/bin/awk \"BEGIN {{ for (i = 1; i <= {count}; i++) {{ \
         printf \\\"%d,\\\", i; printf \\\"%d,\\\", i > \\\"/dev/stderr\\\" }} }}\""
    );
    let expected: String = (1..=count).map(|number| format!("{number},")).collect();
    expect_logged(&script, expected.as_bytes());
}

fn single_bytes(round: &Round) {
    let count = round.count(3_000, 300_000);
    let writing = format!("seq 1 {count} | dd bs=1 status=none");
    let expected: String = (1..=count).map(|number| format!("{number}\n")).collect();
    expect_logged(&format!("{writing}; ({writing}) >&2"), expected.as_bytes());
}

fn long_lines(round: &Round) {
    const LINE: usize = 16 << 20;
    let count = round.count(1, 8);
    let writing = format!(
        "for i in $(seq {count}); do head -c {LINE} /dev/zero | tr \"\\000\" x; echo; done"
    );
    let expected = [vec![b'x'; LINE], vec![b'\n']].concat().repeat(count);
    expect_logged(&format!("{writing}; ({writing}) >&2"), &expected);
}

/// Every byte, and every pair with the beginning of a character. What JSON can't carry is U+FFFD.
fn odd_bytes() {
    let directory = tempfile::tempdir_in("/tmp").expect("a directory");
    let path = directory.path().join("bytes");
    let mut bytes = Vec::new();
    for first in 0..=255_u8 {
        bytes.extend([b'<', first, b'>', 0xe2, first, b'|', 0xf0, 0x9f, first, 0, b'\n']);
    }
    fs::write(&path, &bytes).expect("a file");
    let expected = String::from_utf8_lossy(&bytes).into_owned();
    let path = path.display();
    expect_logged(&format!("cat {path}; cat {path} >&2"), expected.as_bytes());
}

/// A container that writes numbered lines, and its log's file.
fn writing(daemon: &Daemon, code: u8) -> PathBuf {
    let command = life::lines_until_stopped(code, "0.01");
    daemon.ctl(&format!("run -d --name one --net none --rootfs / {command}")).ok();
    daemon.until_logged("one", "o 20 ");
    let id = daemon.inspect("one", "{{.Id}}");
    daemon.container_dir(&id).json_log(&id)
}

fn stop(daemon: &Daemon, code: u8) {
    daemon.ctl("stop -t 10 one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), code.to_string());
}

/// The numbers of the lines of standard output in a file of records; each line of the file is whole.
fn numbers(text: &str) -> Vec<u64> {
    let records = text.lines().map(|line| -> serde_json::Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    records
        .filter_map(|record| {
            let text = record["log"].as_str()?.strip_prefix("o ")?.to_owned();
            text.split(' ').next()?.parse().ok()
        })
        .collect()
}

#[track_caller]
fn expect_one_after_the_other(numbers: &[u64], first: u64) {
    let expected: Vec<u64> = (first..).take(numbers.len()).collect();
    assert_eq!(numbers, expected);
}

fn until_there(path: &Path) {
    wait::until_true(&format!("{}", path.display()), || path.exists());
}

fn renamed(round: usize) {
    let (daemon, code) = (Daemon::start(), code(round));
    let log = writing(&daemon, code);
    let old = log.with_extension("log.renamed");
    fs::rename(&log, &old).expect("a file");
    until_there(&log);
    std::thread::sleep(NOTICED);
    stop(&daemon, code);
    let before = numbers(&fs::read_to_string(old).expect("a file"));
    let after = numbers(&fs::read_to_string(log).expect("a file"));
    assert!(before.len() >= 20 && !after.is_empty());
    expect_one_after_the_other(&[before, after].concat(), 1);
}

fn removed(round: usize) {
    let (daemon, code) = (Daemon::start(), code(round));
    let log = writing(&daemon, code);
    let mut old = fs::File::open(&log).expect("a file");
    fs::remove_file(&log).expect("a file");
    until_there(&log);
    std::thread::sleep(NOTICED);
    stop(&daemon, code);
    let mut text = String::new();
    old.read_to_string(&mut text).expect("a file");
    let all = [numbers(&text), numbers(&fs::read_to_string(log).expect("a file"))].concat();
    expect_one_after_the_other(&all, 1);
}

fn directory_moved(round: usize) {
    let (daemon, code) = (Daemon::start(), code(round));
    let log = writing(&daemon, code);
    let directory = log.parent().expect("a directory");
    let away = daemon.scratch().join("away");
    fs::rename(directory, &away).expect("one file system");
    std::thread::sleep(NOTICED);
    fs::rename(&away, directory).expect("one file system");
    std::thread::sleep(NOTICED);
    stop(&daemon, code);
    life::expect_log(&daemon, "one", Extent::Whole, "moved");
    assert!(numbers(&fs::read_to_string(log).expect("a file")).len() >= 20);
}

/// With it go its log and the place of its exit record: the container goes on all the same, can be
/// stopped and removed, and its status is its own or unknown.
fn directory_removed(round: usize) {
    let (daemon, code) = (Daemon::start(), code(round));
    let log = writing(&daemon, code);
    fs::remove_dir_all(log.parent().expect("a directory")).expect("a directory");
    std::thread::sleep(NOTICED);
    assert!(daemon.process("one").lives());
    daemon.ctl("stop -t 10 one").ok();
    let exit = daemon.api().get("one").state.and_then(|state| state.exit).expect("an exit");
    assert!(exit.unknown || exit.status == u32::from(code), "an invented status: {exit:?}");
    daemon.ctl("rm one").ok();
    daemon.expect_nothing_left();
}

/// Nothing is written where it leads; when it is gone, there is a new file.
fn link_planted(round: usize) {
    let (daemon, code) = (Daemon::start(), code(round));
    let log = writing(&daemon, code);
    let (old, canary) = (log.with_extension("log.renamed"), daemon.scratch().join("canary"));
    fs::write(&canary, "untouched\n").expect("a file");
    fs::rename(&log, &old).expect("a file");
    if std::os::unix::fs::symlink(&canary, &log).is_err() {
        // The shim was faster.
        fs::rename(&log, &old).expect("a file");
        std::os::unix::fs::symlink(&canary, &log).expect("a link");
    }
    std::thread::sleep(NOTICED);
    assert!(fs::symlink_metadata(&log).is_ok_and(|found| found.is_symlink()), "it was replaced");
    fs::remove_file(&log).expect("the link");
    until_there(&log);
    std::thread::sleep(NOTICED);
    stop(&daemon, code);
    assert_eq!(fs::read_to_string(canary).expect("a file"), "untouched\n");
    let all = [old, log].map(|path| numbers(&fs::read_to_string(path).expect("a file"))).concat();
    expect_one_after_the_other(&all[all.len() - 20..], all[all.len() - 20]);
}

/// What found no room is missing, and in its place it is said how many bytes.
fn disk_full(round: usize) {
    let size = Size { megabytes: 16, inodes: None };
    let daemon = Settings::new().disk_at("root", size).start();
    let code = code(round);
    let _ = writing(&daemon, code);
    let ballast = daemon.disk().fill();
    std::thread::sleep(NOTICED * 4);
    drop(ballast);
    daemon.until_logged("one", "are missing here");
    std::thread::sleep(NOTICED);
    stop(&daemon, code);
    let [out, err] = logged(&daemon, "one").map(|bytes| String::from_utf8(bytes).expect("text"));
    let said: u64 = err
        .lines()
        .filter_map(|line| line.strip_prefix("bosun: ")?.split(' ').next()?.parse::<u64>().ok())
        .sum();
    let mut missing = 0;
    for (text, letter) in [(&out, 'o'), (&err, 'e')] {
        let mut next = 1;
        let mut has_end = false;
        for line in text.lines().filter(|line| !line.starts_with("bosun: ")) {
            let end = life::end(line, letter);
            let number = end.map(|count| count + 1);
            let number = number.or_else(|| line.split(' ').nth(1)?.parse().ok()).expect("a line");
            missing += (next..number)
                .map(|number| life::line(letter, number).len() as u64 + 1)
                .sum::<u64>();
            assert!(end.is_some() || line == life::line(letter, number), "{line}");
            next = number + 1;
            has_end = end.is_some();
        }
        assert!(has_end, "what was written when there was room again is missing");
    }
    assert!(missing > 0, "the disk was not full");
    assert_eq!(said, missing, "bytes that are said to be missing, and those that are");
}
