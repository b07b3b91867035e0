//! Many clients, and slow ones.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bosun_proto::v1;
use prost::Message;
use tonic::Code;

use super::load::{expect_no_growth, held};
use super::{Case, Round};
use crate::api::{self, Api};
use crate::daemon::Daemon;
use crate::http2::Raw;
use crate::process::Process;
use crate::wait;

/// By how much the daemon may grow for a follower that hardly reads.
const FOLLOWER_KB: u64 = 400;
/// The same for the shim and all of them: it has so many at most, each a MiB behind at most.
const SHIM_KB: u64 = 64 * 1_100 + 4_000;
/// So many places has a container for clients that are attached.
const ATTACHED: usize = 64;
/// What may be on its way to one of them.
const WINDOW: u32 = 65_535;
/// When nothing came for so long, a follower has got all.
const SILENCE: Duration = Duration::from_millis(700);
/// How long a flood may take before it counts as held up.
const FLOOD: Duration = Duration::from_secs(120);

pub(super) fn same_request() -> Vec<Case> {
    vec![Case::plain("create", |_| {
        let daemon = Daemon::start();
        let socket = daemon.socket();
        let answers: Vec<_> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..10)
                .map(|_| {
                    scope.spawn(|| {
                        let api = Api::connect(&socket).expect("the daemon answers");
                        (0..10)
                            .map(|_| api.create("the same", api::options("one", &["/bin/true"])))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
        });
        let mut ids = BTreeSet::new();
        for answer in answers {
            match answer {
                Ok(id) => _ = ids.insert(id),
                // Too many at once is an answer as well: nothing was done for it.
                Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status}"),
            }
        }
        assert_eq!(ids.len(), 1, "{ids:?}");
        assert_eq!(daemon.ctl("ps -a -q --no-trunc").text().lines().count(), 1);
    })]
}

pub(super) fn slow() -> Vec<Case> {
    vec![Case::measured("followers", crowd), Case::measured("resizes", resizes)]
}

/// What a follower follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Followed {
    Log,
    Events,
    Attach,
}

const FOLLOWED: [Followed; 3] = [Followed::Log, Followed::Events, Followed::Attach];

/// A client that reads a byte a second.
struct Follower {
    what: Followed,
    raw: Raw,
    stream: u32,
    /// Its call was taken, and goes on.
    follows: bool,
}

impl Follower {
    fn start(socket: &Path, what: Followed) -> Self {
        let mut raw = Raw::connect(socket, WINDOW).expect("the daemon answers");
        let container = "crowd".to_owned();
        let stream = match what {
            Followed::Log => {
                let request = v1::LogsRequest { container, follow: true, ..Default::default() };
                raw.call("/bosun.v1.Io/Logs", &request, true)
            }
            Followed::Events => {
                raw.call("/bosun.v1.Events/Subscribe", &v1::SubscribeRequest::default(), true)
            }
            Followed::Attach => {
                let open = v1::AttachOpen { container, ..Default::default() };
                let message = Some(v1::attach_request::Message::Open(open));
                raw.call("/bosun.v1.Io/Attach", &v1::AttachRequest { message }, false)
            }
        };
        Self { what, raw, stream: stream.expect("the daemon takes a call"), follows: false }
    }

    fn wait_until_taken(&mut self) {
        self.follows = self.raw.answered(self.stream, wait::LIMIT).expect("an answer");
    }

    /// Reads what there is for it, in a moment in which nothing more is written: nothing is missing in
    /// the middle, unless it is told so.
    fn expect_whole_or_told(mut self) {
        // The stream of one that lagged ends.
        let silence = if self.what == Followed::Attach { wait::LIMIT } else { SILENCE };
        let (messages, _) = self.raw.drain(self.stream, silence).expect("whole frames");
        match self.what {
            Followed::Log => expect_lines(&messages),
            Followed::Events => expect_sequence(&messages),
            Followed::Attach => {
                use v1::output_chunk::Message;
                let last = messages.last().expect("an answer");
                let last = v1::OutputChunk::decode(&**last).expect("a chunk").message;
                // One that got all of it, or one that is told.
                let got: usize = messages.iter().map(Vec::len).sum();
                assert!(matches!(last, Some(Message::Lagged(_))), "after {got} bytes: {last:?}");
            }
        }
    }
}

/// Lines of the flood, one after the other; where some are missing, the log says so.
fn expect_lines(messages: &[Vec<u8>]) {
    let (mut next, mut told) = (1_u64, false);
    for message in messages {
        let record = v1::LogRecord::decode(&**message).expect("a record");
        let text = String::from_utf8(record.log).expect("text");
        match text.trim_end().parse::<u64>() {
            Ok(number) => {
                assert!(number == next || (told && number > next), "{number} after {next}");
                (next, told) = (number + 1, false);
            }
            Err(_) => told |= text.starts_with("bosun: "),
        }
    }
    assert!(next > 1, "nothing of the log");
}

fn expect_sequence(messages: &[Vec<u8>]) {
    let mut next = None;
    for message in messages {
        let event = v1::Event::decode(&**message).expect("an event");
        let (first, last) = match &event.gap {
            Some(gap) => (gap.first, gap.last),
            None => (event.sequence, event.sequence),
        };
        assert!(next.is_none_or(|next| next == first), "{first} in the place of {next:?}");
        next = Some(last + 1);
    }
    assert!(next.is_some(), "no event");
}

/// A container that writes when it is told to; answers how long it took, in seconds.
fn flood(daemon: &Daemon, name: &str, lines: usize) -> f64 {
    daemon.ctl(&format!("exec {name} /bin/touch /tmp/go")).ok();
    let begin = Instant::now();
    wait::within(FLOOD, || {
        std::thread::sleep(Duration::from_millis(20));
        // The last line of the one stream may come before that of the other.
        let last = daemon.ctl(&format!("logs --tail 1 {name}"));
        last.stdout.trim().eq(&lines.to_string()).then_some(())
    })
    .unwrap_or_else(|| panic!("{name} is held up"));
    begin.elapsed().as_secs_f64()
}

fn crowd(round: &Round) {
    let daemon = Daemon::start();
    let lines = round.count(600_000, 6_000_000);
    for name in ["alone", "crowd"] {
        let words = format!(
            "run -d --name {name} --net none --log-opt max-size=1m --log-opt max-file=2 --rootfs / \
             /bin/sh -c 'while [ ! -e /tmp/go ]; do sleep 0.02; done; \
             /usr/bin/awk \"BEGIN {{ for (i = 1; i <= {lines}; i++) print i }}\"; sleep 6000'"
        );
        daemon.ctl(&words).ok();
    }
    let alone = flood(&daemon, "alone", lines);
    let (process, shim) = (Process(daemon.pid().expect("the daemon runs")), daemon.shim("crowd"));
    let before = [held(process), held(shim)];
    for one in [process, shim] {
        one.forget_peak_memory();
    }
    let (each, socket) = (round.count(70, 1_000), daemon.socket());
    let mut followers: Vec<Follower> = FOLLOWED
        .iter()
        .flat_map(|what| (0..each).map(|_| Follower::start(&socket, *what)).collect::<Vec<_>>())
        .collect();
    followers.iter_mut().for_each(Follower::wait_until_taken);
    for what in FOLLOWED {
        let taken = followers.iter().filter(|one| one.what == what && one.follows).count();
        let expected = if what == Followed::Attach { ATTACHED.min(each) } else { each };
        assert_eq!(taken, expected, "{what:?}");
    }
    // One too many has nothing more to read.
    followers.retain(|follower| follower.follows);
    let over = AtomicBool::new(false);
    let crowded = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for follower in &mut followers {
                    follower.raw.read_a_byte().expect("a connection");
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        let time = catch_unwind(AssertUnwindSafe(|| flood(&daemon, "crowd", lines)));
        over.store(true, Ordering::Relaxed);
        time.unwrap_or_else(|panic| resume_unwind(panic))
    });
    for number in 0..20 {
        daemon.ctl(&format!("create --name e{number} --net none --rootfs / /bin/true")).ok();
        daemon.ctl(&format!("rm e{number}")).ok();
    }
    let peaks = [process, shim].map(|one| one.peak_memory().unwrap_or_default());
    let grown = [0, 1].map(|one| peaks[one].saturating_sub(before[one].memory));
    round.measured(format!(
        "{each} followers each of log, events and attach, a byte a second: {lines} lines in {crowded:.2} s, {alone:.2} s without them; the daemon grew by {} kB, the shim by {} kB",
        grown[0], grown[1]
    ));
    let most = 20_000 + FOLLOWER_KB * (each * FOLLOWED.len()) as u64;
    assert!(grown[0] < most, "the daemon grew by {} kB", grown[0]);
    assert!(grown[1] < SHIM_KB, "the shim grew by {} kB", grown[1]);
    for what in [Followed::Log, Followed::Events] {
        for _ in 0..2 {
            let at = followers.iter().position(|follower| follower.what == what);
            followers.remove(at.expect("there are more")).expect_whole_or_told();
        }
    }
    let (attached, others): (Vec<_>, Vec<_>) =
        followers.into_iter().partition(|follower| follower.what == Followed::Attach);
    attached.into_iter().for_each(Follower::expect_whole_or_told);
    drop(others);
    expect_no_growth(process, before[0], 20_000, "the daemon, without followers");
    expect_no_growth(shim, before[1], 2_000, "the shim, without followers");
    assert_eq!(daemon.ctl("exec crowd /bin/echo on").text(), "on");
}

/// A client that drags a window about, and one that calls for each step.
fn resizes(round: &Round) {
    let daemon = Daemon::start();
    daemon.ctl("run -d -t --name one --net none --rootfs / /bin/sleep 600").ok();
    let (process, shim) = (Process(daemon.pid().expect("the daemon runs")), daemon.shim("one"));
    let steps = |count: usize| {
        let api = daemon.api();
        let window = |number: usize| {
            let side = |number: usize| u32::try_from(number % 500 + 1).unwrap_or(1);
            v1::WindowSize { width: side(number), height: side(number / 3) }
        };
        let last = v1::WindowSize { width: 123, height: 45 };
        let dragging = api.wait(async {
            use v1::attach_request::Message;
            for number in 0..count / 10 {
                let (container, exec_id) = ("one".to_owned(), String::new());
                let request =
                    v1::ResizeRequest { container, exec_id, window: Some(window(number)) };
                api.io().resize(request).await.expect("resized");
            }
            let open = v1::AttachOpen { container: "one".to_owned(), ..Default::default() };
            let windows = (0..count).map(window).chain([last]).map(Message::Resize);
            let messages = std::iter::once(Message::Open(open)).chain(windows);
            let messages = messages.map(|one| v1::AttachRequest { message: Some(one) });
            let answers = api.io().attach(tokio_stream::iter(messages)).await;
            answers.expect("attached").into_inner()
        });
        wait::within(FLOOD, || {
            let seen = daemon.ctl("exec one /bin/sh -c 'stty size < /proc/1/fd/1'").text();
            (seen == "45 123").then_some(())
        })
        .expect("the last size");
        drop(dragging);
    };
    steps(round.count(2_000, 20_000));
    let before = [held(process), held(shim)];
    let count = round.count(20_000, 1_000_000);
    let begin = Instant::now();
    steps(count);
    round.measured(format!("{count} resizes in {:.1} s", begin.elapsed().as_secs_f64()));
    expect_no_growth(process, before[0], 4_000, "the daemon");
    expect_no_growth(shim, before[1], 500, "the shim");
}
