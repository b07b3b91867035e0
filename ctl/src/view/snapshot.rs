//! Snapshots as rows and as JSON.

use bosun_proto::v1::snapshot::Kind;
use bosun_proto::v1::{Mount, Snapshot};

use super::listing::Column;
use super::moment::utc;
use crate::template::{Value, record};

/// The headings of a snapshot's fields.
pub(crate) const COLUMNS: [Column; 5] = [
    Column { field: "Key", heading: "KEY" },
    Column { field: "Kind", heading: "KIND" },
    Column { field: "Parent", heading: "PARENT" },
    Column { field: "HeldBy", heading: "HELD BY" },
    Column { field: "Created", heading: "CREATED" },
];

pub(crate) fn value(snapshot: &Snapshot) -> Value {
    let kind = match snapshot.kind() {
        Kind::Unspecified => "Unknown",
        Kind::View => "View",
        Kind::Active => "Active",
        Kind::Committed => "Committed",
    };
    // A directory stands where a parent would.
    let parent = match snapshot.directory.as_str() {
        "" => snapshot.parent.clone(),
        directory => format!("dir:{directory}"),
    };
    record([
        ("Key", snapshot.key.as_str().into()),
        ("Kind", kind.into()),
        ("Parent", parent.into()),
        ("Directory", snapshot.directory.as_str().into()),
        ("HeldBy", snapshot.held_by.as_str().into()),
        ("Created", utc(snapshot.created_at.as_ref()).into()),
        ("Updated", utc(snapshot.updated_at.as_ref()).into()),
        ("Labels", (&snapshot.labels).into()),
    ])
}

/// The command that mounts it, quoted for a shell.
pub(crate) fn mount_command(mount: &Mount, target: &str) -> String {
    let mut words = vec!["mount".to_owned(), "-t".to_owned(), quoted(&mount.r#type)];
    words.push(quoted(&mount.source));
    words.push(quoted(target));
    if !mount.options.is_empty() {
        words.extend(["-o".to_owned(), quoted(&mount.options.join(","))]);
    }
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=/.,:@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_commands_for_a_shell() {
        let mount = Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            options: ["lowerdir=/a b", "upperdir=/c"].map(str::to_owned).into(),
        };
        assert_eq!(
            mount_command(&mount, "/it's"),
            "mount -t overlay overlay '/it'\\''s' -o 'lowerdir=/a b,upperdir=/c'"
        );
    }
}
