//! `ps`: the processes of a container.

use std::process::Command;

use clap::Args;

use super::list::Format;
use super::{print, print_json};
use crate::cli::Global;
use crate::container::Container;
use crate::error::Error;

/// List the processes of a container
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  bosun-oci ps web\n  bosun-oci ps -f json web\n  bosun-oci ps web -o pid,comm"
)]
pub(crate) struct PsArgs {
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    #[arg(value_name = "ID")]
    id: String,
    /// What ps(1) is called with
    #[arg(value_name = "ARGUMENTS", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(global: &Global, arguments: &PsArgs) -> Result<(), Error> {
    let container = Container::find(&global.root, &arguments.id)?;
    let pids = container.cgroup()?.procs()?;
    match arguments.format {
        Format::Json => print_json(&pids),
        Format::Table => table(&pids, &arguments.arguments),
    }
}

/// Those lines of ps(1) that are about the container's processes.
fn table(pids: &[i32], arguments: &[String]) -> Result<(), Error> {
    let mut ps = Command::new("ps");
    match arguments {
        [] => ps.arg("-ef"),
        arguments => ps.args(arguments),
    };
    let output = ps.output().map_err(Error::system("run ps(1)"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::system("ps(1)")(std::io::Error::other(said)));
    }
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let Some(column) = head.split_whitespace().position(|name| name == "PID") else {
        return Err(Error::Refused { flag: "ARGUMENTS", why: "ps(1) printed no column PID" });
    };
    let is_ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    let ours = lines.filter(is_ours);
    print(&std::iter::once(head).chain(ours).map(|line| format!("{line}\n")).collect::<String>())
}
