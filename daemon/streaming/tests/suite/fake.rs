//! Containers that are none: what a process does is in its command.

use std::pin::Pin;
use std::sync::Arc;

use bosun_streaming::{
    Attach, Config, Connection, Exec, Failure, HangUp, Input, Output, Process, Request, Runtime,
    Server, Streams, TerminalSize,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

pub(crate) use crate::http::within;

/// What the server has told its runtime.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    HangUp(HangUp),
    /// Dropped without a word: an orderly end.
    Done,
}

pub(crate) struct Fake {
    told: mpsc::UnboundedSender<Told>,
}

pub(crate) struct Fixture {
    pub(crate) server: Server,
    pub(crate) told: mpsc::UnboundedReceiver<Told>,
}

impl Fixture {
    pub(crate) async fn new() -> Fixture {
        Fixture::with(Config::default()).await
    }

    pub(crate) async fn with(config: Config) -> Fixture {
        let (told, telling) = mpsc::unbounded_channel();
        let server = Server::start(config, Arc::new(Fake { told })).await.unwrap();
        Fixture { server, told: telling }
    }

    pub(crate) fn exec(&self, streams: Streams, command: &str) -> String {
        let command = command.split(' ').map(str::to_owned).collect();
        let exec = Exec { container: "c".to_owned(), command, streams };
        self.server.url_for(Request::Exec(exec)).unwrap()
    }

    pub(crate) async fn told(&mut self) -> Told {
        within(self.told.recv()).await.unwrap()
    }
}

pub(crate) const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };
pub(crate) const TERMINAL: Streams =
    Streams { stdin: true, stdout: true, stderr: false, tty: true };
pub(crate) const OUT: Streams = Streams { stdin: false, stdout: true, stderr: false, tty: false };

/// Bytes of which no two pieces are alike.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The process' side.
struct Inside {
    stdin: DuplexStream,
    stdout: DuplexStream,
    stderr: DuplexStream,
    sizes: mpsc::Receiver<TerminalSize>,
}

impl Fake {
    /// One that nobody asks what it was told.
    pub(crate) fn deaf() -> Fake {
        Fake { told: mpsc::unbounded_channel().0 }
    }

    fn process(&self, command: Vec<String>, streams: Streams) -> Process {
        let (stdin, inside_stdin) = duplex(4096);
        let (inside_stdout, stdout) = duplex(4096);
        let (inside_stderr, stderr) = duplex(4096);
        let (resize, sizes) = mpsc::channel(1);
        let (hang_up, hung_up) = oneshot::channel();
        let told = self.told.clone();
        tokio::spawn(async move {
            let _ = told.send(hung_up.await.map_or(Told::Done, Told::HangUp));
        });
        let inside =
            Inside { stdin: inside_stdin, stdout: inside_stdout, stderr: inside_stderr, sizes };
        let running = tokio::spawn(async move { run(&command, inside).await });
        Process {
            stdin: streams.stdin.then(|| Box::pin(stdin) as Input),
            stdout: streams.stdout.then(|| Box::pin(stdout) as Output),
            stderr: streams.stderr.then(|| Box::pin(stderr) as Output),
            resize: streams.tty.then_some(resize),
            exit: Box::pin(async { running.await.map_err(Failure::from) }),
            hang_up,
        }
    }
}

async fn run(command: &[String], mut inside: Inside) -> i32 {
    let number = |at: usize| command[at].parse::<usize>().unwrap();
    match command[0].as_str() {
        "cat" => {
            let _ = tokio::io::copy(&mut inside.stdin, &mut inside.stdout).await;
            0
        }
        // So many bytes on both outputs at once.
        "both" => {
            let bytes = pattern(number(1));
            let (one, other) =
                tokio::join!(inside.stdout.write_all(&bytes), inside.stderr.write_all(&bytes[1..]));
            i32::from(one.is_err() || other.is_err())
        }
        "exit" => i32::try_from(number(1)).unwrap(),
        // Says what it has read, once it has read all.
        "count" => {
            let mut bytes = Vec::new();
            inside.stdin.read_to_end(&mut bytes).await.unwrap();
            let right = bytes == pattern(bytes.len());
            let text = format!("{} {right}", bytes.len());
            inside.stdout.write_all(text.as_bytes()).await.unwrap();
            3
        }
        // So many sizes, as they came.
        "sizes" => {
            for _ in 0..number(1) {
                let TerminalSize { width, height } = inside.sizes.recv().await.unwrap();
                let text = format!("{width}x{height} ");
                inside.stdout.write_all(text.as_bytes()).await.unwrap();
            }
            0
        }
        // Says that it is there, and neither reads nor writes any more.
        "ready" => {
            inside.stdout.write_all(b"ready").await.unwrap();
            std::future::pending().await
        }
        // Writes for ever, as fast as it is read, and counts into a file how much that was.
        "flood" => {
            let piece = vec![b'x'; 4096];
            let mut written = 0u64;
            while inside.stdout.write_all(&piece).await.is_ok() {
                written += 4096;
                std::fs::write(&command[1], written.to_string()).unwrap();
            }
            0
        }
        command => panic!("{command}: no such process"),
    }
}

impl Runtime for Fake {
    async fn exec(&self, exec: Exec) -> Result<Process, Failure> {
        if exec.command[0] == "missing" {
            return Err("exec \"missing\": no such file".into());
        }
        Ok(self.process(exec.command, exec.streams))
    }

    async fn attach(&self, attach: Attach) -> Result<Process, Failure> {
        if attach.container != "c" {
            return Err(format!("container {} does not run", attach.container).into());
        }
        Ok(self.process(vec!["cat".to_owned()], attach.streams))
    }

    async fn dial(&self, sandbox: &str, port: u16) -> Result<Connection, Failure> {
        assert_eq!(sandbox, "s");
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        Ok(Pin::from(Box::new(stream) as Box<dyn bosun_streaming::ReadWrite>))
    }
}
