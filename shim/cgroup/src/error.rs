//! What can go wrong with a group, and the names of controllers and limits that users know.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// A controller that a limit needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    Memory,
    Cpu,
    Cpuset,
    Pids,
    Devices,
    Freezer,
    /// Statistics of v1's processor time.
    Cpuacct,
    Io,
    Hugetlb,
    Rdma,
    NetCls,
    NetPrio,
}

impl Controller {
    pub(crate) const ALL: [Self; 12] = [
        Self::Memory,
        Self::Cpu,
        Self::Cpuset,
        Self::Pids,
        Self::Devices,
        Self::Freezer,
        Self::Cpuacct,
        Self::Io,
        Self::Hugetlb,
        Self::Rdma,
        Self::NetCls,
        Self::NetPrio,
    ];

    /// As the kernel spells it on v1.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
            Self::Pids => "pids",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Cpuacct => "cpuacct",
            Self::Io => "blkio",
            Self::Hugetlb => "hugetlb",
            Self::Rdma => "rdma",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
        }
    }

    /// As the kernel spells it in the unified hierarchy, where some do not exist.
    #[must_use]
    pub fn unified_name(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Memory
            | Self::Cpu
            | Self::Cpuset
            | Self::Pids
            | Self::Devices
            | Self::Freezer
            | Self::Cpuacct
            | Self::Hugetlb
            | Self::Rdma
            | Self::NetCls
            | Self::NetPrio => self.name(),
        }
    }
}

/// Where the OCI runtime specification has the limits: errors name them by their path in it.
const RESOURCES: &str = "linux.resources.";

/// Why a group could not be made, limited, joined, emptied or removed.
#[derive(Debug)]
pub enum Error {
    /// No cgroup file system is mounted.
    NoHierarchy,
    /// Not a plain relative path.
    InvalidPath { path: String },
    /// A limit was asked for whose controller this machine does not have. Each `limit` is a path in
    /// the `linux.resources` of the OCI runtime specification.
    MissingController { limit: &'static str, controller: Controller },
    /// The controller is there, but does not reach the group: a level above does not pass it on.
    NotDelegated { limit: &'static str, controller: Controller, level: PathBuf, errno: Errno },
    /// An update failed, and one of the limits that it had changed by then could not be restored.
    NotRestored { update: Box<Self>, restore: Box<Self> },
    /// A limit that this machine can't grant.
    LimitRefused { limit: Cow<'static, str>, value: String, reason: Reason },
    /// A device rule that says nothing.
    InvalidDeviceRule { rule: String },
    /// Processes that were still there at the deadline.
    StillPopulated { path: String, pids: Vec<i32> },
    /// Something in the group did not stand still by the deadline: it waits in the kernel for what
    /// nothing interrupts.
    NotFrozen { path: String },
    /// Nothing that came into it would run: it, or one above it, is frozen already.
    Frozen { level: PathBuf },
    /// A system call on a file of the hierarchy.
    Io { step: &'static str, path: PathBuf, errno: Errno },
}

/// What is wrong with the value of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Less than anything can run with.
    TooSmall { minimum: u64 },
    /// cgroup v2 does not have it.
    OnlyOnV1,
    /// Only cgroup v2 has it.
    NeedsUnified { controller: String },
    /// The kernel is too old, or built without it.
    NotInKernel { file: String },
    /// Less than is in use, and whoever asked wants to know.
    InUse { bytes: u64 },
    /// More than memory and swap together, whose limit stays.
    AboveMemorySwap { both: u64 },
    /// Names CPUs or memory nodes that are not there.
    NotOnline { online: String },
    /// Not a list like `0-2,7`.
    Malformed,
    /// Memory and swap together are less than memory alone.
    BelowMemory,
    /// Swap is limited, memory is not.
    WithoutMemory,
    /// The kernel does not account swap (boot parameter `swapaccount=1`).
    SwapNotAccounted,
    /// What the kernel said.
    Kernel(Errno),
}

impl Error {
    pub(crate) fn io(step: &'static str, path: &Path, errno: Errno) -> Self {
        Self::Io { step, path: path.to_owned(), errno }
    }

    /// What the kernel said, when it was the kernel.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { errno, .. } | Self::LimitRefused { reason: Reason::Kernel(errno), .. } => {
                Some(*errno)
            }
            Self::NotDelegated { errno, .. } => Some(*errno),
            Self::NotRestored { update, .. } => update.errno(),
            Self::NoHierarchy
            | Self::InvalidPath { .. }
            | Self::MissingController { .. }
            | Self::LimitRefused { .. }
            | Self::InvalidDeviceRule { .. }
            | Self::StillPopulated { .. }
            | Self::NotFrozen { .. }
            | Self::Frozen { .. } => None,
        }
    }

    /// Whether a limit was asked for that this machine can't grant.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        match self {
            Self::MissingController { .. }
            | Self::NotDelegated { .. }
            | Self::LimitRefused { .. }
            | Self::InvalidDeviceRule { .. } => true,
            Self::NotRestored { .. }
            | Self::NoHierarchy
            | Self::InvalidPath { .. }
            | Self::StillPopulated { .. }
            | Self::NotFrozen { .. }
            | Self::Frozen { .. }
            | Self::Io { .. } => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHierarchy => f.write_str("no cgroup file system is mounted"),
            Self::InvalidPath { path } => {
                write!(f, "cgroup {path:?}: not a plain path relative to the hierarchy")
            }
            Self::MissingController { limit, controller } => write!(
                f,
                "{RESOURCES}{limit}: this machine has no cgroup controller {:?}",
                controller.name()
            ),
            Self::NotDelegated { limit, controller, level, errno } => write!(
                f,
                "{RESOURCES}{limit}: controller {:?} is not passed on by {}: {}",
                controller.unified_name(),
                level.display(),
                match *errno {
                    Errno::BUSY => "it has processes of its own".to_owned(),
                    errno => errno.to_string(),
                },
            ),
            Self::NotRestored { update, restore } => {
                write!(f, "{update}; what was changed before could not be restored: {restore}")
            }
            Self::LimitRefused { limit, value, reason } if value.is_empty() => {
                write!(f, "{RESOURCES}{limit}: {reason}")
            }
            Self::LimitRefused { limit, value, reason } => {
                write!(f, "{RESOURCES}{limit}: {value}: {reason}")
            }
            Self::InvalidDeviceRule { rule } => {
                write!(f, "{RESOURCES}devices: {rule:?} is no rule")
            }
            Self::StillPopulated { path, pids } => {
                write!(f, "cgroup {path:?}: {} processes do not end: {pids:?}", pids.len())
            }
            Self::Frozen { level } => {
                write!(f, "control group {} is frozen: thaw it first", level.display())
            }
            Self::NotFrozen { path } => {
                write!(f, "cgroup {path:?}: not everything in it stands still; it goes on")
            }
            Self::Io { step, path, errno } => write!(f, "{step} {}: {errno}", path.display()),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall { minimum } => write!(f, "the minimum is {minimum}"),
            Self::OnlyOnV1 => f.write_str("cgroup v2 has no such limit"),
            Self::NeedsUnified { controller } => {
                write!(f, "it needs cgroup v2 with its controller {controller:?}")
            }
            Self::NotInKernel { file } => write!(f, "this kernel has no {file}"),
            Self::InUse { bytes } => write!(f, "{bytes} bytes are in use"),
            Self::AboveMemorySwap { both } => write!(
                f,
                "it is more than the limit of memory and swap together, {both}: raise that as well"
            ),
            Self::NotOnline { online } => write!(f, "this machine has {online}"),
            Self::Malformed => f.write_str("not a list like \"0-2,7\""),
            Self::BelowMemory => {
                write!(f, "it is memory and swap together, and less than {RESOURCES}memory.limit")
            }
            Self::WithoutMemory => write!(
                f,
                "it is memory and swap together, and needs {RESOURCES}memory.limit beside it"
            ),
            Self::SwapNotAccounted => f.write_str(
                "the kernel does not account swap; boot it with swapaccount=1, or set no swap limit",
            ),
            Self::Kernel(errno) => write!(f, "the kernel refused it: {errno}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { errno, .. } | Self::NotDelegated { errno, .. } => Some(errno),
            Self::NotRestored { update, .. } => Some(update.as_ref()),
            Self::NoHierarchy
            | Self::InvalidPath { .. }
            | Self::MissingController { .. }
            | Self::LimitRefused { .. }
            | Self::InvalidDeviceRule { .. }
            | Self::StillPopulated { .. }
            | Self::NotFrozen { .. }
            | Self::Frozen { .. } => None,
        }
    }
}
