//! The rootfs itself: an overlay of layers, or a directory.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, open_tree,
};
use shim_wire::plan::Rootfs;

use crate::{Error, Rule, Step, mounts};

/// What fsconfig(2) takes at most for a string, the terminating NUL included.
const MAX_VALUE: usize = 256;
/// What mount(2) takes at most for all options together.
const PAGE: usize = 4096;

/// Where a rootfs is made: not attached anywhere, or, on kernels that can't, on top of the old root.
#[derive(Debug)]
pub(crate) enum Made {
    Detached(OwnedFd),
    OnRoot,
}

/// Assembles the rootfs.
pub(crate) fn make(rootfs: &Rootfs) -> Result<Made, Error> {
    match rootfs.lower.as_slice() {
        [] => return bind(&rootfs.directory).map(Made::Detached),
        // Not an overlay for kernels before 6.10, and none is needed.
        [layer] if rootfs.upper.is_empty() => return view(layer).map(Made::Detached),
        [_, ..] => {}
    }
    // A backslash there is or is not an escape, by the version of the kernel.
    let fits = |path: &String| path.len() < MAX_VALUE && !path.contains('\\');
    let all_fit = rootfs.lower.iter().chain([&rootfs.upper, &rootfs.work]).all(fits);
    if !all_fit || !takes_layers_one_by_one() {
        return legacy(rootfs);
    }
    match layered(rootfs) {
        Ok(mount) => Ok(Made::Detached(mount)),
        // A kernel that is not what its version says.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => legacy(rootfs),
        Err(errno) => Err(missing_layer(rootfs, errno)),
    }
}

/// Since Linux 6.8. Told by the version, because to try it leaves a line in the kernel's log.
fn takes_layers_one_by_one() -> bool {
    let name = rustix::system::uname();
    let mut numbers = name.release().to_str().unwrap_or_default().split(['.', '-', '+']);
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    next().zip(next()).is_some_and(|version| version >= (6, 8))
}

/// A copy of the directory's mount, with what is mounted below it.
fn bind(directory: &str) -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let mount = open_tree(CWD, directory, flags).map_err(|errno| missing(directory, errno))?;
    mounts::make_private(&mount, directory)?;
    Ok(mount)
}

/// A single layer as it is, read-only.
fn view(layer: &str) -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, layer, flags).map_err(|errno| missing(layer, errno))?;
    mounts::make_private(&mount, layer)?;
    mounts::make_read_only(mount.as_fd(), false, layer)?;
    Ok(mount)
}

fn missing(source: &str, errno: Errno) -> Error {
    Error::MountSource { source: source.to_owned(), destination: "/".to_owned(), errno }
}

/// With the layers given one by one, so that commas and colons in a path have no meaning.
fn layered(rootfs: &Rootfs) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    for layer in &rootfs.lower {
        fsconfig_set_string(&context, "lowerdir+", layer.as_str())?;
    }
    if !rootfs.upper.is_empty() {
        fsconfig_set_string(&context, "upperdir", rootfs.upper.as_str())?;
        fsconfig_set_string(&context, "workdir", rootfs.work.as_str())?;
        if rootfs.volatile {
            fsconfig_set_flag(&context, "volatile")?;
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// By mount(2), straight onto the old root.
fn legacy(rootfs: &Rootfs) -> Result<Made, Error> {
    let options = legacy_options(rootfs);
    if options.len() >= PAGE {
        return Err(Error::refused("the overlay's list of layers", Rule::OptionTooLong));
    }
    let options = CString::new(options)
        .map_err(|_| Error::refused("the overlay's list of layers", Rule::NulByte))?;
    rustix::mount::mount("overlay", "/", "overlay", MountFlags::empty(), options.as_c_str())
        .map_err(|errno| missing_layer(rootfs, errno))?;
    Ok(Made::OnRoot)
}

fn legacy_options(rootfs: &Rootfs) -> String {
    let lower: Vec<String> = rootfs.lower.iter().map(|path| escape(path, ":")).collect();
    let mut options = format!("lowerdir={}", lower.join(":"));
    if !rootfs.upper.is_empty() {
        let (upper, work) = (escape(&rootfs.upper, ""), escape(&rootfs.work, ""));
        options += &format!(",upperdir={upper},workdir={work}");
        if rootfs.volatile {
            options += ",volatile";
        }
    }
    options
}

/// With a backslash before what ends an option, a layer, or is a backslash itself
/// (Documentation/filesystems/overlayfs.rst).
fn escape(path: &str, also: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for character in path.chars() {
        if character == '\\' || character == ',' || also.contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// Names the directory that is missing, when that is what is wrong.
fn missing_layer(rootfs: &Rootfs, errno: Errno) -> Error {
    let written = [&rootfs.upper, &rootfs.work].into_iter().filter(|path| !path.is_empty());
    for path in rootfs.lower.iter().chain(written) {
        if let Err(errno) = rustix::fs::stat(path.as_str()) {
            return missing(path, errno);
        }
    }
    Error::System { step: Step::Overlay, object: rootfs.lower.join(" over "), errno }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_options_is_escaped() {
        let rootfs = Rootfs {
            lower: vec!["/a:b".to_owned(), "/c,d".to_owned(), "/e\\f".to_owned()],
            upper: "/u:v,w".to_owned(),
            work: "/x".to_owned(),
            volatile: true,
            ..Rootfs::default()
        };
        assert_eq!(
            legacy_options(&rootfs),
            "lowerdir=/a\\:b:/c\\,d:/e\\\\f,upperdir=/u:v\\,w,workdir=/x,volatile"
        );
    }

    #[test]
    fn without_an_upper_directory_it_is_read_only() {
        let rootfs = Rootfs { lower: vec!["/a".to_owned()], volatile: true, ..Rootfs::default() };
        assert_eq!(legacy_options(&rootfs), "lowerdir=/a");
    }
}
