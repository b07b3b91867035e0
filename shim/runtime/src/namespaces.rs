//! Namespaces that somebody else made: found by path, proven to be what they are said to be, joined.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space};
use shim_wire::plan::{CreateOptions, Join};

use crate::error::At;
use crate::{Error, Rule, Step};

pub(crate) const NEW_TIME: u64 = 0x0000_0080;
pub(crate) const NEW_MOUNT: u64 = 0x0002_0000;
pub(crate) const NEW_CGROUP: u64 = 0x0200_0000;
pub(crate) const NEW_UTS: u64 = 0x0400_0000;
pub(crate) const NEW_IPC: u64 = 0x0800_0000;
pub(crate) const NEW_USER: u64 = 0x1000_0000;
pub(crate) const NEW_PID: u64 = 0x2000_0000;
pub(crate) const NEW_NET: u64 = 0x4000_0000;

/// NSFS_MAGIC of statfs(2).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Kinds of namespaces that a container can share with others, as the kernel names them in
/// `/proc/PID/ns`.
const KINDS: [(u64, &str, LinkNameSpaceType); 8] = [
    (NEW_MOUNT, "mnt", LinkNameSpaceType::Mount),
    (NEW_UTS, "uts", LinkNameSpaceType::HostNameAndNISDomainName),
    (NEW_IPC, "ipc", LinkNameSpaceType::InterProcessCommunication),
    (NEW_NET, "net", LinkNameSpaceType::Network),
    (NEW_CGROUP, "cgroup", LinkNameSpaceType::ControlGroup),
    (NEW_TIME, "time", LinkNameSpaceType::Time),
    (NEW_PID, "pid", LinkNameSpaceType::ProcessID),
    (NEW_USER, "user", LinkNameSpaceType::User),
];

/// Namespaces to join.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// All but those below, by kind.
    plain: Vec<(u64, OwnedFd)>,
    /// To be entered when nothing of the host is to be found by path any more, but for what the plan
    /// names: these paths are those of this namespace.
    mount: Option<OwnedFd>,
    /// One is born into it.
    pub(crate) pid: Option<OwnedFd>,
    /// To be entered last: who is in it has no power over the others.
    pub(crate) user: Option<OwnedFd>,
    /// Where the specification has them, by kind.
    places: Vec<(u64, String)>,
    /// The kinds whose names and parameters are the host's, though they were joined by path.
    pub(crate) hosts: u64,
}

impl Joined {
    /// Opens those of a request. `network` is the one that a join without a path means.
    pub(crate) fn open(
        options: &CreateOptions,
        network: Option<BorrowedFd<'_>>,
    ) -> Result<Self, Error> {
        let mut joined = Self::default();
        for join in &options.join {
            let namespace = match (network, join.path.is_empty() && join.kind == NEW_NET) {
                (Some(network), true) => rustix::io::fcntl_dupfd_cloexec(network, 3)
                    .at(Step::OpenNamespace, "the network")?,
                (None, true) => return Err(Error::refused("the plan", Rule::NetworkNotGiven)),
                (_, false) => open(join)?,
            };
            joined.places.push((join.kind, place_of(join)));
            match join.kind {
                NEW_MOUNT if is_the_hosts("mnt", &namespace)? => {
                    // Its root would become the container's, for all who are in it.
                    return Err(Error::refused(place_of(join), Rule::HostMounts));
                }
                NEW_MOUNT => joined.mount = Some(namespace),
                NEW_PID => joined.pid = Some(namespace),
                NEW_USER => joined.user = Some(namespace),
                kind => {
                    let name = known(kind).map(|(_, name, _)| *name);
                    let has_parameters = matches!(kind, NEW_NET | NEW_IPC | NEW_UTS);
                    if let Some(name) = name.filter(|_| has_parameters)
                        && is_the_hosts(name, &namespace)?
                    {
                        joined.hosts |= kind;
                    }
                    joined.plain.push((kind, namespace));
                }
            }
        }
        Ok(joined)
    }

    /// Whether the container's mounts are made in a namespace that is there already.
    pub(crate) fn has_mounts(&self) -> bool {
        self.mount.is_some()
    }

    /// Joins the mount namespace, if there is one.
    pub(crate) fn join_mounts(&self) -> Result<(), Error> {
        let Some(namespace) = &self.mount else { return Ok(()) };
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
            .at(Step::JoinNamespace, self.place(NEW_MOUNT))
    }

    /// What there is of them, but for the mount, the pid and the user namespace.
    pub(crate) fn kinds(&self) -> u64 {
        self.plain.iter().fold(0, |kinds, (kind, _)| kinds | kind)
    }

    /// Joins all but the mount, the pid and the user namespace.
    pub(crate) fn join(&self) -> Result<(), Error> {
        self.plain.iter().try_for_each(|(kind, namespace)| {
            let (_, _, typ) = known(*kind)
                .ok_or_else(|| Error::refused(format!("{kind:#x}"), Rule::NamespaceKind))?;
            move_into_link_name_space(namespace.as_fd(), Some(*typ))
                .at(Step::JoinNamespace, self.place(*kind))
        })
    }

    /// Where the specification has that of a kind, as errors call it.
    pub(crate) fn place(&self, kind: u64) -> String {
        let place = self.places.iter().find(|(known, _)| *known == kind);
        place.map(|(_, place)| place.clone()).unwrap_or_default()
    }
}

impl Joined {
    /// Joins that of one kind, if there is one. Whether there is.
    pub(crate) fn join_only(&self, wanted: u64) -> Result<bool, Error> {
        let Some((_, namespace)) = self.plain.iter().find(|(kind, _)| *kind == wanted) else {
            return Ok(false);
        };
        let (_, _, typ) = known(wanted)
            .ok_or_else(|| Error::refused(format!("{wanted:#x}"), Rule::NamespaceKind))?;
        move_into_link_name_space(namespace.as_fd(), Some(*typ))
            .at(Step::JoinNamespace, self.place(wanted))?;
        Ok(true)
    }

    /// Those of other kinds, as the kernel names these; but for the pid and the user namespace.
    pub(crate) fn others_than(&self, kind: u64) -> impl Iterator<Item = (&'static str, &OwnedFd)> {
        let others = self.plain.iter().filter(move |(found, _)| *found != kind);
        others.filter_map(|(kind, namespace)| Some((known(*kind)?.1, namespace)))
    }
}

fn known(kind: u64) -> Option<&'static (u64, &'static str, LinkNameSpaceType)> {
    KINDS.iter().find(|(known, _, _)| *known == kind)
}

/// Opens a namespace by path: nothing else, and of no other kind.
fn open(join: &Join) -> Result<OwnedFd, Error> {
    let at = || place_of(join);
    let (_, wanted, _) =
        known(join.kind).ok_or_else(|| Error::refused(at(), Rule::NamespaceKind))?;
    // A FIFO or a device has no reader to wait for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let namespace =
        rustix::fs::open(&join.path, flags, Mode::empty()).at(Step::OpenNamespace, at())?;
    let found = rustix::fs::fstatfs(&namespace).at(Step::OpenNamespace, at())?;
    if found.f_type as u64 != NSFS_MAGIC {
        return Err(Error::refused(at(), Rule::NotANamespace));
    }
    // The link of a namespace's descriptor says `net:[4026531840]`, whatever path it was opened by.
    let link = format!("/proc/self/fd/{}", namespace.as_raw_fd());
    let name = rustix::fs::readlink(link, Vec::new()).at(Step::OpenNamespace, at())?;
    match name.to_str().ok().and_then(|name| name.split_once(':')) {
        Some((kind, _)) if kind == *wanted => Ok(namespace),
        _ => Err(Error::refused(at(), Rule::OtherNamespace)),
    }
}

/// Where the specification has a join, and what it says.
fn place_of(join: &Join) -> String {
    if join.path.is_empty() {
        return format!("linux.namespaces[{}]: the network that was handed over", join.index);
    }
    format!("linux.namespaces[{}].path: {:?}", join.index, join.path)
}

/// Whether a namespace is the one that this process is in, or the first process of the machine. The
/// path says nothing of it: `/proc/self/ns/net` and a bind of it are as good as any.
fn is_the_hosts(kind: &str, namespace: &OwnedFd) -> Result<bool, Error> {
    let identity = |found: rustix::fs::Stat| (found.st_dev, found.st_ino);
    let joined = identity(rustix::fs::fstat(namespace).at(Step::OpenNamespace, kind)?);
    for process in ["self", "1"] {
        let path = format!("/proc/{process}/ns/{kind}");
        match rustix::fs::stat(&path).map(identity) {
            Ok(host) if host == joined => return Ok(true),
            // Kept from who runs inside of something else, by a security module.
            Ok(_) | Err(Errno::ACCESS | Errno::PERM) => {}
            Err(errno) => return Err(errno).at(Step::OpenNamespace, path),
        }
    }
    Ok(false)
}

/// A namespace that lives as long as this does.
#[derive(Debug)]
pub struct Held {
    /// The CLONE_NEW* flag that names its kind.
    pub kind: u64,
    pub namespace: OwnedFd,
}

/// Opens namespaces of a process, which must be a child that was not waited for.
///
/// # Errors
/// Names the one that can't be opened.
pub fn namespaces_of(pid: i32, kinds: u64) -> Result<Vec<Held>, Error> {
    let wanted = KINDS.iter().filter(|(kind, _, _)| kinds & kind != 0);
    wanted
        .map(|(kind, name, _)| {
            let path = format!("/proc/{pid}/ns/{name}");
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let namespace = rustix::fs::open(&path, flags, Mode::empty());
            Ok(Held { kind: *kind, namespace: namespace.at(Step::OpenNamespace, path)? })
        })
        .collect()
}

/// A pid namespace to be born into.
pub(crate) enum PidNamespace<'a> {
    /// A namespace descriptor.
    At(BorrowedFd<'a>),
    /// That of the process that a pidfd means.
    Of(BorrowedFd<'a>),
}

impl PidNamespace<'_> {
    /// The later children of this process are born into it.
    pub(crate) fn enter(&self) -> rustix::io::Result<()> {
        match self {
            Self::At(namespace) => {
                move_into_link_name_space(*namespace, Some(LinkNameSpaceType::ProcessID))
            }
            Self::Of(process) => {
                let kind = ThreadNameSpaceType::PROCESS_ID;
                rustix::thread::move_into_thread_name_spaces(*process, kind)
            }
        }
    }
}

/// Which of the namespaces that not every container has of its own another process has: these can't
/// be joined by who is in them already, or not by every kernel.
pub(crate) fn other_than_own(pid: i32) -> Result<ThreadNameSpaceType, Error> {
    let mut kinds = ThreadNameSpaceType::empty();
    for (name, kind) in [("user", ThreadNameSpaceType::USER), ("time", ThreadNameSpaceType::TIME)] {
        let identity = |process: &str| {
            let path = format!("/proc/{process}/ns/{name}");
            match rustix::fs::stat(&path) {
                Ok(found) => Ok(Some((found.st_dev, found.st_ino))),
                // A kernel without such namespaces.
                Err(Errno::NOENT) if process == "self" => Ok(None),
                Err(errno) => Err(errno).at(Step::OpenNamespace, path),
            }
        };
        let Some(own) = identity("self")? else { continue };
        if identity(&pid.to_string())? != Some(own) {
            kinds |= kind;
        }
    }
    Ok(kinds)
}
