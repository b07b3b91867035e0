//! What goes by the points of a program: a life, call by call, what its client was told, and what must
//! be true then. This is a container's; the others are in `lives`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::ctl::Ctl;
use crate::daemon::{Daemon, Settings};
use crate::process::Process;
use crate::{leak, wait};

/// How long a daemon may take until what it says is what was promised: to find a shim's death, to
/// undo what was begun.
pub(super) const SETTLED: Duration = Duration::from_secs(10);
/// Between two looks at a log.
const LOOK: Duration = Duration::from_millis(100);

/// The check sum of a line is its number times this, modulo that.
const FACTOR: u64 = 7919;
const MODULUS: u64 = 65_521;
/// In the place of a number: how many there were follows.
const END: &str = "end";

/// Limits of memory, in bytes, and of processes; there are none before an update.
const MEMORY: u64 = 256 << 20;
const PIDS: u64 = 77;

/// A line by which a container's log has been rotated: its files have 2 kB.
const ROTATED: &str = "o 30 ";

/// A life of something that a daemon keeps.
pub trait Life: Send + Sized + 'static {
    /// How many calls it has.
    fn calls(&self) -> usize;

    /// The daemon that it needs.
    fn settings() -> Settings {
        Settings::new()
    }

    /// Makes a call and waits for its answer as long as its client does.
    fn ask(&mut self, ctl: &Ctl, call: usize, patience: &Patience) -> Answer;

    /// Notes what a call's client was told.
    fn note(&mut self, call: usize, told: Told);

    /// Waits for what a call that was done goes on with.
    fn wait(&self, _call: usize, _ctl: &Ctl) {}

    /// Notes that the shims were killed, with so many lines of each stream in the log.
    fn without_shim(&mut self, _logged: [u64; 2]) {}

    /// There is one truth, and it is one that the calls allow; everything works; and nothing is left.
    ///
    /// # Panics
    /// When not, with the case.
    fn expect_sound(&self, daemon: &Daemon, case: &str);
}

/// Where a container may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Absent,
    Created,
    Running,
    Exited,
}

/// A call of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Create,
    Start,
    Update,
    Exec,
    Stop,
    Remove,
}

/// In their order.
pub const CALLS: [Call; 6] =
    [Call::Create, Call::Start, Call::Update, Call::Exec, Call::Stop, Call::Remove];

/// How long a client waits for an answer; then it goes.
#[derive(Clone, Debug)]
pub enum Patience {
    /// To the end; also over a daemon that ends and comes again, where the client does so.
    Endless,
    Of(Duration),
    /// Until this says that the daemon is about to be killed.
    WithDaemon(Arc<AtomicBool>),
}

/// What came of a call, for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// It failed, or there is nobody: in the client's words.
    Failed(String),
    /// The client went before it was told.
    Late,
}

impl Answer {
    /// Of a call that `ctl` makes of some words, with a text on its standard input.
    #[must_use]
    pub fn of_ctl(ctl: &Ctl, words: &str, input: &str, patience: &Patience) -> Self {
        let mut client = ctl.start(words, Stdio::piped());
        client.feed(input);
        let is_late = match patience {
            Patience::Endless => false,
            Patience::Of(time) => {
                wait::within(*time, || client.has_ended().then_some(())).is_none()
            }
            Patience::WithDaemon(dies) => {
                let ended = wait::within(wait::LIMIT, || match client.has_ended() {
                    true => Some(true),
                    false => dies.load(Ordering::Relaxed).then_some(false),
                });
                ended == Some(false)
            }
        };
        if is_late {
            return Self::Late;
        }
        let output = client.finish();
        match output.code {
            Some(0) => Self::Done,
            _ => Self::Failed(output.stderr),
        }
    }
}

/// What a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Done,
    /// It failed, says the daemon.
    Failed,
    /// Nobody answered.
    Nothing,
}

/// What has happened to a container, as far as a client knows.
#[derive(Clone, Debug)]
pub struct History {
    /// What it ends with when it is asked to.
    pub code: u8,
    /// Words that say what runs it.
    runtime: &'static str,
    states: BTreeSet<State>,
    calls: Vec<(Call, Told)>,
    /// Whether it may have its new limits, or not.
    updated: BTreeSet<bool>,
    /// Its shim was killed, with so many lines of each stream in the log: it may have ended at any time, and its
    /// status may be unknown.
    shim_killed: Option<[u64; 2]>,
}

impl History {
    #[must_use]
    pub fn new(code: u8) -> Self {
        let states = BTreeSet::from([State::Absent]);
        let updated = [false].into();
        Self { code, runtime: "", states, calls: Vec::new(), updated, shim_killed: None }
    }

    /// Of a container that a stock shim runs.
    #[must_use]
    pub fn of_stock(code: u8) -> Self {
        Self { runtime: "--runtime runc ", ..Self::new(code) }
    }

    fn words_of(&self, call: Call) -> String {
        let Self { code, runtime, .. } = *self;
        match call {
            Call::Create => format!(
                "create --name one {runtime} -p 5000:5000 --log-opt max-size=2k --log-opt max-file=1000 \
                 --rootfs / {}",
                lines_until_stopped(code, "0.02")
            ),
            Call::Start => "start one".to_owned(),
            Call::Update => format!("update --memory {MEMORY} --pids-limit {PIDS} one"),
            Call::Exec => "exec one /bin/true".to_owned(),
            Call::Stop => "stop -t 5 one".to_owned(),
            Call::Remove => "rm -f one".to_owned(),
        }
    }

    fn note_of(&mut self, call: Call, told: Told) {
        self.calls.push((call, told));
        if call == Call::Update {
            learn(&mut self.updated, told, true);
        }
        let after: BTreeSet<State> = match call {
            Call::Create => [State::Created].into(),
            Call::Start => [State::Running].into(),
            Call::Update | Call::Exec => self.states.clone(),
            Call::Stop => [State::Exited].into(),
            Call::Remove => [State::Absent].into(),
        };
        match told {
            Told::Done => self.states = after,
            // A start that failed may have had its process for a moment.
            Told::Failed if call == Call::Start => _ = self.states.insert(State::Exited),
            Told::Failed => {}
            Told::Nothing => self.states.extend(after),
        }
    }

    /// Where the container may be now.
    fn states(&self) -> BTreeSet<State> {
        may_be(&self.states, self.shim_killed.is_some())
    }

    /// What has to be in the log of one that has ended. Who ends with its own code has written its last line;
    /// a killed shim takes along what it had not read yet, and no more.
    fn extent(&self, daemon: &Daemon) -> Extent {
        let exit = daemon.api().get("one").state.and_then(|state| state.exit).unwrap_or_default();
        let is_own = exit.status == u32::from(self.code) && !exit.unknown;
        match (self.shim_killed, is_own) {
            (_, true) if exit.reason != "ShimLost" => Extent::Whole,
            (logged, _) => Extent::AtLeast(logged.unwrap_or_default()),
        }
    }

    /// Whether a stop was acknowledged, or may have reached the process.
    fn was_stopped(&self) -> bool {
        self.calls.iter().any(|(call, _)| *call == Call::Stop)
    }
}

impl Life for History {
    fn calls(&self) -> usize {
        CALLS.len()
    }

    fn ask(&mut self, ctl: &Ctl, call: usize, patience: &Patience) -> Answer {
        if CALLS[call] == Call::Exec {
            // Whatever became of the update before it.
            expect_limits(ctl, "after an update");
        }
        Answer::of_ctl(ctl, &self.words_of(CALLS[call]), "", patience)
    }

    fn note(&mut self, call: usize, told: Told) {
        self.note_of(CALLS[call], told);
    }

    /// After an exec: as much as makes its log rotate.
    fn wait(&self, call: usize, ctl: &Ctl) {
        if CALLS[call] == Call::Exec {
            let _ = wait::within(SETTLED, || {
                std::thread::sleep(LOOK);
                ctl.run("logs one").stdout.contains(ROTATED).then_some(())
            });
        }
    }

    fn without_shim(&mut self, logged: [u64; 2]) {
        self.shim_killed = Some(logged);
    }

    /// What was written is whole; a container of the same name and port can be made, and ends as it
    /// should.
    #[track_caller]
    fn expect_sound(&self, daemon: &Daemon, case: &str) {
        let seen = settled(daemon, &self.states(), case, self);
        if seen != State::Absent {
            let limits = daemon.inspect("one", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}");
            let updated = limits == format!("{MEMORY} {PIDS}");
            assert!(self.updated.contains(&updated), "{case}: its limits are {limits}: {self:?}");
        }
        match seen {
            State::Absent | State::Created => {}
            State::Running => {
                expect_limits(daemon.client(), case);
                assert!(limits(daemon.client()).is_some(), "{case}: nobody knows its limits");
                assert_eq!(daemon.ctl("exec one /bin/echo yes").text(), "yes", "{case}");
                daemon.ctl("stop -t 5 one").ok();
                expect_log(daemon, "one", self.extent(daemon), case);
            }
            State::Exited => {
                expect_status(daemon, self, case);
                expect_log(daemon, "one", self.extent(daemon), case);
            }
        }
        if seen != State::Absent {
            daemon.ctl("rm -f one").ok();
        }
        daemon.expect_nothing_left();
        for call in [Call::Create, Call::Start] {
            daemon.ctl(&self.words_of(call)).ok();
        }
        daemon.until_logged("one", "o 3 ");
        daemon.ctl("stop one").ok();
        let code = daemon.inspect("one", "{{.State.ExitCode}}");
        assert_eq!(code, self.code.to_string(), "{case}: the next one's");
        expect_log(daemon, "one", Extent::Whole, case);
        daemon.ctl("rm one").ok();
        daemon.expect_nothing_left();
    }
}

/// The group of the container `one` has the limits that its record has, or comes to have them, if it runs.
///
/// # Panics
/// When not, with the case.
#[track_caller]
fn expect_limits(ctl: &Ctl, case: &str) {
    let mut seen = None;
    let is_so = wait::within(SETTLED, || {
        seen = limits(ctl);
        seen.as_ref().is_none_or(|[recorded, found]| recorded == found).then_some(())
    });
    assert!(is_so.is_some(), "{case}: its limits are recorded, and in its group: {seen:?}");
}

/// The limits of memory and processes that are recorded of it, and those of its group; `None` if it does not
/// run, or nobody says so.
fn limits(ctl: &Ctl) -> Option<[[u64; 2]; 2]> {
    let format = "{{.Id}},{{.State.Pid}},{{.HostConfig.Memory}},{{.HostConfig.PidsLimit}}";
    let inspected = ctl.run(&format!("inspect --format '{format}' one"));
    // A limit that is none is said in words.
    let words: Vec<&str> = inspected.stdout.trim().split(',').collect();
    let [id, pid, memory, pids] = words[..] else { return None };
    let cgroups = Process(pid.parse().ok().filter(|pid| *pid != 0)?).cgroups();
    let own = cgroups.values().filter(|path| path.contains(id));
    let groups: Vec<PathBuf> = own
        .flat_map(|path| {
            let path = path.trim_start_matches('/');
            leak::hierarchies().into_iter().map(move |top| top.join(path))
        })
        .collect();
    let control = |names: [&str; 2]| -> Option<u64> {
        let mut files = groups.iter().flat_map(|group| names.map(|name| group.join(name)));
        let text = files.find_map(|file| std::fs::read_to_string(file).ok())?;
        // None is "max", or on v1 more bytes than there can be.
        Some(text.trim().parse().ok().filter(|limit| *limit < 1 << 62).unwrap_or_default())
    };
    let found =
        [control(["memory.limit_in_bytes", "memory.max"])?, control(["pids.max", "pids.max"])?];
    Some([[memory, pids].map(|limit| limit.parse().unwrap_or_default()), found])
}

/// Does a whole life, call by call, until one is not answered any more. `told` is what to make of a
/// call that failed, by the client's words.
#[must_use]
pub fn live<L: Life>(
    ctl: &Ctl,
    mut life: L,
    patience: &Patience,
    told: impl Fn(&str) -> Told,
) -> L {
    for call in 0..life.calls() {
        let told = match life.ask(ctl, call, patience) {
            Answer::Done => Told::Done,
            Answer::Failed(why) => told(&why),
            Answer::Late => Told::Nothing,
        };
        life.note(call, told);
        match told {
            Told::Done => life.wait(call, ctl),
            Told::Failed => {}
            Told::Nothing => break,
        }
    }
    life
}

/// What is known of where a thing may be, after a call that takes it there (`after`): done, it is there; what
/// failed has changed nothing; without an answer both is possible.
pub(super) fn learn<T: Ord>(known: &mut BTreeSet<T>, told: Told, after: T) {
    match told {
        Told::Done => *known = [after].into(),
        Told::Failed => {}
        Told::Nothing => _ = known.insert(after),
    }
}

/// As [`learn`], of a call that may have been done but for its last step when it fails.
pub(super) fn learn_at_most<T: Ord>(known: &mut BTreeSet<T>, told: Told, after: T) {
    match told {
        Told::Done => *known = [after].into(),
        Told::Failed | Told::Nothing => _ = known.insert(after),
    }
}

/// As [`learn`], of a start: one that was not stopped runs on, though it is refused another.
pub(super) fn learn_of_start(known: &mut BTreeSet<State>, told: Told) {
    if !(told == Told::Failed && known.contains(&State::Running)) {
        learn(known, told, State::Running);
    }
}

/// As [`learn`], of a stop, which ends only what runs.
pub(super) fn learn_of_stop(known: &mut BTreeSet<State>, told: Told) {
    if known.contains(&State::Running) {
        learn(known, told, State::Exited);
    }
}

/// Where a container may be now, by what is known of its calls: who is killed with its shim has ended.
pub(super) fn may_be(known: &BTreeSet<State>, shim_killed: bool) -> BTreeSet<State> {
    let mut states = known.clone();
    if shim_killed && (states.contains(&State::Running) || states.contains(&State::Created)) {
        states.insert(State::Exited);
    }
    states
}

/// Where the only container has come to be, which is where it may be.
///
/// # Panics
/// When it is somewhere else for long, with the case and its life.
#[track_caller]
pub(super) fn settled(
    daemon: &Daemon,
    allowed: &BTreeSet<State>,
    case: &str,
    life: &dyn std::fmt::Debug,
) -> State {
    settled_by(daemon, allowed, case, life, |listed| match listed {
        "" => Some(State::Absent),
        "one created" => Some(State::Created),
        "one running" => Some(State::Running),
        "one exited" => Some(State::Exited),
        _ => None,
    })
}

/// As [`settled`], where `states` says which state it is that is listed; `None` of what can't be.
#[track_caller]
pub(super) fn settled_by<S: Copy + Ord + std::fmt::Debug>(
    daemon: &Daemon,
    allowed: &BTreeSet<S>,
    case: &str,
    life: &dyn std::fmt::Debug,
    states: impl Fn(&str) -> Option<S>,
) -> S {
    let mut seen = None;
    let settled = wait::within(SETTLED, || {
        let listed = daemon.ctl("ps -a --format '{{.Names}} {{.State}}'").text();
        let state = states(&listed).unwrap_or_else(|| panic!("{case}: listed are {listed:?}"));
        seen = Some(state);
        allowed.contains(&state).then_some(state)
    });
    settled.unwrap_or_else(|| panic!("{case}: it is {seen:?}, and may be {allowed:?}: {life:?}"))
}

/// The status is the process' own, or says that it is unknown.
#[track_caller]
fn expect_status(daemon: &Daemon, history: &History, case: &str) {
    let exit = daemon.api().get("one").state.and_then(|state| state.exit);
    let Some(exit) = exit else { panic!("{case}: exited, and there is no status") };
    let own = history.was_stopped() && exit.status == u32::from(history.code) && !exit.unknown;
    // Killed with its shim, or before it had a program to run, it has no code of its own.
    let killed = history.shim_killed.is_some() && (exit.unknown || exit.signal == 9);
    let never_ran = history.calls.contains(&(Call::Start, Told::Failed));
    assert!(own || killed || never_ran, "{case}: an invented status: {exit:?} for {history:?}");
}

/// The words of a command that writes what [`expect_log`] wants to see, a line on each stream every
/// `pause` seconds, until SIGTERM ends it with `code`. Its last line on each says how many there were: a trap
/// comes between two commands, and to count a line and to write it is one.
#[must_use]
pub fn lines_until_stopped(code: u8, pause: &str) -> String {
    format!(
        "/bin/sh -c 'trap \"echo o {END} \\$o; echo e {END} \\$e >&2; exit {code}\" TERM; o=0; e=0; while :; do \
         echo o $((o+=1)) $((o*{FACTOR}%{MODULUS})); echo e $((e+=1)) $((e*{FACTOR}%{MODULUS})) >&2; \
         sleep {pause}; done'"
    )
}

/// The words of a command that writes `count` of these lines on each stream, as fast as it can.
#[must_use]
pub fn flood_of_lines(count: usize) -> String {
    format!(
        "/usr/bin/awk 'BEGIN {{ for (i = 1; i <= {count}; i++) {{ n = i * {FACTOR} % {MODULUS}; \
         print \"o\", i, n; print \"e\", i, n > \"/dev/stderr\" }} }}'"
    )
}

/// One of these lines.
#[must_use]
pub fn line(letter: char, number: u64) -> String {
    format!("{letter} {number} {}", number * FACTOR % MODULUS)
}

/// How many lines there were, as the last line of a stream says.
#[must_use]
pub fn end(line: &str, letter: char) -> Option<u64> {
    line.strip_prefix(letter)?.strip_prefix(' ')?.strip_prefix(END)?.strip_prefix(' ')?.parse().ok()
}

/// How much of a log has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it, to the lines by which its writer ended.
    Whole,
    /// So many lines of each stream: as many as were seen there, or are known to have been written.
    AtLeast([u64; 2]),
}

/// The lines of a container's log are whole, none is missing and none is there twice.
///
/// # Panics
/// When not, with the case.
#[track_caller]
pub fn expect_log(daemon: &Daemon, container: &str, extent: Extent, case: &str) {
    let output = daemon.ctl(&format!("logs {container}"));
    for (at, (text, letter)) in [(&output.stdout, 'o'), (&output.stderr, 'e')].iter().enumerate() {
        let mut lines: Vec<&str> = text.lines().collect();
        let end = lines.pop_if(|line| self::end(line, *letter).is_some());
        for (index, line) in lines.iter().enumerate() {
            let number = index as u64 + 1;
            assert_eq!(*line, self::line(*letter, number), "{case}: line {number} of {container}");
        }
        let count = lines.len() as u64;
        let is_whole = end.and_then(|line| self::end(line, *letter)) == Some(count);
        let is_enough = match extent {
            Extent::Whole => is_whole,
            Extent::AtLeast(least) => count >= least[at] && (end.is_none() || is_whole),
        };
        assert!(
            is_enough,
            "{case}: {letter} of {container} ends after {count}: {end:?}, {extent:?}"
        );
    }
}

/// How many lines of each stream the log files of the only container hold, whoever runs.
pub(super) fn logged(daemon: &Daemon) -> [u64; 2] {
    let mut counts = [0; 2];
    let containers = daemon.place().root.join("containers/default");
    for container in std::fs::read_dir(containers).into_iter().flatten().flatten() {
        for file in std::fs::read_dir(container.path()).into_iter().flatten().flatten() {
            if !file.file_name().to_string_lossy().contains("-json.log") {
                continue;
            }
            let bytes = std::fs::read(file.path()).unwrap_or_default();
            let records = bytes.split_inclusive(|byte| *byte == b'\n');
            for record in records.filter(|record| record.ends_with(b"\n")) {
                let text = String::from_utf8_lossy(record);
                let has = |stream| text.contains(&format!("\"stream\":\"{stream}\""));
                counts[0] += u64::from(has("stdout"));
                counts[1] += u64::from(has("stderr"));
            }
        }
    }
    counts
}
