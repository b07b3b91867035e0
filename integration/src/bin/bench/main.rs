//! `make bench`: bosun beside containerd+runc and podman+conmon, both sides in one run.
//!
//! Machines differ and are noisy, so what counts is the ratio. A row without a peer says why. The
//! figures go to the terminal and to `integration/results/bench.json`.
//!
//! Arguments: `--quick` (fewer rounds), `--date TEXT` (goes into the file), `--only WORD` (rows whose
//! name holds it).
#![forbid(unsafe_code)]

mod containerd;
mod cri;
mod debian;
mod images;
mod measure;
mod oci;
mod ours;
mod podman;
mod rootfs;
mod table;

use containerd::Containerd;
use measure::{Sample, footprint, rounds};
use oci::Oci;
use ours::Ours;
use podman::Podman;
use table::{Goal, Row, Table};

/// What the command line asked for.
#[derive(Debug)]
struct Options {
    quick: bool,
    date: String,
    only: Option<String>,
}

impl Options {
    fn read() -> Self {
        let mut options = Self { quick: false, date: String::new(), only: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => options.quick = true,
                "--date" => options.date = words.next().unwrap_or_default(),
                "--only" => options.only = words.next(),
                other => {
                    eprintln!(
                        "bench: unknown argument {other:?}: --quick, --date TEXT, --only WORD"
                    );
                    std::process::exit(2);
                }
            }
        }
        options
    }

    fn wants(&self, row: &str) -> bool {
        self.only.as_deref().is_none_or(|word| row.contains(word))
    }

    fn rounds(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(5) } else { full }
    }
}

/// Both sides, ready.
#[derive(Debug)]
struct Bench {
    options: Options,
    ours: Ours,
    containerd: Containerd,
    podman: Podman,
    oci: Oci,
    table: Table,
}

fn main() {
    let options = Options::read();
    let rootfs = rootfs::make();
    let mut bench = Bench {
        ours: Ours::start(rootfs.path()),
        containerd: Containerd::start(rootfs.path()),
        podman: Podman::new(rootfs.path()),
        oci: Oci::new(rootfs.path()),
        table: Table::default(),
        options,
    };
    for (name, measure) in ROWS {
        if bench.options.wants(name) {
            eprintln!("bench: {name}");
            measure(&mut bench);
        }
    }
    print!("{}", bench.table);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/results/bench.json");
    match bench.table.write(file, &bench.options.date, bench.options.quick) {
        Ok(()) => println!("written to {file}"),
        Err(error) => eprintln!("bench: {file}: {error}"),
    }
}

type Measure = fn(&mut Bench);

const ROWS: [(&str, Measure); 15] = [
    ("run", run_from_the_command_line),
    ("oci", oci_command_line),
    ("publish", run_with_a_published_port),
    ("api", over_the_api),
    ("clients", eight_clients),
    ("detached", a_hundred_detached),
    ("exec", exec_from_the_command_line),
    ("seccomp", the_default_profile),
    ("log", log_throughput),
    ("memory", memory_of_idle_shims),
    ("restart", restart_of_the_daemon),
    ("pull", images::pull_and_unpack),
    ("import", images::import_and_unpack),
    ("cri", cri::pods),
    ("state of images", cri::state_of_images),
];

fn run_from_the_command_line(bench: &mut Bench) {
    let what = "run --rm … true, command line";
    let rounds = bench.options.rounds(40);
    let [ours, containerd, podman] = measure::in_turn(
        rounds,
        [&|_| bench.ours.run_true(""), &|n| bench.containerd.run_true(n), &|_| {
            bench.podman.run_true()
        }],
    );
    let goal = Goal::AtMost(10.0);
    bench.table.push(Row::against(
        what,
        "ms",
        "containerd+runc",
        containerd.median(),
        ours.median(),
        goal,
    ));
    bench.table.push(Row::against(what, "ms", "podman+runc", podman.median(), ours.median(), goal));
}

fn oci_command_line(bench: &mut Bench) {
    let [ours, runc] = measure::in_turn(
        bench.options.rounds(40),
        [&|_| bench.oci.run_true(oci::OURS), &|_| bench.oci.run_true("runc")],
    );
    let what = "bosun-oci run … true, a bundle";
    let goal = Goal::AtMost(10.0);
    bench.table.push(Row::against(what, "ms", "runc", runc.median(), ours.median(), goal));
}

fn run_with_a_published_port(bench: &mut Bench) {
    let ours = rounds(bench.options.rounds(40), |_| bench.ours.run_true("-p 9000:9000"));
    let what = "the same, bridge and a published port";
    bench.table.push(Row::alone(
        what,
        "ms",
        "no CNI plugins in the peers' setup",
        ours.median(),
        Goal::AtMost(20.0),
    ));
}

fn over_the_api(bench: &mut Bench) {
    let count = bench.options.rounds(100);
    let (_, ours) = bench.ours.lives_by_clients(1, count);
    let peer = rounds(count.div_ceil(5), |n| bench.containerd.run_true(n));
    let what = "create+start+wait+delete, 1 client";
    bench.table.push(Row::against(
        what,
        "ms",
        "containerd (by ctr)",
        peer.median(),
        ours.median(),
        Goal::AtMost(8.0),
    ));
}

fn eight_clients(bench: &mut Bench) {
    let count = bench.options.rounds(800);
    let (rate, sample) = bench.ours.lives_by_clients(8, count);
    let peer = bench.containerd.rate_of_clients(8, count.div_ceil(10));
    let what = "the same, 8 clients";
    bench.table.push(Row::against(
        what,
        "a second",
        "containerd (by ctr)",
        peer,
        rate,
        Goal::AtLeast(250.0),
    ));
    bench.table.push(Row::alone(
        "the same, 8 clients, p99",
        "ms",
        "",
        sample.percentile(99),
        Goal::AtMost(80.0),
    ));
}

fn a_hundred_detached(bench: &mut Bench) {
    let count = bench.options.rounds(100);
    let scale = 100.0 / sample_size(count);
    let ours = bench.ours.detach(count) * scale;
    let peer = bench.containerd.detach(count) * scale;
    bench.ours.remove_all();
    bench.containerd.remove_all();
    let what = "100 × run -d, one after the other";
    bench.table.push(Row::against(what, "s", "containerd (by ctr)", peer, ours, Goal::AtMost(1.0)));
}

fn exec_from_the_command_line(bench: &mut Bench) {
    bench.ours.detach(1);
    bench.containerd.detach(1);
    bench.podman.detach(1);
    let [ours, containerd, podman] = measure::in_turn(
        bench.options.rounds(40),
        [&|_| bench.ours.exec_true("c0"), &|n| bench.containerd.exec_true(n), &|_| {
            bench.podman.exec_true()
        }],
    );
    bench.ours.remove_all();
    bench.containerd.remove_all();
    bench.podman.remove_all();
    let what = "exec of true, command line";
    bench.table.push(Row::against(
        what,
        "ms",
        "containerd+runc",
        containerd.median(),
        ours.median(),
        Goal::AtMost(6.0),
    ));
    bench.table.push(Row::against(
        what,
        "ms",
        "podman+runc",
        podman.median(),
        ours.median(),
        Goal::AtMost(6.0),
    ));
}

/// By execs, for a privileged container, which is the one without a profile, differs in its start by
/// more than that: it has all the devices of the machine.
fn the_default_profile(bench: &mut Bench) {
    bench.ours.detach(1);
    bench.ours.detach_privileged();
    let [with, without] = measure::in_turn(
        bench.options.rounds(200),
        [&|_| bench.ours.exec_true("c0"), &|_| bench.ours.exec_true("privileged")],
    );
    bench.ours.remove_all();
    bench.table.push(Row::alone(
        "what the default seccomp profile adds to an exec",
        "ms",
        "beside a privileged container",
        with.median() - without.median(),
        Goal::AtMost(1.0),
    ));
}

fn log_throughput(bench: &mut Bench) {
    let megabytes = if bench.options.quick { 50 } else { 500 };
    rootfs::make_lines(bench.ours.rootfs(), megabytes);
    let size = f64::from(megabytes);
    let peer = size / bench.podman.log_lines();
    let (seconds, memory) = bench.ours.log_lines(u64::from(megabytes) * 10_000);
    let what = "log of 100-byte lines to the file";
    bench.table.push(Row::against(
        what,
        "MB/s",
        "conmon k8s-file",
        peer,
        size / seconds,
        Goal::AtLeast(400.0),
    ));
    bench.table.push(Row::alone(
        "the shim's RSS meanwhile",
        "kB",
        "",
        memory,
        Goal::AtMost(4096.0),
    ));
}

fn memory_of_idle_shims(bench: &mut Bench) {
    let count = bench.options.rounds(100);
    bench.ours.detach(count);
    bench.containerd.detach(count);
    bench.podman.detach(count.div_ceil(5));
    let ours = footprint(&bench.ours.shims());
    for (peer, shims) in
        [("containerd-shim", bench.containerd.shims()), ("conmon", bench.podman.shims())]
    {
        let theirs = footprint(&shims);
        for (field, limit) in [("Pss", 250.0), ("Private_Dirty", 120.0), ("Rss", 1100.0)] {
            let what = format!("idle shim of {count}, {field}");
            bench.table.push(Row::against(
                &what,
                "kB",
                peer,
                theirs[field],
                ours[field],
                Goal::AtMost(limit),
            ));
        }
    }
    let (peer, busy) =
        (footprint(&[bench.containerd.process()]), footprint(&[bench.ours.daemon_process()]));
    bench.table.push(Row::alone(
        "daemon idle, Rss",
        "kB",
        "",
        bench.ours.idle(),
        Goal::AtMost(15_000.0),
    ));
    let what = format!("daemon with {count}, Rss");
    bench.table.push(Row::against(
        &what,
        "kB",
        "containerd",
        peer["Rss"],
        busy["Rss"],
        Goal::AtMost(20_000.0),
    ));
    bench.ours.remove_all();
    bench.containerd.remove_all();
    bench.podman.remove_all();
}

fn restart_of_the_daemon(bench: &mut Bench) {
    let count = bench.options.rounds(100);
    bench.ours.detach(count);
    bench.containerd.detach(count);
    let again = bench.options.rounds(10);
    let ours = rounds(again, |_| bench.ours.restart(count));
    let peer = rounds(again.div_ceil(3), |_| bench.containerd.restart(count));
    bench.ours.remove_all();
    bench.containerd.remove_all();
    let what = format!("kill -9, start, all {count} listed");
    bench.table.push(Row::against(
        &what,
        "s",
        "containerd",
        seconds(&peer),
        seconds(&ours),
        Goal::AtMost(0.15),
    ));
}

fn seconds(sample: &Sample) -> f64 {
    sample.median() / 1000.0
}

fn sample_size(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}
