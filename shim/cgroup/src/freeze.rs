//! Stopping everything in a group, and letting it go on.

use crate::{Cgroup, Controller, Error, write};

impl Cgroup {
    /// Freezes the group, or thaws it: through the v1 controller where there is one, else through
    /// the unified hierarchy.
    ///
    /// # Errors
    /// [`Error::MissingController`] on a machine that has neither; [`Error::Io`].
    pub fn freeze(&self, frozen: bool) -> Result<(), Error> {
        if let Some(freezer) = self.layout.controller(Controller::Freezer) {
            let state = if frozen { "FROZEN" } else { "THAWED" };
            return write(&freezer.mount().join(&self.path).join("freezer.state"), state);
        }
        let Some(unified) = self.layout.unified() else {
            let controller = Controller::Freezer;
            return Err(Error::MissingController { limit: "pause", controller });
        };
        let state = if frozen { "1" } else { "0" };
        write(&unified.join(&self.path).join("cgroup.freeze"), state)
    }
}
