//! How long a container takes from nothing to the exec of `true`, and to its end. Needs root.
//!
//! `cargo run --release -p shim-runtime --example latency [ROUNDS]`
#![expect(clippy::unwrap_used, reason = "an example fails by panicking")]
#![expect(dead_code, reason = "of the tests' support only a part is used here")]

use std::time::{Duration, Instant};

use shim_wire::plan::ExecOptions;

#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    let rounds = std::env::args().nth(1).map_or(100, |rounds| rounds.parse().unwrap());
    let mut steps: [Vec<Duration>; 6] = Default::default();
    // As on a machine in use: the groups above the container's are there already.
    let keeper = support::Sandbox::new();
    keeper.cgroup().create(&Default::default()).unwrap();
    for round in 0..rounds {
        let mut sandbox = support::Sandbox::new();
        sandbox.options.cgroup = format!("{}-{round}", keeper.options.cgroup);
        let began = Instant::now();
        let mut created = sandbox.create().unwrap();
        let after_create = began.elapsed();
        created.process.start().unwrap();
        let after_start = began.elapsed();
        let code = support::wait(&created.process.pidfd);
        let after_exit = began.elapsed();
        assert_eq!(code, 0);
        drop(created);
        let after_close = began.elapsed();
        sandbox.cgroup().remove(Instant::now() + Duration::from_secs(1)).unwrap();
        let after_remove = began.elapsed();
        for (step, value) in steps.iter_mut().zip([
            after_create,
            after_start - after_create,
            after_exit - after_start,
            after_close - after_exit,
            after_remove - after_close,
        ]) {
            step.push(value);
        }
    }
    let running = support::Sandbox::script("sleep 1000");
    let created = running.start();
    let options = ExecOptions { process: Some(support::process()), ..ExecOptions::default() };
    for _ in 0..rounds {
        let began = Instant::now();
        let waiting = running.exec(&created, &options).unwrap();
        assert_eq!(support::wait(&waiting.pidfd), 0);
        steps[5].push(began.elapsed());
    }
    for (name, values) in
        ["create", "start", "exit", "unmount", "remove", "exec"].iter().zip(&mut steps)
    {
        values.sort_unstable();
        let at = |part: usize| values[(values.len() - 1) * part / 100].as_secs_f64() * 1e3;
        println!("{name:8} best {:.2}  median {:.2}  p90 {:.2} ms", at(0), at(50), at(90));
    }
}
