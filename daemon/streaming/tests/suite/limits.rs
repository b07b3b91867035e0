//! What a client can't do: URLs, memory, frames that are none.

use std::time::Duration;

use bosun_streaming::spdy::Headers;
use bosun_streaming::spdy::frame::Control;
use bosun_streaming::{Config, Tls};
use bosun_streaming::{HangUp, MAX_OUTSTANDING, PortForward, Refusal, Request, StartError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fake::{ALL, Fixture, OUT, Told};
use crate::http::{SPDY, ask, connect};
use crate::spdy::open;

const V4: [(&str, &str); 1] = [("X-Stream-Protocol-Version", "v4.channel.k8s.io")];

async fn status(url: &str, method: &str, headers: &[(&str, &str)]) -> u16 {
    ask(&mut connect(url).await, method, url, headers).await.status
}

#[tokio::test]
async fn a_url_works_once_and_for_what_it_was_made() {
    let fixture = Fixture::new().await;
    let url = fixture.exec(OUT, "exit 0");
    let spdy = [SPDY.as_slice(), &V4].concat();
    let attach = url.replace("/exec/", "/attach/");
    assert_eq!(status(&attach, "POST", &spdy).await, 404);
    // What could not have been served does not use it up.
    assert_eq!(status(&url, "GET", &[]).await, 400);
    assert_eq!(status(&url, "PUT", &spdy).await, 405);
    assert_eq!(status(&url, "GET", &SPDY).await, 400);
    let new = [SPDY.as_slice(), &[("X-Stream-Protocol-Version", "v9.channel.k8s.io")]].concat();
    assert_eq!(status(&url, "GET", &new).await, 403);
    assert_eq!(status(&url, "GET", &spdy).await, 101);
    assert_eq!(status(&url, "GET", &spdy).await, 404);
    let guess = format!("{}0", &url[..url.len() - 1]);
    assert_eq!(status(&guess, "POST", &spdy).await, 404);
    assert_eq!(status(&url.replace("/exec/", "/"), "GET", &spdy).await, 404);
}

#[tokio::test]
async fn a_thousand_urls_wait_at_most_and_one_that_is_used_makes_room() {
    let fixture = Fixture::new().await;
    let request = || Request::PortForward(PortForward { sandbox: "s".to_owned(), ports: vec![] });
    let url = fixture.exec(OUT, "exit 0");
    for _ in 1..MAX_OUTSTANDING {
        fixture.server.url_for(request()).unwrap();
    }
    let refused = fixture.server.url_for(request());
    assert_eq!(refused, Err(Refusal::TooManyOutstanding));
    assert_eq!(status(&url, "POST", &[SPDY.as_slice(), &V4].concat()).await, 101);
    fixture.server.url_for(request()).unwrap();
}

#[tokio::test]
async fn connections_beyond_their_number_wait_for_a_place() {
    let fixture = Fixture::with(Config { connections: 2, ..Config::default() }).await;
    let url = fixture.exec(OUT, "exit 0");
    let half_open = (connect(&url).await, connect(&url).await);
    let mut third = Box::pin(status(&url, "GET", &[]));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut third).await;
    assert!(early.is_err(), "it was served: {early:?}");
    drop(half_open);
    assert_eq!(third.await, 400);
}

#[tokio::test]
async fn a_head_that_is_too_large_ends_the_connection() {
    let fixture = Fixture::new().await;
    let url = fixture.exec(OUT, "exit 0");
    let mut stream = connect(&url).await;
    let path = crate::http::split(&url).1;
    let head = format!("GET {path} HTTP/1.1\r\nX-Long: {}", "x".repeat(300 << 10));
    let sent = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let read = crate::fake::within(stream.read_to_end(&mut answer)).await;
    let refused = answer.starts_with(b"HTTP/1.1 431 ");
    assert!(refused || sent.is_err() || read.is_err(), "{}", String::from_utf8_lossy(&answer));
    // And the URL has not been used.
    assert_eq!(status(&url, "POST", &[SPDY.as_slice(), &V4].concat()).await, 101);
}

/// For every way to break SPDY: the connection ends with a GOAWAY, and the runtime is told why.
#[tokio::test]
async fn bytes_that_are_no_frames_end_the_connection() {
    let mut fixture = Fixture::new().await;
    let bad: [(&[u8], &str); 8] = [
        (&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1], "version 2"),
        (&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff], "16777215 bytes"),
        (&[0x80, 3, 0, 6, 0, 0, 0, 5, 0, 0, 0, 1, 1], "5 bytes"),
        (&[0x80, 3, 0, 6, 7, 0, 0, 4, 0, 0, 0, 1], "flags 0x07"),
        (&[0, 0, 0, 0, 0, 0, 0, 0], "stream 0"),
        (&[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1], "stream 0"),
        (
            &[0x80, 3, 0, 1, 0, 0, 0, 14, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255],
            "inflated",
        ),
        (&[0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 9], "bytes, which it can't have"),
    ];
    for (bytes, reason) in bad {
        let (mut sender, mut receiver) = open(&fixture.exec(OUT, "ready"), V4[0].1).await;
        sender.stream("error").await;
        let stdout = sender.stream("stdout").await;
        receiver.until(|receiver| receiver.has(stdout, "ready")).await;
        sender.raw(bytes).await;
        receiver.all().await;
        assert_eq!(receiver.goaway, Some(1), "{bytes:?}");
        let Told::HangUp(HangUp::Client(told)) = fixture.told().await else { panic!() };
        assert!(told.contains(reason), "{told:?} has no {reason:?}");
    }
}

#[tokio::test]
async fn stream_numbers_go_up_and_are_odd() {
    let mut fixture = Fixture::new().await;
    for stream in [2, 1] {
        let (mut sender, mut receiver) = open(&fixture.exec(OUT, "ready"), V4[0].1).await;
        sender.stream("error").await;
        let stdout = sender.stream("stdout").await;
        receiver.until(|receiver| receiver.has(stdout, "ready")).await;
        let headers = Headers::default().with("streamType", "stdin");
        let syn = Control::SynStream { stream, fin: false, unidirectional: false, headers };
        sender.control(&syn).await;
        receiver.all().await;
        assert_eq!(receiver.goaway, Some(1));
        assert!(matches!(fixture.told().await, Told::HangUp(HangUp::Client(_))));
    }
}

#[tokio::test]
async fn data_for_no_stream_resets_it_alone() {
    let fixture = Fixture::new().await;
    let (mut sender, mut receiver) = open(&fixture.exec(ALL, "cat"), V4[0].1).await;
    let error = sender.stream("error").await;
    let stdin = sender.stream("stdin").await;
    let stdout = sender.stream("stdout").await;
    sender.stream("stderr").await;
    sender.data(99, &[1; 200_000], false).await;
    sender.data(error, b"", true).await;
    sender.data(error, b"more", false).await;
    sender.data(stdin, b"still here", true).await;
    receiver.all().await;
    assert_eq!(receiver.streams[&99].reset, Some(2));
    assert_eq!(receiver.streams[&error].reset, Some(9));
    assert_eq!(receiver.text(stdout), "still here");
}

/// A process that writes for ever, and a client that does not read: what has been written stays
/// below what the buffers of the kernel and ours hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_stops_the_process_and_nothing_grows() {
    let mut fixture = Fixture::new().await;
    let directory = tempfile::tempdir().unwrap();
    let count = directory.path().join("count");
    let command = format!("flood {}", count.display());
    let (mut sender, receiver) = open(&fixture.exec(OUT, &command), V4[0].1).await;
    sender.stream("error").await;
    sender.stream("stdout").await;
    let written = || {
        let text = std::fs::read_to_string(&count).unwrap_or_default();
        text.parse::<u64>().unwrap_or_default()
    };
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = written();
        if now > 0 && now == before {
            break;
        }
        before = now;
        assert!(now < 64 << 20, "{now} bytes are somewhere");
    }
    drop((sender, receiver));
    assert!(matches!(fixture.told().await, Told::HangUp(HangUp::Client(_))));
}

/// A peer that has windows gets no more than they hold, of a stream and of the connection.
#[tokio::test(flavor = "multi_thread")]
async fn windows_are_minded_once_the_client_has_shown_some() {
    let fixture = Fixture::new().await;
    let (mut sender, mut receiver) = open(&fixture.exec(ALL, "both 1000000"), V4[0].1).await;
    sender.control(&Control::Settings { initial_window: Some(1000) }).await;
    sender.control(&Control::WindowUpdate { stream: 0, delta: 1 }).await;
    sender.stream("error").await;
    sender.stream("stdin").await;
    let stdout = sender.stream("stdout").await;
    let stderr = sender.stream("stderr").await;
    let sizes = |receiver: &crate::spdy::Receiver<_>| {
        [stdout, stderr].map(|id| receiver.streams.get(&id).map_or(0, |came| came.bytes.len()))
    };
    receiver.until(|receiver| sizes(receiver) == [1000, 1000]).await;
    sender.control(&Control::WindowUpdate { stream: stdout, delta: 100_000 }).await;
    sender.control(&Control::WindowUpdate { stream: stderr, delta: 500 }).await;
    // The connection's window is 64 KiB and one byte.
    receiver
        .until(|receiver| {
            let [out, err] = sizes(receiver);
            assert!(err <= 1500 && out + err <= 65537);
            out + err == 65537
        })
        .await;
    // What is not covered does not come: a ping is answered, and nothing else.
    sender.control(&Control::Ping { id: 1 }).await;
    receiver.until(|receiver| receiver.pings == [1]).await;
    assert_eq!(sizes(&receiver).iter().sum::<usize>(), 65537);
    sender.control(&Control::Settings { initial_window: Some(2_000_000) }).await;
    sender.control(&Control::WindowUpdate { stream: 0, delta: 2_000_000 }).await;
    receiver.until(|receiver| sizes(receiver) == [1_000_000, 999_999]).await;
}

#[tokio::test]
async fn the_stream_that_is_one_too_many_is_refused() {
    let fixture = Fixture::new().await;
    let request = Request::PortForward(PortForward { sandbox: "s".to_owned(), ports: vec![] });
    let url = fixture.server.url_for(request).unwrap();
    let (mut sender, mut receiver) = open(&url, "portforward.k8s.io").await;
    for id in 0..1025 {
        let headers = Headers::default().with("streamType", "error").with("port", "1");
        sender.syn(headers.with("requestID", &id.to_string())).await;
        if id % 100 == 99 {
            receiver.until(|receiver| receiver.streams.len() > id).await;
        }
    }
    receiver.until(|receiver| receiver.streams.len() == 1025).await;
    let refused = receiver.streams.iter().filter(|(_, came)| came.reset == Some(3));
    assert_eq!(refused.map(|(id, _)| *id).collect::<Vec<_>>(), [2 * 1024 + 1]);
}

#[tokio::test]
async fn files_of_tls_that_cannot_be_read_are_named() {
    let tls = Tls { certificate: "/nowhere/cert.pem".into(), key: "/nowhere/key.pem".into() };
    let config = Config { tls: Some(tls), ..Config::default() };
    let fake = std::sync::Arc::new(crate::fake::Fake::deaf());
    let error = bosun_streaming::Server::start(config, fake).await.unwrap_err();
    assert!(matches!(error, StartError::Tls { .. }));
    assert!(error.to_string().starts_with("/nowhere/cert.pem: "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_through_tls() {
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=node", "-addext"])
        .args(["subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(path("key.pem"))
        .arg("-out")
        .arg(path("cert.pem"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let tls = Tls { certificate: path("cert.pem"), key: path("key.pem") };
    let fixture = Fixture::with(Config { tls: Some(tls), ..Config::default() }).await;
    let url = fixture.exec(ALL, "cat");
    assert!(url.starts_with("https://127.0.0.1:"));

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(path("cert.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(std::sync::Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(std::sync::Arc::new(config));
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut io = connector.connect(name, connect(&url).await).await.unwrap();
    let head = ask(&mut io, "POST", &url, &[SPDY.as_slice(), &V4].concat()).await;
    assert_eq!(head.status, 101);
    let (mut sender, mut receiver) = crate::spdy::over(io);
    sender.stream("error").await;
    let stdin = sender.stream("stdin").await;
    let stdout = sender.stream("stdout").await;
    sender.stream("stderr").await;
    let bytes = crate::fake::pattern(5 << 20);
    let sent = bytes.clone();
    let sending = tokio::spawn(async move {
        for piece in sent.chunks(50_000) {
            sender.data(stdin, piece, false).await;
        }
        sender.data(stdin, b"", true).await;
        sender
    });
    receiver.all().await;
    sending.await.unwrap();
    assert!(receiver.streams[&stdout].bytes == bytes);

    // Without TLS there is nothing to be had.
    let mut plain = connect(&url).await;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}
