//! Single calls to the kernel that fail: a sync, a write, a rename, a new directory. `strace` makes them
//! fail, in every thread of the daemon and in its shims, at one of a thread's calls of a kind.

use std::path::Path;
use std::time::Duration;

use super::faults::Passed;
use super::life::{self, History, Life, Patience, Told};
use super::{Case, code};
use crate::daemon::Settings;

/// How long a daemon whose store has failed may take to end.
const ENDS: Duration = Duration::from_secs(10);

/// Calls that make things durable, and which of a thread's calls are to fail.
const SYNCS: &[(&str, &str, usize)] = &[("fsync", "EIO", 20), ("fdatasync", "EIO", 3)];

/// Calls that read the database and change files.
const CHANGES: &[(&str, &str, usize)] = &[
    ("pread64", "EIO", 6),
    ("pwrite64", "EIO", 24),
    ("pwrite64", "ENOSPC", 24),
    ("pwrite64", "EROFS", 24),
    ("rename", "EIO", 6),
    ("renameat", "ENOSPC", 2),
    ("mkdir", "ENOSPC", 6),
    ("mkdirat", "EROFS", 4),
    ("ftruncate", "EIO", 3),
    ("fallocate", "ENOSPC", 2),
    // Trees, and control groups.
    ("unlinkat", "EIO", 8),
    ("unlink", "EIO", 3),
];

pub(super) fn syncs() -> Vec<Case> {
    cases(SYNCS)
}

pub(super) fn changes() -> Vec<Case> {
    cases(CHANGES)
}

fn cases(calls: &'static [(&str, &str, usize)]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (call, error, times) in calls {
        cases.extend((1..=*times).map(|time| {
            let name = format!("{call} {time}: {error}");
            Case::new(name, move |round| fails_once(call, error, time, code(round)))
        }));
    }
    cases
}

fn fails_once(call: &str, error: &str, time: usize, code: u8) -> Passed {
    let traced = tempfile::NamedTempFile::new().expect("a file");
    let path = traced.path().display();
    // The daemon is the process that is started, and the tracer another one.
    // What reads programs when they are loaded is not meant.
    let of = if call == "pread64" { "-P {root}/meta.db " } else { "" };
    let through = format!(
        "strace -D -qq -f -o {path} {of}-e trace={call} -e inject={call}:error={error}:when={time}"
    );
    let mut daemon = Settings::new().through(&through).prepare();
    daemon.launch();
    let mut life = History::new(code);
    if !daemon.serves_or_ends() {
        // It could not start, and says so.
        assert!(daemon.log().contains("bosund: "), "{}", daemon.log());
    } else {
        life = life::live(daemon.client(), life, &Patience::Endless, told);
    }
    let is_fatal = daemon.log().contains("nobody knows what of it is on the disk");
    if is_fatal && daemon.pid().is_some() {
        let status = daemon.ended_by_itself(ENDS).expect("its store has failed: it is to end");
        assert!(!status.success());
        let says = format!("bosund: metadata store {}", daemon.place().root.display());
        assert!(daemon.log().contains(&says), "{}", daemon.log());
    } else if daemon.pid().is_some() {
        daemon.kill();
    }
    daemon.not_through();
    daemon.start_again();
    let case = format!("{call} {time}: {error}");
    life.expect_sound(&daemon, &case);
    let aside = daemon.place().root.join("quarantine");
    assert!(!aside.exists(), "{case}: taken for damage:\n{}", daemon.log());
    if was_injected(traced.path()) { Passed::Yes } else { Passed::No }
}

/// A daemon that ends says nothing, or that it does not know.
fn told(why: &str) -> Told {
    let unknown = ["nobody knows", "connect", "transport", "closed", "ended"];
    match unknown.iter().any(|text| why.contains(text)) {
        true => Told::Nothing,
        false => Told::Failed,
    }
}

fn was_injected(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.contains("(INJECTED)"))
}
