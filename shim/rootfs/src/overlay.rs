//! A rootfs assembled from layers: an overlay that is in nobody's mount table.

use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, open_tree,
};

use crate::error::At;
use crate::{Error, Rule, Step};

/// What fsconfig(2) takes at most for a string, the terminating NUL included.
const MAX_VALUE: usize = 256;
/// What mount(2) takes at most for all options together.
const PAGE: usize = 4096;
/// Since when layers can be given one by one.
const ONE_BY_ONE: (u32, u32) = (6, 8);

/// Since when they can be id-mapped mounts.
const IDMAPPED: (u32, u32) = (5, 19);

/// What is laid over what.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// Read-only, nearest first; at least one.
    pub lower: &'a [String],
    /// Where changes go; without it, the overlay is read-only.
    pub upper: Option<Upper<'a>>,
    /// Further options of overlayfs, `index=off` or `userxattr`.
    pub options: &'a [String],
}

/// Where an overlay writes.
#[derive(Clone, Copy, Debug)]
pub struct Upper<'a> {
    pub directory: &'a str,
    /// overlayfs' own directory, on the same file system.
    pub work: &'a str,
    /// Nothing is made durable, not even when the overlay goes.
    pub volatile: bool,
}

/// Where a rootfs is made: not attached anywhere, or, on kernels that can't, on top of the old root.
#[derive(Debug)]
pub enum Made {
    Detached(OwnedFd),
    OnRoot,
}

/// Assembles an overlay. On kernels that can't do it without a place, it is attached to `/`: only
/// for callers with a mount table of their own.
///
/// # Errors
/// A directory is missing, the list of layers is too long for such a kernel, or the kernel refuses.
pub fn make(layers: &Layers<'_>) -> Result<Made, Error> {
    // A backslash there is or is not an escape, by the version of the kernel.
    let fits = |path: &str| path.len() < MAX_VALUE && !path.contains('\\');
    if !layers.paths().all(fits) || version() < ONE_BY_ONE {
        return legacy(layers);
    }
    match assemble(layers, Form::OneByOne) {
        Ok(mount) => Ok(Made::Detached(mount)),
        // A kernel that is not what its version says.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => legacy(layers),
        Err(errno) => Err(missing_layer(layers, errno)),
    }
}

/// Assembles an overlay that is attached nowhere and goes with its last descriptor.
///
/// A single layer without an upper directory is no overlay for the kernel, and becomes a copy of the
/// layer's mount: whiteouts in it show as the devices they are, and it can be written to.
///
/// # Errors
/// A directory is missing, the kernel can't do this for so many layers (the error names its version),
/// or it refuses.
pub fn detached(layers: &Layers<'_>) -> Result<OwnedFd, Error> {
    if let ([layer], None) = (layers.lower, layers.upper) {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        return open_tree(CWD, layer.as_str(), flags)
            .map_err(|errno| Error::Layer { path: layer.clone(), errno });
    }
    let form = if version() < ONE_BY_ONE { Form::OneString } else { Form::OneByOne };
    if !form.takes(layers) {
        return Err(old_kernel());
    }
    assemble(layers, form).map_err(|errno| missing_layer(layers, errno))
}

/// Whether this kernel's overlayfs takes layers on id-mapped mounts.
#[must_use]
pub fn takes_idmapped_layers() -> bool {
    version() >= IDMAPPED
}

/// How the lower layers are given to fsconfig(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// So that commas and colons in a path have no meaning.
    OneByOne,
    /// As `lowerdir=A:B`.
    OneString,
}

impl Form {
    fn takes(self, layers: &Layers<'_>) -> bool {
        let plain =
            |path: &str, special: &[char]| path.len() < MAX_VALUE && !path.contains(special);
        match self {
            Self::OneByOne => layers.paths().all(|path| plain(path, &['\\'])),
            Self::OneString => {
                layers.paths().all(|path| plain(path, &['\\', ':', ',']))
                    && layers.lower.join(":").len() < MAX_VALUE
            }
        }
    }
}

fn assemble(layers: &Layers<'_>, form: Form) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    match form {
        Form::OneByOne => {
            for layer in layers.lower {
                fsconfig_set_string(&context, "lowerdir+", layer.as_str())?;
            }
        }
        Form::OneString => fsconfig_set_string(&context, "lowerdir", layers.lower.join(":"))?,
    }
    if let Some(upper) = layers.upper {
        fsconfig_set_string(&context, "upperdir", upper.directory)?;
        fsconfig_set_string(&context, "workdir", upper.work)?;
        if upper.volatile {
            fsconfig_set_flag(&context, "volatile")?;
        }
    }
    for option in layers.options {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&context, key, value)?,
            None => fsconfig_set_flag(&context, option.as_str())?,
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// By mount(2), straight onto the old root.
fn legacy(layers: &Layers<'_>) -> Result<Made, Error> {
    let refused = |rule| Error::Refused { object: "the overlay's list of layers".to_owned(), rule };
    let mut options = legacy_options(layers, "");
    if options.len() >= PAGE {
        // Shorter from where they all are. A caller with a mount table of its own has no other use for
        // its working directory yet.
        let home = common_directory(layers);
        options = legacy_options(layers, &home);
        if options.len() >= PAGE {
            return Err(refused(Rule::OptionTooLong));
        }
        rustix::process::chdir(home.as_str()).at(Step::Overlay, OsStr::new(&home))?;
    }
    let options = CString::new(options).map_err(|_| refused(Rule::NulByte))?;
    rustix::mount::mount("overlay", "/", "overlay", MountFlags::empty(), options.as_c_str())
        .map_err(|errno| missing_layer(layers, errno))?;
    Ok(Made::OnRoot)
}

/// The longest directory that all paths are in, with a slash at its end.
fn common_directory(layers: &Layers<'_>) -> String {
    let mut paths = layers.paths();
    let mut common = paths.next().unwrap_or_default();
    for path in paths {
        let same = common.bytes().zip(path.bytes()).take_while(|(one, other)| one == other).count();
        common = common.get(..same).unwrap_or_default();
    }
    let end = common.rfind('/').map_or(0, |slash| slash + 1);
    common[..end].to_owned()
}

/// The options of mount(2), one each, for who mounts the overlay elsewhere.
#[must_use]
pub fn options(layers: &Layers<'_>) -> Vec<String> {
    options_from(layers, "")
}

fn legacy_options(layers: &Layers<'_>, home: &str) -> String {
    options_from(layers, home).join(",")
}

/// The options, with paths as they are from `home`.
fn options_from(layers: &Layers<'_>, home: &str) -> Vec<String> {
    let short = |path: &'_ str| path.strip_prefix(home).unwrap_or(path).to_owned();
    let lower: Vec<String> = layers.lower.iter().map(|path| escape(&short(path), ":")).collect();
    let mut options = vec![format!("lowerdir={}", lower.join(":"))];
    if let Some(upper) = layers.upper {
        let (directory, work) =
            (escape(&short(upper.directory), ""), escape(&short(upper.work), ""));
        options.push(format!("upperdir={directory}"));
        options.push(format!("workdir={work}"));
        if upper.volatile {
            options.push("volatile".to_owned());
        }
    }
    for option in layers.options {
        options.push(escape(option, ""));
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

/// The kernel's. Told by that and not by trying, which leaves a line in the kernel's log.
#[must_use]
pub fn version() -> (u32, u32) {
    let name = rustix::system::uname();
    let mut numbers = name.release().to_str().unwrap_or_default().split(['.', '-', '+']);
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    next().zip(next()).unwrap_or_default()
}

fn old_kernel() -> Error {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    Error::Refused { object: format!("kernel {release}"), rule: Rule::OldKernel }
}

/// Names the directory that is missing, when that is what is wrong.
fn missing_layer(layers: &Layers<'_>, errno: Errno) -> Error {
    for path in layers.paths() {
        if let Err(errno) = rustix::fs::stat(path) {
            return Error::Layer { path: path.to_owned(), errno };
        }
    }
    Error::System { step: Step::Overlay, object: layers.lower.join(" over "), errno }
}

impl<'a> Layers<'a> {
    fn paths(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let written = self.upper.map(|upper| [upper.directory, upper.work]);
        self.lower.iter().map(String::as_str).chain(written.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags};

    use super::*;
    use crate::{Leaf, Root};

    fn lower(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn what_has_a_meaning_in_options_is_escaped() {
        let lower = lower(&["/a:b", "/c,d", "/e\\f"]);
        let upper = Some(Upper { directory: "/u:v,w", work: "/x", volatile: true });
        assert_eq!(
            legacy_options(&Layers { lower: &lower, upper, options: &[] }, ""),
            "lowerdir=/a\\:b:/c\\,d:/e\\\\f,upperdir=/u:v\\,w,workdir=/x,volatile"
        );
    }

    #[test]
    fn without_an_upper_directory_it_is_read_only() {
        let layers = Layers { lower: &lower(&["/a"]), upper: None, options: &[] };
        assert_eq!(legacy_options(&layers, ""), "lowerdir=/a");
    }

    #[test]
    fn one_string_takes_what_fits_and_has_no_meaning() {
        let takes = |paths: &[&str]| {
            Form::OneString.takes(&Layers { lower: &lower(paths), upper: None, options: &[] })
        };
        let half = format!("/{}", "x".repeat(126));
        assert!(takes(&["/a", "/b"]) && takes(&[&half, &half]));
        assert!(!takes(&[&half, &half, "/x"]) && !takes(&["/a:b"]) && !takes(&["/a,b"]));
    }

    struct Fixture {
        directory: tempfile::TempDir,
    }

    impl Fixture {
        /// Directories by name, each with a file of that name.
        fn new(names: &[&str]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            for name in names {
                std::fs::create_dir(directory.path().join(name)).unwrap();
                std::fs::write(directory.path().join(name).join(name), name).unwrap();
            }
            Self { directory }
        }

        fn path(&self, name: &str) -> String {
            self.directory.path().join(name).to_str().unwrap().to_owned()
        }

        /// A whiteout, as overlayfs has them.
        fn hide(&self, path: &str) {
            let at = self.path(path);
            let kind = rustix::fs::FileType::CharacterDevice;
            rustix::fs::mknodat(CWD, &at, kind, Mode::empty(), 0).unwrap();
        }
    }

    fn has(root: &Root, path: &str) -> bool {
        root.open(path, OFlags::PATH).is_ok()
    }

    #[test]
    fn a_detached_overlay_is_in_no_mount_table() {
        let fixture = Fixture::new(&["a", "b"]);
        fixture.hide("a/b");
        let table = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let before = table();
        let lower = [fixture.path("a"), fixture.path("b")];
        let root =
            Root::new(detached(&Layers { lower: &lower, upper: None, options: &[] }).unwrap());
        assert_eq!(table(), before);
        assert!(has(&root, "/a") && !has(&root, "/b"));
        let error = root.make("/new", Leaf::File).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ROFS));
    }

    #[test]
    fn a_single_layer_is_enough() {
        let fixture = Fixture::new(&["a"]);
        let lower = [fixture.path("a")];
        let root =
            Root::new(detached(&Layers { lower: &lower, upper: None, options: &[] }).unwrap());
        assert!(has(&root, "/a"));
    }

    #[test]
    fn changes_go_to_the_upper_directory() {
        let fixture = Fixture::new(&["a", "upper", "work"]);
        let lower = [fixture.path("a")];
        let (directory, work) = (fixture.path("upper"), fixture.path("work"));
        let upper = Some(Upper { directory: &directory, work: &work, volatile: true });
        let root = Root::new(detached(&Layers { lower: &lower, upper, options: &[] }).unwrap());
        root.make("/new/file", Leaf::File).unwrap();
        assert!(fixture.directory.path().join("upper/new/file").is_file());
        assert!(!fixture.directory.path().join("a/new").exists());
    }

    #[test]
    fn a_missing_layer_is_named() {
        let fixture = Fixture::new(&["a"]);
        let lower = [fixture.path("a"), fixture.path("missing")];
        let error = detached(&Layers { lower: &lower, upper: None, options: &[] }).unwrap_err();
        assert!(matches!(error, Error::Layer { .. }), "{error}");
        assert!(error.to_string().contains("missing"), "{error}");
    }

    #[test]
    fn many_layers_are_named_from_where_they_all_are() {
        let paths = lower(&["/s/12/fs", "/s/13/fs", "/s/1/fs"]);
        let upper = Upper { directory: "/s/2/fs", work: "/s/2/work", volatile: false };
        let layers = Layers { lower: &paths, upper: Some(upper), options: &[] };
        let home = common_directory(&layers);
        assert_eq!(home, "/s/");
        assert_eq!(
            legacy_options(&layers, &home),
            "lowerdir=12/fs:13/fs:1/fs,upperdir=2/fs,workdir=2/work"
        );
        let apart = lower(&["/a/x", "/b/x"]);
        assert_eq!(common_directory(&Layers { lower: &apart, upper: None, options: &[] }), "/");
    }
}
