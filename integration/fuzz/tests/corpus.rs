//! Every input of the stored corpus, against its property; memory and time stay bounded.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::path::Path;
use std::time::{Duration, Instant};

/// What any one input may take. They are small; a minute is a machine that is busy.
const DEADLINE: Duration = Duration::from_secs(60);
/// The most memory that all of it may take, in kB: reliability.md's 64 MiB over what a test takes,
/// and zstd's window beside it.
const MEMORY: u64 = (64 + 16) << 10;

#[test]
fn the_stored_corpus_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "unpack is skipped: it makes device nodes and gives files away, which needs root"
        );
    }
    for (name, target) in bosun_fuzz::TARGETS {
        let mut inputs: Vec<_> = std::fs::read_dir(corpus.join(name))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "no inputs for {name}");
        for input in inputs {
            let start = Instant::now();
            print!("{}", input.display());
            target(&std::fs::read(&input).unwrap());
            println!(" {:?}", start.elapsed());
            assert!(start.elapsed() < DEADLINE, "{}", input.display());
        }
    }
    let peak = peak_memory();
    assert!(peak < MEMORY, "{peak} kB at most");
}

fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
