//! A plugin of the Node Resource Interface, as a test wants it to be: what it answers, what it heard.
//!
//! It speaks the protocol by itself, over blocking sockets, so that nothing of the runtime's side checks itself.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use bosun_nri::wire::{
    ConfigureRequest, ConfigureResponse, Empty, RegisterPluginRequest, SynchronizeRequest,
    SynchronizeResponse, UpdateContainersRequest, UpdateContainersResponse,
};
use prost::Message;
use shim_wire::ttrpc::{self, Code, Kind, Request, Response};

/// The numbers of the two connections.
const PLUGIN: u32 = 1;
const RUNTIME: u32 = 2;

const SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";

/// How long a plugin waits for what shall come.
const LIMIT: Duration = Duration::from_secs(60);

/// What becomes of a call.
#[derive(Clone, Debug)]
pub enum Reply {
    Answer(Vec<u8>),
    Refuse(Code, String),
    /// No answer, ever.
    Silence,
    /// It ends its connection.
    HangUp,
}

type Answers = BTreeMap<&'static str, Box<dyn Fn(&[u8]) -> Reply + Send + Sync>>;

/// How a plugin behaves. By itself it takes every event and changes nothing.
#[derive(Default)]
pub struct Script {
    events: i32,
    answers: Answers,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script").field("events", &self.events).finish_non_exhaustive()
    }
}

impl Script {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The events that it subscribes to, by their numbers.
    #[must_use]
    pub fn events(mut self, numbers: &[i32]) -> Self {
        self.events = numbers.iter().fold(0, |mask, number| mask | 1 << (number - 1));
        self
    }

    /// What it answers to a call.
    #[must_use]
    pub fn on<Q: Message + Default, A: Message>(
        self,
        method: &'static str,
        answer: impl Fn(Q) -> Result<A, String> + Send + Sync + 'static,
    ) -> Self {
        self.reply(method, move |payload| {
            let request = Q::decode(payload).expect("a request");
            match answer(request) {
                Ok(answer) => Reply::Answer(answer.encode_to_vec()),
                Err(message) => Reply::Refuse(Code::Unknown, message),
            }
        })
    }

    #[must_use]
    pub fn reply(
        mut self,
        method: &'static str,
        reply: impl Fn(&[u8]) -> Reply + Send + Sync + 'static,
    ) -> Self {
        self.answers.insert(method, Box::new(reply));
        self
    }
}

/// A call that a plugin got.
#[derive(Clone, Debug)]
pub struct Heard {
    pub method: String,
    payload: Vec<u8>,
}

impl Heard {
    /// # Panics
    /// When it is another message.
    #[must_use]
    pub fn message<Q: Message + Default>(&self) -> Q {
        Q::decode(self.payload.as_slice()).expect("a message")
    }
}

#[derive(Debug, Default)]
struct Ears {
    heard: Vec<Heard>,
    closed: bool,
}

struct Shared {
    script: Script,
    socket: UnixStream,
    /// One message is written at a time.
    writing: Mutex<()>,
    ears: Mutex<Ears>,
    news: Condvar,
    waiting: Mutex<BTreeMap<u32, mpsc::Sender<Response>>>,
}

/// A plugin that is connected.
pub struct Plugin {
    shared: Arc<Shared>,
    next: AtomicU32,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").finish_non_exhaustive()
    }
}

impl Plugin {
    /// Connects, registers, and waits until it is synchronized.
    ///
    /// # Panics
    /// When the runtime does not let it in.
    #[must_use]
    pub fn join(socket: &Path, index: &str, name: &str, script: Script) -> Self {
        let plugin = Self::over(UnixStream::connect(socket).expect("a socket"), script);
        plugin.register(index, name).expect("a registration");
        plugin.wait_for("Synchronize", 1);
        plugin
    }

    /// Speaks over a socket.
    ///
    /// # Panics
    /// When the socket is none.
    #[must_use]
    pub fn over(socket: UnixStream, script: Script) -> Self {
        let shared = Arc::new(Shared {
            script,
            socket: socket.try_clone().expect("a socket"),
            writing: Mutex::default(),
            ears: Mutex::default(),
            news: Condvar::new(),
            waiting: Mutex::default(),
        });
        let listening = Arc::clone(&shared);
        std::thread::spawn(move || listen(&listening, socket));
        Self { shared, next: AtomicU32::new(1) }
    }

    /// # Errors
    /// What the runtime says.
    pub fn register(&self, index: &str, name: &str) -> Result<(), String> {
        let request = RegisterPluginRequest {
            plugin_name: name.to_owned(),
            plugin_idx: index.to_owned(),
            nri_version: String::new(),
        };
        self.call::<_, Empty>("RegisterPlugin", &request).map(drop)
    }

    /// # Errors
    /// What the runtime says.
    pub fn update(
        &self,
        request: &UpdateContainersRequest,
    ) -> Result<UpdateContainersResponse, String> {
        self.call("UpdateContainers", request)
    }

    /// Calls the runtime.
    ///
    /// # Errors
    /// What the runtime says; that it says nothing.
    pub fn call<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: &Q,
    ) -> Result<A, String> {
        let stream = self.next.fetch_add(2, Ordering::Relaxed);
        let (answer, answered) = mpsc::channel();
        lock(&self.shared.waiting).insert(stream, answer);
        let request = Request {
            service: SERVICE.to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            ..Request::default()
        };
        self.shared.send(RUNTIME, Kind::Request, stream, &request);
        let response = answered.recv_timeout(LIMIT).map_err(|_| "no answer".to_owned())?;
        match response.status {
            Some(status) if status.code != 0 => Err(status.message),
            _ => A::decode(response.payload.as_slice()).map_err(|error| error.to_string()),
        }
    }

    /// All calls that it got.
    #[must_use]
    pub fn heard(&self) -> Vec<Heard> {
        lock(&self.shared.ears).heard.clone()
    }

    /// The methods of a pod's and a container's life, without the questions of its registration and of what
    /// plugins change.
    #[must_use]
    pub fn methods(&self) -> Vec<String> {
        let others = ["Configure", "Synchronize", "ValidateContainerAdjustment"];
        let life = |heard: &Heard| !others.contains(&heard.method.as_str());
        self.heard().into_iter().filter(life).map(|heard| heard.method).collect()
    }

    /// The calls of one method.
    #[must_use]
    pub fn of<Q: Message + Default>(&self, method: &str) -> Vec<Q> {
        self.heard().iter().filter(|one| one.method == method).map(Heard::message).collect()
    }

    /// Waits until it has got so many calls of a method.
    ///
    /// # Panics
    /// After the time limit.
    #[track_caller]
    pub fn wait_for(&self, method: &str, count: usize) {
        let is_there =
            |ears: &Ears| ears.heard.iter().filter(|one| one.method == method).count() >= count;
        assert!(self.wait(is_there), "{count} times {method}: {:?}", self.methods());
    }

    /// Waits until the runtime has closed its connection.
    ///
    /// # Panics
    /// After the time limit.
    #[track_caller]
    pub fn wait_closed(&self) {
        assert!(self.wait(|ears| ears.closed), "it is not closed: {:?}", self.methods());
    }

    fn wait(&self, until: impl Fn(&Ears) -> bool) -> bool {
        let deadline = Instant::now() + LIMIT;
        let mut ears = lock(&self.shared.ears);
        while !until(&ears) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.news.wait_timeout(ears, left);
            ears = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Bytes that are no message.
    ///
    /// # Panics
    /// When they can't be written.
    pub fn babble(&self, bytes: &[u8]) {
        (&self.shared.socket).write_all(bytes).expect("bytes");
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.shared.socket.shutdown(std::net::Shutdown::Both);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn send(&self, connection: u32, kind: Kind, stream: u32, message: &impl Message) {
        let mut frame = Vec::new();
        ttrpc::encode(&mut frame, kind, stream, message);
        let mut bytes = Vec::new();
        // In small pieces, as some implementations write them.
        for piece in frame.chunks(1000) {
            bytes.extend(connection.to_be_bytes());
            bytes.extend(u32::try_from(piece.len()).expect("a length").to_be_bytes());
            bytes.extend(piece);
        }
        let _turn = lock(&self.writing);
        // A runtime that has gone is seen by the reader.
        let _ = (&self.socket).write_all(&bytes);
    }

    fn answer(&self, stream: u32, method: &str, payload: &[u8]) {
        let reply = match (self.script.answers.get(method), method) {
            (Some(answer), _) => answer(payload),
            (None, "Configure") => {
                ConfigureRequest::decode(payload).expect("a configuration");
                Reply::Answer(ConfigureResponse { events: self.script.events }.encode_to_vec())
            }
            (None, "Synchronize") => {
                let more = SynchronizeRequest::decode(payload).expect("a message").more;
                let answer = SynchronizeResponse { more, ..SynchronizeResponse::default() };
                Reply::Answer(answer.encode_to_vec())
            }
            (None, _) => Reply::Answer(Vec::new()),
        };
        let response = match reply {
            Reply::Answer(payload) => Response { status: None, payload },
            Reply::Refuse(code, message) => Response::error(code, message),
            Reply::Silence => return,
            Reply::HangUp => {
                let _ = self.socket.shutdown(std::net::Shutdown::Both);
                return;
            }
        };
        self.send(PLUGIN, Kind::Response, stream, &response);
    }

    fn note(&self, change: impl FnOnce(&mut Ears)) {
        change(&mut lock(&self.ears));
        self.news.notify_all();
    }
}

fn listen(shared: &Arc<Shared>, mut socket: UnixStream) {
    let mut streams: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    loop {
        let (mut connection, mut length) = ([0; 4], [0; 4]);
        if socket.read_exact(&mut connection).is_err() || socket.read_exact(&mut length).is_err() {
            break;
        }
        let mut piece = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("a length")];
        if socket.read_exact(&mut piece).is_err() {
            break;
        }
        let connection = u32::from_be_bytes(connection);
        let buffer = streams.entry(connection).or_default();
        buffer.extend(piece);
        while let Some(frame) = ttrpc::decode(buffer).expect("a frame") {
            let (stream, size) = (frame.stream, frame.size);
            match (connection, frame.kind) {
                (PLUGIN, Kind::Request) => {
                    let request = Request::decode(frame.message).expect("a request");
                    let (method, payload) = (request.method, request.payload);
                    let heard = Heard { method: method.clone(), payload: payload.clone() };
                    shared.note(|ears| ears.heard.push(heard));
                    let shared = Arc::clone(shared);
                    std::thread::spawn(move || shared.answer(stream, &method, &payload));
                }
                (RUNTIME, Kind::Response) => {
                    let response = Response::decode(frame.message).expect("a response");
                    if let Some(waiting) = lock(&shared.waiting).remove(&stream) {
                        let _ = waiting.send(response);
                    }
                }
                other => panic!("a message on the wrong connection: {other:?}"),
            }
            buffer.drain(..size);
        }
    }
    // Nobody waits for an answer any more.
    lock(&shared.waiting).clear();
    shared.note(|ears| ears.closed = true);
}
