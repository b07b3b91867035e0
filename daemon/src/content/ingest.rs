//! An ingest on disk: `ingest/HASH/` with `ingest.json`, which says what it is to become, and `data`,
//! the bytes so far. HASH is made of namespace and reference, so a name from outside is never a path.
//!
//! Everything here blocks; the service calls it off the loop. A directory without a readable
//! `ingest.json` is no ingest: a crash came between the two, and it is removed.

use std::collections::{BTreeMap, HashSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bosun_image::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::follow::{Follower, Growth};
use crate::atomic;
use crate::config::hex;
use crate::error::{Error, Result};
use crate::plain_file;
use crate::time::Time;
use crate::trees;

const DESCRIPTION: &str = "ingest.json";
const DATA: &str = "data";

/// What an ingest is to become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub namespace: String,
    pub reference: String,
    /// Bytes of the whole blob.
    pub expected_size: Option<u64>,
    pub expected_digest: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// The lease that is to hold the blob.
    #[serde(default)]
    pub lease: Option<String>,
    pub started_at: Time,
}

/// How far an ingest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingest {
    pub description: Description,
    /// Bytes received.
    pub received: u64,
    /// When the last of them came.
    pub touched_at: SystemTime,
}

/// The ingests that are being written to, by their directories' names.
#[derive(Clone, Debug, Default)]
pub(super) struct Writers(Arc<Mutex<HashSet<String>>>);

/// The right to write to an ingest, or to drop it.
#[derive(Debug)]
pub(super) struct Claim {
    writers: Writers,
    name: String,
}

impl Writers {
    /// Takes an ingest for one writer.
    ///
    /// # Errors
    /// [`Error::IngestBusy`]: another one has it.
    pub(super) fn claim(&self, namespace: &str, reference: &str) -> Result<Claim> {
        let name = directory_name(namespace, reference);
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !taken.insert(name.clone()) {
            return Err(Error::IngestBusy { reference: reference.to_owned() });
        }
        Ok(Claim { writers: self.clone(), name })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.writers.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// An ingest being written to. Dropped, it leaves its bytes to whoever resumes it.
#[derive(Debug)]
pub struct Writer {
    home: PathBuf,
    description: Description,
    file: File,
    hash: Sha256,
    received: u64,
    /// Those who read along.
    growth: Growth,
    _claim: Claim,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.growth.tear();
    }
}

/// 32 hex digits that no two references of any two namespaces share.
fn directory_name(namespace: &str, reference: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(namespace);
    hash.update([0]);
    hash.update(reference);
    hex(&hash.finalize())[..32].to_owned()
}

impl Writer {
    /// Opens an ingest, or begins it. With an `offset`, what lies behind it is cut off.
    ///
    /// # Errors
    /// It was begun with another size or digest, or has less than `offset` bytes.
    pub(super) fn open(
        ingests: &Path,
        claim: Claim,
        wanted: Description,
        offset: Option<u64>,
    ) -> Result<Self> {
        let home = ingests.join(&claim.name);
        let description = match read_description(&home) {
            Some(known) => {
                let merged = merge(known.clone(), wanted)?;
                if merged != known {
                    describe(&home, &merged)?;
                }
                merged
            }
            None => begin(&home, wanted)?,
        };
        let path = home.join(DATA);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = plain_file::open_with(&mut options, &path)
            .map_err(Error::file("open ingest", &path))?;
        let there = file.metadata().map_err(Error::file("look at ingest", &path))?.len();
        let received = offset.unwrap_or(there);
        if received > there {
            let reference = description.reference;
            return Err(Error::IngestOffset { reference, received: there, offset: received });
        }
        file.set_len(received).map_err(Error::file("cut off ingest", &path))?;
        let hash = hash_of(&mut file).map_err(Error::file("read ingest", &path))?;
        let growth = Growth::new(received);
        Ok(Self { home, description, file, hash, received, growth, _claim: claim })
    }

    /// Reads the bytes from the first one on, also those that are still to come.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn follow(&self) -> Result<Follower> {
        let path = self.home.join(DATA);
        let file = plain_file::open(&path).map_err(Error::file("open ingest", &path))?;
        Ok(Follower::new(file, self.growth.clone()))
    }

    /// Bytes received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn description(&self) -> &Description {
        &self.description
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// More than was expected, or a file that can't be written.
    pub(super) fn write(&mut self, data: &[u8]) -> Result<()> {
        let received = self.received + data.len() as u64;
        if let Some(wanted) = self.description.expected_size.filter(|wanted| received > *wanted) {
            return Err(self.mismatch("size", wanted.to_string(), format!("at least {received}")));
        }
        let written = self.file.write_all(data);
        written.map_err(Error::file("write to ingest", &self.home.join(DATA)))?;
        shim_failpoints::step!("daemon.content.after_write");
        self.hash.update(data);
        self.received = received;
        self.growth.grow(received);
        Ok(())
    }

    /// Makes the bytes durable and says what they are, once they are what was expected.
    ///
    /// # Errors
    /// Size or digest are others than expected; bytes that can't be made durable.
    pub(super) fn verify(&mut self) -> Result<Digest> {
        shim_failpoints::step!("daemon.content.before_sync", error);
        let synced = self.file.sync_data();
        synced.map_err(Error::file("make durable", &self.home.join(DATA)))?;
        if let Some(wanted) = self.description.expected_size.filter(|size| *size != self.received) {
            return Err(self.mismatch("size", wanted.to_string(), self.received.to_string()));
        }
        let digest = Digest::finish(self.hash.clone());
        match &self.description.expected_digest {
            Some(wanted) if wanted != digest.as_str() => {
                Err(self.mismatch("digest", wanted.clone(), digest.to_string()))
            }
            Some(_) | None => {
                self.growth.finish();
                Ok(digest)
            }
        }
    }

    /// Puts the verified bytes in their place, durably. They stay the ingest's as well, until the
    /// blob is committed: only then is there a record to find them by.
    ///
    /// # Errors
    /// Names the file.
    pub(super) fn publish(&self, blob: &Path, directory: &Path) -> Result<()> {
        let link = self.home.join("blob");
        match std::fs::remove_file(&link) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file("remove", &link)(source));
            }
            Ok(()) | Err(_) => {}
        }
        std::fs::hard_link(self.home.join(DATA), &link).map_err(Error::file("link", &link))?;
        shim_failpoints::step!("daemon.content.before_rename", error);
        std::fs::rename(&link, blob).map_err(Error::file("put in place", blob))?;
        shim_failpoints::step!("daemon.content.after_rename", error);
        sync_directory(directory)
    }

    /// Removes the ingest: it has become a blob, or never can.
    ///
    /// # Errors
    /// Names the directory.
    pub(super) fn discard(self) -> Result<()> {
        remove_directory(&self.home)
    }

    fn mismatch(&self, what: &'static str, wanted: String, got: String) -> Error {
        let reference = self.description.reference.clone();
        Error::IngestMismatch { reference, what, wanted, got }
    }
}

/// The ingest of a reference.
pub(super) fn status(ingests: &Path, namespace: &str, reference: &str) -> Option<Ingest> {
    read(&ingests.join(directory_name(namespace, reference)))
}

/// All ingests of a namespace, by reference.
pub(super) fn list(ingests: &Path, namespace: &str) -> Result<Vec<Ingest>> {
    let entries =
        std::fs::read_dir(ingests).map_err(Error::file("read directory of ingests", ingests))?;
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| read(&entry.path()))
        .filter(|ingest| ingest.description.namespace == namespace)
        .collect();
    found.sort_by(|left, right| left.description.reference.cmp(&right.description.reference));
    Ok(found)
}

/// Removes a claimed ingest; false when there is none.
pub(super) fn abort(ingests: &Path, claim: &Claim) -> Result<bool> {
    let home = ingests.join(&claim.name);
    let existed = home.exists();
    remove_directory(&home)?;
    Ok(existed)
}

/// Removes what is no ingest. At start only: a directory is made before its description.
pub(super) fn remove_orphans(ingests: &Path) -> Result<usize> {
    let entries =
        std::fs::read_dir(ingests).map_err(Error::file("read directory of ingests", ingests))?;
    let mut removed = 0;
    for entry in entries.flatten().filter(|entry| !crate::store::is_aside(&entry.path())) {
        let is_named = |known: Description| {
            entry.file_name() == *directory_name(&known.namespace, &known.reference)
        };
        if !read_description(&entry.path()).is_some_and(is_named) {
            match remove_directory(&entry.path()) {
                Ok(()) => removed += 1,
                // It keeps nobody from being served.
                Err(error) => {
                    tracing::warn!(%error, "left behind; the next start of bosund tries again");
                }
            }
        }
    }
    Ok(removed)
}

pub(super) fn sync_directory(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(Error::file("make durable", path))
}

fn read(home: &Path) -> Option<Ingest> {
    let description = read_description(home)?;
    let data = home.join(DATA).metadata().ok();
    let begun = || home.metadata().and_then(|metadata| metadata.modified());
    let touched = data.as_ref().and_then(|metadata| metadata.modified().ok());
    Some(Ingest {
        description,
        received: data.map_or(0, |metadata| metadata.len()),
        touched_at: touched.or_else(|| begun().ok()).unwrap_or(SystemTime::UNIX_EPOCH),
    })
}

fn read_description(home: &Path) -> Option<Description> {
    let text = plain_file::read(&home.join(DESCRIPTION), plain_file::RECORD).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Makes the directory anew: whatever lies there is no ingest.
fn begin(home: &Path, description: Description) -> Result<Description> {
    remove_directory(home)?;
    let made = DirBuilder::new().mode(0o700).create(home);
    made.map_err(Error::file("make directory of ingest", home))?;
    shim_failpoints::step!("daemon.content.after_ingest_directory", error);
    describe(home, &description)?;
    Ok(description)
}

/// Writes what an ingest is to become, whole or not at all.
fn describe(home: &Path, description: &Description) -> Result<()> {
    let path = home.join(DESCRIPTION);
    let text = serde_json::to_vec(description).map_err(crate::store::Error::from)?;
    atomic::write(&path, &text, 0o600).map_err(Error::file("describe ingest", &path))
}

/// What was known, and what this writer adds to it.
fn merge(known: Description, wanted: Description) -> Result<Description> {
    let reference = known.reference.clone();
    let differs = |what: &str, was: String, is: String| Error::InvalidArgument {
        what: "ingest",
        problem: format!(
            "{reference} was begun with {what} {was}, not {is}: abort it, or use another reference"
        ),
    };
    if let (Some(was), Some(is)) = (known.expected_size, wanted.expected_size)
        && was != is
    {
        return Err(differs("size", was.to_string(), is.to_string()));
    }
    if let (Some(was), Some(is)) = (&known.expected_digest, &wanted.expected_digest)
        && was != is
    {
        return Err(differs("digest", was.clone(), is.clone()));
    }
    let mut labels = known.labels;
    labels.extend(wanted.labels);
    Ok(Description {
        expected_size: known.expected_size.or(wanted.expected_size),
        expected_digest: known.expected_digest.or(wanted.expected_digest),
        lease: wanted.lease,
        labels,
        ..known
    })
}

/// The hash of a whole file, which is left at its end.
///
/// # Errors
/// It can't be read.
pub fn hash_of(file: &mut (impl Read + Seek)) -> std::io::Result<Sha256> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    file.seek(SeekFrom::Start(0))?;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn remove_directory(path: &Path) -> Result<()> {
    trees::remove(path).map_err(Error::file("remove", path))
}
