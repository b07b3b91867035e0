//! How much of requests the daemon holds at once, and how many.
//!
//! A message may have 16 MiB, a connection 1024 calls, and there are many connections: the flow
//! control of HTTP/2 bounds what is on its way, not what was taken and waits for its end. So every
//! byte of a message is counted, from its arrival until its call is answered or, on a stream of
//! messages, until the next one begins. A call counts until its answer has been taken, or nobody is there
//! to take it. Whoever brings more than there is room for is told so; the first bytes of a message need no
//! room, and one process has not all places, so that a client that takes everything keeps nobody else out.
//!
//! How much room there is, and how many places, goes by the memory that the daemon may have when it
//! starts: the kernel would end it for what others bring.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{Request, Response};
use tonic::transport::server::UdsConnectInfo;
use tower::{Layer, Service};

use super::layers::Answer;
use super::places::{Place, Places};

/// The most that all messages together may have, in bytes: four of the longest.
const ROOM: usize = 4 * super::MAX_MESSAGE;
/// The least, however little memory there is: what clients ask for has some KiB.
const LEAST_ROOM: usize = 1 << 20;
/// One of so many parts of the daemon's memory is room. A message is there twice while it is parsed, calls
/// themselves take as much again (see [`CALLS`]), and the daemon has its own work.
const SHARE: u64 = 8;

/// Calls where there is [`ROOM`], of which each may have an answer that nobody takes; fewer in less room. A
/// client that waits for each of a thousand containers, and follows each, is far below.
const CALLS: usize = 8192;

/// Bytes of a message that need no room.
const FREE: usize = 16 << 10;

/// So many calls may leave memory behind that is worth looking for.
const CROWD: usize = 64;
/// How long after them.
const SETTLED: Duration = Duration::from_secs(1);

/// Bytes before a message of gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Counts what requests hold.
#[derive(Clone, Debug)]
pub(super) struct Intake {
    /// Bytes that all messages together may have.
    room: usize,
    taken: Arc<AtomicUsize>,
    calls: Arc<Places>,
    crowd: Arc<Crowd>,
}

impl Intake {
    /// For a daemon that may have so many bytes of memory; `None` where nothing limits it.
    pub(super) fn new(memory: Option<u64>) -> Self {
        let room = room(memory);
        let calls = Places::new(CALLS * room / ROOM);
        Self { room, taken: Arc::default(), calls, crowd: Arc::default() }
    }

    /// What is said to whoever brings more, of one call alone or of several.
    fn full(&self, own: usize) -> Status {
        let room = self.room >> 20;
        Status::resource_exhausted(match counted(own) > self.room {
            true => format!(
                "this request alone is longer than the {room} MiB that all may have together: bosund needs more memory for it"
            ),
            false => format!(
                "the requests under way hold {room} MiB, and there is no room for more: try again later"
            ),
        })
    }
}

fn room(memory: Option<u64>) -> usize {
    let share = memory.and_then(|memory| usize::try_from(memory / SHARE).ok());
    share.unwrap_or(ROOM).clamp(LEAST_ROOM, ROOM)
}

/// [`Intake`] around a service.
#[derive(Clone, Debug)]
pub(super) struct Counted<S> {
    inner: S,
    intake: Intake,
}

impl<S> Layer<S> for Intake {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, intake: self.clone() }
    }
}

impl<S> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<UdsConnectInfo>();
        let peer = peer.and_then(|info| info.peer_cred).and_then(|credentials| credentials.pid());
        let Some(place) = self.intake.calls.take(peer) else {
            let problem = format!(
                "{} calls are under way, or as many of yours as may be: try again later",
                self.intake.calls.all()
            );
            return Box::pin(async { Ok(Status::resource_exhausted(problem).into_http()) });
        };
        let call = Call::new(&self.intake.crowd, place);
        let held = Arc::new(Held { intake: self.intake.clone(), bytes: AtomicUsize::new(0) });
        let (parts, body) = request.into_parts();
        let body = Metered { inner: body, held: Arc::clone(&held), framing: Framing::default() };
        let answer = self.inner.call(Request::from_parts(parts, Body::new(body)));
        Box::pin(async move {
            // A message that was read whole is the call's until this has its answer.
            let _held = held;
            let answer = answer.await?;
            Ok(answer.map(|inner| Body::new(Counting { inner, _call: call })))
        })
    }
}

/// How many calls are under way.
#[derive(Debug, Default)]
struct Crowd {
    now: AtomicUsize,
    /// The most that there were since memory was given back.
    peak: AtomicUsize,
}

/// One of them.
#[derive(Debug)]
struct Call {
    crowd: Arc<Crowd>,
    _place: Place,
}

impl Call {
    fn new(crowd: &Arc<Crowd>, place: Place) -> Self {
        let before = crowd.now.fetch_add(1, Ordering::Relaxed);
        crowd.peak.fetch_max(before + 1, Ordering::Relaxed);
        Self { crowd: Arc::clone(crowd), _place: place }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let left = self.crowd.now.fetch_sub(1, Ordering::Relaxed) - 1;
        let peak = self.crowd.peak.load(Ordering::Relaxed);
        if peak >= CROWD && left < peak / 2 {
            self.crowd.peak.store(left, Ordering::Relaxed);
            give_memory_back();
        }
    }
}

/// What the allocator keeps of the crowd's memory goes back to the kernel, once its connections are gone too.
fn give_memory_back() {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async {
        tokio::time::sleep(SETTLED).await;
        // It takes no longer than some milliseconds for each hundred megabytes, but those.
        tokio::task::spawn_blocking(shim_sys::memory::trim);
    });
}

/// The body of an answer, with which its call is under way until it is taken.
struct Counting {
    inner: Body,
    _call: Call,
}

impl http_body::Body for Counting {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What one call holds.
#[derive(Debug)]
struct Held {
    intake: Intake,
    bytes: AtomicUsize,
}

impl Held {
    /// Takes room for some bytes.
    ///
    /// # Errors
    /// There is none.
    fn take(&self, bytes: usize) -> Result<(), Status> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let more = counted(before + bytes) - counted(before);
        let taken = self.intake.taken.fetch_add(more, Ordering::Relaxed);
        match more == 0 || taken + more <= self.intake.room {
            true => Ok(()),
            false => Err(self.intake.full(before + bytes)),
        }
    }

    fn give_back(&self) {
        let bytes = self.bytes.swap(0, Ordering::Relaxed);
        self.intake.taken.fetch_sub(counted(bytes), Ordering::Relaxed);
    }
}

/// What of so many bytes needs room.
fn counted(bytes: usize) -> usize {
    bytes.saturating_sub(FREE)
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// The body of a request, counted.
struct Metered {
    inner: Body,
    held: Arc<Held>,
    framing: Framing,
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            if self.framing.passes_a_beginning(bytes) {
                self.held.give_back();
            }
            if let Err(status) = self.held.take(bytes.len()) {
                return Poll::Ready(Some(Err(status)));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Where in a stream of messages its bytes are.
#[derive(Debug, Default)]
struct Framing {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that are there.
    known: usize,
    /// Bytes of the message that are still to come.
    left: usize,
}

impl Framing {
    /// Whether a message begins in these bytes.
    fn passes_a_beginning(&mut self, mut bytes: &[u8]) -> bool {
        let mut begins = false;
        while !bytes.is_empty() {
            let message = self.left.min(bytes.len());
            self.left -= message;
            bytes = &bytes[message..];
            let prefix = (PREFIX - self.known).min(bytes.len());
            if prefix > 0 && self.left == 0 {
                begins |= self.known == 0;
                self.prefix[self.known..][..prefix].copy_from_slice(&bytes[..prefix]);
                self.known += prefix;
                bytes = &bytes[prefix..];
            }
            if self.known == PREFIX {
                let [_, length @ ..] = self.prefix;
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.known = 0;
            }
        }
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_found_however_the_bytes_are_cut() {
        let stream = [&[0, 0, 0, 0, 3][..], b"abc", &[0; 5], &[1, 0, 0, 0, 1], b"x"].concat();
        let expected = [0, 8, 13];
        for step in 1..=stream.len() {
            let mut framing = Framing::default();
            for (number, piece) in stream.chunks(step).enumerate() {
                let range = number * step..number * step + piece.len();
                let begins = expected.iter().any(|at| range.contains(at));
                assert_eq!(framing.passes_a_beginning(piece), begins, "{range:?} of {step}");
            }
        }
    }

    #[test]
    fn room_goes_by_the_memory_that_the_daemon_may_have() {
        let of = |megabytes: u64| {
            let intake = Intake::new(Some(megabytes << 20));
            (intake.room, intake.calls.all())
        };
        assert_eq!(of(64), (8 << 20, 1024));
        assert_eq!(of(256), (32 << 20, 4096));
        assert_eq!(of(1), (1 << 20, 128), "a daemon without memory still hears what it is asked");
        let all = (ROOM, CALLS);
        assert_eq!([of(512), of(4096), of(1 << 40)], [all; 3]);
        let unlimited = Intake::new(None);
        assert_eq!((unlimited.room, unlimited.calls.all()), all);
    }

    #[test]
    fn what_a_call_held_is_free_when_it_is_over() {
        for memory in [None, Some(64 << 20)] {
            let intake = Intake::new(memory);
            let room = intake.room;
            let held = |bytes| {
                let held = Held { intake: intake.clone(), bytes: AtomicUsize::new(0) };
                let took = held.take(bytes);
                (held, took.map_err(|status| status.message().to_owned()))
            };
            let (first, took) = held(FREE + room - 1);
            assert_eq!((took, held(FREE).1, held(FREE + 1).1), (Ok(()), Ok(()), Ok(())));
            let refused = held(FREE + 2).1.unwrap_err();
            assert!(refused.contains("try again later"), "{refused}");
            first.give_back();
            assert_eq!(held(FREE + room).1, Ok(()));
            let never = held(FREE + room + 1).1.unwrap_err();
            assert!(never.contains("this request alone"), "{never}");
            drop(first);
            assert_eq!(intake.taken.load(Ordering::Relaxed), 0);
        }
    }
}
