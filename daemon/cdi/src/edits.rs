//! What a container is to get (`containerEdits` of the specification).

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Edits to a container's OCI spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Edits {
    /// `NAME=value`; what has the name already is replaced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_nodes: Vec<DeviceNode>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// Further groups of the container's first process, since 0.7.0.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
    /// Kept only to be refused by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) intel_rdt: Option<serde_json::Value>,
}

/// A device node. What is left out is that of the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct DeviceNode {
    /// In the container.
    pub path: PathBuf,
    /// On the host, where that is another path; since 0.5.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_path: Option<PathBuf>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<NodeType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// Of `rwm`; without any, all three.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

impl DeviceNode {
    /// Where what is left out is looked up.
    #[must_use]
    pub fn host(&self) -> &PathBuf {
        self.host_path.as_ref().unwrap_or(&self.path)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeType {
    #[serde(rename = "b")]
    Block,
    #[serde(rename = "c")]
    Char,
    #[serde(rename = "u")]
    Unbuffered,
    #[serde(rename = "p")]
    Fifo,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Mount {
    pub host_path: PathBuf,
    pub container_path: PathBuf,
    /// Since 0.4.0; empty is a bind.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// A program that runs at a point of the container's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Hook {
    pub hook_name: HookName,
    pub path: PathBuf,
    /// The first is the program's name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// As the OCI's runtime specification names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HookName {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Edits {
    /// Puts others behind these.
    pub(crate) fn extend(&mut self, other: &Self) {
        self.env.extend(other.env.iter().cloned());
        self.device_nodes.extend(other.device_nodes.iter().cloned());
        self.mounts.extend(other.mounts.iter().cloned());
        self.hooks.extend(other.hooks.iter().cloned());
        self.additional_gids.extend(&other.additional_gids);
    }

    /// What is wrong with them, and the version that they need.
    pub(crate) fn check(&self) -> Result<(u32, u32), String> {
        let mut needs = (0, 3);
        let mut need = |version: (u32, u32)| needs = needs.max(version);
        if let Some(text) = self.texts().find(|text| text.contains('\0')) {
            return Err(format!("{text:?} has a NUL in it"));
        }
        for entry in &self.env {
            if entry.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
                return Err(format!("env {entry:?} is not NAME=value"));
            }
        }
        for node in &self.device_nodes {
            for path in [&node.path, node.host()] {
                if !path.is_absolute() {
                    return Err(format!("device node {}: not an absolute path", path.display()));
                }
            }
            if climbs(&node.path) {
                return Err(format!("device node {}: has \"..\" in it", node.path.display()));
            }
            let access = node.permissions.as_deref().unwrap_or_default();
            if !access.chars().all(|letter| "rwm".contains(letter)) {
                return Err(format!("device node {}: permissions {access:?}", node.path.display()));
            }
            if node.host_path.is_some() {
                need((0, 5));
            }
        }
        for mount in &self.mounts {
            for path in [&mount.host_path, &mount.container_path] {
                // A file system of its own has no place on the host.
                let named = mount.kind.is_empty() || mount.kind == "bind";
                if !path.is_absolute() && (named || path == &mount.container_path) {
                    return Err(format!("mount {}: not an absolute path", path.display()));
                }
            }
            if climbs(&mount.container_path) {
                let path = mount.container_path.display();
                return Err(format!("mount {path}: has \"..\" in it"));
            }
            if !mount.kind.is_empty() {
                need((0, 4));
            }
        }
        if let Some(hook) = self.hooks.iter().find(|hook| !hook.path.is_absolute()) {
            return Err(format!("hook {}: not an absolute path", hook.path.display()));
        }
        if !self.additional_gids.is_empty() || self.intel_rdt.is_some() {
            need((0, 7));
        }
        Ok(needs)
    }

    /// Everything that becomes a string of the kernel's.
    fn texts(&self) -> impl Iterator<Item = std::borrow::Cow<'_, str>> {
        let nodes = self.device_nodes.iter().flat_map(|node| [&node.path, node.host()]);
        let mounts = self.mounts.iter().flat_map(|mount| [&mount.host_path, &mount.container_path]);
        let paths = nodes.chain(mounts).chain(self.hooks.iter().map(|hook| &hook.path));
        let of_mounts =
            self.mounts.iter().flat_map(|mount| mount.options.iter().chain([&mount.kind]));
        let of_hooks = self.hooks.iter().flat_map(|hook| hook.args.iter().chain(&hook.env));
        let words = self.env.iter().chain(of_mounts).chain(of_hooks);
        paths.map(|path| path.to_string_lossy()).chain(words.map(|word| word.as_str().into()))
    }
}

/// Whether a path of the container's leads up again, to where its text does not say.
fn climbs(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}
