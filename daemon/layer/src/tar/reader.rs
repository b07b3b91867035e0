//! Entries out of a stream.

use std::io::{self, BufRead};

use super::header::Header;
use super::pax::{self, Extended};
use super::sparse::{self, Extent};
use super::{BLOCK, Entry, Kind, MAX_NAME};
use crate::error::{Error, Problem, Result, shown};

/// The most bytes of extended headers that one entry may have, and of a header for all entries.
const MAX_EXTENDED: u64 = 1 << 20;
/// The longest number in a map of holes: 20 digits and what ends them.
const MAX_NUMBER: usize = 21;

/// Reads an archive that is not compressed.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    /// Headers read, and how many there may be.
    headers: u64,
    max_headers: u64,
    global: Extended,
    body: Body,
    /// Bytes of the source that were lent with the last chunk.
    lent: usize,
    is_at_end: bool,
}

/// What is left of an entry's data.
#[derive(Debug, Default)]
struct Body {
    /// For errors.
    path: Vec<u8>,
    /// In the archive, without what fills the last block.
    stored: u64,
    padding: u64,
    /// Where the file has come to, and where it ends.
    position: u64,
    size: u64,
    /// The extents that are still to come; `None` for a file without holes.
    map: Option<std::vec::IntoIter<Extent>>,
    /// Of the current extent.
    extent: Option<Extent>,
}

/// A part of a file, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk<'a> {
    Data(&'a [u8]),
    /// So many zeros.
    Hole(u64),
}

/// What the headers before an entry said of it.
#[derive(Debug, Default)]
struct Prelude {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    extended: Extended,
    /// Of extended headers, in bytes.
    size: u64,
}

impl<R: BufRead> Reader<R> {
    /// Reads from `source`, and at most `max_headers` headers, those of names and attributes included.
    pub fn new(source: R, max_headers: u64) -> Self {
        Self {
            source,
            headers: 0,
            max_headers,
            global: Extended::default(),
            body: Body::default(),
            lent: 0,
            is_at_end: false,
        }
    }

    /// The next entry; what is left of the last one's data is passed over. `None` at the end.
    ///
    /// # Errors
    /// [`Error::NotTar`] for a stream that does not begin as an archive; otherwise the error names
    /// the entry and what is wrong with it. There is no way on after an error.
    #[allow(clippy::should_implement_trait, reason = "an iterator can't lend, and does not fail")]
    pub fn next(&mut self) -> Result<Option<Entry>> {
        if self.is_at_end {
            return Ok(None);
        }
        self.pass_over_body()?;
        let mut prelude = Prelude { extended: self.global.clone(), ..Prelude::default() };
        let mut block = [0; BLOCK];
        loop {
            if !self.read_header(&mut block)? {
                self.is_at_end = true;
                return match prelude.is_empty() {
                    true => Ok(None),
                    false => Err(Error::Truncated { entry: prelude.name() }),
                };
            }
            let header = self.check(&block, &prelude)?;
            let failed = |problem| Error::malformed(&plain_path(header), problem);
            let size = header.size().map_err(failed)?;
            match header.flag() {
                b'x' => {
                    prelude.size = prelude.size.saturating_add(size);
                    let records = self.extended(size, prelude.size, header)?;
                    prelude.extended.read(&records).map_err(failed)?;
                }
                b'g' => {
                    let records = self.extended(size, size, header)?;
                    self.global.read_global(&records).map_err(failed)?;
                    prelude.extended.read_global(&records).map_err(failed)?;
                }
                b'L' => prelude.path = Some(self.long_name(size)?),
                b'K' => prelude.link = Some(self.long_name(size)?),
                // A volume's label, which is no file.
                b'V' => self.discard(padded(size), b"a volume label")?,
                _ => return self.entry(header, size, prelude).map(Some),
            }
        }
    }

    /// The next part of the entry's file; `None` when it is complete. The bytes are lent until the
    /// next call.
    ///
    /// # Errors
    /// The stream can't be read, or ends too early.
    pub fn chunk(&mut self) -> Result<Option<Chunk<'_>>> {
        self.give_back();
        let body = &mut self.body;
        if let Some(map) = &mut body.map {
            while body.extent.is_none_or(|extent| extent.length == 0) {
                match map.next() {
                    Some(extent) => body.extent = Some(extent),
                    None => break,
                }
            }
            let next = body.extent.filter(|extent| extent.length > 0);
            let data = next.map_or(body.size, |extent| extent.offset);
            if body.position < data {
                let hole = data - body.position;
                body.position = data;
                return Ok(Some(Chunk::Hole(hole)));
            }
        }
        if body.position == body.size {
            return Ok(None);
        }
        let most = body.extent.map_or(body.size - body.position, |extent| extent.length);
        let bytes = fill(&mut self.source)?;
        if bytes.is_empty() {
            return Err(Error::Truncated { entry: shown(&body.path) });
        }
        let count = bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        let length = count as u64;
        if let Some(extent) = &mut body.extent {
            extent.offset += length;
            extent.length -= length;
        }
        body.position += length;
        body.stored -= length;
        self.lent = count;
        Ok(Some(Chunk::Data(&bytes[..count])))
    }

    /// Gives the source back, wherever it is.
    pub fn into_inner(mut self) -> R {
        self.give_back();
        self.source
    }

    fn entry(&mut self, header: Header<'_>, size: u64, prelude: Prelude) -> Result<Entry> {
        let Prelude { path, link, extended, .. } = prelude;
        let path = extended.sparse.name.as_ref().or(extended.path.as_ref()).cloned().or(path);
        let path = path.unwrap_or_else(|| plain_path(header));
        let failed = |problem| Error::malformed(&path, problem);
        if path.is_empty() {
            return Err(failed(Problem::NoName));
        }
        let stored = extended.size.unwrap_or(size);
        let target = || extended.link.clone().or(link).unwrap_or_else(|| header.link().to_vec());
        let kind = match header.flag() {
            0 | b'0' | b'7' | b'S' if path.ends_with(b"/") => {
                // As archives older than the flag for directories have them. Data is passed over.
                self.begin_body(&path, stored, header, &Extended::default())?;
                self.body.size = 0;
                Kind::Directory
            }
            0 | b'0' | b'7' | b'S' => {
                self.begin_body(&path, stored, header, &extended)?;
                Kind::File { size: self.body.size }
            }
            b'1' => Kind::HardLink { target: target() },
            b'2' => Kind::Symlink { target: target() },
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'3' | b'4' => {
                let (major, minor) = header.device().map_err(failed)?;
                match header.flag() {
                    b'3' => Kind::Character { major, minor },
                    _ => Kind::Block { major, minor },
                }
            }
            _ => return Err(Error::refused(&path, crate::error::Rule::Kind)),
        };
        if let Kind::HardLink { target } | Kind::Symlink { target } = &kind
            && target.is_empty()
        {
            return Err(failed(Problem::NoName));
        }
        let seconds = header.mtime().map_err(failed)?;
        Ok(Entry {
            mode: u32::try_from(header.mode().map_err(failed)? & 0o7777).unwrap_or(0),
            uid: owner(extended.uid.map_or_else(|| header.uid(), Ok)).map_err(failed)?,
            gid: owner(extended.gid.map_or_else(|| header.gid(), Ok)).map_err(failed)?,
            mtime: extended.mtime.unwrap_or(super::Time { seconds, nanoseconds: 0 }),
            xattrs: extended.xattrs,
            kind,
            path,
        })
    }

    /// Gets ready for the data of a file, whose holes may be described in three places.
    fn begin_body(
        &mut self,
        path: &[u8],
        stored: u64,
        header: Header<'_>,
        extended: &Extended,
    ) -> Result<()> {
        let failed = |problem| Error::malformed(path, problem);
        let padding = padded(stored) - stored;
        self.body = Body { path: path.to_vec(), stored, padding, size: stored, ..Body::default() };
        let (map, size) = if header.flag() == b'S' {
            let (parts, mut more, size) = header.old_sparse().map_err(failed)?;
            let mut map = Vec::new();
            sparse::read_old(parts, &mut map).map_err(failed)?;
            let mut block = [0; BLOCK];
            while more {
                self.read_exact(&mut block, path)?;
                sparse::read_old(&block[..504], &mut map).map_err(failed)?;
                more = block[504] != 0;
            }
            (map, size)
        } else if extended.sparse.is_any() {
            let sparse = &extended.sparse;
            let map =
                if sparse.is_in_data() { self.map_in_data(path)? } else { sparse.map.clone() };
            (map, sparse.size.ok_or(Problem::Sparse).map_err(failed)?)
        } else {
            return Ok(());
        };
        sparse::check(&map, size, self.body.stored).map_err(failed)?;
        self.body.size = size;
        self.body.map = Some(map.into_iter());
        Ok(())
    }

    /// The map of GNU's format 1.0: decimal numbers, a line each, in front of the data.
    fn map_in_data(&mut self, path: &[u8]) -> Result<Vec<Extent>> {
        let failed = |problem| Error::malformed(path, problem);
        let mut used = 0;
        let parts = self.number_in_data(path, &mut used)?;
        if parts > sparse::MAX_EXTENTS as u64 {
            return Err(failed(Problem::LargeSparse));
        }
        let mut map = Vec::new();
        for _ in 0..parts {
            let offset = self.number_in_data(path, &mut used)?;
            let length = self.number_in_data(path, &mut used)?;
            sparse::push(&mut map, Extent { offset, length }).map_err(failed)?;
        }
        let taken = padded(used);
        self.body.stored =
            self.body.stored.checked_sub(taken).ok_or(Problem::Sparse).map_err(failed)?;
        self.discard(taken - used, path)?;
        Ok(map)
    }

    fn number_in_data(&mut self, path: &[u8], used: &mut u64) -> Result<u64> {
        let failed = |problem| Error::malformed(path, problem);
        let mut digits = [0; MAX_NUMBER];
        for index in 0..MAX_NUMBER {
            // Not beyond the data of this entry.
            if *used == self.body.stored {
                break;
            }
            self.read_exact(&mut digits[index..=index], path)?;
            *used += 1;
            if digits[index] == b'\n' {
                return pax::decimal(&digits[..index])
                    .and_then(|number| number.ok_or(Problem::Sparse))
                    .map_err(failed);
            }
        }
        Err(failed(Problem::Sparse))
    }

    /// The records of an extended header; `total` is what this entry has of them by now.
    fn extended(&mut self, size: u64, total: u64, header: Header<'_>) -> Result<Vec<u8>> {
        if total > MAX_EXTENDED {
            return Err(Error::malformed(&plain_path(header), Problem::LargeExtended));
        }
        self.read_extension(size)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>> {
        // With its NUL.
        let read = size.min(MAX_NAME as u64 + 1);
        let mut name = Vec::new();
        self.append(read, &mut name)?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        if size > read || end > MAX_NAME {
            return Err(Error::malformed(&name, Problem::LongName));
        }
        name.truncate(end);
        self.discard(padded(size) - size, &name)?;
        Ok(name)
    }

    fn read_extension(&mut self, size: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.append(size, &mut bytes)?;
        self.discard(padded(size) - size, b"an extended header")?;
        Ok(bytes)
    }

    /// A header's block. False at the end of the archive.
    fn read_header(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        if !self.read_block(block)? {
            return Ok(false);
        }
        if block.iter().all(|byte| *byte == 0) {
            if !self.read_block(block)? || block.iter().all(|byte| *byte == 0) {
                return Ok(false);
            }
            return Err(Error::malformed(b"after a block of zeros", Problem::LoneZeros));
        }
        self.headers += 1;
        if self.headers > self.max_headers {
            return Err(Error::Limit { what: "entries", limit: self.max_headers });
        }
        Ok(true)
    }

    fn check<'a>(&self, block: &'a [u8; BLOCK], prelude: &Prelude) -> Result<Header<'a>> {
        Header::new(block).map_err(|problem| match self.headers {
            1 => Error::NotTar,
            number if prelude.is_empty() => {
                Error::malformed(format!("number {number}").as_bytes(), problem)
            }
            _ => Error::Malformed { entry: prelude.name(), problem },
        })
    }

    /// False when the stream ends before the block.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            let bytes = fill(&mut self.source)?;
            if bytes.is_empty() {
                return match (filled, self.headers) {
                    (0, _) => Ok(false),
                    (_, 0) => Err(Error::NotTar),
                    (_, _) => Err(Error::Truncated { entry: "a header".to_owned() }),
                };
            }
            let count = bytes.len().min(BLOCK - filled);
            block[filled..filled + count].copy_from_slice(&bytes[..count]);
            self.source.consume(count);
            filled += count;
        }
        Ok(true)
    }

    fn read_exact(&mut self, mut buffer: &mut [u8], path: &[u8]) -> Result<()> {
        while !buffer.is_empty() {
            let bytes = fill(&mut self.source)?;
            if bytes.is_empty() {
                return Err(Error::Truncated { entry: shown(path) });
            }
            let count = bytes.len().min(buffer.len());
            buffer[..count].copy_from_slice(&bytes[..count]);
            self.source.consume(count);
            buffer = &mut buffer[count..];
        }
        Ok(())
    }

    /// Appends so many bytes, which grow with what is really there.
    fn append(&mut self, size: u64, to: &mut Vec<u8>) -> Result<()> {
        let mut left = usize::try_from(size).unwrap_or(usize::MAX);
        while left > 0 {
            let bytes = fill(&mut self.source)?;
            if bytes.is_empty() {
                return Err(Error::Truncated { entry: "an extended header".to_owned() });
            }
            let count = bytes.len().min(left);
            to.extend_from_slice(&bytes[..count]);
            self.source.consume(count);
            left -= count;
        }
        Ok(())
    }

    fn pass_over_body(&mut self) -> Result<()> {
        self.give_back();
        let body = std::mem::take(&mut self.body);
        self.discard(body.stored, &body.path)?;
        // The last block may be cut off.
        match self.discard(body.padding, &body.path) {
            Err(Error::Truncated { .. }) => Ok(()),
            other => other,
        }
    }

    fn discard(&mut self, mut count: u64, path: &[u8]) -> Result<()> {
        while count > 0 {
            let bytes = fill(&mut self.source)?;
            if bytes.is_empty() {
                return Err(Error::Truncated { entry: shown(path) });
            }
            let most = usize::try_from(count).unwrap_or(usize::MAX).min(bytes.len());
            self.source.consume(most);
            count -= most as u64;
        }
        Ok(())
    }

    fn give_back(&mut self) {
        self.source.consume(std::mem::take(&mut self.lent));
    }
}

impl Prelude {
    fn is_empty(&self) -> bool {
        self.path.is_none() && self.link.is_none() && self.size == 0
    }

    fn name(&self) -> String {
        let path = self.extended.path.as_ref().or(self.path.as_ref());
        path.map_or_else(|| "an extended header".to_owned(), |path| shown(path))
    }
}

fn fill<R: BufRead>(source: &mut R) -> Result<&[u8]> {
    // Twice, because the borrow checker does not see that the first one ends.
    loop {
        match source.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Read(error)),
        }
    }
    source.fill_buf().map_err(Error::Read)
}

fn plain_path(header: Header<'_>) -> Vec<u8> {
    let mut path = Vec::new();
    header.path(&mut path);
    path
}

/// chown(2) takes the highest number for "as it is".
fn owner(id: std::result::Result<i64, Problem>) -> std::result::Result<u32, Problem> {
    u32::try_from(id?).ok().filter(|id| *id != u32::MAX).ok_or(Problem::Range)
}

/// With what fills the last block. Saturates: such a size is beyond any stream.
fn padded(size: u64) -> u64 {
    size.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX)
}
