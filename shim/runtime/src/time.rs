//! Time namespaces: clocks of a container's own (time_namespaces(7)).

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use shim_wire::plan::TimeOffset;

use crate::error::At;
use crate::namespaces::NEW_TIME;
use crate::procfs::Procfs;
use crate::{Error, Rule, Step};

/// Makes one for the children of this process. Its clocks can be set until something is in it.
pub(crate) fn unshare(offsets: &[TimeOffset], procfs: &Procfs) -> Result<(), Error> {
    match shim_sys::clone::unshare(NEW_TIME) {
        Err(Errno::INVAL) => {
            return Err(Error::refused("the time namespace", Rule::NoTimeNamespaces));
        }
        other => other.at(Step::Unshare, "the time namespace")?,
    }
    // One by one, so that the one that is refused can be named.
    offsets.iter().try_for_each(|TimeOffset { clock, seconds, nanoseconds }| {
        procfs.write_own("timens_offsets", &format!("{clock} {seconds} {nanoseconds}\n")).at(
            Step::TimeOffset,
            format_args!("linux.timeOffsets.{clock} to {seconds} s and {nanoseconds} ns"),
        )
    })
}

/// Moves this process to where its children would be born.
pub(crate) fn enter() -> Result<(), Error> {
    const PATH: &str = "/proc/self/ns/time_for_children";
    let namespace = rustix::fs::open(PATH, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .at(Step::OpenNamespace, PATH)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Time))
        .at(Step::JoinNamespace, "the kind time")
}
