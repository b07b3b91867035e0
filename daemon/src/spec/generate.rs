//! From a request to the OCI spec.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, Process, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder, UserBuilder,
};
use shim_plan::capability::CapabilitySet;
use shim_plan::{COVERS_ANNOTATION, profile};

use super::limits::{self, Checked};
use super::machine::HostDevice;
use super::{
    Adjustment, ContainerOptions, Error, IdMapping, Machine, NetworkMode, PidMode, cdi, etc,
    identity, mounts, privileges,
};

/// The version of the OCI runtime specification that generated specs follow.
const OCI_VERSION: &str = "1.2.0";

/// Where the rootfs is said to be. Nobody mounts it on the host, so there is nothing to point to.
const ROOT_PATH: &str = "rootfs";

/// What a spec needs beside the request.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    pub id: &'a str,
    /// `bosun/default/ID`.
    pub cgroup: &'a str,
    /// The run directory, in which [`etc_files`](super::etc_files) will lie.
    pub etc: &'a Path,
    /// The container's directory, in which its volumes will lie.
    pub container_dir: &'a Path,
    /// bosun's own root and state directories.
    pub own_directories: &'a [PathBuf],
    pub machine: &'a Machine,
}

/// A generated spec.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The stored truth: a typed spec may lose what it does not know.
    pub json: String,
    pub spec: Spec,
    /// The words of process 1.
    pub args: Vec<String>,
    /// What the user should know and is no error.
    pub warnings: Vec<String>,
}

impl Generated {
    /// The rules of its seccomp profile that have no effect, as bosun's own runtime compiles them: those
    /// that name what neither kernel nor library knows.
    ///
    /// # Errors
    /// It can't be compiled, so nothing could run under it.
    pub fn rules_without_effect(&self) -> Result<Vec<String>, Error> {
        let profile = self.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let Some(profile) = profile else { return Ok(Vec::new()) };
        Ok(shim_plan::seccomp::compile(profile)?.warnings)
    }
}

/// Checks a request and makes docker's container of it. Looks at the host: mount sources and the
/// rootfs must exist, and a privileged container has the host's devices.
///
/// # Errors
/// Names what is wrong with the request, and the way out.
pub fn generate(
    options: &ContainerOptions,
    surroundings: &Surroundings<'_>,
) -> Result<Generated, Error> {
    let machine = surroundings.machine;
    let args = options.args();
    if args.first().is_none_or(String::is_empty) {
        return Err(Error::NoCommand);
    }
    if let Some(word) = args.iter().find(|word| word.contains('\0')) {
        return Err(Error::malformed("command word", word, "text without NUL bytes"));
    }
    let warnings = check_network(options)?;
    if let Some(resolver) = &options.resolver {
        resolver.check()?;
    }
    identity::host_name("hostname", &options.hostname)?;
    identity::host_name("domain name", &options.domainname)?;
    let hostname = etc::hostname(options, surroundings.id, &machine.hostname);
    let checked = CheckedRequest {
        ids: identity::user(&options.user)?,
        cwd: identity::working_dir(&options.working_dir)?,
        env: identity::environment(options, &hostname)?,
        oom_score_adj: oom_score(options.oom_score_adj, machine)?,
        capabilities: privileges::capabilities(options, machine)?,
        limits: limits::check(&options.limits, machine)?,
        binds: mounts::check(options, surroundings.container_dir)?,
        covers: match &options.rootfs {
            Some(rootfs) => mounts::covers(rootfs, surroundings.own_directories)?,
            None => Vec::new(),
        },
        devices: privileges::devices(options)?,
        seccomp: privileges::seccomp(options)?,
        apparmor: privileges::apparmor(options, machine)?,
        ambient: privileges::ambient(options)?,
        hostname,
        args,
    };
    if options.privileged && options.users().is_some() {
        return Err(Error::Contradiction {
            what: "privileged",
            why: "is power over the host, which a user namespace has not: leave one of them away",
        });
    }
    let mut spec = build(options, surroundings, &checked)?;
    if let Some(edits) = &options.edits {
        cdi::apply(&mut spec, edits, options.has_host_devices())?;
    }
    shim_plan::check_users(&spec).map_err(Error::Users)?;
    let mut args = checked.args;
    if options.adjustment != Adjustment::default() {
        options.adjustment.apply(&mut spec, options, surroundings.container_dir)?;
        let process = spec.process().as_ref();
        args = process.and_then(|process| process.args().clone()).unwrap_or_default();
    }
    let json = serde_json::to_string_pretty(&spec)?;
    Ok(Generated { json, spec, args, warnings })
}

/// A request whose every part was looked at.
#[derive(Debug)]
struct CheckedRequest {
    args: Vec<String>,
    hostname: String,
    ids: identity::Ids,
    cwd: String,
    env: Vec<String>,
    oom_score_adj: Option<i32>,
    capabilities: CapabilitySet,
    limits: Checked,
    binds: Vec<mounts::CheckedBind>,
    covers: Vec<String>,
    devices: Vec<HostDevice>,
    seccomp: privileges::Filter,
    apparmor: Option<String>,
    ambient: CapabilitySet,
}

fn check_network(options: &ContainerOptions) -> Result<Vec<String>, Error> {
    let published = !options.ports.is_empty();
    match &options.network {
        NetworkMode::Host | NetworkMode::None if published => Ok(vec![format!(
            "published ports are passed over with network {}: only the bridge publishes",
            options.network
        )]),
        NetworkMode::Container(_) if published => Err(Error::Contradiction {
            what: "published ports",
            why: "belong to the container whose network is joined: publish them there",
        }),
        NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) => {
            Ok(Vec::new())
        }
    }
}

pub(super) fn oom_score(asked: Option<i32>, machine: &Machine) -> Result<Option<i32>, Error> {
    let Some(asked) = asked else { return Ok(None) };
    if !(-1000..=1000).contains(&asked) {
        let value = asked.to_string();
        return Err(Error::malformed("OOM score", value, "between -1000 and 1000"));
    }
    match machine.oom_score_floor {
        Some(own) if asked < own => Err(Error::OomScore { asked, own }),
        Some(_) | None => Ok(Some(asked)),
    }
}

fn build(
    options: &ContainerOptions,
    surroundings: &Surroundings<'_>,
    checked: &CheckedRequest,
) -> Result<Spec, OciSpecError> {
    let root = RootBuilder::default().path(ROOT_PATH).readonly(options.read_only).build()?;
    let mounts = mounts::mounts(options, &checked.binds, &checked.covers, surroundings.etc)?;
    let mut spec = SpecBuilder::default()
        .version(OCI_VERSION)
        .root(root)
        .hostname(&checked.hostname)
        .mounts(mounts)
        .process(process(options, checked)?)
        .linux(linux(options, surroundings, checked)?);
    if !options.domainname.is_empty() {
        spec = spec.domainname(&options.domainname);
    }
    let mut annotations = HashMap::new();
    if !checked.covers.is_empty() {
        let list = serde_json::to_string(&checked.covers).map_err(OciSpecError::SerDe)?;
        annotations.insert(COVERS_ANNOTATION.to_owned(), list);
    }
    spec.annotations(annotations).build()
}

fn process(options: &ContainerOptions, checked: &CheckedRequest) -> Result<Process, OciSpecError> {
    let mut user = UserBuilder::default().uid(checked.ids.uid).gid(checked.ids.gid).build()?;
    let security = &options.security;
    user.set_additional_gids(Some(options.further_groups()).filter(|groups| !groups.is_empty()));
    let mut process = ProcessBuilder::default()
        .terminal(options.tty)
        .user(user)
        .args(checked.args.clone())
        .env(checked.env.clone())
        .cwd(&checked.cwd)
        .capabilities(privileges::sets_with(checked.capabilities, checked.ambient)?)
        .no_new_privileges(security.no_new_privileges)
        .build()?;
    process.set_apparmor_profile(checked.apparmor.clone());
    let label = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    if let Some(selinux) = &security.selinux {
        process.set_selinux_label(label(&selinux.process));
    }
    process.set_rlimits(None).set_oom_score_adj(checked.oom_score_adj);
    Ok(process)
}

fn linux(
    options: &ContainerOptions,
    surroundings: &Surroundings<'_>,
    checked: &CheckedRequest,
) -> Result<Linux, OciSpecError> {
    let machine = surroundings.machine;
    let devices: Result<Vec<_>, _> = checked.devices.iter().map(privileges::device).collect();
    let every_device = options.has_host_devices();
    let asked = if every_device { &[] } else { checked.devices.as_slice() };
    let mut linux = LinuxBuilder::default()
        .cgroups_path(format!("/{}", surroundings.cgroup.trim_matches('/')))
        .resources(limits::resources(&checked.limits, every_device, asked)?)
        .namespaces(namespaces(options)?)
        .masked_paths(privileges::masked_paths(options, machine))
        .readonly_paths(privileges::readonly_paths(options));
    if let Some(selinux) = &options.security.selinux
        && !selinux.mounts.is_empty()
    {
        linux = linux.mount_label(&selinux.mounts);
    }
    if let Some(users) = options.users() {
        linux = linux.uid_mappings(mappings(users.uids)?).gid_mappings(mappings(users.gids)?);
        if options.network == NetworkMode::Bridge {
            linux = linux.sysctl(open_network());
        }
    }
    if !checked.devices.is_empty() {
        linux = linux.devices(devices?);
    }
    match &checked.seccomp {
        privileges::Filter::None => {}
        privileges::Filter::Default => {
            linux = linux.seccomp(profile::default(checked.capabilities, machine.kernel));
        }
        privileges::Filter::Profile(profile) => linux = linux.seccomp((**profile).clone()),
    }
    linux.build()
}

/// New ones, less the network of the host. A namespace that is joined is handed to the shim as a
/// descriptor, so its entry has no path.
fn namespaces(options: &ContainerOptions) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    let network = match options.network {
        NetworkMode::Host => None,
        NetworkMode::Bridge | NetworkMode::None | NetworkMode::Container(_) => Some(Network),
    };
    let pid = match options.pid {
        PidMode::Host => None,
        PidMode::Shared | PidMode::Own | PidMode::Container(_) => Some(Pid),
    };
    let ipc = (!options.host_ipc).then_some(Ipc);
    pid.into_iter()
        .chain([Mount, Uts])
        .chain(ipc)
        .chain([Cgroup])
        .chain(network)
        .chain(options.users().is_some().then_some(User))
        .map(|typ| LinuxNamespaceBuilder::default().typ(typ).build())
        .collect()
}

fn mappings(list: &[IdMapping]) -> Result<Vec<LinuxIdMapping>, OciSpecError> {
    let mapping = |IdMapping { container_id, host_id, size }: &IdMapping| {
        let builder = LinuxIdMappingBuilder::default().container_id(*container_id);
        builder.host_id(*host_id).size(*size).build()
    };
    list.iter().map(mapping).collect()
}

/// The network is made by the daemon, so a user namespace's root has no power over it. What anybody
/// needs of that power is open to all in it: low ports, and ping.
fn open_network() -> HashMap<String, String> {
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
