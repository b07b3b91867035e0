//! Tar archives, header by header.
//!
//! | module | what |
//! |---|---|
//! | `reader` | entries out of a stream, in any of the formats in use |
//! | `header` | the block of 512 bytes, its numbers and its checksum |
//! | `pax` | extended headers |
//! | `sparse` | files with holes, in the four ways that GNU tar has had |
//! | `writer` | entries into a stream: ustar, with extended headers where that is too small |
//!
//! A reader of our own, because an archive is hostile until it is read: nothing is allocated by a
//! number that it gives, every name, header, map and count has a bound, and what two readers could
//! understand in two ways is read as Go's `archive/tar` does, which scanners and other engines use.

mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use reader::{Chunk, Reader};
pub use writer::Writer;

pub(crate) const BLOCK: usize = 512;
/// The longest name, in bytes: PATH_MAX without its NUL.
pub(crate) const MAX_NAME: usize = 4095;

/// One file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As the archive has it: not empty, no NUL, at most 4095 bytes, and nothing else is known of it.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permissions, setuid, setgid and sticky bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Extended attributes, each name once.
    pub xattrs: Vec<Xattr>,
}

/// What a file is, and what only such a file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its size in bytes, holes included.
    File {
        size: u64,
    },
    Directory,
    HardLink {
        target: Vec<u8>,
    },
    Symlink {
        target: Vec<u8>,
    },
    Character {
        major: u32,
        minor: u32,
    },
    Block {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// A moment, since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    pub seconds: i64,
    /// Below 1,000,000,000; counts forward also before 1970.
    pub nanoseconds: u32,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    pub name: Vec<u8>,
    pub value: Vec<u8>,
}
