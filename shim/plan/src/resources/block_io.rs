//! Shares and limits of block devices.

use std::collections::BTreeSet;

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice, LinuxWeightDevice};
use shim_wire::plan::{BlockIo, ThrottleDevice, WeightDevice};

use crate::{Error, devices};

const AT: &str = "linux.resources.blockIO";

/// Absent when nothing is asked for.
pub(super) fn lower(spec: &LinuxBlockIo) -> Result<Option<BlockIo>, Error> {
    let lowered = BlockIo {
        weight: weight(spec.weight(), &format!("{AT}.weight"))?,
        leaf_weight: weight(spec.leaf_weight(), &format!("{AT}.leafWeight"))?,
        weight_devices: weight_devices(spec.weight_device().as_deref().unwrap_or_default())?,
        read_bps: throttles(spec.throttle_read_bps_device(), "throttleReadBpsDevice")?,
        write_bps: throttles(spec.throttle_write_bps_device(), "throttleWriteBpsDevice")?,
        read_iops: throttles(spec.throttle_read_iops_device(), "throttleReadIOPSDevice")?,
        write_iops: throttles(spec.throttle_write_iops_device(), "throttleWriteIOPSDevice")?,
    };
    Ok((lowered != BlockIo::default()).then_some(lowered))
}

fn weight(value: Option<u16>, at: &str) -> Result<Option<u32>, Error> {
    match value.filter(|weight| *weight != 0) {
        Some(weight) if !(10..=1000).contains(&weight) => {
            Err(Error::malformed(at, weight.to_string(), "from 10 to 1000"))
        }
        weight => Ok(weight.map(u32::from)),
    }
}

fn weight_devices(spec: &[LinuxWeightDevice]) -> Result<Vec<WeightDevice>, Error> {
    let lower = |(index, spec): (usize, &LinuxWeightDevice)| {
        let at = format!("{AT}.weightDevice[{index}]");
        let (major, minor) = devices::numbers(spec.major(), spec.minor(), &at)?;
        let weight_at = format!("{at}.weight");
        let own = weight(spec.weight(), &weight_at)?;
        let leaf_weight = weight(spec.leaf_weight(), &format!("{at}.leafWeight"))?;
        if own.is_none() && leaf_weight.is_none() {
            return Err(Error::missing(weight_at));
        }
        Ok(WeightDevice { major, minor, weight: own, leaf_weight })
    };
    let devices: Vec<_> = spec.iter().enumerate().map(lower).collect::<Result<_, _>>()?;
    refuse_twice(devices.iter().map(|device| (device.major, device.minor)), "weightDevice")?;
    Ok(devices)
}

fn refuse_twice(devices: impl Iterator<Item = (u32, u32)>, name: &str) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for (index, device) in devices.enumerate() {
        if !seen.insert(device) {
            let at = format!("{AT}.{name}[{index}]");
            return Err(Error::contradiction(at, "a second limit of the same device"));
        }
    }
    Ok(())
}

fn throttles(
    spec: &Option<Vec<LinuxThrottleDevice>>,
    name: &str,
) -> Result<Vec<ThrottleDevice>, Error> {
    let lower = |(index, spec): (usize, &LinuxThrottleDevice)| {
        let at = format!("{AT}.{name}[{index}]");
        let (major, minor) = devices::numbers(spec.major(), spec.minor(), &at)?;
        Ok(ThrottleDevice { major, minor, rate: spec.rate() })
    };
    let devices: Vec<ThrottleDevice> =
        spec.iter().flatten().enumerate().map(lower).collect::<Result<_, _>>()?;
    refuse_twice(devices.iter().map(|device| (device.major, device.minor)), name)?;
    Ok(devices)
}
