//! The reading side of a connection: who gets what comes, and what is answered at once.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader, ReadHalf};
use tokio::sync::mpsc;

use super::connection::{Offered, Shared, StreamState};
use super::error::Error;
use super::frame::{self, Control, GoAway, HEAD, Head, Reset};
use super::headers::{Headers, Inflater};
use super::window::Window;
use crate::limits::{MAX_STREAMS, PIECE, WINDOW};
use crate::peer::Peer;
use crate::streams::{Filler, Gone};

/// A stream as the reader sees it.
struct Stream {
    /// `None` after the client's end of it.
    filler: Option<Filler>,
    state: Arc<StreamState>,
}

/// The reader, which is the one owner of all that it knows.
pub(super) struct Reader<Io> {
    read: BufReader<ReadHalf<Io>>,
    inflater: Inflater,
    streams: HashMap<u32, Stream>,
    /// The last id that the client has used.
    last: u32,
    /// Of the peer, for streams to come.
    initial_window: u32,
    /// The peer has shown that it has windows.
    windows: bool,
    /// Bytes that came, of which the connection's window does not know yet.
    owed: u32,
    offer: mpsc::Sender<Offered>,
    shared: Arc<Shared>,
    peer: Peer,
}

impl<Io: AsyncRead + Send> Reader<Io> {
    pub(super) fn new(
        read: ReadHalf<Io>,
        offer: mpsc::Sender<Offered>,
        shared: Arc<Shared>,
        peer: Peer,
    ) -> Reader<Io> {
        Reader {
            read: BufReader::with_capacity(PIECE, read),
            inflater: Inflater::default(),
            streams: HashMap::new(),
            last: 0,
            initial_window: WINDOW,
            windows: false,
            owed: 0,
            offer,
            shared,
            peer,
        }
    }

    /// Reads to the end, whose reason it is.
    pub(super) async fn run(mut self) -> Result<(), Error> {
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
        self.wait_for_bytes().await?;
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
            }
            // Memory is bounded by the streams' windows; the connection's is opened at once.
            self.owed = self.owed.saturating_add(u32::try_from(ready).unwrap_or(u32::MAX));
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

    /// Waits for the next frame, and opens the connection's window meanwhile if that is due.
    async fn wait_for_bytes(&mut self) -> Result<(), Error> {
        while self.read.buffer().is_empty() {
            tokio::select! {
                read = self.read.fill_buf() => {
                    if read?.is_empty() {
                        return Err(Error::Gone);
                    }
                }
                Ok(permit) = self.shared.control.reserve(), if self.owed >= WINDOW / 2 => {
                    permit.send(Control::WindowUpdate { stream: 0, delta: self.owed });
                    self.owed = 0;
                }
            }
        }
        if self.owed >= WINDOW / 2 {
            let update = Control::WindowUpdate { stream: 0, delta: self.owed };
            if self.shared.control.try_send(update).is_ok() {
                self.owed = 0;
            }
        }
        Ok(())
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
        self.streams.retain(|_, stream| stream.filler.is_some() || !stream.state.finished());
        if self.streams.len() >= MAX_STREAMS {
            self.reset(id, Reset::Refused).await;
            return Ok(());
        }
        let window = Window::new(i64::from(self.initial_window), self.windows);
        let (offered, filler, state) = Offered::new(id, headers, window, self.shared.clone());
        self.streams.insert(id, Stream { filler: (!fin).then_some(filler), state });
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
