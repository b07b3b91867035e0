//! What takes how much of the disk, as `docker system df` lays it out.

use bosun_proto::v1::{DiskUsage, DiskUsageResponse};

use super::decimal_size;
use super::listing::Column;
use crate::template::{Value, record};

/// Significant digits of a size.
const DIGITS: u32 = 4;

/// The headings of docker's fields.
pub(crate) const COLUMNS: [Column; 5] = [
    Column { field: "Type", heading: "TYPE" },
    Column { field: "TotalCount", heading: "TOTAL" },
    Column { field: "Active", heading: "ACTIVE" },
    Column { field: "Size", heading: "SIZE" },
    Column { field: "Reclaimable", heading: "RECLAIMABLE" },
];

/// A row for each kind.
pub(crate) fn rows(usage: &DiskUsageResponse) -> Vec<Value> {
    [
        ("Images", &usage.images),
        ("Containers", &usage.containers),
        ("Content", &usage.content),
        ("Snapshots", &usage.snapshots),
        ("Ingests", &usage.ingests),
    ]
    .into_iter()
    .map(|(kind, usage)| row(kind, usage.unwrap_or_default()))
    .collect()
}

fn row(kind: &str, usage: DiskUsage) -> Value {
    let DiskUsage { count, active, size, reclaimable } = usage;
    let percent = u128::from(reclaimable) * 100 / u128::from(size.max(1));
    let share = if size > 0 { format!(" ({percent}%)") } else { String::new() };
    record([
        ("Type", kind.into()),
        ("TotalCount", count.to_string().into()),
        ("Active", active.to_string().into()),
        ("Size", decimal_size(size, DIGITS).into()),
        ("Reclaimable", format!("{}{share}", decimal_size(reclaimable, DIGITS)).into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Listing;

    #[test]
    fn the_table_is_dockers() {
        let images = DiskUsage { count: 3, active: 1, size: 2_000_000, reclaimable: 500_000 };
        let usage = DiskUsageResponse { images: Some(images), ..DiskUsageResponse::default() };
        let listing = Listing::new(None, crate::commands::system::TABLE, &COLUMNS).unwrap();
        let text = listing.render(&rows(&usage)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "TYPE         TOTAL     ACTIVE    SIZE      RECLAIMABLE");
        assert_eq!(lines[1], "Images       3         1         2MB       500kB (25%)");
        assert_eq!(lines[5], "Ingests      0         0         0B        0B");
    }
}
