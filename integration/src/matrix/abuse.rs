//! Clients that abuse HTTP/2: the others go on being served, and what the daemon holds is bounded, and
//! goes back to what it was.

use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bosun_proto::{cri, v1};
use http_body::{Body, Frame};
use tonic::Status;
use tonic::codegen::http::Request;
use tonic::codegen::{Bytes, Service};

use super::load::{expect_no_growth, held};
use super::{Case, Round};
use crate::api::Api;
use crate::daemon::Daemon;
use crate::http2::{END_HEADERS, END_STREAM, Kind, Raw, frame, headers};
use crate::process::Process;

/// Clients that abuse at once.
const ABUSERS: usize = 3;
/// Connections that one of them keeps.
const KEPT: usize = 40;
/// What all of them may make the daemon take, in kilobytes.
const PEAK_KB: u64 = 140_000;

/// What of that may be left when they are gone.
const KEPT_KB: u64 = 20_000;

const LIST: &str = "/bosun.v1.Containers/List";
const LIST_OF_CRI: &str = "/runtime.v1.RuntimeService/ListContainers";
/// Both faces are behind one socket.
const CREATE: [&str; 2] =
    ["/bosun.v1.Containers/Create", "/runtime.v1.RuntimeService/CreateContainer"];
/// A frame's payload may be so long (RFC 9113, 4.2).
const LONGEST: usize = 16_384;

/// What one of them does on a connection of its own; it is kept for a while when it is answered.
type Abuse = fn(&Path) -> Option<Raw>;

const ABUSES: [(&str, Abuse); 9] = [
    ("resets", resets),
    ("settings", |socket| flood(socket, &frame(Kind::Settings, 0, 0, &[0, 4, 0, 0, 255, 255]))),
    ("pings", |socket| flood(socket, &frame(Kind::Ping, 0, 0, &[7; 8]))),
    ("priorities", |socket| flood(socket, &frame(Kind::Priority, 0, 1, &[0, 0, 0, 0, 1]))),
    ("empty data", empty_data),
    ("continuations", continuations),
    ("huge headers", huge_headers),
    ("half-open", half_open),
    ("answers that nobody reads", unread),
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = ABUSES
        .iter()
        .map(|(name, abuse)| {
            Case::measured(*name, move |round| {
                suffer(round, name, |socket, over| keep_abusing(*abuse, socket, over));
            })
        })
        .collect();
    cases.push(Case::measured("messages without an end", |round| {
        suffer(round, "messages without an end", unfinished_messages);
    }));
    cases
}

/// Some abuse, and another client calls meanwhile.
fn suffer(round: &Round, what: &str, abuse: impl Fn(&Path, &AtomicBool) + Sync) {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    let process = Process(daemon.pid().expect("the daemon runs"));
    let socket = daemon.socket();
    let time = Duration::from_millis(u64::try_from(round.count(800, 30_000)).unwrap_or(800));
    let before = held(process);
    process.forget_peak_memory();
    let over = AtomicBool::new(false);
    let (mut longest, mut calls) = (Duration::ZERO, 0);
    std::thread::scope(|scope| {
        for _ in 0..ABUSERS {
            scope.spawn(|| abuse(&socket, &over));
        }
        let begin = Instant::now();
        while begin.elapsed() < time {
            let asked = Instant::now();
            let list = daemon.ctl("ps -q");
            let served = list.code == Some(0) && list.stdout.lines().count() == 1;
            over.store(!served, Ordering::Relaxed);
            assert!(served, "{what}: another client is not served: {list:?}");
            longest = longest.max(asked.elapsed());
            calls += 1;
        }
        over.store(true, Ordering::Relaxed);
    });
    let peak = process.peak_memory().unwrap_or_default().saturating_sub(before.memory);
    assert_eq!(daemon.ctl("exec one /bin/echo on").text(), "on");
    assert!(peak < PEAK_KB, "{what}: the daemon grew by {peak} kB");
    expect_no_growth(process, before, KEPT_KB, what);
    round.measured(format!(
        "{what}: {calls} calls of another client, the longest {} ms; the daemon grew by {peak} kB, and kept {}",
        longest.as_millis(), held(process).memory.saturating_sub(before.memory)
    ));
}

fn keep_abusing(abuse: Abuse, socket: &Path, over: &AtomicBool) {
    let mut kept = Vec::new();
    while !over.load(Ordering::Relaxed) {
        kept.extend(abuse(socket));
        if kept.len() > KEPT {
            kept.remove(0);
        }
    }
}

/// Calls that are taken back as soon as they are made (CVE-2023-44487).
fn resets(socket: &Path) -> Option<Raw> {
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    let mut raw = Raw::connect(socket, 65_535).ok()?;
    let mut bytes = Vec::new();
    for _ in 0..2_000 {
        let stream = raw.next_stream();
        bytes.extend(frame(Kind::Headers, END_HEADERS | END_STREAM, stream, &headers(LIST, &[])));
        bytes.extend(frame(Kind::Reset, 0, stream, &CANCEL));
    }
    // It may be cut off in the middle.
    let _ = raw.bytes(&bytes);
    Some(raw)
}

/// Frames that each want something, and nothing of it is read.
fn flood(socket: &Path, one: &[u8]) -> Option<Raw> {
    let mut raw = Raw::connect(socket, 65_535).ok()?;
    let _ = raw.bytes(&one.repeat(20_000));
    Some(raw)
}

fn empty_data(socket: &Path) -> Option<Raw> {
    let mut raw = Raw::connect(socket, 65_535).ok()?;
    let stream = raw.call(LIST, &v1::ListRequest::default(), false).ok()?;
    let _ = raw.bytes(&frame(Kind::Data, 0, stream, &[]).repeat(20_000));
    Some(raw)
}

/// Headers that don't end (CVE-2024-27316 and its family).
fn continuations(socket: &Path) -> Option<Raw> {
    let mut raw = Raw::connect(socket, 65_535).ok()?;
    let stream = raw.next_stream();
    raw.frame(Kind::Headers, 0, stream, &headers(LIST, &[])).ok()?;
    let more = headers(LIST, &[("x", &"y".repeat(LONGEST / 2))]);
    for _ in 0..1_000 {
        if raw.frame(Kind::Continuation, 0, stream, &more[more.len() - LONGEST / 2..]).is_err() {
            break;
        }
    }
    Some(raw)
}

/// A few bytes that stand for megabytes: one long header, of which the table keeps a copy, again and
/// again (RFC 7541, 6.1).
fn huge_headers(socket: &Path) -> Option<Raw> {
    const FIRST_OF_THE_TABLE: u8 = 0x80 | 62;
    let mut raw = Raw::connect(socket, 65_535).ok()?;
    for _ in 0..20 {
        let stream = raw.next_stream();
        let mut block = headers(LIST, &[("x", &"y".repeat(3_900))]);
        let name = block.len() - 3_900 - 2 - 2 - 1;
        block[name] = 0x40;
        block.resize(LONGEST, FIRST_OF_THE_TABLE);
        if raw.frame(Kind::Headers, END_HEADERS | END_STREAM, stream, &block).is_err() {
            break;
        }
    }
    Some(raw)
}

fn half_open(socket: &Path) -> Option<Raw> {
    let mut raw = Raw::silent(socket).ok()?;
    let _ = raw.bytes(b"PRI * HTTP");
    Some(raw)
}

fn unread(socket: &Path) -> Option<Raw> {
    let mut raw = Raw::connect(socket, 0).ok()?;
    for _ in 0..500 {
        let own = raw.call(LIST, &v1::ListRequest { all: true, filters: Vec::new() }, true);
        let of_cri = raw.call(LIST_OF_CRI, &cri::ListContainersRequest::default(), true);
        if own.and(of_cri).is_err() {
            break;
        }
    }
    Some(raw)
}

/// The body of a call: a message that is said to be of 16 MiB, of which the last byte never comes.
struct Unfinished {
    left: usize,
    begun: bool,
}

const MESSAGE: usize = 16 << 20;

impl Body for Unfinished {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        if !self.begun {
            self.begun = true;
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0, 1, 0, 0, 0])))));
        }
        if self.left == 0 {
            return Poll::Pending;
        }
        let piece = self.left.min(ZEROS.len());
        self.left -= piece;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&ZEROS[..piece])))))
    }
}

pub(super) fn unfinished_messages(socket: &Path, over: &AtomicBool) {
    let Ok(api) = Api::connect(socket) else { return };
    api.wait(async {
        for number in 0..KEPT {
            let body = Unfinished { left: MESSAGE - 1, begun: false };
            let request = Request::post(format!("http://localhost{}", CREATE[number % 2]))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(tonic::body::Body::new(body));
            let (mut channel, request) = (api.channel(), request.expect("a request"));
            tokio::spawn(async move {
                if std::future::poll_fn(|cx| channel.poll_ready(cx)).await.is_ok() {
                    // No answer is expected before its end.
                    let _ = channel.call(request).await;
                }
            });
        }
        while !over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}
