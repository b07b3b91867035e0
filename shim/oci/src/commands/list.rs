//! `list`: the containers of a root.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};

use super::state::{self, State};
use super::{print, print_json};
use crate::cli::Global;
use crate::container::Container;
use crate::error::Error;

/// List the containers of the root
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  bosun-oci list\n  bosun-oci list -q\n  bosun-oci list -f json"
)]
pub(crate) struct ListArgs {
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

pub(crate) fn run(global: &Global, arguments: &ListArgs) -> Result<(), Error> {
    let containers = Container::all(&global.root)?;
    if arguments.quiet {
        let ids: String = containers.iter().map(|one| format!("{}\n", one.record.id)).collect();
        return print(&ids);
    }
    let states: Vec<State> = containers.iter().map(state::of).collect();
    match arguments.format {
        Format::Json => print_json(&states),
        Format::Table => print(&table(&states)),
    }
}

fn table(states: &[State]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let row = |state: &State| {
        let bundle = state.bundle.display().to_string();
        let pid = state.pid.to_string();
        let State { id, status, created, owner, .. } = state;
        [id.clone(), pid, status.clone(), bundle, created.clone(), owner.clone()]
    };
    columns(std::iter::once(head).chain(states.iter().map(row)).collect())
}

/// Rows whose columns begin below each other, three spaces apart at least, as Go's tabwriter does it.
fn columns<const N: usize>(rows: Vec<[String; N]>) -> String {
    const GAP: usize = 3;
    const LEAST: usize = 12;
    let width = |column: usize| {
        let widest = rows.iter().map(|row| row[column].chars().count()).max();
        (widest.unwrap_or(0) + GAP).max(LEAST)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // A String takes every write.
            let _ = write!(line, "{cell:width$}");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
