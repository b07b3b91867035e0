//! Pods as rows and as JSON.

use bosun_proto::v1::Sandbox;
use bosun_proto::v1::network::Mode;

use super::inspect::id_mappings;
use super::listing::Column;
use super::moment::utc;
use super::{ports, status};
use crate::template::{Value, record};

/// The headings of all their fields.
pub(crate) const COLUMNS: [Column; 7] = [
    Column { field: "ShortID", heading: "POD ID" },
    Column { field: "ID", heading: "POD ID" },
    Column { field: "Name", heading: "NAME" },
    Column { field: "State", heading: "STATUS" },
    Column { field: "Created", heading: "CREATED" },
    Column { field: "Count", heading: "CONTAINERS" },
    Column { field: "Ports", heading: "PORTS" },
];

pub(crate) fn value(pod: &Sandbox) -> Value {
    let options = pod.options.clone().unwrap_or_default();
    let state = pod.state.clone().unwrap_or_default();
    let network = match options.network.unwrap_or_default().mode() {
        Mode::Bridge => "bridge",
        Mode::Host => "host",
        Mode::None => "none",
        Mode::Container => "container",
    };
    let bound = pod.network_status.clone().unwrap_or_default();
    record([
        ("ID", pod.id.as_str().into()),
        ("ShortID", pod.id.chars().take(12).collect::<String>().into()),
        ("Name", pod.name.as_str().into()),
        ("State", status::word(state.status()).into()),
        ("Pid", u64::from(state.pid).into()),
        ("ShimPid", u64::from(state.shim_pid).into()),
        ("Created", utc(pod.created_at.as_ref()).into()),
        ("Hostname", options.hostname.as_str().into()),
        ("SharePid", options.share_pid.into()),
        ("Network", network.into()),
        ("NetworkNamespace", pod.network_namespace.as_str().into()),
        ("Address", bound.address.as_str().into()),
        ("Ports", ports::sentence(&bound.ports, &[]).into()),
        ("IDMappings", id_mappings(&options.uid_mappings, &options.gid_mappings)),
        ("Sysctls", (&options.sysctls).into()),
        ("Labels", (&options.labels).into()),
        ("Containers", pod.containers.clone().into()),
        ("Count", u64::try_from(pod.containers.len()).unwrap_or(u64::MAX).into()),
    ])
}
