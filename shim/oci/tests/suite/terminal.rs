//! Terminals: of the caller's, of a socket's.

use std::io::{IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;

use crate::sandbox::Sandbox;

/// The master that a command sends to a socket, and what it says of it.
fn receive(listener: &UnixListener) -> (OwnedFd, String) {
    let (stream, _) = listener.accept().unwrap();
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut bytes = [0; 64];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let count = recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
    let mut master = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            master = descriptors.next();
        }
    }
    (master.unwrap(), String::from_utf8_lossy(&bytes[..count]).into_owned())
}

fn read_until(master: &mut std::fs::File, end: &str) -> String {
    let mut said = String::new();
    let mut buffer = [0; 256];
    while !said.contains(end) {
        match master.read(&mut buffer) {
            Ok(count @ 1..) => said.push_str(&String::from_utf8_lossy(&buffer[..count])),
            Ok(_) | Err(_) => break,
        }
    }
    said
}

#[test]
fn the_master_goes_to_the_console_socket() {
    let mut sandbox = Sandbox::new("tty; stty size; read line; echo got $line");
    sandbox.set("/process/terminal", json!(true));
    sandbox.set("/process/consoleSize", json!({"width": 101, "height": 33}));
    let socket = sandbox.text("console");
    let listener = UnixListener::bind(&socket).unwrap();
    sandbox.on("create", &["--bundle", &sandbox.bundle(), "--console-socket", &socket]).ok();
    let (master, name) = receive(&listener);
    assert!(name.starts_with("/dev/"), "{name}");
    sandbox.on("start", &[]).ok();
    let mut master = std::fs::File::from(master);
    let said = read_until(&mut master, "33 101");
    assert!(said.contains("/dev/pts/0\r\n33 101"), "{said:?}");
    master.write_all(b"hello\n").unwrap();
    assert!(read_until(&mut master, "got hello").contains("got hello"));
    sandbox.wait_for("stopped");
}

#[test]
fn an_exec_has_a_terminal_of_its_own() {
    let sandbox = Sandbox::running("exec sleep 1000");
    let socket = sandbox.text("console");
    let listener = UnixListener::bind(&socket).unwrap();
    let flags = ["--tty", "--detach", "--console-socket", &socket];
    sandbox.exec(&flags, &["sh", "-c", "tty; read line"]).ok();
    let mut master = std::fs::File::from(receive(&listener).0);
    assert!(read_until(&mut master, "pts/").contains("/dev/pts/"));
    let error = sandbox.exec(&["--tty", "--detach"], &["tty"]).err();
    assert!(error.contains("--console-socket"), "{error}");
}

/// A person at a terminal: what they type gets there, and their own terminal is as it was afterwards.
#[test]
fn run_on_a_terminal_is_a_session() {
    let mut sandbox = Sandbox::new("stty size; read line; echo got $line; exit 4");
    sandbox.set("/process/terminal", json!(true));
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
    let size = Winsize { ws_row: 24, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size).unwrap();
    let echoes = || tcgetattr(&slave).unwrap().local_modes.contains(LocalModes::ECHO);
    assert!(echoes());
    let mut command = sandbox.command(&["run", "--bundle", &sandbox.bundle(), &sandbox.id]);
    command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut master = std::fs::File::from(master);
    assert!(read_until(&mut master, "24 77").contains("24 77"));
    assert!(!echoes(), "the container's terminal echoes, not this one");
    master.write_all(b"hello\r").unwrap();
    let said = read_until(&mut master, "got hello");
    assert!(said.contains("got hello"), "{said:?}");
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert!(echoes(), "as it was");
    assert!(sandbox.is_gone());
}
