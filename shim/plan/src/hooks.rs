//! `hooks`, and the state that they are told.

use oci_spec::runtime as oci;
use shim_wire::hooks::{Hook, HookKind, Hooks, State};

use crate::process::{no_nul, variables};
use crate::{Context, Error};

/// What of a container's state never changes.
///
/// # Errors
/// When there is no bundle, or one that can't be told.
pub(crate) fn state(spec: &oci::Spec, context: &Context, asks: &str) -> Result<State, Error> {
    let bundle = context.bundle.as_deref().filter(|bundle| bundle.is_absolute());
    let bundle = bundle.and_then(std::path::Path::to_str).ok_or_else(|| {
        Error::contradiction(asks, "is told the path of the bundle, and this container has none")
    })?;
    let annotations = spec.annotations().iter().flatten();
    Ok(State {
        oci_version: spec.version().clone(),
        id: context.id.clone(),
        bundle: bundle.to_owned(),
        annotations: annotations.map(|(name, value)| (name.clone(), value.clone())).collect(),
    })
}

/// Absent when there are none.
pub(crate) fn lower(spec: &oci::Spec, context: &Context) -> Result<Option<Hooks>, Error> {
    let Some(hooks) = spec.hooks() else { return Ok(None) };
    let mut lowered = Vec::new();
    for kind in HookKind::ALL {
        for (index, hook) in of(hooks, kind).iter().flatten().enumerate() {
            lowered.push(one(hook, kind, &format!("hooks.{}[{index}]", kind.name()))?);
        }
    }
    if lowered.is_empty() {
        return Ok(None);
    }
    Ok(Some(Hooks { state: Some(state(spec, context, "hooks")?), hooks: lowered }))
}

fn of(hooks: &oci::Hooks, kind: HookKind) -> &Option<Vec<oci::Hook>> {
    match kind {
        HookKind::Prestart => hooks.prestart(),
        HookKind::CreateRuntime => hooks.create_runtime(),
        HookKind::CreateContainer => hooks.create_container(),
        HookKind::StartContainer => hooks.start_container(),
        HookKind::Poststart => hooks.poststart(),
        HookKind::Poststop => hooks.poststop(),
    }
}

fn one(hook: &oci::Hook, kind: HookKind, at: &str) -> Result<Hook, Error> {
    let path = hook.path().to_str().filter(|path| path.starts_with('/') && !path.contains('\0'));
    let path = path.ok_or_else(|| {
        let value = hook.path().to_string_lossy();
        Error::malformed(format!("{at}.path"), value, "an absolute path")
    })?;
    let args = hook.args().clone().unwrap_or_default();
    no_nul(&args, &format!("{at}.args"))?;
    let env = hook.env().clone().unwrap_or_default();
    no_nul(&env, &format!("{at}.env"))?;
    variables(&env, &format!("{at}.env"))?;
    let timeout = match hook.timeout() {
        None => 0,
        Some(seconds) => {
            u32::try_from(seconds).ok().filter(|seconds| *seconds > 0).ok_or_else(|| {
                let value = seconds.to_string();
                Error::malformed(format!("{at}.timeout"), value, "a number of seconds above 0")
            })?
        }
    };
    Ok(Hook { kind: kind.into(), path: path.to_owned(), args, env, timeout })
}
