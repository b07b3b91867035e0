//! The two tasks of a connection, whatever its protocol: one that reads and one that writes.

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::limits::{FAREWELL, LINGER};

/// The tasks, which end with this. `E` is why reading ended.
#[derive(Debug)]
pub(crate) struct Tasks<E> {
    reader: AbortOnDropHandle<Result<(), E>>,
    writer: AbortOnDropHandle<()>,
}

impl<E> Tasks<E> {
    pub(crate) fn new(reader: JoinHandle<Result<(), E>>, writer: JoinHandle<()>) -> Self {
        Self { reader: AbortOnDropHandle::new(reader), writer: AbortOnDropHandle::new(writer) }
    }

    /// Resolves once one of them has ended, with the reader's reason if it has one. Not to be asked
    /// again after that.
    pub(crate) async fn ended(&mut self) -> Option<E> {
        let read = tokio::select! {
            biased;
            read = &mut self.reader => read.ok(),
            // The client takes nothing any more. It may have been told why it is not to.
            _ = &mut self.writer => {
                let read = timeout(FAREWELL, &mut self.reader).await;
                read.ok().and_then(Result::ok)
            }
        };
        read.and_then(Result::err)
    }

    /// Lets the writer come to its end with `words`, which it has not written yet, for a client that
    /// takes them soon. Without effect when it has ended.
    pub(crate) async fn farewell(&mut self, words: impl Future<Output = ()>) {
        if self.writer.is_finished() {
            return;
        }
        let told = async {
            words.await;
            let _ = (&mut self.writer).await;
        };
        let _ = timeout(FAREWELL, told).await;
    }

    /// Ends them as they should end: all that was sent is written, then `words`; what still comes is
    /// read and forgotten until the client has closed its side (were it not read, the client's TCP
    /// would throw away what it has not read yet).
    pub(crate) async fn close(mut self, words: impl Future<Output = ()>) {
        let said = async {
            words.await;
            let _ = (&mut self.writer).await;
        };
        tokio::select! {
            () = said => {}
            _ = &mut self.reader => return,
        }
        let _ = timeout(LINGER, &mut self.reader).await;
    }
}
