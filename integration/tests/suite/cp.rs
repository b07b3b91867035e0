//! `cp`: docker's rules for what goes where, and links that lead nowhere else, whatever the
//! container does meanwhile.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use integration::archive::load;
use integration::daemon::Daemon;
use integration::image::{Recipe, noise};
use integration::tar::{self, Entry, Kind};

const IMAGE: &str = "test/cp:1";

/// A daemon with container `one`, running or only created.
fn prepared(running: bool) -> Daemon {
    let daemon = Daemon::start();
    let files = [
        Entry::directory("dir").mode(0o750).owner(5, 6),
        Entry::file("dir/file", "in the image\n").mode(0o640).owner(7, 8),
        Entry::symlink("dir/link", "file"),
        Entry::symlink("to-dir", "dir"),
        Entry::symlink("out", "/../../../../../../tmp"),
    ];
    load(&daemon, &[(IMAGE, &Recipe::busybox().files(&files).image())]);
    let verb = if running { "run -d" } else { "create" };
    daemon.ctl(&format!("{verb} --name one --net none {IMAGE} sleep 600")).ok();
    daemon
}

/// A directory on the host to copy from and to.
fn here(daemon: &Daemon) -> PathBuf {
    let here = daemon.scratch().join("here");
    std::fs::create_dir_all(here.join("tree/sub")).unwrap();
    std::fs::write(here.join("tree/sub/file"), "from the host\n").unwrap();
    std::fs::write(here.join("file"), "a file\n").unwrap();
    here
}

fn both(check: impl Fn(&Daemon, &Path)) {
    for running in [true, false] {
        let daemon = prepared(running);
        let here = here(&daemon);
        check(&daemon, &here);
    }
}

/// What is in the container's file, running or not.
fn content(daemon: &Daemon, path: &str) -> String {
    let output = daemon.client().command(&format!("cp -L one:{path} -")).output().unwrap();
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    match tar::read(&output.stdout).into_iter().next().map(|entry| entry.kind) {
        Some(Kind::File(data)) => String::from_utf8(data).unwrap(),
        other => panic!("{path}: {other:?}"),
    }
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_file_goes_out() {
    both(|daemon, here| {
        let to = |name: &str| here.join(name).display().to_string();
        daemon.ctl(&format!("cp one:/dir/file {}", to("new"))).ok();
        assert_eq!(read(here.join("new")), "in the image\n");
        assert_eq!(here.join("new").metadata().unwrap().permissions().mode() & 0o777, 0o640);
        daemon.ctl(&format!("cp one:/dir/file {}", to(""))).ok();
        assert_eq!(read(here.join("file")), "in the image\n", "over the one that was there");
        daemon.ctl(&format!("cp one:dir/file {}", to("tree"))).ok();
        assert_eq!(read(here.join("tree/file")), "in the image\n", "relative to the root");
        daemon.ctl(&format!("cp one:/dir/file {}/", to("missing"))).fails(1, &["missing"]);
        daemon.ctl(&format!("cp one:/no/such {}", to("x"))).fails(1, &["/no/such"]);
        daemon.ctl(&format!("cp two:/dir/file {}", to("x"))).fails(1, &["two"]);
    });
}

#[test]
fn a_directory_goes_out() {
    both(|daemon, here| {
        let to = |name: &str| here.join(name).display().to_string();
        daemon.ctl(&format!("cp one:/dir {}", to("new"))).ok();
        assert_eq!(read(here.join("new/file")), "in the image\n");
        assert_eq!(std::fs::read_link(here.join("new/link")).unwrap(), Path::new("file"));
        daemon.ctl(&format!("cp one:/dir {}", to("tree"))).ok();
        assert_eq!(read(here.join("tree/dir/file")), "in the image\n");
        daemon.ctl(&format!("cp one:/dir/. {}", to("tree"))).ok();
        assert_eq!(read(here.join("tree/file")), "in the image\n");
        daemon.ctl(&format!("cp one:/dir {}", to("file"))).fails(1, &["file"]);
        assert_eq!(read(here.join("file")), "a file\n");
    });
}

#[test]
fn links_are_copied_or_followed() {
    both(|daemon, here| {
        let to = |name: &str| here.join(name).display().to_string();
        daemon.ctl(&format!("cp one:/dir/link {}", to("link"))).ok();
        assert!(here.join("link").is_symlink());
        daemon.ctl(&format!("cp -L one:/dir/link {}", to("followed"))).ok();
        assert_eq!(read(here.join("followed")), "in the image\n");
        daemon.ctl(&format!("cp one:/to-dir/file {}", to("through"))).ok();
        assert_eq!(read(here.join("through")), "in the image\n");
    });
}

#[test]
fn a_file_goes_in() {
    both(|daemon, here| {
        let from = here.join("file").display().to_string();
        daemon.ctl(&format!("cp {from} one:/dir")).ok();
        assert_eq!(content(daemon, "/dir/file"), "a file\n");
        daemon.ctl(&format!("cp {from} one:/tmp/new")).ok();
        assert_eq!(content(daemon, "/tmp/new"), "a file\n");
        daemon.ctl(&format!("cp {from} one:/to-dir/through")).ok();
        assert_eq!(content(daemon, "/dir/through"), "a file\n");
        daemon.ctl(&format!("cp {from} one:/missing/")).fails(1, &["/missing"]);
        daemon.ctl(&format!("cp {from} one:/missing/new")).fails(1, &["/missing"]);
        daemon.ctl(&format!("cp {}/no-such one:/tmp", here.display())).fails(1, &["no-such"]);
    });
}

#[test]
fn a_directory_goes_in() {
    both(|daemon, here| {
        let from = here.join("tree").display().to_string();
        daemon.ctl(&format!("cp {from} one:/tmp")).ok();
        assert_eq!(content(daemon, "/tmp/tree/sub/file"), "from the host\n");
        daemon.ctl(&format!("cp {from} one:/new")).ok();
        assert_eq!(content(daemon, "/new/sub/file"), "from the host\n");
        daemon.ctl(&format!("cp {from}/. one:/dir")).ok();
        assert_eq!(content(daemon, "/dir/sub/file"), "from the host\n");
        daemon.ctl(&format!("cp {from} one:/etc/passwd")).fails(1, &["/etc/passwd"]);
        assert!(content(daemon, "/etc/passwd").starts_with("root:"));
    });
}

#[test]
fn owners_are_roots_or_kept() {
    both(|daemon, here| {
        let from = here.join("file");
        std::os::unix::fs::chown(&from, Some(1234), Some(5678)).unwrap();
        let owner = |path: &str| {
            let output = daemon.client().command(&format!("cp one:{path} -")).output().unwrap();
            let entry = tar::read(&output.stdout).remove(0);
            (entry.uid, entry.gid)
        };
        daemon.ctl(&format!("cp {} one:/tmp/plain", from.display())).ok();
        assert_eq!(owner("/tmp/plain"), (0, 0));
        daemon.ctl(&format!("cp -a {} one:/tmp/kept", from.display())).ok();
        assert_eq!(owner("/tmp/kept"), (1234, 5678));
        daemon.ctl(&format!("cp -a one:/dir/file {}", here.join("out").display())).ok();
        let data = here.join("out").metadata().unwrap();
        assert_eq!((data.uid(), data.gid()), (7, 8));
    });
}

#[test]
fn a_tar_goes_in_and_out() {
    both(|daemon, _| {
        let entries = [
            Entry::file("a", "1").owner(3, 4),
            Entry::symlink("b", "a"),
            Entry::directory("c"),
            Entry::file("c/d", "2"),
        ];
        let mut child = daemon
            .client()
            .command("cp - one:/tmp")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &tar::tar(&entries)).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(content(daemon, "/tmp/c/d"), "2");
        let output = daemon.client().command("cp one:/tmp -").output().unwrap();
        let names: Vec<String> =
            tar::read(&output.stdout).into_iter().map(|entry| entry.path).collect();
        for name in ["tmp/", "tmp/a", "tmp/b", "tmp/c/d"] {
            assert!(names.iter().any(|other| other == name), "{name} in {names:?}");
        }
    });
}

#[test]
fn between_containers_and_between_hosts_is_refused() {
    let daemon = prepared(false);
    daemon.ctl("cp one:/dir/file one:/tmp").fails(1, &["container"]);
    daemon.ctl("cp /etc/passwd /tmp/x").fails(1, &["container"]);
}

/// A name with a colon in it is the host's when it says so.
#[test]
fn a_path_with_a_colon() {
    let daemon = prepared(false);
    let here = here(&daemon);
    let odd = here.join("one:file");
    std::fs::write(&odd, "odd").unwrap();
    daemon.ctl(&format!("cp {} one:/tmp/odd", odd.display())).ok();
    assert_eq!(content(&daemon, "/tmp/odd"), "odd");
}

#[test]
fn mounts_are_seen_in_a_running_container() {
    let daemon = Daemon::start();
    let bound = daemon.scratch().join("bound");
    std::fs::create_dir(&bound).unwrap();
    std::fs::write(bound.join("file"), "bound").unwrap();
    load(&daemon, &[(IMAGE, &Recipe::busybox().image())]);
    daemon
        .ctl(&format!(
            "run -d --name one --net none -v {}:/bound {IMAGE} sleep 600",
            bound.display()
        ))
        .ok();
    assert_eq!(content(&daemon, "/bound/file"), "bound");
    daemon.ctl(&format!("cp {} one:/bound/new", bound.join("file").display())).ok();
    assert_eq!(read(bound.join("new")), "bound");
    daemon.ctl("rm -f one").ok();
    daemon
        .ctl(&format!(
            "run -d --name ro --net none -v {}:/bound:ro {IMAGE} sleep 600",
            bound.display()
        ))
        .ok();
    daemon
        .ctl(&format!("cp {} ro:/bound/other", bound.join("file").display()))
        .fails(1, &["/bound"]);
    assert!(!bound.join("other").exists());
    daemon.ctl("rm -f ro").ok();
    daemon.ctl(&format!("run -d --name all --read-only --net none {IMAGE} sleep 600")).ok();
    daemon.ctl(&format!("cp {} all:/tmp/x", bound.join("file").display())).fails(1, &["Read-only"]);
}

/// Links that are there all the time.
#[test]
fn links_in_a_container_lead_to_its_own_files() {
    both(|daemon, here| {
        let secret = here.join("secret");
        std::fs::write(&secret, "of the host").unwrap();
        let mut entries = vec![
            Entry::symlink("absolute", secret.to_str().unwrap()),
            Entry::symlink(
                "relative",
                &format!("{}{}", "../".repeat(30), secret.strip_prefix("/").unwrap().display()),
            ),
            Entry::symlink("to-here", here.to_str().unwrap()),
            Entry::symlink("magic", "/proc/self/root"),
            Entry::symlink("pid1", "/proc/1/root"),
        ];
        entries.push(Entry::symlink("ring", "ring"));
        let mut child = daemon
            .client()
            .command("cp - one:/tmp")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &tar::tar(&entries)).unwrap();
        child.wait().unwrap();
        for path in ["/tmp/absolute", "/tmp/relative", "/tmp/to-here/secret", "/tmp/ring"] {
            let _ = daemon.ctl(&format!("cp -L one:{path} {}", here.join("got").display()));
            assert!(!here.join("got").exists(), "{path}");
        }
        for path in ["/tmp/magic", "/tmp/pid1"] {
            let _ = daemon.ctl(&format!(
                "cp -L one:{path}{} {}",
                secret.display(),
                here.join("got").display()
            ));
            assert!(!here.join("got").exists(), "{path}");
        }
        let evil = here.join("file").display().to_string();
        for path in ["/tmp/to-here/evil", "/tmp/absolute", "/tmp/relative", "/out/bosun-evil"] {
            let _ = daemon.ctl(&format!("cp {evil} one:{path}"));
        }
        assert_eq!(read(&secret), "of the host");
        assert!(!here.join("evil").exists() && !Path::new("/tmp/bosun-evil").exists());
    });
}

/// Links on the host's side of a copy out of a container: they are the container's, and lead nowhere.
#[test]
fn what_comes_out_writes_only_below_its_destination() {
    both(|daemon, here| {
        let target = here.join("target");
        std::fs::create_dir(&target).unwrap();
        let entries = [
            Entry::directory("bad"),
            Entry::symlink("bad/link", target.to_str().unwrap()),
            Entry::file("bad/z", "z"),
        ];
        let mut child = daemon
            .client()
            .command("cp - one:/tmp")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &tar::tar(&entries)).unwrap();
        child.wait().unwrap();
        // The second time there is a link where a directory would be.
        for _ in 0..2 {
            let _ = daemon.ctl(&format!("cp one:/tmp/bad {}", here.display()));
        }
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
        symlink(&target, here.join("dir")).unwrap();
        let _ = daemon.ctl(&format!("cp one:/dir/. {}", here.join("dir").display()));
    });
}

/// The container exchanges a directory and a link as fast as it can.
/// CVE-2018-15664, CVE-2019-10152, CVE-2022-4123, CVE-2026-41568, CVE-2026-42306.
#[test]
fn a_swap_while_copying_leads_nowhere() {
    let daemon = prepared(true);
    let here = here(&daemon);
    let target = here.join("target");
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("secret"), "of the host").unwrap();
    let script = format!(
        "mkdir -p /a/real; echo inside > /a/real/secret; ln -s {} /a/evil; cd /a; cp -a real here; touch ready; while :; do mv here x; mv evil here; mv here evil; mv x here; done",
        target.display()
    );
    daemon.ctl(&format!("exec -d one sh -c '{script}'")).ok();
    integration::wait::until_true("the swapping to begin", || {
        daemon.ctl("exec one test -e /a/ready").code == Some(0)
    });
    let source = here.join("file").display().to_string();
    let got = here.join("got");
    for round in 0..150 {
        let _ = daemon.ctl(&format!("cp {source} one:/a/here/new-{round}"));
        let _ = daemon.ctl(&format!("cp one:/a/here/secret {}", got.display()));
        if got.exists() {
            assert_eq!(read(&got), "inside\n");
            std::fs::remove_file(&got).unwrap();
        }
    }
    let names: Vec<_> =
        std::fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["secret"], "something was written outside");
}

#[test]
fn a_large_file_goes_both_ways() {
    both(|daemon, here| {
        let large = noise(7, 20 << 20);
        std::fs::write(here.join("large"), &large).unwrap();
        let memory = daemon.peak_memory();
        daemon.ctl(&format!("cp {} one:/tmp", here.join("large").display())).ok();
        daemon.ctl(&format!("cp one:/tmp/large {}", here.join("back").display())).ok();
        assert!(std::fs::read(here.join("back")).unwrap() == large);
        assert!(daemon.peak_memory() < memory + 32 * 1024, "{} kB", daemon.peak_memory());
    });
}
