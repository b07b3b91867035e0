//! `bosun.v1.Leases`.

use std::sync::Arc;

use bosun_image::Digest;
use bosun_proto::v1;
use bosun_proto::v1::leases_server::Leases;
use tonic::{Request, Response, Status};

use super::convert;
use crate::container::Supervisor;
use crate::error::{Error, Result as CoreResult};
use crate::leases;
use crate::store::{LeaseRow, Resource, ResourceKind};

/// The service over the core.
#[derive(Debug)]
pub(super) struct Service {
    supervisor: Arc<Supervisor>,
}

impl Service {
    pub(super) fn new(supervisor: Arc<Supervisor>) -> Self {
        Self { supervisor }
    }

    fn leases(&self) -> &leases::Leases {
        &self.supervisor.core().leases
    }
}

#[tonic::async_trait]
impl Leases for Service {
    async fn create(
        &self,
        call: Request<v1::CreateLeaseRequest>,
    ) -> Result<Response<v1::CreateLeaseResponse>, Status> {
        let message = call.get_ref();
        let request =
            convert::request(call.metadata(), "CreateLease", &message.request_id, message)?;
        let message = call.into_inner();
        let (labels, expires_at) =
            (message.labels.into_iter().collect(), message.expires_at.map(convert::time_from));
        let namespace = request.namespace.to_string();
        let work = self.leases().create(&namespace, &message.id, labels, expires_at);
        let id = self.supervisor.once(&request, work).await?;
        Ok(Response::new(v1::CreateLeaseResponse { id }))
    }

    async fn delete(
        &self,
        call: Request<v1::DeleteLeaseRequest>,
    ) -> Result<Response<v1::DeleteLeaseResponse>, Status> {
        let message = call.get_ref();
        let id = &message.request_id;
        super::change(&self.supervisor, &call, "DeleteLease", id, |namespace| async move {
            self.leases().delete(&namespace, &message.id).await
        })
        .await?;
        self.supervisor.core().collector.nudge();
        Ok(Response::new(v1::DeleteLeaseResponse {}))
    }

    async fn list(
        &self,
        call: Request<v1::ListLeasesRequest>,
    ) -> Result<Response<v1::ListLeasesResponse>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let leases = self.leases().list(namespace.as_str()).await?;
        let leases = leases.into_iter().map(message_of).collect();
        Ok(Response::new(v1::ListLeasesResponse { leases }))
    }

    async fn add_resource(
        &self,
        call: Request<v1::LeaseResourceRequest>,
    ) -> Result<Response<v1::AddLeaseResourceResponse>, Status> {
        let message = call.get_ref();
        let id = &message.request_id;
        super::change(&self.supervisor, &call, "AddLeaseResource", id, |namespace| async move {
            let resource = resource(message.resource.as_ref())?;
            self.leases().add_resource(&namespace, &message.lease, resource).await
        })
        .await?;
        Ok(Response::new(v1::AddLeaseResourceResponse {}))
    }

    async fn delete_resource(
        &self,
        call: Request<v1::LeaseResourceRequest>,
    ) -> Result<Response<v1::DeleteLeaseResourceResponse>, Status> {
        let message = call.get_ref();
        let id = &message.request_id;
        super::change(&self.supervisor, &call, "DeleteLeaseResource", id, |namespace| async move {
            let resource = resource(message.resource.as_ref())?;
            self.leases().delete_resource(&namespace, &message.lease, resource).await
        })
        .await?;
        self.supervisor.core().collector.nudge();
        Ok(Response::new(v1::DeleteLeaseResourceResponse {}))
    }

    async fn list_resources(
        &self,
        call: Request<v1::ListLeaseResourcesRequest>,
    ) -> Result<Response<v1::ListLeaseResourcesResponse>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let held = self.leases().list_resources(namespace.as_str(), &call.get_ref().lease).await?;
        let resources = held.into_iter().map(resource_message).collect();
        Ok(Response::new(v1::ListLeaseResourcesResponse { resources }))
    }
}

fn resource(message: Option<&v1::LeaseResource>) -> CoreResult<Resource> {
    use v1::lease_resource::Kind;
    let unspecified = || Error::InvalidArgument {
        what: "resource of the lease",
        problem: "say which: a snapshot's key or a blob's digest".to_owned(),
    };
    let message = message.ok_or_else(unspecified)?;
    match message.kind() {
        Kind::Unspecified => Err(unspecified()),
        Kind::Snapshot => Ok(Resource { kind: ResourceKind::Snapshot, id: message.id.clone() }),
        Kind::Content => {
            let digest: Digest = message.id.parse()?;
            Ok(Resource { kind: ResourceKind::Content, id: digest.to_string() })
        }
    }
}

fn resource_message(resource: Resource) -> v1::LeaseResource {
    use v1::lease_resource::Kind;
    let kind = match resource.kind {
        ResourceKind::Snapshot => Kind::Snapshot,
        ResourceKind::Content => Kind::Content,
    };
    v1::LeaseResource { kind: kind.into(), id: resource.id }
}

fn message_of(lease: LeaseRow) -> v1::Lease {
    v1::Lease {
        id: lease.id,
        created_at: Some(convert::time(lease.created_at)),
        expires_at: lease.expires_at.map(convert::time),
        labels: lease.labels.into_iter().collect(),
    }
}
