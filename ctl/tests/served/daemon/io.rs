//! Sessions with processes that pretend, and logs.

use bosun_proto::v1::io_server::Io;
use bosun_proto::v1::*;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Fake, ID, Process, broken_after, exit, refusal};

type Chunks = ReceiverStream<Result<OutputChunk, Status>>;

fn chunk(message: output_chunk::Message) -> Result<OutputChunk, Status> {
    Ok(OutputChunk { message: Some(message) })
}

/// What an attached client or one of an exec sends, alike.
enum Sent {
    Stdin(Vec<u8>),
    Resize(WindowSize),
    Close,
}

impl Fake {
    /// Acts as the process until it ends or the client goes.
    async fn act(
        self,
        mut sent: mpsc::Receiver<Sent>,
        output: mpsc::Sender<Result<OutputChunk, Status>>,
    ) {
        use output_chunk::Message;
        let process = self.book().process.clone().unwrap();
        let end = match process {
            Process::Writes(messages, exit) => {
                for message in messages {
                    output.send(chunk(message)).await.unwrap();
                }
                exit
            }
            Process::Echoes => {
                while let Some(Sent::Stdin(bytes)) = sent.recv().await {
                    output.send(chunk(Message::Stdout(bytes))).await.unwrap();
                }
                exit(0)
            }
            Process::AwaitsSignal => loop {
                let ready = chunk(Message::Stdout(b"ready\n".to_vec()));
                output.send(ready).await.unwrap();
                self.signalled.notified().await;
                let signal = self.book().signals.pop_front().unwrap_or_default();
                let number = match signal.as_str() {
                    "SIGTERM" => 15,
                    "SIGINT" => 2,
                    _ => continue,
                };
                break exit(128 + number);
            },
            Process::ShowsSize => loop {
                match sent.recv().await {
                    Some(Sent::Resize(WindowSize { width, height })) => {
                        let line = format!("{width}x{height}\r\n").into_bytes();
                        output.send(chunk(Message::Stdout(line))).await.unwrap();
                    }
                    Some(Sent::Stdin(typed)) if !typed.contains(&b'q') => {
                        output.send(chunk(Message::Stdout(typed))).await.unwrap();
                    }
                    Some(Sent::Stdin(_) | Sent::Close) | None => break exit(0),
                }
            },
            Process::Lives => {
                output.send(chunk(Message::Stdout(b"alive\n".to_vec()))).await.unwrap();
                std::future::pending().await
            }
            Process::Refuses(..) | Process::Ended(_) => panic!("nothing runs"),
        };
        output.send(chunk(Message::Exit(end))).await.unwrap();
    }

    fn refused(&self) -> Option<Status> {
        match self.book().process {
            Some(Process::Refuses(code, reason, message)) => Some(refusal(code, reason, message)),
            Some(Process::Ended(_)) => {
                Some(refusal(Code::FailedPrecondition, "NOT_RUNNING", "it is not running"))
            }
            _ => None,
        }
    }

    fn session(&self, opened: Opened) -> (mpsc::Sender<Sent>, Response<Chunks>) {
        let (sender, sent) = mpsc::channel(1);
        let (output, chunks) = mpsc::channel(1);
        let fake = self.clone();
        tokio::spawn(async move {
            let opened = chunk(output_chunk::Message::Opened(opened));
            output.send(opened).await.unwrap();
            fake.act(sent, output).await;
        });
        (sender, Response::new(ReceiverStream::new(chunks)))
    }
}

#[tonic::async_trait]
impl Io for Fake {
    type AttachStream = Chunks;
    type ExecStream = Chunks;
    type LogsStream = std::pin::Pin<
        Box<dyn tokio_stream::Stream<Item = Result<LogRecord, Status>> + Send + 'static>,
    >;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Chunks>, Status> {
        use attach_request::Message;
        let mut requests = request.into_inner();
        let Some(Message::Open(open)) = requests.message().await?.unwrap().message else {
            return Err(Status::invalid_argument("not opened"));
        };
        let verb = format!("attach stdin={} start={}", open.stdin, open.start);
        self.note(verb, &open.request_id);
        let options = self.find(&open.container)?.options.unwrap();
        let failure = if open.start { self.book().start_failures.pop_front() } else { None };
        if let Some(status) = failure.or_else(|| self.refused()) {
            return Err(status);
        }
        let opened = Opened { id: ID.to_owned(), exec_id: String::new(), tty: options.tty };
        let (sender, response) = self.session(opened);
        tokio::spawn(async move {
            while let Ok(Some(AttachRequest { message: Some(message) })) = requests.message().await
            {
                let sent = match message {
                    Message::Stdin(bytes) => Sent::Stdin(bytes),
                    Message::Resize(size) => Sent::Resize(size),
                    Message::CloseStdin(_) => Sent::Close,
                    Message::Open(_) => panic!("opened twice"),
                };
                if sender.send(sent).await.is_err() {
                    break;
                }
            }
        });
        Ok(response)
    }

    async fn exec(
        &self,
        request: Request<Streaming<ExecRequest>>,
    ) -> Result<Response<Chunks>, Status> {
        use exec_request::Message;
        let mut requests = request.into_inner();
        let Some(Message::Open(open)) = requests.message().await?.unwrap().message else {
            return Err(Status::invalid_argument("not opened"));
        };
        self.note(format!("exec {:?} {:?}", open.command, open.env), &open.request_id);
        self.find(&open.container)?;
        if let Some(status) = self.refused() {
            return Err(status);
        }
        let opened = Opened { id: ID.to_owned(), exec_id: "x".to_owned(), tty: open.tty };
        let (sender, response) = self.session(opened);
        tokio::spawn(async move {
            while let Ok(Some(ExecRequest { message: Some(message) })) = requests.message().await {
                let sent = match message {
                    Message::Stdin(bytes) => Sent::Stdin(bytes),
                    Message::Resize(size) => Sent::Resize(size),
                    Message::CloseStdin(_) => Sent::Close,
                    Message::Open(_) => panic!("opened twice"),
                };
                if sender.send(sent).await.is_err() {
                    break;
                }
            }
        });
        Ok(response)
    }

    async fn exec_detached(
        &self,
        request: Request<ExecOpen>,
    ) -> Result<Response<ExecDetachedResponse>, Status> {
        let open = request.into_inner();
        self.note(format!("exec detached {:?}", open.command), &open.request_id);
        Ok(Response::new(ExecDetachedResponse { exec_id: "x".to_owned() }))
    }

    async fn resize(
        &self,
        _request: Request<ResizeRequest>,
    ) -> Result<Response<ResizeResponse>, Status> {
        Ok(Response::new(ResizeResponse {}))
    }

    async fn logs(
        &self,
        request: Request<LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        self.find(&request.container)?;
        self.book().log_requests.push(request);
        let mut book = self.book();
        let records = book.logs.pop_front().unwrap_or_default();
        let breaks = !book.logs.is_empty();
        Ok(Response::new(broken_after(records, breaks)))
    }
}
