//! Attached to a container until it ends, across restarts of the daemon.
//!
//! The container does not notice when the daemon goes away, so neither should whoever is attached:
//! the stream is opened again when the daemon is back. When the container ended meanwhile, its exit
//! code is asked for instead.

use std::sync::Arc;
use std::time::Instant;

use bosun_proto::v1::{AttachOpen, Exit, KillRequest, WaitRequest};
use tokio::sync::mpsc;
use tonic::Status;

use super::{Console, End, Input, SignalsGo, Wire, exit_code};
use crate::cli::create::SessionKeys;
use crate::client::{self, Client, Deadline};
use crate::error::{Error, why_lost};
use crate::output;
use crate::signals::{Signal, Signals};
use crate::terminal;

/// What to be attached to, and how.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) container: String,
    /// As the user calls it.
    pub(crate) name: String,
    pub(crate) stdin: bool,
    /// Start it once attached.
    pub(crate) start: bool,
    pub(crate) keys: SessionKeys,
}

/// `-t` with input needs a terminal to take it from (docker's rule).
pub(crate) fn check_terminal(stdin: bool, tty: bool) -> Result<(), Error> {
    if stdin && tty && !terminal::stdin_is_terminal() {
        return Err(Error::InputNotTerminal);
    }
    Ok(())
}

impl Attached {
    /// Carries the session to its end and returns the exit code of `ctl`.
    pub(crate) async fn run(self, client: &Arc<Client>) -> Result<u8, Error> {
        let signals = Signals::catch(self.keys.sig_proxy)?;
        let mut open = AttachOpen {
            container: self.container.clone(),
            stdin: self.stdin,
            start: self.start,
            request_id: if self.start { client::request_id()? } else { String::new() },
            no_output: false,
        };
        let mut wire = match self.open(client, &mut open, false).await? {
            Opening::Attached(wire) => wire,
            Opening::Ended(exit) => return Ok(exit_code(&self.name, &exit)),
        };
        let tty = wire.opened.tty;
        let keys = tty.then_some(&self.keys.detach_keys);
        let input = if self.stdin { Some(Input::stdin(keys)?) } else { None };
        let signals_go = if self.keys.sig_proxy {
            SignalsGo::ToContainer(forward(client, &self.container))
        } else {
            SignalsGo::Here
        };
        let mut console = Console::new(signals, signals_go, input, tty)?;
        let mut redraw = !self.start;
        loop {
            let end = console.pump(&mut wire, redraw).await?;
            redraw = true;
            let status = match end {
                End::Exited(exit) => {
                    console.finish().await?;
                    return Ok(exit_code(&self.name, &exit));
                }
                End::Detached => {
                    console.finish().await?;
                    output::complain_raw("read escape sequence\n");
                    return Ok(0);
                }
                End::Terminated(signal) => return Ok(signal.exit_code()),
                End::Lagged => Status::unavailable("this client read too slowly"),
                End::Broken(status) => client.stream_broke(status)?,
            };
            let tell = |text: &str| {
                output::complain_raw(&format!("ctl: {text}{}", console.line_end()));
            };
            tell(&format!("lost {}: {}: attaching again", self.name, why_lost(&status)));
            client.reconnect(Instant::now(), status).await?;
            match self.open(client, &mut open, true).await? {
                Opening::Attached(new) => {
                    tell(&format!(
                        "attached again: what was written meanwhile is in \"ctl logs {}\"",
                        self.name
                    ));
                    wire = new;
                }
                Opening::Ended(exit) => {
                    console.finish().await?;
                    return Ok(exit_code(&self.name, &exit));
                }
            }
        }
    }

    /// Opens the stream, again while the daemon restarts. `before`: it was open before.
    async fn open(
        &self,
        client: &Client,
        open: &mut AttachOpen,
        before: bool,
    ) -> Result<Opening, Error> {
        let first = Instant::now();
        let mut again = before;
        loop {
            let error = match Wire::attach(client, open.clone()).await {
                Ok(wire) => {
                    open.start = false;
                    return Ok(Opening::Attached(Box::new(wire)));
                }
                Err(Error::Lost { status, .. }) => {
                    client.reconnect(first, *status).await?;
                    again = true;
                    continue;
                }
                Err(error) => error,
            };
            match error.reason() {
                // It was started before the connection broke, or by somebody else: what was asked for.
                Some("ALREADY_RUNNING") if open.start => open.start = false,
                // It ended while nobody was attached.
                Some("NOT_RUNNING" | "NO_SUCH_CONTAINER") if again => {
                    return self.wait(client).await.map(Opening::Ended).map_err(|_| error);
                }
                Some(_) | None => return Err(error),
            }
        }
    }

    async fn wait(&self, client: &Client) -> Result<Exit, Error> {
        let request = WaitRequest { container: self.container.clone() };
        let answer = client.call(Deadline::Never, request, |channel, request| async move {
            client::containers(channel).wait(request).await
        });
        answer.await?.exit.ok_or_else(|| client.bad_answer("an exit status"))
    }
}

#[derive(Debug)]
enum Opening {
    Attached(Box<Wire>),
    /// There is nothing to attach to any more.
    Ended(Exit),
}

/// Sends the signals that it is given on to the container, in order.
fn forward(client: &Arc<Client>, container: &str) -> mpsc::UnboundedSender<Signal> {
    let (sender, mut queue) = mpsc::unbounded_channel::<Signal>();
    let (client, container) = (Arc::clone(client), container.to_owned());
    tokio::spawn(async move {
        while let Some(signal) = queue.recv().await {
            if let Err(error) = send(&client, &container, signal).await {
                // One that ended meanwhile needs no signal.
                if !matches!(error.reason(), Some("NOT_RUNNING" | "NO_SUCH_CONTAINER")) {
                    output::warn(&format!("could not forward {}: {error}", signal.name));
                }
            }
        }
    });
    sender
}

async fn send(client: &Client, container: &str, signal: Signal) -> Result<(), Error> {
    let request = KillRequest {
        request_id: client::request_id()?,
        container: container.to_owned(),
        signal: signal.name.to_owned(),
    };
    let sent = client.call(Deadline::Long, request, |channel, request| async move {
        client::containers(channel).kill(request).await
    });
    sent.await.map(drop)
}
