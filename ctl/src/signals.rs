//! The signals that `ctl` gets while attached, as a queue.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::error::Error;

/// A signal by its name, as the API takes it, and its number, as exit codes have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signal {
    pub(crate) name: &'static str,
    pub(crate) number: u8,
}

const INT: Signal = Signal { name: "SIGINT", number: 2 };
const TERM: Signal = Signal { name: "SIGTERM", number: 15 };

/// Those that end a process that has no handler for them.
const ENDING: [Signal; 4] =
    [Signal { name: "SIGHUP", number: 1 }, INT, Signal { name: "SIGQUIT", number: 3 }, TERM];

/// Those that only an attached container has a use for.
const FOR_THE_CONTAINER: [Signal; 2] =
    [Signal { name: "SIGUSR1", number: 10 }, Signal { name: "SIGUSR2", number: 12 }];

impl Signal {
    /// The exit code of a process that this ended, as a shell shows it.
    pub(crate) fn exit_code(self) -> u8 {
        128 + self.number
    }

    /// A user who sends these wants an end.
    pub(crate) fn is_impatient(self) -> bool {
        self == INT || self == TERM
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caught {
    Signal(Signal),
    WindowChanged,
}

/// Signals in the order of their arrival. Once made, they no longer end the process.
#[derive(Debug)]
pub(crate) struct Signals {
    queue: mpsc::UnboundedReceiver<Caught>,
}

impl Signals {
    /// `forwarded`: the container is to get them, so those that mean nothing to `ctl` are caught too.
    pub(crate) fn catch(forwarded: bool) -> Result<Self, Error> {
        let (sender, queue) = mpsc::unbounded_channel();
        let extra = if forwarded { &FOR_THE_CONTAINER[..] } else { &[] };
        for caught in ENDING.iter().chain(extra) {
            listen(SignalKind::from_raw(caught.number.into()), Caught::Signal(*caught), &sender)?;
        }
        listen(SignalKind::window_change(), Caught::WindowChanged, &sender)?;
        Ok(Self { queue })
    }

    /// The next one. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Caught {
        match self.queue.recv().await {
            Some(caught) => caught,
            // The senders live as long as the runtime.
            None => std::future::pending().await,
        }
    }
}

fn listen(
    kind: SignalKind,
    caught: Caught,
    sender: &mpsc::UnboundedSender<Caught>,
) -> Result<(), Error> {
    let mut signals =
        signal(kind).map_err(|source| Error::System { step: "catch signals", source })?;
    let sender = sender.clone();
    tokio::spawn(
        async move { while signals.recv().await.is_some() && sender.send(caught).is_ok() {} },
    );
    Ok(())
}
