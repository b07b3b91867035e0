//! Whole trees of files as values: walked, and compared down to the last attribute.
//!
//! Beside them: what a snapshot looks like mounted, without a line in the host's mount table.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bosun_proto::v1;
use rustix::fs::{FileType, lgetxattr, llistxattr, major, minor};

use crate::daemon::Daemon;
use crate::image;

/// A file of a tree, with all that should be the same elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub what: What,
    /// Permissions, with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds; not of a directory, whose time moves with what is made in it.
    pub mtime: Option<(i64, i64)>,
    /// The first path of the same file, where it has several.
    pub same_as: Option<PathBuf>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    File { size: u64, digest: String },
    Directory,
    Symlink(PathBuf),
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
}

/// Paths below the root, the root itself as the empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<PathBuf, Node>);

impl Tree {
    /// Everything below a directory that is not mounted there.
    ///
    /// # Panics
    /// When something can't be read.
    #[must_use]
    pub fn walk(root: &Path) -> Self {
        let mut tree = Self::default();
        let mut inodes = BTreeMap::new();
        let device = fs::symlink_metadata(root).expect("a root").dev();
        tree.add(root, Path::new(""), device, &mut inodes);
        tree
    }

    fn add(
        &mut self,
        root: &Path,
        path: &Path,
        device: u64,
        inodes: &mut BTreeMap<(u64, u64), PathBuf>,
    ) {
        let file = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) };
        let data = fs::symlink_metadata(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let what = what(&file, &data);
        let is_directory = what == What::Directory;
        let same_as = (!is_directory && data.nlink() > 1).then(|| {
            inodes.entry((data.dev(), data.ino())).or_insert_with(|| path.to_owned()).clone()
        });
        let node = Node {
            what,
            mode: data.mode() & 0o7777,
            uid: data.uid(),
            gid: data.gid(),
            mtime: (!is_directory).then(|| (data.mtime(), data.mtime_nsec())),
            same_as,
            xattrs: xattrs(&file),
        };
        self.0.insert(path.to_owned(), node);
        if is_directory && data.dev() == device {
            let mut names: Vec<_> = fs::read_dir(&file)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
                .map(|entry| entry.expect("an entry").file_name())
                .collect();
            names.sort();
            for name in names {
                self.add(root, &path.join(name), device, inodes);
            }
        }
    }

    /// One line for each difference; `self` is what it should be.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, node) in &self.0 {
            match other.0.get(path) {
                None => lines.push(format!("/{} is missing", path.display())),
                Some(found) if found != node => {
                    lines.push(format!("/{}:\n    {node}\n    {found}", path.display()));
                }
                Some(_) => {}
            }
        }
        let more = other.0.keys().filter(|path| !self.0.contains_key(*path));
        lines.extend(more.map(|path| format!("/{} is there", path.display())));
        lines
    }

    /// # Panics
    /// When there is no such path.
    #[track_caller]
    #[must_use]
    pub fn node(&self, path: &str) -> &Node {
        self.0.get(Path::new(path)).unwrap_or_else(|| panic!("no {path} in {:?}", self.0.keys()))
    }

    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(Path::new(path))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:04o} {}:{}", self.what, self.mode, self.uid, self.gid)?;
        write!(f, " mtime {:?} same as {:?} {:?}", self.mtime, self.same_as, self.xattrs)
    }
}

fn what(file: &Path, data: &fs::Metadata) -> What {
    let device = || (major(data.rdev()), minor(data.rdev()));
    match FileType::from_raw_mode(data.mode()) {
        FileType::RegularFile => What::File {
            size: data.len(),
            digest: image::digest(
                &fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())),
            ),
        },
        FileType::Directory => What::Directory,
        FileType::Symlink => What::Symlink(fs::read_link(file).expect("a link")),
        FileType::CharacterDevice => What::Character(device().0, device().1),
        FileType::BlockDevice => What::Block(device().0, device().1),
        FileType::Fifo => What::Fifo,
        FileType::Socket => What::Socket,
        FileType::Unknown => panic!("{} is of no known type", file.display()),
    }
}

/// Without the overlay's own.
fn xattrs(file: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = llistxattr(file, &mut names[..]).unwrap_or(0);
    let mut found = BTreeMap::new();
    for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let name = OsStr::from_bytes(name);
        if name.as_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0; 65536];
        let length = lgetxattr(file, name, &mut value[..]).expect("a listed attribute");
        value.truncate(length);
        found.insert(name.to_string_lossy().into_owned(), value);
    }
    found
}

/// A snapshot, mounted in a mount namespace of its own for as long as this value lives.
#[derive(Debug)]
pub struct Mounted<'a> {
    daemon: &'a Daemon,
    view: String,
    holder: Child,
    path: PathBuf,
}

impl<'a> Mounted<'a> {
    /// Makes a view of a committed snapshot and mounts it.
    ///
    /// # Panics
    /// When it can't.
    #[track_caller]
    #[must_use]
    pub fn view(daemon: &'a Daemon, snapshot: &str) -> Self {
        let view = format!("view-of-{snapshot}");
        let api = daemon.api();
        let request = v1::PrepareRequest {
            request_id: String::new(),
            key: view.clone(),
            base: Some(v1::prepare_request::Base::Parent(snapshot.to_owned())),
            // Nothing reaches it.
            labels: [("containerd.io/gc.root".to_owned(), "test".to_owned())].into(),
        };
        let answer = api.wait(async { api.snapshots().view(request).await });
        let mounts = answer.unwrap_or_else(|status| panic!("View: {status}")).into_inner().mounts;
        let [mount] = mounts.as_slice() else { panic!("one mount: {mounts:?}") };
        let kind = if mount.r#type == "bind" { "none" } else { &mount.r#type };
        let point = daemon.scratch().join("view");
        fs::create_dir_all(&point).expect("a directory");
        let mut command = Command::new("unshare");
        command.args(["-m", "--", "/bin/sh", "-ec"]);
        command.arg("mount -t \"$1\" -o \"$2\" \"$3\" \"$4\"; echo mounted; exec cat >/dev/null");
        command.args(["sh", kind, &mount.options.join(","), &mount.source]).arg(&point);
        let mut holder =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare is there");
        let mut line = String::new();
        let output = holder.stdout.take().expect("a pipe was asked for");
        BufReader::new(output).read_line(&mut line).expect("a pipe");
        assert_eq!(line, "mounted\n", "{mount:?}");
        let seen = PathBuf::from(format!("/proc/{}/root", holder.id()));
        let path = seen.join(point.strip_prefix("/").expect("an absolute path"));
        Self { daemon, view, holder, path }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let api = self.daemon.api();
        let request = v1::RemoveSnapshotRequest {
            request_id: String::new(),
            key: std::mem::take(&mut self.view),
        };
        // A failure shows as a snapshot that stays.
        let _ = api.wait(async { api.snapshots().remove(request).await });
    }
}
