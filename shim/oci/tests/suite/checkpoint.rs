//! Containers that criu writes down and that go on from there. Where criu can't work with the kernel
//! (`criu check`), what is said of it is tested instead; the virtual machine's kernel is one where it can.

use std::process::{Command, Stdio};

use crate::sandbox::{Sandbox, until};

/// Counts in a variable, so that one that begins again would begin with 1.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i >/count; sleep 0.1; done";

/// Whether criu and this kernel fit each other.
fn criu_works() -> bool {
    let mut check = Command::new("criu");
    check.arg("check").stderr(Stdio::null()).stdout(Stdio::null());
    let works = check.status().is_ok_and(|status| status.success());
    if !works {
        eprintln!("skipped: criu can't work with this kernel (`criu check`)");
    }
    works
}

fn counting() -> Sandbox {
    let mut sandbox = Sandbox::new(COUNT);
    sandbox.set("/root/readonly", false.into());
    sandbox.on("run", &["--detach", "--bundle", &sandbox.bundle()]).ok();
    until("a count of 5", || count(&sandbox) >= 5);
    sandbox
}

fn count(sandbox: &Sandbox) -> u64 {
    let text = std::fs::read_to_string(sandbox.path("bundle/rootfs/count")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn restore(sandbox: &Sandbox) {
    let images = sandbox.text("images");
    let pid_file = sandbox.text("pid");
    let flags = ["--detach", "--bundle", &sandbox.bundle(), "--image-path", &images];
    sandbox.on("restore", &[&flags[..], &["--pid-file", &pid_file]].concat()).ok();
    let pid = std::fs::read_to_string(pid_file).unwrap();
    assert_eq!(sandbox.state()["pid"].to_string(), pid);
}

#[test]
fn a_container_goes_on_where_it_was_written_down() {
    if !criu_works() {
        return;
    }
    let sandbox = counting();
    sandbox.on("checkpoint", &["--image-path", &sandbox.text("images")]).ok();
    assert!(sandbox.is_gone(), "it ends with its checkpoint");
    let before = count(&sandbox);
    restore(&sandbox);
    sandbox.wait_for("running");
    until("a higher count", || count(&sandbox) > before);
    // It is as it was: in its group, with its mounts, for others to join.
    let inside =
        sandbox.exec(&[], &["sh", "-c", "echo $$; cat /proc/1/cgroup /proc/self/mounts"]).ok();
    let words =
        ["0::/\n", " /proc/kcore devtmpfs ro", " /sys/fs/cgroup cgroup2 ro", " /dev/shm tmpfs"];
    for word in words {
        assert!(inside.contains(word), "{word:?}: {inside}");
    }
    assert_eq!(sandbox.groups().len(), 1);
    sandbox.oci(&["kill", &sandbox.id, "KILL"]).ok();
    sandbox.wait_for("stopped");
    sandbox.on("delete", &[]).ok();
    assert!(sandbox.is_gone());
}

#[test]
fn one_that_is_left_running_or_paused_stays_so() {
    if !criu_works() {
        return;
    }
    let sandbox = counting();
    let images = sandbox.text("images");
    sandbox.on("checkpoint", &["--image-path", &images, "--leave-running"]).ok();
    let before = count(&sandbox);
    until("a higher count", || count(&sandbox) > before);
    sandbox.on("pause", &[]).ok();
    let paused = sandbox.text("paused");
    sandbox.on("checkpoint", &["--image-path", &paused, "--leave-running"]).ok();
    assert_eq!(sandbox.status(), "paused");
    sandbox.on("resume", &[]).ok();
    // What comes from a checkpoint ends with the command that looks after it, with its own code.
    sandbox.on("delete", &["--force"]).ok();
    let mut ending = Sandbox::new("read line </wait; exit 7");
    ending.set("/root/readonly", false.into());
    let wait = ending.path("bundle/rootfs/wait");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &wait,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let writer = rustix::fs::open(&wait, rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty());
    ending.on("run", &["--detach", "--bundle", &ending.bundle()]).ok();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let images = ending.text("images");
    ending.on("checkpoint", &["--image-path", &images]).ok();
    let bundle = ending.bundle();
    let words = ["restore", "--bundle", &bundle, "--image-path", &images, &ending.id];
    // As for the one that was written down, its output is a file of the host's.
    let output = std::fs::File::create(ending.path("output")).unwrap();
    let mut command = ending.command(&words);
    command.stdout(output.try_clone().unwrap()).stderr(output);
    let mut child = command.spawn().unwrap();
    let record = ending.path("state").join(&ending.id).join("state.json");
    until("a container", || record.exists());
    ending.wait_for("running");
    rustix::io::write(writer.unwrap(), b"go\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert!(ending.is_gone());
}

#[test]
fn without_criu_it_is_named_and_the_container_goes_on() {
    let sandbox = Sandbox::running("exec sleep 1000");
    let images = sandbox.text("images");
    let mut checkpoint = sandbox.command(&["checkpoint", "--image-path", &images, &sandbox.id]);
    checkpoint.env("PATH", "/nowhere");
    let said = sandbox.finish(checkpoint).err();
    assert!(said.contains("checkpoint through criu: criu is not installed"), "{said}");
    assert_eq!(sandbox.status(), "running");

    let other = Sandbox::new("exec sleep 1000");
    let bundle = other.bundle();
    std::fs::create_dir(other.path("images")).unwrap();
    let images = other.text("images");
    let words = ["restore", "--detach", "--bundle", &bundle, "--image-path", &images, &other.id];
    let mut restore = other.command(&words);
    restore.env("PATH", "/nowhere");
    let said = other.finish(restore).err();
    assert!(said.contains("restore through criu: criu is not installed"), "{said}");
    assert!(other.is_gone());
}

#[test]
fn where_criu_can_not_it_says_why_and_the_container_goes_on() {
    let installed = Command::new("criu").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !installed || criu_works() {
        return;
    }
    let sandbox = Sandbox::running("exec sleep 1000");
    let said = sandbox.on("checkpoint", &["--image-path", &sandbox.text("images")]).err();
    assert!(said.contains("checkpoint through criu: Error ("), "{said}");
    assert!(said.contains("`criu check`"), "{said}");
    assert_eq!(sandbox.status(), "running");
    let left = std::fs::read_dir(sandbox.path("images")).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains(".json")), "{left:?}");
}

#[test]
fn what_can_not_be_honoured_is_refused_by_name() {
    let sandbox = Sandbox::running("exec sleep 1000");
    for (flags, name) in [
        (&["--lazy-pages"][..], "--lazy-pages"),
        (&["--page-server", "127.0.0.1:1"], "--page-server"),
        (&["--empty-ns", "pid"], "--empty-ns"),
        (&["--parent-path", "../no-such"], "--parent-path"),
    ] {
        let said = sandbox.on("checkpoint", flags).err();
        assert!(said.contains(name), "{said}");
    }
    assert_eq!(sandbox.status(), "running");
}
