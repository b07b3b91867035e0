//! The verbs on images. Docker has most of them twice, short (`ctl pull`) and under their noun
//! (`ctl image pull`); those that are declared once here are both.

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand};

/// What has a short form.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageVerb {
    Pull(PullArgs),
    Push(PushArgs),
    Images(ImagesArgs),
    Rmi(RmiArgs),
    Tag(TagArgs),
    History(HistoryArgs),
    Load(LoadArgs),
    Import(ImportArgs),
    Save(SaveArgs),
}

/// What stands after `image`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageNoun {
    #[command(flatten)]
    Short(ImageVerb),
    Inspect(InspectArgs),
    Prune(PruneArgs),
}

/// Download an image from its registry
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl pull debian:12\n  ctl pull --platform linux/arm64 alpine\n\n\
        Credentials are those of docker's configuration: see `ctl login`."
)]
pub(crate) struct PullArgs {
    /// Print its name alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// OS/ARCHITECTURE[/VARIANT] [default: this machine's]
    #[arg(long, value_name = "PLATFORM", default_value = "", hide_default_value = true)]
    pub(crate) platform: String,
    /// Every platform that it has
    #[arg(long, conflicts_with = "platform")]
    pub(crate) all_platforms: bool,
    /// NAME[:TAG][@DIGEST]
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
}

/// Upload an image to a registry
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl push registry.example/team/web:1\n  ctl push web:1 registry.example/team/web:1"
)]
pub(crate) struct PushArgs {
    /// Print its name alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Only this part of it: OS/ARCHITECTURE[/VARIANT]
    #[arg(long, value_name = "PLATFORM", default_value = "", hide_default_value = true)]
    pub(crate) platform: String,
    /// A name, or an id when TARGET is given
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Where to [default: what the image's name says]
    #[arg(value_name = "TARGET", default_value = "", hide_default_value = true)]
    pub(crate) target: String,
}

/// List images
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        ctl images\n  \
        ctl images --digests --filter 'reference=*/web'\n  \
        ctl images --format '{{.Repository}}:{{.Tag}} {{.Size}}'")]
pub(crate) struct ImagesArgs {
    /// Accepted, as docker does: nothing is hidden
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The digests that registries know them by as well
    #[arg(long)]
    pub(crate) digests: bool,
    /// Nothing cut short
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// KEY=VALUE: reference, label, before, since, dangling, until
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// A Go template, "table TEMPLATE", table or json
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
    /// Only these: REPOSITORY[:TAG], with * and ?
    #[arg(value_name = "REFERENCE")]
    pub(crate) reference: Option<String>,
}

/// Remove images
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl rmi alpine\n  ctl rmi -f web:1 web:2")]
pub(crate) struct RmiArgs {
    /// Also the last name of what containers were made from; what they need stays
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Keep what nothing else reaches, until the next prune
    #[arg(long)]
    pub(crate) no_prune: bool,
    /// Names, ids, or unique beginnings of ids
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

/// Give an image another name
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ctl tag web:1 registry.example/team/web:1")]
pub(crate) struct TagArgs {
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// Show how an image was made, the last step first
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl history debian:12\n  ctl history --no-trunc -q web")]
pub(crate) struct HistoryArgs {
    /// Ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Nothing cut short
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Sizes and times for people
    #[arg(
        short = 'H',
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        action = ArgAction::Set
    )]
    pub(crate) human: bool,
    /// A Go template, "table TEMPLATE", table or json
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
    /// OS/ARCHITECTURE[/VARIANT] [default: this machine's]
    #[arg(long, value_name = "PLATFORM", default_value = "", hide_default_value = true)]
    pub(crate) platform: String,
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
}

/// Show everything about images, in docker's JSON
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl image inspect debian:12\n  ctl image inspect -f '{{.Config.Cmd}}' web"
)]
pub(crate) struct InspectArgs {
    /// A Go template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
    /// OS/ARCHITECTURE[/VARIANT] [default: this machine's]
    #[arg(long, value_name = "PLATFORM", default_value = "", hide_default_value = true)]
    pub(crate) platform: String,
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

/// Remove what no image and no container reaches
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl image prune\n  ctl image prune -a --dry-run")]
pub(crate) struct PruneArgs {
    /// Also the images that no container was made from
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Don't ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// KEY=VALUE: until, label; label!=KEY
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
}

/// Take images out of an archive: docker's, or one of the OCI layout
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl load -i images.tar\n  ctl load -i layout/\n  \
        ctl load < images.tar.gz")]
pub(crate) struct LoadArgs {
    /// A file, or a directory of the OCI layout [default: stdin]
    #[arg(short, long, value_name = "FILE | DIR")]
    pub(crate) input: Option<PathBuf>,
    /// Print the names alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Only this part of them: OS/ARCHITECTURE[/VARIANT]
    #[arg(long, value_name = "PLATFORM", default_value = "", hide_default_value = true)]
    pub(crate) platform: String,
}

/// Make an image of a root file system, or take images out of an archive
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl import -c 'CMD [\"sh\"]' rootfs.tar.gz base:1\n  ctl import rootfs/ base\n  \
        ctl import images.tar"
)]
pub(crate) struct ImportArgs {
    /// Of a root file system: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub(crate) change: Vec<String>,
    /// A remark for its history
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) message: String,
    /// OS/ARCHITECTURE[/VARIANT] [default: this machine's]
    #[arg(long, value_name = "PLATFORM", default_value = "", hide_default_value = true)]
    pub(crate) platform: String,
    /// A tar, a directory, or - for stdin
    #[arg(value_name = "FILE | DIR | -")]
    pub(crate) file: PathBuf,
    #[arg(value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) name: String,
}

/// Write images to an archive that docker and OCI tools read
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl save -o web.tar web:1\n  ctl save web:1 db:2 | gzip > images.tar.gz"
)]
pub(crate) struct SaveArgs {
    /// A file, which appears when it is whole [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Only this part of them: OS/ARCHITECTURE[/VARIANT]
    #[arg(long, value_name = "PLATFORM", default_value = "", hide_default_value = true)]
    pub(crate) platform: String,
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}
