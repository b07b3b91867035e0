//! A spec and a process as runtimes of others take them: what our own shim finds out by itself, or
//! is handed over as a descriptor, is put into the JSON.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, Mount};
use serde_json::{Value, json};
use shim_rootfs::user::Identity;

use super::{ContainerOptions, Error, Propagation, Role};

/// What a bundle's spec says it follows: crun refuses a newer one than it knows, and of what newer ones
/// brought bosun's specs need nothing.
const OCI_VERSION: &str = "1.0.2";

/// Refuses what only bosun's own runtime does; with `joins_pods`, this one runs containers of pods.
///
/// # Errors
/// Names it, and the way out.
pub fn check_foreign(
    options: &ContainerOptions,
    runtime: &str,
    joins_pods: bool,
) -> Result<(), Error> {
    let refused = |what: &'static str| Err(Error::OnlyOwn { what, runtime: runtime.to_owned() });
    if options.init {
        return refused("a small init (--init)");
    }
    if options.role != Role::Alone && !joins_pods {
        return refused("a container of a pod (--pod)");
    }
    if options.users().is_some() {
        // It is given the rootfs as the host has it, and no mount of ids.
        return refused("a user namespace (--uidmap, --gidmap)");
    }
    let shared = |propagation| matches!(propagation, Propagation::Shared | Propagation::Rshared);
    if options.mounts.iter().any(|mount| shared(mount.propagation)) {
        // It mounts in a mount namespace that gives nothing back to the host.
        return refused("a volume that propagates mounts to the host (shared, rshared)");
    }
    Ok(())
}

/// What is joined or mounted besides, by paths that are good for this run alone.
#[derive(Clone, Debug, Default)]
pub struct Joined {
    /// The type as the spec has it (`ipc`), and where the namespace is.
    pub namespaces: Vec<(LinuxNamespaceType, PathBuf)>,
    pub mounts: Vec<Mount>,
}

/// The bundle's config.json, from a container's spec.
///
/// # Errors
/// The stored spec can't be read.
pub fn bundle_config(spec: &str, identity: &Identity, joined: &Joined) -> Result<Vec<u8>, Error> {
    let mut spec: Value = serde_json::from_str(spec)?;
    become_user(&mut spec["process"], identity);
    spec["ociVersion"] = json!(OCI_VERSION);
    for (kind, path) in &joined.namespaces {
        let kind = serde_json::to_value(kind)?;
        let namespaces = spec["linux"]["namespaces"].as_array_mut();
        let found = namespaces.and_then(|all| all.iter_mut().find(|one| one["type"] == kind));
        // Unless it was told to join another one.
        if let Some(namespace) = found.filter(|one| one["path"].is_null()) {
            namespace["path"] = json!(path.to_string_lossy());
        }
    }
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        for mount in &joined.mounts {
            mounts.push(serde_json::to_value(mount)?);
        }
    }
    Ok(serde_json::to_vec_pretty(&spec)?)
}

/// Puts a user into a process: numbers, groups, and HOME unless it is set.
pub(super) fn become_user(process: &mut Value, identity: &Identity) {
    let Identity { uid, gid, groups, home } = identity;
    // With its first group among them: what a file denies to that stays denied (CVE-2023-25173).
    process["user"] = json!({ "uid": uid, "gid": gid, "additionalGids": groups });
    if !process["env"].is_array() {
        process["env"] = json!([]);
    }
    let Some(env) = process["env"].as_array_mut() else { return };
    let is_home = |entry: &Value| entry.as_str().is_some_and(|text| text.starts_with("HOME="));
    if !env.iter().any(is_home) {
        env.push(json!(format!("HOME={home}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::{generated, web};
    use crate::spec::{BindMount, IdMapping};

    fn app() -> Identity {
        Identity { uid: 1000, gid: 50, groups: vec![29, 50], home: "/home/app".to_owned() }
    }

    #[test]
    fn names_become_numbers_and_descriptors_paths() {
        let made = generated(|options| options.user = "app:staff".to_owned()).unwrap();
        let joined = Joined {
            namespaces: vec![
                (LinuxNamespaceType::Network, PathBuf::from("/run/c/netns")),
                (LinuxNamespaceType::Ipc, PathBuf::from("/proc/7/fd/3")),
                (LinuxNamespaceType::User, PathBuf::from("/proc/7/fd/4")),
            ],
            mounts: vec![Mount::default()],
        };
        let config = bundle_config(&made.json, &app(), &joined).unwrap();
        let spec: Value = serde_json::from_slice(&config).unwrap();
        let user = json!({ "uid": 1000, "gid": 50, "additionalGids": [29, 50] });
        assert_eq!(spec["process"]["user"], user);
        let env = spec["process"]["env"].as_array().unwrap();
        assert!(env.contains(&json!("HOME=/home/app")), "{env:?}");
        let namespaces = spec["linux"]["namespaces"].as_array().unwrap();
        let path = |kind: &str| {
            namespaces.iter().find(|one| one["type"] == kind).map(|one| one["path"].clone())
        };
        assert_eq!(path("network"), Some(json!("/run/c/netns")));
        assert_eq!(path("ipc"), Some(json!("/proc/7/fd/3")));
        assert_eq!(path("user"), None, "what it has none of is not joined");
        assert_eq!(spec["root"]["path"], "rootfs");
        let mut before: Value = serde_json::from_str(&made.json).unwrap();
        let mut after = spec;
        for spec in [&mut before, &mut after] {
            spec["process"] = json!(null);
            spec["ociVersion"] = json!(null);
            spec["linux"]["namespaces"] = json!(null);
        }
        assert!(after["mounts"].as_array_mut().unwrap().pop().is_some());
        assert_eq!(before, after, "the rest stays as it is");
    }

    #[test]
    fn a_home_that_is_set_stays() {
        let mut process = json!({ "env": ["HOME=/srv"] });
        become_user(&mut process, &app());
        assert_eq!(process["env"], json!(["HOME=/srv"]));
        let mut process = json!({});
        become_user(&mut process, &app());
        assert_eq!(process["env"], json!(["HOME=/home/app"]));
    }

    #[test]
    fn what_only_our_own_runtime_does_is_refused_by_name() {
        let said = |options: &ContainerOptions| {
            check_foreign(options, "runc", false).map_err(|error| error.to_string())
        };
        assert_eq!(said(&web()), Ok(()));
        let init = said(&ContainerOptions { init: true, ..web() }).unwrap_err();
        assert!(init.contains("--init") && init.contains("\"runc\""), "{init}");
        let role = Role::Member("pod".to_owned());
        let pod = ContainerOptions { role, ..web() };
        assert!(check_foreign(&pod, "runc", true).is_ok());
        let pod = said(&pod).unwrap_err();
        assert!(pod.contains("--pod"), "{pod}");
        let uid_mappings = vec![IdMapping { container_id: 0, host_id: 5, size: 1 }];
        let users = said(&ContainerOptions { uid_mappings, ..web() }).unwrap_err();
        assert!(users.contains("--uidmap"), "{users}");
        let shared = BindMount { propagation: Propagation::Rshared, ..BindMount::default() };
        let options = ContainerOptions { mounts: vec![shared], ..web() };
        assert!(said(&options).unwrap_err().contains("rshared"));
    }
}
