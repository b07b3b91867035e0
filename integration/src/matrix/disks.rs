//! Disks that are full, out of inodes, read-only or gone: of everything, and of one of the daemon's
//! directories alone.
//!
//! ```text
//!   containers run ─▶ the fault ─▶ what must go on ─▶ a new daemon ─▶ room, or a repaired disk ─▶ as if nothing had been
//! ```

use std::time::Duration;

use super::life::Extent;
use super::lives::{ImageLife, image};
use super::starved::run;
use super::{Case, code, life};
use crate::ctl::Output;
use crate::daemon::{Daemon, Settings};
use crate::disk::{Ballast, Size};
use crate::fake_registry::FakeRegistry;
use crate::image::digest;
use crate::process::Process;
use crate::wait;

/// What may be a file system of its own.
const DIRECTORIES: [&str; 5] =
    ["root", "root/content", "root/snapshots", "root/containers", "state"];

/// Megabytes of each.
const MEGABYTES: u32 = 48;
/// Files of one that will have none left.
const INODES: u32 = 600;

/// How many things may be made before a disk is found full: in what is there already.
const NEW: usize = 200;

/// A container that ended, and can't be said to have: how long somebody waits for that.
const STOPPED: Duration = Duration::from_secs(20);

pub(super) fn full() -> Vec<Case> {
    let take = |daemon: &Daemon| daemon.disk().fill();
    each("full", move |directory, round| no_room(directory, None, round, take))
}

pub(super) fn no_inodes() -> Vec<Case> {
    let take = |daemon: &Daemon| daemon.disk().take_inodes();
    each("no inodes", move |directory, round| no_room(directory, Some(INODES), round, take))
}

pub(super) fn read_only() -> Vec<Case> {
    let begin = |daemon: &Daemon| daemon.disk().turn_read_only();
    each("read-only", move |directory, round| broken(directory, round, true, begin))
}

pub(super) fn gone() -> Vec<Case> {
    let begin = |daemon: &Daemon| daemon.disk().cut();
    each("gone", move |directory, round| broken(directory, round, false, begin))
}

fn each(what: &str, run: impl Fn(&'static str, usize) + Copy + Send + Sync + 'static) -> Vec<Case> {
    let case = |directory: &'static str| {
        Case::plain(format!("{what}: {directory}"), move |round| run(directory, round))
    };
    DIRECTORIES.map(case).into()
}

/// A disk without room: what runs goes on and ends with its own status, and stop, logs, lists and
/// removals work; what is new is refused, sooner or later, and says why; a daemon starts. Then there is
/// room again.
fn no_room(
    directory: &'static str,
    inodes: Option<u32>,
    round: usize,
    take: impl Fn(&Daemon) -> Ballast,
) {
    let size = Size { megabytes: MEGABYTES, inodes };
    let mut daemon = Settings::new().disk_at(directory, size).start();
    let registry = FakeRegistry::start(daemon.netns());
    let image = registry.add("a", "1", &image());
    let code = code(round);
    for name in ["one", "two", "gone"] {
        run(&daemon, name, code);
    }
    let ballast = take(&daemon);
    let refused = new_is_refused(&daemon, directory, &image);
    assert!(
        ["No space left", "disk is full"].iter().any(|text| refused.stderr.contains(text)),
        "{refused:?}"
    );
    goes_on(&daemon, 3);
    daemon.ctl("stop -t 10 one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), code.to_string(), "stopped");
    daemon.ctl("rm -f gone").ok();
    remove_new(&daemon);
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), code.to_string(), "of another daemon");
    goes_on(&daemon, 1);
    drop(ballast);
    daemon.ctl("stop -t 10 two").ok();
    assert_eq!(daemon.inspect("two", "{{.State.ExitCode}}"), code.to_string(), "afterwards");
    expect_whole_lines(&daemon, "one");
    let tails = expect_whole_lines(&daemon, "two");
    assert!(tails.iter().all(|tail| tail.is_end), "it ended when there was room: {tails:?}");
    works_as_ever(&daemon, &image);
}

/// A disk that takes nothing any more, and `may_be_read` or not: nobody waits for ever, containers go on
/// and can be killed, nothing is said that is not so. After a repair, and the boot that it takes,
/// everything that was acknowledged is there.
fn broken(directory: &'static str, round: usize, may_be_read: bool, begin: impl Fn(&Daemon)) {
    let size = Size { megabytes: MEGABYTES, inodes: None };
    let mut daemon = Settings::new().disk_at(directory, size).start();
    let registry = FakeRegistry::start(daemon.netns());
    let image = registry.add("a", "1", &image());
    let code = code(round);
    for name in ["one", "two", "three"] {
        run(&daemon, name, code);
    }
    daemon.ctl("create --name made --net none --rootfs / /bin/true").ok();
    daemon.ctl(&format!("pull {image}")).ok();
    let processes: Vec<Process> =
        ["one", "two", "three"].iter().map(|name| daemon.process(name)).collect();
    begin(&daemon);
    let refused = new_is_refused(&daemon, directory, &image);
    assert!(!refused.stderr.is_empty(), "{refused:?}");
    assert!(processes.iter().all(|process| process.lives()), "a container has noticed");
    if daemon.ended_by_itself(Duration::ZERO).is_some() {
        // Its own store is in doubt. It says so, and no container has noticed.
        let says = format!("bosund: metadata store {}", daemon.place().root.display());
        assert!(directory == "root" && daemon.log().contains(&says), "{}", daemon.log());
        daemon.boot_again();
        return found_again(daemon, directory, &image);
    }
    assert_eq!(daemon.ctl("ps -q").text().lines().count(), 3);
    if may_be_read || !["root", "root/containers"].contains(&directory) {
        assert!(daemon.ctl("logs one").stdout.starts_with("o 1 7919\n"));
    }
    // It ends. Whether that can be said depends on where it has to be written down.
    let stopped = daemon.ctl("stop -t 1 one");
    assert!(wait::within(STOPPED, || (!processes[0].lives()).then_some(())).is_some());
    if stopped.code == Some(0) {
        assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), code.to_string(), "stopped");
    }
    let removed = daemon.ctl("rm -f two");
    assert!(wait::within(STOPPED, || (!processes[1].lives()).then_some(())).is_some());
    assert!(processes[2].lives(), "a container has noticed");
    daemon.boot_again();
    daemon.start_again();
    let listed = daemon.ctl("ps -a --format '{{.Names}} {{.State}}'").text();
    let mut expected = vec!["made created", "one exited", "three exited"];
    // What failed is done or undone.
    match removed.code {
        Some(0) => {}
        _ if listed.contains("two ") => expected.push("two exited"),
        _ => {}
    }
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, expected, "after the repair");
    let exit = daemon.api().get("one").state.and_then(|state| state.exit).expect("an exit");
    let own = exit.status == u32::from(code) && !exit.unknown;
    assert!(own || (exit.unknown && stopped.code != Some(0)), "{exit:?} for {stopped:?}");
    let exit = daemon.api().get("three").state.and_then(|state| state.exit).expect("an exit");
    assert!(exit.unknown, "three: nobody saw its end: {exit:?}");
    daemon.kill();
    found_again(daemon, directory, &image);
}

/// What the daemon of a repaired disk finds: the image, and logs.
fn found_again(mut daemon: Daemon, directory: &str, image: &str) {
    daemon.start_again();
    for name in ["one", "three"] {
        assert_eq!(daemon.inspect(name, "{{.State.Status}}"), "exited");
        expect_whole_lines(&daemon, name);
    }
    assert_eq!(daemon.inspect("made", "{{.State.Status}}"), "created");
    ImageLife::expect_whole(&daemon, directory);
    assert_eq!(daemon.api().image_names(), [image], "it was pulled");
    let registry = FakeRegistry::start(daemon.netns());
    let image = registry.add("a", "1", &super::lives::image());
    works_as_ever(&daemon, &image);
}

/// Makes what needs a directory until it is refused.
fn new_is_refused(daemon: &Daemon, directory: &str, image: &str) -> Output {
    let mut new = (0..NEW).map(|number| match directory {
        "root/content" => {
            let text = number.to_string().repeat(1000);
            let digest = digest(text.as_bytes());
            let words = format!("content put --ref new{number} --digest {digest}");
            daemon.client().feed(&words, &text)
        }
        "root/snapshots" if number == 0 => {
            daemon.ctl(&format!("run --name new-image {image} true"))
        }
        _ => daemon.ctl(&format!("run --name new{number} --net none --rootfs / /bin/true")),
    });
    new.find(|output| output.code != Some(0)).expect("it is never refused")
}

fn remove_new(daemon: &Daemon) {
    let names = daemon.ctl("ps -a --format '{{.Names}}'").text();
    for name in names.lines().filter(|name| name.starts_with("new")) {
        daemon.ctl(&format!("rm -f {name}")).ok();
    }
}

#[track_caller]
fn goes_on(daemon: &Daemon, running: usize) {
    assert_eq!(daemon.ctl("ps -q").text().lines().count(), running);
    assert!(daemon.ctl("logs two").stdout.starts_with("o 1 7919\n"));
    assert_eq!(daemon.ctl("exec two /bin/echo yes").text(), "yes");
}

/// How a stream of a log ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// How many lines there were, as far as the log knows.
    pub(super) count: u64,
    /// With the line by which its writer ends.
    pub(super) is_end: bool,
}

/// Every line of a log is one that was written, in its order; where some are missing, the log says so.
/// Answers how each stream ends.
///
/// # Panics
/// When not.
#[track_caller]
pub(super) fn expect_whole_lines(daemon: &Daemon, container: &str) -> [Tail; 2] {
    let output = daemon.ctl(&format!("logs {container}"));
    [(&output.stdout, 'o'), (&output.stderr, 'e')].map(|(text, letter)| {
        let mut tail = Tail::default();
        let mut gap = false;
        for line in text.lines() {
            let before = tail.count;
            if let Some(count) = life::end(line, letter) {
                let is_right = count == before || (count > before && said_gap(&output, gap));
                assert!(
                    is_right && !tail.is_end,
                    "{container}: {count} after {before}, in\n{text}"
                );
                tail = Tail { count, is_end: true };
                continue;
            }
            let words: Vec<&str> = line.split(' ').collect();
            let number = match words[..] {
                [first, number, sum] if first.len() == 1 && first.starts_with(letter) => number
                    .parse::<u64>()
                    .ok()
                    .filter(|number| sum.parse() == Ok(number * 7919 % 65521)),
                _ => None,
            };
            let Some(number) = number else {
                assert!(line.contains("bosun"), "{container}: a torn line {line:?}");
                gap = true;
                continue;
            };
            let in_order = number == before + 1 || (number > before && said_gap(&output, gap));
            assert!(in_order && !tail.is_end, "{container}: {number} after {before}, in\n{text}");
            tail.count = number;
            gap = false;
        }
        tail
    })
}

/// The record of missing bytes is on standard error, whichever stream they were of.
fn said_gap(output: &Output, here: bool) -> bool {
    here || output.stderr.contains("bosun")
}

/// Everything goes, nothing is left, and what is new works.
///
/// # Panics
/// When not.
#[track_caller]
pub(super) fn works_as_ever(daemon: &Daemon, image: &str) {
    ImageLife::remove_all(daemon, "afterwards");
    daemon.expect_nothing_left();
    daemon.ctl("run --rm --net none --rootfs / /bin/true").ok();
    assert_eq!(daemon.ctl(&format!("run --rm --net none {image} cat /mark")).text(), "whole");
    run(daemon, "one", 3);
    daemon.ctl("stop one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), "3");
    life::expect_log(daemon, "one", Extent::Whole, "afterwards");
    ImageLife::remove_all(daemon, "at the end");
    daemon.expect_nothing_left();
}
