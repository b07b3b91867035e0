//! Archives built by hand, so that they can be wrong in any way; and trees to unpack them into.
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use bosun_layer::{Applied, Below, Error, Limits, apply};
use shim_rootfs::Root;

/// An archive being built.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

/// A header to be changed before it is added.
#[derive(Clone)]
pub(crate) struct Header(pub(crate) [u8; 512]);

impl Header {
    pub(crate) fn new(name: &[u8], flag: u8) -> Self {
        let mut header = Self([0; 512]);
        header.0[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        header.0[257..265].copy_from_slice(b"ustar\x0000");
        header.0[156] = flag;
        header.mode(if flag == b'5' { 0o755 } else { 0o644 }).number(136, 11, 1_000_000_000)
    }

    pub(crate) fn number(mut self, at: usize, digits: usize, number: u64) -> Self {
        let text = format!("{number:0digits$o}\0");
        self.0[at..at + text.len()].copy_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn mode(self, mode: u64) -> Self {
        self.number(100, 7, mode)
    }

    pub(crate) fn owner(self, uid: u64, gid: u64) -> Self {
        self.number(108, 7, uid).number(116, 7, gid)
    }

    pub(crate) fn size(self, size: u64) -> Self {
        self.number(124, 11, size)
    }

    pub(crate) fn link(self, target: &[u8]) -> Self {
        self.put(157, target)
    }

    pub(crate) fn device(self, major: u64, minor: u64) -> Self {
        self.number(329, 7, major).number(337, 7, minor)
    }

    pub(crate) fn gnu(self) -> Self {
        self.put(257, b"ustar  \0")
    }

    pub(crate) fn sum(mut self) -> [u8; 512] {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn header(self, header: Header) -> Self {
        self.raw(&header.sum())
    }

    /// A header with data behind it, of any size that the header may say.
    pub(crate) fn data(self, header: Header, data: &[u8]) -> Self {
        let padding = data.len().next_multiple_of(512) - data.len();
        self.header(header).raw(data).raw(&vec![0; padding])
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.data(Header::new(name.as_bytes(), b'0').size(data.len() as u64), data)
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.header(Header::new(name.as_bytes(), b'5'))
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.header(Header::new(name.as_bytes(), b'2').link(target.as_bytes()))
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        self.header(Header::new(name.as_bytes(), b'1').link(target.as_bytes()))
    }

    /// An extended header for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            text.extend(format!("{length} {key}=").bytes());
            text.extend(*value);
            text.push(b'\n');
        }
        self.data(Header::new(b"pax", b'x').size(text.len() as u64), &text)
    }

    pub(crate) fn long(self, flag: u8, name: &[u8]) -> Self {
        let name = [name, b"\0"].concat();
        self.data(Header::new(b"././@LongLink", flag).gnu().size(name.len() as u64), &name)
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }
}

/// A directory with a canary beside the tree that is unpacked into.
pub(crate) struct Place {
    pub(crate) directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("tree")).unwrap();
        std::fs::write(directory.path().join("canary"), "alive").unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join("tree").join(path)
    }

    pub(crate) fn tree(&self) -> OwnedFd {
        File::open(self.path("")).unwrap().into()
    }

    pub(crate) fn root(&self) -> Root {
        Root::new(self.tree())
    }

    pub(crate) fn apply(&self, layer: &[u8], below: Below<'_>) -> Result<Applied, Error> {
        let applied = apply(layer, self.tree().as_fd(), below, &Limits::default());
        self.check_canary();
        applied
    }

    pub(crate) fn check_canary(&self) {
        let canary = self.directory.path().join("canary");
        assert_eq!(std::fs::read_to_string(&canary).unwrap(), "alive");
        let metadata = canary.metadata().unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o644, 1));
        assert_eq!(std::fs::read_dir(self.directory.path()).unwrap().count(), 2);
    }

    /// All of a tree, a line for each file, in order.
    pub(crate) fn list(&self) -> Vec<String> {
        let mut lines = Vec::new();
        list(&self.path(""), "", &mut lines);
        lines
    }
}

pub(crate) fn list(directory: &Path, prefix: &str, lines: &mut Vec<String>) {
    let mut entries: Vec<_> = std::fs::read_dir(directory).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = entry.path().symlink_metadata().unwrap();
        let kind = metadata.file_type();
        if kind.is_dir() {
            let opaque =
                rustix::fs::getxattr(entry.path(), "trusted.overlay.opaque", &mut [0; 1][..]);
            lines.push(format!("{name}/{}", if opaque.is_ok() { " opaque" } else { "" }));
            list(&entry.path(), &format!("{name}/"), lines);
        } else if kind.is_symlink() {
            let target = std::fs::read_link(entry.path()).unwrap();
            lines.push(format!("{name} -> {}", target.display()));
        } else if kind.is_file() {
            let mut text = String::new();
            File::open(entry.path()).unwrap().take(100).read_to_string(&mut text).unwrap();
            lines.push(format!("{name} {text:?}"));
        } else if kind.is_char_device() && metadata.rdev() == 0 {
            lines.push(format!("{name} hidden"));
        } else {
            lines.push(format!("{name} special {}", metadata.rdev()));
        }
    }
}
