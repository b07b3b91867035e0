//! `bosund fsck`: looks at everything below a root while no daemon does, says what is not as it should
//! be, one line for each thing, and puts it right when it is asked to.
//!
//! What a start of bosund repairs by itself is only told of; what it would not look at is looked at
//! here: every byte of every blob, exit records, logs. Containers may run meanwhile: nothing of theirs
//! is touched.
//!
//! | looked at | compared with |
//! |---|---|
//! | `meta.db` | itself, the number of commits in `meta.mark`, checksums of its rows |
//! | copies of rows | their checksums, the rows |
//! | `content/blobs` | their names, the rows |
//! | `snapshots/overlayfs` | the rows |
//! | `containers/NS/ID` | the rows; specification and exit record by checksum, logs line by line |

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bosun_image::Digest;
use clap::Args;
use shim_wire::exit::ExitRecord;

use crate::content::{self, Content};
use crate::error::Error;
use crate::gc::Collector;
use crate::images::{Images, Parts};
use crate::layout::{self, Layout};
use crate::leases::Leases;
use crate::logs;
use crate::plain_file;
use crate::snapshots::Snapshots;
use crate::store::{self, Contents, Finding, Kind, Store};

/// Check a root while no bosund uses it: the database, blobs, snapshots, containers, logs.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Prints one line for each finding: what, what is wrong with it, and what to do or what was done.
Containers may run meanwhile; the next bosund takes them up.

Exit status:
  0  nothing was found
  1  something was found (with --repair and --rebuild: and put right, as far as its line says)
  8  it could not be looked at: a bosund uses the root, or a file can't be read

Examples:
  bosund fsck                      check /var/lib/bosun, change nothing
  bosund fsck --root DIR --repair  do what a start would do, and set damaged blobs aside
  bosund fsck --rebuild            set the database aside, make a new one from what lies on the disk")]
pub struct Options {
    /// The directory to check [default: as bosund's]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Configuration file that names the root [default: /etc/bosun/config.toml, if present]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Put right what is found: damaged rows from their copies, damaged blobs and exit records set
    /// aside in ROOT/quarantine. Nothing is deleted
    #[arg(long)]
    pub repair: bool,
    /// Set the database aside, whatever it is like, and make a new one from the directories of
    /// containers, snapshots and blobs; then do what --repair does
    #[arg(long)]
    pub rebuild: bool,
}

/// What keeps a root from being looked at.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    #[error(transparent)]
    Layout(#[from] layout::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("{}", crate::api::sentence(.0))]
    Core(#[from] Error),
    #[error("runtime: {0}")]
    Runtime(std::io::Error),
}

/// Looks at a root; answers what was found. `say` is called for each as it is found.
///
/// # Errors
/// Names what can't be looked at.
pub fn run(options: &Options, say: &mut dyn FnMut(&Finding)) -> Result<usize, Failure> {
    let root = crate::config::root(options.root.clone(), options.config.as_deref())?;
    let layout = Layout::new(&root, &root.join("state"));
    let _lock = layout.lock_root()?;
    let mut check = Check { layout, mender: None, found: 0, say };
    if options.repair || options.rebuild {
        let (mender, findings) = Mender::open(&check.layout, options.rebuild)?;
        check.mender = Some(mender);
        check.tell_all(findings);
    } else {
        let findings = store::look_at(&check.layout.database())?;
        check.tell_all(findings);
    }
    let contents = store::contents(&check.layout.database())?;
    check.blobs(contents.as_ref())?;
    check.snapshots(contents.as_ref())?;
    check.containers(contents.as_ref())?;
    Ok(check.found)
}

/// What puts things right: the services of a daemon that serves nobody.
struct Mender {
    runtime: tokio::runtime::Runtime,
    content: Content,
}

impl Mender {
    fn open(layout: &Layout, rebuild: bool) -> Result<(Self, Vec<Finding>), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::Runtime)?;
        layout.make_root()?;
        let store = match rebuild {
            true => Store::rebuild(&layout.database())?,
            false => Store::open(&layout.database())?,
        };
        let snapshots = Snapshots::new(store.clone(), layout.snapshots(), layout.trash());
        let content = Content::new(store.clone(), &layout.content());
        let images = Images::new(Parts {
            store: store.clone(),
            content: content.clone(),
            snapshots: snapshots.clone(),
            leases: Leases::new(store.clone()),
            collector: Collector::new(store.clone(), content.clone(), snapshots),
            registry: bosun_registry::Registry::new(bosun_registry::Options::default()),
        });
        let mended = store.mended();
        let mut findings = mended.findings.clone();
        if !findings.is_empty() {
            findings.extend(runtime.block_on(images.restore(mended.is_rebuilt))?);
            store.is_put_right()?;
        }
        Ok((Self { runtime, content }, findings))
    }
}

struct Check<'a> {
    layout: Layout,
    mender: Option<Mender>,
    found: usize,
    say: &'a mut dyn FnMut(&Finding),
}

impl Check<'_> {
    fn tell_all(&mut self, findings: Vec<Finding>) {
        self.found += findings.len();
        findings.iter().for_each(|finding| (self.say)(finding));
    }

    fn tell(&mut self, object: impl Into<String>, problem: impl Into<String>, remedy: &str) {
        let finding =
            Finding { object: object.into(), problem: problem.into(), remedy: remedy.to_owned() };
        self.tell_all(vec![finding]);
    }

    /// Every byte of every blob.
    fn blobs(&mut self, contents: Option<&Contents>) -> Result<(), Failure> {
        let mut seen = BTreeSet::new();
        for path in entries(&self.layout.content().join("blobs/sha256"))? {
            let name = name_of(&path);
            let Ok(digest) = format!("{}{name}", Digest::PREFIX).parse::<Digest>() else {
                self.tell(
                    format!("file {}", path.display()),
                    "it is no blob",
                    "the next start of bosund removes it",
                );
                continue;
            };
            let hash = match plain_file::open(&path) {
                Err(error) if plain_file::is_damage(&error) => Ok(None),
                opened => opened.and_then(|mut file| content::hash_of(&mut file)).map(Some),
            };
            let hash = hash.map_err(Error::file("read blob", &path))?;
            let is_known = contents.is_none_or(|known| known.blobs.contains(digest.as_str()));
            if hash.is_none_or(|hash| Digest::finish(hash) != digest) {
                self.bad_blob(&digest);
            } else if !is_known {
                self.tell(
                    format!("blob {digest}"),
                    "no record names it",
                    "the next start of bosund removes it",
                );
            }
            seen.insert(digest.to_string());
        }
        let known = contents.map(|known| known.blobs.clone()).unwrap_or_default();
        for digest in known.difference(&seen) {
            self.tell(
                format!("blob {digest}"),
                "its file is missing",
                "pull the image that it belongs to again",
            );
        }
        Ok(())
    }

    fn bad_blob(&mut self, digest: &Digest) {
        let remedy = match &self.mender {
            None => {
                "`bosund fsck --repair` sets it aside; then pull the image that it belongs to again"
            }
            Some(mender) => {
                // It answers with the damage, which is what is told of here.
                let _ = mender.runtime.block_on(mender.content.check(digest));
                "set aside: pull the image that it belongs to again"
            }
        };
        self.tell(format!("blob {digest}"), "its bytes are not those of its digest", remedy);
    }

    /// The directories of snapshots beside their rows.
    fn snapshots(&mut self, contents: Option<&Contents>) -> Result<(), Failure> {
        let Some(contents) = contents else { return Ok(()) };
        let mut seen = BTreeSet::new();
        for path in entries(&self.layout.snapshots())? {
            let number = name_of(&path).parse::<i64>().ok();
            if let Some(number) = number {
                seen.insert(number);
            }
            let is_known = |number: i64| {
                contents.snapshots.contains_key(&number) || contents.of_copied.contains(&number)
            };
            if !number.is_some_and(is_known) {
                self.tell(
                    format!("snapshot directory {}", path.display()),
                    "no record names it",
                    "the next start of bosund removes it",
                );
            }
        }
        for (number, row) in &contents.snapshots {
            let tree = self.layout.snapshots().join(number.to_string()).join("fs");
            if row.kind == Kind::Committed && !tree.is_dir() {
                self.tell(
                    format!("snapshot {number} ({})", row.key),
                    format!("its tree {} is missing", tree.display()),
                    "the next start of bosund unpacks it again, if it is the layer of an image",
                );
            }
        }
        Ok(())
    }

    /// The directories of containers beside their rows, and what lies in them.
    fn containers(&mut self, contents: Option<&Contents>) -> Result<(), Failure> {
        let mut seen = BTreeSet::new();
        for namespace in entries(&self.layout.root().join("containers"))? {
            for directory in entries(&namespace)? {
                let key = (name_of(&namespace), name_of(&directory));
                let object = format!("container {}/{}", key.0, key.1);
                let known = contents.map(|known| (known, known.containers.get(&key)));
                match known {
                    Some((known, None)) if known.copied.contains(&key) => {
                        self.files(&object, &directory, None)?;
                    }
                    Some((known, None)) => self.tell(
                        &object,
                        format!("no record names its directory {}", directory.display()),
                        match known.removals.contains(&key) {
                            true => "what a removal left: the next start of bosund removes it",
                            false => "nobody knows what it is of: remove it by hand",
                        },
                    ),
                    Some((_, Some(row))) => self.files(&object, &directory, Some(&row.spec_sum))?,
                    None => self.files(&object, &directory, None)?,
                }
                seen.insert(key);
            }
        }
        let Some(contents) = contents else { return Ok(()) };
        for (key, row) in &contents.containers {
            let object = format!("container {}/{} ({})", key.0, key.1, row.name);
            if let Err(problem) = &row.record {
                self.tell(
                    object,
                    format!("its record can't be read: {problem}"),
                    &format!("it is quarantined: `ctl rm -f {}` removes it", key.1),
                );
            } else if !seen.contains(key) {
                self.tell(
                    object,
                    "its directory is missing",
                    "the next start of bosund makes it again, without logs and exit record",
                );
            }
        }
        Ok(())
    }

    fn files(
        &mut self,
        object: &str,
        directory: &Path,
        spec_sum: Option<&str>,
    ) -> Result<(), Failure> {
        for path in entries(directory)? {
            let name = name_of(&path);
            let object = format!("{object}: {}", path.display());
            match name.as_str() {
                "config.json" => match read(&path)? {
                    Ok(text) if spec_sum.is_none_or(|sum| store::is_sum(sum, &text)) => {}
                    Ok(_) => self.tell(object, "it is not what the database has", RENEWED),
                    Err(problem) => self.tell(object, problem, RENEWED),
                },
                "options.json" => {
                    let options = read(&path)?.and_then(|text| {
                        let options = serde_json::from_slice::<serde_json::Value>(&text);
                        options.map(drop).map_err(|error| format!("it is no JSON: {error}"))
                    });
                    if let Err(problem) = options {
                        self.tell(object, problem, RENEWED);
                    }
                }
                "exit.json" => self.exit_record(object, &path)?,
                _ if name.contains("-json.log") && plain_file::other_kind(&path).is_some() => {
                    let kind = plain_file::other_kind(&path).unwrap_or_default();
                    self.tell(object, format!("it is {kind}, not a file"), "move it away");
                }
                _ if name.contains("-json.log") => {
                    let damage = logs::damage(&path)?;
                    if damage > 0 {
                        self.tell(
                            object,
                            format!("{damage} bytes of it are no records"),
                            "`ctl logs` passes over them, and says so",
                        );
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn exit_record(&mut self, object: String, path: &Path) -> Result<(), Failure> {
        let decoded = read(path)?.and_then(|bytes| {
            let text = str::from_utf8(&bytes).map_err(|_| "it is not text".to_owned())?;
            ExitRecord::decode(text).map(drop).map_err(|problem| problem.to_string())
        });
        let Err(problem) = decoded else { return Ok(()) };
        let remedy = match self.mender.is_some() {
            false => "`bosund fsck --repair` sets it aside".to_owned(),
            true => {
                format!("set aside as {}", store::set_aside(self.layout.root(), path)?.display())
            }
        };
        let then = "an exit that was not stored before is unknown";
        self.tell(object, problem, &format!("{remedy}; {then}"));
        Ok(())
    }
}

const RENEWED: &str = "the next start of bosund writes it anew";

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match std::fs::read_dir(directory) {
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        // A file where a directory belongs is what others tell of.
        Err(source) if source.kind() == std::io::ErrorKind::NotADirectory => return Ok(Vec::new()),
        other => other.map_err(Error::file("read directory", directory))?,
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| !store::is_aside(path));
    paths.sort();
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The content of a file, or why it is none.
fn read(path: &Path) -> Result<Result<Vec<u8>, String>, Failure> {
    match plain_file::read(path, plain_file::RECORD) {
        Err(error) if plain_file::is_damage(&error) => Ok(Err(error.to_string())),
        read => Ok(Ok(read.map_err(Error::file("read", path))?)),
    }
}
