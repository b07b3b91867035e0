//! The loop between a [`Wire`] and the outside: bytes, signals, window size, detach keys.

use std::collections::VecDeque;

use bosun_proto::v1::{Exit, OutputChunk, WindowSize, output_chunk};
use tokio::sync::mpsc;
use tonic::Status;

use super::input::{Input, Typed};
use super::stdio::{Output, Piece};
use super::wire::{Up, Wire};
use crate::error::Error;
use crate::signals::{Caught, Signal, Signals};
use crate::terminal::{self, RawMode};

/// Why a session is over.
#[derive(Debug)]
pub(crate) enum End {
    Exited(Exit),
    Detached,
    /// The daemon dropped this client because it read too slowly.
    Lagged,
    /// The connection broke.
    Broken(Status),
    /// A signal that was not to be forwarded.
    Terminated(Signal),
}

/// What signals do.
#[derive(Debug)]
pub(crate) enum SignalsGo {
    /// To whoever sends them on to the container.
    ToContainer(mpsc::UnboundedSender<Signal>),
    /// Nowhere: they end the session.
    Here,
}

/// The user's side of a session. It outlives a stream that breaks.
#[derive(Debug)]
pub(crate) struct Console {
    signals: Signals,
    signals_go: SignalsGo,
    input: Option<Input>,
    output: Output,
    /// The process has a terminal, whose size is to follow ours.
    tty: bool,
    raw: Option<RawMode>,
}

impl Console {
    /// Enters raw mode when a terminal is to be typed at.
    pub(crate) fn new(
        signals: Signals,
        signals_go: SignalsGo,
        input: Option<Input>,
        tty: bool,
    ) -> Result<Self, Error> {
        let output = Output::start()?;
        let typed_at = tty && input.is_some() && terminal::stdin_is_terminal();
        let raw = if typed_at { Some(RawMode::enter()?) } else { None };
        Ok(Self { signals, signals_go, input, output, tty, raw })
    }

    /// The end of a line on this terminal, for notices between output.
    pub(crate) fn line_end(&self) -> &'static str {
        if self.raw.is_some() { "\r\n" } else { "\n" }
    }

    /// Writes out what is left and gives the terminal back.
    pub(crate) async fn finish(mut self) -> Result<(), Error> {
        let finished = tokio::select! {
            result = self.output.finish() => result,
            // The reader of our output paused for good.
            () = impatience(&mut self.signals) => Ok(()),
        };
        drop(self.raw);
        finished
    }

    /// Carries bytes until the session is over. `redraw` makes the process see a change of size, so
    /// that it draws its screen anew.
    pub(crate) async fn pump(&mut self, wire: &mut Wire, redraw: bool) -> Result<End, Error> {
        let mut queue = VecDeque::new();
        self.first_size(&mut queue, redraw);
        let (up, down) = (&wire.up, &mut wire.down);
        let mut up_open = true;
        loop {
            tokio::select! {
                chunk = down.message(), if !self.output.is_full() => {
                    match self.received(chunk) {
                        Some(end) => return Ok(end),
                        None => continue,
                    }
                }
                room = self.output.room(), if self.output.is_full() => room?,
                place = up.reserve(), if up_open && !queue.is_empty() => match place {
                    Ok(place) => if let Some(message) = queue.pop_front() {
                        place.send(message);
                    },
                    // The daemon hears no more; what it has to say still comes.
                    Err(_) => up_open = false,
                },
                typed = next_input(self.input.as_mut()), if queue.is_empty() => match typed? {
                    Typed::Bytes(bytes) => queue.push_back(Up::Stdin(bytes)),
                    Typed::Detach => return Ok(End::Detached),
                    Typed::End => {
                        self.input = None;
                        queue.push_back(Up::Close);
                    }
                },
                caught = self.signals.next() => match caught {
                    Caught::WindowChanged => self.resize(&mut queue),
                    Caught::Signal(signal) => match &self.signals_go {
                        // Its receiver lives as long as the session.
                        SignalsGo::ToContainer(sender) => drop(sender.send(signal)),
                        SignalsGo::Here => return Ok(End::Terminated(signal)),
                    },
                },
            }
        }
    }

    fn received(&mut self, chunk: Result<Option<OutputChunk>, Status>) -> Option<End> {
        use output_chunk::Message;
        let message = match chunk {
            Ok(Some(OutputChunk { message })) => message,
            Ok(None) => return Some(End::Broken(Status::unavailable("the stream ended early"))),
            Err(status) => return Some(End::Broken(status)),
        };
        match message {
            Some(Message::Stdout(bytes)) => self.output.put(Piece::Out(bytes)),
            Some(Message::Stderr(bytes)) => self.output.put(Piece::Err(bytes)),
            Some(Message::Exit(exit)) => return Some(End::Exited(exit)),
            Some(Message::Lagged(_)) => return Some(End::Lagged),
            // A kind of message that a later version has.
            Some(Message::Opened(_)) | None => {}
        }
        None
    }

    fn first_size(&self, queue: &mut VecDeque<Up>, redraw: bool) {
        if redraw
            && self.tty
            && let Some(WindowSize { width, height }) = terminal::window_size()
        {
            queue.push_back(Up::Resize(WindowSize { width, height: height + 1 }));
        }
        self.resize(queue);
    }

    fn resize(&self, queue: &mut VecDeque<Up>) {
        if self.tty
            && let Some(window) = terminal::window_size()
        {
            queue.push_back(Up::Resize(window));
        }
    }
}

async fn next_input(input: Option<&mut Input>) -> Result<Typed, Error> {
    match input {
        Some(input) => input.next().await,
        None => std::future::pending().await,
    }
}

/// Ends at a signal that asks for an end.
async fn impatience(signals: &mut Signals) {
    loop {
        if let Caught::Signal(signal) = signals.next().await
            && signal.is_impatient()
        {
            return;
        }
    }
}
