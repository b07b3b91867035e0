//! What takes how much of the disk, and how to get it back.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use bosun_proto::v1;
use shim_wire::id::Id;

use super::images::prune_report;
use crate::container::{Phase, Supervisor};
use crate::error::{Error, Result};
use crate::gc::{Item, Mode, Without};
use crate::store::Kind;
use crate::trees;

/// Adds up what there is, by kind.
///
/// # Errors
/// The store's own, or directories that can't be read.
pub(super) async fn usage(
    supervisor: &Supervisor,
    namespace: &Id,
) -> Result<v1::DiskUsageResponse> {
    let core = supervisor.core();
    let name = namespace.as_str();
    let found = core.images.list(name).await?;
    let unused: BTreeSet<String> = found
        .iter()
        .filter(|found| found.containers.is_empty())
        .map(|found| found.row.name.clone())
        .collect();
    let free = reclaimable(supervisor, name, unused).await?;
    let garbage = reclaimable(supervisor, name, BTreeSet::new()).await?;

    let mut images = v1::DiskUsage { count: found.len() as u64, ..v1::DiskUsage::default() };
    images.active = found.iter().filter(|found| !found.containers.is_empty()).count() as u64;
    let content = blobs(supervisor, name, &garbage).await?;
    let snapshots = trees(supervisor, name, &garbage).await?;
    images.size = content.size + snapshots.size;
    images.reclaimable = free.blobs + free.snapshots;
    let ingests = core.content.idle_ingests(name, Duration::ZERO, &[], true).await?;
    let open = core.content.ingests(name).await?;
    let ingests = v1::DiskUsage {
        count: open.len() as u64,
        active: (open.len() - ingests.len().min(open.len())) as u64,
        size: open.iter().map(|ingest| ingest.received).sum(),
        reclaimable: ingests.iter().map(|ingest| ingest.received).sum(),
    };
    Ok(v1::DiskUsageResponse {
        images: Some(images),
        containers: Some(containers(supervisor, namespace).await?),
        content: Some(v1::DiskUsage { reclaimable: free.blobs, ..content }),
        snapshots: Some(v1::DiskUsage { reclaimable: free.snapshots, ..snapshots }),
        ingests: Some(ingests),
    })
}

/// Removes containers that don't run, then what nothing reaches, with `all` also unused images.
///
/// # Errors
/// The store's own, or files that can't be removed.
pub(super) async fn prune(
    supervisor: &Supervisor,
    namespace: &Id,
    all: bool,
    dry_run: bool,
) -> Result<v1::PruneReport> {
    let core = supervisor.core();
    let mut items = Vec::new();
    let mut gone = BTreeSet::new();
    for handle in supervisor.list(namespace) {
        if !matches!(handle.view().phase, Phase::Created | Phase::Exited(_)) {
            continue;
        }
        let id = handle.key().id.to_string();
        let size = container_size(supervisor, namespace, &id).await?;
        if !dry_run {
            match supervisor.remove(namespace, &id, false).await {
                Ok(_) => {}
                // It was started, or removed, meanwhile.
                Err(Error::StillRunning { .. } | Error::NoSuchContainer { .. }) => continue,
                Err(error) => return Err(error),
            }
        }
        gone.insert(id.clone());
        items.push(v1::PrunedItem { kind: v1::pruned_item::Kind::Container.into(), id, size });
    }
    let pruned = match dry_run {
        false => core.images.prune(namespace.as_str(), all, false, |_| false).await?,
        true => core.images.would_prune(namespace.as_str(), all, gone).await?,
    };
    let mut report = prune_report(pruned);
    report.reclaimed += items.iter().map(|item| item.size).sum::<u64>();
    items.append(&mut report.items);
    report.items = items;
    Ok(report)
}

/// What a collection would free, in bytes.
struct Free {
    blobs: u64,
    snapshots: u64,
}

async fn reclaimable(
    supervisor: &Supervisor,
    namespace: &str,
    without: BTreeSet<String>,
) -> Result<Free> {
    let mode = Mode { dry_run: true, by_hand: true };
    let collector = &supervisor.core().collector;
    let without = Without { images: without, containers: BTreeSet::new() };
    let items = collector.collect_without(namespace, mode, without).await?;
    let mut free = Free { blobs: 0, snapshots: 0 };
    for item in items {
        match item {
            Item::Blob { size, .. } => free.blobs += size,
            Item::Snapshot { size, .. } => free.snapshots += size,
            Item::Image { .. } | Item::Ingest { .. } => {}
        }
    }
    Ok(free)
}

async fn blobs(supervisor: &Supervisor, namespace: &str, free: &Free) -> Result<v1::DiskUsage> {
    let rows = supervisor.core().content.list(namespace).await?;
    let size: u64 = rows.iter().map(|row| row.size).sum();
    let count = rows.len() as u64;
    Ok(v1::DiskUsage { count, active: count, size, reclaimable: free.blobs })
}

/// Committed snapshots; those of containers are counted with them.
async fn trees(supervisor: &Supervisor, namespace: &str, free: &Free) -> Result<v1::DiskUsage> {
    let snapshots = &supervisor.core().snapshots;
    let mut usage = v1::DiskUsage { reclaimable: free.snapshots, ..v1::DiskUsage::default() };
    let all = snapshots.list(namespace).await?;
    for snapshot in all.iter().filter(|snapshot| snapshot.row.held_by.is_none()) {
        usage.count += 1;
        usage.active += u64::from(snapshot.row.kind == Kind::Committed);
        usage.size += snapshots.usage_of(snapshot.row.number).await?.size;
    }
    Ok(usage)
}

async fn containers(supervisor: &Supervisor, namespace: &Id) -> Result<v1::DiskUsage> {
    let mut usage = v1::DiskUsage::default();
    for handle in supervisor.list(namespace) {
        let size = container_size(supervisor, namespace, handle.key().id.as_str()).await?;
        usage.count += 1;
        usage.size += size;
        match handle.view().phase {
            Phase::Running(_) | Phase::Paused(_) | Phase::Starting => usage.active += 1,
            Phase::Created | Phase::Exited(_) | Phase::Removed(_) | Phase::Quarantined(_) => {
                usage.reclaimable += size;
            }
        }
    }
    Ok(usage)
}

/// A container's own tree, its logs and its volumes.
async fn container_size(supervisor: &Supervisor, namespace: &Id, id: &str) -> Result<u64> {
    let core = supervisor.core();
    let own = match core.snapshots.usage(namespace.as_str(), id).await {
        Ok(usage) => usage.size,
        Err(Error::NoSuchSnapshot { .. }) => 0,
        Err(error) => return Err(error),
    };
    let Ok(id) = id.parse::<Id>() else { return Ok(own) };
    let directory: PathBuf = core.layout.container_dir(namespace, &id).path().to_owned();
    let files = tokio::task::spawn_blocking(move || trees::usage(&directory)).await;
    // What can't be seen takes nothing.
    Ok(own + files.ok().and_then(std::result::Result::ok).map_or(0, |usage| usage.size))
}
