//! Containers: what they are asked to be, as the core's options, and a container as the kubelet sees
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use shim_rootfs::user::Identity;

use super::pod::words_of_member;
use super::{absolute, below, core_name, id_mappings, limits, nanos, signal, signal_number};
use crate::apparmor::{DEFAULT as DEFAULT_PROFILE, Support, UNCONFINED};
use crate::container::{Exit, Handle, Phase, Reason, Record, Run};
use crate::cri::{invalid, kept, required, wire};
use crate::error::Result;
use crate::spec::{
    AppArmor, BindMount, Change, ContainerOptions, DeviceRequest, ImageMount, LogOptions, Machine,
    PidMode, Propagation, Role, Seccomp, Security, Selinux, Signal,
};

/// The highest id of users and groups.
const ID_MAX: i64 = i32::MAX as i64;

/// What older kubelets call the runtime's own profile.
const RUNTIME_DEFAULT: &str = "runtime/default";

/// The container that a kubelet asks for, in the pod of this record.
///
/// # Errors
/// Names the part that is missing or can't be.
pub(crate) fn container_options(
    request: &wire::CreateContainerRequest,
    pod: &Record,
    machine: &Machine,
) -> Result<ContainerOptions> {
    let config = required(request.config.as_ref(), "config")?;
    let metadata = required(config.metadata.as_ref(), "config.metadata")?;
    if metadata.name.is_empty() {
        return Err(invalid("config.metadata", "a container has a name"));
    }
    let image = config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
    if image.is_empty() {
        return Err(invalid("config.image", "no image is named"));
    }
    let linux = config.linux.clone().unwrap_or_default();
    let context = linux.security_context.clone().unwrap_or_default();
    let capabilities = capabilities(context.capabilities.clone().unwrap_or_default());
    if context.privileged && !is_privileged(pod) {
        let problem = "the pod is not: set it in the pod's security context as well";
        return Err(invalid("privileged", problem));
    }
    let resources = linux.resources.clone().unwrap_or_default();
    let users = pod.options.users().is_some();
    check_users(context.namespace_options.as_ref(), pod)?;
    let kept = wire::CreateContainerRequest { sandbox_config: None, ..request.clone() };
    Ok(ContainerOptions {
        name: container_name(metadata, &pod.id),
        image: Some(image),
        entrypoint: Some(config.command.clone()).filter(|words| !words.is_empty()),
        command: config.args.clone(),
        env: environment(&config.envs)?,
        working_dir: config.working_dir.clone(),
        user: user(&context)?,
        tty: config.tty,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        read_only: context.readonly_rootfs,
        privileged: context.privileged,
        cap_add: capabilities.add_capabilities,
        cap_drop: capabilities.drop_capabilities,
        mounts: config
            .mounts
            .iter()
            .filter(|mount| image_of(mount).is_none())
            .map(|one| mount(one, pod))
            .collect::<Result<_>>()?,
        image_mounts: config
            .mounts
            .iter()
            .filter_map(|mount| image_of(mount).map(|image| image_mount(mount, image, pod)))
            .collect::<Result<_>>()?,
        devices: config.devices.iter().map(device).collect(),
        cdi_devices: cdi_devices(config)?,
        limits: limits(&resources, machine.counts_swap)?,
        oom_score_adj: oom_score(resources.oom_score_adj, machine)?,
        stop_signal: signal(config.stop_signal)?,
        labels: config.labels.clone().into_iter().collect(),
        log: log(config, pod)?,
        security: security(&context, &capabilities.add_ambient_capabilities, users, machine)?,
        pid: pid(context.namespace_options.as_ref())?,
        role: Role::Member(pod.id.clone()),
        runtime: kept::pod(pod).runtime_handler,
        once: true,
        extensions: BTreeMap::from([(kept::NAME.to_owned(), kept::text(&kept))]),
        event_attributes: words_of_member(pod),
        ..ContainerOptions::default()
    })
}

/// Whether containers of a pod may be privileged.
fn is_privileged(pod: &Record) -> bool {
    let linux = kept::pod(pod).config.and_then(|config| config.linux);
    linux.and_then(|linux| linux.security_context).is_some_and(|context| context.privileged)
}

/// In the CRI what is dropped is dropped at last, whoever adds it: ALL comes first, then what is added,
/// then what is dropped. In the core, as with docker, what is added stays; so what is in both lists
/// leaves the one of additions.
fn capabilities(asked: wire::Capability) -> wire::Capability {
    let plain = |name: &String| {
        let name = name.to_ascii_uppercase();
        name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name)
    };
    let dropped: BTreeSet<String> = asked.drop_capabilities.iter().map(plain).collect();
    let kept = |list: Vec<String>| -> Vec<String> {
        list.into_iter().filter(|name| !dropped.contains(&plain(name))).collect()
    };
    wire::Capability {
        add_capabilities: kept(asked.add_capabilities),
        add_ambient_capabilities: kept(asked.add_ambient_capabilities),
        drop_capabilities: asked.drop_capabilities,
    }
}

/// What the core calls a container.
fn container_name(metadata: &wire::ContainerMetadata, pod: &str) -> String {
    let short: String = pod.chars().take(12).collect();
    core_name(&[&metadata.name, &short], &[&metadata.name, pod, &metadata.attempt.to_string()])
}

fn environment(variables: &[wire::KeyValue]) -> Result<Vec<String>> {
    let entry = |variable: &wire::KeyValue| {
        let value = std::str::from_utf8(&variable.value)
            .map_err(|_| invalid("config.envs", format!("{:?} is not UTF-8", variable.key)))?;
        match variable.key.is_empty() || variable.key.contains('=') {
            true => Err(invalid("config.envs", format!("{:?} is no name", variable.key))),
            false => Ok(format!("{}={value}", variable.key)),
        }
    };
    variables.iter().map(entry).collect()
}

/// `USER[:GROUP]`; empty is the image's.
fn user(context: &wire::LinuxContainerSecurityContext) -> Result<String> {
    let number = |what: &'static str, id: Option<&wire::Int64Value>| match id.map(|id| id.value) {
        Some(id) if !(0..=ID_MAX).contains(&id) => {
            Err(invalid(what, format!("{id} is not between 0 and {ID_MAX}")))
        }
        id => Ok(id),
    };
    let group = number("run_as_group", context.run_as_group.as_ref())?;
    let user =
        match (number("run_as_user", context.run_as_user.as_ref())?, &context.run_as_username) {
            (Some(uid), _) => uid.to_string(),
            (None, name) => name.clone(),
        };
    match (user.as_str(), group) {
        ("", Some(_)) => Err(invalid(
            "run_as_group",
            "it is not for the image's user: set run_as_user or run_as_username as well",
        )),
        (_, None) => Ok(user),
        (user, Some(group)) => Ok(format!("{user}:{group}")),
    }
}

/// The image that is mounted, where it is no directory of the host.
fn image_of(mount: &wire::Mount) -> Option<&str> {
    let image = mount.image.as_ref().map(|image| image.image.as_str());
    image.filter(|image| !image.is_empty())
}

fn image_mount(mount: &wire::Mount, image: &str, pod: &Record) -> Result<ImageMount> {
    let refused =
        |problem: &str| invalid("config.mounts", format!("{}: {problem}", mount.container_path));
    if !mount.host_path.is_empty() {
        return Err(refused("an image and a path of the host are two things"));
    }
    if !mount.readonly {
        return Err(refused("an image is mounted read-only"));
    }
    let sub_path = mount.image_sub_path.as_str();
    is_id_mapped(mount, pod)?;
    without_options(mount)?;
    let is_inside =
        Path::new(sub_path).components().all(|part| matches!(part, Component::Normal(_)));
    if !is_inside || sub_path.contains('\0') {
        return Err(refused("image_sub_path is no relative path without \"..\""));
    }
    Ok(ImageMount {
        image: image.to_owned(),
        snapshot: String::new(),
        destination: mount.container_path.clone(),
        sub_path: sub_path.to_owned(),
    })
}

fn mount(mount: &wire::Mount, pod: &Record) -> Result<BindMount> {
    let source = absolute("config.mounts", &mount.host_path)?;
    if mount.recursive_read_only && !mount.readonly {
        let problem = format!("{}: recursively read-only, but not read-only", mount.container_path);
        return Err(invalid("config.mounts", problem));
    }
    let propagation = match mount.propagation() {
        wire::MountPropagation::PropagationPrivate => Propagation::Rprivate,
        wire::MountPropagation::PropagationHostToContainer => Propagation::Rslave,
        wire::MountPropagation::PropagationBidirectional => Propagation::Rshared,
    };
    if mount.recursive_read_only && propagation != Propagation::Rprivate {
        let problem =
            format!("{}: recursively read-only needs private propagation", mount.container_path);
        return Err(invalid("config.mounts", problem));
    }
    without_options(mount)?;
    Ok(BindMount {
        source,
        destination: mount.container_path.clone(),
        read_only: mount.readonly,
        flat: !mount.recursive_read_only,
        id_mapped: is_id_mapped(mount, pod)?,
        propagation,
    })
}

/// As the features of the handlers say that it is (`cri/status.rs`).
fn without_options(mount: &wire::Mount) -> Result<()> {
    if mount.mount_options.is_empty() {
        return Ok(());
    }
    let (path, options) = (&mount.container_path, mount.mount_options.join(","));
    let problem = format!("{path}: mount_options are no feature of this handler: {options:?}");
    Err(invalid("config.mounts", problem))
}

/// Whether ids are mapped in a mount, which can be only as they are in the pod.
fn is_id_mapped(mount: &wire::Mount, pod: &Record) -> Result<bool> {
    let wire::Mount { container_path, uid_mappings, gid_mappings, .. } = mount;
    if uid_mappings.is_empty() && gid_mappings.is_empty() {
        return Ok(false);
    }
    let refused = |problem: &str| invalid("config.mounts", format!("{container_path}: {problem}"));
    if pod.options.users().is_none() {
        return Err(refused("its ids are mapped, but the pod has the host's users"));
    }
    if !are_of_pod(uid_mappings, gid_mappings, pod) {
        return Err(refused("its uid_mappings and gid_mappings are not the pod's"));
    }
    Ok(true)
}

fn are_of_pod(uids: &[wire::IdMapping], gids: &[wire::IdMapping], pod: &Record) -> bool {
    let ContainerOptions { uid_mappings, gid_mappings, .. } = &pod.options;
    id_mappings(uids) == *uid_mappings && id_mappings(gids) == *gid_mappings
}

/// A container has the users of its pod, whatever these are; nothing said of them is no other wish.
fn check_users(namespaces: Option<&wire::NamespaceOption>, pod: &Record) -> Result<()> {
    const WHAT: &str = "userns_options";
    let Some(asked) = namespaces.and_then(|options| options.userns_options.as_ref()) else {
        return Ok(());
    };
    let of_its_own = pod.options.users().is_some();
    let problem = match asked.mode() {
        wire::NamespaceMode::Pod if !of_its_own => {
            "a user namespace is asked for in a pod without one"
        }
        wire::NamespaceMode::Pod if !are_of_pod(&asked.uids, &asked.gids, pod) => {
            "the mappings are not the pod's"
        }
        wire::NamespaceMode::Node if of_its_own => {
            "the host's users are asked for in a pod with users of its own"
        }
        wire::NamespaceMode::Node if !asked.uids.is_empty() || !asked.gids.is_empty() => {
            "the host's users have no mappings"
        }
        wire::NamespaceMode::Pod | wire::NamespaceMode::Node => return Ok(()),
        wire::NamespaceMode::Container | wire::NamespaceMode::Target => {
            "a user namespace is the pod's or the host's"
        }
    };
    Err(invalid(WHAT, problem))
}

fn device(device: &wire::Device) -> DeviceRequest {
    DeviceRequest {
        host_path: PathBuf::from(&device.host_path),
        container_path: PathBuf::from(&device.container_path),
        access: device.permissions.clone(),
    }
}

/// Those of the field; then those of annotations, where kubelets and people said them before. What is
/// said in both ways is one.
fn cdi_devices(config: &wire::ContainerConfig) -> Result<Vec<String>> {
    let mut devices: Vec<String> =
        config.cdi_devices.iter().map(|device| device.name.clone()).collect();
    for device in bosun_cdi::of_annotations(&config.annotations)? {
        let name = device.to_string();
        if !devices.contains(&name) {
            devices.push(name);
        }
    }
    Ok(devices)
}

/// The kubelet gives a score to every container. One that this daemon can't go down to is as near as
/// it can.
fn oom_score(asked: i64, machine: &Machine) -> Result<Option<i32>> {
    let score = i32::try_from(asked).ok().filter(|score| (-1000..=1000).contains(score));
    let score = score.ok_or_else(|| {
        invalid("oom_score_adj", format!("{asked} is not between -1000 and 1000"))
    })?;
    Ok(Some(machine.oom_score_floor.map_or(score, |floor| score.max(floor))))
}

/// What a kubelet wants to be otherwise. 0 says nothing, of a score as of a limit: so the CPU manager's
/// updates have it.
///
/// # Errors
/// Names what can't be.
pub(crate) fn change(
    resources: &wire::LinuxContainerResources,
    machine: &Machine,
) -> Result<Change> {
    let oom_score_adj = match resources.oom_score_adj {
        0 => None,
        asked => oom_score(asked, machine)?,
    };
    Ok(Change { limits: limits(resources, machine.counts_swap)?, oom_score_adj })
}

fn log(config: &wire::ContainerConfig, pod: &Record) -> Result<LogOptions> {
    let directory = kept::pod(pod).config.unwrap_or_default().log_directory;
    if directory.is_empty() || config.log_path.is_empty() {
        return Ok(LogOptions::None);
    }
    Ok(LogOptions::Cri { path: below("config.log_path", &directory, &config.log_path)? })
}

fn pid(options: Option<&wire::NamespaceOption>) -> Result<PidMode> {
    // Nothing said is POD, the first of the modes.
    let options = options.cloned().unwrap_or_default();
    Ok(match options.pid() {
        wire::NamespaceMode::Pod => PidMode::Shared,
        wire::NamespaceMode::Container => PidMode::Own,
        wire::NamespaceMode::Node => PidMode::Host,
        wire::NamespaceMode::Target if options.target_id.is_empty() => {
            return Err(invalid("target_id", "no container is named whose processes are seen"));
        }
        wire::NamespaceMode::Target => PidMode::Container(options.target_id),
    })
}

fn security(
    context: &wire::LinuxContainerSecurityContext,
    ambient: &[String],
    users: bool,
    machine: &Machine,
) -> Result<Security> {
    let groups = context.supplemental_groups.iter().map(|group| {
        let id = u32::try_from(*group).ok().filter(|id| i64::from(*id) <= ID_MAX);
        id.ok_or_else(|| {
            invalid("supplemental_groups", format!("{group} is not between 0 and {ID_MAX}"))
        })
    });
    // An empty list is no list on the wire, and what a kubelet sends for `procMount: Unmasked`, which
    // it takes only with a user namespace.
    let paths = |list: &[String]| Some(list.to_vec()).filter(|list| users || !list.is_empty());
    Ok(Security {
        no_new_privileges: context.no_new_privs && !context.privileged,
        seccomp: seccomp(context)?,
        apparmor: apparmor(context, &machine.apparmor)?,
        selinux: context.selinux_options.as_ref().and_then(selinux),
        masked_paths: paths(&context.masked_paths),
        readonly_paths: paths(&context.readonly_paths),
        groups: groups.collect::<Result<_>>()?,
        strict_groups: context.supplemental_groups_policy()
            == wire::SupplementalGroupsPolicy::Strict,
        cap_ambient: ambient.to_vec(),
    })
}

/// Without a profile nothing is filtered.
fn seccomp(context: &wire::LinuxContainerSecurityContext) -> Result<Seccomp> {
    use wire::security_profile::ProfileType;
    let Some(profile) = &context.seccomp else { return old_seccomp(context) };
    Ok(match profile.profile_type() {
        ProfileType::RuntimeDefault => Seccomp::Default,
        ProfileType::Unconfined => Seccomp::Unconfined,
        ProfileType::Localhost => Seccomp::Profile(absolute("seccomp", &profile.localhost_ref)?),
    })
}

/// The field that older kubelets fill.
fn old_seccomp(context: &wire::LinuxContainerSecurityContext) -> Result<Seccomp> {
    #[expect(deprecated, reason = "older clients say it there")]
    let text = context.seccomp_profile_path.as_str();
    Ok(match text {
        "" | UNCONFINED => Seccomp::Unconfined,
        RUNTIME_DEFAULT | "docker/default" => Seccomp::Default,
        text => match text.strip_prefix("localhost/") {
            Some(path) => Seccomp::Profile(absolute("seccomp_profile_path", path)?),
            None => return Err(invalid("seccomp_profile_path", format!("{text:?} is no profile"))),
        },
    })
}

/// Without a word of a profile it is the default one, where the machine can have that.
fn apparmor(context: &wire::LinuxContainerSecurityContext, support: &Support) -> Result<AppArmor> {
    use wire::security_profile::ProfileType;
    #[expect(deprecated, reason = "older clients say it there")]
    let old = context.apparmor_profile.as_str();
    let asked = match &context.apparmor {
        Some(profile) => match profile.profile_type() {
            ProfileType::RuntimeDefault => RUNTIME_DEFAULT,
            ProfileType::Unconfined => UNCONFINED,
            ProfileType::Localhost if profile.localhost_ref.is_empty() => {
                return Err(invalid("apparmor", "no profile is named"));
            }
            ProfileType::Localhost => profile.localhost_ref.as_str(),
        },
        None => old,
    };
    if context.privileged {
        return Ok(AppArmor::Unconfined);
    }
    match (asked, support) {
        ("", _) | (RUNTIME_DEFAULT, Support::Full { .. }) => Ok(AppArmor::Default),
        (UNCONFINED, _) => Ok(AppArmor::Unconfined),
        (RUNTIME_DEFAULT, Support::NoDefault { reason }) => {
            Err(invalid("apparmor", format!("profile {DEFAULT_PROFILE}: {reason}")))
        }
        (RUNTIME_DEFAULT, Support::Absent) => {
            Err(invalid("apparmor", "it is not enabled on this machine's kernel"))
        }
        (name, _) => {
            let name = name.strip_prefix("localhost/").unwrap_or(name);
            Ok(AppArmor::Profile(name.to_owned()))
        }
    }
}

fn selinux(options: &wire::SeLinuxOption) -> Option<Selinux> {
    let wire::SeLinuxOption { user, role, r#type, level } = options;
    let or = |text: &str, other: &str| if text.is_empty() { other } else { text }.to_owned();
    if [user, role, r#type, level].iter().all(|part| part.is_empty()) {
        return None;
    }
    // Only where SELinux rules: elsewhere a label can't be set.
    if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        return None;
    }
    let (user, role) = (or(user, "system_u"), or(role, "system_r"));
    let (kind, level) = (or(r#type, "container_t"), or(level, "s0"));
    Some(Selinux {
        process: format!("{user}:{role}:{kind}:{level}"),
        mounts: format!("{user}:object_r:container_file_t:{level}"),
    })
}

/// What tells a container from others where its figures are.
pub(crate) fn container_attributes(record: &Record) -> wire::ContainerAttributes {
    let config = kept::listed(record);
    wire::ContainerAttributes {
        id: record.id.clone(),
        metadata: Some(metadata(record, config.metadata)),
        labels: config.labels,
        annotations: config.annotations,
    }
}

/// A container in a list.
pub(crate) fn listed_container(handle: &Handle, record: &Record) -> wire::Container {
    let config = kept::listed(record);
    wire::Container {
        id: record.id.clone(),
        pod_sandbox_id: pod_of(record).to_owned(),
        metadata: Some(metadata(record, config.metadata)),
        image: Some(image(record, config.image)),
        image_ref: image_ref(record),
        state: container_state(handle, record).into(),
        created_at: nanos(record.created_at),
        labels: config.labels,
        annotations: config.annotations,
        image_id: record.image.as_ref().map(|image| image.id.clone()).unwrap_or_default(),
    }
}

/// The pod that it is in; empty for one that is in none.
pub(crate) fn pod_of(record: &Record) -> &str {
    match &record.options.role {
        Role::Member(pod) => pod,
        Role::Alone | Role::Sandbox(_) => "",
    }
}

fn metadata(record: &Record, kept: Option<wire::ContainerMetadata>) -> wire::ContainerMetadata {
    let own = || wire::ContainerMetadata { name: record.name.clone(), attempt: 0 };
    kept.unwrap_or_else(own)
}

fn image(record: &Record, kept: Option<wire::ImageSpec>) -> wire::ImageSpec {
    wire::ImageSpec { image: record.image_name(), ..kept.unwrap_or_default() }
}

/// The image to the byte: its repository at its digest, where its name says the one.
fn image_ref(record: &Record) -> String {
    let Some(image) = &record.image else { return String::new() };
    let name = record.options.image.as_deref().unwrap_or_default();
    let reference = name.parse::<bosun_image::Reference>().ok();
    match (reference, image.target.parse::<bosun_image::Digest>()) {
        (Some(reference), Ok(digest)) => reference.at_digest(digest).name(),
        (_, _) => image.id.clone(),
    }
}

pub(crate) fn container_state(handle: &Handle, record: &Record) -> wire::ContainerState {
    match handle.view().phase {
        // One whose start failed is not started again.
        Phase::Created | Phase::Starting => match &record.run {
            Run::Created { error: Some(_), .. } => wire::ContainerState::ContainerExited,
            Run::Created { .. } | Run::Intent { .. } | Run::Ended { .. } => {
                wire::ContainerState::ContainerCreated
            }
        },
        Phase::Running(_) | Phase::Paused(_) => wire::ContainerState::ContainerRunning,
        Phase::Exited(exit) => match exit.reason {
            Reason::Exited => wire::ContainerState::ContainerExited,
            // It has ended; how, nobody can know.
            Reason::ShimLost | Reason::HostLost => wire::ContainerState::ContainerExited,
        },
        Phase::Removed(_) => wire::ContainerState::ContainerExited,
        Phase::Quarantined(_) => wire::ContainerState::ContainerUnknown,
    }
}

/// A container as it is.
pub(crate) fn container_status(handle: &Handle, record: &Record) -> wire::ContainerStatus {
    let config = kept::container(record).config.unwrap_or_default();
    let state = container_state(handle, record);
    let mut status = wire::ContainerStatus {
        id: record.id.clone(),
        metadata: Some(metadata(record, config.metadata)),
        state: state.into(),
        created_at: nanos(record.created_at),
        started_at: record.started_at.map(nanos).unwrap_or_default(),
        image: Some(image(record, config.image)),
        image_ref: image_ref(record),
        labels: config.labels,
        annotations: config.annotations,
        mounts: mounts(config.mounts, record),
        log_path: match &record.options.log {
            LogOptions::Cri { path } => path.to_string_lossy().into_owned(),
            LogOptions::JsonFile { .. } | LogOptions::None => String::new(),
        },
        resources: Some(wire::ContainerResources { linux: Some(resources(record)) }),
        image_id: record.image.as_ref().map(|image| image.id.clone()).unwrap_or_default(),
        stop_signal: signal_number(record.options.stop_signal.unwrap_or(Signal::TERM)),
        ..wire::ContainerStatus::default()
    };
    match &record.run {
        Run::Ended { exit, .. } => ended(&mut status, exit),
        Run::Created { error: Some(error), .. } => {
            // As the runtimes before this one have it.
            (status.exit_code, status.reason) = (128, "StartError".to_owned());
            (status.message, status.finished_at) = (error.clone(), status.created_at);
        }
        Run::Created { error: None, .. } | Run::Intent { .. } => {}
    }
    status
}

/// The mounts as they were asked for, with the ids of images.
fn mounts(mut asked: Vec<wire::Mount>, record: &Record) -> Vec<wire::Mount> {
    for mount in &mut asked {
        let is_it = |one: &&ImageMount| one.destination == mount.container_path;
        let made = record.options.image_mounts.iter().find(is_it);
        if let (Some(image), Some(made)) = (&mut mount.image, made) {
            image.image_ref.clone_from(&made.image);
        }
    }
    asked
}

/// The limits that hold now, which an update may have changed.
fn resources(record: &Record) -> wire::LinuxContainerResources {
    let limits = &record.options.limits;
    let signed =
        |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok()).unwrap_or(0);
    wire::LinuxContainerResources {
        cpu_period: signed(limits.cpu_period),
        cpu_quota: limits.cpu_quota.unwrap_or(0),
        cpu_shares: signed(limits.cpu_shares),
        memory_limit_in_bytes: limits.memory.unwrap_or(0),
        memory_swap_limit_in_bytes: limits.memory_swap.unwrap_or(0),
        oom_score_adj: record.options.oom_score_adj.unwrap_or(0).into(),
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        hugepage_limits: limits
            .hugepages
            .iter()
            .map(|(size, limit)| wire::HugepageLimit { page_size: size.clone(), limit: *limit })
            .collect(),
        unified: limits.unified.clone().into_iter().collect(),
    }
}

/// Who a container runs as.
pub(crate) fn container_user(identity: &Identity, record: &Record) -> wire::ContainerUser {
    let options = &record.options;
    // As the runtime makes them of the same parts.
    let own = identity.groups.iter().filter(|_| !options.security.strict_groups);
    let further = options.further_groups();
    let groups: BTreeSet<u32> = own.chain(&further).chain([&identity.gid]).copied().collect();
    wire::ContainerUser {
        linux: Some(wire::LinuxContainerUser {
            uid: identity.uid.into(),
            gid: identity.gid.into(),
            supplemental_groups: groups.into_iter().map(i64::from).collect(),
        }),
    }
}

fn ended(status: &mut wire::ContainerStatus, exit: &Exit) {
    status.exit_code = exit.status.number().into();
    status.finished_at = nanos(exit.at);
    let (reason, message) = match (exit.reason, exit.oom_killed, status.exit_code) {
        (Reason::ShimLost, ..) => ("Unknown", "its shim was lost, and how it ended with it"),
        (Reason::HostLost, ..) => {
            ("Unknown", "the machine went down, and how it ended is not known")
        }
        (Reason::Exited, true, _) => ("OOMKilled", ""),
        (Reason::Exited, false, 0) => ("Completed", ""),
        (Reason::Exited, false, _) => ("Error", ""),
    };
    (status.reason, status.message) = (reason.to_owned(), message.to_owned());
}

#[cfg(test)]
mod tests {
    use wire::security_profile::ProfileType;

    use super::*;

    #[test]
    fn what_is_dropped_is_not_added() {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        let left = |add: &[&str], drop: &[&str]| {
            let (add_capabilities, drop_capabilities) = (words(add), words(drop));
            let add_ambient_capabilities = words(add);
            let asked =
                wire::Capability { add_capabilities, drop_capabilities, add_ambient_capabilities };
            let made = capabilities(asked.clone());
            assert_eq!(made.drop_capabilities, asked.drop_capabilities);
            assert_eq!(made.add_ambient_capabilities, made.add_capabilities);
            made.add_capabilities
        };
        assert_eq!(left(&["CHOWN", "BPF"], &["cap_chown"]), ["BPF"]);
        assert_eq!(left(&["all", "BPF"], &["ALL"]), ["BPF"]);
        assert_eq!(left(&["ALL"], &["BPF"]), ["ALL"]);
        assert_eq!(left(&["BPF"], &["ALL"]), ["BPF"]);
    }

    /// What is made of a profile said in the new field, or in the old one.
    fn profile(
        kind: Option<(ProfileType, &str)>,
        old: &str,
        support: &Support,
    ) -> std::result::Result<String, String> {
        #[expect(deprecated, reason = "older clients say it there")]
        let context = wire::LinuxContainerSecurityContext {
            apparmor: kind.map(|(kind, name)| wire::SecurityProfile {
                profile_type: kind.into(),
                localhost_ref: name.to_owned(),
            }),
            apparmor_profile: old.to_owned(),
            ..wire::LinuxContainerSecurityContext::default()
        };
        apparmor(&context, support).map(String::from).map_err(|error| error.to_string())
    }

    #[test]
    fn a_container_has_the_profile_of_apparmor_that_is_asked_for() {
        let full = Support::Full { parser: PathBuf::from("/usr/sbin/apparmor_parser") };
        for support in [&full, &Support::Absent] {
            assert_eq!(profile(None, "", support), Ok(String::new()), "the default, if any");
            for old in [UNCONFINED, "localhost/web", "web"] {
                let name = old.strip_prefix("localhost/").unwrap_or(old);
                assert_eq!(profile(None, old, support), Ok(name.to_owned()));
                let kind = (ProfileType::Localhost, old);
                assert_eq!(profile(Some(kind), UNCONFINED, support), Ok(name.to_owned()));
            }
            let kind = (ProfileType::Unconfined, "");
            assert_eq!(profile(Some(kind), "", support), Ok(UNCONFINED.to_owned()));
            assert!(profile(Some((ProfileType::Localhost, "")), "", support).is_err());
        }
        let kind = (ProfileType::RuntimeDefault, "");
        assert_eq!(profile(Some(kind), "", &full), Ok(String::new()));
        assert_eq!(profile(None, RUNTIME_DEFAULT, &full), Ok(String::new()));
    }

    #[test]
    fn a_default_profile_that_was_asked_for_is_not_left_away() {
        let partly = Support::NoDefault { reason: "there is no parser" };
        for (support, said) in [(&Support::Absent, "not enabled"), (&partly, "no parser")] {
            let kind = (ProfileType::RuntimeDefault, "");
            assert!(profile(Some(kind), "", support).unwrap_err().contains(said));
            assert!(profile(None, RUNTIME_DEFAULT, support).unwrap_err().contains(said));
        }
    }

    #[test]
    fn a_privileged_container_has_no_profile() {
        let full = Support::Full { parser: PathBuf::from("/usr/sbin/apparmor_parser") };
        let context = wire::LinuxContainerSecurityContext {
            privileged: true,
            ..wire::LinuxContainerSecurityContext::default()
        };
        assert_eq!(apparmor(&context, &full).unwrap(), AppArmor::Unconfined);
    }
}
