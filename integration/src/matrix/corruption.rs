//! Files below a root, damaged while no daemon looks: bytes flipped, files cut, emptied, removed. `SEED=n` draws
//! others. What single kinds of damage lead to is in the suite (`corruption.rs`), by the same image and containers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::json;

use super::{Case, Round};
use crate::archive;
use crate::daemon::{Daemon, program};
use crate::image::{Image, Recipe, noise};
use crate::messages::{Random, seed};
use crate::process::Process;
use crate::tar::Entry;

/// How many files are damaged in a round, one after the other: about as many as there are kinds.
const FILES: usize = 14;

pub(super) fn cases() -> Vec<Case> {
    vec![Case::measured("any file", any_file)]
}

/// What can happen to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flipped,
    Cut,
    Zeros,
    Removed,
}

const DAMAGES: [Damage; 4] = [Damage::Flipped, Damage::Cut, Damage::Zeros, Damage::Removed];

impl Damage {
    fn strike(self, path: &Path, random: &mut Random) {
        if let Self::Removed = self {
            return std::fs::remove_file(path).expect("a file");
        }
        let mut bytes = std::fs::read(path).expect("a file");
        let at = random.below(bytes.len().max(1));
        match self {
            Self::Flipped if bytes.is_empty() => return,
            Self::Flipped => bytes[at] ^= 1 << random.below(8),
            Self::Zeros => {
                let end = (at + 4096).min(bytes.len());
                bytes[at..end].fill(0);
            }
            Self::Cut | Self::Removed => bytes.truncate(at),
        }
        // In its place: who holds the file open holds this one.
        std::fs::write(path, bytes).expect("a file");
    }
}

/// The next daemon starts by itself, and loses nothing that stood elsewhere.
fn any_file(round: &Round) {
    let mut random = Random::of_round(round.number);
    let mut daemon = Daemon::start();
    load(&daemon);
    let running = start_running(&daemon);
    let since = running.start_time();
    start_ended(&daemon);
    let root = daemon.place().root.clone();
    let mut struck: BTreeSet<String> = BTreeSet::new();
    for number in 0..FILES {
        daemon.kill();
        let logged = daemon.log().len();
        let all = files(&root);
        let fresh: Vec<&PathBuf> =
            all.iter().filter(|path| !struck.contains(&kind(&root, path))).collect();
        let path = match fresh.is_empty() {
            true => random.pick(&all).clone(),
            false => (*random.pick(&fresh)).clone(),
        };
        struck.insert(kind(&root, &path));
        let damage = *random.pick(&DAMAGES);
        let case = format!(
            "SEED={} round {}, file {number}: {damage:?} {}",
            seed(),
            round.number,
            path.display()
        );
        damage.strike(&path, &mut random);
        daemon.start_again();
        expect_whole(&daemon, running, since, &path, &case);
        let log = daemon.log()[logged..].to_owned();
        assert!(!log.contains("panicked"), "{case}:\n{log}");
    }
    expect_its_code(&daemon, running);
    daemon.ctl("rm -f runs ended").ok();
    daemon.ctl("rmi test/one:1").ok();
    daemon.expect_nothing_left();
}

/// With a file `/mark`, which it prints.
#[must_use]
pub fn image() -> Image {
    Recipe::busybox()
        .files(&[Entry::file("noise", noise(5, 60_000)), Entry::file("mark", "whole")])
        .config(json!({"Cmd": ["cat", "/mark"]}))
        .image()
}

/// Writes the archive of the image and loads it, as `test/one:1`.
pub fn load(daemon: &Daemon) {
    let file = daemon.scratch().join("image.tar");
    if !file.exists() {
        std::fs::write(&file, archive::oci(&[("test/one:1", &image())])).expect("a file");
    }
    daemon.ctl(&format!("load -i {}", file.display())).ok();
}

/// A container of the image that goes on until it is told, then ends with 23.
pub fn start_running(daemon: &Daemon) -> Process {
    let script = "trap \"echo told; exit 23\" USR1; echo ready; while :; do sleep 1; done";
    daemon
        .ctl(&format!("run -d --name runs --net none --label kept=yes test/one:1 sh -c '{script}'"))
        .ok();
    daemon.until_logged("runs", "ready");
    daemon.process("runs")
}

/// One that has said "said", and ended with 7.
pub fn start_ended(daemon: &Daemon) {
    daemon.ctl("run --name ended --net none test/one:1 sh -c 'echo said; exit 7'").check(7);
}

/// It ends by itself, and is asked what with.
#[track_caller]
pub fn expect_its_end(daemon: &Daemon, process: Process) {
    expect_its_code(daemon, process);
    assert!(daemon.ctl("logs runs").stdout.contains("told"));
}

/// As [`expect_its_end`], of one whose log may have been cut under its writer.
#[track_caller]
fn expect_its_code(daemon: &Daemon, process: Process) {
    process.signal(Signal::USR1);
    daemon.until_status("runs", "exited");
    assert_eq!(daemon.inspect("runs", "{{.State.ExitCode}}"), "23");
}

/// `bosund fsck` of a root, with more words.
///
/// # Panics
/// When there is no such program.
#[must_use]
pub fn fsck(daemon: &Daemon, words: &str) -> Output {
    let mut command = Command::new(program("bosund"));
    command.arg("fsck").args(["--root".as_ref(), daemon.place().root.as_os_str()]);
    command.args(words.split_whitespace()).stdin(Stdio::null());
    command.output().expect("a program")
}

/// What a program printed.
#[must_use]
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Files below a root, but for the trees of containers and layers, whose bytes are nobody's to judge.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory").flatten() {
            let (path, kind) = (entry.path(), entry.file_type().expect("a file"));
            let is_tree = directory.parent().is_some_and(|up| up.ends_with("snapshots/overlayfs"));
            if kind.is_dir() && !is_tree && !path.ends_with("quarantine") {
                waiting.push(path);
            } else if kind.is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The name of a file with what is a container's or a blob's own left out: one of each kind is
/// damaged before a second one is.
fn kind(root: &Path, path: &Path) -> String {
    let name = path.strip_prefix(root).expect("below it").display().to_string();
    name.split(['/', '.'])
        .map(|part| match part.len() >= 16 || part.chars().all(|c| c.is_ascii_digit()) {
            true => "*",
            false => part,
        })
        .collect::<Vec<_>>()
        .join("/")
}

#[track_caller]
fn expect_whole(daemon: &Daemon, running: Process, since: Option<u64>, damaged: &Path, case: &str) {
    let names = daemon.ctl("ps -a --format '{{.Names}}'").text();
    let names: BTreeSet<&str> = names.lines().collect();
    assert_eq!(names, BTreeSet::from(["ended", "runs"]), "{case}");
    assert_eq!(daemon.inspect("runs", "{{.State.Status}}"), "running", "{case}");
    assert_eq!((daemon.process("runs"), running.start_time()), (running, since), "{case}");
    daemon.ctl("exec runs cat /mark").check(0);
    let label = daemon.inspect("runs", "{{index .Config.Labels \"kept\"}}");
    assert_eq!(label, "yes", "{case}");
    assert_eq!(daemon.inspect("ended", "{{.State.ExitCode}}"), "7", "{case}");
    // What a log has lost is lost, and is said.
    let logs = daemon.ctl("logs ended");
    let name = damaged.file_name().expect("a name").to_string_lossy().into_owned();
    let is_log = name.contains("-json.log");
    let is_whole = logs.stderr.is_empty() && logs.stdout.lines().all(|line| line == "said");
    assert!(is_log || (is_whole && logs.stdout.starts_with("said")), "{case}: {logs:?}");
    daemon.ctl("start ended").ok();
    assert_eq!(daemon.ctl("wait ended").waited(), "7", "{case}");
    if !is_whole {
        // Its lost lines are nothing for the rounds to come.
        daemon.ctl("rm ended").ok();
        start_ended(daemon);
    }
    let whole = daemon.ctl("run --rm --net none test/one:1");
    if whole.code != Some(0) {
        let is_blob = damaged.components().any(|part| part.as_os_str() == "blobs");
        assert!(is_blob, "{case}: {whole:?}");
        let hex = name.get(..12).unwrap_or_default();
        assert!(whole.stderr.contains(hex), "{case}: the blob is not named: {whole:?}");
        load(daemon);
        assert_eq!(daemon.ctl("run --rm --net none test/one:1").text(), "whole", "{case}");
    }
}
