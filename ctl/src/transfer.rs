//! Bytes between a thread that blocks on them and a call that does not.
//!
//! An end is said, never assumed: a producer that fails must not look like one that is done, or a
//! torn archive would be taken for a whole one. Threads are our own, not the runtime's, so that one
//! that waits for its input does not keep `ctl` from ending.

use std::io::{self, Read, Write};

use futures::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::client::Client;
use crate::error::Error;

/// Bytes of one message, and how many may be on their way.
const CHUNK: usize = 512 << 10;
const IN_FLIGHT: usize = 4;

#[derive(Debug)]
enum Piece {
    Data(Vec<u8>),
    End,
}

/// Takes what a thread writes. What is written after the call was answered is an error of kind
/// [`io::ErrorKind::BrokenPipe`].
#[derive(Debug)]
pub(crate) struct Sink {
    pieces: mpsc::Sender<Piece>,
    buffer: Vec<u8>,
    count: u64,
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = data.len().min(CHUNK - self.buffer.len());
        self.count += count as u64;
        self.buffer.extend_from_slice(&data[..count]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.send(Piece::Data(full))
    }
}

impl Sink {
    /// Bytes taken.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    fn send(&self, piece: Piece) -> io::Result<()> {
        self.pieces.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Gives a thread what a call receives. A stream that tore is an error here.
#[derive(Debug)]
pub(crate) struct Source {
    pieces: mpsc::Receiver<Piece>,
    current: io::Cursor<Vec<u8>>,
    ended: bool,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.current.read(buffer)?;
            if count > 0 || buffer.is_empty() || self.ended {
                return Ok(count);
            }
            match self.pieces.blocking_recv() {
                Some(Piece::Data(data)) => self.current = io::Cursor::new(data),
                Some(Piece::End) => self.ended = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

/// Copies all of an input, whose failures are `failed`.
pub(crate) fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    failed: impl Fn(io::Error) -> Error,
) -> Result<(), Error> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count]).map_err(Error::Output)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Sends `open`, then what `produce` writes, and returns the answer. An answer that comes early is
/// a refusal, and the cause of whatever became of the producer; a producer's failure cancels the
/// call.
pub(crate) async fn send<T, R, F, Fut>(
    client: &Client,
    open: T,
    message: fn(Vec<u8>) -> T,
    produce: impl FnOnce(&mut Sink) -> Result<(), Error> + Send + 'static,
    method: F,
) -> Result<R, Error>
where
    T: Send + 'static,
    F: FnOnce(Channel, Request<std::pin::Pin<Box<dyn Stream<Item = T> + Send>>>) -> Fut,
    Fut: Future<Output = Result<Response<R>, Status>>,
{
    let (sender, pieces) = mpsc::channel(IN_FLIGHT);
    let messages = futures::stream::once(async { open }).chain(sent(pieces).map(message)).boxed();
    let produced = thread(move || {
        let mut sink = Sink { pieces: sender, buffer: Vec::with_capacity(CHUNK), count: 0 };
        let done = produce(&mut sink).and_then(|()| {
            sink.flush().and_then(|()| sink.send(Piece::End)).map_err(Error::Output)
        });
        // When nobody takes it any more the answer says why.
        if sink.pieces.is_closed() { Ok(()) } else { done }
    });
    let call = client.transfer(messages, method);
    tokio::pin!(call, produced);
    tokio::select! {
        answer = &mut call => answer,
        produced = &mut produced => match produced {
            Ok(()) => call.await,
            Err(error) => Err(error),
        },
    }
}

/// What a sink took, up to its end. One that has none does not end: the producer failed, and that
/// is what ends the call.
fn sent(pieces: mpsc::Receiver<Piece>) -> impl Stream<Item = Vec<u8>> + Send {
    futures::stream::unfold(pieces, |mut pieces| async move {
        match pieces.recv().await {
            Some(Piece::Data(data)) => Some((data, pieces)),
            Some(Piece::End) => None,
            None => std::future::pending().await,
        }
    })
}

/// Hands the bytes of a stream to `consume`, and returns what it made of them.
pub(crate) async fn receive<R: Send + 'static>(
    mut data: impl Stream<Item = Result<Vec<u8>, Error>> + Unpin,
    consume: impl FnOnce(&mut Source) -> Result<R, Error> + Send + 'static,
) -> Result<R, Error> {
    let (sender, pieces) = mpsc::channel(IN_FLIGHT);
    let consumed = thread(move || {
        let mut source = Source { pieces, current: io::Cursor::default(), ended: false };
        consume(&mut source)
    });
    loop {
        let piece = match data.next().await {
            Some(Ok(data)) => Piece::Data(data),
            Some(Err(error)) => {
                drop(sender);
                // It ends before we do; why is what the stream says.
                let _ = consumed.await;
                return Err(error);
            }
            None => {
                let _ = sender.send(Piece::End).await;
                return consumed.await;
            }
        };
        if sender.send(piece).await.is_err() {
            return consumed.await;
        }
    }
}

/// Runs on a thread of its own from now on; what comes of it is the future's.
fn thread<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, Error> + Send + 'static,
) -> impl Future<Output = Result<R, Error>> {
    let (sender, result) = oneshot::channel();
    let started = std::thread::Builder::new().spawn(move || {
        // Nobody waits for it when the call failed.
        let _ = sender.send(work());
    });
    async move {
        started.map_err(|source| Error::System { step: "start a thread", source })?;
        match result.await {
            Ok(outcome) => outcome,
            Err(died) => {
                Err(Error::System { step: "move the data", source: io::Error::other(died) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_end_is_said_and_never_assumed() {
        for ends in [true, false] {
            let (sender, pieces) = mpsc::channel(IN_FLIGHT);
            sender.send(Piece::Data(vec![1])).await.unwrap();
            if ends {
                sender.send(Piece::End).await.unwrap();
            }
            drop(sender);
            let mut data = Box::pin(sent(pieces));
            assert_eq!(data.next().await, Some(vec![1]));
            assert_eq!(data.next().now_or_never(), if ends { Some(None) } else { None });
        }
    }

    #[tokio::test]
    async fn what_a_torn_stream_left_is_not_taken_for_all() {
        let parts = |torn: bool| {
            let end = torn.then(|| Err(Error::Output(io::ErrorKind::ConnectionReset.into())));
            let parts = [Ok(b"one ".to_vec()), Ok(b"two".to_vec())];
            futures::stream::iter(parts.into_iter().chain(end))
        };
        let (saw, seen) = std::sync::mpsc::channel();
        let read_all = move |source: &mut Source| {
            let mut text = String::new();
            let read = source.read_to_string(&mut text);
            saw.send(read.is_ok()).unwrap();
            Ok(text)
        };
        assert_eq!(receive(parts(false), read_all.clone()).await.unwrap(), "one two");
        assert!(matches!(receive(parts(true), read_all).await, Err(Error::Output(_))));
        assert_eq!(seen.iter().collect::<Vec<_>>(), [true, false]);
    }
}
