//! Holding the processes of a container still while something that they change is read.
//!
//! A container that is held is not paused: it runs, for everybody who asks. A daemon may be killed in the
//! middle: its shim sees that it has gone and lets go on what is not paused, and so does a daemon that takes
//! a container up, for the shim may have been an older one (`recover`).

use super::handle::{Handle, Phase};
use super::run;
use crate::core::Core;
use crate::error::Result;

/// Held still until this goes, whichever way: also when the daemon ends in the middle.
#[derive(Debug)]
pub struct Held<'a> {
    core: &'a Core,
    handle: &'a Handle,
}

impl<'a> Held<'a> {
    /// Stops the processes of a container that runs, and waits until they stand; `None` for one that does not
    /// run, or is paused. Nobody else may do so meanwhile, nor add one: who calls this has both turns,
    /// [`Core::processes`] and [`Core::trees`].
    ///
    /// # Errors
    /// They can't be stopped.
    pub async fn hold(core: &'a Core, handle: &'a Handle) -> Result<Option<Self>> {
        if !matches!(handle.view().phase, Phase::Running(_)) {
            return Ok(None);
        }
        shim_failpoints::step!("daemon.hold.before_freeze", error);
        let held = Self { core, handle };
        run::freeze(core, handle.key()).await?;
        shim_failpoints::step!("daemon.hold.after_freeze", error);
        Ok(Some(held))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        shim_failpoints::step!("daemon.hold.before_let_go");
        // Who has paused it meanwhile lets it go on.
        if matches!(self.handle.view().phase, Phase::Running(_))
            && let Err(error) = run::let_go_on(self.core, self.handle.key())
            && self.handle.running().is_ok()
        {
            let container = self.handle.key();
            tracing::error!(%container, %error, "its processes are still held");
        }
        shim_failpoints::step!("daemon.hold.after_let_go");
    }
}
