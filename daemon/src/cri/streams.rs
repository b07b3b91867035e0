//! Exec, attach and port-forward: URLs for a kubelet's clients, and what is behind them. The server
//! (`bosun_streaming`) begins with the first URL, and knows nothing of containers; bytes go between it
//! and the shim as they come.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bosun_streaming::{
    Attach, Connection, Exec, Failure, HangUp, Input, Output as ProcessOutput, PortForward,
    Process, Request, Runtime, Server, Streams, TerminalSize,
};
use shim_wire::attach::Hello;
use shim_wire::id::Id;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};

use super::exec::exit_code;
use super::{Cri, wire};
use crate::api::sentence;
use crate::container::{Handle, Supervisor, network_path};
use crate::error::{Error, Result};
use crate::network;
use crate::shim::{self, AttachReader, AttachWriter, Attached, Output};
use crate::spec::{ExecRequest, NetworkMode, Signal};

/// Bytes of a stream that are on their way.
const BUFFER: usize = 32 << 10;

/// How long a port in a pod has to answer.
const DIAL: Duration = Duration::from_secs(10);

/// Containers and pods, as the server of streams sees them.
#[derive(Debug)]
struct Node {
    supervisor: Arc<Supervisor>,
    namespace: Id,
}

impl Cri {
    async fn server(&self) -> Result<&Server> {
        let start = async || {
            let node = Node {
                supervisor: Arc::clone(&self.supervisor),
                namespace: self.namespace.clone(),
            };
            let config = self.settings().streams();
            Server::start(config, Arc::new(node))
                .await
                .map_err(|source| Error::StreamServer(Arc::new(source)))
        };
        self.streams.get_or_try_init(start).await
    }

    async fn url(&self, request: Request) -> Result<String> {
        self.server().await?.url_for(request).map_err(Error::StreamRefused)
    }

    pub(super) async fn exec(&self, request: wire::ExecRequest) -> Result<wire::ExecResponse> {
        let container = self.container(&request.container_id)?;
        container.running()?;
        let wire::ExecRequest { cmd: command, tty, stdin, stdout, stderr, .. } = request;
        let streams = Streams { stdin, stdout, stderr, tty };
        let exec = Exec { container: container.key().id.to_string(), command, streams };
        Ok(wire::ExecResponse { url: self.url(Request::Exec(exec)).await? })
    }

    pub(super) async fn attach_to(
        &self,
        request: wire::AttachRequest,
    ) -> Result<wire::AttachResponse> {
        let container = self.container(&request.container_id)?;
        container.running()?;
        let wire::AttachRequest { tty, stdin, stdout, stderr, .. } = request;
        let streams = Streams { stdin, stdout, stderr, tty };
        let attach = Attach { container: container.key().id.to_string(), streams };
        Ok(wire::AttachResponse { url: self.url(Request::Attach(attach)).await? })
    }

    pub(super) async fn port_forward(
        &self,
        request: wire::PortForwardRequest,
    ) -> Result<wire::PortForwardResponse> {
        let (pod, _) = self.ready_pod(&request.pod_sandbox_id).await?;
        let port = |port: &i32| {
            let number = u16::try_from(*port);
            number.map_err(|_| super::invalid("port", format!("{port} is no number of a port")))
        };
        let ports = request.port.iter().map(port).collect::<Result<_>>()?;
        let forward = PortForward { sandbox: pod.key().id.to_string(), ports };
        Ok(wire::PortForwardResponse { url: self.url(Request::PortForward(forward)).await? })
    }
}

/// In words for who sits before the client.
fn told(error: Error) -> Failure {
    sentence(&error).into()
}

impl Node {
    fn container(&self, id: &str) -> Result<Handle> {
        self.supervisor.find(&self.namespace, id)
    }

    async fn start(&self, exec: Exec) -> Result<Process> {
        let handle = self.container(&exec.container)?;
        let streams = exec.streams;
        let request = ExecRequest {
            command: exec.command,
            tty: streams.tty,
            stdin: streams.stdin,
            ..ExecRequest::default()
        };
        let hello = Hello { stdin: streams.stdin, paced: true, ..Hello::default() };
        let (running, exec_id, attached) =
            self.supervisor.exec(&handle, &request, Some(hello)).await?;
        let attached = attached.ok_or(Error::Stopping)?;
        let (exited, exit) = oneshot::channel();
        let (supervisor, waited) = (Arc::clone(&self.supervisor), Arc::clone(&running));
        let id = exec_id.clone();
        // Whether or not anybody waits for it: an exec that has ended is forgotten.
        tokio::spawn(async move {
            let outcome = supervisor.exec_ended(&handle, &waited, &id).await;
            let _ = exited.send(outcome);
        });
        let (hang_up, gone) = oneshot::channel();
        tokio::spawn(async move {
            if let Ok(reason) = gone.await {
                tracing::debug!(exec = exec_id, ?reason, "its client has gone");
                if streams.tty && !matches!(reason, HangUp::Stopping) {
                    // As when a terminal goes. One that has ended meanwhile has nothing to hear.
                    let _ = running.shim.client.kill(&exec_id, Signal::HUP.number(), false).await;
                }
            }
        });
        let exit = Box::pin(async move {
            let outcome = exit.await.unwrap_or(Err(Error::Stopping)).map_err(told)?;
            Ok(exit_code(&outcome))
        });
        Ok(connect(attached, streams, AtEnd::Close, exit, hang_up))
    }

    async fn join(&self, attach: Attach) -> Result<Process> {
        let handle = self.container(&attach.container)?;
        let (running, record) = (handle.running()?, handle.record()?);
        let streams = Streams { tty: record.options.tty, ..attach.streams };
        let hello = Hello {
            stdin: streams.stdin,
            no_output: !streams.stdout && !streams.stderr,
            ..Hello::default()
        };
        let attached = shim::attach(&running.shim.sockets, &hello)
            .await
            .map_err(|source| Error::Shim { id: handle.label(), source: Arc::new(source) })?;
        let at_end = match record.options.stdin_once {
            true => AtEnd::Close,
            // Others may come.
            false => AtEnd::Leave,
        };
        let exit = Box::pin(async move {
            handle.ended().await;
            Ok(0)
        });
        let (hang_up, _) = oneshot::channel();
        Ok(connect(attached, streams, at_end, exit, hang_up))
    }

    /// A connection to a port inside a pod: over its own loopback, as what listens there may only
    /// listen to that.
    async fn connect(&self, sandbox: &str, port: u16) -> Result<TcpStream> {
        let pod = self.supervisor.sandbox(&self.namespace, sandbox)?;
        pod.running()?;
        let path = network_path(pod.key());
        let is_host = pod.record()?.options.network == NetworkMode::Host;
        let dial = move || {
            let to =
                |address: IpAddr| TcpStream::connect_timeout(&SocketAddr::new(address, port), DIAL);
            to(Ipv4Addr::LOCALHOST.into()).or_else(|error| {
                // The first says more than that there is no IPv6.
                to(Ipv6Addr::LOCALHOST.into()).map_err(|_| error)
            })
        };
        let work = move || match is_host {
            true => dial(),
            false => network::in_namespace(&path, dial),
        };
        let failed =
            |source: io::Error| Error::PodPort { pod: pod.label(), port, source: Arc::new(source) };
        let connected = tokio::task::spawn_blocking(work).await;
        connected.map_err(|_| Error::Stopping)?.map_err(failed)
    }
}

impl Runtime for Node {
    async fn exec(&self, exec: Exec) -> std::result::Result<Process, Failure> {
        self.start(exec).await.map_err(told)
    }

    async fn attach(&self, attach: Attach) -> std::result::Result<Process, Failure> {
        self.join(attach).await.map_err(told)
    }

    async fn dial(&self, sandbox: &str, port: u16) -> std::result::Result<Connection, Failure> {
        let stream = self.connect(sandbox, port).await.map_err(told)?;
        stream.set_nonblocking(true)?;
        Ok(Box::pin(tokio::net::TcpStream::from_std(stream)?))
    }
}

/// What the end of a client's input is to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtEnd {
    Close,
    Leave,
}

type ExitCode = std::pin::Pin<Box<dyn Future<Output = std::result::Result<i32, Failure>> + Send>>;

/// Joins a shim's streams to a client's, and lets bytes go between them until both have ended.
fn connect(
    attached: Attached,
    streams: Streams,
    at_end: AtEnd,
    exit: ExitCode,
    hang_up: oneshot::Sender<HangUp>,
) -> Process {
    let Attached { reader, writer } = attached;
    let pair = |is_wanted: bool| is_wanted.then(|| tokio::io::duplex(BUFFER)).unzip();
    let (stdin, from_client) = pair(streams.stdin);
    let (stdout, to_stdout) = pair(streams.stdout);
    let (stderr, to_stderr) = pair(streams.stderr && !streams.tty);
    let (sizes, resized) = mpsc::channel(1);
    let input = tokio::spawn(forward_input(writer, from_client, resized, at_end));
    tokio::spawn(async move {
        forward_output(reader, to_stdout, to_stderr).await;
        // Until now: to the shim its end is the client's going.
        input.abort();
    });
    let output = |stream: DuplexStream| Box::pin(stream) as ProcessOutput;
    Process {
        stdin: stdin.map(|stream| Box::pin(stream) as Input),
        stdout: stdout.map(output),
        stderr: stderr.map(output),
        resize: streams.tty.then_some(sizes),
        exit,
        hang_up,
    }
}

/// Until the end of the output, or until nobody takes it any more.
async fn forward_output(
    mut reader: AttachReader,
    mut stdout: Option<DuplexStream>,
    mut stderr: Option<DuplexStream>,
) {
    loop {
        let (stream, bytes) = match reader.next().await {
            Ok(Output::Stdout(bytes)) => (&mut stdout, bytes),
            Ok(Output::Stderr(bytes)) => (&mut stderr, bytes),
            Ok(Output::Lagged | Output::End) | Err(_) => return,
        };
        if let Some(open) = stream
            && open.write_all(&bytes).await.is_err()
        {
            // Its reader has gone; the other may be there.
            *stream = None;
        }
    }
}

async fn forward_input(
    mut writer: AttachWriter,
    mut stdin: Option<DuplexStream>,
    mut sizes: mpsc::Receiver<TerminalSize>,
    at_end: AtEnd,
) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let sent = tokio::select! {
            Some(TerminalSize { width, height }) = sizes.recv() => {
                writer.resize(width.into(), height.into()).await
            }
            read = read(&mut stdin, &mut buffer) => match read {
                Some(len) if len > 0 => writer.stdin(&buffer[..len]).await,
                Some(_) | None => {
                    stdin = None;
                    match at_end {
                        AtEnd::Close => writer.close_stdin().await,
                        AtEnd::Leave => Ok(()),
                    }
                }
            },
            // Without a terminal, and with nothing to say: held open until the output has ended.
            else => std::future::pending().await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Never, once there is nothing to read any more.
async fn read(stdin: &mut Option<DuplexStream>, buffer: &mut [u8]) -> Option<usize> {
    match stdin {
        Some(stream) => stream.read(buffer).await.ok(),
        None => std::future::pending().await,
    }
}
