//! Copies between a container and here: docker's rules, seen from outside.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::ctl::{Ran, command, fed, ran};
use crate::daemon::files::{DIRECTORY, FILE, Inside, LINK};
use crate::daemon::{Daemon, Fake, running, start};

/// A tar of what is at `name` in a directory.
fn tar(directory: &Path, name: &str) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(directory).args(["-c", name]);
    tar.output().unwrap().stdout
}

fn listed(archive: &[u8]) -> Vec<String> {
    let mut tar = Command::new("tar");
    tar.arg("-t").stdout(Stdio::piped());
    fed(tar, archive).out.lines().map(|line| line.trim_end_matches('/').to_owned()).collect()
}

/// A container with a file, a directory, and a link to each.
fn with_files(dir: &Path) -> Fake {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("etc/sub")).unwrap();
    fs::write(tree.join("etc/sub/deep"), "deep").unwrap();
    fs::write(tree.join("motd"), "hello").unwrap();
    let inside =
        |mode, leads_to: &str, archive| Inside { mode, leads_to: leads_to.to_owned(), archive };
    let fake = Fake::default();
    let mut book = fake.book();
    book.containers.push(running("web"));
    let root = inside(DIRECTORY, "", Vec::new());
    let to_file = inside(LINK, "../motd", Vec::new());
    for (path, file) in [
        ("/", root.clone()),
        ("/srv", root),
        ("/etc", inside(DIRECTORY, "", tar(&tree, "etc"))),
        ("/motd", inside(FILE, "", tar(&tree, "motd"))),
        ("/srv/link", to_file),
        ("/srv/../motd", inside(FILE, "", Vec::new())),
    ] {
        book.inside.insert(path.to_owned(), file);
    }
    drop(book);
    fake
}

fn cp(daemon: &Daemon, here: &Path, words: &str) -> Ran {
    let mut ctl = command(&daemon.socket, &format!("cp {words}"));
    ctl.current_dir(here);
    ran(ctl)
}

#[test]
fn out_of_a_container() {
    for (words, want) in [
        ("web:/motd .", &["motd"][..]),
        ("web:/motd ./", &["motd"]),
        ("web:motd new", &["new"]),
        ("web:/motd there", &["there/motd"]),
        ("web:/etc there", &["there/etc/sub/deep"]),
        ("web:/etc/ there", &["there/etc/sub/deep"]),
        ("web:/etc/. there", &["there/sub/deep"]),
        ("web:/etc new", &["new/sub/deep"]),
        ("web:/etc/. new", &["new/sub/deep"]),
        ("web:/etc new/", &["new/sub/deep"]),
        ("web:/motd over", &["over"]),
        ("-a web:/motd to-over", &["over"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let fake = with_files(dir.path());
        let (daemon, _socket) = start(&fake);
        let here = dir.path().join("here");
        fs::create_dir_all(here.join("there")).unwrap();
        fs::write(here.join("over"), "old").unwrap();
        std::os::unix::fs::symlink("over", here.join("to-over")).unwrap();
        let copied = cp(&daemon, &here, words);
        assert_eq!(copied.code, 0, "{words}: {}", copied.err);
        assert!(copied.err.starts_with("Successfully copied "), "{words}: {}", copied.err);
        for path in want {
            let text = fs::read_to_string(here.join(path)).unwrap();
            assert!(text == "hello" || text == "deep", "{words}: {path} has {text:?}");
        }
        assert!(here.join("to-over").is_symlink());
    }
}

#[test]
fn what_docker_refuses_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fake = with_files(dir.path());
    let (daemon, _socket) = start(&fake);
    let here = dir.path().join("here");
    fs::create_dir(&here).unwrap();
    fs::write(here.join("file"), "old").unwrap();
    for (words, err) in [
        ("file other", "neither side is in a container"),
        ("web:/motd web:/x", "both sides are in containers"),
        ("web:/etc file", "cannot copy a directory to"),
        ("web:/motd none/", "there is no directory"),
        ("web:/motd none/x", "/none"),
        ("web:/motd/ .", "is not a directory"),
        ("web:/gone .", "no such path: /gone"),
        ("none:/motd .", "no such container: none"),
        ("gone web:/srv", "cannot read"),
        ("file web:/motd/", "is not a directory"),
        ("file web:/none/", "there is no directory /none/"),
        ("../here web:/motd", "cannot copy a directory to /motd"),
        ("- web:/motd", "a tar from stdin is unpacked in one"),
    ] {
        let refused = cp(&daemon, &here, words);
        assert_eq!(refused.code, 1, "{words}: {}", refused.err);
        assert!(refused.err.contains(err), "{words}: {}", refused.err);
    }
    assert_eq!(fs::read_to_string(here.join("file")).unwrap(), "old");
    assert_eq!(fs::read_dir(&here).unwrap().count(), 1);
    assert!(fake.book().archives.is_empty());
}

#[test]
fn into_a_container() {
    let dir = tempfile::tempdir().unwrap();
    let fake = with_files(dir.path());
    let (daemon, _socket) = start(&fake);
    let here = dir.path().join("here");
    fs::create_dir_all(here.join("d/sub")).unwrap();
    fs::write(here.join("f"), "x").unwrap();
    for (words, call, names) in [
        ("f web:/srv", "/srv true false", &["f"][..]),
        ("f web:/srv/new", "/srv true false", &["new"]),
        ("f web:/motd", "/ true false", &["motd"]),
        ("-a f web:/srv/link", "/ true true", &["motd"]),
        ("d web:/srv", "/srv true false", &["d", "d/sub"]),
        ("d/. web:/srv", "/srv true false", &["sub"]),
        (". web:/srv", "/srv true false", &["d", "d/sub", "f"]),
        ("d web:/srv/new", "/srv true false", &["new", "new/sub"]),
        ("d/. web:/srv/new/", "/srv true false", &["new", "new/sub"]),
    ] {
        let copied = cp(&daemon, &here, words);
        assert_eq!(copied.code, 0, "{words}: {}", copied.err);
        let mut book = fake.book();
        assert_eq!(book.calls.pop().unwrap(), format!("copy to {call}"), "{words}");
        assert_eq!(listed(&book.archives.pop().unwrap()), names, "{words}");
    }
    let quiet = cp(&daemon, &here, "-q f web:/srv");
    assert_eq!((quiet.code, quiet.err.as_str()), (0, ""));
}

#[test]
fn a_tar_goes_through_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let fake = with_files(dir.path());
    let (daemon, _socket) = start(&fake);
    let archive = fake.book().inside["/etc"].archive.clone();
    let mut out = command(&daemon.socket, "cp web:/etc/. -");
    let out = out.output().unwrap();
    assert!(out.status.success());
    assert_eq!(out.stdout, archive);
    let fed = fed(command(&daemon.socket, "cp - web:/srv"), &archive);
    assert_eq!(fed.code, 0, "{}", fed.err);
    assert_eq!(fake.book().archives.pop().unwrap(), archive);
}

#[test]
fn a_copy_that_breaks_off_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let fake = with_files(dir.path());
    fake.book().export_breaks = true;
    let (daemon, _socket) = start(&fake);
    let torn = cp(&daemon, dir.path(), "web:/etc new");
    assert_eq!(torn.code, 1);
    assert!(torn.err.contains("lost the stream of web:/etc"), "{}", torn.err);
    assert!(!torn.err.contains("Successfully"), "{}", torn.err);
}
