//! `--filter KEY=VALUE`, as docker has it: the same key twice is "or", different keys are "and".

use bosun_image::Reference;
use bosun_proto::v1;
use bosun_proto::v1::state::Status as Is;

use crate::error::{Error, Result};

/// Which containers a list shows.
#[derive(Debug)]
pub(super) struct ContainerFilter {
    /// Those that don't run as well.
    all: bool,
    filters: Vec<(ContainerKey, Vec<String>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContainerKey {
    Id,
    Name,
    Label,
    Status,
    Exited,
    Ancestor,
    Before,
    Since,
    Publish,
    Network,
}

const CONTAINER_KEYS: [(&str, ContainerKey); 10] = [
    ("id", ContainerKey::Id),
    ("name", ContainerKey::Name),
    ("label", ContainerKey::Label),
    ("status", ContainerKey::Status),
    ("exited", ContainerKey::Exited),
    ("ancestor", ContainerKey::Ancestor),
    ("before", ContainerKey::Before),
    ("since", ContainerKey::Since),
    ("publish", ContainerKey::Publish),
    ("network", ContainerKey::Network),
];

const STATUSES: [&str; 7] =
    ["created", "starting", "running", "exited", "removing", "dead", "paused"];

impl ContainerFilter {
    /// # Errors
    /// Names the filter that can't be used, and those that can.
    pub(super) fn parse(filters: &[String], all: bool) -> Result<Self> {
        let mut parsed: Vec<(ContainerKey, Vec<String>)> = Vec::new();
        for text in filters {
            let (name, value) = split(text)?;
            let known = CONTAINER_KEYS.iter().find(|(known, _)| *known == name);
            let key = known.ok_or_else(|| unknown(name, &CONTAINER_KEYS.map(|(name, _)| name)))?.1;
            check(key, value)?;
            match parsed.iter_mut().find(|(other, _)| *other == key) {
                Some((_, values)) => values.push(value.to_owned()),
                None => parsed.push((key, vec![value.to_owned()])),
            }
        }
        // Who asks for a status wants those that don't run as well.
        let all = all
            || parsed
                .iter()
                .any(|(key, _)| matches!(key, ContainerKey::Status | ContainerKey::Exited));
        Ok(Self { all, filters: parsed })
    }

    /// Those of `containers`, the newest first, that are wanted.
    pub(super) fn apply(&self, containers: Vec<v1::Container>) -> Vec<v1::Container> {
        let place = |reference: &str| {
            containers
                .iter()
                .position(|other| other.name == reference || other.id.starts_with(reference))
        };
        let keeps = |(own, container): (usize, &v1::Container)| {
            (self.all || is_up(container))
                && self.filters.iter().all(|(key, values)| {
                    values.iter().any(|value| matches_one((own, container), *key, value, &place))
                })
        };
        let kept: Vec<bool> = containers.iter().enumerate().map(keeps).collect();
        containers.into_iter().zip(kept).filter_map(|(one, keep)| keep.then_some(one)).collect()
    }
}

/// `KEY=VALUE`.
///
/// # Errors
/// There is no `=`.
pub(super) fn split(text: &str) -> Result<(&str, &str)> {
    text.split_once('=').ok_or_else(|| Error::InvalidArgument {
        what: "filter",
        problem: format!("{text:?} is not KEY=VALUE"),
    })
}

pub(super) fn unknown(name: &str, known: &[&str]) -> Error {
    Error::InvalidArgument {
        what: "filter",
        problem: format!("there is no filter {name:?}: choose from {}", known.join(", ")),
    }
}

fn check(key: ContainerKey, value: &str) -> Result<()> {
    let wrong = |problem: String| Err(Error::InvalidArgument { what: "filter", problem });
    match key {
        ContainerKey::Status if !STATUSES.contains(&value) => {
            wrong(format!("status {value:?}: choose from {}", STATUSES.join(", ")))
        }
        ContainerKey::Exited if value.parse::<u32>().is_err() => {
            wrong(format!("exited {value:?} is not an exit code"))
        }
        ContainerKey::Id
        | ContainerKey::Name
        | ContainerKey::Label
        | ContainerKey::Status
        | ContainerKey::Exited
        | ContainerKey::Ancestor
        | ContainerKey::Before
        | ContainerKey::Since
        | ContainerKey::Publish
        | ContainerKey::Network => Ok(()),
    }
}

fn status(container: &v1::Container) -> Is {
    container.state.as_ref().map_or(Is::Unspecified, v1::State::status)
}

fn is_up(container: &v1::Container) -> bool {
    matches!(status(container), Is::Running | Is::Paused | Is::Starting)
}

/// Whether a container, at its place in the list, is one that a filter wants; `place` finds others.
fn matches_one(
    (own, container): (usize, &v1::Container),
    key: ContainerKey,
    value: &str,
    place: &impl Fn(&str) -> Option<usize>,
) -> bool {
    let options = container.options.clone().unwrap_or_default();
    match key {
        ContainerKey::Id => container.id.starts_with(value),
        ContainerKey::Name => container.name.contains(value.trim_start_matches('/')),
        ContainerKey::Label => match value.split_once('=') {
            Some((name, value)) => options.labels.get(name).is_some_and(|actual| actual == value),
            None => options.labels.contains_key(value),
        },
        ContainerKey::Status => match status(container) {
            Is::Created => value == "created",
            Is::Starting => value == "starting",
            Is::Running => value == "running",
            Is::Paused => value == "paused",
            Is::Exited => value == "exited",
            Is::Removing => value == "removing",
            Is::Quarantined => value == "dead",
            Is::Unspecified => false,
        },
        ContainerKey::Exited => container
            .state
            .as_ref()
            .and_then(|state| state.exit.as_ref())
            .is_some_and(|exit| value.parse() == Ok(exit.status)),
        ContainerKey::Ancestor => match &options.base {
            Some(v1::container_options::Base::Image(image)) => {
                let hex = container.image_id.trim_start_matches("sha256:");
                image == value
                    || value.parse::<Reference>().is_ok_and(|name| name.name() == *image)
                    || (value.len() >= 4 && hex.starts_with(value.trim_start_matches("sha256:")))
            }
            Some(v1::container_options::Base::Rootfs(path)) => {
                path == value || format!("rootfs:{path}") == value
            }
            None => false,
        },
        ContainerKey::Before => place(value).is_some_and(|other| own > other),
        ContainerKey::Since => place(value).is_some_and(|other| own < other),
        ContainerKey::Publish => publishes(container, &options, value),
        ContainerKey::Network => network_name(&options) == value,
    }
}

fn publishes(container: &v1::Container, options: &v1::ContainerOptions, value: &str) -> bool {
    let (port, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
    let ports = container.network.as_ref().map_or(&options.ports, |network| &network.ports);
    ports.iter().any(|published| {
        let own = match published.protocol() {
            v1::Protocol::Tcp => "tcp",
            v1::Protocol::Udp => "udp",
        };
        own == protocol && port.parse() == Ok(published.host_port)
    })
}

fn network_name(options: &v1::ContainerOptions) -> String {
    use v1::network::Mode;
    let network = options.network.clone().unwrap_or_default();
    match network.mode() {
        Mode::Bridge => "bridge".to_owned(),
        Mode::Host => "host".to_owned(),
        Mode::None => "none".to_owned(),
        Mode::Container => format!("container:{}", network.container),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(id: &str, name: &str, is: Is, code: u32, seconds: i64) -> v1::Container {
        let mut state = v1::State {
            exit: (is == Is::Exited).then(|| v1::Exit { status: code, ..Default::default() }),
            ..Default::default()
        };
        state.set_status(is);
        v1::Container {
            id: id.to_owned(),
            name: name.to_owned(),
            state: Some(state),
            created_at: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            options: Some(v1::ContainerOptions {
                labels: [("tier".to_owned(), name.to_owned())].into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn shown(filters: &[&str], all: bool) -> String {
        let containers = vec![
            one("aa1", "web", Is::Running, 0, 3),
            one("ab2", "db", Is::Exited, 42, 2),
            one("bb3", "job", Is::Exited, 0, 1),
        ];
        let filters: Vec<String> = filters.iter().map(|text| (*text).to_owned()).collect();
        let kept = ContainerFilter::parse(&filters, all).unwrap().apply(containers);
        kept.into_iter().map(|one| one.name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn filters_choose_as_docker_does() {
        assert_eq!(shown(&[], false), "web");
        assert_eq!(shown(&[], true), "web db job");
        assert_eq!(shown(&["id=a"], true), "web db");
        assert_eq!(shown(&["name=b"], true), "web db job");
        assert_eq!(shown(&["label=tier=db"], true), "db");
        assert_eq!(shown(&["label=tier"], true), "web db job");
        assert_eq!(shown(&["status=exited"], false), "db job");
        assert_eq!(shown(&["exited=42"], false), "db");
        assert_eq!(shown(&["status=running", "status=exited"], false), "web db job");
        assert_eq!(shown(&["status=exited", "name=jo"], false), "job");
        assert_eq!(shown(&["before=web"], true), "db job");
        assert_eq!(shown(&["since=job"], true), "web db");
        assert_eq!(shown(&["network=bridge"], false), "web");
    }

    #[test]
    fn a_filter_that_can_not_be_used_is_named() {
        for (text, says) in [
            ("status", "KEY=VALUE"),
            ("colour=red", "choose from id, name"),
            ("status=alive", "choose from created"),
            ("exited=x", "not an exit code"),
        ] {
            let error = ContainerFilter::parse(&[text.to_owned()], false).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
