//! `bosun.v1.Files`.

use std::pin::Pin;
use std::sync::Arc;

use bosun_layer::ChangeKind;
use bosun_proto::v1;
use bosun_proto::v1::files_server::Files;
use futures::Stream;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use super::convert;
use super::transfer::{chunks, joined, receive};
use crate::container::Supervisor;
use crate::error::Error;
use crate::files::{self, CopyTo, PathStat};
use crate::pipe;

/// The service over the core.
#[derive(Debug)]
pub(super) struct Service {
    supervisor: Arc<Supervisor>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    pub(super) fn new(supervisor: Arc<Supervisor>) -> Self {
        Self { supervisor }
    }
}

#[tonic::async_trait]
impl Files for Service {
    type ExportStream = Answers<v1::FilesChunk>;
    type CopyFromStream = Answers<v1::CopyFromResponse>;

    async fn diff(
        &self,
        call: Request<v1::DiffRequest>,
    ) -> Result<Response<v1::DiffResponse>, Status> {
        use v1::change::Kind;
        let namespace = convert::namespace(call.metadata())?;
        let handle = self.supervisor.find(&namespace, &call.get_ref().container)?;
        let changes = files::diff(self.supervisor.core(), &handle).await?;
        let changes = changes
            .into_iter()
            .map(|change| v1::Change {
                kind: match change.kind {
                    ChangeKind::Modified => Kind::Modified,
                    ChangeKind::Added => Kind::Added,
                    ChangeKind::Deleted => Kind::Deleted,
                }
                .into(),
                path: String::from_utf8_lossy(&change.path).into_owned(),
            })
            .collect();
        Ok(Response::new(v1::DiffResponse { changes }))
    }

    async fn export(
        &self,
        call: Request<v1::ExportFilesRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let handle = self.supervisor.find(&namespace, &call.get_ref().container)?;
        let core = Arc::clone(self.supervisor.core());
        Ok(Response::new(chunks(
            move |to| async move { files::export(&core, &handle, to).await },
            |data| v1::FilesChunk { data },
        )))
    }

    async fn stat(
        &self,
        call: Request<v1::StatPathRequest>,
    ) -> Result<Response<v1::PathStat>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let message = call.get_ref();
        let handle = self.supervisor.find(&namespace, &message.container)?;
        let core = self.supervisor.core();
        let stat = files::stat(core, &handle, &message.path, message.follow).await?;
        Ok(Response::new(stat_message(stat)))
    }

    async fn copy_from(
        &self,
        call: Request<v1::CopyFromRequest>,
    ) -> Result<Response<Self::CopyFromStream>, Status> {
        use v1::copy_from_response::Message;
        let namespace = convert::namespace(call.metadata())?;
        let message = call.get_ref();
        let handle = self.supervisor.find(&namespace, &message.container)?;
        let core = self.supervisor.core();
        let (to, parts) = pipe::out();
        let (stat, archive) =
            files::copy_from(core, &handle, &message.path, message.follow, to).await?;
        let stat = Message::Stat(stat_message(stat));
        let first = v1::CopyFromResponse { message: Some(stat) };
        let task = tokio::spawn(archive);
        let data =
            joined(parts, task, |data| v1::CopyFromResponse { message: Some(Message::Data(data)) });
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(first)).chain(data))))
    }

    async fn copy_to(
        &self,
        call: Request<Streaming<v1::CopyToRequest>>,
    ) -> Result<Response<v1::CopyToResponse>, Status> {
        use v1::copy_to_request::Message;
        let (metadata, _, mut messages) = call.into_parts();
        let namespace = convert::namespace(&metadata)?;
        let open = match messages.next().await.transpose()?.and_then(|first| first.message) {
            Some(Message::Open(open)) => open,
            Some(Message::Data(_)) | None => {
                return Err(Status::invalid_argument("the first message is `open`"));
            }
        };
        let handle = self.supervisor.find(&namespace, &open.container)?;
        let copy = CopyTo {
            path: open.path,
            keep_kinds: open.keep_kinds,
            archive_owners: open.archive_owners,
        };
        let received = receive(messages, |message| match message.message {
            Some(Message::Data(data)) => Some(data),
            Some(Message::Open(_)) | None => None,
        });
        let core = Arc::clone(self.supervisor.core());
        // To its end, also when the client goes away: a tree is not left in use.
        let task = tokio::spawn(async move {
            received.feed(|reader| files::copy_to(&core, &handle, copy, reader)).await
        });
        let entries = task.await.unwrap_or(Err(Error::Stopping))?;
        Ok(Response::new(v1::CopyToResponse { entries }))
    }
}

fn stat_message(stat: PathStat) -> v1::PathStat {
    v1::PathStat {
        name: stat.name,
        size: stat.size,
        mode: stat.mode,
        modified_at: Some(convert::time(stat.modified_at)),
        link_target: stat.link_target,
    }
}
