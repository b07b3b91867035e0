//! A registry that does what a test tells it, down to the bytes of a broken answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bosun_image::{Descriptor, Digest};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Which of all connections it came on.
    pub(crate) connection: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// What to answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Option<usize>,
    end: End,
}

#[derive(Clone, Copy, Debug)]
enum End {
    /// The connection is used again.
    Whole,
    /// It is closed after so many bytes of the body.
    Cut(usize),
    /// One byte at a time.
    Drip(Duration),
    /// After so many bytes of the body nothing comes any more.
    Silence(usize),
    /// Not even headers come.
    Dead,
    Chunked,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (headers, body) = (Vec::new(), body.into());
        Self { status, headers, body, length: None, end: End::Whole }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, body)
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Says another length than the body has.
    pub(crate) fn saying(self, length: usize) -> Self {
        Self { length: Some(length), ..self }
    }

    pub(crate) fn cut(self, after: usize) -> Self {
        Self { end: End::Cut(after), ..self }
    }

    pub(crate) fn drip(self, every: Duration) -> Self {
        Self { end: End::Drip(every), ..self }
    }

    pub(crate) fn silent_after(self, bytes: usize) -> Self {
        Self { end: End::Silence(bytes), ..self }
    }

    pub(crate) fn dead() -> Self {
        Self { end: End::Dead, ..Self::ok("") }
    }

    pub(crate) fn chunked(self) -> Self {
        Self { end: End::Chunked, ..self }
    }

    pub(crate) fn redirect(to: &str) -> Self {
        Self::new(307, "").with("Location", to)
    }

    pub(crate) fn challenge(challenge: &str) -> Self {
        Self::new(401, "").with("WWW-Authenticate", challenge)
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A running fake; it ends with its value.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub(crate) async fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::default();
        let (all, handler): (_, Arc<Handler>) = (Arc::clone(&seen), Arc::new(handler));
        let task = tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (all, handler) = (Arc::clone(&all), Arc::clone(&handler));
                tokio::spawn(async move {
                    // A client that goes away ends its connection, and nothing else.
                    let _ = serve(stream, connection, &all, &*handler).await;
                });
            }
        });
        Self { address, seen, task }
    }

    /// As in an image's name.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Method and path of all requests.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.seen().iter().map(|request| format!("{} {}", request.method, request.path)).collect()
    }
}

async fn serve(
    stream: TcpStream,
    connection: usize,
    seen: &Mutex<Vec<Request>>,
    handler: &Handler,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
            if head[0] == 0x16 {
                // A TLS handshake; what Go's server says to it.
                stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await?;
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let mut first = lines.next().unwrap_or_default().split(' ');
        let mut request = Request {
            method: first.next().unwrap_or_default().to_owned(),
            path: first.next().unwrap_or_default().to_owned(),
            headers: lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: Vec::new(),
            connection,
        };
        let length = request.header("content-length").and_then(|text| text.parse().ok());
        request.body.resize(length.unwrap_or(0), 0);
        stream.read_exact(&mut request.body).await?;
        let reply = handler(&request);
        let head_only = request.method == "HEAD";
        seen.lock().unwrap().push(request);
        if !answer(stream.get_mut(), reply, head_only).await? {
            return Ok(());
        }
    }
}

/// Whether the connection can be used again.
async fn answer(stream: &mut TcpStream, reply: Reply, head_only: bool) -> std::io::Result<bool> {
    let Reply { status, headers, body, length, end } = reply;
    if let End::Dead = end {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    let mut head = format!("HTTP/1.1 {status} Status\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &if let End::Chunked = end {
        "Transfer-Encoding: chunked\r\n\r\n".to_owned()
    } else {
        format!("Content-Length: {}\r\n\r\n", length.unwrap_or(body.len()))
    };
    stream.write_all(head.as_bytes()).await?;
    if head_only {
        return Ok(true);
    }
    match end {
        End::Whole => stream.write_all(&body).await?,
        End::Cut(after) => {
            stream.write_all(&body[..after]).await?;
            return Ok(false);
        }
        End::Drip(every) => {
            for byte in body {
                stream.write_all(&[byte]).await?;
                tokio::time::sleep(every).await;
            }
        }
        End::Silence(after) => {
            stream.write_all(&body[..after]).await?;
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        End::Chunked => {
            stream.write_all(format!("{:x}\r\n", body.len()).as_bytes()).await?;
            stream.write_all(&body).await?;
            stream.write_all(b"\r\n0\r\n\r\n").await?;
        }
        End::Dead => {}
    }
    Ok(true)
}

/// Bytes that no two places of are alike.
pub(crate) fn blob(length: usize) -> (Vec<u8>, Descriptor) {
    let bytes: Vec<u8> =
        (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let descriptor = Descriptor::new(
        bosun_image::media_type::OCI_LAYER_GZIP,
        Digest::of(&bytes),
        bytes.len() as u64,
    );
    (bytes, descriptor)
}
