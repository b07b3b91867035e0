//! `--volume`: bind mounts, and host paths made absolute.

use std::path::{Component, Path, PathBuf};

use bosun_proto::v1::BindMount;

use super::FlagError;

/// `HOST:CONTAINER[:OPTION[,OPTION…]]`. A host path that starts with a dot is relative to
/// `working_dir`; a bare word would be a volume's name, which does not exist yet.
pub(crate) fn parse_mount(
    spec: &str,
    working_dir: impl FnOnce() -> std::io::Result<PathBuf>,
) -> Result<BindMount, FlagError> {
    let mut parts = spec.split(':');
    let (source, destination, options) =
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(path), None, _, _) if path.starts_with('/') => {
                return Err(FlagError::MountAnonymous(spec.to_owned()));
            }
            (Some(source), Some(destination), options, None)
                if !source.is_empty() && !destination.is_empty() =>
            {
                (source, destination, options)
            }
            _ => return Err(FlagError::Mount(spec.to_owned())),
        };
    if !source.starts_with(['/', '.']) {
        return Err(FlagError::MountNamed { spec: spec.to_owned(), name: source.to_owned() });
    }
    if !destination.starts_with('/') {
        return Err(FlagError::MountDestination {
            spec: spec.to_owned(),
            path: destination.to_owned(),
        });
    }
    let mut mount = BindMount {
        source: absolute(source, working_dir)?,
        destination: clean(Path::new(destination))?,
        ..BindMount::default()
    };
    for option in options.iter().flat_map(|options| options.split(',')) {
        match option {
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            "rprivate" | "private" | "rslave" | "slave" | "rshared" | "shared" => {
                mount.propagation = option.to_owned();
            }
            _ => {
                return Err(FlagError::MountOption {
                    spec: spec.to_owned(),
                    option: option.to_owned(),
                });
            }
        }
    }
    Ok(mount)
}

/// A host path made absolute and tidy. Links are not followed: that is the daemon's business.
pub(crate) fn absolute(
    path: &str,
    working_dir: impl FnOnce() -> std::io::Result<PathBuf>,
) -> Result<String, FlagError> {
    if path.starts_with('/') {
        return clean(Path::new(path));
    }
    let base = working_dir().map_err(|error| FlagError::WorkingDirectory {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    clean(&base.join(path))
}

/// Without `.`, `..` and doubled slashes, by the words alone.
fn clean(path: &Path) -> Result<String, FlagError> {
    let mut words = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(word) => {
                words.push(word.to_str().ok_or_else(|| FlagError::PathNotText(path.into()))?);
            }
            Component::ParentDir => {
                words.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(format!("/{}", words.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(spec: &str) -> Result<BindMount, FlagError> {
        parse_mount(spec, || Ok(PathBuf::from("/home/me")))
    }

    #[test]
    fn volumes_are_bind_mounts() {
        for (spec, source, destination, read_only, propagation) in [
            ("/a:/b", "/a", "/b", false, ""),
            ("/a/:/b/", "/a", "/b", false, ""),
            ("./x:/b:ro", "/home/me/x", "/b", true, ""),
            ("../x:/b:rw", "/home/x", "/b", false, ""),
            (".:/b", "/home/me", "/b", false, ""),
            ("/a:/b:ro,rslave", "/a", "/b", true, "rslave"),
            ("/a:/b:shared", "/a", "/b", false, "shared"),
            ("/:/host", "/", "/host", false, ""),
        ] {
            let mount = parse(spec).unwrap();
            assert_eq!(
                (mount.source.as_str(), mount.destination.as_str()),
                (source, destination),
                "{spec}"
            );
            assert_eq!((mount.read_only, mount.propagation.as_str()), (read_only, propagation));
        }
    }

    #[test]
    fn what_is_no_bind_mount_is_said_by_name() {
        for (spec, want) in [
            ("data:/b", "named volumes do not exist yet: give a host path"),
            ("a/b:/c", "named volumes do not exist yet"),
            ("/b", "anonymous volumes do not exist yet"),
            ("/a:b", "\"b\", is not absolute"),
            ("/a:/b:rx", "unknown option \"rx\""),
            ("/a:/b:", "unknown option \"\""),
            ("/a:/b:ro:x", "want HOST_PATH:CONTAINER_PATH"),
            (":/b", "want HOST_PATH:CONTAINER_PATH"),
            ("/a:", "want HOST_PATH:CONTAINER_PATH"),
            ("", "want HOST_PATH:CONTAINER_PATH"),
        ] {
            let error = parse(spec).unwrap_err().to_string();
            assert!(error.contains(want), "{spec}: {error}");
        }
    }
}
