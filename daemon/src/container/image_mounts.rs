//! Images as volumes: an image's tree, or a part of it, read-only at a path of a container.
//!
//! The container's own snapshot has a label for each, so its layers are kept as long as the container
//! is. They are mounted in the container's mount namespace like everything else: one layer as a bind,
//! several as an overlay; a part of the tree is an overlay of that part of each layer. To a container
//! with a user namespace the files belong as those of its own image do: the layers are id-mapped.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};

use bosun_layer::{OPAQUE, is_whiteout};
use oci_spec::runtime::{Mount, MountBuilder};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Key;
use super::record::Record;
use crate::blocking::off_the_loop;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::gc::SNAPSHOT_REFERENCE;
use crate::snapshots::merged;
use crate::spec::ImageMount;

/// The labels of a container's snapshot, which keep the layers of its image volumes.
pub(super) fn labels(mounts: &[ImageMount]) -> BTreeMap<String, String> {
    let kept = mounts.iter().filter(|mount| !mount.snapshot.is_empty()).enumerate();
    kept.map(|(index, mount)| (format!("{SNAPSHOT_REFERENCE}/{index}"), mount.snapshot.clone()))
        .collect()
}

/// The mounts of a container's image volumes.
///
/// # Errors
/// A layer is gone; there is no such part of an image.
pub(super) async fn mounts(core: &Core, key: &Key, record: &Record) -> Result<Vec<Mount>> {
    let is_mapped = record.options.users().is_some();
    let mut made = Vec::with_capacity(record.options.image_mounts.len());
    for mount in &record.options.image_mounts {
        made.push(one(core, key, mount, is_mapped).await?);
    }
    Ok(made)
}

/// Looks whether an image volume can be mounted.
///
/// # Errors
/// As [`mounts`].
pub(super) async fn check(core: &Core, key: &Key, mount: &ImageMount) -> Result<()> {
    one(core, key, mount, false).await.map(drop)
}

async fn one(core: &Core, key: &Key, mount: &ImageMount, is_mapped: bool) -> Result<Mount> {
    let mut trees = Vec::new();
    if !mount.snapshot.is_empty() {
        let snapshot = core.snapshots.stat(key.namespace.as_str(), &mount.snapshot).await?;
        let layers = core.snapshots.layers_of_number(snapshot.row.number).await?;
        trees = layers.upper.into_iter().map(|(tree, _)| tree).chain(layers.lower).collect();
    }
    if trees.is_empty() {
        trees.push(core.layout.nothing());
    }
    let wanted = mount.clone();
    let parts = off_the_loop(move || match wanted.sub_path.as_str() {
        "" => Ok(trees),
        path => part(&trees, path).map_err(|source| Error::ImagePart {
            image: wanted.image.clone(),
            path: path.to_owned(),
            source: std::sync::Arc::new(source),
        }),
    })
    .await?;
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let mut options = ["ro", "nosuid", "nodev"].map(str::to_owned).to_vec();
    options.extend(is_mapped.then(|| "idmap".to_owned()));
    let builder = MountBuilder::default().destination(&mount.destination);
    let builder = match parts.as_slice() {
        [only] => {
            options.push("bind".to_owned());
            builder.typ("bind").source(only)
        }
        several => {
            let lower: Vec<String> = several.iter().map(text).collect();
            options.push(format!("lowerdir={}", lower.join(":")));
            builder.typ("overlay").source("overlay")
        }
    };
    let built = builder.options(options).build();
    built.map_err(|error| crate::spec::Error::from(error).into())
}

/// A part of the tree that layers make, nearest first: that part of each layer that shows there.
fn part(trees: &[PathBuf], path: &str) -> std::io::Result<Vec<PathBuf>> {
    let whole = merged(trees).map_err(|error| std::io::Error::other(error.to_string()))?;
    let real = real_path(&whole, path)?;
    let mut parts = Vec::new();
    for tree in trees {
        match seen(tree, &real)? {
            Seen::Here { hides } => {
                let place = tree.join(&real);
                let is_directory = place.symlink_metadata()?.is_dir();
                // Of a file, the nearest one is the file.
                if !is_directory && !parts.is_empty() {
                    break;
                }
                parts.push(place);
                if hides || !is_directory {
                    break;
                }
            }
            Seen::Nothing { hides: true } => break,
            Seen::Nothing { hides: false } => {}
        }
    }
    match parts.is_empty() {
        true => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
        false => Ok(parts),
    }
}

/// Where a path leads inside a tree, after its links.
fn real_path(tree: &shim_rootfs::Root, path: &str) -> std::io::Result<PathBuf> {
    let of = |descriptor: &std::os::fd::OwnedFd| {
        std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
    };
    let top = of(&tree.open("/", OFlags::PATH)?)?;
    let found = of(&tree.open(path, OFlags::PATH)?)?;
    let below = found.strip_prefix(&top).map_err(std::io::Error::other)?;
    Ok(below.to_owned())
}

/// What a layer has at a path, and whether it hides what the layers below it have there.
enum Seen {
    Here { hides: bool },
    Nothing { hides: bool },
}

fn seen(tree: &Path, path: &Path) -> std::io::Result<Seen> {
    let mut place = tree.to_owned();
    let mut hides = false;
    for part in path.components().filter(|part| matches!(part, Component::Normal(_))) {
        place.push(part);
        let stat = match rustix::fs::lstat(&place) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Seen::Nothing { hides }),
            // Something that is no directory is on the way.
            Err(Errno::NOTDIR) => return Ok(Seen::Nothing { hides: true }),
            Err(errno) => return Err(errno.into()),
        };
        if is_whiteout(&stat) {
            return Ok(Seen::Nothing { hides: true });
        }
        let mut value = [0; 1];
        let opaque = rustix::fs::lgetxattr(&place, OPAQUE, &mut value[..]);
        hides |= opaque.is_ok_and(|length| length == 1 && value == *b"y");
    }
    Ok(Seen::Here { hides })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> (tempfile::TempDir, Vec<PathBuf>) {
        let scratch = tempfile::tempdir().unwrap();
        let trees: Vec<PathBuf> =
            ["top", "middle", "bottom"].map(|name| scratch.path().join(name)).to_vec();
        for tree in &trees {
            std::fs::create_dir(tree).unwrap();
        }
        (scratch, trees)
    }

    #[test]
    fn a_part_is_that_of_each_layer_that_shows() {
        let (_scratch, trees) = layers();
        for tree in &trees {
            std::fs::create_dir_all(tree.join("a/b")).unwrap();
        }
        std::os::unix::fs::symlink("a/b", trees[0].join("link")).unwrap();
        let all: Vec<PathBuf> = trees.iter().map(|tree| tree.join("a/b")).collect();
        assert_eq!(part(&trees, "a/b").unwrap(), all);
        assert_eq!(part(&trees, "link").unwrap(), all);
        assert_eq!(part(&trees, "../../a/b/.").unwrap(), all);
        assert!(part(&trees, "nowhere").is_err());
    }

    #[test]
    fn a_layer_hides_those_below_it() {
        let (_scratch, trees) = layers();
        std::fs::create_dir_all(trees[0].join("a")).unwrap();
        std::fs::create_dir_all(trees[1].join("a/b")).unwrap();
        std::fs::create_dir_all(trees[2].join("a/b/c")).unwrap();
        rustix::fs::setxattr(trees[1].join("a"), OPAQUE, b"y", rustix::fs::XattrFlags::empty())
            .unwrap();
        assert_eq!(part(&trees, "a/b").unwrap(), [trees[1].join("a/b")]);
        assert!(part(&trees, "a/b/c").is_err());
        std::fs::write(trees[0].join("file"), "new").unwrap();
        std::fs::write(trees[2].join("file"), "old").unwrap();
        assert_eq!(part(&trees, "file").unwrap(), [trees[0].join("file")]);
    }
}
