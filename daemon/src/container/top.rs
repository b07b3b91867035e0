//! The processes of a container, as ps(1) of the host shows them.
//!
//! docker's way: ps shows all processes of the machine, and those of the container are kept. So every
//! option of ps works, and nobody learns another table.

use std::collections::HashSet;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::error::{Error, Result};

/// How long ps may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A table of processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processes {
    pub titles: Vec<String>,
    /// One value for each title.
    pub rows: Vec<Vec<String>>,
}

/// Runs ps and keeps the processes of `pids`.
pub(super) async fn processes(options: &[String], pids: &HashSet<u32>) -> Result<Processes> {
    let wrong = |problem: String| Error::InvalidArgument { what: "ps", problem };
    let default = ["-ef".to_owned()];
    let mut command = Command::new("ps");
    command
        .args(if options.is_empty() { &default } else { options })
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output
        .map_err(|_| wrong(format!("it takes longer than {} s", PATIENCE.as_secs())))?
        .map_err(|source| wrong(format!("{source}: install procps on the host of bosund")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(wrong(said.lines().next().unwrap_or("it failed").to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text, pids).ok_or_else(|| wrong("these options show no column PID".to_owned()))
}

/// `None` when there is no column of numbers of processes.
fn parse(text: &str, pids: &HashSet<u32>) -> Option<Processes> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next()?.split_whitespace().map(ToOwned::to_owned).collect();
    let column = titles.iter().position(|title| title == "PID")?;
    let row = |line: &str| {
        let row = columns(line, titles.len());
        let pid: u32 = row.get(column)?.parse().ok()?;
        pids.contains(&pid).then_some(row)
    };
    let rows = lines.filter_map(row).collect();
    Some(Processes { titles, rows })
}

/// The words of a line; the last column keeps what is left, with its spaces.
fn columns(line: &str, count: usize) -> Vec<String> {
    let mut rest = line.trim();
    let mut columns = Vec::with_capacity(count);
    while columns.len() + 1 < count
        && let Some((word, behind)) = rest.split_once(char::is_whitespace)
    {
        columns.push(word.to_owned());
        rest = behind.trim_start();
    }
    columns.push(rest.to_owned());
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_s_processes_are_kept_with_their_commands() {
        let text =
            "UID   PID  PPID CMD\nroot    1     0 /sbin/init  -x\nroot   42     1 sh -c a  b\n";
        let found = parse(text, &[42].into()).unwrap();
        assert_eq!(found.titles, ["UID", "PID", "PPID", "CMD"]);
        assert_eq!(found.rows, [["root", "42", "1", "sh -c a  b"]]);
        assert_eq!(parse("UID CMD\nroot sh\n", &[42].into()), None);
        assert!(parse(text, &HashSet::new()).unwrap().rows.is_empty());
    }
}
