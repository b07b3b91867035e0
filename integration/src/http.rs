//! One HTTP GET, from inside a network namespace.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::netns;

const LIMIT: Duration = Duration::from_secs(5);

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub body: String,
}

/// `GET path` from inside the network namespace of a file.
///
/// # Errors
/// When nobody listens, the address is out of reach, or the answer isn't HTTP.
pub fn get(from: &Path, address: IpAddr, port: u16, path: &str) -> io::Result<Response> {
    netns::inside(from, || fetch(SocketAddr::new(address, port), path))
}

fn fetch(to: SocketAddr, path: &str) -> io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {to}\r\n\r\n")?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {text:?}"));
    let status = text
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split_whitespace().nth(1))
        .and_then(|word| word.parse().ok())
        .ok_or_else(malformed)?;
    let body = text.split_once("\r\n\r\n").ok_or_else(malformed)?.1.to_owned();
    Ok(Response { status, body })
}
