//! bosund: flags, log, runtime, signals.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use bosund::{Config, Flags, fsck};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// What can't be looked at (fsck(8): operational error).
const NOT_CHECKED: u8 = 8;

#[derive(Parser)]
#[command(
    name = "bosund",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Example:\n  bosund --root /var/lib/bosun --state /run/bosun --log-level debug"
)]
struct Arguments {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    Fsck(fsck::Options),
}

fn main() -> ExitCode {
    let Arguments { flags, verb } = Arguments::parse();
    if !rustix::process::geteuid().is_root() {
        eprintln!("bosund: only root can make containers: start it with sudo or as a service");
        return ExitCode::FAILURE;
    }
    if let Some(Verb::Fsck(options)) = verb {
        return check(&options);
    }
    let config = match Config::load(flags) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("bosund: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Frames of HTTP/2 are nobody's concern; a directive of one's own can ask for them.
    let quiet = format!("{},h2=warn,hyper=warn,tower=warn", config.log_level);
    let filter = match EnvFilter::builder().parse(quiet) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("bosund: log level {:?}: {error}", config.log_level);
            return ExitCode::FAILURE;
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    // A file that has come to the limit of its size is a disk without room, and no reason to end.
    shim_sys::signal::ignore(rustix::process::Signal::XFSZ.as_raw());
    // Everything that is made is closed to others, whatever we were started with.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let _armed = shim_failpoints::arm();
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bosund: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(options: &fsck::Options) -> ExitCode {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let mut out = std::io::stdout();
    // Who does not read on wants the exit status alone.
    let mut say = |finding: &bosund::store::Finding| drop(writeln!(out, "{finding}"));
    match fsck::run(options, &mut say) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bosund fsck: {error}");
            ExitCode::from(NOT_CHECKED)
        }
    }
}

fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("bosund")
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping; containers go on");
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        };
        bosund::run(config, stop).await.map_err(Box::<dyn std::error::Error>::from)
    });
    // Work off the loop may walk large trees; the next start finishes what this leaves.
    runtime.shutdown_timeout(std::time::Duration::from_secs(10));
    outcome
}
