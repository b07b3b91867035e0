//! Reading an archive of images, once and as it comes.
//!
//! Files that are blobs go straight to the store; documents that say what they are (`index.json`,
//! `manifest.json`) may come at any place, so they are kept in memory until the end, and are bounded.
//! Deliberately absent: what the documents mean, which is `import`'s.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, Read};

use bosun_image::{Digest, media_type};
use bosun_layer::compress::Decoder;
use bosun_layer::tar::{Chunk, Entry, Kind as FileKind, Reader as Tar};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use super::Images;
use super::layers::Job;
use crate::blocking::off_the_loop;
use crate::container::random_id;
use crate::content::{Expected, Writer};
use crate::error::{Error, Result};
use crate::pipe;

/// Documents of one archive that are kept in memory, in bytes.
const DOCUMENTS: usize = 4 * bosun_image::MAX_DOCUMENT;

/// Bytes that are looked at to tell what an archive is.
const PEEK: usize = 512 << 10;

/// Uncompressed bytes of those, at most.
const LOOKED_AT: u64 = 16 << 20;

/// Bytes that are read at a time.
const BUFFER: usize = 256 << 10;

/// The most files of one archive of images: names are kept in memory.
const MOST_FILES: u32 = 20_000;

/// The files of an archive: documents by path, and blobs by path.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) index: Option<Bytes>,
    pub(super) manifest: Option<Bytes>,
    pub(super) documents: HashMap<String, Bytes>,
    blobs: HashMap<String, (Digest, u64)>,
    /// Links, as docker writes them for layers that are there twice.
    links: HashMap<String, String>,
    entries: u32,
}

impl Files {
    /// Reads an archive to its end: blobs go to the store.
    pub(super) async fn read(images: &Images, job: &Job, source: Peeked) -> Result<Self> {
        let store = Store::new(images, job);
        let limits = images.limits;
        off_the_loop(move || {
            let source = buffered(source, limits.size)?;
            let mut tar = Tar::new(source, limits.entries);
            let mut files = Self::default();
            let mut kept = 0;
            while let Some(entry) = tar.next().map_err(archive)? {
                files.take(&store, &mut tar, &entry, &mut kept)?;
            }
            Ok(files)
        })
        .await
    }

    fn take<R: BufRead>(
        &mut self,
        store: &Store,
        tar: &mut Tar<R>,
        entry: &Entry,
        kept: &mut usize,
    ) -> Result<()> {
        let path = clean(&entry.path);
        self.entries += 1;
        if self.entries > MOST_FILES {
            let problem = format!("it has more than {MOST_FILES} files: no archive of images has");
            return Err(Error::BadArchive { problem });
        }
        let size = match &entry.kind {
            FileKind::File { size } => *size,
            FileKind::Symlink { target } | FileKind::HardLink { target } => {
                self.links.insert(path, String::from_utf8_lossy(target).into_owned());
                return Ok(());
            }
            FileKind::Directory
            | FileKind::Character { .. }
            | FileKind::Block { .. }
            | FileKind::Fifo => return Ok(()),
        };
        if let Some(hex) = path.strip_prefix("blobs/sha256/") {
            let digest: Digest = format!("{}{hex}", Digest::PREFIX).parse()?;
            let blob = store.take(Body::of(tar), &path, Some((digest, size)))?;
            self.blobs.insert(path, blob);
            return Ok(());
        }
        // What docker of old wrote beside each layer: what is in them is in manifest.json as well.
        if path.ends_with("/VERSION") || path.ends_with("/json") {
            return Ok(());
        }
        if !path.ends_with(".json") && !matches!(path.as_str(), "oci-layout" | "repositories") {
            // A layer, or a file of old that says nothing.
            let blob = store.take(Body::of(tar), &path, None)?;
            self.blobs.insert(path, blob);
            return Ok(());
        }
        *kept = kept.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
        if size > bosun_image::MAX_DOCUMENT as u64 || *kept > DOCUMENTS {
            return Err(Error::BadArchive {
                problem: format!(
                    "{path} has {size} bytes: at most {} are read of one document, {DOCUMENTS} of all",
                    bosun_image::MAX_DOCUMENT
                ),
            });
        }
        let mut bytes = Vec::new();
        Body::of(tar).read_to_end(&mut bytes).map_err(reading)?;
        let bytes = Bytes::from(bytes);
        match path.as_str() {
            "index.json" => self.index = Some(bytes),
            "manifest.json" => self.manifest = Some(bytes),
            _ => {
                self.documents.insert(path, bytes);
            }
        }
        Ok(())
    }

    /// The blob at a path, through a link if need be.
    pub(super) fn blob(&self, path: &str) -> Result<(Digest, u64)> {
        let mut path = clean(path.as_bytes());
        for _ in 0..8 {
            if let Some(blob) = self.blobs.get(&path) {
                return Ok(blob.clone());
            }
            let Some(target) = self.links.get(&path) else { break };
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            path = match self.blobs.contains_key(target.as_str()) {
                // A hard link names its target from the root of the archive.
                true => target.clone(),
                false => clean(format!("{directory}/{target}").as_bytes()),
            };
        }
        Err(Error::BadArchive { problem: format!("{path:?} is named, but not in it") })
    }
}

/// A path of an archive, from its root, without `.` and `..`.
pub(super) fn clean(path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The store, for a thread that reads an archive.
pub(super) struct Store {
    images: Images,
    job: Job,
    runtime: Handle,
}

impl Store {
    pub(super) fn new(images: &Images, job: &Job) -> Self {
        Self { images: images.clone(), job: job.clone(), runtime: Handle::current() }
    }

    /// Makes a blob of all that comes.
    pub(super) fn take(
        &self,
        mut source: impl Read,
        what: &str,
        known: Option<(Digest, u64)>,
    ) -> Result<(Digest, u64)> {
        let content = &self.images.content;
        let expected = Expected {
            size: known.as_ref().map(|(_, size)| *size),
            digest: known.map(|(digest, _)| digest),
            labels: BTreeMap::new(),
            lease: self.job.lease.clone(),
        };
        let reference = format!("import-{}-{what}", &random_id()[..16]);
        let reference: String = reference.chars().filter(|c| !c.is_control()).take(200).collect();
        let opened = content.writer(&self.job.namespace, &reference, expected, Some(0));
        let writer = self.runtime.block_on(opened)?;
        shim_failpoints::step!("daemon.load.after_ingest");
        match self.fill(writer, &mut source) {
            Ok(done) => Ok(done),
            Err(error) => {
                // Nobody could resume it.
                let dropped = content.abort(&self.job.namespace, &reference);
                if let Err(left) = self.runtime.block_on(dropped)
                    && !matches!(left, Error::NoSuchIngest { .. })
                {
                    tracing::warn!(%left, "part of an import stays until it is collected");
                }
                Err(error)
            }
        }
    }

    fn fill(&self, mut writer: Writer, source: &mut impl Read) -> Result<(Digest, u64)> {
        let content = &self.images.content;
        loop {
            let mut part = vec![0; 1 << 20];
            let count = read_full(source, &mut part).map_err(reading)?;
            if count == 0 {
                shim_failpoints::step!("daemon.load.before_blob", error);
                let blob = self.runtime.block_on(content.commit(writer))?;
                shim_failpoints::step!("daemon.load.after_blob", error);
                return Ok(blob);
            }
            part.truncate(count);
            writer = self.runtime.block_on(content.write(writer, vec![part.into()]))?;
        }
    }
}

fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// The bytes of an archive's present file.
struct Body<'a, R> {
    tar: &'a mut Tar<R>,
    /// What was lent and is not taken yet.
    rest: Vec<u8>,
    taken: usize,
    zeros: u64,
}

impl<'a, R: BufRead> Body<'a, R> {
    fn of(tar: &'a mut Tar<R>) -> Self {
        Self { tar, rest: Vec::new(), taken: 0, zeros: 0 }
    }
}

impl<R: BufRead> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.rest.len() && self.zeros == 0 {
            self.rest.clear();
            self.taken = 0;
            match self.tar.chunk().map_err(io::Error::other)? {
                None => return Ok(0),
                Some(Chunk::Data(bytes)) => self.rest.extend_from_slice(bytes),
                Some(Chunk::Hole(length)) => self.zeros = length,
            }
        }
        if self.zeros > 0 {
            let count = buffer.len().min(usize::try_from(self.zeros).unwrap_or(usize::MAX));
            buffer[..count].fill(0);
            self.zeros -= count as u64;
            return Ok(count);
        }
        let count = buffer.len().min(self.rest.len() - self.taken);
        buffer[..count].copy_from_slice(&self.rest[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

/// An archive's uncompressed bytes, and not more than `most` of them.
fn buffered<R: Read>(
    source: R,
    most: u64,
) -> Result<io::BufReader<io::Take<Decoder<io::BufReader<R>>>>> {
    let decoder = Decoder::new(io::BufReader::with_capacity(BUFFER, source)).map_err(archive)?;
    Ok(io::BufReader::with_capacity(BUFFER, decoder.take(most)))
}

/// The type of a layer, by its first bytes.
pub(super) fn layer_type(file: &mut std::fs::File) -> Result<&'static str> {
    use std::io::Seek;
    let mut first = [0; 8];
    let count = read_full(file, &mut first).map_err(reading)?;
    file.rewind().map_err(reading)?;
    Ok(match bosun_layer::compress::detect(&first[..count]) {
        bosun_image::Compression::None => media_type::OCI_LAYER,
        bosun_image::Compression::Gzip => media_type::OCI_LAYER_GZIP,
        bosun_image::Compression::Zstd => media_type::OCI_LAYER_ZSTD,
    })
}

/// The digest of a layer's uncompressed bytes, every one of which is read as a tar's.
pub(super) fn diff_id(file: std::fs::File, limits: &bosun_layer::Limits) -> Result<Digest> {
    let decoder = Decoder::new(io::BufReader::with_capacity(BUFFER, file)).map_err(archive)?;
    let hashing = Hashing { source: decoder.take(limits.size), hash: Sha256::new() };
    let mut tar = Tar::new(io::BufReader::with_capacity(BUFFER, hashing), limits.entries);
    let mut entries = 0u64;
    while tar.next().map_err(archive)?.is_some() {
        entries += 1;
    }
    if entries == 0 {
        return Err(Error::BadArchive { problem: "it is empty".to_owned() });
    }
    let mut rest = tar.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(reading)?;
    Ok(Digest::finish(rest.into_inner().hash))
}

struct Hashing<R> {
    source: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

fn archive(source: bosun_layer::Error) -> Error {
    Error::Archive { source: std::sync::Arc::new(source) }
}

fn reading(source: io::Error) -> Error {
    Error::BadArchive { problem: format!("its bytes can't be read: {source}") }
}

/// An archive whose beginning was looked at.
#[derive(Debug)]
pub(super) struct Peeked {
    head: io::Cursor<Vec<u8>>,
    rest: pipe::Reader,
}

impl Peeked {
    pub(super) async fn of(mut bytes: pipe::Reader) -> Result<Self> {
        off_the_loop(move || {
            let mut head = vec![0; PEEK];
            let count = read_full(&mut bytes, &mut head).map_err(reading)?;
            head.truncate(count);
            Ok(Self { head: io::Cursor::new(head), rest: bytes })
        })
        .await
    }

    /// Whether its first file is one that only archives of images have. What can't be told is a root
    /// file system, whose reader says what is wrong with it.
    pub(super) fn is_image_archive(&self) -> bool {
        let Ok(source) = buffered(self.head.get_ref().as_slice(), LOOKED_AT) else { return false };
        let mut tar = Tar::new(source, 64);
        while let Ok(Some(entry)) = tar.next() {
            let path = clean(&entry.path);
            if !path.is_empty() {
                return is_of_images(&path);
            }
        }
        false
    }
}

impl Read for Peeked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.head.read(buffer)? {
            0 => self.rest.read(buffer),
            count => Ok(count),
        }
    }
}

/// Names that OCI layouts and docker archives have at their top.
fn is_of_images(path: &str) -> bool {
    let (top, _) = path.split_once('/').unwrap_or((path, ""));
    let is_id = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    matches!(top, "blobs" | "oci-layout" | "index.json" | "manifest.json" | "repositories")
        || is_id(top)
        || top.strip_suffix(".json").is_some_and(is_id)
        || top.strip_suffix(".tar").is_some_and(is_id)
        || top.strip_suffix(".tar.gz").is_some_and(is_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_known_by_any_of_its_names() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            "blobs/sha256",
            "oci-layout",
            "manifest.json",
            &id,
            &format!("{id}/layer.tar"),
            &format!("{id}.json"),
        ] {
            assert!(is_of_images(path), "{path}");
        }
        for path in ["bin", "etc/manifest.json", "index.html", &id[1..]] {
            assert!(!is_of_images(path), "{path}");
        }
    }

    #[test]
    fn paths_of_an_archive_stay_in_it() {
        for (path, cleaned) in [("./a//b", "a/b"), ("a/../../b", "b"), ("/x", "x"), ("", "")] {
            assert_eq!(clean(path.as_bytes()), cleaned);
        }
    }

    #[test]
    fn a_layer_that_is_a_link_is_found() {
        let mut files = Files::default();
        files.blobs.insert("one/layer.tar".to_owned(), (Digest::of(b"1"), 1));
        files.links.insert("two/layer.tar".to_owned(), "../one/layer.tar".to_owned());
        files.links.insert("three/layer.tar".to_owned(), "one/layer.tar".to_owned());
        files.links.insert("ring".to_owned(), "ring".to_owned());
        for path in ["one/layer.tar", "./two/layer.tar", "three/layer.tar"] {
            assert_eq!(files.blob(path).unwrap().1, 1, "{path}");
        }
        assert!(files.blob("ring").is_err() && files.blob("none").is_err());
    }
}
