//! Where plugins are, which versions they speak, and one call of one.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use serde::Deserialize;

use crate::config::Network;
use crate::error::{Command, Error, Failure, Result};
use crate::process;
use crate::version::Version;

/// Where plugins look for programs of theirs (iptables, for one).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The programs of the configured directories.
#[derive(Debug)]
pub(crate) struct Plugins {
    directories: Vec<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    /// What a program said, for as long as it is the same file.
    spoken: Mutex<HashMap<Identity, Vec<String>>>,
}

/// Path, device, inode, size, and the time of the last change in nanoseconds.
type Identity = (PathBuf, u64, u64, u64, i128);

/// Whom a call is about; nothing for STATUS, GC and VERSION.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct About<'a> {
    pub(crate) container: &'a str,
    pub(crate) netns: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) arguments: &'a str,
}

/// What a plugin reads.
pub(crate) enum Input<'a> {
    File(&'a File),
    /// For what no container's lock is needed.
    Memory(&'a [u8]),
}

impl Plugins {
    pub(crate) fn new(directories: Vec<PathBuf>, environment: Vec<(String, String)>) -> Plugins {
        let environment = environment.into_iter().map(|(key, value)| (key.into(), value.into()));
        Plugins { directories, environment: environment.collect(), spoken: Mutex::default() }
    }

    /// Finds a plugin: the first file of the name in the order of the directories.
    ///
    /// # Errors
    ///
    /// [`Error::PluginMissing`], and [`Error::PluginUnusable`] for what is not a program.
    pub(crate) fn find(&self, network: &str, plugin: &str) -> Result<PathBuf> {
        for directory in &self.directories {
            let path = directory.join(plugin);
            let problem = match fs::metadata(&path) {
                Err(error) if is_missing(&error) => continue,
                Err(_) => "can't be looked at",
                Ok(metadata) if !metadata.is_file() => "is not a file",
                Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => "is not executable",
                Ok(_) => return Ok(path),
            };
            return Err(Error::PluginUnusable {
                network: network.into(),
                plugin: plugin.into(),
                path,
                problem,
            });
        }
        Err(Error::PluginMissing {
            network: network.into(),
            plugin: plugin.into(),
            searched: self.directories.clone(),
        })
    }

    /// All programs of a network, in its order.
    ///
    /// # Errors
    ///
    /// As [`Plugins::find`], for the first.
    pub(crate) fn find_all(&self, network: &Network) -> Result<Vec<PathBuf>> {
        network.plugins.iter().map(|plugin| self.find(&network.name, &plugin.kind)).collect()
    }

    /// Runs a plugin.
    ///
    /// # Errors
    ///
    /// [`Error::Plugin`].
    pub(crate) async fn call(
        &self,
        (network, program): (&str, &Path),
        command: Command,
        about: About<'_>,
        input: Input<'_>,
        deadline: Duration,
    ) -> Result<Vec<u8>> {
        let path = std::env::join_paths(&self.directories).unwrap_or_default();
        let mut environment: Vec<(OsString, OsString)> = vec![("PATH".into(), PATH.into())];
        environment.extend(self.environment.iter().cloned());
        environment.extend([
            ("CNI_COMMAND".into(), command.as_str().into()),
            ("CNI_CONTAINERID".into(), about.container.into()),
            ("CNI_NETNS".into(), about.netns.into()),
            ("CNI_IFNAME".into(), about.interface.into()),
            ("CNI_ARGS".into(), about.arguments.into()),
            ("CNI_PATH".into(), path),
        ]);
        let memory;
        let input = match input {
            Input::File(file) => Ok(file),
            Input::Memory(bytes) => {
                memory = in_memory(bytes);
                memory.as_ref().map_err(|error| io::Error::from(error.kind()))
            }
        };
        let ran = match input {
            Ok(input) => process::run(program, &environment, input, deadline).await,
            Err(source) => Err(Failure::Run { step: "hand over its configuration", source }),
        };
        ran.map_err(|failure| failed((network, program), command, failure))
    }

    /// The versions that a plugin says it speaks, of any runtime's. Asked once for each file.
    ///
    /// # Errors
    ///
    /// [`Error::Plugin`].
    pub(crate) async fn versions(
        &self,
        (network, program): (&str, &Path),
        deadline: Duration,
    ) -> Result<Vec<String>> {
        let identity = identity(program);
        if let Some(known) = identity.as_ref().and_then(|identity| self.known(identity)) {
            return Ok(known);
        }
        // The oldest plugins want all variables.
        let about = About { netns: "dummy", interface: "dummy", ..About::default() };
        let request = format!("{{\"cniVersion\":\"{}\"}}", Version::V1_1_0);
        let input = Input::Memory(request.as_bytes());
        let answer = self.call((network, program), Command::Version, about, input, deadline).await;
        let versions = match answer {
            Ok(answer) => read_versions(&answer).map_err(|problem| {
                let said = process::tail(&answer);
                failed((network, program), Command::Version, Failure::Answer { problem, said })
            })?,
            // 0.1.0 has no VERSION.
            Err(Error::Plugin { failure: Failure::Reported { message, .. }, .. })
                if message == "unknown CNI_COMMAND: VERSION" =>
            {
                vec![Version::V0_1_0.to_string()]
            }
            Err(error) => return Err(error),
        };
        if let Some(identity) = identity {
            let mut spoken = self.spoken.lock().unwrap_or_else(PoisonError::into_inner);
            spoken.retain(|known, _| known.0 != identity.0);
            spoken.insert(identity, versions.clone());
        }
        Ok(versions)
    }

    fn known(&self, identity: &Identity) -> Option<Vec<String>> {
        self.spoken.lock().unwrap_or_else(PoisonError::into_inner).get(identity).cloned()
    }
}

pub(crate) fn failed(
    (network, program): (&str, &Path),
    command: Command,
    failure: Failure,
) -> Error {
    let plugin = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Error::Plugin { network: network.into(), plugin, command, failure }
}

fn read_versions(answer: &[u8]) -> Result<Vec<String>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Info {
        cni_version: String,
        #[serde(default)]
        supported_versions: Vec<String>,
    }
    let info: Info =
        serde_json::from_slice(answer).map_err(|error| format!("is not one: {error}"))?;
    match (info.supported_versions.is_empty(), info.cni_version.as_str()) {
        (false, _) => Ok(info.supported_versions),
        // 0.2.0 did not have the list yet.
        (true, "0.2.0") => Ok(vec!["0.1.0".into(), "0.2.0".into()]),
        (true, _) => Err("has no `supportedVersions`".into()),
    }
}

fn identity(program: &Path) -> Option<Identity> {
    let metadata = fs::metadata(program).ok()?;
    let changed = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
    Some((program.into(), metadata.dev(), metadata.ino(), metadata.size(), changed))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("cni", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_answers_of_every_age() {
        let table: [(&str, Result<&[&str], &str>); 5] = [
            (
                r#"{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}"#,
                Ok(&["0.4.0", "1.0.0"]),
            ),
            (r#"{"cniVersion":"0.2.0"}"#, Ok(&["0.1.0", "0.2.0"])),
            (r#"{"cniVersion":"0.3.0"}"#, Err("supportedVersions")),
            ("{}", Err("is not one")),
            ("", Err("is not one")),
        ];
        for (answer, wanted) in table {
            match (read_versions(answer.as_bytes()), wanted) {
                (Ok(versions), Ok(wanted)) => assert_eq!(versions, wanted),
                (Err(problem), Err(word)) => assert!(problem.contains(word), "{problem}"),
                (got, wanted) => panic!("{answer}: {got:?}, not {wanted:?}"),
            }
        }
    }

    #[test]
    fn a_plugin_is_the_first_file_of_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        fs::create_dir_all(place("second/directory")).unwrap();
        for (name, mode) in [("second/a", 0o755), ("second/b", 0o644), ("third/a", 0o755)] {
            fs::create_dir_all(place(name).parent().unwrap()).unwrap();
            fs::write(place(name), "").unwrap();
            fs::set_permissions(place(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let directories = ["first", "second", "third"].map(place).to_vec();
        let plugins = Plugins::new(directories.clone(), Vec::new());
        assert_eq!(plugins.find("net", "a").unwrap(), place("second/a"));
        for (name, word) in [("b", "is not executable"), ("directory", "is not a file")] {
            let error = plugins.find("net", name).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(name), "{error}");
        }
        let error = plugins.find("net", "c").unwrap_err().to_string();
        for word in ["\"net\"", "\"c\"", "first", "third"] {
            assert!(error.contains(word), "{error}");
        }
    }
}
