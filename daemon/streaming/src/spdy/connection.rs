//! A connection: its reader, its writer, and the streams between them.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
    ReadHalf, WriteHalf,
};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::error::Error;
use super::frame::{self, Control, GoAway, HEAD, Head, Reset};
use super::headers::{Deflater, Headers, Inflater};
use super::window::Window;
use crate::limits::{LINGER, MAX_STREAMS, PIECE, QUEUE, WINDOW};
use crate::peer::Peer;
use crate::streams::{Credit, Filler, Gone, Incoming, pipe};

/// Frames of control that wait to be written.
const CONTROL_QUEUE: usize = 64;
/// For a client that has broken the protocol, to take notice of it.
const FAREWELL: Duration = Duration::from_secs(1);

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
    reader: AbortOnDropHandle<Result<(), Error>>,
    writer: AbortOnDropHandle<()>,
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
    let reader = Reader {
        read: BufReader::with_capacity(PIECE, read),
        inflater: Inflater::default(),
        streams: HashMap::new(),
        last: 0,
        initial_window: WINDOW,
        windows: false,
        discarded: 0,
        offer,
        shared: shared.clone(),
        peer: peer.clone(),
    };
    let writer = write_all(write, control_out, data_out, shared, peer.clone());
    let link = Link {
        data,
        reader: AbortOnDropHandle::new(tokio::spawn(reader.run())),
        writer: AbortOnDropHandle::new(tokio::spawn(writer)),
        over: None,
    };
    (Offers(offered), link)
}

impl Link {
    /// Resolves with the reason at the end of the connection.
    pub(crate) async fn ended(&mut self) -> String {
        if self.over.is_none() {
            let read = tokio::select! {
                biased;
                read = &mut self.reader => read.ok(),
                // The client takes nothing any more. It may have been told why it is not to.
                _ = &mut self.writer => {
                    let read = tokio::time::timeout(FAREWELL, &mut self.reader).await;
                    read.ok().and_then(Result::ok)
                }
            };
            let error = read.and_then(Result::err).unwrap_or(Error::Gone);
            self.over = Some(error);
        }
        let error = self.over.as_ref().unwrap_or(&Error::Gone);
        if !matches!(error, Error::Gone | Error::Io(_)) && !self.writer.is_finished() {
            // The writer ends with the GOAWAY that says so, if the client lets it.
            let _ = tokio::time::timeout(FAREWELL, &mut self.writer).await;
        }
        error.to_string()
    }

    /// Ends it as it should end: all that was sent is written, then a GOAWAY; what still comes is read
    /// and forgotten until the client has closed its side (were it not read, the client's TCP would
    /// throw away what it has not read yet).
    pub(crate) async fn close(mut self) {
        let said = async {
            let _ = self.data.send(Data::Goodbye).await;
            let _ = (&mut self.writer).await;
        };
        tokio::select! {
            () = said => {}
            _ = &mut self.reader => return,
        }
        let _ = tokio::time::timeout(LINGER, &mut self.reader).await;
    }
}

/// What both tasks and all streams of a connection know.
#[derive(Debug)]
struct Shared {
    control: mpsc::Sender<Control>,
    data: mpsc::Sender<Data>,
    window: Window,
    /// Nothing can be sent any more.
    ended: CancellationToken,
}

/// What a stream's two halves and the reader know of it.
#[derive(Debug)]
struct StreamState {
    id: u32,
    window: Window,
    /// The client does not want any more of it.
    unwanted: CancellationToken,
    /// We have said all.
    finished: AtomicBool,
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

/// Opens a stream's window, and the connection's, as bytes are read: by halves.
#[derive(Debug)]
struct WindowCredit {
    stream: u32,
    untold: [u32; 2],
    control: mpsc::Sender<Control>,
}

impl WindowCredit {
    fn due(&mut self) -> Option<(&mut u32, u32)> {
        let [of_stream, of_connection] = &mut self.untold;
        let due = |untold: &u32| *untold >= WINDOW / 2;
        if due(of_stream) {
            Some((of_stream, self.stream))
        } else if due(of_connection) {
            Some((of_connection, 0))
        } else {
            None
        }
    }
}

impl Credit for WindowCredit {
    fn read(&mut self, bytes: usize) {
        for untold in &mut self.untold {
            *untold = untold.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
        let control = self.control.clone();
        while let Some((untold, stream)) = self.due() {
            match control.try_send(Control::WindowUpdate { stream, delta: *untold }) {
                Ok(()) | Err(TrySendError::Closed(_)) => *untold = 0,
                Err(TrySendError::Full(_)) => return,
            }
        }
    }

    fn tell(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let control = self.control.clone();
        let Some((untold, stream)) = self.due() else { return Box::pin(pending()) };
        Box::pin(async move {
            if let Ok(permit) = control.reserve().await {
                permit.send(Control::WindowUpdate { stream, delta: *untold });
            }
            *untold = 0;
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
    loop {
        bytes.clear();
        let last = tokio::select! {
            biased;
            Some(frame) = control.recv() => {
                frame::put_control(&mut bytes, &frame, &mut deflater);
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
                    let goodbye = Control::GoAway { last: 0, status: GoAway::Ok as u32 };
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

/// A stream as the reader sees it.
struct Stream {
    /// `None` after the client's end of it.
    filler: Option<Filler>,
    state: Arc<StreamState>,
}

struct Reader<Io> {
    read: BufReader<ReadHalf<Io>>,
    inflater: Inflater,
    streams: HashMap<u32, Stream>,
    /// The last id that the client has used.
    last: u32,
    /// Of the peer, for streams to come.
    initial_window: u32,
    /// The peer has shown that it has windows.
    windows: bool,
    /// Bytes that came for nobody, of which the connection's window does not know yet.
    discarded: u32,
    offer: mpsc::Sender<Offered>,
    shared: Arc<Shared>,
    peer: Peer,
}

impl<Io: AsyncRead + Send> Reader<Io> {
    async fn run(mut self) -> Result<(), Error> {
        let error = loop {
            match self.frame().await {
                Ok(()) => self.peer.heard(),
                Err(error) => break error,
            }
        };
        for stream in self.streams.into_values() {
            if let Some(filler) = stream.filler {
                filler.reset();
            }
        }
        if !matches!(error, Error::Gone | Error::Io(_)) {
            let status = GoAway::Protocol as u32;
            let _ = self.shared.control.try_send(Control::GoAway { last: self.last, status });
        }
        Err(error)
    }

    async fn frame(&mut self) -> Result<(), Error> {
        let mut bytes = [0; HEAD];
        match self.read.read_exact(&mut bytes).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Error::Gone),
            read => read?,
        };
        match frame::head(bytes)? {
            Head::Data { stream, fin, length } => self.data(stream, fin, length).await,
            Head::Control { kind, flags, length } => {
                let mut payload = vec![0; length as usize];
                self.read.read_exact(&mut payload).await?;
                let control = frame::control(kind, flags, &payload, &mut self.inflater)?;
                self.control(control).await
            }
        }
    }

    async fn data(&mut self, id: u32, fin: bool, length: u32) -> Result<(), Error> {
        let mut filler = self.streams.get_mut(&id).and_then(|stream| stream.filler.take());
        if filler.is_none() {
            // A stream that we have forgotten since is not the client's mistake.
            let known = self.streams.contains_key(&id);
            if known {
                self.reset(id, Reset::AlreadyClosed).await;
            } else if id > self.last || id.is_multiple_of(2) {
                self.reset(id, Reset::InvalidStream).await;
            }
        }
        let mut left = length as usize;
        while left > 0 {
            let ready = match self.read.buffer().len() {
                0 => self.read_some().await?,
                ready => ready,
            }
            .min(left);
            let taken = match filler.as_mut() {
                None => false,
                Some(open) => open
                    .fill(&self.read.buffer()[..ready], &self.peer)
                    .await
                    .map_err(|Gone| Error::Gone)?,
            };
            if !taken {
                filler = None;
                self.discard(ready).await;
            }
            self.read.consume(ready);
            left -= ready;
            self.peer.heard();
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.filler = filler.filter(|_| !fin);
        }
        Ok(())
    }

    async fn read_some(&mut self) -> Result<usize, Error> {
        match self.read.fill_buf().await?.len() {
            0 => Err(Error::Gone),
            read => Ok(read),
        }
    }

    async fn discard(&mut self, bytes: usize) {
        self.discarded = self.discarded.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.discarded >= WINDOW / 2 {
            let delta = std::mem::take(&mut self.discarded);
            let _ = self.shared.control.send(Control::WindowUpdate { stream: 0, delta }).await;
        }
    }

    async fn control(&mut self, frame: Control) -> Result<(), Error> {
        match frame {
            Control::SynStream { stream, fin, unidirectional: _, headers } => {
                return self.open(stream, fin, headers).await;
            }
            Control::RstStream { stream, status: _ } => {
                if let Some(stream) = self.streams.remove(&stream) {
                    stream.state.unwanted.cancel();
                    if let Some(filler) = stream.filler {
                        filler.reset();
                    }
                }
            }
            Control::Settings { initial_window: Some(size) } => self.resize_windows(size).await,
            Control::WindowUpdate { stream: 0, delta } => {
                self.shared.window.mind();
                if self.shared.window.change(i64::from(delta)).is_err() {
                    return Err(Error::Stream { kind: 9, stream: 0 });
                }
            }
            Control::WindowUpdate { stream, delta } => self.open_window(stream, delta).await,
            // Ours would have even numbers, but we send none.
            Control::Ping { id } if id % 2 == 1 => {
                let _ = self.shared.control.send(Control::Ping { id }).await;
            }
            // We open no streams, so nothing can answer them.
            Control::SynReply { stream, .. } => self.reset(stream, Reset::InvalidStream).await,
            Control::Headers { stream, fin: true, headers: _ } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.filler = None;
                }
            }
            // A client that says goodbye still reads what it has asked for.
            Control::GoAway { .. }
            | Control::Ping { .. }
            | Control::Settings { initial_window: None }
            | Control::Headers { .. }
            | Control::Unknown { .. } => {}
        }
        Ok(())
    }

    async fn open(&mut self, id: u32, fin: bool, headers: Headers) -> Result<(), Error> {
        if id.is_multiple_of(2) || id <= self.last {
            return Err(Error::Stream { kind: 1, stream: id });
        }
        self.last = id;
        self.streams.retain(|_, stream| {
            stream.filler.is_some() || !stream.state.finished.load(Ordering::Acquire)
        });
        if self.streams.len() >= MAX_STREAMS {
            self.reset(id, Reset::Refused).await;
            return Ok(());
        }
        let credit =
            WindowCredit { stream: id, untold: [0; 2], control: self.shared.control.clone() };
        let (filler, incoming) = pipe(Some(Box::new(credit)));
        let state = Arc::new(StreamState {
            id,
            window: Window::new(i64::from(self.initial_window), self.windows),
            unwanted: CancellationToken::new(),
            finished: AtomicBool::new(false),
        });
        let filler = (!fin).then_some(filler);
        self.streams.insert(id, Stream { filler, state: state.clone() });
        let offered = Offered { headers, incoming, state, shared: self.shared.clone() };
        let unheard = tokio::select! {
            sent = self.offer.send(offered) => sent.err().map(|error| error.0),
            () = self.peer.gone() => return Err(Error::Gone),
        };
        // Nobody takes streams any more: the connection is being closed.
        if let Some(offered) = unheard {
            offered.refuse(Reset::Refused).await;
        }
        Ok(())
    }

    async fn open_window(&mut self, id: u32, delta: u32) {
        self.mind_windows();
        let Some(stream) = self.streams.get(&id) else { return };
        let opened = stream.state.window.change(i64::from(delta));
        if delta == 0 || opened.is_err() {
            let why = if delta == 0 { Reset::Protocol } else { Reset::FlowControl };
            stream.state.unwanted.cancel();
            self.reset(id, why).await;
        }
    }

    async fn resize_windows(&mut self, size: u32) {
        self.mind_windows();
        let by = i64::from(size) - i64::from(self.initial_window);
        self.initial_window = size;
        let mut overflowed = Vec::new();
        for (id, stream) in &self.streams {
            if stream.state.window.change(by).is_err() {
                stream.state.unwanted.cancel();
                overflowed.push(*id);
            }
        }
        for id in overflowed {
            self.reset(id, Reset::FlowControl).await;
        }
    }

    fn mind_windows(&mut self) {
        if !self.windows {
            self.windows = true;
            for stream in self.streams.values() {
                stream.state.window.mind();
            }
        }
    }

    async fn reset(&mut self, stream: u32, why: Reset) {
        let _ = self.shared.control.send(Control::RstStream { stream, status: why as u32 }).await;
    }
}
