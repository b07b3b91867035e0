//! Specs that are varied by one field, and lowered.

use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde_json::{Value, json};
use shim_plan::{Context, plan};
use shim_wire::plan::{CreateOptions, Plan};

pub(crate) fn lower(spec: Value, context: &Context) -> Result<(CreateOptions, Plan), String> {
    let spec: Spec = serde_json::from_value(spec).expect("a spec");
    plan(&spec, context).map_err(|error| error.to_string())
}

/// The smallest spec there is.
pub(crate) fn minimal() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "linux": {"namespaces": [{"type": "mount"}]}
    })
}

pub(crate) fn minimal_context() -> Context {
    Context {
        bundle: Some(PathBuf::from("/bundle")),
        cgroup: "/fallback/".into(),
        ..Context::default()
    }
}

/// `spec` with the value at `path` (a JSON pointer whose parents exist or are made) replaced.
pub(crate) fn with(mut spec: Value, path: &str, value: Value) -> Value {
    let mut at = &mut spec;
    for part in path.split('/').skip(1) {
        at = match part.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[part],
        };
    }
    *at = value;
    spec
}
