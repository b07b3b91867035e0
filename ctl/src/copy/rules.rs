//! What goes where: docker's table of sources and destinations, without a look at any file.
//!
//! | destination | from a file | from a directory | from `DIR/.` |
//! |---|---|---|---|
//! | a directory | into it | into it | its content into it |
//! | a file | replaces it | refused | refused |
//! | nothing | is its new name | is its new name | its content, under the new name |
//! | nothing, with a slash | refused | is its new name | its content, under the new name |

use std::path::{Component, Path, PathBuf};

use super::CopyError;

/// A copy as it was asked for: one end is in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    Out { from: There, to: Here },
    In { from: Here, to: There },
}

/// An absolute path in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct There {
    pub(crate) container: String,
    pub(crate) path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Here {
    Path(String),
    /// `-`: a tar on stdin or stdout.
    Stream,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Directory,
    File,
    Nothing,
}

/// What is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// As it was given, for errors.
    given: String,
    /// Without what only says that it is a directory.
    pub(crate) path: String,
    /// Its last component; none of `/`.
    pub(crate) name: Option<String>,
    /// Only what is in it.
    content_only: bool,
    /// It must be a directory, and a link at its end is followed.
    pub(crate) is_directory: bool,
}

/// Where it goes: a directory that exists, and the name in it; without one, the directory itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Landing {
    pub(crate) directory: String,
    pub(crate) name: Option<String>,
}

impl Copy {
    pub(crate) fn parse(source: &str, destination: &str) -> Result<Self, CopyError> {
        match (end(source), end(destination)) {
            (Ok(from), Err(to)) => Ok(Self::Out { from, to }),
            (Err(from), Ok(to)) => Ok(Self::In { from, to }),
            (Ok(_), Ok(_)) => Err(CopyError::TwoContainers),
            (Err(_), Err(_)) => Err(CopyError::NoContainer),
        }
    }
}

/// `CONTAINER:PATH` unless it begins with a slash or a dot. A container's paths begin at its root.
fn end(text: &str) -> Result<There, Here> {
    if text == "-" {
        return Err(Here::Stream);
    }
    match text.split_once(':') {
        Some((name, path)) if !name.is_empty() && !text.starts_with(['/', '.']) => {
            let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
            Ok(There { container: name.to_owned(), path })
        }
        Some(_) | None => Err(Here::Path(text.to_owned())),
    }
}

impl Origin {
    /// Of an absolute path.
    pub(crate) fn new(given: &str) -> Self {
        let content_only = given.ends_with("/.");
        let is_directory = content_only || given.ends_with('/');
        let path = tidy(given);
        let name = Path::new(&path).file_name().and_then(|name| name.to_str()).map(str::to_owned);
        Self {
            given: given.to_owned(),
            // All of a root is its content.
            content_only: content_only || name.is_none(),
            path,
            name,
            is_directory,
        }
    }
}

/// Where a source goes, given what is at the destination.
pub(crate) fn landing(
    origin: &Origin,
    is_directory: bool,
    destination: &str,
    found: Found,
) -> Result<Landing, CopyError> {
    if origin.is_directory && !is_directory {
        return Err(CopyError::NotADirectory(origin.given.clone()));
    }
    let wants_directory = destination.ends_with('/') || destination.ends_with("/.");
    match found {
        Found::Directory => Ok(Landing {
            directory: destination.to_owned(),
            name: if origin.content_only { None } else { origin.name.clone() },
        }),
        Found::File if is_directory => Err(CopyError::DirectoryToFile(destination.to_owned())),
        Found::File if wants_directory => Err(CopyError::NotADirectory(destination.to_owned())),
        Found::Nothing if wants_directory && !is_directory => {
            Err(CopyError::NoDirectory(destination.to_owned()))
        }
        Found::File | Found::Nothing => renamed(destination),
    }
}

/// The destination is the name itself.
fn renamed(destination: &str) -> Result<Landing, CopyError> {
    let path = tidy(destination);
    let parent = Path::new(&path).parent().and_then(Path::to_str);
    let name = Path::new(&path).file_name().and_then(|name| name.to_str());
    let (Some(parent), Some(name)) = (parent, name) else {
        return Err(CopyError::NoName(destination.to_owned()));
    };
    Ok(Landing { directory: parent.to_owned(), name: Some(name.to_owned()) })
}

/// Without `.`, `..` and slashes that mean nothing. Links are not looked at.
fn tidy(path: &str) -> String {
    let mut tidy = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => tidy.push(name),
            Component::ParentDir => {
                tidy.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    // Made of strings.
    tidy.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_end_is_in_a_container() {
        let there = |container: &str, path: &str| {
            Ok(There { container: container.to_owned(), path: path.to_owned() })
        };
        let here = |path: &str| Err(Here::Path(path.to_owned()));
        for (text, want) in [
            ("web:/etc", there("web", "/etc")),
            ("web:etc/x", there("web", "/etc/x")),
            ("web:", there("web", "/")),
            ("web:/a:b", there("web", "/a:b")),
            ("./a:b", here("./a:b")),
            ("/a:b", here("/a:b")),
            (":b", here(":b")),
            ("a", here("a")),
            ("-", Err(Here::Stream)),
        ] {
            assert_eq!(end(text), want, "{text}");
        }
        assert!(matches!(Copy::parse("a", "b"), Err(CopyError::NoContainer)));
        assert!(matches!(Copy::parse("-", "-"), Err(CopyError::NoContainer)));
        assert!(matches!(Copy::parse("a:/", "b:/"), Err(CopyError::TwoContainers)));
        assert!(matches!(Copy::parse("-", "b:/"), Ok(Copy::In { from: Here::Stream, .. })));
        assert!(matches!(Copy::parse("a:/", "x"), Ok(Copy::Out { .. })));
    }

    #[test]
    fn sources_and_destinations_meet_as_docker_has_it() {
        use Found::{Directory, File, Nothing};
        const IS_FILE: bool = false;
        const IS_DIR: bool = true;
        for (source, is_directory, destination, found, want) in [
            ("/s/f", IS_FILE, "/d", Directory, Some(("/d", Some("f")))),
            ("/s/f", IS_FILE, "/d/", Directory, Some(("/d/", Some("f")))),
            ("/s/f", IS_FILE, "/d/g", File, Some(("/d", Some("g")))),
            ("/s/f", IS_FILE, "/d/g", Nothing, Some(("/d", Some("g")))),
            ("/s/f", IS_FILE, "/d/g/", Nothing, None),
            ("/s/f", IS_FILE, "/d/g/", File, None),
            ("/s/f/", IS_FILE, "/d", Directory, None),
            ("/s/f/.", IS_FILE, "/d", Directory, None),
            ("/s/e", IS_DIR, "/d", Directory, Some(("/d", Some("e")))),
            ("/s/e/", IS_DIR, "/d", Directory, Some(("/d", Some("e")))),
            ("/s/e/.", IS_DIR, "/d", Directory, Some(("/d", None))),
            ("/s/e", IS_DIR, "/d/g", File, None),
            ("/s/e/.", IS_DIR, "/d/g", File, None),
            ("/s/e", IS_DIR, "/d/g", Nothing, Some(("/d", Some("g")))),
            ("/s/e", IS_DIR, "/d/g/", Nothing, Some(("/d", Some("g")))),
            ("/s/e/.", IS_DIR, "/d/g", Nothing, Some(("/d", Some("g")))),
            ("/", IS_DIR, "/d", Directory, Some(("/d", None))),
            ("/", IS_DIR, "/d/g", Nothing, Some(("/d", Some("g")))),
            ("/s/../t/./f", IS_FILE, "/d", Directory, Some(("/d", Some("f")))),
            ("/s/f", IS_FILE, "/x/../d/g", Nothing, Some(("/d", Some("g")))),
        ] {
            let got = landing(&Origin::new(source), is_directory, destination, found).ok();
            let got = got.as_ref().map(|at| (at.directory.as_str(), at.name.as_deref()));
            assert_eq!(got, want, "{source} {destination} {found:?}");
        }
    }
}
