//! Containers of a pod, written down as one: all of them stand still before criu looks at the first, and none
//! goes on before the last is written.
//!
//! ```text
//!   DIRECTORY/pod.json           what it is a checkpoint of; there last, so without it nothing is whole
//!   DIRECTORY/container-N.tar    an archive of each, as of a container alone
//! ```
//!
//! Files have no names until all is written and synced, and keep them once the caller is about to be told
//! ([`untold`](super::untold)). Who gives up waiting gets none of them, and the containers go on once criu is done
//! with the one that it is at: it can't be interrupted.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::untold::Untold;
use super::{After, Archive, Decision, Still, What, check_runtime};
use crate::blocking::off_the_loop;
use crate::container::{Handle, Record};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::time::Time;

const MANIFEST: &str = "pod.json";
/// Bytes of a manifest, at most.
const MANIFEST_SIZE: u64 = 4 << 20;
/// The form of manifests that is written and read.
const VERSION: u32 = 1;

/// What a directory is a checkpoint of: the content of `pod.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    pub version: u32,
    pub id: String,
    pub name: String,
    pub checkpointed_time: String,
    /// What the pod was asked to be, as the face that made it keeps that.
    pub request: String,
    pub containers: Vec<Member>,
}

/// One container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Member {
    pub id: String,
    /// As its pod calls it.
    pub name: String,
    /// The file with its archive, in the same directory.
    pub archive: String,
}

impl Manifest {
    /// Of a pod, without containers yet.
    #[must_use]
    pub fn of(pod: &Record, request: String) -> Self {
        Self {
            version: VERSION,
            id: pod.id.clone(),
            name: pod.name.clone(),
            checkpointed_time: Time::now().rfc3339(),
            request,
            containers: Vec::new(),
        }
    }

    /// What a directory is a checkpoint of.
    ///
    /// # Errors
    /// It is none, or not a whole one; it is of another form.
    pub async fn read(directory: &Path) -> Result<Self> {
        let directory = directory.to_owned();
        off_the_loop(move || {
            check_path("checkpoint_path", &directory)?;
            let path = directory.join(MANIFEST);
            let bad = |problem: String| Error::BadCheckpoint {
                archive: path.display().to_string(),
                problem,
            };
            let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
            let flags = flags.bits().cast_signed();
            let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path);
            let file = opened.map_err(|error| bad(format!("no checkpoint of a pod: {error}")))?;
            if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
                return Err(bad("it is no file".to_owned()));
            }
            let mut text = Vec::new();
            file.take(MANIFEST_SIZE + 1)
                .read_to_end(&mut text)
                .map_err(Error::file("read", &path))?;
            if text.len() as u64 > MANIFEST_SIZE {
                return Err(bad(format!("it has more than {MANIFEST_SIZE} bytes")));
            }
            let manifest: Self =
                serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
            if manifest.version != VERSION {
                let problem = format!("it is of version {}, not {VERSION}", manifest.version);
                return Err(bad(problem));
            }
            let is_name = |name: &str| {
                let mut parts = Path::new(name).components();
                matches!((parts.next(), parts.next()), (Some(Component::Normal(only)), None) if only == name)
            };
            match manifest.containers.iter().find(|member| !is_name(&member.archive)) {
                None => Ok(manifest),
                Some(member) => Err(bad(format!("{:?} is no file beside it", member.archive))),
            }
        })
        .await
    }
}

/// Writes containers of a pod down, each with its name in there; they go on. What fails leaves nothing in the
/// directory.
///
/// # Errors
/// The directory is not there or not empty; one of them does not run, or is no container of bosun's own
/// runtime; criu can't, in its own words; a full disk; nobody waits any more.
pub async fn checkpoint(
    core: &Core,
    mut manifest: Manifest,
    containers: &[(String, Handle)],
    directory: &Path,
    what: What,
    decision: &Decision,
) -> Result<()> {
    for (_, handle) in containers {
        handle.running()?;
        check_runtime(core, handle)?;
    }
    check_empty(directory)?;
    let mut untold = Untold::new(&core.layout);
    let mut archives = Vec::with_capacity(containers.len());
    for (number, (name, handle)) in containers.iter().enumerate() {
        let archive = format!("container-{number}.tar");
        archives.push(Archive::begin(&directory.join(&archive), &mut untold)?);
        let id = handle.key().id.to_string();
        manifest.containers.push(Member { id, name: name.clone(), archive });
    }
    let mut all = Vec::with_capacity(containers.len());
    let written = async {
        for (_, handle) in containers {
            shim_failpoints::step!("daemon.pod_checkpoint.before_hold", error);
            all.push(Still::hold(core, handle).await?);
            shim_failpoints::step!("daemon.pod_checkpoint.after_hold", error);
        }
        let mut filled = Vec::with_capacity(archives.len());
        for (still, archive) in all.iter().zip(archives) {
            if decision.is_taken() {
                return Err(Error::Stopping);
            }
            let content = still.dump(&what).await?;
            filled.push(off_the_loop(move || archive.fill(&content).map(|()| archive)).await?);
            shim_failpoints::step!("daemon.pod_checkpoint.after_archive", error);
        }
        Ok(filled)
    };
    let written = written.await;
    for still in all {
        still.let_go(After::GoesOn).await;
        shim_failpoints::step!("daemon.pod_checkpoint.after_let_go");
    }
    let (archives, directory, decision) = (written?, directory.to_owned(), decision.clone());
    off_the_loop(move || {
        let text = serde_json::to_vec_pretty(&manifest).map_err(crate::store::Error::from)?;
        let mut last = Archive::begin(&directory.join(MANIFEST), &mut untold)?;
        let written = last.file.write_all(&text).and_then(|()| last.file.sync_all());
        written.map_err(Error::file("write", &last.place))?;
        if !decision.take() {
            // Nobody waits for it any more.
            return Err(Error::Stopping);
        }
        let all = || archives.iter().chain([&last]);
        untold.list(all())?;
        for archive in all() {
            shim_failpoints::step!("daemon.pod_names.before_name", error);
            archive.name()?;
            shim_failpoints::step!("daemon.pod_names.after_name", error);
        }
        untold.told()
    })
    .await
}

fn invalid(what: &'static str, path: &Path, problem: &str) -> Error {
    Error::InvalidArgument { what, problem: format!("{}: {problem}", path.display()) }
}

fn check_path(what: &'static str, directory: &Path) -> Result<()> {
    let clean = !directory.components().any(|part| part == Component::ParentDir);
    if !clean || !directory.is_absolute() {
        let problem = "give an absolute path of a directory, without \"..\"";
        return Err(invalid(what, directory, problem));
    }
    match directory.is_dir() {
        true => Ok(()),
        false => Err(invalid(what, directory, "it is no directory")),
    }
}

fn check_empty(directory: &Path) -> Result<()> {
    check_path("output_path", directory)?;
    let mut entries = directory.read_dir().map_err(Error::file("read directory", directory))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(invalid("output_path", directory, "it is not empty")),
    }
}
