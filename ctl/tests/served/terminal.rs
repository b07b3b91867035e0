//! Sessions on a terminal: raw mode and its end, window size, detach keys.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::ctl::{command, finished, signal};
use crate::daemon::images::layer;
use crate::daemon::{Daemon, Fake, Process, exit, running, start};
use bosun_proto::v1::output_chunk::Message;
use bosun_proto::v1::progress::Status as Layer;

/// A terminal, both ends of it.
struct Terminal {
    master: File,
    /// Kept so that its mode can be read, also when nobody else has it open.
    slave: OwnedFd,
    output: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn new(columns: u16, rows: u16) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(path, flags, Mode::empty()).unwrap();
        let master = File::from(master);
        let mut reader = master.try_clone().unwrap();
        let (sender, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        let terminal = Self { master, slave, output, seen: String::new() };
        terminal.resize(columns, rows);
        terminal
    }

    fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.slave, size).unwrap();
    }

    /// Starts `ctl` with this as its controlling terminal.
    fn run(&self, daemon: &Daemon, words: &str) -> Child {
        let ctl = command(&daemon.socket, words);
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(ctl.get_program()).args(ctl.get_args());
        command.env("BOSUN_ADDRESS", &daemon.socket).env("TERM", "xterm");
        // Nothing of this machine's user is read or written.
        command.env("DOCKER_CONFIG", daemon.socket.with_file_name("docker"));
        let end = || Stdio::from(self.slave.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap()
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    fn shows_what_is_typed(&self) -> bool {
        tcgetattr(&self.slave).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    fn type_in(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    /// Waits for a piece of output.
    fn expect(&mut self, what: &str) {
        while !self.seen.contains(what) {
            match self.output.recv_timeout(Duration::from_secs(20)) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("{what:?} did not come; so far: {:?}", self.seen),
            }
        }
    }
}

/// The pid of `ctl` under the process that made the session.
fn ctl_under(child: &Child) -> u32 {
    let path = format!("/proc/{0}/task/{0}/children", child.id());
    for _ in 0..1000 {
        let children = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some(pid) = children.split_whitespace().next() {
            return pid.parse().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // Without a fork, setsid became ctl itself.
    child.id()
}

#[test]
fn the_window_size_is_followed_and_the_mode_restored() {
    let fake = Fake::acting(Process::ShowsSize);
    let (daemon, _dir) = start(&fake);
    let mut terminal = Terminal::new(80, 24);
    let child = terminal.run(&daemon, "run -it --rootfs / sh");
    terminal.expect("80x24\r\n");
    assert!(terminal.is_raw());
    terminal.resize(100, 30);
    terminal.expect("100x30\r\n");
    // Typed raw: control-c is a byte, not a signal.
    terminal.type_in(b"ab\x03");
    terminal.expect("ab\x03");
    terminal.type_in(b"q");
    assert_eq!(finished(child).code, 0);
    assert!(!terminal.is_raw());
    let window = fake.book().created.clone().unwrap().window.unwrap();
    assert_eq!((window.width, window.height), (80, 24));
}

#[test]
fn detach_keys_leave_the_container_running() {
    for (words, keys) in [
        ("run -it --rootfs / sh", &b"\x10\x11"[..]),
        ("run -it --detach-keys ctrl-a,x --rootfs / sh", b"\x01x"),
        ("exec -it web sh", b"\x10\x11"),
    ] {
        let fake = Fake::acting(Process::ShowsSize);
        if words.starts_with("exec") {
            fake.book().containers.push(running("web"));
        }
        let (daemon, _dir) = start(&fake);
        let mut terminal = Terminal::new(80, 24);
        let child = terminal.run(&daemon, words);
        terminal.expect("80x24");
        terminal.type_in(keys);
        terminal.expect("read escape sequence");
        assert_eq!(finished(child).code, 0, "{words}");
        assert!(!terminal.is_raw());
        assert!(!fake.book().calls.iter().any(|call| call.starts_with("kill")));
    }
}

#[test]
fn the_mode_is_restored_however_the_session_ends() {
    // By the container's end.
    let fake = Fake::acting(Process::Writes(vec![Message::Stdout(b"bye\r\n".to_vec())], exit(3)));
    let (daemon, _dir) = start(&fake);
    let terminal = Terminal::new(80, 24);
    let child = terminal.run(&daemon, "run -it --rootfs / sh");
    assert_eq!(finished(child).code, 3);
    assert!(!terminal.is_raw());

    // By a signal that ends ctl alone.
    let fake = Fake::acting(Process::ShowsSize);
    let (daemon, _dir) = start(&fake);
    let mut terminal = Terminal::new(80, 24);
    let child = terminal.run(&daemon, "run -it --sig-proxy=false --rootfs / sh");
    terminal.expect("80x24");
    assert!(terminal.is_raw());
    signal(ctl_under(&child), rustix::process::Signal::TERM);
    assert_eq!(finished(child).code, 143);
    assert!(!terminal.is_raw());

    // By the daemon's end.
    let fake = Fake::acting(Process::ShowsSize);
    let (daemon, _dir) = start(&fake);
    let mut terminal = Terminal::new(80, 24);
    let child = terminal.run(&daemon, "run -it --rootfs / sh");
    terminal.expect("80x24");
    drop(daemon);
    terminal.expect("ctl: lost ");
    assert_eq!(finished(child).code, 125);
    assert!(!terminal.is_raw());
}

#[test]
fn attaching_makes_the_process_draw_its_screen_anew() {
    let fake = Fake::acting(Process::ShowsSize);
    let mut web = running("web");
    web.options.as_mut().unwrap().tty = true;
    fake.book().containers.push(web);
    let (daemon, _dir) = start(&fake);
    let mut terminal = Terminal::new(80, 24);
    let child = terminal.run(&daemon, "attach web");
    terminal.expect("80x25\r\n80x24\r\n");
    terminal.type_in(b"q");
    assert_eq!(finished(child).code, 0);
}

#[test]
fn a_password_is_asked_for_and_not_shown() {
    let fake = Fake::default();
    let (daemon, dir) = start(&fake);
    let mut terminal = Terminal::new(80, 24);
    let child = terminal.run(&daemon, "login reg.example");
    terminal.expect("Username: ");
    terminal.type_in(b"me\n");
    terminal.expect("Password: ");
    assert!(!terminal.shows_what_is_typed());
    terminal.type_in(b"secret\n");
    terminal.expect("Login Succeeded");
    assert_eq!(finished(child).code, 0);
    assert!(terminal.shows_what_is_typed());
    assert!(!terminal.seen.contains("secret"), "{}", terminal.seen);
    let auth = fake.book().auths.pop().unwrap().unwrap();
    assert_eq!((auth.username.as_str(), auth.password.as_str()), ("me", "secret"));
    assert!(dir.path().join("docker/config.json").exists());

    // A signal leaves the terminal as it was.
    let child = terminal.run(&daemon, "login -u you other.example");
    terminal.seen.clear();
    terminal.expect("Password: ");
    signal(ctl_under(&child), rustix::process::Signal::TERM);
    assert_eq!(finished(child).code, 143);
    assert!(terminal.shows_what_is_typed());
    assert!(fake.book().auths.is_empty());
}

#[test]
fn a_pull_has_a_bar_for_each_layer() {
    let fake = Fake::default();
    fake.book().progress = [vec![
        layer("1", Layer::Downloading, 50),
        layer("2", Layer::Exists, 0),
        layer("1", Layer::Done, 100),
    ]]
    .into();
    let (daemon, _dir) = start(&fake);
    let mut terminal = Terminal::new(100, 24);
    let child = terminal.run(&daemon, "pull alpine");
    terminal.expect("111111111111: Pull complete");
    terminal.expect("222222222222: Already exists");
    terminal.expect("docker.io/library/alpine:latest\r\n");
    assert_eq!(finished(child).code, 0);
    assert!(terminal.seen.contains("latest: Pulling from library/alpine"), "{}", terminal.seen);
    let (_, below) = terminal.seen.split_once("Digest: sha256:").unwrap();
    assert!(below.contains("Status: Downloaded newer image for alpine:latest\r\n"), "{below}");
    assert!(!below.contains("111111111111"), "the layers stand above: {below}");
}

#[test]
fn an_archive_does_not_go_to_a_terminal() {
    let fake = Fake::default();
    fake.book().containers.push(running("web"));
    let (daemon, _dir) = start(&fake);
    for words in ["save web", "export web", "cp web:/etc -"] {
        let mut terminal = Terminal::new(80, 24);
        let child = terminal.run(&daemon, words);
        terminal.expect("ctl: an archive does not go to a terminal");
        assert_eq!(finished(child).code, 1, "{words}");
    }
    let mut terminal = Terminal::new(80, 24);
    let child = terminal.run(&daemon, "load");
    terminal.expect("ctl: an archive does not come from a terminal: name a file with -i");
    assert_eq!(finished(child).code, 1);
}
