//! AppArmor: bosun's own profile for containers, and whether the machine can load it.
//!
//! The profile is put into the kernel when the daemon starts, so that its text is this version's, and
//! again when a start finds that somebody has taken it out, as a stop of the machine's AppArmor service
//! does. It is never removed: a container may outlive any daemon.
//!
//! The kernel has one table of profiles for all daemons of the machine; they load the same text.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// The profile of a container that asks for none.
pub const DEFAULT: &str = "bosun-default";

/// The word for no profile.
pub const UNCONFINED: &str = "unconfined";

/// The kernel's list of what is loaded: `NAME (MODE)` in each line.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// Where Debian and others keep the parser, beside PATH.
const PARSER_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// The rules of the language that the profile is written in; without it the parser takes those of the
/// kernel, and newer kernels mediate more than the profile speaks of.
const ABI: &str = "/etc/apparmor.d/abi/3.0";

/// How long the parser has: it compiles some milliseconds on a machine that is not busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// What this machine can do with profiles. Read once, at the daemon's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// It has the default profile.
    Full { parser: PathBuf },
    /// The kernel confines by profiles, but the default profile can't be loaded, for this reason.
    NoDefault { reason: &'static str },
    /// The kernel has no AppArmor, or it is switched off.
    Absent,
}

impl Support {
    /// Looks at the machine.
    #[must_use]
    pub fn detect() -> Self {
        let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled");
        if !enabled.is_ok_and(|text| text.first() == Some(&b'Y')) {
            return Self::Absent;
        }
        if std::fs::read(LOADED).is_err() {
            let reason = "/sys/kernel/security/apparmor can't be read: mount securityfs there";
            return Self::NoDefault { reason };
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path)
            .chain(PARSER_DIRECTORIES.map(PathBuf::from))
            .map(|directory| directory.join("apparmor_parser"))
            .find(|file| file.is_file());
        match found {
            Some(parser) => Self::Full { parser },
            None => Self::NoDefault {
                reason: "apparmor_parser was not found: install it (Debian: apparmor)",
            },
        }
    }

    /// What the user should know and mend.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        match self {
            Self::Full { .. } | Self::Absent => None,
            Self::NoDefault { reason } => {
                Some(format!("AppArmor: containers are not confined by {DEFAULT}: {reason}"))
            }
        }
    }
}

/// Why the default profile is not in the kernel.
#[derive(Debug, thiserror::Error)]
#[error(
    "AppArmor profile {DEFAULT}: {problem}: mend that, or run without it (--security-opt apparmor=unconfined)"
)]
pub struct Error {
    problem: String,
}

/// The default profile in the kernel.
#[derive(Debug, Default)]
pub struct DefaultProfile {
    /// Done once this daemon has put its own text there.
    own: OnceCell<()>,
}

impl DefaultProfile {
    /// Puts the profile into the kernel unless it is there.
    ///
    /// # Errors
    /// The parser can't be run, refuses the profile, or takes longer than a minute.
    pub async fn ensure(&self, parser: &Path) -> Result<(), Error> {
        self.own.get_or_try_init(|| load(parser)).await?;
        match is_loaded(DEFAULT) {
            Ok(false) => load(parser).await,
            // What can't be read is found out by who needs it.
            Ok(true) | Err(_) => Ok(()),
        }
    }
}

/// Whether the kernel has a profile of that name.
///
/// # Errors
/// The kernel's list can't be read.
pub fn is_loaded(name: &str) -> std::io::Result<bool> {
    std::fs::read_to_string(LOADED).map(|list| lists(&list, name))
}

fn lists(list: &str, name: &str) -> bool {
    list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(own, _)| own == name))
}

async fn load(parser: &Path) -> Result<(), Error> {
    let failed = |problem: String| Error { problem };
    let label = std::fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    let text = text(confinement(&label), Path::new(ABI).exists());
    let run = async {
        let mut child = Command::new(parser)
            .args(["--replace", "--skip-cache", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A parser that ends early says why.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let ended: std::io::Result<Output> = tokio::time::timeout(PATIENCE, run)
        .await
        .map_err(|_| failed(format!("the parser takes longer than {} s", PATIENCE.as_secs())))?;
    let ended = ended.map_err(|source| failed(format!("run {}: {source}", parser.display())))?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let said = said.lines().find(|line| !line.is_empty()).unwrap_or("it says nothing");
    Err(failed(format!("{}: {}: {said}", parser.display(), ended.status)))
}

/// The profile that confines a process, from its `attr/current`.
fn confinement(label: &str) -> Option<&str> {
    let label = label.trim_end_matches(['\n', '\0']);
    let name = label.rsplit_once(" (").map_or(label, |(name, _)| name);
    (!name.is_empty() && name != UNCONFINED && !name.contains('"')).then_some(name)
}

/// The profile. `daemon` is what confines bosund itself and with it the shims, which end containers.
///
/// Everything is allowed that users, capabilities, namespaces and seccomp allow, less what reaches the
/// machine through /proc and /sys, mounting, and processes of other profiles. A rule that denies beats
/// all that allow.
fn text(daemon: Option<&str>, has_abi: bool) -> String {
    let abi = if has_abi { "abi <abi/3.0>,\n" } else { "" };
    let daemon = daemon.map(|name| format!("  signal receive peer=\"{name}\",\n"));
    let daemon = daemon.unwrap_or_default();
    format!(
        "{abi}
profile {DEFAULT} flags=(attach_disconnected, mediate_deleted) {{
  capability,
  file,
  network,
  umount,
  unix,

  # Whoever ends it from outside, also where that is confined by a profile of its own.
  signal receive peer=unconfined,
  signal receive peer={{runc,crun}},
{daemon}  # Among themselves.
  signal (send, receive) peer={DEFAULT},
  ptrace (read, readby, trace, tracedby) peer={DEFAULT},

  deny mount,

  # Of /proc, processes; of the settings, System V's shared memory, which is the IPC namespace's.
  deny /proc/* w,
  deny /proc/[^0-9s]*/** w,
  deny /proc/s[^y]*/** w,
  deny /proc/sys[^/]*/** w,
  deny /proc/sys/[^k]*/** w,
  deny /proc/sys/k[^e]*/** w,
  deny /proc/sys/kernel/{{[^s],s[^h],sh[^m]}}** w,
  deny /proc/{{kcore,kmem,mem,sysrq-trigger}} rwklx,

  # Of /sys, control groups.
  deny /sys/{{[^f],f[^s],fs/[^c],fs/c[^g],fs/cg[^r]}}** wklx,
  deny /sys/{{firmware,kernel/security,devices/virtual/powercap}}/** rwklx,
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_loaded_when_the_kernel_lists_its_whole_name() {
        let list = "bosun-default (enforce)\n/usr/bin/man (complain)\nodd (name) (kill)\n";
        assert!(lists(list, "bosun-default") && lists(list, "odd (name)"));
        assert!(!lists(list, "bosun") && !lists(list, "bosun-default (enforce)"));
        assert!(!lists("", ""));
    }

    #[test]
    fn who_ends_containers_may_be_confined_itself() {
        assert_eq!(confinement("unconfined\n"), None);
        assert_eq!(confinement(""), None);
        assert_eq!(confinement("/usr/bin/bosund (enforce)\n"), Some("/usr/bin/bosund"));
        assert_eq!(confinement("odd\" name (enforce)\n"), None, "it can't be said in a profile");
        assert!(text(Some("a b"), false).contains("  signal receive peer=\"a b\",\n  # Among"));
        assert!(!text(None, false).contains("peer=\""));
    }

    #[test]
    fn the_language_is_said_where_its_definition_is() {
        assert!(text(None, true).starts_with("abi <abi/3.0>,\n"));
        assert!(text(None, false).starts_with("\nprofile bosun-default "));
    }
}
