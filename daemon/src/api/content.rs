//! `bosun.v1.Content`. Bytes pass through, a chunk at a time: nothing of a blob is kept in memory.

use std::pin::Pin;
use std::sync::Arc;

use bosun_image::Digest;
use bosun_proto::v1;
use bosun_proto::v1::content_server::Content;
use bosun_proto::v1::write_request::Message;
use futures::Stream;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use super::convert;
use crate::container::Supervisor;
use crate::content::{self, Expected, Ingest};
use crate::error::{Error, Result as CoreResult};
use crate::store::BlobRow;

/// The service over the core.
#[derive(Debug)]
pub(super) struct Service {
    supervisor: Arc<Supervisor>,
}

type ChunkStream = Pin<Box<dyn Stream<Item = Result<v1::ReadChunk, Status>> + Send>>;

impl Service {
    pub(super) fn new(supervisor: Arc<Supervisor>) -> Self {
        Self { supervisor }
    }

    fn content(&self) -> &content::Content {
        &self.supervisor.core().content
    }

    /// Takes what a client sends until it commits or ends. Answers how much there is, and the digest
    /// once it is a blob.
    async fn receive(
        &self,
        namespace: &str,
        lease: Option<String>,
        open: v1::WriteOpen,
        mut messages: Streaming<v1::WriteRequest>,
    ) -> CoreResult<String> {
        let digest = match open.expected_digest.as_str() {
            "" => None,
            text => Some(text.parse()?),
        };
        let labels = open.labels.into_iter().collect();
        let expected = Expected { size: open.expected_size, digest, labels, lease };
        let content = self.content();
        let mut writer = content.writer(namespace, &open.reference, expected, open.offset).await?;
        while let Some(request) = messages.next().await {
            // The bytes stay, to be resumed; but this is no answer to be given again.
            let torn = |_| Error::IngestTorn { reference: open.reference.clone() };
            match request.map_err(torn)?.message {
                Some(Message::Data(data)) => {
                    writer = content.write(writer, vec![data.into()]).await?;
                }
                Some(Message::Commit(v1::WriteCommit {})) => {
                    let (digest, size) = content.commit(writer).await?;
                    return Ok(format!("{size} {digest}"));
                }
                Some(Message::Open(_)) | None => {
                    return Err(Error::InvalidArgument {
                        what: "stream of a write",
                        problem: "after `open` come data and `commit`".to_owned(),
                    });
                }
            }
        }
        Ok(format!("{} ", writer.received()))
    }
}

#[tonic::async_trait]
impl Content for Service {
    type ReadStream = ChunkStream;

    async fn write(
        &self,
        call: Request<Streaming<v1::WriteRequest>>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let (metadata, _, mut messages) = call.into_parts();
        let open = match messages.next().await.transpose()?.and_then(|first| first.message) {
            Some(Message::Open(open)) => open,
            Some(Message::Data(_) | Message::Commit(_)) | None => {
                return Err(Status::invalid_argument("the first message is `open`"));
            }
        };
        let request = convert::request(&metadata, "WriteContent", &open.request_id, &open)?;
        let lease = convert::lease(&metadata)?;
        let work = self.receive(request.namespace.as_str(), lease, open, messages);
        let answer = self.supervisor.once(&request, work).await?;
        let (size, digest) = answer.split_once(' ').unwrap_or_default();
        Ok(Response::new(v1::WriteResponse {
            digest: digest.to_owned(),
            size: size.parse().unwrap_or_default(),
        }))
    }

    async fn read(&self, call: Request<v1::ReadRequest>) -> Result<Response<ChunkStream>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let message = call.into_inner();
        let digest = digest(&message.digest)?;
        let mut reader = self
            .content()
            .reader(namespace.as_str(), &digest, message.offset, message.size)
            .await?;
        Ok(Response::new(Box::pin(async_stream::try_stream! {
            while let Some(data) = reader.next().await? {
                yield v1::ReadChunk { data };
            }
        })))
    }

    async fn stat(&self, call: Request<v1::BlobRequest>) -> Result<Response<v1::Blob>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let digest = digest(&call.get_ref().digest)?;
        let blob = self.content().stat(namespace.as_str(), &digest).await?;
        Ok(Response::new(blob_message(blob)))
    }

    async fn list(
        &self,
        call: Request<v1::ListBlobsRequest>,
    ) -> Result<Response<v1::ListBlobsResponse>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let blobs = self.content().list(namespace.as_str()).await?;
        let blobs = blobs.into_iter().map(blob_message).collect();
        Ok(Response::new(v1::ListBlobsResponse { blobs }))
    }

    async fn delete(
        &self,
        call: Request<v1::DeleteBlobRequest>,
    ) -> Result<Response<v1::DeleteBlobResponse>, Status> {
        let message = call.get_ref();
        let id = &message.request_id;
        super::change(&self.supervisor, &call, "DeleteBlob", id, |namespace| async move {
            self.content().remove(&namespace, &message.digest.parse()?).await
        })
        .await?;
        self.supervisor.core().collector.nudge();
        Ok(Response::new(v1::DeleteBlobResponse {}))
    }

    async fn status(
        &self,
        call: Request<v1::IngestRequest>,
    ) -> Result<Response<v1::Ingest>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let ingest = self.content().status(namespace.as_str(), &call.get_ref().reference).await?;
        Ok(Response::new(ingest_message(ingest)))
    }

    async fn list_ingests(
        &self,
        call: Request<v1::ListIngestsRequest>,
    ) -> Result<Response<v1::ListIngestsResponse>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let ingests = self.content().ingests(namespace.as_str()).await?;
        let ingests = ingests.into_iter().map(ingest_message).collect();
        Ok(Response::new(v1::ListIngestsResponse { ingests }))
    }

    async fn abort(
        &self,
        call: Request<v1::AbortRequest>,
    ) -> Result<Response<v1::AbortResponse>, Status> {
        let message = call.get_ref();
        let id = &message.request_id;
        super::change(&self.supervisor, &call, "AbortIngest", id, |namespace| async move {
            self.content().abort(&namespace, &message.reference).await
        })
        .await?;
        Ok(Response::new(v1::AbortResponse {}))
    }
}

fn digest(text: &str) -> CoreResult<Digest> {
    Ok(text.parse()?)
}

fn blob_message(blob: BlobRow) -> v1::Blob {
    v1::Blob {
        digest: blob.digest,
        size: blob.size,
        created_at: Some(convert::time(blob.created_at)),
        labels: blob.labels.into_iter().collect(),
    }
}

fn ingest_message(ingest: Ingest) -> v1::Ingest {
    let Ingest { description, received, .. } = ingest;
    v1::Ingest {
        reference: description.reference,
        offset: received,
        expected_size: description.expected_size,
        expected_digest: description.expected_digest.unwrap_or_default(),
        started_at: Some(convert::time(description.started_at)),
        labels: description.labels.into_iter().collect(),
    }
}
