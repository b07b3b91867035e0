//! The ends of execs: who waits for them, and who forgets them. What they are is
//! [`shim_wire::exec`]'s.

use std::sync::Arc;

use shim_wire::ttrpc::Code;

use super::actor::container_event;
use super::handle::Handle;
use super::run::Running;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::shim::{self, Exited};

/// Waits for the end of an exec and forgets it.
///
/// # Errors
/// The shim went first.
pub(super) async fn ended(
    core: &Core,
    handle: &Handle,
    running: &Running,
    exec_id: &str,
) -> Result<Exited> {
    let failed = |source| Error::Shim { id: handle.key.id.to_string(), source: Arc::new(source) };
    let exited = running.shim.client.wait(exec_id).await.map_err(failed)?;
    // A shim that is gone has forgotten it.
    let _ = running.shim.client.delete_exec(exec_id).await;
    die_event(core, handle, exec_id, exited);
    Ok(exited)
}

/// Takes up an exec that an earlier daemon began. Who asked for it is gone: one that never began, or
/// has ended, is forgotten at once, one that runs at its end.
pub(super) async fn take_up(core: Arc<Core>, handle: Handle, running: Arc<Running>, id: String) {
    let outcome = match running.shim.client.delete_exec(&id).await {
        Ok(Some(exited)) => {
            die_event(&core, &handle, &id, exited);
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(shim::Error::Refused { code: Code::FailedPrecondition, .. }) => {
            ended(&core, &handle, &running, &id).await.map(drop)
        }
        Err(source) => Err(Error::Shim { id: handle.label(), source: Arc::new(source) }),
    };
    if let Err(error) = outcome {
        // It ends with its shim.
        tracing::debug!(container = %handle.key, exec = id, %error, "not forgotten");
    }
}

fn die_event(core: &Core, handle: &Handle, exec_id: &str, exited: Exited) {
    let attributes = vec![("execID", exec_id.to_owned()), ("exitCode", exited.status.to_string())];
    event(core, handle, "exec_die", attributes);
}

/// Notes what happened to an exec.
pub(super) fn event(
    core: &Core,
    handle: &Handle,
    action: &'static str,
    attributes: Vec<(&'static str, String)>,
) {
    if let Ok(record) = handle.record() {
        let event = container_event(&handle.key, &record, action, attributes);
        core.store.write_soon(move |tx| tx.event(event).map(|_| ()));
    }
}
