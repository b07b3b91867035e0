//! Who builds and runs a container, by the names that users give.
//!
//! | name | what |
//! |---|---|
//! | `bosun`, or none | bosun's own shim |
//! | `runc`, `crun` | containerd's `io.containerd.runc.v2` with that program |
//! | `io.containerd.NAME.vN` | the program `containerd-shim-NAME-vN` |
//! | what the configuration file names | bosun's own, or one of these types, with settings |
//!
//! All of these but bare types are what a kubelet's pods may name as their handler, where the shim joins
//! namespaces that a spec names by path: bosun's pods are held by bosun, without a process that a shim
//! could begin a pod with. Shims that keep a pod in a sandbox of their own (a virtual machine, a kernel
//! in user space) need one, or containerd's sandbox service, and would make a sandbox for each container.
//!
//! Programs are looked for where an administrator's shell finds them, and beside bosund, when a
//! container is made and at each of its starts: they may come, go and be replaced meanwhile.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use shim_wire::containerd::{RUNC_OPTIONS, RuncOptions, SHIM_OPTIONS, ShimOptions};
use shim_wire::files::Bundle;
use shim_wire::task::Any;

/// The name of bosun's own.
pub const OWN: &str = "bosun";

const RUNC_TYPE: &str = "io.containerd.runc.v2";
/// Names that need no configuration: programs of [`RUNC_TYPE`].
const KNOWN: [&str; 2] = ["crun", "runc"];

const DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A runtime of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Configured {
    /// `bosun`, or `io.containerd.NAME.vN`
    #[serde(rename = "type")]
    pub kind: String,
    /// For `io.containerd.runc.v2`: the OCI runtime, if it is not runc.
    pub binary: Option<PathBuf>,
    /// For `io.containerd.runc.v2`: the rootfs is not pivoted to, for hosts that run from memory.
    #[serde(default)]
    pub no_pivot_root: bool,
    /// For `io.containerd.runc.v2`: the container has the session keyring of the daemon.
    #[serde(default)]
    pub no_new_keyring: bool,
    /// For any other shim: the configuration file that it is told of.
    pub config: Option<PathBuf>,
    /// The shim joins namespaces that a spec names by path, and so runs containers of pods.
    /// [default: of `bosun` and `io.containerd.runc.v2` alone]
    pub pods: Option<bool>,
    /// A privileged container has all rights, but none of the host's devices.
    #[serde(default)]
    pub privileged_without_host_devices: bool,
}

/// All that can be named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runtimes {
    configured: BTreeMap<String, Configured>,
    directories: Vec<PathBuf>,
}

/// A stock shim to run a container with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stock {
    pub shim: PathBuf,
    /// It can run containers of pods.
    pub joins_pods: bool,
    /// Whose options it understands.
    is_runc: bool,
    /// The OCI runtime; absent is the stock shim's own choice.
    binary: Option<PathBuf>,
    no_pivot_root: bool,
    no_new_keyring: bool,
    config: Option<PathBuf>,
}

/// What the pods of a kubelet may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    pub name: String,
    pub kind: HandlerKind,
}

/// Who runs the containers of such a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandlerKind {
    /// bosun.
    Own,
    /// runc, or what has its command line, where it was found.
    Oci(Option<PathBuf>),
    /// A shim of which nothing more is known.
    Other,
}

/// A runtime that there is not, or that the configuration file describes wrongly.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("runtime {name:?}: there is none of that name: here {}", listed(.here))]
    Unknown { name: String, here: Vec<String> },
    #[error("runtime {name:?}: {program} is not installed: here {}", listed(.here))]
    NotInstalled { name: String, program: String, here: Vec<String> },
    #[error("runtime {name:?}: {problem}")]
    Configuration { name: String, problem: String },
    #[error("runtime handler {name:?}: there is none of that name: here {}", listed(.here))]
    NoHandler { name: String, here: Vec<String> },
    #[error(
        "runtime handler {name:?}: its shim keeps a pod in a sandbox of its own, which bosun's pods are not: give [runtimes.{name}] the key pods = true if it joins namespaces by their paths, or run its containers alone"
    )]
    NoPods { name: String },
}

fn listed(names: &[String]) -> String {
    match names {
        [only] => format!("is only {only}"),
        names => format!("are {}", names.join(", ")),
    }
}

/// Whether a name stands for bosun's own runtime without settings.
fn is_plain(name: &str) -> bool {
    name.is_empty() || name == OWN
}

impl Runtimes {
    /// # Errors
    /// A name or a type that is none, or a binary where none is used.
    pub fn new(
        configured: BTreeMap<String, Configured>,
        beside: Option<&Path>,
    ) -> Result<Self, Error> {
        for (name, runtime) in &configured {
            let wrong = |problem: &str| {
                Err(Error::Configuration { name: name.clone(), problem: problem.to_owned() })
            };
            if is_plain(name) || name.starts_with("io.containerd.") {
                return wrong("the name is taken: choose another one");
            }
            let is_own = runtime.kind == OWN;
            if !is_own && program_of(&runtime.kind).is_none() {
                return wrong("its type is neither bosun nor an io.containerd.NAME.vN");
            }
            let is_runc = is_runc(&runtime.kind);
            let absolute = |path: &Option<PathBuf>| path.as_ref().is_none_or(|p| p.is_absolute());
            if !absolute(&runtime.binary) {
                return wrong("its binary is not an absolute path");
            }
            if !absolute(&runtime.config) {
                return wrong("its config is not an absolute path");
            }
            if runtime.binary.is_some() && !is_runc {
                return wrong("a binary is only for the type io.containerd.runc.v2");
            }
            if (runtime.no_pivot_root || runtime.no_new_keyring) && !is_runc {
                let what =
                    "no-pivot-root and no-new-keyring are for the type io.containerd.runc.v2";
                return wrong(what);
            }
            if runtime.config.is_some() && (is_runc || is_own) {
                return wrong("a config is for shims of other types than runc's");
            }
            if is_own && runtime.pods == Some(false) {
                return wrong("bosun's own runtime runs pods: leave pods = false away");
            }
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
        directories.extend(DIRECTORIES.map(PathBuf::from));
        directories.extend(beside.map(Path::to_owned));
        directories.retain(|directory| directory.is_absolute());
        Ok(Self { configured, directories })
    }

    /// The stock shim that a name stands for; `None` for bosun's own.
    ///
    /// # Errors
    /// There is no such runtime, or it is not installed.
    pub fn find(&self, name: &str) -> Result<Option<Stock>, Error> {
        let configured = self.configured.get(name);
        if is_plain(name) || configured.is_some_and(|runtime| runtime.kind == OWN) {
            return Ok(None);
        }
        let not_installed = |program: String| Error::NotInstalled {
            name: name.to_owned(),
            program,
            here: self.here(),
        };
        let (kind, binary) = match configured {
            Some(runtime) => (runtime.kind.as_str(), runtime.binary.clone()),
            None if KNOWN.contains(&name) => {
                let found = self.program(name);
                (RUNC_TYPE, Some(found.ok_or_else(|| not_installed(name.to_owned()))?))
            }
            None => (name, None),
        };
        let Some(program) = program_of(kind) else {
            return Err(Error::Unknown { name: name.to_owned(), here: self.here() });
        };
        if let Some(binary) = binary.as_ref().filter(|binary| !is_program(binary)) {
            return Err(not_installed(binary.display().to_string()));
        }
        let shim = self.program(&program).ok_or_else(|| not_installed(program))?;
        let is_runc = is_runc(kind);
        Ok(Some(Stock {
            shim,
            joins_pods: configured.and_then(|runtime| runtime.pods).unwrap_or(is_runc),
            is_runc,
            binary,
            no_pivot_root: configured.is_some_and(|runtime| runtime.no_pivot_root),
            no_new_keyring: configured.is_some_and(|runtime| runtime.no_new_keyring),
            config: configured.and_then(|runtime| runtime.config.clone()),
        }))
    }

    /// Whether a privileged container of this runtime has the host's devices.
    #[must_use]
    pub fn gives_host_devices(&self, name: &str) -> bool {
        !self.configured.get(name).is_some_and(|runtime| runtime.privileged_without_host_devices)
    }

    /// What pods may name now: bosun's own first, then the others by their names.
    #[must_use]
    pub fn handlers(&self) -> Vec<Handler> {
        let configured = self.configured.keys().map(String::as_str);
        let others: std::collections::BTreeSet<&str> =
            KNOWN.into_iter().chain(configured).collect();
        let found = others.into_iter().filter_map(|name| self.handler(name).ok());
        let own = Handler { name: OWN.to_owned(), kind: HandlerKind::Own };
        std::iter::once(own).chain(found).collect()
    }

    /// The handler that a pod names; empty is bosun's own.
    ///
    /// # Errors
    /// There is none of that name, it is not installed, or it can't run containers of pods.
    pub fn handler(&self, name: &str) -> Result<Handler, Error> {
        let of = |kind| Ok(Handler { name: name.to_owned(), kind });
        let is_known =
            is_plain(name) || KNOWN.contains(&name) || self.configured.contains_key(name);
        if !is_known {
            let here = self.handlers().into_iter().map(|handler| handler.name).collect();
            return Err(Error::NoHandler { name: name.to_owned(), here });
        }
        match self.find(name)? {
            None => of(HandlerKind::Own),
            Some(stock) if !stock.joins_pods => Err(Error::NoPods { name: name.to_owned() }),
            Some(stock) if stock.is_runc => {
                of(HandlerKind::Oci(stock.binary.or_else(|| self.program("runc"))))
            }
            Some(_) => of(HandlerKind::Other),
        }
    }

    /// The names of those that can be used now.
    fn here(&self) -> Vec<String> {
        let kind_here = |kind: &str| program_of(kind).is_some_and(|it| self.program(&it).is_some());
        let known =
            KNOWN.iter().filter(|name| self.program(name).is_some() && kind_here(RUNC_TYPE));
        let configured = self.configured.iter().filter(|(_, runtime)| {
            (runtime.kind == OWN || kind_here(&runtime.kind))
                && runtime.binary.as_ref().is_none_or(|path| is_program(path))
        });
        let mut names: Vec<String> = std::iter::once(OWN.to_owned())
            .chain(known.map(|name| (*name).to_owned()))
            .chain(configured.map(|(name, _)| name.clone()))
            .chain(self.installed())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The types whose programs are installed.
    fn installed(&self) -> Vec<String> {
        let entries = self.directories.iter().filter_map(|path| path.read_dir().ok()).flatten();
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter_map(|name| {
                let (name, version) = name.strip_prefix("containerd-shim-")?.rsplit_once('-')?;
                let kind = format!("io.containerd.{name}.{version}");
                program_of(&kind).map(|_| kind)
            })
            .collect()
    }

    fn program(&self, name: &str) -> Option<PathBuf> {
        let paths = self.directories.iter().map(|directory| directory.join(name));
        paths.into_iter().find(|path| is_program(path))
    }
}

impl Stock {
    /// What it is told beside the spec.
    #[must_use]
    pub fn options(&self, bundle: &Bundle) -> Option<Any> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        if !self.is_runc {
            let config_path = text(self.config.as_deref()?);
            return Some(Any::of(SHIM_OPTIONS, &ShimOptions { config_path, ..Default::default() }));
        }
        let options = RuncOptions {
            binary_name: self.binary.as_deref().map(text).unwrap_or_default(),
            // So that it goes with the bundle, whoever dies.
            root: text(&bundle.runtime_root()),
            no_pivot_root: self.no_pivot_root,
            no_new_keyring: self.no_new_keyring,
            ..RuncOptions::default()
        };
        Some(Any::of(RUNC_OPTIONS, &options))
    }
}

fn is_runc(kind: &str) -> bool {
    kind.starts_with("io.containerd.runc.")
}

/// The program of `io.containerd.NAME.vN`; `None` when it is no such name.
fn program_of(kind: &str) -> Option<String> {
    let (name, version) = kind.strip_prefix("io.containerd.")?.split_once('.')?;
    let plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_');
    let number = version.strip_prefix('v')?;
    let numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let named = !name.is_empty() && name.chars().all(plain);
    (named && numbered).then(|| format!("containerd-shim-{name}-{version}"))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with these programs in it, which is all there is.
    fn with(programs: &[&str]) -> (tempfile::TempDir, Runtimes) {
        let directory = tempfile::tempdir().unwrap();
        for name in programs {
            let path = directory.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let directories = vec![directory.path().to_owned()];
        (directory, Runtimes { configured: BTreeMap::new(), directories })
    }

    fn configured(kind: &str, binary: Option<&str>) -> BTreeMap<String, Configured> {
        let binary = binary.map(|path| format!("binary = {path:?}")).unwrap_or_default();
        BTreeMap::from([("mine".to_owned(), settings(&format!("type = {kind:?}\n{binary}")))])
    }

    fn settings(text: &str) -> Configured {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn names_lead_to_programs() {
        let (directory, mut runtimes) =
            with(&["runc", "crun", "containerd-shim-runc-v2", "containerd-shim-kata-v2"]);
        let at = |name: &str| directory.path().join(name);
        assert_eq!(runtimes.find("").unwrap(), None);
        assert_eq!(runtimes.find("bosun").unwrap(), None);
        for name in ["runc", "crun"] {
            let stock = runtimes.find(name).unwrap().unwrap();
            assert_eq!((stock.shim, stock.binary), (at("containerd-shim-runc-v2"), Some(at(name))));
        }
        let kata = runtimes.find("io.containerd.kata.v2").unwrap().unwrap();
        assert_eq!((kata.shim, kata.binary), (at("containerd-shim-kata-v2"), None));
        runtimes.configured = configured("io.containerd.runc.v2", at("crun").to_str());
        assert_eq!(runtimes.find("mine").unwrap().unwrap().binary, Some(at("crun")));
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let (_directory, runtimes) = with(&["runc", "containerd-shim-runc-v2"]);
        let said = |name: &str| runtimes.find(name).unwrap_err().to_string();
        assert_eq!(
            said("nope"),
            "runtime \"nope\": there is none of that name: here are bosun, io.containerd.runc.v2, runc"
        );
        assert!(
            said("crun").contains("crun is not installed: here are bosun,"),
            "{}",
            said("crun")
        );
        let kata = said("io.containerd.kata.v2");
        assert!(kata.contains("containerd-shim-kata-v2 is not installed"), "{kata}");
        for name in ["io.containerd.runc", "io.containerd.../x.v2", "io.containerd..v2", "/bin/sh"]
        {
            assert!(said(name).contains("none of that name"), "{name}");
        }
        let (_directory, none) = with(&[]);
        assert!(none.find("runc").unwrap_err().to_string().ends_with("here is only bosun"));
    }

    #[test]
    fn a_configuration_that_can_not_be_is_refused() {
        let said = |configured| Runtimes::new(configured, None).unwrap_err().to_string();
        assert!(said(configured("runc", None)).contains("nor an io.containerd.NAME.vN"));
        let kata = configured("io.containerd.kata.v2", Some("/usr/bin/crun"));
        assert!(said(kata).contains("only for the type io.containerd.runc.v2"));
        let relative = configured("io.containerd.runc.v2", Some("crun"));
        assert!(said(relative).contains("not an absolute path"));
        let mut taken = configured("io.containerd.runc.v2", None);
        let runtime = taken.remove("mine").unwrap();
        taken.insert("bosun".to_owned(), runtime);
        assert!(said(taken).contains("the name is taken"));
        for (text, problem) in [
            ("type = \"bosun\"\nbinary = \"/bin/x\"", "only for the type io.containerd.runc.v2"),
            ("type = \"bosun\"\npods = false", "runs pods"),
            ("type = \"bosun\"\nno-pivot-root = true", "are for the type io.containerd.runc.v2"),
            ("type = \"bosun\"\nconfig = \"/etc/x\"", "for shims of other types"),
            ("type = \"io.containerd.kata.v2\"\nconfig = \"x\"", "not an absolute path"),
        ] {
            let said = said(BTreeMap::from([("mine".to_owned(), settings(text))]));
            assert!(said.contains(problem), "{text}: {said}");
        }
    }

    #[test]
    fn pods_name_what_joins_their_namespaces() {
        let (directory, mut runtimes) =
            with(&["runc", "containerd-shim-runc-v2", "containerd-shim-kata-v2"]);
        let runc = HandlerKind::Oci(Some(directory.path().join("runc")));
        for (name, text) in [
            ("strict", "type = \"bosun\"\nprivileged-without-host-devices = true"),
            ("vm", "type = \"io.containerd.kata.v2\""),
            ("odd", "type = \"io.containerd.kata.v2\"\npods = true"),
            ("alone", "type = \"io.containerd.runc.v2\"\npods = false"),
            ("mine", "type = \"io.containerd.runc.v2\""),
            ("gone", "type = \"io.containerd.runc.v2\"\nbinary = \"/no/such\""),
        ] {
            runtimes.configured.insert(name.to_owned(), settings(text));
        }
        let of = |name: &str, kind| Handler { name: name.to_owned(), kind };
        assert_eq!(
            runtimes.handlers(),
            [
                of("bosun", HandlerKind::Own),
                of("mine", runc.clone()),
                of("odd", HandlerKind::Other),
                of("runc", runc),
                of("strict", HandlerKind::Own),
            ]
        );
        assert_eq!(runtimes.handler("").unwrap().kind, HandlerKind::Own);
        let said = |name: &str| runtimes.handler(name).unwrap_err().to_string();
        assert_eq!(
            said("nope"),
            "runtime handler \"nope\": there is none of that name: here are bosun, mine, odd, runc, strict"
        );
        assert!(said("io.containerd.runc.v2").contains("none of that name"));
        for name in ["vm", "alone"] {
            assert!(said(name).contains(&format!("[runtimes.{name}]")), "{}", said(name));
        }
        assert!(said("gone").contains("/no/such is not installed"), "{}", said("gone"));
        assert_eq!(runtimes.find("strict").unwrap(), None);
        assert!(!runtimes.gives_host_devices("strict") && runtimes.gives_host_devices(""));
    }

    #[test]
    fn only_runc_s_shim_is_told_of_a_program() {
        let (_directory, runtimes) =
            with(&["crun", "containerd-shim-runc-v2", "containerd-shim-kata-v2"]);
        let bundle = shim_wire::files::RunDir::new("/run/c".into()).bundle();
        let options = |name: &str| runtimes.find(name).unwrap().unwrap().options(&bundle);
        let any = options("crun").unwrap();
        assert_eq!(any.type_url, "containerd.runc.v1.Options");
        let sent: RuncOptions = prost::Message::decode(any.value.as_slice()).unwrap();
        assert!(sent.binary_name.ends_with("/crun"), "{sent:?}");
        assert_eq!(sent.root, "/run/c/bundle/oci");
        assert_eq!(options("io.containerd.kata.v2"), None);
        let mut runtimes = runtimes;
        let kata = "type = \"io.containerd.kata.v2\"\nconfig = \"/etc/kata.toml\"";
        runtimes.configured.insert("vm".to_owned(), settings(kata));
        let any = runtimes.find("vm").unwrap().unwrap().options(&bundle).unwrap();
        assert_eq!(any.type_url, "runtimeoptions.v1.Options");
        let sent: ShimOptions = prost::Message::decode(any.value.as_slice()).unwrap();
        assert_eq!(sent.config_path, "/etc/kata.toml");
    }
}
