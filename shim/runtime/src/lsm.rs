//! Labels of security modules: AppArmor profiles and SELinux contexts.
//!
//! They are asked for by name, so a kernel without the module is an error, found before anything
//! inside is touched. All writes go through a procfs of our own.

use rustix::io::Errno;
use shim_wire::plan::Process;

use crate::error::At;
use crate::procfs::Procfs;
use crate::{Error, Rule, Step};

/// The profile that asks for no profile.
const UNCONFINED: &str = "unconfined";
/// SELINUX_MAGIC of `linux/magic.h`.
const SELINUX_MAGIC: i64 = 0xf97c_ff8c;

/// Whether the kernel has what the labels of a process are for. To be called outside, where the
/// machine's /sys is.
///
/// # Errors
/// Names the field of the specification whose module is missing.
pub(crate) fn check(process: &Process) -> Result<(), Error> {
    if wants_apparmor(process) && !apparmor_is_enabled() {
        let object = format!("process.apparmorProfile {:?}", process.apparmor);
        return Err(Error::refused(object, Rule::NoAppArmor));
    }
    if !process.selinux.is_empty() && !selinux_is_enabled() {
        let object = format!("process.selinuxLabel {:?}", process.selinux);
        return Err(Error::refused(object, Rule::NoSelinux));
    }
    Ok(())
}

/// Whether [`set`] writes something.
pub(crate) fn is_asked_for(process: &Process) -> bool {
    wants_apparmor(process) || !process.selinux.is_empty()
}

/// Labels what this process executes next, and the keys that it makes.
pub(crate) fn set(process: &Process, procfs: &Procfs) -> Result<(), Error> {
    if wants_apparmor(process) {
        let value = format!("exec {}", process.apparmor);
        match procfs.write_own("attr/apparmor/exec", &value) {
            // The name of kernels before 5.1, or no such profile, which it says as well.
            Err(Errno::NOENT) => procfs.write_own("attr/exec", &value),
            other => other,
        }
        .at(Step::SecurityLabel, format_args!("process.apparmorProfile {:?}", process.apparmor))?;
    }
    if !process.selinux.is_empty() {
        for file in ["attr/exec", "attr/keycreate"] {
            procfs.write_own(file, &process.selinux).at(
                Step::SecurityLabel,
                format_args!("process.selinuxLabel {:?}", process.selinux),
            )?;
        }
    }
    Ok(())
}

fn wants_apparmor(process: &Process) -> bool {
    !process.apparmor.is_empty() && process.apparmor != UNCONFINED
}

fn apparmor_is_enabled() -> bool {
    let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.first() == Some(&b'Y'))
}

pub(crate) fn selinux_is_enabled() -> bool {
    rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|found| found.f_type == SELINUX_MAGIC)
}
