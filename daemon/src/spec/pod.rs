//! What containers of pods are asked for, and `ctl run` has no words for.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::apparmor;

/// What a container may do, where that is not docker's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// No program raises what its process may do (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    pub apparmor: AppArmor,
    pub selinux: Option<Selinux>,
    /// In place of the default lists.
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    /// Further groups of its first user and of its execs.
    pub groups: Vec<u32>,
    /// The groups that the image's `/etc/group` gives to the user are left out.
    pub strict_groups: bool,
    /// Capabilities that programs of other users keep over their exec.
    pub cap_ambient: Vec<String>,
}

/// Which calls of the kernel are filtered. A privileged container has no filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seccomp {
    #[default]
    Default,
    Unconfined,
    /// A file with the `linux.seccomp` of an OCI spec, read when the container is made.
    Profile(PathBuf),
}

/// The profile of AppArmor that confines its processes. A word, as users and records have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum AppArmor {
    /// bosun's own, where the machine can have it and the container is not privileged. Empty.
    #[default]
    Default,
    Unconfined,
    /// One that the kernel has loaded.
    Profile(String),
}

impl From<String> for AppArmor {
    fn from(word: String) -> Self {
        match word.as_str() {
            "" => Self::Default,
            apparmor::UNCONFINED => Self::Unconfined,
            _ => Self::Profile(word),
        }
    }
}

impl From<AppArmor> for String {
    fn from(profile: AppArmor) -> Self {
        match profile {
            AppArmor::Default => Self::new(),
            AppArmor::Unconfined => apparmor::UNCONFINED.to_owned(),
            AppArmor::Profile(name) => name,
        }
    }
}

/// SELinux labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selinux {
    pub process: String,
    pub mounts: String,
}

/// A device of the host, or all those of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRequest {
    pub host_path: PathBuf,
    pub container_path: PathBuf,
    /// Of `rwm`.
    pub access: String,
}

/// An image, read-only at a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMount {
    /// Its name or id; its id, once the container is made.
    pub image: String,
    /// The name of the snapshot of its layers, once the container is made; empty for one without.
    pub snapshot: String,
    pub destination: String,
    /// Of its tree; empty is all of it.
    pub sub_path: String,
}

/// What `/etc/resolv.conf` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// Whose processes a container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PidMode {
    /// Its pod's, where that shares them; else its own.
    #[default]
    Shared,
    Own,
    Host,
    /// Those of another container, by its id.
    Container(String),
}

impl Resolver {
    /// # Errors
    /// A server is no address; a word has a blank or the end of a line in it.
    pub fn check(&self) -> Result<(), Error> {
        for server in &self.servers {
            // Of a link-local address of IPv6, the interface stands behind it.
            let address = server.split('%').next().unwrap_or_default();
            if address.parse::<IpAddr>().is_err() || server.contains(char::is_whitespace) {
                return Err(Error::malformed("DNS server", server, "an address"));
            }
        }
        let odd = |word: &&String| {
            word.is_empty() || word.contains(|char: char| char.is_whitespace() || char == '\0')
        };
        if let Some(word) = self.searches.iter().chain(&self.options).find(odd) {
            let expected = "one word: give each domain and each option by itself";
            return Err(Error::malformed("DNS search domain or option", word, expected));
        }
        Ok(())
    }

    /// As resolv.conf(5) has it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            text.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.servers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(servers: &[&str], searches: &[&str], options: &[&str]) -> Resolver {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        Resolver { servers: words(servers), searches: words(searches), options: words(options) }
    }

    #[test]
    fn a_resolver_is_written_line_by_line() {
        let made = resolver(&["10.0.0.1", "fe80::1%eth0"], &["a.b", "c"], &["ndots:5"]);
        assert!(made.check().is_ok());
        let text = "search a.b c\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\noptions ndots:5\n";
        assert_eq!(made.text(), text);
    }

    #[test]
    fn no_word_of_a_resolver_makes_another_line() {
        for odd in [
            resolver(&["10.0.0.1\nnameserver 1.1.1.1"], &[], &[]),
            resolver(&["dns"], &[], &[]),
            resolver(&["fe80::1%a\nb"], &[], &[]),
            resolver(&[], &["a\nnameserver 1.1.1.1"], &[]),
            resolver(&[], &[], &["a b"]),
            resolver(&[], &[""], &[]),
        ] {
            assert!(odd.check().is_err(), "{odd:?}");
        }
    }
}
