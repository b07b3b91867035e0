//! Standard input, read by a thread of its own because a read of it can't be given up.

use std::io::{self, Read};

use tokio::sync::mpsc;

use super::keys::KeyScanner;
use crate::error::Error;
use crate::flags::DetachKeys;

const PIECE_LEN: usize = 32 << 10;
const PIECES: usize = 4;

/// Input for a process. The thread ends with the process, or at the end of the input.
#[derive(Debug)]
pub(crate) struct Input {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    scanner: Option<KeyScanner>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    Bytes(Vec<u8>),
    /// The detach keys, and what was typed before them.
    Detach,
    End,
}

impl Input {
    /// Reads stdin from now on; `keys` only on a terminal.
    pub(crate) fn stdin(keys: Option<&DetachKeys>) -> Result<Self, Error> {
        let (sender, pieces) = mpsc::channel(PIECES);
        std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || read(&mut io::stdin().lock(), &sender))
            .map_err(|source| Error::System { step: "start a thread", source })?;
        Ok(Self { pieces, scanner: keys.map(|keys| KeyScanner::new(keys.bytes())) })
    }

    /// The next piece. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<Typed, Error> {
        loop {
            let piece = match self.pieces.recv().await {
                None => return Ok(Typed::End),
                Some(piece) => piece.map_err(Error::Input)?,
            };
            let Some(scanner) = &mut self.scanner else { return Ok(Typed::Bytes(piece)) };
            let scanned = scanner.feed(&piece);
            if scanned.detach {
                return Ok(Typed::Detach);
            }
            if !scanned.pass.is_empty() {
                return Ok(Typed::Bytes(scanned.pass));
            }
        }
    }
}

fn read(source: &mut impl Read, sender: &mpsc::Sender<io::Result<Vec<u8>>>) {
    let mut buffer = vec![0; PIECE_LEN];
    loop {
        let piece = match source.read(&mut buffer) {
            Ok(0) => return,
            Ok(len) => Ok(buffer[..len].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = piece.is_err();
        if sender.blocking_send(piece).is_err() || failed {
            return;
        }
    }
}
