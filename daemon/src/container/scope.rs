//! Control groups that systemd makes: where a pod's parent is a slice, its containers' groups are scopes
//! in it.
//!
//! ```text
//!   Keeper ── StartTransientUnit ──▶ the group is there, the keeper in it
//!   the shim makes the container in that group, as in every other ──▶ the keeper goes
//!   update ── SetUnitProperties, beside the group's files ──▶ a reload keeps the limits
//!   the group is emptied and removed ── StopUnit, ResetFailedUnit ──▶ systemd knows of nothing
//! ```
//!
//! A scope lives as long as a process is in it, so until the container's own is there one of ours keeps
//! it: the shim's program, which waits for the end of its input, and so ends with the daemon as well.
//! That a group is a scope, and which, is seen from its path: nothing more is to be remembered.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use shim_cgroup::Cgroup;
use shim_plan::Scope;
use shim_systemd::Manager;
use shim_wire::plan::Resources;

use super::Key;
use crate::core::Core;
use crate::error::{Error, Result};

/// What the names of our scopes begin with.
const PREFIX: &str = "bosun";

/// The scope of a container below a parent; `None` when that is no slice.
///
/// # Errors
/// No unit can have such a name.
pub(super) fn of(parent: &str, key: &Key) -> Result<Option<Scope>> {
    if !parent.ends_with(".slice") {
        return Ok(None);
    }
    let id = key.id.as_str();
    let path = format!("{parent}:{PREFIX}:{id}");
    let scope = Scope::parse(Some(&path), id);
    scope.map(Some).map_err(|error| Error::InvalidArgument {
        what: "cgroup_parent",
        problem: format!("{parent:?}: {error}"),
    })
}

/// Whether a group at this path can be the scope of this container.
pub(super) fn is_of(path: &str, key: &Key) -> bool {
    unit(path).is_some_and(|unit| unit == format!("{PREFIX}-{}.scope", key.id))
}

/// The scope that a group is.
fn unit(path: &str) -> Option<&str> {
    path.rsplit('/').next().filter(|name| name.ends_with(".scope"))
}

/// A process in a scope, until this is dropped.
#[derive(Debug)]
pub(super) struct Keeper(Child);

impl Drop for Keeper {
    fn drop(&mut self) {
        // It is ours, and was not waited for: neither can fail.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Has systemd make a scope.
///
/// # Errors
/// systemd's, in its words.
pub(super) async fn start(core: &Core, scope: Scope, resources: Resources) -> Result<Keeper> {
    let program = core.shim.path().to_owned();
    let unified = core.cgroups.is_v2();
    let Scope { unit, slice, .. } = scope;
    let named = unit.clone();
    let work = move || {
        let child = Command::new(program)
            .args(["--keep-scope"])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| shim_systemd::Error::Io {
                step: "start a process for",
                object: unit.clone(),
                source,
            })?;
        let keeper = Keeper(child);
        let mut manager = Manager::connect()?;
        manager.start(&unit, &slice, keeper.0.id(), &resources, unified)?;
        Ok(keeper)
    };
    asked(&named, work).await
}

/// Tells systemd the limits that a group has by now, if that is a scope.
///
/// # Errors
/// systemd's, in its words.
pub(super) async fn limit(core: &Core, path: &str, resources: &Resources) -> Result<()> {
    let Some(unit) = unit(path).map(str::to_owned) else { return Ok(()) };
    let (layout, path, resources) = (core.cgroups.clone(), path.to_owned(), resources.clone());
    let named = unit.clone();
    let work = move || {
        let group = Cgroup::new(&layout, &path).ok().filter(|_| layout.is_v2());
        let directory = group.and_then(|group| group.paths().into_iter().next());
        Manager::connect()?.set(&unit, &resources, directory.as_deref())
    };
    asked(&named, work).await
}

/// Has systemd forget the scope that a group was, with all that is in it; nothing is done for another.
pub(super) async fn forget(path: &str) {
    let Some(unit) = unit(path).map(str::to_owned) else { return };
    let named = unit.clone();
    let forgotten = asked(&named, move || Manager::connect()?.stop(&unit)).await;
    if let Err(error) = forgotten {
        // Its group is gone, so systemd will see by itself that nothing is left.
        tracing::warn!(unit = named, %error, "not forgotten");
    }
}

async fn asked<T: Send + 'static>(
    unit: &str,
    work: impl FnOnce() -> std::result::Result<T, shim_systemd::Error> + Send + 'static,
) -> Result<T> {
    let unit = unit.to_owned();
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopping)?;
    done.map_err(|source| Error::Systemd { unit, source: Arc::new(source) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key { namespace: "k8s.io".parse().unwrap(), id: "0f1e".parse().unwrap() }
    }

    #[test]
    fn a_slice_has_scopes_and_another_parent_has_none() {
        let scope = of("kubepods-burstable-pod1.slice", &key()).unwrap().unwrap();
        assert_eq!(scope.unit, "bosun-0f1e.scope");
        assert_eq!(
            scope.path,
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/bosun-0f1e.scope"
        );
        assert!(is_of(&scope.path, &key()) && !is_of("a.slice/bosun-0f1f.scope", &key()));
        assert_eq!(of("kubepods/burstable", &key()).unwrap(), None);
        assert!(of("a--b.slice", &key()).unwrap_err().to_string().contains("a--b.slice"));
        assert_eq!(unit("bosun/k8s.io/0f1e"), None);
    }
}
