//! The arrows between the crates, as ARCHITECTURE.md draws them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

/// What each crate of ours may use of ours.
const ALLOWED: [(&str, &[&str]); 22] = [
    ("bosun-proto", &[]),
    ("shim-wire", &[]),
    ("shim-sys", &[]),
    ("shim-failpoints", &[]),
    ("shim-cgroup", &["shim-wire", "shim-sys"]),
    ("shim-systemd", &["shim-wire", "shim-cgroup"]),
    ("shim-plan", &["shim-wire"]),
    ("shim-rootfs", &[]),
    ("shim-runtime", &["shim-wire", "shim-sys", "shim-failpoints", "shim-cgroup", "shim-rootfs"]),
    ("bosun-shim", &["shim-wire", "shim-sys", "shim-failpoints", "shim-cgroup", "shim-runtime"]),
    (
        "bosun-oci",
        &["shim-wire", "shim-sys", "shim-cgroup", "shim-systemd", "shim-plan", "shim-runtime"],
    ),
    ("bosun-cdi", &[]),
    ("bosun-cni", &["shim-failpoints"]),
    ("bosun-image", &[]),
    ("bosun-layer", &["bosun-image", "shim-rootfs"]),
    ("bosun-nri", &["shim-wire", "shim-sys"]),
    ("bosun-registry", &["bosun-image"]),
    ("bosun-streaming", &[]),
    (
        "bosund",
        &[
            "bosun-proto",
            "bosun-cdi",
            "bosun-cni",
            "bosun-image",
            "bosun-layer",
            "bosun-nri",
            "bosun-registry",
            "bosun-streaming",
            "shim-wire",
            "shim-plan",
            "shim-cgroup",
            "shim-rootfs",
            "shim-sys",
            "shim-systemd",
            "shim-failpoints",
        ],
    ),
    ("bosun-ctl", &["bosun-proto", "bosun-image", "bosun-layer"]),
    ("integration", &["bosun-fuzz", "bosun-proto", "bosun-nri", "shim-wire"]),
    (
        "bosun-fuzz",
        &["bosun-image", "bosun-layer", "bosun-streaming", "shim-plan", "shim-rootfs", "shim-wire"],
    ),
];

/// What would grow each of a thousand shims.
const NEVER_IN_THE_SHIM: [&str; 9] =
    ["tokio", "tonic", "hyper", "h2", "tower", "serde_json", "libseccomp", "tracing", "rusqlite"];

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("Cargo.toml");
    let mut command = std::process::Command::new(cargo);
    // Without a platform cargo would want the packages of every other one.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    command
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .args(["--filter-platform", &platform, "--manifest-path"])
        .arg(manifest);
    serde_json::from_str(&integration::netns::run(&mut command)).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn members(metadata: &Value) -> Vec<&Value> {
    let ids: BTreeSet<&str> =
        metadata["workspace_members"].as_array().unwrap().iter().map(text).collect();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| ids.contains(text(&package["id"])))
        .collect()
}

#[test]
fn crates_depend_on_each_other_as_drawn() {
    let metadata = metadata();
    let members = members(&metadata);
    let names: BTreeSet<&str> = members.iter().map(|package| text(&package["name"])).collect();
    assert_eq!(names, ALLOWED.iter().map(|(name, _)| *name).collect());
    for package in members {
        let name = text(&package["name"]);
        let allowed = ALLOWED.iter().find(|(crate_name, _)| *crate_name == name).unwrap().1;
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = text(&dependency["name"]);
            if dependency["kind"].is_null() && names.contains(on) {
                assert!(allowed.contains(&on), "{name} must not depend on {on}");
            }
        }
    }
}

/// Ids of the packages that each package needs at run time.
fn arrows(metadata: &Value) -> BTreeMap<&str, Vec<&str>> {
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    nodes
        .iter()
        .map(|node| {
            let normal = node["deps"].as_array().unwrap().iter().filter(|dependency| {
                dependency["dep_kinds"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|kind| kind["kind"].is_null())
            });
            (text(&node["id"]), normal.map(|dependency| text(&dependency["pkg"])).collect())
        })
        .collect()
}

#[test]
fn the_shim_has_no_runtime_in_it() {
    let metadata = metadata();
    let arrows = arrows(&metadata);
    let name_of: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let start = name_of.iter().find(|(_, name)| **name == "bosun-shim").unwrap().0;
    let (mut seen, mut open) = (BTreeSet::new(), vec![*start]);
    while let Some(id) = open.pop() {
        if seen.insert(id) && !is_procedural_macro(&metadata, id) {
            open.extend(&arrows[id]);
        }
    }
    let reached: BTreeSet<&str> = seen.iter().map(|id| name_of[id]).collect();
    for never in NEVER_IN_THE_SHIM {
        assert!(!reached.contains(never), "{never} is in the shim");
    }
    assert!(reached.contains("rustix"), "the walk reached {reached:?}");
}

fn is_procedural_macro(metadata: &Value, id: &str) -> bool {
    let package = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|package| text(&package["id"]) == id)
        .unwrap();
    package["targets"]
        .as_array()
        .unwrap()
        .iter()
        .any(|target| target["kind"].as_array().unwrap().iter().any(|kind| kind == "proc-macro"))
}

#[test]
fn unsafe_code_is_in_one_crate() {
    let metadata = metadata();
    for package in members(&metadata) {
        for target in package["targets"].as_array().unwrap() {
            let kind = text(&target["kind"][0]);
            let path = text(&target["src_path"]);
            let source = std::fs::read_to_string(path).unwrap();
            if text(&package["name"]) == "shim-sys" || !matches!(kind, "lib" | "bin") {
                continue;
            }
            assert!(
                source.contains("#![forbid(unsafe_code)]"),
                "{path} does not forbid unsafe code"
            );
        }
    }
}
