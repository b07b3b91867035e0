//! `bosun.v1.Snapshots`.

use std::sync::Arc;

use bosun_proto::v1;
use bosun_proto::v1::snapshots_server::Snapshots;
use tonic::{Request, Response, Status};

use super::convert;
use crate::container::Supervisor;
use crate::snapshots::{Base, Marks, Mount, Snapshot};
use crate::store::Kind;

/// The service over the core.
#[derive(Debug)]
pub(super) struct Service {
    supervisor: Arc<Supervisor>,
}

impl Service {
    pub(super) fn new(supervisor: Arc<Supervisor>) -> Self {
        Self { supervisor }
    }

    async fn make(
        &self,
        call: Request<v1::PrepareRequest>,
        method: &str,
        kind: Kind,
    ) -> Result<Response<v1::MountsResponse>, Status> {
        let message = call.get_ref();
        let request = convert::request(call.metadata(), method, &message.request_id, message)?;
        let snapshots = &self.supervisor.core().snapshots;
        let lease = convert::lease(call.metadata())?;
        let message = call.into_inner();
        let (key, namespace) = (message.key, request.namespace.to_string());
        let base = match message.base {
            None => Base::Nothing,
            Some(v1::prepare_request::Base::Parent(name)) => Base::Parent(name),
            Some(v1::prepare_request::Base::Directory(path)) => Base::Directory(path.into()),
        };
        let marks = Marks { labels: message.labels.into_iter().collect(), lease };
        let work = async {
            snapshots.prepare(&namespace, &key, base, kind, marks).await?;
            Ok(String::new())
        };
        self.supervisor.once(&request, work).await?;
        let mounts = snapshots.mounts(&namespace, &key).await?;
        Ok(mounts_response(mounts))
    }
}

#[tonic::async_trait]
impl Snapshots for Service {
    async fn prepare(
        &self,
        call: Request<v1::PrepareRequest>,
    ) -> Result<Response<v1::MountsResponse>, Status> {
        self.make(call, "Prepare", Kind::Active).await
    }

    async fn view(
        &self,
        call: Request<v1::PrepareRequest>,
    ) -> Result<Response<v1::MountsResponse>, Status> {
        self.make(call, "View", Kind::View).await
    }

    async fn commit(
        &self,
        call: Request<v1::CommitRequest>,
    ) -> Result<Response<v1::CommitResponse>, Status> {
        let message = call.get_ref().clone();
        let snapshots = &self.supervisor.core().snapshots;
        let lease = convert::lease(call.metadata())?;
        super::change(
            &self.supervisor,
            &call,
            "Commit",
            &message.request_id,
            |namespace| async move {
                let marks = Marks { labels: message.labels.into_iter().collect(), lease };
                snapshots.commit(&namespace, &message.key, &message.name, marks).await
            },
        )
        .await?;
        Ok(Response::new(v1::CommitResponse {}))
    }

    async fn mounts(
        &self,
        call: Request<v1::SnapshotRequest>,
    ) -> Result<Response<v1::MountsResponse>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let snapshots = &self.supervisor.core().snapshots;
        let mounts = snapshots.mounts(namespace.as_str(), &call.get_ref().key).await?;
        Ok(mounts_response(mounts))
    }

    async fn stat(
        &self,
        call: Request<v1::SnapshotRequest>,
    ) -> Result<Response<v1::Snapshot>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let snapshots = &self.supervisor.core().snapshots;
        let snapshot = snapshots.stat(namespace.as_str(), &call.get_ref().key).await?;
        Ok(Response::new(message_of(snapshot)))
    }

    async fn list(
        &self,
        call: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let snapshots = self.supervisor.core().snapshots.list(namespace.as_str()).await?;
        let snapshots = snapshots.into_iter().map(message_of).collect();
        Ok(Response::new(v1::ListSnapshotsResponse { snapshots }))
    }

    async fn usage(
        &self,
        call: Request<v1::SnapshotRequest>,
    ) -> Result<Response<v1::UsageResponse>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let snapshots = &self.supervisor.core().snapshots;
        let usage = snapshots.usage(namespace.as_str(), &call.get_ref().key).await?;
        Ok(Response::new(v1::UsageResponse { size: usage.size, inodes: usage.inodes }))
    }

    async fn remove(
        &self,
        call: Request<v1::RemoveSnapshotRequest>,
    ) -> Result<Response<v1::RemoveSnapshotResponse>, Status> {
        let message = call.get_ref().clone();
        let snapshots = &self.supervisor.core().snapshots;
        super::change(
            &self.supervisor,
            &call,
            "RemoveSnapshot",
            &message.request_id,
            |namespace| async move { snapshots.remove(&namespace, &message.key).await },
        )
        .await?;
        Ok(Response::new(v1::RemoveSnapshotResponse {}))
    }
}

fn mounts_response(mounts: Vec<Mount>) -> Response<v1::MountsResponse> {
    let mounts = mounts
        .into_iter()
        .map(|mount| v1::Mount {
            r#type: mount.kind.to_owned(),
            source: mount.source,
            options: mount.options,
        })
        .collect();
    Response::new(v1::MountsResponse { mounts })
}

fn message_of(snapshot: Snapshot) -> v1::Snapshot {
    let Snapshot { row, parent } = snapshot;
    let mut message = v1::Snapshot {
        key: row.key,
        parent: parent.unwrap_or_default(),
        directory: row
            .directory
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default(),
        created_at: Some(convert::time(row.created_at)),
        updated_at: Some(convert::time(row.updated_at)),
        labels: row.labels.into_iter().collect(),
        held_by: row.held_by.unwrap_or_default(),
        ..v1::Snapshot::default()
    };
    message.set_kind(match row.kind {
        Kind::View => v1::snapshot::Kind::View,
        Kind::Active => v1::snapshot::Kind::Active,
        Kind::Committed => v1::snapshot::Kind::Committed,
    });
    message
}
