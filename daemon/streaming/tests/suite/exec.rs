//! A process for a client, over SPDY.

use std::time::Duration;

use bosun_streaming::spdy::Headers;
use bosun_streaming::spdy::frame::Control;
use bosun_streaming::{Config, HangUp, Streams};

use crate::fake::{ALL, Fixture, OUT, TERMINAL, Told, pattern, within};
use crate::spdy::open;

const V4: &str = "v4.channel.k8s.io";
const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn fifty_megabytes_go_both_ways_and_none_is_another() {
    let mut fixture = Fixture::new().await;
    let (mut sender, mut receiver) = open(&fixture.exec(ALL, "cat"), V4).await;
    let error = sender.stream("error").await;
    let stdin = sender.stream("stdin").await;
    let stdout = sender.stream("stdout").await;
    let stderr = sender.stream("stderr").await;
    let bytes = pattern(50 << 20);
    let sent = bytes.clone();
    let sending = tokio::spawn(async move {
        // As a client of Kubernetes, with no regard to windows, and in frames of all sizes.
        let mut rest = sent.as_slice();
        let mut size = 1;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            sender.data(stdin, piece, after.is_empty()).await;
            size = (size * 3) % 300_007;
            rest = after;
        }
        sender
    });
    receiver.all().await;
    sending.await.unwrap();
    assert!(receiver.streams[&stdout].bytes == bytes, "other bytes came back");
    assert!(receiver.streams[&stdout].ended && receiver.streams[&stderr].ended);
    assert!(receiver.streams[&error].ended);
    assert_eq!(receiver.text(error), SUCCESS);
    assert_eq!(receiver.goaway, Some(0));
    // Of the stream, and of the connection.
    for id in [stdin, 0] {
        let credit = receiver.credit[&id];
        let sent = bytes.len() as u64;
        assert!(credit > sent - 400_000 && credit <= sent, "{id}: {credit} of {sent}");
    }
    assert_eq!(fixture.told().await, Told::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_do_not_mix() {
    let fixture = Fixture::new().await;
    let streams = Streams { stdin: false, ..ALL };
    let (mut sender, mut receiver) = open(&fixture.exec(streams, "both 3000000"), V4).await;
    let stderr = sender.stream("stderr").await;
    let stdout = sender.stream("stdout").await;
    let error = sender.stream("error").await;
    receiver.all().await;
    let bytes = pattern(3_000_000);
    assert!(receiver.streams[&stdout].bytes == bytes);
    assert!(receiver.streams[&stderr].bytes == bytes[1..]);
    assert_eq!(receiver.text(error), SUCCESS);
}

#[tokio::test]
async fn exit_codes_are_told_as_the_version_has_them() {
    let fixture = Fixture::new().await;
    let coded = r#"{"metadata":{},"status":"Failure","message":"command terminated with exit code 7","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
    let plain = "command terminated with exit code 7";
    for (version, command, expected) in [
        (V4, "exit 7", coded),
        (V4, "exit 0", SUCCESS),
        ("v3.channel.k8s.io", "exit 7", plain),
        ("v2.channel.k8s.io", "exit 7", plain),
        ("channel.k8s.io", "exit 7", plain),
        ("channel.k8s.io", "exit 0", ""),
        (
            V4,
            "missing",
            r#"{"metadata":{},"status":"Failure","message":"exec \"missing\": no such file","reason":"InternalError","code":500}"#,
        ),
    ] {
        let (mut sender, mut receiver) = open(&fixture.exec(OUT, command), version).await;
        let error = sender.stream("error").await;
        sender.stream("stdout").await;
        receiver.all().await;
        assert_eq!(receiver.text(error), expected, "{version} {command}");
        assert!(receiver.streams[&error].ended);
    }
}

#[tokio::test]
async fn the_end_of_stdin_is_not_the_end_of_the_process() {
    let fixture = Fixture::new().await;
    let (mut sender, mut receiver) = open(&fixture.exec(ALL, "count"), V4).await;
    let error = sender.stream("error").await;
    let stdin = sender.stream("stdin").await;
    let stdout = sender.stream("stdout").await;
    sender.stream("stderr").await;
    sender.data(stdin, &pattern(100_000), false).await;
    sender.data(stdin, b"", true).await;
    receiver.all().await;
    assert_eq!(receiver.text(stdout), "100000 true");
    assert!(receiver.text(error).contains(r#""reason":"ExitCode","message":"3""#));
}

#[tokio::test]
async fn sizes_of_the_terminal_come_in_their_order() {
    let fixture = Fixture::new().await;
    let (mut sender, mut receiver) = open(&fixture.exec(TERMINAL, "sizes 100"), V4).await;
    sender.stream("error").await;
    sender.stream("stdin").await;
    let stdout = sender.stream("stdout").await;
    let resize = sender.stream("resize").await;
    let sizes: String =
        (0..100).map(|n| format!("{{\"Width\":{n},\"Height\":{}}}\n", n * 2)).collect();
    for piece in sizes.as_bytes().chunks(7) {
        sender.data(resize, piece, false).await;
    }
    receiver.all().await;
    let expected: String = (0..100).map(|n| format!("{n}x{} ", n * 2)).collect();
    assert_eq!(receiver.text(stdout), expected);
}

#[tokio::test]
async fn a_client_that_goes_away_is_told_of_even_behind_bytes_that_nobody_reads() {
    let mut fixture = Fixture::new().await;
    for behind in [0, 10 << 20] {
        let (mut sender, mut receiver) = open(&fixture.exec(ALL, "ready"), V4).await;
        sender.stream("error").await;
        let stdin = sender.stream("stdin").await;
        let stdout = sender.stream("stdout").await;
        sender.stream("stderr").await;
        receiver.until(|receiver| receiver.has(stdout, "ready")).await;
        // As much as goes, without being read. A ping that is not answered makes the kernel say at
        // once that nobody is there any more.
        let bytes = vec![0; behind];
        sender.control(&Control::Ping { id: 1 }).await;
        let sending =
            tokio::time::timeout(Duration::from_secs(1), sender.data(stdin, &bytes, false));
        let stuck = sending.await.is_err();
        assert_eq!(stuck, behind > 0);
        drop((sender, receiver));
        let told = fixture.told().await;
        assert!(matches!(told, Told::HangUp(HangUp::Client(_))), "{told:?}");
    }
}

#[tokio::test]
async fn a_session_on_which_nothing_happens_ends() {
    let idle = Duration::from_millis(300);
    let mut fixture = Fixture::with(Config { idle, ..Config::default() }).await;
    let (mut sender, mut receiver) = open(&fixture.exec(OUT, "ready"), V4).await;
    let error = sender.stream("error").await;
    sender.stream("stdout").await;
    // Pings are a sign of life.
    let begin = std::time::Instant::now();
    for id in (1..12).step_by(2) {
        sender.control(&Control::Ping { id }).await;
        receiver.until(|receiver| receiver.pings.last() == Some(&id)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(begin.elapsed() > idle);
    assert!(fixture.told.try_recv().is_err());
    receiver.all().await;
    assert!(receiver.text(error).contains("nothing came or went for 300ms"));
    assert_eq!(fixture.told().await, Told::HangUp(HangUp::Idle));
}

#[tokio::test]
async fn a_server_that_stops_says_so() {
    let fixture = Fixture::new().await;
    let (mut sender, mut receiver) = open(&fixture.exec(OUT, "ready"), V4).await;
    let error = sender.stream("error").await;
    sender.stream("stdout").await;
    let Fixture { server, mut told } = fixture;
    receiver.until(|receiver| receiver.streams.len() == 2).await;
    let stopping = tokio::spawn(server.stop());
    receiver.all().await;
    assert!(receiver.text(error).contains("the server stops"));
    drop((sender, receiver));
    within(stopping).await.unwrap();
    assert_eq!(told.recv().await, Some(Told::HangUp(HangUp::Stopping)));
}

#[tokio::test]
async fn streams_that_do_not_come_in_time_are_named() {
    let creation = Duration::from_millis(200);
    let fixture = Fixture::with(Config { creation, ..Config::default() }).await;
    let (mut sender, mut receiver) = open(&fixture.exec(ALL, "cat"), V4).await;
    let error = sender.stream("error").await;
    sender.stream("stdout").await;
    receiver.all().await;
    let text = receiver.text(error);
    assert!(text.contains("did not open its streams in time: stdin, stderr"), "{text}");
}

#[tokio::test]
async fn streams_that_nobody_knows_are_refused_and_the_others_serve() {
    let fixture = Fixture::new().await;
    let (mut sender, mut receiver) = open(&fixture.exec(OUT, "exit 0"), V4).await;
    let other = sender.stream("stdlog").await;
    let nameless = sender.syn(Headers::default()).await;
    // Not part of the request: it is there, and there is nothing on it.
    let stderr = sender.stream("stderr").await;
    let error = sender.stream("error").await;
    let twice = sender.stream("error").await;
    sender.stream("stdout").await;
    receiver.all().await;
    for refused in [other, nameless, twice] {
        assert_eq!(receiver.streams[&refused].reset, Some(1));
    }
    assert!(receiver.streams[&stderr].ended);
    assert_eq!(receiver.text(error), SUCCESS);
}
