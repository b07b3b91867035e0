//! One verb per file.

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod restore;
mod resume;
mod run;
mod spec;
mod start;
mod state;
mod update;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use crate::cli::Cli;
use crate::error::Error;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Checkpoint(checkpoint::CheckpointArgs),
    Create(create::CreateArgs),
    Delete(delete::DeleteArgs),
    Events(events::EventsArgs),
    Exec(Box<exec::ExecArgs>),
    Features(features::FeaturesArgs),
    Kill(kill::KillArgs),
    List(list::ListArgs),
    #[command(hide = true)]
    Lower(crate::lower::LowerArgs),
    Pause(pause::PauseArgs),
    Ps(ps::PsArgs),
    Restore(Box<restore::RestoreArgs>),
    Resume(resume::ResumeArgs),
    Run(run::RunArgs),
    Spec(spec::SpecArgs),
    Start(start::StartArgs),
    State(state::StateArgs),
    Update(Box<update::UpdateArgs>),
}

/// Does what the command line says; the code is the program's.
///
/// # Errors
/// Those of the verb.
pub(crate) fn run(cli: &Cli) -> Result<ExitCode, Error> {
    let global = &cli.global;
    global.check()?;
    if matches!(cli.verb, Verb::Create(_) | Verb::Exec(_) | Verb::Run(_) | Verb::Restore(_)) {
        shim_runtime::program::protect()?;
    }
    let done = match &cli.verb {
        Verb::Checkpoint(arguments) => checkpoint::run(global, arguments),
        Verb::Create(arguments) => create::run(global, arguments),
        Verb::Delete(arguments) => delete::run(global, arguments),
        Verb::Events(arguments) => events::run(global, arguments),
        Verb::Exec(arguments) => return Ok(exec::run(global, arguments)),
        Verb::Features(features::FeaturesArgs {}) => features::run(),
        Verb::Kill(arguments) => kill::run(global, arguments),
        Verb::List(arguments) => list::run(global, arguments),
        Verb::Lower(arguments) => crate::lower::run(arguments),
        Verb::Pause(arguments) => pause::run(global, arguments),
        Verb::Ps(arguments) => ps::run(global, arguments),
        Verb::Restore(arguments) => return restore::run(global, arguments).map(ExitCode::from),
        Verb::Resume(arguments) => resume::run(global, arguments),
        Verb::Run(arguments) => return run::run(global, arguments).map(ExitCode::from),
        Verb::Spec(arguments) => spec::run(arguments),
        Verb::Start(arguments) => start::run(global, arguments),
        Verb::State(arguments) => state::run(global, arguments),
        Verb::Update(arguments) => update::run(global, arguments),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Prints text to standard output.
///
/// # Errors
/// [`Error::Output`].
fn print(text: &str) -> Result<(), Error> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Error::Output)
}

/// Prints a value as indented JSON.
///
/// # Errors
/// [`Error::Output`].
fn print_json(value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    print(&format!("{text}\n"))
}
