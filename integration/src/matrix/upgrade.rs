//! Another build of the daemon takes the place of the one that runs, newer or older, with containers
//! running.
//!
//! Other builds are those with failpoints, which take what they understand from their environment. A
//! real one of before is used when `OLDER` names the directory of its programs.

use std::path::PathBuf;
use std::time::Duration;

use super::life::Extent;
use super::{Case, Round, code, life};
use crate::daemon::{Daemon, Settings};
use crate::process::Process;
use crate::wait;

const COUNT: usize = 3;

/// Numbers of both programs that no build has yet.
const NEWER: &str = "daemon.protocol.newest=2,shim.protocol.newest=2";
const FAR: &str = "daemon.protocol.oldest=3,daemon.protocol.newest=4,\
                   shim.protocol.oldest=3,shim.protocol.newest=4";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::plain("a newer daemon", newer),
        Case::plain("an older daemon", older),
        Case::plain("nothing in common", nothing_in_common),
        Case::plain("a newer schema", newer_schema),
    ];
    if let Some(programs) = std::env::var_os("OLDER").map(PathBuf::from) {
        cases.push(Case::measured("a build of before", move |round| before(round, &programs)));
    }
    cases
}

/// Containers that run, each with the status that it will end with.
struct Running(Vec<(String, u8, Process)>);

impl Running {
    fn start(daemon: &Daemon, prefix: &str, round: usize) -> Self {
        let all = (0..COUNT).map(|number| {
            let (name, code) = (format!("{prefix}{number}"), code(round * COUNT + number));
            let command = life::lines_until_stopped(code, "0.05");
            daemon.ctl(&format!("run -d --name {name} --rootfs / {command}")).ok();
            daemon.until_logged(&name, "o 3 ");
            let process = daemon.process(&name);
            (name, code, process)
        });
        Self(all.collect())
    }

    /// They are what they were, and do what they are told.
    fn expect_usable(&self, daemon: &Daemon) {
        self.expect_able(daemon, &["pause", "unpause", "update --memory 256m", "top"]);
    }

    fn expect_able(&self, daemon: &Daemon, verbs: &[&str]) {
        for (name, _, process) in &self.0 {
            assert_eq!(daemon.process(name), *process, "{name}");
            assert_eq!(daemon.ctl(&format!("exec {name} /bin/echo on")).text(), "on");
            for verb in verbs {
                daemon.ctl(&format!("{verb} {name}")).ok();
            }
            // The third was seen there, so the second of the other stream was written.
            life::expect_log(daemon, name, Extent::AtLeast([3, 2]), name);
        }
    }

    /// Each ends as it should, and another one takes its name and its log's place.
    fn stop(&self, daemon: &Daemon) {
        for (name, code, _) in &self.0 {
            daemon.ctl(&format!("stop -t 10 {name}")).ok();
            assert_eq!(daemon.inspect(name, "{{.State.ExitCode}}"), code.to_string(), "{name}");
            life::expect_log(daemon, name, Extent::Whole, name);
            daemon.ctl(&format!("rm {name}")).ok();
            daemon.ctl(&format!("run --rm --name {name} --rootfs / /bin/true")).ok();
        }
    }
}

fn of_numbers(numbers: &str) -> Daemon {
    Settings::new().failpoint("").variable("FAILPOINTS_NUMBERS", numbers).start()
}

fn replace(daemon: &mut Daemon, numbers: &str) {
    assert!(daemon.terminate().success());
    daemon.clear_environment();
    daemon.add_variable("FAILPOINTS_NUMBERS", numbers);
    daemon.start_again();
}

/// Its shims are of before. One that is started by it has to be of its own build.
fn newer(round: usize) {
    let mut daemon = of_numbers("");
    let running = Running::start(&daemon, "c", round);
    replace(&mut daemon, "daemon.protocol.newest=2");
    running.expect_usable(&daemon);
    let run = "run --name new --net none --rootfs / /bin/true";
    daemon.ctl(run).fails(125, &["bosun-shim understands", "version 1", "version 2", "install"]);
    let _ = daemon.ctl("rm -f new");
    replace(&mut daemon, NEWER);
    running.expect_usable(&daemon);
    running.stop(&daemon);
}

/// The shims that it finds understand more than it does, and so does the program that it starts.
fn older(round: usize) {
    let mut daemon = of_numbers(NEWER);
    let running = Running::start(&daemon, "c", round);
    replace(&mut daemon, "shim.protocol.newest=2");
    running.expect_usable(&daemon);
    let more = Running::start(&daemon, "d", round + 1);
    replace(&mut daemon, "");
    more.expect_usable(&daemon);
    more.stop(&daemon);
    running.stop(&daemon);
}

/// What it can't talk to it leaves alone, and says so; the daemon that it belongs to has it again.
fn nothing_in_common(round: usize) {
    let mut daemon = of_numbers(FAR);
    let running = Running::start(&daemon, "c", round);
    replace(&mut daemon, "");
    for (name, _, process) in &running.0 {
        assert!(process.lives(), "{name}");
        for words in
            [format!("stop {name}"), format!("exec {name} /bin/true"), format!("rm {name}")]
        {
            let output = daemon.ctl(&words);
            assert_ne!(output.code, Some(0), "{words}");
        }
        daemon.ctl(&format!("stop {name}")).fails(1, &[name, "versions 3 to 4", "0 to 1"]);
        let again = format!("run --name {name} --net none --rootfs / /bin/true");
        daemon.ctl(&again).fails(125, &[name, "in use"]);
    }
    assert_eq!(daemon.ctl("ps -a -q").text().lines().count(), COUNT);
    daemon.ctl("run --rm --rootfs / /bin/true").ok();
    replace(&mut daemon, FAR);
    running.expect_usable(&daemon);
    running.stop(&daemon);
}

/// A newer build has counted the schema up: refused with both numbers, and nothing is touched.
fn newer_schema(round: usize) {
    let mut daemon = Daemon::start();
    let running = Running::start(&daemon, "c", round);
    assert!(daemon.terminate().success());
    let path = daemon.place().root.join("meta.db");
    let mark = daemon.place().root.join("meta.mark");
    let set_version = |change: i64| {
        let database = rusqlite::Connection::open(&path).expect("the database");
        // That has the version as well, and without it the database is believed.
        let _ = std::fs::remove_file(&mark);
        let version: i64 =
            database.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a version");
        database.pragma_update(None, "user_version", version + change).expect("it is writable");
        version + change
    };
    let version = set_version(1);
    let before = std::fs::read(&path).expect("the database");
    daemon.launch();
    let status = daemon.ended_by_itself(wait::LIMIT).expect("it ends");
    assert!(!status.success(), "{status}");
    let said = daemon.log();
    let last = said.lines().last().unwrap_or_default();
    for part in [version.to_string(), (version - 1).to_string()] {
        assert!(last.contains(&part), "{last}");
    }
    assert!(std::fs::read(&path).expect("the database") == before, "the database was touched");
    assert!(running.0.iter().all(|(_, _, process)| process.lives()));
    set_version(-1);
    daemon.start_again();
    running.expect_usable(&daemon);
    running.stop(&daemon);
}

/// Up, down and up again, with real programs. A step down that is refused leaves all as it is.
fn before(round: &Round, programs: &std::path::Path) {
    // What every shim can.
    const OLD: [&str; 3] = ["pause", "unpause", "top"];
    let mut daemon = Settings::new().programs(programs).start();
    let running = Running::start(&daemon, "c", round.number);
    assert!(daemon.terminate().success());
    daemon.set_own_programs();
    daemon.start_again();
    running.expect_able(&daemon, &OLD);
    let more = Running::start(&daemon, "d", round.number + 1);
    assert!(daemon.terminate().success());
    daemon.set_programs(programs);
    daemon.launch();
    if daemon.ended_by_itself(Duration::from_secs(5)).is_none() {
        round.measured("the step down: taken");
        more.expect_able(&daemon, &OLD);
        running.expect_able(&daemon, &OLD);
        assert!(daemon.terminate().success());
    } else {
        let said = daemon.log();
        round.measured(format!("the step down: {}", said.lines().last().unwrap_or_default()));
    }
    daemon.set_own_programs();
    daemon.start_again();
    more.expect_usable(&daemon);
    more.stop(&daemon);
    running.expect_able(&daemon, &OLD);
    running.stop(&daemon);
}
