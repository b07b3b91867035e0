//! Blobs, ingests and leases as rows and as JSON.

use bosun_proto::v1::lease_resource::Kind;
use bosun_proto::v1::{Blob, Ingest, Lease, LeaseResource};

use super::human_size;
use super::listing::Column;
use super::moment::utc;
use crate::template::{Value, record};

/// The headings of all their fields.
pub(crate) const COLUMNS: [Column; 9] = [
    Column { field: "Digest", heading: "DIGEST" },
    Column { field: "Size", heading: "SIZE" },
    Column { field: "Created", heading: "CREATED" },
    Column { field: "Reference", heading: "REFERENCE" },
    Column { field: "Started", heading: "STARTED" },
    Column { field: "Received", heading: "RECEIVED" },
    Column { field: "ID", heading: "ID" },
    Column { field: "Expires", heading: "EXPIRES" },
    Column { field: "Kind", heading: "KIND" },
];

pub(crate) fn blob(blob: &Blob) -> Value {
    record([
        ("Digest", blob.digest.as_str().into()),
        ("Size", human_size(blob.size).into()),
        ("Bytes", blob.size.into()),
        ("Created", utc(blob.created_at.as_ref()).into()),
        ("Labels", (&blob.labels).into()),
    ])
}

pub(crate) fn ingest(ingest: &Ingest) -> Value {
    record([
        ("Reference", ingest.reference.as_str().into()),
        ("Received", human_size(ingest.offset).into()),
        ("Bytes", ingest.offset.into()),
        ("Size", ingest.expected_size.map_or_else(String::new, human_size).into()),
        ("Digest", ingest.expected_digest.as_str().into()),
        ("Started", utc(ingest.started_at.as_ref()).into()),
        ("Labels", (&ingest.labels).into()),
    ])
}

pub(crate) fn lease(lease: &Lease) -> Value {
    let expires = match &lease.expires_at {
        None => "never".to_owned(),
        at @ Some(_) => utc(at.as_ref()),
    };
    record([
        ("ID", lease.id.as_str().into()),
        ("Created", utc(lease.created_at.as_ref()).into()),
        ("Expires", expires.into()),
        ("Labels", (&lease.labels).into()),
    ])
}

pub(crate) fn resource(resource: &LeaseResource) -> Value {
    let kind = match resource.kind() {
        Kind::Unspecified => "unknown",
        Kind::Snapshot => "snapshot",
        Kind::Content => "content",
    };
    record([("Kind", kind.into()), ("ID", resource.id.as_str().into())])
}
