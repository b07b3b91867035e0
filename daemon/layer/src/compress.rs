//! Compression, told by the first bytes and never by a name; always in this process, for a program
//! could be the container's own (CVE-2019-14271, CVE-2026-41567).

use std::io::{self, BufRead, Chain, Cursor, Read, Write};

use bosun_image::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::error::{Error, Result};

/// How far back a zstd stream may refer: 128 MiB, which is what level 22 uses. Its memory.
const MAX_WINDOW_LOG: u32 = 27;
/// What tells all known formats apart.
const START: usize = 6;

/// What the first bytes of a stream say. Six are enough.
#[must_use]
pub fn detect(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        // A frame, or one that readers skip.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Compressions that no layer is read with, by name.
fn unsupported(start: &[u8]) -> Option<&'static str> {
    match start {
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Some("xz"),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41] => Some("bzip2"),
        [0x04, 0x22, 0x4d, 0x18, ..] => Some("lz4"),
        _ => None,
    }
}

/// The bytes of a stream, decompressed. A stream that ends too early is an error, and so is what is
/// not compressed behind what is.
pub struct Decoder<R: BufRead>(Stream<Counted<R>>);

enum Stream<R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(zstd::stream::read::Decoder<'static, R>),
}

/// Counts what is taken.
struct Counted<R> {
    source: Chain<Cursor<Vec<u8>>, R>,
    taken: u64,
}

impl<R: BufRead> Decoder<R> {
    /// Looks at the first bytes.
    ///
    /// # Errors
    /// They can't be read, or are of a compression that is not supported.
    pub fn new(mut source: R) -> Result<Self> {
        let mut start = Vec::with_capacity(START);
        source.by_ref().take(START as u64).read_to_end(&mut start).map_err(Error::Read)?;
        if let Some(name) = unsupported(&start) {
            return Err(Error::Compression(name));
        }
        let compression = detect(&start);
        let source = Counted { source: Cursor::new(start).chain(source), taken: 0 };
        Ok(Self(match compression {
            Compression::None => Stream::Plain(source),
            Compression::Gzip => Stream::Gzip(Box::new(MultiGzDecoder::new(source))),
            Compression::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(source).map_err(Error::Read)?;
                decoder.window_log_max(MAX_WINDOW_LOG).map_err(Error::Read)?;
                Stream::Zstd(decoder)
            }
        }))
    }

    #[must_use]
    pub fn compression(&self) -> Compression {
        match self.0 {
            Stream::Plain(_) => Compression::None,
            Stream::Gzip(_) => Compression::Gzip,
            Stream::Zstd(_) => Compression::Zstd,
        }
    }

    /// Compressed bytes taken so far.
    #[must_use]
    pub fn taken(&self) -> u64 {
        match &self.0 {
            Stream::Plain(source) => source.taken,
            Stream::Gzip(decoder) => decoder.get_ref().taken,
            Stream::Zstd(decoder) => decoder.get_ref().taken,
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Stream::Plain(source) => source.read(buffer),
            Stream::Gzip(decoder) => decoder.read(buffer),
            Stream::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.taken += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.source.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.taken += count as u64;
        self.source.consume(count);
    }
}

impl<R: BufRead> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Decoder").field(&self.compression()).finish()
    }
}

/// Compresses with gzip; the same bytes give the same bytes. Without [`finish`](Self::finish) the
/// stream is cut off.
#[derive(Debug)]
pub struct Encoder<W: Write>(GzEncoder<W>);

impl<W: Write> Encoder<W> {
    pub fn new(to: W) -> Self {
        Self(GzEncoder::new(to, flate2::Compression::default()))
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// [`Error::Write`] when it does not take it.
    pub fn finish(self) -> Result<W> {
        self.0.finish().map_err(Error::Write)
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    const TEXT: &[u8] = b"the same text, over and over: the same text, over and over";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(bytes, 3).unwrap()
    }

    fn decode(bytes: &[u8]) -> io::Result<Vec<u8>> {
        // One byte at a time, so that nothing is seen whole.
        let mut decoder =
            Decoder::new(BufReader::with_capacity(1, bytes)).map_err(io::Error::other)?;
        let mut all = Vec::new();
        decoder.read_to_end(&mut all)?;
        assert_eq!(decoder.taken(), bytes.len() as u64);
        Ok(all)
    }

    #[test]
    fn the_first_bytes_tell() {
        for bytes in [TEXT, &gzip(TEXT), &zstd(TEXT)] {
            assert_eq!(decode(bytes).unwrap(), TEXT);
        }
        assert_eq!(decode(b"").unwrap(), b"");
        assert_eq!(decode(b"\x1f").unwrap(), b"\x1f");
        let error = decode(b"\xfd7zXZ\0\0").unwrap_err();
        assert!(error.to_string().contains("xz"), "{error}");
    }

    #[test]
    fn streams_behind_each_other_are_one() {
        let twice = [TEXT, TEXT].concat();
        assert_eq!(decode(&[gzip(TEXT), gzip(TEXT)].concat()).unwrap(), twice);
        let skipped = [&[0x52, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 7, 7], &zstd(TEXT)[..]].concat();
        assert_eq!(decode(&[skipped, zstd(TEXT)].concat()).unwrap(), twice);
    }

    #[test]
    fn a_stream_that_ends_too_early_is_an_error() {
        for bytes in [gzip(TEXT), zstd(TEXT)] {
            for end in 6..bytes.len() {
                assert!(decode(&bytes[..end]).is_err(), "{end} of {}", bytes.len());
            }
            assert!(decode(&[&bytes[..], b"garbage"].concat()).is_err());
            let mut damaged = bytes.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 0x55;
            assert!(decode(&damaged).map_or(true, |text| text != TEXT));
        }
    }

    #[test]
    fn a_window_beyond_the_bound_is_refused() {
        // A frame's header: magic, descriptor, and a window of 2^(10 + 31) bytes.
        let error = decode(&[0x28, 0xb5, 0x2f, 0xfd, 0, 31 << 3, 1, 0, 0]).unwrap_err();
        assert!(error.to_string().to_lowercase().contains("memory"), "{error}");
    }
}
