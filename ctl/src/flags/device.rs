//! Devices: `--device`; weights and rates of one block device, `DEVICE:VALUE`.

use bosun_proto::v1::{Device, DeviceRate, DeviceWeight};

use super::{FlagError, parse_size};

/// What `--device` names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AnyDevice {
    Node(Device),
    /// Of a CDI specification, which bosund reads.
    Cdi(String),
}

/// `/dev/a`, `/dev/a:/dev/b`, `/dev/a:r`, `/dev/a:/dev/b:rw`, `vendor.com/class=name`
pub(crate) fn parse_device(text: &str) -> Result<AnyDevice, FlagError> {
    let wrong = || FlagError::DeviceNode(text.to_owned());
    if !text.starts_with('/') {
        return match text.contains('=') {
            true => Ok(AnyDevice::Cdi(text.to_owned())),
            false => Err(wrong()),
        };
    }
    let is_access =
        |word: &str| !word.is_empty() && word.chars().all(|letter| "rwm".contains(letter));
    let (container_path, access) = match text.split(':').collect::<Vec<_>>()[1..] {
        [] => ("", ""),
        [access] if is_access(access) => ("", access),
        [path] if path.starts_with('/') => (path, ""),
        [path, access] if path.starts_with('/') && is_access(access) => (path, access),
        _ => return Err(wrong()),
    };
    Ok(AnyDevice::Node(Device {
        host_path: text.split(':').next().unwrap_or_default().to_owned(),
        container_path: container_path.to_owned(),
        access: access.to_owned(),
    }))
}

/// `/dev/sda:300`
pub(crate) fn parse_device_weight(text: &str) -> Result<DeviceWeight, FlagError> {
    let (path, value) = split(text)?;
    let weight = value.parse().map_err(|_| FlagError::Device(text.to_owned()))?;
    Ok(DeviceWeight { path, weight })
}

/// `/dev/sda:10mb`, in bytes a second.
pub(crate) fn parse_device_rate(text: &str) -> Result<DeviceRate, FlagError> {
    let (path, value) = split(text)?;
    let rate = u64::try_from(parse_size(value)?).map_err(|_| FlagError::Device(text.to_owned()))?;
    Ok(DeviceRate { path, rate })
}

/// `/dev/sda:1000`, in operations a second.
pub(crate) fn parse_device_iops(text: &str) -> Result<DeviceRate, FlagError> {
    let (path, value) = split(text)?;
    let rate = value.parse().map_err(|_| FlagError::Device(text.to_owned()))?;
    Ok(DeviceRate { path, rate })
}

fn split(text: &str) -> Result<(String, &str), FlagError> {
    // The path may hold colons; the value does not.
    let parts = text.rsplit_once(':').filter(|(path, _)| path.starts_with("/dev/"));
    let (path, value) = parts.ok_or_else(|| FlagError::Device(text.to_owned()))?;
    Ok((path.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_a_node_or_has_a_vendor() {
        let node = |text: &str| match parse_device(text).unwrap() {
            AnyDevice::Node(Device { host_path, container_path, access }) => {
                [host_path, container_path, access].join("|")
            }
            AnyDevice::Cdi(name) => name,
        };
        for (text, parsed) in [
            ("/dev/a", "/dev/a||"),
            ("/dev/a:/dev/b", "/dev/a|/dev/b|"),
            ("/dev/a:rm", "/dev/a||rm"),
            ("/dev/a:/dev/b:r", "/dev/a|/dev/b|r"),
            ("vendor.com/gpu=0", "vendor.com/gpu=0"),
        ] {
            assert_eq!(node(text), parsed, "{text}");
        }
        for text in ["", "gpu", "/dev/a:", "/dev/a:x", "/dev/a:b:r", "/dev/a:/dev/b:x", "/a:/b:r:r"]
        {
            let said = parse_device(text).unwrap_err().to_string();
            assert!(said.contains("vendor.com/gpu=0"), "{said}");
        }
    }

    #[test]
    fn a_device_and_its_value_stand_around_the_last_colon() {
        let weight = parse_device_weight("/dev/sda:300").unwrap();
        assert_eq!((weight.path.as_str(), weight.weight), ("/dev/sda", 300));
        let rate = parse_device_rate("/dev/disk/by-path/a:0:1mb").unwrap();
        assert_eq!((rate.path.as_str(), rate.rate), ("/dev/disk/by-path/a:0", 1 << 20));
        assert_eq!(parse_device_iops("/dev/sda:0").unwrap().rate, 0);
        for text in ["sda:1", "/dev/sda", "/dev/sda:", "/dev/sda:x", "/dev/sda:-1"] {
            assert!(parse_device_iops(text).is_err(), "{text}");
            assert!(parse_device_weight(text).is_err(), "{text}");
            assert!(parse_device_rate(text).is_err(), "{text}");
        }
    }
}
