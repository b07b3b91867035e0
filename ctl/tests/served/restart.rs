//! A daemon that dies under a call or a session and comes back, or does not.

use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use tonic::Status;

use crate::ctl::{command, finished, ran};
use crate::daemon::{Daemon, Fake, ID, Process, exit, running, start};
use bosun_proto::v1::output_chunk::Message;

#[test]
fn a_call_is_made_again_with_the_same_request_id() {
    let fake = Fake::default();
    fake.book().containers.push(running("web"));
    fake.book().stop_failures =
        [Status::unavailable("bosund is stopping"), Status::unavailable("bosund is stopping")]
            .into();
    let (daemon, _dir) = start(&fake);
    let stopped = ran(command(&daemon.socket, "stop -t 1 web"));
    assert_eq!((stopped.code, stopped.out.as_str()), (0, "web\n"), "{}", stopped.err);
    let ids = fake.book().request_ids.clone();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

/// A session with a process that says it is alive, and what it writes next.
fn session(
    daemon: &Daemon,
    words: &str,
) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let mut child = command(&daemon.socket, words).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "alive\n");
    (child, out)
}

#[test]
fn a_session_goes_on_when_the_daemon_is_back() {
    let fake = Fake::acting(Process::Lives);
    let (daemon, _dir) = start(&fake);
    let (child, mut out) = session(&daemon, "run --name job --rootfs / server");
    let socket = daemon.socket.clone();
    drop(daemon);
    // Longer than a first attempt takes.
    std::thread::sleep(Duration::from_millis(300));
    fake.book().process =
        Some(Process::Writes(vec![Message::Stdout(b"still here\n".to_vec())], exit(7)));
    let _daemon = Daemon::serve(&fake, &socket);
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let ran = finished(child);
    assert_eq!((ran.code, rest.as_str()), (7, "still here\n"), "{}", ran.err);
    assert!(
        ran.err.contains("ctl: lost job: the connection broke: attaching again"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("attached again: what was written meanwhile is in \"ctl logs job\""));
    let calls = fake.book().calls.clone();
    let attaches = ["attach stdin=false start=true", "attach stdin=false start=false"];
    assert_eq!(calls[1..], attaches, "it is not started twice");
}

#[test]
fn a_container_that_ended_meanwhile_has_its_exit_code() {
    let fake = Fake::acting(Process::Lives);
    let (daemon, _dir) = start(&fake);
    let (child, _out) = session(&daemon, "run --name job --rootfs / server");
    let socket = daemon.socket.clone();
    drop(daemon);
    fake.book().process = Some(Process::Ended(42));
    let _daemon = Daemon::serve(&fake, &socket);
    let ran = finished(child);
    assert_eq!(ran.code, 42, "{}", ran.err);
}

#[test]
fn a_daemon_that_stays_away_is_an_error_of_ours() {
    let fake = Fake::acting(Process::Lives);
    fake.book().containers.push(running("web"));
    for words in ["run --rootfs / server", "exec web server"] {
        let (daemon, _dir) = start(&fake);
        let (child, _out) = session(&daemon, words);
        let since = Instant::now();
        drop(daemon);
        let ran = finished(child);
        assert_eq!(ran.code, 125, "{words}: {}", ran.err);
        assert!(ran.err.contains("ctl: lost "), "{words}: {}", ran.err);
        assert!(since.elapsed().as_secs() < 20);
    }
    assert_eq!(fake.book().containers[0].id, ID);
}
