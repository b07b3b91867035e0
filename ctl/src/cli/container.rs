//! The verbs on containers, but for the flags that make one.

use clap::{Args, Subcommand, ValueEnum};

use super::create::{CreateArgs, RunArgs, SessionKeys};
use super::files::{CommitArgs, CpArgs, DiffArgs, ExportArgs};
use super::limits::LimitArgs;
use crate::flags::{DetachKeys, Moment, parse_moment};

#[derive(Debug, Subcommand)]
pub(crate) enum ContainerVerb {
    Run(Box<RunArgs>),
    Create(Box<CreateArgs>),
    Start(StartArgs),
    Stop(StopArgs),
    Restart(RestartArgs),
    Kill(KillArgs),
    Pause(PauseArgs),
    Unpause(UnpauseArgs),
    Checkpoint(CheckpointArgs),
    Restore(RestoreArgs),
    Update(Box<UpdateArgs>),
    Stats(StatsArgs),
    Top(TopArgs),
    Rm(RmArgs),
    Wait(WaitArgs),
    Ps(PsArgs),
    Inspect(InspectArgs),
    Logs(LogsArgs),
    Attach(AttachArgs),
    Exec(ExecArgs),
    Cp(CpArgs),
    Diff(DiffArgs),
    Export(ExportArgs),
    Commit(CommitArgs),
}

/// Start containers that were created or have ended
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl start web\n  ctl start -ai shell")]
pub(crate) struct StartArgs {
    /// Attach to its output; the exit code is the container's
    #[arg(short, long)]
    pub(crate) attach: bool,
    /// Attach to its input as well
    #[arg(short, long)]
    pub(crate) interactive: bool,
    #[command(flatten)]
    pub(crate) keys: SessionKeys,
    /// Ids, unique beginnings of ids, or names
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

/// Stop containers: the stop signal, then KILL when the time is up
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl stop web\n  ctl stop -t 30 web db")]
pub(crate) struct StopArgs {
    /// Seconds to wait before KILL [default: the container's own, or 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS")]
    pub(crate) time: Option<u32>,
    /// Ids, unique beginnings of ids, or names
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

/// Stop containers and start them again
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ctl restart -t 5 web")]
pub(crate) struct RestartArgs {
    /// Seconds to wait before KILL [default: the container's own, or 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS")]
    pub(crate) time: Option<u32>,
    /// Ids, unique beginnings of ids, or names
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

/// Send containers a signal
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl kill web\n  ctl kill -s HUP web")]
pub(crate) struct KillArgs {
    /// A name or a number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    pub(crate) signal: String,
    /// Ids, unique beginnings of ids, or names
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

/// Hold every process of containers still
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ctl pause web")]
pub(crate) struct PauseArgs {
    /// Ids, unique beginnings of ids, or names
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

/// Write a running container down to a file, through criu; it ends then
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ctl checkpoint --export /var/tmp/web.tar --leave-running web")]
pub(crate) struct CheckpointArgs {
    /// The file, a tar as podman and kubelets have it; nothing may be there yet
    #[arg(short, long, value_name = "FILE")]
    pub(crate) export: String,
    /// Let it go on
    #[arg(short = 'R', long)]
    pub(crate) leave_running: bool,
    /// With open TCP connections
    #[arg(long)]
    pub(crate) tcp_established: bool,
    /// With file locks
    #[arg(long)]
    pub(crate) file_locks: bool,
    /// Without what it changed of its files
    #[arg(long)]
    pub(crate) ignore_rootfs: bool,
    /// Its id, the unique beginning of one, or its name
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

/// Let a container go on where checkpoint wrote it down, through criu
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl restore /var/tmp/web.tar\n  \
        ctl restore --name web2 --tcp-established /var/tmp/web.tar\n\n\
        An archive says what its container may do: restore none that you would not run with --privileged.")]
pub(crate) struct RestoreArgs {
    /// Its name [default: the one that it had]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) name: String,
    /// With the TCP connections that were open; it has to have the address that it had
    #[arg(long)]
    pub(crate) tcp_established: bool,
    /// With file locks
    #[arg(long)]
    pub(crate) file_locks: bool,
    /// What checkpoint wrote
    #[arg(value_name = "ARCHIVE")]
    pub(crate) archive: String,
}

/// Let paused containers go on
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ctl unpause web")]
pub(crate) struct UnpauseArgs {
    /// Ids, unique beginnings of ids, or names
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

/// Change the limits of containers, at once and for good
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl update -m 512m --cpus 1.5 web\n  ctl update --pids-limit -1 web db"
)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Ids, unique beginnings of ids, or names
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

/// Show what containers use, again every second
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl stats\n  ctl stats --no-stream --format json web\n  ctl stats --format '{{.Name}} {{.CPUPerc}} {{.MemUsage}}'"
)]
pub(crate) struct StatsArgs {
    /// Those that don't run as well
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Show it once and end
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Nothing cut short
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// A Go template, "table TEMPLATE", table or json
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
    /// Ids, unique beginnings of ids, or names [default: all that run]
    #[arg(value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

/// Show the processes of a container, as ps on the host does
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl top web\n  ctl top web -eo pid,comm,rss")]
pub(crate) struct TopArgs {
    /// An id, a unique beginning of one, or a name
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    /// Options of ps [default: -ef]
    #[arg(value_name = "PS OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) options: Vec<String>,
}

/// Remove containers
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl rm web\n  ctl rm -f web db")]
pub(crate) struct RmArgs {
    /// Kill it first when it runs
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Accepted, as docker does: the volumes of its image always go with it
    #[arg(short, long)]
    pub(crate) volumes: bool,
    /// Ids, unique beginnings of ids, or names
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

/// Wait until containers have ended, print their exit codes, and take the last one
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ctl wait job; echo $?")]
pub(crate) struct WaitArgs {
    /// Ids, unique beginnings of ids, or names
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

/// List containers
#[derive(Args, Debug)]
#[command(
    visible_aliases = ["ls", "list"],
    after_help = "Examples:\n  \
        ctl ps -a\n  \
        ctl ps -aq --filter status=exited\n  \
        ctl ps --format 'table {{.Names}}\\t{{.Status}}\\t{{.Ports}}'"
)]
pub(crate) struct PsArgs {
    /// Those that don't run as well
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The last N, in whatever state
    #[arg(short = 'n', long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) last: Option<i64>,
    /// The last one, in whatever state
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// Nothing cut short
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// KEY=VALUE: id, name, label, status, exited, ancestor, before, since, publish, network
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// A Go template, "table TEMPLATE", table or json
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}

/// Show everything about containers or images, in docker's JSON
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl inspect web\n  ctl inspect --type image debian:12\n  ctl inspect -f '{{.State.Pid}}' web\n  ctl inspect -f '{{json .NetworkSettings.Ports}}' web"
)]
pub(crate) struct InspectArgs {
    /// A Go template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
    /// What it is [default: a container, or else an image]
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<Kind>,
    /// Ids, unique beginnings of ids, or names
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
}

/// What a name can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Container,
    Image,
}

/// Show what a container has written
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl logs -f --tail 20 web\n  ctl logs -t --since 10m web")]
pub(crate) struct LogsArgs {
    /// Go on until the container ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How many of the last lines, or all
    #[arg(short = 'n', long, value_name = "N", default_value = "all", allow_hyphen_values = true)]
    pub(crate) tail: String,
    /// From this moment on: RFC 3339, Unix seconds, or how long ago (10m)
    #[arg(long, value_name = "TIME", value_parser = parse_moment, allow_hyphen_values = true)]
    pub(crate) since: Option<Moment>,
    /// Up to this moment
    #[arg(long, value_name = "TIME", value_parser = parse_moment, allow_hyphen_values = true)]
    pub(crate) until: Option<Moment>,
    /// Each line's time before it
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// An id, a unique beginning of one, or a name
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

/// Connect the terminal to a running container
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl attach shell\n  ctl attach --no-stdin --sig-proxy=false web"
)]
pub(crate) struct AttachArgs {
    /// Send it no input
    #[arg(long)]
    pub(crate) no_stdin: bool,
    #[command(flatten)]
    pub(crate) keys: SessionKeys,
    /// An id, a unique beginning of one, or a name
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

/// Run a further process in a running container
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl exec -it web sh\n  ctl exec -u 1000 -w /tmp -e A=1 web env"
)]
pub(crate) struct ExecArgs {
    /// Don't wait for it; its output is lost
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keep its standard input open; without, nothing comes in
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal; without -i nobody types at it
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// USER[:GROUP], names or numbers
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Set a variable: NAME=VALUE, or NAME to take the value it has here
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Set the variables of a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<std::path::PathBuf>,
    /// Every capability
    #[arg(long)]
    pub(crate) privileged: bool,
    /// The keys that leave the process running and end the session
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: DetachKeys,
    /// The container, by id, a unique beginning of it, or name; then the command and its words
    #[arg(
        value_names = ["CONTAINER", "COMMAND"],
        required = true,
        num_args = 2..,
        trailing_var_arg = true
    )]
    pub(crate) words: Vec<String>,
}
