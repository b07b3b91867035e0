//! Files of this machine into a tar.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::path::Path;

use bosun_layer::{ArchiveOptions, archive, archive_content};

use super::CopyError;

/// Smaller writes are gathered: a header is 512 bytes.
const BUFFER: usize = 256 << 10;

/// What to pack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pack<'a> {
    pub(crate) path: &'a Path,
    /// What it is called in the archive; without a name, a directory's content is packed.
    pub(crate) name: Option<&'a str>,
    /// What the path leads to, when it is a link.
    pub(crate) follow: bool,
}

/// Writes the archive, whatever is mounted in it as well.
pub(crate) fn pack(what: &Pack<'_>, to: impl Write) -> Result<(), CopyError> {
    let unreadable = |source| CopyError::Read { path: what.path.to_owned(), source };
    let unpackable = |source| CopyError::Pack { path: what.path.to_owned(), source };
    let path = match what.follow {
        true => what.path.canonicalize().map_err(unreadable)?,
        false => what.path.to_owned(),
    };
    let options = ArchiveOptions { one_mount: false };
    let to = BufWriter::with_capacity(BUFFER, to);
    let written = match (what.name, path.parent(), path.file_name()) {
        (Some(name), Some(parent), Some(file)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            let parent = File::open(parent).map_err(unreadable)?;
            archive(parent.as_fd(), file, name.as_ref(), to, options)
        }
        // A root is a directory of no directory.
        (Some(name), _, _) => {
            let root = File::open(&path).map_err(unreadable)?;
            archive(root.as_fd(), ".".as_ref(), name.as_ref(), to, options)
        }
        (None, _, _) => {
            let directory = File::open(&path).map_err(unreadable)?;
            archive_content(directory.as_fd(), to, options)
        }
    };
    let mut to = written.map_err(unpackable)?;
    to.flush().map_err(|source| unpackable(bosun_layer::Error::Write(source)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bosun_layer::tar::{Kind, Reader};

    use super::*;

    fn entries(what: &Pack<'_>) -> Vec<(String, Kind)> {
        let mut archive = Vec::new();
        pack(what, &mut archive).unwrap();
        let mut reader = Reader::new(archive.as_slice(), 100);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            let path = String::from_utf8(entry.path).unwrap();
            entries.push((path.trim_end_matches('/').to_owned(), entry.kind));
        }
        entries
    }

    #[test]
    fn a_tree_is_packed_under_its_new_name_or_without_one() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("a"), "four").unwrap();
        fs::hard_link(tree.join("a"), tree.join("b")).unwrap();
        let packed = entries(&Pack { path: &tree, name: Some("new"), follow: false });
        assert_eq!(
            packed,
            [
                ("new".to_owned(), Kind::Directory),
                ("new/a".to_owned(), Kind::File { size: 4 }),
                ("new/b".to_owned(), Kind::HardLink { target: b"new/a".to_vec() }),
            ]
        );
        let content = entries(&Pack { path: &tree, name: None, follow: false });
        assert_eq!(content[0], ("a".to_owned(), Kind::File { size: 4 }));
        assert_eq!(content[1].1, Kind::HardLink { target: b"a".to_vec() });
    }

    #[test]
    fn a_link_is_copied_as_one_unless_it_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        fs::write(dir.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let kind = |follow| entries(&Pack { path: &link, name: Some("n"), follow })[0].1.clone();
        assert_eq!(kind(false), Kind::Symlink { target: b"file".to_vec() });
        assert_eq!(kind(true), Kind::File { size: 1 });
    }
}
