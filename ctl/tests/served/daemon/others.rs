//! Events, snapshots and the daemon itself: canned answers.

use bosun_proto::v1::events_server::Events;
use bosun_proto::v1::snapshots_server::Snapshots;
use bosun_proto::v1::system_server::System;
use bosun_proto::v1::*;
use tonic::{Code, Request, Response, Status};

use super::{Fake, broken_after, refusal};

#[tonic::async_trait]
impl Events for Fake {
    type SubscribeStream =
        std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<Event, Status>> + Send + 'static>>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let mut book = self.book();
        book.subscriptions.push(request.into_inner());
        let events = book.events.pop_front().unwrap_or_default();
        let breaks = !book.events.is_empty();
        Ok(Response::new(broken_after(events, breaks)))
    }
}

#[tonic::async_trait]
impl Snapshots for Fake {
    async fn prepare(
        &self,
        request: Request<PrepareRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        let request = request.into_inner();
        self.note(format!("prepare {} {:?}", request.key, request.base), &request.request_id);
        self.book().labels.push(request.labels);
        Ok(Response::new(mounts()))
    }

    async fn view(
        &self,
        request: Request<PrepareRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        let request = request.into_inner();
        self.note(format!("view {} {:?}", request.key, request.base), &request.request_id);
        self.book().labels.push(request.labels);
        Ok(Response::new(mounts()))
    }

    async fn commit(
        &self,
        request: Request<CommitRequest>,
    ) -> Result<Response<CommitResponse>, Status> {
        let request = request.into_inner();
        self.note(format!("commit {} {}", request.key, request.name), &request.request_id);
        self.book().labels.push(request.labels);
        Ok(Response::new(CommitResponse {}))
    }

    async fn mounts(
        &self,
        _request: Request<SnapshotRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        Ok(Response::new(mounts()))
    }

    async fn stat(&self, request: Request<SnapshotRequest>) -> Result<Response<Snapshot>, Status> {
        Ok(Response::new(snapshot(&request.into_inner().key)))
    }

    async fn list(
        &self,
        _request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let snapshots = vec![snapshot("b"), snapshot("a")];
        Ok(Response::new(ListSnapshotsResponse { snapshots }))
    }

    async fn usage(
        &self,
        _request: Request<SnapshotRequest>,
    ) -> Result<Response<UsageResponse>, Status> {
        Ok(Response::new(UsageResponse { size: 1536, inodes: 7 }))
    }

    async fn remove(
        &self,
        request: Request<RemoveSnapshotRequest>,
    ) -> Result<Response<RemoveSnapshotResponse>, Status> {
        let key = request.into_inner().key;
        Err(refusal(
            Code::FailedPrecondition,
            "SNAPSHOT_IN_USE",
            &format!("snapshot \"{key}\" is held by container web"),
        ))
    }
}

fn snapshot(key: &str) -> Snapshot {
    Snapshot {
        key: key.to_owned(),
        kind: snapshot::Kind::Active.into(),
        directory: "/".to_owned(),
        held_by: "web".to_owned(),
        ..Snapshot::default()
    }
}

fn mounts() -> MountsResponse {
    let mount = Mount {
        r#type: "overlay".to_owned(),
        source: "overlay".to_owned(),
        options: vec!["lowerdir=/".to_owned()],
    };
    MountsResponse { mounts: vec![mount] }
}

#[tonic::async_trait]
impl System for Fake {
    async fn version(
        &self,
        _request: Request<VersionRequest>,
    ) -> Result<Response<VersionResponse>, Status> {
        let version = VersionResponse { version: "9.9".to_owned(), ..VersionResponse::default() };
        Ok(Response::new(version))
    }

    async fn info(&self, _request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let info = InfoResponse {
            shim: "/bin/bosun-shim".to_owned(),
            warnings: vec!["swap is not limited".to_owned()],
            ..InfoResponse::default()
        };
        Ok(Response::new(info))
    }

    async fn disk_usage(
        &self,
        _request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        let images = DiskUsage { count: 2, active: 1, size: 2_000_000, reclaimable: 500_000 };
        Ok(Response::new(DiskUsageResponse { images: Some(images), ..Default::default() }))
    }

    async fn prune(
        &self,
        request: Request<PruneSystemRequest>,
    ) -> Result<Response<PruneReport>, Status> {
        let request = request.into_inner();
        self.note(format!("prune {} {}", request.all, request.dry_run), &request.request_id);
        Ok(Response::new(super::images::report()))
    }
}
