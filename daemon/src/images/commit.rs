//! Committing: an image of what a container changed, on top of the one it was made from.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use bosun_image::{Descriptor, Digest, Draft, Execution, History, Reference, media_type};
use futures::FutureExt;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use super::import::unnamed;
use super::layers::Job;
use super::progress::Board;
use super::tree::bad;
use super::{Images, changes};
use crate::blocking::off_the_loop;
use crate::container::{FromImage, random_id};
use crate::content::{Content, Expected, Writer};
use crate::error::{Error, Result};
use crate::snapshots;
use crate::spec::ContainerOptions;
use crate::time::Time;

/// What is to be committed.
#[derive(Clone, Debug)]
pub struct Commit {
    pub id: String,
    /// The container, as errors name it.
    pub container: String,
    pub options: ContainerOptions,
    pub image: FromImage,
    /// Its own tree, and those below, nearest first.
    pub upper: PathBuf,
    pub lower: Vec<PathBuf>,
    pub reference: Option<Reference>,
    pub author: String,
    pub message: String,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
}

impl Images {
    /// Makes an image of a container's files; answers its name.
    ///
    /// # Errors
    /// A file that can't be read, a change that is none, a full disk.
    pub async fn commit(&self, namespace: &str, commit: Commit) -> Result<String> {
        let work = |job: Job| async move {
            let digest: Digest = commit.image.id.parse()?;
            shim_failpoints::step!("daemon.commit.before_base", error);
            self.hold_base(&job, &commit).await?;
            shim_failpoints::step!("daemon.commit.after_base", error);
            let below = self.content.read(namespace, &digest, bosun_image::MAX_DOCUMENT as u64);
            let below = below.await?;
            let manifest: Digest = commit.image.manifest.parse()?;
            let mut layers = self.layers_of(namespace, &manifest).await?;
            let (layer, diff_id) = self.write_layer(&job, &commit).await?;
            shim_failpoints::step!("daemon.commit.after_layer", error);
            self.check_there(namespace, &commit).await?;
            layers.push(layer);
            let config = describe(&below, &commit, diff_id, &digest)?;
            let target = self.put_image(&job, config, layers).await?;
            shim_failpoints::step!("daemon.commit.before_name", error);
            let name = match &commit.reference {
                Some(reference) => reference.clone(),
                None => unnamed(&target.digest)?,
            };
            self.name(namespace, &name, &target, BTreeMap::new(), "commit").await?;
            shim_failpoints::step!("daemon.commit.after_name");
            Ok(name.name())
        };
        self.with_lease(namespace, "commit", &Board::default(), |job| work(job).boxed()).await
    }

    /// Lets the job hold what the container was made from, whoever removes it meanwhile.
    async fn hold_base(&self, job: &Job, commit: &Commit) -> Result<()> {
        let manifest: Digest = commit.image.manifest.parse()?;
        let labels = BTreeMap::new();
        let lease = job.lease.clone();
        // Its labels lead to the configuration and the layers.
        match self.content.adopt(&job.namespace, &manifest, labels, lease).await? {
            Some(_) => Ok(()),
            None => Err(Error::NoSuchBlob { digest: manifest.to_string() }),
        }
    }

    /// A container that was removed meanwhile may have been read half: its row goes before its files.
    async fn check_there(&self, namespace: &str, commit: &Commit) -> Result<()> {
        let (namespace, key) = (namespace.to_owned(), commit.id.clone());
        let known = self.store.read(move |tx| tx.snapshot(&namespace, &key)).await?;
        match known {
            Some(_) => Ok(()),
            None => Err(Error::Removing { id: commit.container.clone() }),
        }
    }

    async fn layers_of(&self, namespace: &str, manifest: &Digest) -> Result<Vec<Descriptor>> {
        let row = self.content.stat(namespace, manifest).await?;
        let blob = Descriptor::new(media_type::OCI_MANIFEST, manifest.clone(), row.size);
        let bytes = self.bytes(namespace, &blob).await?;
        match bosun_image::Document::parse(&bytes, None).map_err(bad(manifest))? {
            bosun_image::Document::Manifest(manifest) => Ok(manifest.layers),
            bosun_image::Document::Index(_) => {
                Err(Error::NoSuchBlob { digest: manifest.to_string() })
            }
        }
    }

    /// Writes what the container changed as a layer, compressed, straight into the store.
    async fn write_layer(&self, job: &Job, commit: &Commit) -> Result<(Descriptor, Digest)> {
        let reference = format!("commit-{}", &random_id()[..16]);
        let expected = Expected { lease: job.lease.clone(), ..Expected::default() };
        let writer = self.content.writer(&job.namespace, &reference, expected, Some(0)).await?;
        let sink = Sink {
            content: self.content.clone(),
            runtime: Handle::current(),
            writer: Some(writer),
            gathered: Vec::new(),
            failed: None,
        };
        let (upper, lower) = (commit.upper.clone(), commit.lower.clone());
        let container = commit.container.clone();
        let written = off_the_loop(move || {
            shim_failpoints::step!("daemon.commit.before_layer", error);
            let below = snapshots::merged_or_none(&lower)?;
            let upper = std::fs::File::open(&upper).map_err(Error::file("open", &upper))?;
            let hashing =
                Hashing { to: bosun_layer::compress::Encoder::new(sink), hash: Sha256::new() };
            let diffed = bosun_layer::diff(upper.as_fd(), below.as_ref(), hashing);
            let failed = |source| Error::Layer {
                digest: format!("of container {container}"),
                source: std::sync::Arc::new(source),
            };
            let hashing = diffed.map_err(failed)?;
            let diff_id = Digest::finish(hashing.hash);
            let written = hashing.to.finish();
            let sink = written.map_err(failed)?;
            Ok((sink.finish()?, diff_id))
        })
        .await;
        match written {
            Ok(((digest, size), diff_id)) => {
                Ok((Descriptor::new(media_type::OCI_LAYER_GZIP, digest, size), diff_id))
            }
            Err(error) => {
                // Half a layer is of no use to anybody.
                let _ = self.content.abort(&job.namespace, &reference).await;
                Err(error)
            }
        }
    }
}

/// The configuration of the new image: the old one, what the container was told, and the changes.
fn describe(below: &[u8], commit: &Commit, diff_id: Digest, old: &Digest) -> Result<Vec<u8>> {
    let options = &commit.options;
    let before = bosun_image::Config::parse(below).map_err(bad(old))?.config;
    let mut execution = Execution {
        user: options.user.clone(),
        env: options.env.clone(),
        entrypoint: options.entrypoint.clone(),
        cmd: Some(options.command.clone()).filter(|words| !words.is_empty()),
        working_dir: options.working_dir.clone(),
        labels: options.labels.clone(),
        stop_signal: options.stop_signal.map(|signal| signal.to_string()),
        ..before
    };
    dedup_env(&mut execution.env);
    for port in &options.ports {
        let protocol = match port.protocol {
            crate::spec::Protocol::Tcp => "tcp",
            crate::spec::Protocol::Udp => "udp",
        };
        execution.exposed_ports.push(format!("{}/{protocol}", port.container_port));
    }
    execution.exposed_ports.sort();
    execution.exposed_ports.dedup();
    changes::apply(&mut execution, &commit.changes)?;
    let created = Time::now().rfc3339();
    let write = || -> std::result::Result<Vec<u8>, bosun_image::Error> {
        let mut draft = Draft::of(below)?;
        draft.set_created(&created);
        draft.set_execution(&execution)?;
        if !commit.author.is_empty() {
            draft.set_author(&commit.author);
        }
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let history = History {
            created: Some(created.clone()),
            created_by: Some(options.args().join(" ")),
            author: text(&commit.author),
            comment: text(&commit.message),
            empty_layer: false,
        };
        draft.push(Some(diff_id), &history)?;
        Ok(draft.finish()?.0)
    };
    write().map_err(bad(old))
}

/// Of variables that were set twice, the last counts.
fn dedup_env(env: &mut Vec<String>) {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut kept: Vec<String> = Vec::new();
    for entry in env.drain(..) {
        match kept.iter_mut().find(|known| name(known) == name(&entry)) {
            Some(known) => *known = entry,
            None => kept.push(entry),
        }
    }
    *env = kept;
}

/// An ingest, for a thread that writes to it.
struct Sink {
    content: Content,
    runtime: Handle,
    writer: Option<Writer>,
    gathered: Vec<u8>,
    /// Why the store did not take it: more than an error of a write can say.
    failed: Option<Error>,
}

impl Sink {
    fn put(&mut self) -> io::Result<()> {
        let Some(writer) = self.writer.take() else {
            return Err(io::Error::other("the ingest is closed"));
        };
        let part = std::mem::take(&mut self.gathered);
        match self.runtime.block_on(self.content.write(writer, vec![part.into()])) {
            Ok(writer) => {
                self.writer = Some(writer);
                Ok(())
            }
            Err(error) => {
                let told = io::Error::other(error.to_string());
                self.failed = Some(error);
                Err(told)
            }
        }
    }

    fn finish(mut self) -> Result<(Digest, u64)> {
        if self.put().is_err() {
            return Err(self.failed.unwrap_or(Error::Stopping));
        }
        let writer = self.writer.take().ok_or(Error::Stopping)?;
        self.runtime.block_on(self.content.commit(writer))
    }
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(data);
        if self.gathered.len() >= 1 << 20 {
            self.put()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes what it passes on.
struct Hashing<W> {
    to: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.to.write(data)?;
        self.hash.update(&data[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_variables_set_twice_the_last_counts_in_the_first_place() {
        let mut env = ["A=1", "B=1", "A=2"].map(str::to_owned).to_vec();
        dedup_env(&mut env);
        assert_eq!(env, ["A=2", "B=1"]);
    }
}
