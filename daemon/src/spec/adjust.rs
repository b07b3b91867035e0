//! What is changed of a spec after it was made of the options: by whoever has a say in it beside the one that
//! asks for a container (plugins of a node).
//!
//! It is kept with the options, so a spec that is made again is the same. Limits are not here: they are
//! [`Limits`](super::Limits), and changed there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Hooks, LinuxDevice, LinuxDeviceCgroup, LinuxIOPriority, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, LinuxSeccomp, Mount, PosixRlimit, Scheduler, Spec,
};
use serde::{Deserialize, Serialize};

use super::{ContainerOptions, Error, NetworkMode};

/// Changes of a spec. Of what has a key, nothing in the place of the value takes it away.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Adjustment {
    pub annotations: BTreeMap<String, Option<String>>,
    /// Empty: as they are.
    pub args: Vec<String>,
    /// Names and values.
    pub env: Vec<(String, Option<String>)>,
    /// By their destinations.
    pub mounts: Vec<(String, Option<Mount>)>,
    /// Behind those that there are.
    pub hooks: Option<Hooks>,
    /// By their paths.
    pub devices: Vec<(String, Option<LinuxDevice>)>,
    /// Behind those that there are: the last that fits counts.
    pub device_rules: Vec<LinuxDeviceCgroup>,
    pub rlimits: Vec<PosixRlimit>,
    pub namespaces: Vec<NamespaceChange>,
    pub sysctls: BTreeMap<String, Option<String>>,
    pub seccomp: Option<LinuxSeccomp>,
    pub scheduler: Option<Scheduler>,
    pub io_priority: Option<LinuxIOPriority>,
}

/// A namespace that is another one than it would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamespaceChange {
    /// The host's.
    Left(LinuxNamespaceType),
    New(LinuxNamespaceType),
    Joined(LinuxNamespaceType, PathBuf),
}

impl Adjustment {
    /// Changes a spec, and looks whether what comes of it can be executed.
    ///
    /// # Errors
    /// Names the JSON path of what can't.
    pub(super) fn apply(
        &self,
        spec: &mut Spec,
        options: &ContainerOptions,
        container_dir: &Path,
    ) -> Result<(), Error> {
        let annotations = spec.annotations_mut().get_or_insert_default();
        for (key, value) in &self.annotations {
            match value {
                Some(value) => drop(annotations.insert(key.clone(), value.clone())),
                None => drop(annotations.remove(key)),
            }
        }
        if !self.mounts.is_empty() {
            let mounts = spec.mounts_mut().get_or_insert_default();
            for (destination, mount) in &self.mounts {
                mounts.retain(|other| other.destination() != Path::new(destination));
                mounts.extend(mount.clone());
            }
            // What is inside of another comes behind it.
            mounts.sort_by_key(|mount| mount.destination().components().count());
        }
        if let Some(hooks) = &self.hooks {
            add_hooks(spec.hooks_mut().get_or_insert_default(), hooks);
        }
        self.change_process(spec)?;
        self.change_linux(spec);
        let context = shim_plan::Context {
            id: options.name.clone(),
            attempt: 1,
            bundle: Some(container_dir.to_owned()),
            network_handed_over: matches!(
                options.network,
                NetworkMode::Bridge | NetworkMode::Container(_)
            ),
            ..shim_plan::Context::default()
        };
        shim_plan::plan(spec, &context)?;
        Ok(())
    }

    fn change_process(&self, spec: &mut Spec) -> Result<(), Error> {
        let Some(process) = spec.process_mut() else { return Ok(()) };
        if !self.args.is_empty() {
            process.set_args(Some(self.args.clone()));
        }
        let mut env = process.env().clone().unwrap_or_default();
        for (name, value) in &self.env {
            let is_it = |entry: &str| entry.split('=').next() == Some(name);
            match value {
                Some(value) => {
                    let entry = format!("{name}={value}");
                    super::identity::set(&mut env, &entry, super::identity::Existing::Replace)?;
                }
                None => env.retain(|entry| !is_it(entry)),
            }
        }
        process.set_env(Some(env));
        if !self.rlimits.is_empty() {
            let mut limits = process.rlimits().clone().unwrap_or_default();
            limits.retain(|limit| self.rlimits.iter().all(|new| new.typ() != limit.typ()));
            limits.extend(self.rlimits.iter().copied());
            process.set_rlimits(Some(limits));
        }
        if self.scheduler.is_some() {
            process.set_scheduler(self.scheduler.clone());
        }
        if self.io_priority.is_some() {
            process.set_io_priority(self.io_priority);
        }
        Ok(())
    }

    fn change_linux(&self, spec: &mut Spec) {
        let Some(linux) = spec.linux_mut() else { return };
        if !self.devices.is_empty() {
            let devices = linux.devices_mut().get_or_insert_default();
            for (path, device) in &self.devices {
                devices.retain(|other| other.path() != Path::new(path));
                devices.extend(device.clone());
            }
        }
        if !self.device_rules.is_empty() {
            let resources = linux.resources_mut().get_or_insert_default();
            resources.devices_mut().get_or_insert_default().extend(self.device_rules.clone());
        }
        let namespaces = linux.namespaces_mut().get_or_insert_default();
        for change in &self.namespaces {
            let (kind, path) = match change {
                NamespaceChange::Left(kind) => {
                    namespaces.retain(|one| one.typ() != *kind);
                    continue;
                }
                NamespaceChange::New(kind) => (*kind, None),
                NamespaceChange::Joined(kind, path) => (*kind, Some(path.clone())),
            };
            namespaces.retain(|one| one.typ() != kind);
            namespaces.extend(namespace(kind, path));
        }
        let sysctls = linux.sysctl_mut().get_or_insert_default();
        for (name, value) in &self.sysctls {
            match value {
                Some(value) => drop(sysctls.insert(name.clone(), value.clone())),
                None => drop(sysctls.remove(name)),
            }
        }
        if self.seccomp.is_some() {
            linux.set_seccomp(self.seccomp.clone());
        }
    }
}

fn namespace(kind: LinuxNamespaceType, path: Option<PathBuf>) -> Option<LinuxNamespace> {
    // The builder fails on what is missing; here nothing is.
    let mut namespace = LinuxNamespaceBuilder::default().typ(kind).build().ok()?;
    namespace.set_path(path);
    Some(namespace)
}

fn add_hooks(to: &mut Hooks, new: &Hooks) {
    macro_rules! add {
        ($($kind:ident $set:ident),*) => {$(
            if let Some(new) = new.$kind() {
                let mut all = to.$kind().clone().unwrap_or_default();
                all.extend(new.iter().cloned());
                to.$set(Some(all));
            }
        )*};
    }
    add!(
        prestart set_prestart, create_runtime set_create_runtime,
        create_container set_create_container, start_container set_start_container,
        poststart set_poststart, poststop set_poststop
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::generated;

    fn adjusted(adjustment: Adjustment) -> Result<serde_json::Value, Error> {
        let made = generated(|options| {
            options.env = vec!["A=1".to_owned(), "B=2".to_owned()];
            options.adjustment = adjustment;
        })?;
        Ok(serde_json::from_str(&made.json).unwrap())
    }

    fn of<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_has_a_key_is_put_or_taken_away() {
        let spec = adjusted(Adjustment {
            annotations: [("a".to_owned(), Some("b".to_owned())), ("no".to_owned(), None)].into(),
            args: vec!["/bin/other".to_owned(), "x".to_owned()],
            env: vec![("A".to_owned(), None), ("B".to_owned(), Some("3".to_owned()))],
            mounts: vec![
                ("/dev/mqueue".to_owned(), None),
                (
                    "/x".to_owned(),
                    Some(of(serde_json::json!({
                        "destination": "/x", "type": "bind", "source": "/tmp", "options": ["rbind"]
                    }))),
                ),
            ],
            sysctls: [("net.ipv4.ip_forward".to_owned(), Some("1".to_owned()))].into(),
            ..Adjustment::default()
        });
        let spec = spec.unwrap();
        assert_eq!(spec["annotations"]["a"], "b");
        assert_eq!(spec["process"]["args"], serde_json::json!(["/bin/other", "x"]));
        let env = spec["process"]["env"].to_string();
        assert!(env.contains("\"B=3\"") && !env.contains("A=1"), "{env}");
        let mounts: Vec<&str> = spec["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mount| mount["destination"].as_str().unwrap())
            .collect();
        assert!(!mounts.contains(&"/dev/mqueue"), "{mounts:?}");
        let place = |path| mounts.iter().position(|one| *one == path).unwrap();
        assert!(place("/x") < place("/dev/shm"), "outer paths come first: {mounts:?}");
        assert_eq!(spec["linux"]["sysctl"]["net.ipv4.ip_forward"], "1");
    }

    #[test]
    fn what_bosun_does_not_do_is_refused_when_the_spec_is_made() {
        let rlimit: PosixRlimit =
            of(serde_json::json!({"type": "RLIMIT_NOFILE", "hard": 1, "soft": 2}));
        let error = adjusted(Adjustment { rlimits: vec![rlimit], ..Adjustment::default() });
        let said = error.unwrap_err().to_string();
        assert!(said.contains("process.rlimits[0]"), "{said}");
        let hook = serde_json::json!({"prestart": [{"path": "relative"}]});
        let error = adjusted(Adjustment { hooks: Some(of(hook)), ..Adjustment::default() });
        let said = error.unwrap_err().to_string();
        assert!(said.contains("hooks.prestart[0].path"), "{said}");
        let forwarded = [("kernel.panic".to_owned(), Some("1".to_owned()))].into();
        let error = adjusted(Adjustment { sysctls: forwarded, ..Adjustment::default() });
        let said = error.unwrap_err().to_string();
        assert!(said.contains("kernel.panic"), "{said}");
    }

    #[test]
    fn a_namespace_is_the_host_s_or_another_one() {
        use LinuxNamespaceType::{Cgroup, Ipc};
        let namespaces = vec![
            NamespaceChange::Left(Cgroup),
            NamespaceChange::Joined(Ipc, "/proc/1/ns/ipc".into()),
        ];
        let spec = adjusted(Adjustment { namespaces, ..Adjustment::default() }).unwrap();
        let all = spec["linux"]["namespaces"].to_string();
        assert!(!all.contains("cgroup"), "{all}");
        assert!(all.contains(r#"{"path":"/proc/1/ns/ipc","type":"ipc"}"#), "{all}");
    }
}
