//! The mounts of a container, in the order in which they are made:
//!
//! 1. docker's default mounts, less those that the user replaces;
//! 2. covers: empty read-only file systems over bosun's own directories, where the rootfs shows them;
//! 3. `/etc/resolv.conf`, `/etc/hosts`, `/etc/hostname`, and the user's own, outer paths first.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{Mount, MountBuilder};

use super::{BindMount, ContainerOptions, Error, etc};

/// Files of lxcfs, which containers may have in place of the kernel's: they tell of the container
/// where the kernel tells of the machine. Everything else of /proc carries controls that must not be
/// replaced (CVE-2015-3631). /sys has none of those: agents of a node mount the host's, or a part of
/// it, over their own.
const PROC_ALLOWED: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
];

/// A user's mount that was looked at: paths clean, source there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CheckedBind {
    destination: String,
    source: PathBuf,
    read_only: bool,
    /// What is mounted below it is not read-only with it.
    flat: bool,
    propagation: &'static str,
    /// It belongs to whom the image's files belong to.
    id_mapped: bool,
}

/// Looks at each bind and at its source on the host; volumes of the image come behind.
pub(super) fn check(
    options: &ContainerOptions,
    container_dir: &Path,
) -> Result<Vec<CheckedBind>, Error> {
    let mut checked: Vec<CheckedBind> = Vec::with_capacity(options.mounts.len());
    for mount in &options.mounts {
        let bind = check_one(mount, options.privileged)?;
        if checked.iter().any(|earlier| earlier.destination == bind.destination) {
            return Err(Error::MountDestination {
                path: bind.destination,
                why: "is given twice: leave one of the mounts away",
            });
        }
        checked.push(bind);
    }
    for mount in &options.image_mounts {
        let destination = clean(&mount.destination)?;
        if is_of_the_kernel(&destination)
            || checked.iter().any(|earlier| earlier.destination == destination)
        {
            return Err(Error::MountDestination {
                path: destination,
                why: "is given twice, or is the kernel's: mount the image elsewhere",
            });
        }
    }
    checked.extend(options.volumes.iter().map(|volume| CheckedBind {
        destination: volume.destination.clone(),
        source: volume.source(container_dir),
        read_only: false,
        flat: false,
        propagation: "rprivate",
        id_mapped: true,
    }));
    Ok(checked)
}

/// Whether a clean path is in one of the kernel's own file systems, where nothing of an image belongs.
pub(super) fn is_of_the_kernel(destination: &str) -> bool {
    ["/proc", "/sys"].iter().any(|top| is_below(destination, top))
}

fn is_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn check_one(mount: &BindMount, privileged: bool) -> Result<CheckedBind, Error> {
    let destination = clean(&mount.destination)?;
    let controls = is_below(&destination, "/proc");
    if controls && !privileged && !PROC_ALLOWED.contains(&destination.as_str()) {
        return Err(Error::MountDestination {
            path: destination,
            why: "carries the kernel's own controls: mount elsewhere, or run privileged",
        });
    }
    let source = &mount.source;
    if !source.is_absolute() {
        let name = source.to_string_lossy().into_owned();
        return if name.starts_with('.') || name.contains('/') || name.is_empty() {
            Err(Error::malformed("mount source", name, "an absolute path"))
        } else {
            Err(Error::NamedVolume { name })
        };
    }
    std::fs::metadata(source)
        .map_err(|error| Error::MountSource { path: source.clone(), source: error })?;
    Ok(CheckedBind {
        destination,
        source: source.clone(),
        read_only: mount.read_only,
        flat: mount.flat,
        propagation: mount.propagation.as_str(),
        id_mapped: mount.id_mapped,
    })
}

/// An absolute path in the container, without `..`, and not its root.
fn clean(path: &str) -> Result<String, Error> {
    let refused = |why| Error::MountDestination { path: path.to_owned(), why };
    if !path.starts_with('/') {
        return Err(refused("is not an absolute path"));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(refused("contains \"..\""));
    }
    if path.contains('\0') {
        return Err(refused("contains a NUL byte"));
    }
    if parts.is_empty() {
        return Err(refused("is the root itself: name it with --rootfs"));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// What each of docker's default mounts is: destination, type, source, options.
const DEFAULTS: [(&str, &str, &str, &str); 7] = [
    ("/proc", "proc", "proc", "nosuid noexec nodev"),
    ("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    ("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    ("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
    ("/sys/fs/cgroup", "cgroup", "cgroup", "ro nosuid noexec nodev"),
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
    ("/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=65536k"),
];

/// The group of terminals, on every system.
const TERMINALS: u32 = 5;

/// All mounts, and which of their destinations are covers.
pub(super) fn mounts(
    options: &ContainerOptions,
    binds: &[CheckedBind],
    covers: &[String],
    etc: &Path,
) -> Result<Vec<Mount>, OciSpecError> {
    let user = |destination: &str| binds.iter().any(|bind| bind.destination == destination);
    let mut mounts = Vec::new();
    for (destination, typ, source, words) in DEFAULTS {
        if destination == "/dev/shm" && options.host_ipc && !user(destination) {
            let words = ["rbind", "nosuid", "noexec", "nodev"].into_iter();
            mounts.push(mount(destination, "bind", Path::new(destination), words)?);
            continue;
        }
        // Who brings a /dev brings what is below it.
        if user(destination) || (destination.starts_with("/dev/") && user("/dev")) {
            continue;
        }
        let writable = options.privileged && destination.starts_with("/sys");
        let terminals = options.users().is_none_or(|users| users.has_group(TERMINALS));
        let words = words.split(' ').filter(|word| !(writable && *word == "ro"));
        let words = words.filter(|word| terminals || *word != "gid=5");
        mounts.push(mount(destination, typ, Path::new(source), words)?);
    }
    for cover in covers {
        let words = "ro nosuid nodev noexec mode=755 size=4k".split(' ');
        mounts.push(mount(cover, "tmpfs", Path::new("tmpfs"), words)?);
    }
    let own = etc::FILES.iter().filter(|(destination, _)| !user(destination)).map(
        |(destination, file)| CheckedBind {
            destination: (*destination).to_owned(),
            source: etc.join(file),
            read_only: options.read_only,
            flat: false,
            propagation: "rprivate",
            id_mapped: false,
        },
    );
    let mut binds: Vec<CheckedBind> = own.chain(binds.iter().cloned()).collect();
    binds.sort_by_key(|bind| bind.destination.matches('/').count());
    let read_only = read_only(shim_rootfs::overlay::version());
    for bind in &binds {
        let words: &[&str] = match (bind.read_only, bind.flat) {
            (false, _) => &[],
            (true, true) => &["ro"],
            (true, false) => read_only,
        };
        let idmap = (bind.id_mapped && options.users().is_some()).then_some("idmap");
        let words = ["rbind", bind.propagation].into_iter().chain(words.iter().copied());
        let words = words.chain(idmap);
        mounts.push(mount(&bind.destination, "bind", &bind.source, words)?);
    }
    Ok(mounts)
}

/// What makes a volume read-only: all that is mounted below it too, where the kernel can.
fn read_only(kernel: (u32, u32)) -> &'static [&'static str] {
    if kernel < (5, 12) { &["ro"] } else { &["ro", "rro"] }
}

fn mount<'a>(
    destination: &str,
    typ: &str,
    source: &Path,
    words: impl Iterator<Item = &'a str>,
) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(destination)
        .typ(typ)
        .source(source)
        .options(words.map(str::to_owned).collect::<Vec<_>>())
        .build()
}

/// Where bosun's own `directories` are inside `rootfs`, both as the host names them after its links.
///
/// # Errors
/// `rootfs` is missing or no directory, or is one of bosun's own.
pub(super) fn covers(rootfs: &Path, directories: &[PathBuf]) -> Result<Vec<String>, Error> {
    let failed = |source| Error::Rootfs { path: rootfs.to_owned(), source };
    let real = rootfs.canonicalize().map_err(failed)?;
    if !real.is_dir() {
        return Err(failed(std::io::Error::from(std::io::ErrorKind::NotADirectory)));
    }
    let mut covers = Vec::new();
    for directory in directories {
        // A directory that does not exist is seen by nobody.
        let Ok(directory) = directory.canonicalize() else { continue };
        if real.starts_with(&directory) {
            return Err(Error::OwnRootfs { path: rootfs.to_owned() });
        }
        if let Ok(inside) = directory.strip_prefix(&real) {
            covers.push(destination(inside));
        }
    }
    covers.sort();
    covers.dedup();
    Ok(covers)
}

fn destination(inside: &Path) -> String {
    let parts = inside.components().map(Component::as_os_str).map(OsStr::to_string_lossy);
    parts.fold(String::new(), |path, part| format!("{path}/{part}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Propagation;

    fn bind(source: &Path, destination: &str) -> BindMount {
        BindMount {
            source: source.to_owned(),
            destination: destination.to_owned(),
            read_only: true,
            propagation: Propagation::Rslave,
            ..BindMount::default()
        }
    }

    fn options(mounts: Vec<BindMount>) -> ContainerOptions {
        ContainerOptions { mounts, ..ContainerOptions::default() }
    }

    fn said(mount: BindMount) -> String {
        check(&options(vec![mount]), Path::new("/c")).unwrap_err().to_string()
    }

    fn made(options: &ContainerOptions, covers: &[String]) -> Vec<String> {
        let binds = check(options, Path::new("/c")).unwrap();
        mounts(options, &binds, covers, Path::new("/run/c"))
            .unwrap()
            .iter()
            .map(|mount| {
                format!(
                    "{} {} {} {}",
                    mount.destination().display(),
                    mount.typ().clone().unwrap_or_default(),
                    mount.source().clone().unwrap_or_default().display(),
                    mount.options().clone().unwrap_or_default().join(",")
                )
            })
            .collect()
    }

    #[test]
    fn the_default_mounts_are_docker_s() {
        assert_eq!(
            made(&options(Vec::new()), &["/var/lib/bosun".to_owned()]),
            [
                "/proc proc proc nosuid,noexec,nodev",
                "/dev tmpfs tmpfs nosuid,strictatime,mode=755,size=65536k",
                "/dev/pts devpts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
                "/sys sysfs sysfs nosuid,noexec,nodev,ro",
                "/sys/fs/cgroup cgroup cgroup ro,nosuid,noexec,nodev",
                "/dev/mqueue mqueue mqueue nosuid,noexec,nodev",
                "/dev/shm tmpfs shm nosuid,noexec,nodev,mode=1777,size=65536k",
                "/var/lib/bosun tmpfs tmpfs ro,nosuid,nodev,noexec,mode=755,size=4k",
                "/etc/resolv.conf bind /run/c/resolv.conf rbind,rprivate",
                "/etc/hosts bind /run/c/hosts rbind,rprivate",
                "/etc/hostname bind /run/c/hostname rbind,rprivate",
            ]
        );
    }

    #[test]
    fn a_privileged_container_writes_to_sys() {
        let options = ContainerOptions { privileged: true, ..ContainerOptions::default() };
        let made = made(&options, &[]);
        assert!(made.contains(&"/sys sysfs sysfs nosuid,noexec,nodev".to_owned()), "{made:?}");
        assert!(made.contains(&"/sys/fs/cgroup cgroup cgroup nosuid,noexec,nodev".to_owned()));
    }

    #[test]
    fn a_read_only_container_does_not_write_to_its_etc() {
        let options = ContainerOptions { read_only: true, ..ContainerOptions::default() };
        let made = made(&options, &[]);
        let hosts = made.iter().find(|line| line.starts_with("/etc/hosts ")).unwrap();
        assert!(hosts.ends_with("rbind,rprivate,ro,rro"), "{hosts}");
    }

    #[test]
    fn a_user_s_mount_replaces_a_default_and_outer_paths_come_first() {
        let scratch = tempfile::tempdir().unwrap();
        let source = scratch.path();
        let made = made(
            &options(vec![
                bind(source, "/srv/a/b/"),
                bind(source, "/dev"),
                bind(source, "/etc/hosts"),
                bind(source, "/srv"),
            ]),
            &[],
        );
        let destinations: Vec<&str> =
            made.iter().map(|line| line.split_once(' ').unwrap().0).collect();
        assert_eq!(
            destinations,
            [
                "/proc",
                "/sys",
                "/sys/fs/cgroup",
                "/dev",
                "/srv",
                "/etc/resolv.conf",
                "/etc/hostname",
                "/etc/hosts",
                "/srv/a/b"
            ]
        );
        let srv = made.iter().find(|line| line.starts_with("/srv ")).unwrap();
        assert_eq!(*srv, format!("/srv bind {} rbind,rslave,ro,rro", source.display()));
    }

    #[test]
    fn the_kernel_s_controls_are_not_replaced() {
        let any = Path::new("/");
        for path in ["/proc", "/proc/self/attr", "/proc//sys/"] {
            assert!(said(bind(any, path)).contains("kernel's own controls"), "{path}");
        }
        for path in ["/proc/meminfo", "/process", "/sys", "/sys/fs/bpf"] {
            assert!(check(&options(vec![bind(any, path)]), Path::new("/c")).is_ok(), "{path}");
        }
        let privileged = ContainerOptions {
            privileged: true,
            mounts: vec![bind(any, "/proc/sys")],
            ..ContainerOptions::default()
        };
        assert!(check(&privileged, Path::new("/c")).is_ok());
    }

    #[test]
    fn what_is_wrong_with_a_mount_is_named() {
        let any = Path::new("/");
        assert!(said(bind(any, "srv")).contains("\"srv\": is not an absolute path"));
        assert!(said(bind(any, "/a/../b")).contains("\"/a/../b\": contains \"..\""));
        assert!(said(bind(any, "/./")).contains("is the root itself"));
        assert!(said(bind(Path::new("data"), "/data")).contains("named volumes"));
        assert!(said(bind(Path::new("./data"), "/data")).contains("not an absolute path"));
        let missing = said(bind(Path::new("/does/not/exist"), "/data"));
        assert!(missing.contains("/does/not/exist") && missing.contains("create it"), "{missing}");
        let twice = options(vec![bind(any, "/a"), bind(any, "/a/")]);
        assert!(
            check(&twice, Path::new("/c"))
                .unwrap_err()
                .to_string()
                .contains("\"/a\": is given twice")
        );
    }

    #[test]
    fn bosun_s_own_directories_are_covered_where_the_rootfs_shows_them() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().canonicalize().unwrap();
        for name in ["var/lib/bosun", "run/bosun", "other"] {
            std::fs::create_dir_all(top.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(top.join("var"), top.join("link")).unwrap();
        let own = [top.join("link/lib/bosun"), top.join("run/bosun"), top.join("missing")];
        let found = |rootfs: &str| covers(&top.join(rootfs), &own);
        assert_eq!(found("").unwrap(), ["/run/bosun", "/var/lib/bosun"]);
        assert_eq!(found("var/lib").unwrap(), ["/bosun"]);
        assert_eq!(found("link").unwrap(), ["/lib/bosun"]);
        assert_eq!(found("other").unwrap(), [] as [&str; 0]);
        let inside = found("run/bosun").unwrap_err().to_string();
        assert!(inside.contains("bosun's own"), "{inside}");
        let missing = found("nowhere").unwrap_err().to_string();
        assert!(missing.contains("nowhere") && missing.contains("directory that exists"));
    }
}
