//! The command line, declared: verbs, flags, help. No behaviour.
//!
//! Names, letters and defaults are docker's. `run` and `create` have most of them and live in
//! [`create`], the other verbs on containers in [`container`] and [`files`], and what is about
//! something else in the module of its name.

pub(crate) mod container;
pub(crate) mod content;
pub(crate) mod create;
pub(crate) mod files;
pub(crate) mod image;
pub(crate) mod lease;
pub(crate) mod limits;
pub(crate) mod login;
pub(crate) mod pod;
pub(crate) mod snapshot;
pub(crate) mod system;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::client::{Address, DEFAULT_ADDRESS, LeaseId, Namespace};
use crate::flags::{Moment, parse_moment};
use container::ContainerVerb;
use content::ContentVerb;
use image::{ImageNoun, ImageVerb};
use lease::LeaseVerb;
use login::{LoginArgs, LogoutArgs};
use pod::PodVerb;
use snapshot::SnapshotVerb;
use system::SystemVerb;

/// A command line, read.
#[derive(Debug)]
pub(crate) struct Cli {
    pub(crate) address: Address,
    pub(crate) namespace: Namespace,
    pub(crate) lease: Option<LeaseId>,
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    #[command(flatten)]
    OnContainers(ContainerVerb),
    /// Declared by their short forms, and in whole after `image`.
    #[command(skip)]
    OnImages(ImageNoun),
    Login(LoginArgs),
    Logout(LogoutArgs),
    /// Look after the whole: disk usage, and what can go
    #[command(subcommand, after_help = "Example:\n  ctl system df")]
    System(SystemVerb),
    /// Look after snapshots: the trees that containers stand on
    #[command(subcommand, visible_alias = "snapshots", after_help = "Example:\n  ctl snapshot ls")]
    Snapshot(SnapshotVerb),
    /// Look after content: blobs by digest
    #[command(subcommand, after_help = "Example:\n  ctl content put layer.tar")]
    Content(ContentVerb),
    /// Look after leases: what keeps snapshots and blobs from being removed
    #[command(subcommand, visible_alias = "leases", after_help = "Example:\n  ctl lease ls")]
    Lease(LeaseVerb),
    /// Look after pods: containers that share their namespaces
    #[command(
        subcommand,
        visible_alias = "pods",
        after_help = "Example:\n  ctl pod create -p 8000:8000 web"
    )]
    Pod(PodVerb),
    Events(EventsArgs),
    Version(VersionArgs),
    Info(InfoArgs),
    Completion(CompletionArgs),
}

/// What every verb takes.
#[derive(Args, Debug)]
struct Globals {
    /// Where bosund listens: unix:///PATH, or the path alone; BOSUN_ADDRESS
    #[arg(
        short = 'H',
        long,
        global = true,
        env = "BOSUN_ADDRESS",
        hide_env = true,
        value_name = "ADDRESS",
        default_value = DEFAULT_ADDRESS,
        help_heading = "Global options"
    )]
    address: Address,
    /// The namespace to work in; BOSUN_NAMESPACE
    #[arg(
        long,
        global = true,
        env = "BOSUN_NAMESPACE",
        hide_env = true,
        value_name = "NAME",
        default_value = "default",
        help_heading = "Global options"
    )]
    namespace: Namespace,
    /// The lease that is to hold what is made
    // The verbs on leases have an argument of the field's name.
    #[arg(
        id = "holder",
        long = "lease",
        global = true,
        value_name = "LEASE",
        help_heading = "Global options"
    )]
    lease: Option<LeaseId>,
}

/// Runs and looks after the containers and images of bosund.
#[derive(Debug, Parser)]
#[command(
    name = "ctl",
    version,
    disable_help_subcommand = true,
    after_help = "Examples:\n  \
        ctl run -d --name web -p 8000:8000 debian-python:12 python3 -m http.server\n  \
        ctl run --rm -it --rootfs / bash\n  \
        ctl ps -a\n  \
        ctl logs -f web\n\n\
        See `ctl VERB --help` for the flags of a verb."
)]
struct Declared {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: DeclaredVerb,
}

#[derive(Debug, Subcommand)]
enum DeclaredVerb {
    #[command(flatten)]
    Verb(Verb),
    #[command(flatten)]
    OnImages(ImageVerb),
    /// The verbs on containers, as docker has them a second time
    #[command(disable_help_flag = true, after_help = "Example:\n  ctl container ls -a")]
    Container(Words),
    /// The verbs on images, and those without a short form: inspect, prune
    #[command(disable_help_flag = true, after_help = "Example:\n  ctl image ls")]
    Image(Words),
}

/// Looks after the images of bosund.
#[derive(Debug, Parser)]
#[command(name = "image", disable_help_subcommand = true)]
struct DeclaredImage {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: ImageNoun,
}

/// What `ctl --help` shows, by what it is about.
const GROUPS: [(&str, &[&str]); 5] = [
    (
        "Run containers",
        &[
            "run",
            "create",
            "start",
            "stop",
            "restart",
            "kill",
            "pause",
            "unpause",
            "checkpoint",
            "restore",
            "update",
            "rm",
            "wait",
            "exec",
            "attach",
            "pod",
        ],
    ),
    ("See containers", &["ps", "inspect", "logs", "events", "stats", "top", "diff"]),
    ("Images", &["pull", "push", "images", "rmi", "tag", "history", "login", "logout", "image"]),
    ("Files and archives", &["cp", "export", "commit", "load", "save", "import"]),
    (
        "The rest",
        &["system", "snapshot", "content", "lease", "info", "version", "completion", "container"],
    ),
];

impl Cli {
    /// Reads a command line, the program's name first.
    pub(crate) fn read(words: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        let Declared { globals, verb } = parsed(whole_command(), words)?;
        match verb {
            DeclaredVerb::Verb(verb) => Ok(globals.with(verb)),
            DeclaredVerb::OnImages(verb) => {
                Ok(globals.with(Verb::OnImages(ImageNoun::Short(verb))))
            }
            DeclaredVerb::Image(words) => {
                let DeclaredImage { globals, verb } =
                    parsed(image_command().bin_name("ctl image"), words.after(&globals))?;
                Ok(globals.with(Verb::OnImages(verb)))
            }
            DeclaredVerb::Container(words) => {
                let Declared { globals, verb } = parsed(whole_command(), words.after(&globals))?;
                if let DeclaredVerb::Verb(verb @ Verb::OnContainers(_)) = verb {
                    return Ok(globals.with(verb));
                }
                let text = "that is no verb on containers: see `ctl --help`";
                Err(whole_command().error(ErrorKind::InvalidSubcommand, text))
            }
        }
    }

    /// The whole declaration, for completion scripts.
    pub(crate) fn declaration() -> clap::Command {
        let whole = whole_command();
        let about = |name: &str| whole.find_subcommand(name).and_then(clap::Command::get_about);
        let image = image_command()
            .about(about("image").cloned().unwrap_or_default())
            .after_help("Example:\n  ctl image ls");
        whole.mut_subcommand("image", |_| image)
    }
}

impl Globals {
    fn with(self, verb: Verb) -> Cli {
        let Self { address, namespace, lease } = self;
        Cli { address, namespace, lease, verb }
    }
}

fn whole_command() -> clap::Command {
    let command = Declared::command();
    let verbs: String = GROUPS
        .iter()
        .map(|(heading, names)| {
            let lines = names.iter().map(|name| help_line(&command, name)).collect::<String>();
            format!("{heading}:\n{lines}\n")
        })
        .collect();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{verbs}Options:\n{{options}}{{after-help}}"
    );
    command.help_template(template)
}

/// A verb, what it is for, and its other names.
fn help_line(command: &clap::Command, name: &str) -> String {
    let verb = command.find_subcommand(name);
    let about = verb.and_then(clap::Command::get_about).map(ToString::to_string);
    let aliases: Vec<_> = verb.iter().flat_map(|verb| verb.get_visible_aliases()).collect();
    let aliases =
        if aliases.is_empty() { String::new() } else { format!(" [also {}]", aliases.join(", ")) };
    format!("  {name:<11}{}{aliases}\n", about.unwrap_or_default())
}

/// The verbs on images by their own names, which at the top are those of containers.
fn image_command() -> clap::Command {
    DeclaredImage::command()
        .mut_subcommand("images", |images| images.visible_aliases(["ls", "list"]))
        .mut_subcommand("rmi", |rmi| rmi.visible_aliases(["rm", "remove"]))
}

fn parsed<P: FromArgMatches>(
    command: clap::Command,
    words: impl Iterator<Item = OsString>,
) -> Result<P, clap::Error> {
    // Never freed: the process is short, and freeing takes a sixth of its time.
    let command = Box::leak(Box::new(command));
    let mut matches = command.try_get_matches_from_mut(words)?;
    P::from_arg_matches_mut(&mut matches).map_err(|error| error.format(command))
}

/// The words after `container` or `image`, which are read on their own. Declaring their verbs a
/// second time would cost every start of `ctl` a sixth of its time.
#[derive(Args, Debug)]
pub(crate) struct Words {
    #[arg(value_name = "VERB", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

impl Words {
    /// Behind what was said before them.
    fn after(self, globals: &Globals) -> impl Iterator<Item = OsString> {
        let address = globals.address.to_string();
        let namespace = globals.namespace.as_str().to_owned();
        let mut known = vec!["ctl".to_owned(), "--address".to_owned(), address];
        known.extend(["--namespace".to_owned(), namespace]);
        if let Some(lease) = &globals.lease {
            known.extend(["--lease".to_owned(), lease.as_str().to_owned()]);
        }
        known.into_iter().chain(self.words).map(OsString::from)
    }
}

/// Show what happens, as it happens
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl events --filter event=die\n  ctl events --since 10m --until 0s --format json"
)]
pub(crate) struct EventsArgs {
    /// From this moment on: RFC 3339, Unix seconds, or how long ago (10m)
    #[arg(long, value_name = "TIME", value_parser = parse_moment, allow_hyphen_values = true)]
    pub(crate) since: Option<Moment>,
    /// From the event with this number on
    #[arg(long, value_name = "NUMBER", conflicts_with = "since")]
    pub(crate) since_sequence: Option<u64>,
    /// Up to this moment, then end
    #[arg(long, value_name = "TIME", value_parser = parse_moment, allow_hyphen_values = true)]
    pub(crate) until: Option<Moment>,
    /// KEY=VALUE: container, event, type, label; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// A Go template, or json
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
    /// Events of every namespace
    #[arg(long)]
    pub(crate) all_namespaces: bool,
}

/// Show the versions of ctl and of bosund
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl version\n  ctl version --format '{{.Server.Version}}'")]
pub(crate) struct VersionArgs {
    /// A Go template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}

/// Show the state of bosund and of its machine
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl info\n  ctl info --format '{{.Bosun.Shim}}'")]
pub(crate) struct InfoArgs {
    /// A Go template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}

/// Print the completion script of a shell
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ctl completion bash > /etc/bash_completion.d/ctl")]
pub(crate) struct CompletionArgs {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    #[test]
    fn the_declaration_is_sound() {
        Cli::declaration().debug_assert();
    }

    fn every_verb(command: &Command, path: &str, check: &mut impl FnMut(&Command, &str)) {
        for verb in command.get_subcommands() {
            let path = format!("{path} {}", verb.get_name());
            check(verb, &path);
            every_verb(verb, &path, check);
        }
    }

    #[test]
    fn every_verb_has_an_example_and_an_explanation() {
        let mut seen = 0;
        every_verb(&Cli::declaration(), "ctl", &mut |verb, path| {
            seen += 1;
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{path} lacks an example");
            assert!(help.contains("ctl "), "{path} lacks an example");
            assert!(verb.get_about().is_some(), "{path} lacks an explanation");
        });
        assert!(seen > 60, "{seen}");
    }

    #[test]
    fn every_example_parses() {
        every_verb(&Cli::declaration(), "ctl", &mut |verb, path| {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().map(str::trim).filter(|line| line.starts_with("ctl ")) {
                // The shell's part is not ours.
                let line = line.split([';', '|', '>', '<']).next().unwrap_or_default();
                let words = shell_words(line);
                if let Err(error) = Cli::read(words.iter().map(OsString::from)) {
                    panic!("{path}: example {words:?}: {error}");
                }
            }
        });
    }

    #[test]
    fn every_verb_is_in_one_group_of_the_help() {
        let declared = Cli::declaration();
        let mut verbs: Vec<&str> = declared.get_subcommands().map(Command::get_name).collect();
        let mut grouped: Vec<&str> =
            GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        verbs.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(grouped, verbs);
        let help = whole_command().render_help().to_string();
        assert!(help.contains("\nImages:\n  pull       Download an image"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }

    fn read(line: &str) -> Result<Cli, clap::Error> {
        Cli::read(line.split(' ').map(OsString::from))
    }

    #[test]
    fn container_stands_before_verbs_on_containers_only() {
        for line in
            ["ctl -H /a container ls -aq", "ctl container -H /a ps", "ctl container ps -H /a"]
        {
            let cli = read(line).unwrap();
            assert_eq!(cli.address.to_string(), "unix:///a", "{line}");
            assert!(matches!(cli.verb, Verb::OnContainers(ContainerVerb::Ps(_))), "{line}");
        }
        let run = read("ctl container run --rm -it --rootfs / sh -c x").unwrap();
        assert!(matches!(run.verb, Verb::OnContainers(ContainerVerb::Run(args)) if args.rm));
        for line in [
            "ctl container info",
            "ctl container pull a",
            "ctl container container ps",
            "ctl container",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
        let help = read("ctl container --help").unwrap_err();
        assert_eq!(help.kind(), ErrorKind::DisplayHelp);
    }

    #[test]
    fn image_stands_before_verbs_on_images_only() {
        for line in [
            "ctl -H /a --lease l image ls -aq",
            "ctl image -H /a --lease l list",
            "ctl --lease=l images -H /a",
        ] {
            let cli = read(line).unwrap();
            assert_eq!(cli.address.to_string(), "unix:///a", "{line}");
            assert_eq!(cli.lease.unwrap().as_str(), "l", "{line}");
            let listed = matches!(cli.verb, Verb::OnImages(ImageNoun::Short(ImageVerb::Images(_))));
            assert!(listed, "{line}");
        }
        let removal = read("ctl image rm -f a b").unwrap().verb;
        assert!(
            matches!(removal, Verb::OnImages(ImageNoun::Short(ImageVerb::Rmi(args))) if args.force)
        );
        let prune = read("ctl image prune --dry-run").unwrap().verb;
        assert!(matches!(prune, Verb::OnImages(ImageNoun::Prune(args)) if args.dry_run));
        for line in ["ctl image ps", "ctl image run a", "ctl image image ls", "ctl image"] {
            assert!(read(line).is_err(), "{line}");
        }
        let help = read("ctl image --help").unwrap_err().to_string();
        assert!(help.contains("Usage: ctl image"), "{help}");
    }

    /// Words at spaces, single quotes respected.
    fn shell_words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for c in line.trim().chars() {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words
    }
}
