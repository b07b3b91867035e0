//! The caller's own program, out of a container's reach (see [`shim_sys::program`]).

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use shim_sys::exec::fexecve;
use shim_sys::program::{is_protected, protected};

use crate::error::At;
use crate::{Error, Step};

const OWN: &str = "/proc/self/exe";

/// Runs this program again, with the same arguments and environment, from where it can't be written;
/// returns when it runs from there already. To be called before anything else, by every program that
/// calls [`create`](crate::create()) or [`exec`](crate::exec()).
///
/// # Errors
/// When it can't be put out of reach.
pub fn protect() -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open(OWN, flags, Mode::empty()).at(Step::OwnProgram, OWN)?;
    if is_protected(&own) {
        return Ok(());
    }
    let image = image()?;
    let text = |text: OsString| CString::new(text.into_vec()).unwrap_or_default();
    let arguments: Vec<CString> = std::env::args_os().map(text).collect();
    let environment: Vec<CString> = std::env::vars_os()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            text(name)
        })
        .collect();
    Err(fexecve(image.as_fd(), &arguments, &environment)).at(Step::OwnProgram, OWN)
}

/// This program, to be executed inside.
pub(crate) fn image() -> Result<OwnedFd, Error> {
    protected(Path::new(OWN)).at(Step::OwnProgram, OWN)
}
