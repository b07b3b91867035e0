//! `bosun-oci`: an OCI runtime with runc's command line, over the code that the shim uses.
//!
//! ```text
//! main ──▶ cli (clap) ──▶ commands/VERB
//!   └─ report: errors, to where the caller reads them
//! ```
//!
//! Who drives it (podman's conmon, containerd's and Docker's shims, conformance suites) knows runc:
//! flags, formats, exit codes and the words of errors that callers look for are runc's.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod error;
mod report;

use std::process::ExitCode;

use cli::Cli;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return cli::explain(&error),
    };
    match commands::run(&cli) {
        Ok(code) => code,
        Err(error) => {
            report::error(&cli.global, &error);
            ExitCode::FAILURE
        }
    }
}
