//! Mounts: fstab words to `MS_*` flags, propagation, attributes and file system data (mount(2),
//! mount_setattr(2), mount(8)).

use std::path::Path;

use oci_spec::runtime::{Linux, Mount, Spec};
use shim_wire::plan::{IdMap, IdMapping, PlanMount};

use crate::users::Users;
use crate::{COVERS_ANNOTATION, Error, users};

/// `MS_*` of `linux/mount.h`.
pub(crate) mod flag {
    pub(crate) const RDONLY: u64 = 1;
    pub(crate) const NOSUID: u64 = 1 << 1;
    pub(crate) const NODEV: u64 = 1 << 2;
    pub(crate) const NOEXEC: u64 = 1 << 3;
    pub(crate) const SYNCHRONOUS: u64 = 1 << 4;
    pub(crate) const REMOUNT: u64 = 1 << 5;
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

/// What only a file system as a whole can be: a bind is as its source is.
const OF_FILE_SYSTEMS: u64 =
    flag::SYNCHRONOUS | flag::MANDLOCK | flag::DIRSYNC | flag::I_VERSION | flag::LAZYTIME;

/// `MOUNT_ATTR_*` of `linux/mount.h`, for a mount and all below it.
mod attribute {
    pub(super) const RDONLY: u64 = 0x1;
    pub(super) const NOSUID: u64 = 0x2;
    pub(super) const NODEV: u64 = 0x4;
    pub(super) const NOEXEC: u64 = 0x8;
    pub(super) const RELATIME: u64 = 0x0;
    pub(super) const NOATIME: u64 = 0x10;
    pub(super) const STRICTATIME: u64 = 0x20;
    /// The three above are one field, to be cleared before one is set.
    pub(super) const ATIME: u64 = 0x70;
    pub(super) const NODIRATIME: u64 = 0x80;
    pub(super) const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// What a word of `mounts[].options` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Set(u64),
    Clear(u64),
    Propagation(u64),
    /// Attributes to set and to clear.
    Recursive(u64, u64),
    IdMap(IdMap),
    CopyUp,
    /// For the file system itself.
    Data,
}

fn word(option: &str) -> Word {
    use Word::{Clear, Propagation, Recursive, Set};
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
        "remount" => Set(flag::REMOUNT),
        "tmpcopyup" => Word::CopyUp,
        "idmap" => Word::IdMap(IdMap::Mount),
        "ridmap" => Word::IdMap(IdMap::Tree),
        "rro" => Recursive(attribute::RDONLY, 0),
        "rrw" => Recursive(0, attribute::RDONLY),
        "rnosuid" => Recursive(attribute::NOSUID, 0),
        "rsuid" => Recursive(0, attribute::NOSUID),
        "rnodev" => Recursive(attribute::NODEV, 0),
        "rdev" => Recursive(0, attribute::NODEV),
        "rnoexec" => Recursive(attribute::NOEXEC, 0),
        "rexec" => Recursive(0, attribute::NOEXEC),
        "rnodiratime" => Recursive(attribute::NODIRATIME, 0),
        "rdiratime" => Recursive(0, attribute::NODIRATIME),
        "rnosymfollow" => Recursive(attribute::NOSYMFOLLOW, 0),
        "rsymfollow" => Recursive(0, attribute::NOSYMFOLLOW),
        "rnoatime" => Recursive(attribute::NOATIME, attribute::ATIME),
        "rstrictatime" => Recursive(attribute::STRICTATIME, attribute::ATIME),
        // What is neither of these is relatime.
        "rrelatime" | "ratime" | "rnostrictatime" => {
            Recursive(attribute::RELATIME, attribute::ATIME)
        }
        "rnorelatime" => Recursive(0, 0),
        _ => Word::Data,
    }
}

/// Options of a mount, lowered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    flags: u64,
    cleared: u64,
    propagation: u64,
    recursive_set: u64,
    recursive_cleared: u64,
    idmap: Option<IdMap>,
    copy_up: bool,
    data: Vec<String>,
    words: Vec<String>,
}

impl Options {
    /// The place of the first word for which that holds, as errors name it.
    fn place(&self, at: &str, is_meant: impl Fn(&Word) -> bool) -> String {
        match self.words.iter().position(|option| is_meant(&word(option))) {
            Some(index) => format!("{at}.options[{index}]"),
            None => format!("{at}.options"),
        }
    }
}

fn options(words: &[String], at: &str) -> Result<Options, Error> {
    let mut lowered = Options { words: words.to_vec(), ..Options::default() };
    for (index, option) in words.iter().enumerate() {
        match word(option) {
            Word::Set(flags) => {
                lowered.flags |= flags;
                lowered.cleared &= !flags;
            }
            Word::Clear(flags) => {
                lowered.flags &= !flags;
                lowered.cleared |= flags;
            }
            Word::Propagation(flags) => lowered.propagation = flags,
            Word::Recursive(set, cleared) => {
                lowered.recursive_set = lowered.recursive_set & !cleared | set;
                lowered.recursive_cleared = lowered.recursive_cleared & !set | cleared;
            }
            Word::IdMap(which) => lowered.idmap = Some(which),
            Word::CopyUp => lowered.copy_up = true,
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

/// `has_user` is whether the container has a user namespace, and `users` who is in it.
pub(crate) fn lower(
    spec: &Spec,
    bundle: Option<&Path>,
    has_user: bool,
    users: &Users,
) -> Result<Vec<PlanMount>, Error> {
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
            let at = format!("mounts[{index}]");
            let mut lowered = one(mount, bundle, has_user, users, &at)?;
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

fn one(
    mount: &Mount,
    bundle: Option<&Path>,
    has_user: bool,
    users: &Users,
    at: &str,
) -> Result<PlanMount, Error> {
    let destination = inside(&text(mount.destination(), &format!("{at}.destination"))?, at)?;
    let mut lowered = options(mount.options().as_deref().unwrap_or_default(), at)?;
    let typ = mount.typ().as_deref().unwrap_or_default();
    let kind = kind(typ, &mut lowered, at)?;
    check_values(kind, &lowered, users, at)?;
    if is_of_groups(kind) {
        refuse_data(&lowered, at)?;
        refuse_of_file_systems(&lowered, at)?;
    }
    let is_remount = lowered.flags & flag::REMOUNT != 0;
    let source = match (kind, mount.source()) {
        // It changes what is there already.
        (_, _) if is_remount => String::new(),
        ("bind", Some(path)) => host_path(path, bundle, &format!("{at}.source"))?,
        ("bind", None) => return Err(Error::missing(format!("{at}.source"))),
        (_, Some(name)) if !name.as_os_str().is_empty() => text(name, &format!("{at}.source"))?,
        (_, _) => kind.to_owned(),
    };
    if lowered.copy_up && (kind != "tmpfs" || is_remount) {
        return Err(Error::contradiction(
            lowered.place(at, |word| matches!(word, Word::CopyUp)),
            "tmpcopyup fills a new tmpfs, and this mount is none",
        ));
    }
    // The layers of an overlay that nothing is written to are mapped in its place.
    let is_layered =
        kind == "overlay" && !lowered.data.iter().any(|word| word.starts_with("upper"));
    let may_be_mapped = !is_remount && (kind == "bind" || is_layered);
    let (idmap, uids, gids) = idmap(mount, &lowered, may_be_mapped, has_user, at)?;
    if kind == "overlay" && !uids.is_empty() {
        let problem = "layers are mapped as the container's own user namespace has it";
        return Err(Error::contradiction(format!("{at}.uidMappings"), problem));
    }
    Ok(PlanMount {
        destination,
        kind: kind.to_owned(),
        source,
        flags: lowered.flags,
        data: lowered.data.join(","),
        propagation: lowered.propagation,
        only_if_present: false,
        cleared: lowered.cleared,
        recursive_set: lowered.recursive_set,
        recursive_cleared: lowered.recursive_cleared,
        idmap: idmap.into(),
        uid_mappings: uids,
        gid_mappings: gids,
        copy_up: lowered.copy_up,
    })
}

/// Whether a mount shows control groups: binds of the container's own directories in the host's
/// hierarchies, whose options are the host's.
fn is_of_groups(kind: &str) -> bool {
    matches!(kind, "cgroup" | "cgroup2")
}

fn refuse_data(options: &Options, at: &str) -> Result<(), Error> {
    match options.words.iter().position(|option| matches!(word(option), Word::Data)) {
        Some(index) => Err(Error::contradiction(
            format!("{at}.options[{index}]"),
            "it would be one of the host's hierarchies: the mounts of control groups are binds in those",
        )),
        None => Ok(()),
    }
}

/// The values of a tmpfs (`Documentation/filesystems/tmpfs.rst`) and of a devpts: of one that is wrong
/// the kernel says no more than EINVAL.
fn check_values(kind: &str, options: &Options, users: &Users, at: &str) -> Result<(), Error> {
    for (index, option) in options.words.iter().enumerate() {
        let Some((name, value)) = option.split_once('=') else { continue };
        let expected = match (kind, name) {
            ("tmpfs", "size") if is_size(value.strip_suffix('%').unwrap_or(value)) => continue,
            ("tmpfs", "nr_blocks" | "nr_inodes") if is_size(value) => continue,
            ("tmpfs", "size" | "nr_blocks" | "nr_inodes") => "a size such as 65536k",
            ("tmpfs" | "devpts", "mode") | ("devpts", "ptmxmode") => {
                match u32::from_str_radix(value, 8) {
                    Ok(mode) if mode <= 0o7777 => continue,
                    Ok(_) | Err(_) => "permission bits, 7777 at most",
                }
            }
            ("tmpfs" | "devpts", "uid" | "gid") => {
                let list = if name == "uid" { &users.uids } else { &users.gids };
                match value.parse::<u32>() {
                    Ok(id) if id != u32::MAX && (list.is_empty() || users::has(list, id)) => {
                        continue;
                    }
                    Ok(_) => "an id that is mapped in the user namespace",
                    Err(_) => "the number of a user or group",
                }
            }
            (_, _) => continue,
        };
        return Err(Error::malformed(format!("{at}.options[{index}]"), option, expected));
    }
    Ok(())
}

/// As memparse of the kernel reads it: decimal, octal or hexadecimal, with a unit.
fn is_size(text: &str) -> bool {
    let digits = text.strip_suffix(|unit: char| "kmgtpeKMGTPE".contains(unit));
    let digits = digits.unwrap_or(text);
    match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).is_ok(),
        None => digits.bytes().all(|digit| digit.is_ascii_digit()) && digits.parse::<u64>().is_ok(),
    }
}

/// Whether a mount is id-mapped, and by which maps of its own. Maps without a word for it mean the
/// mount alone.
fn idmap(
    mount: &Mount,
    options: &Options,
    may_be_mapped: bool,
    has_user: bool,
    at: &str,
) -> Result<(IdMap, Vec<IdMapping>, Vec<IdMapping>), Error> {
    let list = |list: &Option<Vec<_>>, name: &str| {
        users::mappings(list.as_deref().unwrap_or_default(), &format!("{at}.{name}"))
    };
    let uids = list(mount.uid_mappings(), "uidMappings")?;
    let gids = list(mount.gid_mappings(), "gidMappings")?;
    match (uids.is_empty(), gids.is_empty()) {
        (true, false) => return Err(Error::missing(format!("{at}.uidMappings"))),
        (false, true) => return Err(Error::missing(format!("{at}.gidMappings"))),
        (true, true) | (false, false) => {}
    }
    let which = options.idmap.or((!uids.is_empty()).then_some(IdMap::Mount));
    let Some(which) = which else { return Ok((IdMap::None, uids, gids)) };
    if !may_be_mapped {
        let problem = "only binds, and overlays that are not written to, can be id-mapped";
        return Err(Error::contradiction(format!("{at}.type"), problem));
    }
    if uids.is_empty() && !has_user {
        return Err(Error::contradiction(
            options.place(at, |word| matches!(word, Word::IdMap(_))),
            "idmap needs uidMappings and gidMappings, or a user namespace of the container",
        ));
    }
    Ok((which, uids, gids))
}

/// `linux.rootfsPropagation`.
pub(crate) fn root_propagation(linux: &Linux) -> Result<u64, Error> {
    match linux.rootfs_propagation().as_deref().unwrap_or_default() {
        "" => Ok(0),
        other => match word(other) {
            Word::Propagation(flags) => Ok(flags),
            Word::Set(_)
            | Word::Clear(_)
            | Word::Recursive(..)
            | Word::IdMap(_)
            | Word::CopyUp
            | Word::Data => Err(Error::value("linux.rootfsPropagation", other)),
        },
    }
}

/// Whether a word is data for a file system, `NAME=VALUE`. A bind has none to give it to, so it is
/// passed over there, and warned of ([`parse`](crate::parse)).
pub(crate) fn is_setting(option: &str) -> bool {
    matches!(word(option), Word::Data) && option.contains('=')
}

/// More likely a mistake than data.
fn is_unknown_to_binds(option: &str) -> bool {
    matches!(word(option), Word::Data) && !is_setting(option)
}

/// What is mounted. A bind is one by its type or by its options. Which file systems there are is the
/// kernel's to say.
fn kind<'a>(typ: &'a str, options: &mut Options, at: &str) -> Result<&'a str, Error> {
    if typ == "bind" || options.flags & flag::BIND != 0 {
        if let Some(index) = options.words.iter().position(|option| is_unknown_to_binds(option)) {
            return Err(Error::value(format!("{at}.options[{index}]"), &options.words[index]));
        }
        refuse_of_file_systems(options, at)?;
        options.flags |= flag::BIND;
        options.data.clear();
        return Ok("bind");
    }
    match typ {
        "" if options.flags & flag::REMOUNT == 0 => Err(Error::missing(format!("{at}.type"))),
        typ if typ.contains(['\0', '/']) => {
            Err(Error::malformed(format!("{at}.type"), typ, "the type of a file system"))
        }
        typ => Ok(typ),
    }
}

fn refuse_of_file_systems(options: &Options, at: &str) -> Result<(), Error> {
    if options.flags & OF_FILE_SYSTEMS == 0 {
        return Ok(());
    }
    let of_file_systems =
        |word: &Word| matches!(word, Word::Set(flags) if flags & OF_FILE_SYSTEMS != 0);
    Err(Error::contradiction(
        options.place(at, of_file_systems),
        "sync, dirsync, mand, iversion and lazytime are of file systems, a bind is as its source",
    ))
}

/// A path inside the rootfs: absolute, without `..`; older specs leave the slash away.
fn inside(path: &str, at: &str) -> Result<String, Error> {
    let expected = "an absolute path in the container without \"..\"";
    let malformed = || Error::malformed(format!("{at}.destination"), path, expected);
    let cleaned = clean(path).filter(|_| !path.is_empty()).ok_or_else(malformed)?;
    if cleaned == "/" {
        let why = "the root itself is no destination: root.path says what it is";
        return Err(Error::contradiction(format!("{at}.destination"), why));
    }
    Ok(cleaned)
}

/// A path below the root in its one form; absent when it goes up.
pub(crate) fn clean(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    (!parts.contains(&"..")).then(|| format!("/{}", parts.join("/")))
}

/// A path on the host: absolute, or below the bundle.
pub(crate) fn host_path(path: &Path, bundle: Option<&Path>, at: &str) -> Result<String, Error> {
    if path.as_os_str().is_empty() {
        return Err(Error::contradiction(at, "is empty: a path is expected"));
    }
    let joined = match bundle {
        Some(bundle) if path.is_relative() => bundle.join(path),
        Some(_) | None => path.to_owned(),
    };
    if joined.is_relative() {
        return Err(Error::malformed(at, path.to_string_lossy(), "an absolute path"));
    }
    text(&joined, at)
}

/// `linux.maskedPaths`.
pub(crate) fn masked(linux: &Linux) -> Result<Vec<String>, Error> {
    const AT: &str = "linux.maskedPaths";
    let paths = paths(linux.masked_paths().as_deref(), AT)?;
    match paths.iter().position(|path| is_root(path)) {
        Some(index) => {
            let why = "the root itself can't be masked: nothing would be left to run";
            Err(Error::contradiction(format!("{AT}[{index}]"), why))
        }
        None => Ok(paths),
    }
}

/// `linux.readonlyPaths`, and whether the root itself is among them, which is then as with
/// `root.readonly`.
pub(crate) fn readonly(linux: &Linux) -> Result<(Vec<String>, bool), Error> {
    let paths = paths(linux.readonly_paths().as_deref(), "linux.readonlyPaths")?;
    let (root, below): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| is_root(path));
    Ok((below, !root.is_empty()))
}

fn is_root(path: &str) -> bool {
    clean(path).as_deref() == Some("/")
}

fn paths(list: Option<&[String]>, at: &str) -> Result<Vec<String>, Error> {
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
    fn words_for_all_that_is_below_become_attributes() {
        let lowered = |text: &str| {
            let lowered = options(&words(text), "mounts[0]").unwrap();
            (lowered.recursive_set, lowered.recursive_cleared)
        };
        for (text, set, cleared) in [
            ("rro", 1, 0),
            ("rro rnosuid rnodev rnoexec rnosymfollow", 0x20_000f, 0),
            ("rro rrw", 0, 1),
            ("rrw rro", 1, 0),
            ("rnoatime", 0x10, 0x70),
            ("rnoatime rstrictatime rnodiratime", 0xa0, 0x70),
            ("rstrictatime rrelatime", 0, 0x70),
        ] {
            let (found_set, found_cleared) = lowered(text);
            // What is set is cleared before, as a field.
            assert_eq!((found_set, found_cleared | set & 0x70), (set, cleared), "{text}");
        }
    }

    #[test]
    fn what_is_switched_off_is_known() {
        let lowered = options(&words("ro nosuid rw dev"), "mounts[0]").unwrap();
        assert_eq!((lowered.flags, lowered.cleared), (flag::NOSUID, flag::RDONLY | flag::NODEV));
    }

    #[test]
    fn an_option_that_would_do_nothing_is_refused_by_its_path() {
        let error = options(&words("ro a,b"), "mounts[0]").unwrap_err();
        assert_eq!(error.to_string(), "mounts[0].options[1]: \"a,b\" is not one mount option");
        let bind = |text: &str| {
            let mut bind = options(&words(text), "mounts[2]").unwrap();
            kind("none", &mut bind, "mounts[2]").unwrap_err().to_string()
        };
        let said = bind("rbind mode=755 nosuidd");
        assert_eq!(said, "mounts[2].options[2]: \"nosuidd\" is not supported");
        assert!(bind("bind sync").starts_with("mounts[2].options[1]: sync, dirsync"));
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
