//! HTTP requests from inside a network namespace: what the tests need, over one connection each.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::netns;
use crate::wait::patiently;

const LIMIT: Duration = Duration::from_secs(5);
/// A registry may be busy writing what it was sent.
const LONG_LIMIT: Duration = Duration::from_secs(60);

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub body: String,
}

/// The same with headers (lower case) and any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// `GET path` from inside the network namespace of a file.
///
/// # Errors
/// When nobody listens, the address is out of reach, or the answer isn't HTTP.
pub fn get(from: &Path, address: IpAddr, port: u16, path: &str) -> io::Result<Response> {
    let to = SocketAddr::new(address, port);
    let reply = netns::inside(from, || exchange(to, LIMIT, "GET", path, &[], &[]))?;
    Ok(Response { status: reply.status, body: String::from_utf8_lossy(&reply.body).into_owned() })
}

/// Any request from inside the network namespace of a file.
///
/// # Errors
/// As [`get`].
pub fn send(
    from: &Path,
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Reply> {
    netns::inside(from, || exchange(to, LONG_LIMIT, method, path, headers, body))
}

fn exchange(
    to: SocketAddr,
    limit: Duration,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&to, patiently(LIMIT))?;
    stream.set_read_timeout(Some(patiently(limit)))?;
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {to}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| {
        let text = String::from_utf8_lossy(&bytes);
        io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {text:?}"))
    })
}

fn parse(bytes: &[u8]) -> Option<Reply> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split_whitespace().nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    Some(Reply { status, headers: headers.collect(), body: bytes[end + 4..].to_vec() })
}
