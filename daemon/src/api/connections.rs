//! The socket's connections: how many there are, and how long one may stay without a word.
//!
//! What happens on a connection is bounded by hyper (streams, resets, headers, what waits to be
//! sent) and by [`super::intake`]. It counts no connections, and waits for ever for one to say that
//! it speaks HTTP/2; and an error of accept(2) that lasts, such as EMFILE, it meets again at once, and
//! for as long as it lasts.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Sleep;
use tonic::transport::server::{Connected, UdsConnectInfo};

use super::places::{Place, Places};
use crate::descriptors;

/// Connections at once, if the daemon may have four times as many descriptors: what a client asks for may
/// take one or two more, and shims, logs and images have to have theirs.
const MOST: usize = 4096;
const SHARE: u64 = 4;

/// How long a client may take to say that it speaks HTTP/2.
const GREETING: Duration = Duration::from_secs(10);
/// Bytes of that (RFC 9113, 3.4).
const PREFACE: usize = 24;

/// Between two lines of the log about connections too many.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// After an accept that failed.
const PAUSE: Duration = Duration::from_millis(50);

/// The connections that are made to a socket. One too many is closed at once.
pub(super) fn incoming(listener: UnixListener) -> impl Stream<Item = io::Result<Connection>> {
    let places = Places::new(MOST.min(descriptors::part(SHARE)));
    let mut refused = Refused::default();
    async_stream::stream! {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let peer = stream.peer_cred().ok().and_then(|credentials| credentials.pid());
                    match places.take(peer) {
                        Some(place) => yield Ok(Connection::new(stream, Some(place), GREETING)),
                        None => refused.tell(peer, places.all()),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection can't be taken");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Connections too many, of which a log that may grow tells once in a while.
#[derive(Debug, Default)]
struct Refused {
    told: Option<Instant>,
    since: u64,
}

impl Refused {
    fn tell(&mut self, peer: Option<i32>, most: usize) {
        self.since += 1;
        if self.told.is_some_and(|told| told.elapsed() < TELL_AGAIN_AFTER) {
            return;
        }
        tracing::warn!(peer, most, closed = self.since, "connections too many are closed");
        *self = Self { told: Some(Instant::now()), since: 0 };
    }
}

/// One of them.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    /// Until it has said what it speaks.
    greeting: Option<Greeting>,
    _place: Option<Place>,
}

#[derive(Debug)]
struct Greeting {
    missing: usize,
    limit: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(stream: UnixStream, place: Option<Place>, limit: Duration) -> Self {
        let deadline = Box::pin(tokio::time::sleep(limit));
        let greeting = Some(Greeting { missing: PREFACE, limit, deadline });
        Self { stream, greeting, _place: place }
    }
}

impl Connected for Connection {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let Some(greeting) = &mut self.greeting else { return read };
        if read.is_pending() {
            ready!(greeting.deadline.as_mut().poll(cx));
            let problem = format!("it did not say that it speaks HTTP/2 in {:?}", greeting.limit);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, problem)));
        }
        greeting.missing = greeting.missing.saturating_sub(buffer.filled().len() - before);
        if greeting.missing == 0 {
            self.greeting = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn who_says_nothing_is_let_go_and_who_has_said_it_may_be_silent() {
        const LIMIT: Duration = Duration::from_millis(50);
        for (said, stays) in [(0, false), (PREFACE - 1, false), (PREFACE, true)] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut connection = Connection::new(ours, None, LIMIT);
            theirs.write_all(&[b'x'; PREFACE][..said]).await.unwrap();
            let mut buffer = [0; PREFACE];
            let reading = async {
                let mut read = 0;
                loop {
                    match connection.read(&mut buffer).await {
                        Ok(count) => read += count,
                        Err(error) => return (read, error.kind()),
                    }
                }
            };
            let ended = tokio::time::timeout(LIMIT * 20, reading).await.ok();
            assert_eq!(ended, (!stays).then_some((said, io::ErrorKind::TimedOut)), "{said} bytes");
        }
    }

    #[tokio::test]
    async fn one_too_many_is_closed_and_its_place_given_to_a_later_one() {
        use futures::StreamExt;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let places = Places::new(1);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let first = Connection::new(ours, places.take(None), GREETING);
        assert!(places.take(None).is_none());
        drop(first);
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
        assert!(places.take(None).is_some());
        let mut incoming = Box::pin(incoming(UnixListener::bind(&path).unwrap()));
        let (_client, taken) = tokio::join!(UnixStream::connect(&path), incoming.next());
        assert!(taken.unwrap().is_ok());
    }
}
