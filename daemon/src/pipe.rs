//! Between streams of messages and code that reads or writes files: bounded, so that neither side
//! runs ahead of the other.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::mpsc;

/// Parts that may be on their way.
const PARTS: usize = 8;

/// Bytes of one part.
const PART: usize = 256 << 10;

/// The end that files are written to.
#[derive(Debug)]
pub struct Writer {
    parts: mpsc::Sender<Bytes>,
    gathered: BytesMut,
}

/// The end that parts are given to. Dropped before [`finish`](Self::finish), it breaks the pipe: what
/// came until then is not taken for all.
#[derive(Debug)]
pub struct Sender(mpsc::Sender<Option<Bytes>>);

/// The end that files are read from.
#[derive(Debug)]
pub struct Reader {
    parts: mpsc::Receiver<Option<Bytes>>,
    rest: Bytes,
    is_whole: bool,
}

/// A pipe whose writer blocks, for a thread, and whose parts are taken by a task.
#[must_use]
pub fn out() -> (Writer, mpsc::Receiver<Bytes>) {
    let (parts, taken) = mpsc::channel(PARTS);
    (Writer { parts, gathered: BytesMut::new() }, taken)
}

/// A pipe whose parts are given by a task, and whose reader blocks, for a thread.
#[must_use]
pub fn into() -> (Sender, Reader) {
    let (given, parts) = mpsc::channel(PARTS);
    (Sender(given), Reader { parts, rest: Bytes::new(), is_whole: false })
}

impl Sender {
    /// Gives a part; false when nobody reads any more.
    pub async fn send(&self, part: Bytes) -> bool {
        self.0.send(Some(part)).await.is_ok()
    }

    /// As [`send`](Self::send), for a thread.
    pub fn send_blocking(&self, part: Bytes) -> bool {
        self.0.blocking_send(Some(part)).is_ok()
    }

    /// That was all.
    pub async fn finish(self) {
        // Who does not read any more needs no end.
        let _ = self.0.send(None).await;
    }

    /// As [`finish`](Self::finish), for a thread.
    pub fn finish_blocking(self) {
        let _ = self.0.blocking_send(None);
    }
}

impl Writer {
    fn send(&mut self) -> io::Result<()> {
        let part = self.gathered.split().freeze();
        if part.is_empty() {
            return Ok(());
        }
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads any more");
        self.parts.blocking_send(part).map_err(gone)
    }
}

impl Write for Writer {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(data);
        if self.gathered.len() >= PART {
            self.send()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.is_whole {
            match self.parts.blocking_recv() {
                Some(Some(part)) => self.rest = part,
                Some(None) => self.is_whole = true,
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the stream broke off",
                    ));
                }
            }
        }
        let count = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_and_a_reader_that_leaves_is_an_error() {
        let (given, mut reader) = into();
        let (mut writer, mut taken) = out();
        let data: Vec<u8> = (0..2_000_000u32).map(|number| (number % 251) as u8).collect();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::io::copy(&mut reader, &mut writer).unwrap();
                writer.flush().unwrap();
            });
            scope.spawn({
                let data = Bytes::from(data.clone());
                move || {
                    for part in data.chunks(77_777) {
                        assert!(given.send_blocking(data.slice_ref(part)));
                    }
                    given.finish_blocking();
                }
            });
            let mut came = Vec::new();
            while let Some(part) = taken.blocking_recv() {
                came.extend_from_slice(&part);
            }
            assert!(came == data);
        });
        let (given, mut reader) = into();
        assert!(given.send_blocking(Bytes::from_static(b"half")));
        drop(given);
        let broken = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(broken.kind(), io::ErrorKind::UnexpectedEof);
        let (mut writer, taken) = out();
        drop(taken);
        writer.write_all(b"x").unwrap();
        assert_eq!(writer.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
