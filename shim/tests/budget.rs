//! What one shim may cost: memory at rest, wake-ups, log throughput. Measured on the binary that is
//! shipped, `bin/bosun-shim` or what `BOSUN_SHIM` names; without one these say so and pass.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shim_wire::plan::LogFormat;
use support::{TestShim, eventually, may_run, proc_kilobytes};

/// The shim as it is shipped.
fn shipped() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bin/bosun-shim");
    let path = std::env::var_os("BOSUN_SHIM").map_or(built, PathBuf::from);
    // A dynamic one is somebody's quick build, not what is shipped.
    let interpreter = |window: &[u8]| window == b"ld-linux-";
    let is_static = |file: Vec<u8>| !file[..4096].windows(9).any(interpreter);
    let is_shipped = std::fs::read(&path).is_ok_and(is_static);
    if !is_shipped {
        eprintln!("skipped: {} is not what `make build` makes", path.display());
    }
    is_shipped.then_some(path)
}

fn start(name: &str) -> Option<TestShim> {
    if !may_run() {
        return None;
    }
    Some(TestShim::start_binary(&shipped()?, name, tempfile::tempdir().unwrap(), &[]))
}

/// Kilobytes of the shim's own memory: proportional, private and dirty, resident.
fn memory(shim: &TestShim) -> (u64, u64, u64) {
    let field = |name| proc_kilobytes(shim.pid(), "smaps_rollup", name);
    (field("Pss:"), field("Private_Dirty:"), field("Rss:"))
}

fn assert_small(shim: &TestShim, when: &str) {
    let (pss, dirty, rss) = memory(shim);
    println!("{when}: PSS {pss} kB, private dirty {dirty} kB, RSS {rss} kB");
    // The goals are 120 and 1,100; a little room is left for other C libraries and kernels.
    assert!(dirty <= 150, "{when}: {dirty} kB private dirty");
    assert!(rss <= 1_300, "{when}: {rss} kB resident");
}

/// Processor time that the shim has used.
fn cpu_milliseconds(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    ticks * 10
}

/// What many shims cost each, which is what a machine with many containers sees.
#[test]
fn idle_shims_share_what_can_be_shared() {
    const SHIMS: u64 = 20;
    let shims: Vec<TestShim> = (0..SHIMS).map_while(|n| start(&format!("many-{n}"))).collect();
    if shims.is_empty() {
        return;
    }
    let mut clients = Vec::new();
    for shim in &shims {
        let mut client = shim.connect();
        shim.run_shell(&mut client, "echo up; exec sleep 1000");
        clients.push(client);
    }
    std::thread::sleep(Duration::from_millis(3_500));
    let total = |field| -> u64 {
        shims.iter().map(|shim| proc_kilobytes(shim.pid(), "smaps_rollup", field)).sum()
    };
    let mean = |field| total(field) / SHIMS;
    let (pss, dirty, rss) = (mean("Pss:"), mean("Private_Dirty:"), mean("Rss:"));
    println!("{SHIMS} idle shims, each: PSS {pss} kB, private dirty {dirty} kB, RSS {rss} kB");
    assert!(pss <= 250, "{pss} kB proportional");
    for (mut shim, mut client) in shims.into_iter().zip(clients) {
        client.kill("", 9).unwrap();
        assert_eq!(client.wait("").unwrap(), 137);
        shim.release(&mut client);
    }
}

fn voluntary_switches(shim: &TestShim) -> u64 {
    proc_kilobytes(shim.pid(), "status", "voluntary_ctxt_switches:")
}

#[test]
fn an_idle_shim_is_small_and_sleeps() {
    let Some(mut shim) = start("idle") else { return };
    let mut client = shim.connect();
    shim.run_shell(&mut client, "exec sleep 1000");
    assert_eq!(proc_kilobytes(shim.pid(), "status", "Threads:"), 1);
    // By then it has also left the service that started it, and come to rest again.
    std::thread::sleep(Duration::from_millis(3_500));
    assert_small(&shim, "idle");
    let before = voluntary_switches(&shim);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(voluntary_switches(&shim), before, "no wake-up in three seconds");
    client.kill("", 9).unwrap();
    assert_eq!(client.wait("").unwrap(), 137);
    shim.release(&mut client);
}

#[test]
fn a_flood_is_logged_fast_and_leaves_the_shim_small() {
    for format in [LogFormat::Cri, LogFormat::JsonFile] {
        flood(format);
    }
}

fn flood(format: LogFormat) {
    const BYTES: u64 = 500_000_000;
    let Some(mut shim) = start(&format!("flood-{format:?}")) else { return };
    shim.options.log.as_mut().unwrap().format = format as i32;
    let mut client = shim.connect();
    // 64 KiB a write, as anything that buffers its output does it.
    let script = format!(
        "sleep 0.2; python3 -c 'import os
block = (b\"x\" * 99 + b\"\\n\") * 640
for _ in range({BYTES} // len(block)): os.write(1, block)
os.write(1, block[:{BYTES} % len(block)])'; exec sleep 1000"
    );
    shim.run_shell(&mut client, &script);
    let overhead = match format {
        LogFormat::None => 0,
        LogFormat::Cri => 40,
        LogFormat::JsonFile => 70,
    };
    let size = || std::fs::metadata(shim.log_path()).map_or(0, |metadata| metadata.len());
    eventually("the flood begins", || size() > 0);
    let began = Instant::now();
    let expected = BYTES / 100 * (100 + overhead);
    let mut peak = 0;
    eventually("the flood is logged", || {
        peak = peak.max(memory(&shim).2);
        size() >= expected
    });
    let rate = BYTES / 1_000_000 * 1_000 / u64::try_from(began.elapsed().as_millis()).unwrap();
    let cpu = cpu_milliseconds(shim.pid());
    println!("{format:?}: {rate} MB/s of output, {cpu} ms of the shim, {peak} kB resident at most");
    assert_eq!(size(), expected);
    assert!(peak <= 4_096, "{peak} kB resident under a flood");
    std::thread::sleep(Duration::from_millis(3_500));
    assert_small(&shim, "after the flood");
    client.kill("", 9).unwrap();
    client.wait("").unwrap();
    shim.release(&mut client);
}

/// Milliseconds since `began`, to three digits.
fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1_000.0
}

#[test]
fn the_way_of_a_container_takes_milliseconds() {
    const ROUNDS: usize = 20;
    const STEPS: [&str; 6] = ["spawned", "created", "started", "ended", "released", "gone"];
    let mut times: [Vec<f64>; 6] = Default::default();
    for round in 0..ROUNDS {
        let began = Instant::now();
        let Some(mut shim) = start(&format!("way-{round}")) else { return };
        let plan = shim.plan_of(&["/bin/true"]);
        let mut client = shim.connect();
        client.status();
        times[0].push(milliseconds(began));
        shim.create(&mut client, &plan).unwrap();
        times[1].push(milliseconds(began));
        client.start("").unwrap();
        times[2].push(milliseconds(began));
        assert_eq!(client.wait("").unwrap(), 0);
        times[3].push(milliseconds(began));
        let request = shim_wire::shim::ReleaseRequest { attempt: 1 };
        client.call::<shim_wire::task::Empty>(support::SHIM, "Release", &request).unwrap();
        times[4].push(milliseconds(began));
        shim.wait_end();
        times[5].push(milliseconds(began));
    }
    for (step, times) in STEPS.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        println!("{step:>9}: {:6.2} ms, median of {ROUNDS}", times[ROUNDS / 2]);
    }
    assert!(times[5][ROUNDS / 2] < 200.0, "a container's way takes too long");
}
