//! What the OCI specification knows and bosun does not do: refused by its JSON path, never
//! silently ignored.
//!
//! An empty object or list asks for nothing and passes; docker writes many of them.

use oci_spec::runtime::{Linux, Process, Spec};

use crate::Error;

/// One field: whether the spec asks for it, and its path.
type Field = (bool, &'static str);

/// # Errors
/// Names the first field that is not supported.
pub(crate) fn unsupported(spec: &Spec) -> Result<(), Error> {
    refuse(
        "",
        &[
            (spec.solaris().is_some(), "solaris"),
            (spec.windows().is_some(), "windows"),
            (spec.vm().is_some(), "vm"),
            (spec.zos().is_some(), "zos"),
        ],
    )?;
    if let Some(first) = spec.process() {
        process(first)?;
    }
    spec.linux().as_ref().map_or(Ok(()), linux)
}

/// # Errors
/// Names the first field that is not supported.
pub(crate) fn process(process: &Process) -> Result<(), Error> {
    let has_name = process.user().username().as_ref().is_some_and(|name| !name.is_empty());
    let asked = [(process.command_line().is_some(), "commandLine"), (has_name, "user.username")];
    refuse("process.", &asked)
}

fn linux(linux: &Linux) -> Result<(), Error> {
    refuse(
        "linux.",
        &[
            (linux.net_devices().as_ref().is_some_and(|map| !map.is_empty()), "netDevices"),
            (linux.intel_rdt().is_some(), "intelRdt"),
            (linux.memory_policy().is_some(), "memoryPolicy"),
        ],
    )?;
    Ok(())
}

fn refuse(below: &str, fields: &[Field]) -> Result<(), Error> {
    match fields.iter().find(|(asked, _)| *asked) {
        Some((_, name)) => Err(Error::not_supported(format!("{below}{name}"))),
        None => Ok(()),
    }
}
