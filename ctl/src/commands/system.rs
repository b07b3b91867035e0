//! `ctl system`: what takes how much of the disk, and what can go.

use bosun_proto::v1::{
    Container, DiskUsageRequest, ListBlobsRequest, ListRequest, PruneSystemRequest, SnapshotRequest,
};
use jiff::Timestamp;

use super::{events, image, info};
use crate::cli::system::{DfArgs, PruneArgs, SystemVerb};
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::output;
use crate::view::content::{self, blob};
use crate::view::disk::{self, COLUMNS};
use crate::view::{self, Listing, decimal_size};

pub(crate) const TABLE: &str =
    "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
const IMAGES: &str =
    "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.Containers}}";
const CONTAINERS: &str =
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
const CONTENT: &str = "table {{.Digest}}\t{{.Size}}\t{{.Created}}";
const DIGITS: u32 = 4;

pub(super) async fn run(client: &Client, verb: SystemVerb) -> Result<u8, Error> {
    match verb {
        SystemVerb::Df(args) => df(client, &args).await,
        SystemVerb::Prune(args) => prune(client, &args).await,
        SystemVerb::Info(args) => info::run(client, args).await,
        SystemVerb::Events(args) => events::run(client, args).await,
    }
}

async fn df(client: &Client, args: &DfArgs) -> Result<u8, Error> {
    if args.verbose {
        return verbose(client).await;
    }
    let listing = Listing::new(args.format.as_deref(), TABLE, &COLUMNS)?;
    // It walks what was not counted before.
    let answer = client.call(Deadline::Long, DiskUsageRequest {}, |channel, request| async move {
        client::system(channel).disk_usage(request).await
    });
    output::print(&listing.render(&disk::rows(&answer.await?))?)?;
    Ok(0)
}

/// Each part in a table of its own.
async fn verbose(client: &Client) -> Result<u8, Error> {
    let now = Timestamp::now();
    let images = image::list(client, Vec::new()).await?;
    let images = view::image::rows(images, now, false, false);
    let images = Listing::new(None, IMAGES, &view::image::COLUMNS)?.render(&images)?;
    output::print(&format!("Images space usage:\n\n{images}\n"))?;

    let request = ListRequest { all: true, filters: Vec::new() };
    let answer = client.call(Deadline::Short, request, |channel, request| async move {
        client::containers(channel).list(request).await
    });
    let mut containers = Vec::new();
    for container in answer.await?.containers {
        let size = own_size(client, &container).await?;
        containers.push(view::container_row(&container, &size, now, false));
    }
    let containers = Listing::new(None, CONTAINERS, &view::COLUMNS)?.render(&containers)?;
    output::print(&format!("Containers space usage:\n\n{containers}\n"))?;

    let answer = client.call(Deadline::Short, ListBlobsRequest {}, |channel, request| async move {
        client::content(channel).list(request).await
    });
    let blobs: Vec<_> = answer.await?.blobs.iter().map(blob).collect();
    let blobs = Listing::new(None, CONTENT, &content::COLUMNS)?.render(&blobs)?;
    output::print(&format!("Content space usage:\n\n{blobs}"))?;
    Ok(0)
}

/// Bytes of a container's own layer. One that goes meanwhile has none.
async fn own_size(client: &Client, container: &Container) -> Result<String, Error> {
    let request = SnapshotRequest { key: container.snapshot_key.clone() };
    let usage = client.call(Deadline::Long, request, |channel, request| async move {
        client::snapshots(channel).usage(request).await
    });
    match usage.await {
        Ok(usage) => Ok(decimal_size(usage.size, DIGITS)),
        Err(error) if error.is_not_found() => Ok(decimal_size(0, DIGITS)),
        Err(error) => Err(error),
    }
}

async fn prune(client: &Client, args: &PruneArgs) -> Result<u8, Error> {
    let images = if args.all {
        "all images without at least one container made from them"
    } else {
        "all dangling images"
    };
    let what = format!(
        "This will remove:\n  - all containers that don't run\n  - {images}\n  \
         - all content and snapshots that nothing reaches\n"
    );
    if !args.dry_run && !args.force && !image::confirmed(&what)? {
        return Ok(0);
    }
    let request = PruneSystemRequest {
        request_id: client::request_id()?,
        all: args.all,
        dry_run: args.dry_run,
    };
    let pruned = client.call(Deadline::Never, request, |channel, request| async move {
        client::system(channel).prune(request).await
    });
    image::report(&pruned.await?, args.dry_run)
}
