//! The rootfs as a client of containerd describes it: mounts, for somebody else to make.
//!
//! Nobody makes them in the host's table: an overlay becomes layers that the container assembles for
//! itself, a bind becomes a directory that it takes a copy of. What is neither is refused by name.

use shim_plan::{Layers, Writable};
use shim_wire::task::Mount;

use crate::error::Error;

/// What the mounts come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The rootfs is where the spec says.
    Nothing,
    Directory {
        path: String,
        readonly: bool,
    },
    /// With those of overlayfs' options that are not its layers.
    Overlay {
        layers: Layers,
        options: Vec<String>,
    },
}

/// Options of a bind that say what is so in any case.
const PLAIN: [&str; 7] = ["bind", "rbind", "rw", "private", "rprivate", "slave", "rslave"];

/// Options of overlayfs that change how a rootfs works and not where it is.
const TUNING: [&str; 7] =
    ["index", "userxattr", "xino", "metacopy", "redirect_dir", "nfs_export", "uuid"];

/// # Errors
/// Names the mount and its option that can't be done.
pub(crate) fn read(mounts: &[Mount]) -> Result<Found, Error> {
    let mount = match mounts {
        [] => return Ok(Found::Nothing),
        [mount] => mount,
        several => {
            let why = format!("{} mounts on top of each other are not supported", several.len());
            return Err(Error::field("rootfs", why));
        }
    };
    if !mount.target.is_empty() {
        return Err(Error::field("rootfs[0].target", "a mount below the rootfs is not supported"));
    }
    match mount.r#type.as_str() {
        "bind" => bind(mount),
        "overlay" => overlay(mount),
        other => Err(Error::field("rootfs[0].type", format!("{other:?} is not supported"))),
    }
}

fn bind(mount: &Mount) -> Result<Found, Error> {
    let mut readonly = false;
    for option in &mount.options {
        match option.as_str() {
            "ro" => readonly = true,
            plain if PLAIN.contains(&plain) => {}
            other => return Err(unknown(other)),
        }
    }
    Ok(Found::Directory { path: absolute("source", &mount.source)?, readonly })
}

fn overlay(mount: &Mount) -> Result<Found, Error> {
    let (mut lower, mut upper, mut work) = (Vec::new(), String::new(), String::new());
    let (mut volatile, mut options) = (false, Vec::new());
    for option in &mount.options {
        match option.split_once('=').map_or((option.as_str(), ""), |pair| pair) {
            ("lowerdir", list) => {
                for path in split(list) {
                    lower.push(absolute("options.lowerdir", &path)?);
                }
            }
            ("upperdir", path) => upper = absolute("options.upperdir", path)?,
            ("workdir", path) => work = absolute("options.workdir", path)?,
            ("volatile", "") => volatile = true,
            ("rw", "") => {}
            (name, _) if TUNING.contains(&name) => options.push(option.clone()),
            (_, _) => return Err(unknown(option)),
        }
    }
    if lower.is_empty() {
        return Err(Error::field("rootfs[0].options", "an overlay without a lowerdir"));
    }
    let writable = match (upper.is_empty(), work.is_empty()) {
        (true, true) => None,
        (false, false) => Some(Writable { upper, work, volatile }),
        (_, _) => {
            let why = "upperdir and workdir are given together or not at all";
            return Err(Error::field("rootfs[0].options", why));
        }
    };
    Ok(Found::Overlay { layers: Layers::Overlay { lower, writable }, options })
}

/// The paths of a list, in which a backslash takes the meaning from what follows it
/// (Documentation/filesystems/overlayfs.rst).
fn split(list: &str) -> Vec<String> {
    let mut paths = vec![String::new()];
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' => paths.push(String::new()),
            '\\' => paths.last_mut().into_iter().for_each(|path| path.extend(characters.next())),
            other => paths.last_mut().into_iter().for_each(|path| path.push(other)),
        }
    }
    paths
}

fn absolute(field: &str, path: &str) -> Result<String, Error> {
    match path.starts_with('/') {
        true => Ok(path.to_owned()),
        false => {
            Err(Error::field(format!("rootfs[0].{field}"), format!("{path:?} is not absolute")))
        }
    }
}

fn unknown(option: &str) -> Error {
    Error::field("rootfs[0].options", format!("{option:?} is not supported"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        Mount {
            r#type: kind.to_owned(),
            source: source.to_owned(),
            target: String::new(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        }
    }

    #[test]
    fn snapshots_become_layers_and_directories() {
        let bind = mount("bind", "/s/1/fs", &["ro", "rbind"]);
        let directory = Found::Directory { path: "/s/1/fs".to_owned(), readonly: true };
        assert_eq!(read(&[bind]).unwrap(), directory);
        let options =
            ["index=off", "workdir=/s/3/work", "upperdir=/s/3/fs", r"lowerdir=/s/2\:x:/s/1"];
        let Found::Overlay { layers, options } =
            read(&[mount("overlay", "overlay", &options)]).unwrap()
        else {
            panic!("no overlay")
        };
        assert_eq!(options, ["index=off"]);
        let Layers::Overlay { lower, writable } = layers else { panic!("no layers") };
        assert_eq!(lower, ["/s/2:x", "/s/1"]);
        assert_eq!(writable.unwrap().upper, "/s/3/fs");
        assert_eq!(read(&[]).unwrap(), Found::Nothing);
    }

    #[test]
    fn what_can_not_be_mounted_is_refused_by_name() {
        let overlay = |options: &[&str]| vec![mount("overlay", "overlay", options)];
        let plain = || mount("bind", "/a", &[]);
        for (mounts, expected) in [
            (vec![mount("ext4", "/dev/dm-1", &[])], r#"rootfs[0].type: "ext4" is not supported"#),
            (vec![plain(), plain()], "rootfs: 2 mounts"),
            (vec![mount("bind", "a", &[])], r#"rootfs[0].source: "a" is not absolute"#),
            (vec![mount("bind", "/a", &["sync"])], r#"rootfs[0].options: "sync""#),
            (overlay(&["upperdir=/u", "workdir=/w"]), "rootfs[0].options: an overlay without"),
            (overlay(&["lowerdir=/a", "upperdir=/u"]), "rootfs[0].options: upperdir and workdir"),
            (overlay(&["lowerdir=/a:b"]), r#"rootfs[0].options.lowerdir: "b" is not absolute"#),
            (overlay(&["lowerdir=/a", "lazy"]), r#"rootfs[0].options: "lazy""#),
        ] {
            let text = read(&mounts).unwrap_err().to_string();
            assert!(text.starts_with(expected), "{text}");
        }
    }
}
