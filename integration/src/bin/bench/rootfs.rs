//! A root file system for all sides: one static program and its names.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

/// Makes it in a directory of its own.
///
/// # Panics
/// When busybox-static isn't installed (`make bench` does that) or the disk is full.
pub(crate) fn make() -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix("bosun-bench-")
        .tempdir_in("/tmp")
        .expect("a directory in /tmp");
    let root = directory.path();
    for name in ["bin", "dev", "etc", "proc", "sys", "tmp", "run"] {
        fs::create_dir(root.join(name)).expect("a directory");
    }
    integration::executable::copy("/bin/busybox", root.join("bin/busybox"));
    for name in ["true", "sleep", "cat", "sh"] {
        symlink("busybox", root.join("bin").join(name)).expect("a link");
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").expect("a file");
    fs::write(root.join("etc/group"), "root:x:0:\n").expect("a file");
    directory
}

/// A file `/lines` of so many megabytes in lines of 100 bytes.
///
/// # Panics
/// When the disk is full.
pub(crate) fn make_lines(root: &Path, megabytes: u32) {
    let file = fs::File::create(root.join("lines")).expect("a file");
    let mut file = std::io::BufWriter::with_capacity(1 << 20, file);
    for number in 0..u64::from(megabytes) * 10_000 {
        writeln!(file, "{number:099}").expect("room on the disk");
    }
    file.flush().expect("room on the disk");
}
