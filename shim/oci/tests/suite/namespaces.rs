//! Namespaces that somebody else made.

use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::sandbox::{Sandbox, until};

/// A process with a mount namespace of its own, which has what the host has.
struct Holder(Child);

impl Holder {
    fn start() -> Self {
        Self::after("true")
    }

    /// One in which that was done before.
    fn after(script: &str) -> Self {
        let mut unshare = Command::new("unshare");
        let script = format!("{script}; echo; exec sleep 1000 >&-");
        unshare.args(["--mount", "sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut holder = Self(unshare.spawn().unwrap());
        let mut said = holder.0.stdout.take().unwrap();
        assert_eq!(std::io::Read::read(&mut said, &mut [0]).unwrap(), 1, "it ended");
        holder
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/mnt", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn join(sandbox: &mut Sandbox, path: &str) {
    let mut namespaces = sandbox.config["linux"]["namespaces"].clone();
    for namespace in namespaces.as_array_mut().unwrap() {
        if namespace["type"] == "mount" {
            namespace["path"] = json!(path);
        }
    }
    sandbox.set("/linux/namespaces", namespaces);
}

#[test]
fn a_mount_namespace_is_joined_and_set_up_as_a_new_one() {
    let holder = Holder::start();
    let script = "readlink /proc/self/ns/mnt; ls /; cat /proc/self/cgroup >/dev/null; cat /proc/kcore; \
                  ls -d /sys/fs/cgroup; touch /written; exec sleep 1000";
    let mut sandbox = Sandbox::new(script);
    sandbox.set("/root/readonly", json!(true));
    join(&mut sandbox, &holder.namespace());
    let marker = sandbox.text("hooked");
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("cat > {marker}")]}]);
    sandbox.set("/hooks", json!({"createContainer": hook}));
    let mut run = sandbox.command(&["run", "--detach", "--bundle", &sandbox.bundle(), &sandbox.id]);
    let output = std::fs::File::create(sandbox.path("output")).unwrap();
    run.stdout(output.try_clone().unwrap()).stderr(output);
    let code = run.status().unwrap();
    let said = || std::fs::read_to_string(sandbox.path("output")).unwrap();
    assert!(code.success(), "{}", said());
    until("output", || said().contains("written"));
    let text = said();
    let expected = std::fs::read_link(holder.namespace()).unwrap();
    assert!(text.starts_with(expected.to_str().unwrap()), "{text}");
    assert!(text.contains("\nbin\n") && !text.contains("\nboot\n"), "the rootfs: {text}");
    assert!(text.contains("/sys/fs/cgroup\n") && text.contains("Read-only file system"), "{text}");
    assert!(std::path::Path::new(&marker).exists(), "hooks find their way");
    let further = sandbox.exec(&[], &["readlink", "/proc/self/ns/mnt"]).ok();
    assert_eq!(further.trim(), expected.to_str().unwrap());
    sandbox.on("delete", &["--force"]).ok();
    assert!(sandbox.is_gone());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&sandbox.text("")), "something of it is mounted here: {mounts}");
}

/// What lies at its /proc is anybody's.
#[test]
fn what_a_joined_mount_namespace_has_at_proc_is_not_used() {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let holder = Holder::after("mount -t tmpfs nothing /proc");
    let mut sandbox = Sandbox::new("stat -c %a /dev/zero");
    let path = sandbox.path("bundle/rootfs/dev");
    std::fs::create_dir_all(&path).unwrap();
    let mode = Mode::from_raw_mode(0o600);
    mknodat(CWD, path.join("zero"), FileType::CharacterDevice, mode, makedev(1, 5)).unwrap();
    let mut mounts = sandbox.config["mounts"].clone();
    mounts.as_array_mut().unwrap().retain(|mount| {
        let destination = mount["destination"].as_str().unwrap_or_default();
        !destination.starts_with("/dev")
    });
    sandbox.set("/mounts", mounts);
    let zero = json!({"path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640});
    sandbox.set("/linux/devices", json!([zero]));
    join(&mut sandbox, &holder.namespace());
    assert_eq!(sandbox.run().ok(), "640\n");
}

/// Its root would become the container's: for everybody.
#[test]
fn the_hosts_mount_namespace_is_refused() {
    let mut sandbox = Sandbox::new("true");
    for path in ["/proc/self/ns/mnt", &format!("/proc/{}/ns/mnt", std::process::id())] {
        join(&mut sandbox, path);
        let error = sandbox.create().err();
        assert!(error.contains(path) && error.contains("the host's mount namespace"), "{error}");
        assert!(error.contains("linux.namespaces["), "{error}");
        assert!(sandbox.is_gone());
    }
}
