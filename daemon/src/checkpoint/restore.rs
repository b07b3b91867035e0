//! The way back: the archive of a container that was written down, taken into a new one, which goes on
//! from there at its first start.
//!
//! ```text
//!   archive ─▶ taken apart, aside ─▶ container made ─▶ files into its tree, images beside its records
//!                                                          │
//!                       its first start: criu, through the shim, in the place of its program
//! ```
//!
//! An archive is hostile until it is read: nothing is kept of it but documents, which are bounded, criu's
//! images, which are files and nothing else, and the layer of changed files, which goes the way of every
//! layer. What its options say is checked as what a caller asks for; hooks, and what plugins wanted, are
//! never taken from there. But the images are criu's to read, and it gives processes the rights that
//! these say: who may restore an archive is as powerful as who may make a privileged container.
//!
//! Images are there until the container has run from them: a start that fails can be tried again, and a
//! later start is one of its program. A directory that is not whole never has its name ([`PLACE`]).

use std::collections::{BTreeMap, HashSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bosun_image::Compression;
use bosun_layer::tar::{Chunk, Entry, Kind, Reader};
use bosun_layer::{Below, Limits};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use shim_wire::files::ContainerDir;
use shim_wire::plan;

use crate::blocking::off_the_loop;
use crate::container::{FromImage, Record, random_id};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::snapshots::{self, Layers};
use crate::spec::{Adjustment, ContainerOptions, Restore, Role};
use crate::trees;

/// Bytes of one document of an archive, at most.
const DOCUMENT: u64 = 4 << 20;
/// Headers that an archive has at most: criu writes some ten files for each process.
const HEADERS: u64 = 1 << 20;
/// Bytes that are read at a time.
const BUFFER: usize = 256 << 10;

/// Where all of it lies, in the container's directory; it is there when it is whole.
const PLACE: &str = "restore";
/// In there, criu's images, until they are of no more use.
const IMAGES: &str = "images";
/// In there, criu's log.
const WORK: &str = "work";
const FILES: &str = "rootfs-diff.tar";

/// A container that is about to be made.
#[derive(Clone, Copy, Debug)]
pub struct Drafted<'a> {
    pub options: &'a ContainerOptions,
    pub image: Option<&'a FromImage>,
    pub spec: &'a oci_spec::runtime::Spec,
    /// Its pid namespace is one that others are in.
    pub shares_processes: bool,
}

/// An archive that was taken apart. What of it no container has taken over goes with this.
#[derive(Debug)]
pub struct Taken {
    archive: PathBuf,
    aside: Aside,
    config: Config,
    spec: Spec,
    options: Option<ContainerOptions>,
    is_expected: bool,
}

/// `config.dump`, as far as it is used.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    #[serde(rename = "rootfsImage")]
    image: String,
    #[serde(rename = "rootfsImageName")]
    image_name: String,
}

/// `spec.dump`, as far as it is used.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    process: Process,
    mounts: Vec<Mount>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Process {
    terminal: bool,
    args: Vec<String>,
    cwd: String,
    env: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mount {
    destination: String,
    #[serde(rename = "type")]
    kind: String,
    options: Vec<String>,
}

impl Process {
    /// What of it a container that is to be this one has in another way.
    fn differs(&self, new: &oci_spec::runtime::Spec) -> Option<&'static str> {
        let new = new.process().as_ref()?;
        let of_pod = |entry: &str| entry.starts_with("HOSTNAME=");
        let has = |entry: &String| of_pod(entry) || self.env.contains(entry);
        let differs = [
            (new.args().as_ref() != Some(&self.args), "command"),
            (new.cwd() != Path::new(&self.cwd), "working directory"),
            (!new.env().iter().flatten().all(has), "environment"),
        ];
        differs.into_iter().find_map(|(differs, what)| differs.then_some(what))
    }
}

impl Mount {
    /// It leads out of the container, so criu can't make it.
    fn is_bind(&self) -> bool {
        let says = |word: &str| self.options.iter().any(|option| option == word);
        self.kind == "bind" || says("bind") || says("rbind")
    }
}

impl Taken {
    /// Takes an archive apart.
    ///
    /// # Errors
    /// There is none; it holds what it must not, by name, or lacks something; a full disk.
    pub async fn read(core: &Core, archive: &Path) -> Result<Self> {
        core.store.expect_room()?;
        let (archive, aside) = (archive.to_owned(), Aside::at(&core.layout.trash()));
        off_the_loop(move || Self::read_now(archive, aside)).await
    }

    fn read_now(archive: PathBuf, aside: Aside) -> Result<Self> {
        let bad = |problem: String| bad(&archive, problem);
        let file = open(&archive)?;
        shim_failpoints::step!("daemon.restore.before_aside", error);
        aside.make()?;
        shim_failpoints::step!("daemon.restore.after_aside", error);
        let mut documents: BTreeMap<&'static str, Vec<u8>> = BTreeMap::new();
        let mut parts = Parts { aside: &aside, names: HashSet::new(), size: 0 };
        let unreadable = |source| Error::Archive { source: Arc::new(source) };
        let mut tar = Reader::new(BufReader::with_capacity(BUFFER, file), HEADERS);
        while let Some(entry) = tar.next().map_err(unreadable)? {
            let place = place(&entry).map_err(&bad)?;
            if let Place::Document(name) = place {
                let bytes = document(&mut tar, &entry).map_err(&bad)?;
                if documents.insert(name, bytes).is_some() {
                    return Err(bad(format!("{name} is in it twice")));
                }
            } else if let Place::File(path) = place {
                parts.take(&mut tar, &entry, &path).map_err(|error| match error {
                    Unfit::Refused(problem) => bad(problem),
                    Unfit::Failed(error) => error,
                })?;
            }
        }
        shim_failpoints::step!("daemon.restore.after_parts", error);
        if parts.names.iter().all(|path| !path.starts_with(IMAGES)) {
            return Err(bad("there are no images of criu's in checkpoint/".to_owned()));
        }
        let required = |name: &'static str| {
            let missing = || bad(format!("it has no {name}: it is no archive of a container"));
            documents.get(name).ok_or_else(missing)
        };
        let deleted: Vec<String> = match documents.get("deleted.files") {
            Some(bytes) => json("deleted.files", bytes).map_err(&bad)?,
            None => Vec::new(),
        };
        if !deleted.is_empty() {
            return Err(bad("it names removed files in deleted.files, which is not supported: \
                            they have to be whiteouts in rootfs-diff.tar"
                .to_owned()));
        }
        let config = json("config.dump", required("config.dump")?).map_err(&bad)?;
        let spec = json("spec.dump", required("spec.dump")?).map_err(&bad)?;
        let options = documents.get("options.dump");
        let options = options.map(|bytes| json("options.dump", bytes)).transpose().map_err(&bad)?;
        Ok(Self { archive, aside, config, spec, options, is_expected: false })
    }

    /// What a container would run says what its processes are: where that differs, it is refused.
    #[must_use]
    pub fn expected(mut self) -> Self {
        self.is_expected = true;
        self
    }

    #[must_use]
    pub fn archive(&self) -> &Path {
        &self.archive
    }

    /// The image below, as containers are made from: by its id, where the archive has one.
    ///
    /// # Errors
    /// It stands on none.
    pub fn image(&self) -> Result<String> {
        let Config { image, image_name } = &self.config;
        match (image.starts_with(bosun_image::Digest::PREFIX), image_name.is_empty()) {
            (true, _) => Ok(image.clone()),
            (false, false) => Ok(image_name.clone()),
            (false, true) => Err(bad(&self.archive, "it stands on no image".to_owned())),
        }
    }

    /// The container that it was, as it is made again by itself.
    ///
    /// # Errors
    /// It does not say what it was asked to be, or was a container of a pod.
    pub fn options(&self, name: String, how: Restore) -> Result<ContainerOptions> {
        let bad = |problem: &str| bad(&self.archive, problem.to_owned());
        let mut options = self.options.clone().ok_or_else(|| {
            bad("it has no options.dump, so it does not say what the container was asked to be: \
                 archives that bosun wrote have it")
        })?;
        if options.role != Role::Alone {
            return Err(bad(
                "it is of a container of a pod: a kubelet's CreateContainer makes it \
                            again, in a pod",
            ));
        }
        if !name.is_empty() {
            options.name = name;
        }
        if options.image.is_some() {
            options.image = Some(self.image()?);
        }
        // Others have their say again.
        options.edits = None;
        options.adjustment = Adjustment::default();
        options.extensions.clear();
        options.event_attributes.clear();
        options.restore = Some(how);
        Ok(options)
    }

    /// Whether a container that is about to be made is one that can go on from here.
    ///
    /// # Errors
    /// Names what does not fit.
    pub fn check(&self, new: Drafted<'_>) -> Result<()> {
        let bad = |problem: String| Err(bad(&self.archive, problem));
        let Drafted { options, image, spec, shares_processes } = new;
        if options.users().is_some() {
            return bad(
                "the container is in a user namespace, into which criu restores none".into()
            );
        }
        if shares_processes {
            return bad("the container shares its processes with others, and criu can't restore \
                        into a pid namespace that others are in"
                .into());
        }
        let id = self.config.image.as_str();
        if let Some(image) = image
            && id.starts_with(bosun_image::Digest::PREFIX)
            && image.id != id
        {
            let Config { image_name, .. } = &self.config;
            return bad(format!("it stands on image {image_name} ({id}), not on {}", image.id));
        }
        let Spec { process, mounts } = &self.spec;
        if process.terminal != options.tty {
            let had = if process.terminal { "had a" } else { "had no" };
            return bad(format!("its processes {had} terminal, as the container has to"));
        }
        let new: HashSet<&Path> =
            spec.mounts().iter().flatten().map(|mount| mount.destination().as_path()).collect();
        let of_images: HashSet<&str> =
            options.image_mounts.iter().map(|mount| mount.destination.as_str()).collect();
        let missing: Vec<&str> = mounts
            .iter()
            .filter(|mount| mount.is_bind())
            .map(|mount| mount.destination.as_str())
            .filter(|path| !new.contains(Path::new(path)) && !of_images.contains(path))
            .collect();
        if !missing.is_empty() {
            return bad(format!("the container has to have mounts at {}", missing.join(", ")));
        }
        let other = self.options.as_ref().and_then(|old| other_rights(old, options));
        let other = other.or_else(|| process.differs(spec).filter(|_| self.is_expected));
        match other {
            None => Ok(()),
            Some(what) => bad(format!(
                "its processes have the {what} that they had, and the container asks for another"
            )),
        }
    }

    /// Hands all of it over to the container that was made from it.
    ///
    /// # Errors
    /// The changed files can't be applied to its tree; a full disk.
    pub async fn install(self, layers: Layers, container_dir: &ContainerDir) -> Result<()> {
        let directory = container_dir.path().to_owned();
        off_the_loop(move || {
            let Self { archive, aside, .. } = self;
            shim_failpoints::step!("daemon.restore.before_files", error);
            let (upper, _) = layers.upper.ok_or(Error::Stopping)?;
            let files = aside.path().join(FILES);
            let tree = File::open(&upper).map_err(Error::file("open", &upper))?;
            if files.exists() {
                let diff = File::open(&files).map_err(Error::file("open", &files))?;
                let below = snapshots::merged_or_none(&layers.lower)?;
                let below = below.as_ref().map_or(Below::Nothing, Below::Tree);
                let applied = bosun_layer::apply(diff, tree.as_fd(), below, &Limits::default());
                applied.map_err(|source| bad(&archive, format!("{FILES}: {source}")))?;
                std::fs::remove_file(&files).map_err(Error::file("remove", &files))?;
            }
            shim_failpoints::step!("daemon.restore.after_files", error);
            for (place, file) in [(upper.as_path(), &tree), (aside.path(), &aside.open()?)] {
                rustix::fs::syncfs(file)
                    .map_err(|errno| Error::file("sync", place)(errno.into()))?;
            }
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            made.map_err(Error::file("make directory", &directory))?;
            aside.become_part_of(&directory)
        })
        .await
    }
}

/// What a start has criu restore; `None` when the program is to run.
///
/// # Errors
/// The container's archive was never taken in whole.
pub fn pending(
    container_dir: &ContainerDir,
    options: &ContainerOptions,
) -> Result<Option<plan::Restore>> {
    let Some(restore) = &options.restore else { return Ok(None) };
    let place = container_dir.path().join(PLACE);
    if !place.exists() {
        let problem = "it was not read to its end, so the container can't go on from it: remove \
                       that and make another";
        return Err(bad(&restore.archive, problem.to_owned()));
    }
    let images = place.join(IMAGES);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Ok(images.exists().then(|| plan::Restore {
        images: text(&images),
        work: text(&place.join(WORK)),
        tcp_established: restore.tcp_established,
        file_locks: restore.file_locks,
        ..plan::Restore::default()
    }))
}

/// The container has run from its images: they are of no more use. They go beside other work.
pub fn spent(core: &Core, record: &Record, container_dir: &ContainerDir) {
    if record.options.restore.is_none() {
        return;
    }
    let images = container_dir.path().join(PLACE).join(IMAGES);
    let trash = core.layout.trash().join(format!("images-{}", random_id()));
    let set_aside = || {
        shim_failpoints::step!("daemon.restore.before_spent", error);
        std::fs::rename(&images, &trash)
    };
    match set_aside() {
        Ok(()) => drop(tokio::task::spawn_blocking(move || {
            shim_failpoints::step!("daemon.restore.after_spent");
            if let Err(error) = trees::remove(&trash) {
                tracing::warn!(path = %trash.display(), %error, "not removed");
            }
        })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::error!(path = %images.display(), %error, "not removed"),
    }
}

/// A directory that nobody else knows of, and that a next daemon would remove.
#[derive(Debug)]
struct Aside(Option<PathBuf>);

impl Aside {
    fn at(trash: &Path) -> Self {
        Self(Some(trash.join(format!("restore-{}", random_id()))))
    }

    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    fn make(&self) -> Result<()> {
        for path in [self.path(), &self.path().join(IMAGES)] {
            let made = DirBuilder::new().mode(0o700).create(path);
            made.map_err(Error::file("make directory", path))?;
        }
        Ok(())
    }

    fn open(&self) -> Result<File> {
        File::open(self.path()).map_err(Error::file("open", self.path()))
    }

    /// It gets its name in a container's directory, for good.
    fn become_part_of(mut self, directory: &Path) -> Result<()> {
        let place = directory.join(PLACE);
        shim_failpoints::step!("daemon.restore.before_rename", error);
        let renamed = std::fs::rename(self.path(), &place);
        renamed.map_err(Error::file("make", &place))?;
        self.0 = None;
        shim_failpoints::step!("daemon.restore.after_rename", error);
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(Error::file("sync", directory))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = trees::remove(path)
        {
            tracing::warn!(path = %path.display(), %error, "not removed");
        }
    }
}

/// What criu restores as it was, and two containers are to have in different ways.
fn other_rights(old: &ContainerOptions, new: &ContainerOptions) -> Option<&'static str> {
    let differs = [
        (old.privileged != new.privileged, "privilege"),
        (old.cap_add != new.cap_add || old.cap_drop != new.cap_drop, "set of capabilities"),
        (old.user != new.user, "user"),
        (old.security != new.security, "security context"),
    ];
    differs.into_iter().find_map(|(differs, what)| differs.then_some(what))
}

fn bad(archive: &Path, problem: String) -> Error {
    Error::BadCheckpoint { archive: archive.display().to_string(), problem }
}

/// Opens an archive: a file, at an absolute path without `..`.
fn open(archive: &Path) -> Result<File> {
    let bad = |problem: &str| bad(archive, problem.to_owned());
    let clean = !archive.components().any(|part| part == Component::ParentDir);
    if !clean || !archive.is_absolute() || archive.file_name().is_none() {
        return Err(bad("give an absolute path of a file, without \"..\""));
    }
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(archive);
    let mut file = opened.map_err(|error| bad(&error.to_string()))?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(bad("it is no file"));
    }
    let mut first = [0; 8];
    let count = file.read(&mut first).map_err(Error::file("read", archive))?;
    if bosun_layer::compress::detect(&first[..count]) != Compression::None {
        return Err(bad("it is compressed, which is not supported: uncompress it first"));
    }
    file.rewind().map_err(Error::file("read", archive))?;
    Ok(file)
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Document(&'static str),
    /// To be kept, at this path below the directory aside.
    File(PathBuf),
    /// Of no use here.
    Nowhere,
}

/// # Errors
/// It is nothing that an archive of a checkpoint has.
fn place(entry: &Entry) -> std::result::Result<Place, String> {
    const DOCUMENTS: [&str; 4] = ["config.dump", "spec.dump", "options.dump", "deleted.files"];
    let shown = String::from_utf8_lossy(&entry.path).into_owned();
    let refused = |why: &str| Err(format!("entry {shown:?} is refused: {why}"));
    let Ok(path) = std::str::from_utf8(&entry.path) else {
        return refused("its name is not UTF-8");
    };
    let parts: Vec<&str> =
        path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if path.starts_with('/') || parts.contains(&"..") {
        return refused("its path leads out");
    }
    match &entry.kind {
        Kind::Directory => return Ok(Place::Nowhere),
        Kind::File { .. } => {}
        Kind::HardLink { .. } | Kind::Symlink { .. } => {
            return refused("it is a link, and a checkpoint has files only");
        }
        Kind::Character { .. } | Kind::Block { .. } | Kind::Fifo => {
            return refused("it is a device or a pipe, and a checkpoint has files only");
        }
    }
    Ok(match parts.as_slice() {
        [name] if *name == FILES => Place::File(PathBuf::from(FILES)),
        [name] => {
            let known = DOCUMENTS.into_iter().find(|known| known == name);
            known.map_or(Place::Nowhere, Place::Document)
        }
        ["checkpoint", name] => Place::File(Path::new(IMAGES).join(name)),
        ["checkpoint", ..] => return refused("criu's images lie in no further directories"),
        _ => Place::Nowhere,
    })
}

fn document<R: std::io::BufRead>(
    tar: &mut Reader<R>,
    entry: &Entry,
) -> std::result::Result<Vec<u8>, String> {
    let name = String::from_utf8_lossy(&entry.path);
    let Kind::File { size } = entry.kind else { return Ok(Vec::new()) };
    if size > DOCUMENT {
        return Err(format!("{name} has {size} bytes: at most {DOCUMENT} are read"));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = tar.chunk().map_err(|error| format!("{name}: {error}"))? {
        match chunk {
            Chunk::Data(data) => bytes.extend_from_slice(data),
            Chunk::Hole(_) => return Err(format!("{name} has holes")),
        }
    }
    Ok(bytes)
}

fn json<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> std::result::Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{name}: {error}"))
}

/// The files of an archive that are kept.
struct Parts<'a> {
    aside: &'a Aside,
    names: HashSet<PathBuf>,
    /// Of all files, holes included.
    size: u64,
}

enum Unfit {
    Refused(String),
    Failed(Error),
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Parts<'_> {
    fn take<R: std::io::BufRead>(
        &mut self,
        tar: &mut Reader<R>,
        entry: &Entry,
        path: &Path,
    ) -> std::result::Result<(), Unfit> {
        let Kind::File { size } = entry.kind else { return Ok(()) };
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        let limit = Limits::default().size;
        self.size = self.size.saturating_add(size);
        if self.size > limit {
            let problem = format!("{name}: its files have more than {limit} bytes together");
            return Err(Unfit::Refused(problem));
        }
        if !self.names.insert(path.to_owned()) {
            return Err(Unfit::Refused(format!("{name} is in it twice")));
        }
        let place = self.aside.path().join(path);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&place);
        let mut file = file.map_err(Error::file("make", &place))?;
        loop {
            let chunk = tar.chunk().map_err(|source| Error::Archive { source: Arc::new(source) });
            match chunk? {
                None => break,
                Some(Chunk::Data(data)) => file.write_all(data),
                Some(Chunk::Hole(length)) => {
                    let length = i64::try_from(length).unwrap_or(i64::MAX);
                    file.seek(SeekFrom::Current(length)).map(drop)
                }
            }
            .map_err(Error::file("write", &place))?;
        }
        file.set_len(size).map_err(Error::file("write", &place))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bosun_layer::tar::{Time, Writer};

    use super::*;

    fn entry(path: &str, kind: Kind) -> Entry {
        let path = path.as_bytes().to_vec();
        Entry { path, kind, mode: 0o600, uid: 0, gid: 0, mtime: Time::default(), xattrs: vec![] }
    }

    fn file(size: u64) -> Kind {
        Kind::File { size }
    }

    #[test]
    fn entries_have_their_places_or_are_refused() {
        let place_of = |path: &str, kind| place(&entry(path, kind));
        let kept = |path: &str| Ok(Place::File(PathBuf::from(path)));
        assert_eq!(place_of("config.dump", file(1)), Ok(Place::Document("config.dump")));
        assert_eq!(place_of("./spec.dump", file(1)), Ok(Place::Document("spec.dump")));
        assert_eq!(place_of("checkpoint/core-1.img", file(1)), kept("images/core-1.img"));
        assert_eq!(place_of("./checkpoint//core-1.img", file(1)), kept("images/core-1.img"));
        assert_eq!(place_of("rootfs-diff.tar", file(1)), kept("rootfs-diff.tar"));
        for path in ["checkpoint/", "other/", "./"] {
            assert_eq!(place_of(path, Kind::Directory), Ok(Place::Nowhere), "{path}");
        }
        assert_eq!(place_of("stats-dump", file(1)), Ok(Place::Nowhere));
        let link = || b"/etc/shadow".to_vec();
        for (path, kind, why) in [
            ("checkpoint/../../x", file(1), "leads out"),
            ("/checkpoint/x", file(1), "leads out"),
            ("..", Kind::Directory, "leads out"),
            ("checkpoint/a/b", file(1), "no further directories"),
            ("checkpoint/x", Kind::Symlink { target: link() }, "a link"),
            ("config.dump", Kind::HardLink { target: link() }, "a link"),
            ("other", Kind::Character { major: 1, minor: 3 }, "a device"),
            ("checkpoint/x", Kind::Block { major: 8, minor: 0 }, "a device"),
            ("spec.dump", Kind::Fifo, "a pipe"),
        ] {
            let said = place_of(path, kind).unwrap_err();
            assert!(said.contains(why) && said.contains(path), "{said}");
        }
    }

    /// An archive of these files, and what is said of it, or what it is.
    fn read(files: &[(&str, &[u8])]) -> Result<Taken> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar");
        let mut tar = Writer::new(File::create(&path).unwrap());
        for (name, content) in files {
            tar.append(&entry(name, file(content.len() as u64)), *content).unwrap();
        }
        tar.finish().unwrap();
        let taken = Taken::read_now(path, Aside::at(directory.path()));
        match &taken {
            Ok(taken) => {
                for (name, content) in files {
                    let Some(name) = name.strip_prefix("checkpoint/") else { continue };
                    let kept = std::fs::read(taken.aside.path().join(IMAGES).join(name));
                    assert_eq!(kept.unwrap(), *content);
                }
            }
            Err(_) => {
                let left = std::fs::read_dir(directory.path()).unwrap().count();
                assert_eq!(left, 1, "nothing is left of one that is refused");
            }
        }
        taken
    }

    #[test]
    fn what_an_archive_lacks_or_has_twice_is_named() {
        let config =
            ("config.dump", &br#"{"rootfsImage": "sha256:ab", "rootfsImageName": "web:1"}"#[..]);
        let spec = ("spec.dump", &b"{}"[..]);
        let image = ("checkpoint/core-1.img", &b"x"[..]);
        let taken = read(&[config, spec, image, ("dump.log", b"")]).unwrap();
        assert_eq!(taken.image().unwrap(), "sha256:ab");
        let said = taken.options(String::new(), Restore::default()).unwrap_err().to_string();
        assert!(said.contains("options.dump"), "{said}");
        for (files, why) in [
            (&[config, spec][..], "no images of criu's"),
            (&[config, image], "no spec.dump"),
            (&[spec, image], "no config.dump"),
            (&[config, config, spec, image], "config.dump is in it twice"),
            (&[config, spec, image, image], "core-1.img is in it twice"),
            (&[config, ("spec.dump", b"7"), image], "spec.dump: "),
            (&[config, spec, image, ("deleted.files", b"[\"/x\"]")], "deleted.files"),
            (&[config, spec, image, ("options.dump", &[b' '; 5 << 20])], "has 5242880 bytes"),
        ] {
            let said = read(files).map(drop).unwrap_err().to_string();
            assert!(said.contains(why) && said.contains("a.tar"), "{why}: {said}");
        }
    }

    #[test]
    fn an_archive_s_options_bring_neither_hooks_nor_what_faces_keep() {
        let options = ContainerOptions {
            name: "web".to_owned(),
            rootfs: Some("/".into()),
            edits: Some(bosun_cdi::Edits::default()),
            extensions: [("cri".to_owned(), "x".to_owned())].into(),
            event_attributes: [("pod.uid".to_owned(), "x".to_owned())].into(),
            ..ContainerOptions::default()
        };
        let written = serde_json::to_vec(&options).unwrap();
        let files: [(&str, &[u8]); 4] = [
            ("config.dump", b"{}"),
            ("spec.dump", b"{}"),
            ("options.dump", &written),
            ("checkpoint/x.img", b""),
        ];
        let taken = read(&files).unwrap();
        let again = taken.options("other".to_owned(), Restore::default()).unwrap();
        let expected = ContainerOptions {
            name: "other".to_owned(),
            rootfs: Some("/".into()),
            restore: Some(Restore::default()),
            ..ContainerOptions::default()
        };
        assert_eq!(again, expected);
        let member = ContainerOptions { role: Role::Member("pod".to_owned()), ..options };
        let written = serde_json::to_vec(&member).unwrap();
        let files = [files[0], files[1], ("options.dump", written.as_slice()), files[3]];
        let taken = read(&files).unwrap();
        let said = taken.options(String::new(), Restore::default()).unwrap_err().to_string();
        assert!(said.contains("of a pod"), "{said}");
    }

    #[test]
    fn a_path_that_leads_to_no_archive_is_refused() {
        for (path, why) in [
            ("a.tar", "absolute path"),
            ("/tmp/../a.tar", "absolute path"),
            ("/", "absolute path"),
            ("/proc", "no file"),
            ("/dev/zero", "no file"),
            ("/nowhere/a.tar", "No such file"),
        ] {
            let said = open(Path::new(path)).unwrap_err().to_string();
            assert!(said.contains(why) && said.contains(path), "{said}");
        }
    }

    #[test]
    fn without_its_whole_archive_a_container_does_not_start_and_later_starts_run_its_program() {
        let directory = tempfile::tempdir().unwrap();
        let place = ContainerDir::new(directory.path().to_owned());
        let options = ContainerOptions {
            restore: Some(Restore { archive: "/a.tar".into(), ..Restore::default() }),
            ..ContainerOptions::default()
        };
        assert_eq!(pending(&place, &ContainerOptions::default()).unwrap(), None);
        let said = pending(&place, &options).unwrap_err().to_string();
        assert!(said.contains("/a.tar: it was not read to its end"), "{said}");
        let images = directory.path().join("restore/images");
        std::fs::create_dir_all(&images).unwrap();
        let restore = pending(&place, &options).unwrap().unwrap();
        assert_eq!(Path::new(&restore.images), images);
        std::fs::remove_dir(&images).unwrap();
        assert_eq!(pending(&place, &options).unwrap(), None);
    }
}
