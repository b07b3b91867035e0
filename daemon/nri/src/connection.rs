//! A connection to a plugin: calls of it, and its calls of us.
//!
//! ```text
//!   calls ──▶ queue ──▶ writer ──▶ socket ──▶ reader ──┬─▶ answers, by their stream
//!   answers of ours ──▶ ┘                              └─▶ calls of the plugin
//! ```
//!
//! Messages are written whole by one task, so a caller that goes away leaves nothing half written. A
//! connection on which anything is not as it should be is closed, and with it all calls.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use shim_wire::ttrpc::{self, Code, Kind, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use crate::mux;

/// Messages that wait to be written. Calls are made one after another, so it is never full of them.
const QUEUE: usize = 16;

/// Calls of the plugin that wait; more are refused.
const CALLS: usize = 16;

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error("its connection is closed")]
    Closed,
    #[error("it did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("{message}")]
    Refused { code: Code, message: String },
    #[error("its answer can't be read: {0}")]
    Malformed(String),
    #[error("a message of {0} bytes is too long")]
    TooLong(usize),
}

impl CallError {
    /// Whether the plugin is of no more use.
    pub(crate) fn is_fatal(&self) -> bool {
        match self {
            Self::Closed | Self::TimedOut(_) | Self::Malformed(_) => true,
            Self::Refused { .. } | Self::TooLong(_) => false,
        }
    }
}

/// A call of the plugin's.
#[derive(Debug)]
pub(crate) struct Incoming {
    stream: u32,
    pub(crate) service: String,
    pub(crate) method: String,
    pub(crate) payload: Vec<u8>,
}

type Waiting = Arc<Mutex<Option<HashMap<u32, oneshot::Sender<Response>>>>>;

/// Bytes to be written whole, and whom to tell when they are.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    written: Option<oneshot::Sender<()>>,
}

impl From<Vec<u8>> for Piece {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, written: None }
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    queue: mpsc::Sender<Piece>,
    next_stream: AtomicU32,
    /// `None` once the connection has ended.
    waiting: Waiting,
    closed: Arc<watch::Sender<bool>>,
}

impl Connection {
    /// Takes a socket over; the second is what the plugin asks for.
    pub(crate) fn open(socket: UnixStream) -> (Arc<Self>, mpsc::Receiver<Incoming>) {
        let (reader, writer) = socket.into_split();
        let (queue, queued) = mpsc::channel(QUEUE);
        let (calls, incoming) = mpsc::channel(CALLS);
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let closed = Arc::new(watch::Sender::new(false));
        let connection = Arc::new(Self {
            queue: queue.clone(),
            next_stream: AtomicU32::new(1),
            waiting: Arc::clone(&waiting),
            closed: Arc::clone(&closed),
        });
        let reading = read(reader, Arc::clone(&waiting), calls, queue);
        let ended = closed.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = reading => {}
                () = write(writer, queued) => {}
                () = closing(ended) => {}
            }
            // Dropping the senders tells every caller, dropping the halves the plugin.
            *lock(&waiting) = None;
            closed.send_replace(true);
        });
        (connection, incoming)
    }

    /// Calls a method of the plugin's.
    pub(crate) async fn call<Q: Message, A: Message + Default>(
        &self,
        service: &str,
        method: &str,
        request: &Q,
        deadline: Duration,
    ) -> Result<A, CallError> {
        let message = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            timeout_nano: i64::try_from(deadline.as_nanos()).unwrap_or(i64::MAX),
            metadata: Vec::new(),
        };
        let length = message.encoded_len();
        if length > ttrpc::MAX_MESSAGE {
            return Err(CallError::TooLong(length));
        }
        let stream = self.next_stream.fetch_add(2, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        match &mut *lock(&self.waiting) {
            None => return Err(CallError::Closed),
            Some(waiting) => {
                waiting.insert(stream, answer);
            }
        }
        // Whatever way this call ends, its place in the table is given back.
        let _forget = Forget { waiting: &self.waiting, stream };
        let exchange = async {
            let piece = encoded(mux::PLUGIN, Kind::Request, stream, &message);
            self.queue.send(piece.into()).await.map_err(|_| CallError::Closed)?;
            answered.await.map_err(|_| CallError::Closed)
        };
        let exchanged = tokio::time::timeout(deadline, exchange).await;
        let response = exchanged.map_err(|_| CallError::TimedOut(deadline))??;
        if let Some(status) = response.status
            && status.code != 0
        {
            let code = Code::try_from(status.code).unwrap_or(Code::Unknown);
            return Err(CallError::Refused { code, message: status.message });
        }
        A::decode(response.payload.as_slice())
            .map_err(|error| CallError::Malformed(error.to_string()))
    }

    /// Answers a call of the plugin's, and waits until that is written: the connection may be closed then.
    pub(crate) async fn answer(&self, call: &Incoming, response: &Response) {
        let bytes = encoded(mux::RUNTIME, Kind::Response, call.stream, response);
        let (written, done) = oneshot::channel();
        // One that has gone needs no answer.
        if self.queue.send(Piece { bytes, written: Some(written) }).await.is_ok() {
            let _ = done.await;
        }
    }

    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits until it is closed, by whom ever.
    pub(crate) async fn closed(&self) {
        closing(self.closed.subscribe()).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

async fn closing(mut closed: watch::Receiver<bool>) {
    // Without a sender there is no connection either.
    let _ = closed.wait_for(|closed| *closed).await;
}

struct Forget<'a> {
    waiting: &'a Waiting,
    stream: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = &mut *lock(self.waiting) {
            waiting.remove(&self.stream);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encoded(connection: u32, kind: Kind, stream: u32, message: &impl Message) -> Vec<u8> {
    let (mut frame, mut pieces) = (Vec::new(), Vec::new());
    ttrpc::encode(&mut frame, kind, stream, message);
    mux::encode(&mut pieces, connection, &frame);
    pieces
}

async fn write(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Piece>) {
    while let Some(piece) = queue.recv().await {
        if let Err(error) = writer.write_all(&piece.bytes).await {
            tracing::debug!(%error, "a plugin can't be written to");
            return;
        }
        // Who waited may have given up.
        let _ = piece.written.map(|written| written.send(()));
    }
}

async fn read(
    mut reader: OwnedReadHalf,
    waiting: Waiting,
    calls: mpsc::Sender<Incoming>,
    answers: mpsc::Sender<Piece>,
) {
    let (mut of_plugin, mut of_runtime) = (Vec::new(), Vec::new());
    loop {
        let mut header = [0; mux::HEADER_LEN];
        if let Err(error) = reader.read_exact(&mut header).await {
            tracing::debug!(%error, "a plugin's connection has ended");
            return;
        }
        let (connection, length) = match mux::head(header) {
            Ok(head) => head,
            Err(length) => {
                tracing::warn!(length, "a plugin's connection is closed: too long a piece");
                return;
            }
        };
        let mut other = Vec::new();
        let bytes = match connection {
            mux::PLUGIN => &mut of_plugin,
            mux::RUNTIME => &mut of_runtime,
            // Of some later version: nobody here listens to it.
            _ => &mut other,
        };
        // Memory grows with what comes, not with what is announced.
        let Ok(most) = u64::try_from(length) else { return };
        match (&mut reader).take(most).read_to_end(bytes).await {
            Ok(read) if read == length => {}
            Ok(_) | Err(_) => return,
        }
        let handed_out = match connection {
            mux::PLUGIN => hand_out_answers(&mut of_plugin, &waiting),
            mux::RUNTIME => match hand_out_calls(&mut of_runtime, &calls) {
                Ok(refused) => {
                    for answer in refused {
                        if answers.send(answer.into()).await.is_err() {
                            return;
                        }
                    }
                    Ok(())
                }
                Err(error) => Err(error),
            },
            _ => Ok(()),
        };
        if let Err(error) = handed_out {
            tracing::warn!(%error, "a plugin's connection is closed");
            return;
        }
    }
}

fn hand_out_answers(buffer: &mut Vec<u8>, waiting: &Waiting) -> Result<(), ttrpc::InvalidFrame> {
    while let Some(frame) = ttrpc::decode(buffer)? {
        let caller = match frame.kind {
            Kind::Request => None,
            Kind::Response => lock(waiting).as_mut().and_then(|map| map.remove(&frame.stream)),
        };
        if let Some(caller) = caller {
            let response = Response::decode(frame.message).unwrap_or_else(|error| {
                Response::error(Code::Internal, format!("an answer that can't be read: {error}"))
            });
            // The caller may have given up.
            let _ = caller.send(response);
        }
        let size = frame.size;
        buffer.drain(..size);
    }
    Ok(())
}

/// Hands calls on, and answers those that can't be.
fn hand_out_calls(
    buffer: &mut Vec<u8>,
    calls: &mpsc::Sender<Incoming>,
) -> Result<Vec<Vec<u8>>, ttrpc::InvalidFrame> {
    let mut refused = Vec::new();
    while let Some(frame) = ttrpc::decode(buffer)? {
        let (stream, size) = (frame.stream, frame.size);
        if frame.kind == Kind::Request {
            let problem = match Request::decode(frame.message) {
                Err(error) => Some((Code::InvalidArgument, error.to_string())),
                Ok(Request { service, method, payload, .. }) => {
                    let call = Incoming { stream, service, method, payload };
                    let full = || "too many calls at once: wait for the answers".to_owned();
                    calls.try_send(call).err().map(|_| (Code::ResourceExhausted, full()))
                }
            };
            if let Some((code, message)) = problem {
                let response = Response::error(code, message);
                refused.push(encoded(mux::RUNTIME, Kind::Response, stream, &response));
            }
        }
        buffer.drain(..size);
    }
    Ok(refused)
}
