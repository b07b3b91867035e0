//! Namespaces that somebody else made.

use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::sandbox::{Sandbox, until};

/// A process with a mount namespace of its own, which has what the host has.
struct Holder(Child);

impl Holder {
    fn start() -> Self {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sleep", "1000"]).stdin(Stdio::null());
        let holder = Self(unshare.spawn().unwrap());
        let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
        until("mount namespace", || {
            std::fs::read_link(holder.namespace()).is_ok_and(|link| link != own)
        });
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
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
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
    let after = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(before.lines().count(), after.lines().count(), "nothing of it is mounted here");
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
