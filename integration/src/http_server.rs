//! A small HTTP server inside a network namespace, whose every byte the test decides.
//!
//! HTTP/1.1 with kept connections, a thread for each; chunked bodies are read. What it answers is
//! written by a handler straight to the socket, so that it can also be no HTTP at all.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::netns::NetNs;

/// How often a thread that waits for the network looks whether the server has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A parameter of the query, decoded.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.parameters(name).into_iter().next()
    }

    /// Every parameter of that name.
    #[must_use]
    pub fn parameters(&self, name: &str) -> Vec<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| decode(value)).collect()
    }
}

/// Percent-decoding, with `+` as a blank.
fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, hex.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Where the answer goes.
#[derive(Debug)]
pub struct Out<'a> {
    stream: &'a TcpStream,
    ended: &'a AtomicBool,
    head_only: bool,
}

impl Out<'_> {
    /// A whole answer. A HEAD request gets its head.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn answer(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        self.head(status, headers, body.len() as u64)?;
        if self.head_only { Ok(()) } else { self.bytes(body) }
    }

    /// The head alone, promising so many bytes.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn head(&mut self, status: u16, headers: &[(&str, &str)], length: u64) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {status} status\r\nContent-Length: {length}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.bytes(format!("{head}\r\n").as_bytes())
    }

    /// # Errors
    /// When the client is gone.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    #[must_use]
    pub fn is_head(&self) -> bool {
        self.head_only
    }

    /// Sleeps until the condition holds, the server ends, or the client has hung up; was it the
    /// condition?
    pub fn wait(&mut self, mut condition: impl FnMut() -> bool) -> bool {
        while !self.ended.load(Ordering::Relaxed) && !self.hung_up() {
            if condition() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn hung_up(&self) -> bool {
        let mut byte = [0];
        // The reading side waits LOOK at most, and only one thread uses it.
        matches!(self.stream.peek(&mut byte), Ok(0))
    }
}

/// Answers one request. An error ends the connection.
pub type Handler = dyn Fn(&Request, &mut Out<'_>) -> io::Result<()> + Send + Sync;

/// A server, ended with this value.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Server {
    /// Listens on a free port of a loopback address in the namespace.
    ///
    /// # Panics
    /// When it can't.
    pub fn start(netns: &NetNs, address: Ipv4Addr, handler: Arc<Handler>) -> Self {
        let listener = netns
            .run(|| TcpListener::bind((IpAddr::V4(address), 0)))
            .expect("a free port in the namespace");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("a socket");
        let (ended, connections) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let accepting = {
            let (ended, connections) = (ended.clone(), Arc::clone(&connections));
            std::thread::spawn(move || accept(&listener, &ended, &connections, &handler))
        };
        Self { address, ended, accepting: Some(accepting), connections }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
        let open = self.connections.lock().map(|mut all| std::mem::take(&mut *all));
        for thread in open.unwrap_or_default() {
            let _ = thread.join();
        }
    }
}

fn accept(
    listener: &TcpListener,
    ended: &Arc<AtomicBool>,
    connections: &Mutex<Vec<JoinHandle<()>>>,
    handler: &Arc<Handler>,
) {
    while !ended.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        let (ended, handler) = (ended.clone(), handler.clone());
        let thread = std::thread::spawn(move || {
            // The client going away is nothing special here.
            let _ = serve(&stream, &ended, &*handler);
        });
        connections.lock().expect("no thread panics with it").push(thread);
    }
}

fn serve(stream: &TcpStream, ended: &AtomicBool, handler: &Handler) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOOK))?;
    // A client that doesn't read must not keep the test from ending.
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    let mut reader = BufReader::new(Patient { stream, ended });
    while let Some(request) = read_request(&mut reader, stream)? {
        let head_only = request.method == "HEAD";
        handler(&request, &mut Out { stream, ended, head_only })?;
        if request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            break;
        }
    }
    Ok(())
}

/// Reads that wait for as long as the server lives.
struct Patient<'a> {
    stream: &'a TcpStream,
    ended: &'a AtomicBool,
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    if self.ended.load(Ordering::Relaxed) {
                        return Ok(0);
                    }
                }
                result => return result,
            }
        }
    }
}

/// The next request; none when the client has closed.
fn read_request(reader: &mut impl BufRead, mut stream: &TcpStream) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut request = Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: Vec::new(),
    };
    if request.header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if request.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        request.body = read_chunks(reader)?;
    } else if let Some(length) = request.header("content-length").and_then(|text| text.parse().ok())
    {
        request.body = vec![0; length];
        reader.read_exact(&mut request.body)?;
    }
    Ok(Some(request))
}

fn read_chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = line.trim().split(';').next().unwrap_or_default().to_owned();
        let size = usize::from_str_radix(&size, 16)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let from = body.len();
        body.resize(from + size, 0);
        reader.read_exact(&mut body[from..])?;
        line.clear();
        reader.read_line(&mut line)?;
        if size == 0 {
            return Ok(body);
        }
    }
}
