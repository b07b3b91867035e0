//! Network namespaces of a test's own, so that its bridges, ports and tables meet nobody's.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A named namespace, as `ip netns` makes it, deleted with this value.
#[derive(Debug)]
pub struct NetNs {
    name: String,
}

impl NetNs {
    /// Makes the namespace and brings its loopback up.
    ///
    /// # Panics
    /// When `ip` can't: the tests need root and iproute2.
    #[must_use]
    pub fn new(name: &str) -> Self {
        run(Command::new("ip").args(["netns", "add", name]));
        let this = Self { name: name.to_owned() };
        run(Command::new("ip").args(["-n", name, "link", "set", "lo", "up"]));
        this
    }

    /// The file that keeps it alive.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside. Only the network is another: mounts stay the host's, which
    /// `ip netns exec` would change.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// The output of a command inside.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn output(&self, words: &str) -> String {
        let mut words = words.split_whitespace();
        let program = words.next().expect("a program to run");
        run(self.command(program).args(words))
    }

    /// Runs `work` on a thread inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.path(), work)
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        // A failure shows in the leak check over the whole run.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// Runs `work` on a thread in the network namespace of a file, such as `/proc/PID/ns/net`.
///
/// # Panics
/// When the file can't be opened or joined, or when `work` panics.
pub fn inside<T: Send>(namespace: &Path, work: impl FnOnce() -> T + Send) -> T {
    let file =
        File::open(namespace).unwrap_or_else(|error| panic!("{}: {error}", namespace.display()));
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("setns into a network namespace");
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Standard output of a command that has to succeed.
///
/// # Panics
/// When it doesn't, with its standard error.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
