//! The bytes of files.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::error::{At, Result};
use crate::tar::{Chunk, Reader};

/// What is copied at once from file to file.
const COPY: usize = 256 << 10;

/// Writes an entry's content into a new file. Holes stay holes.
pub(crate) fn write<R: std::io::BufRead>(
    reader: &mut Reader<R>,
    to: BorrowedFd<'_>,
    path: &[u8],
) -> Result<()> {
    let mut end = 0;
    let mut ends_with_hole = false;
    while let Some(chunk) = reader.chunk()? {
        match chunk {
            Chunk::Data(bytes) => {
                write_all(to, bytes).at("write", path)?;
                end += bytes.len() as u64;
                ends_with_hole = false;
            }
            Chunk::Hole(length) => {
                end += length;
                rustix::fs::seek(to, SeekFrom::Start(end)).at("write", path)?;
                ends_with_hole = true;
            }
        }
    }
    if ends_with_hole {
        rustix::fs::ftruncate(to, end).at("write", path)?;
    }
    Ok(())
}

/// Copies all of a file into a new one, holes as holes.
pub(crate) fn copy(from: impl AsFd, to: impl AsFd, path: &[u8]) -> Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let size = rustix::fs::fstat(from).at("look at", path)?.st_size.cast_unsigned();
    let mut buffer = Vec::new();
    let mut position = 0;
    while position < size {
        position = match rustix::fs::seek(from, SeekFrom::Data(position)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            // It has no holes, for all that the file system says.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => position,
            Err(errno) => return Err(errno).at("read", path),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(position)).unwrap_or(size);
        rustix::fs::seek(from, SeekFrom::Start(position)).at("read", path)?;
        rustix::fs::seek(to, SeekFrom::Start(position)).at("write", path)?;
        buffer.resize(COPY, 0);
        while position < end {
            let most = usize::try_from(end - position).unwrap_or(COPY).min(COPY);
            let count = rustix::io::read(from, &mut buffer[..most]).at("read", path)?;
            if count == 0 {
                break;
            }
            write_all(to, &buffer[..count]).at("write", path)?;
            position += count as u64;
        }
        if position < end {
            break;
        }
    }
    rustix::fs::ftruncate(to, size).at("write", path)
}

pub(crate) fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> std::result::Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
