//! Lowers an OCI runtime spec to the plan that the shim executes.
//!
//! ```text
//!   config.json ──▶ Spec ──┐
//!                          ├─▶ plan() ──▶ CreateOptions (the shim itself) + Plan (its child)
//!   what it can't say ─────┘               seccomp compiled, options as flags, names as numbers
//!   (Context)
//! ```
//!
//! | module | lowers |
//! |---|---|
//! | [`parse`] | `config.json` to the typed specification |
//! | `refuse` | nothing: names what bosun does not do, so that no field is silently ignored |
//! | `namespaces` | `linux.namespaces`, `linux.timeOffsets`, `hostname`, `linux.sysctl` |
//! | `users` | `linux.uidMappings`, `linux.gidMappings` |
//! | `mounts` | `mounts`, `linux.maskedPaths`, `linux.readonlyPaths`; fstab options to `MS_*` |
//! | `devices` | `linux.devices` and `linux.resources.devices` |
//! | `resources`, `scope` | `linux.resources`, `linux.cgroupsPath` |
//! | `process` | `process`: credentials, limits, terminal |
//! | `hooks` | `hooks`, and the state they are told |
//! | [`features`] | nothing: says what all of these take |
//! | [`capability`] | names of capabilities to bit sets |
//! | [`seccomp`] | `linux.seccomp` to BPF, each profile once per process |
//! | [`profile`] | the default seccomp profile |
//!
//! Properties that the OCI specification does not know are passed over, as it demands; fields that
//! it does know and bosun does not do are refused by their JSON path.
//!
//! Deliberately absent: looking at the host. Nothing here opens a path of the spec, so the answer
//! depends on the arguments alone.
#![forbid(unsafe_code)]

pub mod capability;
mod devices;
mod error;
pub mod features;
mod hooks;
mod mounts;
mod namespaces;
pub mod parse;
mod process;
pub mod profile;
mod refuse;
mod resources;
mod scope;
pub mod seccomp;
mod users;

use std::path::PathBuf;

use oci_spec::runtime::{self as oci, Spec};
use shim_wire::hooks::{HookKind, Hooks, State};
use shim_wire::plan::{CreateOptions, ExecOptions, Log, Plan, Resources, Rootfs};

use capability::CapabilitySet;
pub use error::Error;
pub use scope::Scope;

/// Annotation of a spec: a JSON array of mount destinations that only hide what the rootfs has
/// there ([`only_if_present`](shim_wire::plan::PlanMount::only_if_present)). A runtime that does not
/// know it makes the mount in any case, which is harmless.
pub const COVERS_ANNOTATION: &str = "io.bosun.covers";

/// What the spec can't say.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The container's, as hooks are told it.
    pub id: String,
    /// Which run of the container this is, counted from 1.
    pub attempt: u64,
    /// Absent: output is not logged.
    pub log: Option<Log>,
    pub layers: Layers,
    /// Where relative paths of the spec begin (the bundle); without it they are refused, and hooks,
    /// which are told it.
    pub bundle: Option<PathBuf>,
    /// Used when the spec has no `linux.cgroupsPath`; the container's id where systemd names the
    /// group.
    pub cgroup: String,
    /// systemd manages control groups: the path is `SLICE:PREFIX:NAME`, and whoever executes the plan
    /// has the [`Scope`] made first.
    pub systemd_cgroup: bool,
    /// The namespace descriptor that waits for the shim at its start (`Bootstrap`): the spec's
    /// network namespace must then have no path.
    pub network_handed_over: bool,
    /// Standard input is held open for clients.
    pub stdin: bool,
    /// Standard input ends when the client that sends it goes.
    pub stdin_once: bool,
    /// Of the terminal at its birth; 0 falls back to `process.consoleSize`.
    pub width: u32,
    pub height: u32,
    /// `NAME|UID[:GROUP|GID]` as docker's `-u`; empty: the numbers of `process.user` hold.
    pub user: String,
    /// The groups that `/etc/group` gives to [`user`](Self::user) are left out.
    pub strict_groups: bool,
    /// Run under bosun's own init.
    pub init: bool,
}

/// Where the rootfs comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Layers {
    /// `root.path` is the rootfs itself.
    #[default]
    Spec,
    Overlay {
        /// Nearest first; at least one.
        lower: Vec<String>,
        /// Absent: a read-only overlay.
        writable: Option<Writable>,
    },
}

/// The upper layer of an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writable {
    pub upper: String,
    pub work: String,
    /// Never synced.
    pub volatile: bool,
}

/// What an exec's process needs beside its [`oci::Process`].
#[derive(Clone, Debug, Default)]
pub struct ExecContext {
    pub stdin: bool,
    pub width: u32,
    pub height: u32,
    /// As [`Context::user`].
    pub user: String,
    pub strict_groups: bool,
    /// What the agent of the container's seccomp listener is told ([`state`]).
    pub state: State,
    /// The container's own `linux.personality`.
    pub personality: Option<oci::LinuxPersonality>,
}

/// What systemd has to make before the plan can be executed; `None` where it does not manage groups.
///
/// # Errors
/// Names `linux.cgroupsPath`.
pub fn scope(spec: &Spec, context: &Context) -> Result<Option<Scope>, Error> {
    if !context.systemd_cgroup {
        return Ok(None);
    }
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    resources::scope(path, context).map(Some)
}

/// Lowers a container.
///
/// # Errors
/// Names the JSON path of the first field that is malformed, contradictory or not supported.
pub fn plan(spec: &Spec, context: &Context) -> Result<(CreateOptions, Plan), Error> {
    refuse::unsupported(spec)?;
    let process = spec.process().as_ref().ok_or_else(|| Error::missing("process"))?;
    let namespaces = namespaces::lower(spec, context)?;
    users::check_process(process, &namespaces.users)?;
    let (width, height) = process::window(process, context.width, context.height)?;
    let linux = spec.linux().as_ref().ok_or_else(|| Error::missing("linux"))?;
    let hooks = hooks::lower(spec, context)?.map_or(0, |hooks| hooks.kinds());
    let create = CreateOptions {
        attempt: context.attempt,
        clone_flags: namespaces.clone_flags,
        join: namespaces.join,
        cgroup: resources::cgroup(linux.cgroups_path().as_deref(), context)?,
        resources: resources::of_new(linux.resources().as_ref(), spec.version())?,
        terminal: process.terminal().unwrap_or(false),
        stdin: context.stdin,
        stdin_once: context.stdin_once,
        log: context.log.clone(),
        width,
        height,
        new_cgroup_namespace: namespaces.new_cgroup_namespace,
        hooks,
        ..CreateOptions::default()
    };
    let mut lowered = process::lower(process, linux.seccomp().as_ref(), &context.user)?;
    lowered.init = context.init;
    process::leave_groups(&mut lowered, context.strict_groups);
    if let Some(notify) = &mut lowered.notify {
        notify.state = Some(hooks::state(spec, context, "linux.seccomp.listenerPath")?);
        if hooks & HookKind::StartContainer.bit() != 0 {
            let why =
                "run under the container's seccomp filter, which has one listener, the container's";
            return Err(Error::contradiction("hooks.startContainer", why));
        }
    }
    // It is about execs, and not about a container's first process (config.md).
    lowered.cpus_at_clone.clear();
    lowered.cpus.clear();
    lowered.personality = linux.personality().as_ref().map(process::personality).transpose()?;
    let (readonly_paths, is_root_readonly) = mounts::readonly(linux)?;
    let rootfs = rootfs(spec, context, namespaces.has_user)?;
    let plan = Plan {
        hostname: namespaces.hostname,
        domainname: namespaces.domainname,
        rootfs: Some(Rootfs {
            shown_at: shown_at(spec, context, hooks),
            readonly: rootfs.readonly || is_root_readonly,
            ..rootfs
        }),
        mounts: mounts::lower(
            spec,
            context.bundle.as_deref(),
            namespaces.has_user,
            &namespaces.users,
        )?,
        masked_paths: mounts::masked(linux)?,
        readonly_paths,
        devices: devices::lower(spec)?,
        sysctls: namespaces.sysctls,
        process: Some(lowered),
        loopback: namespaces.loopback,
        new_cgroup_namespace: namespaces.new_cgroup_namespace,
        time_offsets: namespaces.time_offsets,
        uid_mappings: namespaces.users.uids,
        gid_mappings: namespaces.users.gids,
        root_propagation: mounts::root_propagation(linux)?,
        mount_label: linux.mount_label().clone().unwrap_or_default(),
    };
    Ok((create, plan))
}

/// Whether the users of a spec's user namespace can be, for who wants to know before [`plan`].
///
/// # Errors
/// Names the JSON path of what is wrong with them.
pub fn check_users(spec: &Spec) -> Result<(), Error> {
    let linux = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let mut namespaces = linux.into_iter().flatten();
    let kind = match namespaces.find(|one| one.typ() == oci::LinuxNamespaceType::User) {
        None => users::Namespace::None,
        Some(one) if one.path().is_some() => users::Namespace::Joined,
        Some(_) => users::Namespace::New,
    };
    let users = users::lower(spec, kind)?;
    spec.process().as_ref().map_or(Ok(()), |process| users::check_process(process, &users))
}

/// Lowers a further process of a running container; `seccomp` is the container's own profile.
///
/// # Errors
/// As [`plan`].
pub fn exec(
    process: &oci::Process,
    seccomp: Option<&oci::LinuxSeccomp>,
    context: &ExecContext,
) -> Result<ExecOptions, Error> {
    let (width, height) = process::window(process, context.width, context.height)?;
    refuse::process(process)?;
    let mut lowered = process::lower(process, seccomp, &context.user)?;
    process::leave_groups(&mut lowered, context.strict_groups);
    if let Some(notify) = &mut lowered.notify {
        (notify.state, notify.is_exec) = (Some(context.state.clone()), true);
    }
    lowered.personality = context.personality.as_ref().map(process::personality).transpose()?;
    let process = Some(lowered);
    Ok(ExecOptions { process, stdin: context.stdin, width, height, ..ExecOptions::default() })
}

/// Takes from all five sets of a process what `held` has not, and says of each set what it lost: the
/// specification wants a warning, and not an error, for what can't be granted (config.md,
/// `capabilities`).
pub fn restrict(process: &mut oci::Process, held: CapabilitySet) -> Vec<String> {
    process::restrict(process, held)
}

/// Lowers new limits of a running container: what is absent stays as it is, as OCI has it for
/// `update`. Nothing at all is absent resources.
///
/// # Errors
/// As [`plan`].
pub fn resources(spec: &oci::LinuxResources) -> Result<Resources, Error> {
    Ok(resources::lower(Some(spec))?.unwrap_or_default())
}

/// What of a container's state never changes, as hooks and seccomp agents are told it.
///
/// # Errors
/// Without a bundle.
pub fn state(spec: &Spec, context: &Context) -> Result<State, Error> {
    hooks::state(spec, context, "state")
}

/// The container's hooks with what they are told, for the file
/// [`hooks`](shim_wire::files::RunDir::hooks) of the run directory; absent when there are none.
///
/// # Errors
/// As [`plan`], which names the kinds of them in its answer.
pub fn hooks(spec: &Spec, context: &Context) -> Result<Option<Hooks>, Error> {
    hooks::lower(spec, context)
}

/// Where hooks look for the rootfs, when some run before it is the root.
fn shown_at(spec: &Spec, context: &Context, hooks: u32) -> String {
    let before = [HookKind::Prestart, HookKind::CreateRuntime, HookKind::CreateContainer];
    if before.iter().all(|kind| hooks & kind.bit() == 0) {
        return String::new();
    }
    let path = spec.root().as_ref().map(oci::Root::path);
    let path = path.and_then(|path| mounts::host_path(path, context.bundle.as_deref(), "").ok());
    path.unwrap_or_default()
}

fn rootfs(spec: &Spec, context: &Context, idmap: bool) -> Result<Rootfs, Error> {
    let root = spec.root().as_ref().ok_or_else(|| Error::missing("root"))?;
    let readonly = root.readonly().unwrap_or(false);
    match &context.layers {
        Layers::Spec => {
            let directory = mounts::host_path(root.path(), context.bundle.as_deref(), "root.path")?;
            Ok(Rootfs { directory, readonly, ..Rootfs::default() })
        }
        Layers::Overlay { lower, .. } if lower.is_empty() => Err(Error::missing("rootfs layers")),
        Layers::Overlay { lower, writable: None } => Ok(Rootfs {
            lower: lower.clone(),
            readonly,
            idmap,
            overlay_options: label(spec),
            ..Rootfs::default()
        }),
        Layers::Overlay { lower, writable: Some(writable) } => Ok(Rootfs {
            lower: lower.clone(),
            upper: writable.upper.clone(),
            work: writable.work.clone(),
            volatile: writable.volatile,
            readonly,
            idmap,
            overlay_options: label(spec),
            ..Rootfs::default()
        }),
    }
}

/// The SELinux context of an overlay, as its option.
fn label(spec: &Spec) -> Vec<String> {
    let label = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref());
    label
        .filter(|label| !label.is_empty())
        .map(|label| format!("context={label}"))
        .into_iter()
        .collect()
}
