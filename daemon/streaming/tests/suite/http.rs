//! The client's side of HTTP, as far as an upgrade needs it.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A head: its status, and its lines in lower case.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) lines: Vec<String>,
}

impl Head {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let start = format!("{name}: ");
        self.lines.iter().find_map(|line| line.strip_prefix(&start))
    }
}

/// `http://HOST/PATH`, in two.
pub(crate) fn split(url: &str) -> (&str, &str) {
    let (_, rest) = url.split_once("://").unwrap();
    rest.split_at(rest.find('/').unwrap())
}

pub(crate) async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(split(url).0).await.unwrap()
}

/// Sends a request, and reads the head of its answer and nothing behind it.
pub(crate) async fn ask<Io: AsyncRead + AsyncWrite + Unpin>(
    io: &mut Io,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
) -> Head {
    let (host, path) = split(url);
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    io.write_all(text.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(io.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let lower = |line: &str| {
        let (name, value) = line.split_once(':').unwrap();
        format!("{}: {}", name.to_ascii_lowercase(), value.trim())
    };
    Head { status, lines: lines.map(lower).collect() }
}

pub(crate) const SPDY: [(&str, &str); 2] = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")];

/// A test that hangs is to say where.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("nothing came in a minute")
}
