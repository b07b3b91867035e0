//! What a prune removed, or would.

use bosun_proto::v1::pruned_item::Kind;
use bosun_proto::v1::{PruneReport, PrunedItem};

use super::decimal_size;
use super::image::familiar;
use crate::output::escaped;

/// Significant digits of a size.
const DIGITS: u32 = 4;

/// The kinds in the order of docker's report, with their headings and what one is called.
const KINDS: [(Kind, &str, &str); 5] = [
    (Kind::Container, "Containers", "container"),
    (Kind::Image, "Images", "image"),
    (Kind::Blob, "Content", "blob"),
    (Kind::Snapshot, "Snapshots", "snapshot"),
    (Kind::Ingest, "Ingests", "ingest"),
];

/// The whole report.
pub(crate) fn text(report: &PruneReport, dry_run: bool) -> String {
    let mut out = String::new();
    for (kind, heading, noun) in KINDS {
        let mut items = report.items.iter().filter(|item| item.kind() == kind).peekable();
        if items.peek().is_none() {
            continue;
        }
        if dry_run {
            for item in items {
                let size = decimal_size(item.size, DIGITS);
                out += &format!("Would remove {noun} {} ({size})\n", name(item));
            }
        } else {
            out += &format!("Deleted {heading}:\n");
            items.for_each(|item| out += &format!("{}\n", name(item)));
            out.push('\n');
        }
    }
    let total = decimal_size(report.reclaimed, DIGITS);
    let sum = if dry_run { "Total reclaimable space" } else { "Total reclaimed space" };
    out + &format!("{sum}: {total}\n")
}

fn name(item: &PrunedItem) -> String {
    if item.kind() == Kind::Image { familiar(&item.id) } else { escaped(&item.id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_is_listed_by_kind() {
        let item =
            |kind: Kind, id: &str, size| PrunedItem { kind: kind.into(), id: id.to_owned(), size };
        let items = vec![
            item(Kind::Blob, "sha256:1", 2000),
            item(Kind::Image, "docker.io/library/a:1", 0),
            item(Kind::Blob, "sha256:2", 5),
        ];
        let report = PruneReport { items, reclaimed: 212_900_000 };
        assert_eq!(
            text(&report, false),
            "Deleted Images:\na:1\n\nDeleted Content:\nsha256:1\nsha256:2\n\n\
             Total reclaimed space: 212.9MB\n"
        );
        assert_eq!(
            text(&report, true),
            "Would remove image a:1 (0B)\nWould remove blob sha256:1 (2kB)\n\
             Would remove blob sha256:2 (5B)\nTotal reclaimable space: 212.9MB\n"
        );
        assert_eq!(text(&PruneReport::default(), false), "Total reclaimed space: 0B\n");
    }
}
