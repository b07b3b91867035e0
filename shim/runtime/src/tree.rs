//! The container's mounts, from the rootfs up, and the step into them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use shim_rootfs::overlay::Made;
use shim_rootfs::{Leaf, Root};
use shim_wire::plan::{Plan, PlanMount};

use crate::child::Birth;
use crate::error::At;
use crate::hide::{Masks, protect};
use crate::mounts::Detached;
use crate::namespaces::{NEW_IPC, NEW_NET, NEW_PID, NEW_USER};
use crate::procfs::Procfs;
use crate::stdio::host_null;
use crate::userns::UserNamespace;
use crate::{Error, Rule, Step, cgroupfs, dev, mounts, overlay};

/// What only the host's root can take: the rootfs, and copies of the host's directories, not attached
/// to the container's tree yet.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) root: Made,
    /// Of those mounts of the plan that are taken already.
    mounts: Vec<Option<Detached>>,
}

impl Sources {
    /// Takes the rootfs, and, for a container of a user namespace, all that it could not take itself.
    /// From then on nothing that is mounted here travels to the host.
    pub(crate) fn take(plan: &Plan, user: Option<&UserNamespace>) -> Result<Self, Error> {
        let cut_off = || {
            mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
                .at(Step::Propagation, "/")
        };
        let rootfs =
            plan.rootfs.as_ref().ok_or_else(|| Error::refused("the plan", Rule::MalformedPlan))?;
        if let Some(user) = user {
            // Mounts of another user namespace never reach the host.
            cut_off()?;
            let mounts = mounts::copy_all(&plan.mounts, user)?;
            return Ok(Self {
                root: Made::Detached(overlay::make_detached(rootfs, user)?),
                mounts,
            });
        }
        let mounts = mounts::copy_early(&plan.mounts)?;
        cut_off()?;
        Ok(Self { root: overlay::make(rootfs)?, mounts })
    }
}

impl Sources {
    /// Makes the views of namespaces that are not new, by somebody of the host who has joined them: in
    /// another user namespace than their own nobody may. A procfs is of the host's processes only.
    pub(crate) fn add_views(&mut self, plan: &Plan, own: u64, new: u64) -> Result<(), Error> {
        for (index, (mount, taken)) in plan.mounts.iter().zip(&mut self.mounts).enumerate() {
            let is_foreign = match mount.kind.as_str() {
                "proc" => own & NEW_PID == 0,
                "sysfs" => new & NEW_NET == 0,
                "mqueue" => new & NEW_IPC == 0,
                _ => false,
            };
            if is_foreign && !mounts::is_remount(mount) {
                let made = mounts::make(mount, &plan.mount_label);
                *taken = Some(made.map_err(|error| error.of_mount(index, mount))?);
            }
        }
        Ok(())
    }
}

/// Everything mounted, on top of the old root.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    pub(crate) root: Root,
    /// The container's own, for where no private one can be had.
    pub(crate) procfs: Option<Procfs>,
    groups: Groups<'a>,
    /// What becomes read-only when nothing more is made in it.
    filled: Vec<(usize, &'a PlanMount, OwnedFd)>,
}

/// The mounts of control groups wait for the parent, which makes the groups meanwhile.
#[derive(Debug)]
enum Groups<'a> {
    Awaited(Vec<(usize, &'a PlanMount)>),
    Entered,
}

impl<'a> Tree<'a> {
    /// Makes the rootfs, mounts what the plan says, and fills /dev.
    pub(crate) fn build(
        birth: &Birth<'_>,
        plan: &'a Plan,
        mut sources: Sources,
    ) -> Result<Self, Error> {
        let groups = Groups::Awaited(Vec::new());
        let root = attach_root(sources.root, plan)?;
        let mut tree = Self { root, procfs: None, groups, filled: Vec::new() };
        for (index, (mount, taken)) in plan.mounts.iter().zip(&mut sources.mounts).enumerate() {
            if mount.only_if_present && tree.root.open(&mount.destination, OFlags::PATH).is_err() {
                continue;
            }
            let named = |error: Error| error.of_mount(index, mount);
            if mounts::is_remount(mount) {
                mounts::remount(&tree.root, mount).map_err(named)?;
                // What it says of the mount holds from here on.
                let place = |mount: &'a PlanMount| mount.destination.trim_end_matches('/');
                tree.filled.retain(|(_, filled, _)| place(filled) != place(mount));
                continue;
            }
            if matches!(mount.kind.as_str(), "cgroup" | "cgroup2") {
                tree.add_groups(birth, plan, index)?;
                continue;
            }
            let made = taken.take().map_or_else(|| mounts::make(mount, &plan.mount_label), Ok);
            let attached =
                made.and_then(|made| made.attach_at(&tree.root, mount)).map_err(named)?;
            if mounts::is_read_only_at_the_end(mount) {
                tree.filled.push((index, mount, attached));
            } else if mount.kind == "proc" && tree.procfs.is_none() {
                tree.procfs = Some(Procfs::of(attached));
            }
        }
        if dev::is_own(&plan.mounts) {
            dev::make_links(&tree.root)?;
        }
        // In a user namespace nobody makes devices.
        let make =
            if birth.own_namespaces() & NEW_USER != 0 { dev::bind_node } else { dev::make_node };
        plan.devices.iter().try_for_each(|device| make(&tree.root, device))?;
        Ok(tree)
    }

    /// Puts the control groups off to the end, or, when something lies on top of them, mounts them
    /// in their turn.
    fn add_groups(&mut self, birth: &Birth<'_>, plan: &'a Plan, index: usize) -> Result<(), Error> {
        let mount = &plan.mounts[index];
        match &mut self.groups {
            Groups::Awaited(mounts) if !is_built_upon(plan, index) => {
                mounts.push((index, mount));
                return Ok(());
            }
            Groups::Awaited(_) => self.enter_groups(birth, plan)?,
            Groups::Entered => {}
        }
        self.mount_groups(birth, index, mount)
    }

    fn mount_groups(
        &self,
        birth: &Birth<'_>,
        index: usize,
        mount: &PlanMount,
    ) -> Result<(), Error> {
        cgroupfs::mount(&self.root, mount, birth.cgroup)
            .map_err(|error| error.of_mount(index, mount))
    }

    /// Waits for the groups, joins them, makes them the root of what the container sees, and mounts
    /// them where the plan says. Does nothing the second time.
    pub(crate) fn enter_groups(&mut self, birth: &Birth<'_>, plan: &Plan) -> Result<(), Error> {
        let Groups::Awaited(mounts) = std::mem::replace(&mut self.groups, Groups::Entered) else {
            return Ok(());
        };
        birth.enter_cgroup(plan.new_cgroup_namespace)?;
        mounts.iter().try_for_each(|(index, mount)| self.mount_groups(birth, *index, mount))
    }

    /// Covers what is to be masked and read-only. All that lies on top of the mounts comes before
    /// this, and nothing is written below them after it.
    pub(crate) fn hide(&self, plan: &Plan) -> Result<(), Error> {
        for (index, path) in plan.readonly_paths.iter().enumerate() {
            protect(&self.root, path)
                .map_err(|error| error.at(format!("linux.readonlyPaths[{index}]")))?;
        }
        let mut masks = Masks::new(host_null()?);
        for (index, path) in plan.masked_paths.iter().enumerate() {
            masks
                .mask(&self.root, path)
                .map_err(|error| error.at(format!("linux.maskedPaths[{index}]")))?;
        }
        Ok(())
    }

    /// Makes the working directory while the rootfs can still be written to.
    pub(crate) fn make_cwd(&self, cwd: &str) -> Result<(), Error> {
        if cwd.is_empty() {
            return Ok(());
        }
        let error = |errno| Error::Cwd { cwd: cwd.to_owned(), errno };
        self.root.make(cwd, Leaf::Directory).map(drop).map_err(|made| match made.errno() {
            Some(errno) => error(errno),
            None => error(Errno::LOOP),
        })
    }

    /// Turns read-only what had to be filled first.
    pub(crate) fn close_filled(&mut self) -> Result<(), Error> {
        self.filled.drain(..).try_for_each(|(index, mount, filled)| {
            mounts::make_read_only(filled.as_fd(), false, &mount.destination)
                .map_err(|error| error.of_mount(index, mount))
        })
    }

    /// Makes the container's root the root, and lets go of the old one.
    pub(crate) fn enter(&self, plan: &Plan) -> Result<(), Error> {
        if plan.rootfs.as_ref().is_some_and(|rootfs| rootfs.readonly) {
            mounts::make_read_only(self.root.as_fd(), false, "/")?;
        }
        rustix::process::fchdir(self.root.as_fd()).at(Step::Pivot, "the rootfs")?;
        rustix::process::pivot_root(".", ".").at(Step::Pivot, "the rootfs")?;
        // The old root now lies on top of the new one, at the same place.
        unmount(".", UnmountFlags::DETACH).at(Step::Pivot, "the rootfs")?;
        if let Ok(propagation) = u32::try_from(plan.root_propagation)
            && propagation != 0
        {
            // Only now: what was set up must not have travelled anywhere.
            mount_change(".", MountPropagationFlags::from_bits_retain(propagation))
                .at(Step::Propagation, "/")?;
        }
        rustix::process::chdir("/").at(Step::Pivot, "the rootfs")
    }
}

fn attach_root(made: Made, plan: &Plan) -> Result<Root, Error> {
    match made {
        Made::Detached(mount) => {
            // On a path where hooks look for it, or on top of everything.
            let shown = plan.rootfs.as_ref().map(|rootfs| rootfs.shown_at.as_str());
            let shown = shown.filter(|path| !path.is_empty());
            let shown = shown.and_then(|path| open_directory(path).ok());
            let place = shown.map_or_else(|| open_directory("/").at(Step::Resolve, "/"), Ok)?;
            mounts::attach(&mount, place.as_fd(), "/")?;
            Ok(Root::new(mount))
        }
        // A lookup of the root's parent stays at the root, and goes up to what is mounted on it.
        Made::OnRoot => open_directory("/..").map(Root::new).at(Step::Resolve, "/.."),
    }
}

/// Whether a later step of the plan lies inside what a mount brings, or covers where it goes.
fn is_built_upon(plan: &Plan, index: usize) -> bool {
    let mount = plan.mounts[index].destination.trim_end_matches('/');
    let is_below = |path: &str, above: &str| {
        path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let touches = |path: &str| {
        let path = path.trim_end_matches('/');
        is_below(path, mount) || is_below(mount, path)
    };
    plan.mounts[index + 1..].iter().any(|later| touches(&later.destination))
        || plan.devices.iter().any(|device| touches(&device.path))
        || plan.masked_paths.iter().chain(&plan.readonly_paths).any(|path| touches(path))
}

fn open_directory(path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nothing_is_built_upon_can_wait() {
        let mount = |path: &str| PlanMount { destination: path.to_owned(), ..PlanMount::default() };
        let mut plan = Plan {
            mounts: vec![mount("/sys"), mount("/sys/fs/cgroup"), mount("/sys/fs/cgroups")],
            masked_paths: vec!["/sys/firmware".to_owned()],
            ..Plan::default()
        };
        assert!(is_built_upon(&plan, 0));
        assert!(!is_built_upon(&plan, 1));
        plan.masked_paths.push("/sys/fs/cgroup/memory".to_owned());
        assert!(is_built_upon(&plan, 1));
        plan.masked_paths.clear();
        plan.mounts.push(mount("/sys/fs/cgroup"));
        assert!(is_built_upon(&plan, 1));
        plan.mounts.pop();
        plan.masked_paths.push("/sys/fs/".to_owned());
        assert!(is_built_upon(&plan, 1));
    }
}
