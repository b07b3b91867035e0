//! What is durable of a container. The record *is* the container: from the commit that makes it to
//! the commit that removes it.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use shim_wire::exit::{ExitRecord, ExitStatus};
use shim_wire::lifecycle::{self, Durable};

use crate::network::Published;
use crate::spec::{ContainerOptions, Role};
use crate::time::Time;

/// The record of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    pub name: String,
    pub created_at: Time,
    /// What was asked for, names resolved and defaults filled in.
    pub options: ContainerOptions,
    /// The words of process 1.
    pub args: Vec<String>,
    /// The number of its snapshot, whose key is the container's id.
    pub snapshot: i64,
    /// Of the last run that got to its start.
    pub started_at: Option<Time>,
    pub run: Run,
    /// What its maker was told.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What it was made from, when that is an image.
    #[serde(default)]
    pub image: Option<FromImage>,
}

/// The image that a container was made from. Its content stays as long as the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromImage {
    /// The digest of the configuration, which docker calls the image's id.
    pub id: String,
    /// The digest of the manifest.
    pub manifest: String,
    /// The digest that the image's name stood for: an index or the manifest.
    #[serde(default)]
    pub target: String,
    /// The committed snapshot that it stands on; empty when the image has no layers.
    pub snapshot: String,
    /// `PORT/PROTOCOL`
    pub exposed_ports: Vec<String>,
}

impl Record {
    /// Whether it is no container, but what a pod's containers share.
    #[must_use]
    pub fn is_sandbox(&self) -> bool {
        matches!(self.options.role, Role::Sandbox(_))
    }

    /// What stands in the place of an image's name.
    #[must_use]
    pub fn image_name(&self) -> String {
        match (&self.options.image, &self.options.rootfs) {
            (Some(image), _) => image.clone(),
            (None, Some(path)) => format!("rootfs:{}", path.display()),
            (None, None) => String::new(),
        }
    }
}

/// What is durable of the last run: [`lifecycle::Durable`] with what belongs to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Run {
    /// Never started, or the last start failed and was undone.
    Created {
        attempts: u64,
        error: Option<String>,
    },
    /// It shall run.
    Intent {
        attempt: u64,
        boot_id: String,
        lease: Option<Lease>,
    },
    Ended {
        attempt: u64,
        exit: Exit,
    },
}

impl Run {
    /// What it is judged by.
    #[must_use]
    pub fn durable(&self) -> Durable {
        match self {
            Self::Created { attempts, .. } => Durable::Created { attempts: *attempts },
            Self::Intent { attempt, .. } => Durable::Intent { attempt: *attempt },
            Self::Ended { attempt, exit } => Durable::Ended {
                attempt: *attempt,
                status: exit.status.into(),
                reason: exit.reason.into(),
            },
        }
    }

    /// How often it was started.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.durable().attempts()
    }
}

/// Its place on the bridge, held from the intent to the end of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub address: Ipv4Addr,
    pub ports: Vec<Published>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub status: Status,
    pub reason: Reason,
    pub oom_killed: bool,
    pub at: Time,
}

/// [`ExitStatus`], stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Code(u8),
    Signal(u8),
    Unknown,
}

impl Status {
    /// The code, or 128 + the signal; 255 when unknown.
    #[must_use]
    pub fn number(self) -> u8 {
        ExitStatus::from(self).number()
    }
}

/// [`lifecycle::Reason`], stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    Exited,
    ShimLost,
    HostLost,
}

impl From<ExitStatus> for Status {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Code(code) => Self::Code(code),
            ExitStatus::Signal(signal) => Self::Signal(signal),
            ExitStatus::Unknown => Self::Unknown,
        }
    }
}

impl From<Status> for ExitStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Code(code) => Self::Code(code),
            Status::Signal(signal) => Self::Signal(signal),
            Status::Unknown => Self::Unknown,
        }
    }
}

impl From<lifecycle::Reason> for Reason {
    fn from(reason: lifecycle::Reason) -> Self {
        match reason {
            lifecycle::Reason::Exited => Self::Exited,
            lifecycle::Reason::ShimLost => Self::ShimLost,
            lifecycle::Reason::HostLost => Self::HostLost,
        }
    }
}

impl From<Reason> for lifecycle::Reason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Exited => Self::Exited,
            Reason::ShimLost => Self::ShimLost,
            Reason::HostLost => Self::HostLost,
        }
    }
}

impl Exit {
    /// The end that a shim recorded.
    #[must_use]
    pub fn recorded(record: &ExitRecord) -> Self {
        Self {
            status: record.status.into(),
            // A shim knows how its process ended, but of a stock shim's that took it along.
            reason: match record.status {
                ExitStatus::Code(_) | ExitStatus::Signal(_) => Reason::Exited,
                ExitStatus::Unknown => Reason::ShimLost,
            },
            oom_killed: record.oom_killed,
            at: record.exited_at.into(),
        }
    }

    /// An end that is seen now, and that no record tells of.
    #[must_use]
    pub fn seen(status: ExitStatus, reason: lifecycle::Reason) -> Self {
        Self { status: status.into(), reason: reason.into(), oom_killed: false, at: Time::now() }
    }
}
