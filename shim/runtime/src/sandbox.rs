//! The namespaces of a pod, held without a process in them.
//!
//! ```text
//!  parent (the pod's shim)                 child (ends as soon as it has done its work)
//!  ───────────────────────                 ────────────────────────────────────────────
//!  clone3 into new namespaces ───────────▶ joins the network, sets names and parameters
//!                                          (in a user namespace: enters it, makes the others in it)
//!  ◀──────────────────────────────── Ready
//!  opens /proc/CHILD/ns/*
//!  ends the child: the descriptors keep the namespaces
//! ```
//!
//! A descriptor keeps every kind of namespace but one: without its first process a pid namespace
//! takes no other. A pod that shares one has that process ([`Process::pause`]), which is a container
//! of its own; what it shares is found by [`namespaces_of`] in the same way.
//!
//! [`Process::pause`]: shim_wire::plan::Process::pause

use std::convert::Infallible;
use std::os::fd::BorrowedFd;

use shim_sys::clone::{Cloned, unshare};
use shim_wire::plan::{CreateOptions, Sandbox};

use crate::channel::{Channel, Message};
use crate::create::{clone_into, hide_from_others};
use crate::error::At;
use crate::namespaces::{Held, Joined, NEW_IPC, NEW_NET, NEW_USER, NEW_UTS, namespaces_of};
use crate::process::Unfinished;
use crate::procfs::Procfs;
use crate::userns::{UserNamespace, become_root};
use crate::{Error, Rule, Step, child, parameters};

/// What a pod shares, as far as a descriptor can hold it.
const HELD: u64 = NEW_IPC | NEW_UTS | NEW_USER | NEW_NET;

/// Makes the namespaces of a pod, and joins those that are there already; nothing runs in them when
/// this returns. With a user namespace the other new ones belong to it. `network` is the network namespace that a `join` without a path means.
///
/// Needs root and a caller with one thread; see [`create`](crate::create()).
///
/// # Errors
/// What the request or the machine do not allow; [`Error::kind`] sorts them.
pub fn sandbox(
    options: &CreateOptions,
    sandbox: &Sandbox,
    network: Option<BorrowedFd<'_>>,
) -> Result<Vec<Held>, Error> {
    let joined = Joined::open(options, network)?;
    let own = options.clone_flags | joined.kinds();
    if own & !HELD != 0 || joined.pid.is_some() || joined.user.is_some() {
        return Err(Error::refused(format!("clone flags {own:#x}"), Rule::SandboxNamespace));
    }
    let (ours, theirs) = Channel::pair().at(Step::Channel, "a socket")?;
    hide_from_others()?;
    // In a user namespace the child makes the others once it is in there.
    let has_user = options.clone_flags & NEW_USER != 0;
    let namespaces = if has_user { 0 } else { options.clone_flags };
    let (pid, pidfd) = match clone_into(namespaces, None, None)? {
        Cloned::Child => {
            drop(ours);
            let own = own & !joined.hosts;
            child::report(&theirs, || settle(options, own, sandbox, &joined, &theirs))
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    let child = Unfinished::new(pid, pidfd, ours);
    child.ready()?;
    // Dropped behind this, and so ended: the child has done what it is for.
    namespaces_of(pid, own)
}

/// The child's side.
fn settle(
    options: &CreateOptions,
    own: u64,
    sandbox: &Sandbox,
    joined: &Joined,
    parent: &Channel,
) -> Result<Infallible, Error> {
    joined.join()?;
    let mut sysctls = sandbox.sysctls.clone();
    let has_user = options.clone_flags & NEW_USER != 0;
    let needs_procfs = has_user || !sysctls.is_empty();
    let procfs = needs_procfs.then(Procfs::private).transpose()?;
    if let Some(procfs) = procfs.as_ref().filter(|_| has_user) {
        let user = UserNamespace::make(&sandbox.uid_mappings, &sandbox.gid_mappings, procfs)?;
        // Who is in another user namespace has no power over these.
        let of_others = parameters::take_of_others(&mut sysctls, options.clone_flags);
        parameters::set_sysctls(own, &of_others, procfs)?;
        user.enter()?;
        become_root()?;
        unshare(options.clone_flags & !NEW_USER).at(Step::Unshare, "what the pod shares")?;
    }
    if sandbox.loopback {
        shim_sys::net::loopback_up().at(Step::Loopback, "lo")?;
    }
    parameters::set_names(own, &sandbox.hostname, &sandbox.domainname)?;
    if let Some(procfs) = &procfs {
        parameters::set_sysctls(own, &sysctls, procfs)?;
    }
    parent.send(&Message::Ready).at(Step::Channel, "the parent")?;
    child::wait_for_the_end(parent)
}
