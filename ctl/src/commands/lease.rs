//! `ctl lease`: what holds snapshots and blobs.

use std::time::SystemTime;

use bosun_proto::v1::lease_resource::Kind as ResourceKind;
use bosun_proto::v1::{
    CreateLeaseRequest, DeleteLeaseRequest, LeaseResource, LeaseResourceRequest,
    ListLeaseResourcesRequest, ListLeasesRequest,
};

use crate::cli::lease::{CreateArgs, Kind, LeaseVerb, LsArgs, RmArgs};
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::output;
use crate::view::Listing;
use crate::view::content::{COLUMNS, lease, resource};

const TABLE: &str = "table {{.ID}}\t{{.Created}}\t{{.Expires}}";
const RESOURCES: &str = "table {{.Kind}}\t{{.ID}}";

pub(super) async fn run(client: &Client, verb: LeaseVerb) -> Result<u8, Error> {
    match verb {
        LeaseVerb::Create(args) => create(client, args).await,
        LeaseVerb::Ls(args) => ls(client, args).await,
        LeaseVerb::Rm(args) => rm(client, args).await,
        LeaseVerb::Add(args) => add(client, request(args.lease, args.kind, args.id)?).await,
        LeaseVerb::Drop(args) => drop(client, request(args.lease, args.kind, args.id)?).await,
    }
}

async fn create(client: &Client, args: CreateArgs) -> Result<u8, Error> {
    let request = CreateLeaseRequest {
        request_id: client::request_id()?,
        id: args.id,
        labels: args.label.into_iter().collect(),
        expires_at: args.ttl.and_then(|ttl| SystemTime::now().checked_add(ttl)).map(Into::into),
    };
    let answer = client.call(Deadline::Short, request, |channel, request| async move {
        client::leases(channel).create(request).await
    });
    output::print(&(answer.await?.id + "\n"))?;
    Ok(0)
}

async fn ls(client: &Client, args: LsArgs) -> Result<u8, Error> {
    let format = if args.quiet { Some("{{.ID}}") } else { args.format.as_deref() };
    let (table, rows) = match args.lease {
        None => {
            let answer =
                client.call(Deadline::Short, ListLeasesRequest {}, |channel, request| async move {
                    client::leases(channel).list(request).await
                });
            (TABLE, answer.await?.leases.iter().map(lease).collect::<Vec<_>>())
        }
        Some(lease) => {
            let request = ListLeaseResourcesRequest { lease };
            let answer = client.call(Deadline::Short, request, |channel, request| async move {
                client::leases(channel).list_resources(request).await
            });
            (RESOURCES, answer.await?.resources.iter().map(resource).collect())
        }
    };
    output::print(&Listing::new(format, table, &COLUMNS)?.render(&rows)?)?;
    Ok(0)
}

async fn rm(client: &Client, args: RmArgs) -> Result<u8, Error> {
    super::each(&args.leases, |id| async move {
        let request = DeleteLeaseRequest { request_id: client::request_id()?, id: id.to_owned() };
        let deleted = client.call(Deadline::Short, request, |channel, request| async move {
            client::leases(channel).delete(request).await
        });
        deleted.await.map(|_| id.to_owned())
    })
    .await
}

async fn add(client: &Client, request: LeaseResourceRequest) -> Result<u8, Error> {
    let added = client.call(Deadline::Short, request, |channel, request| async move {
        client::leases(channel).add_resource(request).await
    });
    added.await.map(|_| 0)
}

async fn drop(client: &Client, request: LeaseResourceRequest) -> Result<u8, Error> {
    let dropped = client.call(Deadline::Short, request, |channel, request| async move {
        client::leases(channel).delete_resource(request).await
    });
    dropped.await.map(|_| 0)
}

fn request(lease: String, kind: Kind, id: String) -> Result<LeaseResourceRequest, Error> {
    let kind = match kind {
        Kind::Snapshot => ResourceKind::Snapshot,
        Kind::Content => ResourceKind::Content,
    };
    let resource = Some(LeaseResource { kind: kind.into(), id });
    Ok(LeaseResourceRequest { request_id: client::request_id()?, lease, resource })
}
