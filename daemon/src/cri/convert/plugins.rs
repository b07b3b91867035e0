//! What CNI's plugins are told of a pod.

use bosun_cni::{Arguments, Bandwidth, Capabilities, DnsSettings, PortMapping, Protocol};

use crate::cri::network::failed;
use crate::cri::{invalid, wire};
use crate::error::Result;

/// Annotations that limit a pod's traffic, in bits a second.
const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";

/// The rates that Kubernetes takes.
const RATES: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;

/// The name of the annotations among capabilities, as other runtimes pass them.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// Arguments and capabilities for a pod of this id.
///
/// # Errors
/// Names the part of the pod that can't be said to plugins.
pub(crate) fn plugin_arguments(
    id: &str,
    config: &wire::PodSandboxConfig,
) -> Result<(Arguments, Capabilities)> {
    let metadata = config.metadata.clone().unwrap_or_default();
    let arguments = Arguments::kubernetes(&metadata.namespace, &metadata.name, id, &metadata.uid)
        .map_err(failed)?;
    let parent = config.linux.as_ref().map(|linux| linux.cgroup_parent.clone());
    let mut capabilities = Capabilities {
        port_mappings: config.port_mappings.iter().map(mapping).collect::<Result<_>>()?,
        bandwidth: bandwidth(config)?,
        dns: config.dns_config.as_ref().map(|dns| DnsSettings {
            servers: dns.servers.clone(),
            searches: dns.searches.clone(),
            options: dns.options.clone(),
        }),
        cgroup_path: parent.filter(|parent| !parent.is_empty()),
        ..Capabilities::default()
    };
    if !config.annotations.is_empty() {
        let annotations = serde_json::json!(config.annotations);
        capabilities.others.insert(ANNOTATIONS.to_owned(), annotations);
    }
    Ok((arguments, capabilities))
}

fn mapping(mapping: &wire::PortMapping) -> Result<PortMapping> {
    const WHAT: &str = "port_mappings";
    let port = |port: i32| {
        u16::try_from(port).map_err(|_| invalid(WHAT, format!("{port} is no number of a port")))
    };
    let host_ip = match mapping.host_ip.as_str() {
        "" => None,
        text => {
            let malformed = |_| invalid(WHAT, format!("{text:?} is no address"));
            Some(text.trim_matches(['[', ']']).parse().map_err(malformed)?)
        }
    };
    Ok(PortMapping {
        host_port: port(mapping.host_port)?,
        container_port: port(mapping.container_port)?,
        protocol: match mapping.protocol() {
            wire::Protocol::Tcp => Protocol::Tcp,
            wire::Protocol::Udp => Protocol::Udp,
            wire::Protocol::Sctp => Protocol::Sctp,
        },
        host_ip,
    })
}

fn bandwidth(config: &wire::PodSandboxConfig) -> Result<Option<Bandwidth>> {
    let rate = |name: &'static str| -> Result<u64> {
        let Some(text) = config.annotations.get(name) else { return Ok(0) };
        let rate = quantity(text).filter(|rate| RATES.contains(rate));
        rate.ok_or_else(|| {
            invalid(name, format!("{text:?} is not between 1k and 1P bits a second"))
        })
    };
    let (ingress_rate, egress_rate) = (rate(INGRESS)?, rate(EGRESS)?);
    // As much at once as the kernel's queues take.
    let burst = |rate: u64| if rate == 0 { 0 } else { u64::from(i32::MAX.unsigned_abs()) };
    Ok((ingress_rate + egress_rate > 0).then(|| Bandwidth {
        ingress_rate,
        ingress_burst: burst(ingress_rate),
        egress_rate,
        egress_burst: burst(egress_rate),
    }))
}

/// A quantity of Kubernetes (resource.Quantity), rounded up as its Value() is: `10M`, `1Gi`, `1.5G`, `1e6`.
fn quantity(text: &str) -> Option<u64> {
    /// Suffixes of powers of two, and of ten; a lone `E` is 10^18, one before a number an exponent.
    const BINARY: [(&str, u32); 6] =
        [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
    const DECIMAL: [(&str, i32); 10] = [
        ("n", -9),
        ("u", -6),
        ("m", -3),
        ("", 0),
        ("k", 3),
        ("M", 6),
        ("G", 9),
        ("T", 12),
        ("P", 15),
        ("E", 18),
    ];
    let text = text.strip_prefix('+').unwrap_or(text);
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let (number, suffix) = text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let binary = BINARY.iter().find(|(name, _)| *name == suffix).map(|(_, shift)| 1_u128 << shift);
    let exponent = match suffix.strip_prefix(['e', 'E']) {
        _ if binary.is_some() => 0,
        Some(exponent) if !exponent.is_empty() => exponent.parse().ok()?,
        Some(_) | None => DECIMAL.iter().find(|(name, _)| *name == suffix)?.1,
    };
    let exponent = exponent.checked_sub_unsigned(u32::try_from(fraction.len()).ok()?)?;
    let power = 10_u128.checked_pow(exponent.unsigned_abs())?;
    let scaled = digits.checked_mul(binary.unwrap_or(1))?;
    let value = match exponent < 0 {
        true => scaled.div_ceil(power),
        false => scaled.checked_mul(power)?,
    };
    u64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(name: &str, value: &str) -> wire::PodSandboxConfig {
        wire::PodSandboxConfig {
            annotations: [(name.to_owned(), value.to_owned())].into(),
            ..wire::PodSandboxConfig::default()
        }
    }

    #[test]
    fn quantities_are_kubernetes_s() {
        for (text, value) in [
            ("10M", 10_000_000),
            ("1Gi", 1 << 30),
            ("5000", 5000),
            ("2k", 2000),
            ("1.5G", 1_500_000_000),
            ("0.5M", 500_000),
            (".5k", 500),
            ("2.5Mi", 5 << 19),
            ("1.0M", 1_000_000),
            ("+1e6", 1_000_000),
            ("12E-1", 2),
            ("1E", 1_000_000_000_000_000_000),
            ("1500m", 2),
        ] {
            assert_eq!(quantity(text), Some(value), "{text}");
        }
        let absurd = format!("1.{}", "0".repeat(5_000));
        let others = ["", "M", ".", "1.5.1", "-1M", "1K", "1 k", "1e", "1eM", "1e999", "1e-999"];
        for text in others.into_iter().chain(["99999999999999P", "16Ei", &absurd]) {
            assert_eq!(quantity(text), None, "{text:?}");
        }
    }

    #[test]
    fn traffic_is_limited_by_annotations_and_a_bad_one_is_named() {
        let made = bandwidth(&annotated(EGRESS, "8M")).unwrap().unwrap();
        assert_eq!((made.egress_rate, made.ingress_rate, made.ingress_burst), (8_000_000, 0, 0));
        assert_eq!(bandwidth(&wire::PodSandboxConfig::default()).unwrap(), None);
        for text in ["fast", "1", "1000P"] {
            let error = bandwidth(&annotated(INGRESS, text)).unwrap_err().to_string();
            assert!(error.contains(INGRESS) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn what_separates_arguments_is_refused() {
        let metadata = wire::PodSandboxMetadata {
            name: "a;IgnoreUnknown=0".to_owned(),
            ..wire::PodSandboxMetadata::default()
        };
        let config = wire::PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
        assert!(plugin_arguments("id", &config).is_err());
    }
}
