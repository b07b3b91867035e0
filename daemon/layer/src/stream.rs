//! A layer's bytes on their way from whoever sends them into files.
//!
//! ```text
//!  reader ─▶ decompress ─▶ hash ─▶ buffers ─▶ tar ─▶ files
//!  └────── one thread ─────────┘          └─ the caller's ─┘
//! ```
//!
//! Inflating takes most of the time, and writing most of the rest: side by side, one layer keeps two
//! cores busy. Four buffers go round, so memory is bounded and the faster side waits.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bosun_image::Digest;
use sha2::{Digest as _, Sha256};

use crate::compress::Decoder;
use crate::error::{Error, Result};
use crate::limits::Limits;

const BUFFERS: usize = 4;
const BUFFER: usize = 256 << 10;

/// What all of a stream was, uncompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// Gives the uncompressed bytes to `consume`, and reads on to the end whatever it left: the digest is
/// that of everything.
pub(crate) fn consume<T>(
    reader: impl Read + Send,
    limits: &Limits,
    consume: impl FnOnce(&mut Uncompressed) -> Result<T>,
) -> Result<(T, Whole)> {
    std::thread::scope(|scope| {
        let (full_to, full) = sync_channel(BUFFERS);
        let (empty_to, empty) = sync_channel(BUFFERS);
        // The consumer has the last one.
        for _ in 1..BUFFERS {
            // Can't fail: there is room, and the other end is here.
            let _ = empty_to.send(Vec::with_capacity(BUFFER));
        }
        let producer = scope.spawn(move || produce(reader, limits, &empty, &full_to));
        let mut source = Uncompressed { full, empty: empty_to, buffer: Vec::new(), position: 0 };
        let consumed = consume(&mut source);
        if consumed.is_ok() {
            source.drain();
        }
        // The producer stops when nobody takes its buffers any more.
        drop(source);
        let produced = producer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // To the consumer, a stream that breaks looks like one that ends: what broke it comes first.
        let whole = produced?;
        let consumed = consumed?;
        let whole = whole.ok_or_else(|| Error::Read(io::ErrorKind::BrokenPipe.into()))?;
        Ok((consumed, whole))
    })
}

/// Decompresses and hashes. `None` when the consumer went away.
fn produce(
    reader: impl Read,
    limits: &Limits,
    empty: &Receiver<Vec<u8>>,
    full: &SyncSender<Vec<u8>>,
) -> Result<Option<Whole>> {
    let mut decoder = Decoder::new(BufReader::with_capacity(BUFFER, reader))?;
    let mut hash = Sha256::new();
    let mut size = 0;
    while let Ok(mut buffer) = empty.recv() {
        buffer.resize(BUFFER, 0);
        let count = read_full(&mut decoder, &mut buffer).map_err(Error::Read)?;
        if count == 0 {
            return Ok(Some(Whole { digest: Digest::finish(hash), size }));
        }
        buffer.truncate(count);
        hash.update(&buffer);
        size += count as u64;
        check(size, decoder.taken(), limits)?;
        if full.send(buffer).is_err() {
            break;
        }
    }
    Ok(None)
}

fn check(size: u64, compressed: u64, limits: &Limits) -> Result<()> {
    if size > limits.size {
        return Err(Error::Limit { what: "uncompressed bytes", limit: limits.size });
    }
    if size > limits.expansion_from && size / compressed.max(1) > limits.expansion {
        let what = "uncompressed bytes for each compressed one";
        return Err(Error::Limit { what, limit: limits.expansion });
    }
    Ok(())
}

fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The consumer's end.
#[derive(Debug)]
pub(crate) struct Uncompressed {
    full: Receiver<Vec<u8>>,
    empty: SyncSender<Vec<u8>>,
    buffer: Vec<u8>,
    position: usize,
}

impl Uncompressed {
    fn drain(&mut self) {
        while let Ok([_, ..]) = self.fill_buf() {
            self.position = self.buffer.len();
        }
    }
}

impl BufRead for Uncompressed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.buffer.len() {
            self.position = 0;
            let used = std::mem::take(&mut self.buffer);
            // When the producer has gone, it needs no more buffers.
            let _ = self.empty.send(used);
            if let Ok(next) = self.full.recv() {
                self.buffer = next;
            }
        }
        Ok(&self.buffer[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position = (self.position + count).min(self.buffer.len());
    }
}

impl Read for Uncompressed {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let count = from.len().min(to.len());
        to[..count].copy_from_slice(&from[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(reader: impl Read + Send, limits: &Limits) -> Result<(Vec<u8>, Whole)> {
        consume(reader, limits, |source| {
            let mut all = Vec::new();
            source.read_to_end(&mut all).map_err(Error::Read)?;
            Ok(all)
        })
    }

    #[test]
    fn bytes_arrive_whole_and_hashed() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
        let (got, whole) = all(&bytes[..], &Limits::default()).unwrap();
        assert!(got == bytes);
        assert_eq!(whole, Whole { digest: Digest::of(&bytes), size: 3_000_000 });
    }

    #[test]
    fn what_the_consumer_leaves_is_hashed_too() {
        let bytes = vec![7; 2_000_000];
        let ((), whole) = consume(&bytes[..], &Limits::default(), |_| Ok(())).unwrap();
        assert_eq!(whole.digest, Digest::of(&bytes));
    }

    #[test]
    fn a_consumer_that_fails_stops_the_rest() {
        let endless = io::repeat(7);
        let failed = consume(endless, &Limits::default(), |source| {
            source.fill_buf().map_err(Error::Read)?;
            Err::<(), _>(Error::NotTar)
        });
        assert!(matches!(failed, Err(Error::NotTar)));
    }

    #[test]
    fn limits_hold_whether_the_consumer_reads_or_not() {
        let limits = Limits { size: 1 << 20, ..Limits::default() };
        assert!(all(io::repeat(7), &limits).is_err());
        let failed = consume(io::repeat(7), &limits, |_| Ok(()));
        assert!(matches!(failed, Err(Error::Limit { limit: 0x10_0000, .. })));
    }

    #[test]
    fn a_bomb_is_told_by_its_ratio() {
        let bomb = zstd::stream::encode_all(io::repeat(0).take(64 << 20), 3).unwrap();
        let limits = Limits { expansion_from: 8 << 20, ..Limits::default() };
        let failed = consume(&bomb[..], &limits, |_| Ok(()));
        assert!(matches!(failed, Err(Error::Limit { limit: 2000, .. })), "{failed:?}");
        assert!(consume(&bomb[..], &Limits::default(), |_| Ok(())).is_ok());
    }
}
