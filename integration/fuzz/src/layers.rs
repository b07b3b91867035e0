//! Layers and archives.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bosun_layer::tar::{Chunk, Entry, Reader, Writer};
use bosun_layer::{
    Applied, ArchiveOptions, Below, ExtractOptions, Limits, Settled, apply, archive_content,
    changes, diff, empty, extract, settle,
};
use shim_rootfs::Root;

/// Small, for speed; that they hold is a property too.
const LIMITS: Limits =
    Limits { entries: 500, size: 8 << 20, expansion: 2000, expansion_from: 1 << 20 };
/// The most that a read holds on to, when files are compared.
const MAX_KEPT: u64 = 1 << 20;

/// A layer: on nothing, beside others and settled, on others at once, and as a plain archive into a
/// directory in use. Nothing outside the tree is touched, and nothing below it; the digest is that
/// of the bytes; both ways to put it on others give the same tree.
///
/// Only root can make device nodes and give files away: for others it does nothing.
pub fn unpack(data: &[u8]) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for data in [Some(data), repaired(data).as_deref()].into_iter().flatten() {
        let place = Place::new();
        on_nothing(&place, data);
        on_others(&place, data);
        into_directory(&place, data);
        place.check();
    }
}

/// An archive: what is read is written, and read as the same again.
pub fn tar(data: &[u8]) {
    read_and_write(data);
    if let Some(repaired) = repaired(data) {
        read_and_write(&repaired);
    }
}

/// The same archive with right checksums, when any is wrong: no fuzzer guesses them.
fn repaired(data: &[u8]) -> Option<Vec<u8>> {
    let mut repaired = data.to_vec();
    for block in repaired.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    (repaired != data).then_some(repaired)
}

fn read_and_write(data: &[u8]) {
    let mut reader = Reader::new(std::io::BufReader::with_capacity(511, data), LIMITS.entries);
    let mut writer = Writer::new(Vec::new());
    let mut entries = Vec::new();
    let mut kept = 0;
    while let Ok(Some(entry)) = reader.next() {
        check(&entry);
        let Some(content) = content(&mut reader, &mut kept) else { break };
        writer.append(&entry, &content[..]).unwrap();
        entries.push((entry, content));
    }
    let archive = writer.finish().unwrap();
    let mut reader = Reader::new(&archive[..], u64::MAX);
    for (entry, content) in entries {
        assert_eq!(reader.next().unwrap(), Some(entry));
        assert_eq!(self::content(&mut reader, &mut 0).unwrap(), content);
    }
    assert_eq!(reader.next().unwrap(), None);
}

fn check(entry: &Entry) {
    assert!(!entry.path.is_empty() && entry.path.len() <= 4095 && !entry.path.contains(&0));
    assert!(entry.mode <= 0o7777 && entry.uid != u32::MAX && entry.gid != u32::MAX);
    assert!(entry.mtime.nanoseconds < 1_000_000_000);
    assert!(entry.xattrs.len() <= 1000);
}

/// An entry's content; `None` when it is broken, or more than a fuzzer should keep.
fn content<R: std::io::BufRead>(reader: &mut Reader<R>, kept: &mut u64) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        match reader.chunk().ok()? {
            None => return Some(content),
            Some(Chunk::Data(bytes)) => content.extend_from_slice(bytes),
            Some(Chunk::Hole(length)) => {
                *kept = kept.saturating_add(length);
                if *kept > MAX_KEPT {
                    return None;
                }
                content.resize(content.len() + usize::try_from(length).unwrap(), 0);
            }
        }
    }
}

fn on_nothing(place: &Place, data: &[u8]) {
    let tree = place.tree("nothing");
    let Ok(applied) = apply(data, tree.as_fd(), Below::Nothing, &LIMITS) else { return };
    assert!(applied.deferred.is_empty());
    // What was unpacked can be archived, and is the same when it is unpacked again.
    let Ok(archive) = archive_content(tree.as_fd(), Vec::new(), ArchiveOptions::default()) else {
        return;
    };
    let again = place.tree("again");
    // Names as long as they may be grow by the slash of a directory.
    if apply(&archive[..], again.as_fd(), Below::Nothing, &LIMITS).is_ok() {
        assert_eq!(list(&place.path("again")), list(&place.path("nothing")));
    }
}

fn on_others(place: &Place, data: &[u8]) {
    let below = place.root("below");
    let at_once = place.tree("at-once");
    let at_once = apply(data, at_once.as_fd(), Below::Tree(&below), &LIMITS);
    let tree = place.tree("beside");
    let Ok(beside) = apply(data, tree.as_fd(), Below::Pending, &LIMITS) else { return };
    let settled = settle(tree.as_fd(), &beside.deferred, Some(&below));
    let beside: Applied = match settled {
        Err(_) => return,
        Ok(Settled::Done) => beside,
        Ok(Settled::Again { .. }) => {
            empty(tree.as_fd()).unwrap();
            assert!(list(&place.path("beside")).is_empty());
            let Ok(again) = apply(data, tree.as_fd(), Below::Tree(&below), &LIMITS) else { return };
            assert_eq!(again.diff_id, beside.diff_id);
            again
        }
    };
    if let Ok(at_once) = at_once {
        assert_eq!(at_once.diff_id, beside.diff_id);
        assert_eq!(visible(place, "at-once"), visible(place, "beside"));
    }
    if let Ok(changes) = changes(tree.as_fd(), Some(&below)) {
        assert!(changes.iter().all(|change| change.path.starts_with(b"/")));
    }
    // As a layer again, it is the same upper directory.
    if let Ok(layer) = diff(tree.as_fd(), Some(&below), Vec::new()) {
        let again = place.tree("diff");
        if apply(&layer[..], again.as_fd(), Below::Pending, &LIMITS).is_ok() {
            assert_eq!(list(&place.path("diff")), list(&place.path("beside")));
        }
    }
}

fn into_directory(place: &Place, data: &[u8]) {
    let root = place.root("used");
    for owners in [false, true] {
        let options = ExtractOptions { owners, keep_kinds: !owners };
        let directory = std::ffi::OsStr::new("usr/bin");
        let _ = extract(data, &root, directory, options, &LIMITS);
    }
}

/// Trees, and beside them what must stay as it is.
struct Place {
    directory: tempfile::TempDir,
    below: Vec<String>,
}

const CANARY: &str = "alive";

impl Place {
    fn new() -> Self {
        // In memory when possible: there are thousands of them.
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let directory = tempfile::Builder::new().prefix("bosun-fuzz-").tempdir_in(base).unwrap();
        std::fs::write(directory.path().join("canary"), CANARY).unwrap();
        let mut place = Self { directory, below: Vec::new() };
        for name in ["below", "used"] {
            place.tree(name);
            place.fill(name);
        }
        place.below = list(&place.path("below"));
        place
    }

    /// What images have, and what hostile ones would like.
    fn fill(&self, name: &str) {
        let at = |path: &str| self.path(name).join(path);
        for path in ["usr/bin", "usr/lib", "etc/dir/deep", "d", "a/b"] {
            std::fs::create_dir_all(at(path)).unwrap();
        }
        let outside = self.directory.path().to_str().unwrap();
        for (link, target) in [
            ("bin", "usr/bin"),
            ("lib", "/usr/lib"),
            ("up", "../.."),
            ("out", outside),
            ("circle", "circle"),
            ("dangling", "run/made"),
        ] {
            std::os::unix::fs::symlink(target, at(link)).unwrap();
        }
        for path in ["usr/bin/tool", "etc/passwd", "file", "a/b/c"] {
            std::fs::write(at(path), path).unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn tree(&self, name: &str) -> OwnedFd {
        std::fs::create_dir_all(self.path(name)).unwrap();
        File::open(self.path(name)).unwrap().into()
    }

    fn root(&self, name: &str) -> Root {
        Root::new(self.tree(name))
    }

    fn check(&self) {
        let canary = self.path("canary");
        assert_eq!(std::fs::read_to_string(&canary).unwrap(), CANARY);
        let metadata = canary.symlink_metadata().unwrap();
        assert!(metadata.is_file() && metadata.nlink() == 1 && metadata.mode() & 0o111 == 0);
        assert_eq!(list(&self.path("below")), self.below);
        let known = ["canary", "below", "used", "nothing", "again", "at-once", "beside", "diff"];
        for entry in std::fs::read_dir(self.directory.path()).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(known.iter().any(|known| *known == name), "{name:?}");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Deeper than what removes the rest can go.
        for name in ["nothing", "again", "at-once", "beside", "diff", "used"] {
            if let Ok(tree) = File::open(self.path(name)) {
                let _ = empty(tree.as_fd());
            }
        }
    }
}

/// An upper directory without what changes nothing in the overlay: whiteouts of what is not below.
fn visible(place: &Place, name: &str) -> Vec<String> {
    let below: Vec<&str> =
        place.below.iter().map(|line| line.split('\t').next().unwrap_or_default()).collect();
    list(&place.path(name))
        .into_iter()
        .filter(|line| {
            let mut parts = line.split('\t');
            let path = parts.next().unwrap_or_default();
            parts.next() != Some("hidden") || below.contains(&path)
        })
        // Whether a directory hides what is not there does not matter either.
        .map(|line| line.replace("\topaque", ""))
        .collect()
}

/// All that is in a tree but its times, in order.
fn list(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![(File::open(root).map(OwnedFd::from).unwrap(), String::new())];
    while let Some((directory, prefix)) = pending.pop() {
        for entry in rustix::fs::Dir::read_from(&directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let path = format!("{prefix}/{:?}", name.to_string_lossy());
            let (line, inner) = describe(&directory, name);
            lines.push(format!("{path}\t{line}"));
            pending.extend(inner.map(|inner| (inner, path)));
        }
    }
    lines.sort();
    lines
}

/// What a file is, and its descriptor when it is a directory.
fn describe(directory: &OwnedFd, name: &std::ffi::CStr) -> (String, Option<OwnedFd>) {
    use rustix::fs::{AtFlags, FileType, Mode, OFlags};
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    let owner = format!("{:o} {}:{}", stat.st_mode, stat.st_uid, stat.st_gid);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(directory, name, flags, Mode::empty()).unwrap();
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let inner = open();
            let mut value = [0; 1];
            let found = rustix::fs::fgetxattr(&inner, "trusted.overlay.opaque", &mut value[..]);
            let opaque = if found.is_ok() { "\topaque" } else { "" };
            (format!("{owner}{opaque}"), Some(inner))
        }
        FileType::RegularFile => {
            let mut text = Vec::new();
            File::from(open()).take(1 << 16).read_to_end(&mut text).unwrap();
            (format!("{owner} {} {text:?}", stat.st_size), None)
        }
        FileType::Symlink => {
            (format!("{:?}", rustix::fs::readlinkat(directory, name, Vec::new()).unwrap()), None)
        }
        FileType::CharacterDevice if stat.st_rdev == 0 => ("hidden".to_owned(), None),
        FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Fifo
        | FileType::Socket
        | FileType::Unknown => (format!("{owner} {}", stat.st_rdev), None),
    }
}
