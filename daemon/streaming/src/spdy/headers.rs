//! Header blocks: names and values, compressed with one context for each direction of a connection.
//!
//! What a peer sends may inflate to 1,000 times its size, so the output is bounded before it is made.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::{ADLER, DICTIONARY};
use super::error::Error;
use crate::limits::{MAX_HEADER_BYTES, MAX_HEADERS};

/// Names (in lower case) and values, in the order of the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Adds a header; the name is put in lower case.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Headers {
        self.0.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// The first value of a name, whose case does not matter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(is, _)| is.eq_ignore_ascii_case(name));
        // Several values of one name are separated by NULs.
        found.map(|(_, value)| value.split('\0').next().unwrap_or_default())
    }

    fn parse(block: &[u8]) -> Result<Headers, Error> {
        let mut rest = block;
        let count = number(&mut rest)?;
        if count > MAX_HEADERS {
            return Err(Error::TooManyHeaders { count });
        }
        let mut headers: Vec<(String, String)> = Vec::new();
        for _ in 0..count {
            let name = text(&mut rest)?;
            let value = text(&mut rest)?;
            if name.is_empty() || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                return Err(Error::HeaderName { name });
            }
            if headers.iter().any(|(is, _)| *is == name) {
                return Err(Error::HeaderTwice { name });
            }
            headers.push((name, value));
        }
        if rest.is_empty() { Ok(Headers(headers)) } else { Err(Error::HeaderBlock) }
    }

    fn block(&self) -> Vec<u8> {
        let mut block = (self.0.len() as u32).to_be_bytes().to_vec();
        for part in self.0.iter().flat_map(|(name, value)| [name, value]) {
            block.extend((part.len() as u32).to_be_bytes());
            block.extend(part.as_bytes());
        }
        block
    }
}

fn number(rest: &mut &[u8]) -> Result<u32, Error> {
    let (number, after) = rest.split_first_chunk::<4>().ok_or(Error::HeaderBlock)?;
    *rest = after;
    Ok(u32::from_be_bytes(*number))
}

fn text(rest: &mut &[u8]) -> Result<String, Error> {
    let length = number(rest)? as usize;
    let (text, after) = rest.split_at_checked(length).ok_or(Error::HeaderBlock)?;
    *rest = after;
    String::from_utf8(text.to_vec()).map_err(|_| Error::HeaderBlock)
}

/// Reads the blocks of one direction, in their order.
#[derive(Debug)]
pub struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater(Decompress::new(true))
    }
}

impl Inflater {
    /// # Errors
    ///
    /// What is wrong with the block. The connection has no way on then: its context is lost.
    pub fn inflate(&mut self, compressed: &[u8]) -> Result<Headers, Error> {
        let mut block = vec![0; MAX_HEADER_BYTES];
        let (mut read, mut written) = (0, 0);
        loop {
            let (before_in, before_out) = (self.0.total_in(), self.0.total_out());
            let step = self.0.decompress(
                &compressed[read..],
                &mut block[written..],
                FlushDecompress::Sync,
            );
            read += difference(self.0.total_in(), before_in);
            written += difference(self.0.total_out(), before_out);
            match step {
                Err(error) if error.needs_dictionary() == Some(ADLER) => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| Error::Compression)?;
                }
                Err(_) | Ok(Status::StreamEnd) => return Err(Error::Compression),
                Ok(Status::Ok | Status::BufError) if written == block.len() => {
                    return Err(Error::HeadersTooLarge);
                }
                Ok(Status::Ok | Status::BufError) if read == compressed.len() => break,
                Ok(Status::Ok) => {}
                Ok(Status::BufError) => return Err(Error::Compression),
            }
        }
        Headers::parse(&block[..written])
    }
}

fn difference(after: u64, before: u64) -> usize {
    usize::try_from(after - before).unwrap_or(usize::MAX)
}

/// Writes the blocks of one direction, in their order.
#[derive(Debug)]
pub struct Deflater(Compress);

impl Default for Deflater {
    fn default() -> Deflater {
        let mut compress = Compress::new(Compression::default(), true);
        let set = compress.set_dictionary(&DICTIONARY);
        debug_assert_eq!(set.ok(), Some(ADLER));
        Deflater(compress)
    }
}

impl Deflater {
    /// The compressed block, at a byte's border.
    pub fn deflate(&mut self, headers: &Headers) -> Vec<u8> {
        let block = headers.block();
        let mut compressed = Vec::with_capacity(block.len() + 64);
        let mut read = 0;
        loop {
            let before = self.0.total_in();
            let step = self.0.compress_vec(&block[read..], &mut compressed, FlushCompress::Sync);
            read += difference(self.0.total_in(), before);
            let whole = read == block.len() && compressed.len() < compressed.capacity();
            if whole || step.is_err() {
                return compressed;
            }
            compressed.reserve(64 + compressed.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> Headers {
        Headers::default().with("streamType", "stdin").with("port", "8080")
    }

    #[test]
    fn the_dictionary_is_the_drafts() {
        assert_eq!(DICTIONARY.len(), 1423);
        let mut compress = Compress::new(Compression::default(), true);
        assert_eq!(compress.set_dictionary(&DICTIONARY).unwrap(), ADLER);
    }

    #[test]
    fn a_block_comes_back_as_it_went_and_so_does_the_next() {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        let long = Headers::default().with("x", &"0123456789abcdef".repeat(1000));
        let first = deflater.deflate(&headers());
        assert_eq!(inflater.inflate(&first).unwrap(), headers());
        for next in [Headers::default(), long, headers()] {
            let block = deflater.deflate(&next);
            assert_eq!(inflater.inflate(&block).unwrap(), next);
        }
        assert!(deflater.deflate(&headers()).len() < first.len(), "the context is shared");
        assert_eq!(headers().get("STREAMTYPE"), Some("stdin"));
        assert_eq!(headers().get("requestID"), None);
    }

    #[test]
    fn a_block_that_is_not_whole_has_no_headers() {
        let whole = headers().block();
        for end in 0..whole.len() {
            assert!(Headers::parse(&whole[..end]).is_err(), "{end}");
        }
        assert!(Headers::parse(&[whole.as_slice(), &[0]].concat()).is_err());
        let block = Deflater::default().deflate(&headers());
        for end in 0..block.len() - 7 {
            assert!(Inflater::default().inflate(&block[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn blocks_are_bounded_before_they_are_inflated() {
        let bomb = Headers::default().with("x", &"y".repeat(MAX_HEADER_BYTES));
        let block = Deflater::default().deflate(&bomb);
        assert!(block.len() < 1024);
        assert!(matches!(Inflater::default().inflate(&block), Err(Error::HeadersTooLarge)));
        let many = Headers((0..=MAX_HEADERS).map(|n| (format!("n{n}"), String::new())).collect());
        assert!(matches!(Headers::parse(&many.block()), Err(Error::TooManyHeaders { .. })));
    }

    #[test]
    fn names_are_in_lower_case_and_once() {
        let upper = Headers(vec![("Port".into(), "1".into())]);
        assert!(matches!(Headers::parse(&upper.block()), Err(Error::HeaderName { .. })));
        let twice = Headers(vec![("port".into(), "1".into()), ("port".into(), "2".into())]);
        assert!(matches!(Headers::parse(&twice.block()), Err(Error::HeaderTwice { .. })));
    }
}
