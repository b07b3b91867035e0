//! A test harness that gives each test a process of its own, because a clone needs a caller with one
//! thread. Understands what cargo passes on: a name to filter by, `--list`, `--exact`.

use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;

pub(crate) type Test = (&'static str, fn());

/// Pairs the name of each function with it.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => { &[$((stringify!($name), $name as fn())),+] };
}
pub(crate) use tests;

/// What a test that runs alone is called with.
const ALONE: &str = "--run-alone";
const WORKERS: usize = 4;

pub(crate) fn main(tests: &[Test]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments[0] == shim_runtime::init::ARGV0 {
        shim_runtime::init::main();
    }
    if arguments.get(1).is_some_and(|argument| argument == ALONE) {
        let (_, test) = tests.iter().find(|(name, _)| *name == arguments[2]).unwrap();
        test();
        return ExitCode::SUCCESS;
    }
    let flag = |name: &str| arguments[1..].iter().any(|argument| argument == name);
    let filter = arguments[1..].iter().find(|argument| !argument.starts_with('-'));
    let chosen: Vec<&Test> = tests
        .iter()
        .filter(|(name, _)| match filter {
            Some(filter) if flag("--exact") => name == filter,
            Some(filter) => name.contains(filter.as_str()),
            None => true,
        })
        .collect();
    if flag("--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    run_all(&chosen)
}

fn run_all(tests: &[&Test]) -> ExitCode {
    let next = Mutex::new(tests.iter());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some((name, _)) = next.lock().unwrap().next() else { return };
                    let output = Command::new(std::env::current_exe().unwrap())
                        .args([ALONE, name])
                        .stdin(Stdio::null())
                        .output()
                        .unwrap();
                    let verdict = if output.status.success() { "ok" } else { "FAILED" };
                    println!("test {name} ... {verdict}");
                    if !output.status.success() {
                        let text = String::from_utf8_lossy(&output.stderr).into_owned();
                        failures.lock().unwrap().push((*name, output.status, text));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    for (name, status, text) in &failures {
        println!("\n---- {name}: {status}\n{text}");
    }
    println!("\ntest result: {} passed; {} failed", tests.len() - failures.len(), failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
