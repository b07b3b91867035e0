//! The directory of network configurations.
//!
//! It is read anew whenever it is asked for: a handful of small files, and so nothing is ever stale.
//! Files are taken in the order of their names; a file that can't be used is named with its reason and
//! hides nothing behind it. `.conflist` holds a list of plugins, `.conf` and `.json` (deprecated, but in
//! use) one plugin that stands for a list of itself.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, InvalidFile, Result};
use crate::name;
use crate::version::Version;

/// The size of a configuration that nobody needs.
const LIMIT: u64 = 1 << 20;

/// What the directory says.
#[derive(Clone, Debug, Default)]
pub struct Networks {
    /// In the order in which a container is attached to them.
    pub networks: Vec<Network>,
    /// Files that were passed over before enough networks were found.
    pub invalid: Vec<InvalidFile>,
}

/// A network, as configured by a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    pub name: String,
    /// None for one that comes from the cache.
    pub file: Option<PathBuf>,
    /// Those that the configuration is written for, the newest first; at least one.
    pub versions: Vec<Version>,
    pub disable_check: bool,
    pub disable_gc: bool,
    /// At least one.
    pub plugins: Vec<Plugin>,
    /// The object of the file without its plugins.
    rest: Map<String, Value>,
}

/// A plugin of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugin {
    /// `type`: the program's name.
    pub kind: String,
    /// What it is told of capability arguments.
    pub capabilities: BTreeSet<String>,
    config: Map<String, Value>,
}

impl Networks {
    /// Reads the first `most` valid networks of a directory. One that is not there is empty.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`].
    pub(crate) fn load(directory: &Path, most: usize) -> Result<Networks> {
        let mut found = Networks::default();
        let files = files(directory, &["conflist", "conf", "json"])
            .map_err(|source| Error::Directory { directory: directory.into(), source })?;
        for file in files {
            if found.networks.len() >= most {
                break;
            }
            match Network::from_file(&file) {
                Ok(network) => match found.networks.iter().find(|one| one.name == network.name) {
                    None => found.networks.push(network),
                    Some(first) => {
                        let other = first.file.as_deref().unwrap_or(directory).display();
                        let reason = format!("network {:?} is in {other} already", network.name);
                        found.invalid.push(InvalidFile { file, reason });
                    }
                },
                Err(reason) => found.invalid.push(InvalidFile { file, reason }),
            }
        }
        Ok(found)
    }
}

impl Network {
    fn from_file(file: &Path) -> Result<Network, String> {
        let object = read_object(file)?;
        if file.extension().is_some_and(|extension| extension == "conflist") {
            let mut network = Network::from_list(object)?;
            if !network.inlined_only()? {
                let siblings = file.with_file_name(&network.name);
                let found = files(&siblings, &["conf"])
                    .map_err(|error| format!("{}: {error}", siblings.display()))?;
                for sibling in found {
                    let named = |problem| format!("{}: {problem}", sibling.display());
                    let config = read_object(&sibling).map_err(named)?;
                    network.plugins.push(Plugin::new(config).map_err(named)?);
                }
            }
            if network.plugins.is_empty() {
                return Err("has no plugins".into());
            }
            network.file = Some(file.into());
            return Ok(network);
        }
        if object.contains_key("plugins") {
            return Err("holds a list of plugins: rename it to .conflist".into());
        }
        let mut rest = Map::new();
        for key in ["name", "cniVersion", "cniVersions"] {
            if let Some(value) = object.get(key) {
                rest.insert(key.into(), value.clone());
            }
        }
        rest.insert("plugins".into(), Value::Array(vec![Value::Object(object)]));
        Ok(Network { file: Some(file.into()), ..Network::from_list(rest)? })
    }

    /// Reads what [`Network::to_json`] wrote, or another runtime.
    pub(crate) fn from_cache(json: &[u8]) -> Result<Network, String> {
        let network = Network::from_list(parse_object(json)?)?;
        if network.plugins.is_empty() { Err("has no plugins".into()) } else { Ok(network) }
    }

    /// May be without plugins: those can come from other files.
    fn from_list(mut object: Map<String, Value>) -> Result<Network, String> {
        let name = text(&object, "name")?.ok_or("has no `name`")?;
        name::network(&name).map_err(|error| error.to_string())?;
        let plugins = match object.remove("plugins") {
            None => Vec::new(),
            Some(Value::Array(plugins)) if !plugins.is_empty() => plugins
                .into_iter()
                .enumerate()
                .map(|(index, plugin)| {
                    let named = |problem| format!("plugin {}: {problem}", index + 1);
                    match plugin {
                        Value::Object(config) => Plugin::new(config).map_err(named),
                        Value::Null
                        | Value::Bool(_)
                        | Value::Number(_)
                        | Value::String(_)
                        | Value::Array(_) => Err(named("is not an object".into())),
                    }
                })
                .collect::<Result<_, String>>()?,
            Some(_) => return Err("`plugins` is not a list of at least one plugin".into()),
        };
        let network = Network {
            name,
            file: None,
            versions: versions(&object)?,
            disable_check: flag(&object, "disableCheck")?,
            disable_gc: flag(&object, "disableGC")?,
            plugins,
            rest: object,
        };
        if network.inlined_only()? && network.plugins.is_empty() {
            return Err("`loadOnlyInlinedPlugins` is true, but there are no `plugins`".into());
        }
        Ok(network)
    }

    fn inlined_only(&self) -> Result<bool, String> {
        flag(&self.rest, "loadOnlyInlinedPlugins")
    }

    /// The newest version that it is written for.
    pub(crate) fn newest(&self) -> Version {
        self.versions.first().copied().unwrap_or(Version::V0_1_0)
    }

    /// The whole of it as a list that needs no other file, in one version.
    pub(crate) fn to_json(&self, version: Version) -> Vec<u8> {
        let mut list = self.rest.clone();
        list.remove("cniVersions");
        list.insert("cniVersion".into(), version.as_str().into());
        list.insert("loadOnlyInlinedPlugins".into(), true.into());
        let plugins = self.plugins.iter().map(|plugin| Value::Object(plugin.config.clone()));
        list.insert("plugins".into(), Value::Array(plugins.collect()));
        Value::Object(list).to_string().into_bytes()
    }
}

impl Plugin {
    fn new(mut config: Map<String, Value>) -> Result<Plugin, String> {
        let kind = text(&config, "type")?.ok_or("has no `type`")?;
        name::plugin(&kind).map_err(|error| error.to_string())?;
        if let Some(Value::Object(ipam)) = config.get("ipam")
            && let Some(kind) = text(ipam, "type")?
            && !kind.is_empty()
        {
            name::plugin(&kind).map_err(|error| format!("`ipam`: {error}"))?;
        }
        let mut capabilities = BTreeSet::new();
        match config.get("capabilities") {
            None | Some(Value::Null) => {}
            Some(Value::Object(declared)) => {
                for (name, value) in declared {
                    let is = value.as_bool().ok_or_else(|| {
                        format!("`capabilities`: {name:?} is neither true nor false")
                    })?;
                    if is {
                        capabilities.insert(name.clone());
                    }
                }
            }
            Some(_) => return Err("`capabilities` is not an object".into()),
        }
        // These are the runtime's alone (specification, section 1).
        config.retain(|key, _| {
            key != "runtimeConfig" && key != "prevResult" && !key.starts_with("cni.dev/")
        });
        Ok(Plugin { kind, capabilities, config })
    }

    /// What the plugin reads: its configuration, and `more`. The declared capabilities stay in it, for
    /// plugins that call plugins look at them.
    pub(crate) fn request(
        &self,
        network: &str,
        version: Version,
        more: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Vec<u8> {
        let mut request = self.config.clone();
        request.insert("name".into(), network.into());
        request.insert("cniVersion".into(), version.as_str().into());
        for (key, value) in more {
            request.insert(key.into(), value);
        }
        Value::Object(request).to_string().into_bytes()
    }

    /// `runtimeConfig`: of the arguments, those that the plugin declares.
    pub(crate) fn runtime_config(&self, arguments: &Map<String, Value>) -> Option<Value> {
        let declared: Map<String, Value> = arguments
            .iter()
            .filter(|(name, _)| self.capabilities.contains(*name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        (!declared.is_empty()).then_some(Value::Object(declared))
    }
}

/// Newest first. `cniVersions` may name some that are newer than this runtime: those are for others.
fn versions(object: &Map<String, Value>) -> Result<Vec<Version>, String> {
    let one = text(object, "cniVersion")?;
    let mut versions: Vec<Version> = match object.get("cniVersions") {
        None => {
            let version = one.unwrap_or_default().parse();
            return Ok(vec![version.map_err(|error| format!("`cniVersion`: {error}"))?]);
        }
        Some(Value::Array(list)) => list
            .iter()
            .map(|version| version.as_str().ok_or("`cniVersions` is not a list of strings"))
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .chain(one.as_deref())
            .filter_map(|version| version.parse().ok())
            .collect(),
        Some(_) => return Err("`cniVersions` is not a list of strings".into()),
    };
    versions.sort_unstable();
    versions.dedup();
    versions.reverse();
    if versions.is_empty() {
        return Err("`cniVersions`: none of them is one of 0.1.0 to 1.1.0".into());
    }
    Ok(versions)
}

fn text(object: &Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("`{key}` is not a string")),
    }
}

/// A boolean; in words as well, for libcni takes them.
fn flag(object: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match object.get(key) {
        None | Some(Value::Null | Value::Bool(false)) => Ok(false),
        Some(Value::Bool(true)) => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(format!("`{key}` is neither true nor false")),
    }
}

/// The files of a directory with one of these endings, by name. None for a directory that is not there.
fn files(directory: &Path, endings: &[&str]) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| endings.contains(&ending)) && !entry.file_type()?.is_dir() {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn read_object(file: &Path) -> Result<Map<String, Value>, String> {
    let unreadable = |error: io::Error| format!("can't be read: {error}");
    // A FIFO would keep us waiting.
    if !fs::metadata(file).map_err(unreadable)?.is_file() {
        return Err("is not a regular file".into());
    }
    let mut json = Vec::new();
    let opened = fs::File::open(file).map_err(unreadable)?;
    opened.take(LIMIT + 1).read_to_end(&mut json).map_err(unreadable)?;
    if json.len() as u64 > LIMIT {
        return Err(format!("is larger than {LIMIT} bytes"));
    }
    parse_object(&json)
}

fn parse_object(json: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("is not a JSON object".into()),
        Err(error) => Err(format!("is not JSON: {error}")),
    }
}

#[cfg(test)]
mod tests;
