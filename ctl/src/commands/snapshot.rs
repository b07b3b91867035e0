//! `ctl snapshot`: bosun's own noun, with the verbs of containerd's snapshots.

use bosun_proto::v1::prepare_request::Base;
use bosun_proto::v1::{
    CommitRequest, ListSnapshotsRequest, Mount, PrepareRequest, RemoveSnapshotRequest, Snapshot,
    SnapshotRequest,
};

use super::inspect::Shape;
use crate::cli::snapshot::{
    CommitArgs, InspectArgs, LsArgs, MountsArgs, PrepareArgs, RmArgs, SnapshotVerb, UsageArgs,
};
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::flags::absolute;
use crate::output;
use crate::view::snapshot::{COLUMNS, mount_command, value};
use crate::view::{Listing, human_size};

const TABLE: &str = "table {{.Key}}\t{{.Parent}}\t{{.Kind}}\t{{.HeldBy}}\t{{.Created}}";

pub(super) async fn run(client: &Client, verb: SnapshotVerb) -> Result<u8, Error> {
    match verb {
        SnapshotVerb::Ls(args) => ls(client, &args).await,
        SnapshotVerb::Inspect(args) => inspect(client, args).await,
        SnapshotVerb::Usage(args) => usage(client, args).await,
        SnapshotVerb::Rm(args) => rm(client, args).await,
        SnapshotVerb::Prepare(args) => prepare(client, args, false).await,
        SnapshotVerb::View(args) => prepare(client, args, true).await,
        SnapshotVerb::Commit(args) => commit(client, args).await,
        SnapshotVerb::Mounts(args) => mounts(client, args).await,
    }
}

async fn list(client: &Client) -> Result<Vec<Snapshot>, Error> {
    let request = ListSnapshotsRequest {};
    let answer = client.call(Deadline::Short, request, |channel, request| async move {
        client::snapshots(channel).list(request).await
    });
    let mut snapshots = answer.await?.snapshots;
    snapshots.sort_by(|left, right| left.key.cmp(&right.key));
    Ok(snapshots)
}

async fn ls(client: &Client, args: &LsArgs) -> Result<u8, Error> {
    let format = if args.quiet { Some("{{.Key}}") } else { args.format.as_deref() };
    let listing = Listing::new(format, TABLE, &COLUMNS)?;
    let rows: Vec<_> = list(client).await?.iter().map(value).collect();
    output::print(&listing.render(&rows)?)?;
    Ok(0)
}

async fn inspect(client: &Client, args: InspectArgs) -> Result<u8, Error> {
    let shape = Shape::new(args.format.as_deref())?;
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for key in args.keys {
        let request = SnapshotRequest { key };
        let answer = client.call(Deadline::Short, request, |channel, request| async move {
            client::snapshots(channel).stat(request).await
        });
        match answer.await {
            Ok(snapshot) => found.push(value(&snapshot)),
            Err(error @ Error::Refused(_)) => missing.push(error),
            Err(error) => return Err(error),
        }
    }
    output::print(&shape.render(found)?)?;
    missing.iter().for_each(|error| output::complain(error));
    Ok(u8::from(!missing.is_empty()))
}

async fn usage(client: &Client, args: UsageArgs) -> Result<u8, Error> {
    let keys = if args.keys.is_empty() {
        list(client).await?.into_iter().map(|snapshot| snapshot.key).collect()
    } else {
        args.keys
    };
    output::print(&usage_line("SIZE", "INODES", "KEY\n"))?;
    super::each(&keys, |key| async move {
        let request = SnapshotRequest { key: key.to_owned() };
        let answer = client.call(Deadline::Long, request, |channel, request| async move {
            client::snapshots(channel).usage(request).await
        });
        let usage = answer.await?;
        let size = if args.bytes { usage.size.to_string() } else { human_size(usage.size) };
        Ok(usage_line(&size, &usage.inodes.to_string(), key))
    })
    .await
}

/// Printed as each comes, so its columns are not made to measure.
fn usage_line(size: &str, inodes: &str, key: &str) -> String {
    format!("{size:<12}{inodes:<10}{key}")
}

async fn rm(client: &Client, args: RmArgs) -> Result<u8, Error> {
    super::each(&args.keys, |key| async move {
        let request =
            RemoveSnapshotRequest { request_id: client::request_id()?, key: key.to_owned() };
        let removed = client.call(Deadline::Long, request, |channel, request| async move {
            client::snapshots(channel).remove(request).await
        });
        removed.await.map(|_| key.to_owned())
    })
    .await
}

async fn prepare(client: &Client, args: PrepareArgs, view: bool) -> Result<u8, Error> {
    let base = match (args.parent, args.directory) {
        (Some(parent), _) => Some(Base::Parent(parent)),
        (None, Some(path)) => Some(Base::Directory(absolute(&path, std::env::current_dir)?)),
        (None, None) => None,
    };
    let request = PrepareRequest {
        request_id: client::request_id()?,
        key: args.key,
        base,
        labels: super::rooted(client, args.label),
    };
    let answer = client.call(Deadline::Long, request, |channel, request| async move {
        let mut snapshots = client::snapshots(channel);
        if view { snapshots.view(request).await } else { snapshots.prepare(request).await }
    });
    print_mounts(&answer.await?.mounts, "TARGET")
}

async fn commit(client: &Client, args: CommitArgs) -> Result<u8, Error> {
    let request = CommitRequest {
        request_id: client::request_id()?,
        key: args.key,
        name: args.name,
        labels: super::rooted(client, args.label),
    };
    let answer = client.call(Deadline::Long, request, |channel, request| async move {
        client::snapshots(channel).commit(request).await
    });
    answer.await.map(|_| 0)
}

async fn mounts(client: &Client, args: MountsArgs) -> Result<u8, Error> {
    let target = absolute(&args.target, std::env::current_dir)?;
    let request = SnapshotRequest { key: args.key };
    let answer = client.call(Deadline::Short, request, |channel, request| async move {
        client::snapshots(channel).mounts(request).await
    });
    print_mounts(&answer.await?.mounts, &target)
}

fn print_mounts(mounts: &[Mount], target: &str) -> Result<u8, Error> {
    let lines = mounts.iter().map(|mount| mount_command(mount, target) + "\n");
    output::print(&lines.collect::<String>())?;
    Ok(0)
}
