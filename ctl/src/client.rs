//! The connection to bosund: address, namespace, deadlines, and the second try after a restart.
//!
//! Connects when first needed and only to unix sockets. A call whose connection broke is made again
//! with the same message, and so with the same `request_id`, for [`RETRY_FOR`]: the daemon then
//! answers with what it had already done. A first connection that fails is not tried again: the
//! user is to be told at once.

use std::error::Error as _;
use std::future::Future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bosun_proto::v1::containers_client::ContainersClient;
use bosun_proto::v1::content_client::ContentClient;
use bosun_proto::v1::events_client::EventsClient;
use bosun_proto::v1::files_client::FilesClient;
use bosun_proto::v1::images_client::ImagesClient;
use bosun_proto::v1::io_client::IoClient;
use bosun_proto::v1::leases_client::LeasesClient;
use bosun_proto::v1::sandboxes_client::SandboxesClient;
use bosun_proto::v1::snapshots_client::SnapshotsClient;
use bosun_proto::v1::system_client::SystemClient;
use bosun_proto::v1::{Container, GetRequest};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::error::{Error, reason};
use crate::flags::FlagError;

/// Where bosund listens when nothing else is said.
pub(crate) const DEFAULT_ADDRESS: &str = "unix:///run/bosun/bosun.sock";

/// Between two tries to get into a queue that is full.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// How long a broken connection is tried again.
pub(crate) const RETRY_FOR: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Lists of ten thousand containers fit.
const MESSAGE_MAX_LEN: usize = 64 << 20;
const STREAM_WINDOW: u32 = 1 << 20;

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Deadline {
    /// Reads.
    Short,
    /// What starts or ends processes.
    Long,
    /// [`Deadline::Long`], and what the call itself is asked to wait.
    LongAfter(Duration),
    /// Waits for a container's end.
    Never,
}

impl Deadline {
    fn duration(self) -> Option<Duration> {
        const LONG: Duration = Duration::from_secs(60);
        match self {
            Self::Short => Some(Duration::from_secs(15)),
            Self::Long => Some(LONG),
            Self::LongAfter(wait) => Some(LONG.saturating_add(wait)),
            Self::Never => None,
        }
    }
}

/// A unix socket's address: `unix:///PATH`, or the path alone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Address(PathBuf);

impl FromStr for Address {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if path.contains("://") {
            return Err(FlagError::AddressScheme(text.to_owned()));
        }
        // A socket's path has 107 bytes (unix(7)).
        if !Path::new(path).is_absolute() || path.len() > 107 {
            return Err(FlagError::Address(text.to_owned()));
        }
        Ok(Self(PathBuf::from(path)))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unix://{}", self.0.display())
    }
}

/// A namespace that can travel as metadata.
#[derive(Clone, Debug)]
pub(crate) struct Namespace(MetadataValue<Ascii>);

impl Namespace {
    pub(crate) fn as_str(&self) -> &str {
        // Made of a str.
        self.0.to_str().unwrap_or_default()
    }
}

impl FromStr for Namespace {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let bad = || FlagError::Namespace(text.to_owned());
        if text.is_empty() {
            return Err(bad());
        }
        text.parse().map(Self).map_err(|_| bad())
    }
}

/// A lease's id that can travel as metadata.
#[derive(Clone, Debug)]
pub(crate) struct LeaseId(MetadataValue<Ascii>);

impl LeaseId {
    pub(crate) fn as_str(&self) -> &str {
        // Made of a str.
        self.0.to_str().unwrap_or_default()
    }
}

impl FromStr for LeaseId {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let bad = || FlagError::Lease(text.to_owned());
        if text.is_empty() {
            return Err(bad());
        }
        text.parse().map(Self).map_err(|_| bad())
    }
}

/// The daemon, connected to when first asked.
#[derive(Debug)]
pub(crate) struct Client {
    address: Address,
    namespace: Namespace,
    /// Holds what the calls make.
    lease: Option<LeaseId>,
    channel: Mutex<Option<Channel>>,
}

/// What a failed call means for the caller.
enum Failure {
    /// The connection broke, or the daemon is on its way out.
    Gone(Status),
    Refused(Status),
}

impl Client {
    pub(crate) fn new(address: Address, namespace: Namespace, lease: Option<LeaseId>) -> Self {
        Self { address, namespace, lease, channel: Mutex::new(None) }
    }

    /// Whether a lease holds what the calls make.
    pub(crate) fn has_lease(&self) -> bool {
        self.lease.is_some()
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Makes a unary call, again when the daemon restarts under it.
    pub(crate) async fn call<T, R, F, Fut>(
        &self,
        deadline: Deadline,
        message: T,
        method: F,
    ) -> Result<R, Error>
    where
        T: Clone,
        F: Fn(Channel, Request<T>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let mut channel = self.connect().await?;
        let mut broken: Option<Instant> = None;
        loop {
            let request = self.request(message.clone(), deadline);
            let answer = self.within(deadline, method(channel, request)).await?;
            let status = match answer.map_err(failure) {
                Ok(response) => return Ok(response.into_inner()),
                Err(Failure::Refused(status)) => return Err(self.refused(status, deadline)),
                Err(Failure::Gone(status)) => status,
            };
            let since = *broken.get_or_insert_with(Instant::now);
            channel = self.reconnect(since, status).await?;
        }
    }

    /// Opens a stream. Once: whoever reads it knows how to resume.
    pub(crate) async fn stream<T, R, F, Fut>(&self, message: T, method: F) -> Result<R, Error>
    where
        F: FnOnce(Channel, Request<T>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        self.once(Deadline::Long, message, method).await
    }

    /// Moves bytes in or out, however long it takes. Once, as [`Self::stream`].
    pub(crate) async fn transfer<T, R, F, Fut>(&self, messages: T, method: F) -> Result<R, Error>
    where
        F: FnOnce(Channel, Request<T>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        self.once(Deadline::Never, messages, method).await
    }

    /// Reads a stream to the message that `done` takes as its last. When it breaks it is opened
    /// again with the same message, and so with the same `request_id`: the daemon goes on without us
    /// and lets us join. No deadline.
    pub(crate) async fn joined<T, M, D, F, Fut>(
        &self,
        message: T,
        method: F,
        mut done: impl FnMut(M) -> Result<Option<D>, Error>,
    ) -> Result<D, Error>
    where
        T: Clone,
        F: Fn(Channel, Request<T>) -> Fut,
        Fut: Future<Output = Result<Response<Streaming<M>>, Status>>,
    {
        let mut broken: Option<Instant> = None;
        loop {
            let status = match self.transfer(message.clone(), &method).await {
                Err(Error::Lost { status, .. }) => *status,
                Err(error) => return Err(error),
                Ok(mut stream) => loop {
                    match stream.message().await {
                        Ok(Some(message)) => {
                            broken = None;
                            if let Some(last) = done(message)? {
                                return Ok(last);
                            }
                        }
                        Ok(None) => return Err(self.bad_answer("saying what came of it")),
                        Err(status) => break self.stream_broke(status)?,
                    }
                },
            };
            let since = *broken.get_or_insert_with(Instant::now);
            self.reconnect(since, status).await?;
        }
    }

    async fn once<T, R, F, Fut>(&self, answer: Deadline, message: T, method: F) -> Result<R, Error>
    where
        F: FnOnce(Channel, Request<T>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let channel = self.connect().await?;
        let request = self.request(message, Deadline::Never);
        match self.within(answer, method(channel, request)).await?.map_err(failure) {
            Ok(response) => Ok(response.into_inner()),
            Err(Failure::Refused(status)) => Err(self.refused(status, answer)),
            Err(Failure::Gone(status)) => {
                self.forget();
                Err(Error::Lost { address: self.address(), status: Box::new(status) })
            }
        }
    }

    /// Reads one container, by whatever names it.
    pub(crate) async fn get(&self, container: &str) -> Result<Container, Error> {
        let request = GetRequest { container: container.to_owned() };
        self.call(Deadline::Short, request, |channel, request| async move {
            containers(channel).get(request).await
        })
        .await
    }

    /// An answer lacks what the API promises.
    pub(crate) fn bad_answer(&self, missing: &'static str) -> Error {
        Error::BadAnswer { address: self.address(), missing }
    }

    /// Sorts a stream's failure: `Ok` when the connection broke and resuming makes sense.
    pub(crate) fn stream_broke(&self, status: Status) -> Result<Status, Error> {
        match failure(status) {
            Failure::Gone(status) => {
                self.forget();
                Ok(status)
            }
            Failure::Refused(status) => Err(Error::Refused(Box::new(status))),
        }
    }

    /// The error of a stream that can't be resumed.
    pub(crate) fn stream_failed(&self, what: &str, status: Status) -> Error {
        match self.stream_broke(status) {
            Ok(status) => Error::StreamLost { what: what.to_owned(), status: Box::new(status) },
            Err(refused) => refused,
        }
    }

    /// Connects again, until [`RETRY_FOR`] after `since`.
    pub(crate) async fn reconnect(&self, since: Instant, status: Status) -> Result<Channel, Error> {
        self.forget();
        while since.elapsed() < RETRY_FOR {
            tokio::time::sleep(RETRY_PAUSE).await;
            if let Ok(channel) = self.connect().await {
                return Ok(channel);
            }
        }
        Err(Error::Lost { address: self.address(), status: Box::new(status) })
    }

    async fn connect(&self) -> Result<Channel, Error> {
        let known = self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(channel) = known {
            return Ok(channel);
        }
        let unreachable = |source| Error::Unreachable { address: self.address(), source };
        let socket = self.socket().await.map_err(unreachable)?;
        let channel = over(socket).await.map_err(|source| unreachable(io::Error::other(source)))?;
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel.clone());
        Ok(channel)
    }

    /// A connection of the socket. When those who asked before are so many that the kernel keeps no more
    /// of them (connect(2), EAGAIN), it is asked again.
    async fn socket(&self) -> io::Result<UnixStream> {
        let since = Instant::now();
        loop {
            match UnixStream::connect(&self.address.0).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if since.elapsed() >= RETRY_FOR {
                        return Err(error);
                    }
                    tokio::time::sleep(QUEUE_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    fn forget(&self) {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn request<T>(&self, message: T, deadline: Deadline) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(bosun_proto::NAMESPACE_KEY, self.namespace.0.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert(bosun_proto::LEASE_KEY, lease.0.clone());
        }
        if let Some(duration) = deadline.duration() {
            request.set_timeout(duration);
        }
        request
    }

    async fn within<T>(
        &self,
        deadline: Deadline,
        call: impl Future<Output = T>,
    ) -> Result<T, Error> {
        match deadline.duration() {
            Some(after) => tokio::time::timeout(after, call)
                .await
                .map_err(|_| Error::NoAnswer { address: self.address(), after }),
            None => Ok(call.await),
        }
    }

    fn refused(&self, status: Status, deadline: Deadline) -> Error {
        match (status.code(), status.source().is_some(), deadline.duration()) {
            // Our own timer, wherever tonic keeps it.
            (Code::DeadlineExceeded | Code::Cancelled, true, Some(after)) => {
                Error::NoAnswer { address: self.address(), after }
            }
            _ => Error::Refused(Box::new(status)),
        }
    }
}

/// A status that has a source was made on this side: the daemon did not say it. With a reason it is
/// something else that is unavailable, a registry for example.
fn failure(status: Status) -> Failure {
    let ours = status.source().is_some();
    let torn = ours && matches!(status.code(), Code::Unknown | Code::Internal);
    if torn || (status.code() == Code::Unavailable && reason(&status).is_none()) {
        Failure::Gone(status)
    } else {
        Failure::Refused(status)
    }
}

/// An HTTP/2 connection over this one socket; it is not made again by itself.
async fn over(socket: UnixStream) -> Result<Channel, tonic::transport::Error> {
    let mut once = Some(TokioIo::new(socket));
    Endpoint::from_static("http://bosund")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW)
        .connect_with_connector(tower::service_fn(move |_| {
            let socket = once.take().ok_or(io::ErrorKind::NotConnected);
            async move { socket.map_err(io::Error::from) }
        }))
        .await
}

pub(crate) fn containers(channel: Channel) -> ContainersClient<Channel> {
    ContainersClient::new(channel).max_decoding_message_size(MESSAGE_MAX_LEN)
}

pub(crate) fn io(channel: Channel) -> IoClient<Channel> {
    IoClient::new(channel)
}

pub(crate) fn images(channel: Channel) -> ImagesClient<Channel> {
    ImagesClient::new(channel).max_decoding_message_size(MESSAGE_MAX_LEN)
}

pub(crate) fn files(channel: Channel) -> FilesClient<Channel> {
    FilesClient::new(channel).max_decoding_message_size(MESSAGE_MAX_LEN)
}

pub(crate) fn snapshots(channel: Channel) -> SnapshotsClient<Channel> {
    SnapshotsClient::new(channel).max_decoding_message_size(MESSAGE_MAX_LEN)
}

pub(crate) fn content(channel: Channel) -> ContentClient<Channel> {
    ContentClient::new(channel).max_decoding_message_size(MESSAGE_MAX_LEN)
}

pub(crate) fn sandboxes(channel: Channel) -> SandboxesClient<Channel> {
    SandboxesClient::new(channel).max_decoding_message_size(MESSAGE_MAX_LEN)
}

pub(crate) fn leases(channel: Channel) -> LeasesClient<Channel> {
    LeasesClient::new(channel).max_decoding_message_size(MESSAGE_MAX_LEN)
}

pub(crate) fn events(channel: Channel) -> EventsClient<Channel> {
    EventsClient::new(channel)
}

pub(crate) fn system(channel: Channel) -> SystemClient<Channel> {
    SystemClient::new(channel)
}

/// A new `request_id`: 128 random bits in hex.
pub(crate) fn request_id() -> Result<String, Error> {
    let path = Path::new("/dev/urandom");
    let mut bits = [0_u8; 16];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut bits))
        .map_err(|source| Error::File { step: "read", path: path.to_owned(), source })?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unix_urls_or_paths() {
        for (text, path) in [("unix:///a/b.sock", "/a/b.sock"), ("/a/b.sock", "/a/b.sock")] {
            assert_eq!(text.parse::<Address>().unwrap().0, PathBuf::from(path), "{text}");
        }
        for text in ["tcp://1.2.3.4:5", "b.sock", "unix://b.sock", "", &"/x".repeat(60)] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn request_ids_are_new_each_time() {
        let id = request_id().unwrap();
        assert_eq!(id.len(), 32);
        assert_ne!(id, request_id().unwrap());
    }

    #[test]
    fn a_refusal_of_the_daemons_is_not_a_broken_connection() {
        let own = |code, text: &str| {
            let mut status = Status::new(code, text);
            status.set_source(std::sync::Arc::new(io::Error::other("torn")));
            status
        };
        let with_reason = |reason: &'static str| {
            let mut status = Status::unavailable("the registry is down");
            status.metadata_mut().insert(bosun_proto::REASON_KEY, reason.parse().unwrap());
            status
        };
        for (status, gone) in [
            (Status::new(Code::Unavailable, "draining"), true),
            (Status::new(Code::Internal, "disk full"), false),
            (Status::new(Code::Unknown, "what"), false),
            (own(Code::Unknown, "broken pipe"), true),
            (own(Code::Internal, "h2"), true),
            (own(Code::Cancelled, "timeout"), false),
            (with_reason("REGISTRY_UNAVAILABLE"), false),
        ] {
            let text = status.to_string();
            assert_eq!(matches!(failure(status), Failure::Gone(_)), gone, "{text}");
        }
    }
}
