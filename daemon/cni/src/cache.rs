//! What was attached, on disk: in libcni's place and form, so that its tools understand it.
//!
//! A file `NETWORK-CONTAINER-INTERFACE` holds the configuration, the arguments and the result of an ADD.
//! It is made before the first plugin runs, without a result: so whatever an ADD began is found again, by
//! a new daemon or by GC, and undone by the configuration that it was begun with. It goes after the last
//! DEL. Writes are durable: addresses are handed out by files as well (host-local), which a power cut
//! leaves where they are.
//!
//! The directory is shared with other runtimes of the machine. `runtime` says whose a file is; libcni
//! passes over what it does not know.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::Network;
use crate::error::{Error, Result};
use crate::result::NetworkResult;

const KIND: &str = "cniCacheV1";
/// The size of a file that nobody wrote for us.
const LIMIT: u64 = 16 << 20;
/// Of a file being written: `.NAME.new`.
const HALF: (&str, &str) = (".", ".new");
/// NAME_MAX, less what a half-written file has more.
const NAME_LIMIT: usize = 255 - HALF.0.len() - HALF.1.len();

/// Which network, container and interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) network: String,
    pub(crate) container: String,
    pub(crate) interface: String,
}

/// What is known of an attachment.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    /// As it was when the attachment was made, in one version.
    pub(crate) network: Network,
    pub(crate) netns: String,
    pub(crate) arguments: Vec<(String, String)>,
    pub(crate) capabilities: Map<String, Value>,
    /// None while ADD has not come to its end.
    pub(crate) result: Option<NetworkResult>,
    /// Who wrote it; None for libcni.
    pub(crate) runtime: Option<String>,
    /// How often GC could not undo it.
    pub(crate) tries: u32,
}

/// A file that can't be used, and what its name says.
#[derive(Debug)]
pub(crate) struct Damaged {
    pub(crate) key: Option<Key>,
    pub(crate) error: Error,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    kind: String,
    container_id: String,
    /// Base64, as Go writes bytes.
    #[serde(default)]
    config: String,
    if_name: String,
    network_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    netns: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cni_args: Option<Vec<(String, String)>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capability_args: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runtime: Option<String>,
    #[serde(default, skip_serializing_if = "is_none")]
    tries: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Cache {
    /// `CACHE/results`
    directory: Arc<Path>,
}

impl Key {
    fn file(&self) -> String {
        format!("{}-{}-{}", self.network, self.container, self.interface)
    }

    /// # Errors
    ///
    /// [`Error::Argument`] for names that are too long together.
    pub(crate) fn check(&self) -> Result<()> {
        let value = self.file();
        if value.len() <= NAME_LIMIT {
            return Ok(());
        }
        let problem = "is too long for a file's name: want shorter names";
        Err(Error::Argument { what: "NETWORK-CONTAINER-INTERFACE", value, problem })
    }
}

impl Entry {
    /// In the version of the attachment's configuration.
    fn to_json(&self) -> Vec<u8> {
        let version = self.network.newest();
        let wire = Wire {
            kind: KIND.into(),
            container_id: self.key.container.clone(),
            config: STANDARD.encode(self.network.to_json(version)),
            if_name: self.key.interface.clone(),
            network_name: self.key.network.clone(),
            netns: self.netns.clone(),
            cni_args: (!self.arguments.is_empty()).then(|| self.arguments.clone()),
            capability_args: (!self.capabilities.is_empty()).then(|| self.capabilities.clone()),
            result: self.result.as_ref().map(|result| result.write(version)),
            runtime: self.runtime.clone(),
            tries: self.tries,
        };
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    /// What is in the file of this name.
    fn read(json: &[u8], name: &str) -> Result<Entry, String> {
        let wire: Wire = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if wire.kind != KIND {
            return Err(format!("it is of the kind {:?}", wire.kind));
        }
        let config = STANDARD.decode(&wire.config).map_err(|error| format!("config: {error}"))?;
        let network =
            Network::from_cache(&config).map_err(|problem| format!("config {problem}"))?;
        let result = match wire.result {
            None | Some(Value::Null) => None,
            Some(value) => {
                let result = NetworkResult::read(value.to_string().as_bytes(), network.newest());
                Some(result.map_err(|problem| format!("result {problem}"))?)
            }
        };
        let entry = Entry {
            key: Key {
                network: wire.network_name,
                container: wire.container_id,
                interface: wire.if_name,
            },
            network,
            netns: wire.netns,
            arguments: wire.cni_args.unwrap_or_default(),
            capabilities: wire.capability_args.unwrap_or_default(),
            result,
            runtime: wire.runtime,
            tries: wire.tries,
        };
        if entry.key.file() != name {
            return Err("it is of another attachment than its name says".into());
        }
        Ok(entry)
    }
}

impl Cache {
    /// Below `root`, in `results`. Nothing is made yet.
    pub(crate) fn new(root: &Path) -> Cache {
        Cache { directory: root.join("results").into() }
    }

    pub(crate) fn path(&self, key: &Key) -> PathBuf {
        self.directory.join(key.file())
    }

    /// Writes an entry; answers once it is durable.
    ///
    /// # Errors
    ///
    /// [`Error::File`]. The one that was there before still is.
    pub(crate) fn put(&self, entry: &Entry) -> Result<()> {
        shim_failpoints::step!("daemon.cni_cache.before_write", error);
        self.make()?;
        let name = entry.key.file();
        let path = self.directory.join(&name);
        let half = self.directory.join(format!("{}{name}{}", HALF.0, HALF.1));
        let written = write(&half, &entry.to_json())
            .map_err(Error::file("write", &half))
            .and_then(|()| replace(&half, &path).map_err(Error::file("put in place", &path)));
        if written.is_err() {
            let _ = fs::remove_file(&half);
        }
        written?;
        shim_failpoints::step!("daemon.cni_cache.after_rename", error);
        self.sync()
    }

    /// Removes an entry, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub(crate) fn remove(&self, key: &Key) -> Result<()> {
        shim_failpoints::step!("daemon.cni.before_forget", error);
        let path = self.path(key);
        match fs::remove_file(&path) {
            Ok(()) => {
                shim_failpoints::step!("daemon.cni.after_forget", error);
                self.sync()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::file("remove", &path)(error)),
        }
    }

    fn make(&self) -> Result<()> {
        if self.directory.is_dir() {
            return Ok(());
        }
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(Error::file("make", &self.directory))?;
        self.directory.parent().map_or(Ok(()), sync)
    }

    fn sync(&self) -> Result<()> {
        sync(&self.directory)
    }

    /// All entries, by name; of one container only, if it is given. Those that can't be used are the
    /// second list.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the directory can't be read.
    pub(crate) fn list(&self, container: Option<&str>) -> Result<(Vec<Entry>, Vec<Damaged>)> {
        let unreadable = || Error::file("read", &self.directory);
        let files = match fs::read_dir(&self.directory) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
            Err(error) => return Err(unreadable()(error)),
        };
        let mut names = Vec::new();
        for file in files {
            let file = file.map_err(unreadable())?;
            let Ok(name) = file.file_name().into_string() else { continue };
            let wanted = container.is_none_or(|container| key_of(&name, container).is_some());
            if wanted && !name.starts_with(HALF.0) {
                names.push(name);
            }
        }
        names.sort_unstable();
        let (mut entries, mut damaged) = (Vec::new(), Vec::new());
        for name in names {
            match read(&self.directory.join(&name), &name) {
                // A name has dashes in it, so only the content says whose it is.
                Ok(Some(entry)) if container.is_none_or(|it| it == entry.key.container) => {
                    entries.push(entry);
                }
                Ok(_) => {}
                Err(error) => {
                    let key = container.and_then(|container| key_of(&name, container));
                    damaged.push(Damaged { key, error });
                }
            }
        }
        Ok((entries, damaged))
    }

    /// Removes what a crash left half-written.
    pub(crate) fn sweep(&self) {
        for file in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = file.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(HALF.0) && name.ends_with(HALF.1))
            {
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none(tries: &u32) -> bool {
    *tries == 0
}

fn sync(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(Error::file("make durable", directory))
}

/// What a file's name says, if it can be of the container.
fn key_of(name: &str, container: &str) -> Option<Key> {
    let (network, interface) = name.split_once(&format!("-{container}-"))?;
    if network.is_empty() || interface.is_empty() {
        return None;
    }
    Some(Key { network: network.into(), container: container.into(), interface: interface.into() })
}

fn write(path: &Path, json: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(json)?;
    file.sync_all()
}

fn replace(half: &Path, path: &Path) -> io::Result<()> {
    shim_failpoints::step!("daemon.cni_cache.before_rename", error);
    fs::rename(half, path)
}

fn read(path: &Path, name: &str) -> Result<Option<Entry>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("open", path)(error)),
    };
    let mut json = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut json).map_err(Error::file("read", path))?;
    let entry = if json.len() as u64 > LIMIT {
        Err(format!("it is larger than {LIMIT} bytes"))
    } else {
        Entry::read(&json, name)
    };
    entry.map(Some).map_err(|problem| Error::Damaged { path: path.into(), problem })
}

#[cfg(test)]
mod tests;
