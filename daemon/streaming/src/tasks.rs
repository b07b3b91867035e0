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
    /// again after that; who stopped waiting before may ask again.
    pub(crate) async fn ended(&mut self) -> Option<E> {
        if !self.writer.is_finished() {
            tokio::select! {
                biased;
                read = &mut self.reader => return read.ok().and_then(Result::err),
                _ = &mut self.writer => {}
            }
        }
        // The client takes nothing any more. It may have been told why it is not to.
        let read = timeout(FAREWELL, &mut self.reader).await;
        read.ok().and_then(Result::ok).and_then(Result::err)
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
        if self.reader.is_finished() {
            return;
        }
        let said = async {
            if !self.writer.is_finished() {
                words.await;
                let _ = (&mut self.writer).await;
            }
        };
        tokio::select! {
            () = said => {}
            _ = &mut self.reader => return,
        }
        let _ = timeout(LINGER, &mut self.reader).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    /// Tasks of which the writer has ended, and somebody has waited for that, but not long enough to hear it.
    async fn without_writer() -> Tasks<&'static str> {
        let reader = tokio::spawn(async {
            tokio::time::sleep(20 * SHORT).await;
            Err("said")
        });
        let mut tasks = Tasks::new(reader, tokio::spawn(async {}));
        assert!(timeout(SHORT, tasks.ended()).await.is_err());
        assert!(tasks.writer.is_finished());
        tasks
    }

    #[tokio::test]
    async fn who_waits_again_for_the_end_hears_why() {
        let mut tasks = without_writer().await;
        assert!(timeout(SHORT, tasks.ended()).await.is_err());
        tasks.farewell(pending()).await;
        assert_eq!(tasks.ended().await, Some("said"));
        tasks.close(pending()).await;
    }

    #[tokio::test]
    async fn a_close_is_at_its_end_when_the_client_is() {
        without_writer().await.close(pending()).await;
    }
}
