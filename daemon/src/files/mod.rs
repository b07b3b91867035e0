//! The files of a container, whether it runs or not: diff, export, copying in and out, and what a
//! commit needs.
//!
//! ```text
//!   runs          /proc/PID/root      its own view, mounts and all
//!   does not run  a detached overlay  over its tree and its image's, in nobody's mount table
//! ```
//!
//! A container is hostile: its processes may swap any path for a link at any moment. So nothing is
//! ever found by a path of the host: each lookup starts at the root's descriptor and the kernel
//! keeps it inside (`shim_rootfs::Root`).
//!
//! A tree that does not run is written to only while no start can begin; starts wait their turn.

mod volumes;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bosun_image::Reference;
use bosun_layer::{ArchiveOptions, Change, ChangeKind, ExtractOptions, Limits};
use rustix::fs::{AtFlags, Mode, OFlags};
use shim_rootfs::Root;
use shim_rootfs::user::Identity;

use crate::blocking::off_the_loop;
use crate::container::{self, Handle, Held, Phase};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::images::Commit;
use crate::pipe;
use crate::shim::{ShimProcess, read_identity};
use crate::snapshots::{self, Layers};
use crate::time::Time;
use crate::turns::Turn;

pub use volumes::fill as fill_volumes;

/// As the kernel has it (MAXSYMLINKS of path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// What a path of a container leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStat {
    /// The last component.
    pub name: String,
    pub size: u64,
    /// Type and permissions (inode(7)).
    pub mode: u32,
    pub modified_at: Time,
    /// Of a link.
    pub link_target: String,
}

/// A container's tree, to be looked at or written to.
#[derive(Debug)]
struct Tree {
    root: Root,
    /// Keeps the container from being started meanwhile.
    _turn: Option<Turn>,
}

/// What is to be done with a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// Where an archive that comes is to go.
#[derive(Clone, Debug)]
pub struct CopyTo {
    /// A directory.
    pub path: String,
    /// Directories stay directories, and others others.
    pub keep_kinds: bool,
    pub archive_owners: bool,
}

/// What differs from the image, by path.
///
/// # Errors
/// The container's record can't be read, or its tree.
pub async fn diff(core: &Core, handle: &Handle) -> Result<Vec<Change>> {
    let (upper, lower) = layers(core, handle).await?;
    let label = handle.label();
    off_the_loop(move || {
        let (upper, below) = (directory(&upper)?, snapshots::merged_or_none(&lower)?);
        let changes = bosun_layer::changes(upper.as_fd(), below.as_ref())
            .map_err(|source| path_error(source, &label, "/"))?;
        Ok(without_places(changes, &upper))
    })
    .await
}

/// Leaves out what no process of the container did: the empty files in `/etc` that bosun mounts its
/// own over, where the image has none.
fn without_places(mut changes: Vec<Change>, upper: &OwnedFd) -> Vec<Change> {
    let is_place = |change: &Change| {
        let name = change.path.strip_prefix(b"/");
        let is_ours = PLACES.iter().any(|place| place.as_bytes() == change.path);
        change.kind == ChangeKind::Added
            && is_ours
            && name.is_some_and(|name| {
                let name = OsStr::from_bytes(name);
                let stat = rustix::fs::statat(upper, name, AtFlags::SYMLINK_NOFOLLOW);
                stat.is_ok_and(|stat| stat.st_size == 0)
            })
    };
    let before = changes.len();
    changes.retain(|change| !is_place(change));
    let below_etc = |change: &Change| change.path.starts_with(b"/etc/");
    if changes.len() < before && !changes.iter().any(below_etc) {
        changes.retain(|change| change.path != b"/etc" || change.kind != ChangeKind::Modified);
    }
    changes
}

/// Where bosun mounts files of its own.
const PLACES: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// Writes the whole tree as a tar, without what is mounted in it.
///
/// # Errors
/// Its tree can't be read; nobody reads the archive any more.
pub async fn export(core: &Core, handle: &Handle, to: pipe::Writer) -> Result<()> {
    // From the layers, also while it runs: so nothing that is mounted is in the way.
    let (upper, lower) = layers(core, handle).await?;
    let label = handle.label();
    off_the_loop(move || {
        let trees: Vec<PathBuf> = std::iter::once(upper).chain(lower).collect();
        let root = snapshots::merged(&trees)?;
        let options = ArchiveOptions { one_mount: false };
        let written = bosun_layer::archive_content(root.as_fd(), to, options);
        finish(written, &label, "/")
    })
    .await?;
    // Of a container that was removed meanwhile, only half may have been there.
    match handle.view().phase {
        Phase::Removed(_) => Err(Error::Removing { id: handle.label() }),
        Phase::Created
        | Phase::Starting
        | Phase::Running(_)
        | Phase::Paused(_)
        | Phase::Exited(_)
        | Phase::Quarantined(_) => Ok(()),
    }
}

/// What a path leads to.
///
/// # Errors
/// There is no such path.
pub async fn stat(core: &Core, handle: &Handle, path: &str, follow: bool) -> Result<PathStat> {
    let tree = open(core, handle, Access::Read).await?;
    let (label, path) = (handle.label(), path.to_owned());
    off_the_loop(move || look(&tree.root, &path, follow, &label)).await
}

/// Who `USER[:GROUP]` is in a container.
///
/// # Errors
/// There is no such user.
pub(crate) async fn identity(core: &Core, handle: &Handle, wanted: &str) -> Result<Identity> {
    let tree = open(core, handle, Access::Read).await?;
    let wanted = wanted.to_owned();
    off_the_loop(move || container::identity(&tree.root, &wanted)).await
}

/// Says what a path leads to, and writes it as a tar whose entries begin with the path's last
/// component.
///
/// # Errors
/// There is no such path, or it can't be read.
pub async fn copy_from(
    core: &Core,
    handle: &Handle,
    path: &str,
    follow: bool,
    to: pipe::Writer,
) -> Result<(PathStat, impl Future<Output = Result<()>> + use<>)> {
    let tree = open(core, handle, Access::Read).await?;
    let (label, path) = (handle.label(), path.to_owned());
    let (wanted, container) = (path.clone(), label.clone());
    let (stat, tree) =
        off_the_loop(move || Ok((look(&tree.root, &wanted, follow, &container)?, tree))).await?;
    let as_name = match stat.name.as_str() {
        "/" | ".." => ".".to_owned(),
        name => name.to_owned(),
    };
    let archived = async move {
        off_the_loop(move || {
            let (directory, name) = place(&tree.root, &path, follow)
                .map_err(|source| at_path(source, &label, &path))?;
            let options = ArchiveOptions { one_mount: false };
            let as_name = OsStr::new(&as_name);
            let written = bosun_layer::archive(directory.as_fd(), &name, as_name, to, options);
            finish(written, &label, &path)
        })
        .await
    };
    Ok((stat, archived))
}

/// Unpacks a tar in a directory of a container; answers how many entries it had.
///
/// # Errors
/// There is no such directory; an entry that may not be, by its name; a full disk.
pub async fn copy_to(
    core: &Core,
    handle: &Handle,
    copy: CopyTo,
    from: pipe::Reader,
) -> Result<u64> {
    let tree = open(core, handle, Access::Write).await?;
    let label = handle.label();
    off_the_loop(move || {
        let options = ExtractOptions { keep_kinds: copy.keep_kinds, owners: copy.archive_owners };
        let path = OsStr::new(copy.path.trim_start_matches('/'));
        bosun_layer::extract(from, &tree.root, path, options, &Limits::default())
            .map_err(|source| path_error(source, &label, &copy.path))
    })
    .await
}

/// What a new image is to be called and to say.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    pub reference: Option<Reference>,
    pub author: String,
    pub message: String,
    pub changes: Vec<String>,
    /// Hold the container's processes still meanwhile.
    pub pause: bool,
}

/// Makes an image of what a container changed; answers its name.
///
/// # Errors
/// It stands on no image; its processes can't be held still; its files can't be read.
pub async fn commit(core: &Core, handle: &Handle, request: CommitRequest) -> Result<String> {
    let record = handle.record()?;
    let image = record.image.clone();
    let image = image.ok_or_else(|| Error::NoImageBelow { id: handle.label() })?;
    let (upper, lower) = layers(core, handle).await?;
    let key = handle.key();
    // Nothing else stops and lets go on meanwhile, and an exec waits: a process that came into a group that
    // stands still would keep its shim from all else.
    let _alone = match request.pause {
        true => Some(core.processes.wait(key.clone()).await),
        false => None,
    };
    // One that does not run must not be started in the middle.
    let _turn = core.trees.wait(key.clone()).await;
    let commit = Commit {
        id: record.id.clone(),
        container: handle.label(),
        options: record.options.clone(),
        image,
        upper,
        lower,
        reference: request.reference,
        author: request.author,
        message: request.message,
        changes: request.changes,
    };
    let _held = match request.pause {
        true => Held::hold(core, handle).await?,
        false => None,
    };
    core.images.commit(key.namespace.as_str(), commit).await
}

/// The container's own tree, and those below it, nearest first.
///
/// # Errors
/// Its record can't be read; its directories can't be made.
pub async fn layers(core: &Core, handle: &Handle) -> Result<(PathBuf, Vec<PathBuf>)> {
    let record = handle.record()?;
    let Layers { lower, upper } = core.snapshots.layers_of_number(record.snapshot).await?;
    match upper {
        Some((upper, _)) => Ok((upper, lower)),
        None => Err(Error::NoSuchSnapshot { key: record.id.clone() }),
    }
}

/// A container's root: what its processes see, or what they would.
async fn open(core: &Core, handle: &Handle, access: Access) -> Result<Tree> {
    loop {
        handle.settled().await?;
        let attempts = handle.record()?.run.attempts();
        let turn = core.trees.wait(handle.key().clone()).await;
        match handle.view().phase {
            Phase::Running(running) | Phase::Paused(running) => {
                return Ok(Tree { root: of_process(core, handle, running.pid)?, _turn: None });
            }
            Phase::Removed(_) => return Err(Error::Removing { id: handle.label() }),
            Phase::Created | Phase::Starting | Phase::Exited(_) | Phase::Quarantined(_) => {}
        }
        // It may have run, and ended, before the turn came.
        if handle.record()?.run.attempts() == attempts {
            let root = at_rest(core, handle, access).await?;
            // Who only reads keeps nobody from starting it.
            let turn = Some(turn).filter(|_| access == Access::Write);
            return Ok(Tree { root, _turn: turn });
        }
    }
}

/// The root of a running container. Whose pid it is is checked on both sides of its use.
fn of_process(core: &Core, handle: &Handle, pid: u32) -> Result<Root> {
    let gone = || Error::NotRunning { id: handle.label() };
    let key = handle.key();
    let run_dir = core.layout.run_dir(&key.namespace, &key.id);
    let identity = read_identity(&run_dir.init_identity()).ok_or_else(gone)?;
    if identity.pid != pid {
        return Err(gone());
    }
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&path, flags, Mode::empty())
        .map_err(|errno| Error::file("open", Path::new(&path))(errno.into()))?;
    // Still the same process: then it was when its root was opened.
    ShimProcess::of_identity(&identity).ok_or_else(gone)?;
    Ok(Root::new(root))
}

async fn at_rest(core: &Core, handle: &Handle, access: Access) -> Result<Root> {
    let record = handle.record()?;
    let Layers { lower, upper } = core.snapshots.layers_of_number(record.snapshot).await?;
    let Some((upper, work)) = upper else {
        return Err(Error::NoSuchSnapshot { key: record.id.clone() });
    };
    off_the_loop(move || {
        if access == Access::Read {
            let trees: Vec<PathBuf> = std::iter::once(upper).chain(lower).collect();
            return snapshots::merged(&trees);
        }
        match lower.as_slice() {
            [] => snapshots::merged(&[upper]),
            trees => snapshots::writable(trees, &upper, &work),
        }
    })
    .await
}

fn look(root: &Root, path: &str, follow: bool, container: &str) -> Result<PathStat> {
    let failed = |source: std::io::Error| Error::ContainerPath {
        container: container.to_owned(),
        path: path.to_owned(),
        source: Arc::new(source),
    };
    let link = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    let found = root.open(path, OFlags::PATH | link).map_err(|errno| failed(errno.into()))?;
    let stat = rustix::fs::fstat(&found).map_err(|errno| failed(errno.into()))?;
    let is_link =
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Symlink;
    let link_target = match is_link {
        false => String::new(),
        true => rustix::fs::readlinkat(&found, "", Vec::new())
            .map_err(|errno| failed(errno.into()))?
            .to_string_lossy()
            .into_owned(),
    };
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    Ok(PathStat {
        name: if name.is_empty() { "/".to_owned() } else { name.to_owned() },
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode,
        modified_at: Time {
            seconds: stat.st_mtime,
            nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        },
        link_target,
    })
}

/// Where a path leads: the directory, and the name in it; with `follow`, of what a link leads to.
fn place(root: &Root, path: &str, follow: bool) -> std::io::Result<(OwnedFd, OsString)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let mut path = OsString::from(path);
    for _ in 0..MAX_LINKS {
        let bytes = path.as_bytes();
        let trimmed = bytes.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        let (above, name) = match bytes[..trimmed].iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&bytes[..slash], &bytes[slash + 1..trimmed]),
            None => (&bytes[..0], &bytes[..trimmed]),
        };
        if matches!(name, b"" | b"." | b"..") || trimmed < bytes.len() {
            // A directory by its own word, whatever leads there.
            return Ok((root.open(&path, flags)?, ".".into()));
        }
        let above = [b"/", above].concat();
        let directory = root.open(OsStr::from_bytes(&above), flags)?;
        let name = OsStr::from_bytes(name);
        if follow && let Ok(target) = rustix::fs::readlinkat(&directory, name, Vec::new()) {
            let target = target.into_bytes();
            path = match target.first() {
                Some(b'/') => OsString::from_vec(target),
                Some(_) | None => OsString::from_vec([&above, &b"/"[..], &target].concat()),
            };
            continue;
        }
        return Ok((directory, name.to_owned()));
    }
    Err(rustix::io::Errno::LOOP.into())
}

fn directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| Error::file("open", path)(errno.into()))
}

/// Sends the last part of an archive.
fn finish(written: bosun_layer::Result<pipe::Writer>, container: &str, path: &str) -> Result<()> {
    let mut to = written.map_err(|source| path_error(source, container, path))?;
    to.flush().map_err(|source| at_path(source, container, path))
}

fn at_path(source: std::io::Error, container: &str, path: &str) -> Error {
    Error::ContainerPath {
        container: container.to_owned(),
        path: path.to_owned(),
        source: Arc::new(source),
    }
}

/// An error of the file system keeps its kind, so that a face can tell what it was.
fn path_error(source: bosun_layer::Error, container: &str, path: &str) -> Error {
    if let bosun_layer::Error::File { step, path: inside, source } = source {
        let what = format!("{step} {inside}: {source}");
        return at_path(std::io::Error::new(source.kind(), what), container, path);
    }
    Error::Archive { source: Arc::new(source) }
}
