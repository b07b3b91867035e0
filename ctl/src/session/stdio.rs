//! Standard output and error, written by a thread of its own: a reader that pauses must not keep
//! signals from being forwarded.

use std::io::{self, Write};

use tokio::sync::{mpsc, oneshot};

use crate::error::Error;

const PIECES: usize = 16;

/// One of the two outputs, and what goes there.
#[derive(Debug)]
pub(super) enum Piece {
    Out(Vec<u8>),
    Err(Vec<u8>),
}

/// Takes pieces in order. Holds at most one that did not fit.
#[derive(Debug)]
pub(super) struct Output {
    sender: mpsc::Sender<Piece>,
    waiting: Option<Piece>,
    done: oneshot::Receiver<io::Result<()>>,
}

impl Output {
    pub(super) fn start() -> Result<Self, Error> {
        let (sender, mut pieces) = mpsc::channel(PIECES);
        let (tell, done) = oneshot::channel();
        std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                let result = write(&mut pieces);
                // Closed first, so that whoever is told finds nothing half open.
                drop(pieces);
                let _ = tell.send(result);
            })
            .map_err(|source| Error::System { step: "start a thread", source })?;
        Ok(Self { sender, waiting: None, done })
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.is_some()
    }

    /// Takes a piece; only when not full.
    pub(super) fn put(&mut self, piece: Piece) {
        if let Err(error) = self.sender.try_send(piece) {
            self.waiting = Some(error.into_inner());
        }
    }

    /// Waits until it is no longer full. Safe to cancel.
    pub(super) async fn room(&mut self) -> Result<(), Error> {
        match self.sender.reserve().await {
            Ok(place) => {
                if let Some(piece) = self.waiting.take() {
                    place.send(piece);
                }
                Ok(())
            }
            Err(_) => Err(failure((&mut self.done).await)),
        }
    }

    /// Waits until all is written.
    pub(super) async fn finish(mut self) -> Result<(), Error> {
        self.room().await?;
        let Self { sender, waiting: _, done } = self;
        drop(sender);
        match done.await {
            Ok(Ok(())) => Ok(()),
            result => Err(failure(result)),
        }
    }
}

fn failure(result: Result<io::Result<()>, oneshot::error::RecvError>) -> Error {
    match result {
        Ok(Err(error)) => Error::Output(error),
        Ok(Ok(())) | Err(_) => Error::Output(io::ErrorKind::BrokenPipe.into()),
    }
}

fn write(pieces: &mut mpsc::Receiver<Piece>) -> io::Result<()> {
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Out(bytes) => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&bytes)?;
                stdout.flush()?;
            }
            Piece::Err(bytes) => io::stderr().lock().write_all(&bytes)?,
        }
    }
    Ok(())
}
