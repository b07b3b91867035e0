//! Stopping everything in a group, and letting it go on.

use std::path::PathBuf;
use std::time::Instant;

use rustix::io::Errno;

use crate::kill::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::{Cgroup, Controller, Error, read, write};

impl Cgroup {
    /// Freezes the group, or thaws it: through the v1 controller where there is one, else through
    /// the unified hierarchy. A freeze is a request, and takes its time.
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

    /// Freezes the group and waits until everything in it stands still; thaws it again when it does
    /// not.
    ///
    /// # Errors
    /// [`Error::NotFrozen`] at the deadline; those of [`freeze`](Self::freeze).
    pub fn freeze_until(&self, deadline: Instant) -> Result<(), Error> {
        self.freeze(true)?;
        let mut pause = FIRST_PAUSE;
        while !self.is_frozen() {
            if Instant::now() >= deadline {
                self.freeze(false)?;
                return Err(Error::NotFrozen { path: self.path.clone() });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }

    /// Refuses a group that stands still already, or would as soon as it is made: whoever came into it
    /// could neither go on nor, in v1, be killed.
    ///
    /// # Errors
    /// [`Error::Frozen`]; [`Error::Io`].
    pub fn refuse_frozen(&self) -> Result<(), Error> {
        let v1 = self.layout.controller(Controller::Freezer).map(|freezer| freezer.mount());
        let v1 = v1.map(|mount| (mount, "freezer.state", "THAWED"));
        let unified = self.layout.unified().map(|mount| (mount, "cgroup.freeze", "0"));
        for (mount, file, thawed) in v1.into_iter().chain(unified) {
            let group = mount.join(&self.path);
            for level in group.ancestors().take_while(|level| *level != mount) {
                match read(&level.join(file)) {
                    Ok(state) if state.trim() == thawed => {}
                    Ok(_) => return Err(Error::Frozen { level: level.to_owned() }),
                    // It is still to be made, or the kernel can't freeze there (before Linux 5.2).
                    Err(Error::Io { errno: Errno::NOENT | Errno::NODEV, .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// The directory by which it is frozen; `None` on a machine where it can't be.
    #[must_use]
    pub fn freezer(&self) -> Option<PathBuf> {
        let v1 = self.layout.controller(Controller::Freezer).map(|freezer| freezer.mount());
        v1.or(self.layout.unified()).map(|mount| mount.join(&self.path))
    }

    /// Whether everything in the group stands still.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        if let Some(freezer) = self.layout.controller(Controller::Freezer) {
            let state = read(freezer.mount().join(&self.path).join("freezer.state"));
            return state.trim() == "FROZEN";
        }
        self.layout.unified().is_some_and(|unified| {
            let events = read(unified.join(&self.path).join("cgroup.events"));
            events.lines().any(|line| line == "frozen 1")
        })
    }
}
