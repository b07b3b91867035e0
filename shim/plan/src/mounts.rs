//! Mounts: fstab words to `MS_*` flags, propagation and file system data (mount(2), mount(8)).

use std::path::Path;

use oci_spec::runtime::{Mount, Spec};
use shim_wire::plan::PlanMount;

use crate::{COVERS_ANNOTATION, Error};

/// `MS_*` of `linux/mount.h`.
pub(crate) mod flag {
    pub(crate) const RDONLY: u64 = 1;
    pub(crate) const NOSUID: u64 = 1 << 1;
    pub(crate) const NODEV: u64 = 1 << 2;
    pub(crate) const NOEXEC: u64 = 1 << 3;
    pub(crate) const SYNCHRONOUS: u64 = 1 << 4;
    pub(crate) const MANDLOCK: u64 = 1 << 6;
    pub(crate) const DIRSYNC: u64 = 1 << 7;
    pub(crate) const NOSYMFOLLOW: u64 = 1 << 8;
    pub(crate) const NOATIME: u64 = 1 << 10;
    pub(crate) const NODIRATIME: u64 = 1 << 11;
    pub(crate) const BIND: u64 = 1 << 12;
    pub(crate) const REC: u64 = 1 << 14;
    pub(crate) const SILENT: u64 = 1 << 15;
    pub(crate) const UNBINDABLE: u64 = 1 << 17;
    pub(crate) const PRIVATE: u64 = 1 << 18;
    pub(crate) const SLAVE: u64 = 1 << 19;
    pub(crate) const SHARED: u64 = 1 << 20;
    pub(crate) const RELATIME: u64 = 1 << 21;
    pub(crate) const I_VERSION: u64 = 1 << 23;
    pub(crate) const STRICTATIME: u64 = 1 << 24;
    pub(crate) const LAZYTIME: u64 = 1 << 25;
}

/// What a word of `mounts[].options` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Set(u64),
    Clear(u64),
    Propagation(u64),
    /// Known to the OCI specification, not done here.
    Refused,
    /// For the file system itself.
    Data,
}

fn word(option: &str) -> Word {
    use Word::{Clear, Propagation, Refused, Set};
    match option {
        "defaults" => Set(0),
        "ro" => Set(flag::RDONLY),
        "rw" => Clear(flag::RDONLY),
        "nosuid" => Set(flag::NOSUID),
        "suid" => Clear(flag::NOSUID),
        "nodev" => Set(flag::NODEV),
        "dev" => Clear(flag::NODEV),
        "noexec" => Set(flag::NOEXEC),
        "exec" => Clear(flag::NOEXEC),
        "sync" => Set(flag::SYNCHRONOUS),
        "async" => Clear(flag::SYNCHRONOUS),
        "dirsync" => Set(flag::DIRSYNC),
        "mand" => Set(flag::MANDLOCK),
        "nomand" => Clear(flag::MANDLOCK),
        "nosymfollow" => Set(flag::NOSYMFOLLOW),
        "symfollow" => Clear(flag::NOSYMFOLLOW),
        "noatime" => Set(flag::NOATIME),
        "atime" => Clear(flag::NOATIME),
        "nodiratime" => Set(flag::NODIRATIME),
        "diratime" => Clear(flag::NODIRATIME),
        "relatime" => Set(flag::RELATIME),
        "norelatime" => Clear(flag::RELATIME),
        "strictatime" => Set(flag::STRICTATIME),
        "nostrictatime" => Clear(flag::STRICTATIME),
        "lazytime" => Set(flag::LAZYTIME),
        "nolazytime" => Clear(flag::LAZYTIME),
        "iversion" => Set(flag::I_VERSION),
        "noiversion" => Clear(flag::I_VERSION),
        "silent" => Set(flag::SILENT),
        "loud" => Clear(flag::SILENT),
        "bind" => Set(flag::BIND),
        "rbind" => Set(flag::BIND | flag::REC),
        "private" => Propagation(flag::PRIVATE),
        "rprivate" => Propagation(flag::PRIVATE | flag::REC),
        "slave" => Propagation(flag::SLAVE),
        "rslave" => Propagation(flag::SLAVE | flag::REC),
        "shared" => Propagation(flag::SHARED),
        "rshared" => Propagation(flag::SHARED | flag::REC),
        "unbindable" => Propagation(flag::UNBINDABLE),
        "runbindable" => Propagation(flag::UNBINDABLE | flag::REC),
        "remount" | "tmpcopyup" | "idmap" | "ridmap" | "rro" | "rrw" | "rnosuid" | "rsuid"
        | "rnodev" | "rdev" | "rnoexec" | "rexec" | "rnoatime" | "ratime" | "rnodiratime"
        | "rdiratime" | "rrelatime" | "rnorelatime" | "rstrictatime" | "rnostrictatime"
        | "rnosymfollow" | "rsymfollow" => Refused,
        _ => Word::Data,
    }
}

/// Options of a mount, lowered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    flags: u64,
    propagation: u64,
    data: Vec<String>,
}

fn options(words: &[String], at: &str) -> Result<Options, Error> {
    let mut lowered = Options::default();
    for (index, option) in words.iter().enumerate() {
        match word(option) {
            Word::Set(flags) => lowered.flags |= flags,
            Word::Clear(flags) => lowered.flags &= !flags,
            Word::Propagation(flags) => lowered.propagation = flags,
            Word::Refused => {
                return Err(Error::value(format!("{at}.options[{index}]"), option));
            }
            Word::Data => {
                if option.is_empty() || option.contains([',', '\0']) {
                    return Err(Error::malformed(
                        format!("{at}.options[{index}]"),
                        option,
                        "one mount option",
                    ));
                }
                lowered.data.push(option.clone());
            }
        }
    }
    Ok(lowered)
}

pub(crate) fn lower(spec: &Spec, bundle: Option<&Path>) -> Result<Vec<PlanMount>, Error> {
    let covers = covers(spec)?;
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    for cover in &covers {
        if !mounts.iter().any(|mount| mount.destination().as_os_str() == cover.as_str()) {
            return Err(Error::contradiction(
                format!("annotations.{COVERS_ANNOTATION}"),
                "names a destination that no mount has",
            ));
        }
    }
    mounts
        .iter()
        .enumerate()
        .map(|(index, mount)| {
            let mut lowered = one(mount, bundle, &format!("mounts[{index}]"))?;
            lowered.only_if_present = covers.contains(&lowered.destination);
            Ok(lowered)
        })
        .collect()
}

fn covers(spec: &Spec) -> Result<Vec<String>, Error> {
    let Some(text) = spec.annotations().as_ref().and_then(|map| map.get(COVERS_ANNOTATION)) else {
        return Ok(Vec::new());
    };
    serde_json::from_str(text).map_err(|_| {
        Error::malformed(
            format!("annotations.{COVERS_ANNOTATION}"),
            text,
            "a JSON array of destinations",
        )
    })
}

fn one(mount: &Mount, bundle: Option<&Path>, at: &str) -> Result<PlanMount, Error> {
    let destination = inside(&text(mount.destination(), &format!("{at}.destination"))?, at)?;
    let mut lowered = options(mount.options().as_deref().unwrap_or_default(), at)?;
    let typ = mount.typ().as_deref().unwrap_or_default();
    let kind = kind(typ, &mut lowered, at)?;
    let source = match (kind, mount.source()) {
        ("bind", Some(path)) => host_path(path, bundle, &format!("{at}.source"))?,
        ("bind", None) => return Err(Error::missing(format!("{at}.source"))),
        (_, Some(name)) if !name.as_os_str().is_empty() => text(name, &format!("{at}.source"))?,
        (_, _) => kind.to_owned(),
    };
    Ok(PlanMount {
        destination,
        kind: kind.to_owned(),
        source,
        flags: lowered.flags,
        data: lowered.data.join(","),
        propagation: lowered.propagation,
        only_if_present: false,
    })
}

/// The kinds that a plan knows. A bind is one by its type or by its options; the kernel ignores
/// file system data there, so words that would be data are refused.
fn kind(typ: &str, options: &mut Options, at: &str) -> Result<&'static str, Error> {
    if typ == "bind" || options.flags & flag::BIND != 0 {
        if let Some(unknown) = options.data.first() {
            return Err(Error::value(format!("{at}.options"), unknown));
        }
        options.flags |= flag::BIND;
        return Ok("bind");
    }
    const KINDS: [&str; 6] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup"];
    match typ {
        "" => Err(Error::missing(format!("{at}.type"))),
        "cgroup2" => Ok("cgroup"),
        typ => KINDS
            .into_iter()
            .find(|kind| *kind == typ)
            .ok_or_else(|| Error::value(format!("{at}.type"), typ)),
    }
}

/// A path inside the rootfs: absolute, without `..`; older specs leave the slash away.
fn inside(path: &str, at: &str) -> Result<String, Error> {
    let expected = "an absolute path in the container without \"..\"";
    let malformed = || Error::malformed(format!("{at}.destination"), path, expected);
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") || parts.is_empty() {
        return Err(malformed());
    }
    Ok(format!("/{}", parts.join("/")))
}

/// A path on the host: absolute, or below the bundle.
pub(crate) fn host_path(path: &Path, bundle: Option<&Path>, at: &str) -> Result<String, Error> {
    let joined = match bundle {
        Some(bundle) if path.is_relative() && !path.as_os_str().is_empty() => bundle.join(path),
        Some(_) | None => path.to_owned(),
    };
    if joined.is_relative() {
        return Err(Error::malformed(at, path.to_string_lossy(), "an absolute path"));
    }
    text(&joined, at)
}

/// Masked and read-only paths.
pub(crate) fn paths(list: Option<&[String]>, at: &str) -> Result<Vec<String>, Error> {
    let list = list.unwrap_or_default();
    for (index, path) in list.iter().enumerate() {
        if !path.starts_with('/') || path.contains('\0') || path.split('/').any(|part| part == "..")
        {
            return Err(Error::malformed(
                format!("{at}[{index}]"),
                path,
                "an absolute path without \"..\"",
            ));
        }
    }
    Ok(list.to_vec())
}

fn text(path: &Path, at: &str) -> Result<String, Error> {
    path.to_str()
        .filter(|text| !text.contains('\0'))
        .map(str::to_owned)
        .ok_or_else(|| Error::malformed(at, path.to_string_lossy(), "text without NUL bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_become_flags_propagation_and_data() {
        let table: [(&str, u64, u64, &str); 8] = [
            ("", 0, 0, ""),
            ("nosuid noexec nodev", 0xe, 0, ""),
            ("nosuid strictatime mode=755 size=65536k", 0x100_0002, 0, "mode=755,size=65536k"),
            ("ro rw", 0, 0, ""),
            ("rbind ro rslave", 0x5001, 0x8_4000, ""),
            ("bind private", 0x1000, 0x4_0000, ""),
            ("rshared noatime relatime lazytime", 0x220_0400, 0x10_4000, ""),
            ("newinstance ptmxmode=0666 gid=5", 0, 0, "newinstance,ptmxmode=0666,gid=5"),
        ];
        for (text, flags, propagation, data) in table {
            let lowered = options(&words(text), "mounts[0]").unwrap();
            assert_eq!(
                (lowered.flags, lowered.propagation, lowered.data.join(",").as_str()),
                (flags, propagation, data),
                "{text}"
            );
        }
    }

    #[test]
    fn an_option_that_would_do_nothing_is_refused_by_its_path() {
        for (text, message) in [
            ("ro rro", "mounts[0].options[1]: \"rro\" is not supported"),
            ("tmpcopyup", "mounts[0].options[0]: \"tmpcopyup\" is not supported"),
            ("idmap", "mounts[0].options[0]: \"idmap\" is not supported"),
            ("a,b", "mounts[0].options[0]: \"a,b\" is not one mount option"),
        ] {
            assert_eq!(options(&words(text), "mounts[0]").unwrap_err().to_string(), message);
        }
        let mut bind = options(&words("rbind mode=755"), "mounts[2]").unwrap();
        let error = kind("none", &mut bind, "mounts[2]").unwrap_err();
        assert_eq!(error.to_string(), "mounts[2].options: \"mode=755\" is not supported");
    }

    #[test]
    fn destinations_stay_inside_the_rootfs() {
        assert_eq!(inside("/a//b/./c/", "").unwrap(), "/a/b/c");
        assert_eq!(inside("etc/hosts", "").unwrap(), "/etc/hosts");
        for path in ["", "/", "/..", "/a/../b", "../x"] {
            assert!(inside(path, "mounts[0]").is_err(), "{path:?}");
        }
    }
}
