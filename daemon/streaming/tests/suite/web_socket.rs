//! Processes for a client of WebSocket.

use bosun_streaming::HangUp;
use futures::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;

use crate::fake::{ALL, Fixture, OUT, TERMINAL, Told, pattern, within};
use crate::socket::{all, open, receive, send};

const V5: Option<&str> = Some("v5.channel.k8s.io");
const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn fifty_megabytes_go_both_ways() {
    let mut fixture = Fixture::new().await;
    let socket = open(&fixture.exec(ALL, "cat"), V5).await;
    let (mut sink, mut stream) = socket.split();
    let bytes = pattern(50 << 20);
    let sent = bytes.clone();
    let sending = tokio::spawn(async move {
        let mut rest = sent.as_slice();
        let mut size = 1;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            let message = [&[0], piece].concat();
            sink.send(Message::Binary(message.into())).await.unwrap();
            size = (size * 3) % 300_007;
            rest = after;
        }
        sink.send(Message::Binary(vec![255, 0].into())).await.unwrap();
        sink
    });
    let mut came: [Vec<u8>; 4] = Default::default();
    let mut code = None;
    while let Some(Ok(message)) = within(stream.next()).await {
        match message {
            Message::Binary(bytes) => came[usize::from(bytes[0])].extend(&bytes[1..]),
            Message::Close(frame) => code = frame.map(|frame| u16::from(frame.code)),
            other => panic!("{other:?}"),
        }
    }
    drop(sending.await.unwrap());
    assert!(came[1] == bytes);
    assert_eq!(String::from_utf8_lossy(&came[3]), SUCCESS);
    assert_eq!(code, Some(1000));
    assert_eq!(fixture.told().await, Told::Done);
}

#[tokio::test]
async fn every_version_tells_the_end_in_its_way() {
    let fixture = Fixture::new().await;
    let plain = "command terminated with exit code 7";
    for (name, coded) in [
        (V5, true),
        (Some("v4.channel.k8s.io"), true),
        (Some("v4.base64.channel.k8s.io"), true),
        (Some("channel.k8s.io"), false),
        (Some("base64.channel.k8s.io"), false),
        (None, false),
    ] {
        let text = name.is_some_and(|name| name.contains("base64"));
        let mut socket = open(&fixture.exec(OUT, "exit 7"), name).await;
        // The connection stands: nothing on the first channel.
        assert_eq!(receive(&mut socket, text).await, Ok((1, Vec::new())));
        let (came, code) = all(&mut socket, text).await;
        let end = String::from_utf8_lossy(&came[3]);
        assert_eq!(code, 1000);
        assert_eq!(end.contains(r#"{"reason":"ExitCode","message":"7"}"#), coded, "{name:?}");
        assert_eq!(end == plain, !coded, "{name:?}");
    }
}

#[tokio::test]
async fn the_end_of_stdin_and_sizes_have_their_messages() {
    let fixture = Fixture::new().await;
    let mut socket = open(&fixture.exec(ALL, "count"), V5).await;
    send(&mut socket, false, 0, &pattern(1000)).await;
    send(&mut socket, false, 255, &[0]).await;
    let (came, _) = all(&mut socket, false).await;
    assert_eq!(came[1], b"1000 true");

    let mut socket = open(&fixture.exec(TERMINAL, "sizes 3"), V5).await;
    for size in [r#"{"Width":80,"Height":24}"#, r#"{"width":132,"height":50}"#] {
        send(&mut socket, false, 4, size.as_bytes()).await;
    }
    send(&mut socket, false, 4, br#"{"Width":1,"#).await;
    send(&mut socket, false, 4, br#""Height":2}"#).await;
    let (came, _) = all(&mut socket, false).await;
    assert_eq!(came[1], b"80x24 132x50 1x2 ");
}

/// There are clients that send text, and some that ping.
#[tokio::test]
async fn text_and_pings_are_taken() {
    let fixture = Fixture::new().await;
    let mut socket = open(&fixture.exec(ALL, "cat"), V5).await;
    socket.send(Message::Text("\0as text".into())).await.unwrap();
    socket.send(Message::Ping("p".into())).await.unwrap();
    let mut pong = None;
    let mut out = Vec::new();
    while pong.is_none() || out.len() < 7 {
        match within(socket.next()).await.unwrap().unwrap() {
            Message::Pong(bytes) => pong = Some(bytes),
            Message::Binary(bytes) => out.extend(&bytes[1..]),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((pong.unwrap().as_ref(), out.as_slice()), (b"p".as_slice(), b"as text".as_slice()));
    socket.close(None).await.unwrap();
}

#[tokio::test]
async fn messages_that_break_the_protocol_end_the_connection() {
    let mut fixture = Fixture::new().await;
    let large = vec![0; (4 << 20) + 1];
    for (name, message, code, reason) in [
        (V5, Message::Binary(vec![9, 1].into()), 1002, "channel 9"),
        (V5, Message::Binary(vec![255].into()), 1002, "1 bytes, not 2"),
        (V5, Message::Binary(vec![255, 7].into()), 1002, "channel 7"),
        (V5, Message::Binary(large.into()), 1009, "too long"),
        (Some("v4.base64.channel.k8s.io"), Message::Text("0?".into()), 1002, "base64"),
        (Some("v4.channel.k8s.io"), Message::Binary(vec![255, 0].into()), 1002, "channel 255"),
    ] {
        let text = name.is_some_and(|name| name.contains("base64"));
        let mut socket = open(&fixture.exec(ALL, "ready"), name).await;
        while receive(&mut socket, text).await.unwrap().1 != b"ready" {}
        let _ = socket.send(message).await;
        assert_eq!(receive(&mut socket, text).await, Err(code), "{reason}");
        let Told::HangUp(HangUp::Client(told)) = fixture.told().await else { panic!() };
        assert!(told.contains(reason), "{told:?} has no {reason:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_told_of() {
    let mut fixture = Fixture::new().await;
    for orderly in [true, false] {
        let mut socket = open(&fixture.exec(ALL, "ready"), V5).await;
        while receive(&mut socket, false).await.unwrap().1 != b"ready" {}
        if orderly {
            socket.close(None).await.unwrap();
        }
        drop(socket);
        let told = fixture.told().await;
        assert!(matches!(told, Told::HangUp(HangUp::Client(_))), "{told:?}");
    }
}
