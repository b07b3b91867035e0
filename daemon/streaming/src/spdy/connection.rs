//! A connection: its two tasks, the streams that it offers, and their sending halves.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, WriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::frame::{self, Control, GoAway, HEAD, Reset};
use super::headers::{Deflater, Headers};
use super::reader::Reader;
use super::window::Window;
use crate::limits::{PIECE, QUEUE, WINDOW};
use crate::peer::Peer;
use crate::streams::{Credit, Filler, Incoming, pipe};
use crate::tasks::Tasks;

/// Frames of control that wait to be written.
const CONTROL_QUEUE: usize = 64;

/// The streams that a client asks for, in their order.
#[derive(Debug)]
pub(crate) struct Offers(mpsc::Receiver<Offered>);

impl Offers {
    /// The next one; `None` once the connection is at its end.
    pub(crate) async fn next(&mut self) -> Option<Offered> {
        self.0.recv().await
    }
}

/// The two tasks of a connection, which end with it.
#[derive(Debug)]
pub(crate) struct Link {
    data: mpsc::Sender<Data>,
    tasks: Tasks<Error>,
    over: Option<Error>,
}

/// Starts to serve a connection whose upgrade is done.
pub(crate) fn start<Io>(io: Io, peer: &Peer) -> (Offers, Link)
where
    Io: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(io);
    let (control, control_out) = mpsc::channel(CONTROL_QUEUE);
    let (data, data_out) = mpsc::channel(QUEUE);
    let (offer, offered) = mpsc::channel(1);
    let shared = Arc::new(Shared {
        control,
        data: data.clone(),
        window: Window::default(),
        ended: CancellationToken::new(),
    });
    let reader = Reader::new(read, offer, shared.clone(), peer.clone());
    let writer = write_all(write, control_out, data_out, shared, peer.clone());
    let link = Link {
        data,
        tasks: Tasks::new(tokio::spawn(reader.run()), tokio::spawn(writer)),
        over: None,
    };
    (Offers(offered), link)
}

impl Link {
    /// Resolves with the reason at the end of the connection.
    pub(crate) async fn ended(&mut self) -> String {
        if self.over.is_none() {
            self.over = Some(self.tasks.ended().await.unwrap_or(Error::Gone));
        }
        let error = self.over.as_ref().unwrap_or(&Error::Gone);
        if !matches!(error, Error::Gone | Error::Io(_)) {
            // The writer knows: it ends with the GOAWAY that says so, if the client lets it.
            self.tasks.farewell(async {}).await;
        }
        error.to_string()
    }

    /// Ends it as it should end: with a GOAWAY.
    pub(crate) async fn close(self) {
        let goodbye = self.data.send(Data::Goodbye);
        self.tasks.close(async { drop(goodbye.await) }).await;
    }
}

/// What both tasks and all streams of a connection know.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) control: mpsc::Sender<Control>,
    data: mpsc::Sender<Data>,
    pub(super) window: Window,
    /// Nothing can be sent any more.
    ended: CancellationToken,
}

/// What a stream's two halves and the reader know of it.
#[derive(Debug)]
pub(super) struct StreamState {
    id: u32,
    pub(super) window: Window,
    /// The client does not want any more of it.
    pub(super) unwanted: CancellationToken,
    /// We have said all.
    finished: AtomicBool,
}

impl StreamState {
    pub(super) fn finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
enum Data {
    Piece { stream: u32, bytes: Bytes },
    Fin { stream: u32 },
    Goodbye,
}

/// A stream that the client wants, and waits for an answer.
#[derive(Debug)]
pub(crate) struct Offered {
    headers: Headers,
    incoming: Incoming,
    state: Arc<StreamState>,
    shared: Arc<Shared>,
}

impl Offered {
    /// A stream whose window is what the peer has as such; with it comes what fills it.
    pub(super) fn new(
        id: u32,
        headers: Headers,
        window: Window,
        shared: Arc<Shared>,
    ) -> (Offered, Filler, Arc<StreamState>) {
        let credit = WindowCredit { stream: id, untold: 0, control: shared.control.clone() };
        let (filler, incoming) = pipe(Some(Box::new(credit)));
        let state = Arc::new(StreamState {
            id,
            window,
            unwanted: CancellationToken::new(),
            finished: AtomicBool::new(false),
        });
        (Offered { headers, incoming, state: state.clone(), shared }, filler, state)
    }

    pub(crate) fn headers(&self) -> &Headers {
        &self.headers
    }

    pub(crate) fn id(&self) -> u32 {
        self.state.id
    }

    /// Says yes to it.
    pub(crate) async fn accept(self) -> (Incoming, Writer) {
        let stream = self.state.id;
        let reply = Control::SynReply { stream, fin: false, headers: Headers::default() };
        // Of a connection at its end the streams learn by themselves.
        let _ = self.shared.control.send(reply).await;
        (self.incoming, Writer { state: self.state, shared: self.shared })
    }

    /// Says no to it.
    pub(crate) async fn refuse(self, why: Reset) {
        Writer { state: self.state, shared: self.shared }.reset(why).await;
    }
}

/// The sending half of a stream. Dropped without a word, it says nothing to the client.
#[derive(Debug)]
pub(crate) struct Writer {
    state: Arc<StreamState>,
    shared: Arc<Shared>,
}

impl Writer {
    pub(crate) async fn send(&mut self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            let step = async {
                let of_stream = self.state.window.take(bytes.len().min(PIECE)).await;
                let piece = self.shared.window.take(of_stream).await;
                self.state.window.give_back(of_stream - piece);
                let data = Data::Piece { stream: self.state.id, bytes: bytes.split_to(piece) };
                self.shared.data.send(data).await.map_err(|_| io::ErrorKind::ConnectionAborted)
            };
            tokio::select! {
                sent = step => sent?,
                () = self.shared.ended.cancelled() => {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                () = self.state.unwanted.cancelled() => {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn finish(self) {
        let fin = Data::Fin { stream: self.state.id };
        tokio::select! {
            _ = self.shared.data.send(fin) => {}
            () = self.shared.ended.cancelled() => {}
        }
    }

    pub(crate) async fn reset(self, why: Reset) {
        let reset = Control::RstStream { stream: self.state.id, status: why as u32 };
        let _ = self.shared.control.send(reset).await;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.state.finished.store(true, Ordering::Release);
    }
}

/// Opens a stream's window as its bytes are read: by halves.
#[derive(Debug)]
struct WindowCredit {
    stream: u32,
    untold: u32,
    control: mpsc::Sender<Control>,
}

impl WindowCredit {
    fn update(&self) -> Option<Control> {
        let due = self.untold >= WINDOW / 2;
        due.then_some(Control::WindowUpdate { stream: self.stream, delta: self.untold })
    }
}

impl Credit for WindowCredit {
    fn read(&mut self, bytes: usize) {
        self.untold = self.untold.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if let Some(update) = self.update()
            && self.control.try_send(update).is_ok()
        {
            self.untold = 0;
        }
    }

    fn tell(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let Some(update) = self.update() else { return Box::pin(pending()) };
        Box::pin(async move {
            match self.control.reserve().await {
                Ok(permit) => permit.send(update),
                // The connection is at its end.
                Err(_) => pending().await,
            }
            self.untold = 0;
        })
    }
}

/// Writes what is to be said, control before data, until there is nobody to say it to.
async fn write_all<Io: AsyncRead + AsyncWrite>(
    mut write: WriteHalf<Io>,
    mut control: mpsc::Receiver<Control>,
    mut data: mpsc::Receiver<Data>,
    shared: Arc<Shared>,
    peer: Peer,
) {
    // However this ends, nobody waits for it any more.
    let _ended = shared.ended.clone().drop_guard();
    let mut deflater = Deflater::default();
    let mut bytes = Vec::with_capacity(HEAD + PIECE);
    let mut accepted = 0;
    loop {
        bytes.clear();
        let last = tokio::select! {
            biased;
            Some(frame) = control.recv() => {
                frame::put_control(&mut bytes, &frame, &mut deflater);
                if let Control::SynReply { stream, .. } = frame {
                    accepted = stream.max(accepted);
                }
                matches!(frame, Control::GoAway { .. })
            }
            Some(data) = data.recv() => match data {
                Data::Piece { stream, bytes: piece } => {
                    frame::put_data_head(&mut bytes, stream, false, piece.len());
                    bytes.extend_from_slice(&piece);
                    false
                }
                Data::Fin { stream } => {
                    frame::put_data_head(&mut bytes, stream, true, 0);
                    false
                }
                Data::Goodbye => {
                    let status = GoAway::Ok as u32;
                    let goodbye = Control::GoAway { last: accepted, status };
                    frame::put_control(&mut bytes, &goodbye, &mut deflater);
                    true
                }
            },
            else => return,
        };
        if write.write_all(&bytes).await.is_err() || write.flush().await.is_err() {
            return;
        }
        peer.heard();
        if last {
            let _ = write.shutdown().await;
            return;
        }
    }
}
