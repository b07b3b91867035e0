//! The ways not to reach a daemon.

use std::os::unix::net::UnixListener;
use std::time::Instant;

use crate::ctl::{command, ran};
use crate::daemon::{Fake, start};

#[test]
fn an_absent_daemon_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let absent = ran(command(&socket, "ps"));
    assert_eq!(absent.code, 1);
    assert_eq!(
        absent.err,
        format!(
            "ctl: cannot reach bosund at unix://{}: no such socket: is bosund running? start it \
             with \"bosund\" or \"systemctl start bosund\"\n",
            socket.display()
        )
    );
    assert_eq!(ran(command(&socket, "run --rootfs / true")).code, 125);

    drop(UnixListener::bind(&socket).unwrap());
    let dead = ran(command(&socket, "ps"));
    assert!(dead.err.contains("nobody listens on the socket: is bosund running?"), "{}", dead.err);

    let version = ran(command(&socket, "version"));
    assert_eq!(version.code, 1);
    assert!(version.out.starts_with("Client: ctl\n"), "{}", version.out);
}

#[test]
fn the_address_is_a_flag_or_a_variable_and_may_be_a_url() {
    let fake = Fake::default();
    let (daemon, dir) = start(&fake);
    let socket = daemon.socket.display();
    for words in [
        format!("--address unix://{socket} ps"),
        format!("-H {socket} ps"),
        format!("ps -H {socket}"),
    ] {
        let ran = ran(command(&dir.path().join("unused"), &words));
        assert_eq!(ran.code, 0, "{words}: {}", ran.err);
    }
    let mut named = command(&daemon.socket, "ps");
    named.env("BOSUN_NAMESPACE", "k8s.io");
    assert_eq!(ran(named).code, 0);
    assert_eq!(fake.book().namespaces.last().unwrap(), "k8s.io");
}

#[test]
fn a_hung_daemon_does_not_hang_ctl() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    // It listens, and never answers.
    let _listener = UnixListener::bind(&socket).unwrap();
    let since = Instant::now();
    let hung = ran(command(&socket, "ps"));
    assert_eq!(hung.code, 1);
    assert!(hung.err.contains("did not answer within 15 seconds: is it hung?"), "{}", hung.err);
    assert!(since.elapsed().as_secs() < 25);
}
