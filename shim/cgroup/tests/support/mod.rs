//! Groups below a prefix of a test's own, and processes in them.
#![allow(dead_code, reason = "each test program uses a part")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shim_cgroup::{Cgroup, Layout, list, prune};

/// A prefix that nobody else has, removed with everything below it at the end of a test.
pub(crate) struct Prefix {
    pub(crate) layout: Layout,
    pub(crate) name: String,
}

impl Prefix {
    pub(crate) fn new(test: &str) -> Self {
        let name = format!("bosun-test-cgroup-{test}-{}", std::process::id());
        Self { layout: Layout::detect().unwrap(), name }
    }

    pub(crate) fn group(&self, id: &str) -> Cgroup {
        Cgroup::new(&self.layout, &format!("{}/ns/{id}", self.name)).unwrap()
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        for path in list(&self.layout, &self.name).unwrap() {
            let group = Cgroup::new(&self.layout, &path).unwrap();
            let _ = group.kill(soon());
            let _ = group.remove(soon());
        }
        prune(&self.layout, &self.name).unwrap();
    }
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// A shell in the group that runs `script` once it is a member, and is killed with the test.
pub(crate) struct Member(pub(crate) Child);

impl Member {
    pub(crate) fn new(group: &Cgroup, script: &str) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        group.join(child.id().try_into().unwrap()).unwrap();
        drop(child.stdin.take());
        Self(child)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the group's file of that name says, in whichever hierarchy has it.
pub(crate) fn file(group: &Cgroup, name: &str) -> String {
    let found = group.paths().iter().find_map(|path| std::fs::read_to_string(path.join(name)).ok());
    found.unwrap_or_else(|| panic!("{name} is nowhere")).trim().to_owned()
}
