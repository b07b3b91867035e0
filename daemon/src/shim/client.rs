//! The daemon's side of ttrpc: one connection, many calls at once.
//!
//! A task reads answers and hands each to its caller; when the connection ends, every caller learns
//! it. Deliberately absent: reconnecting. A shim that closed its connection is judged by its process
//! and its record, not by trying again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;
use shim_wire::containerd::{CHECKPOINT_OPTIONS, CheckpointOptions};
use shim_wire::exit::Timestamp;
use shim_wire::metrics::{v1, v2};
use shim_wire::plan::{
    CREATE_OPTIONS, CreateOptions, EXEC_OPTIONS, ExecOptions, RESOURCES, Resources,
};
use shim_wire::shim::{self as private, ReleaseRequest, StatusResponse};
use shim_wire::task::{self, Any, Empty};
use shim_wire::ttrpc::{self, Code, Kind, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;

use super::Error;

/// How long a shim has for what needs no disk (see DESIGN: a shim that does not answer in time does
/// not stop a kill).
pub(crate) const SHORT: Duration = Duration::from_secs(2);

/// How long a shim has for building a container or a process.
const LONG: Duration = Duration::from_secs(30);

const TASK: &str = task::SERVICES[0];

/// How a process ended, as the shim announced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exited {
    /// The code, or 128 + the signal; 255 when unknown.
    pub status: u32,
    pub at: Timestamp,
}

/// Statistics, in the message of the machine that they are from.
#[derive(Clone, Debug, PartialEq)]
pub enum Metrics {
    V1(v1::Metrics),
    V2(v2::Metrics),
}

type Pending = Arc<Mutex<Option<HashMap<u32, oneshot::Sender<Response>>>>>;

/// A connection to a shim.
#[derive(Debug)]
pub struct Client {
    id: String,
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    next_stream: AtomicU32,
    /// `None` once the connection has ended.
    pending: Pending,
}

impl Client {
    /// Connects to the shim of container `id`.
    ///
    /// # Errors
    /// [`Error::Io`] when nobody listens there.
    pub async fn connect(id: &str, socket: &Path) -> Result<Self, Error> {
        let stream = tokio::time::timeout(SHORT, UnixStream::connect(socket))
            .await
            .map_err(|_| Error::TimedOut { method: "connect", seconds: SHORT.as_secs() })?
            .map_err(|source| Error::Io { step: "connect", source })?;
        let (reader, writer) = stream.into_split();
        let pending: Pending = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(read_answers(reader, Arc::clone(&pending)));
        Ok(Self {
            id: id.to_owned(),
            writer: tokio::sync::Mutex::new(writer),
            next_stream: AtomicU32::new(1),
            pending,
        })
    }

    /// Builds the container; its process waits before its exec. Answers its pid. `patience` is for
    /// hooks, as in [`Client::start`].
    ///
    /// # Errors
    /// What the container's set-up met, or the transport's.
    pub async fn create(
        &self,
        bundle: &Path,
        options: &CreateOptions,
        patience: Duration,
    ) -> Result<u32, Error> {
        let request = task::CreateTaskRequest {
            id: self.id.clone(),
            bundle: bundle.to_string_lossy().into_owned(),
            terminal: options.terminal,
            options: Some(any(CREATE_OPTIONS, options)),
            ..Default::default()
        };
        let answer: task::CreateTaskResponse =
            self.call(TASK, "Create", &request, Some(LONG + patience)).await?;
        Ok(answer.pid)
    }

    /// Adds a process; it waits before its exec.
    ///
    /// # Errors
    /// What its set-up met, or the transport's.
    pub async fn exec(&self, exec_id: &str, options: &ExecOptions) -> Result<(), Error> {
        let request = task::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            terminal: options.process.as_ref().is_some_and(|process| process.terminal),
            spec: Some(any(EXEC_OPTIONS, options)),
            ..Default::default()
        };
        let _: Empty = self.call(TASK, "Exec", &request, Some(LONG)).await?;
        Ok(())
    }

    /// Lets a process go on to its exec; an empty `exec_id` is the container's first.
    ///
    /// # Errors
    /// What the exec met (not found, not executable), or the transport's.
    pub async fn start(&self, exec_id: &str, patience: Duration) -> Result<u32, Error> {
        let answer: task::StartResponse =
            self.call(TASK, "Start", &self.process(exec_id), Some(LONG + patience)).await?;
        Ok(answer.pid)
    }

    /// Answers when the process has ended.
    ///
    /// # Errors
    /// [`Error::Gone`] when the shim ended first.
    pub async fn wait(&self, exec_id: &str) -> Result<Exited, Error> {
        let answer: task::WaitResponse =
            self.call(TASK, "Wait", &self.process(exec_id), None).await?;
        Ok(Exited { status: answer.exit_status, at: answer.exited_at.unwrap_or_default().into() })
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The shim's refusal, or the transport's.
    pub async fn kill(&self, exec_id: &str, signal: u32, all: bool) -> Result<(), Error> {
        let request =
            task::KillRequest { id: self.id.clone(), exec_id: exec_id.to_owned(), signal, all };
        let _: Empty = self.call(TASK, "Kill", &request, Some(SHORT)).await?;
        Ok(())
    }

    /// Holds every process of the container still.
    ///
    /// # Errors
    /// The shim's refusal, or the transport's.
    pub async fn pause(&self) -> Result<(), Error> {
        let _: Empty = self.call(TASK, "Pause", &self.task(), Some(SHORT)).await?;
        Ok(())
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// The shim's refusal, or the transport's.
    pub async fn resume(&self) -> Result<(), Error> {
        let _: Empty = self.call(TASK, "Resume", &self.task(), Some(SHORT)).await?;
        Ok(())
    }

    /// Has the processes written down by criu; they go on, or stay held.
    ///
    /// # Errors
    /// criu's own words; or the transport's.
    pub async fn checkpoint(
        &self,
        options: &CheckpointOptions,
        within: Duration,
    ) -> Result<(), Error> {
        let request = task::CheckpointTaskRequest {
            id: self.id.clone(),
            path: options.image_path.clone(),
            options: Some(any(CHECKPOINT_OPTIONS, options)),
        };
        let _: Empty = self.call(TASK, "Checkpoint", &request, Some(within)).await?;
        Ok(())
    }

    /// Changes limits: all of them, or none.
    ///
    /// # Errors
    /// Names the limit that the machine does not grant; or the transport's.
    pub async fn update(&self, resources: &Resources) -> Result<(), Error> {
        let request = task::UpdateTaskRequest {
            id: self.id.clone(),
            resources: Some(any(RESOURCES, resources)),
        };
        // The kernel may have to write memory to swap first.
        let _: Empty = self.call(TASK, "Update", &request, Some(LONG)).await?;
        Ok(())
    }

    /// What the container uses and has used.
    ///
    /// # Errors
    /// The shim's refusal, or the transport's; statistics of a kind that nobody knows.
    pub async fn stats(&self) -> Result<Metrics, Error> {
        let method = "Stats";
        let answer: task::StatsResponse =
            self.call(TASK, method, &self.task(), Some(SHORT)).await?;
        let stats = answer.stats.unwrap_or_default();
        let malformed = |problem: String| Error::Malformed { method, problem };
        let bytes = stats.value.as_slice();
        match stats.type_url.as_str() {
            v1::METRICS => v1::Metrics::decode(bytes).map(Metrics::V1),
            v2::METRICS => v2::Metrics::decode(bytes).map(Metrics::V2),
            other => return Err(malformed(format!("statistics of type {other:?}"))),
        }
        .map_err(|error| malformed(error.to_string()))
    }

    /// The processes of the container, by their numbers on the host.
    ///
    /// # Errors
    /// The shim's refusal, or the transport's.
    pub async fn pids(&self) -> Result<Vec<u32>, Error> {
        let answer: task::PidsResponse = self.call(TASK, "Pids", &self.task(), Some(SHORT)).await?;
        Ok(answer.processes.iter().map(|process| process.pid).collect())
    }

    /// Forgets an exec that has ended, or that never began. Answers how it ended.
    ///
    /// # Errors
    /// The shim's refusal, or the transport's.
    pub async fn delete_exec(&self, exec_id: &str) -> Result<Option<Exited>, Error> {
        let answer: task::DeleteResponse =
            self.call(TASK, "Delete", &self.process(exec_id), Some(SHORT)).await?;
        let at = answer.exited_at.unwrap_or_default().into();
        Ok((answer.pid != 0).then_some(Exited { status: answer.exit_status, at }))
    }

    /// Sets the window of a process' terminal.
    ///
    /// # Errors
    /// The shim's refusal, or the transport's.
    pub async fn resize(&self, exec_id: &str, width: u32, height: u32) -> Result<(), Error> {
        let request = task::ResizePtyRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            width,
            height,
        };
        let _: Empty = self.call(TASK, "ResizePty", &request, Some(SHORT)).await?;
        Ok(())
    }

    /// What a daemon that just started asks.
    ///
    /// # Errors
    /// The transport's.
    pub async fn status(&self) -> Result<StatusResponse, Error> {
        self.call(private::SERVICE, "Status", &Empty {}, Some(SHORT)).await
    }

    /// Opens the log by its path again, after somebody has moved the file away.
    ///
    /// # Errors
    /// The path can't be opened: the old file stays in use; or the transport's.
    pub async fn reopen_log(&self) -> Result<(), Error> {
        let _: Empty = self.call(private::SERVICE, "ReopenLog", &Empty {}, Some(SHORT)).await?;
        Ok(())
    }

    /// Acknowledges the exit of a run: the shim may go.
    ///
    /// # Errors
    /// The shim's refusal, or the transport's; [`Error::Gone`] is as good as an answer.
    pub async fn release(&self, attempt: u64) -> Result<(), Error> {
        let request = ReleaseRequest { attempt };
        let _: Empty = self.call(private::SERVICE, "Release", &request, Some(SHORT)).await?;
        Ok(())
    }

    fn task(&self) -> task::TaskRequest {
        task::TaskRequest { id: self.id.clone() }
    }

    fn process(&self, exec_id: &str) -> task::ProcessRequest {
        task::ProcessRequest { id: self.id.clone(), exec_id: exec_id.to_owned() }
    }

    async fn call<Q: Message, A: Message + Default>(
        &self,
        service: &'static str,
        method: &'static str,
        request: &Q,
        deadline: Option<Duration>,
    ) -> Result<A, Error> {
        let stream = self.next_stream.fetch_add(2, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        match &mut *lock(&self.pending) {
            None => return Err(Error::Gone { method }),
            Some(pending) => {
                pending.insert(stream, answer);
            }
        }
        // Whatever way this call ends, its place in the table is given back.
        let _forget = Forget { pending: &self.pending, stream };
        let mut frame = Vec::new();
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            timeout_nano: deadline
                .map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)),
            metadata: Vec::new(),
        };
        ttrpc::encode(&mut frame, Kind::Request, stream, &request);
        let exchange = async {
            self.writer.lock().await.write_all(&frame).await.map_err(|_| Error::Gone { method })?;
            answered.await.map_err(|_| Error::Gone { method })
        };
        let response = match deadline {
            None => exchange.await?,
            Some(time) => tokio::time::timeout(time, exchange)
                .await
                .map_err(|_| Error::TimedOut { method, seconds: time.as_secs() })??,
        };
        if let Some(status) = response.status
            && status.code != 0
        {
            let code = Code::try_from(status.code).unwrap_or(Code::Unknown);
            return Err(Error::Refused { code, message: status.message });
        }
        A::decode(response.payload.as_slice())
            .map_err(|source| Error::Malformed { method, problem: source.to_string() })
    }
}

struct Forget<'a> {
    pending: &'a Pending,
    stream: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(pending) = &mut *lock(self.pending) {
            pending.remove(&self.stream);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn any(type_url: &str, message: &impl Message) -> Any {
    Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}

async fn read_answers(mut reader: OwnedReadHalf, pending: Pending) {
    let mut buffer = Vec::new();
    loop {
        let mut chunk = [0u8; 4096];
        match reader.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(len) => buffer.extend_from_slice(&chunk[..len]),
        }
        if let Err(error) = hand_out(&mut buffer, &pending) {
            tracing::warn!(%error, "a shim's connection is closed");
            break;
        }
    }
    // Dropping the senders tells every caller.
    *lock(&pending) = None;
}

fn hand_out(buffer: &mut Vec<u8>, pending: &Pending) -> Result<(), ttrpc::InvalidFrame> {
    while let Some(frame) = ttrpc::decode(buffer)? {
        let caller = match frame.kind {
            Kind::Request => None,
            Kind::Response => lock(pending).as_mut().and_then(|map| map.remove(&frame.stream)),
        };
        if let Some(caller) = caller {
            let response = Response::decode(frame.message).unwrap_or_else(|source| {
                Response::error(Code::Internal, format!("an answer that can't be read: {source}"))
            });
            // The caller may have given up.
            let _ = caller.send(response);
        }
        let size = frame.size;
        buffer.drain(..size);
    }
    Ok(())
}
