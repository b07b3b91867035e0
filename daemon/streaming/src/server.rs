//! The HTTP/1.1 server, up to the point where a connection is no HTTP any more.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::handshake::{Agreed, Refused, agree};
use crate::limits::{MAX_CONNECTIONS, MAX_OUTSTANDING, MAX_REQUEST_BYTES};
use crate::peer::Peer;
use crate::request::{Invalid, Kind, Request};
use crate::runtime::Runtime;
use crate::session::Session;
use crate::tls::{self, Tls};
use crate::tokens::Tokens;

/// How the server is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. With port 0 the kernel chooses one.
    pub address: SocketAddr,
    /// The host of URLs, if it is not that of `address`: a name or an address, IPv6 without brackets.
    pub host: Option<String>,
    pub tls: Option<Tls>,
    /// A session on which nothing comes or goes for that long ends.
    pub idle: Duration,
    /// For everything that a client has to do before its session begins.
    pub creation: Duration,
    /// At a time; more wait to be accepted. Each takes two descriptors, and what its session asks for.
    pub connections: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            host: None,
            tls: None,
            idle: Duration::from_secs(4 * 60 * 60),
            creation: Duration::from_secs(30),
            connections: MAX_CONNECTIONS,
        }
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("can't listen on {address} for streams: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{path}: {problem}: streams are to be served over TLS")]
    Tls { path: PathBuf, problem: String },
}

/// Why there is no URL for a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("{MAX_OUTSTANDING} requests wait for their clients already: try again in a minute")]
    TooManyOutstanding,
}

/// A server that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    base: String,
    tokens: Arc<Mutex<Tokens>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Listens and serves, on the runtime of the caller.
    ///
    /// # Errors
    ///
    /// When the address can't be had, or the certificate or key can't be read.
    pub async fn start<R: Runtime>(config: Config, runtime: Arc<R>) -> Result<Server, StartError> {
        let acceptor = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let address = config.address;
        let failed = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let base = match &config.host {
            Some(host) if host.contains(':') => format!("{scheme}://[{host}]:{}", address.port()),
            Some(host) => format!("{scheme}://{host}:{}", address.port()),
            None => format!("{scheme}://{address}"),
        };
        let tokens = Arc::new(Mutex::new(Tokens::default()));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let doors = Arc::new(Doors {
            runtime,
            tokens: tokens.clone(),
            stop: stop.clone(),
            tasks: tasks.clone(),
            idle: config.idle,
            creation: config.creation,
        });
        let places = Arc::new(Semaphore::new(config.connections));
        tasks.spawn(doors.listen(listener, acceptor, places));
        Ok(Server { address, base, tokens, stop, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL by which a client gets what it has asked for: once, within a minute.
    ///
    /// # Errors
    ///
    /// When the request can't be, or too many wait.
    pub fn url_for(&self, request: Request) -> Result<String, Refusal> {
        request.check()?;
        let kind = request.kind();
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let token = tokens.put(request, Instant::now());
        let token = token.map_err(|_full| Refusal::TooManyOutstanding)?;
        Ok(format!("{}/{}/{token}", self.base, kind.name()))
    }

    /// Ends all sessions, each of which is told, and waits until they have ended.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What is behind the address.
struct Doors<R> {
    runtime: Arc<R>,
    tokens: Arc<Mutex<Tokens>>,
    stop: CancellationToken,
    tasks: TaskTracker,
    idle: Duration,
    creation: Duration,
}

impl<R: Runtime> Doors<R> {
    async fn listen(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Option<tls::Acceptor>,
        places: Arc<Semaphore>,
    ) {
        loop {
            let accepted = async {
                let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
                let (stream, _) = listener.accept().await?;
                let peer = prepare(&stream)?;
                Ok::<_, io::Error>((stream, peer, place))
            };
            let accepted = tokio::select! {
                accepted = accepted => accepted,
                () = self.stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer, place)) => {
                    let connection = self.clone().connection(stream, peer, place, tls.clone());
                    self.tasks.spawn(connection);
                }
                Err(error) => {
                    // Without descriptors there is nothing to be done but to wait for some.
                    tracing::warn!(%error, "a client could not be let in");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: Peer,
        place: OwnedSemaphorePermit,
        tls: Option<tls::Acceptor>,
    ) {
        let place = Arc::new(place);
        let (stop, creation) = (self.stop.clone(), self.creation);
        let served = async move {
            match tls {
                None => self.http(stream, peer, place).await,
                Some(tls) => match tokio::time::timeout(creation, tls.accept(stream)).await {
                    Ok(Ok(stream)) => self.http(stream, peer, place).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                },
            }
        };
        tokio::select! {
            () = served => {}
            () = stop.cancelled() => {}
        }
    }

    async fn http<Io>(self: Arc<Self>, io: Io, peer: Peer, place: Arc<OwnedSemaphorePermit>)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let creation = self.creation;
        let service = service_fn(move |request| {
            let answer = self.answer(request, &peer, &place);
            async move { Ok::<_, Infallible>(answer) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(creation)
            .max_buf_size(MAX_REQUEST_BYTES)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a request was none");
        }
    }

    fn answer(
        self: &Arc<Self>,
        mut request: hyper::Request<Incoming>,
        peer: &Peer,
        place: &Arc<OwnedSemaphorePermit>,
    ) -> Response<Full<Bytes>> {
        let Some((kind, token)) = parse(request.uri().path()) else { return unknown() };
        if request.method() != Method::GET && request.method() != Method::POST {
            let allowed = (hyper::header::ALLOW, HeaderValue::from_static("GET, POST"));
            let message = "a stream is asked for with GET or POST";
            return response(StatusCode::METHOD_NOT_ALLOWED, &[allowed], message);
        }
        // First the protocol: a token is not lost with a request that could not have been served.
        let Agreed { protocol, headers } = match agree(kind, request.method(), request.headers()) {
            Ok(agreed) => agreed,
            Err(Refused { status, headers, message }) => {
                return response(status, &headers, &message);
            }
        };
        let taken = {
            let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.take(token, kind, Instant::now())
        };
        let Some(asked) = taken else { return unknown() };
        let session = Session {
            runtime: self.runtime.clone(),
            peer: peer.clone(),
            idle: self.idle,
            creation: self.creation,
            stop: self.stop.clone(),
        };
        let (creation, place) = (self.creation, place.clone());
        let upgraded = hyper::upgrade::on(&mut request);
        self.tasks.spawn(async move {
            let _place = place;
            match tokio::time::timeout(creation, upgraded).await {
                Ok(Ok(io)) => session.run(protocol, asked, io).await,
                Ok(Err(error)) => tracing::debug!(%error, "a connection could not be upgraded"),
                Err(_) => tracing::debug!("the upgrade of a connection took too long"),
            }
        });
        response(StatusCode::SWITCHING_PROTOCOLS, &headers, "")
    }
}

/// Small pieces go at once, and a client whose machine has gone is noticed.
fn prepare(stream: &TcpStream) -> io::Result<Peer> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))?;
    Peer::of(stream)
}

/// `/KIND/TOKEN`
fn parse(path: &str) -> Option<(Kind, &str)> {
    let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
    Some((Kind::named(kind)?, token))
}

fn unknown() -> Response<Full<Bytes>> {
    let message = "there is nothing here: a stream's URL works once, within a minute";
    response(StatusCode::NOT_FOUND, &[], message)
}

fn response(
    status: StatusCode,
    headers: &[(HeaderName, HeaderValue)],
    message: &str,
) -> Response<Full<Bytes>> {
    let mut body = message.to_owned();
    if !body.is_empty() {
        body.push('\n');
    }
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    for (name, value) in headers {
        response.headers_mut().append(name.clone(), value.clone());
    }
    response
}
