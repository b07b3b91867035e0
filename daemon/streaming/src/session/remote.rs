//! Exec and attach: a process and a client, whose streams are joined until one of them ends.
//!
//! ```text
//!   stdin   ─▶ process            the end of stdin is handed on
//!   resize  ─▶ sizes ─▶ process   JSON, one after another
//!   process ─▶ stdout, stderr     then, when both are at their end and there is an exit code:
//!   exit    ─▶ error              the status, and the connection is closed
//! ```

use std::future::pending;
use std::io;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::{Link, Session};
use crate::handshake::Version;
use crate::limits::{FAREWELL, MAX_RESIZE_BYTES, PIECE};
use crate::request::{Request, Streams};
use crate::runtime::{Failure, HangUp, Input, Output, Runtime, TerminalSize};
use crate::spdy::frame::Reset;
use crate::spdy::{self, Offers};
use crate::status;
use crate::streams::{Incoming, Outgoing};
use crate::websocket::{self, Encoding};

/// The streams of a client, as it has opened them.
#[derive(Debug, Default)]
struct Client {
    stdin: Option<Incoming>,
    resize: Option<Incoming>,
    stdout: Option<Outgoing>,
    stderr: Option<Outgoing>,
    error: Option<Outgoing>,
}

/// The type of a stream, in the order of the channels of a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Stdin,
    Stdout,
    Stderr,
    Error,
    Resize,
}

const TYPES: [(Type, &str); 5] = [
    (Type::Stdin, "stdin"),
    (Type::Stdout, "stdout"),
    (Type::Stderr, "stderr"),
    (Type::Error, "error"),
    (Type::Resize, "resize"),
];

/// Whether a request has a stream of that type.
fn has(streams: Streams, version: Version, kind: Type) -> bool {
    match kind {
        Type::Stdin => streams.stdin,
        Type::Stdout => streams.stdout,
        Type::Stderr => streams.stderr,
        Type::Error => true,
        Type::Resize => streams.tty && version >= Version::V3,
    }
}

fn streams_of(request: &Request) -> Streams {
    match request {
        Request::Exec(exec) => exec.streams,
        Request::Attach(attach) => attach.streams,
        Request::PortForward(_) => Streams::default(),
    }
}

impl<R: Runtime> Session<R> {
    pub(super) async fn spdy_remote<Io>(self, io: Io, version: Version, request: Request)
    where
        Io: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (mut offers, link) = spdy::start(io, &self.peer);
        let mut link = Link::Spdy(link);
        let mut client = Client::default();
        let streams = streams_of(&request);
        let opened = tokio::select! {
            true = client.open(&mut offers, streams, version) => true,
            () = tokio::time::sleep(self.creation) => false,
            reason = self.interrupted(&mut link) => return tracing::debug!(?reason, "no streams"),
        };
        drop(offers);
        if opened {
            self.serve(client, link, version, request).await;
        } else {
            let missing = client.missing(streams, version);
            let message = format!("the client did not open its streams in time: {missing}");
            tracing::debug!(message);
            self.end(client.error, link, version, Err(message.into())).await;
        }
    }

    pub(super) async fn web_socket_remote<Io>(
        self,
        io: Io,
        version: Version,
        encoding: Encoding,
        request: Request,
    ) where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let streams = streams_of(&request);
        // Sizes had their channel from the beginning here.
        let incoming = vec![streams.stdin, false, false, false, streams.tty];
        let closes = version >= Version::V5;
        let protocol = websocket::Protocol { encoding, closes, incoming };
        let (mut incoming, link) =
            websocket::start(websocket::over(io).await, &protocol, &self.peer);
        let writer = |kind: Type| {
            has(streams, version, kind).then(|| Outgoing::WebSocket(link.writer(kind as u8)))
        };
        let mut client = Client {
            stdin: incoming[Type::Stdin as usize].take(),
            resize: incoming[Type::Resize as usize].take(),
            stdout: writer(Type::Stdout),
            stderr: writer(Type::Stderr),
            error: writer(Type::Error),
        };
        // Nothing on the first channel: the client sees that the connection stands.
        let first = client.stdout.as_mut().or(client.stderr.as_mut()).or(client.error.as_mut());
        if let Some(first) = first {
            let _ = first.send(Bytes::new()).await;
        }
        self.serve(client, Link::WebSocket(link), version, request).await;
    }

    /// Starts or joins the process, and stays with it.
    async fn serve(self, client: Client, mut link: Link, version: Version, request: Request) {
        let started = async {
            match request {
                Request::Exec(exec) => self.runtime.exec(exec).await,
                Request::Attach(attach) => self.runtime.attach(attach).await,
                Request::PortForward(_) => Err("this is no request for a process".into()),
            }
        };
        let started = tokio::select! {
            started = started => started,
            reason = self.interrupted(&mut link) => {
                return tracing::debug!(?reason, "a session ended before its process had begun");
            }
        };
        let Client { stdin, resize, stdout, stderr, error } = client;
        let end = match started {
            Err(failure) => Err(failure),
            Ok(process) => {
                let hang_up = process.hang_up;
                let input = take_in(stdin, process.stdin, resize, process.resize);
                let output = give_out(process.exit, process.stdout, stdout, process.stderr, stderr);
                tokio::select! {
                    end = output => end,
                    () = input => return,
                    reason = self.interrupted(&mut link) => {
                        tracing::debug!(?reason, "a session ended before its process");
                        let _ = hang_up.send(reason.clone());
                        return self.interrupt(error, link, version, reason).await;
                    }
                }
            }
        };
        self.end(error, link, version, end).await;
    }

    /// Tells the client the end of its process.
    async fn end(
        &self,
        error: Option<Outgoing>,
        mut link: Link,
        version: Version,
        end: Result<i32, Failure>,
    ) {
        let said = async {
            if let Some(mut error) = error {
                let _ = error.send(status::message(version, &end).into()).await;
                error.finish().await;
            }
        };
        tokio::select! {
            () = said => {}
            reason = self.interrupted(&mut link) => {
                return tracing::debug!(?reason, "a session ended before its end was told");
            }
        }
        self.close(link).await;
    }

    /// Tells a client that still is there the end of its session.
    async fn interrupt(
        &self,
        error: Option<Outgoing>,
        link: Link,
        version: Version,
        reason: HangUp,
    ) {
        let message = match reason {
            HangUp::Client(_) => return,
            HangUp::Idle => format!("nothing came or went for {:?}", self.idle),
            HangUp::Stopping => "the server stops".to_owned(),
        };
        let told = async {
            if let Some(mut error) = error {
                let _ = error.send(status::message(version, &Err(message.into())).into()).await;
                error.finish().await;
            }
            link.close().await;
        };
        let _ = tokio::time::timeout(FAREWELL, told).await;
    }
}

impl Client {
    /// Takes the streams of a request as the client opens them; false if it can't any more.
    async fn open(&mut self, offers: &mut Offers, streams: Streams, version: Version) -> bool {
        let mut seen: Vec<Type> = Vec::new();
        while TYPES.iter().any(|(kind, _)| has(streams, version, *kind) && !seen.contains(kind)) {
            let Some(offer) = offers.next().await else { return false };
            let name = offer.headers().get("streamType").unwrap_or_default();
            let kind = TYPES.iter().find(|(_, is)| *is == name).map(|(kind, _)| *kind);
            let Some(kind) = kind.filter(|kind| !seen.contains(kind)) else {
                tracing::debug!(name, "a stream of this type is unknown, or is open already");
                offer.refuse(Reset::Protocol).await;
                continue;
            };
            seen.push(kind);
            let (incoming, writer) = offer.accept().await;
            let outgoing = Outgoing::Spdy(writer);
            if !has(streams, version, kind) {
                // Not asked for when the URL was made: there is nothing on it.
                outgoing.finish().await;
                continue;
            }
            match kind {
                Type::Stdin => self.stdin = Some(incoming),
                Type::Resize => self.resize = Some(incoming),
                Type::Stdout => self.stdout = Some(outgoing),
                Type::Stderr => self.stderr = Some(outgoing),
                Type::Error => self.error = Some(outgoing),
            }
        }
        true
    }

    fn missing(&self, streams: Streams, version: Version) -> String {
        let open = |kind| match kind {
            Type::Stdin => self.stdin.is_some(),
            Type::Resize => self.resize.is_some(),
            Type::Stdout => self.stdout.is_some(),
            Type::Stderr => self.stderr.is_some(),
            Type::Error => self.error.is_some(),
        };
        let missing = TYPES.iter().filter(|(kind, _)| has(streams, version, *kind) && !open(*kind));
        missing.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    }
}

/// What the client says, to the process. The end of it is not the end of the session.
async fn take_in(
    stdin: Option<Incoming>,
    input: Option<Input>,
    resize: Option<Incoming>,
    sizes: Option<mpsc::Sender<TerminalSize>>,
) {
    let bytes = async {
        if let (Some(stdin), Some(input)) = (stdin, input) {
            // A process that reads no more is none the client's business.
            let _ = copy_in(stdin, input).await;
        }
    };
    let sizes = async {
        if let (Some(resize), Some(sizes)) = (resize, sizes) {
            copy_sizes(resize, sizes).await;
        }
    };
    tokio::join!(bytes, sizes);
    pending::<()>().await;
}

async fn copy_in(mut stdin: Incoming, mut input: Input) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match stdin.read(&mut buffer).await? {
            0 => return input.shutdown().await,
            read => {
                input.write_all(&buffer[..read]).await?;
                input.flush().await?;
            }
        }
    }
}

#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width", alias = "width")]
    width: u16,
    #[serde(rename = "Height", alias = "height")]
    height: u16,
}

async fn copy_sizes(mut resize: Incoming, sizes: mpsc::Sender<TerminalSize>) {
    let mut text = Vec::new();
    let mut buffer = [0; 256];
    loop {
        let (whole, parsed) = parse_sizes(&text);
        text.drain(..parsed);
        for size in whole {
            if sizes.send(size).await.is_err() {
                return;
            }
        }
        match resize.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => text.extend_from_slice(&buffer[..read]),
        }
        if text.len() > MAX_RESIZE_BYTES {
            return tracing::debug!("what should be a terminal's size is none");
        }
    }
}

/// The sizes in the text, and how much of it they are. What is no size stays.
fn parse_sizes(text: &[u8]) -> (Vec<TerminalSize>, usize) {
    let mut parser = serde_json::Deserializer::from_slice(text).into_iter::<Size>();
    let mut sizes = Vec::new();
    let mut parsed = 0;
    while let Some(Ok(Size { width, height })) = parser.next() {
        sizes.push(TerminalSize { width, height });
        parsed = parser.byte_offset();
    }
    (sizes, parsed)
}

/// What the process says, to the client, and then its end.
async fn give_out(
    exit: impl Future<Output = Result<i32, Failure>>,
    output: Option<Output>,
    stdout: Option<Outgoing>,
    errors: Option<Output>,
    stderr: Option<Outgoing>,
) -> Result<i32, Failure> {
    let (end, (), ()) = tokio::join!(exit, copy_out(output, stdout), copy_out(errors, stderr));
    end
}

async fn copy_out(output: Option<Output>, stream: Option<Outgoing>) {
    let Some(mut stream) = stream else { return };
    if let Some(mut output) = output {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PIECE);
            // A broken output is one that is at its end: the exit tells how.
            match output.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            match stream.send(buffer.split().freeze()).await {
                Ok(()) => {}
                // The process is not to learn it by a broken pipe, and to end before it is told.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                    return pending().await;
                }
                // The client does not want it. It is the process' other end that decides what then.
                Err(_) => return,
            }
        }
    }
    stream.finish().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_one_after_another_wherever_their_borders_are() {
        let size = |width, height| TerminalSize { width, height };
        let text = b"{\"Width\":80,\"Height\":24}\n{\"Height\":50,\"Width\":132}";
        assert_eq!(parse_sizes(text), (vec![size(80, 24), size(132, 50)], text.len()));
        assert_eq!(parse_sizes(b"{\"width\":1,\"height\":2} {\"Wid"), (vec![size(1, 2)], 22));
        for none in [b"".as_slice(), b"{\"Width\":80", b"{\"Width\":65536,\"Height\":1}", b"80x24"]
        {
            assert_eq!(parse_sizes(none), (vec![], 0), "{none:?}");
        }
    }

    #[test]
    fn a_request_has_the_streams_of_its_version() {
        let streams = Streams { stdin: true, stdout: true, stderr: false, tty: true };
        let of = |version| TYPES.iter().filter(|(kind, _)| has(streams, version, *kind)).count();
        assert_eq!((of(Version::V2), of(Version::V3), of(Version::V4)), (3, 4, 4));
    }
}
