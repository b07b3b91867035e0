//! Connections into a sandbox, over SPDY, in a tunnel, and the old way.

use std::time::Duration;

use bosun_streaming::spdy::Headers;
use bosun_streaming::{Config, PortForward, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::fake::{Fixture, pattern, within};
use crate::socket;
use crate::spdy::{Receiver, Sender, open, over};

const V1: &str = "portforward.k8s.io";

fn url(fixture: &Fixture, ports: &[u16]) -> String {
    let forward = PortForward { sandbox: "s".to_owned(), ports: ports.to_vec() };
    fixture.server.url_for(Request::PortForward(forward)).unwrap()
}

/// Something that listens, and what it does with each who comes.
async fn listen<F, T>(serve: F) -> u16
where
    F: Fn(TcpStream) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

/// Gives back what it has got once that is at its end.
async fn after(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
}

async fn echo(stream: TcpStream) {
    let (mut read, mut write) = stream.into_split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

async fn pair<Io: tokio::io::AsyncRead + tokio::io::AsyncWrite>(
    sender: &mut Sender<Io>,
    id: &str,
    port: u16,
) -> (u32, u32) {
    let headers = |kind: &str| {
        let headers = Headers::default().with("streamType", kind);
        headers.with("port", &port.to_string()).with("requestID", id)
    };
    let error = sender.syn(headers("error")).await;
    sender.data(error, b"", true).await;
    (error, sender.syn(headers("data")).await)
}

fn ended<Io>(receiver: &Receiver<Io>, stream: u32) -> bool {
    receiver.streams.get(&stream).is_some_and(|came| came.ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_go_side_by_side_and_each_direction_ends_by_itself() {
    let fixture = Fixture::new().await;
    let port = listen(after).await;
    let (mut sender, mut receiver) = open(&url(&fixture, &[]), V1).await;
    let mut pairs = Vec::new();
    for n in 0..50 {
        pairs.push(pair(&mut sender, &n.to_string(), port).await);
    }
    let all = pattern(50 * 20_000);
    let parts: Vec<Vec<u8>> = all.chunks(20_000).map(<[u8]>::to_vec).collect();
    let (sent, data) = (parts.clone(), pairs.clone());
    let sending = tokio::spawn(async move {
        for at in (0..20_000).step_by(5000) {
            for ((_, data), part) in data.iter().zip(&sent) {
                sender.data(*data, &part[at..at + 5000], at == 15_000).await;
            }
        }
        sender
    });
    receiver
        .until(|receiver| {
            pairs.iter().all(|(error, data)| ended(receiver, *error) && ended(receiver, *data))
        })
        .await;
    for ((error, data), part) in pairs.iter().zip(&parts) {
        assert!(receiver.streams[data].bytes == *part);
        assert!(receiver.streams[error].bytes.is_empty());
    }
    drop(sending.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_megabytes_go_there_and_back() {
    let fixture = Fixture::new().await;
    let port = listen(echo).await;
    let (mut sender, mut receiver) = open(&url(&fixture, &[]), V1).await;
    let (error, data) = pair(&mut sender, "0", port).await;
    let bytes = pattern(50 << 20);
    let sent = bytes.clone();
    let sending = tokio::spawn(async move {
        for piece in sent.chunks(32 << 10) {
            sender.data(data, piece, false).await;
        }
        sender.data(data, b"", true).await;
        sender
    });
    receiver.until(|receiver| ended(receiver, data) && ended(receiver, error)).await;
    assert!(receiver.streams[&data].bytes == bytes);
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn a_port_behind_which_there_is_nobody_is_said_and_the_others_serve() {
    let fixture = Fixture::new().await;
    let port = listen(after).await;
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let (mut sender, mut receiver) = open(&url(&fixture, &[]), V1).await;
    let (bad_error, bad) = pair(&mut sender, "1", closed).await;
    receiver.until(|receiver| ended(receiver, bad_error)).await;
    let text = receiver.text(bad_error);
    assert!(text.starts_with(&format!("port {closed} of sandbox s: ")), "{text}");
    assert_eq!(receiver.streams[&bad].reset, Some(5));
    let (error, data) = pair(&mut sender, "2", port).await;
    sender.data(data, b"there", true).await;
    receiver.until(|receiver| ended(receiver, data) && ended(receiver, error)).await;
    assert_eq!(receiver.text(data), "there");
}

#[tokio::test]
async fn what_is_no_pair_is_refused() {
    let creation = Duration::from_millis(200);
    let fixture = Fixture::with(Config { creation, ..Config::default() }).await;
    let (mut sender, mut receiver) = open(&url(&fixture, &[]), V1).await;
    let mut refused = Vec::new();
    for (kind, port) in [("data", "0"), ("data", "65536"), ("data", "x"), ("stdin", "80")] {
        let headers = Headers::default().with("streamType", kind).with("port", port);
        refused.push(sender.syn(headers).await);
    }
    let data = Headers::default().with("streamType", "data");
    refused.push(sender.syn(data).await);
    let alone = |kind| {
        let headers = Headers::default().with("streamType", kind).with("port", "80");
        headers.with("requestID", kind)
    };
    let error = sender.syn(alone("error")).await;
    let twice = sender.syn(alone("error")).await;
    let data = sender.syn(alone("data")).await;
    receiver
        .until(|receiver| {
            let reset = receiver.streams.get(&data).is_some_and(|came| came.reset.is_some());
            ended(receiver, error) && reset
        })
        .await;
    assert_eq!(receiver.text(error), "the data stream of request error did not come in time");
    for stream in [refused.as_slice(), &[twice]].concat() {
        assert_eq!(receiver.streams[&stream].reset, Some(1), "{stream}");
    }
}

#[tokio::test]
async fn clients_without_request_ids_have_pairs_by_their_numbers() {
    let fixture = Fixture::new().await;
    let port = listen(after).await.to_string();
    let (mut sender, mut receiver) = open(&url(&fixture, &[]), V1).await;
    let of = |kind| Headers::default().with("streamType", kind).with("port", &port);
    let error = sender.syn(of("error")).await;
    let data = sender.syn(of("data")).await;
    sender.data(data, b"old", true).await;
    receiver.until(|receiver| ended(receiver, data) && ended(receiver, error)).await;
    assert_eq!(receiver.text(data), "old");
}

#[tokio::test]
async fn a_connection_ends_with_its_client_or_with_its_reset() {
    let fixture = Fixture::new().await;
    let (gone, mut going) = tokio::sync::mpsc::unbounded_channel();
    let port = listen(move |mut stream| {
        let gone = gone.clone();
        async move {
            let read = stream.read_to_end(&mut Vec::new()).await;
            gone.send(read.is_ok()).unwrap();
        }
    })
    .await;
    let (mut sender, mut receiver) = open(&url(&fixture, &[]), V1).await;
    let (error, data) = pair(&mut sender, "0", port).await;
    receiver.until(|receiver| receiver.streams.len() == 2).await;
    sender.data(data, b"x", false).await;
    sender.reset(data).await;
    receiver.until(|receiver| ended(receiver, error)).await;
    within(going.recv()).await.unwrap();
    let (_, data) = pair(&mut sender, "1", port).await;
    receiver.until(|receiver| receiver.streams.contains_key(&data)).await;
    sender.data(data, b"x", false).await;
    sender.shutdown().await;
    within(going.recv()).await.unwrap();
    receiver.all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spdy_goes_through_a_tunnel_wherever_its_messages_end() {
    let fixture = Fixture::new().await;
    let port = listen(echo).await;
    let name = "SPDY/3.1+portforward.k8s.io";
    let socket = socket::open(&url(&fixture, &[]), Some(name)).await;
    let (client, carried) = tokio::io::duplex(64 << 10);
    let (mut sender, mut receiver) = over(client);
    let carrying = tokio::spawn(socket::tunnel(socket, carried));
    let (error, data) = pair(&mut sender, "0", port).await;
    let bytes = pattern(1 << 20);
    let sent = bytes.clone();
    let sending = tokio::spawn(async move {
        for piece in sent.chunks(1000) {
            sender.data(data, piece, false).await;
        }
        sender.data(data, b"", true).await;
        sender
    });
    receiver.until(|receiver| ended(receiver, data) && ended(receiver, error)).await;
    assert!(receiver.streams[&data].bytes == bytes);
    sending.await.unwrap().shutdown().await;
    carrying.await.unwrap();
}

#[tokio::test]
async fn the_old_way_has_a_pair_of_channels_for_each_port() {
    let fixture = Fixture::new().await;
    let port = listen(echo).await;
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    for name in [None, Some("v4.channel.k8s.io"), Some("v4.base64.channel.k8s.io")] {
        let mut web = socket::open(&url(&fixture, &[port, closed]), name).await;
        let text = name.is_some_and(|name| name.contains("base64"));
        socket::send(&mut web, text, 0, b"hello").await;
        let mut came = vec![Vec::new(); 4];
        while came[0].len() < 7 || came[3].len() < 10 {
            let (channel, bytes) = socket::receive(&mut web, text).await.unwrap();
            came[usize::from(channel)].extend(bytes);
        }
        assert_eq!(came[0], [port.to_le_bytes().as_slice(), b"hello"].concat());
        assert_eq!(came[1], port.to_le_bytes());
        assert_eq!(came[2], closed.to_le_bytes());
        let error = String::from_utf8_lossy(&came[3][2..]);
        assert!(error.starts_with(&format!("port {closed} of sandbox s: ")), "{error}");
    }
}
