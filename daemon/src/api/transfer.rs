//! Archives over gRPC: streams of messages on one side, code that reads or writes files on the other.

use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use crate::error::{Error, Result};
use crate::pipe;

type Chunks<T> = Pin<Box<dyn Stream<Item = std::result::Result<T, Status>> + Send>>;

/// Streams what `write` writes. An error of it is the stream's end.
pub(super) fn chunks<T, W, F>(write: W, wrap: fn(Vec<u8>) -> T) -> Chunks<T>
where
    T: Send + 'static,
    W: FnOnce(pipe::Writer) -> F,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (writer, parts) = pipe::out();
    let task = tokio::spawn(write(writer));
    joined(parts, task, wrap)
}

/// As [`chunks`], for a task that is at work already.
pub(super) fn joined<T: Send + 'static>(
    mut parts: mpsc::Receiver<Bytes>,
    task: tokio::task::JoinHandle<Result<()>>,
    wrap: fn(Vec<u8>) -> T,
) -> Chunks<T> {
    Box::pin(async_stream::try_stream! {
        while let Some(part) = parts.recv().await {
            yield wrap(part.into());
        }
        task.await.unwrap_or(Err(Error::Stopping))?;
    })
}

/// The bytes that a client sends.
pub(super) struct Received<M> {
    messages: Streaming<M>,
    data: fn(M) -> Option<Vec<u8>>,
}

pub(super) fn receive<M>(messages: Streaming<M>, data: fn(M) -> Option<Vec<u8>>) -> Received<M> {
    Received { messages, data }
}

impl<M: Send + 'static> Received<M> {
    /// Feeds the bytes to what reads them, until that has its answer. A client that breaks off breaks
    /// the pipe, so that what came is not taken for all.
    pub(super) async fn feed<T, F>(self, read: impl FnOnce(pipe::Reader) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let (given, reader) = pipe::into();
        let Self { mut messages, data } = self;
        let send = async move {
            while let Some(message) = messages.next().await {
                let Some(part) = message.ok().and_then(data) else { return };
                if !given.send(part.into()).await {
                    // The reader has all it wants, or an error.
                    return;
                }
            }
            given.finish().await;
        };
        let (_, answer) = futures::future::join(send, read(reader)).await;
        answer
    }
}
