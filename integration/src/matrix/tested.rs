//! Rows that are tests of other programs: of the suite, and of the virtual machine, where a clock can be set
//! and a disk's requests recorded. Their results are read from what those runs print.

use std::collections::BTreeMap;

use super::Outcome;

/// One line of the matrix whose rounds are tests, told by `make test` or `make test-vm`.
#[derive(Clone, Copy, Debug)]
pub struct Tested {
    /// Its name on the command line.
    pub name: &'static str,
    pub fault: &'static str,
    pub promise: &'static str,
    /// How the names of its tests begin.
    tests: &'static [&'static str],
}

/// All of them.
pub const TESTED: &[Tested] = &[
    Tested {
        name: "hostile",
        fault: "layers, archives, registries, images' configurations, copies, specifications and their files that mean harm, one test for each way out that others once had",
        promise: "nothing outside is touched; memory is bounded; refused by name, or contained",
        tests: &[
            "hostile_layers::",
            "security::",
            "bad_registry::",
            "archives::",
            "image_config::",
            "credentials::",
            "cp::",
        ],
    },
    Tested {
        name: "clock",
        fault: "the machine's clock is set an hour and ten years forward and back (virtual machine)",
        promise: "order, durations and time-outs are right; logs go on",
        tests: &["clock::"],
    },
    Tested {
        name: "lost-cache",
        fault: "a power cut at any request to the disk, also between two flushes: dm-log-writes (virtual machine)",
        promise: "what was told is on the disk wherever it is cut",
        tests: &["power::"],
    },
    Tested {
        name: "service",
        fault: "every way in which systemd ends the daemon's service (virtual machine)",
        promise: "containers and shims outlive it",
        tests: &["service::"],
    },
];

impl Tested {
    /// What a report of tests says of this row: each test that was run is a case, each of its runs a round, and
    /// what failed once is lost. None where none of its tests was run.
    #[must_use]
    pub fn outcome(&self, report: &str) -> Option<Outcome> {
        let mut runs = BTreeMap::<&str, usize>::new();
        let mut lost = Vec::new();
        for (test, verdict) in verdicts(report) {
            // Units of programs have modules of the same names.
            let is_unit = test.contains("::tests::");
            if is_unit || !self.tests.iter().any(|begin| test.starts_with(begin)) {
                continue;
            }
            *runs.entry(test).or_default() += 1;
            if verdict != "ok" {
                lost.push(format!("{test}: {verdict}"));
            }
        }
        (!runs.is_empty()).then(|| Outcome {
            name: self.name,
            fault: self.fault,
            promise: self.promise,
            cases: runs.len(),
            rounds: runs.values().sum(),
            lost,
            unreached: Vec::new(),
            figures: Vec::new(),
        })
    }
}

/// What the test harness says of each test: `ok` or `FAILED`. What was ignored was not run. Where a program that
/// a test started writes into the same stream, the verdict has a line of its own.
fn verdicts(report: &str) -> Vec<(&str, &str)> {
    let mut all = Vec::new();
    let mut open = None;
    for line in report.lines() {
        let begun = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
        let (test, said) = begun.map_or((open, line), |(test, said)| (Some(test), said));
        match (test, said) {
            (Some(test), "ok" | "FAILED") => {
                all.push((test, said));
                open = None;
            }
            _ if begun.is_some() => open = test.filter(|_| !said.starts_with("ignored")),
            _ => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let report = "running 4 tests\n\
                      test clock::one ... ok\n\
                      test clock::two ... FAILED\n\
                      test clock::three ... ignored, runs elsewhere\n\
                      test others::one ... ok\n\
                      test clock::tests::a_unit ... ok\n\
                      test clock::four ... umount: not mounted\n\
                      ok\n\
                      test clock::two ... ok\n";
        let row = TESTED.iter().find(|row| row.name == "clock").unwrap();
        let outcome = row.outcome(report).unwrap();
        assert_eq!((outcome.cases, outcome.rounds), (3, 4));
        assert_eq!(outcome.lost, ["clock::two: FAILED"]);
        assert!(row.outcome("test others::one ... ok\n").is_none());
    }
}
