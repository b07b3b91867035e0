//! A running container, written down to an archive: the processes by criu, through the shim, and what
//! their image has not.
//!
//! ```text
//!   held still ─▶ criu ─▶ images ─▶ archive, under another name ─▶ synced, renamed ─▶ goes on, or killed
//! ```
//!
//! The archive is a tar as other runtimes under Kubernetes write it, for the programs that read theirs:
//!
//! | entry | what |
//! |---|---|
//! | `checkpoint/` | criu's images |
//! | `config.dump` | which container, of which image, when: JSON |
//! | `spec.dump` | its OCI spec |
//! | `options.dump` | what it was asked to be, for bosun alone: JSON |
//! | `rootfs-diff.tar` | what it changed of its files: a layer, with whiteouts |
//! | `dump.log` | criu's log |
//!
//! Processes stand still from before criu looks at them until the files are read, so both are of one
//! moment. criu is never interrupted: it would leave behind processes that it has changed. So where it takes
//! longer than the caller waits, that is what the caller is told; the processes go on once criu is done, and what
//! it wrote is thrown away. The way back is [`restore`]'s.

pub mod pod;
pub mod restore;
pub(crate) mod untold;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bosun_layer::tar::{Entry, Kind, Time as Moment, Writer};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use rustix::io::Errno;
use serde_json::json;
use shim_wire::files::ContainerDir;

use crate::blocking::off_the_loop;
use crate::container::{Handle, Held, Key, Record, Running, let_go_on};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::files;
use crate::snapshots;
use crate::spec::Signal;
use crate::time::Time;
use crate::turns::Turn;

use untold::Untold;

/// How long the shim's answer is waited for: a little longer than the shim waits for criu.
const TIME_OUT: Duration = Duration::from_secs(630);

/// criu's log in its working directory.
const LOG: &str = "dump.log";

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointRequest {
    /// The archive: an absolute path at which there is nothing yet.
    pub location: PathBuf,
    /// The container goes on; otherwise it is killed.
    pub leave_running: bool,
    pub what: What,
    /// How long the caller waits; absent is to the end.
    pub timeout: Option<Duration>,
}

/// What of a container is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct What {
    /// Open TCP connections as well; without, a container that has some is refused.
    pub tcp_established: bool,
    pub file_locks: bool,
    /// All but what the container changed of its files.
    pub without_files: bool,
}

/// Whether an archive gets its name, or its caller is told that it took too long: who comes first decides.
#[derive(Clone, Debug, Default)]
pub struct Decision(Arc<AtomicBool>);

impl Decision {
    /// Whether this is the first to ask.
    pub fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    fn is_taken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Writes a running container down. What fails leaves no archive, and a container that goes on.
///
/// # Errors
/// It does not run, or is no container of bosun's own runtime; something is at the archive's place;
/// criu can't, in its own words; a full disk.
pub async fn checkpoint(
    core: &Core,
    handle: &Handle,
    request: &CheckpointRequest,
    decision: Decision,
) -> Result<()> {
    handle.running()?;
    check_runtime(core, handle)?;
    let mut untold = Untold::new(&core.layout);
    let archive = Archive::begin(&request.location, &mut untold)?;
    let still = Still::hold(core, handle).await?;
    let written = async {
        let content = still.dump(&request.what).await?;
        off_the_loop(move || {
            archive.fill(&content)?;
            match decision.take() {
                true => {
                    untold.list([&archive].into_iter())?;
                    archive.name()?;
                    untold.told()
                }
                // Its caller was told so already.
                false => Err(Error::Stopping),
            }
        })
        .await
    }
    .await;
    let after = match written.is_ok() && !request.leave_running {
        true => After::Killed,
        false => After::GoesOn,
    };
    still.let_go(after).await;
    written
}

fn check_runtime(core: &Core, handle: &Handle) -> Result<()> {
    let key = handle.key();
    if !core.layout.run_dir(&key.namespace, &key.id).bundle().config().exists() {
        return Ok(());
    }
    let problem = format!("{} runs under another runtime: only bosun's own has it", handle.label());
    Err(Error::InvalidArgument { what: "checkpoint", problem })
}

/// What becomes of a container that stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    GoesOn,
    Killed,
}

/// A running container that stands still, and that nobody else stops and lets go on meanwhile.
struct Still<'a> {
    /// Absent for one that was paused before.
    held: Option<Held<'a>>,
    core: &'a Core,
    handle: &'a Handle,
    record: Arc<Record>,
    running: Arc<Running>,
    images: Images,
    /// The container's own tree, and those below.
    layers: (PathBuf, Vec<PathBuf>),
    _turn: Turn,
    _alone: Turn,
}

impl<'a> Still<'a> {
    async fn hold(core: &'a Core, handle: &'a Handle) -> Result<Self> {
        let record = handle.record()?;
        let key = handle.key();
        let layers = files::layers(core, handle).await?;
        // As a commit, and in its order, in which an exec has them too: nothing else stops and lets go on meanwhile.
        let alone = core.processes.wait(key.clone()).await;
        let turn = core.trees.wait(key.clone()).await;
        let running = handle.running()?;
        let images = Images::make(&core.layout.container_dir(&key.namespace, &key.id))?;
        let held = Held::hold(core, handle).await?;
        Ok(Self { held, core, handle, record, running, images, layers, _turn: turn, _alone: alone })
    }

    /// Has criu write its processes down. Answers what an archive is made of.
    async fn dump(&self, what: &What) -> Result<Content> {
        let options = shim_wire::containerd::CheckpointOptions {
            open_tcp: what.tcp_established,
            file_locks: what.file_locks,
            image_path: self.images.0.to_string_lossy().into_owned(),
            ..Default::default()
        };
        shim_failpoints::step!("daemon.checkpoint.before_dump", error);
        let dumped = self.running.shim.client.checkpoint(&options, TIME_OUT).await;
        let label = self.handle.label();
        dumped.map_err(|source| Error::Shim { id: label.clone(), source: source.into() })?;
        shim_failpoints::step!("daemon.checkpoint.after_dump", error);
        let (key, layout) = (self.handle.key(), &self.core.layout);
        let options = serde_json::to_string(&self.record.options);
        Ok(Content {
            images: self.images.0.clone(),
            log: layout.run_dir(&key.namespace, &key.id).path().join("criu").join(LOG),
            spec: layout.container_dir(&key.namespace, &key.id).config(),
            config: config(&self.record).to_string(),
            options: options.map_err(crate::store::Error::from)?,
            changed: (!what.without_files).then(|| self.layers.clone()),
            label,
        })
    }

    async fn let_go(self, after: After) {
        let ends = after == After::Killed;
        if ends {
            // It hears of it before it can do anything else.
            shim_failpoints::step!("daemon.checkpoint.before_kill");
            let client = &self.running.shim.client;
            let _ = client.kill("", Signal::KILL.number(), false).await;
            shim_failpoints::step!("daemon.checkpoint.after_kill");
        }
        drop(self.held);
        if ends {
            // One that was paused has to hear of it as well. It may have ended already.
            let _ = let_go_on(self.core, self.handle.key());
            let _ = tokio::time::timeout(TIME_OUT, self.handle.ended()).await;
        }
    }
}

/// `config.dump`, with the names that its readers know.
fn config(record: &Record) -> serde_json::Value {
    let image = record.image.as_ref();
    json!({
        "id": record.id,
        "name": record.name,
        "rootfsImage": image.map(|image| image.id.as_str()).unwrap_or_default(),
        "rootfsImageRef": image.map(|image| image.target.as_str()).unwrap_or_default(),
        "rootfsImageName": record.options.image.clone().unwrap_or_default(),
        "runtime": "bosun",
        "createdTime": record.created_at.rfc3339(),
        "checkpointedTime": Time::now().rfc3339(),
        "restoredTime": "0001-01-01T00:00:00Z",
        "restored": false,
    })
}

/// Removes what a daemon left that was killed in the middle. criu may still be at work: it gives up, and lets the
/// processes go on.
///
/// # Errors
/// It can't be removed.
pub async fn forget(core: &Core, key: &Key) -> Result<()> {
    let path = images_of(&core.layout.container_dir(&key.namespace, &key.id));
    if !path.exists() {
        return Ok(());
    }
    off_the_loop(move || std::fs::remove_dir_all(&path).map_err(Error::file("remove", &path))).await
}

fn images_of(container_dir: &ContainerDir) -> PathBuf {
    container_dir.path().join("checkpoint")
}

/// Where criu's images lie until they are in the archive. They go with this.
struct Images(PathBuf);

impl Images {
    fn make(container_dir: &ContainerDir) -> Result<Self> {
        let path = images_of(container_dir);
        // What could not be removed when it should have been.
        let _ = std::fs::remove_dir_all(&path);
        shim_failpoints::step!("daemon.checkpoint.before_images", error);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(Error::file("make directory", &path))?;
        let images = Self(path);
        shim_failpoints::step!("daemon.checkpoint.after_images", error);
        Ok(images)
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        shim_failpoints::step!("daemon.checkpoint.before_images_removal");
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "not removed");
        }
        shim_failpoints::step!("daemon.checkpoint.after_images_removal");
    }
}

/// All that an archive is made of.
struct Content {
    images: PathBuf,
    log: PathBuf,
    spec: PathBuf,
    config: String,
    options: String,
    /// The container's own tree, and those below.
    changed: Option<(PathBuf, Vec<PathBuf>)>,
    label: String,
}

/// An archive that is none yet: a file without a name, in the directory that it is for. Where the file
/// system has no such files, one beside its place, which is among what nobody was told of.
struct Archive {
    place: PathBuf,
    hidden: Option<PathBuf>,
    file: File,
}

impl Archive {
    fn begin(place: &Path, untold: &mut Untold) -> Result<Self> {
        let refused = |problem: &str| Error::InvalidArgument {
            what: "checkpoint",
            problem: format!("{}: {problem}", place.display()),
        };
        let clean = !place.components().any(|part| part == Component::ParentDir);
        if place.file_name().is_none() || !place.is_absolute() || !clean {
            return Err(refused("give an absolute path of a file, without \"..\""));
        }
        if place.symlink_metadata().is_ok() {
            return Err(refused("something is there already: name another file"));
        }
        shim_failpoints::step!("daemon.checkpoint.before_archive", error);
        let directory = place.parent().unwrap_or(Path::new("/"));
        let nameless = match shim_failpoints::number("daemon.checkpoint.nameless", 1) {
            0 => Err(Errno::OPNOTSUPP),
            _ => nameless(directory),
        };
        let archive = match nameless {
            Ok(file) => Self { place: place.to_owned(), hidden: None, file },
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
                let hidden = untold.hide(place)?;
                shim_failpoints::step!("daemon.hidden.before_file", error);
                let mut options = OpenOptions::new();
                let file = options.write(true).create_new(true).mode(0o600).open(&hidden);
                let file = file.map_err(Error::file("make", &hidden))?;
                shim_failpoints::step!("daemon.hidden.after_file", error);
                Self { place: place.to_owned(), hidden: Some(hidden), file }
            }
            Err(errno) => return Err(Error::file("make a file in", directory)(errno.into())),
        };
        shim_failpoints::step!("daemon.checkpoint.after_archive", error);
        Ok(archive)
    }

    fn fill(&self, content: &Content) -> Result<()> {
        shim_failpoints::step!("daemon.checkpoint.before_fill", error);
        let failed = |source| Error::Archive { source: Arc::new(source) };
        let mut tar = Writer::new(io::BufWriter::new(&self.file));
        text(&mut tar, b"config.dump", content.config.as_bytes()).map_err(failed)?;
        add(&mut tar, "spec.dump", &content.spec)?;
        text(&mut tar, b"options.dump", content.options.as_bytes()).map_err(failed)?;
        if content.log.exists() {
            add(&mut tar, LOG, &content.log)?;
        }
        if let Some((upper, lower)) = &content.changed {
            let diff = content.diff(upper, lower)?;
            let size = diff.metadata().map_err(Error::file("look at", upper))?.len();
            tar.append(&entry(b"rootfs-diff.tar", Kind::File { size }), diff).map_err(failed)?;
        }
        tar.append(&entry(b"checkpoint/", Kind::Directory), io::empty()).map_err(failed)?;
        for path in content.images()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            add(&mut tar, &format!("checkpoint/{name}"), &path)?;
        }
        let flushed = tar.finish().map_err(failed)?.into_inner().map_err(io::Error::from);
        let synced = flushed.and_then(|file| file.sync_all());
        synced.map_err(Error::file("write", &self.place))?;
        shim_failpoints::step!("daemon.checkpoint.after_fill", error);
        Ok(())
    }

    /// Whoever has put something there meanwhile keeps it.
    fn name(&self) -> Result<()> {
        shim_failpoints::step!("daemon.checkpoint.before_name", error);
        let linked = match &self.hidden {
            Some(hidden) => std::fs::hard_link(hidden, &self.place),
            None => {
                let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                let flags = AtFlags::SYMLINK_FOLLOW;
                linkat(CWD, path, CWD, &self.place, flags).map_err(io::Error::from)
            }
        };
        linked.map_err(Error::file("make", &self.place))?;
        let directory = self.place.parent().unwrap_or(Path::new("/"));
        sync(directory).map_err(Error::file("sync", directory))
    }
}

/// Makes an archive's new name durable.
fn sync(directory: &Path) -> io::Result<()> {
    shim_failpoints::step!("daemon.checkpoint.after_name", error);
    File::open(directory)?.sync_all()
}

/// A file of a directory's file system, mode 0600.
fn nameless(directory: &Path) -> std::result::Result<File, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::from_raw_mode(0o600)).map(File::from)
}

impl Content {
    /// The changed files as a layer, in a file without a name, from its beginning.
    fn diff(&self, upper: &Path, lower: &[PathBuf]) -> Result<File> {
        let below = snapshots::merged_or_none(lower)?;
        let top = File::open(upper).map_err(Error::file("open", upper))?;
        let file = nameless(&self.images)
            .map_err(|errno| Error::file("make a file in", &self.images)(errno.into()))?;
        let writer = io::BufWriter::new(file);
        let failed = |source| Error::Layer {
            digest: format!("of container {}", self.label),
            source: Arc::new(source),
        };
        let written = bosun_layer::diff(top.as_fd(), below.as_ref(), writer).map_err(failed)?;
        let mut file = written
            .into_inner()
            .map_err(|error| Error::file("write in", &self.images)(error.into_error()))?;
        io::Seek::rewind(&mut file).map_err(Error::file("read in", &self.images))?;
        Ok(file)
    }

    fn images(&self) -> Result<Vec<PathBuf>> {
        let failed = |error| Error::file("read directory", &self.images)(error);
        let mut paths = Vec::new();
        for found in self.images.read_dir().map_err(failed)? {
            let path = found.map_err(failed)?.path();
            if path.is_file() {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }
}

fn entry(path: &[u8], kind: Kind) -> Entry {
    let mode = if kind == Kind::Directory { 0o700 } else { 0o600 };
    let mtime = Moment::default();
    Entry { path: path.to_vec(), kind, mode, uid: 0, gid: 0, mtime, xattrs: Vec::new() }
}

fn text<W: Write>(
    tar: &mut Writer<W>,
    name: &[u8],
    text: &[u8],
) -> std::result::Result<(), bosun_layer::Error> {
    tar.append(&entry(name, Kind::File { size: text.len() as u64 }), text)
}

fn add<W: Write>(tar: &mut Writer<W>, name: &str, path: &Path) -> Result<()> {
    let file = File::open(path).map_err(Error::file("open", path))?;
    let size = file.metadata().map_err(Error::file("look at", path))?.size();
    let read: &mut dyn Read = &mut &file;
    tar.append(&entry(name.as_bytes(), Kind::File { size }), read)
        .map_err(|source| Error::Archive { source: Arc::new(source) })
}
