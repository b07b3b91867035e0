//! `--network`.

use bosun_proto::v1::Network;
use bosun_proto::v1::network::Mode;

use super::FlagError;

/// bridge (or docker's other word for it, default), host, none, or container:NAME.
pub(crate) fn parse_network(text: &str) -> Result<Network, FlagError> {
    let (mode, container) = match text.split_once(':') {
        Some(("container", name)) if !name.is_empty() => (Mode::Container, name),
        Some(_) => return Err(FlagError::Network(text.to_owned())),
        None => match text {
            "bridge" | "default" => (Mode::Bridge, ""),
            "host" => (Mode::Host, ""),
            "none" => (Mode::None, ""),
            _ => return Err(FlagError::Network(text.to_owned())),
        },
    };
    Ok(Network { mode: mode.into(), container: container.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_by_name() {
        for (text, mode, container) in [
            ("bridge", Mode::Bridge, ""),
            ("default", Mode::Bridge, ""),
            ("host", Mode::Host, ""),
            ("none", Mode::None, ""),
            ("container:web", Mode::Container, "web"),
        ] {
            let network = parse_network(text).unwrap();
            assert_eq!((network.mode(), network.container.as_str()), (mode, container), "{text}");
        }
        for text in ["", "mynet", "container:", "host:x", "container"] {
            assert_eq!(parse_network(text), Err(FlagError::Network(text.to_owned())));
        }
    }
}
