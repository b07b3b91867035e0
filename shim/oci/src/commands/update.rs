//! `update`: new limits of a container.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use shim_plan::parse::Parsed;

use crate::bundle;
use crate::cli::Global;
use crate::container::Container;
use crate::error::Error;
use crate::report;
use crate::scope;

/// Change the limits of a container; those that are not named stay as they are
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        bosun-oci update --memory 256m --pids-limit 100 web\n  \
        bosun-oci update --resources limits.json web")]
pub(crate) struct UpdateArgs {
    /// A file with `linux.resources` as JSON, or - for standard input, in place of the flags
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "N")]
    blkio_weight: Option<u16>,
    /// Microseconds in which the quota holds
    #[arg(long, value_name = "N")]
    cpu_period: Option<u64>,
    /// Microseconds of processor time in each period; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Microseconds that may be saved up
    #[arg(long, value_name = "N")]
    cpu_burst: Option<u64>,
    /// Weight of processor time
    #[arg(long, value_name = "N")]
    cpu_share: Option<u64>,
    /// 1: only when nobody else wants the processor
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<i64>,
    /// Microseconds in which the real-time runtime holds
    #[arg(long, value_name = "N")]
    cpu_rt_period: Option<u64>,
    /// Microseconds of real-time scheduling in each period
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// Processors to run on
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Bytes, also as 64m or 1g; -1 for no limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<String>,
    /// What it is pressed down to when memory is short
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    /// Memory and swap together; -1 for no limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Most processes; -1 for no limit, and 0 leaves it as it is
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Refused: Intel RDT is not supported
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Refused: Intel RDT is not supported
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    #[arg(value_name = "ID")]
    id: String,
}

pub(crate) fn run(global: &Global, arguments: &UpdateArgs) -> Result<(), Error> {
    let schemas = [
        (&arguments.l3_cache_schema, "--l3-cache-schema"),
        (&arguments.mem_bw_schema, "--mem-bw-schema"),
    ];
    if let Some((_, flag)) = schemas.into_iter().find(|(schema, _)| schema.is_some()) {
        return Err(Error::Refused { flag, why: "Intel RDT: not supported" });
    }
    let container = Container::find(&global.root, &arguments.id)?;
    let _lock = container.lock()?;
    container.living()?;
    let (text, file) = match &arguments.resources {
        Some(file) => (read(file)?, file.clone()),
        None => (of_flags(arguments)?.to_string(), PathBuf::from("flags")),
    };
    let Parsed { value: spec, warnings } = bundle::resources(text.as_bytes(), &file)?;
    warnings.iter().for_each(|warning| report::warning(global, warning));
    let resources = shim_plan::resources(&spec).map_err(|source| Error::Plan { file, source })?;
    let cgroup = container.cgroup()?;
    cgroup.update(&resources)?;
    let unit = container.record.scope.as_deref();
    unit.map_or(Ok(()), |unit| scope::set(unit, &resources, &cgroup))
}

fn read(file: &Path) -> Result<String, Error> {
    if file.as_os_str() != "-" {
        return fs::read_to_string(file).map_err(Error::file("read", file));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(Error::system("read standard input"))?;
    Ok(text)
}

/// `linux.resources` as the flags say.
fn of_flags(arguments: &UpdateArgs) -> Result<Value, Error> {
    let memory = size(arguments.memory.as_deref(), "--memory")?;
    let reservation = size(arguments.memory_reservation.as_deref(), "--memory-reservation")?;
    let swap = size(arguments.memory_swap.as_deref(), "--memory-swap")?;
    let mut resources = json!({
        "memory": { "limit": memory, "reservation": reservation, "swap": swap },
        "cpu": {
            "shares": arguments.cpu_share,
            "quota": arguments.cpu_quota,
            "burst": arguments.cpu_burst,
            "period": arguments.cpu_period,
            "realtimeRuntime": arguments.cpu_rt_runtime,
            "realtimePeriod": arguments.cpu_rt_period,
            "cpus": arguments.cpuset_cpus,
            "mems": arguments.cpuset_mems,
            "idle": arguments.cpu_idle,
        },
        "blockIO": { "weight": arguments.blkio_weight },
    });
    // Of the flag 0 says nothing, as of its neighbours; in the specification it is a limit.
    if let Some(limit) = arguments.pids_limit.filter(|limit| *limit != 0) {
        resources["pids"] = json!({ "limit": limit });
    }
    Ok(resources)
}

/// Bytes, or with a unit of 1024 as docker writes sizes: `64m`, `1g`, `512KiB`.
fn size(text: Option<&str>, flag: &'static str) -> Result<Option<i64>, Error> {
    let Some(text) = text else { return Ok(None) };
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        "t" | "tb" | "tib" => Some(40),
        _ => None,
    };
    let bytes = shift.and_then(|shift| digits.parse::<i64>().ok()?.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes >= -1).map(Some).ok_or_else(|| Error::Malformed {
        flag,
        value: text.to_owned(),
        expected: "a number of bytes or -1",
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        update: UpdateArgs,
    }

    #[test]
    fn a_flag_of_0_processes_leaves_the_limit_as_it_is() {
        let pids = |limit: &str| {
            let line = Line::parse_from(["update", "--pids-limit", limit, "web"]);
            of_flags(&line.update).unwrap().get("pids").cloned()
        };
        assert_eq!(pids("0"), None);
        assert_eq!(pids("-1"), Some(json!({"limit": -1})));
    }

    #[test]
    fn sizes_have_units_of_1024() {
        let known = [("0", 0), ("-1", -1), ("64m", 64 << 20), ("1G", 1 << 30), ("3KiB", 3 << 10)];
        for (text, bytes) in known {
            assert_eq!(size(Some(text), "--memory").unwrap(), Some(bytes), "{text}");
        }
        for text in ["", "m", "1.5g", "-2", "9999999999t", "1x", "1 m"] {
            assert!(size(Some(text), "--memory").is_err(), "{text:?}");
        }
    }
}
