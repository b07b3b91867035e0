//! Runs the built `ctl`.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// No run of these tests takes longer, but for the one that waits for a deadline.
const PATIENCE: Duration = Duration::from_secs(40);

/// A command line of `ctl`, words at spaces, for a daemon at `address`.
pub(crate) fn command(address: &Path, words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctl"));
    command.args(words.split_whitespace());
    command.env("BOSUN_ADDRESS", address).env_remove("BOSUN_NAMESPACE").env("TZ", "UTC");
    // Nothing of this machine's user is read or written.
    command.env("DOCKER_CONFIG", address.with_file_name("docker"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a run of `ctl` came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs it to its end.
pub(crate) fn ran(mut command: Command) -> Ran {
    finished(command.spawn().unwrap())
}

/// Waits for its end, but not for ever.
pub(crate) fn finished(child: Child) -> Ran {
    let pid = child.id();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    match receiver.recv_timeout(PATIENCE) {
        Ok(output) => output.into(),
        Err(_) => {
            signal(pid, rustix::process::Signal::KILL);
            panic!("ctl did not end; so far: {:?}", receiver.recv().map(Ran::from));
        }
    }
}

/// Runs it with this on its standard input.
pub(crate) fn fed(mut command: Command, input: &[u8]) -> Ran {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let ran = finished(child);
    // A ctl that ends early leaves input unread.
    let _ = feeder.join();
    ran
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
