//! The daemon's configuration: flags over the file over defaults, parsed once into [`Config`].
//!
//! Every flag has a key of the same name in the file (TOML). What can be derived is derived here:
//! a daemon whose root is not the default one gets a cgroup prefix, a bridge and a subnet of its
//! own, so that several daemons on one machine do not meet.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use shim_wire::files::STATE_MAX_LEN;

use crate::cri;
use crate::network::Subnet;
use crate::runtimes::{self, Configured, Runtimes};

const DEFAULT_ROOT: &str = "/var/lib/bosun";
const DEFAULT_STATE: &str = "/run/bosun";
const DEFAULT_CONFIG: &str = "/etc/bosun/config.toml";
const DEFAULT_CERTS: &str = "/etc/bosun/certs.d";

/// bosund, the daemon of bosun: keeps metadata and snapshots, starts a shim for each container and
/// serves gRPC on a unix socket. Containers outlive it.
#[derive(Parser, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Flags {
    /// Directory of everything that outlives a reboot [default: /var/lib/bosun]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Directory of sockets and of what a reboot makes meaningless, at most 60 bytes long
    /// [default: /run/bosun, or ROOT/state when the root is not the default]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Unix socket of the gRPC API [default: unix://STATE/bosun.sock]
    #[arg(long, value_name = "unix://PATH")]
    pub address: Option<String>,
    /// Configuration file; each key is named as its flag [default: /etc/bosun/config.toml, if present]
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// The bosun-shim program [default: beside bosund]
    #[arg(long, value_name = "FILE")]
    pub shim: Option<PathBuf>,
    /// First part of the path of every cgroup of a container [default: bosun, or derived from the root]
    #[arg(long, value_name = "NAME")]
    pub cgroup_prefix: Option<String>,
    /// The network bridge [default: bosun0, or derived from the root]
    #[arg(long, value_name = "NAME")]
    pub bridge: Option<String>,
    /// The bridge's IPv4 subnet [default: 172.30.0.0/16, or derived from the root]
    #[arg(long, value_name = "CIDR")]
    pub subnet: Option<String>,
    /// Group that may use the socket [default: bosun, if it exists]
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Seconds that a call without a deadline of its own may take [default: 120]
    #[arg(long, value_name = "SECONDS")]
    pub call_timeout: Option<u64>,
    /// Directory of HOST/hosts.toml: mirrors, certificates and headers of registries, in containerd's
    /// format [default: /etc/bosun/certs.d]
    #[arg(long, value_name = "DIR")]
    pub certs_dir: Option<PathBuf>,
    /// Directories of specifications of CDI devices, with commas between; what the last one says of a
    /// device goes before [default: /etc/cdi,/var/run/cdi]
    #[arg(long, value_name = "DIR", value_delimiter = ',')]
    pub cdi_dirs: Vec<PathBuf>,
    /// Only in the file: `[runtimes.NAME]`.
    #[arg(skip)]
    pub runtimes: BTreeMap<String, Configured>,
    /// Only in the file: `[cri]`.
    #[arg(skip)]
    pub cri: cri::Configured,
    /// Only in the file: `[nri]`.
    #[arg(skip)]
    pub nri: cri::NriConfigured,
}

/// The whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub root: PathBuf,
    pub state: PathBuf,
    pub address: PathBuf,
    pub shim: PathBuf,
    pub cgroup_prefix: String,
    pub bridge: String,
    pub subnet: Subnet,
    pub group: Option<String>,
    pub log_level: String,
    pub call_timeout: std::time::Duration,
    pub certs_dir: PathBuf,
    pub cdi_dirs: Vec<PathBuf>,
    pub runtimes: Runtimes,
    pub cri: cri::Configured,
    /// `None`: switched off.
    pub nri: Option<bosun_nri::Settings>,
}

/// There while systemd is the machine's (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("configuration file {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("configuration file {}: {source}", path.display())]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error(
        "state directory {} is {} bytes long, at most {STATE_MAX_LEN} leave room for socket names: choose a shorter one with --state",
        path.display(), path.as_os_str().len()
    )]
    StateTooLong { path: PathBuf },
    #[error("{what} {} is not absolute", path.display())]
    NotAbsolute { what: &'static str, path: PathBuf },
    #[error("address {address:?}: give a unix socket as unix:///PATH")]
    Address { address: String },
    #[error("shim {} does not exist: build it with `make build` or name it with --shim", path.display())]
    NoShim { path: PathBuf },
    #[error("cgroup prefix {name:?}: letters, digits, '.', '_' and '-' only")]
    CgroupPrefix { name: String },
    #[error("bridge {name:?}: an interface name has 1 to 15 characters without '/' or blanks")]
    Bridge { name: String },
    #[error(transparent)]
    Runtime(#[from] runtimes::Error),
    #[error("subnet {text:?}: {reason}")]
    Subnet { text: String, reason: String },
    #[error(
        "cgroup-driver: systemd does not run on this machine ({} is missing): choose cgroupfs",
        SYSTEMD
    )]
    NoSystemd,
    #[error(
        "stream-{given} without stream-{missing}: streams are served over TLS with both, and plainly with neither"
    )]
    HalfTls { given: &'static str, missing: &'static str },
}

impl Config {
    /// Flags over file over defaults.
    ///
    /// # Errors
    /// Names the value that can't be used and what to give instead.
    pub fn load(flags: Flags) -> Result<Self, Error> {
        let file = read_file(flags.config.as_deref())?;
        let root = absolute("root", flags.root.or(file.root).unwrap_or(DEFAULT_ROOT.into()))?;
        let own = (root != Path::new(DEFAULT_ROOT)).then(|| tag(&root));
        let state = flags.state.or(file.state).unwrap_or_else(|| match own {
            None => DEFAULT_STATE.into(),
            Some(_) => root.join("state"),
        });
        let state = absolute("state", state)?;
        if state.as_os_str().len() > STATE_MAX_LEN {
            return Err(Error::StateTooLong { path: state });
        }
        let address = match flags.address.or(file.address) {
            None => state.join("bosun.sock"),
            Some(text) => socket_path(&text)?,
        };
        let shim = flags.shim.or(file.shim).unwrap_or_else(beside_ourselves);
        if !shim.is_file() {
            return Err(Error::NoShim { path: shim });
        }
        let derived = |default: &str| match &own {
            None => default.to_owned(),
            Some(tag) => format!("bosun-{}", &tag[..8]),
        };
        let cgroup_prefix =
            flags.cgroup_prefix.or(file.cgroup_prefix).unwrap_or_else(|| derived("bosun"));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if cgroup_prefix.is_empty()
            || cgroup_prefix.starts_with('.')
            || !cgroup_prefix.chars().all(plain)
        {
            return Err(Error::CgroupPrefix { name: cgroup_prefix });
        }
        let bridge = flags.bridge.or(file.bridge).unwrap_or_else(|| derived("bosun0"));
        if !(1..=15).contains(&bridge.len()) || bridge.contains(['/', ' ', '\t', '\n', ':']) {
            return Err(Error::Bridge { name: bridge });
        }
        let subnet = match flags.subnet.or(file.subnet) {
            Some(text) => text.parse().map_err(|source: crate::network::InvalidSubnet| {
                Error::Subnet { text, reason: source.to_string() }
            })?,
            None => derived_subnet(own.as_deref()),
        };
        if file.cri.cgroup_driver == cri::CgroupDriver::Systemd && !Path::new(SYSTEMD).is_dir() {
            return Err(Error::NoSystemd);
        }
        match (&file.cri.stream_certificate, &file.cri.stream_key) {
            (Some(_), None) => {
                return Err(Error::HalfTls { given: "certificate", missing: "key" });
            }
            (None, Some(_)) => {
                return Err(Error::HalfTls { given: "key", missing: "certificate" });
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        let cdi_dirs = match (flags.cdi_dirs, file.cdi_dirs) {
            (none, other) if none.is_empty() && other.is_empty() => {
                bosun_cdi::default_directories()
            }
            (none, other) if none.is_empty() => other,
            (given, _) => given,
        };
        let cdi_dirs = cdi_dirs
            .into_iter()
            .map(|path| absolute("cdi-dirs", path))
            .collect::<Result<_, _>>()?;
        // Of several daemons, one has the place that plugins look for.
        let nri = file.nri.settings(own.is_some().then(|| state.join("nri.sock")));
        let runtimes = Runtimes::new(file.runtimes, beside_ourselves().parent())?;
        Ok(Self {
            root,
            state,
            address,
            shim,
            cgroup_prefix,
            bridge,
            subnet,
            group: flags.group.or(file.group),
            log_level: flags.log_level.or(file.log_level).unwrap_or_else(|| "info".to_owned()),
            call_timeout: std::time::Duration::from_secs(
                flags.call_timeout.or(file.call_timeout).unwrap_or(120),
            ),
            certs_dir: absolute(
                "certs-dir",
                flags.certs_dir.or(file.certs_dir).unwrap_or(DEFAULT_CERTS.into()),
            )?,
            cdi_dirs,
            runtimes,
            cri: file.cri,
            nri,
        })
    }
}

/// The root alone, as [`Config::load`] finds it.
///
/// # Errors
/// A file that can't be read; a path that is not absolute.
pub fn root(flag: Option<PathBuf>, file: Option<&Path>) -> Result<PathBuf, Error> {
    let root = match flag {
        Some(root) => Some(root),
        None => read_file(file)?.root,
    };
    absolute("root", root.unwrap_or(DEFAULT_ROOT.into()))
}

fn read_file(named: Option<&Path>) -> Result<Flags, Error> {
    let path = named.unwrap_or(Path::new(DEFAULT_CONFIG));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(source) if named.is_none() && source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Flags::default());
        }
        Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
    };
    toml::from_str(&text)
        .map_err(|source| Error::Parse { path: path.to_owned(), source: Box::new(source) })
}

fn absolute(what: &'static str, path: PathBuf) -> Result<PathBuf, Error> {
    if path.is_absolute() { Ok(path) } else { Err(Error::NotAbsolute { what, path }) }
}

fn socket_path(text: &str) -> Result<PathBuf, Error> {
    let path = Path::new(text.strip_prefix("unix://").unwrap_or(text));
    if path.is_absolute() {
        Ok(path.to_owned())
    } else {
        Err(Error::Address { address: text.to_owned() })
    }
}

fn beside_ourselves() -> PathBuf {
    let ourselves = std::env::current_exe().unwrap_or_else(|_| "/usr/bin/bosund".into());
    ourselves.with_file_name("bosun-shim")
}

/// 32 hex digits that tell this root from every other.
fn tag(root: &Path) -> String {
    hex(&Sha256::digest(root.as_os_str().as_encoded_bytes()))[..32].to_owned()
}

/// Lower-case hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn derived_subnet(own: Option<&str>) -> Subnet {
    match own {
        None => Subnet::new(Ipv4Addr::new(172, 30, 0, 0), 16),
        // One of 4,096 /20 networks in 10.128.0.0/9, by the root: two roots rarely meet, and when
        // they do the kernel refuses the second address and the error names --subnet.
        Some(tag) => {
            let number = u32::from_str_radix(&tag[..3], 16).unwrap_or(0) & 0x7ff;
            Subnet::new(Ipv4Addr::from((10 << 24) | (1 << 23) | (number << 12)), 20)
        }
    }
}
