//! A daemon whose containers only pretend.
//!
//! Each server has a runtime of its own, so that dropping it tears every connection, as a killed
//! daemon does. What it was asked for is kept, across such deaths.

mod containers;
pub(crate) mod files;
pub(crate) mod images;
mod io;
mod others;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bosun_proto::v1::containers_server::ContainersServer;
use bosun_proto::v1::events_server::EventsServer;
use bosun_proto::v1::files_server::FilesServer;
use bosun_proto::v1::images_server::ImagesServer;
use bosun_proto::v1::io_server::IoServer;
use bosun_proto::v1::snapshots_server::SnapshotsServer;
use bosun_proto::v1::state::Status as State;
use bosun_proto::v1::system_server::SystemServer;
use bosun_proto::v1::*;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Request, Status};

pub(crate) const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// How an attached or executed process behaves.
#[derive(Clone, Debug)]
pub(crate) enum Process {
    /// Writes these, then exits.
    Writes(Vec<output_chunk::Message>, Exit),
    /// Writes what it reads until its input ends, then exits with 0.
    Echoes,
    /// Exits with 128 and the signal's number when it gets one.
    AwaitsSignal,
    /// Writes `WIDTHxHEIGHT` at each resize, and exits with 0 when its input ends or has a `q`.
    ShowsSize,
    /// Can't be started.
    Refuses(Code, &'static str, &'static str),
    /// Writes a line and lives until the daemon dies.
    Lives,
    /// Nothing runs any more: attaching is refused, Wait answers this.
    Ended(u32),
}

pub(crate) fn exit(status: u32) -> Exit {
    Exit { status, ..Exit::default() }
}

pub(crate) fn refusal(code: Code, reason: &'static str, message: &str) -> Status {
    let mut status = Status::new(code, message);
    status.metadata_mut().insert(bosun_proto::REASON_KEY, reason.parse().unwrap());
    status
}

/// What the daemon was asked for and how it is to answer.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Mutating calls, in order: the verb, then what it was about.
    pub(crate) calls: Vec<String>,
    pub(crate) request_ids: Vec<String>,
    pub(crate) namespaces: Vec<String>,
    pub(crate) created: Option<ContainerOptions>,
    pub(crate) containers: Vec<Container>,
    pub(crate) process: Option<Process>,
    /// Answers for the next calls of Stop and Start, one each, before they succeed.
    pub(crate) stop_failures: VecDeque<Status>,
    pub(crate) start_failures: VecDeque<Status>,
    /// Events and log records that a subscriber gets; the stream breaks after each inner list.
    pub(crate) events: VecDeque<Vec<Event>>,
    pub(crate) logs: VecDeque<Vec<LogRecord>>,
    pub(crate) subscriptions: Vec<SubscribeRequest>,
    pub(crate) log_requests: Vec<LogsRequest>,
    pub(crate) signals: VecDeque<String>,
    pub(crate) images: Vec<Image>,
    /// What each pull or push shows; all but the last break off after it.
    pub(crate) progress: VecDeque<Vec<Progress>>,
    pub(crate) pull_failures: VecDeque<Status>,
    pub(crate) auths: Vec<Option<RegistryAuth>>,
    /// What a login is answered with.
    pub(crate) identity_token: String,
    /// What came in, and what goes out, breaking off at its end or not.
    pub(crate) archives: Vec<Vec<u8>>,
    pub(crate) refuses_archives: bool,
    pub(crate) exported: Vec<Vec<u8>>,
    pub(crate) export_breaks: bool,
    /// The files of every container, by absolute path.
    pub(crate) inside: BTreeMap<String, files::Inside>,
    pub(crate) leases: Vec<String>,
    pub(crate) labels: Vec<std::collections::HashMap<String, String>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Fake {
    book: Arc<Mutex<Book>>,
    signalled: Arc<Notify>,
}

impl Fake {
    pub(crate) fn acting(process: Process) -> Self {
        let fake = Self::default();
        fake.book().process = Some(process);
        fake
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    fn note(&self, call: String, request_id: &str) {
        let mut book = self.book();
        book.calls.push(call);
        book.request_ids.push(request_id.to_owned());
    }

    fn find(&self, name: &str) -> Result<Container, Status> {
        let book = self.book();
        let mut found = book.containers.iter().filter(|one| one.id == name || one.name == name);
        found.next().cloned().ok_or_else(|| {
            refusal(Code::NotFound, "NO_SUCH_CONTAINER", &format!("no such container: {name}"))
        })
    }

    /// Waits until the book says so.
    pub(crate) fn wait_until(&self, what: impl Fn(&Book) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !what(&self.book()) {
            assert!(Instant::now() < end, "not in time: {:?}", self.book());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A container that runs under this name.
pub(crate) fn running(name: &str) -> Container {
    let now = std::time::SystemTime::now();
    Container {
        id: ID.to_owned(),
        name: name.to_owned(),
        created_at: Some(now.into()),
        options: Some(ContainerOptions {
            base: Some(container_options::Base::Rootfs("/".to_owned())),
            stdin: true,
            ..ContainerOptions::default()
        }),
        state: Some(bosun_proto::v1::State {
            status: State::Running.into(),
            pid: 4242,
            started_at: Some(now.into()),
            ..bosun_proto::v1::State::default()
        }),
        network: Some(NetworkStatus {
            address: "172.30.0.2".to_owned(),
            ports: vec![Port { host_port: 8000, container_port: 8000, ..Port::default() }],
            ..NetworkStatus::default()
        }),
        args: vec!["sleep".to_owned(), "1".to_owned()],
        ..Container::default()
    }
}

/// A daemon on a socket. Dropping it is a kill -9: connections tear, the socket file stays.
#[derive(Debug)]
pub(crate) struct Daemon {
    runtime: Option<Runtime>,
    pub(crate) socket: PathBuf,
}

impl Daemon {
    pub(crate) fn serve(fake: &Fake, socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let _ = std::fs::remove_file(socket);
        let _context = runtime.enter();
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let namespaces = fake.clone();
        let record = move |request: Request<()>| {
            let namespace = request.metadata().get(bosun_proto::NAMESPACE_KEY);
            let namespace = namespace.and_then(|value| value.to_str().ok()).unwrap_or("absent");
            namespaces.book().namespaces.push(namespace.to_owned());
            if let Some(lease) = request.metadata().get(bosun_proto::LEASE_KEY) {
                namespaces.book().leases.push(lease.to_str().unwrap().to_owned());
            }
            Ok(request)
        };
        let server = tonic::transport::Server::builder()
            .layer(tonic::service::InterceptorLayer::new(record))
            .add_service(ContainersServer::new(fake.clone()))
            .add_service(IoServer::new(fake.clone()))
            .add_service(ImagesServer::new(fake.clone()))
            .add_service(FilesServer::new(fake.clone()))
            .add_service(SnapshotsServer::new(fake.clone()))
            .add_service(EventsServer::new(fake.clone()))
            .add_service(SystemServer::new(fake.clone()))
            .serve_with_incoming(UnixListenerStream::new(listener));
        runtime.spawn(server);
        Self { runtime: Some(runtime), socket: socket.to_owned() }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A daemon with a directory of its own.
pub(crate) fn start(fake: &Fake) -> (Daemon, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Daemon::serve(fake, &dir.path().join("d.sock")), dir)
}

/// A stream of these, which then ends or, as when the daemon stops, breaks.
fn broken_after<T: Send + 'static>(
    items: Vec<T>,
    breaks: bool,
) -> std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send + 'static>> {
    let end = breaks.then(|| Err(Status::unavailable("bosund is stopping")));
    Box::pin(tokio_stream::iter(items.into_iter().map(Ok).chain(end)))
}
