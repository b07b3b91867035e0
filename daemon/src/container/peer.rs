//! The namespaces of another container, or of a sandbox, to join.
//!
//! They are found through a living process: `/proc/PID/ns` of a container's first one, the descriptors
//! of a sandbox's shim. A path with a pid in it is a promise for as long as that process lives, so
//! whoever joined by one asks afterwards whether it still does ([`Peer::check`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use shim_wire::shim::StatusResponse;

use super::run::Running;
use crate::error::{Error, Result};
use crate::shim;

/// CLONE_NEW* of clone(2), as far as a sandbox holds them.
pub(super) const UTS: u64 = 0x0400_0000;
pub(super) const IPC: u64 = 0x0800_0000;
pub(super) const USER: u64 = 0x1000_0000;
pub(super) const PID: u64 = 0x2000_0000;
pub(super) const NET: u64 = 0x4000_0000;

const KINDS: [(u64, LinuxNamespaceType); 5] = [
    (UTS, LinuxNamespaceType::Uts),
    (IPC, LinuxNamespaceType::Ipc),
    (USER, LinuxNamespaceType::User),
    (PID, LinuxNamespaceType::Pid),
    (NET, LinuxNamespaceType::Network),
];

/// Who is joined, and where what is joined can be found.
#[derive(Debug)]
pub(super) struct Peer {
    running: Arc<Running>,
    namespaces: Vec<(LinuxNamespaceType, PathBuf)>,
    /// Whose processes are seen, where they are not the peer's.
    processes: Option<Arc<Running>>,
}

impl Peer {
    /// A container, whose network is joined.
    pub(super) fn container(running: Arc<Running>) -> Self {
        let path = PathBuf::from(format!("/proc/{}/ns/net", running.pid));
        let namespaces = vec![(LinuxNamespaceType::Network, path)];
        Self { running, namespaces, processes: None }
    }

    /// A sandbox, of which everything is joined.
    ///
    /// # Errors
    /// Its shim does not answer.
    pub(super) async fn sandbox(running: Arc<Running>) -> std::result::Result<Self, shim::Error> {
        let status = running.shim.client.status().await?;
        let namespaces = held(running.shim.process.pid(), &status).collect();
        Ok(Self { running, namespaces, processes: None })
    }

    /// Leaves the peer's processes to it; `other`'s are joined, where there is one.
    pub(super) fn with_processes_of(mut self, other: Option<Arc<Running>>) -> Self {
        self.namespaces.retain(|(kind, _)| *kind != LinuxNamespaceType::Pid);
        if let Some(running) = &other {
            let path = PathBuf::from(format!("/proc/{}/ns/pid", running.pid));
            self.namespaces.push((LinuxNamespaceType::Pid, path));
        }
        self.processes = other;
        self
    }

    pub(super) fn network(&self) -> Option<&Path> {
        let network = |(kind, _): &&(LinuxNamespaceType, _)| *kind == LinuxNamespaceType::Network;
        self.namespaces.iter().find(network).map(|(_, path)| path.as_path())
    }

    /// What is joined by its path. The network is not among it: it is handed over.
    pub(super) fn shared(&self) -> Vec<(LinuxNamespaceType, PathBuf)> {
        let others = |(kind, _): &&(LinuxNamespaceType, _)| *kind != LinuxNamespaceType::Network;
        self.namespaces.iter().filter(others).cloned().collect()
    }

    /// Whether what was joined was the peer's.
    ///
    /// # Errors
    /// It has ended meanwhile.
    pub(super) fn check(&self) -> Result<()> {
        let joined = [Some(&self.running), self.processes.as_ref()];
        match joined.into_iter().flatten().all(|running| running.shim.process.is_alive()) {
            true => Ok(()),
            false => Err(Error::PeerEnded),
        }
    }
}

/// Lets a spec name what it joins.
pub(super) fn share(spec: &mut Spec, joined: &[(LinuxNamespaceType, PathBuf)]) {
    let Some(linux) = spec.linux_mut() else { return };
    for namespace in linux.namespaces_mut().iter_mut().flatten() {
        // Unless it was told to join another one.
        if namespace.path().is_none()
            && let Some((_, path)) = joined.iter().find(|(kind, _)| *kind == namespace.typ())
        {
            namespace.set_path(Some(path.clone()));
        }
    }
}

/// What the shim of a sandbox holds, and where.
pub(super) fn held(
    shim: u32,
    status: &StatusResponse,
) -> impl Iterator<Item = (LinuxNamespaceType, PathBuf)> {
    status.namespaces.iter().filter_map(move |held| {
        let (_, kind) = KINDS.iter().find(|(flag, _)| *flag == held.kind)?;
        Some((*kind, PathBuf::from(format!("/proc/{shim}/fd/{}", held.descriptor))))
    })
}
