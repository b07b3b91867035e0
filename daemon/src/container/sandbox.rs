//! Pods. A sandbox is a container's record and actor, whose run holds namespaces instead of a process:
//! so a sandbox survives the daemon, is recovered, keeps its ports and its exit as every container
//! does, by the same code.
//!
//! ```text
//!   sandbox ─ its shim ─ holds ipc, uts, net, user (and pid: then its one process is bosun's own init)
//!     ▲ Role::Member(id)
//!   containers of the pod, each with a shim of its own, join what it holds
//! ```
//!
//! The network namespace is bound at `/run/netns/bosun-ID`, where those look who configure networks:
//! the one mount that bosun makes in the host's table.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use oci_spec::runtime::LinuxNamespaceType;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use shim_wire::files::RunDir;
use shim_wire::id::Id;
use shim_wire::plan::{self, CreateOptions, Plan, Sysctl};

use super::handle::Handle;
use super::peer::{IPC, NET, PID, USER, UTS};
use super::supervisor::{Created, Supervisor};
use super::usage::{Interface, Pressure};
use super::{Key, peer, run};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::requests::Request;
use crate::spec::{BindMount, ContainerOptions, NetworkMode, Role, Sandbox};
use crate::{directories, network};

/// Where everybody looks for network namespaces (ip-netns(8)).
const NETNS: &str = "/run/netns";

/// The counters of whose network a thread is in.
const NET_DEV: &str = "/proc/thread-self/net/dev";

/// How long a container of a removed pod has to end.
const AT_ONCE: Duration = Duration::ZERO;

impl Supervisor {
    /// Makes a sandbox and starts it. When the start fails nothing is left.
    ///
    /// # Errors
    /// As [`Supervisor::run`].
    pub async fn run_sandbox(
        self: &Arc<Self>,
        request: Request,
        options: ContainerOptions,
    ) -> Result<Created> {
        if matches!(options.network, NetworkMode::Container(_)) {
            return Err(Error::InvalidArgument {
                what: "network",
                problem: "a sandbox has a network of its own: bridge, host or none".to_owned(),
            });
        }
        self.run(request, options).await
    }

    /// # Errors
    /// There is none of that name.
    pub fn sandbox(&self, namespace: &Id, reference: &str) -> Result<Handle> {
        match self.registry.find(namespace, reference) {
            Ok(handle) if handle.is_sandbox() => Ok(handle),
            Ok(_) | Err(Error::NoSuchContainer { .. }) => {
                Err(Error::NoSuchSandbox { reference: reference.to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    /// The sandboxes of a namespace.
    #[must_use]
    pub fn sandboxes(&self, namespace: &Id) -> Vec<Handle> {
        self.registry.list(namespace).into_iter().filter(Handle::is_sandbox).collect()
    }

    /// The containers of a sandbox.
    #[must_use]
    pub fn members(&self, sandbox: &Handle) -> Vec<Handle> {
        let is_member = |handle: &Handle| {
            let own = |id: &str| id == sandbox.key.id.as_str();
            handle.record().is_ok_and(
                |record| matches!(&record.options.role, Role::Member(id) if own(id.as_str())),
            )
        };
        self.registry.list(&sandbox.key.namespace).into_iter().filter(is_member).collect()
    }

    /// The interfaces of a running sandbox's network, without loopback.
    ///
    /// # Errors
    /// It does not run, or its network can't be looked into.
    pub fn interfaces(&self, sandbox: &Handle) -> Result<Vec<Interface>> {
        sandbox.running()?;
        let path = network_path(&sandbox.key);
        let text = network::in_namespace(&path, || std::fs::read_to_string(NET_DEV))
            .map_err(Error::file("look into", &path))?;
        Ok(Interface::all(&text))
    }

    /// What the processes of a sandbox waited for, where its kubelet has given it a group and the kernel
    /// counts it.
    #[must_use]
    pub fn pressure(&self, sandbox: &Handle) -> Option<Pressure> {
        run::pod_pressure(&self.core, &sandbox.key, &*sandbox.record().ok()?)
    }

    /// Stops the containers of a sandbox, all at once, then the sandbox.
    ///
    /// # Errors
    /// One hangs even after KILL; the others are stopped all the same.
    pub async fn stop_sandbox(
        self: &Arc<Self>,
        namespace: &Id,
        reference: &str,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let sandbox = self.sandbox(namespace, reference)?;
        self.stop_members(&sandbox, timeout).await?;
        self.stop(namespace, sandbox.key.id.as_str(), timeout).await.map(drop)
    }

    /// Stops the containers of a sandbox, all at once. One that is removed meanwhile has ended as well.
    ///
    /// # Errors
    /// One hangs even after KILL; the others are stopped all the same.
    pub async fn stop_members(
        self: &Arc<Self>,
        sandbox: &Handle,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let members = self.members(sandbox);
        let stops = members
            .iter()
            .map(|member| self.stop(&member.key.namespace, member.key.id.as_str(), timeout));
        join_all(stops).await.into_iter().try_for_each(|stopped| match stopped {
            Ok(_) | Err(Error::NoSuchContainer { .. } | Error::Removing { .. }) => Ok(()),
            Err(error) => Err(error),
        })
    }

    /// Removes a sandbox; with `force`, its containers as well.
    ///
    /// # Errors
    /// It has containers, or runs, and `force` is not set.
    pub async fn remove_sandbox(
        self: &Arc<Self>,
        namespace: &Id,
        reference: &str,
        force: bool,
    ) -> Result<String> {
        let sandbox = self.sandbox(namespace, reference)?;
        let members = self.members(&sandbox);
        if !members.is_empty() && !force {
            let members = members.iter().map(Handle::label).collect();
            return Err(Error::SandboxInUse { id: sandbox.label(), members });
        }
        if force {
            self.stop_members(&sandbox, Some(AT_ONCE)).await?;
            let removals = members
                .iter()
                .map(|member| self.remove(&member.key.namespace, member.key.id.as_str(), true));
            for removed in join_all(removals).await {
                match removed {
                    // One that goes with its end.
                    Ok(_) | Err(Error::NoSuchContainer { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.remove(namespace, sandbox.key.id.as_str(), force).await
    }
}

/// Makes a container one of a sandbox: whatever is shared is the sandbox's.
///
/// # Errors
/// The sandbox does not run, or the container wants something of its own that is shared.
pub(super) fn enter(core: &Core, sandbox: &Handle, options: &mut ContainerOptions) -> Result<()> {
    sandbox.running()?;
    let record = sandbox.record()?;
    let refused = |what| Error::InvalidArgument {
        what,
        problem: format!("it is that of sandbox {}: leave it out", sandbox.label()),
    };
    if options.network != NetworkMode::Bridge {
        return Err(refused("network"));
    }
    if !options.hostname.is_empty() || !options.domainname.is_empty() {
        return Err(refused("host name"));
    }
    if options.users().is_some() {
        return Err(refused("user namespace"));
    }
    if !options.ports.is_empty() || options.publish_all {
        return Err(Error::InvalidArgument {
            what: "published ports",
            problem: format!("publish them with sandbox {}, when it is made", sandbox.label()),
        });
    }
    let id = sandbox.key.id.to_string();
    options.network = match record.options.network {
        NetworkMode::Host => NetworkMode::Host,
        NetworkMode::Bridge | NetworkMode::None | NetworkMode::Container(_) => {
            NetworkMode::Container(id.clone())
        }
    };
    options.hostname = crate::spec::hostname(&record.options, &record.id, "");
    options.host_ipc = record.options.host_ipc;
    if options.resolver.is_none() {
        options.resolver.clone_from(&record.options.resolver);
    }
    if options.cgroup_parent.is_empty() {
        options.cgroup_parent.clone_from(&record.options.cgroup_parent);
    }
    options.uid_mappings.clone_from(&record.options.uid_mappings);
    options.gid_mappings.clone_from(&record.options.gid_mappings);
    let run_dir = core.layout.run_dir(&sandbox.key.namespace, &sandbox.key.id);
    let own = options.mounts.iter().any(|mount| mount.destination == "/dev/shm");
    if !own && !options.host_ipc {
        options.mounts.push(BindMount {
            source: run_dir.shared_memory(),
            destination: "/dev/shm".to_owned(),
            ..BindMount::default()
        });
    }
    options.role = Role::Member(id);
    Ok(())
}

/// Makes a sandbox of the plan of a container.
pub(super) fn lower(sandbox: &Sandbox, create: &mut CreateOptions, plan: &mut Plan) {
    let sysctls = sandbox.sysctls.iter().map(|(name, value)| Sysctl {
        // As sysctl(8) has it: with slashes already, dots are parts of names.
        path: if name.contains('/') { name.clone() } else { name.replace('.', "/") },
        value: value.clone(),
    });
    plan.sysctls.extend(sysctls);
    create.log = None;
    if sandbox.share_pid {
        if let Some(process) = &mut plan.process {
            process.pause = true;
        }
        create.held = IPC | UTS | NET | PID | (create.clone_flags & USER);
        return;
    }
    create.clone_flags &= IPC | UTS | NET | USER;
    create.sandbox = Some(plan::Sandbox {
        hostname: plan.hostname.clone(),
        domainname: plan.domainname.clone(),
        sysctls: std::mem::take(&mut plan.sysctls),
        uid_mappings: std::mem::take(&mut plan.uid_mappings),
        gid_mappings: std::mem::take(&mut plan.gid_mappings),
        loopback: plan.loopback,
    });
}

/// `/dev/shm` of a pod: a directory on the tmpfs that the state lies on. It belongs to the root of
/// the pod's containers.
pub(super) fn make_shared_memory(run_dir: &RunDir, root: Option<(u32, u32)>) -> Result<()> {
    let path = run_dir.shared_memory();
    let make = || {
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        // Whatever the umask is.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o1777))?;
        root.map_or(Ok(()), |(uid, gid)| chown(&path, Some(uid), Some(gid)))
    };
    make().map_err(Error::file("make directory", &path))
}

/// The file that a sandbox's network namespace is bound to.
#[must_use]
pub fn network_path(key: &Key) -> PathBuf {
    Path::new(NETNS).join(format!("bosun-{}", key.id))
}

/// Binds the network namespace of a sandbox where others look for it.
pub(super) fn publish_network(
    key: &Key,
    shim: u32,
    status: &shim_wire::shim::StatusResponse,
) -> Result<()> {
    let network = |(kind, _): &(LinuxNamespaceType, _)| *kind == LinuxNamespaceType::Network;
    let Some((_, source)) = peer::held(shim, status).find(network) else { return Ok(()) };
    let path = network_path(key);
    let bind = || {
        // Others than root look at namespaces there as well.
        directories::make(Path::new(NETNS))?;
        shim_failpoints::step!("daemon.pod.before_publish", error);
        std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        shim_failpoints::step!("daemon.pod.after_file", error);
        mount_bind(&source, &path).map_err(std::io::Error::from)
    };
    bind().map_err(Error::file("bind the network namespace at", &path))?;
    shim_failpoints::step!("daemon.pod.after_publish", error);
    Ok(())
}

/// Undoes [`publish_network`]. What is not there is fine.
pub(super) fn withdraw_network(key: &Key) {
    let path = network_path(key);
    if !path.exists() {
        return;
    }
    shim_failpoints::step!("daemon.pod.before_withdrawal");
    // Once for each time that it was bound.
    while unmount(&path, UnmountFlags::DETACH).is_ok() {}
    shim_failpoints::step!("daemon.pod.after_unmount");
    if let Err(error) = std::fs::remove_file(&path) {
        tracing::warn!(path = %path.display(), %error, "not removed");
    }
}
