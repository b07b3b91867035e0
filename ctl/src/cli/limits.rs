//! The flags that limit a container: those that `update` can change, and those that are said once.

use bosun_proto::v1::{DeviceRate, DeviceWeight};
use clap::Args;

use crate::flags::{
    parse_cpus, parse_device_iops, parse_device_rate, parse_device_weight, parse_size, parse_swap,
};

/// What can be changed as long as the container is there.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LimitArgs {
    /// Memory limit, for example 512m
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory: Option<i64>,
    /// Limit of memory and swap together; -1 for none
    #[arg(long, value_name = "SIZE", value_parser = parse_swap, allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<i64>,
    /// What it keeps when memory is short, for example 256m
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory_reservation: Option<i64>,
    /// How many CPUs' time, for example 1.5
    #[arg(long, value_name = "NUMBER", value_parser = parse_cpus)]
    pub(crate) cpus: Option<i64>,
    /// Share of the CPU among the busy; 1024 is a usual one
    #[arg(short, long, value_name = "WEIGHT")]
    pub(crate) cpu_shares: Option<u64>,
    /// Microseconds of CPU time in each period, in place of --cpus; -1 for no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// Microseconds of a period
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_period: Option<u64>,
    /// Microseconds of realtime scheduling in each of its periods (cgroup v1)
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// Microseconds of such a period (cgroup v1)
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_rt_period: Option<u64>,
    /// The CPUs to run on, for example 0-2,4
    #[arg(long, value_name = "CPUS")]
    pub(crate) cpuset_cpus: Option<String>,
    /// The memory nodes to use, for example 0,1
    #[arg(long, value_name = "NODES")]
    pub(crate) cpuset_mems: Option<String>,
    /// Limit of processes and threads; -1 for none
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Let processes wait for memory instead of killing one; =false kills again (cgroup v1)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub(crate) oom_kill_disable: Option<bool>,
    /// Share of disks among the busy, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub(crate) blkio_weight: Option<u32>,
}

/// What is said when the container is made.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct BirthLimitArgs {
    /// How readily its memory is swapped out, 0 to 100 (cgroup v1)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) memory_swappiness: Option<u64>,
    /// Share of one disk among the busy: DEVICE:WEIGHT
    #[arg(long, value_name = "DEVICE:WEIGHT", value_parser = parse_device_weight)]
    pub(crate) blkio_weight_device: Vec<DeviceWeight>,
    /// Limit of bytes read from a device in a second: DEVICE:SIZE, for example /dev/sda:1mb
    #[arg(long, value_name = "DEVICE:SIZE", value_parser = parse_device_rate)]
    pub(crate) device_read_bps: Vec<DeviceRate>,
    /// Limit of bytes written to a device in a second
    #[arg(long, value_name = "DEVICE:SIZE", value_parser = parse_device_rate)]
    pub(crate) device_write_bps: Vec<DeviceRate>,
    /// Limit of reads from a device in a second: DEVICE:NUMBER
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = parse_device_iops)]
    pub(crate) device_read_iops: Vec<DeviceRate>,
    /// Limit of writes to a device in a second
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = parse_device_iops)]
    pub(crate) device_write_iops: Vec<DeviceRate>,
}
