//! Where everything of a daemon lies: directories made with their modes, the lock on the root, and
//! the pure functions from a container's name to its places.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use shim_wire::files::{ContainerDir, RunDir, SocketDir};
use shim_wire::id::Id;

use crate::config::hex;
use crate::plain_file;
use crate::shim;
use crate::store;

/// Members of the socket's group pass through the state directory; nobody reads it.
const STATE_MODE: u32 = 0o711;

/// The directories of one daemon.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    state: PathBuf,
}

/// Directories that can't be made or locked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("directory {}: {source}", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("lock {}: {source}", path.display())]
    Lock { path: PathBuf, source: std::io::Error },
    #[error(
        "{} is {kind}, and a directory of bosund's belongs there: move it away, then start bosund again",
        path.display()
    )]
    NoDirectory { path: PathBuf, kind: &'static str },
    #[error(
        "{} is {kind}, and the file belongs there by which one bosund at a time has this directory: see that none runs with it, move that away, then start bosund again",
        path.display()
    )]
    NoLock { path: PathBuf, kind: &'static str },
    #[error(transparent)]
    SetAside(#[from] store::Error),
    #[error(
        "{what} {} is held by another bosund (pid {holder}): stop it, or give this one a directory of its own with --{what}",
        path.display()
    )]
    Held { what: &'static str, path: PathBuf, holder: String },
    #[error(
        "state directory {} belongs to the root {owner}, whose containers may still run: start bosund with --root {owner}, or with another --state",
        state.display()
    )]
    OtherRoot { state: PathBuf, owner: String },
    #[error(
        "root {} is empty, and containers of it still run: if it is a disk of its own, mount it; if all of it is lost, and what runs is to end, remove {}",
        root.display(),
        note.display()
    )]
    EmptyRoot { root: PathBuf, note: PathBuf },
    #[error(
        "containers of root {} run with the state directory {owner}: start bosund with --state {owner}, and with another one when they have ended",
        root.display()
    )]
    OtherState { root: PathBuf, owner: String },
    #[error(
        "containers run in control groups below {prefix:?}: start bosund with --cgroup-prefix {prefix}, and with another one when they have ended"
    )]
    OtherPrefix { prefix: String },
}

/// Held as long as the daemon lives; the kernel lets go of it with the process.
#[derive(Debug)]
pub struct Locks(#[expect(dead_code, reason = "holding the descriptors is their use")] [File; 2]);

impl Layout {
    #[must_use]
    pub fn new(root: &Path, state: &Path) -> Self {
        Self { root: root.to_owned(), state: state.to_owned() }
    }

    /// Makes the directories, closed to everybody else whatever the umask and whatever they were.
    ///
    /// # Errors
    /// Names the directory.
    pub fn make(&self) -> Result<(), Error> {
        make_directory(&self.state, STATE_MODE)?;
        self.make_root()?;
        for path in [self.state.join("containers"), self.state.join("s"), self.state_trash()] {
            make_directory_anew(&self.state, &path)?;
        }
        // What else is in its place the socket replaces.
        let socket = self.state.join("bosun.sock");
        if socket.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            store::make_way(&self.state, &socket)?;
        }
        Ok(())
    }

    /// As [`make`](Self::make), of the root alone.
    ///
    /// # Errors
    /// Names the directory.
    pub fn make_root(&self) -> Result<(), Error> {
        make_directory(&self.root, 0o700)?;
        for path in [
            self.root.join("containers"),
            self.content(),
            self.content().join("blobs/sha256"),
            self.snapshots(),
        ] {
            make_directory(&path, 0o700)?;
        }
        let others = [self.trash(), self.nothing(), self.checkpoints()];
        for path in [self.content().join("ingest")].into_iter().chain(others) {
            make_directory_anew(&self.root, &path)?;
        }
        Ok(())
    }

    /// Takes the root and the state directory for this process: a daemon that shared either would
    /// take the other's containers for leftovers.
    ///
    /// # Errors
    /// [`Error::Held`] names the daemon that has one of them.
    pub fn lock(&self) -> Result<Locks, Error> {
        make_directory(&self.root, 0o700)?;
        self.rename_old_note();
        make_directory(&self.state, STATE_MODE)?;
        let locks =
            Locks([lock_directory("root", &self.root)?, lock_directory("state", &self.state)?]);
        self.claim_state()?;
        self.claim_root()?;
        Ok(locks)
    }

    /// Notes in the state directory below which control group its containers are. Another one is refused as
    /// long as some run: neither they nor what they leave would be found.
    ///
    /// # Errors
    /// [`Error::OtherPrefix`].
    pub fn claim_prefix(&self, prefix: &str) -> Result<(), Error> {
        let path = self.state.join("cgroup-prefix");
        let noted = read_note(&path);
        if noted == prefix.as_bytes() {
            return Ok(());
        }
        if !noted.is_empty() && has_living(&self.state) {
            return Err(Error::OtherPrefix {
                prefix: String::from_utf8_lossy(&noted).into_owned(),
            });
        }
        write_note(&path, prefix.as_bytes());
        Ok(())
    }

    /// Takes the root alone, which has to be there.
    ///
    /// # Errors
    /// [`Error::Held`] names the daemon that has it.
    pub fn lock_root(&self) -> Result<impl Sized + use<>, Error> {
        lock_directory("root", &self.root)
    }

    /// Notes in the state directory whose it is. One that belongs to another root is refused also
    /// while that daemon is down: its containers may live.
    fn claim_state(&self) -> Result<(), Error> {
        let path = self.state.join("root");
        let own = self.root.as_os_str().as_encoded_bytes();
        store::make_way(&self.state, &path)?;
        let owner = read_note(&path);
        let sockets = std::fs::read_dir(self.state.join("s")).into_iter().flatten().count();
        // What is no root of a bosund is no owner: the note is damaged.
        let is_root = Path::new(std::ffi::OsStr::from_bytes(&owner)).join("lock").is_file();
        if owner != own && sockets > 0 && is_root {
            let owner = String::from_utf8_lossy(&owner).into_owned();
            return Err(Error::OtherRoot { state: self.state.clone(), owner });
        }
        if owner == own {
            let containers = self.root.join("containers");
            let has_containers = std::fs::read_dir(containers).into_iter().flatten().count() > 0;
            if sockets > 0 && !has_containers && !self.database().exists() {
                return Err(Error::EmptyRoot { root: self.root.clone(), note: path });
            }
            // On a full disk it could not be written again.
            return Ok(());
        }
        std::fs::write(&path, own).map_err(|source| Error::Lock { path, source })
    }

    /// Notes in the root where its containers' shims are found. Another state directory is refused as long as
    /// some live there: they would be taken for lost.
    fn claim_root(&self) -> Result<(), Error> {
        let path = self.note_of_state();
        let noted = read_note(&path);
        if noted == self.state.as_os_str().as_bytes() {
            return Ok(());
        }
        let other = Path::new(std::ffi::OsStr::from_bytes(&noted));
        if read_note(&other.join("root")) == self.root.as_os_str().as_bytes() && has_living(other) {
            let owner = other.display().to_string();
            return Err(Error::OtherState { root: self.root.clone(), owner });
        }
        write_note(&path, self.state.as_os_str().as_bytes());
        Ok(())
    }

    /// Which state directory the root's containers have. Not `state`: that is the directory itself, where
    /// nobody says where it lies.
    fn note_of_state(&self) -> PathBuf {
        self.root.join("state-directory")
    }

    /// Earlier builds called that note `state`.
    fn rename_old_note(&self) {
        let old = self.root.join("state");
        if read_note(&old).starts_with(b"/")
            && let Err(error) = std::fs::rename(&old, self.note_of_state())
        {
            tracing::warn!(path = %old.display(), %error, "not renamed");
        }
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.root.join("meta.db")
    }

    /// Blobs in OCI layout, and the ingests beside them.
    #[must_use]
    pub fn content(&self) -> PathBuf {
        self.root.join("content")
    }

    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots/overlayfs")
    }

    /// Where trees are moved before they are unlinked, so that their place is free at once.
    #[must_use]
    pub fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// Notes of checkpoints that nobody was told of yet.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Directories of runs that are being removed.
    #[must_use]
    pub fn state_trash(&self) -> PathBuf {
        self.state.join("trash")
    }

    /// An empty directory: what a tree stands on that stands on nothing.
    #[must_use]
    pub fn nothing(&self) -> PathBuf {
        self.root.join("nothing")
    }

    #[must_use]
    pub fn container_dir(&self, namespace: &Id, id: &Id) -> ContainerDir {
        ContainerDir::new(self.root.join("containers").join(namespace.as_str()).join(id.as_str()))
    }

    #[must_use]
    pub fn run_dir(&self, namespace: &Id, id: &Id) -> RunDir {
        RunDir::new(self.state.join("containers").join(namespace.as_str()).join(id.as_str()))
    }

    #[must_use]
    pub fn socket_dir(&self, namespace: &Id, id: &Id) -> SocketDir {
        SocketDir::new(self.state.join("s").join(socket_hash(&self.root, namespace, id)))
    }
}

/// A note of a daemon's own; empty when there is none.
fn read_note(path: &Path) -> Vec<u8> {
    plain_file::read(path, plain_file::NOTE).unwrap_or_default()
}

/// Without a note nothing is checked: a full disk is no reason not to start.
fn write_note(path: &Path, text: &[u8]) {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written =
        plain_file::open_with(&mut options, path).and_then(|mut file| file.write_all(text));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "not noted");
    }
}

/// Whether a shim lives whose run directory is in a state directory.
fn has_living(state: &Path) -> bool {
    let children = |path: PathBuf| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path())
    };
    let mut runs = children(state.join("containers")).flat_map(children);
    runs.any(|run| {
        let identity = shim::read_identity(&RunDir::new(run).shim_identity());
        identity.is_some_and(|identity| shim::is_alive(&identity))
    })
}

fn lock_directory(what: &'static str, directory: &Path) -> Result<File, Error> {
    let path = directory.join("lock");
    let failed = |source| Error::Lock { path: path.clone(), source };
    if let Some(kind) = plain_file::other_kind(&path) {
        return Err(Error::NoLock { path, kind });
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = plain_file::open_with(&mut options, &path).map_err(failed)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = Vec::new();
        Read::by_ref(&mut file).take(64).read_to_end(&mut holder).map_err(failed)?;
        let holder = String::from_utf8_lossy(&holder).trim().to_owned();
        return Err(Error::Held { what, path: directory.to_owned(), holder });
    }
    // It tells others who it is: a full disk is no reason not to start.
    let noted = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = noted {
        tracing::warn!(path = %path.display(), %error, "the lock does not say whose it is");
    }
    Ok(file)
}

/// 32 hex digits of sha256 over root, namespace and id, which no two containers share.
fn socket_hash(root: &Path, namespace: &Id, id: &Id) -> String {
    let mut digest = Sha256::new();
    digest.update(root.as_os_str().as_encoded_bytes());
    digest.update([0]);
    digest.update(namespace.as_str());
    digest.update([0]);
    digest.update(id.as_str());
    hex(&digest.finalize())[..32].to_owned()
}

/// Makes a directory and its parents; its own mode is set whatever the umask.
///
/// # Errors
/// Names the directory.
pub fn make_directory(path: &Path, mode: u32) -> Result<(), Error> {
    let failed = |source| Error::Directory { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(
        |source| match in_the_way(path) {
            Some((path, kind)) => Error::NoDirectory { path, kind },
            None => failed(source),
        },
    )?;
    let metadata = path.metadata().map_err(failed)?;
    if metadata.permissions().mode() & 0o7777 != mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(())
}

/// As [`make_directory`], closed to everybody else, of one whose content nobody misses: what is none is set
/// aside.
fn make_directory_anew(top: &Path, path: &Path) -> Result<(), Error> {
    if let Some((there, kind)) = in_the_way(path).filter(|(there, _)| there == path) {
        let aside = store::set_aside(top, &there)?;
        tracing::warn!(path = %there.display(), aside = %aside.display(), "{kind} in the place of a directory: set aside");
    }
    make_directory(path, 0o700)
}

/// What on the way to a directory is none, and what it is instead.
fn in_the_way(path: &Path) -> Option<(PathBuf, &'static str)> {
    path.ancestors().find_map(|path| {
        let found = path.symlink_metadata().ok()?;
        let is_directory = path.metadata().is_ok_and(|followed| followed.is_dir());
        (!is_directory).then(|| (path.to_owned(), plain_file::kind(found.file_type())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_directory_is_named_or_set_aside_where_nobody_misses_it() {
        let directory = tempfile::tempdir().unwrap();
        let (root, state) = (directory.path().join("root"), directory.path().join("state"));
        let layout = Layout::new(&root, &state);
        let strike = |path: &Path| {
            let _ = std::fs::remove_dir_all(path);
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
        };
        for name in ["snapshots", "snapshots/overlayfs", "containers", "content/blobs"] {
            layout.make().unwrap();
            let path = root.join(name);
            strike(&path);
            let error = layout.make().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{} is a FIFO", path.display())), "{error}");
            assert!(error.contains("move it away"), "{error}");
            std::fs::remove_file(&path).unwrap();
        }
        for (top, name) in [
            (&root, "content/ingest"),
            (&root, "trash"),
            (&root, "nothing"),
            (&root, "checkpoints"),
            (&state, "containers"),
            (&state, "s"),
            (&state, "trash"),
        ] {
            layout.make().unwrap();
            let path = top.join(name);
            for is_fifo in [true, false] {
                strike(&path);
                if !is_fifo {
                    std::fs::remove_file(&path).unwrap();
                    std::fs::write(&path, "what it was").unwrap();
                }
                layout.make().unwrap();
                assert!(path.is_dir(), "{}", path.display());
            }
            let aside = std::fs::read_dir(top.join("quarantine")).unwrap().flatten();
            let ending = name.replace('/', "-");
            let kept = aside.filter(|entry| {
                entry.file_name().to_string_lossy().ends_with(&format!("-{ending}"))
            });
            assert_eq!(kept.count(), 2, "{}", path.display());
        }
        std::fs::create_dir(root.join("lock")).unwrap();
        let error = layout.lock().unwrap_err().to_string();
        assert!(error.contains("lock is a directory") && error.contains("move that"), "{error}");
        std::fs::remove_dir(root.join("lock")).unwrap();
        std::fs::create_dir(state.join("root")).unwrap();
        let _locks = layout.lock().unwrap();
        assert_eq!(std::fs::read(state.join("root")).unwrap(), root.as_os_str().as_encoded_bytes());
    }

    #[test]
    fn a_second_daemon_is_told_who_holds_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(&directory.path().join("root"), &directory.path().join("state"));
        let lock = layout.lock().unwrap();
        let Err(Error::Held { holder, .. }) = layout.lock() else { panic!("locked twice") };
        assert_eq!(holder, std::process::id().to_string());
        drop(lock);
        layout.lock().unwrap();
    }

    #[test]
    fn a_daemon_with_another_root_may_not_share_the_state_directory() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let lock = Layout::new(&directory.path().join("one"), &state).lock().unwrap();
        let second = Layout::new(&directory.path().join("two"), &state).lock();
        assert!(matches!(second, Err(Error::Held { what: "state", .. })), "{second:?}");
        drop(lock);
        std::fs::create_dir_all(state.join("s/of-a-living-shim")).unwrap();
        let later = Layout::new(&directory.path().join("two"), &state).lock();
        assert!(matches!(later, Err(Error::OtherRoot { .. })), "{later:?}");
        let one = directory.path().join("one");
        let empty = Layout::new(&one, &state).lock();
        assert!(matches!(empty, Err(Error::EmptyRoot { .. })), "{empty:?}");
        std::fs::create_dir_all(one.join("containers/default")).unwrap();
        Layout::new(&one, &state).lock().unwrap();
    }

    #[test]
    fn another_state_directory_or_prefix_is_refused_while_something_runs() {
        for state in ["state", "root/state"] {
            let directory = tempfile::tempdir().unwrap();
            nothing_else_is_taken(directory.path(), &directory.path().join(state));
        }
    }

    fn nothing_else_is_taken(directory: &Path, state: &Path) {
        let root = directory.join("root");
        let layout = Layout::new(&root, state);
        drop(layout.lock().unwrap());
        layout.claim_prefix("one").unwrap();
        let run = state.join("containers/default/one");
        std::fs::create_dir_all(&run).unwrap();
        let other = Layout::new(&root, &directory.join("other"));
        drop(other.lock().unwrap());
        layout.claim_prefix("two").unwrap();
        drop(layout.lock().unwrap());
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let living = shim_wire::files::ProcessIdentity {
            pid: std::process::id(),
            start_time: shim_wire::files::start_time_of_stat(&stat).unwrap(),
            boot_id: shim::boot_id().to_owned(),
        };
        std::fs::write(RunDir::new(run).shim_identity(), living.encode()).unwrap();
        let refused = other.lock();
        assert!(matches!(refused, Err(Error::OtherState { .. })), "{refused:?}");
        let refused = layout.claim_prefix("one");
        assert!(matches!(refused, Err(Error::OtherPrefix { .. })), "{refused:?}");
        layout.claim_prefix("two").unwrap();
        layout.lock().unwrap();
    }

    #[test]
    fn an_earlier_builds_note_is_not_in_the_way_of_a_state_directory() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("state"), "/elsewhere").unwrap();
        let layout = Layout::new(&root, &root.join("state"));
        drop(layout.lock().unwrap());
        assert_eq!(read_note(&layout.note_of_state()), layout.state().as_os_str().as_bytes());
    }

    #[test]
    fn directories_are_closed_even_when_they_were_open() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o777)).unwrap();
        Layout::new(&root, &directory.path().join("state")).make().unwrap();
        for path in [root.clone(), root.join("containers"), root.join("snapshots/overlayfs")] {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
    }
}
