//! The fault matrix: what is done to daemon, shims, disks and clients, and what must be true all the
//! same.
//!
//! ```text
//!   ROWS ─▶ a row: a fault, a promise, its cases ─▶ rounds, each with a daemon of its own
//!             points   every failpoint, as the programs hold them
//!             faults   what happens at a point
//!             life     the client's history against the final state; logs; statuses
//!             lives    the same of images, blobs and pods; checkpoints, kubelets: of what they do
//!             leak     what is left on the machine
//! ```
//!
//! `make matrix` runs all of it and writes a file for each row below `integration/results/matrix/` and the
//! table in `docs/RELIABILITY.md`; the suite runs a bounded part of the same rows. A round that finds something
//! lost panics with what it found, and counts as one. [`tested`] has rows that other programs run.

pub mod checkpoints;
pub mod corruption;
pub mod faults;
pub mod few_pids;
pub mod kubelets;
pub mod life;
pub mod lives;
pub mod loads;
pub mod networks;
pub mod pauses;
pub mod pod_checkpoints;
pub mod points;
pub mod power;
pub mod rebuilds;
pub mod tested;
pub mod volumes;

mod abuse;
mod archives;
mod calls;
mod churn;
mod disks;
mod followers;
mod inputs;
mod load;
mod log_files;
mod lost_shims;
mod starved;
mod syscalls;
mod tails;
mod upgrade;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use checkpoints::CheckpointLife;
use faults::{Client, Fault, Passed};
use kubelets::KubeletLife;
use life::History;
use lives::{BlobLife, ImageLife, PodLife};
use loads::LoadLife;
use networks::NetworkLife;
use pauses::PauseLife;
use pod_checkpoints::PodCheckpointLife;
use rebuilds::{Damage, RebuiltLife};
use volumes::VolumeLife;

/// One line of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name on the command line.
    pub name: &'static str,
    pub fault: &'static str,
    /// What "lost" means here.
    pub promise: &'static str,
    /// How many times the suite runs each of its cases, and `make matrix` for one of ROUNDS.
    pub bounded: usize,
    pub full: usize,
    /// Which cases the suite takes: one of so many, and from which on.
    pub sample: (usize, usize),
    cases: fn() -> Vec<Case>,
}

/// Something that can be done again and again. It panics when something was lost.
pub struct Case {
    pub name: String,
    /// Whether the suite may take it.
    is_sampled: bool,
    run: Box<dyn Fn(&Round) -> Passed + Send + Sync>,
}

/// One time that a case is run.
#[derive(Debug)]
pub struct Round {
    pub number: usize,
    /// With the counts of a release rather than those of the suite.
    full: bool,
    figures: Arc<Mutex<Vec<String>>>,
}

impl Round {
    /// How many of something: for the suite, or for a release.
    fn count(&self, bounded: usize, full: usize) -> usize {
        if self.full { full } else { bounded }
    }

    /// Notes what was measured, with its unit, for the result file.
    fn measured(&self, what: impl std::fmt::Display) {
        eprintln!("  {what}");
        if let Ok(mut figures) = self.figures.lock() {
            figures.push(what.to_string());
        }
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Case {
    fn new(name: impl Into<String>, run: impl Fn(usize) -> Passed + Send + Sync + 'static) -> Self {
        let run = move |round: &Round| run(round.number);
        Self { name: name.into(), is_sampled: true, run: Box::new(run) }
    }

    /// One that has counts for a release, or measures something.
    fn measured(name: impl Into<String>, run: impl Fn(&Round) + Send + Sync + 'static) -> Self {
        let run = move |round: &Round| {
            run(round);
            Passed::Yes
        };
        Self { name: name.into(), is_sampled: true, run: Box::new(run) }
    }

    /// One that always does what it says.
    fn plain(name: impl Into<String>, run: impl Fn(usize) + Send + Sync + 'static) -> Self {
        Self::new(name, move |round| {
            run(round);
            Passed::Yes
        })
    }
}

/// What a row gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of its row, as the two after it.
    pub name: &'static str,
    pub fault: &'static str,
    pub promise: &'static str,
    pub cases: usize,
    /// Rounds that did what they should.
    pub rounds: usize,
    /// What was lost, altered or left behind: a line for each round that found something.
    pub lost: Vec<String>,
    /// Cases of which no round came to its point.
    pub unreached: Vec<String>,
    /// What was measured, a line each.
    pub figures: Vec<String>,
}

/// Operations of which a life passes the points.
struct Walk {
    side: &'static str,
    operations: &'static [&'static str],
    living: Living,
    /// How many times it passes each at least: one case for each of them.
    passes: usize,
    /// Of so many of these cases the suite takes one, before the row takes its share.
    sample: usize,
}

impl Walk {
    const fn by(living: Living, side: &'static str, operations: &'static [&'static str]) -> Self {
        Self { side, operations, living, passes: 1, sample: 1 }
    }

    const fn passed(self, passes: usize) -> Self {
        Self { passes, ..self }
    }

    const fn sampled(self, sample: usize) -> Self {
        Self { sample, ..self }
    }
}

const LIVES: &[Walk] = &[
    Walk::by(Living::Container, "daemon", &["create", "start", "update", "exec", "stop", "delete"]),
    Walk::by(Living::Container, "shim", &["setup", "create", "start", "exec", "log", "exit"]),
    Walk::by(Living::Container, "daemon", &["store"]).passed(COMMITS),
    Walk::by(Living::Stock, "shim", &["stock"]).sampled(5),
    Walk::by(Living::Recovery, "daemon", &["recover"]),
    Walk::by(Living::Pause, "daemon", &["pause"]).passed(PAUSES).sampled(3),
    Walk::by(Living::Pause, "daemon", &["unpause"]).sampled(2),
    Walk::by(Living::Pause, "shim", &["pause"]).passed(PAUSES + 1).sampled(4),
    Walk::by(Living::Rebuilt(Damage::Lost), "daemon", &["rebuild"]).sampled(6),
    Walk::by(Living::Rebuilt(Damage::Row), "daemon", &["mend"]).sampled(2),
    Walk::by(Living::Network, "daemon", &["bridge", "attach"]).sampled(5),
    Walk::by(Living::Network, "daemon", &["detach"]).passed(RUNS).sampled(5),
    Walk::by(Living::Leaving, "daemon", &["unbridge"]).sampled(3),
    Walk::by(Living::Image, "daemon", &["pull", "unpack", "gc"]),
    Walk::by(Living::Image, "daemon", &["work"]).sampled(3),
    Walk::by(Living::Load, "daemon", &["load", "save"]).sampled(8),
    Walk::by(Living::Blob, "daemon", &["content"]),
    Walk::by(Living::Pod, "shim", &["sandbox"]),
    Walk::by(Living::Checkpoint, "daemon", &["hold"]).passed(HOLDS).sampled(8),
    Walk::by(Living::Checkpoint, "daemon", &["commit", "checkpoint", "restore"]).sampled(8),
    Walk::by(Living::Checkpoint, "shim", &["checkpoint", "restore"]).sampled(8),
    Walk::by(Living::PodCheckpoint, "daemon", &["pod_checkpoint"]).passed(MEMBERS).sampled(8),
    Walk::by(Living::PodCheckpoint, "daemon", &["hidden", "pod_names"]).passed(FILES).sampled(6),
    Walk::by(Living::Kubelet, "daemon", &["pod", "cni"]).sampled(6),
    Walk::by(Living::Kubelet, "daemon", &["cni_cache"]).passed(RESULTS).sampled(6),
    Walk::by(Living::Volume, "daemon", &["volume"]).sampled(3),
];

/// What goes by a point.
#[derive(Clone, Copy, Debug)]
enum Living {
    Container,
    /// A container that a stock shim runs.
    Stock,
    /// A container that a daemon takes up.
    Recovery,
    /// A container that is held still.
    Pause,
    /// What a daemon had whose database is damaged.
    Rebuilt(Damage),
    /// A container that is reached by a published port.
    Network,
    /// The same of a daemon that is told to stop while nothing runs.
    Leaving,
    Image,
    /// Archives of images.
    Load,
    Blob,
    Pod,
    /// A container that is committed and written down, and goes on from there.
    Checkpoint,
    /// A pod whose containers are written down as one.
    PodCheckpoint,
    /// A pod of a kubelet's, with a network of plugins.
    Kubelet,
    /// A container with a volume of its image.
    Volume,
}

/// How many commits of a container's life there are at least, those of the daemon's start among them.
const COMMITS: usize = 10;
/// How many times a container is held still: for a commit, and for two checkpoints.
const HOLDS: usize = 3;
/// How many times a container is paused; its shim also lets it go on by the same steps.
const PAUSES: usize = 2;
/// How many times a container that is reached by a port runs: what the first end leaves, the next run mends.
const RUNS: usize = 2;
/// How many containers of a pod are written down, and how many files that makes.
const MEMBERS: usize = 2;
const FILES: usize = MEMBERS + 1;
/// How many times the result of a network is written: before it is there, and when it is.
const RESULTS: usize = 2;

/// Points of operations that no row of the matrix knows a life for.
#[must_use]
pub fn unknown_points() -> Vec<points::Point> {
    let known = |point: &points::Point| {
        let passes =
            |walk: &Walk| walk.side == point.side() && walk.operations.contains(&point.operation());
        LIVES.iter().any(passes)
    };
    points::all().into_iter().filter(|point| !known(point)).collect()
}

/// All of them.
pub const ROWS: &[Row] = &[
    Row {
        name: "kill-daemon",
        fault: "`kill -9` of the daemon at every failpoint of daemon and shim: the lives of a container, an image, an archive, a blob, a pod, a checkpoint, a pod of a kubelet, a volume, a network, a pause, a stock shim; a daemon's start, also with a database that is lost or damaged; each commit",
        promise: "what was acknowledged is so; what was not is done or undone; statuses and logs whole; nothing left",
        bounded: 1,
        full: 20,
        sample: (1, 0),
        cases: || at_points(Fault::KillDaemon),
    },
    Row {
        name: "kill-shim",
        fault: "`kill -9` of the shim at the same points",
        promise: "the container is dead, with its own status or an unknown one; nothing left",
        bounded: 1,
        full: 20,
        sample: (3, 0),
        cases: || at_points(Fault::KillShim),
    },
    Row {
        name: "kill-both",
        fault: "`kill -9` of both at the same points",
        promise: "the same, after the daemon's next start",
        bounded: 1,
        full: 20,
        sample: (3, 1),
        cases: || at_points(Fault::KillBoth),
    },
    Row {
        name: "error",
        fault: "an error at each of these points that can fail",
        promise: "the call fails or is done; a next one works; nothing left",
        bounded: 1,
        full: 20,
        sample: (1, 0),
        cases: || at_points(Fault::Fail),
    },
    Row {
        name: "client-gone",
        fault: "the client gives up while the daemon is at one of these points",
        promise: "the call is done or undone, once; nothing left",
        bounded: 1,
        full: 20,
        sample: (3, 2),
        cases: || at_points(Fault::ClientGone),
    },
    Row {
        name: "churn",
        fault: "`kill -9` of the daemon at random under parallel runs",
        promise: "every acknowledged container is there, with its process, its log and its status",
        bounded: 1,
        full: 20,
        sample: (1, 0),
        cases: churn::cases,
    },
    Row {
        name: "down",
        fault: "the daemon is down while containers write and end, some for want of memory",
        promise: "every byte, code, time and OOM flag",
        bounded: 1,
        full: 10,
        sample: (1, 0),
        cases: churn::while_down,
    },
    Row {
        name: "lost-shim",
        fault: "`kill -9` of a shim: the daemon up, down, killed with it; its pid and its process' taken by strangers; pids that come round again every few hundred",
        promise: "the container is dead within a second or as the first act of the next daemon; an honest status; strangers untouched; execs have their own statuses",
        bounded: 2,
        full: 50,
        sample: (1, 0),
        cases: lost_shims::cases,
    },
    Row {
        name: "last-bytes",
        fault: "a container ends right after its last write, without a line end",
        promise: "its last byte is in the log when its end is known",
        bounded: 5,
        full: 500,
        sample: (1, 0),
        cases: tails::last_bytes,
    },
    Row {
        name: "rotation",
        fault: "a flood on both streams while the log is rotated every few milliseconds",
        promise: "no line lost, doubled or split",
        bounded: 1,
        full: 20,
        sample: (1, 0),
        cases: tails::rotation,
    },
    Row {
        name: "same-request",
        fault: "the same create 100 times in parallel",
        promise: "exactly one container, and everybody is told its id",
        bounded: 1,
        full: 20,
        sample: (1, 0),
        cases: followers::same_request,
    },
    Row {
        name: "slow-clients",
        fault: "followers of the log, of events and of attach that read a byte a second; a window that is dragged about",
        promise: "the container never waits; memory of daemon and shim is bounded; who lags is told",
        bounded: 1,
        full: 5,
        sample: (1, 0),
        cases: followers::slow,
    },
    Row {
        name: "growth",
        fault: "containers and execs one after the other",
        promise: "every status; descriptors, threads and memory of daemon and shim stay",
        bounded: 1,
        full: 20,
        sample: (1, 0),
        cases: load::growth,
    },
    Row {
        name: "ends",
        fault: "many containers end at once, or run out of memory at once",
        promise: "every code, every OOM flag",
        bounded: 1,
        full: 20,
        sample: (1, 0),
        cases: load::ends,
    },
    Row {
        name: "starved",
        fault: "the daemon is stopped for a while, has no descriptors left, or less memory than its clients bring",
        promise: "whoever asked gets an answer; containers notice nothing; afterwards everything works",
        bounded: 1,
        full: 20,
        sample: (1, 0),
        cases: starved::cases,
    },
    Row {
        name: "starved-shim",
        fault: "a shim is stopped, or has no descriptors left, while its daemon is killed and another one starts",
        promise: "whoever asks gets an answer; the container notices nothing, and its status and log are its own; afterwards everything works",
        bounded: 1,
        full: 20,
        sample: (1, 0),
        cases: starved::shims,
    },
    Row {
        name: "full-disk",
        fault: "not a byte is left, on the disk of everything, or of one directory alone",
        promise: "stop, logs, lists, removals, exits and a new daemon work; what is new is refused; nothing is left over",
        bounded: 1,
        full: 10,
        sample: (1, 0),
        cases: disks::full,
    },
    Row {
        name: "no-inodes",
        fault: "not a file can be made, on the same disks",
        promise: "the same",
        bounded: 1,
        full: 10,
        sample: (2, 0),
        cases: disks::no_inodes,
    },
    Row {
        name: "read-only",
        fault: "the kernel makes one of these disks read-only, as after an error",
        promise: "containers go on and end when asked to; lists and logs work; after a repair everything acknowledged is there",
        bounded: 1,
        full: 10,
        sample: (4, 0),
        cases: disks::read_only,
    },
    Row {
        name: "lost-disk",
        fault: "one of these disks answers everything with EIO",
        promise: "the same, but for what is read from it",
        bounded: 1,
        full: 10,
        sample: (4, 0),
        cases: disks::gone,
    },
    Row {
        name: "power",
        fault: "a power cut at random under pulls, runs, exits, rotations and removals: what was not synced is lost",
        promise: "the daemon starts by itself; what was acknowledged is whole: containers, exits, their logs, images, removals; nothing else is half",
        bounded: 2,
        full: 50,
        sample: (1, 0),
        cases: power::cases,
    },
    Row {
        name: "sync",
        fault: "one fsync or fdatasync fails, each in turn, of daemon and shim",
        promise: "a store in doubt says so and is closed; the next daemon is clean; what was acknowledged is so",
        bounded: 1,
        full: 5,
        sample: (4, 2),
        cases: syscalls::syncs,
    },
    Row {
        name: "disk-call",
        fault: "one read of the database, write, rename, mkdir, truncation, unlink fails, each in turn: EIO, ENOSPC, EROFS",
        promise: "the call fails or is done; a next one works; nothing left",
        bounded: 1,
        full: 5,
        sample: (14, 4),
        cases: syscalls::changes,
    },
    Row {
        name: "corruption",
        fault: "any file below the root, while no daemon runs: a bit flipped, cut, 4 KiB of zeros, removed",
        promise: "the daemon starts by itself; what runs goes on; everything else is whole; what can't be is named, and can be brought again",
        bounded: 1,
        full: 20,
        sample: (1, 0),
        cases: corruption::cases,
    },
    Row {
        name: "calls",
        fault: "calls of every method in random order, with random contents, well-formed and damaged",
        promise: "each is answered, none by chance; the daemon lives; what was made can be taken away",
        bounded: 1,
        full: 20,
        sample: (1, 0),
        cases: calls::cases,
    },
    Row {
        name: "archives",
        fault: "OCI layouts and docker archives with damaged headers, documents, blocks and ends",
        promise: "loaded or refused by name; the daemon lives; what was loaded can be removed, and nothing else is left",
        bounded: 1,
        full: 20,
        sample: (1, 0),
        cases: archives::cases,
    },
    Row {
        name: "inputs",
        fault: "the stored corpus with something changed, for each that reads bytes from outside: layers, archives, manifests, configurations, names, specifications, mount options, users, frames of ttrpc and SPDY",
        promise: "no panic, no hang; what is read is printed and read as the same; nothing outside is touched",
        bounded: 1,
        full: 20,
        sample: (1, 0),
        cases: inputs::cases,
    },
    Row {
        name: "logs",
        fault: "no line ends, single bytes, lines of 16 MiB, NUL, no UTF-8; the file renamed, removed, its directory removed, a link planted, the disk full",
        promise: "exact bytes; what could not be kept is said; the container never waits",
        bounded: 1,
        full: 20,
        sample: (1, 0),
        cases: log_files::cases,
    },
    Row {
        name: "upgrade",
        fault: "a newer or an older build takes the daemon's place while containers run",
        promise: "shims of other builds are used as far as both understand each other; what is too new is refused, with both numbers, and left as it is",
        bounded: 1,
        full: 20,
        sample: (1, 0),
        cases: upgrade::cases,
    },
    Row {
        name: "http2",
        fault: "clients that abuse HTTP/2: resets, floods of settings, pings and continuations, huge headers, half-open connections, answers that nobody reads, messages without an end",
        promise: "other clients are served; memory is bounded; descriptors, threads and memory go back",
        bounded: 1,
        full: 5,
        sample: (1, 0),
        cases: abuse::cases,
    },
];

/// A row by its name.
#[must_use]
pub fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

fn at_points(fault: Fault) -> Vec<Case> {
    let mut cases = Vec::new();
    for walk in LIVES {
        let is_asked =
            !matches!(walk.living, Living::Recovery | Living::Rebuilt(_) | Living::Leaving);
        if fault == Fault::ClientGone && !is_asked {
            continue;
        }
        let mut points = points::of(walk.side, walk.operations);
        points.retain(|point| fault != Fault::Fail || point.can_fail);
        let passes = points.iter().flat_map(|point| (0..walk.passes).map(move |at| (point, at)));
        cases.extend(passes.enumerate().map(|(number, (point, pass))| Case {
            is_sampled: number % walk.sample == 0,
            ..at_point(point.clone(), pass, fault, walk)
        }));
    }
    cases
}

fn at_point(point: points::Point, pass: usize, fault: Fault, walk: &Walk) -> Case {
    let name = match walk.passes {
        1 => point.name.clone(),
        _ => format!("{}:{pass}", point.name),
    };
    let living = walk.living;
    Case::new(name, move |round| {
        // Of these lives what is left is looked at first; the others are gone on with first.
        let goes_first = match living {
            Living::Checkpoint
            | Living::PodCheckpoint
            | Living::Kubelet
            | Living::Volume
            | Living::Load => true,
            Living::Container
            | Living::Stock
            | Living::Recovery
            | Living::Pause
            | Living::Rebuilt(_)
            | Living::Network
            | Living::Leaving
            | Living::Image
            | Living::Blob
            | Living::Pod => false,
        };
        let client = match (round % 2 == 0) == goes_first {
            true => Client::Goes,
            false => Client::AsksAgain,
        };
        match living {
            Living::Container => {
                faults::strike(&point, pass, fault, client, |_| History::new(code(round)))
            }
            Living::Stock => {
                faults::strike(&point, pass, fault, client, |_| History::of_stock(code(round)))
            }
            Living::Recovery => faults::strike_recovery(&point, fault, code(round)),
            Living::Pause => {
                faults::strike(&point, pass, fault, client, |_| PauseLife::new(code(round)))
            }
            Living::Rebuilt(damage) => {
                let begin = |daemon: &mut _| RebuiltLife::begin(daemon, damage, code(round));
                faults::strike_start(&point, fault, begin)
            }
            Living::Network => faults::strike(&point, pass, fault, client, NetworkLife::new),
            Living::Leaving => faults::strike_leaving(&point, fault, NetworkLife::new),
            Living::Image => faults::strike(&point, pass, fault, client, ImageLife::new),
            Living::Load => faults::strike(&point, pass, fault, client, LoadLife::new),
            Living::Blob => faults::strike(&point, pass, fault, client, BlobLife::new),
            Living::Pod => faults::strike(&point, pass, fault, client, PodLife::new),
            Living::Checkpoint => faults::strike(&point, pass, fault, client, CheckpointLife::new),
            Living::PodCheckpoint => {
                faults::strike(&point, pass, fault, client, PodCheckpointLife::new)
            }
            Living::Kubelet => faults::strike(&point, pass, fault, client, KubeletLife::new),
            Living::Volume => faults::strike(&point, pass, fault, client, VolumeLife::new),
        }
    })
}

/// A status that nobody makes up: 1 to 120, another in each round.
fn code(round: usize) -> u8 {
    let mixed = (round as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    u8::try_from(mixed % 120 + 1).unwrap_or(1)
}

impl Row {
    /// Runs every case whose name holds `word` `rounds` times, `threads` of them side by side; `full`: with
    /// the counts of a release.
    #[must_use]
    pub fn run(&self, word: &str, rounds: usize, threads: usize, full: bool) -> Outcome {
        let mut cases = (self.cases)();
        cases.retain(|case| case.name.contains(word));
        self.run_cases(&cases, rounds, threads, full)
    }

    /// What the suite runs of it, as far as its name holds `word`.
    #[must_use]
    pub fn run_bounded(&self, word: &str, threads: usize) -> Outcome {
        let (step, first) = self.sample;
        let cases = (self.cases)().into_iter().filter(|case| case.is_sampled);
        let cases = cases.skip(first).step_by(step);
        let cases: Vec<Case> = cases.filter(|case| case.name.contains(word)).collect();
        self.run_cases(&cases, self.bounded, threads, false)
    }

    fn run_cases(&self, cases: &[Case], rounds: usize, threads: usize, full: bool) -> Outcome {
        let figures = Arc::<Mutex<Vec<String>>>::default();
        let total = cases.len() * rounds;
        let next = AtomicUsize::new(0);
        let done = Mutex::new((vec![0; cases.len()], Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..threads.clamp(1, total.max(1)) {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= total {
                            break;
                        }
                        let at = number % cases.len();
                        let (case, number) = (&cases[at], number / cases.len());
                        let round = Round { number, full, figures: Arc::clone(&figures) };
                        let result = catch_unwind(AssertUnwindSafe(|| (case.run)(&round)));
                        let Ok(mut done) = done.lock() else { break };
                        match result {
                            Ok(Passed::Yes) => done.0[at] += 1,
                            Ok(Passed::No) => {}
                            Err(panic) => {
                                done.0[at] += 1;
                                let text = panic
                                    .downcast_ref::<String>()
                                    .cloned()
                                    .or_else(|| panic.downcast_ref::<&str>().map(|&s| s.to_owned()))
                                    .unwrap_or_default();
                                done.1.push(format!("{}: {text}", case.name));
                            }
                        }
                    }
                });
            }
        });
        let (passed, lost) = done.into_inner().unwrap_or_default();
        let unreached = cases
            .iter()
            .zip(&passed)
            .filter(|(_, passed)| **passed == 0)
            .map(|(case, _)| case.name.clone())
            .collect();
        let figures = figures.lock().map(|mut all| std::mem::take(&mut *all)).unwrap_or_default();
        let rounds = passed.iter().sum();
        let Self { name, fault, promise, .. } = *self;
        Outcome { name, fault, promise, cases: cases.len(), rounds, lost, unreached, figures }
    }
}
