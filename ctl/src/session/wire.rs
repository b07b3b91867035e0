//! The two directions of a session's stream, opened.

use std::time::Duration;

use bosun_proto::v1::{
    AttachOpen, AttachRequest, CloseStdin, ExecOpen, ExecRequest, Opened, OutputChunk, WindowSize,
    attach_request, exec_request, output_chunk,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

use crate::client::{self, Client};
use crate::error::Error;

const QUEUE_LEN: usize = 8;
/// Attaching may start the container, exec starts a process.
const OPEN_WITHIN: Duration = Duration::from_secs(60);

/// What goes to the daemon after the opening.
#[derive(Debug)]
pub(super) enum Up {
    Stdin(Vec<u8>),
    Resize(WindowSize),
    Close,
}

#[derive(Debug)]
pub(crate) struct Wire {
    pub(super) up: mpsc::Sender<Up>,
    pub(super) down: Streaming<OutputChunk>,
    pub(crate) opened: Opened,
}

impl Wire {
    pub(crate) async fn attach(client: &Client, open: AttachOpen) -> Result<Self, Error> {
        use attach_request::Message;
        let (up, queue) = mpsc::channel(QUEUE_LEN);
        let requests = opening(Message::Open(open), queue, |up| match up {
            Up::Stdin(bytes) => Message::Stdin(bytes),
            Up::Resize(window) => Message::Resize(window),
            Up::Close => Message::CloseStdin(CloseStdin {}),
        })
        .map(|message| AttachRequest { message: Some(message) });
        let down = client.stream(requests, |channel, requests| async move {
            client::io(channel).attach(requests).await
        });
        Self::opened(client, up, down).await
    }

    pub(crate) async fn exec(client: &Client, open: ExecOpen) -> Result<Self, Error> {
        use exec_request::Message;
        let (up, queue) = mpsc::channel(QUEUE_LEN);
        let requests = opening(Message::Open(open), queue, |up| match up {
            Up::Stdin(bytes) => Message::Stdin(bytes),
            Up::Resize(window) => Message::Resize(window),
            Up::Close => Message::CloseStdin(CloseStdin {}),
        })
        .map(|message| ExecRequest { message: Some(message) });
        let down = client.stream(requests, |channel, requests| async move {
            client::io(channel).exec(requests).await
        });
        Self::opened(client, up, down).await
    }

    /// Waits for the answer to the opening.
    async fn opened(
        client: &Client,
        up: mpsc::Sender<Up>,
        down: impl Future<Output = Result<Streaming<OutputChunk>, Error>>,
    ) -> Result<Self, Error> {
        let handshake = async {
            let mut down = down.await?;
            let first = down.message().await;
            Ok::<_, Error>((down, first))
        };
        let answer = tokio::time::timeout(OPEN_WITHIN, handshake).await;
        let (down, first) = answer
            .map_err(|_| Error::NoAnswer { address: client.address(), after: OPEN_WITHIN })??;
        let lost = |status| Error::Lost { address: client.address(), status: Box::new(status) };
        match first {
            Ok(Some(OutputChunk { message: Some(output_chunk::Message::Opened(opened)) })) => {
                Ok(Self { up, down, opened })
            }
            Ok(Some(_)) => Err(client.bad_answer("opening the stream")),
            Ok(None) => Err(lost(Status::unavailable("the stream ended at once"))),
            Err(status) => Err(lost(client.stream_broke(status)?)),
        }
    }
}

/// The requests of a session. They never end by themselves: the end of a request stream is the end
/// of the input (see the API), and a client that detaches or dies must not cause that.
fn opening<M>(
    open: M,
    queue: mpsc::Receiver<Up>,
    message: impl Fn(Up) -> M,
) -> impl Stream<Item = M> {
    tokio_stream::once(open)
        .chain(ReceiverStream::new(queue).map(message))
        .chain(tokio_stream::pending())
}
