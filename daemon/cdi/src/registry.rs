//! All specifications of some directories, and which of them describes a device: that of the directory
//! named last; two of one directory are a conflict.

use std::path::{Path, PathBuf};

use crate::edits::Edits;
use crate::error::{Error, InvalidFile};
use crate::file::{self, Device, Specification};
use crate::name::DeviceName;

/// Where specifications lie: those of the administrator, then those that are made while it runs.
#[must_use]
pub fn default_directories() -> Vec<PathBuf> {
    ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from).to_vec()
}

/// What the files say now.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    directories: Vec<PathBuf>,
    /// With the place of its directory: a higher one goes before.
    files: Vec<(usize, Specification)>,
    invalid: Vec<InvalidFile>,
}

impl Registry {
    /// Reads all files. One that is no specification is passed over, and told where a device is missing;
    /// a directory that is not there has none.
    #[must_use]
    pub fn read(directories: &[PathBuf]) -> Self {
        let mut registry = Self { directories: directories.to_vec(), ..Self::default() };
        for (place, directory) in directories.iter().enumerate() {
            for path in files_of(directory) {
                match file::read(&path) {
                    Ok(specification) => registry.files.push((place, specification)),
                    Err(invalid) => registry.invalid.push(invalid),
                }
            }
        }
        registry
    }

    /// What a container with these devices is to get: of each file that describes one of them, what it
    /// has for all, once, and what it has for the device.
    ///
    /// # Errors
    /// One is not described, or by several files; its edits can't be made.
    pub fn edits(&self, devices: &[DeviceName]) -> Result<Edits, Error> {
        let mut edits = Edits::default();
        let mut of_files: Vec<&Path> = Vec::new();
        for (number, name) in devices.iter().enumerate() {
            if devices[..number].contains(name) {
                continue;
            }
            let (specification, device) = self.find(name)?;
            let parts = [&specification.container_edits, &device.container_edits];
            if parts.iter().any(|part| part.intel_rdt.is_some()) {
                return Err(Error::NotSupported {
                    name: name.to_string(),
                    file: specification.path.clone(),
                    what: "intelRdt",
                });
            }
            if !of_files.contains(&specification.path.as_path()) {
                of_files.push(&specification.path);
                edits.extend(&specification.container_edits);
            }
            edits.extend(&device.container_edits);
        }
        Ok(edits)
    }

    fn find(&self, name: &DeviceName) -> Result<(&Specification, &Device), Error> {
        let described = self.files.iter().filter_map(|(place, file)| {
            let device = file.devices.iter().find(|device| device.name == name.name);
            device.filter(|_| file.kind == name.kind).map(|device| (*place, file, device))
        });
        let described: Vec<_> = described.collect();
        let Some(highest) = described.iter().map(|(place, ..)| *place).max() else {
            return Err(Error::Unknown {
                name: name.to_string(),
                directories: self.directories.clone(),
                invalid: self.invalid.clone(),
            });
        };
        let mut first = described.into_iter().filter(|(place, ..)| *place == highest);
        match (first.next(), first.next()) {
            (Some((_, file, device)), None) => Ok((file, device)),
            (one, other) => Err(Error::Conflict {
                name: name.to_string(),
                files: one
                    .into_iter()
                    .chain(other)
                    .chain(first)
                    .map(|(_, file, _)| file.path.clone())
                    .collect(),
            }),
        }
    }
}

/// In the order of their names, so that edits are the same each time.
fn files_of(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| file::is_one(path) && path.is_file());
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str, kind: &str, devices: &[(&str, &str)]) {
        let list: Vec<String> = devices
            .iter()
            .map(|(name, env)| {
                format!(r#"{{"name": "{name}", "containerEdits": {{"env": ["{env}=1"]}}}}"#)
            })
            .collect();
        let text = format!(
            r#"{{"cdiVersion": "0.5.0", "kind": "{kind}", "devices": [{}],
                "containerEdits": {{"env": ["ALL=1"]}}}}"#,
            list.join(",")
        );
        std::fs::write(directory.join(name), text).unwrap();
    }

    fn names(list: &[&str]) -> Vec<DeviceName> {
        list.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_file_s_own_edits_come_once_and_first() {
        let scratch = tempfile::tempdir().unwrap();
        write(scratch.path(), "a.json", "v.com/gpu", &[("a", "A"), ("b", "B")]);
        write(scratch.path(), "b.json", "v.com/net", &[("a", "N")]);
        std::fs::write(scratch.path().join("notes.txt"), "{").unwrap();
        let registry = Registry::read(&[scratch.path().to_owned()]);
        let wanted = names(&["v.com/gpu=b", "v.com/net=a", "v.com/gpu=a", "v.com/gpu=b"]);
        assert_eq!(registry.edits(&wanted).unwrap().env, ["ALL=1", "B=1", "ALL=1", "N=1", "A=1"]);
    }

    #[test]
    fn the_later_directory_goes_before_and_one_directory_does_not_say_it_twice() {
        let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let both = [etc.path().to_owned(), run.path().to_owned()];
        write(etc.path(), "a.json", "v.com/gpu", &[("a", "OLD"), ("b", "B")]);
        write(run.path(), "a.json", "v.com/gpu", &[("a", "NEW")]);
        let env = |name: &str| Registry::read(&both).edits(&names(&[name])).map(|edits| edits.env);
        assert_eq!(env("v.com/gpu=a").unwrap(), ["ALL=1", "NEW=1"]);
        assert_eq!(env("v.com/gpu=b").unwrap(), ["ALL=1", "B=1"]);
        write(run.path(), "b.json", "v.com/gpu", &[("a", "OTHER")]);
        let said = env("v.com/gpu=a").unwrap_err().to_string();
        assert!(said.contains("a.json") && said.contains("b.json"), "{said}");
        assert_eq!(env("v.com/gpu=b").unwrap(), ["ALL=1", "B=1"], "others are not hit by it");
    }

    #[test]
    fn a_device_that_is_not_there_is_named_with_what_was_passed_over() {
        let scratch = tempfile::tempdir().unwrap();
        write(scratch.path(), "a.json", "v.com/gpu", &[("a", "A")]);
        std::fs::write(scratch.path().join("b.yaml"), "cdiVersion: [").unwrap();
        let missing = PathBuf::from("/no/such/cdi");
        let registry = Registry::read(&[missing, scratch.path().to_owned()]);
        assert!(registry.edits(&names(&["v.com/gpu=a"])).is_ok());
        for name in ["v.com/gpu=b", "w.com/gpu=a"] {
            let said = registry.edits(&names(&[name])).unwrap_err().to_string();
            assert!(said.contains(name) && said.contains("/no/such/cdi"), "{said}");
            assert!(said.contains("b.yaml"), "{said}");
        }
    }

    #[test]
    fn intel_rdt_is_refused_by_name() {
        let scratch = tempfile::tempdir().unwrap();
        let text = r#"{"cdiVersion": "1.0.0", "kind": "v/c", "devices": [
            {"name": "a", "containerEdits": {"intelRdt": {"closID": "x"}}}]}"#;
        std::fs::write(scratch.path().join("a.json"), text).unwrap();
        let registry = Registry::read(&[scratch.path().to_owned()]);
        let said = registry.edits(&names(&["v/c=a"])).unwrap_err().to_string();
        assert!(said.contains("intelRdt") && said.contains("v/c=a"), "{said}");
    }
}
