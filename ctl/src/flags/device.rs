//! Weights and rates of one block device: `DEVICE:VALUE`.

use bosun_proto::v1::{DeviceRate, DeviceWeight};

use super::{FlagError, parse_size};

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
