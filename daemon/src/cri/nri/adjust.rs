//! What plugins want of a container that is made, as the core's options.
//!
//! Plugins are as trusted as the runtime: what a user may not have, they may give. What bosun does not do is
//! refused by its name.

use std::path::PathBuf;

use bosun_nri::wire as nri;
use oci_spec::runtime as oci;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::limits;
use crate::container::Key;
use crate::cri::invalid;
use crate::error::{Error, Result};
use crate::spec::{Adjustment, ContainerOptions, Machine, NamespaceChange};

/// Annotations that are bosun's own.
const OWN: &str = "io.bosun.";

/// Changes the options of a container that is to be.
///
/// # Errors
/// Names what can't be.
pub(super) fn adjust(
    options: &mut ContainerOptions,
    key: &Key,
    asked: nri::ContainerAdjustment,
    machine: &Machine,
) -> Result<()> {
    let mut made = Adjustment::default();
    for nri::CdiDevice { name } in asked.cdi_devices {
        if !options.cdi_devices.contains(&name) {
            options.cdi_devices.push(name);
        }
    }
    for (name, value) in asked.annotations {
        let (name, value) = marked(name, value);
        if name.starts_with(OWN) {
            return Err(refused("annotations", format!("{name}: it is bosun's own")));
        }
        made.annotations.insert(name, value);
    }
    for nri::KeyValue { key, value } in asked.env {
        let (name, value) = marked(key, value);
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(refused("env", format!("{name:?} is no name")));
        }
        made.env.push((name, value));
    }
    made.args = asked.args;
    for mount in asked.mounts {
        let (destination, mount) = marked(mount.destination.clone(), mount);
        let mount = mount.map(|mount| self::mount(&destination, mount)).transpose()?;
        made.mounts.push((destination, mount));
    }
    made.hooks = asked.hooks.map(hooks).transpose()?;
    for limit in asked.rlimits {
        let nri::PosixRlimit { r#type, hard, soft } = limit;
        made.rlimits.push(oci_of("rlimits", json!({"type": r#type, "hard": hard, "soft": soft}))?);
    }
    if let Some(linux) = asked.linux {
        adjust_linux(options, &mut made, key, linux, machine)?;
    }
    options.adjustment = made;
    Ok(())
}

fn adjust_linux(
    options: &mut ContainerOptions,
    made: &mut Adjustment,
    key: &Key,
    asked: nri::LinuxContainerAdjustment,
    machine: &Machine,
) -> Result<()> {
    if let Some(device) = asked.net_devices.keys().next() {
        return Err(refused("linux.net_devices", format!("{device}: bosun does not move devices")));
    }
    if asked.memory_policy.is_some() {
        return Err(refused("linux.memory_policy", "bosun does not set memory policies"));
    }
    // Nothing to be taken away is nothing.
    if asked.rdt.is_some_and(|rdt| {
        rdt.clos_id.is_some() || rdt.schemata.is_some() || rdt.enable_monitoring.is_some()
    }) {
        return Err(refused("linux.rdt", "bosun does not have RDT"));
    }
    for device in asked.devices {
        let (path, device) = marked(device.path.clone(), device);
        if let Some(device) = &device {
            made.device_rules.push(device_rule(device)?);
        }
        made.devices.push((path, device.map(self::device).transpose()?));
    }
    if let Some(resources) = asked.resources {
        options.limits = options.limits.updated(&limits::to_core(&resources, machine)?);
        for rule in resources.devices {
            let nri::LinuxDeviceCgroup { allow, r#type, major, minor, access } = rule;
            let mut text = json!({"allow": allow, "access": access});
            put(&mut text, "type", (!r#type.is_empty()).then_some(r#type));
            put(&mut text, "major", major.map(|one| one.value));
            put(&mut text, "minor", minor.map(|one| one.value));
            made.device_rules.push(oci_of("linux.resources.devices", text)?);
        }
    }
    if !asked.cgroups_path.is_empty() {
        options.cgroup_parent = cgroup_parent(&asked.cgroups_path, key)?;
    }
    if let Some(nri::OptionalInt { value }) = asked.oom_score_adj {
        let score = i32::try_from(value);
        let score = score.map_err(|_| refused("linux.oom_score_adj", value.to_string()))?;
        options.oom_score_adj = Some(score);
    }
    if let Some(priority) =
        asked.io_priority.filter(|one| one.class() != nri::IoPrioClass::IoprioClassNone)
    {
        let text = json!({"class": priority.class().as_str_name(), "priority": priority.priority});
        made.io_priority = Some(oci_of("linux.io_priority", text)?);
    }
    if let Some(asked) =
        asked.scheduler.filter(|one| one.policy() != nri::LinuxSchedulerPolicy::SchedNone)
    {
        made.scheduler = Some(scheduler(&asked)?);
    }
    made.seccomp = asked.seccomp_policy.map(seccomp).transpose()?;
    for namespace in asked.namespaces {
        made.namespaces.push(self::namespace(namespace)?);
    }
    made.sysctls = asked.sysctl.into_iter().map(|(name, value)| marked(name, value)).collect();
    Ok(())
}

fn refused(what: &'static str, problem: impl Into<String>) -> Error {
    invalid(what, format!("a plugin asks for it: {}", problem.into()))
}

/// A key without its mark, and the value of one that has none.
fn marked<T>(key: String, value: T) -> (String, Option<T>) {
    match key.strip_prefix('-') {
        Some(bare) => (bare.to_owned(), None),
        None => (key, Some(value)),
    }
}

fn oci_of<T: DeserializeOwned>(what: &'static str, value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| refused(what, error.to_string()))
}

/// What is absent is not written.
fn put<T: serde::Serialize>(object: &mut Value, name: &str, value: Option<T>) {
    if let Some(value) = value {
        object[name] = json!(value);
    }
}

fn mount(destination: &str, mount: nri::Mount) -> Result<oci::Mount> {
    if !destination.starts_with('/') || destination.contains('\0') {
        return Err(refused("mounts", format!("{destination:?} is not an absolute path")));
    }
    let nri::Mount { r#type, source, options, .. } = mount;
    let mut text = json!({"destination": destination, "options": options});
    put(&mut text, "type", (!r#type.is_empty()).then_some(r#type));
    put(&mut text, "source", (!source.is_empty()).then_some(source));
    oci_of("mounts", text)
}

fn hooks(hooks: nri::Hooks) -> Result<oci::Hooks> {
    let all = |list: Vec<nri::Hook>| -> Vec<Value> {
        let hook = |hook: nri::Hook| {
            let mut text = json!({"path": hook.path, "args": hook.args, "env": hook.env});
            // 0 is no time-out of its own.
            let timeout = hook.timeout.map(|one| one.value).filter(|seconds| *seconds != 0);
            put(&mut text, "timeout", timeout);
            text
        };
        list.into_iter().map(hook).collect()
    };
    let text = json!({
        "prestart": all(hooks.prestart),
        "createRuntime": all(hooks.create_runtime),
        "createContainer": all(hooks.create_container),
        "startContainer": all(hooks.start_container),
        "poststart": all(hooks.poststart),
        "poststop": all(hooks.poststop),
    });
    oci_of("hooks", text)
}

fn device(device: nri::LinuxDevice) -> Result<oci::LinuxDevice> {
    let nri::LinuxDevice { path, r#type, major, minor, file_mode, uid, gid } = device;
    let mut text = json!({"path": path, "type": r#type, "major": major, "minor": minor});
    put(&mut text, "fileMode", file_mode.map(|one| one.value));
    put(&mut text, "uid", uid.map(|one| one.value));
    put(&mut text, "gid", gid.map(|one| one.value));
    oci_of("linux.devices", text)
}

/// Who may see a device may use it; making nodes is for block devices alone, as the interface's other runtimes
/// have it.
fn device_rule(device: &nri::LinuxDevice) -> Result<oci::LinuxDeviceCgroup> {
    let access = if device.r#type == "b" { "rwm" } else { "rw" };
    let text = json!({
        "allow": true, "type": device.r#type, "major": device.major, "minor": device.minor,
        "access": access,
    });
    oci_of("linux.devices", text)
}

fn scheduler(asked: &nri::LinuxScheduler) -> Result<oci::Scheduler> {
    let flags: Vec<&str> = asked
        .flags()
        .map(|flag| match flag {
            // As the typed specification calls them.
            nri::LinuxSchedulerFlag::SchedFlagResetOnFork => "SCHED_RESET_ON_FORK",
            nri::LinuxSchedulerFlag::SchedFlagDlOverrun => "SCHED_FLAG_D_L_OVERRUN",
            other @ (nri::LinuxSchedulerFlag::SchedFlagReclaim
            | nri::LinuxSchedulerFlag::SchedFlagKeepPolicy
            | nri::LinuxSchedulerFlag::SchedFlagKeepParams
            | nri::LinuxSchedulerFlag::SchedFlagUtilClampMin
            | nri::LinuxSchedulerFlag::SchedFlagUtilClampMax) => other.as_str_name(),
        })
        .collect();
    let mut text = json!({"policy": asked.policy().as_str_name(), "flags": flags});
    let whole = |value: i32| (value != 0).then_some(value);
    let time = |value: u64| (value != 0).then_some(value);
    put(&mut text, "nice", whole(asked.nice));
    put(&mut text, "priority", whole(asked.priority));
    put(&mut text, "runtime", time(asked.runtime));
    put(&mut text, "deadline", time(asked.deadline));
    put(&mut text, "period", time(asked.period));
    oci_of("linux.scheduler", text)
}

fn seccomp(policy: nri::LinuxSeccomp) -> Result<oci::LinuxSeccomp> {
    let argument = |argument: nri::LinuxSeccompArg| {
        let nri::LinuxSeccompArg { index, value, value_two, op } = argument;
        json!({"index": index, "value": value, "valueTwo": value_two, "op": op})
    };
    let syscall = |call: nri::LinuxSyscall| {
        let args: Vec<Value> = call.args.into_iter().map(argument).collect();
        let mut text = json!({"names": call.names, "action": call.action, "args": args});
        put(&mut text, "errnoRet", call.errno_ret.map(|one| one.value));
        text
    };
    let syscalls: Vec<Value> = policy.syscalls.into_iter().map(syscall).collect();
    let mut text = json!({
        "defaultAction": policy.default_action,
        "architectures": policy.architectures,
        "flags": policy.flags,
        "syscalls": syscalls,
    });
    let some = |text: String| (!text.is_empty()).then_some(text);
    put(&mut text, "defaultErrnoRet", policy.default_errno.map(|one| one.value));
    put(&mut text, "listenerPath", some(policy.listener_path));
    put(&mut text, "listenerMetadata", some(policy.listener_metadata));
    oci_of("linux.seccomp_policy", text)
}

fn namespace(asked: nri::LinuxNamespace) -> Result<NamespaceChange> {
    const WHAT: &str = "linux.namespaces";
    let (kind, path) = marked(asked.r#type, asked.path);
    match kind.as_str() {
        "cgroup" | "ipc" | "uts" | "pid" | "time" => {}
        "network" | "user" => {
            return Err(refused(WHAT, format!("{kind}: it is the pod's")));
        }
        "mount" => return Err(refused(WHAT, "mount: a container has its own")),
        _ => return Err(refused(WHAT, format!("{kind:?} is no kind of namespace"))),
    }
    let kind: oci::LinuxNamespaceType = oci_of(WHAT, json!(kind))?;
    Ok(match path {
        None => NamespaceChange::Left(kind),
        Some(path) if path.is_empty() => NamespaceChange::New(kind),
        Some(path) => NamespaceChange::Joined(kind, PathBuf::from(path)),
    })
}

/// A group is killed and removed with its container, so it can't be one of others: it has to end in the
/// container's id.
fn cgroup_parent(path: &str, key: &Key) -> Result<String> {
    const WHAT: &str = "linux.cgroups_path";
    let parent = path.trim_end_matches('/').strip_suffix(&format!("/{}", key.id));
    let is_clean = !path.split('/').any(|part| matches!(part, "." | "..")) && !path.contains('\0');
    match parent.filter(|parent| !parent.trim_matches('/').is_empty() && is_clean) {
        Some(parent) => Ok(parent.to_owned()),
        None => {
            let problem = format!("{path:?}: it has to be PARENT/{}", key.id);
            Err(refused(WHAT, problem))
        }
    }
}
