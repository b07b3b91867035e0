//! Content and leases: blobs in and out, and what keeps them and snapshots from being removed.

use std::process::Stdio;

use bosun_proto::v1;
use bosun_proto::v1::content_client::ContentClient;
use bosun_proto::v1::write_request::Message;
use integration::daemon::Daemon;
use integration::wait;

/// The digest of `hello\n`.
const HELLO: &str = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

/// Sends the beginning of a blob and goes away, as a client that is killed does.
fn leave_half(daemon: &Daemon, reference: &str, data: &[u8]) {
    let api = daemon.api();
    let open = v1::WriteOpen { reference: reference.to_owned(), ..v1::WriteOpen::default() };
    let messages = [Message::Open(open), Message::Data(data.to_vec())]
        .map(|message| v1::WriteRequest { message: Some(message) });
    let mut client = ContentClient::new(api.channel());
    let answer = api.wait(client.write(tokio_stream::iter(messages))).unwrap().into_inner();
    assert_eq!((answer.digest.as_str(), answer.size), ("", data.len() as u64));
}

#[test]
fn a_blob_goes_in_and_comes_out() {
    let daemon = Daemon::start();
    assert_eq!(daemon.client().feed("content put", "hello\n").text(), HELLO);
    let file = daemon.scratch().join("layer");
    let long: String = (0..200_000).map(|line| format!("line {line}\n")).collect();
    std::fs::write(&file, &long).unwrap();
    let digest = daemon.ctl(&format!("content put --label kind=layer {}", file.display())).text();
    assert_eq!(daemon.ctl(&format!("content put {}", file.display())).text(), digest);
    assert_eq!(daemon.ctl(&format!("content get {digest}")).stdout, long);
    assert_eq!(daemon.ctl(&format!("content get --offset 7 --size 6 {digest}")).stdout, "line 1");
    daemon
        .ctl(&format!("content get --offset 9999999 {digest}"))
        .fails(1, &["9999999", &format!("{} bytes", long.len())]);

    let mut both = [HELLO.to_owned(), digest.clone()];
    both.sort();
    assert_eq!(daemon.ctl("content ls -q").text(), both.join("\n"));
    let labels = daemon.ctl("content ls --format '{{.Digest}} {{.Labels.kind}}'").text();
    assert!(labels.contains(&format!("{digest} layer")), "{labels}");
    daemon.ctl(&format!("content rm {HELLO} {digest}")).ok();
    daemon.ctl(&format!("content get {digest}")).fails(1, &["no such blob", &digest]);
    assert_eq!(daemon.ctl("content ls -q").text(), "");
    let blobs = daemon.place().root.join("content/blobs/sha256");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
}

#[test]
fn a_wrong_digest_is_refused_and_nothing_stays() {
    let daemon = Daemon::start();
    let wrong = format!("sha256:{}", "0".repeat(64));
    daemon
        .client()
        .feed(&format!("content put --digest {wrong}"), "hello\n")
        .fails(1, &[&wrong, HELLO]);
    daemon.client().feed("content put --digest sha256:short", "hello\n").fails(1, &["digest"]);
    assert_eq!(daemon.ctl("content ls -q").text(), "");
    assert_eq!(daemon.ctl("content ingests --format '{{.Reference}}'").text(), "");
}

#[test]
fn an_upload_goes_on_after_the_daemon_was_killed() {
    let mut daemon = Daemon::start();
    leave_half(&daemon, "layer", b"hel");
    daemon.kill();
    daemon.start_again();
    let listed = daemon.ctl("content ingests --format '{{.Reference}} {{.Bytes}}'").text();
    assert_eq!(listed, "layer 3");
    // What is there is not sent again: were it, this would be another blob.
    let put = format!("content put --ref layer --digest {HELLO}");
    assert_eq!(daemon.client().feed(&put, "???lo\n").text(), HELLO);
    assert_eq!(daemon.ctl(&format!("content get {HELLO}")).stdout, "hello\n");
    assert_eq!(daemon.ctl("content ingests --format '{{.Reference}}'").text(), "");

    leave_half(&daemon, "other", b"hel");
    daemon.ctl("content abort other").ok();
    daemon.ctl("content abort other").fails(1, &["no such ingest: other"]);
}

#[test]
fn a_reference_has_one_writer() {
    let daemon = Daemon::start();
    let put = format!("content put --ref layer --digest {HELLO}");
    let mut first = daemon.client().start(&put, Stdio::piped());
    wait::until("the first writer to be there", || {
        let listed = daemon.ctl("content ingests --format '{{.Reference}}'").text();
        (listed == "layer").then_some(())
    });
    daemon.client().feed(&put, "hello\n").fails(1, &["ingest layer has a writer already"]);
    daemon.ctl("content abort layer").fails(1, &["layer"]);
    first.send("hello\n");
    assert_eq!(first.finish().text(), HELLO);
}

#[test]
fn a_blob_belongs_to_its_namespace() {
    let daemon = Daemon::start();
    daemon.client().feed("content put", "hello\n").ok();
    daemon.ctl(&format!("--namespace other content get {HELLO}")).fails(1, &["no such blob"]);
    daemon.client().feed("--namespace other content put", "hello\n").ok();
    daemon.ctl(&format!("content rm {HELLO}")).ok();
    assert_eq!(daemon.ctl(&format!("--namespace other content get {HELLO}")).text(), "hello");
}

#[test]
fn a_lease_holds_blobs_and_snapshots_until_it_goes() {
    let mut daemon = Daemon::start();
    daemon.client().feed("content put", "hello\n").ok();
    daemon.ctl("snapshot prepare scratch").ok();
    assert_eq!(daemon.ctl("lease create build").text(), "build");
    daemon.ctl("lease create build").fails(1, &["lease build exists already"]);
    daemon.ctl("lease add build snapshot scratch").ok();
    daemon.ctl(&format!("lease add build content {HELLO}")).ok();
    daemon.ctl("lease add build snapshot missing").fails(1, &["no such snapshot: missing"]);
    daemon.kill();
    daemon.start_again();
    daemon
        .ctl("snapshot rm scratch")
        .fails(1, &["snapshot scratch is held by lease build: delete that lease first"]);
    daemon.ctl(&format!("content rm {HELLO}")).fails(1, &[HELLO, "held by lease build"]);
    let held = daemon.ctl("lease ls build --format '{{.Kind}} {{.ID}}'").text();
    assert_eq!(held, format!("content {HELLO}\nsnapshot scratch"));

    daemon.ctl("lease drop build snapshot scratch").ok();
    daemon.ctl("snapshot rm scratch").ok();
    daemon.ctl("lease rm build").ok();
    daemon.ctl(&format!("content rm {HELLO}")).ok();
    daemon.ctl("lease rm build").fails(1, &["no such lease: build"]);
    assert_eq!(daemon.ctl("lease ls -q").text(), "");
}

#[test]
fn an_expired_lease_holds_nothing() {
    let daemon = Daemon::start();
    daemon.client().feed("content put", "hello\n").ok();
    let lease = daemon.ctl("lease create --ttl 2s").text();
    daemon.ctl(&format!("lease add {lease} content {HELLO}")).ok();
    daemon.ctl(&format!("content rm {HELLO}")).fails(1, &[&lease]);
    wait::until("the lease to expire", || {
        (daemon.ctl(&format!("content rm {HELLO}")).code == Some(0)).then_some(())
    });
    assert_eq!(daemon.ctl("lease ls -q").text(), "");
}

#[test]
fn the_snapshot_of_a_container_is_not_leased() {
    let daemon = Daemon::start();
    let id = daemon.ctl("create --name one --rootfs / /bin/true").text();
    daemon.ctl("lease create build").ok();
    daemon.ctl(&format!("lease add build snapshot {id}")).fails(1, &[&id, "goes with it"]);
    daemon.ctl("rm one").ok();
}
