//! Between the parent and a container in a user namespace: a process of the host that takes for it
//! what it could not take itself, bears it into its namespaces, and is gone.
//!
//! ```text
//!  parent                 midwife                               child
//!  clone3 ──────────────▶ own mount tree
//!  groups in v1           user namespace, made or joined
//!                         rootfs, copies of host directories,
//!                         attached nowhere
//!  CgroupReady ─────────▶ namespaces to join, views of them, the user namespace last
//!  ◀──────────────── Born clone3 as a sibling ────────────────▶ the other namespaces are new
//!                         end
//!  Adopted ───────────────────────────────────────────────────▶ is its root; goes on as others do
//! ```
//!
//! So everything that the child makes and is in belongs to its user namespace, and nothing of the host
//! has to be reachable for it.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Mode;
use shim_sys::clone::{Cloned, clone3_sibling};
use shim_sys::exec::exit_now;
use shim_wire::plan::{CreateOptions, Process};

use crate::channel::Message;
use crate::child::{Birth, Found, assemble, own_hooks, read_plan, report, wait_for};
use crate::error::At;
use crate::namespaces::{NEW_CGROUP, NEW_PID, NEW_TIME, NEW_USER, PidNamespace};
use crate::process::ProcessIo;
use crate::procfs::Procfs;
use crate::stdio::ChildIo;
use crate::tree::Sources;
use crate::userns::{UserNamespace, become_root};
use crate::{Error, Rule, Step, credentials, lsm, parameters, program, time};

/// Whether a container is born this way.
pub(crate) fn is_needed(options: &CreateOptions) -> bool {
    options.clone_flags & NEW_USER != 0 || options.join.iter().any(|join| join.kind == NEW_USER)
}

/// Is the midwife, in a mount namespace of its own. The child is born into `group`.
pub(crate) fn deliver(
    birth: Birth<'_>,
    user: Option<OwnedFd>,
    group: Option<BorrowedFd<'_>>,
    io: ChildIo,
    parents_ends: Option<ProcessIo>,
) -> ! {
    drop(parents_ends);
    let parent = birth.parent;
    report(parent, || bear(birth, user, group, io))
}

fn bear(
    mut birth: Birth<'_>,
    user: Option<OwnedFd>,
    group: Option<BorrowedFd<'_>>,
    io: ChildIo,
) -> Result<Infallible, Error> {
    let mut plan = read_plan(birth.run_dir)?;
    if let Some(process) = &plan.process {
        lsm::check(process)?;
    }
    rustix::process::umask(Mode::empty());
    let procfs = Procfs::private()?;
    let user = match user {
        Some(descriptor) => {
            UserNamespace::of(descriptor, &birth.joined.place(NEW_USER), &plan, &procfs)?
        }
        None => UserNamespace::make(&plan.uid_mappings, &plan.gid_mappings, &procfs)?,
    };
    shim_failpoints::step!("shim.create.before_mounts", error);
    let mut sources = Sources::take(&plan, Some(&user))?;
    let process =
        plan.process.as_mut().ok_or_else(|| Error::refused("the plan", Rule::NoProcess))?;
    let image = (process.init || process.pause).then(program::image).transpose()?;
    take_privileges(process, &procfs)?;
    io.give_to(user.root)?;
    birth.doors = Some(birth.open_doors()?);
    let hooks = own_hooks(&birth)?;
    birth.joined.join()?;
    // Who is in another user namespace has no power over these.
    let of_others = parameters::take_of_others(&mut plan.sysctls, birth.options.clone_flags);
    parameters::set_sysctls(birth.own_namespaces(), &of_others, &procfs)?;
    sources.add_views(&plan, birth.own_namespaces(), birth.options.clone_flags)?;
    if let Some(namespace) = &birth.joined.pid {
        let place = birth.joined.place(NEW_PID);
        PidNamespace::At(namespace.as_fd()).enter().at(Step::JoinNamespace, place)?;
    }
    user.enter()?;
    let flags = birth.options.clone_flags;
    if flags & NEW_TIME != 0 {
        time::unshare(&plan.time_offsets, &procfs)?;
    }
    drop(procfs);
    match clone3_sibling(flags & !(NEW_USER | NEW_CGROUP | NEW_TIME), group)
        .at(Step::Clone, "the container")?
    {
        Cloned::Parent { pid: _, pidfd } => {
            let born = Message::Born { process: pidfd, root: user.root };
            birth.parent.send(&born).at(Step::Channel, "the parent")?;
            exit_now(0)
        }
        Cloned::Child => {
            wait_for(birth.parent, |message| matches!(message, Message::Adopted))?;
            become_root()?;
            assemble(&birth, &plan, sources, Found { image, hooks }, io)
        }
    }
}

/// Takes what only the host's root can give to a process of a user namespace, and children inherit: a
/// lower OOM score, better priorities, and higher hard limits. Exact limits it sets itself.
pub(crate) fn take_privileges(process: &mut Process, procfs: &Procfs) -> Result<(), Error> {
    if let Some(score) = process.oom_score_adj.take() {
        procfs
            .write_own("oom_score_adj", &score.to_string())
            .at(Step::OomScore, format_args!("process.oomScoreAdj to {score}"))?;
    }
    credentials::take_priorities(process)?;
    credentials::raise_limits(process)
}
