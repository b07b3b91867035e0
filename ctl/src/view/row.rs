//! A container as a row of `ctl ps`: docker's fields, docker's words.

use std::collections::BTreeMap;

use bosun_proto::v1::container_options::Base;
use bosun_proto::v1::network::Mode;
use bosun_proto::v1::state::Status;
use bosun_proto::v1::{Container, ContainerOptions};
use jiff::Timestamp;

use super::duration::human_duration;
use super::image::familiar;
use super::listing::Column;
use super::moment::{local_words, seconds_since};
use super::{ports, status};
use crate::template::{Lookup, Value, record};

/// The headings of docker's fields.
pub(crate) const COLUMNS: [Column; 15] = [
    Column { field: "Command", heading: "COMMAND" },
    Column { field: "CreatedAt", heading: "CREATED AT" },
    Column { field: "ID", heading: "CONTAINER ID" },
    Column { field: "Image", heading: "IMAGE" },
    Column { field: "Label", heading: "" },
    Column { field: "Labels", heading: "LABELS" },
    Column { field: "LocalVolumes", heading: "LOCAL VOLUMES" },
    Column { field: "Mounts", heading: "MOUNTS" },
    Column { field: "Names", heading: "NAMES" },
    Column { field: "Networks", heading: "NETWORKS" },
    Column { field: "Ports", heading: "PORTS" },
    Column { field: "RunningFor", heading: "CREATED" },
    Column { field: "Size", heading: "SIZE" },
    Column { field: "State", heading: "STATE" },
    Column { field: "Status", heading: "STATUS" },
];

const ID_LEN: usize = 12;
const COMMAND_LEN: usize = 20;

/// One row. `size` is what its own files take; `whole` keeps what docker cuts short otherwise.
pub(crate) fn container_row(
    container: &Container,
    size: &str,
    now: Timestamp,
    whole: bool,
) -> Value {
    let none = ContainerOptions::default();
    let options = container.options.as_ref().unwrap_or(&none);
    let command = container.args.join(" ");
    let command = if whole { command } else { cut(&command, COMMAND_LEN) };
    let id_len = if whole { usize::MAX } else { ID_LEN };
    let labels: BTreeMap<String, String> =
        options.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let all_labels: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mounts: Vec<String> = options
        .mounts
        .iter()
        .map(|mount| if whole { mount.source.clone() } else { cut(&mount.source, 15) })
        .collect();
    let state = container.state.as_ref().map_or(Status::Unspecified, |state| state.status());
    let bound = container.network.as_ref().map_or(&[][..], |network| &network.ports);
    // As docker has it: of those that run.
    let runs = matches!(state, Status::Running | Status::Paused);
    let exposed = if runs { container.exposed_ports.as_slice() } else { &[] };
    let age = human_duration(seconds_since(container.created_at.as_ref(), now));
    record([
        ("Command", format!("{command:?}").into()),
        ("CreatedAt", local_words(container.created_at.as_ref()).into()),
        ("ID", container.id.chars().take(id_len).collect::<String>().into()),
        ("Image", base(options).into()),
        ("Label", Value::Lookup(Lookup::In(labels))),
        ("Labels", all_labels.join(",").into()),
        ("LocalVolumes", container.volumes.len().to_string().into()),
        ("Mounts", mounts.join(",").into()),
        ("Names", container.name.as_str().into()),
        ("Networks", network_name(options).into()),
        ("Ports", ports::sentence(bound, exposed).into()),
        ("RunningFor", format!("{age} ago").into()),
        ("Size", size.into()),
        ("State", status::word(state).into()),
        ("Status", status::sentence(container, now).into()),
    ])
}

/// The image, or `rootfs:` and the directory.
pub(super) fn base(options: &ContainerOptions) -> String {
    match &options.base {
        Some(Base::Rootfs(directory)) => format!("rootfs:{directory}"),
        Some(Base::Image(image)) => familiar(image),
        None => String::new(),
    }
}

/// docker's NetworkMode.
pub(super) fn network_name(options: &ContainerOptions) -> String {
    let Some(network) = &options.network else { return "bridge".to_owned() };
    match network.mode() {
        Mode::Bridge => "bridge".to_owned(),
        Mode::Host => "host".to_owned(),
        Mode::None => "none".to_owned(),
        Mode::Container => format!("container:{}", network.container),
    }
}

/// At most `len` characters, the last one an ellipsis when something is missing.
pub(super) fn cut(text: &str, len: usize) -> String {
    if text.chars().count() <= len {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(len - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use bosun_proto::v1::{NetworkStatus, Port, State};

    use super::*;
    use crate::view::Listing;

    const NOW: i64 = 1_767_366_245;

    fn web() -> Container {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        Container {
            id: "0123456789abcdef".repeat(4),
            name: "web".to_owned(),
            created_at: at(NOW - 4),
            options: Some(ContainerOptions {
                base: Some(Base::Rootfs("/".to_owned())),
                labels: [("tier", "front"), ("app", "web")]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
                ..ContainerOptions::default()
            }),
            state: Some(State {
                status: Status::Running.into(),
                pid: 7,
                started_at: at(NOW - 3),
                ..State::default()
            }),
            network: Some(NetworkStatus {
                ports: vec![Port { host_port: 8000, container_port: 8000, ..Port::default() }],
                ..NetworkStatus::default()
            }),
            args: ["/usr/bin/python3", "-m", "http.server"].map(str::to_owned).into(),
            ..Container::default()
        }
    }

    fn shown(format: &str, whole: bool) -> String {
        let now = Timestamp::from_second(NOW).unwrap();
        let listing = Listing::new(Some(format), "", &COLUMNS).unwrap();
        listing.render(&[container_row(&web(), "0B", now, whole)]).unwrap()
    }

    #[test]
    fn the_table_is_dockers() {
        let format = crate::commands::ps::TABLE;
        assert_eq!(
            shown(format, false),
            "\
CONTAINER ID   IMAGE      COMMAND                  CREATED         STATUS         PORTS                    NAMES
0123456789ab   rootfs:/   \"/usr/bin/python3 -m…\"   4 seconds ago   Up 3 seconds   0.0.0.0:8000->8000/tcp   web
"
        );
    }

    #[test]
    fn nothing_is_cut_short_on_demand() {
        let line = shown("{{.ID}} {{.Command}}", true);
        assert_eq!(
            line,
            format!("{} \"/usr/bin/python3 -m http.server\"\n", "0123456789abcdef".repeat(4))
        );
    }

    #[test]
    fn fields_are_dockers() {
        assert_eq!(
            shown("{{.State}} {{.Networks}} {{.Labels}} {{.Label \"tier\"}}", false),
            "running bridge app=web,tier=front front\n"
        );
        let json = shown("json", false);
        assert!(json.starts_with(r#"{"Command":"\"/usr/bin/python3 -m…\"","CreatedAt":"20"#));
        assert!(json.contains(r#""ID":"0123456789ab","Image":"rootfs:/","Labels":"#), "{json}");
    }

    #[test]
    fn every_field_has_a_heading() {
        let now = Timestamp::from_second(NOW).unwrap();
        let Value::Record(fields) = container_row(&web(), "0B", now, false) else { panic!() };
        let fields: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
        assert_eq!(fields, COLUMNS.map(|column| column.field));
    }
}
