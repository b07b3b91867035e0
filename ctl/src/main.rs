//! `ctl`: docker's verbs over bosund's gRPC API.
//!
//! ```text
//! main ──▶ cli (clap) ──▶ commands/VERB ──▶ client ──▶ bosund
//!                           │    │
//!                           │    ├─ session, terminal: whoever is attached
//!                           │    └─ transfer, copy, progress: files and layers on their way
//!                           └─ flags, request, credentials: what the user meant and has
//!                              view, template, output: what the user sees
//! ```
//!
//! One thread runs everything; two more exist while attached, because reads and writes of a
//! terminal or pipe block. The process ends through the return of `main`, so that what guards the
//! terminal is always dropped.

#![forbid(unsafe_code)]

mod cli;
mod client;
mod commands;
mod copy;
mod credentials;
mod error;
mod flags;
mod output;
mod progress;
mod request;
mod session;
mod signals;
mod template;
mod terminal;
mod transfer;
mod view;
mod whole_file;

use std::process::ExitCode;

use clap::error::ErrorKind;

use cli::Cli;
use error::{EXIT_OURS, Error};

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let codes = commands::exit_codes(&cli.verb);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(cli)),
        Err(source) => Err(Error::System { step: "start", source }),
    };
    outcome
        .unwrap_or_else(|error| {
            if !error.is_silent() {
                output::complain(&error);
            }
            error.exit_code(codes)
        })
        .into()
}

/// Help on stdout, mistakes on stderr; docker's exit codes: 125 for a flag, 1 for a verb.
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Nobody to tell when stdout is gone.
        let _ = output::print(&text);
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        output::complain_raw(&text);
        return ExitCode::FAILURE;
    }
    output::complain(&text.strip_prefix("error: ").unwrap_or(&text).trim_end());
    let about_the_verb = matches!(
        error.kind(),
        ErrorKind::InvalidSubcommand
            | ErrorKind::MissingSubcommand
            | ErrorKind::MissingRequiredArgument
            | ErrorKind::TooFewValues
    );
    if about_the_verb { ExitCode::FAILURE } else { ExitCode::from(EXIT_OURS) }
}
