//! A terminal's master, on its way to whoever asked for it.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::error::Error;

/// Sends a master to the socket of `--console-socket`, with its name as the data.
///
/// # Errors
/// Names the socket.
pub(crate) fn send(socket: &Path, master: &OwnedFd) -> Result<(), Error> {
    let failed = |step| Error::file(step, socket);
    let stream = UnixStream::connect(socket).map_err(failed("connect to the console socket"))?;
    // A name of the container's own /dev/pts, for the caller to show.
    let name = b"/dev/ptmx";
    let descriptors = [master.as_fd()];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(&stream, &[IoSlice::new(name)], &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(|errno| failed("send the terminal to")(errno.into()))
}
