//! From the end of a run to nothing: what is taken away, and in which order.
//!
//! ```text
//!  exit committed ─▶ LetGo ─▶ told ─▶ Dismantle            the container stays, and can be started
//!                                         │
//!  removal committed: name and id are free┴─▶ Erase
//! ```
//!
//! With auto-remove the two commits are one. The daemon walks these very lists. Every part is found by
//! the container's name alone and may be missing already, so whoever starts after a crash walks them
//! again from their beginning. The rules, each an assertion of the model (`tests/lifecycle_model`):
//!
//! 1. What is said to be removed is committed first: a record never lacks its directories.
//! 2. A name is free when its record is gone, and what others could miss (ports, address) is free too.
//! 3. Nobody takes away what a living shim holds: its mounts keep the snapshot, its identity is the
//!    only way to find it.
//! 4. A removal is noted as clean when nothing is left; until then every start of the daemon goes on
//!    with it.

/// What others may be waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LetGo {
    /// Its place in the network: address, veth and port elements.
    Network,
    /// The shim is told that it may go: its ports are free with the answer.
    Release,
}

impl LetGo {
    pub const ORDER: [Self; 2] = [Self::Network, Self::Release];
}

/// The rest of a run. It is the undo of a failed start and of a crash as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dismantle {
    /// The shim's end is waited for; what it held mounted is free then.
    ShimEnd,
    /// What is left in its cgroups is killed, and they go.
    Cgroups,
    /// What others find a pod's network by.
    NetworkName,
    /// The directory of its sockets.
    Sockets,
    /// The run directory, and with it the shim's identity. It comes last: while it is there, a daemon
    /// knows that there is something to take apart.
    RunDirectory,
}

impl Dismantle {
    pub const ORDER: [Self; 5] =
        [Self::ShimEnd, Self::Cgroups, Self::NetworkName, Self::Sockets, Self::RunDirectory];
}

/// What outlives a run, and goes with the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Erase {
    /// Spec, log, exit record and volumes.
    ContainerDirectory,
    Snapshot,
    /// The store hears that nothing is left.
    Noted,
}

impl Erase {
    pub const ORDER: [Self; 3] = [Self::ContainerDirectory, Self::Snapshot, Self::Noted];
}

/// What becomes of a request to remove a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Removal {
    /// It runs.
    Refuse,
    /// Kill it and commit its exit, then ask again, without force.
    EndFirst,
    Commit,
}

/// The answer to a request to remove a container. `runs`: it has a run whose end is not committed.
#[must_use]
pub fn asked(runs: bool, force: bool) -> Removal {
    match (runs, force) {
        (true, false) => Removal::Refuse,
        (true, true) => Removal::EndFirst,
        (false, _) => Removal::Commit,
    }
}
