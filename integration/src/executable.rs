//! Programs that a test makes and then runs.
//!
//! A process of its own writes them: a descriptor of this one is for a moment also that of every process
//! which another thread starts, and nobody can execute what any process has open for writing (ETXTBSY,
//! execve(2)).

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Copies a program, for anybody to execute.
///
/// # Panics
/// When it can't be copied.
pub fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let (from, to) = (from.as_ref(), to.as_ref());
    let status = install().args([from, to]).status().expect("coreutils");
    assert!(status.success(), "copy {} to {}: {status}", from.display(), to.display());
}

/// Writes a program, for anybody to execute, in the place of one that is there.
///
/// # Panics
/// When it can't be written.
pub fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
    let path = path.as_ref();
    let mut child =
        install().arg("/dev/stdin").arg(path).stdin(Stdio::piped()).spawn().expect("coreutils");
    let written = child.stdin.take().expect("a pipe").write_all(contents.as_ref());
    let status = child.wait().expect("a child of ours");
    assert!(written.is_ok() && status.success(), "write {}: {written:?}, {status}", path.display());
}

fn install() -> Command {
    let mut command = Command::new("install");
    command.args(["-m", "755"]);
    command
}
