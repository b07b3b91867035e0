//! `bosun.v1.Io`: a process' streams between a client and its shim. Bytes pass through; nothing is
//! kept but what is on the way, so a slow client is felt by gRPC's flow control and by nobody else.

use std::pin::Pin;
use std::sync::Arc;

use bosun_proto::v1;
use bosun_proto::v1::io_server::Io;
use futures::Stream;
use shim_wire::attach::Hello;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::convert;
use crate::container::{Handle, Running, Supervisor};
use crate::error::{Error, Result as CoreResult};
use crate::logs::{self, LogQuery};
use crate::shim::{self, AttachReader, AttachWriter, Output};
use crate::spec::{self, ExecRequest};

/// Chunks on their way to a client.
const IN_FLIGHT: usize = 4;

/// The service over the core.
#[derive(Debug)]
pub(super) struct Service {
    supervisor: Arc<Supervisor>,
}

impl Service {
    pub(super) fn new(supervisor: Arc<Supervisor>) -> Self {
        Self { supervisor }
    }
}

fn exec_request(open: &v1::ExecOpen) -> ExecRequest {
    ExecRequest {
        command: open.command.clone(),
        env: open.env.clone(),
        working_dir: open.working_dir.clone(),
        user: open.user.clone(),
        tty: open.tty,
        stdin: open.stdin,
        privileged: open.privileged,
        window: convert::window(open.window),
    }
}

type ChunkStream = Pin<Box<dyn Stream<Item = Result<v1::OutputChunk, Status>> + Send>>;
type RecordStream = Pin<Box<dyn Stream<Item = Result<v1::LogRecord, Status>> + Send>>;
type Chunks = mpsc::Sender<Result<v1::OutputChunk, Status>>;

#[tonic::async_trait]
impl Io for Service {
    type AttachStream = ChunkStream;
    type ExecStream = ChunkStream;
    type LogsStream = RecordStream;

    async fn attach(
        &self,
        call: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<ChunkStream>, Status> {
        let (metadata, _, mut messages) = call.into_parts();
        let namespace = convert::namespace(&metadata)?;
        let open = match messages.next().await.transpose()?.and_then(|first| first.message) {
            Some(v1::attach_request::Message::Open(open)) => open,
            Some(_) | None => return Err(Status::invalid_argument("the first message is `open`")),
        };
        let hello = Hello {
            exec_id: String::new(),
            stdin: open.stdin,
            paced: open.start,
            no_output: open.no_output,
        };
        let (handle, attached) = if open.start {
            let started = self.supervisor.start(&namespace, &open.container, Some(hello)).await?;
            (started.0, started.2.ok_or(Error::Stopping)?)
        } else {
            let handle = self.supervisor.find(&namespace, &open.container)?;
            let running = handle.running()?;
            let attached = shim::attach(&running.shim.sockets, &hello)
                .await
                .map_err(|source| attach_failed(&handle, source))?;
            (handle, attached)
        };
        let tty = handle.record().map(|record| record.options.tty).unwrap_or(false);
        let opened = v1::Opened { id: handle.key().id.to_string(), exec_id: String::new(), tty };
        let (chunks, receiver) = mpsc::channel(IN_FLIGHT);
        let input = forward_input(messages, attach_input, attached.writer, open.stdin);
        let input = Ends(tokio::spawn(input));
        tokio::spawn(async move {
            let _input = input;
            if forward_output(opened, attached.reader, &chunks).await {
                let exit = tokio::select! {
                    // Nobody is there who waits for it.
                    () = chunks.closed() => return,
                    exit = handle.ended() => exit.map(|exit| convert::exit(&exit)),
                };
                finish(&chunks, exit.ok_or(Error::Stopping)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn exec(
        &self,
        call: Request<Streaming<v1::ExecRequest>>,
    ) -> Result<Response<ChunkStream>, Status> {
        let (metadata, _, mut messages) = call.into_parts();
        let namespace = convert::namespace(&metadata)?;
        let open = match messages.next().await.transpose()?.and_then(|first| first.message) {
            Some(v1::exec_request::Message::Open(open)) => open,
            Some(_) | None => return Err(Status::invalid_argument("the first message is `open`")),
        };
        let handle = self.supervisor.find(&namespace, &open.container)?;
        handle.running()?;
        let hello =
            Hello { exec_id: String::new(), stdin: open.stdin, paced: true, no_output: false };
        let (running, exec_id, attached) =
            self.supervisor.exec(&handle, &exec_request(&open), Some(hello)).await?;
        let attached = attached.ok_or(Error::Stopping)?;
        let opened =
            v1::Opened { id: handle.key().id.to_string(), exec_id: exec_id.clone(), tty: open.tty };
        let (chunks, receiver) = mpsc::channel(IN_FLIGHT);
        let input = forward_input(messages, exec_input, attached.writer, open.stdin);
        let input = Ends(tokio::spawn(input));
        let supervisor = Arc::clone(&self.supervisor);
        tokio::spawn(async move {
            let _input = input;
            let listens = forward_output(opened, attached.reader, &chunks).await;
            let exited = supervisor.exec_ended(&handle, &running, &exec_id).await;
            if listens {
                finish(&chunks, exited.map(exec_exit)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn exec_detached(
        &self,
        call: Request<v1::ExecOpen>,
    ) -> Result<Response<v1::ExecDetachedResponse>, Status> {
        let message = call.get_ref();
        let request =
            convert::request(call.metadata(), "ExecDetached", &message.request_id, message)?;
        let exec = async {
            let handle = self.supervisor.find(&request.namespace, &message.container)?;
            handle.running()?;
            let (running, exec_id, _) =
                self.supervisor.exec(&handle, &exec_request(message), None).await?;
            tokio::spawn(reap_exec(Arc::clone(&self.supervisor), handle, running, exec_id.clone()));
            Ok(exec_id)
        };
        let exec_id = self.supervisor.once(&request, exec).await?;
        Ok(Response::new(v1::ExecDetachedResponse { exec_id }))
    }

    async fn resize(
        &self,
        call: Request<v1::ResizeRequest>,
    ) -> Result<Response<v1::ResizeResponse>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let message = call.into_inner();
        let handle = self.supervisor.find(&namespace, &message.container)?;
        let window = convert::window(message.window);
        handle
            .running()?
            .shim
            .client
            .resize(&message.exec_id, window.width.into(), window.height.into())
            .await
            .map_err(|source| attach_failed(&handle, source))?;
        Ok(Response::new(v1::ResizeResponse {}))
    }

    async fn logs(&self, call: Request<v1::LogsRequest>) -> Result<Response<RecordStream>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let message = call.into_inner();
        let handle = self.supervisor.find(&namespace, &message.container)?;
        let record = handle.record()?;
        let refused = |problem| Error::InvalidArgument { what: "log driver", problem };
        let name = &record.name;
        match &record.options.log {
            spec::LogOptions::JsonFile { .. } => {}
            spec::LogOptions::None => {
                let problem = format!("container {name} was made with `none`: nothing is kept");
                return Err(refused(problem).into());
            }
            spec::LogOptions::Cri { path } => {
                let path = path.display();
                let problem = format!("container {name}: its log is the kubelet's: read {path}");
                return Err(refused(problem).into());
            }
        }
        let key = handle.key();
        let container_dir = self.supervisor.core().layout.container_dir(&key.namespace, &key.id);
        let query = LogQuery {
            path: container_dir.json_log(key.id.as_str()),
            tail: message.tail,
            since: message.since.map(convert::time_from),
            until: message.until.map(convert::time_from),
        };
        let follow = message.follow && handle.running().is_ok();
        let (found, mut records) = mpsc::channel(64);
        let ended = async move {
            handle.ended().await;
        };
        let reading = tokio::spawn(async move { logs::read(query, follow, ended, &found).await });
        // With the client this goes, and with it the reader, also while the container is silent.
        let answers = async_stream::stream! {
            while let Some(record) = records.recv().await {
                yield Ok(log_record(record));
            }
            if let Ok(Err(error)) = reading.await {
                yield Err(Status::from(error));
            }
        };
        Ok(Response::new(Box::pin(answers)))
    }
}

fn log_record(record: logs::LogRecord) -> v1::LogRecord {
    let mut message = v1::LogRecord {
        time: Some(convert::time(record.time)),
        log: record.log.into_bytes(),
        ..v1::LogRecord::default()
    };
    message.set_stream(match record.stream {
        logs::Stream::Stdout => v1::log_record::Stream::Stdout,
        logs::Stream::Stderr => v1::log_record::Stream::Stderr,
    });
    message
}

fn attach_failed(handle: &Handle, source: shim::Error) -> Error {
    Error::Shim { id: handle.label(), source: Arc::new(source) }
}

fn exec_exit(exited: shim::Exited) -> v1::Exit {
    v1::Exit {
        status: exited.status,
        signal: exited.status.checked_sub(128).filter(|signal| *signal <= 64).unwrap_or(0),
        exited_at: Some(convert::time(exited.at.into())),
        ..v1::Exit::default()
    }
}

async fn reap_exec(
    supervisor: Arc<Supervisor>,
    handle: Handle,
    running: Arc<Running>,
    exec_id: String,
) {
    // A shim that goes first takes its execs along.
    let _ = supervisor.exec_ended(&handle, &running, &exec_id).await;
}

fn chunk(message: v1::output_chunk::Message) -> v1::OutputChunk {
    v1::OutputChunk { message: Some(message) }
}

/// Passes output on until its end. `false` when the client is gone, or was dropped.
async fn forward_output(opened: v1::Opened, mut reader: AttachReader, chunks: &Chunks) -> bool {
    use v1::output_chunk::Message;
    if chunks.send(Ok(chunk(Message::Opened(opened)))).await.is_err() {
        return false;
    }
    loop {
        let output = tokio::select! {
            // A client that goes ends its attachment, also while the process is silent.
            () = chunks.closed() => return false,
            output = reader.next() => output,
        };
        let message = match output {
            Ok(Output::Stdout(bytes)) => Message::Stdout(bytes),
            Ok(Output::Stderr(bytes)) => Message::Stderr(bytes),
            Ok(Output::Lagged) => {
                let _ = chunks.send(Ok(chunk(Message::Lagged(v1::Lagged {})))).await;
                return false;
            }
            Ok(Output::End) | Err(_) => return true,
        };
        if chunks.send(Ok(chunk(message))).await.is_err() {
            return false;
        }
    }
}

async fn finish(chunks: &Chunks, exit: CoreResult<v1::Exit>) {
    let last = exit.map(|exit| chunk(v1::output_chunk::Message::Exit(exit))).map_err(Status::from);
    // The client may have gone.
    let _ = chunks.send(last).await;
}

/// What a client sends after its first message, whichever of the two calls it made.
enum Input {
    Bytes(Vec<u8>),
    Resize(v1::WindowSize),
    Close,
}

fn attach_input(message: v1::AttachRequest) -> Option<Input> {
    use v1::attach_request::Message;
    match message.message? {
        Message::Stdin(bytes) => Some(Input::Bytes(bytes)),
        Message::Resize(window) => Some(Input::Resize(window)),
        Message::CloseStdin(_) => Some(Input::Close),
        Message::Open(_) => None,
    }
}

fn exec_input(message: v1::ExecRequest) -> Option<Input> {
    use v1::exec_request::Message;
    match message.message? {
        Message::Stdin(bytes) => Some(Input::Bytes(bytes)),
        Message::Resize(window) => Some(Input::Resize(window)),
        Message::CloseStdin(_) => Some(Input::Close),
        Message::Open(_) => None,
    }
}

/// Passes a client's input on; without `stdin` it has none but its window's sizes. At its end the writing
/// half is held until the output has ended too: its being dropped would read as the client's going.
async fn forward_input<M>(
    mut messages: Streaming<M>,
    input: fn(M) -> Option<Input>,
    mut writer: AttachWriter,
    stdin: bool,
) {
    while let Some(Ok(message)) = messages.next().await {
        let Some(input) = input(message) else { continue };
        // The shim lets go of who sends what he did not announce.
        if !stdin && !matches!(input, Input::Resize(_)) {
            continue;
        }
        if forward(&mut writer, input).await.is_err() {
            return;
        }
    }
    if stdin {
        // A shim that is gone has no input to end.
        let _ = writer.close_stdin().await;
    }
    std::future::pending::<()>().await;
}

async fn forward(writer: &mut AttachWriter, input: Input) -> std::io::Result<()> {
    match input {
        Input::Bytes(bytes) => writer.stdin(&bytes).await,
        Input::Resize(window) => writer.resize(window.width, window.height).await,
        Input::Close => writer.close_stdin().await,
    }
}

/// A task that ends with the scope that holds this.
struct Ends(tokio::task::JoinHandle<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}
