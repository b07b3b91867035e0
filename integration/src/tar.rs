//! Tars as data: entries in, bytes out, and back.
//!
//! Written by hand, so that a test can say exactly what is in a header, also what no tool would
//! write: [`Header`] is the 512 bytes themselves. Paths, links, sizes and extended attributes that
//! don't fit a header go into PAX records, or into GNU's long names where a test asks for it.
//!
//! Reading is for tars of ours and of the peers: it trusts them and panics on anything else.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FileType, major, minor};

const BLOCK: usize = 512;

/// 2023-11-14: what an entry has as its time unless told otherwise.
pub const TIME: u64 = 1_700_000_000;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File(Vec<u8>),
    Directory,
    Symlink(String),
    HardLink(String),
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
}

impl Kind {
    fn flag(&self) -> u8 {
        match self {
            Self::File(_) => b'0',
            Self::HardLink(_) => b'1',
            Self::Symlink(_) => b'2',
            Self::Character(..) => b'3',
            Self::Block(..) => b'4',
            Self::Directory => b'5',
            Self::Fifo => b'6',
        }
    }
}

/// One entry of a tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub path: String,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds.
    pub mtime: u64,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Entry {
    /// Root's, with the mode that such a thing mostly has.
    #[must_use]
    pub fn new(path: &str, kind: Kind) -> Self {
        let mode = match kind {
            Kind::Directory => 0o755,
            Kind::Symlink(_) => 0o777,
            Kind::File(_) | Kind::HardLink(_) | Kind::Fifo => 0o644,
            Kind::Character(..) | Kind::Block(..) => 0o600,
        };
        let xattrs = BTreeMap::new();
        Self { path: path.to_owned(), kind, mode, uid: 0, gid: 0, mtime: TIME, xattrs }
    }

    #[must_use]
    pub fn file(path: &str, data: impl Into<Vec<u8>>) -> Self {
        Self::new(path, Kind::File(data.into()))
    }

    #[must_use]
    pub fn directory(path: &str) -> Self {
        Self::new(path, Kind::Directory)
    }

    #[must_use]
    pub fn symlink(path: &str, target: &str) -> Self {
        Self::new(path, Kind::Symlink(target.to_owned()))
    }

    #[must_use]
    pub fn hard_link(path: &str, target: &str) -> Self {
        Self::new(path, Kind::HardLink(target.to_owned()))
    }

    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    #[must_use]
    pub fn mtime(mut self, seconds: u64) -> Self {
        self.mtime = seconds;
        self
    }

    #[must_use]
    pub fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.xattrs.insert(name.to_owned(), value.to_owned());
        self
    }

    fn link(&self) -> &str {
        match &self.kind {
            Kind::Symlink(target) | Kind::HardLink(target) => target,
            Kind::File(_)
            | Kind::Directory
            | Kind::Character(..)
            | Kind::Block(..)
            | Kind::Fifo => "",
        }
    }

    fn data(&self) -> &[u8] {
        if let Kind::File(data) = &self.kind { data } else { &[] }
    }
}

/// A tar that grows.
#[derive(Clone, Debug, Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An entry as a well-behaved tool writes it.
    pub fn push(&mut self, entry: &Entry) {
        let mut records = Vec::new();
        if entry.path.len() > 100 {
            records.push(("path".to_owned(), entry.path.as_bytes().to_vec()));
        }
        if entry.link().len() > 100 {
            records.push(("linkpath".to_owned(), entry.link().as_bytes().to_vec()));
        }
        for (name, value) in &entry.xattrs {
            records.push((format!("SCHILY.xattr.{name}"), value.clone()));
        }
        if !records.is_empty() {
            self.pax(&records);
        }
        self.plain(entry);
    }

    /// The entry with its long names as GNU tar writes them.
    pub fn push_gnu(&mut self, entry: &Entry) {
        for (flag, name) in [(b'L', entry.path.as_str()), (b'K', entry.link())] {
            if name.len() > 100 {
                let data = [name.as_bytes(), b"\0"].concat();
                self.raw(&Header::new("././@LongLink", flag, data.len() as u64).gnu(), &data);
            }
        }
        self.plain(entry);
    }

    /// PAX records for the next entry.
    pub fn pax(&mut self, records: &[(String, Vec<u8>)]) {
        let data: Vec<u8> =
            records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
        self.raw(&Header::new("PaxHeaders/entry", b'x', data.len() as u64), &data);
    }

    /// A header and what follows it, as they are; the data is filled up to whole blocks.
    pub fn raw(&mut self, header: &Header, data: &[u8]) {
        self.0.extend_from_slice(&header.0);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
    }

    /// The tar without its two empty blocks at the end.
    #[must_use]
    pub fn unfinished(self) -> Vec<u8> {
        self.0
    }

    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }

    fn plain(&mut self, entry: &Entry) {
        let mut header = Header::new(&entry.path, entry.kind.flag(), entry.data().len() as u64)
            .mode(u64::from(entry.mode))
            .owner(u64::from(entry.uid), u64::from(entry.gid))
            .mtime(entry.mtime)
            .link(entry.link());
        if let Kind::Character(major, minor) | Kind::Block(major, minor) = entry.kind {
            header = header.device(major, minor);
        }
        self.raw(&header, entry.data());
    }
}

/// Entries for what is at these paths below a root and beneath, in the order of their names.
///
/// # Panics
/// When something can't be read, or is a socket.
#[must_use]
pub fn entries_of(root: &Path, paths: &[&str], without: &[&str]) -> Vec<Entry> {
    let mut found = Found { entries: Vec::new(), inodes: HashMap::new() };
    for path in paths {
        found.add(root, path, without);
    }
    found.entries
}

struct Found {
    entries: Vec<Entry>,
    /// The first path of a file with several.
    inodes: HashMap<u64, String>,
}

impl Found {
    fn add(&mut self, root: &Path, path: &str, without: &[&str]) {
        let file = root.join(path);
        let data = fs::symlink_metadata(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let device = || (major(data.rdev()), minor(data.rdev()));
        let first = self.inodes.get(&data.ino()).filter(|_| data.nlink() > 1 && !data.is_dir());
        let kind = match (first, FileType::from_raw_mode(data.mode())) {
            (Some(first), _) => Kind::HardLink(first.clone()),
            (None, FileType::RegularFile) => Kind::File(fs::read(&file).expect("a file")),
            (None, FileType::Directory) => Kind::Directory,
            (None, FileType::Symlink) => {
                let target = fs::read_link(&file).expect("a link");
                Kind::Symlink(target.to_string_lossy().into_owned())
            }
            (None, FileType::CharacterDevice) => Kind::Character(device().0, device().1),
            (None, FileType::BlockDevice) => Kind::Block(device().0, device().1),
            (None, FileType::Fifo) => Kind::Fifo,
            (None, FileType::Socket | FileType::Unknown) => {
                panic!("{} is nothing for a tar", file.display())
            }
        };
        let is_directory = kind == Kind::Directory;
        self.inodes.entry(data.ino()).or_insert_with(|| path.to_owned());
        let entry = Entry::new(path, kind).mode(data.mode() & 0o7777);
        self.entries.push(entry.owner(data.uid(), data.gid()));
        if !is_directory {
            return;
        }
        let mut names: Vec<String> = fs::read_dir(&file)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        for name in names {
            let below = if path == "." { name } else { format!("{path}/{name}") };
            if !without.contains(&below.as_str()) {
                self.add(root, &below, without);
            }
        }
    }
}

/// A whole tar of these.
#[must_use]
pub fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Tar::new();
    for entry in entries {
        tar.push(entry);
    }
    tar.finish()
}

fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    // "LENGTH KEY=VALUE\n", and the length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// The 512 bytes before an entry. Setters cut what does not fit, and keep the checksum right.
#[derive(Clone)]
pub struct Header([u8; BLOCK]);

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Header({:?})", field(&self.0, 0, 100))
    }
}

impl Header {
    #[must_use]
    pub fn new(path: &str, flag: u8, size: u64) -> Self {
        let mut this = Self([0; BLOCK]);
        this.put(257, b"ustar\x0000");
        this.0[156] = flag;
        this.text(0, 100, path.as_bytes()).mode(0o644).owner(0, 0).mtime(TIME).size(size)
    }

    /// Any bytes at any place.
    #[must_use]
    pub fn bytes(mut self, at: usize, bytes: &[u8]) -> Self {
        self.put(at, bytes);
        self.summed()
    }

    /// A field of text, with zeros behind it.
    #[must_use]
    pub fn text(mut self, at: usize, width: usize, text: &[u8]) -> Self {
        self.0[at..at + width].fill(0);
        self.put(at, &text[..text.len().min(width)]);
        self.summed()
    }

    #[must_use]
    pub fn gnu(self) -> Self {
        self.bytes(257, b"ustar  \0")
    }

    #[must_use]
    pub fn mode(self, mode: u64) -> Self {
        self.number(100, 8, mode)
    }

    #[must_use]
    pub fn owner(self, uid: u64, gid: u64) -> Self {
        self.number(108, 8, uid).number(116, 8, gid)
    }

    #[must_use]
    pub fn size(self, size: u64) -> Self {
        self.number(124, 12, size)
    }

    #[must_use]
    pub fn mtime(self, seconds: u64) -> Self {
        self.number(136, 12, seconds)
    }

    #[must_use]
    pub fn link(self, target: &str) -> Self {
        self.text(157, 100, target.as_bytes())
    }

    #[must_use]
    pub fn device(self, major: u32, minor: u32) -> Self {
        self.number(329, 8, u64::from(major)).number(337, 8, u64::from(minor))
    }

    /// Octal digits, or base-256 where they don't suffice.
    #[must_use]
    pub fn number(self, at: usize, width: usize, value: u64) -> Self {
        let digits = format!("{value:0width$o}", width = width - 1);
        if digits.len() < width {
            return self.text(at, width, digits.as_bytes());
        }
        let mut field = vec![0; width];
        field[width - 8..].copy_from_slice(&value.to_be_bytes());
        field[0] |= 0x80;
        self.bytes(at, &field)
    }

    /// A wrong checksum.
    #[must_use]
    pub fn spoiled(mut self) -> Self {
        self.put(148, b"000001\0 ");
        self
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn summed(mut self) -> Self {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|&byte| u32::from(byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self
    }
}

/// Entries of a whole tar.
///
/// # Panics
/// On what is no tar.
#[must_use]
pub fn read(bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut records: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut at = 0;
    while at + BLOCK <= bytes.len() {
        let header = &bytes[at..at + BLOCK];
        if header.iter().all(|&byte| byte == 0) {
            break;
        }
        let size =
            records.get("size").map_or_else(|| number(&header[124..136]), |text| decimal(text));
        let size = usize::try_from(size).expect("a size of this machine");
        let data = &bytes[at + BLOCK..at + BLOCK + size];
        at += BLOCK + size.next_multiple_of(BLOCK);
        match header[156] {
            b'x' => records.extend(pax_records(data)),
            b'g' => {}
            b'L' => drop(records.insert("path".to_owned(), until_zero(data))),
            b'K' => drop(records.insert("linkpath".to_owned(), until_zero(data))),
            _ => entries.push(entry(header, data, std::mem::take(&mut records))),
        }
    }
    entries
}

fn entry(header: &[u8], data: &[u8], records: BTreeMap<String, Vec<u8>>) -> Entry {
    let word = |key: &str, plain: String| {
        records.get(key).map_or(plain, |value| String::from_utf8_lossy(value).into_owned())
    };
    let value = |key: &str, at: usize, width: usize| {
        records.get(key).map_or_else(|| number(&header[at..at + width]), |text| decimal(text))
    };
    let prefix =
        if &header[257..263] == b"ustar\0" { field(header, 345, 155) } else { String::new() };
    let name = field(header, 0, 100);
    let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
    let link = word("linkpath", field(header, 157, 100));
    let small = |value: u64| u32::try_from(value).expect("a small number");
    let device = || (small(number(&header[329..337])), small(number(&header[337..345])));
    let kind = match header[156] {
        b'0' | 0 => Kind::File(data.to_vec()),
        b'1' => Kind::HardLink(link),
        b'2' => Kind::Symlink(link),
        b'3' => Kind::Character(device().0, device().1),
        b'4' => Kind::Block(device().0, device().1),
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        flag => panic!("an entry of type {:?} at {name:?}", char::from(flag)),
    };
    Entry {
        path: word("path", name),
        kind,
        mode: small(value("mode", 100, 8)) & 0o7777,
        uid: small(value("uid", 108, 8)),
        gid: small(value("gid", 116, 8)),
        mtime: value("mtime", 136, 12),
        xattrs: records
            .iter()
            .filter_map(|(key, value)| {
                Some((key.strip_prefix("SCHILY.xattr.")?.to_owned(), value.clone()))
            })
            .collect(),
    }
}

fn pax_records(mut data: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut records = BTreeMap::new();
    while let Some(space) = data.iter().position(|&byte| byte == b' ') {
        let length = usize::try_from(decimal(&data[..space])).expect("a small number");
        let record = &data[space + 1..length - 1];
        let equals = record.iter().position(|&byte| byte == b'=').expect("KEY=VALUE");
        let key = String::from_utf8_lossy(&record[..equals]).into_owned();
        records.insert(key, record[equals + 1..].to_vec());
        data = &data[length..];
    }
    records
}

/// Whole seconds of a PAX time, or a PAX number.
fn decimal(text: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(text);
    let whole = text.split('.').next().unwrap_or_default();
    whole.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn number(field: &[u8]) -> u64 {
    if field[0] & 0x80 != 0 {
        return field[1..]
            .iter()
            .fold(u64::from(field[0] & 0x7f), |value, &byte| value << 8 | u64::from(byte));
    }
    let text = String::from_utf8_lossy(field);
    let digits = text.trim_matches(|character| matches!(character, ' ' | '\0'));
    if digits.is_empty() { 0 } else { u64::from_str_radix(digits, 8).expect("octal digits") }
}

fn field(header: &[u8], at: usize, width: usize) -> String {
    String::from_utf8_lossy(&until_zero(&header[at..at + width])).into_owned()
}

fn until_zero(data: &[u8]) -> Vec<u8> {
    data.iter().copied().take_while(|&byte| byte != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::{Entry, Kind, Tar, read, tar};

    fn sample() -> Vec<Entry> {
        let long = "directory/".repeat(30);
        vec![
            Entry::directory("etc/").mode(0o700).owner(3_000_000, 7),
            Entry::file("etc/passwd", "root\n").xattr("user.note", b"a\0b"),
            Entry::file(&format!("{long}file"), vec![7; 1000]).mode(0o4755),
            Entry::hard_link("etc/again", "etc/passwd"),
            Entry::symlink("etc/far", &long),
            Entry::new("dev/null", Kind::Character(1, 3)),
            Entry::new("pipe", Kind::Fifo),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&tar(&sample())), sample());
        let mut gnu = Tar::new();
        for entry in sample().iter().filter(|entry| entry.xattrs.is_empty()) {
            gnu.push_gnu(entry);
        }
        assert_eq!(read(&gnu.finish()).len(), sample().len() - 1);
    }

    #[test]
    fn debians_tar_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sample.tar");
        std::fs::write(&file, tar(&sample())).unwrap();
        let mut list = std::process::Command::new("tar");
        let listed = crate::netns::run(list.arg("--numeric-owner").arg("-tvf").arg(file));
        let lines: Vec<&str> = listed.lines().collect();
        assert_eq!(lines.len(), sample().len(), "{listed}");
        assert!(lines[0].starts_with("drwx------ 3000000/7"), "{listed}");
        assert!(lines[2].starts_with("-rwsr-xr-x 0/0"), "{listed}");
        assert!(lines[5].contains("1,3"), "{listed}");
    }
}
