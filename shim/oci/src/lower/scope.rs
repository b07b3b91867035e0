//! The scope of a container that a shim makes, where containerd asks for systemd's groups
//! (`SystemdCgroup`): D-Bus is for short-lived programs, so this one speaks it for the shim.
//!
//! | what | standard input | what it does |
//! |---|---|---|
//! | `scope` | `Resources` | has systemd make the scope around this process, says so by a byte, and waits in there to be killed, or for its reader to go |
//! | `limits` | `Resources` | tells systemd, so that a reload keeps them |
//! | `forget` | | ends the scope |
//!
//! Which scope it is, `create` noted in the run directory: the shim knows that there is one, no more.

use std::fs;
use std::io::{self, Write as _};

use rustix::event::{PollFd, PollFlags, poll};
use shim_cgroup::{Cgroup, Layout};
use shim_plan::Scope;
use shim_wire::files::RunDir;
use shim_wire::plan::Resources;

use crate::error::Error;
use crate::{files, scope};

/// Notes that a container's group is a scope, or that it is none.
///
/// # Errors
/// When the run directory can't be written.
pub(super) fn note(run: &RunDir, scope: Option<&Scope>) -> Result<(), Error> {
    let path = run.scope();
    match scope {
        Some(Scope { unit, slice, .. }) => {
            files::write_whole(&path, format!("{unit} {slice}\n").as_bytes(), 0o600)
        }
        None => match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::file("remove", &path)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        },
    }
}

/// The unit and its slice.
fn noted(run: &RunDir) -> Result<(String, String), Error> {
    let path = run.scope();
    let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    // Names of units have no spaces.
    let (unit, slice) = text.trim_end().split_once(' ').unwrap_or((text.trim_end(), ""));
    Ok((unit.to_owned(), slice.to_owned()))
}

/// Has systemd make the scope around this process and stays in it.
///
/// # Errors
/// systemd's.
pub(super) fn keep(run: &RunDir, resources: &Resources) -> Result<(), Error> {
    let (unit, slice) = noted(run)?;
    scope::enter(&unit, &slice, resources, cgroup(run)?.layout().is_v2()).map_err(asked)?;
    let mut output = io::stdout().lock();
    output.write_all(b"\n").and_then(|()| output.flush()).map_err(Error::Output)?;
    // Nobody reads any more: the shim has gone, for it would have killed this first.
    let _ = poll(&mut [PollFd::new(&output, PollFlags::empty())], None);
    Ok(())
}

/// Tells systemd new limits.
///
/// # Errors
/// systemd's.
pub(super) fn limit(run: &RunDir, resources: &Resources) -> Result<(), Error> {
    scope::set(&noted(run)?.0, resources, &cgroup(run)?).map_err(asked)
}

/// Has systemd forget the scope.
///
/// # Errors
/// systemd's.
pub(super) fn forget(run: &RunDir) -> Result<(), Error> {
    scope::stop(&noted(run)?.0).map_err(asked)
}

/// The container's, as the shim noted it.
fn cgroup(run: &RunDir) -> Result<Cgroup, Error> {
    let path = run.cgroup();
    let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    Ok(Cgroup::new(&Layout::detect()?, text.trim_end())?)
}

/// What it was asked by is no flag here.
fn asked(error: Error) -> Error {
    let Error::Systemd(source) = error else { return error };
    Error::field("options.systemd_cgroup", source.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_found_again_until_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDir::new(directory.path().to_owned());
        note(&run, None).unwrap();
        let scope = Scope::parse(Some("machine.slice:bosun:web"), "id").unwrap();
        note(&run, Some(&scope)).unwrap();
        let found = noted(&run).unwrap();
        assert_eq!(found, ("bosun-web.scope".to_owned(), "machine.slice".to_owned()));
        note(&run, None).unwrap();
        assert!(!run.scope().exists() && noted(&run).is_err());
    }
}
