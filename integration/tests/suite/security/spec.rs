//! What only a specification can ask for, by the OCI command line.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use integration::canary::Canary;
use integration::daemon::program;
use integration::executable;
use integration::swapper::Swapper;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A root of containers and a bundle, of a test's own.
struct Bundles {
    directory: TempDir,
    spec: Value,
}

impl Bundles {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("bosun-t-").tempdir_in("/tmp").unwrap();
        let rootfs = directory.path().join("bundle/rootfs");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            std::fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        executable::copy("/bin/busybox", rootfs.join("bin/busybox"));
        for name in ["sh", "cat", "ls", "echo", "sleep", "id", "pwd", "touch", "grep"] {
            symlink("busybox", rootfs.join("bin").join(name)).unwrap();
        }
        let group = format!("/{}", directory.path().file_name().unwrap().display());
        let namespaces = ["pid", "mount", "ipc", "uts", "network"];
        let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({"type": kind})).collect();
        let spec = json!({
            "ociVersion": "1.2.0",
            "process": {
                "user": {"uid": 0, "gid": 0}, "args": ["sh"], "env": ["PATH=/bin"], "cwd": "/",
            },
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            ],
            "linux": {
                "cgroupsPath": group,
                "namespaces": namespaces,
            },
        });
        Self { directory, spec }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn rootfs(&self) -> PathBuf {
        self.path().join("bundle/rootfs")
    }

    /// The command line, begun by a shell's words such as `exec 3</; exec`.
    fn command(&self, before: &str, words: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!("{before} exec \"$@\"")).arg("sh");
        command.arg(program("bosun-oci")).arg("--root").arg(self.path().join("state")).args(words);
        command
    }

    fn write(&self, script: &str, change: impl FnOnce(&mut Value)) {
        let mut spec = self.spec.clone();
        spec["process"]["args"] = json!(["/bin/sh", "-c", script]);
        change(&mut spec);
        std::fs::write(self.path().join("bundle/config.json"), spec.to_string()).unwrap();
    }

    fn run_with(
        &self,
        before: &str,
        flags: &[&str],
        script: &str,
        change: impl FnOnce(&mut Value),
    ) -> Output {
        self.write(script, change);
        let bundle = self.path().join("bundle").display().to_string();
        let words = [&["run", "--bundle", &bundle][..], flags, &["one"]].concat();
        let output =
            self.command(before, &words).stdin(std::process::Stdio::null()).output().unwrap();
        let listed = self.command("", &["list", "--quiet"]).output().unwrap();
        assert_eq!(text(&listed.stdout), "", "nothing is left: {output:?}");
        output
    }

    fn run(&self, script: &str, change: impl FnOnce(&mut Value)) -> Output {
        self.run_with("", &[], script, change)
    }
}

impl Drop for Bundles {
    fn drop(&mut self) {
        // There is none unless a test has failed, or is done with it.
        let _ = self.command("", &["delete", "--force", "one"]).output();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

#[track_caller]
fn refused(output: &Output, said: &str) {
    assert!(!output.status.success(), "{said}: {output:?}");
    assert!(text(&output.stderr).contains(said), "no {said:?} in {output:?}");
    assert_eq!(text(&output.stdout), "", "{said}");
}

/// What the kernel of the machine is set to, which no container may change.
fn settings_of_the_machine() -> Vec<String> {
    ["core_pattern", "modprobe", "hotplug", "panic", "domainname", "sem"]
        .map(|name| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default())
        .to_vec()
}

/// CVE-2024-40635, CVE-2026-46680: ids that some integer can't hold.
#[test]
fn an_id_out_of_range_is_refused_by_its_place() {
    let bundles = Bundles::new();
    for id in
        [json!(4_294_967_296_u64), json!(4_294_967_295_u64), json!(-1), json!("0"), json!(1.5)]
    {
        for field in ["uid", "gid"] {
            let output = bundles.run("id", |spec| spec["process"]["user"][field] = id.clone());
            refused(&output, "process.user");
        }
    }
    let output = bundles.run("echo $(id -u) $(id -g)", |spec| {
        spec["process"]["user"] = json!({"uid": 2_147_483_648_u64, "gid": 7});
    });
    assert!(!text(&output.stdout).starts_with("0 "), "{output:?}");
}

/// CVE-2026-41579 (runc), CVE-2026-47766 (crun): device nodes in the rootfs itself, whose `/dev` is a
/// link. Fails when lookups are not confined to the root.
#[test]
fn devices_are_made_behind_no_link() {
    let (bundles, canary) = (Bundles::new(), Canary::new());
    for target in [canary.dir(), canary.up() + "/dir"] {
        let dev = bundles.rootfs().join("dev");
        let _ = std::fs::remove_dir_all(&dev);
        let _ = std::fs::remove_file(&dev);
        symlink(&target, &dev).unwrap();
        let output = bundles.run("echo x > /dev/null && echo made", |spec| {
            spec["mounts"].as_array_mut().unwrap().truncate(1);
        });
        canary.expect_untouched(&target);
        assert_eq!(text(&output.stdout), "made", "{output:?}");
    }
}

/// CVE-2015-3631, CVE-2019-16884: the same as `procfs`, by a specification.
#[test]
fn nothing_is_mounted_over_the_kernels_controls() {
    let bundles = Bundles::new();
    for (kind, destination) in [
        ("tmpfs", "/proc"),
        ("tmpfs", "/proc/self/attr"),
        ("tmpfs", "/proc/sys"),
        ("bind", "/proc"),
        ("bind", "/proc/1"),
        ("bind", "/proc/self/../sys/kernel"),
        ("bind", "//proc/./sys"),
    ] {
        let output = bundles.run("true", |spec| {
            let source = bundles.rootfs().display().to_string();
            let mount = json!({"destination": destination, "type": kind, "source": source, "options": ["bind"]});
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.push(mount);
        });
        refused(&output, "");
    }
}

/// CVE-2019-19921's class: what is bound at `/proc` is looked at itself, for somebody swaps what it is
/// called for a directory of his own all the time. Fails when the name is looked at.
#[test]
fn a_proc_that_is_bound_while_it_is_swapped_is_procfs_or_no_start() {
    let bundles = Bundles::new();
    let shared = bundles.path().join("shared");
    std::fs::create_dir_all(shared.join("fake/self")).unwrap();
    symlink("/proc", shared.join("link")).unwrap();
    let swapper = Swapper::start(&shared, "fake", "link");
    let (mut started, mut refused) = (0, 0);
    for round in 0..100 {
        let output = bundles.run("test -e /proc/self/stat && echo procfs; echo began", |spec| {
            let source = shared.join("link").display().to_string();
            spec["mounts"][0] =
                json!({"destination": "/proc", "type": "bind", "source": source, "options": ["bind"]});
        });
        match output.status.success() {
            true => assert_eq!(text(&output.stdout), "procfs\nbegan", "start {round}"),
            false => assert!(text(&output.stderr).contains("/proc"), "{output:?}"),
        }
        started += u32::from(output.status.success());
        refused += u32::from(!output.status.success());
    }
    assert!(started > 0 && refused > 0, "{started}, {refused}, {} swaps", swapper.swaps());
}

/// CVE-2022-0811: a kernel parameter is one, and of the container's own.
#[test]
fn a_kernel_parameter_is_the_containers_own_and_one_line() {
    let (bundles, before) = (Bundles::new(), settings_of_the_machine());
    for (name, value) in [
        ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/bin/evil #"),
        ("kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/bin/evil"),
        ("net.ipv4.ip_forward", "1\r0"),
        ("kernel.core_pattern", "|/bin/evil"),
        ("net/../kernel/core_pattern", "|/bin/evil"),
        ("net.ipv4.../../kernel.panic", "1"),
        ("kernel.panic", "1"),
        ("vm.drop_caches", "1"),
        ("", "1"),
    ] {
        let output = bundles.run("true", |spec| spec["linux"]["sysctl"] = json!({name: value}));
        assert!(!output.status.success(), "{name} = {value:?}: {output:?}");
        assert_eq!(settings_of_the_machine(), before, "{name} = {value:?}");
    }
    let output = bundles.run("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", |spec| {
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "81"});
    });
    assert_eq!(text(&output.stdout), "81", "{output:?}");
}

/// CVE-2025-52881, CVE-2025-62596 (youki): the container's `/proc` counts processes as its caller
/// does, so that what is written there to its own first process would reach another.
#[test]
fn what_is_written_to_procfs_goes_to_no_other() {
    let bundles = Bundles::new();
    let before = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    // The runtime is process 1 of a namespace of its own here, and so is what it makes, of another.
    let alone = "set -- unshare --pid --fork --mount-proc -- \"$@\";";
    let output = bundles.run_with(alone, &[], "cat /proc/1/oom_score_adj", |spec| {
        spec["mounts"][0] =
            json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]});
        spec["process"]["oomScoreAdj"] = json!(777);
    });
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout), before.trim_end(), "that of the runtime");
}

/// CVE-2023-25809's class: control groups of the host's namespace are as read-only as they were asked
/// for, each of them.
#[test]
fn control_groups_without_a_namespace_of_their_own_are_not_written_to() {
    let bundles = Bundles::new();
    let script = "for group in /sys/fs/cgroup /sys/fs/cgroup/*; do
            busybox mkdir $group/made && echo made $group/made
            for file in $group/cgroup.procs $group/tasks $group/notify_on_release; do
                test -e $file && (echo 0 > $file) && echo wrote $file
            done
        done; echo looked at /sys/fs/cgroup/*";
    let output = bundles.run(script, |spec| {
        let options = ["ro", "nosuid", "noexec", "nodev"];
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}));
    });
    let said = text(&output.stdout);
    assert!(said.starts_with("looked at /sys/fs/cgroup/"), "{output:?}");
    assert!(text(&output.stderr).contains("Read-only"), "{output:?}");
}

/// CVE-2024-21626: descriptors of the caller, a directory of the host among them, as the place to
/// work in and as what leaks.
#[test]
fn a_descriptor_of_the_callers_is_no_way_out() {
    let (bundles, canary) = (Bundles::new(), Canary::new());
    let leak = format!("exec 3<{0} 7<{0} 8<{0};", canary.path().display());
    let list = "for fd in /proc/self/fd/*; do echo $fd; done; ls -l /proc/self/fd";
    let output = bundles.run_with(&leak, &[], list, |_| {});
    assert!(output.status.success(), "{output:?}");
    assert!(!text(&output.stdout).contains("canary"), "{output:?}");
    for number in 3..20 {
        let cwd = format!("/proc/self/fd/{number}");
        for flags in [&[][..], &["--preserve-fds", "1"]] {
            let output = bundles.run_with(&leak, flags, "pwd; ls -d file dir", |spec| {
                spec["process"]["cwd"] = json!(cwd);
            });
            assert!(!text(&output.stdout).contains("file"), "{cwd} {flags:?}: {output:?}");
        }
    }
    canary.expect_untouched("descriptors");
    // Who asks for it gets it.
    let output = bundles.run_with(&leak, &["--preserve-fds", "1"], "ls /proc/self/fd/3/", |_| {});
    assert_eq!(text(&output.stdout), "dir\nfile", "{output:?}");
}

/// CVE-2021-43784: more maps than sixteen bits count the bytes of. They are refused, or all there.
#[test]
fn very_many_id_maps_are_an_error() {
    let bundles = Bundles::new();
    let output = bundles.run("cat /proc/self/uid_map", |spec| {
        let maps: Vec<Value> = (0..5000_u32)
            .map(|number| json!({"containerID": number, "hostID": 100_000 + number, "size": 1}))
            .collect();
        spec["linux"]["uidMappings"] = json!(maps);
        spec["linux"]["gidMappings"] = json!(maps);
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    });
    refused(&output, "linux.");
}

/// CVE-2019-5736 with nobody left to run the program: `create` and `exec` have ended. Fails when the
/// command line does not put its program out of reach.
#[test]
fn the_programs_file_can_not_be_taken() {
    let bundles = Bundles::new();
    let copy = bundles.path().join("runtime");
    executable::copy(program("bosun-oci"), &copy);
    let before = std::fs::read(&copy).unwrap();
    // Sees the runtime as the program of a process, keeps it, and writes to it when that has ended.
    let script = r#"
        echo watching
        while :; do for exe in /proc/[0-9]*/exe; do
            pid=${exe#/proc/}; pid=${pid%/exe}
            test $pid -gt 1 || continue
            case $(cat /proc/$pid/comm 2>/dev/null) in again|runtime) ;; *) continue ;; esac
            kill -STOP $pid 2>/dev/null || continue
            ( exec 4<$exe 2>/dev/null || exit
              kill -KILL $pid
              while test -e /proc/$pid; do :; done
              (echo evil > /proc/self/fd/4) 2>&1 && echo WRITTEN
              echo held )
            kill -KILL $pid 2>/dev/null
        done; done"#;
    bundles.write(script, |_| {});
    executable::write(bundles.rootfs().join("bin/again"), "#!/proc/self/exe\n");
    let runtime = |words: &[&str]| {
        let mut command = Command::new(&copy);
        command.arg("--root").arg(bundles.path().join("state")).args(words);
        command
    };
    let bundle = bundles.path().join("bundle").display().to_string();
    let log = bundles.path().join("log");
    let file = std::fs::File::create(&log).unwrap();
    let mut start = runtime(&["run", "--detach", "--bundle", &bundle, "one"]);
    start.stdin(std::process::Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    assert!(start.status().unwrap().success(), "{}", std::fs::read_to_string(&log).unwrap());
    integration::wait::until_true("the watch to begin", || {
        std::fs::read_to_string(&log).unwrap().contains("watching")
    });
    for _ in 0..200 {
        let null = || std::process::Stdio::null();
        let mut exec = runtime(&["exec", "one", "/bin/again"]);
        let _ = exec.stdin(null()).stdout(null()).stderr(null()).status();
        if std::fs::read_to_string(&log).unwrap().contains("held") {
            break;
        }
    }
    let seen = std::fs::read_to_string(&log).unwrap();
    assert!(std::fs::read(&copy).unwrap() == before && !seen.contains("WRITTEN"), "{seen}");
    assert!(seen.contains("Read-only"), "it got hold of the program: {seen}");
}

/// What the runtime itself is in, found by a path: neither its parameters nor its names are the
/// container's to set. runc: "not allowed in host network namespace". Fails when the path alone counts.
#[test]
fn a_namespace_of_the_hosts_by_path_is_not_the_containers_own() {
    let bundles = Bundles::new();
    // The caller's stand for the machine's, and are looked at again afterwards.
    let alone = "set -- unshare --net --uts --ipc -- sh -c '\"$@\"; busybox cat \
        /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax /proc/sys/kernel/domainname >&2' sh \"$@\";";
    for (kind, name, path, value) in [
        ("network", "net", "net.ipv4.ip_unprivileged_port_start", "4711"),
        ("ipc", "ipc", "kernel.msgmax", "4711"),
        ("uts", "uts", "kernel.domainname", "4711"),
        ("uts", "uts", "hostname", "4711"),
        ("uts", "uts", "domainname", "4711"),
    ] {
        let output = bundles.run_with(alone, &[], "echo ran", |spec| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != kind);
            namespaces.push(json!({"type": kind, "path": format!("/proc/self/ns/{name}")}));
            match path.contains('.') {
                true => spec["linux"]["sysctl"] = json!({path: value}),
                false => spec[path] = json!(value),
            }
        });
        assert_eq!(text(&output.stdout), "", "{path}: {output:?}");
        let said = text(&output.stderr);
        assert!(said.contains("it would"), "{path}: {said}");
        let settings = said.lines().rev().take(3);
        assert!(settings.into_iter().all(|line| line != value), "{path}: {said}");
    }
}

/// Device nodes in a directory of the host that is bound at `/dev`, however that is written. Fails when
/// the text is compared.
#[test]
fn devices_are_not_made_in_a_directory_of_the_hosts() {
    let (bundles, canary) = (Bundles::new(), Canary::new());
    for destination in ["/dev", "/dev/", "//dev", "/./dev/."] {
        let _ = bundles.run("ls /dev", |spec| {
            let source = canary.dir();
            spec["mounts"][1] = json!({
                "destination": destination, "type": "bind", "source": source, "options": ["rbind"],
            });
        });
        canary.expect_untouched(destination);
    }
}
