//! Snapshots over the API: containerd's model.

use std::path::Path;

use bosun_proto::v1;
use bosun_proto::v1::prepare_request::Base;
use bosun_proto::v1::snapshot::Kind;
use integration::api::{Api, options, reason};
use integration::daemon::Daemon;
use tonic::{Code, Status};

/// Nothing reaches these snapshots, so they say themselves that they are to stay.
fn kept() -> std::collections::HashMap<String, String> {
    [("containerd.io/gc.root".to_owned(), "2026-01-01T00:00:00Z".to_owned())].into()
}

fn prepare(api: &Api, key: &str, base: Option<Base>) -> Result<Vec<v1::Mount>, Status> {
    let request =
        v1::PrepareRequest { request_id: String::new(), key: key.to_owned(), base, labels: kept() };
    Ok(api.wait(async { api.snapshots().prepare(request).await })?.into_inner().mounts)
}

fn view(api: &Api, key: &str, parent: &str) -> Result<Vec<v1::Mount>, Status> {
    let request = v1::PrepareRequest {
        request_id: String::new(),
        key: key.to_owned(),
        base: Some(Base::Parent(parent.to_owned())),
        labels: kept(),
    };
    Ok(api.wait(async { api.snapshots().view(request).await })?.into_inner().mounts)
}

fn commit(api: &Api, key: &str, name: &str) -> Result<(), Status> {
    let request = v1::CommitRequest {
        request_id: String::new(),
        key: key.to_owned(),
        name: name.to_owned(),
        labels: kept(),
    };
    api.wait(async { api.snapshots().commit(request).await }).map(|_| ())
}

fn remove(api: &Api, key: &str) -> Result<(), Status> {
    let request = v1::RemoveSnapshotRequest { request_id: String::new(), key: key.to_owned() };
    api.wait(async { api.snapshots().remove(request).await }).map(|_| ())
}

fn stat(api: &Api, key: &str) -> Result<v1::Snapshot, Status> {
    let request = v1::SnapshotRequest { key: key.to_owned() };
    api.wait(async { api.snapshots().stat(request).await }).map(tonic::Response::into_inner)
}

fn list(api: &Api) -> Vec<String> {
    let answer =
        api.wait(async { api.snapshots().list(v1::ListSnapshotsRequest {}).await }).unwrap();
    answer.into_inner().snapshots.into_iter().map(|snapshot| snapshot.key).collect()
}

/// Mounts as a client of the API does, does something there, and unmounts. The host's table is
/// touched for that moment, in a mount namespace of its own.
fn in_mounted(directory: &Path, mounts: &[v1::Mount], script: &str) -> String {
    let point = directory.join("mnt");
    std::fs::create_dir_all(&point).unwrap();
    let [mount] = mounts else { panic!("one mount: {mounts:?}") };
    let kind = if mount.r#type == "bind" { "none" } else { &mount.r#type };
    let script = format!(
        "mount -t {kind} -o '{}' '{}' {} && cd {} && {script}",
        mount.options.join(","),
        mount.source,
        point.display(),
        point.display()
    );
    integration::netns::run(
        std::process::Command::new("unshare").args(["-m", "--", "/bin/sh", "-ec", &script]),
    )
}

#[test]
fn layers_are_prepared_committed_and_stacked() {
    let daemon = Daemon::start();
    let (api, place) = (daemon.api(), daemon.scratch());
    let first = prepare(&api, "first-active", None).unwrap();
    in_mounted(place, &first, "echo 1 > one; echo 1 > both");
    commit(&api, "first-active", "first").unwrap();
    let second = prepare(&api, "second-active", Some(Base::Parent("first".to_owned()))).unwrap();
    in_mounted(place, &second, "rm one; echo 2 > both; echo 2 > two");
    commit(&api, "second-active", "second").unwrap();

    let seen = view(&api, "look", "second").unwrap();
    assert_eq!(in_mounted(place, &seen, "ls; cat both"), "both\ntwo\n2\n");
    let below = view(&api, "look-below", "first").unwrap();
    assert_eq!(in_mounted(place, &below, "ls; cat both"), "both\none\n1\n");
    assert_eq!(stat(&api, "second").unwrap().parent, "first");
    assert_eq!(stat(&api, "second").unwrap().kind(), Kind::Committed);
    assert_eq!(stat(&api, "look").unwrap().kind(), Kind::View);
    for key in ["look", "look-below", "second", "first"] {
        remove(&api, key).unwrap();
    }
    assert_eq!(list(&api), Vec::<String>::new());
}

#[test]
fn a_parent_is_held_by_its_children() {
    let daemon = Daemon::start();
    let api = daemon.api();
    prepare(&api, "base-active", None).unwrap();
    commit(&api, "base-active", "base").unwrap();
    prepare(&api, "child", Some(Base::Parent("base".to_owned()))).unwrap();
    let status = remove(&api, "base").unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("child"), "{status}");
    remove(&api, "child").unwrap();
    remove(&api, "base").unwrap();
}

#[test]
fn the_snapshot_of_a_container_is_held_by_it() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let id = api.create("", options("one", &["/bin/true"])).unwrap();
    let key = api.get("one").snapshot_key;
    assert_eq!(stat(&api, &key).unwrap().held_by, id);
    let status = remove(&api, &key).unwrap_err();
    assert_eq!(reason(&status), "SNAPSHOT_IN_USE", "{status}");
    daemon.ctl("rm one").ok();
    assert_eq!(stat(&api, &key).unwrap_err().code(), Code::NotFound);
}

#[test]
fn a_key_is_used_once() {
    let daemon = Daemon::start();
    let api = daemon.api();
    prepare(&api, "one", None).unwrap();
    assert_eq!(prepare(&api, "one", None).unwrap_err().code(), Code::AlreadyExists);
    commit(&api, "one", "name").unwrap();
    assert_eq!(commit(&api, "one", "other").unwrap_err().code(), Code::NotFound);
    remove(&api, "name").unwrap();
}

#[test]
fn an_active_one_is_no_parent() {
    let daemon = Daemon::start();
    let api = daemon.api();
    prepare(&api, "active", None).unwrap();
    assert!(prepare(&api, "child", Some(Base::Parent("active".to_owned()))).is_err());
    assert_eq!(
        prepare(&api, "child", Some(Base::Parent("missing".to_owned()))).unwrap_err().code(),
        Code::NotFound
    );
    remove(&api, "active").unwrap();
}

#[test]
fn a_directory_is_a_base() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let tree = daemon.scratch().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("file"), "below").unwrap();
    let mounts = prepare(&api, "over", Some(Base::Directory(tree.display().to_string()))).unwrap();
    assert_eq!(
        in_mounted(daemon.scratch(), &mounts, "cat file; echo above > file; cat file"),
        "belowabove\n"
    );
    assert_eq!(std::fs::read_to_string(tree.join("file")).unwrap(), "below");
    remove(&api, "over").unwrap();
}

#[test]
fn usage_counts_its_own_layer() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let mounts = prepare(&api, "one", None).unwrap();
    in_mounted(daemon.scratch(), &mounts, "head -c 100000 /dev/urandom > file; mkdir directory");
    let request = v1::SnapshotRequest { key: "one".to_owned() };
    let usage = api.wait(async { api.snapshots().usage(request).await }).unwrap().into_inner();
    assert!((100_000..200_000).contains(&usage.size), "{usage:?}");
    assert!((2..=4).contains(&usage.inodes), "{usage:?}");
    remove(&api, "one").unwrap();
}

#[test]
fn they_survive_the_daemon() {
    let mut daemon = Daemon::start();
    let api = daemon.api();
    prepare(&api, "one-active", None).unwrap();
    commit(&api, "one-active", "one").unwrap();
    drop(api);
    daemon.kill();
    daemon.start_again();
    let api = daemon.api();
    assert_eq!(list(&api), ["one"]);
    remove(&api, "one").unwrap();
}
