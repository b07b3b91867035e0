//! A daemon's view of one shim, blocking: starts the real binary, speaks its sockets, and takes
//! everything away afterwards.
//!
//! The rootfs is an overlay over the machine's own `/`, so that there is something to run.
#![allow(
    dead_code,
    unused_imports,
    missing_debug_implementations,
    reason = "each test file uses a part of it"
)]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod attach;
mod plans;

use std::fs;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use prost::Message;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use shim_cgroup::{Cgroup, Layout};
use shim_wire::exit::ExitRecord;
use shim_wire::files::{ContainerDir, RunDir, SocketDir};
use shim_wire::hooks::Hooks;
use shim_wire::plan::{Bootstrap, CREATE_OPTIONS, CreateOptions, EXEC_OPTIONS, ExecOptions, Plan};
use shim_wire::shim::{ReleaseRequest, StatusResponse};
use shim_wire::task::{
    Any, CreateTaskRequest, CreateTaskResponse, Empty, ExecProcessRequest, KillRequest,
    ProcessRequest, StartResponse, WaitResponse,
};
use shim_wire::ttrpc::{self, Code, Kind, Request, Response};

pub(crate) use attach::{AttachClient, Output};
pub(crate) use plans::{exec_of, options, plan, process};

/// The longest that anything here is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const TASK: &str = "containerd.task.v3.Task";
pub(crate) const SHIM: &str = "bosun.shim.v1.Shim";

/// Whether this run may do what these tests need. `make unit` runs without root: then they say so
/// and pass.
#[must_use]
pub(crate) fn may_run() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: it starts containers, which needs root");
    }
    root
}

/// One shim and its directories.
pub(crate) struct TestShim {
    directory: tempfile::TempDir,
    pub(crate) id: String,
    child: Child,
    pub(crate) container: ContainerDir,
    pub(crate) run: RunDir,
    pub(crate) sockets: SocketDir,
    cgroups: Vec<Cgroup>,
    pub(crate) options: CreateOptions,
    pub(crate) hooks: Hooks,
}

impl TestShim {
    /// Starts a shim that has no container yet.
    pub(crate) fn start(name: &str) -> Self {
        Self::start_in(name, tempfile::tempdir().unwrap(), &[])
    }

    /// The same in a directory of the test's choice, holding sockets for it.
    pub(crate) fn start_in(
        name: &str,
        directory: tempfile::TempDir,
        ports: &[BorrowedFd<'_>],
    ) -> Self {
        Self::start_binary(&binary(), name, directory, ports)
    }

    pub(crate) fn start_binary(
        program: &Path,
        name: &str,
        directory: tempfile::TempDir,
        ports: &[BorrowedFd<'_>],
    ) -> Self {
        let root = directory.path();
        let container = ContainerDir::new(root.join("container"));
        let run = RunDir::new(root.join("run"));
        let sockets = SocketDir::new(root.join("s"));
        for path in [container.path(), run.path(), sockets.path()] {
            fs::create_dir_all(path).unwrap();
        }
        for overlay in ["upper", "work"] {
            fs::create_dir_all(root.join(overlay)).unwrap();
        }
        let prefix = format!("bosun-shimtest-{}-{name}", std::process::id());
        let layout = Layout::detect().unwrap();
        let cgroups = [format!("{prefix}/c"), format!("{prefix}/shim"), prefix.clone()]
            .map(|path| Cgroup::new(&layout, &path).unwrap());
        let listener = UnixListener::bind(sockets.shim()).unwrap();
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        send_bootstrap(&ours, ports);
        let log = fs::File::create(run.shim_log()).unwrap();
        let child = Command::new(program)
            .args(["--namespace", "test", "--id", name])
            .arg("--container-dir")
            .arg(container.path())
            .arg("--run-dir")
            .arg(run.path())
            .arg("--socket-dir")
            .arg(sockets.path())
            .args(["--cgroup", &format!("{prefix}/shim")])
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::from(theirs))
            .stderr(log)
            .spawn()
            .unwrap();
        let options = options(&container, &format!("{prefix}/c"), name);
        let id = name.to_owned();
        let (hooks, cgroups) = (Hooks::default(), cgroups.into());
        Self { directory, id, child, container, run, sockets, cgroups, options, hooks }
    }

    /// The directory of everything, with the overlay's `upper`.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.sockets.shim(), &self.id)
    }

    pub(crate) fn attach(&self) -> AttachClient {
        AttachClient::connect(&self.sockets.attach())
    }

    /// A plan over the machine's own root that runs `script` in a shell.
    pub(crate) fn shell(&self, script: &str) -> Plan {
        plan(self.directory.path(), &["/bin/sh", "-c", script])
    }

    pub(crate) fn plan_of(&self, args: &[&str]) -> Plan {
        plan(self.directory.path(), args)
    }

    /// Creates the container of `plan`.
    pub(crate) fn create(&self, client: &mut Client, plan: &Plan) -> Result<u32, Failure> {
        fs::write(self.run.plan(), plan.encode_to_vec()).unwrap();
        let mut options = self.options.clone();
        options.hooks = self.hooks.kinds();
        if options.hooks != 0 {
            fs::write(self.run.hooks(), self.hooks.encode_to_vec()).unwrap();
        }
        options.terminal = plan.process.as_ref().unwrap().terminal;
        let request = CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.container.path().to_str().unwrap().to_owned(),
            terminal: options.terminal,
            options: Some(Any {
                type_url: CREATE_OPTIONS.to_owned(),
                value: options.encode_to_vec(),
            }),
            ..CreateTaskRequest::default()
        };
        client.call::<CreateTaskResponse>(TASK, "Create", &request).map(|created| created.pid)
    }

    /// Creates and starts a container that runs `script` in a shell.
    pub(crate) fn run_shell(&self, client: &mut Client, script: &str) -> u32 {
        let pid = self.create(client, &self.shell(script)).unwrap();
        assert_eq!(client.start("").unwrap(), pid);
        pid
    }

    pub(crate) fn record(&self) -> ExitRecord {
        ExitRecord::decode(&fs::read_to_string(self.container.exit()).unwrap()).unwrap()
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        PathBuf::from(&self.options.log.as_ref().unwrap().path)
    }

    /// The records of the json-file log.
    pub(crate) fn log(&self) -> Vec<LogRecord> {
        read_json_log(&self.log_path())
    }

    /// The text of one stream in the log.
    pub(crate) fn logged(&self, stream: &str) -> String {
        let records = self.log().into_iter().filter(|record| record.stream == stream);
        records.map(|record| record.log).collect()
    }

    pub(crate) fn shim_log(&self) -> String {
        fs::read_to_string(self.run.shim_log()).unwrap()
    }

    /// Kills the shim itself.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the shim to end by itself and returns its exit code.
    pub(crate) fn wait_end(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the shim ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// Releases the exit and waits until the shim has gone.
    pub(crate) fn release(&mut self, client: &mut Client) {
        let request = ReleaseRequest { attempt: self.options.attempt };
        client.call::<Empty>(SHIM, "Release", &request).unwrap();
        assert_eq!(self.wait_end(), Some(0), "{}", self.shim_log());
        assert_eq!(self.shim_log(), "", "nothing to report");
    }
}

impl Drop for TestShim {
    fn drop(&mut self) {
        let soon = || Instant::now() + Duration::from_secs(5);
        let _ = self.child.kill();
        let _ = self.child.wait();
        for cgroup in &self.cgroups {
            let _ = cgroup.kill(soon());
            let _ = cgroup.remove(soon());
        }
    }
}

fn send_bootstrap(socket: &OwnedFd, ports: &[BorrowedFd<'_>]) {
    let port_sockets = u32::try_from(ports.len()).unwrap();
    let bootstrap = Bootstrap { network_namespace: false, port_sockets, parent: 0 };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !ports.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(ports)));
    }
    let bytes = bootstrap.encode_to_vec();
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty()).unwrap();
}

/// The shim to test: what the build made, or what `BOSUN_SHIM` names.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("BOSUN_SHIM")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_bosun-shim")), PathBuf::from)
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The answer of a call that failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
}

/// A connection to the task API.
pub(crate) struct Client {
    id: String,
    socket: UnixStream,
    stream: u32,
    input: Vec<u8>,
}

impl Client {
    fn connect(path: &Path, id: &str) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { id: id.to_owned(), socket, stream: 1, input: Vec::new() }
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends a request without waiting for its answer; returns the stream it will come on.
    pub(crate) fn send(&mut self, service: &str, method: &str, request: &impl Message) -> u32 {
        let stream = self.stream;
        self.stream += 2;
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            ..Request::default()
        };
        let mut frame = Vec::new();
        ttrpc::encode(&mut frame, Kind::Request, stream, &request);
        self.socket.write_all(&frame).unwrap();
        stream
    }

    /// The next answer, whichever request it is to.
    pub(crate) fn receive(&mut self) -> (u32, Result<Vec<u8>, Failure>) {
        loop {
            if let Some(frame) = ttrpc::decode(&self.input).unwrap() {
                let (stream, size) = (frame.stream, frame.size);
                let response = Response::decode(frame.message).unwrap();
                self.input.drain(..size);
                let result = match response.status {
                    Some(status) => Err(Failure {
                        code: Code::try_from(status.code).unwrap(),
                        message: status.message,
                    }),
                    None => Ok(response.payload),
                };
                return (stream, result);
            }
            let mut chunk = [0; 8192];
            let len = self.socket.read(&mut chunk).expect("an answer in time");
            assert_ne!(len, 0, "the shim closed the connection");
            self.input.extend_from_slice(&chunk[..len]);
        }
    }

    /// Calls and waits for the answer.
    pub(crate) fn call<T: Message + Default>(
        &mut self,
        service: &str,
        method: &str,
        request: &impl Message,
    ) -> Result<T, Failure> {
        let sent = self.send(service, method, request);
        let (stream, result) = self.receive();
        assert_eq!(stream, sent);
        result.map(|payload| T::decode(payload.as_slice()).unwrap())
    }

    pub(crate) fn process(&self, exec_id: &str) -> ProcessRequest {
        ProcessRequest { id: self.id.clone(), exec_id: exec_id.to_owned() }
    }

    pub(crate) fn start(&mut self, exec_id: &str) -> Result<u32, Failure> {
        let request = self.process(exec_id);
        self.call::<StartResponse>(TASK, "Start", &request).map(|started| started.pid)
    }

    pub(crate) fn wait(&mut self, exec_id: &str) -> Result<u32, Failure> {
        let request = self.process(exec_id);
        self.call::<WaitResponse>(TASK, "Wait", &request).map(|exit| exit.exit_status)
    }

    pub(crate) fn kill(&mut self, exec_id: &str, signal: u32) -> Result<(), Failure> {
        self.kill_with(exec_id, signal, false)
    }

    pub(crate) fn kill_with(
        &mut self,
        exec_id: &str,
        signal: u32,
        all: bool,
    ) -> Result<(), Failure> {
        let exec_id = exec_id.to_owned();
        let request = KillRequest { id: self.id.clone(), exec_id, signal, all };
        self.call::<Empty>(TASK, "Kill", &request).map(drop)
    }

    pub(crate) fn exec(&mut self, exec_id: &str, options: &ExecOptions) -> Result<(), Failure> {
        let request = ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            spec: Some(Any { type_url: EXEC_OPTIONS.to_owned(), value: options.encode_to_vec() }),
            ..ExecProcessRequest::default()
        };
        self.call::<Empty>(TASK, "Exec", &request).map(drop)
    }

    pub(crate) fn status(&mut self) -> StatusResponse {
        self.call(SHIM, "Status", &Empty {}).unwrap()
    }
}

/// One record of a json-file log.
#[derive(Debug)]
pub(crate) struct LogRecord {
    pub(crate) log: String,
    pub(crate) stream: String,
    pub(crate) time: String,
}

/// Reads a json-file log, insisting on its form: one whole object a line.
pub(crate) fn read_json_log(path: &Path) -> Vec<LogRecord> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last record is whole");
    text.lines().map(parse_record).collect()
}

fn parse_record(line: &str) -> LogRecord {
    let rest = line.strip_prefix("{\"log\":\"").unwrap_or_else(|| panic!("no record: {line}"));
    let (log, rest) = unescape(rest);
    let rest = rest.strip_prefix(",\"stream\":\"").unwrap();
    let (stream, rest) = rest.split_once('"').unwrap();
    let time = rest.strip_prefix(",\"time\":\"").and_then(|rest| rest.strip_suffix("\"}")).unwrap();
    LogRecord { log, stream: stream.to_owned(), time: time.to_owned() }
}

/// Reads a JSON string up to its closing quote.
fn unescape(text: &str) -> (String, &str) {
    let mut plain = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (plain, &text[at + 1..]),
            '\\' => match chars.next().unwrap().1 {
                'n' => plain.push('\n'),
                'r' => plain.push('\r'),
                't' => plain.push('\t'),
                'u' => {
                    let digits: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                    let code = u32::from_str_radix(&digits, 16).unwrap();
                    plain.push(char::from_u32(code).unwrap());
                }
                other => plain.push(other),
            },
            other => plain.push(other),
        }
    }
    panic!("a string without an end: {text}");
}

/// A line of `/proc/PID/smaps_rollup` in kB, of `/proc/PID/status` as well.
pub(crate) fn proc_kilobytes(pid: u32, file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Waits for the descriptor to have something to read.
pub(crate) fn readable(descriptor: impl AsFd, patience: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec::try_from(patience).unwrap();
    let mut fds = [PollFd::new(&descriptor, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).unwrap() > 0
}
