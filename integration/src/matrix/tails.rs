//! Logs: the last bytes, and rotation under a flood.

use super::life::Extent;
use super::{Case, life};
use crate::daemon::Daemon;

/// Runs of one round.
const RUNS: usize = 20;

pub(super) fn last_bytes() -> Vec<Case> {
    vec![Case::plain("no line end", |round| {
        let daemon = Daemon::start();
        for run in 0..RUNS {
            let text = format!("last of {round} {run}");
            let words = format!(
                "run -d --name c{run} --net none --rootfs / /bin/sh -c 'printf \"{text}\"; exit 7'"
            );
            daemon.ctl(&words).ok();
            assert_eq!(daemon.ctl(&format!("wait c{run}")).waited(), "7");
            assert_eq!(daemon.ctl(&format!("logs c{run}")).stdout, text);
        }
    })]
}

pub(super) fn rotation() -> Vec<Case> {
    vec![Case::plain("both streams", |_| {
        const LINES: usize = 60_000;
        let daemon = Daemon::start();
        // Some 25 bytes a line, JSON around it: a file of 64 kB holds the lines of a few milliseconds.
        let words = format!(
            "run -d --name one --net none --log-opt max-size=64k --log-opt max-file=10000 --rootfs / {}",
            life::flood_of_lines(LINES)
        );
        daemon.ctl(&words).ok();
        assert_eq!(daemon.ctl("wait one").waited(), "0");
        let output = daemon.ctl("logs one");
        assert_eq!((output.stdout.lines().count(), output.stderr.lines().count()), (LINES, LINES));
        life::expect_log(&daemon, "one", Extent::AtLeast([LINES as u64; 2]), "rotation");
        let id = daemon.inspect("one", "{{.Id}}");
        let directory = daemon.container_dir(&id);
        let files = std::fs::read_dir(directory.path()).expect("the container's directory");
        let logs = files
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().contains("log"))
            .count();
        assert!(logs > 20, "rotated only {logs} times");
    })]
}
