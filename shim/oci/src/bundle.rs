//! A bundle: a directory with a `config.json` and what that speaks of.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxNamespaceType, LinuxResources, LinuxSeccompAction, LinuxSyscall, Process, Spec,
};
use serde::de::DeserializeOwned;
use shim_plan::capability::{CapabilitySet, number_of_last};
use shim_plan::parse::Parsed;

use crate::error::Error;

const CONFIG: &str = "config.json";

/// A bundle that was read.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Absolute.
    pub(crate) directory: PathBuf,
    pub(crate) spec: Spec,
    /// What `config.json` has, as it has it.
    pub(crate) text: String,
    /// What it asks for that is passed over.
    pub(crate) warnings: Vec<String>,
}

impl Bundle {
    /// Reads the bundle at a path, or in the current directory.
    ///
    /// # Errors
    /// Names the file, and the place in it that is malformed.
    pub(crate) fn read(directory: Option<&Path>) -> Result<Self, Error> {
        let directory = directory.unwrap_or(Path::new("."));
        let directory =
            fs::canonicalize(directory).map_err(Error::file("open the bundle", directory))?;
        let path = directory.join(CONFIG);
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let Parsed { value: mut spec, mut warnings } = config(&text, &path)?;
        if let Some(mut process) = spec.process().clone() {
            warnings.extend(restrict(&mut process, &spec));
            spec.set_process(Some(process));
        }
        check_agent(&spec)?;
        Ok(Self { directory, spec, text, warnings })
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.join(CONFIG)
    }

    /// The rootfs that it names, absolute.
    pub(crate) fn rootfs(&self) -> PathBuf {
        let root = self.spec.root().as_ref().map(|root| self.directory.join(root.path()));
        root.unwrap_or_else(|| self.directory.clone())
    }

    /// # Errors
    /// `root.path` is no directory.
    pub(crate) fn check_rootfs(&self) -> Result<(), Error> {
        let path = self.rootfs();
        let why = match fs::metadata(&path) {
            Ok(found) if found.is_dir() => return Ok(()),
            Ok(_) => "not a directory".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(Error::field("root.path", format!("{}: {why}", path.display())))
    }
}

/// # Errors
/// A filter tells an agent of calls, and there is no socket where that listens: the process could be
/// made, and never started.
fn check_agent(spec: &Spec) -> Result<(), Error> {
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let notifies = |rule: &LinuxSyscall| rule.action() == LinuxSeccompAction::ScmpActNotify;
    let Some(path) = seccomp
        .filter(|profile| profile.syscalls().iter().flatten().any(notifies))
        .and_then(|profile| profile.listener_path().as_deref())
        // What is no path of a socket at all is refused with the profile.
        .filter(|path| path.is_absolute())
    else {
        return Ok(());
    };
    let why = match fs::metadata(path) {
        Ok(found) if found.file_type().is_socket() => return Ok(()),
        Ok(_) => "not a socket".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Error::field("linux.seccomp.listenerPath", format!("{}: {why}", path.display())))
}

/// What the text of a `config.json` means.
///
/// # Errors
/// Names the place that is malformed.
pub(crate) fn config(text: &str, file: &Path) -> Result<Parsed<Spec>, Error> {
    shim_plan::parse::config(text.as_bytes())
        .map_err(|source| Error::Plan { file: file.to_owned(), source })
}

/// Leaves to a process of a container what this runtime has to give, and says what that is not. In a
/// user namespace everybody begins with all capabilities (user_namespaces(7)).
pub(crate) fn restrict(process: &mut Process, spec: &Spec) -> Vec<String> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let mut namespaces = namespaces.into_iter().flatten();
    if namespaces.any(|one| one.typ() == LinuxNamespaceType::User) {
        return Vec::new();
    }
    // Nobody is kept from asking about themselves; were one, the kernel would judge as before.
    let permitted = rustix::thread::capabilities(None);
    let permitted = permitted.map_or(u64::MAX, |sets| sets.permitted.bits());
    let held = |number: &u32| {
        let one = rustix::thread::CapabilitySet::from_bits_retain(1 << number);
        permitted & one.bits() != 0
            && rustix::thread::capability_is_in_bounding_set(one).unwrap_or(true)
    };
    let held =
        (0..=number_of_last()).filter(held).fold(CapabilitySet::default(), CapabilitySet::with);
    shim_plan::restrict(process, held)
}

/// What the text of a process alone means.
///
/// # Errors
/// Names the place that is malformed.
pub(crate) fn process(text: &[u8], file: &Path) -> Result<Parsed<Process>, Error> {
    shim_plan::parse::process(text).map_err(|source| Error::Plan { file: file.to_owned(), source })
}

/// What the text of new limits means.
///
/// # Errors
/// Names the place that is malformed.
pub(crate) fn resources(text: &[u8], file: &Path) -> Result<Parsed<LinuxResources>, Error> {
    shim_plan::parse::resources(text)
        .map_err(|source| Error::Plan { file: file.to_owned(), source })
}

/// What a JSON text of `file` means, of what is none of these.
///
/// # Errors
/// Names the place that is malformed.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, file: &Path) -> Result<T, Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let place = match error.path().to_string() {
            // Of the whole, and of what ends too early.
            none if matches!(none.as_str(), "." | "?") => String::new(),
            place => format!("{place}: "),
        };
        Error::Json { file: file.to_owned(), place, source: error.into_inner() }
    })?;
    deserializer.end().map_err(|source| Error::Json {
        file: file.to_owned(),
        place: String::new(),
        source,
    })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_place_is_named() {
        let wrong =
            |text: &str| config(text, Path::new("config.json")).map(drop).unwrap_err().to_string();
        let error = wrong(
            r#"{"ociVersion": "1", "process": {"cwd": "/", "user": {"uid": "x", "gid": 0}}}"#,
        );
        assert!(error.starts_with("config.json: process.user.uid: invalid type"), "{error}");
        assert!(wrong("{").starts_with("config.json: not JSON: EOF"), "{}", wrong("{"));
        assert!(wrong(r#"{"ociVersion": "1.0.0"} x"#).contains("trailing"));
        for no_object in ["null", "[]", "1", "\"x\""] {
            assert_eq!(wrong(no_object), "config.json: an object is expected");
        }
        assert_eq!(wrong("{}"), "config.json: ociVersion: \"\" is not a version 1.x.y");
    }

    #[test]
    fn a_process_without_a_user_is_roots() {
        let read = |text: &str| process(text.as_bytes(), Path::new("p.json"));
        for text in [r#"{"cwd": "/"}"#, r#"{"cwd": "/", "user": null}"#] {
            let user = read(text).unwrap().value.user().clone();
            assert_eq!((user.uid(), user.gid()), (0, 0));
        }
        let wrong = |text: &str| read(text).unwrap_err().to_string();
        assert_eq!(wrong("[]"), "p.json: an object is expected");
        assert_eq!(wrong("{}"), "p.json: process: missing field `cwd`");
        let error = wrong(r#"{"cwd": "/", "user": {"uid": "x", "gid": 0}}"#);
        assert!(error.starts_with("p.json: process.user.uid: invalid type"), "{error}");
    }

    #[test]
    fn what_is_passed_over_is_said() {
        let text = r#"{"cwd": "/", "user": {"uid": 0, "gid": 0},
                       "capabilities": {"bounding": ["CAP_KILL", "CAP_NOPE"]}}"#;
        let Parsed { warnings, .. } = process(text.as_bytes(), Path::new("p.json")).unwrap();
        assert!(
            warnings[0].contains("process.capabilities.bounding: \"CAP_NOPE\""),
            "{warnings:?}"
        );
    }
}
