//! What CDI devices bring into a spec (`bosun_cdi::Edits`), laid over the finished one: what the
//! administrator's specifications say goes before what a request says.

use std::path::Path;

use bosun_cdi::{DeviceNode, Edits, HookName, NodeType};
use oci_spec::runtime::{
    Hook, HookBuilder, Hooks, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup,
    LinuxDeviceCgroupBuilder, LinuxDeviceType, Mount, MountBuilder, Spec,
};

use super::machine::{self, HostDevice};
use super::{Error, identity};

/// What a device of the machine is when its specification and the host say nothing of its mode.
const MODE: u32 = 0o666;

/// Words by which a mount says how mounts below it travel.
const PROPAGATION: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];

/// Makes the edits. A device's rule is left out where every device may be used.
///
/// # Errors
/// A device that is not there and whose numbers are not said; a mount's source that is not there.
pub(super) fn apply(spec: &mut Spec, edits: &Edits, every_device: bool) -> Result<(), Error> {
    let mut owner = 0;
    if let Some(process) = spec.process_mut() {
        let mut env = process.env().clone().unwrap_or_default();
        for entry in &edits.env {
            identity::set(&mut env, entry, identity::Existing::Replace)?;
        }
        process.set_env(Some(env));
        owner = process.user().uid();
    }
    if let Some(linux) = spec.linux_mut() {
        for node in &edits.device_nodes {
            let (device, rule) = device(node, owner)?;
            let devices = linux.devices_mut().get_or_insert_default();
            devices.retain(|other| other.path() != device.path());
            devices.push(device);
            let resources = linux.resources_mut().as_mut().filter(|_| !every_device);
            if let (Some(resources), Some(rule)) = (resources, rule) {
                resources.devices_mut().get_or_insert_default().push(rule);
            }
        }
    }
    let mounts = spec.mounts_mut().get_or_insert_default();
    for asked in &edits.mounts {
        mounts.retain(|other| other.destination() != &asked.container_path);
        mounts.push(mount(asked)?);
    }
    if !edits.mounts.is_empty() {
        // What is outer comes first, whoever asked for it.
        mounts.sort_by_key(|mount| mount.destination().components().count());
    }
    if !edits.hooks.is_empty() {
        spec.set_hooks(Some(hooks(edits)?));
    }
    Ok(())
}

/// A node and what may be done with it. One that no specification gives to somebody belongs to who
/// the container runs as, where that is not root.
fn device(
    node: &DeviceNode,
    owner: u32,
) -> Result<(LinuxDevice, Option<LinuxDeviceCgroup>), Error> {
    let is_said = node.kind == Some(NodeType::Fifo)
        || (node.kind.is_some() && node.major.is_some() && node.minor.is_some());
    let host: Option<HostDevice> = match machine::host_device(node.host()) {
        Ok(host) => Some(host),
        Err(_) if is_said => None,
        Err(error) => return Err(error),
    };
    let host = host.as_ref();
    let kind = match (node.kind, host.is_some_and(|host| host.block)) {
        (Some(NodeType::Block), _) | (None, true) => LinuxDeviceType::B,
        (Some(NodeType::Char), _) | (None, false) => LinuxDeviceType::C,
        (Some(NodeType::Unbuffered), _) => LinuxDeviceType::U,
        (Some(NodeType::Fifo), _) => LinuxDeviceType::P,
    };
    let number = |said: Option<u32>, of_host: fn(&HostDevice) -> u32| {
        i64::from(said.or(host.map(of_host)).unwrap_or(0))
    };
    let (major, minor) =
        (number(node.major, |host| host.major), number(node.minor, |host| host.minor));
    let uid = node.uid.or(Some(owner).filter(|uid| *uid > 0)).or(host.map(|host| host.uid));
    let device = LinuxDeviceBuilder::default()
        .path(&node.path)
        .typ(kind)
        .major(major)
        .minor(minor)
        .file_mode(node.file_mode.or(host.map(|host| host.mode)).unwrap_or(MODE))
        .uid(uid.unwrap_or(0))
        .gid(node.gid.or(host.map(|host| host.gid)).unwrap_or(0))
        .build()?;
    let access = node.permissions.as_deref().filter(|access| !access.is_empty());
    let rule = || {
        LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(if kind == LinuxDeviceType::B { kind } else { LinuxDeviceType::C })
            .major(major)
            .minor(minor)
            .access(access.unwrap_or("rwm"))
            .build()
    };
    let rule = (kind != LinuxDeviceType::P).then(rule).transpose()?;
    Ok((device, rule))
}

fn mount(asked: &bosun_cdi::Mount) -> Result<Mount, Error> {
    let is_bind = matches!(asked.kind.as_str(), "" | "bind" | "none");
    let mut words = asked.options.clone();
    if is_bind {
        std::fs::metadata(&asked.host_path)
            .map_err(|source| Error::MountSource { path: asked.host_path.clone(), source })?;
        if !words.iter().any(|word| word == "bind" || word == "rbind") {
            words.push("rbind".to_owned());
        }
        if !words.iter().any(|word| PROPAGATION.contains(&word.as_str())) {
            words.push("rprivate".to_owned());
        }
    }
    let kind = if is_bind { "bind" } else { asked.kind.as_str() };
    Ok(MountBuilder::default()
        .destination(&asked.container_path)
        .typ(kind)
        .source(&asked.host_path)
        .options(words)
        .build()?)
}

fn hooks(edits: &Edits) -> Result<Hooks, Error> {
    let mut hooks = Hooks::default();
    for asked in &edits.hooks {
        let hook = hook(asked)?;
        let list = match asked.hook_name {
            HookName::Prestart => hooks.prestart_mut(),
            HookName::CreateRuntime => hooks.create_runtime_mut(),
            HookName::CreateContainer => hooks.create_container_mut(),
            HookName::StartContainer => hooks.start_container_mut(),
            HookName::Poststart => hooks.poststart_mut(),
            HookName::Poststop => hooks.poststop_mut(),
        };
        list.get_or_insert_default().push(hook);
    }
    Ok(hooks)
}

fn hook(asked: &bosun_cdi::Hook) -> Result<Hook, Error> {
    let mut builder = HookBuilder::default().path(&asked.path);
    if !asked.args.is_empty() {
        builder = builder.args(asked.args.clone());
    }
    if !asked.env.is_empty() {
        builder = builder.env(asked.env.clone());
    }
    if let Some(timeout) = asked.timeout.filter(|seconds| *seconds > 0) {
        builder = builder.timeout(timeout);
    }
    Ok(builder.build()?)
}

/// Where hooks that run before a container's root is the root look for it: `root.path` of its spec.
#[must_use]
pub fn hooks_see_root(spec: &Spec, container_dir: &Path) -> Option<std::path::PathBuf> {
    let hooks = spec.hooks().as_ref()?;
    let before = [hooks.prestart(), hooks.create_runtime(), hooks.create_container()];
    let any = before.into_iter().flatten().any(|list| !list.is_empty());
    any.then(|| container_dir.join(spec.root().as_ref().map_or(Path::new("rootfs"), |r| r.path())))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::tests::generated;

    fn edits(value: Value) -> Edits {
        serde_json::from_value(value).unwrap()
    }

    fn made(value: Value) -> Value {
        let made = generated(|options| {
            options.env = vec!["A=1".to_owned()];
            options.edits = Some(edits(value));
        });
        serde_json::from_str(&made.unwrap().json).unwrap()
    }

    #[test]
    fn variables_and_groups_are_the_process_s() {
        let spec = made(json!({"env": ["A=2", "B=3"], "additionalGids": [44, 44, 0]}));
        let env = spec["process"]["env"].as_array().unwrap();
        assert!(env.contains(&json!("A=2")) && env.contains(&json!("B=3")), "{env:?}");
        assert!(!env.contains(&json!("A=1")), "{env:?}");
        assert_eq!(spec["process"]["user"]["additionalGids"], json!([44]));
    }

    #[test]
    fn what_a_node_does_not_say_is_the_host_s() {
        let spec = made(json!({"deviceNodes": [
            {"path": "/dev/mine", "hostPath": "/dev/null", "permissions": "r"},
            {"path": "/dev/other", "type": "b", "major": 7, "minor": 9, "fileMode": 384, "uid": 5, "gid": 6},
        ]}));
        let devices = spec["linux"]["devices"].as_array().unwrap();
        let node = |path: &str| devices.iter().find(|one| one["path"] == path).unwrap();
        let mine = node("/dev/mine");
        assert_eq!(
            (&mine["type"], &mine["major"], &mine["minor"]),
            (&json!("c"), &json!(1), &json!(3))
        );
        let other = node("/dev/other");
        assert_eq!(
            (&other["fileMode"], &other["uid"], &other["gid"]),
            (&json!(384), &json!(5), &json!(6))
        );
        let rules = spec["linux"]["resources"]["devices"].as_array().unwrap();
        let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "r"});
        assert!(rules.contains(&rule), "{rules:?}");
        let missing = generated(|options| {
            options.edits = Some(edits(json!({"deviceNodes": [{"path": "/dev/no-such"}]})));
        });
        assert!(missing.unwrap_err().to_string().contains("/dev/no-such"));
    }

    #[test]
    fn mounts_are_binds_and_outer_ones_come_first() {
        let spec = made(json!({"mounts": [
            {"hostPath": "/usr", "containerPath": "/srv/a/b", "options": ["ro", "bind"]},
            {"hostPath": "/usr", "containerPath": "/srv/a"},
            {"hostPath": "/usr", "containerPath": "/etc/hosts"},
            {"hostPath": "tmpfs", "containerPath": "/scratch", "type": "tmpfs", "options": ["size=1m"]},
        ]}));
        let mounts = spec["mounts"].as_array().unwrap();
        let place = |path: &str| mounts.iter().position(|one| one["destination"] == path).unwrap();
        assert!(place("/srv/a") < place("/srv/a/b"));
        assert!(place("/proc") < place("/srv/a"));
        assert_eq!(mounts[place("/srv/a")]["options"], json!(["rbind", "rprivate"]));
        assert_eq!(mounts[place("/srv/a/b")]["options"], json!(["ro", "bind", "rprivate"]));
        assert_eq!(mounts[place("/scratch")]["type"], "tmpfs");
        let hosts = mounts.iter().filter(|one| one["destination"] == "/etc/hosts");
        assert_eq!(hosts.map(|one| one["source"].clone()).collect::<Vec<_>>(), [json!("/usr")]);
    }

    #[test]
    fn hooks_stand_by_their_kind() {
        let spec = made(json!({"hooks": [
            {"hookName": "createContainer", "path": "/bin/a", "args": ["a", "b"], "timeout": 5},
            {"hookName": "poststop", "path": "/bin/b", "env": ["C=1"]},
        ]}));
        let hook = json!({"path": "/bin/a", "args": ["a", "b"], "timeout": 5});
        assert_eq!(spec["hooks"]["createContainer"], json!([hook]));
        assert_eq!(spec["hooks"]["poststop"], json!([{"path": "/bin/b", "env": ["C=1"]}]));
    }
}
